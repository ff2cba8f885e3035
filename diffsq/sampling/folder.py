"""The folder of a sample set: whose it is, and whether it may grow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lattice.ensembles.manifest import FILES as ENSEMBLE
from lattice.ensembles.manifest import refuse_foreign
from lattice.errors import InputError
from lattice.files import write_json
from lattice.requests import refuse_changes, stored_request

FILES = re.compile(rf"{ENSEMBLE.pattern}|(forward(-\d+)?|diagnostics)\.json|sequence\.h5")
"""The names in such a folder that are ours."""


def claim(out: Path, key: str, numbers: dict[str, int]) -> dict[str, Any]:
    """Take the folder `out` for the samples of this key; the request, to be put into their manifest.

    numbers: how many of what, which may be more than the folder holds. Raises `InputError`, before anything
    is written, for samples of another key, for fewer than there are, and for files of somebody else.
    """
    request = {"key": key, **numbers}
    found = stored_request(out)
    if found is None:
        refuse_foreign(out, FILES)
        write_json(out / "request.json", request)
    elif found.get("key") != key:
        raise InputError(
            f"{out}: holds samples made with other parameters; choose another folder, or remove it"
        )
    refuse_changes(out, found, request, "holds samples", grows=tuple(numbers))
    return request

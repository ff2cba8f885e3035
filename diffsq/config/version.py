"""Which diffsq wrote a config, said in its first line, and what is told where another one cannot read it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from lattice.errors import InputError

_STAMP = re.compile(r"^# written by diffsq (\S+)", re.MULTILINE)


def this_version() -> str:
    """The version of diffsq that runs."""
    return str(sys.modules["diffsq"].__version__)  # an import of the package's face would run in a circle


def stamped(text: str) -> str:
    """The text of a config with the version that writes it.

    >>> stamped("name: x").partition(" 0.")[0], version_of(stamped("name: x")) == this_version()
    ('# written by diffsq', True)
    """
    return f"# written by diffsq {this_version()}\n{text}"


def version_of(text: str) -> str | None:
    """The version that wrote a config; None where it does not say."""
    found = _STAMP.search(text)
    return None if found is None else found.group(1)


def unreadable(path: Path, error: InputError) -> InputError:
    """What is wrong with a config, with the file and, where another diffsq wrote it or may have, versions."""
    words, of_run = str(error), path.name == "config.yaml" and (path.parent / "stages.json").exists()
    written = version_of(path.read_text(encoding="utf-8"))
    if written is not None and written != this_version():
        return InputError(f"{path}: written by diffsq {written}, this is {this_version()}: {words}")
    if written is None and of_run:
        return InputError(
            f"{path}: written by an older diffsq, which named no version, this is {this_version()}: {words}"
        )
    foreign = written is None and ("unknown key" in words or "is missing" in words) and "did you" not in words
    return InputError(f"{path}: {words}" + (f" (this is diffsq {this_version()})" if foreign else ""))

"""Families of theories on disk: weights in safetensors and a model.json, as other models; and those shipped.

A name without a folder of that name is a checkpoint that comes with the package, in diffsq/checkpoints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from diffsq.models import family as family_module
from diffsq.models.family import Family
from lattice.errors import InputError, nearest, shown
from lattice.files import read_json, sha256_file, write_atomic, write_json

SCHEMA = f"diffsq-family/{family_module.VERSION}"
SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints"
LIMITS = {"n_line": 8, "n_kappa": 2000, "n_size": 64, "n_sigma": 256}


def save_family(family: Family, folder: Path, about: dict[str, Any]) -> None:
    """Write the model folder, model.json last; what that says becomes the model's `about`."""
    weights = {name: t.detach().cpu().contiguous().clone() for name, t in family.state_dict().items()}
    write_atomic(folder / "weights.safetensors", save(weights))
    digest = sha256_file(folder / "weights.safetensors")
    family.about = {**about, "schema": SCHEMA, "sizes": family.sizes, "sha256": digest}
    write_json(folder / "model.json", family.about)


def checkpoints() -> dict[str, Path]:
    """The folders of the models that come with the package, by name."""
    return {path.parent.name: path.parent for path in sorted(SHIPPED.glob("*/model.json"))}


def load_family(source: str | Path) -> Family:
    """The family in a folder, or the shipped one of that name.

    Raises `InputError` when missing, damaged, or of another kind or version.
    """
    folder, known = Path(source), checkpoints()
    if not folder.is_dir() and str(source) in known:
        folder = known[str(source)]
    path = folder / "model.json"
    if not path.is_file():
        raise InputError(
            f"{source}: no model of a family here (model.json expected), and none of that name comes with "
            f"diffsq{nearest(str(source), tuple(known))}"
        )
    about = read_json(path)
    if about.get("schema") != SCHEMA:
        raise InputError(
            f"{path}: schema is {shown(about.get('schema'))}, this version reads {SCHEMA}; fit it again"
        )
    weights = folder / "weights.safetensors"
    if not weights.is_file() or sha256_file(weights) != about.get("sha256"):
        raise InputError(
            f"{weights}: missing, or changed since it was written (sha256 is not that of model.json)"
        )
    try:
        sizes = about["sizes"]
        if set(sizes) != set(LIMITS) or not all(0 < int(sizes[k]) <= LIMITS[k] for k in LIMITS):
            raise ValueError(f"sizes {shown(sizes)}")
        found = Family(**sizes)
        found.load_state_dict(load(weights.read_bytes()))
        if not all(bool(torch.isfinite(t).all()) for t in found.state_dict().values()):
            raise ValueError("weights that are not finite")
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{weights}: weights do not fit the model described in model.json: {reason}"
        ) from None
    found.about = about
    return found.eval()

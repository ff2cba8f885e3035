"""Gaussian machines on disk: weights, mu^2 and source in safetensors, and a JSON file that says what they
are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from diffsq.models.rbm import GaussianRBM
from lattice.errors import InputError, shown
from lattice.files import read_json, sha256_file, write_atomic, write_json

SCHEMA = "diffsq-gaussian-rbm/1"


def save_machine(machine: GaussianRBM, folder: Path, about: dict[str, Any]) -> None:
    """Write weights.safetensors and, last, model.json: what `about` says, schema, sizes, hash."""
    tensors = {"w": machine.w.contiguous(), "mu2": machine.mu2.contiguous()}
    if machine.source is not None:
        tensors["source"] = machine.source.contiguous()
    write_atomic(folder / "weights.safetensors", save(tensors))
    digest = sha256_file(folder / "weights.safetensors")
    sizes = {"s": machine.s, "n_visible": machine.w.shape[-2], "n_hidden": machine.w.shape[-1]}
    write_json(folder / "model.json", {**about, "schema": SCHEMA, "sizes": sizes, "sha256": digest})


def load_machine(folder: str | Path) -> tuple[GaussianRBM, dict[str, Any]]:
    """The machine of a folder, and its model.json. Raises `InputError` when missing, damaged or of another
    kind, and where its K is not positive."""
    folder = Path(folder)
    path, about_path = folder / "weights.safetensors", folder / "model.json"
    if not path.is_file() or not about_path.is_file():
        raise InputError(f"{folder}: no trained machine here (weights.safetensors and model.json expected)")
    about = read_json(about_path)
    if about.get("schema") != SCHEMA:
        raise InputError(f"{about_path}: schema is {shown(about.get('schema'))}, expected {SCHEMA!r}")
    if sha256_file(path) != about.get("sha256"):
        raise InputError(f"{path}: changed since it was written (sha256 is not that of model.json)")
    try:
        tensors = load(path.read_bytes())
        machine = GaussianRBM(tensors["w"], tensors["mu2"], tensors.get("source"), float(about["sizes"]["s"]))
        sound = machine.w.dtype == torch.float64 and machine.w.ndim == 2 and machine.mu2.ndim == 0
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not the weights that model.json describes: {error}") from None
    if not sound:
        raise InputError(f"{path}: not the weights of a Gaussian machine, float64 (n_visible, n_hidden)")
    machine.require_positive(f"in {path}")
    return machine, about

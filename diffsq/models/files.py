"""Models on disk: weights in safetensors and a JSON file that says what they are, atomically written.

A model folder holds weights.safetensors (averaged weights and fitted tables) and model.json (what is needed
to rebuild the model, and what it was trained on).
"""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from diffsq.config.sections import PointTraining
from diffsq.models import lattice, points
from diffsq.models.lattice import N_CHANNEL, N_CONDITION, LatticeScore
from diffsq.models.momentum import Momenta
from diffsq.models.points import PointModel
from diffsq.models.regression import RegressionBase
from diffsq.models.unet import UNet
from lattice.errors import InputError
from lattice.files import read_json, sha256_file, write_atomic, write_json

SCHEMA = f"diffsq-model/{lattice.VERSION}"


def build_model(shape: tuple[int, ...], sizes: dict[str, int]) -> LatticeScore:
    """An unfitted model. sizes: channels (0: no U-Net), n_levels, n_sigma."""
    base = RegressionBase(Momenta(shape), sizes["n_sigma"])
    unet = UNet(N_CHANNEL, N_CONDITION, sizes["channels"], sizes["n_levels"]) if sizes["channels"] else None
    return LatticeScore(base, unet)


def save_model(model: LatticeScore, folder: Path, about: dict[str, Any]) -> None:
    """Write the model folder; `about`: action, sde, sizes, ensemble (identity), config."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()})
    write_atomic(folder / "weights.safetensors", weights)
    digest = sha256_file(folder / "weights.safetensors")
    write_json(
        folder / "model.json", {"schema": SCHEMA, "shape": list(model.shape), "sha256": digest, **about}
    )


def load_model(folder: Path) -> tuple[LatticeScore, dict[str, Any]]:
    """The model of a folder and its model.json.

    Raises `InputError` when missing, damaged or of another schema.
    """
    path = folder / "weights.safetensors"
    if not path.is_file() or not (folder / "model.json").is_file():
        raise InputError(f"{folder}: no trained model here (weights.safetensors and model.json expected)")
    about = read_json(folder / "model.json")
    if about.get("schema") != SCHEMA:
        raise InputError(f"{folder}/model.json: schema is {about.get('schema')!r}, expected {SCHEMA!r}")
    absent = [name for name in ("shape", "sizes", "sha256", "action", "ensemble") if name not in about]
    if absent:
        raise InputError(f"{folder}/model.json: no {', '.join(absent)} in it; the file was edited")
    if sha256_file(path) != about["sha256"]:
        raise InputError(f"{path}: changed since it was written (sha256 is not that of model.json)")
    shape, sizes = about["shape"], about["sizes"]
    names = {"channels", "n_levels", "n_sigma"}
    numbers = isinstance(shape, list) and isinstance(sizes, dict) and names <= sizes.keys()
    if not numbers or not all(isinstance(n, int) and 0 <= n <= 4096 for n in [*shape, *sizes.values()]):
        raise InputError(f"{folder}/model.json: shape or sizes are not integers; the file was edited")
    model = build_model(tuple(shape), sizes)
    try:
        model.load_state_dict(load(path.read_bytes()))
    except (RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: weights do not fit the model described in model.json: {reason}") from None
    return model.eval(), about


def save_points(model: PointModel, folder: Path, about: dict[str, Any]) -> None:
    """Write weights.safetensors and, last, model.json with `about`."""
    weights = save({name: t.detach().contiguous() for name, t in model.state_dict().items()})
    write_atomic(folder / "weights.safetensors", weights)
    write_json(folder / "model.json", {**about, "sha256": sha256_file(folder / "weights.safetensors")})


def load_points(folder: Path) -> PointModel:
    """The model of a folder. Raises `InputError` when missing, damaged or of another schema."""
    path, about_path = folder / "weights.safetensors", folder / "model.json"
    if not path.is_file() or not about_path.is_file():
        raise InputError(f"{folder}: no trained model here (weights.safetensors and model.json expected)")
    about = read_json(about_path)
    if about.get("schema") != POINT_SCHEMA:
        raise InputError(f"{about_path}: schema is {about.get('schema')!r}, expected {POINT_SCHEMA!r}")
    if sha256_file(path) != about.get("sha256"):
        raise InputError(f"{path}: changed since it was written (sha256 is not that of model.json)")
    try:
        settings = PointTraining(**about["settings"])
        model = PointModel(int(about["dim"]), settings.kind, settings.width, settings.depth)
        model.load_state_dict(load(path.read_bytes()))
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder}: weights and model.json do not fit each other: {reason}") from None
    return model.eval().requires_grad_(False)


POINT_SCHEMA = f"diffsq-points/{points.VERSION}"

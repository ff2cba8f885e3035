"""Models on disk: weights in safetensors and a JSON file that says what they are, atomically written.

A model folder holds weights.safetensors (averaged weights and fitted tables) and, written last, model.json:
its schema, which names the kind of model and the version of its function, the sizes that rebuild it, what it
was trained on, and the hash of the weights.
"""

import math
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from diffsq.models import gauge, lattice, machine_files, points, torus
from diffsq.models.gauge import GaugeScore
from diffsq.models.lattice import LatticeScore, fresh_unet
from diffsq.models.machine_files import load_machine
from diffsq.models.points import PointModel
from diffsq.models.rbm import GaussianRBM
from diffsq.models.site_network import SiteNetwork
from diffsq.models.torus import TorusNetwork, TorusScore
from lattice.errors import InputError, shown
from lattice.files import read_json, set_aside, sha256_file, write_atomic, write_json

Model = TypeVar("Model", LatticeScore, PointModel, GaugeScore, TorusScore)
Learned = LatticeScore | PointModel | GaugeScore | TorusScore | GaussianRBM
SCHEMA: dict[type, str] = {
    LatticeScore: f"diffsq-lattice/{lattice.VERSION}",
    PointModel: f"diffsq-points/{points.VERSION}",
    GaugeScore: f"diffsq-gauge/{gauge.VERSION}",
    TorusScore: f"diffsq-torus/{torus.VERSION}",
}
MAX_SIZE = 4096


def save_model(model: Model, folder: Path, about: dict[str, Any]) -> Model:
    """Write the model folder. Returns the model, what model.json says as its `about`.

    about: what it was trained on and with; for a lattice at least `action` and `ensemble` (identity).
    """
    weights = save({name: t.detach().cpu().contiguous().clone() for name, t in model.state_dict().items()})
    write_atomic(folder / "weights.safetensors", weights)
    digest = sha256_file(folder / "weights.safetensors")
    model.about = {**about, "schema": SCHEMA[type(model)], "sizes": model.sizes, "sha256": digest}
    write_json(folder / "model.json", model.about)
    return model


@overload
def load_model(folder: str | Path) -> Learned: ...
@overload
def load_model(folder: str | Path, kind: type[Model]) -> Model: ...
def load_model(folder: str | Path, kind: type[Any] | None = None) -> Learned:
    """The model of a folder, in evaluation mode, its model.json as `about`; `kind`: the class wanted.

    Raises `InputError` when missing, damaged, or of another kind or schema.
    """
    folder = Path(folder)
    path, about_path = folder / "weights.safetensors", folder / "model.json"
    if not path.is_file() or not about_path.is_file():
        raise InputError(f"{folder}: no trained model here (weights.safetensors and model.json expected)")
    about = read_json(about_path)
    if kind is None and about.get("schema") == machine_files.SCHEMA:
        return load_machine(folder)[0]
    schema, known = about.get("schema"), {SCHEMA[k]: k for k in SCHEMA if kind in (None, k)}
    if not isinstance(schema, str) or schema not in known:
        raise InputError(f"{about_path}: schema is {shown(schema)}, expected {' or '.join(map(repr, known))}")
    absent = [name for name in ("sizes", "sha256") if name not in about]
    if absent:
        raise InputError(f"{about_path}: no {', '.join(absent)} in it; the file was edited")
    if sha256_file(path) != about["sha256"]:
        raise InputError(f"{path}: changed since it was written (sha256 is not that of model.json)")
    try:
        sizes, tensors = _checked(about["sizes"]), load(path.read_bytes())
        model: Any = _built(known[schema], sizes, tensors)
        model.load_state_dict(tensors)
    except (
        TypeError, ValueError, LookupError, ArithmeticError, AssertionError, RuntimeError, SafetensorError,
    ) as error:  # fmt: skip
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: weights do not fit the model described in model.json: {reason}") from None
    model.about = about
    found: Learned = model.eval().requires_grad_(False)
    return found


def finished_model(folder: Path, key: str, kind: type[Model]) -> Model | None:
    """The model of a folder if it was made with this key, else None; the files of a model made with another
    key are set aside (lattice.files.set_aside): a new one will take their place."""
    path = folder / "model.json"
    if not path.is_file():
        return None
    if read_json(path).get("key") == key:
        return load_model(folder, kind)
    for name in ("weights.safetensors", "metrics.jsonl", "validation.json", "model.json"):
        if (folder / name).is_file():
            set_aside(folder / name)
    return None


def _built(kind: type, sizes: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    """An empty model of these sizes; of links one with the tables of its own tensors."""
    if kind in (GaugeScore, TorusScore):
        held, shape = sum(t.numel() for t in tensors.values()), tuple(sizes["shape"])
        if len(shape) != 2 or not math.prod(shape) <= 4 * held:
            raise ValueError(f"a lattice {sizes['shape']} has more momenta than the file has numbers")
        if kind is GaugeScore:
            return GaugeScore(shape, tensors["harmonics"], (tensors["charges"], tensors["log_charge"]))
        with torch.device("meta"):
            if sum(w.numel() for w in TorusNetwork(sizes["channels"]).parameters()) > held:
                raise ValueError(f"a network of {sizes['channels']} channels is larger than the file")
        return TorusScore(shape, sizes["channels"], 1.0, 1.0, 1.0)
    _check_size(kind is LatticeScore, sizes, tensors)
    return LatticeScore.unfitted(**sizes) if kind is LatticeScore else PointModel(**sizes)


def _check_size(lattice_kind: bool, sizes: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Refuse sizes of more numbers than the file holds before any of them is allocated."""
    held = sum(t.numel() for t in tensors.values())
    if lattice_kind:
        # the tables are of classes of momenta, eight or more in one
        if math.prod(sizes["shape"]) > 64 * held:
            raise ValueError(f"a lattice {sizes['shape']} has more momenta than the file has numbers")
        if sizes["n_sigma"] > len(tensors["base.log_sigma"]):
            raise ValueError(f"n_sigma {sizes['n_sigma']} is more than the file has levels")
        channels, n_levels = (
            sizes.get(name, default) for name, default in (("channels", 0), ("n_levels", 1))
        )
        options = {name: sizes.get(name, 0) for name in ("site", "covariance")}
        with torch.device("meta"):
            network: nn.Module | None = (
                fresh_unet(channels, n_levels, **options) if channels and n_levels <= 16 else None
            )
            closed = SiteNetwork(sizes.get("network", 0))
        modules = [m for m in (network, closed) if m is not None]
        needed = sizes["n_sigma"] + sum(p.numel() for m in modules for p in m.parameters())
        known = n_levels <= 16
    else:
        known = sizes["dim"] <= 64 and sizes["depth"] <= 64
        with torch.device("meta"):
            needed = sum(t.numel() for t in PointModel(**sizes).state_dict().values()) if known else 0
    if not known or needed > held:
        raise ValueError(f"sizes {shown(sizes)} ask for more numbers than the {held} of the file")


def _checked(sizes: Any) -> dict[str, Any]:
    """Sizes as they were written: whole numbers, lists of them, and words."""
    if not isinstance(sizes, dict):
        raise ValueError("sizes are not a table; the file was edited")
    flat = [n for value in sizes.values() for n in (value if isinstance(value, list) else [value])]
    if not all(
        isinstance(n, str) or isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= MAX_SIZE
        for n in flat
    ):
        raise ValueError(f"sizes {shown(sizes)} are not integers up to {MAX_SIZE}; the file was edited")
    return sizes

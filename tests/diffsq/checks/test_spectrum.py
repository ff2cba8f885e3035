"""`check spectrum`: networks as they are initialised are white, learned structure is not; none is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diffsq.checks import spectrum
from diffsq.checks.perform import serves
from diffsq.models.files import save_model
from diffsq.models.lattice import LatticeScore
from diffsq.models.points import PointModel
from diffsq.models.unet import initialise
from diffsq.run_folder.finished import PointBench, Workbench
from lattice.errors import InputError
from lattice.progress import Silent


def points(model: PointModel) -> PointBench:
    nothing: Any = None
    return PointBench(Path("run"), nothing, nothing, {"score": model}, nothing)


def fields(channels: int, models: tuple[str, ...] = ("score",), folder: Path = Path("run")) -> Workbench:
    bench = Workbench.__new__(Workbench)
    model = LatticeScore.unfitted((8, 8), 4, channels=channels, n_levels=2)
    if model.unet is not None:
        initialise(model.unet, torch.Generator().manual_seed(2))
    bench.__dict__.update(folder=folder, model=model, config=SimpleNamespace(models=models))
    return bench


def test_an_untrained_network_is_white_and_a_trained_one_need_not_be() -> None:
    model = PointModel(1, "score", 48, 3)
    initialise(model, torch.Generator().manual_seed(1))
    found = spectrum.run(points(model), Silent())
    rows = {name: row for name, row in found["matrices"].items() if row["shape"] == [48, 48]}
    assert rows
    assert all(name.startswith("score.") for name in rows)
    assert all(row["ks"] < 1.5 * row["ks_null_95"] for row in rows.values())
    name = next(iter(rows))
    weight = dict(model.named_parameters())[name.removeprefix("score.")]
    with torch.no_grad():
        weight += torch.outer(*torch.randn(2, 48, generator=torch.Generator().manual_seed(1)))
    assert spectrum.run(points(model), Silent())["matrices"][name]["outliers"] == 1
    assert name in spectrum.text(found)
    assert spectrum.figure(found).axes


def test_convolutions_of_a_score_network() -> None:
    found = spectrum.run(fields(32), Silent())
    kernels = {name: row for name, row in found["matrices"].items() if "conv" in name}
    assert len(kernels) >= 4
    assert all(min(row["shape"]) == row["shape"][0] for row in kernels.values())
    assert serves("spectrum", fields(0))


def test_every_model_of_a_run(tmp_path: Path) -> None:
    """The first may be the closed form alone."""
    second = LatticeScore.unfitted((8, 8), 4, channels=8, n_levels=2)
    save_model(second, tmp_path / "train" / "score", {"action": {}, "ensemble": ""})
    found = spectrum.run(fields(0, ("closed", "score"), tmp_path), Silent())
    assert found["matrices"]
    assert all(name.startswith("score.") for name in found["matrices"])


def test_no_network() -> None:
    with pytest.raises(InputError, match="run: its models have no network"):
        spectrum.run(fields(0), Silent())

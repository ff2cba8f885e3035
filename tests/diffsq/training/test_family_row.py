"""A run that learns a family: its ensembles, its model folder, what is skipped and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from diffsq import pipeline
from diffsq.config.config import config_from_dict
from diffsq.models.family_files import load_family
from diffsq.training import family as family_fit
from diffsq.training import grid
from diffsq.training.grid import points_of
from lattice.errors import InputError

RUN: dict[str, Any] = {
    "name": "x", "models": ["family"],
    "ensemble": {
        "lines": [{"lam": 0.1, "kappa": [0.1, 0.15, 0.2, 0.25]}], "sizes": [4, 8], "n_configs": 512,
        "n_chains": 16,
    },
    "training": {"n_fit": 64, "n_sigma": 16, "sigma_min": 0.2}, "checks": {"curves": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("family") / "run"
    pipeline.run(config_from_dict(RUN), out, ("ensemble",), say=lambda text: None)
    pipeline.run(config_from_dict(RUN), out, ("train",), say=lambda text: None, accept_uncertified=True)
    return out


def test_the_model_says_what_it_was_made_of(folder: Path) -> None:
    family = load_family(folder / "train" / "family")
    config: Any = config_from_dict(RUN)
    assert sorted(family.about["identities"]) == sorted(points_of(config))
    assert all(len(identity) == 64 for identity in family.about["identities"].values())
    assert family.about["certificate"]["n"] == 8 * 512
    assert family.couplings.largest == 16
    assert family.at(0.17, 0.1, 16).shape == (16, 16)


def test_a_second_run_changes_nothing(folder: Path) -> None:
    path = folder / "train" / "family" / "weights.safetensors"
    before, said = path.stat().st_mtime_ns, list[str]()
    pipeline.run(config_from_dict(RUN), folder, ("train",), say=said.append, accept_uncertified=True)
    assert path.stat().st_mtime_ns == before
    assert any("unchanged" in line for line in said)


def test_a_fit_goes_on_where_it_was_killed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits, and no theory twice; nothing of it is left in the end."""
    made, own = list[int](), family_fit._equations

    def counted(*given: Any) -> Any:
        if len(made) == 5 and not (run / "stopped").exists():
            (run / "stopped").touch()
            raise KeyboardInterrupt
        made.append(1)
        return own(*given)

    run = tmp_path / "run"
    shutil.copytree(folder, run)
    config = config_from_dict({**RUN, "training": {**RUN["training"], "n_sigma": 17}})
    monkeypatch.setattr(family_fit, "_equations", counted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(config, run, ("train",), say=lambda text: None, accept_uncertified=True, restart="train")
    parts = run / "train" / "family" / "parts"
    assert len(list(parts.glob("*.safetensors"))) == 5
    damaged = sorted(parts.glob("*.safetensors"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-8])
    pipeline.run(config, run, ("train",), say=lambda text: None, accept_uncertified=True)
    assert not parts.exists()
    total, straight = len(made) - 1, tmp_path / "straight"
    made.clear()
    shutil.copytree(folder, straight)
    pipeline.run(
        config, straight, ("train",), say=lambda text: None, accept_uncertified=True, restart="train"
    )
    assert len(made) == total > 6
    name = Path("train", "family", "weights.safetensors")
    assert (run / name).read_bytes() == (straight / name).read_bytes() != (folder / name).read_bytes()


def test_an_ensemble_that_failed_is_named_and_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = grid._checked

    def failing(name: str, action: Any, ensemble: Any) -> Any:
        check = own(name, action, ensemble)
        return {**check, "passed": False, "detail": "too short"} if "L8_kappa0.2_" in name else check

    monkeypatch.setattr(grid, "_checked", failing)
    pipeline.run(config_from_dict(RUN), tmp_path, ("ensemble",), say=lambda text: None)
    with pytest.raises(InputError, match=r"failed its certificate \(L8_kappa0.2_lam0.1 \(too short\)"):
        pipeline.run(config_from_dict(RUN), tmp_path, ("train",), say=lambda text: None)
    assert not (tmp_path / "train" / "family" / "model.json").exists()

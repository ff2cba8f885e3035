"""Sampling: prefixes, SIGKILL between shards, samplers without weights, refusals, diagnostics."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from fields import free_fields
from killer import killed
from longer import same_numbers
from small_config import ACTION, SETTINGS, make_ensemble
from small_models import equilibrium, noise_of, phi4_model, still
from small_paths import path_of

from diffsq.config.config import Config, config_from_dict
from diffsq.exactness.efficiency import diagnose
from diffsq.exactness.weights import forward_ess
from diffsq.models.files import load_model
from diffsq.models.lattice import LatticeScore
from diffsq.sampling.lattice_path import ReversePath
from diffsq.sampling.lattice_sets import sample, wiener_of
from diffsq.training.lattice import train
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.ensembles.writer import write_ensemble
from lattice.errors import InputError
from lattice.statistics.pulls import mean_and_error


def config(**sampling: Any) -> Config:
    small = {"n_samples": 100, "n_levels": 4, "n_forward": 64}
    return config_from_dict({**SETTINGS, "sampling": {**small, **sampling}})


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an ensemble and a model trained on it."""
    folder = tmp_path_factory.mktemp("work")
    write_ensemble(make_ensemble(), folder / "ensemble")
    train(config(), read_ensemble(folder / "ensemble"), folder / "train")
    return folder


@pytest.fixture(scope="module")
def ensemble(work: Path) -> Ensemble:
    return read_ensemble(work / "ensemble")


def draw(work: Path, ensemble: Ensemble, out: Path, **sampling: Any) -> Ensemble:
    return sample(config(**sampling), load_model(work / "train", LatticeScore), ensemble, out)


def test_a_longer_sample_begins_with_the_shorter_one(work: Path, ensemble: Ensemble, tmp_path: Path) -> None:
    short = draw(work, ensemble, tmp_path / "a", n_samples=100)
    long = draw(work, ensemble, tmp_path / "b", n_samples=200)
    assert len(long) == 200
    assert short.log_weight is not None
    assert long.log_weight is not None
    assert np.array_equal(long.phi[:100], short.phi)
    assert np.array_equal(long.log_weight[:100], short.log_weight)
    assert len(np.unique(long.log_weight)) == 200
    model = load_model(work / "train", LatticeScore)
    other = sample(config_from_dict({**config().model_dump(), "seed": 9}), model, ensemble, tmp_path / "c")
    assert not np.isin(other.phi, short.phi).any()


def test_diagnostics_and_sequence(work: Path, ensemble: Ensemble, tmp_path: Path) -> None:
    samples = draw(work, ensemble, tmp_path, n_samples=128)
    found = diagnose(tmp_path, 3)
    assert json.loads((tmp_path / "diagnostics.json").read_text()) == found
    assert found["levels"][0] == 0
    assert len(found["levels"]) == 5
    assert samples.log_weight is not None
    assert found["reverse"]["log_weight"] == samples.log_weight.tolist()
    assert len(found["forward"]["log_weight"]) == 64
    forward, held = json.loads((tmp_path / "forward.json").read_text()), ensemble.split_chains(0.125)[1]
    assert set(np.unique(forward["chain"], return_counts=True)[1]) == {64 // len(np.unique(held.chain))}
    assert len(set(zip(forward["chain"], forward["trajectory"]))) == 64
    assert 0 < found["reverse"]["ess"] <= 1
    assert 0 < found["acceptance"] <= 1
    assert found["acceptance_error"] > 0
    names = ("wiener", "base", "model", "gain")
    assert {*names, *(f"{name}_error" for name in names)} == set(found["kl"])
    assert all(np.isfinite(value) for value in found["kl"].values())
    with h5py.File(tmp_path / "sequence.h5") as h5:
        assert h5["sigma"][-1] == 0
        assert (np.diff(h5["sigma"][:]) < 0).all()
        assert np.array_equal(h5["phi"][-1], samples.phi[0])
    assert (
        samples.attrs["generated"]["model"] == json.loads((work / "train/model.json").read_text())["sha256"]
    )


def test_sigkill_between_shards_and_the_same_again(work: Path, ensemble: Ensemble, tmp_path: Path) -> None:
    model = load_model(work / "train", LatticeScore)
    killed("samples", 20, sample, config(n_samples=2100), model, ensemble, tmp_path / "killed")
    assert len(list((tmp_path / "killed").glob("shard-*"))) == 1
    assert not (tmp_path / "killed/manifest.json").exists()
    resumed = draw(work, ensemble, tmp_path / "killed", n_samples=2100)
    straight = draw(work, ensemble, tmp_path / "straight", n_samples=2100)
    assert resumed.identity == straight.identity
    assert np.array_equal(resumed.phi, straight.phi)
    for name in ("forward.json", "sequence.h5"):
        a, b = tmp_path / "killed" / name, tmp_path / "straight" / name
        assert a.read_bytes() == b.read_bytes(), name


@pytest.mark.parametrize("method", ["euler", "pc", "heun"])
def test_samplers_without_weights(method: str, work: Path, ensemble: Ensemble, tmp_path: Path) -> None:
    found = draw(work, ensemble, tmp_path, method=method, n_samples=70, n_levels=12)
    assert found.log_weight is None
    assert len(found) == 70
    assert found.attrs["generated"]["sampler"] == method
    diagnostics = diagnose(tmp_path, 3)
    assert "ln_z" not in diagnostics
    assert "reverse" not in diagnostics
    assert np.isfinite(found.phi).all()


def test_a_model_for_something_else_is_refused(work: Path, ensemble: Ensemble, tmp_path: Path) -> None:
    for name, other in (
        ("lattice", Ensemble.from_fields(ensemble.phi.reshape(-1, 4, 8), ACTION, chain=ensemble.chain[::2])),
        ("action", Ensemble.from_fields(ensemble.phi, ScalarPhi4(0.21, 0.05), chain=ensemble.chain)),
        ("ensemble", Ensemble.from_fields(1.01 * ensemble.phi, ACTION, chain=ensemble.chain)),
    ):
        with pytest.raises(InputError, match=f"trained for {name} "):
            draw(work, other, tmp_path / name)
        assert not (tmp_path / name).exists()
    untrained = LatticeScore.unfitted((4, 4), 4)
    with pytest.raises(InputError, match="trained for action None"):
        sample(config(), untrained, ensemble, tmp_path / "none")


def test_other_settings_in_the_same_folder_are_refused(
    work: Path, ensemble: Ensemble, tmp_path: Path
) -> None:
    draw(work, ensemble, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.glob("shard-*")}
    with pytest.raises(InputError, match="other parameters"):
        draw(work, ensemble, tmp_path, n_levels=6)
    assert {p: p.read_bytes() for p in tmp_path.glob("shard-*")} == before


@pytest.mark.parametrize("method", ["path", "euler"])
def test_a_model_that_gives_nan_stops(method: str, work: Path, ensemble: Ensemble, tmp_path: Path) -> None:
    model = load_model(work / "train", LatticeScore)
    assert model.unet is not None
    with torch.no_grad():
        model.unet.head.conv.weight[0, 0, 1, 1] = torch.nan
    with pytest.raises(InputError, match=r"not finite|NaN"):
        sample(config(method=method), model, ensemble, tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()


def test_infinite_weights_stop(
    work: Path, ensemble: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffsq.sampling.lattice_path import ModeGaussian

    monkeypatch.setattr(ModeGaussian, "log_density", lambda self, x: torch.full((len(x),), -torch.inf))
    with pytest.raises(InputError, match=r"forward log-weights \(model\) are NaN or infinite"):
        draw(work, ensemble, tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def more_kl(a: ReversePath, b: ReversePath, action: ScalarPhi4, phi: torch.Tensor) -> tuple[float, float]:
    """Path KL of b minus that of a on the same noised fields, and its error: ln Z drops out."""
    up = noise_of("up", len(phi), tuple(phi.shape[1:]))
    mine, theirs = (path.weigh(phi, action.action, up, still)[0].numpy() for path in (a, b))
    return mean_and_error(theirs - mine)


def test_the_wiener_rival_is_the_base_in_a_free_field() -> None:
    action = FreeScalar(0.2)
    phi = free_fields(action, (6, 6), 1024, seed=4)
    base = phi4_model(action, phi[:512], n_sigma=8)
    more, error = more_kl(path_of(base, 12), path_of(wiener_of(base.base), 12), action, phi[512:])
    assert abs(more) < 4 * error
    assert error < 0.02


def test_the_wiener_rival_is_the_linear_filter_with_its_own_variance() -> None:
    """Near kappa_c it has the law of the zero mode that the base has, wider steps, and loses by its score."""
    action, shape = ScalarPhi4(0.27, 0.022), (6, 6)
    phi = equilibrium(action, shape, 1024)
    base = phi4_model(action, phi[:512])
    rival, bare = wiener_of(base.base), LatticeScore.unfitted(shape, len(base.base.log_sigma))
    bare.base.g.copy_(base.base.g)
    bare.base.log_sigma.copy_(base.base.log_sigma)
    assert base.base.coefficients.any()  # as it was
    x, sigma = phi[:8], torch.full((8,), 0.5, dtype=torch.float64)
    assert torch.allclose(rival.score(x, sigma), bare.score(x, sigma), atol=1e-12)
    paths = [path_of(model, 12) for model in (base, rival, bare)]
    assert [path.two_peaks for path in paths] == [True, True, False]
    assert paths[1].variance.sum() > paths[0].variance.sum()
    assert torch.equal(paths[1].variance, paths[2].variance)
    up = noise_of("up", 512, shape)
    sizes = [forward_ess(path.weigh(phi[512:], action.action, up, still)[0].numpy()) for path in paths[:2]]
    (base_ess, error), (rival_ess, its_error) = sizes
    assert base_ess - rival_ess > 4 * math.hypot(error, its_error)


@pytest.mark.parametrize("method", ["path", "heun"])
def test_more_samples_go_on_from_what_is_there(
    method: str, work: Path, ensemble: Ensemble, tmp_path: Path
) -> None:
    """From 100, in the middle of a block and of a shard, to the 1300 of one go; forward weights too."""
    more = {"method": method, "n_samples": 1300, "n_forward": 60}
    short = draw(work, ensemble, tmp_path / "a", method=method, n_samples=100, n_forward=20)
    first = (tmp_path / "a/shard-0000.h5").read_bytes()
    model = load_model(work / "train", LatticeScore)
    killed("samples", 19, sample, config(**more), model, ensemble, tmp_path / "a")
    assert same_numbers(read_ensemble(tmp_path / "a"), short)
    assert (tmp_path / "a/shard-0001.h5").exists(), "the kill came before anything was made"
    longer = draw(work, ensemble, tmp_path / "a", **more)
    assert same_numbers(longer, draw(work, ensemble, tmp_path / "b", **more))
    assert not same_numbers(longer, short)
    assert (tmp_path / "a/shard-0000.h5").read_bytes() == first
    if method == "path":
        forward = [json.loads((tmp_path / name / "forward.json").read_text()) for name in "ab"]
        assert forward[0] == forward[1]
        assert len(forward[0]["model"]) == 60
    for fewer in ({"n_samples": 200}, {"n_forward": 20}):
        with pytest.raises(InputError, match=r"it holds more than that; ask for n_(samples=1300|forward=60)"):
            draw(work, ensemble, tmp_path / "a", **{**more, **fewer})


def test_forward_weights_that_are_there_are_not_made_again(
    work: Path, ensemble: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More samples alone: every block of forward weights is the same fields."""
    draw(work, ensemble, tmp_path, n_samples=64, n_forward=32)

    def again(*args: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("diffsq.sampling.lattice_path.ReversePath.weigh", again)
    assert len(draw(work, ensemble, tmp_path, n_samples=128, n_forward=32)) == 128
    with pytest.raises(AssertionError):  # the control: other fields
        draw(work, ensemble, tmp_path, n_samples=128, n_forward=64)


@pytest.mark.parametrize("name", ["forward.json", "shard-0000.h5"])
def test_a_file_of_somebody_else_is_never_replaced(
    name: str, work: Path, ensemble: Ensemble, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name}: is there already"):
        draw(work, ensemble, tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]

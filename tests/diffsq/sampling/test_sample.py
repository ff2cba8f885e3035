"""train and sample of one variable: what belongs together, and which set is which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from longer import same_numbers

from diffsq.analysis.point_cumulants import flows
from diffsq.config.config import Config, load_config
from diffsq.exactness.path_metropolis import correct
from diffsq.models.points import PointModel
from diffsq.sampling.point_sets import PointDraws
from diffsq.sampling.sample import sample
from diffsq.training.train import train
from lattice.actions.one_variable import TwoPeak
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.simulation.simulate import simulate

SMALL = (
    "n_parts=0", "ensemble.n_configs=4000", "training.n_steps=20", "training.n_sigma=12",
    "training.n_nodes=512", "training.batch_size=256", "training.width=8", "sampling.n_samples=1000",
    "sampling.n_levels=8",
)  # fmt: skip


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config("toy_double_well", SMALL)


@pytest.fixture(scope="module")
def ensemble(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    return simulate(
        config.action, config.shape, config.ensemble, seed=1, out=tmp_path_factory.mktemp("s") / "e"
    )


@pytest.fixture(scope="module")
def model(config: Config, ensemble: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> PointModel:
    trained = train(config, ensemble, tmp_path_factory.mktemp("m"), name="energy")
    assert isinstance(trained, PointModel)
    return trained


def test_a_folder_does_not_answer_for_another_process(
    config: Config, ensemble: Ensemble, model: PointModel, tmp_path: Path
) -> None:
    ve = sample(config, model, ensemble, tmp_path / "one", sde="ve")
    assert sample(config, model, ensemble, tmp_path / "one", sde="ve").identity == ve.identity
    heun = load_config("toy_double_well", (*SMALL, "sampling.method=heun"))
    for other, sde in ((config, "vp"), (heun, "ve")):
        with pytest.raises(InputError, match="made with other parameters; choose another folder"):
            sample(other, model, ensemble, tmp_path / "one", sde=sde)
    vp = sample(config, model, ensemble, tmp_path / "two", sde="vp")
    assert vp.attrs["about"]["sde"] == "vp"
    assert not np.array_equal(ve.phi, vp.phi)


def test_what_does_not_belong_together_is_refused(
    config: Config, ensemble: Ensemble, model: PointModel, tmp_path: Path
) -> None:
    peaks = Ensemble.from_fields(ensemble.phi.copy(), TwoPeak(1.0, 0.25))
    shifted = Ensemble.from_fields(ensemble.phi + 0.25, config.action)
    for data in (peaks, shifted):
        with pytest.raises(InputError, match="not the config's|was not trained on this ensemble"):
            sample(config, model, data, tmp_path / "samples")
    with pytest.raises(InputError, match="not the config's"):
        train(config, peaks, tmp_path / "train")
    for name in ("enrgy", "part-0"):
        with pytest.raises(InputError, match=f"score, energy; got '{name}'"):
            train(config, ensemble, tmp_path / "train", name=name)
    assert not list(tmp_path.iterdir())


def test_fewer_samples_than_a_block_are_followed(
    ensemble: Ensemble, model: PointModel, config: Config
) -> None:
    draws = PointDraws(config.sampling, 1, ensemble, {"energy": model})
    for entry in flows(draws):
        value = np.array(entry["forward"]["value"])[0]
        data = (ensemble.phi[:1000] ** 2).mean()
        assert value[0] == pytest.approx(data, rel=1e-12)  # kappa_2 of the data themselves at level 0


@pytest.mark.parametrize("method", ["flow", "path"])
def test_more_points_go_on_from_what_is_there(
    method: str, config: Config, ensemble: Ensemble, model: PointModel, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Across a block, and across the number from which tables pay; what is known of the whole is added up."""

    def drawn(out: str, n: int) -> Ensemble:
        more = (*SMALL, f"sampling.n_samples={n}", f"sampling.method={method}", "sampling.n_levels=4")
        return sample(load_config("toy_double_well", more), model, ensemble, tmp_path / out)

    monkeypatch.setattr("diffsq.sampling.point_sets.SHARD", 8000)
    short, longer, fresh = drawn("a", 1000), drawn("a", 70_000), drawn("b", 70_000)
    assert same_numbers(longer, fresh)
    assert not same_numbers(longer, short)
    assert longer.attrs["about"] == fresh.attrs["about"]
    with pytest.raises(InputError, match="n_samples was 70000, now 1000: it holds more"):
        drawn("a", 1000)


def test_a_longer_metropolis_chain_is_the_chain_of_one_go(
    config: Config, ensemble: Ensemble, model: PointModel, tmp_path: Path
) -> None:
    def chain(out: str, n: int) -> Ensemble:
        more = (*SMALL, f"sampling.n_metropolis={n}", "sampling.metropolis_levels=4",
                "sampling.n_calibration=1000")  # fmt: skip
        settings = load_config("toy_double_well", more).sampling
        return correct(PointDraws(settings, 1, ensemble, {"energy": model}), tmp_path / out)

    chain("a", 1000)
    longer, fresh = chain("a", 9000), chain("b", 9000)
    assert same_numbers(longer, fresh)
    assert longer.attrs["about"] == fresh.attrs["about"]
    assert len(np.unique(longer.phi)) < 9000  # some proposals were refused
    with pytest.raises(InputError, match="n_metropolis was 9000, now 1000: it holds more"):
        chain("a", 1000)


def test_a_model_of_other_settings_is_kept(config: Config, ensemble: Ensemble, tmp_path: Path) -> None:
    """Beside the one that takes its place; and no file of somebody else is touched."""
    train(config, ensemble, tmp_path / "m")
    made = ("model.json", "weights.safetensors", "metrics.jsonl")
    before = {name: (tmp_path / "m" / name).read_bytes() for name in made}
    train(config, ensemble, tmp_path / "m")
    assert not list((tmp_path / "m").glob("*.changed-*")), "the control: the same model is read"
    train(load_config("toy_double_well", (*SMALL, "training.width=4")), ensemble, tmp_path / "m")
    assert {name: (tmp_path / "m" / f"{name}.changed-1").read_bytes() for name in made} == before
    assert (tmp_path / "m/model.json").read_bytes() != before["model.json"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "metrics.jsonl").write_text("mine")
    with pytest.raises(InputError, match="metrics.jsonl: is there already"):
        train(config, ensemble, tmp_path / "mine")
    assert (tmp_path / "mine" / "metrics.jsonl").read_text() == "mine"

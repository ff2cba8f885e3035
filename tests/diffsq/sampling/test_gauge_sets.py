"""Sample sets of links: the same whatever is asked for besides, exact by weights, uniform on gauge orbits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffsq.config.config import config_from_dict
from diffsq.config.gauge import GaugeRun
from diffsq.exactness.efficiency import diagnose
from diffsq.sampling.sample import sample
from diffsq.training.gauge import train_gauge
from lattice.actions.u1 import U1
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.u1 import ln_z
from lattice.files import read_json
from lattice.observables.measure import measure
from lattice.simulation.gauge_draws import draw_links

BETA, SHAPE = 1.5, (4, 6)


def run_of(n: int = 300, **changes: Any) -> GaugeRun:
    config = config_from_dict({
        "name": "u1", "action": {"kind": "u1", "beta": BETA}, "lattice": {"shape": SHAPE},
        "models": ["score", "torus"], "model": {"channels": 2}, "training": {"n_steps": 0},
        "sampling": {"n_samples": n, "n_forward": 200, **changes},
    })  # fmt: skip
    assert isinstance(config, GaugeRun)
    return config


@pytest.fixture(scope="module")
def links() -> Ensemble:
    chains = np.arange(1000)
    return Ensemble.from_fields(
        draw_links(BETA, SHAPE, 1000, seed=5), U1(BETA), chains, np.zeros_like(chains)
    )


def drawn(links: Ensemble, out: Path, name: str = "score", config: GaugeRun | None = None) -> Ensemble:
    config = config or run_of()
    model = train_gauge(config, links, out / "model", name)
    return sample(config, model, links, out / "samples", name=name)


@pytest.mark.parametrize(("name", "method"), [("score", "flow"), ("score", "path"), ("torus", "flow")])
def test_samples_do_not_hang_on_their_number(links: Ensemble, tmp_path: Path, name: str, method: str) -> None:
    few = drawn(links, tmp_path / "few", name, run_of(100, method=method, n_levels=8))
    many = drawn(links, tmp_path / "many", name, run_of(230, method=method, n_levels=8))
    assert few.log_weight is not None
    assert many.log_weight is not None
    assert np.array_equal(few.phi, many.phi[:100])
    assert np.array_equal(few.log_weight, many.log_weight[:100])
    assert np.abs(many.phi).max() <= np.pi
    grown = sample(
        run_of(230, method=method, n_levels=8), train_gauge(run_of(), links, tmp_path / "few/model", name),
        links, tmp_path / "few/samples", name=name,
    )  # fmt: skip
    assert np.array_equal(grown.phi, many.phi)


def test_weighted_averages_are_exact_and_said_to_be(links: Ensemble, tmp_path: Path) -> None:
    samples = drawn(links, tmp_path, config=run_of(4000))
    found = measure(samples)["observables"]
    for name, entry in found.items():
        if "exact" in entry and entry["error"]:
            assert abs(entry["value"] - entry["exact"]) < 4.5 * entry["error"], name
    lines = [found[f"polyakov_{axis}"] for axis in (0, 1)]
    assert all(abs(line["value"]) < 4 * line["error"] for line in lines)  # holonomies are uniform
    about = diagnose(tmp_path / "samples", seed=1)
    assert about["reverse"]["ess"] > 0.999
    assert abs(about["ln_z"] - ln_z(BETA, 24)) < 4 * about["ln_z_error"] + 1e-4
    assert about["discretisation"]["largest"][1] < 0.3
    assert not about["warnings"]
    assert len(read_json(tmp_path / "samples" / "forward.json")["model"]) == 125  # all that are held out


def test_a_model_of_another_ensemble_is_refused(links: Ensemble, tmp_path: Path) -> None:
    model = train_gauge(run_of(), links, tmp_path / "model", "score")
    chains = np.arange(1000)
    other = Ensemble.from_fields(
        draw_links(BETA, SHAPE, 1000, seed=6), U1(BETA), chains, np.zeros_like(chains)
    )
    with pytest.raises(InputError, match="the model was trained for ensemble"):
        sample(run_of(), model, other, tmp_path / "samples")


def test_advice_for_weights_that_are_poor_is_of_links(links: Ensemble, tmp_path: Path) -> None:
    drawn(links, tmp_path, "torus", run_of(n_levels=4))
    about = diagnose(tmp_path / "samples", seed=1)
    assert about["reverse"]["ess"] < 0.1
    assert any("draws it from its own law" in line for line in about["warnings"])
    assert not any("model.n_fit" in line for line in about["warnings"])

"""What samplers cost as charges freeze: jumps count what series tell, bounds are bounds, files go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffsq.checks import freezing
from diffsq.config.config import config_from_dict
from diffsq.config.gauge import GaugeRun
from diffsq.models.gauge import GaugeScore
from diffsq.run_folder.finished import GaugeBench
from lattice.actions.u1 import U1
from lattice.arrays import Floats
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.u1 import charge_law
from lattice.progress import Silent
from lattice.simulation.gauge_draws import draw_links


def bench_of(folder: Path, harmonic: float = 2.0) -> GaugeBench:
    shape = (4, 4)
    ensemble = Ensemble.from_fields(
        draw_links(2.0, shape, 64, seed=3), U1(2.0), np.arange(64), np.zeros(64, dtype=np.int64)
    )
    config = config_from_dict(
        {"name": "u1", "action": {"kind": "u1", "beta": 2.0}, "lattice": {"shape": list(shape)}}
    )
    assert isinstance(config, GaugeRun)
    score = GaugeScore(shape, torch.tensor([harmonic], dtype=torch.float64))
    return GaugeBench(folder, config, U1(2.0), ensemble, {"score": score}, {})


def birth_and_death(rate: float, n: int, n_chains: int = 32) -> Floats:
    """Q of chains that step by one with detailed balance in P(Q), and S (2, n_chains, n)."""
    law, rng = charge_law(4.0, 256), np.random.default_rng(3)
    p = {int(q): float(x) for q, x in zip(law.charge, law.probability, strict=True)}
    q = rng.choice(law.charge, size=n_chains, p=law.probability)
    rows = []
    for _ in range(n):
        step = rng.choice([-1, 1], size=n_chains)
        ratio = np.array([p.get(int(a + b), 0.0) / p[int(a)] for a, b in zip(q, step, strict=True)])
        q = q + step * (rng.random(n_chains) < rate * np.minimum(ratio, 1))
        rows.append(q)
    found: Floats = np.array(rows, dtype=np.float64).T
    return np.stack([found, rng.normal(size=found.shape)])


def test_jumps_say_what_the_series_says() -> None:
    series = birth_and_death(0.3, 6000)
    own = freezing.of_series(series, U1(4.0), (16, 16))
    assert own["how"] == "series"
    square = np.diff(series[0], axis=1) ** 2
    tau = 2 * charge_law(4.0, 256).moment(2) / square.mean() - 0.5
    assert own["tau_q"][0] == pytest.approx(tau, rel=0.15)
    ratio = freezing.of_squares(charge_law(4.0, 256))
    assert own["tau_q2"][0] == pytest.approx(ratio * own["tau_q"][0], abs=4 * own["tau_q2"][1])
    assert abs(own["tau_q2"][0] - 0.5 * own["tau_q"][0]) > 4 * own["tau_q2"][1]  # an oscillator's
    rare = freezing.of_series(birth_and_death(0.002, 400), U1(4.0), (16, 16))
    assert rare["how"] == "jumps"
    assert rare["tau_q"][0] == pytest.approx(150 * own["tau_q"][0], abs=4 * rare["tau_q"][1])


def test_a_chain_that_never_moves_has_a_bound() -> None:
    series = np.zeros((2, 32, 100))
    found = freezing.of_series(series, U1(7.0), (16, 16))
    assert found["how"] == "none"
    assert found["tau_q"] == [pytest.approx(2 * charge_law(7.0, 256).moment(2) * 32 * 99 / 3), None]
    assert found["mean"] == {}


def test_samplers_agree_and_an_interrupted_check_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"betas": [], "sizes": [8], "n_samples": 256, "most": 512}
    result = freezing.run(bench_of(tmp_path), Silent(), **options)  # type: ignore[arg-type]
    assert result["passed"]
    (point,) = result["points"]
    assert point["beta"] == 6.0
    kinds = {name: s["how"] for name, s in point["samplers"].items()}
    assert kinds["hmc"] in ("jumps", "none")
    assert kinds["winding"] == "series"
    assert point["samplers"]["diffusion"]["ess"] > 0.99
    assert point["samplers"]["hmc"]["tau_q"][0] > 30 * point["samplers"]["winding"]["tau_q"][0]
    monkeypatch.setattr(freezing, "markov", None)  # nothing is made again
    again = freezing.run(bench_of(tmp_path), Silent(), **options)  # type: ignore[arg-type]
    assert again == result
    assert "heat bath" in freezing.text(result)
    assert freezing.figure(result).axes


def test_a_model_of_another_action_fails(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, harmonic=4.0)
    result = freezing.run(bench, Silent(), betas=[], sizes=[4], n_samples=256, most=256)
    assert not result["passed"]


def test_options_that_are_refused() -> None:
    with pytest.raises(InputError, match="both are empty"):
        freezing.refuse(betas=[], sizes=[])
    bad = (
        {"betas": [0.0]}, {"betas": [float("inf")]}, {"sizes": [2048]}, {"sizes": [2]}, {"n_samples": 5},
        {"most": 2}, {"error": 2.0},
    )  # fmt: skip
    for options in bad:
        with pytest.raises(InputError, match="must be"):
            freezing.refuse(**options)  # type: ignore[arg-type]

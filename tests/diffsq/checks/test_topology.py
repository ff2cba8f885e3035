"""The check of charges: a good sampler passes, one that is stuck in a sector or misses a law does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffsq.checks import topology
from diffsq.config.config import config_from_dict
from diffsq.config.gauge import GaugeRun
from diffsq.run_folder.finished import GaugeBench
from lattice.actions.u1 import U1
from lattice.arrays import Floats
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.u1 import charge_law
from lattice.observables.gauge import charge
from lattice.progress import Silent
from lattice.simulation.gauge_draws import draw_links

BETA, SHAPE, N = 2.0, (8, 8), 6000


def ensemble_of(links: Floats, log_weight: Floats | None = None, n_chains: int = 0) -> Ensemble:
    index = np.arange(len(links))
    chain, time = (index, 0 * index) if n_chains else (0 * index, index)
    return Ensemble.from_fields(links, U1(BETA), chain, time, log_weight)


@pytest.fixture(scope="module")
def links() -> Floats:
    return draw_links(BETA, SHAPE, N, seed=5)


def bench_of(samples: Ensemble, training: Ensemble) -> GaugeBench:
    config = config_from_dict(
        {"name": "u1", "action": {"kind": "u1", "beta": BETA}, "lattice": {"shape": SHAPE}}
    )
    assert isinstance(config, GaugeRun)
    return GaugeBench(Path("."), config, U1(BETA), training, {}, {"score": samples})


def test_exact_links_pass(links: Floats) -> None:
    training = ensemble_of(links[: N // 2], n_chains=1)
    result = topology.run(bench_of(ensemble_of(links, np.zeros(N)), training), Silent())
    assert result["passed"]
    row = result["rows"]["score metropolis"]
    assert row["tau_q"][0] == pytest.approx(0.5, abs=0.1)
    assert row["sectors"] >= 7
    assert "passed" in topology.text(result)
    assert topology.figure(result).axes


def test_links_of_one_sector_fail(links: Floats) -> None:
    import torch

    stuck = links[charge(torch.from_numpy(links)).numpy() == 0][:2000]
    training = ensemble_of(links, n_chains=1)
    result = topology.run(bench_of(ensemble_of(stuck, np.zeros(len(stuck))), training), Silent())
    assert not result["passed"]
    assert result["rows"]["score metropolis"]["tau_q"] is None
    assert "NOT passed" in topology.text(result)


def test_a_few_charges_that_should_not_be_there_fail(links: Floats) -> None:
    """One configuration in a hundred with |Q| = 9: rare ones count with the outermost common charge."""
    training = ensemble_of(links, n_chains=1)
    law = charge_law(BETA, 64)
    q = np.random.default_rng(3).choice(law.charge, size=N, p=law.probability).astype(float)
    assert topology.of_counts(law, q)["p"] > 1e-3
    q[:60] = 9.0
    assert topology.of_counts(law, q)["p"] < 1e-6
    assert len(training) == N


def test_no_charge_where_none_is_expected_passes() -> None:
    cold = draw_links(30.0, (4, 4), 400, seed=3)
    index = np.arange(400)
    samples = Ensemble.from_fields(cold, U1(30.0), 0 * index, index, np.zeros(400))
    config = config_from_dict(
        {"name": "u1", "action": {"kind": "u1", "beta": 30.0}, "lattice": {"shape": [4, 4]}}
    )
    assert isinstance(config, GaugeRun)
    bench = GaugeBench(Path("."), config, U1(30.0), samples, {}, {"score": samples})
    assert topology.run(bench, Silent())["passed"]


def test_options_that_make_no_sense() -> None:
    for least_p in (-1.0, 0.0, 2.0):
        with pytest.raises(InputError, match="least_p must be between 0 and 0.5"):
            topology.refuse(least_p)


def test_the_law_of_another_coupling_fails_unless_it_is_weighted(links: Floats) -> None:
    other = draw_links(1.8, SHAPE, N, seed=7)
    training = ensemble_of(links, n_chains=1)
    result = topology.run(bench_of(ensemble_of(other, np.zeros(N)), training), Silent())
    assert not result["passed"]
    assert result["rows"]["score weighted"]["p"] < 1e-6
    import torch

    log_w = (U1(1.8).action(torch.from_numpy(other)) - U1(BETA).action(torch.from_numpy(other))).numpy()
    mended = topology.run(bench_of(ensemble_of(other, log_w), training), Silent())
    assert mended["rows"]["score weighted"]["p"] > 1e-3

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

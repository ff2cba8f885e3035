"""The theta term by weights: exact where the sign is known, a sign problem said where it is not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from diffsq.checks import theta
from diffsq.config.config import config_from_dict
from diffsq.config.gauge import GaugeRun
from diffsq.run_folder.finished import GaugeBench
from lattice.actions.u1 import U1
from lattice.arrays import Floats
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.u1 import z_of_theta
from lattice.progress import Silent
from lattice.simulation.gauge_draws import draw_links


def bench_of(beta: float, links: Floats, log_weight: Floats) -> GaugeBench:
    shape = links.shape[-2:]
    index = np.arange(len(links))
    samples = Ensemble.from_fields(links, U1(beta), 0 * index, index, log_weight)
    config = config_from_dict(
        {"name": "u1", "action": {"kind": "u1", "beta": beta}, "lattice": {"shape": list(shape)}}
    )
    assert isinstance(config, GaugeRun)
    return GaugeBench(Path("."), config, U1(beta), samples, {}, {"score": samples})


def test_it_is_the_exact_function_of_theta_where_the_sign_is_known() -> None:
    links = draw_links(4.0, (8, 8), 8000, seed=3)
    result = theta.run(bench_of(4.0, links, np.zeros(8000)), Silent(), [0.0, 1.0, 2.0, math.pi])
    assert result["passed"]
    for point in result["points"]:
        exact = z_of_theta(4.0, 64, point["theta"])
        assert point["exact"]["sign"] == pytest.approx(exact, abs=1e-10)
        h = 1e-3
        log_z = [math.log(z_of_theta(4.0, 64, point["theta"] + k * h)) for k in (-1, 0, 1)]
        chi = -(log_z[0] - 2 * log_z[1] + log_z[2]) / h**2 / 64
        assert point["exact"]["chi"] == pytest.approx(chi, rel=1e-4)
    assert "passed" in theta.text(result)
    assert theta.figure(result).axes


def test_weights_count_and_wrong_ones_fail() -> None:
    """Links of another coupling without their weights are many sigma off."""
    links = draw_links(3.0, (8, 8), 8000, seed=3)
    assert not theta.run(bench_of(4.0, links, np.zeros(8000)), Silent(), [1.0, 2.0])["passed"]


def test_a_wrong_sign_fails_where_chi_is_not_known() -> None:
    """Even and odd charges equally likely: <cos pi Q> = 0, and it is 0.186."""
    links = draw_links(4.0, (8, 8), 8000, seed=3)
    q = U1(4.0).order(torch.from_numpy(links)).numpy()
    odd = np.flatnonzero(q % 2)
    even = np.flatnonzero(q % 2 == 0)[: len(odd)]
    fake = links[np.random.default_rng(3).permutation(np.concatenate([odd, even]))]
    result = theta.run(bench_of(4.0, fake, np.zeros(len(fake))), Silent(), [math.pi])
    assert not result["points"][0]["known"]
    assert not result["passed"]


def test_charges_that_are_all_zero_are_no_error() -> None:
    links = draw_links(12.0, (4, 4), 200, seed=3)
    result = theta.run(bench_of(12.0, links, np.zeros(200)), Silent(), [0.0, 1.0, 2 * math.pi])
    assert result["passed"]


def test_a_sign_problem_is_said() -> None:
    links = draw_links(1.0, (16, 16), 400, seed=3)
    result = theta.run(bench_of(1.0, links, np.zeros(400)), Silent(), [0.2, 3.0])
    known = [point["known"] for point in result["points"]]
    assert known == [True, False]
    assert result["points"][1]["sign_pull"] is not None  # the sign itself is known
    assert "sign problem" in theta.text(result)
    with pytest.raises(InputError, match="thetas must be finite numbers, one at least"):
        theta.refuse([])

"""Exact draws of U(1): P(Q), loops, and what a gauge transformation and holonomies make uniform."""

from __future__ import annotations

import math
import tracemalloc
from functools import lru_cache

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from lattice.errors import InputError
from lattice.exact import u1
from lattice.observables.gauge import charge, plaquettes, polyakov_loop, wilson_loop
from lattice.simulation.gauge_draws import draw_links, von_mises

BETA, SHAPE, N = 2.0, (6, 8), 40000
V = math.prod(SHAPE)


@lru_cache(maxsize=1)
def drawn() -> Tensor:
    return torch.from_numpy(draw_links(BETA, SHAPE, N, seed=3))


def p_value(q: Tensor, law: u1.ChargeLaw) -> float:
    """Of the chi^2 test of charges, rare ones together."""
    seen, expected = [], []
    for k in range(4):
        inside = np.abs(law.charge) >= 3 if k == 3 else np.abs(law.charge) == k
        expected.append(len(q) * law.probability[inside].sum())
        seen.append(float((q.abs() >= 3).sum() if k == 3 else (q.abs() == k).sum()))
    e = np.array(expected)
    return float(chi2.sf((((np.array(seen) - e) ** 2) / e).sum(), 3))


def test_charges_have_their_law() -> None:
    q = charge(drawn())
    assert p_value(q, u1.charge_law(BETA, V)) > 1e-3
    assert p_value(q, u1.charge_law(1.1 * BETA, V)) < 1e-12
    assert abs(float(q.mean())) < 4 * float(q.std()) / math.sqrt(N)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (3, 2)])
def test_loops_are_the_exact_ones(size: tuple[int, int]) -> None:
    w, area = wilson_loop(drawn(), *size), math.prod(size)
    error = float(w.std()) / math.sqrt(N)
    assert abs(float(w.mean()) - u1.wilson_loop(BETA, V, area)) < 4 * error
    assert abs(float(w.mean()) - u1.wilson_loop(1.05 * BETA, V, area)) > 10 * error
    assert abs(float(w.mean()) - u1.wilson_loop(BETA, 10**4, area)) < 4 * error  # here the torus is no matter


def test_the_first_and_the_last_plaquette_are_like_all_others() -> None:
    theta = plaquettes(drawn()).flatten(1)
    mean = theta.cos().mean(0)
    pull = (mean - u1.wilson_loop(BETA, V, 1)) / (theta.cos().std(0) / math.sqrt(N))
    assert pull.abs().max() < 4.5
    assert pull[-1].abs() < 4


def test_gauge_and_holonomies_are_uniform() -> None:
    links, error = drawn(), math.sqrt(0.5 / N)
    assert ((links > -math.pi) & (links <= math.pi)).all()
    for order in (1, 2):
        assert (order * links).cos().mean(0).abs().max() < 5 * error
        assert (order * links).sin().mean(0).abs().max() < 5 * error
    for axis in (0, 1):
        loop = polyakov_loop(links, axis)
        assert loop.mean().abs() < 5 * error
    first = torch.exp(1j * links[:, 0, :, 0].sum(-1))  # one loop alone: its modulus is 1
    assert abs(complex(first.mean())) < 5 * error


def test_a_configuration_is_its_number() -> None:
    all_of_them = draw_links(7.0, (4, 4), 7, seed=5)
    np.testing.assert_array_equal(draw_links(7.0, (4, 4), 3, seed=5, first=4), all_of_them[4:])
    assert np.abs(draw_links(7.0, (4, 4), 7, seed=6) - all_of_them).max() > 0.1


def test_strong_and_weak_coupling() -> None:
    for beta, shape in ((0.05, (2, 2)), (96.0, (8, 8))):
        x = torch.from_numpy(draw_links(beta, shape, 4000, seed=2))
        w = wilson_loop(x, 1, 1)
        exact = u1.wilson_loop(beta, math.prod(shape), 1)
        assert abs(float(w.mean()) - exact) < 4 * float(w.std()) / math.sqrt(4000)
        law, q2 = u1.charge_law(beta, math.prod(shape)), charge(x) ** 2
        assert abs(float(q2.mean()) - law.moment(2)) <= 4 * float(q2.std()) / math.sqrt(4000) + 1e-9


@pytest.mark.parametrize("beta", [u1.BETAS[0], u1.BETAS[1]])
def test_the_ends_of_the_range(beta: float) -> None:
    """At 1e6 the orders of many sums would be gigabytes at a time."""
    tracemalloc.start()
    links = torch.from_numpy(draw_links(beta, (2, 2), 3000, seed=2))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 3e8
    theta = plaquettes(links)
    x = 1 - wilson_loop(links, 1, 1)
    exact = 1 - u1.wilson_loop(beta, 4, 1)
    assert abs(float(x.mean()) - exact) < 4 * float(x.std()) / math.sqrt(3000)
    assert abs(float(x.mean()) - exact / 1.3) > 4 * float(x.std()) / math.sqrt(3000)
    assert float(theta.sum((-1, -2)).div(2 * math.pi).round().abs().max()) <= 1


def test_the_von_mises_law() -> None:
    u = np.random.default_rng(4).random((200_000, 3))
    for beta in (0.3, 5.0):
        theta, kept = von_mises(beta, u)
        c = np.cos(theta[kept])
        exact = u1.coefficients(beta, np.array([1.0]))[0] / u1.coefficients(beta, np.array([0.0]))[0]
        assert abs(c.mean() - exact) < 4 * c.std() / math.sqrt(len(c))
        assert kept.mean() > 0.6


def test_bad_input() -> None:
    with pytest.raises(InputError, match="beta must be > 0"):
        draw_links(0.0, (4, 4), 1, seed=1)
    for beta in (1e-9, 1e7):
        with pytest.raises(InputError, match="beta must be between"):
            draw_links(beta, (4, 4), 1, seed=1)
    for shape in ((4,), (4, 4, 4), (1, 4)):
        with pytest.raises(InputError, match="two periodic extents"):
            draw_links(1.0, shape, 1, seed=1)
    with pytest.raises(InputError, match="n must be >= 1"):
        draw_links(1.0, (4, 4), 0, seed=1)

"""Heat-kernel noise on the circle: the law of an angle, of loops, of levels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffsq.process.torus import levels, log_heat_kernel, loop_factor, noisy
from lattice.arrays import wrapped
from lattice.errors import InputError
from lattice.exact.u1 import wilson_loop
from lattice.observables.gauge import wilson_loop as measured_loop
from lattice.simulation.gauge_draws import draw_links


@pytest.mark.parametrize("sigma", [0.2, 1.0, 2.499, 2.501, 4.0])
def test_the_kernel_is_one_law_in_both_sums(sigma: float) -> None:
    """Images below SIGMA_MAX, waves above: both against the other sum; the density sums to one."""
    a = torch.linspace(-math.pi, math.pi, 2001, dtype=torch.float64)[1:]
    found = log_heat_kernel(a, sigma).exp()
    orders = torch.arange(1, 60, dtype=torch.float64)
    waves = 1 + 2 * (a[:, None] * orders).cos() @ torch.exp(-0.5 * (orders * sigma) ** 2)
    assert (found - waves / (2 * math.pi)).abs().max() < 1e-12
    assert abs(float(found.sum()) * 2 * math.pi / 2000 - 1) < 1e-12
    assert torch.allclose(log_heat_kernel(a + 2 * math.pi, sigma), log_heat_kernel(a, sigma), atol=1e-9)


def test_loops_fall_by_their_perimeter() -> None:
    """W(sigma) = W(0) e^{-P sigma^2/2} of exact links, 1 x 1, 2 x 2 and 1 x 3; not e^{-A ...}."""
    beta, shape, sigma = 3.0, (6, 6), 0.4
    links = torch.from_numpy(draw_links(beta, shape, 6000, seed=2))
    noise = torch.from_numpy(np.random.default_rng(3).normal(size=links.shape))
    moved = noisy(links, sigma, noise)
    assert moved.abs().max() <= math.pi
    for height, width in ((1, 1), (2, 2), (1, 3)):
        series = measured_loop(moved, height, width)
        error = float(series.std()) / math.sqrt(len(series))
        exact = wilson_loop(beta, 36, height * width)
        assert abs(float(series.mean()) - exact * loop_factor(sigma, 2 * (height + width))) < 4 * error
        wrong = exact * math.exp(-0.5 * (2 * height + 2 * width - 1) * sigma**2)
        assert abs(float(series.mean()) - wrong) > 5 * error


def test_wrapping_and_what_is_refused() -> None:
    x = torch.linspace(-20, 20, 401, dtype=torch.float64)
    assert (wrapped(x) > -math.pi).all()
    assert (wrapped(x) <= math.pi).all()
    assert torch.allclose(wrapped(x).cos(), x.cos())
    with pytest.raises(InputError, match="sigma > 0, got 0"):
        log_heat_kernel(x, 0.0)
    with pytest.raises(InputError, match="rise from sigma_min to 2.5"):
        levels(3.0, 10)
    found = levels(0.1, 5)
    assert (float(found[0]), float(found[-1])) == (0, pytest.approx(2.5))
    assert (found.diff() > 0).all()

"""Quintic splines on equidistant nodes, against another implementation and against smooth functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fields import white
from scipy.interpolate import CubicSpline, make_interp_spline

from diffsq.models.spline import cardinal


@pytest.mark.parametrize(("n", "degree"), [(2, 1), (3, 1), (4, 3), (5, 3), (6, 5), (11, 5), (48, 5)])
def test_it_is_the_spline_of_the_largest_odd_degree(n: int, degree: int) -> None:
    values = white((3,), n, 1)
    place = torch.linspace(0, n - 1, 301, dtype=torch.float64)
    found = (cardinal(place, n) @ values).numpy()
    known = make_interp_spline(np.arange(n), values.numpy(), k=degree)(place.numpy())
    np.testing.assert_allclose(found, known, rtol=0, atol=1e-10)
    if n > 3:
        other = CubicSpline(np.arange(n), values.numpy(), bc_type="natural")(place.numpy())
        assert np.abs(found - other).max() > 1e-2


@pytest.mark.parametrize("n", [2, 5, 30])
def test_nodes_ends_and_linear_functions_are_exact(n: int) -> None:
    nodes = torch.arange(n, dtype=torch.float64)
    torch.testing.assert_close(cardinal(nodes, n), torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-13)
    place = torch.linspace(0, n - 1, 57, dtype=torch.float64)
    weights = cardinal(place, n)
    torch.testing.assert_close(weights @ nodes, place, rtol=0, atol=1e-12)
    torch.testing.assert_close(weights.sum(1), torch.ones_like(place), rtol=0, atol=1e-12)


def test_four_derivatives_are_continuous_and_the_fifth_is_not() -> None:
    """At every inner node but the two next to the ends, which are no knots."""
    n, h, values = 13, 0.05, white((), 13, 2)

    def derivatives(end: torch.Tensor, way: int) -> torch.Tensor:
        """Of order 1 to 5 at the end of a cell, from six of its points: exact for a quintic."""
        k = torch.arange(6, dtype=torch.float64)
        f = cardinal((end[:, None] + way * h * k).flatten(), n) @ values
        taylor = torch.linalg.solve(torch.vander(way * k, increasing=True), f.reshape(-1, 6).T)
        return taylor[1:].T * torch.tensor([[1, 2, 6, 24, 120]]).double() / h ** torch.arange(1, 6)

    inner = torch.arange(1, n - 1, dtype=torch.float64)
    jump = (derivatives(inner, 1) - derivatives(inner, -1)).abs()
    assert (jump.amax(0)[:4] < torch.tensor([1e-11, 1e-9, 1e-7, 1e-5])).all()
    assert (jump[2:-2, 4] > 0.1).all()
    assert (jump[[0, 1, -2, -1], 4] < 1e-3).all()


def test_order_six() -> None:
    """Errors fall 64-fold where nodes are twice as dense; of a chord, fourfold."""
    errors, chords = [], []
    for n in (17, 33, 65):
        x = torch.linspace(0.3, 0.7, 501, dtype=torch.float64)
        f = torch.sin(7 * torch.linspace(0, 1, n, dtype=torch.float64))
        place = x * (n - 1)
        left = place.long()
        chord = f[left] + (place - left) * (f[left + 1] - f[left])
        errors.append(float((cardinal(place, n) @ f - torch.sin(7 * x)).abs().max()))
        chords.append(float((chord - torch.sin(7 * x)).abs().max()))
    orders, of_chords = (np.log2(np.divide(e[:-1], e[1:])) for e in (errors, chords))
    assert ((orders > 5.5) & (orders < 7)).all()
    assert ((of_chords > 1.8) & (of_chords < 2.2)).all()
    assert errors[-1] < 1e-8

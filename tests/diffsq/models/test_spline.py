"""Cubic splines on equidistant nodes, against another implementation and against smooth functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fields import white
from scipy.interpolate import CubicSpline

from diffsq.models.spline import cardinal


@pytest.mark.parametrize("n", [2, 3, 4, 11, 48])
def test_it_is_the_natural_spline(n: int) -> None:
    values = white((3,), n, 1)
    place = torch.linspace(0, n - 1, 301, dtype=torch.float64)
    found = (cardinal(place, n) @ values).numpy()
    if n == 2:
        known = values[0] + place[:, None] * (values[1] - values[0])
        np.testing.assert_allclose(found, known, rtol=0, atol=1e-12)
        return
    known = CubicSpline(np.arange(n), values.numpy(), bc_type="natural")(place.numpy())
    np.testing.assert_allclose(found, known, rtol=0, atol=1e-12)
    other = CubicSpline(np.arange(n), values.numpy(), bc_type="not-a-knot")(place.numpy())
    assert np.abs(found - other).max() > 1e-3


@pytest.mark.parametrize("n", [2, 5, 30])
def test_nodes_ends_and_linear_functions_are_exact(n: int) -> None:
    nodes = torch.arange(n, dtype=torch.float64)
    torch.testing.assert_close(cardinal(nodes, n), torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-15)
    place = torch.linspace(0, n - 1, 57, dtype=torch.float64)
    weights = cardinal(place, n)
    torch.testing.assert_close(weights @ nodes, place, rtol=0, atol=1e-12)
    torch.testing.assert_close(weights.sum(1), torch.ones_like(place), rtol=0, atol=1e-13)


def test_two_derivatives_are_continuous_and_the_third_is_not() -> None:
    """At every inner node; the second vanishes at both ends."""
    n, h, values = 9, 1e-3, white((), 9, 2)

    def derivatives(end: torch.Tensor, way: int) -> torch.Tensor:
        """Of order 1, 2, 3 at the end of a cell, from four of its points: exact for a cubic."""
        k = torch.arange(4, dtype=torch.float64)
        f = cardinal((end[:, None] + way * h * k).flatten(), n) @ values
        taylor = torch.linalg.solve(torch.vander(way * k, increasing=True), f.reshape(-1, 4).T)
        return taylor[1:].T * torch.tensor([1 / h, 2 / h**2, 6 / h**3], dtype=torch.float64)

    inner = torch.arange(1, n - 1, dtype=torch.float64)
    jump = (derivatives(inner, 1) - derivatives(inner, -1)).abs()
    assert jump[:, 0].max() < 1e-9
    assert jump[:, 1].max() < 1e-6
    assert jump[:, 2].min() > 0.1
    assert derivatives(torch.zeros(1).double(), 1)[0, 1].abs() < 1e-6
    assert derivatives(torch.full((1,), n - 1.0).double(), -1)[0, 1].abs() < 1e-6


def test_order_four_inside() -> None:
    """Errors fall 16-fold where nodes are twice as dense, away from the ends; of a chord, fourfold."""
    errors, chords = [], []
    for n in (33, 65, 129):
        x = torch.linspace(0.3, 0.7, 501, dtype=torch.float64)
        f = torch.sin(7 * torch.linspace(0, 1, n, dtype=torch.float64))
        place = x * (n - 1)
        left = place.long()
        chord = f[left] + (place - left) * (f[left + 1] - f[left])
        errors.append(float((cardinal(place, n) @ f - torch.sin(7 * x)).abs().max()))
        chords.append(float((chord - torch.sin(7 * x)).abs().max()))
    orders, of_chords = (np.log2(np.divide(e[:-1], e[1:])) for e in (errors, chords))
    assert ((orders > 3.8) & (orders < 4.2)).all()
    assert ((of_chords > 1.8) & (of_chords < 2.2)).all()
    assert errors[-1] < 1e-7

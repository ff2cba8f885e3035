"""Tiny lattices with a complex mass: transfer matrices against a product grid."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from lattice.actions.phi4 import ComplexPhi4
from lattice.errors import InputError
from lattice.exact.complex_phi4 import complex_propagator, phi4_exact
from lattice.exact.scalar import small_lattice


def brute_force(action: ComplexPhi4, shape: tuple[int, ...], n: int) -> tuple[complex, complex, complex]:
    """<phi^2>, <phi^4>, G(0) by a product grid over all sites."""
    grid = np.linspace(-3.6, 3.6, n)
    v = math.prod(shape)
    phi = torch.from_numpy(np.array(list(itertools.product(grid, repeat=v))).reshape(-1, *shape))
    w = np.exp(-action.action(phi.to(torch.complex128)).numpy())
    flat = phi.numpy().reshape(-1, v)
    z = w.sum()
    rows = ((flat**2).mean(1), (flat**4).mean(1), flat.sum(1) ** 2 / v)
    return tuple(complex((w * row).sum() / z) for row in rows)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("shape", "n"), [((1,), 400), ((1, 1), 400), ((2,), 200), ((3,), 60), ((2, 1), 200), ((2, 2), 31)]
)
def test_tiny_lattices_against_a_product_grid(shape: tuple[int, ...], n: int) -> None:
    action = ComplexPhi4(0.12, 0.3, 1 + 0.5j)
    found, expected = phi4_exact(action, shape), brute_force(action, shape, n)
    assert np.allclose([found.phi2, found.phi4, found.zero_mode], expected, rtol=1e-6)
    assert abs(found.two_point.reshape(-1)[0] - found.phi2) < 1e-12


def test_tiny_lattices_with_real_couplings_are_those_of_lattice_exact() -> None:
    lam = 0.3
    action = ComplexPhi4(0.15, lam, 1 - 2 * lam)
    from lattice.actions.phi4 import ScalarPhi4

    known = small_lattice(ScalarPhi4(0.15, lam), (2, 2))
    found = phi4_exact(action, (2, 2))
    assert abs(found.phi2 - known.phi2) < 1e-8
    assert abs(found.phi4 - known.phi4) < 1e-8
    assert abs(found.zero_mode - 4 * known.m2) < 1e-8


@pytest.mark.parametrize("shape", [(4,), (5,), (2, 2)])
def test_the_ring_without_coupling_is_the_free_field(shape: tuple[int, ...]) -> None:
    """lam -> 0 of the transfer matrix, which the code path of lam = 0 never uses."""
    free, nearly = ComplexPhi4(0.12, 0.0, 1 + 0.5j), ComplexPhi4(0.12, 1e-9, 1 + 0.5j)
    assert np.allclose(phi4_exact(free, shape).two_point, phi4_exact(nearly, shape).two_point, atol=1e-8)
    assert abs(complex_propagator(free, shape).mean() - phi4_exact(free, shape).phi2) < 1e-14


def test_refusals() -> None:
    with pytest.raises(InputError, match="one site, a ring"):
        phi4_exact(ComplexPhi4(0.1, 0.3, 1.0), (3, 3))
    with pytest.raises(InputError, match="flat mode"):
        phi4_exact(ComplexPhi4(0.6, 0.0, 1 + 1j), (4, 4))
    with pytest.raises(InputError, match="lam = 0 only"):
        complex_propagator(ComplexPhi4(0.1, 0.3, 1.0), (4,))

"""Gauge cooling: the least norm on the orbit, nothing else changed, and the drift has nothing to cool."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lattice.actions.one_variable import ComplexQuartic
from lattice.actions.u1 import U1, circulation
from lattice.errors import InputError
from lattice.updates.complex_langevin import complex_langevin_update
from lattice.updates.gauge_cooling import cooled, in_its_gauge, unitarity_norm

ACTION = U1(1.5 + 0.3j, 0.7)
SHAPES = [(2, 2), (2, 3), (4, 6), (5, 5)]


def links(shape: tuple[int, ...], n: int = 6, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.normal(size=(n, 2, *shape)) + 1j * rng.normal(size=(n, 2, *shape)))


def transformed(z: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """z in the gauge alpha (n, L0, L1)."""
    return z + np.stack([alpha - np.roll(alpha, -1, axis) for axis in (1, 2)], axis=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_cooling_changes_no_observable_and_does_not_raise_the_norm(shape: tuple[int, ...]) -> None:
    z = links(shape)
    cold = cooled(z)
    assert np.array_equal(cold.real, z.real)
    assert (unitarity_norm(cold) < unitarity_norm(z)).all()
    before, after = (circulation(torch.from_numpy(x)) for x in (z, cold))
    assert torch.allclose(before, after, atol=1e-13)
    assert torch.allclose(ACTION.action(torch.from_numpy(z)), ACTION.action(torch.from_numpy(cold)))
    assert torch.allclose(ACTION.grad(torch.from_numpy(z)), ACTION.grad(torch.from_numpy(cold)))
    assert np.allclose(cooled(cold), cold, atol=1e-14)
    turned = np.exp(1j * z.sum(axis=-2)[:, 0])  # loops around the lattice, another invariant
    assert np.allclose(turned, np.exp(1j * cold.sum(axis=-2)[:, 0]))


@pytest.mark.parametrize("shape", SHAPES)
def test_no_gauge_has_a_smaller_norm(shape: tuple[int, ...]) -> None:
    """It is the minimum over the orbit, from wherever on it one comes."""
    z, rng = links(shape), np.random.default_rng(2)
    cold = cooled(z)
    alpha = 1j * rng.normal(size=(6, *shape))
    assert np.allclose(cooled(transformed(z, alpha)).imag, cold.imag, atol=1e-13)
    for size in (1.0, 1e-3):
        assert (unitarity_norm(transformed(cold, size * alpha)) > unitarity_norm(cold)).all()
    # negative control: a shift that is no gauge transformation is not taken back
    other = z + 1j * rng.normal(size=z.shape)
    assert not np.allclose(cooled(other).imag, cold.imag, atol=0.1)


def test_the_drift_has_nothing_to_cool() -> None:
    """It has no divergence, and so an update from cooled links with real noise ends on cooled ones."""
    z = cooled(links((4, 4)))
    drift = ACTION.grad(torch.from_numpy(z)).numpy()
    divergence = sum(drift[:, mu] - np.roll(drift[:, mu], 1, 1 + mu) for mu in (0, 1))
    assert np.abs(divergence).max() < 1e-13 * np.abs(drift).max()


def test_updates_leave_the_links_cooled() -> None:
    """Also with imaginary noise, which moves y along the orbits."""
    z = links((3, 4))
    new, _ = complex_langevin_update(
        ACTION, z, seed=1, chains=np.arange(6), trajectory=0, tau=0.2, step=0.01, drift_scale=3.0,
        imaginary_noise=0.5,
    )  # fmt: skip
    assert np.allclose(cooled(new).imag, new.imag, atol=1e-13)
    assert (np.abs(new.real) <= np.pi).all()


def test_real_links_and_other_fields_are_left_alone() -> None:
    z = links((4, 4)).real + 0j
    assert np.array_equal(cooled(z), z)
    one = np.array([1.0 + 2j])
    assert in_its_gauge(ComplexQuartic(1.0, 1.0), one) is one
    with pytest.raises(InputError, match=r"\(n, 2, L0, L1\), got \(3, 2\)"):
        cooled(np.zeros((3, 2), complex))

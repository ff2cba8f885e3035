"""Fourier-accelerated HMC: kernel = tensors, exact for any inverse mass, and faster where it should be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator, small_lattice
from lattice.rng import normals
from lattice.updates.fourier import (
    check_inverse_mass,
    in_real_basis,
    measured_inverse_mass,
    real_basis,
)
from lattice.updates.hmc import hmc_trajectory, hmc_trajectory_torch
from lattice.updates.kernels.fourier import multiply_modes

Array = np.ndarray[Any, np.dtype[np.float64]]
SHAPES = [(8,), (4, 6), (5, 3), (2, 3, 4), (3, 1), (2, 2), (1,), (2, 1, 3, 2), (12, 9)]


def start(n: int, shape: tuple[int, ...]) -> Array:
    return normals(0, "start", np.arange(n), 0, math.prod(shape)).reshape(n, *shape)


def rough_mass(shape: tuple[int, ...]) -> Array:
    """Any positive function, even in every k: nothing to do with the propagator."""
    values = np.exp(np.random.default_rng(5).normal(size=shape))
    for axis in range(len(shape)):
        values = values + np.roll(np.flip(values, axis), 1, axis)
    return values / values.mean()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("block", [1, 7, 32])
def test_multiplication_by_modes_is_the_fft(shape: tuple[int, ...], block: int) -> None:
    weight, x = rough_mass(shape), np.random.default_rng(1).normal(size=(*shape, block))
    axes = tuple(range(len(shape)))
    expected = np.fft.ifftn(np.fft.fftn(x, axes=axes) * weight[..., None], axes=axes).real
    got = x.copy().ravel()
    multiply_modes(got, in_real_basis(weight), *real_basis(shape), block)
    np.testing.assert_allclose(got.reshape(x.shape), expected, rtol=0, atol=1e-12 * weight.max())


@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_equals_tensors(shape: tuple[int, ...]) -> None:
    n = 9
    for action in (ScalarPhi4(0.27, 0.022), ScalarPhi4(-0.2, 0.8)):
        args: dict[str, Any] = {"seed": 3, "chains": np.arange(n) + 5, "trajectory": 2, "length": 0.5}
        args |= {"n_steps": 7, "inverse_mass": rough_mass(shape)}
        phi = start(n, shape)
        x, a = hmc_trajectory(action, phi, **args)
        y, b = hmc_trajectory_torch(action, torch.from_numpy(phi), **args)
        np.testing.assert_allclose(x, y.numpy(), rtol=0, atol=1e-11)
        np.testing.assert_allclose(a.dH, b.dH, rtol=0, atol=1e-10)
        np.testing.assert_array_equal(a.accepted, b.accepted)


def test_unit_mass_is_plain_hmc() -> None:
    args: dict[str, Any] = {"seed": 1, "chains": np.arange(6), "trajectory": 0, "length": 1.1, "n_steps": 5}
    phi = start(6, (4, 6))
    x, a = hmc_trajectory(ScalarPhi4(0.27, 0.022), phi, **args)
    y, b = hmc_trajectory(ScalarPhi4(0.27, 0.022), phi, **args, inverse_mass=np.ones((4, 6)))
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(a.dH, b.dH, rtol=0, atol=1e-12)


def test_bitwise_independent_of_company_block_and_threads() -> None:
    shape, action = (6, 5), ScalarPhi4(0.27, 0.022)
    args: dict[str, Any] = {"seed": 9, "trajectory": 4, "length": 1.3, "n_steps": 4}
    args["inverse_mass"] = rough_mass(shape)
    phi, chains = start(37, shape), np.arange(100, 137)
    whole, _ = hmc_trajectory(action, phi, chains=chains, **args, n_threads=1)
    for block, threads in ((1, 1), (5, 2), (32, 3)):
        again, _ = hmc_trajectory(action, phi, chains=chains, **args, block=block, n_threads=threads)
        np.testing.assert_array_equal(again, whole)
    alone, _ = hmc_trajectory(action, phi[7:9], chains=chains[7:9], **args)
    np.testing.assert_array_equal(alone, whole[7:9])


@pytest.mark.parametrize(("order", "integrator"), [(2, "leapfrog"), (2, "omelyan2"), (4, "omelyan4")])
def test_energy_violation_has_the_order_of_the_integrator(order: int, integrator: str) -> None:
    """A wrong sign, factor or root of the mass would leave an error of order 0 or 1."""
    shape, steps = (6, 6), np.array([12, 16, 24])
    mass = free_propagator(0.2, shape, 1.2)
    rms = []
    for n_steps in steps.tolist():
        _, info = hmc_trajectory(
            ScalarPhi4(0.2, 0.1), start(64, shape), seed=2, chains=np.arange(64), trajectory=0, length=1.5,
            n_steps=n_steps, integrator=integrator, inverse_mass=mass,
        )  # fmt: skip
        rms.append(np.sqrt(np.mean(info.dH**2)))
    slope = -np.polyfit(np.log(steps), np.log(rms), 1)[0]
    assert abs(slope - order) < (0.1 if order == 2 else 0.2)


@pytest.mark.parametrize(
    ("kappa", "lam", "shape"), [(0.27, 0.022, (2, 2)), (0.3, 0.5, (3,)), (-0.2, 0.1, (2, 2))]
)
def test_any_inverse_mass_is_exact(kappa: float, lam: float, shape: tuple[int, ...]) -> None:
    """Against quadrature, with a mass that has nothing to do with the action."""
    action, n, n_therm, n_meas = ScalarPhi4(kappa, lam), 1000, 80, 160
    phi, chains, mass = start(n, shape), np.arange(n), rough_mass(shape)
    sums = np.zeros((3, n))
    for t in range(n_therm + n_meas):
        phi, _ = hmc_trajectory(
            action, phi, seed=9, chains=chains, trajectory=t, length=1.2, n_steps=6, inverse_mass=mass
        )
        if t >= n_therm:
            flat = phi.reshape(n, -1)
            sums += np.stack([abs(flat.mean(1)), (flat**2).mean(1), (flat**4).mean(1)]) / n_meas
    truth = small_lattice(action, shape)
    pulls = (sums.mean(1) - [truth.abs_m, truth.phi2, truth.phi4]) / (sums.std(1, ddof=1) / math.sqrt(n))
    assert np.abs(pulls).max() < 4.5


def test_with_the_propagator_every_mode_is_renewed_at_once() -> None:
    """Free field, A = G: after HMC time pi/2 each mode is independent of what it was; without acceleration
    the zero mode (frequency 0.2 against 1) remembers."""
    kappa, shape, n = 0.2495, (8, 8), 4000
    propagator, action = free_propagator(kappa, shape), FreeScalar(kappa)
    white = np.fft.fftn(start(n, shape), axes=(1, 2))
    phi = np.fft.ifftn(white * np.sqrt(propagator), axes=(1, 2)).real
    args: dict[str, Any] = {"seed": 4, "chains": np.arange(n), "trajectory": 0, "length": math.pi / 2}
    fast, info = hmc_trajectory(action, phi, **args, n_steps=40, inverse_mass=propagator)
    assert info.accepted.mean() > 0.9
    slow, _ = hmc_trajectory(action, phi, **args, n_steps=40)
    m, m_fast, m_slow = (x.mean(axis=(1, 2))[info.accepted] for x in (phi, fast, slow))
    assert abs(np.corrcoef(m, m_fast)[0, 1]) < 4.5 / math.sqrt(n)
    assert np.corrcoef(m, m_slow)[0, 1] > 0.9
    modes = [np.abs(np.fft.fft2(x)[info.accepted]) ** 2 for x in (phi, fast)]
    corr = [np.corrcoef(modes[0][:, i, j], modes[1][:, i, j])[0, 1] for i in range(8) for j in range(8)]
    assert np.abs(corr).max() < 5 / math.sqrt(n)


def test_measured_mass_of_free_fields_is_the_propagator() -> None:
    propagator, n = free_propagator(0.2, (8, 6)), 4000
    phi = np.fft.ifftn(np.fft.fftn(start(n, (8, 6)), axes=(1, 2)) * np.sqrt(propagator), axes=(1, 2)).real
    ratio = measured_inverse_mass(phi) / propagator
    assert np.abs(ratio - 1).max() < 5 * math.sqrt(2 / n)
    check_inverse_mass(measured_inverse_mass(phi[:3]), (8, 6))


def test_zero_mode_of_two_peaks_is_a_narrow_well() -> None:
    """M = +-3 with width 0.1 at V = 16: A(0) is V 0.01, not V 9; the other modes are untouched."""
    rng, n = np.random.default_rng(8), 20000
    fields = rng.normal(size=(n, 4, 4))
    m = rng.choice([-3.0, 3.0], size=n) + 0.1 * rng.normal(size=n)
    fields += (m - fields.mean(axis=(1, 2)))[:, None, None]
    mass = measured_inverse_mass(fields)
    assert abs(mass[0, 0] / 0.16 - 1) < 0.1
    np.testing.assert_allclose(mass.ravel()[1:], 1.0, atol=0.05)


@pytest.mark.parametrize(
    ("mass", "message"),
    [
        (np.ones((4, 4)), "lattice's shape"),
        (np.zeros((4, 6)), "positive and finite"),
        (np.full((4, 6), np.nan), "positive and finite"),
        (np.ones((4, 6)) + np.arange(6), "even in every momentum"),
    ],
)
def test_bad_mass(mass: Array, message: str) -> None:
    with pytest.raises(InputError, match=message):
        hmc_trajectory(
            ScalarPhi4(0.2, 0.1), start(2, (4, 6)), seed=1, chains=np.arange(2), trajectory=0, length=1.0,
            n_steps=3, inverse_mass=mass,
        )  # fmt: skip
    with pytest.raises(InputError, match="flat mode"):
        free_propagator(0.3, (4, 4), 1.0)

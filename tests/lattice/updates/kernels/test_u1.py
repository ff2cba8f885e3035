"""Compiled loops of links: HMC is that of tensors, the series of the sine, and the von Mises law of any k."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import ive

from lattice.actions.u1 import U1
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact import u1 as exact
from lattice.rng import compiled
from lattice.simulation.gauge_draws import draw_links
from lattice.updates.hmc import hmc_trajectory, hmc_trajectory_torch
from lattice.updates.integrator import SCHEMES, evolve
from lattice.updates.kernels import u1 as kernels

ACTION = U1(1.7)


def some(shape: tuple[int, int], n: int = 11) -> Floats:
    return np.random.default_rng(1).uniform(-4.0, 9.0, (n, 2, *shape))


def turn(x: Floats) -> Floats:
    """The distance of angles from 0 on the circle."""
    return np.abs(x - 2 * np.pi * np.round(x / (2 * np.pi)))


@compiled
def sines(x: Any, out: Any) -> None:
    for i in range(x.size):
        out[i] = kernels.sine(x[i])


@compiled
def drawn(k: Any, out: Any) -> None:
    used = np.uint64(0)
    for i in range(out.size):
        out[i], used = kernels.von_mises(k, np.uint64(3), np.uint64(5), np.uint64(0), np.uint64(0), used)


def test_the_series_of_the_sine() -> None:
    x = np.concatenate([np.linspace(-40, 40, 20001), np.pi * np.arange(-9, 10) / 2, [0.0, 1e-9]])
    found = np.empty_like(x)
    sines(x, found)
    assert np.abs(found - np.sin(x)).max() < 1e-15


@pytest.mark.parametrize("k", [0.0, 0.3, 0.499, 0.501, 5.0, 1e4])
def test_the_von_mises_law_of_any_k(k: float) -> None:
    angle = np.empty(100_000)
    drawn(k, angle)
    for order in (1, 2):
        known = ((np.cos, ive(order, k) / ive(0, k)), (np.sin, 0.0))
        for x, value in ((f(order * angle), e) for f, e in known):
            assert abs(x.mean() - value) < 4 * x.std() / math.sqrt(x.size)
    other = ive(1, 1.1 * k + 0.1) / ive(0, 1.1 * k + 0.1)
    assert abs(np.cos(angle).mean() - other) > 8 * np.cos(angle).std() / math.sqrt(angle.size)


@pytest.mark.parametrize("integrator", list(SCHEMES))
@pytest.mark.parametrize("shape", [(4, 6), (2, 2), (2, 5), (3, 7)])
def test_hmc_is_that_of_tensors(shape: tuple[int, int], integrator: str) -> None:
    keys: dict[str, Any] = {"seed": 3, "chains": np.arange(11) + 5, "trajectory": 2, "integrator": integrator}
    phi, taken = some(shape), []
    for length, n_steps in ((1.3, 7), (4.0, 3)):  # the second is refused now and then
        x, a = hmc_trajectory(ACTION, phi, **keys, length=length, n_steps=n_steps)
        y, b = hmc_trajectory_torch(ACTION, torch.from_numpy(phi), **keys, length=length, n_steps=n_steps)
        assert turn(x - y.numpy()).max() < 1e-11
        np.testing.assert_allclose(a.dH, b.dH, rtol=1e-10, atol=1e-11)
        np.testing.assert_array_equal(a.accepted, b.accepted)
        for links in (x, y.numpy()):
            assert ((links > -np.pi) & (links <= np.pi)).all()
        assert turn(x - phi)[~a.accepted].max(initial=0.0) < 1e-14
        assert turn(x - phi)[a.accepted].max(initial=1.0) > 0.1
        taken.append(a.accepted)
    assert np.any(taken)
    assert not np.all(taken)


def test_bits_do_not_depend_on_company_block_and_threads() -> None:
    phi, chains = some((4, 6), 37), np.arange(1000, 1037)
    keys: dict[str, Any] = {"seed": 9, "trajectory": 4, "length": 1.0, "n_steps": 5}
    x, info = hmc_trajectory(ACTION, phi, chains=chains, **keys, n_threads=1)
    for options in ({"n_threads": 3}, {"block": 1}, {"block": 5, "n_threads": 2}):
        y, other = hmc_trajectory(ACTION, phi, chains=chains, **keys, **options)
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(info.dH, other.dH)
    alone, _ = hmc_trajectory(ACTION, phi[17:18], chains=chains[17:18], **keys)
    np.testing.assert_array_equal(alone[0], x[17])


def test_reversible_and_of_its_order() -> None:
    phi, p = (torch.from_numpy(some((4, 6))) for _ in range(2))
    steps: dict[str, Any] = {"length": 1.5, "n_steps": 9}
    new, new_p = evolve(ACTION.grad, phi, p, **steps)
    back, back_p = evolve(ACTION.grad, new, -new_p, **steps)
    assert (back - phi).abs().max() < 1e-11
    assert (back_p + p).abs().max() < 1e-11
    assert (new - phi).abs().max() > 1
    keys: dict[str, Any] = {"seed": 2, "chains": np.arange(11), "trajectory": 0, "length": 1.0}
    for name, n, order in (("leapfrog", 40, 2), ("omelyan2", 40, 2), ("omelyan4", 12, 4)):
        one, two = (
            np.abs(hmc_trajectory(ACTION, some((4, 6)), **keys, n_steps=k, integrator=name)[1].dH).mean()
            for k in (n, 2 * n)
        )
        assert one / two == pytest.approx(2**order, rel=0.15)


def test_hmc_leaves_the_exact_law() -> None:
    beta, shape, n = 2.0, (8, 8), 1500
    phi, dh = draw_links(beta, shape, n, seed=4), []
    for t in range(6):
        phi, info = hmc_trajectory(
            U1(beta), phi, seed=1, chains=np.arange(n), trajectory=t, length=1.5, n_steps=5
        )
        dh.append(np.exp(-info.dH))
    s, q2 = U1(beta).action(torch.from_numpy(phi)).numpy(), U1(beta).order(torch.from_numpy(phi)).numpy() ** 2
    for x, known in (
        (s / -128, exact.wilson_loop(beta, 64, 1)),
        (q2, exact.charge_law(beta, 64).moment(2)),
        (np.concatenate(dh), 1.0),
    ):
        assert abs(x.mean() - known) < 4 * x.std() / math.sqrt(x.size)
        assert abs(x.mean() - 1.3 * known) > 4 * x.std() / math.sqrt(x.size)


def test_an_s_of_its_own_is_moved_by_tensors_and_a_complex_one_not_at_all() -> None:
    @dataclass(frozen=True)
    class Double(U1):
        def action(self, phi: torch.Tensor) -> torch.Tensor:
            return 2 * super().action(phi)

        def grad(self, phi: torch.Tensor) -> torch.Tensor:
            return 2 * super().grad(phi)

    keys: dict[str, Any] = {"seed": 3, "chains": np.arange(11), "trajectory": 0, "length": 1.0, "n_steps": 5}
    x, a = hmc_trajectory(Double(1.0), some((4, 4)), **keys)
    y, b = hmc_trajectory(U1(2.0), some((4, 4)), **keys)
    assert turn(x - y).max() < 1e-12
    np.testing.assert_allclose(a.dH, b.dH, rtol=0, atol=1e-12)
    for action in (U1(2.0, theta=0.5), U1(1.0 + 0.5j)):
        with pytest.raises(InputError, match=r"S is complex: action\.beta = .* use action\.field: x\+iy"):
            hmc_trajectory(action, some((4, 4)), **keys)

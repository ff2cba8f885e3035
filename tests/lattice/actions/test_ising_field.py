"""Ising spins as a real field: S by its definition, sums over states, spins drawn from one law of both."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from lattice.actions.ising_field import IsingField
from lattice.actions.kinds import action_from_dict
from lattice.actions.spins import Ising
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.ising import enumerated
from lattice.rng import normals, uniforms

SHAPES = [(1,), (2,), (5,), (3, 4), (2, 2), (2, 2, 3)]


def fields(n: int, shape: tuple[int, ...]) -> Floats:
    return normals(5, "test/ising_field", np.arange(n), 0, math.prod(shape)).reshape(n, *shape)


def kernel(action: IsingField, shape: tuple[int, ...]) -> Floats:
    """K (V, V) site by site, from the neighbours one by one."""
    sites = list(itertools.product(*map(range, shape)))
    place = {x: i for i, x in enumerate(sites)}
    k = np.eye(len(sites)) * (2 * len(shape) + action.m2)
    for x, i in place.items():
        for axis, extent in enumerate(shape):
            for step in (1, -1):
                y = (*x[:axis], (x[axis] + step) % extent, *x[axis + 1 :])
                k[i, place[y]] += 1
    return np.asarray(k / action.temperature)


def states(n: int) -> Floats:
    """All spins (2^n, n)."""
    return np.array(list(itertools.product((-1.0, 1.0), repeat=n)))


def joint(n: int, shape: tuple[int, ...], action: IsingField) -> tuple[Floats, Floats]:
    """(s, phi), both (n, *shape): s by its Boltzmann weights over all states, phi = s + N(0, K^-1)."""
    every = states(math.prod(shape))
    log_p = -action.spins.action(torch.from_numpy(every.reshape(-1, *shape))).numpy()
    u = uniforms(9, "test/ising_field/states", np.arange(1), 0, n)[0]
    s = every[np.minimum(np.searchsorted(np.cumsum(np.exp(log_p - logsumexp(log_p))), u), len(every) - 1)]
    values, vectors = np.linalg.eigh(kernel(action, shape))
    noise = fields(n, shape).reshape(n, -1) @ (vectors / np.sqrt(values)).T
    return s.reshape(n, *shape), (s + noise).reshape(n, *shape)


def sigmas(x: Floats, known: float = 0.0) -> float:
    """Of the mean of independent numbers (n,)."""
    return float((x.mean() - known) / (x.std(ddof=1) / math.sqrt(len(x))))


def dyson(action: IsingField, phi: Floats) -> float:
    """(phi dS/dphi)/V - 1 in sigma."""
    given = torch.from_numpy(phi)
    return sigmas((given * action.grad(given)).flatten(1).mean(1).numpy(), 1.0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("h", [0.0, -0.4])
def test_the_action_is_the_sum_over_spins(shape: tuple[int, ...], h: float) -> None:
    """exp(-S) = e^(-shift) sum_s exp(-S_Ising(s) - (phi - s) K (phi - s)/2), for any phi: what it is made
    of."""
    action, v = IsingField(1.7, h, 0.6), math.prod(shape)
    k, phi, every = kernel(action, shape), fields(4, shape), states(v)
    weight = -Ising(1.7, h).action(torch.from_numpy(every.reshape(-1, *shape))).numpy()
    found = action.action(torch.from_numpy(phi)).numpy()
    shift = 0.5 * v * (2 * len(shape) + 0.6) / 1.7
    for one, s in zip(phi.reshape(4, -1), found, strict=True):
        apart = one - every
        known = logsumexp(weight - 0.5 * np.einsum("ni,ij,nj->n", apart, k, apart)) + shift
        assert -s == pytest.approx(known, abs=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("h", [0.0, 0.7])
def test_the_gradient_by_differences(shape: tuple[int, ...], h: float) -> None:
    action, phi, step = IsingField(2.1, h, 0.3), 2 * fields(3, shape), 1e-5
    grad = action.grad(torch.from_numpy(phi)).numpy()
    for x in itertools.product(*map(range, shape)):
        moved = [phi.copy(), phi.copy()]
        for sign, one in zip((1, -1), moved, strict=True):
            one[(slice(None), *x)] += sign * step
        high, low = (action.action(torch.from_numpy(one)).numpy() for one in moved)
        np.testing.assert_allclose(grad[(slice(None), *x)], (high - low) / (2 * step), atol=1e-7)


@pytest.mark.parametrize(("shape", "h"), [((1,), 0.0), ((1,), 0.5), ((2,), 0.0), ((2,), 0.3)])
def test_z_by_quadrature(shape: tuple[int, ...], h: float) -> None:
    """Integral of exp(-S) = Z_Ising exp(ln_z_beyond), to the digits of a trapezoidal rule."""
    action, v = IsingField(1.4, h, 0.8), math.prod(shape)
    x = np.linspace(-12, 12, 481)
    grid = np.stack(np.meshgrid(*[x] * v, indexing="ij"), -1).reshape(-1, v)
    s = action.action(torch.from_numpy(grid.reshape(-1, *shape))).numpy()
    found = float(logsumexp(-s)) + v * math.log(x[1] - x[0])
    assert found == pytest.approx(enumerated(shape, 1.4, h).ln_z + action.ln_z_beyond(shape), abs=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_eigenvalues_and_determinant(shape: tuple[int, ...]) -> None:
    """Of K written out; its smallest is m^2/T on even tori: K is positive for every m^2 > 0."""
    action = IsingField(1.3, 0.0, 0.2)
    k, v = kernel(action, shape), math.prod(shape)
    np.testing.assert_allclose(np.sort(action.eigenvalues(shape).ravel()), np.linalg.eigvalsh(k), atol=1e-12)
    phi = fields(2, shape)
    np.testing.assert_allclose(
        action.kernel(torch.from_numpy(phi)).numpy().reshape(2, -1), phi.reshape(2, -1) @ k, atol=1e-12
    )
    known = 0.5 * (v * (2 * len(shape) + 0.2) / 1.3 + v * math.log(2 * math.pi) - np.linalg.slogdet(k)[1])
    assert action.ln_z_beyond(shape) == pytest.approx(known, abs=1e-11)
    if all(extent % 2 == 0 for extent in shape):
        assert action.eigenvalues(shape).min() == pytest.approx(0.2 / 1.3)


@pytest.mark.parametrize(("shape", "h"), [((2, 2), 0.0), ((3,), 0.0), ((3, 4), 0.0), ((3, 3), 0.4)])
def test_spins_drawn_by_enumeration_and_noise_have_its_law(shape: tuple[int, ...], h: float) -> None:
    """Schwinger-Dyson, <t_x t_y> = <s_x s_y>, <t> = <s>, within 4 sigma; another T, m^2 or h is 10 off."""
    action = IsingField(2.2, h, 0.5)
    s, phi = joint(60_000, shape, action)
    assert abs(dyson(action, phi)) < 4
    for wrong in (IsingField(2.6, h, 0.5), IsingField(1.9, h, 0.5), IsingField(2.2, h, 0.8)):
        assert abs(dyson(wrong, phi)) > 10
    t = action.mean_spins(torch.from_numpy(phi)).numpy()
    other = IsingField(2.6, h, 0.5).mean_spins(torch.from_numpy(phi)).numpy()
    axis = len(shape)
    pairs = [(x * np.roll(x, 1, axis)).reshape(len(x), -1).mean(1) for x in (t, s, other)]
    if h == 0:
        known = -enumerated(shape, 2.2).e / len(shape) if len(set(shape)) == 1 else float(pairs[1].mean())
        assert abs(sigmas(pairs[0], known)) < 4
    assert abs(sigmas(pairs[0] - pairs[1])) < 4
    assert abs(sigmas(pairs[2] - pairs[1])) > 10, "not the mean spin of another T"
    ones = [x.reshape(len(x), -1).mean(1) for x in (t, s)]
    assert abs(sigmas(ones[0] - ones[1])) < 4
    if h:
        assert sigmas(ones[1]) > 10
        without = IsingField(2.2, 0.0, 0.5).mean_spins(torch.from_numpy(phi)).numpy().reshape(len(s), -1)
        assert abs(sigmas(without.mean(1) - ones[1])) > 10


def test_given_the_field_spins_are_independent() -> None:
    """P(s_x = 1 | phi) = 1/(1 + exp(-2 [K phi + h/T])): by all states at given phi, and calibrated: of the
    draws with P in a range that share is up, too."""
    action, shape = IsingField(1.8, 0.3, 0.4), (3, 3)
    s, phi = joint(40_000, shape, action)
    up = (1 + action.mean_spins(torch.from_numpy(phi)).numpy()) / 2
    pull = action.kernel(torch.from_numpy(phi)).numpy() + 0.3 / 1.8
    np.testing.assert_allclose(up, 1 / (1 + np.exp(-2 * pull)), atol=1e-14)
    every, k = states(9), kernel(action, shape)
    weight = -action.spins.action(torch.from_numpy(every.reshape(-1, 3, 3))).numpy()
    for one, p in zip(phi[:5].reshape(5, 9), up[:5].reshape(5, 9), strict=True):
        apart = one - every
        log_p = weight - 0.5 * np.einsum("ni,ij,nj->n", apart, k, apart)
        law = np.exp(log_p - logsumexp(log_p))
        np.testing.assert_allclose(law @ (every > 0), p, atol=1e-12)
        np.testing.assert_allclose(law, np.prod(np.where(every > 0, p, 1 - p), 1), atol=1e-12)
    p, is_up = up[:, 0, 0], s[:, 0, 0] > 0
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        inside = (p >= low) & (p < high)
        assert inside.sum() > 100
        assert abs(sigmas(is_up[inside] - p[inside])) < 4


def test_large_fields_do_not_overflow() -> None:
    phi = torch.full((1, 4, 4), 1e4, dtype=torch.float64)
    action = IsingField(0.5)
    assert float(action.action(phi)) == pytest.approx(16 * (0.5 * 1e8 * 18 - 1e4 * 18), rel=1e-12)
    assert torch.isfinite(action.grad(phi)).all()


def test_what_it_says_of_itself() -> None:
    assert IsingField(2.0).even
    assert not IsingField(2.0, 0.1).even
    assert IsingField(2.0, 0.1).spins == Ising(2.0, 0.1)
    assert IsingField(2.0).classical_field(2) == 1.0
    action = IsingField(2.0, -0.1, 0.4)
    assert action_from_dict(action.as_dict()) == action
    phi = torch.from_numpy(fields(3, (3, 4)))
    torch.testing.assert_close(IsingField(2.0).action(phi), IsingField(2.0).action(-phi))
    torch.testing.assert_close(action.action(-phi), IsingField(2.0, 0.1, 0.4).action(phi))
    assert (action.action(phi) - action.action(-phi)).abs().min() > 1e-3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0}, "action.temperature must be > 0, got 0"),
        ({"temperature": -1.0}, "action.temperature must be >= 0.*temperature.*got -1"),
        ({"temperature": 2, "m2": 0}, "action.m2 must be > 0, got 0"),
        ({"temperature": 2, "m2": -0.5}, "action.m2 must be >= 0.*got -0.5"),
        ({"temperature": math.nan}, "temperature"), ({"temperature": math.inf}, "temperature"),
        ({"temperature": 2, "h": math.inf}, r"action.h"), ({"temperature": 2, "m2": True}, "m2"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_one_line(settings: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        IsingField(**settings)
    assert "\n" not in str(refused.value)

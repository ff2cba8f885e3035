"""Cumulants along the processes: formulas against quadrature, estimators against exact laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from generating import cumulants_of, functional_of, noised_functional

from diffsq.analysis.sampler_errors import point_noise
from diffsq.models.two_peak import TwoPeakScore
from diffsq.process.cumulants import (
    Tally,
    consistent,
    estimate,
    exact_average,
    flow,
    forward,
    forward_pulls,
    signal,
    slices,
    watch_into,
)
from diffsq.process.sde import SDES, VESDE, VPSDE
from lattice.actions.one_variable import RealQuartic, TwoPeak
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.one_variable import toy_cumulants
from lattice.rng import normals, uniforms
from lattice.simulation.exact_draws import draw_toy

LAW = TwoPeakScore(1.0, 0.25)
ALL = (2, 3, 4, 5, 6, 7, 8)
EXPONENTIAL = np.array([math.factorial(n - 1) for n in range(1, 9)], dtype=float)


def exponential(n: int, seed: int = 3) -> torch.Tensor:
    return torch.from_numpy(-np.log(uniforms(seed, "test/exp", np.arange(n // 100), 0, 100)).reshape(-1, 1))


def noised(x: torch.Tensor, levels: torch.Tensor, f: Floats, stream: str = "test/up") -> Tally:
    """Along the forward process, counted as f x."""
    n = len(x)
    tally = Tally(len(levels), 100)

    def noise(step: int) -> torch.Tensor:
        return torch.from_numpy(normals(5, stream, np.arange(n // 100), step, 100).reshape(-1, 1))

    forward(x, levels, noise, watch_into(tally, f, slices(n)))
    return tally


def own_process(x: torch.Tensor, f: Floats) -> Tally:
    """x noised by the exact transitions of the variance-preserving process in its own variable."""
    tally, n = Tally(len(f), 100), len(x)
    tally.add(0, x, slices(n))
    for k in range(1, len(f)):
        a = f[k] / f[k - 1]
        eps = normals(6, "test/ou", np.arange(n // 100), k, 100).reshape(-1, 1)
        x = a * x + math.sqrt(1 - a * a) * torch.from_numpy(eps)
        tally.add(k, x, slices(n))
    return tally


@pytest.mark.parametrize(("f", "sigma"), [(1.0, 2.0), (0.6, 0.5), (0.3, 0.0)])
def test_formula_is_the_generating_functional(f: float, sigma: float) -> None:
    """kappa_n(t) by Cauchy's formula from W_t of a quadrature, and from the noised density itself."""
    x = np.linspace(-4, 5, 601)
    p = np.exp(-0.5 * ((x + 0.8) / 0.4) ** 2) + 0.6 * np.exp(-0.5 * ((x - 1.1) / 0.5) ** 2)
    w0 = functional_of(x, p)
    expected = flow(cumulants_of(w0, 8), np.array([f]), np.array([sigma]))[0]
    found = cumulants_of(noised_functional(w0, f, sigma), 8)
    assert np.allclose(found, expected, rtol=1e-8, atol=1e-8)
    z = np.linspace(-8, 8, 81)
    twice = f * (x[:, None] + sigma * z)
    direct = functional_of(twice.ravel(), (p[:, None] * np.exp(-0.5 * z**2)).ravel())
    assert np.allclose(cumulants_of(direct, 8), expected, rtol=1e-7, atol=1e-7)


def test_cauchy_formula_on_known_functionals() -> None:
    assert np.allclose(cumulants_of(lambda j: -np.log(1 - j), 8), EXPONENTIAL, rtol=1e-10)
    x = np.linspace(-3, 3, 6001)
    p = np.exp(-LAW.energy(torch.from_numpy(x)[:, None], torch.zeros(1, dtype=torch.float64)).numpy())
    assert np.allclose(cumulants_of(functional_of(x, p), 8), LAW.cumulants, rtol=1e-8, atol=1e-8)


def test_signal_of_the_processes() -> None:
    levels = VPSDE(0.01, 10.0).levels(5)
    assert np.allclose(signal(VPSDE(0.01, 10.0), levels), 1 / np.sqrt(1 + levels.numpy() ** 2), rtol=1e-12)
    assert (signal(VESDE(0.01, 10.0), levels) == 1.0).all()


def test_exponential_cumulants_with_odd_orders() -> None:
    value, error = estimate(exponential(400_000), ALL)
    assert (np.abs(value - EXPONENTIAL[1:]) < 4 * error).all()
    assert error[0] < 0.01
    wrong, its = estimate(exponential(400_000), ALL, z2=True)  # a law that is not even
    assert abs(wrong[0] - 1.0) > 10 * its[0]


def test_errors_are_those_of_repetition() -> None:
    """Jackknife errors of kappa_2, kappa_4 against the spread of 60 independent samples."""
    found = [estimate(draw_toy(TwoPeak(1.0, 0.25), 4000, seed), (2, 4), z2=True) for seed in range(60)]
    values, errors = (np.array([f[i] for f in found]) for i in (0, 1))
    ratio = values.std(axis=0) / errors.mean(axis=0)
    assert (np.abs(ratio - 1) < 4 / math.sqrt(2 * 59)).all()
    assert (np.abs(values.mean(0) - LAW.cumulants[[1, 3]]) < 4 * values.std(0) / math.sqrt(60)).all()


def test_split_weights_and_sites() -> None:
    x = draw_toy(RealQuartic(1.0, 0.4), 4000, 1).reshape(1000, 4)  # four sites
    whole, parts = Tally(1, 20), Tally(1, 20)
    block = slices(1000, 20)
    whole.add(0, x, block)
    for rows in np.array_split(np.random.default_rng(1).permutation(1000), 7):
        parts.add(0, torch.from_numpy(x[rows]), block[rows])
    assert np.allclose(whole.sums, parts.sums, rtol=1e-12)
    value, error = whole.curve(np.zeros(1), (2, 4), z2=True).value[0], estimate(x, (2, 4), z2=True)[1]
    true = toy_cumulants(RealQuartic(1.0, 0.4), 4).real[[1, 3]]
    assert (np.abs(value - true) < 4 * error).all()
    # weights: samples of width 1.2 turned into the unit normal
    y = 1.2 * normals(1, "test/w", np.arange(400), 0, 100).reshape(-1, 1)
    weight = np.exp(-0.5 * y[:, 0] ** 2 * (1 - 1 / 1.44))
    value, error = estimate(y, (2, 4), z2=True, weight=weight)
    assert (np.abs(value - [1.0, 0.0]) < 4 * error).all()
    assert abs(estimate(y, (2,), z2=True)[0][0] - 1.0) > 10 * error[0]


def test_autocorrelated_chains_need_their_blocks() -> None:
    """20 chains of which each repeats one draw 50 times: blocks of chains give the honest, larger error."""
    x = np.repeat(normals(2, "test/chain", np.arange(20), 0, 40), 50, axis=1).reshape(20, -1)
    chain = np.repeat(np.arange(20), 2000)
    honest = estimate(x.reshape(-1, 1), (2,), block=chain)[1][0]
    naive = estimate(x.reshape(-1, 1), (2,), block=np.arange(40000) % 100)[1][0]
    assert 0.5 < honest / math.sqrt(2 / 800) < 1.6
    assert naive < 0.3 * honest


def test_bad_input() -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        estimate(np.array([[np.nan]] * 400), (2,))
    with pytest.raises(InputError, match="orders must be among"):
        estimate(np.ones((400, 1)), (9,))
    with pytest.raises(InputError, match="10 or more blocks"):
        Tally(1, 5)
    with pytest.raises(InputError, match="10 or more blocks"):
        Tally(2, 20).replicas()


# ---------------------------------------------------------------- the processes


@pytest.mark.parametrize("kind", ["ve", "vp"])
@pytest.mark.parametrize("z2", [False, True])
def test_cumulants_along_the_process(kind: str, z2: bool) -> None:
    """Two peaks, or Exp(1) with its odd cumulants: at 4 sigma on the curve, both estimates."""
    sde = SDES[kind](0.05, 3.0)
    levels = sde.levels(8)
    f, sigma = signal(sde, levels), levels.numpy()
    orders = (2, 4, 6, 8) if z2 else (2, 3, 4, 5)
    x = torch.from_numpy(draw_toy(TwoPeak(1.0, 0.25), 100_000, 4)) if z2 else exponential(100_000)
    exact = flow(LAW.cumulants if z2 else EXPONENTIAL, f, sigma)[:, [n - 1 for n in orders]]
    tally = noised(x, levels, f) if kind == "ve" else own_process(x, f)
    curve, average = tally.curve(sigma, orders, z2), exact_average(tally, f, sigma, orders, z2)
    for found in (curve, average):
        assert consistent((found.value - exact) / found.error, 4.0)[0]
    assert consistent(forward_pulls(tally, f, sigma, orders, z2), 4.0)[0]
    if kind == "ve":  # conserved, each of them: and the errors grow
        assert np.allclose(exact[:, 1:], exact[0, 1:])
        assert (average.error[:, 1:] == average.error[0, 1:]).all()
        n = np.array(orders[1:])
        width = exact[-1, 0] ** (n / 2) * np.sqrt([math.factorial(k) / 1e5 for k in n])
        assert (curve.error[-1, 1:] > 0.5 * width).all()
    else:
        assert (np.abs(exact[-1, 1:]) < 0.05 * np.abs(exact[0, 1:])).all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda f, n: f ** (n - 1),  # one power of the signal too few
        lambda f, n: (f**2) ** n,  # sqrt missing in f
        lambda f, n: np.ones_like(f) if n > 2 else f**n,  # conserved as in VE
    ],
)
def test_a_wrong_power_of_the_signal_fails(wrong: object, monkeypatch: pytest.MonkeyPatch) -> None:
    sde = VPSDE(0.05, 3.0)
    levels = sde.levels(8)
    f, sigma = signal(sde, levels), levels.numpy()
    tally = own_process(torch.from_numpy(draw_toy(TwoPeak(1.0, 0.25), 100_000, 4)), f)

    def bad(kappa: Floats, f: Floats, sigma: Floats, noise: float = 1.0) -> Floats:
        out = np.stack([kappa[..., None, n - 1] * wrong(f, n) for n in range(1, 9)], axis=-1)  # type: ignore
        out[..., 1] += noise * (f * sigma) ** 2
        return out

    assert consistent(forward_pulls(tally, f, sigma, (4, 6, 8), True), 4.0)[0]
    monkeypatch.setattr("diffsq.process.cumulants.flow", bad)
    pulls = forward_pulls(tally, f, sigma, (4, 6, 8), True)
    assert not consistent(pulls, 4.0)[0]
    assert np.abs(pulls).max() > 10


def test_noise_short_by_root_two_fails_forward() -> None:
    levels = VESDE(0.05, 3.0).levels(8)
    x, f = torch.from_numpy(draw_toy(TwoPeak(1.0, 0.25), 20_000, 4)), np.ones(9)
    tally = Tally(9, 100)
    forward(
        x, levels, lambda n: 0.5**0.5 * point_noise(1, "test/short", np.arange(20))(n),
        watch_into(tally, f, slices(20_000)),
    )  # fmt: skip
    assert forward_pulls(tally, f, levels.numpy(), (2,), True).max() > 10

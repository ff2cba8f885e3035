"""Cumulants along the processes: formulas against quadrature, estimators against exact laws, samplers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from generating import cumulants_of, functional_of, noised_functional

from diffsq.analysis import sampler_errors
from diffsq.analysis.sampler_errors import (
    SAMPLERS,
    limit,
    noise_levels,
    point_noise,
    sample_points,
    sampler_cumulants,
    sampler_table,
)
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


# ---------------------------------------------------------------- formulas


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


def test_two_peak_cumulants_agree_with_the_toy_model() -> None:
    assert np.allclose(LAW.cumulants, toy_cumulants(TwoPeak(1.0, 0.25), 8).real, atol=1e-12)
    other = TwoPeakScore(0.7, 0.4)
    assert np.allclose(other.cumulants, toy_cumulants(TwoPeak(0.7, 0.4), 8).real, atol=1e-12)


def test_signal_of_the_processes() -> None:
    levels = VPSDE(0.01, 10.0).levels(5)
    assert np.allclose(signal(VPSDE(0.01, 10.0), levels), 1 / np.sqrt(1 + levels.numpy() ** 2), rtol=1e-12)
    assert (signal(VESDE(0.01, 10.0), levels) == 1.0).all()


# ---------------------------------------------------------------- estimators


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
    with pytest.raises(InputError, match="multiple of 1000"):
        sample_points(LAW, SAMPLERS["heun"], noise_levels("ve", 5, 0.1, 5.0), 1500, seed=1, stream="x")
    with pytest.raises(InputError, match="sde must be one of"):
        noise_levels("xx", 5, 0.1, 5.0)
    with pytest.raises(InputError, match="sigma0 > 0"):
        TwoPeakScore(1.0, 0.0)


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


# ---------------------------------------------------------------- the analytic score


def test_score_denoiser_energy_and_posterior_variance() -> None:
    x = torch.linspace(-3, 3, 41, dtype=torch.float64)[:, None]
    for level in (0.01, 0.3, 2.0):
        sigma, h = torch.full((1,), level, dtype=torch.float64), 1e-5
        slope = (LAW.energy(x + h, sigma) - LAW.energy(x - h, sigma)) / (2 * h)
        assert torch.allclose(LAW.score(x, sigma)[:, 0], -slope, rtol=1e-6, atol=1e-6)
        assert torch.allclose(LAW.denoise(x, sigma), x + level**2 * LAW.score(x, sigma), atol=1e-10)
        # Tweedie's second identity: C = sigma^2 dD/dx
        slope = (LAW.denoise(x + h, sigma) - LAW.denoise(x - h, sigma)) / (2 * h)
        assert torch.allclose(LAW.posterior_variance(x, sigma), level**2 * slope, rtol=1e-5, atol=1e-9)
    zero = torch.zeros(1, dtype=torch.float64)
    assert torch.allclose(LAW.score(x, zero), -TwoPeak(1.0, 0.25).grad(x), rtol=1e-10)


@pytest.mark.parametrize("kind", ["ve", "vp"])
@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_two_peaks_through_every_sampler(name: str, kind: str) -> None:
    """At enough steps every sampler gives the exact cumulants; orders 2 and 4 to a percent and better."""
    levels = noise_levels(kind, 1000 if name == "ancestral" else 200, 0.02, 8.0)
    n = 10_000 if name == "ancestral" else 20_000
    tally = sample_points(LAW, SAMPLERS[name], levels, n, seed=2, stream=f"test/{name}/{kind}")
    found = tally.curve(np.zeros(1), (2, 4, 6, 8), z2=True)
    pulls = (found.value[0] - LAW.cumulants[1::2]) / found.error[0]
    assert (np.abs(pulls) < 4.5).all(), pulls
    assert (found.error[0] < 0.03 * np.abs(LAW.cumulants[1::2])).all()


@pytest.mark.parametrize("name", ["euler", "pc", "ancestral", "path"])
def test_sampler_noise_short_by_root_two_fails(name: str) -> None:
    levels = noise_levels("ve", 100, 0.02, 8.0)
    noise = point_noise(2, "test/short", np.arange(20))
    x = sampler_errors.reverse(LAW, SAMPLERS[name], 8.06 * noise(200), levels, lambda i: 0.5**0.5 * noise(i))
    value, error = estimate(x, (2, 4), z2=True)
    assert np.abs((value - LAW.cumulants[[1, 3]]) / error).max() > 10


def test_samples_follow_the_exact_law_of_the_sampler() -> None:
    """`sampler_cumulants` has no statistical error: 12 steps, far from converged, agree with it and not with
    the truth."""
    levels = noise_levels("ve", 12, 0.05, 6.0)
    for name in ("euler", "heun", "ancestral"):
        exact = sampler_cumulants(LAW, SAMPLERS[name], levels)[1::2]
        tally = sample_points(LAW, SAMPLERS[name], levels, 50_000, seed=3, stream=f"test/law/{name}")
        found = tally.curve(np.zeros(1), (2, 4, 6, 8), z2=True)
        assert (np.abs(found.value[0] - exact) < 4 * found.error[0]).all()
        assert (np.abs(found.value[0] - LAW.cumulants[1::2]) > 10 * found.error[0]).any()


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("ancestral", 1), ("heun", 2), ("path", 2)])
def test_order_in_the_number_of_steps(name: str, order: int) -> None:
    off = [
        sampler_cumulants(LAW, SAMPLERS[name], noise_levels("ve", n, 0.01, 6.0))[1] - LAW.cumulants[1]
        for n in (100, 200)
    ]
    assert abs(math.log2(off[0] / off[1]) - order) < 0.35, off


def test_bias_of_the_last_step() -> None:
    """The table of the module: what each way to go from exact points at epsilon to 0 leaves in kappa_2."""
    epsilon, v = 0.08, LAW.sigma0**2
    one, zero = torch.tensor(epsilon, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    x = torch.linspace(-3.5, 3.5, 2001, dtype=torch.float64)[:, None]
    p = np.exp(-LAW.energy(x, one[None]).numpy())
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)

    def end(name: str) -> Floats:
        if name == "none":
            return flow(LAW.cumulants, np.ones(1), np.array([epsilon]))[0]
        xs = [SAMPLERS[name](LAW, x, one, zero, lambda i, z=z: torch.full_like(x, z), None) for z in nodes]
        y = torch.cat(xs).numpy()[:, 0]
        return cumulants_of(functional_of(y, np.multiply.outer(weights, p).ravel()), 8)

    for name, bias in (
        ("none", epsilon**2),
        ("ancestral", -(epsilon**2) * v / (v + epsilon**2)),
        ("euler", epsilon**4 / (v + epsilon**2)),
        ("heun", epsilon**4 / (4 * (v + epsilon**2))),
        ("path", 0.0),
    ):
        found = end(name)
        assert abs(found[1] - LAW.cumulants[1] - bias) < 3e-5, name
        assert np.allclose(found[3::2], LAW.cumulants[3::2], rtol=2e-4), name  # noise of a peak is not seen
    levels = noise_levels("ve", 200, epsilon, 6.0)
    step, none = (sampler_cumulants(LAW, SAMPLERS["path"], levels, last) for last in ("step", "none"))
    assert abs(none[1] - step[1] - epsilon**2) < 3e-5  # and the same at the end of a whole sampler


def test_the_published_deviations_have_the_form_of_a_missing_last_step() -> None:
    """Published, 10^6 samples (2410.21212): stopping at epsilon leaves f^n (kappa_n + delta_{n2} epsilon^2).

    VE, f = 1: kappa_2 + epsilon^2 and nothing else. VP, f^2 = 1/(1 + epsilon^2): all of them, by one number.
    epsilon is fitted here, one for each process: arithmetic on the printed table, not a look at their code.
    """
    published = {"ve": ([1.0700, -2.0034, 16.05, -273.2], [6e-4, 2.3e-3, 0.03, 0.6]),
                 "vp": ([1.0612, -1.9757, 15.71, -265.5], [5e-4, 1.9e-3, 0.02, 0.5])}  # fmt: skip
    for kind, epsilon in (("ve", 0.0866), ("vp", 0.078)):
        value, error = (np.array(x) for x in published[kind])
        f = np.array([1.0 if kind == "ve" else 1 / math.sqrt(1 + epsilon**2)])
        stopped = flow(LAW.cumulants, f, np.array([epsilon]))[0, 1::2]
        assert (np.abs(value - stopped) < 3 * error).all()
        assert (np.abs(value - LAW.cumulants[1::2]) > 10 * error).any()


def test_table_limits_and_text() -> None:
    rows = sampler_table(
        kinds=("ve",), samplers=("euler",), n_steps=(25, 50, 100), epsilons=(0.03,), n=50_000
    )
    ends = limit(rows)
    # the quadratic term of 25 steps is still there, within the errors of this small sample
    assert abs(ends[0].value - LAW.cumulants[1]) < 4.5 * ends[0].error
    assert rows[0]["pull"][0] > 5
    words = sampler_errors.text(rows)
    assert "infinity" in words
    assert words.count("euler") == 4
    with pytest.raises(InputError, match="one process and sampler"):
        limit([*rows, {**rows[0], "sampler": "heun"}])
    with pytest.raises(InputError, match="n_steps or epsilon"):
        limit(rows, "sigma")


def test_stratified_starts_lower_the_errors_of_the_flow_and_stay_honest() -> None:
    levels = noise_levels("ve", 100, 0.02, 6.0)
    exact = sampler_cumulants(LAW, SAMPLERS["heun"], levels)[1::2]
    plain, strata = (
        sample_points(LAW, SAMPLERS["heun"], levels, 20_000, seed=1, stream="test/s", stratified=s).curve(
            np.zeros(1), (2, 4, 6, 8), z2=True
        )
        for s in (False, True)
    )
    assert (strata.error[0] < 0.2 * plain.error[0]).all()
    assert (np.abs(strata.value[0] - exact) < 5 * strata.error[0] + 1e-5 * np.abs(exact)).all()


def test_results_do_not_depend_on_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = noise_levels("vp", 6, 0.05, 6.0)
    a = sample_points(LAW, SAMPLERS["pc"], levels, 12_000, seed=1, stream="t", every_level=True)
    monkeypatch.setattr(sampler_errors, "CHUNK", 5)
    b = sample_points(LAW, SAMPLERS["pc"], levels, 12_000, seed=1, stream="t", every_level=True)
    assert np.array_equal(a.sums, b.sums)
    assert (a.counts == 1000).all()

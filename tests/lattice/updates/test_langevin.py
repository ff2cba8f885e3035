"""Langevin: kernel = tensors, MALA = one-step HMC, the known bias of the step size, and its removal."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator, one_site_moments
from lattice.rng import normals
from lattice.simulation.stochastic_quantization import stochastic_quantization
from lattice.statistics.extrapolation import extrapolate_step
from lattice.updates import hmc, langevin
from lattice.updates.langevin import langevin_update, langevin_update_torch

ACTION = ScalarPhi4(0.27, 0.022)
FREE = FreeScalar(0.12)
SHAPES = [(8,), (5,), (4, 6), (3, 3, 5), (2, 1, 3, 2), (3, 1), (2, 2), (1, 1), (1,)]


def start(n, shape, seed=0):
    return normals(seed, "start", np.arange(n), 0, math.prod(shape)).reshape(n, *shape)


def free_start(shape, n, step=0.0, seed=5):
    """Exact draws of the free field, or of what Euler-Maruyama makes of it: G / (1 - h/(2G)) per mode."""
    g = free_propagator(FREE.kappa, shape)
    axes = tuple(range(1, len(shape) + 1))
    modes = np.fft.fftn(start(n, shape, seed), axes=axes) * np.sqrt(g / (1 - step / (2 * g)))
    return np.fft.ifftn(modes, axes=axes).real


def pull(chain_means, truth):
    """Deviation in standard errors; chains (axis 0) are independent."""
    return (chain_means.mean(0) - truth) / (chain_means.std(0, ddof=1) / math.sqrt(len(chain_means)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("metropolis", [False, True])
def test_kernel_equals_tensors(shape, metropolis):
    """For MALA also an identity: the kernel's dH is that of a leapfrog step, the tensors' is
    S' - S + ln q(phi'|phi) - ln q(phi|phi')."""
    n = 11
    for action in (ACTION, ScalarPhi4(-0.3, 0.8), FreeScalar(0.1)):
        args = {"seed": 3, "chains": np.arange(n) + 5, "trajectory": 2, "step": 0.03, "n_steps": 6}
        phi = start(n, shape)
        x, a = langevin_update(action, phi, **args, metropolis=metropolis)
        y, b = langevin_update_torch(action, torch.from_numpy(phi), **args, metropolis=metropolis)
        np.testing.assert_allclose(x, y.numpy(), rtol=0, atol=1e-12)
        np.testing.assert_array_equal(a.accepted, b.accepted)
        assert a.accepted.shape == (n, 6)
        if metropolis:
            np.testing.assert_allclose(a.dH, b.dH, rtol=0, atol=1e-11)
            rejected = ~a.accepted.any(axis=1)
            np.testing.assert_array_equal(x[rejected], phi[rejected])
        else:
            assert a.dH is None
            assert a.accepted.all()


@pytest.mark.parametrize("shape", [(5,), (4, 6), (3, 1), (3, 2, 2)])
@pytest.mark.parametrize("integrator", ["leapfrog", "omelyan2"])
def test_mala_is_hmc_of_one_leapfrog_step(shape, integrator, monkeypatch):
    """Given Langevin's random numbers, HMC of one step sqrt(2 h) is MALA; another integrator is not."""
    step, phi = 0.15, start(13, shape)
    keys = {"seed": 8, "chains": np.arange(13), "trajectory": 4}
    x, a = langevin_update(ACTION, phi, **keys, step=step, metropolis=True)
    monkeypatch.setattr(hmc, "MOMENTUM", langevin.NOISE)
    monkeypatch.setattr(hmc, "ACCEPT", langevin.ACCEPT)
    y, b = hmc.hmc_trajectory(
        ACTION, phi, **keys, length=math.sqrt(2 * step), n_steps=1, integrator=integrator
    )
    if integrator == "leapfrog":
        np.testing.assert_allclose(a.dH[:, 0], b.dH, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(a.accepted[:, 0], b.accepted)
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-12)
    else:
        assert np.abs(a.dH[:, 0] - b.dH).max() > 1e-3


@pytest.mark.parametrize("shape", [(5,), (4, 6)])
def test_noise_runs_over_steps_and_sites(shape):
    """Position step * V + site of (seed, "langevin/noise", chain, trajectory), even where V is odd."""
    n, volume, step = 4, math.prod(shape), 0.07
    eta = normals(2, "langevin/noise", np.arange(n) + 9, 3, 5 * volume).reshape(n, 5, *shape)
    phi = torch.from_numpy(start(n, shape))
    for k in range(5):
        phi = phi - step * ACTION.grad(phi) + math.sqrt(2 * step) * torch.from_numpy(eta[:, k])
    x, _ = langevin_update(
        ACTION, start(n, shape), seed=2, chains=np.arange(n) + 9, trajectory=3, step=step, n_steps=5
    )
    np.testing.assert_allclose(x, phi.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(5,), (4, 6)])
@pytest.mark.parametrize("metropolis", [False, True])
def test_bitwise_independent_of_company_block_and_threads(shape, metropolis):
    chains, phi = np.arange(1000, 1037), start(37, shape)
    before = phi.copy()
    args = {"seed": 2**63 + 5, "trajectory": 9, "step": 0.1, "n_steps": 3, "metropolis": metropolis}
    whole, info = langevin_update(ACTION, phi, chains=chains, **args, n_threads=1)
    np.testing.assert_array_equal(phi, before)
    for n_threads, block in ((1, 1), (1, 8), (2, 3), (3, 64)):
        x, i = langevin_update(ACTION, phi, chains=chains, **args, n_threads=n_threads, block=block)
        np.testing.assert_array_equal(x, whole)
        np.testing.assert_array_equal(i.accepted, info.accepted)
    order = np.random.default_rng(0).permutation(37)
    x, _ = langevin_update(ACTION, phi[order], chains=chains[order], **args)
    np.testing.assert_array_equal(x, whole[order])
    x, _ = langevin_update(ACTION, phi[18:19], chains=chains[18:19], **args)
    np.testing.assert_array_equal(x[0], whole[18])


def test_mala_energy_law():
    """In equilibrium <exp(-dH)> = 1, acceptance = <min(1, exp(-dH))>, and rms dH ~ h^(3/2)."""
    n, shape, chains = 4000, (4, 6), np.arange(4000)
    phi, rms, steps = free_start(shape, n), [], (0.02, 0.04, 0.08)
    for t, step in enumerate(steps):
        args = {"seed": 6, "chains": chains, "trajectory": t, "step": step, "n_steps": 8, "metropolis": True}
        _, info = langevin_update(FREE, phi, **args)
        weight = np.exp(-info.dH)
        assert abs(pull(weight.mean(1), 1.0)) < 4.5
        assert abs(pull((info.accepted - np.minimum(1, weight)).mean(1), 0.0)) < 4.5
        rms.append(np.sqrt(np.mean(info.dH**2)))
    assert np.polyfit(np.log(steps), np.log(rms), 1)[0] == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize("shape", [(9,), (4, 6), (2, 3, 2)])
@pytest.mark.parametrize("step", [0.1, 0.4])
def test_free_field_at_a_finite_step(shape, step):
    """x' = (1 - h/G) x + sqrt(2 h) eta has the variance G / (1 - h/(2G)), mode by mode: started there it
    stays, and G itself is missed by more than 10 sigma; MALA started at G stays there."""
    n, g, chains = 1000, free_propagator(FREE.kappa, shape), np.arange(1000)
    axes = tuple(range(1, len(shape) + 1))

    def power(phi, **settings):
        total = np.zeros((n, *shape))
        for t in range(60):
            phi, _ = langevin_update(FREE, phi, seed=7, chains=chains, trajectory=t, n_steps=5, **settings)
            total += np.abs(np.fft.fftn(phi, axes=axes)) ** 2 / math.prod(shape)
        return total / 60

    raw = power(free_start(shape, n, step), step=step)
    assert np.abs(pull(raw, g / (1 - step / (2 * g)))).max() < 4.5
    phi2 = raw.reshape(n, -1).mean(1)
    assert pull(phi2, g.mean()) > 10
    # to first order the bias of <phi^2> is h/2, whatever the couplings; the next one is h^2 <1/G>/4 = h^2/2
    assert abs(pull(phi2, g.mean() + step / 2 + step**2 / 2)) < 4.5 or step > 0.1
    exact = power(free_start(shape, n), step=0.1, metropolis=True)
    assert np.abs(pull(exact, g)).max() < 4.5


def test_extrapolation_recovers_the_free_field():
    """phi2 = <G>, s = 1/2 and g0 = G(0) within errors at h = 0, each raw value off by more than 10 sigma."""
    g = free_propagator(FREE.kappa, (4, 6))
    table = stochastic_quantization(
        FREE, (4, 6), n_chains=400, tau_therm=10.0, tau_run=150.0, order=2,
        seed=12, steps=(0.02, 0.04, 0.06, 0.08, 0.1),
    )  # fmt: skip
    truth = {"phi2": g.mean(), "s": 0.5, "g0": g[0, 0]}
    for name, value in truth.items():
        limit = table.limits[name]
        assert limit.trusted
        assert abs(limit.value - value) < 4 * limit.error, name
        assert limit.error < 0.02 * value
    for name in ("phi2", "s"):
        assert (np.abs(table.values[name] - truth[name]) > 10 * table.errors[name]).all(), name
    slope, error = table.limits["phi2"].slopes[0], table.limits["phi2"].slope_errors[0]
    assert abs(slope - 0.5) < 4 * error
    assert "0 (fit)" in table.text
    assert "start pull" in table.text
    assert len(table.text.splitlines()) == 9


def euler_maruyama_phi2(mass, lam, step):
    """<phi^2> of one site, exactly as Euler-Maruyama samples it: the stationary vector of its kernel."""
    x = np.linspace(-3.5, 3.5, 701)
    mean = x - step * (2 * mass * x + 4 * lam * x**3)
    kernel = np.exp(-((x - mean[:, None]) ** 2) / (4 * step))
    kernel /= kernel.sum(axis=1, keepdims=True)
    balance = kernel.T - np.eye(len(x))
    balance[0] = 1.0  # one equation is redundant: normalisation takes its place
    p = np.linalg.solve(balance, np.eye(len(x))[0])
    return (p * x**2).sum()


def test_bias_of_an_interacting_site():
    """The bias at finite h is that of the kernel's stationary law, it begins as the action
    S + (h/4)(2 S'' - S'^2) says, and the extrapolation removes it."""
    lam = 0.3
    mass, action = 1 - 2 * lam, ScalarPhi4(0.0, lam)
    x = np.linspace(-6, 6, 4001)
    p = np.exp(-mass * x**2 - lam * x**4)
    p /= p.sum()
    change = (2 * (2 * mass + 12 * lam * x**2) - (2 * mass * x + 4 * lam * x**3) ** 2) / 4
    truth = one_site_moments(action, (2,))[0]
    slope = -((p * x**2 * change).sum() - truth * (p * change).sum())
    h = 0.01
    d1, d2 = ((euler_maruyama_phi2(mass, lam, step) - truth) / step for step in (h, 2 * h))
    assert 2 * d1 - d2 == pytest.approx(slope, rel=0.01)

    steps = (0.02, 0.04, 0.06, 0.08)
    table = stochastic_quantization(
        action, (16, 16), steps=steps, n_chains=64, tau_therm=6.0, tau_run=120.0, order=2, seed=13
    )
    for step, value, error in zip(steps, table.values["phi2"], table.errors["phi2"]):
        exact = euler_maruyama_phi2(mass, lam, step)
        assert abs(value - exact) < 4.5 * error
        assert value - truth > 10 * error or step < 0.03
    limit = table.limits["phi2"]
    assert limit.trusted
    assert abs(limit.value - truth) < 4 * limit.error


@pytest.mark.parametrize("order", [1, 2])
def test_extrapolation_errors_are_right(order):
    """Pulls of value and slope ~ N(0, 1) and p-values uniform, over 2000 synthetic sets of points."""
    rng = np.random.default_rng(3)
    h, e = np.array([0.01, 0.02, 0.04, 0.05, 0.08]), np.array([0.03, 0.01, 0.02, 0.01, 0.02])
    line = 1.5 - 2.0 * h + (0 if order == 1 else 7.0 * h**2)
    fits = [extrapolate_step(h, line + e * rng.normal(size=5), e, order) for _ in range(2000)]
    for values in (
        [(f.value - 1.5) / f.error for f in fits],
        [(f.slopes[0] + 2.0) / f.slope_errors[0] for f in fits],
    ):
        assert scipy.stats.kstest(values, "norm").pvalue > 1e-4
    assert scipy.stats.kstest([f.p_value for f in fits], "uniform").pvalue > 1e-4
    assert all(f.dof == 4 - order and len(f.slopes) == order for f in fits)


def test_a_bad_fit_is_not_trusted():
    h = np.array([0.1, 0.2, 0.3, 0.4])
    curved = extrapolate_step(h, 1 + h**2, np.full(4, 1e-3))
    assert not curved.trusted
    assert curved.p_value < 1e-3
    assert "order 1" in curved.reason
    cured = extrapolate_step(h, 1 + h**2, np.full(4, 1e-3), order=2)
    assert cured.trusted
    assert cured.value == pytest.approx(1.0, abs=1e-12)
    assert cured.slopes == pytest.approx((0.0, 1.0), abs=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": [0.1, 0.2], "values": [1, 1], "errors": [1, 1]}, "at least 3 steps, got 2"),
        ({"order": 2}, "at least 4 steps"),
        ({"order": 0}, "order .* must be >= 1"),
        ({"values": [1.0, np.nan, 1.0]}, "values .* must be finite"),
        ({"errors": [1.0, np.inf, 1.0]}, "errors .* must be finite"),
        ({"errors": [1.0, 0.0, 1.0]}, "errors .* must be positive"),
        ({"steps": [0.1, 0.1, 0.2]}, "positive and distinct"),
        ({"steps": [0.0, 0.1, 0.2]}, "positive and distinct"),
        ({"values": [1.0, 1.0]}, "1-d and alike"),
    ],
)
def test_extrapolation_refuses(change, message):
    args = {"steps": [0.1, 0.2, 0.3], "values": [1.0, 1.0, 1.0], "errors": [0.1, 0.1, 0.1], **change}
    with pytest.raises(InputError, match=message):
        extrapolate_step(**args)


@pytest.mark.parametrize("update", [langevin_update, langevin_update_torch])
def test_runaways_are_refused_by_name_and_rejected_by_mala(update):
    """h dS/dphi > phi beyond phi^2 = 1/(2 lam h): plain Langevin then diverges at once."""
    action, phi = ScalarPhi4(0.2, 0.5), start(6, (4, 4))
    phi[3, 1, 1] = 1e4
    given = phi if update is langevin_update else torch.from_numpy(phi)
    args = {"seed": 1, "chains": np.arange(6) + 40, "trajectory": 2, "step": 0.02, "n_steps": 30}
    with pytest.raises(InputError, match=r"1 of 6 chains: chain 43 .* step \d+ of trajectory 2; use a step"):
        update(action, given, **args)
    x, info = update(action, given, **args, metropolis=True)
    np.testing.assert_array_equal(np.asarray(x)[3], phi[3])
    assert not info.accepted[3].any()
    assert info.accepted[[0, 1, 2, 4, 5]].mean() > 0.5
    phi[2, 0, 0] = np.nan  # one broken chain leaves the others in its block alone, and is marked
    given = phi if update is langevin_update else torch.from_numpy(phi)
    _, again = update(action, given, **args, metropolis=True)
    assert np.isnan(again.dH[2]).all()
    np.testing.assert_array_equal(again.dH[[0, 1, 4, 5]], info.dH[[0, 1, 4, 5]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chains": np.arange(3)}, "2 fields, 3 chains"),
        ({"seed": -1}, "seed must be"),
        ({"step": 0.0}, "Langevin step must be a positive"),
        ({"step": math.nan}, "Langevin step must be a positive"),
        ({"n_steps": 0}, "n_steps must be"),
        ({"n_steps": 2**32}, "n_steps must be"),
        ({"n_threads": 0}, "n_threads must be"),
        ({"phi": np.zeros((2, 3), dtype=np.float32)}, "float64"),
        ({"action": object()}, "a lattice.Action, got object"),
    ],
)
def test_bad_input(change, message):
    args = {"seed": 1, "chains": np.arange(2), "trajectory": 0, "step": 0.1, "phi": np.zeros((2, 3))}
    args.update(change)
    with pytest.raises(InputError, match=message):
        langevin_update(args.pop("action", ACTION), args.pop("phi"), **args)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": (0.1, 0.2)}, "at least 3 steps"),
        ({"n_chains": 15}, "n_chains must be >= 16"),
        ({"tau_run": 0.0}, "tau_run must be"),
        ({"shape": (0, 2)}, "lattice shape"),
        ({"steps": (0.1, 0.2, 5.0)}, "ran away"),
    ],
)
def test_driver_refuses(change, message):
    args = {"shape": (2, 2), "n_chains": 16, "tau_therm": 50.0, "tau_run": 50.0, "steps": (0.1, 0.2, 0.3)}
    with pytest.raises(InputError, match=message):
        stochastic_quantization(ACTION, **{**args, **change}, seed=1)


@pytest.mark.parametrize("kappa", [0.27, 0.3])
def test_a_thermalisation_that_was_too_short_is_not_trusted(kappa):
    """Each size and quantity remembers its starts, while the fit is good; eighty times longer, none does."""
    args = {"steps": (0.02, 0.03, 0.04, 0.05), "n_chains": 64, "seed": 3}
    short = stochastic_quantization(ScalarPhi4(kappa, 0.022), (8, 8), tau_therm=0.5, tau_run=4.0, **args)
    for name, limit in short.limits.items():
        assert short.pulls[name].shape == (4,)
        assert short.pulls[name].max() > 6
        assert limit.p_value > 1e-3
        assert not limit.trusted
        assert "tau_therm = 0.5 is too short" in limit.reason
        assert f"{name}: {limit.reason}" in short.text
    enough = stochastic_quantization(ScalarPhi4(kappa, 0.022), (8, 8), tau_therm=40.0, tau_run=40.0, **args)
    for name, limit in enough.limits.items():
        assert enough.pulls[name].max() < 4
        assert limit.trusted
        assert limit.reason == ""


def test_walls_that_stay_are_not_trusted():
    """Deep in the broken phase a pair of walls wound around the lattice outlives tau_therm = 10."""
    table = stochastic_quantization(
        ScalarPhi4(0.36, 0.022), (24, 8), steps=(0.01, 0.015, 0.02), n_chains=16, tau_therm=10.0, tau_run=2.0,
        seed=2,
    )  # fmt: skip
    assert not table.limits["abs_m"].trusted
    assert "domain-wall" in table.limits["abs_m"].reason


def test_driver_is_reproducible():
    args = {"n_chains": 16, "tau_therm": 1.0, "tau_run": 2.0, "steps": (0.1, 0.2, 0.3), "seed": 4}
    one = stochastic_quantization(ACTION, (2, 3), **args, n_threads=1)
    two = stochastic_quantization(ACTION, (2, 3), **args, n_threads=2)
    for name in one.values:
        np.testing.assert_array_equal(one.values[name], two.values[name])
    assert one.limits == two.limits

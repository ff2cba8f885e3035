"""The referee's page: every update against quadrature, the others and equilibrium; and what must fail.

To add an update: one line in UPDATES, and one in TOGETHER_WITH if it does not reach every field by itself.
"""

import itertools
import math
import zlib
from functools import cache

import numpy as np
import pytest
import scipy.stats
import torch

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.exact.scalar import free_propagator, small_lattice
from lattice.rng import normals, uniforms
from lattice.updates.cluster import swendsen_wang_update, wolff_update
from lattice.updates.hmc import hmc_trajectory
from lattice.updates.integrator import evolve
from lattice.updates.langevin import langevin_update
from lattice.updates.local import metropolis_sweep, overrelaxation_sweep

MALA_STEP = 0.15


def hmc(integrator, n_steps, accelerated=False):
    """Lengths 0.7 and 1.3 in turn: a mode whose half period is one of them would hardly move."""

    def update(action, phi, **keys):
        shape = phi.shape[1:]
        mass = 0.2 + 2 * abs(action.kappa) * len(shape)  # any damped free field: all are exact
        inverse_mass = free_propagator(action.kappa, shape, mass) if accelerated else None
        settings = {"integrator": integrator, "n_steps": n_steps, "inverse_mass": inverse_mass}
        return hmc_trajectory(action, phi, **keys, length=(0.7, 1.3)[keys["trajectory"] % 2], **settings)

    return update


def mala(action, phi, **keys):
    return langevin_update(action, phi, **keys, step=MALA_STEP, n_steps=4, metropolis=True)


def wolff(action, phi, **keys):
    return wolff_update(action, phi, **keys, n_clusters=1)


def metropolis(action, phi, **keys):
    return metropolis_sweep(action, phi, **keys, width=1.5, n_sweeps=3)


UPDATES = {
    "leapfrog": hmc("leapfrog", 3),
    "omelyan2": hmc("omelyan2", 2),
    "omelyan4": hmc("omelyan4", 1),
    "fourier": hmc("omelyan2", 2, accelerated=True),
    "mala": mala,
    "metropolis": metropolis,
    "overrelaxation": overrelaxation_sweep,
    "wolff": wolff,
    "swendsen-wang": swendsen_wang_update,
}
TOGETHER_WITH = {"overrelaxation": "metropolis", "wolff": "leapfrog", "swendsen-wang": "metropolis"}


def move(name, action, phi, seed, t):
    """One update of that name, after its partner where it needs one."""
    for part in (TOGETHER_WITH.get(name), name):
        if part is not None:
            phi, _ = UPDATES[part](action, phi, seed=seed, chains=np.arange(len(phi)), trajectory=t)
    return phi


def measure(action, phi):
    """|M|, M^2, M^4, <phi^2>, <phi^4>, s of each field: (n, 6)."""
    flat = phi.reshape(len(phi), -1)
    m, s = flat.mean(1), action.action(torch.from_numpy(phi)).numpy() / flat.shape[1]
    m2, phi2 = m * m, flat * flat
    return np.stack([abs(m), m2, m2 * m2, phi2.mean(1), (phi2 * phi2).mean(1), s], axis=1)


def hot_and_cold(n, shape, seed):
    phi = normals(seed, "start", np.arange(n), 0, math.prod(shape)).reshape(n, *shape)
    phi[1::2] = 1.0
    return phi


def chain_means(step, action, shape, *, n, n_therm, n_meas, seed):
    """(n, 6): averages of independent chains under phi -> step(phi, t)."""
    phi, total = hot_and_cold(n, shape, seed), np.zeros((n, 6))
    for t in range(n_therm + n_meas):
        phi = step(phi, t)
        total += measure(action, phi) if t >= n_therm else 0.0
    return total / n_meas


def pulls(means, truth):
    return (means.mean(0) - truth) / (means.std(0, ddof=1) / math.sqrt(len(means)))


@cache
def quadrature(action, shape):
    e = small_lattice(action, shape)
    return np.array([e.abs_m, e.m2, e.m4, e.phi2, e.phi4, e.action_density])


@pytest.mark.parametrize("shape", [(1,), (1, 1), (3,), (2, 1), (2, 2)])
@pytest.mark.parametrize(("kappa", "lam"), [(0.27, 0.022), (0.3, 0.5), (-0.27, 0.022)])
@pytest.mark.parametrize("name", UPDATES)
def test_small_lattices_against_quadrature(name, kappa, lam, shape):
    action, seed = ScalarPhi4(kappa, lam), zlib.crc32(f"{name} {kappa} {shape}".encode())
    run = {"n": 500, "n_therm": 50, "n_meas": 50, "seed": seed}
    means = chain_means(lambda phi, t: move(name, action, phi, seed, t), action, shape, **run)
    assert np.abs(pulls(means, quadrature(action, shape))).max() < 4.5


def test_updates_agree_on_8x8():
    """kappa = 0.26, lam = 0.022: HMC, accelerated HMC, clusters, local updates and MALA, all pairs."""
    action, results = ScalarPhi4(0.26, 0.022), {}
    lengths = {"omelyan2": 400, "fourier": 120, "wolff": 200, "swendsen-wang": 120, "mala": 600}
    for name, length in lengths.items():
        results[name] = chain_means(
            lambda phi, t, name=name: move(name, action, phi, 43, t), action, (8, 8), n=300,
            n_therm=length // 2, n_meas=length, seed=43,
        )  # fmt: skip
    for a, b in itertools.combinations(results, 2):
        x, y = results[a], results[b]
        error = np.sqrt((x.var(0, ddof=1) + y.var(0, ddof=1)) / len(x))
        assert (np.abs(x.mean(0) - y.mean(0)) < 4 * error).all(), (a, b)
        assert (error[[0, 3, 5]] < 0.03 * x.mean(0)[[0, 3, 5]]).all(), (a, b)  # |M|, phi2, s


def exact_phi4(action, shape, n, seed):
    """Independent draws of exp(-S) by rejection, from the product of one-site laws below it.

    -2 k x y = k [(x - y)^2 - x^2 - y^2] for k = |kappa|, and the same with -y for kappa < 0: the squares go
    into the one-site law, drawn by inverse CDF, and exp(-k sum (x -+ y)^2) is the probability to keep it.
    """
    k, sign, d, volume = abs(action.kappa), math.copysign(1, action.kappa), len(shape), math.prod(shape)
    x = np.linspace(-7, 7, 20001)
    density = np.exp(-(1 - 2 * action.lam - 2 * k * d) * x**2 - action.lam * x**4)
    cdf = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    kept, t = [], 0
    while sum(map(len, kept)) < n:
        u = uniforms(seed, "exact", np.zeros(1, dtype=int), t, 4 * n * (volume + 1)).reshape(4 * n, -1)
        phi = np.interp(u[:, 1:], cdf / cdf[-1], x).reshape(-1, *shape)
        squares = sum((phi - sign * np.roll(phi, 1, 1 + axis)) ** 2 for axis in range(d))
        kept.append(phi[u[:, 0] < np.exp(-k * squares.reshape(len(phi), -1).sum(1))])
        t += 1
    return np.concatenate(kept)[:n]


def white(phi, seed, t):
    """Standard normal numbers like phi, of one stream for all chains."""
    return normals(seed, "white", np.zeros(1, dtype=int), t, phi.size).reshape(phi.shape)


def exact_free(action, shape, n, seed):
    axes = tuple(range(1, len(shape) + 1))
    modes = np.fft.fftn(white(np.empty((n, *shape)), seed, 0), axes=axes)
    return np.fft.ifftn(modes * np.sqrt(free_propagator(action.kappa, shape)), axes=axes).real


EQUILIBRIA = {
    "site": (ScalarPhi4(0.27, 0.022), (1,)),
    "2x2": (ScalarPhi4(0.27, 0.022), (2, 2)),
    "staggered": (ScalarPhi4(-0.3, 0.5), (3, 1)),
    "free": (FreeScalar(0.2), (4, 6)),
}
N_DRAWS = 20_000


@cache
def equilibrium(case, seed):
    action, shape = EQUILIBRIA[case]
    return (exact_free if case == "free" else exact_phi4)(action, shape, N_DRAWS, seed)


def laws(action, phi):
    """What the KS tests look at: M, <phi^2>, s, phi of one site, a difference of neighbours; each (n,)."""
    flat, values = phi.reshape(len(phi), -1), measure(action, phi)
    return [flat.mean(1), values[:, 3], values[:, 5], flat[:, 0], flat[:, 0] - flat[:, 1 % flat.shape[1]]]


def smallest_p(case, phi):
    """Of the two-sample KS tests against exact draws that had no part in making phi."""
    action, _ = EQUILIBRIA[case]
    pairs = zip(laws(action, phi), laws(action, equilibrium(case, 52)), strict=True)
    return min(scipy.stats.ks_2samp(a, b).pvalue for a, b in pairs if a.any())


@pytest.mark.parametrize("case", ["site", "2x2", "staggered"])
def test_exact_draws(case):
    """The draws that the invariance tests start from have the law of the quadrature."""
    action, shape = EQUILIBRIA[case]
    for seed in (51, 52):
        assert np.abs(pulls(measure(action, equilibrium(case, seed)), quadrature(action, shape))).max() < 4.5


@pytest.mark.parametrize("case", EQUILIBRIA)
@pytest.mark.parametrize("name", UPDATES)
def test_equilibrium_stays(name, case):
    """Each update alone, no partner: exact draws after five of them still have the exact law."""
    action, _ = EQUILIBRIA[case]
    phi = before = equilibrium(case, 51)
    for t in range(5):
        phi, _ = UPDATES[name](action, phi, seed=53, chains=np.arange(N_DRAWS), trajectory=t)
    assert (phi != before).reshape(N_DRAWS, -1).any(axis=1).mean() > 0.3
    assert smallest_p(case, phi) > 1e-4


# Controls: phi -> phi', each wrong in one thing.


def no_accept_step(action, phi, step, **keys):
    return langevin_update(action, phi, **keys, step=step, n_steps=4)[0]


def no_accept_step_hmc(action, phi, step, seed, chains, trajectory):
    p = torch.from_numpy(white(phi, seed, trajectory))
    x, _ = evolve(action.grad, torch.from_numpy(phi), p, length=1.2, n_steps=2, integrator="leapfrog")
    return x.numpy()


def wrong_langevin(drift, noise):
    def update(action, phi, step, seed, chains, trajectory):
        eta = white(phi, seed, trajectory)
        grad = action.grad(torch.from_numpy(phi)).numpy()
        return phi - drift * step * grad + math.sqrt(noise * step) * eta

    return update


def wrong_bond(action, phi, step, **keys):
    """1 - exp(-2 kappa phi phi') in place of 1 - exp(-4 kappa phi phi')."""
    return wolff_update(ScalarPhi4(action.kappa / 2, action.lam), phi, **keys, n_clusters=2)[0]


CONTROLS = {  # with the Langevin step
    "Langevin with sqrt(h) noise": (wrong_langevin(drift=1.0, noise=1.0), 0.02),
    "Langevin with half the drift": (wrong_langevin(drift=0.5, noise=2.0), 0.02),
    "MALA without accept step": (no_accept_step, MALA_STEP),
    "HMC without accept step": (no_accept_step_hmc, None),
}


def scaled_phi2(action, factor, shape):
    """<phi^2> under exp(-factor S), which is a kappa-lambda action of psi = phi/c again."""
    a, b = 2 * action.lam * factor, (1 - 2 * action.lam) * factor
    c2 = (math.sqrt(b * b + 4 * a) - b) / (2 * a)  # from b c^2 + a c^4 = 1: mass 1 - 2 lam' for psi
    return c2 * quadrature(ScalarPhi4(factor * action.kappa * c2, factor * action.lam * c2**2), shape)[3]


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_miss_the_quadrature(name):
    """By more than 10 sigma; a wrong factor of noise or drift samples exp(-2S) or exp(-S/2), as it must."""
    action, shape, (update, step) = ScalarPhi4(0.2, 0.022), (3, 1), CONTROLS[name]

    def wrong(phi, t):
        return update(action, phi, step=step, seed=44, chains=np.arange(len(phi)), trajectory=t)

    means = chain_means(wrong, action, shape, n=1000, n_therm=400, n_meas=600, seed=44)
    assert np.isfinite(means).all()
    phi2 = means[:, 3]
    assert abs(pulls(phi2, quadrature(action, shape)[3])) > 10
    factor = {"Langevin with sqrt(h) noise": 2.0, "Langevin with half the drift": 0.5}.get(name)
    if factor:
        error = phi2.std(ddof=1) / math.sqrt(len(phi2))
        assert abs(phi2.mean() - scaled_phi2(action, factor, shape)) < 4.5 * error + step


@pytest.mark.parametrize("case", ["2x2", "free"])
@pytest.mark.parametrize("name", [*CONTROLS, "Wolff with a wrong bond"])
def test_controls_leave_equilibrium(name, case):
    """The KS test sees each of them: 10 sigma is p = 1.5e-23."""
    action, _ = EQUILIBRIA[case]
    update, phi = {**CONTROLS, "Wolff with a wrong bond": (wrong_bond, None)}[name][0], equilibrium(case, 51)
    for t in range(8):
        phi = update(action, phi, step=MALA_STEP, seed=54, chains=np.arange(N_DRAWS), trajectory=t)
    assert smallest_p(case, phi) < 1.5e-23

"""Local sweeps: equal to a plain reference, exact on the smallest lattices; a wrong reflection is seen."""

import math

import numpy as np
import pytest
import torch

from lattice.actions.one_variable import RealQuartic
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator, one_site_moments, small_lattice
from lattice.rng import normals, uniforms
from lattice.updates.hmc import hmc_trajectory
from lattice.updates.kernels import local as local_kernels
from lattice.updates.kernels.layout import neighbour_table
from lattice.updates.local import (
    METROPOLIS,
    OVERRELAXATION,
    centre,
    metropolis_sweep,
    overrelaxation_sweep,
    site_mass,
)

SHAPES = [(4, 4), (5,), (3, 5), (2, 3, 2), (1, 3), (2, 1, 2, 3), (2,), (1, 1), (1,)]
WIDTH = 1.5


def start(n, shape, seed=0):
    return normals(seed, "start", np.arange(n), 0, math.prod(shape)).reshape(n, *shape)


def good_centre(action, shape):
    """c(h) as `Centre` states it, written once more."""
    c = centre(action, shape)

    def newton(h, old):
        x, b = c.guess * h, 4 * action.lam
        return x - (c.stiffness * x + b * x**3 - h) / (c.stiffness + 3 * b * x**2)

    return newton


def plain_sweep(action, phi, propose, exponential):
    """One sweep by whole-lattice actions, for any proposal: propose(old, h, k) with the random exponential.

    phi (n, *shape), exponential (V, n); h as in U, a site's own hopping left out.  Returns phi', accepted.
    """
    shape, flat = phi.shape[1:], phi.reshape(len(phi), -1).copy()
    accepted = np.zeros(len(phi))
    for x, neighbours in enumerate(neighbour_table(shape).astype(int)):
        h = 2 * action.kappa * flat[:, neighbours[neighbours != x]].sum(axis=1)
        new = flat.copy()
        new[:, x] = propose(flat[:, x], h, x)
        s = [action.action(torch.from_numpy(f.reshape(phi.shape))).numpy() for f in (flat, new)]
        for one in zip(flat[:12, x], new[:12, x], h[:12], (s[1] - s[0])[:12]):
            change = local_kernels.action_change(*one[:3], site_mass(action, shape), action.lam)
            assert change == pytest.approx(one[3], rel=0, abs=1e-10)
        take = s[1] - s[0] < exponential[x]
        flat[take] = new[take]
        accepted += take
    return flat.reshape(phi.shape), accepted / flat.shape[1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("action", [ScalarPhi4(0.27, 0.022), ScalarPhi4(-0.3, 0.8), FreeScalar(0.1)])
def test_kernels_equal_the_plain_sweep(action, shape):
    """Same random numbers, same fields; the change of U is the change of S to 1e-10 at every site."""
    n, n_sweeps, volume = 11, 3, math.prod(shape)
    phi, keys = start(n, shape), {"seed": 3, "chains": np.arange(n) + 5, "trajectory": 2}
    size = n_sweeps * volume
    pairs = uniforms(3, METROPOLIS, keys["chains"], 2, 2 * size).reshape(n, n_sweeps, volume, 2)
    ones = uniforms(3, OVERRELAXATION, keys["chains"], 2, size).reshape(n, n_sweeps, volume)
    c = good_centre(action, shape)
    x, y, rates = phi, phi, np.zeros((2, n))
    for k in range(n_sweeps):
        u = pairs[:, k].T  # (2, V, n)
        x, a = plain_sweep(
            action, x, lambda old, h, i, u=u: old + WIDTH * (2 * u[0, i] - 1), -np.log(pairs[:, k, :, 1].T)
        )
        y, b = plain_sweep(action, y, lambda old, h, i: 2 * c(h, old) - old, -np.log(ones[:, k].T))
        rates += np.array([a, b]) / n_sweeps
    for (new, info), expected, rate in (
        (metropolis_sweep(action, phi, **keys, width=WIDTH, n_sweeps=n_sweeps), x, rates[0]),
        (overrelaxation_sweep(action, phi, **keys, n_sweeps=n_sweeps), y, rates[1]),
    ):
        np.testing.assert_allclose(new, expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(info.acceptance, rate, rtol=0, atol=1e-12)
        assert (new != phi).any()


def observables(action, phi):
    flat = phi.reshape(len(phi), -1)
    m, s = flat.mean(1), action.action(torch.from_numpy(phi)).numpy() / flat.shape[1]
    return np.stack([abs(m), m**2, m**4, (flat**2).mean(1), (flat**4).mean(1), s], axis=1)


def chain_means(action, phi, update, *, n_therm, n_meas):
    """(n, 6) averages of each chain under update(phi, t)."""
    total = np.zeros((len(phi), 6))
    for t in range(n_therm + n_meas):
        phi = update(phi, t)
        total += observables(action, phi) if t >= n_therm else 0.0
    return total / n_meas


def local(action, seed, n_overrelax, n_metropolis=1):
    def update(phi, t):
        keys = {"seed": seed, "chains": np.arange(len(phi)), "trajectory": t, "n_threads": 1}
        phi, _ = metropolis_sweep(action, phi, **keys, width=WIDTH, n_sweeps=n_metropolis)
        return overrelaxation_sweep(action, phi, **keys, n_sweeps=n_overrelax)[0] if n_overrelax else phi

    return update


def pulls(means, truth):
    return (means.mean(0) - truth) / (means.std(0, ddof=1) / math.sqrt(len(means)))


def quadrature(action, shape):
    e = small_lattice(action, shape)
    return np.array([e.abs_m, e.m2, e.m4, e.phi2, e.phi4, e.action_density])


@pytest.mark.parametrize("n_overrelax", [0, 2])
@pytest.mark.parametrize(
    ("kappa", "lam", "shape"),
    [
        (0.27, 0.022, (2, 2)),
        (0.3, 0.5, (2, 2)),
        (-0.2, 0.1, (2, 2)),
        (0.35, 0.5, (3,)),
        (0.3, 0.2, (2,)),
        (0.4, 1.2, (2,)),
        (0.15, 0.3, (1, 1)),
        (0.3, 0.5, (1,)),
        (0.2, 0.2, (1, 3)),
    ],
)
def test_small_lattices_against_quadrature(kappa, lam, shape, n_overrelax):
    action = ScalarPhi4(kappa, lam)
    update = local(action, 51, n_overrelax, n_metropolis=3)
    means = chain_means(action, start(1500, shape), update, n_therm=30, n_meas=60)
    assert np.abs(pulls(means, quadrature(action, shape))).max() < 4.5


@pytest.mark.parametrize(("kappa", "lam"), [(0.265, 0.022), (0.3, 0.5)])
def test_agrees_with_hmc(kappa, lam):
    """8x8, single sites and the whole: two updates, one distribution."""
    action, phi, chains = ScalarPhi4(kappa, lam), 0.5 * start(400, (8, 8)), np.arange(400)

    def hmc(phi, t):
        args = {"length": 2.0, "n_steps": 12, "n_threads": 1}
        return hmc_trajectory(action, phi, seed=52, chains=chains, trajectory=t, **args)[0]

    a = chain_means(action, phi, hmc, n_therm=120, n_meas=200)
    b = chain_means(action, phi, local(action, 53, n_overrelax=3), n_therm=120, n_meas=200)
    error = np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / len(a))
    assert (np.abs(a.mean(0) - b.mean(0)) < 4.5 * error).all()
    assert (error[[0, 1, 3, 5]] < 0.02 * np.abs(a.mean(0))[[0, 1, 3, 5]]).all()  # the gate has teeth


def test_free_field_is_reflected_exactly():
    """lam = 0: every reflection is accepted, S is conserved, and an exact sample stays one, mode by mode."""
    action, shape, n = FreeScalar(0.2), (4, 6), 4000
    g = free_propagator(0.2, shape)
    modes = np.fft.fftn(start(n, shape, seed=4), axes=(1, 2))
    phi = np.fft.ifftn(modes * np.sqrt(g), axes=(1, 2)).real
    keys = {"seed": 4, "chains": np.arange(n), "trajectory": 0}
    new, info = overrelaxation_sweep(action, phi, **keys, n_sweeps=3)
    np.testing.assert_array_equal(info.acceptance, 1.0)
    s = [action.action(torch.from_numpy(f)).numpy() for f in (phi, new)]
    np.testing.assert_allclose(s[0], s[1], rtol=1e-13)
    new, _ = metropolis_sweep(action, new, **keys, width=WIDTH, n_sweeps=2)
    power = np.abs(np.fft.fftn(new, axes=(1, 2))) ** 2 / 24
    error = power.std(axis=0, ddof=1) / math.sqrt(n)
    assert (np.abs(power.mean(0) - g) < 4.5 * error).all()


def wrong_means(propose, accept=True, n=1000, n_updates=50):
    """2x2, kappa = 0.3, lam = 0.5: Metropolis, then the plain sweep with this reflection."""
    action, shape = ScalarPhi4(0.3, 0.5), (2, 2)
    metropolis, chains = local(action, 55, n_overrelax=0), np.arange(n)

    def update(phi, t):
        phi = metropolis(phi, t)
        exponential = -np.log(uniforms(55, OVERRELAXATION, chains, t, 4).T) if accept else np.full(4, np.inf)
        return plain_sweep(action, phi, propose(action, shape), exponential)[0]

    means = chain_means(action, start(n, shape), update, n_therm=20, n_meas=n_updates)
    return np.abs(pulls(means, quadrature(action, shape)))


def about_the_neighbours(action, shape):
    c = good_centre(action, shape)
    return lambda old, h, x: 2 * c(h, old) - old


def about_the_site_itself(action, shape):
    """The tempting mistake: Newton's step taken from phi_x, so the way back is another."""
    c = centre(action, shape)
    b = 4 * action.lam
    return lambda old, h, x: 2 * (h + 2 * b * old**3) / (c.stiffness + 3 * b * old**2) - old


def test_control_wrong_reflections_fail():
    """A centre that depends on phi_x, and no accept step: off by more than 10 sigma; the right one is not."""
    assert wrong_means(about_the_neighbours).max() < 4.5
    assert wrong_means(about_the_site_itself).max() > 10
    assert wrong_means(about_the_neighbours, accept=False).max() > 10


@pytest.mark.parametrize("lam", [0.0, 0.022, 0.5, 2.0])
def test_centre_follows_the_mean_of_the_local_law(lam):
    """Its slope at h = 0 is d<phi>/dh = <phi^2>; it is odd and grows with h."""
    action = ScalarPhi4(0.2, lam)
    c = centre(action, (4, 1))
    x = [local_kernels.reflection_centre(h, c.guess, c.stiffness, 4 * lam) for h in (-1e-4, 1e-4, 1.0, 9.0)]
    assert x[1] / 1e-4 == pytest.approx(one_site_moments(action, (2,), dim=1)[0], rel=1e-6)
    assert x[0] == -x[1] < x[1] < x[2] < x[3]


@pytest.mark.parametrize(
    ("kappa", "lam", "lowest"), [(0.27088, 0.022, 0.95), (0.4, 0.022, 0.85), (0.27088, 0.5, 0.75)]
)
def test_most_reflections_are_accepted(kappa, lam, lowest):
    action, phi = ScalarPhi4(kappa, lam), np.abs(start(64, (8, 8)))
    update = local(action, 56, n_overrelax=2)
    for t in range(60):
        phi = update(phi, t)
    _, info = overrelaxation_sweep(action, phi, seed=57, chains=np.arange(64), trajectory=0, n_sweeps=5)
    assert lowest < info.acceptance.mean() < 1


@pytest.mark.parametrize("shape", [(6,), (4, 6), (3, 3)])
def test_bitwise_independent_of_company_and_threads(shape):
    """77 chains are several blocks; the input is left alone; every key matters."""
    action, chains, phi = ScalarPhi4(0.27, 0.022), np.arange(1000, 1077), start(77, shape)
    before, keys = phi.copy(), {"seed": 2**63 + 5, "trajectory": 9, "n_sweeps": 2}
    order = np.random.default_rng(0).permutation(77)
    for update, extra in ((metropolis_sweep, {"width": 1.0}), (overrelaxation_sweep, {})):
        args = {**keys, **extra}
        whole, info = update(action, phi, chains=chains, n_threads=1, **args)
        for n_threads in (2, 3, 5):
            x, i = update(action, phi, chains=chains, n_threads=n_threads, **args)
            np.testing.assert_array_equal(x, whole)
            np.testing.assert_array_equal(i.acceptance, info.acceptance)
        np.testing.assert_array_equal(
            update(action, phi[order], chains=chains[order], **args)[0], whole[order]
        )
        for c in (0, 33, 76):
            x, i = update(action, phi[c : c + 1], chains=chains[c : c + 1], **args)
            np.testing.assert_array_equal(x[0], whole[c])
            assert i.acceptance[0] == info.acceptance[c]
        np.testing.assert_array_equal(phi, before)
        for change in ({"seed": 1}, {"trajectory": 8}, {"n_sweeps": 1}):
            assert not np.array_equal(update(action, phi, chains=chains, **{**args, **change})[0], whole)


def test_a_broken_chain_stays_by_itself():
    """No proposal is accepted beside a NaN, and the other chains of the block do not notice."""
    action, phi = ScalarPhi4(0.27, 0.022), start(6, (2, 2))
    broken = phi.copy()
    broken[2] = np.nan
    args = {"seed": 1, "chains": np.arange(6), "trajectory": 0}
    for update, extra in ((metropolis_sweep, {"width": 1.0}), (overrelaxation_sweep, {})):
        x, info = update(action, broken, **args, **extra)
        y, _ = update(action, phi, **args, **extra)
        assert info.acceptance[2] == 0
        np.testing.assert_array_equal(np.delete(x, 2, 0), np.delete(y, 2, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chains": np.arange(3)}, "2 fields, 3 chains"),
        ({"seed": -1}, "seed must be"),
        ({"n_sweeps": 0}, "n_sweeps must be"),
        ({"n_sweeps": 2**31}, "n_sweeps must be"),
        ({"n_threads": 0}, "n_threads must be"),
        ({"phi": np.zeros((2, 3), dtype=np.float32)}, "float64"),
        ({"action": RealQuartic(1.0, 1.0)}, "phi\\^4 only, not RealQuartic: use HMC"),
    ],
)
def test_bad_input(change, message):
    args = {"action": ScalarPhi4(0.27, 0.022), "phi": np.zeros((2, 3)), "seed": 1, "chains": np.arange(2)}
    args = {**args, "trajectory": 0, **change}
    for update, extra in ((metropolis_sweep, {"width": 1.0}), (overrelaxation_sweep, {})):
        with pytest.raises(InputError, match=message):
            update(
                args["action"],
                args["phi"],
                **{k: args[k] for k in args if k not in ("action", "phi")},
                **extra,
            )


def test_bad_width_and_unbounded_site():
    args = {"seed": 1, "chains": np.arange(2), "trajectory": 0}
    for width in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="width"):
            metropolis_sweep(ScalarPhi4(0.27, 0.022), np.zeros((2, 3)), width=width, **args)
    with pytest.raises(InputError, match="not integrable"):
        overrelaxation_sweep(FreeScalar(0.6), np.zeros((2, 1)), **args)

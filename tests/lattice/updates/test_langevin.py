"""Langevin: kernel = tensors, MALA = one-step HMC, the known bias of the step size."""

import math

import numpy as np
import pytest
import torch

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator
from lattice.rng import normals
from lattice.updates import hmc, langevin
from lattice.updates.langevin import langevin_update

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
        y, b = langevin_update(action, phi, **args, metropolis=metropolis, compiled=False)
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-12)
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


@pytest.mark.parametrize("compiled", [True, False])
def test_runaways_are_refused_by_name_and_rejected_by_mala(compiled):
    """h dS/dphi > phi beyond phi^2 = 1/(2 lam h): plain Langevin then diverges at once."""
    action, phi = ScalarPhi4(0.2, 0.5), start(6, (4, 4))
    phi[3, 1, 1] = 1e4
    args = {"seed": 1, "chains": np.arange(6) + 40, "trajectory": 2, "step": 0.02, "n_steps": 30}
    args["compiled"] = compiled
    with pytest.raises(InputError, match=r"1 of 6 chains: chain 43 .* step \d+ of trajectory 2; use a step"):
        langevin_update(action, phi, **args)
    x, info = langevin_update(action, phi, **args, metropolis=True)
    np.testing.assert_array_equal(x[3], phi[3])
    assert not info.accepted[3].any()
    assert info.accepted[[0, 1, 2, 4, 5]].mean() > 0.5
    phi[2, 0, 0] = np.nan  # one broken chain leaves the others in its block alone, and is marked
    _, again = langevin_update(action, phi, **args, metropolis=True)
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

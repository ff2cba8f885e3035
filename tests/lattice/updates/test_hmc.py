"""HMC: kernel = tensors, exactness identities, closed forms, quadrature, and a control that must fail."""

import math

import numpy as np
import pytest
import torch

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator, ln_z_site, one_site_moments, small_lattice
from lattice.rng import normals
from lattice.updates.hmc import MOMENTUM, hmc_trajectory, hmc_trajectory_torch
from lattice.updates.integrator import SCHEMES, evolve

ACTION = ScalarPhi4(0.27, 0.022)
SHAPES = [(8,), (4, 6), (2, 3, 4), (2, 1, 3, 2), (5, 3), (3, 1), (3, 2), (1, 1), (1,)]


def start(n, shape, seed=0):
    return normals(seed, "start", np.arange(n), 0, math.prod(shape)).reshape(n, *shape)


def run(action, phi, *, n_therm, n_meas, measure, seed, **settings):
    """(n_chains, n_meas, ...) of measure(phi), and the infos of the measured trajectories."""
    chains, values, infos = np.arange(len(phi)), [], []
    for t in range(n_therm + n_meas):
        phi, info = hmc_trajectory(action, phi, seed=seed, chains=chains, trajectory=t, **settings)
        if t >= n_therm:
            values.append(measure(phi))
            infos.append(info)
    return np.stack(values, axis=1), infos


def pulls(samples, truth):
    """Deviation in standard errors; chains (axis 0) are independent, each averaged over axis 1."""
    means = samples.mean(axis=1)
    return (means.mean(axis=0) - truth) / (means.std(axis=0, ddof=1) / math.sqrt(len(means)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("integrator", list(SCHEMES))
def test_kernel_equals_tensors(shape, integrator):
    n = 11
    for action in (ACTION, ScalarPhi4(-0.3, 0.8), FreeScalar(0.1)):
        args = {"seed": 3, "chains": np.arange(n) + 5, "trajectory": 2, "length": 0.9, "n_steps": 7}
        phi = start(n, shape)
        x, a = hmc_trajectory(action, phi, **args, integrator=integrator)
        y, b = hmc_trajectory_torch(action, torch.from_numpy(phi), **args, integrator=integrator)
        np.testing.assert_allclose(x, y.numpy(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(a.dH, b.dH, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(a.accepted, b.accepted)
        assert a.accepted.any()
        assert (x[a.accepted] != phi[a.accepted]).all()
        np.testing.assert_array_equal(x[~a.accepted], phi[~a.accepted])


@pytest.mark.parametrize("shape", [(8,), (4, 6), (3, 2, 5), (3, 1), (2, 2)])
def test_bitwise_independent_of_company_block_and_threads(shape):
    chains = np.arange(1000, 1037)
    phi = start(37, shape)
    args = {"seed": 2**63 + 5, "trajectory": 9, "length": 1.3, "n_steps": 5}
    whole, info = hmc_trajectory(ACTION, phi, chains=chains, **args, n_threads=1)
    for n_threads in (1, 2, 3):
        for block in (1, 3, 8, 16, 64):
            x, i = hmc_trajectory(ACTION, phi, chains=chains, **args, n_threads=n_threads, block=block)
            np.testing.assert_array_equal(x, whole)
            np.testing.assert_array_equal(i.dH, info.dH)
    order = np.random.default_rng(0).permutation(37)
    x, i = hmc_trajectory(ACTION, phi[order], chains=chains[order], **args)
    np.testing.assert_array_equal(x, whole[order])
    for c in (0, 18, 36):
        x, i = hmc_trajectory(ACTION, phi[c : c + 1], chains=chains[c : c + 1], **args)
        np.testing.assert_array_equal(x[0], whole[c])
        assert i.dH[0] == info.dH[c]


def test_input_is_left_alone_and_keys_matter():
    phi = start(4, (4, 4))
    before = phi.copy()
    args = {"chains": np.arange(4), "length": 1.0, "n_steps": 10}
    x, _ = hmc_trajectory(ACTION, phi, seed=1, trajectory=0, **args)
    np.testing.assert_array_equal(phi, before)
    for seed, trajectory in ((2, 0), (1, 1)):
        assert not np.array_equal(hmc_trajectory(ACTION, phi, seed=seed, trajectory=trajectory, **args)[0], x)


@pytest.mark.parametrize("integrator", list(SCHEMES))
def test_energy_violation_has_the_order_of_the_integrator(integrator):
    """In equilibrium: rms dH of the kernel against the step size."""
    order = SCHEMES[integrator].order
    phi, chains = start(200, (8, 8)), np.arange(200)
    for t in range(30):
        phi, _ = hmc_trajectory(ACTION, phi, seed=4, chains=chains, trajectory=t, length=1.0, n_steps=8)
    steps = np.array([10, 14, 20, 28]) * (1 if order == 4 else 2)
    rms = []
    for n_steps in steps.tolist():
        args = {"length": 1.0, "n_steps": n_steps, "integrator": integrator}
        _, info = hmc_trajectory(ACTION, phi, seed=4, chains=chains, trajectory=99, **args)
        rms.append(np.sqrt(np.mean(info.dH**2)))
    slope = -np.polyfit(np.log(steps), np.log(rms), 1)[0]
    assert slope == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(
    ("integrator", "length", "n_steps"), [("leapfrog", 1.0, 3), ("omelyan2", 1.5, 2), ("omelyan4", 2.0, 1)]
)
def test_creutz_equality_and_acceptance(integrator, length, n_steps):
    """<exp(-dH)> = 1, and acceptance = erfc(sqrt(<dH>)/2) (Gupta et al., PLB 242 (1990) 437).

    The identity holds in equilibrium only, and sees 5 sigma of a start left in; hence the long
    thermalisation.
    """
    series, infos = run(
        ACTION, start(400, (8, 8)), n_therm=300, n_meas=200, seed=6, measure=lambda phi: phi.mean((1, 2)),
        length=length, n_steps=n_steps, integrator=integrator,
    )  # fmt: skip
    dh = np.stack([i.dH for i in infos], axis=1)
    accepted = np.stack([i.accepted for i in infos], axis=1)
    assert 0.01 < dh.mean() < 1.5
    assert abs(pulls(np.exp(-dh), 1.0)) < 4.5
    # the same law per configuration: E[accepted] = E[min(1, exp(-dH))]
    assert abs(pulls(accepted - np.minimum(1, np.exp(-dh)), 0.0)) < 4.5
    expected = math.erfc(math.sqrt(dh.mean()) / 2)
    error = accepted.mean(axis=1).std(ddof=1) / math.sqrt(len(accepted))
    assert abs(accepted.mean() - expected) < 4.5 * error + 0.02  # 0.02: dH is Gaussian only at large volume


@pytest.mark.parametrize("shape", [(16,), (4, 6), (2, 3, 4)])
def test_free_field_propagator(shape):
    """G(k) of every mode."""
    axes, volume = tuple(range(1, len(shape) + 1)), math.prod(shape)

    def power(phi):
        return (np.abs(np.fft.fftn(phi, axes=axes)) ** 2 / volume).reshape(len(phi), -1)

    series, _ = run(
        FreeScalar(0.12),
        start(500, shape),
        n_therm=30,
        n_meas=80,
        seed=7,
        measure=power,
        length=1.2,
        n_steps=6,
    )
    assert np.abs(pulls(series, free_propagator(0.12, shape).ravel())).max() < 4.5


@pytest.mark.parametrize("lam", [0.0, 0.022, 0.5, 1.5])
def test_decoupled_sites(lam):
    """kappa = 0: one-site integrals, and the sites are independent."""
    action = ScalarPhi4(0.0, lam)

    def moments(phi):
        flat = phi.reshape(len(phi), -1)
        neighbours = (phi * np.roll(phi, 1, axis=1)).reshape(len(phi), -1).mean(1)
        return np.stack([(flat**n).mean(1) for n in (1, 2, 3, 4, 6)] + [neighbours], axis=1)

    series, _ = run(
        action, start(300, (4, 4)), n_therm=30, n_meas=80, seed=8, measure=moments, length=1.1, n_steps=8
    )
    truth = np.append(one_site_moments(action, (1, 2, 3, 4, 6)), 0.0)
    assert np.abs(pulls(series, truth)).max() < 4.5
    assert math.isfinite(ln_z_site(action))


def small_primaries(action):
    def measure(phi):
        flat = phi.reshape(len(phi), -1)
        m, s = flat.mean(1), action.action(torch.from_numpy(phi)).numpy() / flat.shape[1]
        return np.stack([abs(m), m**2, m**4, (flat**2).mean(1), (flat**4).mean(1), s], axis=1)

    return measure


@pytest.mark.parametrize(
    ("kappa", "lam", "shape", "integrator"),
    [
        (0.2, 0.022, (2, 2), "omelyan2"),
        (0.27, 0.022, (2, 2), "leapfrog"),
        (-0.2, 0.1, (2, 2), "omelyan4"),
        (0.35, 0.5, (3,), "omelyan2"),
        (0.15, 0.3, (1, 1), "omelyan2"),
        (0.3, 0.2, (2,), "leapfrog"),
    ],
)
def test_small_lattices_against_quadrature(kappa, lam, shape, integrator):
    action = ScalarPhi4(kappa, lam)
    series, _ = run(
        action, start(1000, shape), n_therm=60, n_meas=120, seed=9, measure=small_primaries(action),
        length=1.7, n_steps=6, integrator=integrator,
    )  # fmt: skip
    e = small_lattice(action, shape)
    truth = np.array([e.abs_m, e.m2, e.m4, e.phi2, e.phi4, e.action_density])
    assert np.abs(pulls(series, truth)).max() < 4.5


def test_control_without_accept_step_fails():
    """At a large step, unadjusted trajectories miss <phi^2> by more than 10 sigma; adjusted ones do not."""
    action, shape, n = ScalarPhi4(0.15, 0.022), (2, 2), 1000
    truth = small_lattice(action, shape).phi2
    args = {"length": 1.0, "n_steps": 2, "integrator": "leapfrog"}
    phi, wrong = torch.from_numpy(start(n, shape)), []
    for t in range(100):
        p = torch.from_numpy(normals(10, MOMENTUM, np.arange(n), t, 4)).reshape(n, *shape)
        phi, _ = evolve(action.grad, phi, p, **args)
        wrong.append((phi**2).mean(dim=(1, 2)).numpy())
    assert np.isfinite(wrong).all()
    assert abs(pulls(np.array(wrong[30:]).T, truth)) > 10
    right, infos = run(
        action,
        start(n, shape),
        n_therm=50,
        n_meas=150,
        seed=10,
        measure=lambda x: (x**2).mean((1, 2)),
        **args,
    )
    assert np.mean([i.accepted.mean() for i in infos]) < 0.95
    assert abs(pulls(right, truth)) < 4.5


def test_runaway_trajectories_are_rejected_and_marked():
    phi = start(6, (4, 4))
    args = {"seed": 1, "chains": np.arange(6), "trajectory": 0, "length": 400.0, "n_steps": 20}
    x, info = hmc_trajectory(ScalarPhi4(0.27, 0.5), phi, **args)
    assert not info.finite.any()
    assert not info.accepted.any()
    np.testing.assert_array_equal(x, phi)
    phi[2, 1, 1] = np.nan  # one broken chain leaves the others in its block alone
    args = {**args, "length": 1.0}
    x, info = hmc_trajectory(ACTION, phi, **args)
    assert info.finite.tolist() == [True, True, False, True, True, True]
    assert info.accepted[[0, 1, 3, 4, 5]].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chains": np.arange(3)}, "2 fields, 3 chains"),
        ({"seed": -1}, "seed must be"),
        ({"integrator": "leap"}, "unknown integrator"),
        ({"n_steps": 0}, "n_steps must be"),
        ({"n_threads": 0}, "n_threads must be"),
        ({"phi": np.zeros((2, 3), dtype=np.float32)}, "float64"),
        ({"phi": np.zeros(3)}, "float64"),
        ({"phi": np.zeros((2, 2, 2, 2, 2, 2))}, "lattice shape"),
        ({"action": object()}, "a lattice.Action, got object"),
    ],
)
def test_bad_input(change, message):
    args = {
        "seed": 1,
        "chains": np.arange(2),
        "trajectory": 0,
        "length": 1.0,
        "n_steps": 3,
        "phi": np.zeros((2, 3)),
    }
    args.update(change)
    with pytest.raises(InputError, match=message):
        hmc_trajectory(args.pop("action", ACTION), args.pop("phi"), **args)

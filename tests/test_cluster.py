"""Wolff clusters: exact for any sign of kappa, reproducible, and sensitive to a wrong bond."""

import math

import numpy as np
import pytest
import torch

from lattice import kernels
from lattice.action import FreeScalar, ScalarPhi4
from lattice.cluster import wolff_update
from lattice.errors import InputError
from lattice.exact import free_propagator, small_lattice
from lattice.hmc import hmc_trajectory
from lattice.rng import normals


def pulls(samples, truth):
    """Deviation in standard errors; samples (n_chains, n_meas), chains independent."""
    means = samples.mean(axis=1)
    return (means.mean() - truth) / (means.std(ddof=1) / math.sqrt(len(means)))


def run(action, shape, *, n_chains, n_therm, n_meas, n_clusters, seed, length=1.0, n_steps=6):
    """Chains of HMC + clusters: dict of (n_chains, n_meas) series."""
    chains = np.arange(n_chains)
    phi = normals(seed, "start", chains, 0, math.prod(shape)).reshape(n_chains, *shape)
    series = {name: [] for name in ("abs_m", "m2", "phi2", "phi4", "s")}
    for t in range(n_therm + n_meas):
        phi, _ = hmc_trajectory(
            action, phi, seed=seed, chains=chains, trajectory=t, length=length, n_steps=n_steps, n_threads=1
        )
        if n_clusters:
            phi, _ = wolff_update(
                action, phi, seed=seed, chains=chains, trajectory=t, n_clusters=n_clusters, n_threads=1
            )
        if t >= n_therm:
            flat = phi.reshape(n_chains, -1)
            m = flat.mean(1)
            s = action.action(torch.from_numpy(phi)).numpy() / flat.shape[1]
            for name, x in zip(series, (abs(m), m**2, (flat**2).mean(1), (flat**4).mean(1), s)):
                series[name].append(x)
    return {name: np.array(values).T for name, values in series.items()}


@pytest.mark.parametrize(
    ("kappa", "lam", "shape"),
    [
        (0.27, 0.022, (2, 2)),
        (-0.2, 0.1, (2, 2)),
        (0.35, 0.5, (3,)),
        (0.15, 0.3, (1, 1)),
        (0.2, 0.2, (1, 2, 2)),
    ],
)
def test_small_lattices_against_quadrature(kappa, lam, shape):
    action = ScalarPhi4(kappa, lam)
    exact = small_lattice(action, shape)
    series = run(action, shape, n_chains=1000, n_therm=30, n_meas=60, n_clusters=2, seed=21)
    truth = {
        "abs_m": exact.abs_m,
        "m2": exact.m2,
        "phi2": exact.phi2,
        "phi4": exact.phi4,
        "s": exact.action_density,
    }
    for name, value in truth.items():
        assert abs(pulls(series[name], value)) < 4.5, name


@pytest.mark.parametrize(("kappa", "shape"), [(0.27, (4, 4)), (-0.25, (4, 4)), (0.35, (3, 5))])
def test_agrees_with_hmc_alone(kappa, shape):
    """4x4 in the crossover, staggered, and odd extents: two updates, one distribution."""
    action = ScalarPhi4(kappa, 0.022)
    args = {"n_chains": 600, "n_therm": 100, "n_meas": 100}
    mixed = run(action, shape, **args, n_clusters=3, seed=31)
    alone = run(action, shape, **args, n_clusters=0, seed=32, length=2.0, n_steps=12)
    for name in mixed:
        a, b = mixed[name].mean(1), alone[name].mean(1)
        error = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(a))
        assert abs(a.mean() - b.mean()) < 4.5 * error, name


def test_free_field_with_clusters():
    """The signs of a Gaussian field are an Ising model too: G(k) survives the cluster update."""
    action, shape, chains = FreeScalar(0.2), (4, 6), np.arange(4000)
    g = free_propagator(0.2, shape)
    modes = np.fft.fftn(normals(4, "modes", chains, 0, 24).reshape(-1, *shape), axes=(1, 2))
    phi = np.fft.ifftn(modes * np.sqrt(g), axes=(1, 2)).real  # an exact sample
    for t in range(5):
        phi, info = wolff_update(action, phi, seed=4, chains=chains, trajectory=t, n_clusters=4)
    assert info.size.min() >= 1
    power = np.abs(np.fft.fftn(phi, axes=(1, 2))) ** 2 / 24
    error = power.std(axis=0, ddof=1) / math.sqrt(len(chains))
    assert (np.abs(power.mean(0) - g) < 4.5 * error).all()


def test_control_wrong_bond_probability_fails():
    """1 - exp(-2 kappa phi phi') in place of 1 - exp(-4 kappa phi phi') must be off by more than 10 sigma."""
    action, shape, chains = ScalarPhi4(0.27, 0.022), (2, 2), np.arange(1000)
    exact = small_lattice(action, shape)
    phi = normals(5, "start", chains, 0, 4).reshape(-1, *shape)
    wrong = ScalarPhi4(0.135, 0.022)  # half of kappa in the bonds and nowhere else
    series = []
    for t in range(60):
        phi, _ = hmc_trajectory(action, phi, seed=5, chains=chains, trajectory=t, length=1.0, n_steps=6)
        phi, _ = wolff_update(wrong, phi, seed=5, chains=chains, trajectory=t, n_clusters=2)
        series.append(phi.mean(axis=(1, 2)) ** 2)
    assert abs(pulls(np.array(series[20:]).T, exact.m2)) > 10


def test_only_signs_change_and_one_connected_cluster():
    action, shape = ScalarPhi4(0.27, 0.022), (6, 5)
    phi = normals(6, "start", np.arange(40), 0, 30).reshape(-1, *shape)
    new, info = wolff_update(action, phi, seed=6, chains=np.arange(40), trajectory=0)
    np.testing.assert_array_equal(np.abs(new), np.abs(phi))
    table = kernels.neighbour_table(shape).astype(int)
    for before, after, size in zip(phi.reshape(40, -1), new.reshape(40, -1), info.size[:, 0]):
        flipped = set(np.flatnonzero(before != after).tolist())
        assert len(flipped) == size
        assert len({bool(before[x] > 0) for x in flipped}) == 1
        reached, front = set(), [min(flipped)]
        while front:
            x = front.pop()
            reached.add(x)
            front += [y for y in table[x].tolist() if y in flipped and y not in reached]
        assert reached == flipped


def test_result_depends_on_chain_and_trajectory_only():
    action, chains = ScalarPhi4(0.27, 0.022), np.arange(100, 137)
    phi = normals(7, "start", chains, 0, 64).reshape(-1, 8, 8)
    args = {"seed": 7, "trajectory": 3, "n_clusters": 3}
    whole, info = wolff_update(action, phi, chains=chains, n_threads=1, **args)
    for n_threads in (2, 5):
        np.testing.assert_array_equal(
            wolff_update(action, phi, chains=chains, n_threads=n_threads, **args)[0], whole
        )
    for i in (0, 17, 36):
        alone, one = wolff_update(action, phi[i : i + 1], chains=chains[i : i + 1], **args)
        np.testing.assert_array_equal(alone[0], whole[i])
        np.testing.assert_array_equal(one.size[0], info.size[i])
    assert not np.array_equal(wolff_update(action, phi, chains=chains, **{**args, "trajectory": 4})[0], whole)


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4), (2, 1, 2, 3)])
def test_neighbour_table(shape):
    sites = np.arange(math.prod(shape)).reshape(shape)
    table = kernels.neighbour_table(shape)
    assert table.shape == (sites.size, 2 * len(shape))
    for axis, extent in enumerate(shape):
        for site in np.ndindex(*shape):
            ahead = list(site)
            ahead[axis] = (ahead[axis] + 1) % extent
            assert table[sites[site], 2 * axis] == sites[tuple(ahead)]
            assert table[sites[tuple(ahead)], 2 * axis + 1] == sites[site]


def test_bad_input():
    action, phi = ScalarPhi4(0.27, 0.022), np.zeros((2, 4))
    with pytest.raises(InputError, match="2 fields, 3 chains"):
        wolff_update(action, phi, seed=1, chains=np.arange(3), trajectory=0)
    with pytest.raises(InputError, match="n_clusters"):
        wolff_update(action, phi, seed=1, chains=np.arange(2), trajectory=0, n_clusters=-1)
    with pytest.raises(InputError, match="float64"):
        wolff_update(action, phi.astype(np.float32), seed=1, chains=np.arange(2), trajectory=0)

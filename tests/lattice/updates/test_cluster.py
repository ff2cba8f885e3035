"""Wolff and Swendsen-Wang: exact for any sign of kappa, reproducible, and sensitive to a wrong bond."""

import itertools
import math

import numpy as np
import pytest
import torch

from lattice.actions.one_variable import RealQuartic
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator, small_lattice
from lattice.rng import normals, uniforms
from lattice.updates.cluster import BOND, FLIP, swendsen_wang_update, wolff_update
from lattice.updates.hmc import hmc_trajectory
from lattice.updates.kernels import layout


def pulls(samples, truth):
    """Deviation in standard errors; samples (n_chains, n_meas), chains independent."""
    means = samples.mean(axis=1)
    return (means.mean() - truth) / (means.std(ddof=1) / math.sqrt(len(means)))


def wolff(action, phi, **keys):
    return wolff_update(action, phi, **keys, n_clusters=2)


UPDATES = {"wolff": wolff, "swendsen-wang": swendsen_wang_update}


def run(action, shape, *, n_chains, n_therm, n_meas, seed, cluster=None, length=1.0, n_steps=6):
    """Chains of HMC + clusters: dict of (n_chains, n_meas) series."""
    chains = np.arange(n_chains)
    phi = normals(seed, "start", chains, 0, math.prod(shape)).reshape(n_chains, *shape)
    series = {name: [] for name in ("abs_m", "m2", "phi2", "phi4", "s")}
    for t in range(n_therm + n_meas):
        phi, _ = hmc_trajectory(
            action, phi, seed=seed, chains=chains, trajectory=t, length=length, n_steps=n_steps, n_threads=1
        )
        if cluster:
            phi, info = cluster(action, phi, seed=seed, chains=chains, trajectory=t, n_threads=1)
        if t >= n_therm:
            flat = phi.reshape(n_chains, -1)
            m = flat.mean(1)
            s = action.action(torch.from_numpy(phi)).numpy() / flat.shape[1]
            for name, x in zip(series, (abs(m), m**2, (flat**2).mean(1), (flat**4).mean(1), s)):
                series[name].append(x)
            if cluster is swendsen_wang_update:
                series.setdefault("v_m2", []).append(info.v_m2)
    return {name: np.array(values).T for name, values in series.items()}


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize(
    ("kappa", "lam", "shape"),
    [
        (0.27, 0.022, (2, 2)),
        (-0.2, 0.1, (2, 2)),
        (0.35, 0.5, (3,)),
        (0.3, 0.2, (2,)),
        (0.15, 0.3, (1, 1)),
        (0.2, 0.2, (1, 2, 2)),
    ],
)
def test_small_lattices_against_quadrature(kappa, lam, shape, update):
    action = ScalarPhi4(kappa, lam)
    exact = small_lattice(action, shape)
    series = run(action, shape, n_chains=1000, n_therm=30, n_meas=60, cluster=UPDATES[update], seed=21)
    truth = {
        "abs_m": exact.abs_m,
        "m2": exact.m2,
        "phi2": exact.phi2,
        "phi4": exact.phi4,
        "s": exact.action_density,
        "v_m2": exact.m2 * math.prod(shape),
    }
    for name, values in series.items():
        assert abs(pulls(values, truth[name])) < 4.5, name


@pytest.mark.parametrize(
    ("kappa", "shape"), [(0.265, (8, 8)), (0.27, (4, 4)), (-0.25, (4, 4)), (0.35, (3, 5))]
)
def test_agree_with_hmc_alone(kappa, shape):
    """8x8 near kappa_c, 4x4 in the crossover, staggered, and odd extents: three updates, one distribution."""
    action = ScalarPhi4(kappa, 0.022)
    args = {"n_chains": 400, "n_therm": 100, "n_meas": 100}
    results = {
        name: run(action, shape, **args, cluster=cluster, seed=31) for name, cluster in UPDATES.items()
    }
    results["hmc"] = run(action, shape, **args, seed=32, length=2.0, n_steps=12)
    for x, y in itertools.combinations(results, 2):
        for name in results["hmc"]:
            a, b = results[x][name].mean(1), results[y][name].mean(1)
            error = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(a))
            assert abs(a.mean() - b.mean()) < 4.5 * error, (x, y, name)


def components(volume, bonds):
    """Clusters of `bonds`, pairs of sites, as a list of sets: plain search, no union-find."""
    left, clusters = set(range(volume)), []
    while left:
        cluster, front = set(), [min(left)]
        while front:
            x = front.pop()
            cluster.add(x)
            front += [b if a == x else a for a, b in bonds if x in (a, b) and {a, b} - cluster]
        clusters.append(cluster)
        left -= cluster
    return clusters


def forward_bonds(shape):
    """Every bond of S once, (x, x + mu): two between the sites of extent 2, self bonds at extent 1."""
    return [(x, int(y)) for x, row in enumerate(layout.neighbour_table(shape)) for y in row[::2]]


@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 4), (7,), (2, 1, 3), (1,)])
@pytest.mark.parametrize("kappa", [0.27, -0.4])
def test_swendsen_wang_equals_the_plain_algorithm(shape, kappa):
    """Same random numbers, same fields and clusters, bit for bit."""
    action, volume, chains = ScalarPhi4(kappa, 0.022), math.prod(shape), np.arange(30) + 7
    phi = normals(8, "start", chains, 0, volume).reshape(-1, *shape)
    new, info = swendsen_wang_update(action, phi, seed=8, chains=chains, trajectory=5)
    bonds = forward_bonds(shape)
    for i, (f, u, flip) in enumerate(
        zip(
            phi.reshape(30, -1).copy(),
            uniforms(8, BOND, chains, 5, len(bonds)),
            uniforms(8, FLIP, chains, 5, volume),
        )
    ):
        frozen = [b for b, r in zip(bonds, u) if -math.log(r) < 4 * kappa * f[b[0]] * f[b[1]]]
        clusters = components(volume, frozen)
        assert info.v_m2[i] == pytest.approx(sum(f[list(c)].sum() ** 2 for c in clusters) / volume, rel=1e-12)
        for cluster in clusters:
            if flip[min(cluster)] < 0.5:
                f[list(cluster)] *= -1
        np.testing.assert_array_equal(new[i].ravel(), f)
        assert (info.n_clusters[i], info.largest[i]) == (len(clusters), max(map(len, clusters)))


@pytest.mark.parametrize("shape", [(2,), (3,), (2, 2), (1, 3)])
def test_swendsen_wang_clusters_by_enumeration(shape):
    """One field, all 2^(V d) bond patterns: means of the number, the largest and the improved estimator.

    The last is also the mean of V M^2 over the flipped fields (Fortuin, Kasteleyn), with less noise.
    """
    action, volume, n = ScalarPhi4(0.3, 0.022), math.prod(shape), 20000
    f = np.array([0.9, 0.6, -0.8, 0.7])[:volume]
    bonds = forward_bonds(shape)
    q = np.maximum(0.0, [-math.expm1(-4 * action.kappa * f[x] * f[y]) for x, y in bonds])
    truth = np.zeros(3)
    for pattern in itertools.product((0, 1), repeat=len(bonds)):
        clusters = components(volume, list(itertools.compress(bonds, pattern)))
        v_m2 = sum(f[list(c)].sum() ** 2 for c in clusters) / volume
        probability = np.prod(np.where(pattern, q, 1 - q))
        truth += probability * np.array([len(clusters), max(map(len, clusters)), v_m2])
    phi = np.tile(f, (n, 1)).reshape(n, *shape)
    new, info = swendsen_wang_update(action, phi, seed=9, chains=np.arange(n), trajectory=0)
    flipped = new.reshape(n, -1).sum(1) ** 2 / volume
    for values, expected in zip((info.n_clusters, info.largest, info.v_m2, flipped), [*truth, truth[2]]):
        assert abs(values.mean() - expected) < 4.5 * values.std() / math.sqrt(n) + 1e-12
    assert info.v_m2.std() < flipped.std()
    assert (np.abs(np.sign(new).mean(0)) < 4.5 / math.sqrt(n)).all()


@pytest.mark.parametrize("update", UPDATES)
def test_free_field_with_clusters(update):
    """The signs of a Gaussian field are an Ising model too: G(k) survives the cluster update."""
    action, shape, chains = FreeScalar(0.2), (4, 6), np.arange(4000)
    g = free_propagator(0.2, shape)
    modes = np.fft.fftn(normals(4, "modes", chains, 0, 24).reshape(-1, *shape), axes=(1, 2))
    phi = np.fft.ifftn(modes * np.sqrt(g), axes=(1, 2)).real  # an exact sample
    for t in range(5):
        phi, _ = UPDATES[update](action, phi, seed=4, chains=chains, trajectory=t)
    power = np.abs(np.fft.fftn(phi, axes=(1, 2))) ** 2 / 24
    error = power.std(axis=0, ddof=1) / math.sqrt(len(chains))
    assert (np.abs(power.mean(0) - g) < 4.5 * error).all()


@pytest.mark.parametrize("update", UPDATES)
def test_control_wrong_bond_probability_fails(update):
    """1 - exp(-2 kappa phi phi') in place of 1 - exp(-4 kappa phi phi') must be off by more than 10 sigma."""
    action, shape, chains = ScalarPhi4(0.27, 0.022), (2, 2), np.arange(1000)
    exact = small_lattice(action, shape)
    phi = normals(5, "start", chains, 0, 4).reshape(-1, *shape)
    wrong = ScalarPhi4(0.135, 0.022)  # half of kappa in the bonds and nowhere else
    series = []
    for t in range(60):
        phi, _ = hmc_trajectory(action, phi, seed=5, chains=chains, trajectory=t, length=1.0, n_steps=6)
        phi, _ = UPDATES[update](wrong, phi, seed=5, chains=chains, trajectory=t)
        series.append(phi.mean(axis=(1, 2)) ** 2)
    assert abs(pulls(np.array(series[20:]).T, exact.m2)) > 10


def test_only_signs_change_and_one_connected_cluster():
    action, shape = ScalarPhi4(0.27, 0.022), (6, 5)
    phi = normals(6, "start", np.arange(40), 0, 30).reshape(-1, *shape)
    new, info = wolff_update(action, phi, seed=6, chains=np.arange(40), trajectory=0)
    np.testing.assert_array_equal(np.abs(new), np.abs(phi))
    table = layout.neighbour_table(shape).astype(int)
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


@pytest.mark.parametrize("kappa", [0.27, -0.27])
def test_swendsen_wang_changes_signs_only(kappa):
    """Amplitudes stay, and so does the sign of phi phi' across every bond that is frozen all but surely."""
    shape, chains = (6, 5), np.arange(40)
    phi = normals(6, "start", chains, 0, 30).reshape(-1, *shape)
    new, info = swendsen_wang_update(ScalarPhi4(kappa, 0.022), phi, seed=6, chains=chains, trajectory=0)
    np.testing.assert_array_equal(np.abs(new), np.abs(phi))
    assert ((info.largest >= 1) & (info.largest <= 31 - info.n_clusters)).all()
    strong = 30 * phi
    new, _ = swendsen_wang_update(ScalarPhi4(kappa, 0.022), strong, seed=6, chains=chains, trajectory=0)
    for axis in (1, 2):
        bond = strong * np.roll(strong, -1, axis)
        after = new * np.roll(new, -1, axis)
        assert (after[kappa * bond > 10] == bond[kappa * bond > 10]).all()
        assert (after != bond).any()


@pytest.mark.parametrize("update", UPDATES)
def test_result_depends_on_chain_and_trajectory_only(update):
    action, chains, move = ScalarPhi4(0.27, 0.022), np.arange(100, 137), UPDATES[update]
    phi = normals(7, "start", chains, 0, 64).reshape(-1, 8, 8)
    before, args = phi.copy(), {"seed": 7, "trajectory": 3}
    whole, info = move(action, phi, chains=chains, n_threads=1, **args)
    for n_threads in (2, 5):
        x, i = move(action, phi, chains=chains, n_threads=n_threads, **args)
        np.testing.assert_array_equal(x, whole)
        for name, values in vars(info).items():
            np.testing.assert_array_equal(getattr(i, name), values)
    for c in (0, 17, 36):
        alone, one = move(action, phi[c : c + 1], chains=chains[c : c + 1], **args)
        np.testing.assert_array_equal(alone[0], whole[c])
        for name, values in vars(info).items():
            np.testing.assert_array_equal(getattr(one, name)[0], values[c])
    np.testing.assert_array_equal(phi, before)
    for change in ({"trajectory": 4}, {"seed": 8}):
        assert not np.array_equal(move(action, phi, chains=chains, **{**args, **change})[0], whole)


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4), (2, 1, 2, 3)])
def test_neighbour_table(shape):
    sites = np.arange(math.prod(shape)).reshape(shape)
    table = layout.neighbour_table(shape)
    assert table.shape == (sites.size, 2 * len(shape))
    for axis, extent in enumerate(shape):
        for site in np.ndindex(*shape):
            ahead = list(site)
            ahead[axis] = (ahead[axis] + 1) % extent
            assert table[sites[site], 2 * axis] == sites[tuple(ahead)]
            assert table[sites[tuple(ahead)], 2 * axis + 1] == sites[site]


def test_bad_input():
    action, phi = ScalarPhi4(0.27, 0.022), np.zeros((2, 4))
    for update in UPDATES.values():
        with pytest.raises(InputError, match="2 fields, 3 chains"):
            update(action, phi, seed=1, chains=np.arange(3), trajectory=0)
        with pytest.raises(InputError, match="float64"):
            update(action, phi.astype(np.float32), seed=1, chains=np.arange(2), trajectory=0)
        with pytest.raises(InputError, match="phi\\^4 only, not RealQuartic"):
            update(RealQuartic(1.0, 1.0), phi, seed=1, chains=np.arange(2), trajectory=0)
    with pytest.raises(InputError, match="n_clusters"):
        wolff_update(action, phi, seed=1, chains=np.arange(2), trajectory=0, n_clusters=-1)

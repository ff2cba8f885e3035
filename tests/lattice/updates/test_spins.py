"""Updates of spins leave the exact law alone, state by state; a wrong temperature or field is seen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lattice.actions.phi4 import ScalarPhi4
from lattice.actions.spins import Ising, Potts, Spins
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.exact.ising import CRITICAL, potts_temperature, torus, torus_in_field
from lattice.rng import uniforms
from lattice.updates.kernels import layout
from lattice.updates.spins import (
    BOND,
    STATE,
    heat_bath_sweep,
    spin_metropolis_sweep,
    spin_swendsen_wang_update,
    spin_wolff_update,
)

Update = Callable[..., tuple[Floats, Any]]


def two_clusters(action: Spins, phi: Floats, **keys: Any) -> tuple[Floats, Any]:
    return spin_wolff_update(action, phi, **keys, n_clusters=2)


UPDATES: dict[str, Update] = {
    "heat-bath": heat_bath_sweep,
    "metropolis": spin_metropolis_sweep,
    "wolff": spin_wolff_update,
    "wolff2": two_clusters,
    "swendsen-wang": spin_swendsen_wang_update,
}
FOUR = ("heat-bath", "metropolis", "wolff2", "swendsen-wang")
ALONE = ("heat-bath", "metropolis", "wolff", "swendsen-wang")
ENERGY_OF_SIX = {0.8: -1.9210739, potts_temperature(3): -1.6737359, 1.5: -1.0480783}  # q = 3, 6 x 6
SMALL: list[tuple[Spins, tuple[int, ...]]] = [
    (Ising(2.3), (2, 2)),
    (Ising(1.6, 0.4), (3,)),
    (Ising(2.5, -0.3), (2, 3)),
    (Ising(4.0), (2, 2, 2)),
    (Ising(1.5, 0.2), (1, 3)),
    (Ising(2.4), (2, 4)),
    (Potts(1.1, 3), (2, 2)),
    (Potts(0.9, 3, h=0.3, direction=2), (3,)),
    (Potts(1.0, 3, h=-0.4, direction=0), (2, 2)),
    (Potts(1.2, 2, h=0.2, direction=0), (2, 3)),
    (Potts(0.8, 4, h=0.2, direction=1), (2, 1)),
]
IDS = [f"{a.kind}{a.n_states}-{'x'.join(map(str, shape))}-h{a.h:g}" for a, shape in SMALL]


def law(action: Spins, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """All fields (q^V, *shape) and their probabilities, from S."""
    labels = np.array(list(itertools.product(range(action.n_states), repeat=math.prod(shape))), np.int8)
    phi = action.values(labels).reshape(-1, *shape)
    s = action.action(torch.from_numpy(phi)).numpy()
    p = np.exp(s.min() - s)
    return phi, p / p.sum()


def drawn(action: Spins, shape: tuple[int, ...], n: int) -> Floats:
    """n independent fields of the exact law."""
    phi, p = law(action, shape)
    u = uniforms(1, "test/drawn", np.arange(1), 0, n)[0]
    return phi[np.minimum(np.searchsorted(np.cumsum(p), u), len(p) - 1)]


def sigmas(action: Spins, phi: Floats) -> float:
    """chi^2 of the histogram of states against the exact law, in standard deviations (Wilson, Hilferty):
    states expected less than ten times are counted together."""
    _, p = law(action, phi.shape[1:])
    n, q = len(phi), action.n_states
    place = q ** np.arange(math.prod(phi.shape[1:]))[::-1]
    counts = np.bincount(action.labels(phi).reshape(n, -1) @ place, minlength=len(p))
    rare = n * p < 10
    expected = np.append(n * p[~rare], n * p[rare].sum())
    found = np.append(counts[~rare], counts[rare].sum())
    used = expected > 5
    assert expected[~used].sum() < 6
    chi2, dof = float(((found - expected)[used] ** 2 / expected[used]).sum()), used.sum() - 1
    return float(((chi2 / dof) ** (1 / 3) - 1 + 2 / (9 * dof)) / math.sqrt(2 / (9 * dof)))


@pytest.mark.parametrize("update", ALONE)
@pytest.mark.parametrize(("action", "shape"), SMALL, ids=IDS)
def test_the_exact_law_stays(action: Spins, shape: tuple[int, ...], update: str) -> None:
    """One update of 10^5 independent exact fields."""
    n = 100_000
    phi = drawn(action, shape, n)
    assert abs(sigmas(action, phi)) < 4.5
    new, _ = UPDATES[update](action, phi, seed=11, chains=np.arange(n), trajectory=0)
    assert (new != phi).any()
    assert abs(sigmas(action, new)) < 4.5


MANY: dict[str, dict[str, int]] = {
    "heat-bath": {"n_sweeps": 200}, "metropolis": {"n_sweeps": 200}, "wolff": {"n_clusters": 40}
}  # fmt: skip
# Metropolis alone does not reach all of 2 x 2: see the next test
REACHED = [
    (*case, update)
    for case in SMALL
    for update in (*MANY, "swendsen-wang")
    if (case, update) != (SMALL[0], "metropolis")
]


@pytest.mark.parametrize(("action", "shape", "update"), REACHED)
def test_the_exact_law_is_reached(action: Spins, shape: tuple[int, ...], update: str) -> None:
    """From state 0 everywhere, which the law is far from; by many sweeps or clusters of one call, too."""
    n, move = 10_000, UPDATES[update]
    phi = np.tile(law(action, shape)[0][:1], (n, *[1] * len(shape)))
    assert sigmas(action, phi) > 10
    for t in range(1 if update in MANY else 20):
        phi, _ = move(action, phi, seed=12, chains=np.arange(n), trajectory=t, **MANY.get(update, {}))
    assert abs(sigmas(action, phi)) < 4.5


@pytest.mark.parametrize(
    ("action", "shape"),
    [
        (Ising(1.5), (6,)),
        (Ising(2.3), (2, 2)),
        (Potts(1.0, 3), (6,)),
    ],
)
def test_metropolis_sweeps_alone_reach_the_law(action: Spins, shape: tuple[int, ...]) -> None:
    """Two states without a field are exchanged for sure where dS = 0; in turn, that can leave states out."""
    n = 20_000
    phi = np.tile(law(action, shape)[0][:1], (n, *[1] * len(shape)))
    phi, _ = spin_metropolis_sweep(action, phi, seed=15, chains=np.arange(n), trajectory=0, n_sweeps=200)
    assert abs(sigmas(action, phi)) < 4.5


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize(("action", "shape"), SMALL[2:3] + SMALL[8:9], ids=["ising", "potts"])
def test_control_a_wrong_temperature_or_field_fails(action: Any, shape: tuple[int, ...], update: str) -> None:
    """Updates at T sqrt 2, or blind to the field, must be off by more than 10 sigma."""
    n = 60_000
    hot = {"temperature": action.temperature * math.sqrt(2)}
    for change in (hot, {"h": 0.0}, {"h": -action.h}):
        wrong = type(action)(**{**vars(action), **change})
        new, _ = UPDATES[update](wrong, drawn(action, shape, n), seed=13, chains=np.arange(n), trajectory=0)
        assert sigmas(action, new) > 10, change


def energies(action: Spins, shape: tuple[int, ...], exact: float, update: str, n_therm: int = 200) -> float:
    """<E>/V - exact in standard errors, from a cold start, chains as independent."""
    n, v = 150, math.prod(shape)
    phi = np.tile(action.values(np.zeros((1, *shape), np.int8)), (n, *[1] * len(shape)))
    keys: dict[str, Any] = {"seed": 14, "chains": np.arange(n), "n_threads": 1}
    found = np.zeros(n)
    for t in range(n_therm + 40):
        phi, _ = UPDATES[update](action, phi, **keys, trajectory=t)
        if t >= n_therm:
            found += action.temperature * action.action(torch.from_numpy(phi)).numpy() / v / 40
    return float((found.mean() - exact) / (found.std(ddof=1) / math.sqrt(n)))


@pytest.mark.parametrize("update", FOUR)
@pytest.mark.parametrize("t", [2.0, CRITICAL, 3.0])
def test_energies_of_ten_by_ten(t: float, update: str) -> None:
    assert abs(energies(Ising(t), (10, 10), torus((10, 10), t).e, update)) < 4.5


@pytest.mark.parametrize("update", FOUR)
@pytest.mark.parametrize("t", ENERGY_OF_SIX)
def test_energies_of_three_states(t: float, update: str) -> None:
    assert abs(energies(Potts(t, 3), (6, 6), ENERGY_OF_SIX[t], update, 100)) < 4.5


@pytest.mark.parametrize("update", FOUR)
def test_energies_in_a_field(update: str) -> None:
    """Against the field at the start, which the chains have to leave."""
    assert abs(energies(Ising(2.6, 0.2), (8, 7), torus_in_field((8, 7), 2.6, 0.2).e, update)) < 4.5


def plain_swendsen_wang(
    action: Spins, label: Integers, bonds: list[tuple[int, int]], e: Floats, u: Floats
) -> tuple[Integers, list[int]]:
    """Clusters by plain search; a new state of each by the uniform of its first site."""
    frozen = [b for b, x in zip(bonds, e) if label[b[0]] == label[b[1]] and x < action.coupling]
    new, left, sizes = label.copy(), set(range(len(label))), []
    while left:
        cluster, front = set(), [min(left)]
        while front:
            x = front.pop()
            cluster.add(x)
            front += [y for b in frozen if x in b for y in b if y not in cluster]
        w = np.cumsum(np.exp(len(cluster) * action.log_weights))
        new[list(cluster)] = np.searchsorted(w, u[min(cluster)] * w[-1])
        left -= cluster
        sizes.append(len(cluster))
    return new, sizes


@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 4), (7,), (2, 1, 3), (1,)])
@pytest.mark.parametrize("action", [Ising(2.0), Ising(2.0, 0.3), Potts(0.8, 4, h=-0.2, direction=2)])
def test_swendsen_wang_equals_the_plain_algorithm(action: Spins, shape: tuple[int, ...]) -> None:
    """Same random numbers, same states and clusters, bit for bit."""
    volume, chains = math.prod(shape), np.arange(30) + 7
    labels = (action.n_states * uniforms(8, "start", chains, 0, volume)).astype(np.int8)
    phi = action.values(labels).reshape(-1, *shape)
    new, info = spin_swendsen_wang_update(action, phi, seed=8, chains=chains, trajectory=5)
    bonds = [(x, int(y)) for x, row in enumerate(layout.neighbour_table(shape)) for y in row[::2]]
    e = -np.log(uniforms(8, BOND, chains, 5, len(bonds)))
    u = uniforms(8, STATE, chains, 5, volume)
    for i in range(30):
        expected, sizes = plain_swendsen_wang(action, labels[i], bonds, e[i], u[i])
        np.testing.assert_array_equal(action.labels(new[i]).ravel(), expected)
        assert (info.n_clusters[i], info.size[i, 0]) == (len(sizes), max(sizes))


@pytest.mark.parametrize("action", [Ising(2.3), Potts(0.9, 4), Potts(0.9, 3, h=0.2, direction=1)])
def test_wolff_moves_one_connected_cluster(action: Spins) -> None:
    """Of one state to one other state; its size is what the info says, 0 where the field refused it."""
    shape, chains = (6, 5), np.arange(200)
    labels = (action.n_states * uniforms(6, "start", chains, 0, 30)).astype(np.int8)
    phi = action.values(labels).reshape(-1, *shape)
    for t in range(5):
        phi, _ = heat_bath_sweep(action, phi, seed=6, chains=chains, trajectory=t)
    new, info = spin_wolff_update(action, phi, seed=6, chains=chains, trajectory=5)
    table = layout.neighbour_table(shape).astype(int)
    for before, after, size in zip(phi.reshape(200, -1), new.reshape(200, -1), info.size[:, 0]):
        moved = set(np.flatnonzero(before != after).tolist())
        assert len(moved) == size
        if not moved:
            continue
        assert len({before[x] for x in moved}) == len({after[x] for x in moved}) == 1
        reached, front = set(), [min(moved)]
        while front:
            x = front.pop()
            reached.add(x)
            front += [y for y in table[x].tolist() if y in moved and y not in reached]
        assert reached == moved
    assert (info.n_clusters == 1).all()
    assert (info.size == 0).any() == bool(action.h)
    assert info.size.max() > 5


def test_what_the_infos_say() -> None:
    """One sweep visits every site once; no bond is frozen at T -> infinity, all at T -> 0."""
    chains, shape = np.arange(50), (4, 6)
    for action in (Ising(2.5, 0.1), Potts(1.2, 3)):
        phi = np.tile(action.values(np.ones((1, *shape), np.int8)), (50, 1, 1))
        for sweep in (heat_bath_sweep, spin_metropolis_sweep):
            new, info = sweep(action, phi, seed=1, chains=chains, trajectory=0)
            np.testing.assert_allclose(info.moved, (new != phi).mean(axis=(1, 2)), atol=1e-15)
            assert 0 < info.moved.mean() < 1
            _, more = sweep(action, phi, seed=1, chains=chains, trajectory=0, n_sweeps=50)
            assert abs(more.moved.mean() - info.moved.mean()) > 1e-3  # no longer the first sweep alone
    cold = np.ones((50, *shape))
    _, hot = spin_swendsen_wang_update(Ising(1e12), cold, seed=1, chains=chains, trajectory=0)
    assert (hot.n_clusters == 24).all()
    assert (hot.size == 1).all()
    _, frozen = spin_swendsen_wang_update(Ising(0.1), cold, seed=1, chains=chains, trajectory=0)
    assert (frozen.n_clusters == 1).all()
    assert (frozen.size == 24).all()
    _, three = spin_wolff_update(Ising(2.0), cold, seed=1, chains=chains, trajectory=0, n_clusters=3)
    assert three.size.shape == (50, 3)
    assert (three.n_clusters == 3).all()
    same, none = spin_wolff_update(Ising(2.0), cold, seed=1, chains=chains, trajectory=0, n_clusters=0)
    np.testing.assert_array_equal(same, cold)
    assert none.size.shape == (50, 0)


@pytest.mark.parametrize("action", [Ising(2.3), Ising(2.3, 0.2), Potts(1.0, 3, h=0.1, direction=0)])
@pytest.mark.parametrize("update", UPDATES)
def test_bitwise_independent_of_company_and_threads(action: Spins, update: str) -> None:
    """300 chains are more than one block; the input is left alone; every key matters."""
    chains, move, shape = np.arange(1000, 1300), UPDATES[update], (3, 4)
    labels = (action.n_states * uniforms(7, "start", chains, 0, 12)).astype(np.int8)
    phi = action.values(labels).reshape(-1, *shape)
    before, keys = phi.copy(), {"seed": 2**63 + 5, "trajectory": 9}
    whole, info = move(action, phi, chains=chains, n_threads=1, **keys)

    def same(rows: Any, **more: Any) -> None:
        x, i = move(action, phi[rows], chains=chains[rows], **keys, **more)
        np.testing.assert_array_equal(x, whole[rows])
        for name, values in vars(info).items():
            np.testing.assert_array_equal(getattr(i, name), values[rows])

    for n_threads in (2, 3, 5):
        same(slice(None), n_threads=n_threads)
    same(np.random.default_rng(0).permutation(300))
    same(slice(0, 256))
    same(slice(100, 299))
    for c in (0, 255, 256, 299):
        same(slice(c, c + 1))
    np.testing.assert_array_equal(phi, before)
    for change in ({"seed": 1}, {"trajectory": 8}):
        assert not np.array_equal(move(action, phi, chains=chains, **{**keys, **change})[0], whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chains": np.arange(3)}, "2 fields, 3 chains"),
        ({"seed": -1}, "seed must be"),
        ({"n_threads": 0}, "n_threads must be"),
        ({"phi": np.ones((2, 3), dtype=np.float32)}, "float64"),
        ({"phi": np.full((2, 3), 0.5)}, "-1 and \\+1, got 0.5"),
        ({"action": ScalarPhi4(0.27, 0.022)}, "spins only .kind ising or potts., not ScalarPhi4"),
        ({"action": Ising(0.001)}, "temperature = 0.001 is too low for these updates"),
        ({"action": Ising(0.1, 100.0)}, "temperature = 0.1 is too low for these updates"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    args = {"action": Ising(2.0), "phi": np.ones((2, 3)), "seed": 1, "chains": np.arange(2), **change}
    action, phi = args.pop("action"), args.pop("phi")
    for update in UPDATES.values():
        with pytest.raises(InputError, match=message) as error:
            update(action, phi, **args, trajectory=0)
        assert "\n" not in str(error.value)


def test_bad_numbers_of_sweeps_and_clusters() -> None:
    keys: dict[str, Any] = {"seed": 1, "chains": np.arange(2), "trajectory": 0}
    for n_sweeps in (0, -1, 2**31):
        for sweep in (heat_bath_sweep, spin_metropolis_sweep):
            with pytest.raises(InputError, match="n_sweeps must be >= 1"):
                sweep(Ising(2.0), np.ones((2, 3)), **keys, n_sweeps=n_sweeps)
    with pytest.raises(InputError, match="n_clusters must be >= 0, got -1"):
        spin_wolff_update(Ising(2.0), np.ones((2, 3)), **keys, n_clusters=-1)


def test_the_temperature_advised_is_taken() -> None:
    keys: dict[str, Any] = {"seed": 1, "chains": np.arange(1), "trajectory": 0}
    with pytest.raises(InputError, match="take ") as error:
        heat_bath_sweep(Ising(0.01), np.ones((1, 4, 4)), **keys)
    advised = float(str(error.value).split("take ")[1].split()[0])
    heat_bath_sweep(Ising(advised), np.ones((1, 4, 4)), **keys)

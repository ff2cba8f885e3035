"""Observables of spins: primaries by loops, identities, random spins, and the exact values beside."""

from __future__ import annotations

import cmath
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from lattice.actions.spins import Ising, Potts, Spins
from lattice.arrays import Floats
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.ising import enumerated
from lattice.exact.spins import known
from lattice.observables import scalar
from lattice.observables.measure import measure
from lattice.observables.names import field_power
from lattice.observables.spins import entries_with, spin_definitions, spin_primaries
from lattice.rng import uniforms

CASES: list[tuple[Spins, tuple[int, ...]]] = [
    (Ising(1.7, 0.3), (4, 3)),
    (Ising(2.0), (5,)),
    (Ising(2.0), (2, 3, 2)),
    (Ising(2.0), (1, 4)),
    (Ising(2.0), (4, 4)),
    (Potts(0.9, 3), (4, 3)),
    (Potts(0.9, 4, h=0.2, direction=1), (3, 3)),
    (Potts(0.9, 5), (2, 2, 3)),
]


def random(action: Spins, n: int, shape: tuple[int, ...]) -> Floats:
    u = uniforms(5, "test/random", np.arange(n), 0, math.prod(shape))
    return action.values((action.n_states * u).astype(np.int8)).reshape(n, *shape)


def by_loops(f: Floats, action: Spins) -> dict[str, float]:
    """All primaries of one configuration, site by site."""
    shape, q, v = f.shape, action.n_states, f.size
    sites = list(itertools.product(*map(range, shape)))

    def g(x: tuple[int, ...], y: tuple[int, ...]) -> float:
        return float((q * (f[x] == f[y]) - 1) / (q - 1))

    def ahead(x: tuple[int, ...], axis: int, by: int) -> tuple[int, ...]:
        return tuple((c + by * (a == axis)) % n for a, (c, n) in enumerate(zip(x, shape)))

    counts = [sum(f[x] == s for x in sites) for s in action.values(np.arange(q, dtype=np.int8))]
    m = f.mean() if isinstance(action, Ising) else (q * max(counts) / v - 1) / (q - 1)
    m2 = sum(g(x, y) for x in sites for y in sites) / v**2
    longest = [a for a, n in enumerate(shape) if n == max(shape)]
    k = 2 * math.pi / max(shape)
    g1 = sum(
        g(x, y) * cmath.exp(1j * k * (x[a] - y[a])).real for a in longest for x in sites for y in sites
    ) / (v * len(longest))
    s = action.action(torch.from_numpy(f[None])).item() / v
    axes = range(len(shape))
    return {
        "m": m, "abs_m": abs(m), "m2": m2, "m4": m2**2, "s": s, "s2": v * s**2, "g0": v * m2, "g1": g1,
        "nearest": np.mean([g(x, ahead(x, a, 1)) for x in sites for a in axes]),
        "farthest": np.mean([g(x, ahead(x, a, shape[a] // 2)) for x in sites for a in axes]),
    }  # fmt: skip


@pytest.mark.parametrize(("action", "shape"), CASES)
def test_primaries_by_loops(action: Spins, shape: tuple[int, ...]) -> None:
    """g(x, y) summed over all pairs of sites is V^2 M^2, whatever the number of states."""
    phi = random(action, 6, shape)
    found = spin_primaries(phi, action)
    for i, f in enumerate(phi):
        expected = by_loops(f, action)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name][i] == pytest.approx(value, abs=1e-12), name


def test_what_is_no_spin() -> None:
    with pytest.raises(InputError, match="-1 and \\+1, got 0"):
        spin_primaries(np.zeros((1, 4)), Ising(2.0))
    with pytest.raises(InputError, match="states 0 to 2, got 3"):
        spin_primaries(np.full((1, 4), 3.0), Potts(1.0, 3))
    with pytest.raises(InputError, match=r"\(n, \*shape\)"):
        spin_primaries(np.ones(4), Ising(2.0))


@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (5,), (4, 2, 4)])
def test_ising_is_a_scalar_field(shape: tuple[int, ...]) -> None:
    """The primaries and xi_2nd that both have are the same numbers, and |M| is the root of M^2."""
    action = Ising(2.0)
    phi = random(action, 40, shape)
    ours, theirs = spin_primaries(phi, action), scalar.primaries(phi, action)
    for name in ("m", "abs_m", "m2", "m4", "s", "g0", "g1"):
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-12, err_msg=name)
    np.testing.assert_allclose(ours["abs_m"] ** 2, ours["m2"], atol=1e-12)
    a, b = spin_definitions(shape, action), scalar.definitions(shape, True)
    for name in ("abs_magnetization", "susceptibility", "susceptibility_full", "binder", "xi_2nd"):
        means = [
            [float(np.mean(table[c][:5])) + 2.0 * (c == "g0") for c in made[name][0]]
            for made, table in ((a, ours), (b, theirs))
        ]
        x, y = ((f or (lambda v: v[0]))(np.array(m)) for f, m in zip((a[name][1], b[name][1]), means))
        assert x == pytest.approx(y, abs=1e-12), name


def test_two_potts_states_are_ising_spins() -> None:
    """All of g alike, |M| too; the energy is e/2 - d/2."""
    ising, potts = Ising(2.0), Potts(1.0, 2)
    phi = random(ising, 30, (4, 6))
    a, b = spin_primaries(phi, ising), spin_primaries((phi + 1) / 2, potts)
    for name in ("abs_m", "m2", "m4", "g0", "g1", "nearest", "farthest"):
        np.testing.assert_allclose(a[name], b[name], atol=1e-12, err_msg=name)
    np.testing.assert_allclose(b["s"] * 1.0, a["s"] * 2.0 / 2 - 1, atol=1e-12)


@pytest.mark.parametrize("q", [2, 3, 4])
def test_the_binder_cumulant_of_random_states_is_zero(q: int) -> None:
    """M is a normal vector of q - 1 components then: <M^4>/<M^2>^2 = (q + 1)/(q - 1), but for 1/V; and
    <M^2> = 1/V exactly. Control: the factor of the Ising model, 1/3, is 10 sigma off for q > 2."""
    action, shape, n = Potts(1.0, q), (16, 16), 20_000
    p = spin_primaries(random(action, n, shape), action)
    m2 = p["m2"]
    assert abs(m2.mean() - 1 / 256) < 4.5 * m2.std() / math.sqrt(n)
    columns, f, _ = spin_definitions(shape, action)["binder"]
    assert f is not None

    def jackknifed(u: Any) -> tuple[float, float]:
        parts = [np.array([np.delete(p[c].reshape(50, -1), i, 0).mean() for c in columns]) for i in range(50)]
        each = np.array([u(part) for part in parts])
        whole = float(u(np.array([p[c].mean() for c in columns])))
        return whole, float(each.std() * math.sqrt(49))

    value, error = jackknifed(f)
    assert abs(value) < 4.5 * error + 4 / 256
    assert error < 0.02
    wrong, error = jackknifed(lambda x: 1 - x[1] / (3 * x[0] ** 2))
    assert abs(wrong) > 10 * error if q > 2 else abs(wrong) < 4.5 * error + 4 / 256


def test_ordered_states() -> None:
    """M = 1 and U = 2/(q + 1), all correlations 1."""
    for q in (2, 3, 5):
        action = Potts(1.0, q)
        p = spin_primaries(np.full((3, 4, 4), float(q - 1)), action)
        for name in ("m", "abs_m", "m2", "m4", "nearest", "farthest"):
            np.testing.assert_allclose(p[name], 1.0, atol=1e-12)
        f = spin_definitions((4, 4), action)["binder"][1]
        assert f is not None
        assert f(np.array([1.0, 1.0])) == pytest.approx(2 / (q + 1))


def all_states(action: Spins, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    n = math.prod(shape)
    labels = np.array(list(itertools.product(range(action.n_states), repeat=n)), np.int8)
    phi = action.values(labels).reshape(-1, *shape)
    s = action.action(torch.from_numpy(phi)).numpy()
    return phi, s.min() - s


@pytest.mark.parametrize(
    ("action", "shape"), [(Ising(2.1), (3, 4)), (Ising(1.3, 0.2), (8,)), (Potts(0.9, 3), (2, 4))]
)
def test_measured_over_all_states_is_exact(action: Any, shape: tuple[int, ...]) -> None:
    """Every configuration with its weight: energies and the specific heat of an independent enumeration,
    and each value its own "exact"."""
    phi, log_weight = all_states(action, shape)
    n = len(phi)
    measured = measure(Ensemble.from_fields(phi, action, log_weight=log_weight), two_point=False)
    entries, exact = measured["observables"], known(action, shape)
    assert {name for name in entries if "exact" in entries[name]} == entries.keys() & exact.keys()
    assert {"energy", "action_density", "specific_heat"} <= exact.keys()
    assert len(log_weight) == n
    for name in entries.keys() & exact.keys():
        assert entries[name]["exact"] == exact[name]
        assert entries[name]["value"] == pytest.approx(exact[name], abs=5e-9), name
    t = action.temperature
    assert entries["energy"]["value"] == pytest.approx(t * entries["action_density"]["value"], abs=1e-12)
    if isinstance(action, Ising):
        thermal = enumerated(shape, t, action.h)
        assert entries["energy"]["value"] == pytest.approx(thermal.e, abs=1e-11)
        assert entries["specific_heat"]["value"] == pytest.approx(thermal.c, abs=1e-11)


def test_names() -> None:
    """Ising has a sign and a two-point function; no xi on one site; exact values where they are known."""
    ising, potts = spin_definitions((4, 4), Ising(2.0)), spin_definitions((4, 4), Potts(1.0, 3))
    assert ising.keys() - potts.keys() == {"magnetization"}
    assert "xi_2nd" not in spin_definitions((1, 1), Ising(2.0))
    assert all(isinstance(field_power(name), int) for name in ising)
    some = {"a": {"value": 1.0}, "b": {"value": 2.0}}
    assert entries_with({"b": 3.0, "c": 4.0}, some) == {
        "a": {"value": 1.0},
        "b": {"value": 2.0, "exact": 3.0},
    }
    unknown = Ensemble.from_fields(random(Potts(1.0, 3), 64, (3, 3, 3)), Potts(1.0, 3))
    measured = measure(unknown)
    assert measured["two_point"] is None
    assert not any("exact" in entry for entry in measured["observables"].values())
    assert measure(Ensemble.from_fields(random(Ising(2.0), 64, (4, 4)), Ising(2.0)))["two_point"] is not None


def test_random_spins_pull_on_the_exact_values_of_another_temperature() -> None:
    """Independent random spins are T = infinity: right there, far off the exact energy of T = 4."""
    phi = random(Ising(4.0), 4000, (6, 6))
    pulls = []
    for t in (1e9, 4.0):
        entry = measure(Ensemble.from_fields(phi, Ising(t)))["observables"]["nearest"]
        pulls.append(abs(entry["value"] - entry["exact"]) / entry["error"])
    assert pulls[0] < 4.5
    assert pulls[1] > 10


def test_a_lattice_one_site_wide_is_measured() -> None:
    entries = measure(Ensemble.from_fields(random(Ising(2.0), 64, (1, 6)), Ising(2.0)))["observables"]
    assert "exact" in entries["energy"]


def test_ordered_spins_have_no_correlation_length() -> None:
    entries = measure(Ensemble.from_fields(np.ones((64, 8, 8)), Ising(0.25)))["observables"]
    assert entries["xi_2nd"]["value"] is None

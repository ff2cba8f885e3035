"""What is known exactly of spins: every name against a sum over all states; else nothing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from lattice.actions.phi4 import ScalarPhi4
from lattice.actions.spins import Ising, Potts, Spins
from lattice.arrays import Floats
from lattice.exact.spins import known

THERMAL = {"energy", "action_density", "specific_heat", "ln_z"}
ORDER = {"abs_magnetization", "binder", "susceptibility_full", "susceptibility", "magnetization"}
PAIRS = {"nearest", "farthest", "c1"}


def all_fields(action: Spins, shape: tuple[int, ...]) -> Floats:
    n = math.prod(shape)
    if action.n_states == 2:
        labels = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        labels = np.array(list(itertools.product(range(action.n_states), repeat=n)))
    return action.values(labels.astype(np.int8)).reshape(-1, *shape)


def summed(action: Spins, shape: tuple[int, ...]) -> dict[str, float]:
    """All names by <...> = sum exp(-S) .../Z."""
    phi, v = all_fields(action, shape), math.prod(shape)
    s = action.action(torch.from_numpy(phi)).numpy()
    w = np.exp(s.min() - s)
    ln_z, w = float(np.log(w.sum()) - s.min()), w / w.sum()
    axes = tuple(range(1, phi.ndim))
    energy = action.temperature * s
    mean = w @ energy
    m, q = phi.mean(axis=axes), action.n_states
    equal = [
        np.mean([(phi == np.roll(phi, shift(n), a)).mean(axis=axes) for a, n in zip(axes, shape)], axis=0)
        for shift in (lambda n: 1, lambda n: n // 2)
    ]
    near, far = ((q * (w @ x) - 1) / (q - 1) for x in equal)
    two, four = w @ m**2, w @ m**4
    return {
        "energy": mean / v,
        "action_density": (w @ s) / v,
        "specific_heat": (w @ (energy - mean) ** 2) / v / action.temperature**2,
        "ln_z": ln_z,
        "abs_magnetization": w @ np.abs(m),
        "binder": 1 - four / (3 * two**2),
        "susceptibility_full": v * two,
        "susceptibility": v * (two - (w @ np.abs(m)) ** 2),
        "magnetization": w @ m,
        "nearest": near,
        "farthest": far,
        "c1": near - far,
    }


@pytest.mark.parametrize(
    ("action", "shape", "names"),
    [
        (Ising(2.3), (4, 4), THERMAL | ORDER | PAIRS),
        (Ising(0.9), (4, 4), THERMAL | ORDER | PAIRS),
        (Ising(2.0), (2, 2), THERMAL | ORDER | PAIRS),
        (Ising(3.1), (3, 5), THERMAL | ORDER),
        (Ising(2.3, 0.4), (4, 4), THERMAL),
        (Ising(2.3, 0.4), (6, 3), THERMAL),
        (Ising(1.2), (8,), THERMAL),
        (Ising(1.2, -0.3), (5,), THERMAL),
        (Ising(4.5), (2, 2, 2), THERMAL),
        (Ising(4.5, 0.2), (2, 3, 2), THERMAL),
        (Potts(1.0, 3), (3, 3), THERMAL),
        (Potts(0.7, 3, direction=1), (2, 4), THERMAL),
        (Potts(1.2, 2), (3, 4), THERMAL),
    ],
)
def test_every_value_is_the_sum_over_all_states(
    action: Spins, shape: tuple[int, ...], names: set[str]
) -> None:
    found, expected = known(action, shape), summed(action, shape)
    assert set(found) == names
    for name, value in found.items():
        # c of the transfer matrices is a difference
        assert value == pytest.approx(expected[name], abs=5e-9 if name == "specific_heat" else 1e-10), name


@pytest.mark.parametrize(
    ("action", "shape"),
    [
        (Ising(2.3, 0.4), (12, 12)),
        (Ising(2.3), (20,)),
        (Ising(4.5), (4, 4, 4)),
        (Potts(1.0, 3, h=0.1, direction=0), (3, 3)),
        (Potts(1.0, 3), (8,)),
        (Potts(1.0, 3), (8, 8)),
        (Potts(1.0, 3), (2, 2, 2)),
        (ScalarPhi4(0.27, 0.022), (4, 4)),
    ],
)
def test_nothing_where_nothing_is_known(action: Spins, shape: tuple[int, ...]) -> None:
    assert known(action, shape) == {}


@pytest.mark.parametrize(
    ("action", "shape", "names"),
    [
        (Ising(2.3), (32, 32), THERMAL),
        (Ising(2.3), (6, 64), THERMAL),
        (Ising(2.3), (4, 6), THERMAL | ORDER),
        (Ising(3.0, 0.5), (8, 32), THERMAL),
        (Potts(1.0, 3), (4, 16), THERMAL),
    ],
)
def test_what_is_known_of_larger_lattices(action: Spins, shape: tuple[int, ...], names: set[str]) -> None:
    assert set(known(action, shape)) == names
    assert set(known(action, shape[::-1])) == names
    for name, value in known(action, shape).items():
        assert known(action, shape[::-1])[name] == pytest.approx(value, abs=1e-10)


def test_two_states_are_ising_at_half_the_temperature() -> None:
    """delta = (1 + s s')/2: e_Potts = e_Ising/2 - 1 of two bonds a site, with the same ln Z but for these."""
    ising, potts = known(Ising(2.2), (5, 6)), known(Potts(1.1, 2), (5, 6))
    assert potts["energy"] == pytest.approx(ising["energy"] / 2 - 1, abs=1e-10)
    assert potts["specific_heat"] == pytest.approx(ising["specific_heat"], abs=5e-9)
    assert potts["ln_z"] == pytest.approx(ising["ln_z"] + 60 / 2.2, abs=1e-9)


@pytest.mark.parametrize("action", [Ising(2.1), Ising(2.1, 0.3), Potts(0.9, 3)])
def test_energy_and_specific_heat_are_derivatives(action: Spins) -> None:
    """e = -d ln Z/d beta/V, C = de/dT by differences, in the names that a measurement has."""
    shape, t, h = (4, 5), action.temperature, 1e-3
    low, high = (known(type(action)(**{**vars(action), "temperature": t + x}), shape) for x in (-h, h))
    found = known(action, shape)
    slope = (high["ln_z"] - low["ln_z"]) / (1 / (t + h) - 1 / (t - h))
    assert found["energy"] == pytest.approx(-slope / 20, rel=1e-5)
    assert found["specific_heat"] == pytest.approx((high["energy"] - low["energy"]) / (2 * h), rel=1e-5)
    assert found["action_density"] == pytest.approx(found["energy"] / t, rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (1, 1)])
def test_a_lattice_one_site_wide(shape: tuple[int, ...]) -> None:
    found = known(Ising(2.0), shape)
    assert found["energy"] == pytest.approx(summed(Ising(2.0), shape)["energy"], abs=1e-12)


def test_very_cold_tori() -> None:
    assert known(Ising(0.005), (8, 8))["energy"] == pytest.approx(-2.0, abs=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("t", "h"), [(0.02, 5.0), (0.05, 1.0)])
def test_cold_tori_in_a_field(t: float, h: float) -> None:
    assert known(Ising(t, h), (6, 6))["energy"] == pytest.approx(-2.0 - h, abs=1e-9)

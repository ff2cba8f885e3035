"""Ising and Potts actions: S by loops over bonds, two states of either kind alike, one line for bad input."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from lattice.actions.kinds import action_from_dict
from lattice.actions.phi4 import ScalarPhi4
from lattice.actions.protocol import Action
from lattice.actions.spins import Ising, Potts, spins_of
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.rng import uniforms

SHAPES = [(5,), (2,), (1,), (4, 3), (2, 5), (1, 3), (2, 2), (1, 1), (2, 3, 4), (1, 2, 2), (2, 1, 3, 2)]


def states(n: int, shape: tuple[int, ...], q: int) -> Floats:
    """Random states 0 .. q - 1, (n, *shape)."""
    u = uniforms(3, "test/states", np.arange(n), 0, math.prod(shape))
    return np.floor(q * u).reshape(n, *shape)


def bonds(shape: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(x, x + mu) of every site and axis."""
    found = []
    for x in itertools.product(*map(range, shape)):
        for axis, extent in enumerate(shape):
            y = list(x)
            y[axis] = (x[axis] + 1) % extent
            found.append((x, tuple(y)))
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_the_action_by_loops(shape: tuple[int, ...]) -> None:
    sites = list(itertools.product(*map(range, shape)))
    spins, three = 2 * states(7, shape, 2) - 1, states(7, shape, 3)
    found = Ising(1.7, 0.4).action(torch.from_numpy(spins)).numpy()
    q3 = Potts(0.9, 3, h=-0.3, direction=2).action(torch.from_numpy(three)).numpy()
    plain = Potts(0.9, 3).action(torch.from_numpy(three)).numpy()
    for i, (s, p) in enumerate(zip(spins, three)):
        pairs = sum(s[x] * s[y] for x, y in bonds(shape))
        assert found[i] == pytest.approx(-(pairs + 0.4 * sum(s[x] for x in sites)) / 1.7, abs=1e-12)
        alike = sum(p[x] == p[y] for x, y in bonds(shape))
        along = sum(p[x] == 2 for x in sites)
        assert q3[i] == pytest.approx(-(alike - 0.3 * along) / 0.9, abs=1e-12)
        assert plain[i] == pytest.approx(-alike / 0.9, abs=1e-12)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 1), (2, 2, 3)])
@pytest.mark.parametrize("h", [0.0, 0.35])
def test_two_states_are_ising_at_half_the_temperature(shape: tuple[int, ...], h: float) -> None:
    """s s' = 2 delta - 1 and s = 2 delta(1) - 1: S differs by (bonds + h sites)/T."""
    ising, potts = Ising(2.2, h), Potts(1.1, 2, h=h, direction=1)
    label = states(9, shape, 2)
    volume = math.prod(shape)
    s = ising.action(torch.from_numpy(2 * label - 1))
    p = potts.action(torch.from_numpy(label))
    np.testing.assert_allclose((s - p).numpy(), (len(bonds(shape)) + h * volume) / 2.2, atol=1e-12)
    assert ising.coupling == potts.coupling == pytest.approx(2 / 2.2)
    assert np.ptp(ising.log_weights) == pytest.approx(np.ptp(potts.log_weights))


@pytest.mark.parametrize(
    "action", [Ising(1.3), Ising(1.3, -0.6), Potts(0.8, 4), Potts(0.8, 4, h=0.7, direction=0)]
)
def test_what_the_updates_know_is_the_action(action: Any) -> None:
    """exp(-S) = const prod exp[K delta] prod w: differences of S by coupling and log_weights."""
    shape = (3, 2)
    phi = action.values(states(20, shape, action.n_states).astype(np.int8))
    labels = action.labels(phi)
    assert labels.dtype == np.int8
    log_p = [
        action.coupling * sum(row[x] == row[y] for x, y in bonds(shape)) + action.log_weights[row].sum()
        for row in labels
    ]
    s = action.action(torch.from_numpy(phi)).numpy()
    np.testing.assert_allclose(s - s[0], -(np.array(log_p) - log_p[0]), atol=1e-12)
    np.testing.assert_array_equal(action.values(labels), phi)
    np.testing.assert_array_equal(action.labels(action.values(labels)), labels)


def test_order_parameters() -> None:
    """The mean of Ising spins; of Potts the share of the largest state, 0 where all are alike."""
    up = torch.tensor([[1.0, 1.0, 1.0, -1.0]], dtype=torch.float64)
    assert Ising(1.0).order(up).tolist() == [0.5]
    phi = torch.tensor([[0, 0, 0, 0, 0, 0], [2, 2, 2, 1, 1, 0], [0, 1, 2, 0, 1, 2]], dtype=torch.float64)
    np.testing.assert_allclose(Potts(1.0, 3).order(phi).numpy(), [1.0, 0.25, 0.0], atol=1e-15)


def test_facts() -> None:
    assert Ising(2.0).even
    assert not Ising(2.0, 0.1).even
    assert not Potts(1.0, 2).even
    assert Ising(2.0).field == Potts(1.0, 3).field == "spin"
    assert spins_of(Ising(2.0), "this is for") == Ising(2.0)
    with pytest.raises(InputError, match=r"heat baths are for spins only .*not ScalarPhi4"):
        spins_of(ScalarPhi4(0.27, 0.022), "heat baths are for")


@pytest.mark.parametrize("action", [Ising(2.0, -0.25), Potts(0.9, 5), Potts(0.9, 3, h=0.1, direction=0)])
def test_as_a_file_says_it(action: Action) -> None:
    again = action_from_dict(action.as_dict())
    assert again == action
    assert type(again) is type(action)
    assert again.as_dict() == action.as_dict()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Ising(0.0), "temperature must be > 0, got 0"),
        (lambda: Ising(-2.0), "temperature must be >= 0.*got -2"),
        (lambda: Ising(math.nan), "temperature must be a finite number"),
        (lambda: Ising(math.inf), "temperature must be a finite number"),
        (lambda: Ising(2.0, math.inf), "action.h must be a finite number"),
        (lambda: Potts(0.0, 3), "temperature must be > 0, got 0"),
        (lambda: Potts(1.0, 1), "action.q must be a number of states from 2 to 100, got 1"),
        (lambda: Potts(1.0, 101), "action.q must be a number of states from 2 to 100, got 101"),
        (lambda: Potts(1.0, 2.5), "action.q must be a number of states"),  # type: ignore[arg-type]
        (lambda: Potts(1.0, True), "action.q must be a number of states"),
        (lambda: Potts(1.0, 3, h=0.2), "needs action.direction.*0 to 2"),
        (lambda: Potts(1.0, 3, h=0.2, direction=3), "action.direction must be a state, 0 to 2, got 3"),
        (lambda: Potts(1.0, 3, direction=-1), "action.direction must be a state, 0 to 2, got -1"),
        (lambda: Potts(1.0, 3, direction=True), "action.direction must be a state"),
        (lambda: Ising(2.0).labels(np.array([1.0, -1.0, 0.0])), "-1 and \\+1, got 0"),
        (lambda: Ising(2.0).labels(np.array([1.0, 1.5])), "-1 and \\+1, got 1.5"),
        (lambda: Potts(1.0, 3).labels(np.array([0.0, 3.0])), "states 0 to 2, got 3"),
        (lambda: Potts(1.0, 3).labels(np.array([-1.0])), "states 0 to 2, got -1"),
        (lambda: Potts(1.0, 3).labels(np.array([0.5])), "states 0 to 2, got 0.5"),
        (lambda: Potts(1.0, 3).labels(np.array([256.0])), "states 0 to 2, got 256"),
        (lambda: Ising(2.0).grad(torch.ones(1, 4)), "no gradient: use ensemble.update: heat-bath"),
        (lambda: Potts(1.0, 3).grad(torch.ones(1, 4)), "no gradient"),
        (lambda: Ising(2.0).action(torch.ones(1, 2, 2, 2, 2, 2)), "1 to 4 positive extents"),
        (lambda: action_from_dict({"kind": "ising"}), "temperature"),
        (lambda: action_from_dict({"kind": "potts", "temperature": 1.0}), "q"),
        (lambda: action_from_dict({"kind": "ising", "temperature": 1.0, "q": 3}), "q"),
    ],
)
def test_bad_input_is_one_line(make: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        make()
    assert "\n" not in str(error.value)

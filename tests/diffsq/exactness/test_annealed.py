"""ln Z by annealing against all states; schedules that are too short say so."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_spins import drawn, enumerated

from diffsq.exactness.annealed import annealed, base_field
from diffsq.models.binary_rbm import BinaryRBM
from lattice.errors import InputError
from lattice.rng import normals

KINDS = (("spin", True, 2), ("spin", False, 2), ("bit", True, 2), ("potts", True, 3))


def machine(
    units: str = "spin", biases: bool = True, q: int = 2, width: float = 0.5, n: int = 12
) -> BinaryRBM:
    n_units = n * q if units == "potts" else n
    drawn = torch.from_numpy(normals(1, "test/annealed", np.arange(1), 0, n_units * 10 + 100))[0]
    noise = drawn[: n_units * 10].reshape(n_units, 10)
    made = BinaryRBM.initial(n, 10, width, noise, units, biases, q)
    if biases:
        made.b, made.c = 0.5 * drawn[-n_units:], 0.5 * drawn[-60:-50]
    return made


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_ln_z_is_that_of_all_states(kind: tuple[str, bool, int]) -> None:
    """Within 3 of its errors, which are below 0.05, from the machine's own field and from another base; 10
    and more away from a machine with weights 10 % larger."""
    m = machine(*kind)
    other = BinaryRBM(1.1 * m.w, m.b, m.c, m.units, m.q)
    field = torch.from_numpy(normals(4, "test/base", np.arange(1), 0, m.w.shape[0]))[0] * 0.3
    for base in (None, field):
        found = annealed(m, 1000, 200, 3, base)
        assert found.error < 0.05
        assert found.trusted
        assert abs(found.ln_z - float(m.ln_z())) < 3 * found.error
        assert abs(found.ln_z - float(other.ln_z())) > 10 * found.error


def test_errors_are_those_of_other_seeds() -> None:
    """The pulls of 60 seeds have variance 1, within 4 sigma of its error, and mean 0."""
    m = machine(width=0.3)
    exact = float(m.ln_z())
    found = [annealed(m, 200, 30, seed) for seed in range(60)]
    pulls = np.array([(one.ln_z - exact) / one.error for one in found])
    assert abs(pulls.var(ddof=1) - 1) < 4 * math.sqrt(2 / 59)
    assert abs(pulls.mean()) < 4 / math.sqrt(60)


def test_independent_nodes_need_no_annealing() -> None:
    """W = 0 and c = 0: every weight is Z, after any schedule."""
    m = machine()
    m = BinaryRBM(0 * m.w, m.b)
    found = annealed(m, 20, 1, 1)
    assert found.ln_z == pytest.approx(float(m.ln_z()), abs=1e-12)
    assert found.ess == pytest.approx(1)


def test_too_short_a_schedule_shows() -> None:
    """A machine with deep states: the effective share of runs rises from one step, plain importance sampling,
    to many; the first is not trusted, and the error of the last is smaller."""
    m = machine(width=1.0)
    exact, found = float(m.ln_z()), [annealed(m, 500, n, 2) for n in (1, 10, 100, 1000)]
    ess = [one.ess for one in found]
    assert ess == sorted(ess)
    assert not found[0].trusted
    assert found[-1].trusted
    assert found[0].error > 5 * found[-1].error
    assert found[-1].ess > 5 * found[0].ess
    assert abs(found[-1].ln_z - exact) < 3 * found[-1].error
    assert abs(found[0].ln_z - exact) > abs(found[-1].ln_z - exact)


@pytest.mark.parametrize(("units", "q"), [("spin", 2), ("bit", 2), ("potts", 2)])
def test_the_base_of_data(units: str, q: int) -> None:
    """Independent nodes in the base field have the means of the data, to half a row."""
    states, p = enumerated(2, 1.5)
    states = np.where(states[:, :1] > 0, states, -states)  # a site that is always up
    rows = drawn(states, p, 4000)
    m = BinaryRBM(torch.zeros(8 if units == "potts" else 4, 1, dtype=torch.float64), units=units, q=q)
    data = (rows + 1) // 2 if units == "potts" else rows
    field = base_field(m, data)
    assert bool(torch.isfinite(field).all())
    free = BinaryRBM(m.w, field, units=units, q=q).mean_visible(torch.zeros(1, 1, dtype=torch.float64))[0]
    torch.testing.assert_close(free, m.encode(data).mean(0), rtol=0, atol=3e-4)


def test_a_better_base_needs_fewer_steps() -> None:
    """A machine with strong fields and weak weights: from a flat base most runs count for nothing."""
    m = machine(width=0.05)
    assert m.b is not None
    m.b = 4 * m.b
    own, flat = annealed(m, 500, 5, 1), annealed(m, 500, 5, 1, torch.zeros_like(m.b))
    assert own.ess > 3 * flat.ess


def test_a_run_has_its_own_numbers() -> None:
    m = machine()
    many, few = (
        annealed(m, 30, np.array([0, 0.1, 0.4, 1.0]), 1),
        annealed(m, 20, np.array([0, 0.1, 0.4, 1.0]), 1),
    )
    np.testing.assert_allclose(many.log_weights[:20], few.log_weights, rtol=1e-13)
    equal = annealed(m, 30, 4, 1)
    np.testing.assert_array_equal(equal.log_weights, annealed(m, 30, np.linspace(0, 1, 5), 1).log_weights)


def test_what_cannot_be_annealed() -> None:
    m = machine()
    for arguments, words in (
        ((m, 5, 10, 1), "20 or more"), ((m, 20, 0, 1), "one step or more"),
        ((m, 20, np.array([0.0, 0.5]), 1), "rising from 0 to 1"),
        ((m, 20, np.array([0.0, 0.5, 0.5, 1.0]), 1), "rising from 0 to 1"),
        ((m, 20, 10, 1, torch.zeros(3)), "the base field is finite"),
        ((BinaryRBM(torch.zeros(2, 3, 3)), 20, 10, 1), "one machine at a time"),
        ((BinaryRBM(torch.full((3, 3), math.nan)), 20, 10, 1), "NaN or infinite"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            annealed(*arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="spins"):
        base_field(m, np.ones(12))

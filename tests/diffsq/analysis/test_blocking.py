"""Block spins of ensembles: T_E of the first stage, blocks of 4 x 4 by all states, which way they run."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from diffsq.analysis.blocking import Blocked, blocked
from lattice.errors import InputError
from lattice.exact.ising import CRITICAL, enumerated, magnetisation_law, magnetisation_moments, torus


@pytest.mark.parametrize("t", [2.0, 3.0])
def test_blocks_by_all_states(t: float) -> None:
    """e and |m| of 4 x 4 and of its four blocks within 4.5 sigma of sums over 2^16 states and all ties."""
    whole, half = blocked(t, 4, 1, 7)
    s = 1.0 - 2.0 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1).reshape(-1, 4, 4)
    bonds = (s * np.roll(s, 1, 1)).sum((1, 2)) + (s * np.roll(s, 1, 2)).sum((1, 2))
    w = np.exp((bonds - 32) / t)
    w /= w.sum()
    up = (1 + np.sign(s.reshape(-1, 2, 2, 2, 2).sum((2, 4)))) / 2  # P of a block up
    e = m = 0.0
    for b in itertools.product((1, -1), repeat=4):
        p = w @ np.where(np.array(b).reshape(2, 2) > 0, up, 1 - up).prod((1, 2))
        block = np.array(b).reshape(2, 2)
        e -= p * sum((block * np.roll(block, 1, axis)).mean() for axis in (0, 1))
        m += p * abs(block.mean())
    assert abs(half.e[0] - e) < 4.5 * half.e[1]
    assert abs(half.abs_m[0] - m) < 4.5 * half.abs_m[1]
    assert abs(whole.e[0] - enumerated((4, 4), t).e) < 4.5 * whole.e[1]
    assert t > 2 or abs(e - whole.e[0]) > 10 * whole.e[1], "blocks have another energy"
    assert (whole.extent, half.extent) == (4, 2)


@pytest.fixture(scope="module")
def stages() -> dict[float, list[Blocked]]:
    return {t: blocked(t, 16, 2, 3 + i) for i, t in enumerate((2.0, CRITICAL, 2.6))}


def test_the_first_stage_is_the_ensemble(stages: dict[float, list[Blocked]]) -> None:
    """e exact, T_E is T, |m| of the law of M; 4.5 sigma."""
    for t, (first, second, _) in stages.items():
        assert first.extent == 16
        assert abs(first.e[0] - torus((16, 16), t).e) < 4.5 * first.e[1]
        assert abs(first.t_e.t - t) < 4.5 * first.t_e.error
        assert first.t_e.error < 0.01
        off = (second.e[0] - torus((8, 8), t).e) / second.e[1]
        assert t == CRITICAL or off * math.copysign(1, t - CRITICAL) > 10, "blocks are no spins at T"
    known = magnetisation_moments(magnetisation_law((4, 4), 2.0))["abs_m"]
    small = blocked(2.0, 4, 0, 3)[0]
    assert abs(small.abs_m[0] - known) < 4.5 * small.abs_m[1]


def test_blocks_run_away_from_t_c_on_both_sides(stages: dict[float, list[Blocked]]) -> None:
    """By 10 sigma and more at every stage; at T_c they stay within 3 %."""
    for t, found in stages.items():
        for one, other in itertools.pairwise(found):
            gap = (other.t_e.t - one.t_e.t) / math.hypot(one.t_e.error, other.t_e.error)
            if t == CRITICAL:
                assert abs(other.t_e.t / CRITICAL - 1) < 0.03
            else:
                assert gap * math.copysign(1, t - CRITICAL) > 10


def test_numbers_depend_on_the_seed_alone() -> None:
    one, other = blocked(2.3, 8, 1, 1), blocked(2.3, 8, 1, 2)
    assert blocked(2.3, 8, 1, 1) == one
    assert blocked(2.3, 8, 0, 1) == one[:1], "the ensemble is the same however often it is blocked"
    assert other[1].e != one[1].e


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="multiples of 2"):
        blocked(2.0, 5, 1, 1)
    with pytest.raises(InputError, match="action.temperature must be > 0"):
        blocked(0.0, 4, 1, 1)

"""Flows from cold and hot starts: what they start from, how long they become, and that none begins anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffsq.analysis.flow_pairs import STARTS, kept_steps, start_spins, until_they_agree
from diffsq.analysis.flow_verdict import Ends, apart
from diffsq.analysis.rbm_flow import Flow, end_point, flow
from diffsq.models.binary_rbm import BinaryRBM
from lattice.progress import Silent

SHAPE, SWEEPS = (3, 3), 10


class Counted(Silent):
    """Progress that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def update(self, n: int = 1, **info: object) -> None:
        self.count += n


def diagonal(width: float) -> BinaryRBM:
    """A hidden node a spin: every spin is kept with probability (1 + tanh(w)^2)/2, and free in the end."""
    return BinaryRBM(torch.eye(9, dtype=torch.float64) * width)


def followed(
    width: float, longest: int = 8, is_read: bool = False, n_machines: int = 3
) -> tuple[list[list[Flow]], int]:
    """Pairs of flows of as many like machines, and what their progress has counted."""
    starts = [
        (diagonal(width), 100 * k, [start_spins(kind, 64, 9, 2, k) for kind in STARTS])
        for k in range(n_machines)
    ]
    progress = Counted()
    return until_they_agree(starts, SWEEPS, longest, SHAPE, is_read, progress), progress.count


def sweeps(pairs: list[list[Flow]]) -> int:
    """Of all flows the same."""
    (n,) = {len(one.series) - 1 for pair in pairs for one in pair}
    return n


def away(pairs: list[list[Flow]]) -> float:
    ends = [Ends.of([end_point(pair[i]) for pair in pairs]) for i in (0, 1)]
    return max(apart(*ends).values())


def test_starts() -> None:
    """Cold ones have every state as often, hot ones all of them; of two states they are +-1."""
    cold, hot = (start_spins(kind, 60, 9, 3, 1) for kind in STARTS)
    assert (cold == cold[:, :1]).all()
    assert np.bincount(cold[:, 0].astype(int)).tolist() == [20, 20, 20]
    share = np.array([(hot == a).mean() for a in range(3)])
    assert share.sum() == 1
    assert (np.abs(share - 1 / 3) < 4.5 * np.sqrt(2 / 9 / hot.size)).all()
    ising = [start_spins(kind, 400, 16, 2, 1) for kind in STARTS]
    assert [set(np.unique(x)) for x in ising] == [{-1, 1}] * 2
    assert ising[0].mean() == 0
    assert abs(ising[1].mean()) < 4 / np.sqrt(6400)
    np.testing.assert_array_equal(start_spins("hot", 10, 16, 2, 1), ising[1][:10])
    assert (start_spins("hot", 400, 16, 2, 2) != ising[1]).any()


@pytest.mark.parametrize("n", [1, 10, 300])
def test_steps_that_are_kept(n: int) -> None:
    kept = kept_steps(n)
    assert (kept[0], kept[1], kept[-1]) == (0, 1, n)
    assert kept == sorted(set(kept))
    assert len(kept) <= 11


def test_starts_that_agree_are_followed_once() -> None:
    pairs, count = followed(0.1)
    assert (len(pairs), len(pairs[0]), count) == (3, 2, 3)
    assert sweeps(pairs) == SWEEPS
    assert away(pairs) < 4


def test_slow_machines_are_followed_until_their_starts_agree() -> None:
    """Correlations fall by tanh(2)^4 a sweep: apart after the first ten, not long after."""
    assert sweeps(followed(2.0, longest=1)[0]) == SWEEPS
    assert away(followed(2.0, longest=1)[0]) > 10
    pairs, count = followed(2.0, longest=64)
    assert sweeps(pairs) in (2 * SWEEPS, 4 * SWEEPS, 8 * SWEEPS)
    assert away(pairs) < 4
    assert count == 3, "a machine is done once"


@pytest.mark.parametrize(("longest", "n"), [(1, 10), (2, 20), (5, 40), (8, 80)])
def test_frozen_machines_are_followed_up_to_the_longest(longest: int, n: int) -> None:
    """Doubled while that is no more than allowed."""
    pairs, _ = followed(8.0, longest)
    assert sweeps(pairs) == n
    assert away(pairs) > 10


def test_a_flow_continued_is_one_flow() -> None:
    """20 sweeps in one go and 10 + 10 are the same bit for bit; begun anew the second ten are the first."""
    m, start = diagonal(1.0), start_spins("hot", 64, 9, 2, 5)
    whole = flow(m, start, 20, 7, "sample", SHAPE, {20})
    part = flow(m, start, 10, 7, "sample", SHAPE, {10})
    rest = flow(m, part.kept[10], 10, 7, "sample", SHAPE, {10}, first=10)
    both = part.then(rest)
    np.testing.assert_array_equal(both.series, whole.series)
    assert set(both.kept) == {10, 20}
    np.testing.assert_array_equal(both.kept[20], whole.kept[20])
    anew = flow(m, part.kept[10], 10, 7, "sample", SHAPE)
    assert (part.then(anew).series[11:] != whole.series[11:]).any()


def test_longer_flows_draw_new_numbers() -> None:
    """Of every machine and start, as if it had been made at once, with the spins that the network reads."""
    pairs, _ = followed(8.0, 4, is_read=True, n_machines=2)
    for k, pair in enumerate(pairs):
        for i, one in enumerate(pair):
            start = start_spins(STARTS[i], 64, 9, 2, k)
            keep = {*kept_steps(SWEEPS), 20, 40}
            whole = flow(diagonal(8.0), start, 40, 100 * k + i, "sample", SHAPE, keep)
            np.testing.assert_array_equal(one.series, whole.series)
            assert set(one.kept) == keep
            for step, spins in one.kept.items():
                np.testing.assert_array_equal(spins, whole.kept[step])
    unread, _ = followed(8.0, 4, n_machines=2)
    assert set(unread[0][0].kept) == {10, 20, 40}

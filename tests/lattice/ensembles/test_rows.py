"""Rows chosen from an ensemble: spread over chains and time, prefixes of each other, with honest errors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from lattice.arrays import Floats, Integers
from lattice.ensembles.rows import disjoint_parts, spread_rows
from lattice.errors import InputError
from lattice.statistics.blocks import jackknife_of

N_CHAINS, N_TIMES, TAU = 16, 256, 3.0
DECAY = (2 * TAU - 1) / (2 * TAU + 1)  # of an AR(1) with this tau_int
REPEATS = 600  # the quoted error of 16 chains scatters by 18 %: 5 % are six standard errors of its mean


def time_major(n_chains: int, n_times: int) -> tuple[Integers, Integers]:
    return np.tile(np.arange(n_chains), n_times), np.repeat(np.arange(n_times), n_chains)


def chosen(n: int, n_chains: int = N_CHAINS, n_times: int = N_TIMES) -> Integers:
    return spread_rows(*time_major(n_chains, n_times), n, seed=3, stream="test")


@pytest.mark.parametrize("n", [5, 16, 100, 256, 1000, 2048, 4096, 9999])
def test_every_chain_is_used_alike_and_times_are_far_apart(n: int) -> None:
    chain, time = time_major(N_CHAINS, N_TIMES)
    rows = chosen(n)
    assert len(np.unique(rows)) == len(rows) == min(n, 4096)
    used = np.bincount(chain[rows], minlength=N_CHAINS)
    assert used.max() - used.min() <= 1
    furthest = N_TIMES // 2 ** int(np.ceil(np.log2(used.max())))
    for c in range(N_CHAINS):
        if used[c] > 1:
            assert np.diff(np.sort(time[rows][chain[rows] == c])).min() >= furthest
    assert np.array_equal(chosen(9999)[: len(rows)], rows)


@pytest.mark.parametrize("n_times", [1, 2, 3, 5, 100, 511])
def test_any_number_of_times(n_times: int) -> None:
    chain, time = time_major(3, n_times)
    assert np.array_equal(np.sort(chosen(3 * n_times, 3, n_times)), np.arange(3 * n_times))
    for per_chain in (2, 4, 8):
        rows = chosen(3 * per_chain, 3, n_times)
        gaps = [np.diff(np.sort(time[rows][chain[rows] == c])) for c in range(3)]
        assert all(gap.min(initial=n_times) >= max(1, n_times // per_chain) for gap in gaps)


def test_chains_start_at_times_of_their_own() -> None:
    time = time_major(N_CHAINS, N_TIMES)[1][chosen(N_CHAINS)]
    assert len(np.unique(time)) > N_CHAINS // 2
    other = spread_rows(*time_major(N_CHAINS, N_TIMES), 32, seed=4, stream="test")
    assert len(set(other.tolist()) & set(chosen(32).tolist())) < 8


def test_chains_of_any_names_lengths_and_order() -> None:
    lengths = {7: 50, -3: 9, 12: 200, 4: 1}
    chain = np.concatenate([np.full(n, name) for name, n in lengths.items()])
    time = np.concatenate([10 * np.arange(n) for n in lengths.values()])
    shuffled = np.random.default_rng(1).permutation(len(chain))
    rows = spread_rows(chain[shuffled], time[shuffled], 60, seed=1, stream="test")
    used = {name: int((chain[shuffled][rows] == name).sum()) for name in lengths}
    assert used[4] == 1
    assert used[-3] == 9
    assert used[7] == used[12] == 25
    assert np.diff(np.sort(time[shuffled][rows][chain[shuffled][rows] == 12])).min() >= 10 * (200 // 32)
    with pytest.raises(InputError, match="0 rows"):
        spread_rows(chain, time, 0, seed=1, stream="test")


def series(lengths: list[int]) -> list[Floats]:
    """AR(1) chains of unit variance, (REPEATS, length) each."""
    out = []
    for c, length in enumerate(lengths):
        white = np.random.default_rng(c).normal(size=(REPEATS, length)) * np.sqrt(1 - DECAY**2)
        white[:, 0] /= np.sqrt(1 - DECAY**2)
        out.append(scipy.signal.lfilter([1.0], [1.0, -DECAY], white, axis=1))
    return out


def quoted_over_true(chain: Integers, time: Integers, rows: Integers, whole_chains: bool = True) -> float:
    """Mean of the jackknife error over many ensembles, over the exact error of the mean of these rows."""
    names, lengths = np.unique(chain, return_counts=True)
    x = np.empty((REPEATS, len(chain)))
    for name, part in zip(names, series(lengths.tolist())):
        x[:, np.flatnonzero(chain == name)[np.argsort(time[chain == name])]] = part
    c, t = chain[rows], time[rows]
    true = np.sqrt(np.mean((c[:, None] == c) * DECAY ** np.abs(t[:, None] - t)))
    block = c if whole_chains else np.arange(len(rows)) * 20 // len(rows)
    if whole_chains:
        rows, block = rows[np.argsort(t, kind="stable")], c[np.argsort(t, kind="stable")]
    errors = [jackknife_of(lambda d: float(d.mean()), row[rows], chain=block)[1] for row in x]
    return float(np.mean(errors) / true)


@pytest.mark.parametrize("n", [256, 1000, 2048, 4096])
def test_errors_of_the_chosen_rows_are_right(n: int) -> None:
    assert quoted_over_true(*time_major(N_CHAINS, N_TIMES), chosen(n)) == pytest.approx(1, abs=0.05)


def test_errors_of_ragged_and_of_few_chains_are_right() -> None:
    lengths = [256] * 8 + [100] * 8
    chain = np.repeat(np.arange(16), lengths)
    time = np.concatenate([np.arange(n) for n in lengths])
    rows = spread_rows(chain, time, 1000, seed=1, stream="test")
    assert quoted_over_true(chain, time, rows) == pytest.approx(1, abs=0.05)
    chain, time = time_major(4, 1024)  # stretches of 205: a part of tau_int/205 is cut off
    rows = spread_rows(chain, time, 1000, seed=1, stream="test")
    assert quoted_over_true(chain, time, rows) == pytest.approx(1, abs=0.05)


def test_a_stride_with_slices_for_blocks_quotes_too_little() -> None:
    chain, time = time_major(N_CHAINS, N_TIMES)
    stride = np.linspace(0, 4095, 2048).astype(np.int64)
    assert len(np.unique(chain[stride])) == 9
    assert quoted_over_true(chain, time, stride, whole_chains=False) < 0.92


def test_disjoint_parts_share_no_chain() -> None:
    chain, time = time_major(7, 30)
    parts = disjoint_parts(chain, time, 3)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(210))
    names = [set(chain[part].tolist()) for part in parts]
    assert len(set.union(*names)) == sum(map(len, names)) == 7
    for part in disjoint_parts(chain[chain < 2], time[chain < 2], 6):  # 2 chains: stretches of time
        assert len(np.unique(chain[chain < 2][part])) == 1
        assert np.ptp(time[chain < 2][part]) == 9

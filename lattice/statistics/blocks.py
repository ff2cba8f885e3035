"""Blocks of a series, and errors by leaving one out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from lattice.arrays import Floats, Integers, integer_array, number_array, real_array, same_length
from lattice.errors import InputError
from lattice.statistics.gamma import MIN_REPLICA, EstimatorError

MIN_CHAINS = 10  # so many chains are blocks themselves
FEW_CHAINS = 20  # blocks in all where there are fewer chains


def jackknife_error(left_out: npt.ArrayLike) -> float:
    """Error of an estimate from its values (b,) without each of b blocks: sqrt((b-1)/b sum (x - mean)^2).

    >>> round(jackknife_error([2.5, 2.0, 1.5]), 6)       # means of 1, 2, 3 without each: 1/sqrt(3)
    0.57735
    """
    values = real_array(left_out, "left_out")
    if values.ndim != 1 or len(values) < 2:
        raise InputError(f"a jackknife error needs two or more blocks, got values of shape {values.shape}")
    return float(jackknife_errors(values))


def jackknife_errors(left_out: Floats, axis: int = 0) -> Floats:
    """`jackknife_error` of many estimates at once; left_out (..., b, ...), its blocks along `axis`."""
    left_out = real_array(left_out, "left_out")
    return np.asarray(np.sqrt((left_out.shape[axis] - 1) * left_out.var(axis=axis)))


def block_edges(n: int, n_blocks: int) -> Integers:
    """Where each of n_blocks nearly equal contiguous blocks of n configurations begins."""
    if n_blocks < 2:
        raise InputError(f"n_blocks must be at least 2, got {n_blocks}")
    if n < 2 * MIN_REPLICA:
        raise EstimatorError(f"series too short: {n} configurations, the jackknife needs {2 * MIN_REPLICA}")
    return np.arange(min(n_blocks, n)) * n // min(n_blocks, n)


def jackknife_labels(n: int, n_blocks: int = 100, chain: Integers | None = None) -> Integers:
    """The jackknife block (n,) of each of n data, numbered from 0: of correlated data those of
    `chain_blocks`, chain (n,) their chains, else as many stretches as `n_blocks`.

    >>> jackknife_labels(5, 2).tolist()
    [0, 0, 0, 1, 1]
    """
    if chain is not None:
        if len(chain) != n:
            raise InputError(f"chain must name the chain of each of {n} data, got {len(chain)}")
        return chain_blocks(chain)
    parts = np.array_split(np.arange(n), min(n_blocks, n))
    return np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def chain_blocks(chain: npt.ArrayLike, time: npt.ArrayLike | None = None) -> Integers:
    """Jackknife block (n,) of each row, 0, 1, ...: its chain, or a stretch of it if there are fewer than ten.

    chain (n,): the rows of each chain are in order of time, or have this time (n,). About twenty stretches in
    all, of one chain each, so that few neighbours in time are in two blocks.

    >>> chain_blocks(np.arange(6) % 2 + 8).tolist()  # 2 chains of 3: each row is a stretch
    [0, 3, 1, 4, 2, 5]
    """
    number = np.unique(integer_array(chain, "chain"), return_inverse=True)[1]
    lengths = np.bincount(number)
    if len(lengths) >= MIN_CHAINS:
        return np.asarray(number, dtype=np.int64)
    order = np.argsort(number, kind="stable") if time is None else np.lexsort((np.asarray(time), number))
    wanted = -(-FEW_CHAINS // len(lengths))
    parts = [part for rows in np.split(order, np.cumsum(lengths)[:-1])
             for part in np.array_split(rows, min(wanted, len(rows)))]  # fmt: skip
    block = np.empty(len(number), dtype=np.int64)
    for label, part in enumerate(parts):
        block[part] = label
    return block


def jackknife_of(
    estimate: Callable[[Floats], float], data: Floats, n_blocks: int = 100, chain: Integers | None = None
) -> tuple[float, float]:
    """`estimate` of the data (n, ...) and its jackknife error, over the blocks of `jackknife_labels`.

    Correlated data come with their `chain` (n,), the rows of each chain in order of time. Raises `InputError`
    for a chain that is not one integer for each of the data.
    """
    data, chain = number_array(data, "data"), None if chain is None else integer_array(chain, "chain")
    same_length(data=data, chain=chain)
    labels = jackknife_labels(len(data), n_blocks, chain)
    values = np.array([estimate(data[labels != block]) for block in range(int(labels.max()) + 1)])
    return estimate(data), jackknife_error(values)

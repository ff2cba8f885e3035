"""Blocks of a series, and errors by leaving one out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from lattice.arrays import Floats, Integers, integer_array, number_array, real_array, same_length
from lattice.errors import InputError
from lattice.statistics.gamma import MIN_REPLICA, EstimatorError


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
    """The jackknife block (n,) of each of n data, numbered from 0.

    Correlated data come with their `chain` (n,): whole chains are blocks, or a twentieth of the data where
    there are fewer than ten chains.

    >>> jackknife_labels(5, 2).tolist()
    [0, 0, 0, 1, 1]
    """
    labels, own = (np.array([]), None) if chain is None else np.unique(chain, return_inverse=True)
    if own is not None and len(labels) >= 10:
        return np.asarray(own, dtype=np.int64)
    parts = np.array_split(np.arange(n), min(n_blocks if chain is None else 20, n))
    return np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def jackknife_of(
    estimate: Callable[[Floats], float], data: Floats, n_blocks: int = 100, chain: Integers | None = None
) -> tuple[float, float]:
    """`estimate` of the data (n, ...) and its jackknife error, over the blocks of `jackknife_labels`.

    Raises `InputError` for a chain that is not one integer for each of the data.
    """
    data, chain = number_array(data, "data"), None if chain is None else integer_array(chain, "chain")
    same_length(data=data, chain=chain)
    labels = jackknife_labels(len(data), n_blocks, chain)
    values = np.array([estimate(data[labels != block]) for block in range(int(labels.max()) + 1)])
    return estimate(data), jackknife_error(values)

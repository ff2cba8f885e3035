"""Importance weights: checked, normalised, and how many samples they are worth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lattice.arrays import Floats, real_array
from lattice.errors import InputError
from lattice.statistics.blocks import block_edges, jackknife_error
from lattice.statistics.gamma import EstimatorError


def check_log_weights(log_weight: npt.ArrayLike, at_least: int = 2) -> Floats:
    """log_weight as finite float64 (n,), n >= at_least; EstimatorError counts those NaN or infinite."""
    logw = real_array(log_weight, "log_weight")
    if logw.ndim != 1 or len(logw) < at_least:
        raise InputError(f"need {at_least} or more log-weights in an (n,) array, got shape {logw.shape}")
    bad = int(np.count_nonzero(~np.isfinite(logw)))
    if bad:
        raise EstimatorError(f"{bad} of {len(logw)} log-weights are NaN or infinite")
    return logw


def normalised_weights(log_weight: npt.ArrayLike) -> Floats:
    """exp(log w - max), log_weight (n,) -> (n,) in [0, 1]; refuses NaN and infinity, naming their number."""
    logw = check_log_weights(log_weight, at_least=1)
    weights: Floats = np.exp(logw - logw.max())
    return weights


def effective_sample_size(log_weight: npt.ArrayLike, n_blocks: int = 100) -> tuple[float, float]:
    """ESS/N = (sum w)^2 / (N sum w^2) in [1/N, 1] and its block-jackknife error; log_weight (n,).

    >>> effective_sample_size(np.zeros(50))
    (1.0, 0.0)
    """
    weights = normalised_weights(log_weight)
    edges = block_edges(len(weights), n_blocks)
    counts = np.diff(np.append(edges, len(weights)))
    first, second = np.add.reduceat(weights, edges), np.add.reduceat(weights**2, edges)
    total, total2 = float(first.sum()), float(second.sum())
    left_out = (total - first) ** 2 / ((len(weights) - counts) * np.maximum(total2 - second, 1e-300))
    return total**2 / (len(weights) * total2), jackknife_error(left_out)

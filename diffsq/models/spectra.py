r"""Singular values of weight matrices against those of random ones: bulk, outliers, repulsion.

A matrix W, its smaller extent n first, (n, m), q = n/m, has the eigenvalues x of W W^T/(m s^2), s^2 such
that their median is that of Marchenko and Pastur (robust: outliers do not move it). Of these

    ks             largest distance of the distributions, beside that of Gaussian matrices of the same shape
    outliers       number above the edge that the largest one of a random matrix passes once in a hundred
    stable rank    sum of x over the largest
    ratio          <r> of spacing ratios: 0.5307 with repulsion (GOE), 0.3863 without (Poisson)

The null is drawn, not assumed: at n of some tens all four have a bias of finite size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.random_matrix import (
    RATIO_GOE,
    RATIO_POISSON,
    marchenko_pastur_cdf,
    marchenko_pastur_median,
    upper_edge,
)
from lattice.progress import Progress
from lattice.rng import normals
from lattice.statistics.notation import aligned, format_entry

SMALLEST = 8  # rows below which a spectrum says nothing
N_NULL = 64  # Gaussian matrices of a shape
NULL_WORK = 2e11  # n^2 m of all of them: some seconds a shape; of larger ones FEWEST are drawn
FEWEST = 8


@dataclass(frozen=True)
class Spectrum:
    """One matrix: eigenvalues x (n,) in rising order, in units of s^2, s = `deviation`, and what follows.

    rank: of the matrix; the other x are zero. ratios (n - 2,): spacing ratios.
    """

    shape: tuple[int, int]
    x: Floats
    deviation: float
    rank: int
    ks: float
    outliers: int
    over_edge: float
    stable_rank: float
    ratios: Floats


@dataclass(frozen=True)
class Null:
    """Gaussian matrices of a shape: ks mean, its 95th percentile, mean outliers; mean ratio of one matrix and
    its standard deviation."""

    n: int
    ks: float
    ks_95: float
    outliers: float
    ratio: float
    ratio_spread: float


def spectrum(w: Floats, name: str = "weights") -> Spectrum:
    """The spectrum of a matrix (a, b), transposed if a > b.

    Raises `InputError` where it has numbers that are not finite, fewer than SMALLEST rows or columns, or more
    than half of its singular values are zero: its median, and so its scale, says nothing then.
    """
    w = np.asarray(w, dtype=np.float64)
    if w.ndim != 2:
        raise InputError(f"{name}: has the shape {list(w.shape)}; a spectrum is one of a matrix")
    if not np.isfinite(w).all():
        raise InputError(f"{name}: {int((~np.isfinite(w)).sum())} of {w.size} numbers are NaN or infinite")
    w = w if w.shape[0] <= w.shape[1] else w.T
    n, m = w.shape
    if n < SMALLEST:
        raise InputError(f"{name}: has {n} rows or columns, a spectrum needs {SMALLEST}")
    scale = float(np.abs(w).max()) or 1.0  # squares of the largest and the smallest numbers stay numbers
    values = np.linalg.svd(w / scale, compute_uv=False)[::-1]
    rank = int((values > values[-1] * m * np.finfo(np.float64).eps).sum())
    if 2 * rank <= n + 1:
        raise InputError(
            f"{name}: has rank {rank} of {n}: without half of its singular values it has no scale"
        )
    return _of((n, m), values**2 / m, rank, scale)


def _of(shape: tuple[int, int], x: Floats, rank: int, scale: float = 1.0) -> Spectrum:
    """Of eigenvalues x of W W^T/(m scale^2)."""
    (n, m), q = shape, shape[0] / shape[1]
    variance = float(np.median(x)) / marchenko_pastur_median(q)
    x = x / variance
    cdf, steps = marchenko_pastur_cdf(x, q), np.arange(n + 1) / n
    spacings = np.diff(x[n - rank :])
    low, high = np.minimum(spacings[1:], spacings[:-1]), np.maximum(spacings[1:], spacings[:-1])
    edge, ks = upper_edge(n, m), float(np.maximum(steps[1:] - cdf, cdf - steps[:-1]).max())
    return Spectrum(
        shape, x, variance**0.5 * scale, rank, ks, int((x > edge).sum()), float(x[-1] / edge),
        float(x.sum() / x[-1]), low / np.where(high > 0, high, 1.0),
    )  # fmt: skip


@cache
def null_of(shape: tuple[int, int], seed: int = 1) -> Null:
    """The same of N_NULL Gaussian matrices (n, m), of fewer where these are large."""
    n, m = shape
    count = int(np.clip(NULL_WORK / (n * n * m), FEWEST, N_NULL))
    drawn = []
    for step in range(count):
        w = normals(seed, f"spectrum/{n}x{m}", np.arange(1), step, n * m).reshape(n, m)
        drawn.append(_of(shape, np.linalg.eigvalsh(w @ w.T / m).clip(0), n))
    ks, ratio = np.array([s.ks for s in drawn]), np.array([s.ratios.mean() for s in drawn])
    return Null(
        count, float(ks.mean()), float(np.quantile(ks, 0.95)), float(np.mean([s.outliers for s in drawn])),
        float(ratio.mean()), float(ratio.std(ddof=1)),
    )  # fmt: skip


def pooled_ratio(spectra: list[Spectrum], seed: int = 1) -> tuple[float, float, float]:
    """<r> of all matrices together, its error, the spread of Gaussian matrices of the same shapes, and <r> of
    these."""
    counts = np.array([len(s.ratios) for s in spectra])
    means = np.array([s.ratios.mean() for s in spectra])
    nulls = [null_of(s.shape, seed) for s in spectra]
    spread, null = (np.array([getattr(q, name) for q in nulls]) for name in ("ratio_spread", "ratio"))
    total = counts.sum()
    error = float(np.sqrt(((counts * spread) ** 2).sum()) / total)
    return float((counts * means).sum() / total), error, float((counts * null).sum() / total)


def matrices(tensors: Mapping[str, Any]) -> Iterator[tuple[str, Floats]]:
    """Name and matrix of every array of numbers of two axes or more: kernels (c_out, c_in, ...) as (c_out,
    rest)."""
    for name, tensor in tensors.items():
        array = np.asarray(tensor)
        if array.ndim >= 2 and array.dtype.kind == "f" and array.size:
            yield name, array.reshape(len(array), -1).astype(np.float64)


def all_spectra(tensors: Mapping[str, Any], progress: Progress) -> tuple[dict[str, Spectrum], dict[str, str]]:
    """The spectra of a model's weights by name, their nulls made too, and why others have none.

    Raises `InputError` for weights that are not finite, and where no matrix is left.
    """
    found, left = dict[str, Spectrum](), dict[str, str]()
    given = list(matrices(tensors))
    progress.start(len(given), "matrices")
    for name, w in given:
        if not np.isfinite(w).all():
            spectrum(w, name)
        try:
            found[name] = spectrum(w, name)
            null_of(found[name].shape)
        except InputError as error:
            left[name] = str(error)
        progress.update()
    progress.close()
    if not found:
        raise InputError(
            f"none of {len(tensors)} arrays has a spectrum; matrices of {SMALLEST} rows and more do"
            + (f": {next(iter(left.values()))}" if left else "")
        )
    return found, left


def brief(tensors: Mapping[str, Any]) -> dict[str, float]:
    """Of all matrices with a spectrum: mean KS distance, outliers in all, mean spacing ratio; {} without one.

    For the log of a training: no null is drawn.
    """
    found = []
    for name, w in matrices(tensors):
        try:
            found.append(spectrum(w, name))
        except InputError:
            continue
    if not found:
        return {}
    ratios = np.concatenate([s.ratios for s in found])
    return {
        "ks": float(np.mean([s.ks for s in found])), "outliers": float(sum(s.outliers for s in found)),
        "ratio": float(ratios.mean()),
    }  # fmt: skip


def table(spectra: dict[str, Spectrum], left: dict[str, str]) -> dict[str, Any]:
    """All numbers of `all_spectra`, for JSON."""
    ratio = pooled_ratio(list(spectra.values()))
    found = {}
    for name, s in spectra.items():
        null = null_of(s.shape)
        found[name] = {
            "shape": list(s.shape), "rank": s.rank, "standard_deviation": s.deviation, "ks": s.ks,
            "ks_null": null.ks, "ks_null_95": null.ks_95, "outliers": s.outliers,
            "outliers_null": null.outliers, "largest_over_edge": s.over_edge, "stable_rank": s.stable_rank,
            "ratio": float(s.ratios.mean()), "ratio_null": null.ratio,
            "ratio_null_spread": null.ratio_spread, "n_null": null.n,
            "x": s.x.tolist(),
        }  # fmt: skip
    return {
        "matrices": found, "left_out": left, "ratio": ratio[0], "ratio_error": ratio[1],
        "ratio_null": ratio[2], "ratio_goe": RATIO_GOE, "ratio_poisson": RATIO_POISSON,
    }  # fmt: skip


HEAD = ("matrix", "n x m", "rank", "s", "KS", "null, 95 %", "outliers", "largest/edge", "stable rank", "<r>")


def table_text(result: dict[str, Any]) -> str:
    """What is printed of it."""
    rows = [list(HEAD)]
    for name, s in result["matrices"].items():
        null = f"{s['ks_null']:.3f}, {s['ks_null_95']:.3f}"
        numbers = [s["largest_over_edge"], s["stable_rank"], s["ratio"]]
        rows.append(
            [name, "x".join(map(str, s["shape"])), str(s["rank"]), f"{s['standard_deviation']:.3g}",
             f"{s['ks']:.3f}", null, str(s["outliers"]), *(f"{x:.3g}" for x in numbers)]
        )  # fmt: skip
    goe, poisson = result["ratio_goe"], result["ratio_poisson"]
    lines = [
        *aligned(rows),
        f"<r> of all: {format_entry(result, 'ratio')}, of Gaussian matrices {result['ratio_null']:.3f}; "
        f"{goe} where many levels repel (GOE), {poisson:.4f} where none do (Poisson)",
    ]
    return "\n".join([*lines, *(f"left out: {reason}" for reason in result["left_out"].values())])

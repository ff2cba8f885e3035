r"""Teacher and student: two-by-two matrices under stochastic gradient descent, and the repulsion of levels.

A student W learns a teacher w 1 from pairs (x, w x), x normal. With D = W - w 1, the mean M of x x^T over a
mini-batch of B pairs and symmetric Gaussian noise N, of variance 2 A^2/B on the diagonal and A^2/B off it,

    D' = D (1 - alpha M) - alpha N.

Any w gives the same path of D, and any A the same in units of A. Without fluctuations of M the stationary D
is N(0), GOE, and Wigner's surmise holds for S, with (2407.16427, 2411.13512; here for finite alpha)

    <S> = A sqrt{2 pi alpha/[B (2 - alpha (1 + c/B))]},   c = 0.

<M^2> = 1 + 3/B, so c <= 3, and 2/(1 + 3/B) is the largest rate with a stationary <D^2>; that itself solves
linear equations, `second_moments`, for fresh data and for a fixed data set (quenched) alike. Paths begin at
D = 0.

S is the spacing of the singular values of W. With W = u 1 + a J + d, J antisymmetric and d symmetric without
a trace, these are sqrt(u^2 + a^2) +- |d|: as long as det W > 0, S = 2 |d| is the spacing of the eigenvalues
of the symmetric part, too. The eigenvalues of W have |d|^2 - a^2 in its place, and need not be real.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.progress import Progress
from lattice.rng import normals, uniforms

TEACHER = 2.0
MULTIPLICATIVE = 3.0  # c of the total <D^2>: <M^2> = 1 + (n + 1)/B at n = 2
BURN = 5.0  # relaxation times of D in the first half: e^-10 of <S^2> is missing then
SPACED = 1.0  # of 1/alpha between two measurements: their correlation costs no bias, errors are of replicas
MOST = 2**22  # normal numbers at a time


@dataclass(frozen=True)
class TeacherRow:
    """One point: rate alpha, pairs in a batch, independent replicas, steps (the first half is not measured),
    amplitude A of the noise; fresh data at every step, or batches from `n_data` fixed pairs that all replicas
    share (with replacement). Raises `InputError` for what has no stationary state or makes no sense."""

    alpha: float
    batch: int
    n_replicas: int = 3000
    n_steps: int = 400
    amplitude: float = 1.0
    fresh: bool = True
    n_data: int = 64

    def __post_init__(self) -> None:
        if self.batch < 1 or self.n_replicas < 2:
            got = f"{self.batch} and {self.n_replicas}"
            raise InputError(f"need a batch of at least 1 and at least 2 replicas, got {got}")
        limit = largest_rate(self.batch)
        if not 0 < self.alpha < limit:
            raise InputError(
                f"alpha must be in (0, {limit:.6g}) for batches of {self.batch}, got {self.alpha:g}: at "
                "2/(1 + 3/batch) the fluctuations of the weights become infinite"
            )
        if not 0 < self.amplitude < math.inf:
            raise InputError(f"the noise needs a positive amplitude, got {self.amplitude:g}")
        if not self.fresh and not self.batch <= self.n_data:
            raise InputError(
                f"a batch of {self.batch} pairs needs as many, the data set has {self.n_data}; "
                "take a larger n_data, or fresh data"
            )
        if self.n_steps < self.fewest:
            raise InputError(
                f"{self.n_steps} steps are too few at alpha = {self.alpha:g}: the first half must reach the "
                f"stationary state; take at least {self.fewest}"
            )

    @property
    def fewest(self) -> int:
        """Steps of which the first half reaches the stationary state; many near the largest rate."""
        return _fewest(1 - 2 * self.alpha + self.alpha**2 * (1 + MULTIPLICATIVE / self.batch))


def _fewest(kept: float) -> int:
    """Steps of which the first half leaves e^(-2 BURN) of <D^2>, where one step leaves `kept`."""
    return 2 * math.ceil(-2 * BURN / math.log(kept))


def largest_rate(batch: int) -> float:
    """2/(1 + 3/batch): the rate at which <D^2> of fresh normal data diverges."""
    return 2 / (1 + MULTIPLICATIVE / batch)


def formula(alpha: float, batch: int, c: float) -> float:
    """<S>/sqrt(alpha A^2/batch) = sqrt{2 pi/[2 - alpha (1 + c/batch)]}."""
    return math.sqrt(2 * math.pi / (2 - alpha * (1 + c / batch)))


def spacing(w: Floats) -> Floats:
    """S (n,) = 2 |d| of matrices (n, 2, 2)."""
    found: Floats = np.hypot(w[:, 0, 0] - w[:, 1, 1], w[:, 0, 1] + w[:, 1, 0])
    return found


def moved(w: Floats, x: Floats, noise: Floats, alpha: float) -> Floats:
    """W (n, 2, 2) after a step of descent on pairs x (n, batch, 2), or (1, batch, 2), with noise matrices N
    (n, 2, 2)."""
    moments = x.transpose(0, 2, 1) @ x / x.shape[1]
    gap = w - TEACHER * np.eye(2)
    found: Floats = w - alpha * (gap @ moments + noise)
    return found


def noise_of(row: TeacherRow, seed: int, step: int) -> Floats:
    """N (n_replicas, 2, 2) of a step: the mean over a batch of symmetric noise."""
    one = normals(seed, "teacher/noise", np.arange(row.n_replicas), step, 3)
    one *= row.amplitude / math.sqrt(row.batch)
    found = np.empty((row.n_replicas, 2, 2))
    found[:, 0, 0], found[:, 1, 1] = math.sqrt(2) * one[:, 0], math.sqrt(2) * one[:, 1]
    found[:, 0, 1] = found[:, 1, 0] = one[:, 2]
    return found


def data_set(row: TeacherRow, seed: int) -> Floats:
    """The fixed x (n_data, 2) of a seed."""
    return normals(seed, "teacher/set", np.arange(1), 0, 2 * row.n_data).reshape(-1, 2)


def _kept(row: TeacherRow, data: Floats | None) -> tuple[Floats, float]:
    """The matrix (4, 4) from (b, d) to (a, c) by which a step multiplies <D_ib D_jd>; its spectral radius."""
    one = np.eye(2)
    if data is None:
        mean = one
        four = sum(np.einsum(p, one, one) for p in ("ab,cd->abcd", "ac,bd->abcd", "ad,bc->abcd"))
    else:
        mean, four = data.T @ data / len(data), np.einsum("na,nb,nc,nd->abcd", *[data] * 4) / len(data)
    square = np.einsum("ab,cd->abcd", mean, mean)
    square = square + (four - square) / row.batch
    linear = np.einsum("ab,cd->abcd", mean, one) + np.einsum("ab,cd->abcd", one, mean)
    kept = np.einsum("ab,cd->abcd", one, one) - row.alpha * linear + row.alpha**2 * square
    kept = kept.transpose(0, 2, 1, 3).reshape(4, 4)
    return kept, float(np.abs(np.linalg.eigvals(kept)).max())


def second_moments(row: TeacherRow, data: Floats | None = None) -> float:
    """<S^2> of the stationary state, exact: of fresh normal data, or of batches from `data` (n_data, 2).

    <D_ij D_kl> obeys linear equations, in which fluctuations enter as <M M> = m m + (<x x x x> - m m)/batch.
    Raises `InputError` where a data set has no stationary state at this rate, or needs more steps.
    """
    kept, radius = _kept(row, data)
    if radius >= 1 - 1e-12:
        raise InputError(
            f"alpha = {row.alpha:g} has no stationary state on this data set, a step multiplies <D^2> by "
            f"{radius:.6g}; take a smaller alpha, a larger batch or more data"
        )
    if row.n_steps < _fewest(radius):
        raise InputError(
            f"{row.n_steps} steps are too few on this data set; take at least {_fewest(radius)}, or more data"
        )
    one = np.eye(2)
    noise = np.einsum("ik,jl->ijkl", one, one) + np.einsum("il,jk->ijkl", one, one)  # <N_ij N_kl>
    source = (row.alpha**2 * row.amplitude**2 / row.batch * noise).transpose(0, 2, 1, 3).reshape(4, 4)
    found = np.linalg.solve(np.eye(4) - kept, source.T).T.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3)
    d = np.array([[1.0, 0.0], [0.0, -1.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    return float(sum(np.einsum("ij,ijkl,kl->", one, found, one) for one in d))


def run_row(row: TeacherRow, seed: int, progress: Progress) -> dict[str, Any]:
    """Measure one row, all replicas at once, from W = w 1.

    {a, a_error}: <S>/sqrt(alpha A^2/batch); {s2_ratio, s2_ratio_error}: <S^2>/<S>^2, 4/pi where Wigner's
    surmise holds, 2 for Poisson levels; {s2, s2_error, s2_exact}: <S^2> beside `second_moments`; formula_0,
    formula_3 and a_rayleigh, from s2_exact by the surmise; n_turned: measured W with det W <= 0, where S is
    not a spacing of singular values. All errors are those of independent replicas; where the data set is
    fixed, of that set. Raises `InputError` as `second_moments`.
    """
    data = None if row.fresh else data_set(row, seed)
    exact = second_moments(row, data)
    w, begin = np.tile(TEACHER * np.eye(2), (row.n_replicas, 1, 1)), row.n_steps // 2
    every, sums, turned = max(1, round(SPACED / row.alpha)), np.zeros((2, row.n_replicas)), 0
    progress.start(row.n_steps, f"alpha {row.alpha:g}, batch {row.batch}")
    measured = range(row.n_steps - 1, begin - 1, -every)
    for step in range(row.n_steps):
        w = _step(w, row, seed, step, data)
        if step in measured:
            s = spacing(w)
            sums += s, s**2
            turned += int((np.linalg.det(w) <= 0).sum())
        progress.update()
    progress.close()
    s, s2 = sums / len(measured)
    unit = math.sqrt(row.alpha * row.amplitude**2 / row.batch)
    mean, square = float(s.mean()), float(s2.mean())
    ratio = square / mean**2
    return {
        "alpha": row.alpha, "batch": row.batch, "fresh": row.fresh, "n_replicas": row.n_replicas,
        "n_measured": len(measured), "a": mean / unit, "a_error": _error(s) / unit,
        "s2_ratio": ratio, "s2_ratio_error": _error(s2 / mean**2 - 2 * ratio * s / mean),
        "s2": square, "s2_error": _error(s2), "s2_exact": exact,
        "formula_0": formula(row.alpha, row.batch, 0.0),
        "formula_3": formula(row.alpha, row.batch, MULTIPLICATIVE),
        "a_rayleigh": math.sqrt(math.pi * exact / 4) / unit, "n_turned": turned,
    }  # fmt: skip


def _error(values: Floats) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def _step(w: Floats, row: TeacherRow, seed: int, step: int, data: Floats | None) -> Floats:
    noise, found = noise_of(row, seed, step), np.empty_like(w)
    size = max(1, MOST // (2 * row.batch))
    for first in range(0, row.n_replicas, size):
        part = slice(first, min(first + size, row.n_replicas))
        some = np.arange(part.start, part.stop)
        if data is None:
            x = normals(seed, "teacher/data", some, step, 2 * row.batch).reshape(len(some), row.batch, 2)
        else:
            x = data[(uniforms(seed, "teacher/pick", some, step, row.batch) * len(data)).astype(np.int64)]
        found[part] = moved(w[part], x, noise[part], row.alpha)
    return found

r"""What the couplings and the size of a lattice change of a scalar theory: three numbers at every point.

    ln G(0),    ln G(2 pi/L),    ln(1 - rho),  rho = <|M|>^2/<M^2>

and the largest field. At the sizes of the training they are cubic splines in kappa. The size beyond, twice
the largest, follows by step scaling (Luescher, Weisz, Wolff, Nucl. Phys. B 359 (1991) 221; Caracciolo et al.,
Phys. Rev. Lett. 74 (1995) 2969): with

    v = ln G(0)/G(2 pi/L),    v -> 0 for L much larger than the correlation length,

what doubling the lattice does to each of them is one function of v, known from the two largest sizes: of
ln G(2 pi/L) what it does beyond the free field's. Between sizes they are monotone cubics in ln L. Several lam
are lines; on each of them kappa counts from where v = 3 at the largest size, and lines are joined by the
polynomial in ln lam.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import CubicSpline, PchipInterpolator
from torch import Tensor, nn

from diffsq.models.momentum import chebyshev
from lattice.arrays import Floats
from lattice.errors import InputError

N_NUMBERS = 4
CROSSOVER = 3.0  # v where kappa counts from: between the phases
ROUNDING = 1e-9  # of a coupling
APART = 1e-6  # two values of v at least

GAUSSIAN = 2 / math.pi  # <|M|>^2/<M^2>, and the least there is: P(M) of phi^4 is never sharper


@dataclass(frozen=True)
class Point:
    """A theory of the family on L^2 sites.

    offset: kappa counted from the crossover; place: the same in the range of the training, [-1, 1]; depth:
    offset times L, infinite in a family that has no crossover; waves (n_line,): polynomials in ln lam; g0,
    g1: G(0) and G(2 pi/L); rho: <|M|>^2/<M^2>; known: the size that coefficients are taken from, L or the
    largest of the training, and rho_known its rho.
    """

    kappa: float
    lam: float
    size: int
    offset: float
    place: float
    depth: float
    waves: Tensor
    g0: float
    g1: float
    rho: float
    field_max: float
    known: int
    rho_known: float

    @property
    def first(self) -> float:
        """Lattice momentum squared of the first shell."""
        return lowest(self.size)


def lowest(size: float) -> float:
    """4 sin^2(pi/L)."""
    return 4 * math.sin(math.pi / size) ** 2


class Couplings(nn.Module):
    """The three numbers, and the largest field, of `n_line` values of lam with `n_kappa` of kappa each, at
    `n_size` sizes: values (n_line, n_size, n_kappa, 4)."""

    def __init__(self, n_line: int, n_kappa: int, n_size: int) -> None:
        super().__init__()
        self.lam = nn.Buffer(torch.ones(n_line, dtype=torch.float64))
        self.kappa = nn.Buffer(torch.zeros(n_line, n_kappa, dtype=torch.float64))
        self.sizes = nn.Buffer(torch.zeros(n_size, dtype=torch.float64))
        self.values = nn.Buffer(torch.zeros(n_line, n_size, n_kappa, N_NUMBERS, dtype=torch.float64))

    @property
    def grows(self) -> bool:
        """Whether the two largest sizes are one half of the other, so that the size beyond is known."""
        sizes = self.sizes.tolist()
        return len(sizes) > 1 and sizes[-1] == 2 * sizes[-2]

    @property
    def largest(self) -> int:
        """The largest size that is known."""
        return int(self.sizes[-1]) * (2 if self.grows else 1)

    def check(self, kappa: float, lam: float, size: int) -> None:
        """`InputError` outside of what is known."""
        lam_low, lam_high = float(self.lam.min()), float(self.lam.max())
        if not lam_low * (1 - ROUNDING) <= lam <= lam_high * (1 + ROUNDING):
            raise InputError(
                f"action.lam {lam:g} is outside of what the model knows, {_span(lam_low, lam_high)}"
            )
        smallest = int(self.sizes[0])
        if not smallest <= size <= self.largest:
            raise InputError(
                f"lattice.shape {[size, size]} is outside of what the model knows, L = {smallest} to "
                f"{self.largest}"
            )
        low, high = self.range(lam)
        if not low - ROUNDING <= kappa <= high + ROUNDING:
            raise InputError(
                f"action.kappa {kappa:g} is outside of what the model knows at lam = {lam:g}, "
                f"{_span(low, high)}"
            )

    def range(self, lam: float) -> tuple[float, float]:
        """The lowest and the highest kappa at this lam."""
        references, weights = self.references, self.weights(lam)
        low, high = self._ends
        return float(weights @ (references + low)), float(weights @ (references + high))

    @property
    def _ends(self) -> tuple[Floats, Floats]:
        """How far each line goes below and above what it counts from, (n_line,)."""
        offsets = self.kappa.numpy() - self.references[:, None]
        return offsets.min(1), offsets.max(1)

    @property
    def places(self) -> Floats:
        """Where the couplings of all lines are between the lowest, -1, and the highest, 1, in order."""
        low, high = float(self._ends[0].min()), float(self._ends[1].max())
        offsets = np.sort((self.kappa.numpy() - self.references[:, None]).ravel())
        return np.asarray(2 * (offsets - low) / (high - low) - 1)

    @property
    def crossovers(self) -> list[float | None]:
        """kappa of the crossover of each line at the largest size, None without one."""
        found = list[float | None]()
        for kappa, values in zip(self.kappa.numpy(), self.values[:, -1].numpy(), strict=True):
            v = CubicSpline(kappa, values[:, 0] - values[:, 1] - CROSSOVER)
            rising = [float(root) for root in v.roots(extrapolate=False) if v(root, 1) > 0]
            found.append(rising[0] if rising else None)
        return found

    @property
    def references(self) -> Floats:
        """kappa (n_line,) that each line counts from: of the crossover, where all have one, or the middle."""
        found = self.crossovers
        middle = self.kappa.mean(1).tolist()
        return np.array(middle if None in found else found, dtype=np.float64)

    def _depth(self, offset: float, size: int) -> float:
        if None not in self.crossovers:
            return offset * size
        v = self.values[:, -1, :, 0] - self.values[:, -1, :, 1]
        return math.copysign(math.inf, float(v.mean()) - CROSSOVER)

    def weights(self, lam: float) -> Floats:
        """Of the lines, (n_line,): Lagrange's polynomials in ln lam."""
        x, nodes = math.log(lam), self.lam.log().tolist()
        return np.array([
            math.prod((x - b) / (a - b) for j, b in enumerate(nodes) if j != i) for i, a in enumerate(nodes)
        ])  # fmt: skip

    def _waves(self, lam: float) -> Tensor:
        low, high = math.log(float(self.lam.min())), math.log(float(self.lam.max()))
        t = 2 * (math.log(lam) - low) / (high - low) - 1 if high > low else 0.0
        return chebyshev(torch.tensor(min(max(t, -1.0), 1.0), dtype=torch.float64), len(self.lam))

    def at(self, kappa: float, lam: float, size: int) -> Point:
        """One point. Raises `InputError` outside of what is known."""
        self.check(kappa, lam, size)
        return self.point(kappa, lam, size)

    def point(self, kappa: float, lam: float, size: int) -> Point:
        """The same unchecked. Lines are met where kappa is as far from the crossover to their end as here."""
        references, weights = self.references, self.weights(lam)
        offset, known = kappa - float(weights @ references), min(size, int(self.sizes[-1]))
        ends = self._ends[int(offset > 0)]
        meets = references + offset * ends / (float(weights @ ends) or 1.0)
        own, there = (
            np.stack([self._line(i, float(at), n) for i, at in enumerate(meets)]) for n in (size, known)
        )
        ln_g0, ln_g1, ln_rest, ln_field = (weights @ own).tolist()
        rho, rho_known = (
            min(max(1 - math.exp(x), GAUSSIAN), 1.0) for x in (ln_rest, float((weights @ there)[2]))
        )
        low, high = float(self._ends[0].min()), float(self._ends[1].max())
        place = min(max(2 * (offset - low) / (high - low) - 1, -1.0), 1.0)
        return Point(
            kappa, lam, size, offset, place, self._depth(offset, size), self._waves(lam), math.exp(ln_g0),
            math.exp(ln_g1), rho, math.exp(ln_field), known, rho_known,
        )  # fmt: skip

    def _line(self, line: int, kappa: float, size: int) -> Floats:
        """The four numbers of one line."""
        low, high = float(self.kappa[line].min()), float(self.kappa[line].max())
        spline = CubicSpline(self.kappa[line].numpy(), self.values[line].numpy(), axis=1)
        sizes, found = self.sizes.tolist(), spline(min(max(kappa, low), high))
        if size in sizes:
            return np.asarray(found[sizes.index(size)])
        if self.grows:
            sizes, found = (
                [*sizes, 2 * sizes[-1]],
                np.concatenate([found, self._doubled(line, found[-1])[None]]),
            )
        return np.asarray(PchipInterpolator(np.log(sizes), found)(math.log(size)))

    def _doubled(self, line: int, values: Floats) -> Floats:
        """The numbers at twice the largest size from those at the largest."""
        small, large = self.values[line, -2].numpy(), self.values[line, -1].numpy()
        half, size = float(self.sizes[-2]), float(self.sizes[-1])
        v = small[:, 0] - small[:, 1]
        change = large - small
        change[:, 1] -= _free_change(v, half)
        order = np.argsort(v)
        nodes = np.concatenate([[0.0], v[order]])  # noise may put v below 0, where nothing changes
        rise = np.concatenate([np.zeros((1, N_NUMBERS)), change[order]])
        keep = np.concatenate([[True], np.diff(np.maximum.accumulate(nodes)) > APART])
        here = float(values[0] - values[1])
        step = PchipInterpolator(nodes[keep], rise[keep])(min(max(here, 0.0), float(nodes[-1])))
        step[1] += float(_free_change(np.array(here), size))
        return np.asarray(values + step)


def _free_change(v: Floats, size: float) -> Floats:
    """What doubling L does to ln G(2 pi/L) of a free field with this v."""
    ratio = lowest(2 * size) / lowest(size)
    return np.asarray(v - np.log(np.expm1(v) * ratio + 1))


def _span(low: float, high: float) -> str:
    return f"{low:.6g} to {high:.6g}" if high > low else f"{low:.6g} alone"

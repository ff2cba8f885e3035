"""The fit of a family of theories: three numbers of each ensemble, then smooth functions through all of them.

Sums of the regression are those of a single theory (`RegressionBase._sums`), of the base that the family has
there, and enter one least squares over theories, noise levels and momenta.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from diffsq.models.blocks import KeyedNoise, Mapped, block_size, largest, split, zero_modes
from diffsq.models.couplings import Point
from diffsq.models.family import SECTOR_FROM, Family, Frame
from diffsq.models.kept import Tensors
from diffsq.models.momentum import Momenta
from diffsq.models.regression import CHUNK, RegressionBase, least_squares
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.progress import Progress, Silent
from lattice.scans.scan import point_name

Keep = Callable[[str, Callable[[], Tensors]], Tensors]
"""keep(name, make): what was made before under this name, else made now."""
RELATIVE = 1e-3  # of G(k): no class is weighed as if it were known better
MARGIN = 1.2  # of the largest field
SYMMETRIC_TO = 0.998  # rho of the ensembles that the fit of both signs learns from, SECTOR_FROM of one
BLOCK = 512
AS_MANY_SITES, FEWEST = 32**2, 128  # above, n_fit counts fields of so many sites; and fields at least


@dataclass
class Member:
    """One ensemble of the family, and what was measured of it: G(k) per class with errors, zero modes z."""

    kappa: float
    lam: float
    read: Callable[[], Ensemble]
    momenta: Momenta
    g: Tensor
    error: Tensor
    z: Tensor
    numbers: tuple[float, float, float, float]

    @classmethod
    def of(cls, read: Callable[[], Ensemble]) -> Member:
        """Measure one, which is read again when it is learned from: all together need not be in memory."""
        ensemble = read()
        form = ensemble.action.phi4
        assert form is not None
        momenta = Momenta(ensemble.shape)
        phi = torch.from_numpy(np.asarray(ensemble.phi))
        power = torch.cat([momenta.power(part) for part in split(phi, BLOCK)])
        by_chain = torch.stack([power[torch.from_numpy(rows)].mean(0) for rows in ensemble.replicas()])
        g, z = power.mean(0), zero_modes(phi, BLOCK)
        first = int(momenta.khat2[1:].argmin()) + 1
        rho = float(z.abs().mean() ** 2 / (z**2).mean())
        numbers = (
            math.log(float(g[0])), math.log(float(g[first])), math.log(1 - rho),
            math.log(MARGIN * largest(phi, BLOCK)),
        )  # fmt: skip
        error = by_chain.std(0) / math.sqrt(len(by_chain))
        return cls(form.kappa, form.lam, read, momenta, g, error, z, numbers)

    @property
    def size(self) -> int:
        """L."""
        return self.momenta.shape[0]

    @property
    def rho(self) -> float:
        """<|M|>^2/<M^2>."""
        return 1 - math.exp(self.numbers[2])


def fit_family(
    ensembles: Sequence[Callable[[], Ensemble]], *, sigma_min: float, n_sigma: int, n_fit: int, seed: int,
    progress: Progress | None = None, keep: Keep = lambda name, make: make(),
) -> Family:  # fmt: skip
    """The family of these ensembles, which are of a grid: every lam with as many kappa, each at all sizes.

    keep: for the equations of each theory, a few MB, which take the time.
    """
    progress = progress or Silent()
    members = [Member.of(read) for read in ensembles]
    lams, sizes = sorted({m.lam for m in members}), sorted({m.size for m in members})
    lines = [sorted({m.kappa for m in members if m.lam == lam}) for lam in lams]
    family = Family(len(lams), len(lines[0]), len(sizes), n_sigma)
    family.sigma_min.fill_(sigma_min)
    table = family.couplings
    table.lam.copy_(torch.tensor(lams, dtype=torch.float64))
    table.kappa.copy_(torch.tensor(lines, dtype=torch.float64))
    table.sizes.copy_(torch.tensor(sizes))
    found = {(m.lam, m.size, m.kappa): m for m in members}
    for i, lam in enumerate(lams):
        for j, size in enumerate(sizes):
            for k, kappa in enumerate(lines[i]):
                table.values[i, j, k] = torch.tensor(found[lam, size, kappa].numbers, dtype=torch.float64)
    if 0 < (n := table.crossovers.count(None)) < len(lams):
        lam = lams[table.crossovers.index(None)]
        raise InputError(
            f"{n} of {len(lams)} lines have no crossover between the phases, first lam = {lam:g}, and the "
            "others have one: kappa must go through it on all of them, or on none"
        )
    points = [table.point(m.kappa, m.lam, m.size) for m in members]
    fit_propagator(family, members, points)
    fit_zero_modes(family, members, points)
    parts = {
        False: [(m, p) for m, p in zip(members, points, strict=True) if m.rho < SYMMETRIC_TO],
        True: [(m, p) for m, p in zip(members, points, strict=True) if m.rho > SECTOR_FROM],
    }
    progress.start(sum(len(part) for part in parts.values()), "theories")
    for sector, part in parts.items():
        if part:
            fit_coefficients(family, part, sector, n_fit, seed, progress, keep)
    progress.close()
    return family


def fit_propagator(family: Family, members: list[Member], points: list[Point]) -> None:
    """ln G(k) (k^2 + m^2) at all k but 0."""
    n = len(family.shape)
    matrix, right = family.shape.new_zeros(n, n), family.shape.new_zeros(n)
    for m, p in zip(members, points, strict=True):
        rows = family.rows(p, m.momenta)[:, 1:]
        weight = 1 / ((m.error / m.g)[1:] ** 2 + RELATIVE**2)
        target = (m.g * (m.momenta.khat2 + family.mass2(p))).log()[1:]
        matrix += (rows * weight) @ rows.T
        right += rows @ (weight * target)
    ridge = 1e-6 * torch.diag(matrix.diagonal()) + 1e-3 * torch.eye(len(matrix), dtype=matrix.dtype)
    family.shape.copy_(torch.linalg.solve(matrix + ridge, right))


def fit_zero_modes(family: Family, members: list[Member], points: list[Point]) -> None:
    """The laws of the zero mode, of both signs and of one."""
    for law, symmetric in zip(family.laws, (True, False), strict=True):
        chosen = [
            (m, p) for m, p in zip(members, points, strict=True)
            if (m.rho < SYMMETRIC_TO if symmetric else m.rho > SECTOR_FROM)
        ]  # fmt: skip
        if not chosen:
            continue
        counts = []
        for m, _ in chosen:
            z = m.z if symmetric else m.z.abs() - m.z.abs().mean()
            counts.append(law.counts(z / (z**2).mean().sqrt()))  # type: ignore[operator]
        law.fit(counts, [p.rho for _, p in chosen], [p.waves for _, p in chosen])  # type: ignore[operator]


def fit_coefficients(
    family: Family, part: list[tuple[Member, Point]], sector: bool, n_fit: int, seed: int, progress: Progress,
    keep: Keep,
) -> None:  # fmt: skip
    """One least squares over all theories of `part`."""
    systems: dict[bool, list[Tensor]] = {}
    for m, p in part:
        base = family.base(p, m.momenta, sector)
        name = f"{'one' if sector else 'both'}-{point_name(m.momenta.shape, m.kappa, m.lam)}"
        found = keep(name, partial(_equations, family, base, m, p, n_fit, seed))
        for zero in (True, False):
            theory = family.frame(base, p, zero).theory.tolist()
            own, own_right = found[f"matrix_{zero}"], found[f"right_{zero}"]
            if zero not in systems:
                n_theory, n = len(theory), len(own_right)
                systems[zero] = [own.new_zeros(n_theory, n, n_theory, n), own.new_zeros(n_theory, n)]
            matrix, right = systems[zero]
            for i, a in enumerate(theory):  # in place: the whole is as large as memory allows
                right[i] += a * own_right
                for j, b in enumerate(theory):
                    matrix[i, :, j] += a * b * own
        progress.update()
    for zero, (matrix, right) in systems.items():
        n = right.numel()
        c = least_squares(matrix.reshape(n, n), right.flatten())
        weights = family.weights(sector, zero)
        weights.copy_(c.reshape(*weights.shape[:3], -1)[..., :-1])


def _equations(
    family: Family, base: RegressionBase, member: Member, point: Point, n_fit: int, seed: int
) -> Tensors:
    """`normal_equations` of one theory, of k = 0 (True) and of all other modes (False)."""
    sums, found = sums_of(base, member, n_fit, seed), Tensors()
    w, _ = base.wiener(base.log_sigma.exp())
    for zero in (True, False):
        rows = slice(0, 1) if zero else slice(1, None)
        weight = member.momenta.multiplicity[rows] * w[:, rows]
        frame = family.frame(base, point, zero)
        found[f"matrix_{zero}"], found[f"right_{zero}"] = normal_equations(sums[:, rows], weight, frame)
    return found


def sums_of(base: RegressionBase, member: Member, n_fit: int, seed: int) -> Tensor:
    """Normal matrices of a base without coefficients, as its own fit makes them: (n_sigma, n_class, n, n)."""
    ensemble, shape = member.read(), base.momenta.shape
    phi, grad = torch.from_numpy(np.asarray(ensemble.phi)), ensemble.action.grad
    fewer = max(1, math.prod(shape) // AS_MANY_SITES)  # what is local averages itself
    n, chunk = min(max(n_fit // fewer, FEWEST), len(phi)), block_size(shape, *CHUNK)
    noise = KeyedNoise(
        seed, f"family/{member.size}/{member.kappa:.12g}/{member.lam:.12g}", np.arange(n), shape
    )
    return base.sums(Mapped(phi, base.of_sector), grad, noise, n, chunk)


def normal_equations(sums: Tensor, weight: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """Matrix and right-hand side of one theory for r_a(sigma) t_b(k) unit_i(sigma) c_abi.

    sums (n_sigma, n_class, n + 1, n + 1), the right-hand side last, the control variate, in units of its own,
    before it; weight (n_sigma, n_class).
    """
    unit = torch.cat([frame.unit, torch.ones_like(frame.unit[:, :1])], 1)[:, None]
    a, b = sums[..., :-1, :-1] * unit[..., None] * unit[..., None, :], sums[..., :-1, -1] * unit
    inner = torch.einsum("sk,bk,ck,skij->sbicj", weight, frame.t, frame.t, a)
    right = torch.einsum("as,sk,bk,ski->abi", frame.r, weight, frame.t, b).flatten()
    matrix = torch.einsum("as,ds,sbicj->abidcj", frame.r, frame.r, inner)
    return matrix.reshape(len(right), len(right)), right

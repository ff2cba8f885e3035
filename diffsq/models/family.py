r"""One closed-form score for many theories: of phi^4 at any kappa, lam and L in a range, not trained there.

`Family.at(kappa, lam, L)` is a `LatticeScore` like any other: what is fitted there theory by theory is here a
smooth function of the couplings.

    G(k)            three numbers of `Couplings` and ln G(k) (k^2 + m^2) as polynomials in k and splines in
                    kappa, m^2 from G(2 pi/L)
    zero mode       `ZeroModeLaw`, a function of rho = <|M|>^2/<M^2>
    coefficients    a_j(sigma, k) std(W x)^n_j of feature f_j of degree n_j + 1, with a_j smooth: local
                    physics, which knows kappa but not L, and rho for what a finite lattice changes

The last ones are one least squares over all theories (`diffsq.training.family`). Beyond the largest size of
the training they are those of the largest size, the only extrapolation there that held (configs/families).
Where P(M) has two peaks with next to nothing between them, the flow is that of one sign.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.interpolate import BSpline
from torch import Tensor, nn

from diffsq.models.couplings import Couplings, Point, lowest
from diffsq.models.features import ODD, SECTOR
from diffsq.models.lattice import LatticeScore
from diffsq.models.momentum import Momenta, chebyshev
from diffsq.models.regression import RegressionBase
from diffsq.models.zero_mode_law import ZeroModeLaw
from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError

VERSION = 2  # of the function of given weights: raise it with any change
RESIDUE = 1.6  # G(k) (k^2 + m^2), about, by which m^2 is read off G(2 pi/L)
N_K, N_PLACE = 6, 12  # of ln G: powers of ln k^2, and cubic splines in kappa at most
N_SHELL, N_MASS = 2, 3  # inverse powers of n^2, and powers of m^2/(k^2 + m^2)
N_ANISOTROPY, N_CROSSING = 3, 4
LOWEST_K2, HIGHEST_K2 = 0.01, 8.5
WIDTH = 0.1  # of the crossover, in (kappa - kappa_c) L
UNIT_RHO = 2.5, 1.5  # of -ln(1 - rho)
MONOMIALS = ((0, 0), (1, 0), (2, 0), (0, 1), (0, 2), (1, 1))  # powers of kappa and rho in the coefficients
OF_ZERO = ((0, 0), (0, 1), (0, 2))  # in those of k = 0
SCALE = 0.03  # of kappa in them
N_SIGMA, N_SIGMA_ZERO = 12, 6  # polynomials in ln sigma
N_COEFFICIENT_K = 6  # in ln(1 + k^2)
REACH = 30.0  # of sigma: above, only k = 0 is left
FLOOR = 1e-7  # of a bin of P(z), beside the law
# probability between the peaks below which the flow is of one sign: at sizes of the training and beyond them,
# where the flow of both signs is known less well
SPLIT = 1e-8, 1e-3
SECTOR_FROM = 0.95  # rho, of the theories that the flow of one sign is fitted to


@dataclass(frozen=True)
class Frame:
    """The smooth functions that coefficients are made of, at one theory: theory (n_theory,), r
    (n_r, n_sigma) of sigma, t (n_t, n_class) of the momentum, unit (n_sigma, n_feature) of the features."""

    theory: Tensor
    r: Tensor
    t: Tensor
    unit: Tensor


class Family(nn.Module):
    """phi^4 on squares: `sizes` are those of its tables.

    `sector`: weights of the flow of one sign, beside those of both. about: its model.json.
    """

    def __init__(self, n_line: int, n_kappa: int, n_size: int, n_sigma: int) -> None:
        super().__init__()
        self.couplings = Couplings(n_line, n_kappa, n_size)
        self.n_sigma = n_sigma
        self.n_place = min(N_PLACE, max(4, n_kappa - 2))  # fewer than the couplings: noise is no shape
        n = self.n_place * N_K + N_ANISOTROPY + N_CROSSING * (N_SHELL + N_MASS)
        self.shape = nn.Buffer(torch.zeros(n_line * n, dtype=torch.float64))
        self.sigma_min = nn.Buffer(torch.ones((), dtype=torch.float64))
        self.laws = nn.ModuleList([ZeroModeLaw(True, n_line), ZeroModeLaw(False, n_line)])
        for name, terms in (("both", ODD), ("one", SECTOR)):
            n_feature = len(terms) + 2
            rest = (n_line * len(MONOMIALS), N_SIGMA, N_COEFFICIENT_K, n_feature)
            zero = (n_line * len(OF_ZERO), N_SIGMA_ZERO, 1, n_feature)
            self.register_buffer(f"{name}_rest", torch.zeros(rest, dtype=torch.float64))
            self.register_buffer(f"{name}_zero", torch.zeros(zero, dtype=torch.float64))
        self.about: dict[str, Any] = {}

    @property
    def sizes(self) -> dict[str, int]:
        """The arguments of the class."""
        n_line, n_kappa = self.couplings.kappa.shape
        return {
            "n_line": n_line,
            "n_kappa": n_kappa,
            "n_size": len(self.couplings.sizes),
            "n_sigma": self.n_sigma,
        }

    def at(self, kappa: float, lam: float, size: int, sector: bool | None = None) -> LatticeScore:
        """The score at one theory; sector: whether its flow is of one sign, None: as P(M) says.

        Raises `InputError` outside of the range of the training, twice the largest size included.
        """
        point = self.couplings.at(kappa, lam, size)
        momenta = Momenta((size, size))
        both = self.base(point, momenta, sector=False)
        split = sector
        if split is None:
            known = point.rho_known > SECTOR_FROM  # the fit of one sign has seen such a theory
            split = known and both.zero_mode.between() < SPLIT[size > point.known]
        one = self.base(point, momenta, sector=True) if split else None
        for base in (both, one):
            if base is not None:
                self.fill(base, point)
        model = LatticeScore(both, None, one)
        model.about = {
            "action": ScalarPhi4(kappa, lam).as_dict(),
            "ensemble": "",
            "sha256": self.about.get("sha256", ""),
        }
        return model.eval().requires_grad_(False)

    def base(self, point: Point, momenta: Momenta, sector: bool) -> RegressionBase:
        """Propagator, law of the zero mode and of a site; no coefficients."""
        found = RegressionBase(momenta, self.n_sigma, sector=sector)
        g = self.propagator(point, momenta)
        width = g[0]
        if sector:
            found.centre.fill_(math.sqrt(point.rho * point.g0) / point.size)
            width = g[0] * (1 - point.rho)
            g[0] = width
        top = float(g.max()) if sector else float(g[0])
        found.set_gaussian(g, float(self.sigma_min), 2 * math.sqrt(top))
        found.set_action(ScalarPhi4(point.kappa, point.lam), point.field_max)
        law: ZeroModeLaw = self.laws[int(sector)]  # type: ignore[assignment]
        found.zero_mode = law.denoiser(point.rho, point.waves, math.sqrt(float(width)), FLOOR)
        return found

    def rows(self, point: Point, momenta: Momenta) -> Tensor:
        """What ln G(k) (k^2 + m^2 + 1/L^2) is a sum of, (n, n_class)."""
        k2, size = momenta.khat2, point.size
        mass2 = self.mass2(point)
        kappa, place = self.splines(point.place), torch.tensor(point.place, dtype=torch.float64)
        low_orders = chebyshev(place, N_ANISOTROPY)
        low, high = math.log(LOWEST_K2), math.log(HIGHEST_K2)
        in_k = (2 * ((k2 + mass2).log() - low) / (high - low) - 1).clamp(-1, 1)
        crossing = chebyshev(torch.tensor(math.tanh(point.depth / WIDTH), dtype=torch.float64), N_CROSSING)
        n2 = (k2 / lowest(size)).clamp_min(0.5)
        soft = mass2 / (k2 + mass2)
        shells = torch.stack(
            [n2**-j for j in range(1, N_SHELL + 1)] + [soft**j for j in range(1, N_MASS + 1)]
        )
        own = torch.cat([
            (kappa[:, None, None] * chebyshev(in_k, N_K)).flatten(0, 1),
            low_orders[:, None] * (momenta.khat4 / k2.clamp_min(1e-9)),
            (crossing[:, None, None] * shells).flatten(0, 1),
        ])  # fmt: skip
        return (point.waves[:, None, None] * own).flatten(0, 1)

    def splines(self, place: float) -> Tensor:
        """Cubic B-splines at a place in [-1, 1] of kappa, (n_place,), knots at quantiles of the couplings: of
        powers as many, a fit through couplings that are no nodes of Chebyshev's swings between them."""
        inner = np.quantile(self.couplings.places, np.linspace(0, 1, self.n_place - 2))[1:-1]
        knots = np.concatenate([np.full(4, -1.0), inner, np.full(4, 1.0)])
        row = BSpline.design_matrix(np.array([min(max(place, -1.0), 1.0)]), knots, 3).toarray()[0]
        return torch.from_numpy(row)

    def mass2(self, point: Point) -> float:
        """m^2 + 1/L^2."""
        return max(RESIDUE / point.g1 - point.first, 0.0) + point.size**-2

    def propagator(self, point: Point, momenta: Momenta) -> Tensor:
        """G(k) per class, of both signs."""
        g: Tensor = (self.shape @ self.rows(point, momenta)).exp() / (momenta.khat2 + self.mass2(point))
        g[0] = point.g0
        return g

    def frame(self, base: RegressionBase, point: Point, zero: bool) -> Frame:
        """Of k = 0, or of all other modes."""
        kappa = point.offset / SCALE
        spread = (
            math.sqrt(1 - point.rho_known)
            if base.sector
            else (-math.log(1 - point.rho_known) - UNIT_RHO[0]) / UNIT_RHO[1]
        )
        powers = [kappa**a * spread**b for a, b in (OF_ZERO if zero else MONOMIALS)]
        theory = torch.outer(point.waves, torch.tensor(powers, dtype=torch.float64)).flatten()
        sigma = base.log_sigma.exp()
        if zero:
            place = torch.linspace(-1, 1, len(sigma), dtype=torch.float64)
        else:
            low, high = float(self.sigma_min.log()), math.log(REACH)
            place = (2 * (sigma.log() - low) / (high - low) - 1).clamp(-1, 1)
        r = chebyshev(place, N_SIGMA_ZERO if zero else N_SIGMA)
        t = r.new_ones(1, 1) if zero else base.momenta.chebyshev(N_COEFFICIENT_K)[:, 1:]
        degree = torch.tensor([q.v + q.inner + q.m - 1 for q in base.terms] + [0, 0], dtype=torch.float64)
        return Frame(theory, r, t, base.scale(sigma)[:, None] ** degree)

    def weights(self, sector: bool, zero: bool) -> Tensor:
        """(n_theory, n_r, n_t, n_feature)."""
        found: Tensor = getattr(self, f"{'one' if sector else 'both'}_{'zero' if zero else 'rest'}")
        return found

    def fill(self, base: RegressionBase, point: Point) -> None:
        """Set the coefficients of a base."""
        parts = []
        for zero in (True, False):
            f = self.frame(base, point, zero)
            a = torch.einsum("y,yabi->abi", f.theory, self.weights(base.sector, zero))
            parts.append(torch.einsum("as,bk,si,abi->ski", f.r, f.t, f.unit, a))
        base.coefficients.copy_(torch.cat(parts, 1))


def point_of(action: Any, shape: tuple[int, ...]) -> tuple[float, float, int]:
    """kappa, lam and L. Raises `InputError` for another action, or a lattice that is no square."""
    if action is None:
        raise InputError("action: null is no theory; name action.kappa and action.lam")
    form = action.phi4
    if form is None:
        raise InputError(f"the model is of phi^4, the action is {action.as_dict()['kind']}")
    if len(shape) != 2 or shape[0] != shape[1]:
        raise InputError(f"the model knows squares L x L, lattice.shape is {list(shape)}")
    return form.kappa, form.lam, shape[0]

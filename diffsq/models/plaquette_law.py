r"""One plaquette on the real line: a smooth law whose image on the circle is that of a lattice action.

An angle theta of weight e^{-S(theta)}, S = -sum_n b_n cos n theta, is lifted to F = theta + 2 pi n by

    w(F) = e^{-S(F)} g(F)/sum_m g(F + 2 pi m),    g the normal law of Villain's variance s_V,

e^{-s_V/2} = <cos theta> (Villain, J. Phys. (Paris) 36 (1975) 581): the sum of w over all lifts is e^{-S}, so
that the lifted flux is an exact way to write the theory. w = g times a smooth periodic function, close to
normal at strong and at weak coupling alike. V plaquettes whose sum is 2 pi Q, in units where the link measure
is normalised:

    Z = (2 pi)^{1-V} V^{-1/2} sum_Q int dF_perp prod_p w(F_p),    P(Q) ~ int dnu w^(nu)^V e^{-2 pi i nu Q}.

Q is the charge of the lift. That of the angles, sum of theta_p/2pi, differs from it by the plaquettes that
were lifted out of (-pi, pi].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lattice.arrays import wrapped
from lattice.errors import InputError

N_IMAGES = 8  # lifts on either side in sums over them
N_POINTS = 1501  # of quadrature; the integrands are analytic, so that equal steps converge exponentially
WIDE = 8.5  # standard deviations, beyond which there is nothing
RARE = 1e-13  # probability of a charge below which it is never drawn
MOST_SPREAD = 36.0  # of s_V: beta of 3e-8


@dataclass(frozen=True)
class PlaquetteLaw:
    """The lifted law of e^{sum_n b_n (cos n theta - 1)}, harmonics (n_harmonic,) float64.

    Raises `InputError` unless the harmonics are finite and favour theta = 0: <cos theta> > 0.

    >>> law = PlaquetteLaw(torch.tensor([7.0], dtype=torch.float64))
    >>> round(law.spread, 6), round(float(law.variance), 6)
    (0.154773, 0.155202)
    """

    harmonics: Tensor

    def __post_init__(self) -> None:
        if not bool(torch.isfinite(self.harmonics).all()) or not self.mean_cos > math.exp(-MOST_SPREAD / 2):
            raise InputError(
                f"no plaquette law of harmonics {[round(b, 4) for b in self.harmonics.tolist()]}: "
                "<cos theta> must be above 0"
            )

    def log_angle(self, theta: Tensor) -> Tensor:
        """-S + S(0) of angles (...)."""
        waves = (theta[..., None] * self._orders(theta) / 2).sin() ** 2  # (1 - cos)/2, without cancellation
        return -2 * waves @ self.harmonics.to(theta.device)

    def _orders(self, like: Tensor) -> Tensor:
        return torch.arange(1, len(self.harmonics) + 1, dtype=like.dtype, device=like.device)

    @property
    def mean_cos(self) -> float:
        """<cos theta> of one plaquette alone."""
        return 1 - self._defect

    @cached_property
    def _defect(self) -> float:
        """1 - <cos theta>."""
        # as far as the weight reaches, for equal steps to resolve it
        stiff = abs(float((self.harmonics * self._orders(self.harmonics) ** 2).sum()))
        reach = min(math.pi, 2 * WIDE / math.sqrt(max(stiff, 1.0)))
        theta = torch.linspace(-reach, reach, N_POINTS, dtype=torch.float64)[1:]
        weight = torch.softmax(self.log_angle(theta), 0)
        return 2 * float(weight @ (theta / 2).sin() ** 2)

    @cached_property
    def spread(self) -> float:
        """Villain's variance s_V."""
        return -2 * math.log1p(-self._defect)

    def log_w(self, flux: Tensor) -> Tensor:
        """ln w of lifted plaquettes (...), up to the constant of S(0)."""
        images = wrapped(flux)[..., None] + 2 * math.pi * self._images(flux)
        share = -(flux**2) / (2 * self.spread) - torch.logsumexp(-(images**2) / (2 * self.spread), -1)
        return self.log_angle(flux) + share

    @staticmethod
    def _images(like: Tensor) -> Tensor:
        return torch.arange(-N_IMAGES, N_IMAGES + 1, dtype=like.dtype, device=like.device)

    @cached_property
    def grid(self) -> tuple[Tensor, Tensor]:
        """Points F (n,) of the real line and the probability of each, (n,)."""
        reach = WIDE * math.sqrt(self.spread) + min(math.pi, 2 * math.sqrt(self.spread))
        flux = torch.linspace(-reach, reach, N_POINTS, dtype=torch.float64)
        return flux, torch.softmax(self.log_w(flux), 0)

    @cached_property
    def variance(self) -> Tensor:
        """<F^2> of one plaquette alone, ()."""
        flux, weight = self.grid
        return weight @ flux**2

    @cached_property
    def log_norm(self) -> float:
        """ln int dF w."""
        flux, _ = self.grid
        return float(torch.logsumexp(self.log_w(flux), 0) + (flux[1] - flux[0]).log())

    def lifted(self, theta: Tensor, u: Tensor) -> Tensor:
        """Each angle (...) at one of its lifts, from its law given the angle: u (...) uniform."""
        images = theta[..., None] + 2 * math.pi * self._images(theta)
        chance = torch.softmax(-(images**2) / (2 * self.spread), -1).cumsum(-1)
        which = (u[..., None] >= chance[..., :-1]).sum(-1, keepdim=True)
        return images.gather(-1, which)[..., 0]

    def characteristic(self, nu: Tensor) -> Tensor:
        """<cos nu F> of one plaquette alone: nu (n,) -> (n,)."""
        flux, weight = self.grid
        return torch.cat([(part[:, None] * flux).cos() @ weight for part in torch.split(nu, 256)])

    def charges(self, volume: int) -> tuple[Tensor, Tensor]:
        """The charges Q (n,) of V plaquettes in order, and ln P(Q) (n,)."""
        own = volume * float(self.variance)
        top = math.ceil(WIDE * math.sqrt(own) / (2 * math.pi)) + 3
        q = torch.arange(-top, top + 1, dtype=torch.float64)
        # steps of 1/(4 top) are exact but for charges 4 top apart
        n = math.ceil(4 * top * 1.3 * WIDE / math.sqrt(own))
        nu = torch.arange(-n, n + 1, dtype=torch.float64) / (4 * top)
        c = self.characteristic(nu)
        power = c.sign() ** (volume % 2) * c.abs() ** volume
        p = (2 * math.pi * q[:, None] * nu).cos() @ power
        kept = p > RARE * p.max()
        return q[kept], (p[kept] / p[kept].sum()).log()

"""One-variable models with exact answers, real and complex: the actions complex Langevin is tested on.

    complex_gaussian  S = 1/2 sigma0 z^2              complex_quartic  S = 1/2 sigma0 z^2 + 1/4 lam z^4
    one_link          S = -beta cos z (U(1))          real_quartic     S = 1/2 mu2 phi^2 + (g/4!) phi^4
    two_peak          p = 1/2 [N(mu0, sigma0^2) + N(-mu0, sigma0^2)],  S = -ln p

Fields are z (n, *shape) of any shape, () included; the action is the sum over sites.  The functions are
holomorphic: a complex field gives the complex action S(z) and the complex gradient S'(z), a real one gives
real numbers where the couplings are real.  A complex number is the pair [re, im] in files and in YAML.

An ensemble of complex fields is stored as real ones, phi (n, 2, *shape) with axis 1 = (x, y), z = x + iy;
`lattice.actions.complexified.Complexified` is the action of such an ensemble.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lattice.actions.protocol import Action, Derivative, Range, field_values, plain, sum_sites
from lattice.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

QUARTIC = Range(0.0, why="exp(-S) is not integrable otherwise")


@dataclass(frozen=True)
class ComplexGaussian(Action):
    """S = 1/2 sigma0 z^2, Re sigma0 > 0 (InputError otherwise): <z^2> = 1/sigma0.

    >>> import torch
    >>> ComplexGaussian(1 + 1j).grad(torch.tensor([2.0], dtype=torch.float64)).tolist()
    [(2+2j)]
    """

    sigma0: complex
    kind = "complex_gaussian"
    field = "complex"
    even = one_variable = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma0.real <= 0:
            raise InputError(f"action.sigma0 of a Gaussian must have a positive real part, got {self.sigma0}")

    def action(self, z: Tensor) -> Tensor:
        return sum_sites(0.5 * plain(self.sigma0) * field_values(z) * z)

    def grad(self, z: Tensor) -> Tensor:
        return plain(self.sigma0) * field_values(z)

    @property
    def derivative(self) -> Derivative:
        return Derivative(self.sigma0)


@dataclass(frozen=True)
class ComplexQuartic(Action):
    """S = 1/2 sigma0 z^2 + 1/4 lam z^4, lam > 0, or lam = 0 and Re sigma0 > 0 (InputError otherwise).

    Aarts, Giudice, Seiler 1306.3075: with sigma0 = A + iB, real noise and 3 A^2 >= B^2, A > 0, the drift
    confines complex Langevin to a strip |y| <= y_-, and its answers are right.
    """

    sigma0: complex
    lam: float
    kind = "complex_quartic"
    field = "complex"
    even = one_variable = True
    ranges = {"lam": QUARTIC}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lam == 0 and self.sigma0.real <= 0:
            raise InputError(f"action.sigma0 with lam = 0 must have a positive real part, got {self.sigma0}")

    @property
    def strip(self) -> float | None:
        """y_-, y_-^2 = [A - sqrt(A^2 - B^2/3)]/(2 lam): no weight beyond |y| > y_-; None where there is none.

        >>> round(ComplexQuartic(1 + 1j, 1.0).strip, 6), ComplexQuartic(1 + 3j, 1.0).strip
        (0.302905, None)
        """
        a, b = self.sigma0.real, self.sigma0.imag
        if self.lam == 0 or a <= 0 or 3 * a * a < b * b:
            return None
        return math.sqrt((a - math.sqrt(a * a - b * b / 3)) / (2 * self.lam))

    def action(self, z: Tensor) -> Tensor:
        z2 = field_values(z) * z
        return sum_sites(0.5 * plain(self.sigma0) * z2 + 0.25 * self.lam * z2 * z2)

    def grad(self, z: Tensor) -> Tensor:
        return (plain(self.sigma0) + self.lam * field_values(z) * z) * z

    @property
    def derivative(self) -> Derivative:
        return Derivative(self.sigma0, self.lam)


@dataclass(frozen=True)
class RealQuartic(Action):
    """S = 1/2 mu2 phi^2 + (g/4!) phi^4: one well for mu2 >= 0, two for mu2 < 0; g > 0, or g = 0 < mu2.

    >>> RealQuartic(-1.0, 0.4).as_dict()["kind"]
    'real_quartic'
    """

    mu2: float
    g: float
    kind = "real_quartic"
    even = one_variable = True
    ranges = {"g": QUARTIC}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.g == 0 and self.mu2 <= 0:
            raise InputError(f"exp(-S) is not integrable: action.mu2 = {self.mu2}, action.g = {self.g}")

    def action(self, z: Tensor) -> Tensor:
        z2 = field_values(z) * z
        return sum_sites((0.5 * self.mu2 + self.g / 24.0 * z2) * z2)

    def grad(self, z: Tensor) -> Tensor:
        return (self.mu2 + self.g / 6.0 * field_values(z) * z) * z

    @property
    def derivative(self) -> Derivative:
        return Derivative(self.mu2, self.g / 6.0)


@dataclass(frozen=True)
class TwoPeak(Action):
    """p = 1/2 [N(mu0, sigma0^2) + N(-mu0, sigma0^2)], S = -ln p with its constant: exp(-S) is normalised.

    >>> import torch
    >>> round(float(TwoPeak(0.0, 1.0).action(torch.zeros(1, dtype=torch.float64))), 12)    # ln sqrt(2 pi)
    0.918938533205
    """

    mu0: float
    sigma0: float
    kind = "two_peak"
    even = one_variable = True
    ranges = {"mu0": Range(0.0)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma0 <= 0:
            raise InputError(f"action.sigma0, the width of a peak, must be positive, got {self.sigma0}")

    def action(self, z: Tensor) -> Tensor:
        a, decay = self._argument(z)
        ln_cosh = a + decay.log1p() - math.log(2.0)
        constant = 0.5 * (self.mu0 / self.sigma0) ** 2 + math.log(self.sigma0 * math.sqrt(2.0 * math.pi))
        return sum_sites(0.5 * z * z / self.sigma0**2 - ln_cosh + constant)

    def grad(self, z: Tensor) -> Tensor:
        _, decay = self._argument(z)
        sign = 1.0 - 2.0 * (z.real < 0).to(z.real.dtype)
        return (z - self.mu0 * sign * (1.0 - decay) / (1.0 + decay)) / self.sigma0**2

    def _argument(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """+-mu0 z/sigma0^2 with the sign that makes its real part positive, and exp(-2 of it)."""
        a = (-field_values(z)).where(z.real < 0, z) * (self.mu0 / self.sigma0**2)
        return a, (-2.0 * a).exp()

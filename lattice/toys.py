"""One-variable models with exact answers, real and complex: the actions complex Langevin is tested on.

    complex_gaussian  S = 1/2 sigma0 z^2              complex_quartic  S = 1/2 sigma0 z^2 + 1/4 lam z^4
    one_link          S = -beta cos z (U(1))          real_quartic     S = 1/2 mu2 phi^2 + (g/4!) phi^4
    two_peak          p = 1/2 [N(mu0, sigma0^2) + N(-mu0, sigma0^2)],  S = -ln p

Fields are z (n, *shape) of any shape, () included; the action is the sum over sites.  The functions are
holomorphic: a complex field gives the complex action S(z) and the complex gradient S'(z), a real one gives
real numbers where the couplings are real.  A complex number is the pair [re, im] in files and in YAML.

An ensemble of complex fields is stored as real ones, phi (n, 2, *shape) with axis 1 = (x, y), z = x + iy;
`Complexified` is the action of such an ensemble.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lattice.errors import InputError
from lattice.holomorphic import Holomorphic, NotPhi4, complex_coupling, pair, plain, real_coupling, sum_sites
from lattice.rng import normals, uniforms

DRAW, PEAK = "toy/draw", "toy/peak"
_BLOCK = 4096  # draws per stream: draw i is the same number however many are asked for
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ComplexGaussian:
    """S = 1/2 sigma0 z^2, Re sigma0 > 0 (InputError otherwise): <z^2> = 1/sigma0.

    >>> ComplexGaussian(1 + 1j).grad(torch.tensor([2.0], dtype=torch.float64)).tolist()
    [(2+2j)]
    """

    sigma0: complex
    period: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma0", complex_coupling("sigma0", self.sigma0))
        if self.sigma0.real <= 0:
            raise InputError(f"action.sigma0 of a Gaussian must have a positive real part, got {self.sigma0}")

    def action(self, z: Tensor) -> Tensor:
        return sum_sites(0.5 * plain(self.sigma0) * z * z)

    def grad(self, z: Tensor) -> Tensor:
        return plain(self.sigma0) * z

    def as_dict(self) -> dict[str, Any]:
        return {"kind": "complex_gaussian", "sigma0": pair(self.sigma0)}


@dataclass(frozen=True)
class ComplexQuartic:
    """S = 1/2 sigma0 z^2 + 1/4 lam z^4, lam > 0, or lam = 0 and Re sigma0 > 0 (InputError otherwise).

    Aarts, Giudice, Seiler 1306.3075: with sigma0 = A + iB, real noise and 3 A^2 >= B^2, A > 0, the drift
    confines complex Langevin to a strip |y| <= y_-, and its answers are right.
    """

    sigma0: complex
    lam: float
    period: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma0", complex_coupling("sigma0", self.sigma0))
        object.__setattr__(self, "lam", real_coupling("lam", self.lam))
        if self.lam < 0:
            raise InputError(f"action.lam must be >= 0 (exp(-S) is not integrable otherwise), got {self.lam}")
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
        z2 = z * z
        return sum_sites(0.5 * plain(self.sigma0) * z2 + 0.25 * self.lam * z2 * z2)

    def grad(self, z: Tensor) -> Tensor:
        return (plain(self.sigma0) + self.lam * z * z) * z

    def as_dict(self) -> dict[str, Any]:
        return {"kind": "complex_quartic", "sigma0": pair(self.sigma0), "lam": self.lam}


@dataclass(frozen=True)
class OneLink:
    """S = -beta cos z, the U(1) one-link model with complex beta; Re z is an angle.

    >>> OneLink(0.5).action(torch.zeros(1, dtype=torch.float64)).tolist()
    [-0.5]
    """

    beta: complex
    period: ClassVar[float | None] = 2.0 * math.pi

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", complex_coupling("beta", self.beta))

    def action(self, z: Tensor) -> Tensor:
        return sum_sites(-plain(self.beta) * torch.cos(z))

    def grad(self, z: Tensor) -> Tensor:
        return plain(self.beta) * torch.sin(z)

    def as_dict(self) -> dict[str, Any]:
        return {"kind": "one_link", "beta": pair(self.beta)}


@dataclass(frozen=True)
class RealQuartic(NotPhi4):
    """S = 1/2 mu2 phi^2 + (g/4!) phi^4: one well for mu2 >= 0, two for mu2 < 0; g > 0, or g = 0 < mu2.

    >>> RealQuartic(-1.0, 0.4).as_dict()["kind"]
    'real_quartic'
    """

    mu2: float
    g: float
    period: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mu2", real_coupling("mu2", self.mu2))
        object.__setattr__(self, "g", real_coupling("g", self.g))
        if self.g < 0 or (self.g == 0 and self.mu2 <= 0):
            raise InputError(f"exp(-S) is not integrable: action.mu2 = {self.mu2}, action.g = {self.g}")

    def action(self, z: Tensor) -> Tensor:
        z2 = z * z
        return sum_sites((0.5 * self.mu2 + self.g / 24.0 * z2) * z2)

    def grad(self, z: Tensor) -> Tensor:
        return (self.mu2 + self.g / 6.0 * z * z) * z

    def as_dict(self) -> dict[str, Any]:
        return {"kind": "real_quartic", "mu2": self.mu2, "g": self.g}


@dataclass(frozen=True)
class TwoPeak(NotPhi4):
    """p = 1/2 [N(mu0, sigma0^2) + N(-mu0, sigma0^2)], S = -ln p with its constant: exp(-S) is normalised.

    >>> round(float(TwoPeak(0.0, 1.0).action(torch.zeros(1, dtype=torch.float64))), 12)    # ln sqrt(2 pi)
    0.918938533205
    """

    mu0: float
    sigma0: float
    period: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mu0", real_coupling("mu0", self.mu0))
        object.__setattr__(self, "sigma0", real_coupling("sigma0", self.sigma0))
        if self.sigma0 <= 0:
            raise InputError(f"action.sigma0, the width of a peak, must be positive, got {self.sigma0}")

    def action(self, z: Tensor) -> Tensor:
        a, decay = self._argument(z)
        ln_cosh = a + torch.log1p(decay) - math.log(2.0)
        constant = 0.5 * (self.mu0 / self.sigma0) ** 2 + math.log(self.sigma0 * math.sqrt(2.0 * math.pi))
        return sum_sites(0.5 * z * z / self.sigma0**2 - ln_cosh + constant)

    def grad(self, z: Tensor) -> Tensor:
        _, decay = self._argument(z)
        sign = torch.where(z.real < 0, -1.0, 1.0).to(z.real.dtype)
        return (z - abs(self.mu0) * sign * (1.0 - decay) / (1.0 + decay)) / self.sigma0**2

    def _argument(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """+-mu0 z/sigma0^2 with the sign that makes its real part positive, and exp(-2 of it)."""
        a = torch.where(z.real < 0, -z, z) * (abs(self.mu0) / self.sigma0**2)
        return a, torch.exp(-2.0 * a)

    def as_dict(self) -> dict[str, Any]:
        return {"kind": "two_peak", "mu0": self.mu0, "sigma0": self.sigma0}


@dataclass(frozen=True)
class Complexified(NotPhi4):
    """The action of an ensemble of complex fields stored as phi (n, 2, *shape): Re S(x + iy).

    `grad` is (Re S', Im S') on axis 1, minus the drift of complex Langevin; it is not the gradient of
    `action` (that is its mirror image, (Re S', -Im S')): the drift is no gradient, which is what is complex
    about complex Langevin.

    >>> Complexified(ComplexGaussian(1 + 1j)).grad(torch.tensor([[1.0, 2.0]], dtype=torch.float64)).tolist()
    [[-1.0, 3.0]]
    """

    inner: Holomorphic

    def field(self, phi: Tensor) -> Tensor:
        """phi (n, 2, *shape) -> z (n, *shape); InputError for another axis 1."""
        if phi.dim() < 2 or phi.shape[1] != 2:
            raise InputError(f"complex fields are stored as (n, 2, *shape), x and y, got {tuple(phi.shape)}")
        return torch.complex(phi[:, 0], phi[:, 1])

    def action(self, phi: Tensor) -> Tensor:
        return self.inner.action(self.field(phi)).real

    def action_im(self, phi: Tensor) -> Tensor:
        """Im S(x + iy), (n,)."""
        return self.inner.action(self.field(phi)).imag

    def grad(self, phi: Tensor) -> Tensor:
        drift = self.inner.grad(self.field(phi))
        return torch.stack([drift.real, drift.imag], dim=1)

    def as_dict(self) -> dict[str, Any]:
        return {**self.inner.as_dict(), "field": "x+iy"}


ToyAction = ComplexGaussian | ComplexQuartic | OneLink | RealQuartic | TwoPeak
KINDS: dict[str, type] = {
    "complex_gaussian": ComplexGaussian,
    "complex_quartic": ComplexQuartic,
    "one_link": OneLink,
    "real_quartic": RealQuartic,
    "two_peak": TwoPeak,
}


def toy_from_dict(d: Mapping[str, Any], kinds: Mapping[str, type] = KINDS) -> Any:
    """The action that `as_dict` described, with its "kind" and couplings; InputError on unknown or missing
    keys."""
    cls = kinds[d["kind"]]
    names = [f.name for f in fields(cls)]
    for key in d:
        if key not in ("kind", *names):
            raise InputError(f"unknown key action.{key} of kind {d['kind']!r}; known: {', '.join(names)}")
    if missing := [name for name in names if name not in d]:
        raise InputError(f"an action of kind {d['kind']!r} needs {' and '.join(missing)}")
    return cls(**{name: d[name] for name in names})


def draw_toy(action: ToyAction, n: int, seed: int) -> Floats:
    """n independent exact draws of a real model, phi (n, 1): by inverse CDF, or a peak and a normal number.

    Draw i depends on (seed, i) only. Raises InputError for a complex model (it has no density to draw from).
    """
    if isinstance(action, TwoPeak):
        side = np.where(_stream(uniforms, seed, PEAK, n) < 0.5, -action.mu0, action.mu0)
        return (side + action.sigma0 * _stream(normals, seed, DRAW, n))[:, None]
    if isinstance(action, RealQuartic):
        return _inverse_cdf(action, _stream(uniforms, seed, DRAW, n))[:, None]
    raise InputError(f"{type(action).__name__} is complex: nothing to draw from; use complex Langevin")


def _stream(numbers: Any, seed: int, name: str, n: int) -> Floats:
    rows: Floats = numbers(seed, name, np.arange(-(-n // _BLOCK)), 0, _BLOCK)
    return rows.reshape(-1)[:n]


def _inverse_cdf(action: RealQuartic, u: Floats) -> Floats:
    """phi with CDF(phi) = u: the cell by bisection, then Newton on the cubic with the cell's end values and
    densities (an error of h^4, 1e-10)."""
    phi = real_grid(action, 8001)
    h = phi[1] - phi[0]
    s = action.action(torch.from_numpy(phi)).numpy()
    middle = action.action(torch.from_numpy(phi[:-1] + 0.5 * h)).numpy()
    p, p_middle = np.exp(s.min() - s), np.exp(s.min() - middle)
    cdf = np.concatenate([[0.0], np.cumsum((p[:-1] + 4.0 * p_middle + p[1:]) * h / 6.0)])
    p, cdf = p / cdf[-1], cdf / cdf[-1]
    i = np.clip(np.searchsorted(cdf, u, side="right") - 1, 0, len(phi) - 2)
    rise, d0, d1 = cdf[i + 1] - cdf[i], h * p[i], h * p[i + 1]
    square, cube = 3 * rise - 2 * d0 - d1, d0 + d1 - 2 * rise
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(rise > 0, (u - cdf[i]) / rise, 0.5)
        for _ in range(4):
            excess = cdf[i] + t * (d0 + t * (square + t * cube)) - u
            t = np.clip(t - excess / (d0 + t * (2 * square + 3 * t * cube)), 0.0, 1.0)
    return np.asarray(phi[i] + h * np.nan_to_num(t, nan=0.5))


def real_grid(action: Holomorphic | RealQuartic | TwoPeak, n: int, drop: float = 45.0) -> Floats:
    """A uniform grid (n,) on the real axis beyond which Re S lies more than `drop` above its lowest value."""
    radius, lowest = 1.0, 0.0
    for _ in range(200):
        phi = np.linspace(-radius, radius, 2001)
        s = action.action(torch.from_numpy(phi)).real.numpy()
        lowest = float(s.min())
        if min(s[0], s[-1]) - lowest > drop:
            return np.linspace(-radius, radius, n)
        radius *= 1.1
    raise InputError(f"exp(-S) of {type(action).__name__} does not fall off on the real axis")

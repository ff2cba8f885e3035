r"""Fields made by random neural networks: laws that are known by their cumulants and have no action.

    f(x) = N^(-1/2) sum_i a_i s(w_i . x/sqrt d + b_i) + b',    kappa_2n(f) = c_2n/N^(n-1)

of N neurons of one law: independent neurons are a free field at N = infinity, interactions are their 1/N
(Halverson, Maiti, Stoner 2008.08601). s is erf, max(0, .) or exp(.) over the root of its mean square; w of
variance 1, b of sigma_hidden^2, b' of sigma_b^2 enters kappa_2 only. On a periodic lattice x_n has cos and
sin of 2 pi n/L along every axis, d = 2D; as w is isotropic the law is exactly translation invariant. Two nets
of the lattice have the propagator of a free field at every N, K(p) = 2 (1 - 2 lam) - 4 kappa sum_mu cos p_mu
as in lattice.actions.phi4, G0 = V^-1 sum_p 1/K(p):

    CosNet      f(x) = (2 G0/N)^(1/2) sum_i a_i cos(k_i x + b_i),  P(k) = 1/(V G0 K(k)), b uniform
    LocalNet    f(x) = rho^(-1/2) sum_i a_i g(x - c_i),  g the Fourier transform of K^(-1/2), c_i uniform,
                N = rho V of them or a Poisson number of that mean

Output weights have <a^2> = 1: normal; signs, +-1; rayleigh, a > 0 with a^2 exponential, which makes one site
of a CosNet exactly normal; correlated, a_i = c z_i with z normal and one c > 0 for all neurons of a field,
c^2 exponential, whose kappa_4 does not fall with N.
"""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lattice.actions.protocol import Range, WithoutAction, check_shape
from lattice.errors import InputError, nearest, shown

if TYPE_CHECKING:
    from lattice.arrays import Floats

SYMMETRIC = ("normal", "signs", "correlated")
POSITIVE = Range(0.0, why="it is a standard deviation")


def lattice_inputs(shape: tuple[int, ...]) -> Floats:
    """The points (V, 2D) at which networks of inputs see the sites in row order: cos and sin of 2 pi n/L."""
    import numpy as np  # not above: a config is read without

    check_shape(shape)
    axes = np.meshgrid(*(2 * np.pi * np.arange(extent) / extent for extent in shape), indexing="ij")
    waves = [wave(axis.ravel()) for axis in axes for wave in (np.cos, np.sin)]
    return np.stack(waves, axis=1)


class Network(WithoutAction):
    """What all have: output weights of a named law. Raises `InputError` for one that is unknown, or whose odd
    moments would give the fields a mean.

    even: all odd cumulants vanish. rotations: orthogonal maps of the inputs leave the law as it is.
    """

    output: str
    even = True
    rotations = False
    outputs: tuple[str, ...] = SYMMETRIC

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output == "rayleigh" and "rayleigh" not in self.outputs:
            raise InputError(
                f"action.output 'rayleigh' is positive and gives a {self.kind} a mean: it is for cos_net only"
            )
        if not isinstance(self.output, str) or self.output not in self.outputs:
            hint = nearest(str(self.output), self.outputs)
            raise InputError(
                f"action.output must be one of {', '.join(self.outputs)}, got {shown(self.output)}{hint}"
            )

    @property
    def independent(self) -> bool:
        """Whether the output weights are: then kappa_2n ~ N^(1-n)."""
        return self.output != "correlated"

    def moment(self, n: int) -> float:
        """<a^n> of one output weight; `InputError` for an n that is not whole and >= 0.

        >>> CosNet(4, 0.2).moment(4), CosNet(4, 0.2, "rayleigh").moment(4), CosNet(4, 0.2, "signs").moment(3)
        (3.0, 2.0, 0.0)
        """
        return self.factor_moment(n) * self.own_moment(n)

    def factor_moment(self, n: int) -> float:
        """<c^n> of the factor that all output weights of a field have in common; 1 where there is none."""
        self._check_order(n)
        return 1.0 if self.independent else math.gamma(1 + n / 2)

    def own_moment(self, n: int) -> float:
        """<z^n> of an output weight without that factor."""
        self._check_order(n)
        if self.output == "rayleigh":
            return math.gamma(1 + n / 2)
        if n % 2:
            return 0.0
        return 1.0 if self.output == "signs" else float(math.prod(range(1, n, 2)))

    def _check_order(self, n: int) -> None:
        if not _whole(n) or n < 0:
            raise InputError(f"the law {self.output!r} has no moment {shown(n)}: ask for a whole n >= 0")


def _whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _check_width(width: int) -> None:
    if not _whole(width) or width < 1:
        raise InputError(f"action.width must be a whole number of neurons >= 1, got {shown(width)}")


@dataclass(frozen=True)
class InputNet(Network):
    """A net of inputs: width, law of the output weights, standard deviations of b' and b."""

    width: int
    output: str = "normal"
    sigma_b: float = 0.0
    sigma_hidden: float = 1.0
    rotations = True
    ranges = {"sigma_b": POSITIVE, "sigma_hidden": POSITIVE}

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_width(self.width)


@dataclass(frozen=True)
class ErfNet(InputNet):
    """s = erf.

    >>> ErfNet(10).as_dict()
    {'kind': 'erf_net', 'width': 10, 'output': 'normal', 'sigma_b': 0.0, 'sigma_hidden': 1.0}
    """

    kind = "erf_net"


@dataclass(frozen=True)
class ReluNet(InputNet):
    """s = max(0, .), without hidden biases by default."""

    sigma_hidden: float = 0.0
    kind = "relu_net"


@dataclass(frozen=True)
class GaussNet(InputNet):
    """s = exp(z)/<exp(2z)>^(1/2), of kernel exp(-|x - y|^2/2d) in any number d of inputs."""

    kind = "gauss_net"


class FreeNet(Network, ABC):
    """A net of the lattice with the propagator of a free field."""

    kappa: float
    lam: float

    @property
    def mass(self) -> float:
        """1 - 2 lam, in units of K/2."""
        return 1.0 - 2.0 * self.lam

    @abstractmethod
    def neurons(self, shape: tuple[int, ...]) -> float:
        """Their number, or its mean."""

    def check_normalisable(self, shape: tuple[int, ...]) -> None:
        """`InputError` for a number of neurons that is not whole, and where K(p) <= 0 somewhere."""
        self.neurons(shape)
        waves = [[self.kappa * math.cos(2 * math.pi * n / extent) for n in range(extent)] for extent in shape]
        low = 2 * self.mass - 4 * sum(map(max, waves))
        if low <= 0:
            raise InputError(
                f"{self.kind}: K(p) = 2 (1 - 2 lam) - 4 kappa sum cos p must be > 0, its least value is "
                f"{low:g}: no broken phase"
            )


@dataclass(frozen=True)
class CosNet(FreeNet):
    """Plane waves: exact propagator, but neurons at all sites at once, so that cumulants do not cluster.

    >>> CosNet(0, 0.2)
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: action.width must be a whole number of neurons >= 1, got 0
    """

    width: int
    kappa: float
    output: str = "normal"
    lam: float = 0.0
    kind = "cos_net"
    outputs = (*SYMMETRIC, "rayleigh")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_width(self.width)

    def neurons(self, shape: tuple[int, ...]) -> float:
        return float(self.width)


@dataclass(frozen=True)
class LocalNet(FreeNet):
    """Neurons with places: a Poisson number of density rho, or exactly rho V of them."""

    rho: float
    kappa: float
    output: str = "normal"
    lam: float = 0.0
    poisson: bool = True
    kind = "local_net"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rho > 0:
            raise InputError(f"action.rho must be a density > 0, got {self.rho:g}")
        if not isinstance(self.poisson, bool):
            raise InputError(f"action.poisson must be true or false, got {shown(self.poisson)}")

    def neurons(self, shape: tuple[int, ...]) -> float:
        """rho V; `InputError` where a fixed number of neurons is not whole."""
        check_shape(shape)
        n = self.rho * math.prod(shape)
        if self.poisson:
            return n
        if round(n) < 1 or abs(n - round(n)) > 1e-9 * n:
            raise InputError(
                f"action.rho = {self.rho:g} on {list(shape)} is {n:g} neurons: a fixed number must be whole"
            )
        return float(round(n))


NETWORKS: dict[str, type[Network]] = {net.kind: net for net in (ErfNet, ReluNet, GaussNet, CosNet, LocalNet)}

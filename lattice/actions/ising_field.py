r"""Ising spins as a real field: dequantised with noise of a known kernel, so that the field has an action.

    phi = s + noise,  noise ~ N(0, K^-1),   K = [A + 2d + m^2]/T,   (A phi)_x = sum of the 2d neighbours of x

gives phi the law exp(-S) with

    S = phi K phi/2 - sum_x ln 2 cosh[(K phi)_x + h/T],   P(s_x = 1 | phi) = 1/(1 + exp(-2 [(K phi)_x + h/T]))

(the field of Hubbard and Stratonovich, Hubbard, PRL 3 (1959) 77, multiplied by K^-1): given phi the spins are
independent, <s_x s_y> = <t_x t_y> for x != y with t = tanh(K phi + h/T), and

    ln Z = ln Z_Ising + V (2d + m^2)/(2T) + (V/2) ln 2 pi - (1/2) ln det K.

m^2 > 0 makes K positive; the noise has the variance T/(2 sum cos k + 2d + m^2) at momentum k, so that a small
m^2 makes that of the staggered mode large, T/m^2, and little else.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from lattice.actions.protocol import Action, Range, field_values, sum_sites
from lattice.actions.spins import Ising
from lattice.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from lattice.arrays import Floats


@dataclass(frozen=True)
class IsingField(Action):
    """The real field of an Ising model at the temperature T in the field h; m2 > 0. Raises `InputError` for
    T <= 0 and m2 <= 0.

    >>> import torch
    >>> zero = torch.zeros(1, 4, 4, dtype=torch.float64)
    >>> round(float(IsingField(2.0).action(zero)) / 16, 6) == round(-math.log(2), 6)
    True
    """

    temperature: float
    h: float = 0.0
    m2: float = 1.0
    kind = "ising_field"
    ranges = {
        "temperature": Range(0.0, why="it is a temperature"),
        "m2": Range(0.0, why="K is positive then"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("temperature", "m2"):
            if getattr(self, name) <= 0:
                raise InputError(f"action.{name} must be > 0, got {getattr(self, name):g}")

    @property
    def even(self) -> bool:  # type: ignore[override]
        """Without a field."""
        return self.h == 0

    @property
    def spins(self) -> Ising:
        """The model of its spins."""
        return Ising(self.temperature, self.h)

    def kernel(self, phi: Tensor) -> Tensor:
        """K phi (n, *shape)."""
        axes = range(1, phi.dim())
        near = reduce(add, [phi.roll(shift, axis) for axis in axes for shift in (1, -1)])
        return (near + (2 * len(axes) + self.m2) * phi) / self.temperature

    def action(self, phi: Tensor) -> Tensor:
        pull = self.kernel(field_values(phi))
        field = (pull + self.h / self.temperature).abs()
        log_cosh = field + (-2 * field).exp().log1p()  # ln 2 cosh
        return sum_sites(0.5 * phi * pull - log_cosh)

    def grad(self, phi: Tensor) -> Tensor:
        pull = self.kernel(field_values(phi))
        return pull - self.kernel((pull + self.h / self.temperature).tanh())

    def mean_spins(self, phi: Tensor) -> Tensor:
        """t = <s | phi> (n, *shape)."""
        return (self.kernel(phi) + self.h / self.temperature).tanh()

    def classical_field(self, dim: int) -> float | None:
        return 1.0

    def eigenvalues(self, shape: tuple[int, ...]) -> Floats:
        """Of K, by momentum (*shape)."""
        import numpy as np

        cosines = [2 * np.cos(2 * np.pi * np.arange(extent) / extent) for extent in shape]
        sums = [sum(parts) for parts in itertools.product(*cosines)]
        return (np.reshape(sums, shape) + 2 * len(shape) + self.m2) / self.temperature

    def ln_z_beyond(self, shape: tuple[int, ...]) -> float:
        """ln Z - ln Z_Ising."""
        import numpy as np

        volume = math.prod(shape)
        shift = 0.5 * volume * (2 * len(shape) + self.m2) / self.temperature
        return float(shift + 0.5 * np.log(2 * np.pi / self.eigenvalues(shape)).sum())

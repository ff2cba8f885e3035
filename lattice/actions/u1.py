"""U(1): the one-link model, and what else lives on angles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lattice.actions.protocol import Action, Derivative, field_values, plain, sum_sites

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class OneLink(Action):
    """S = -beta cos z, the U(1) one-link model with complex beta; Re z is an angle.

    >>> import torch
    >>> OneLink(0.5).action(torch.zeros(1, dtype=torch.float64)).tolist()
    [-0.5]
    """

    beta: complex
    kind = "one_link"
    field = "complex"
    even = one_variable = True
    period = 2.0 * math.pi

    def action(self, z: Tensor) -> Tensor:
        return sum_sites(-plain(self.beta) * field_values(z).cos())

    def grad(self, z: Tensor) -> Tensor:
        return plain(self.beta) * field_values(z).sin()

    @property
    def derivative(self) -> Derivative:
        return Derivative(0.0, sine=self.beta)

"""U(1): the one-link model, and what else lives on angles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lattice.actions.protocol import complex_coupling, pair, plain, sum_sites


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

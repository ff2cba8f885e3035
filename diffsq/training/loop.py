"""What every training shares: the average of the weights."""

from collections.abc import Callable

import torch
from torch import Tensor


def warm_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential moving average with a memory that grows with the steps: early weights are forgotten."""

    def update(average: Tensor, new: Tensor, n: Tensor | int) -> Tensor:
        return torch.lerp(average, new, 1 - min(decay, (1 + int(n)) / (10 + int(n))))

    return update

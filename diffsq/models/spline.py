"""Quintic splines on equidistant nodes, as weights of the nodes' values.

Four derivatives are continuous. What is integrated over tables by a method of order 4 needs them: the third
one of a cubic spline jumps at every node (numbers in configs/exact/README.md).
"""

import math
from functools import lru_cache

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from torch import Tensor

DEGREE = 5


@lru_cache(maxsize=32)
def _pieces(n: int, device: torch.device) -> Tensor:
    """Taylor coefficients of the spline at nodes 0 ... n - 2, linear in its values: (degree + 1, n - 1, n).

    Not-a-knot splines: de Boor, A Practical Guide to Splines (1978), chapters IV and XIII. Of the largest odd
    degree that n nodes determine.
    """
    degree = min(DEGREE, n - 1 - n % 2)
    spline = make_interp_spline(np.arange(n), np.eye(n), k=degree)
    taylor = [spline(np.arange(n - 1), nu=j) / math.factorial(j) for j in range(degree + 1)]
    return torch.tensor(np.array(taylor).tolist(), dtype=torch.float64).to(device)


def cardinal(place: Tensor, n: int) -> Tensor:
    """Weights (m, n) of the values at nodes 0 ... n - 1 in their spline at places (m,), 0 to n - 1.

    >>> cardinal(torch.tensor([0.0, 1.5], dtype=torch.float64), 4) @ torch.tensor([1.0, 2, 3, 4]).double()
    tensor([1.0000, 2.5000], dtype=torch.float64)
    """
    left = place.long().clamp(0, n - 2)
    t, pieces = (place - left)[:, None].double(), _pieces(n, place.device)
    found = pieces[-1][left]
    for taylor in reversed(pieces[:-1]):
        found = found * t + taylor[left]
    return found

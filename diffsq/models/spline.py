"""Cubic splines on equidistant nodes, as weights of the nodes' values."""

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=32)
def _curvatures(n: int, device: torch.device) -> Tensor:
    """Second derivatives at the nodes 0 ... n - 1 of the natural cubic spline, linear in its values: (n, n).

    Natural splines: de Boor, A Practical Guide to Splines (1978), chapter IV.
    """
    inner = torch.eye(n, dtype=torch.float64)
    second = torch.zeros(n, n, dtype=torch.float64)
    for i in range(1, n - 1):
        inner[i, i - 1 : i + 2] = torch.tensor([1.0, 4.0, 1.0])
        second[i, i - 1 : i + 2] = torch.tensor([6.0, -12.0, 6.0])
    found: Tensor = torch.linalg.solve(inner, second)
    return found.to(device)


def cardinal(place: Tensor, n: int) -> Tensor:
    """Weights (m, n) of the values at nodes 0 ... n - 1 in the natural cubic spline at places (m,).

    >>> cardinal(torch.tensor([0.0, 1.5], dtype=torch.float64), 4) @ torch.tensor([1.0, 2, 3, 4]).double()
    tensor([1.0000, 2.5000], dtype=torch.float64)
    """
    left = place.long().clamp(0, n - 2)
    t = (place - left)[:, None].double()
    nodes = torch.eye(n, dtype=torch.float64, device=place.device)
    bend = _curvatures(n, place.device)
    low, high = nodes[left], nodes[left + 1]
    cubic = ((1 - t) ** 3 - (1 - t)) / 6 * bend[left] + (t**3 - t) / 6 * bend[left + 1]
    return (1 - t) * low + t * high + cubic

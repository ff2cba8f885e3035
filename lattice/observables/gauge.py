"""Observables of two-dimensional U(1): links (n, 2, L0, L1) as angles, the link 0 along axis -2, 1 along -1.

theta_p(x) = a_0(x) + a_1(x + 0) - a_0(x + 1) - a_1(x), wrapped to (-pi, pi]; Q = sum_p theta_p/2pi is then a
whole number on any periodic lattice, and changes sign under a reflection.
"""

from __future__ import annotations

import math

from torch import Tensor

from lattice.errors import InputError


def wrapped(angle: Tensor) -> Tensor:
    """In (-pi, pi].

    >>> import torch
    >>> wrapped(torch.tensor([-math.pi, math.pi, 7.0], dtype=torch.float64)).round(decimals=4).tolist()
    [3.1416, 3.1416, 0.7168]
    """
    return angle - 2 * math.pi * ((angle - math.pi) / (2 * math.pi)).ceil()


def check_links(links: Tensor) -> None:
    """`InputError` unless links are (n, 2, L0, L1)."""
    if links.dim() != 4 or links.shape[1] != 2:
        raise InputError(f"links of two-dimensional U(1) are (n, 2, L0, L1), got {tuple(links.shape)}")


def loop_angles(links: Tensor, height: int, width: int) -> Tensor:
    """The sum of link angles around each rectangle, height along axis -2, width along -1, by its corner:
    (n, L0, L1), not wrapped. Raises `InputError` for a rectangle that does not fit."""
    check_links(links)
    (rows, columns), (a0, a1) = links.shape[-2:], links.unbind(1)
    if not (1 <= height <= rows and 1 <= width <= columns):
        raise InputError(f"a loop of {height} x {width} does not fit on {rows} x {columns}")
    up, along = _straight(a0, height, -2), _straight(a1, width, -1)
    return up + along.roll(-height, -2) - up.roll(-width, -1) - along


def _straight(a: Tensor, n: int, axis: int) -> Tensor:
    """The sum of n links in a row, from each site on."""
    found = a
    for step in range(1, n):
        found = found + a.roll(-step, axis)
    return found


def plaquettes(links: Tensor) -> Tensor:
    """theta_p in (-pi, pi]: (n, L0, L1)."""
    return wrapped(loop_angles(links, 1, 1))


def charge(links: Tensor) -> Tensor:
    """Q (n,), whole numbers as float64; `InputError` where rounding hides which."""
    q = plaquettes(links).sum((-1, -2)) / (2 * math.pi)
    if not ((q - q.round()).abs() < 1e-6).all():
        raise InputError(
            "the charge is no whole number: links are NaN, or of too low a precision; use float64"
        )
    return q.round()


def wilson_loop(links: Tensor, height: int, width: int) -> Tensor:
    """Re of the loop, averaged over where it lies: (n,)."""
    return loop_angles(links, height, width).cos().mean((-1, -2))


def polyakov_loop(links: Tensor, axis: int) -> Tensor:
    """The loop around the lattice along `axis` (0 or 1), averaged over where it lies: (n,) complex."""
    check_links(links)
    if axis not in (0, 1):
        raise InputError(f"axis must be 0 or 1, got {axis}")
    angle = links[:, axis].sum(axis - 2)
    return (1j * angle).exp().mean(-1)

"""Observables of two-dimensional U(1): links (n, 2, L0, L1) as angles, the link 0 along axis -2, 1 along -1.

theta_p(x) = a_0(x) + a_1(x + 0) - a_0(x + 1) - a_1(x), wrapped to (-pi, pi]; Q = sum_p theta_p/2pi is then a
whole number on any periodic lattice, and changes sign under a reflection. All are periodic in every link.

Measured, each beside its exact value (`lattice.exact.u1.known`):

    plaquette = W(1,1), wilson_RxT: Re of the loop, averaged over where it lies, and over R x T and T x R
    creutz_RxR = -ln W(R,R) W(R-1,R-1)/W(R,R-1)^2, the string tension where loops obey an area law
    P_mu: exp(i sum of the links of a line around the lattice along axis mu), averaged over the lines;
    polyakov_mu = <Re P_mu>, 0 by centre symmetry, polyakov2_mu = <|P_mu|^2>; polyakov_sq_mu = <Re of the
    square of each line, averaged likewise>, 0 as well: holonomies are uniform on the circle
    charge = <Q>, charge2 = <Q^2>, chi_top = <Q^2>/V, action_density = <S>/V
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lattice.actions.u1 import U1
from lattice.arrays import Floats, wrapped
from lattice.ensembles.shards import batches
from lattice.errors import InputError
from lattice.exact.u1 import creutz, fitting
from lattice.observables.scalar import Definition, checked_fields


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
    return (1j * line_angles(links, axis)).exp().mean(-1)


def line_angles(links: Tensor, axis: int) -> Tensor:
    """The sum of link angles of each line around the lattice along `axis` (0 or 1): (n, L1) or (n, L0), not
    wrapped. Raises `InputError` for another axis."""
    check_links(links)
    if axis not in (0, 1):
        raise InputError(f"axis must be 0 or 1, got {axis}")
    return links[:, axis].sum(axis - 2)


def gauge_primaries(phi: Floats, action: U1) -> dict[str, Floats]:
    """Per-configuration primaries of links phi (n, 2, L0, L1): name -> (n,). Raises `InputError` for NaN.

    >>> cold = gauge_primaries(np.zeros((1, 2, 4, 4)), U1(2.0))
    >>> [float(cold[name][0]) for name in ("w1x1", "w3x3", "p2_0", "q", "s")]
    [1.0, 1.0, 1.0, 0.0, -2.0]
    """
    phi = checked_fields(phi)
    parts = [_primaries(torch.from_numpy(phi[part]), action) for part in batches(phi.shape)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _primaries(links: Tensor, action: U1) -> dict[str, Floats]:
    shape, q = tuple(links.shape[-2:]), charge(links)
    found = {"q": q, "q2": q**2, "s": action.action(links) / math.prod(shape)}
    for a, b in ((1, 1), *fitting(shape)):
        lying = [size for size in {(a, b), (b, a)} if size[0] <= shape[0] and size[1] <= shape[1]]
        found[f"w{a}x{b}"] = torch.stack([wilson_loop(links, *size) for size in sorted(lying)]).mean(0)
    for axis in (0, 1):
        line = polyakov_loop(links, axis)
        square = (2 * line_angles(links, axis)).cos().mean(-1)
        found |= {f"p_{axis}": line.real, f"p2_{axis}": line.abs() ** 2, f"psq_{axis}": square}
    return {name: x.numpy() for name, x in found.items()}


def gauge_definitions(shape: tuple[int, ...]) -> dict[str, Definition]:
    """The observables of links on this torus, by name, as `lattice.observables.scalar.definitions`."""
    volume, loops = math.prod(shape), fitting(shape)

    def ratio(x: Any) -> float:
        return creutz(float(x[0]), float(x[1]), float(x[2]))

    no_ratio = "undefined: W = {0:.3g}, {1:.3g}, {2:.3g} are not all of one sign"
    out: dict[str, Definition] = {"plaquette": (("w1x1",), None, "")}
    out |= {f"wilson_{a}x{b}": ((f"w{a}x{b}",), None, "") for a, b in loops}
    for r in (2, 3):
        if (r, r) in loops:
            columns = (f"w{r}x{r}", f"w{r - 1}x{r - 1}", f"w{r - 1}x{r}")
            out[f"creutz_{r}x{r}"] = (columns, ratio, no_ratio)
    for axis in (0, 1):
        out |= {
            f"polyakov_{axis}": ((f"p_{axis}",), None, ""),
            f"polyakov2_{axis}": ((f"p2_{axis}",), None, ""),
            f"polyakov_sq_{axis}": ((f"psq_{axis}",), None, ""),
        }
    out |= {"charge": (("q",), None, ""), "charge2": (("q2",), None, "")}
    out["chi_top"] = (("q2",), lambda x: x[0] / volume, "")
    out["action_density"] = (("s",), None, "")
    return out

"""Symplectic integrators as data, driven by one loop.

A scheme is a palindrome of kicks p -= a eps dS/dphi and drifts phi += b eps p that begins and ends with a
kick. Schemes differ in their coefficients only; `schedule` unrolls a trajectory, merging the last kick of a
step with the first of the next, and both the compiled kernel and the tensor loop `evolve` run through that
one list.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lattice.errors import InputError, nearest


@dataclass(frozen=True)
class Scheme:
    """One step: kick a_0, drift b_0, kick a_1, ..., drift b_{m-1}, kick a_m, each times the step size."""

    name: str
    kicks: tuple[float, ...]
    drifts: tuple[float, ...]
    order: int
    source: str

    @property
    def force_evaluations(self) -> int:
        """Forces per step once the outer kicks of neighbouring steps are merged."""
        return len(self.drifts)


_OMF2 = 0.1931833275037836
_OMF4_KICK = (0.08398315262876693, 0.6822365335719091)
_OMF4_DRIFT = (0.2539785108410595, -0.03230286765269967)
_OMF4_KICK_MID = 0.5 - sum(_OMF4_KICK)
_OMF4_DRIFT_MID = 1.0 - 2.0 * sum(_OMF4_DRIFT)
SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("leapfrog", (0.5, 0.5), (1.0,), 2, "Duane, Kennedy, Pendleton, Roweth, PLB 195 (1987) 216"),
        Scheme(
            "omelyan2",
            (_OMF2, 1.0 - 2.0 * _OMF2, _OMF2),
            (0.5, 0.5),
            2,
            "Omelyan, Mryglod, Folk, PRE 65 (2002) 056706; Takaishi, de Forcrand, hep-lat/0505020",
        ),
        Scheme(
            "omelyan4",
            (*_OMF4_KICK, _OMF4_KICK_MID, _OMF4_KICK_MID, *_OMF4_KICK[::-1]),
            (*_OMF4_DRIFT, _OMF4_DRIFT_MID, *_OMF4_DRIFT[::-1]),
            4,
            "Omelyan, Mryglod, Folk, Comput. Phys. Commun. 151 (2003) 272, eqs. (63), (71)",
        ),
    )
}


def scheme(name: str) -> Scheme:
    """The scheme of that name; `InputError` names the nearest one otherwise.

    >>> scheme("omelyan4").force_evaluations
    5
    """
    if name not in SCHEMES:
        raise InputError(f"unknown integrator {name!r}{nearest(name, SCHEMES)}; known: {', '.join(SCHEMES)}")
    return SCHEMES[name]


def schedule(integrator: str, length: float, n_steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Kicks (m+1,) and drifts (m,) of a whole trajectory of `length` in `n_steps` steps, times included.

    >>> [values.tolist() for values in schedule("leapfrog", length=1.0, n_steps=2)]
    [[0.25, 0.5, 0.25], [0.5, 0.5]]
    """
    s = scheme(integrator)
    if not (math.isfinite(length) and length > 0):
        raise InputError(f"trajectory length must be a positive number, got {length}")
    if n_steps < 1:
        raise InputError(f"n_steps must be >= 1, got {n_steps}")
    eps, m = length / n_steps, len(s.drifts)
    kicks = np.zeros(n_steps * m + 1)
    for step in range(n_steps):
        kicks[step * m : (step + 1) * m + 1] += s.kicks
    return eps * kicks, eps * np.tile(s.drifts, n_steps)


def evolve(
    grad: Callable[[Tensor], Tensor],
    phi: Tensor,
    p: Tensor,
    *,
    length: float,
    n_steps: int,
    integrator: str = "omelyan2",
    velocity: Callable[[Tensor], Tensor] = lambda p: p,
) -> tuple[Tensor, Tensor]:
    """Molecular dynamics of H = T(p) + S: phi, p (n, *shape) -> (phi', p'), `grad` = dS/dphi.

    `velocity` = dT/dp; by default p, as T = p^2/2 has it.
    """
    kicks, drifts = schedule(integrator, length, n_steps)
    for kick, drift in zip(kicks[:-1], drifts, strict=True):
        p = p - float(kick) * grad(phi)
        phi = phi + float(drift) * velocity(p)
    return phi, p - float(kicks[-1]) * grad(phi)

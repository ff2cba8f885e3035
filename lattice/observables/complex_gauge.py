r"""Observables of complexified two-dimensional U(1): loops and the smooth charge, with their exact values.

    plaquette         <cos theta_p>                 smooth_charge       <Q_s>, Q_s = sum_p sin theta_p/2pi
    sine              <sin theta_p>                 smooth_charge2      <Q_s^2>
    wilson_2x2        <cos> of the sum around 2 x 2 plaquettes
    Schwinger-Dyson   <U_p (i K_p - 4)> = 0,        susceptibility      (<Q_s^2> - <Q_s>^2)/V
                      U_p = e^{i theta_p}

Holomorphic functions of complex theta_p that are invariant under complex gauge transformations; K_p is the
sum of the drift K = -S' around the plaquette. Averages over plaquettes; conventions of `lattice.actions.u1`,
exact values from `lattice.exact.u1_theta`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lattice.actions.u1 import U1, circulation
from lattice.arrays import Complexes
from lattice.exact.u1_theta import averages, wilson_loop
from lattice.observables.gauge import loop_angles

SERIES = ("plaquette", "sine", "wilson_2x2", "smooth_charge", "smooth_charge2", "Schwinger-Dyson")
ROUNDING = 1e-12  # of the larger part of a value
NAMES = (*SERIES, "susceptibility")


def gauge_series(action: U1, z: Complexes) -> tuple[tuple[str, ...], Complexes, Callable[[Any], Any]]:
    """NAMES, the series (n, 6) of SERIES for links z (n, 2, L0, L1), and means (..., 6) -> numbers (..., 7).

    Raises `InputError` for another shape.

    >>> names, series, _ = gauge_series(U1(2.0), np.zeros((1, 2, 4, 4), complex))
    >>> dict(zip(names, series[0].real.tolist()))["plaquette"]
    1.0
    """
    links = torch.from_numpy(np.ascontiguousarray(z))
    square, angle = loop_angles(links, 2, 2), circulation(links)
    charge = angle.sin().sum((-1, -2)) / (2 * math.pi)
    turn = (1j * angle).exp() * (-1j * circulation(action.grad(links)) - 4)
    columns = (_mean(angle.cos()), _mean(angle.sin()), _mean(square.cos()), charge, charge**2, _mean(turn))
    volume = math.prod(z.shape[2:])

    def of_means(m: Any) -> Any:
        spread = (m[..., 4:5] - m[..., 3:4] ** 2) / volume
        return np.concatenate([m, spread], axis=-1)

    return NAMES, np.stack([column.numpy() for column in columns], axis=1), of_means


def gauge_exact(action: U1, shape: tuple[int, ...]) -> dict[str, complex]:
    """The exact values by name; `InputError` where the partition function vanishes.

    >>> round(gauge_exact(U1(5.0, math.pi), (8, 8))["smooth_charge"].imag, 5)
    0.29979
    """
    volume, couplings = math.prod(shape), (action.beta, action.theta)
    known = averages(*couplings, volume)
    square = sum(wilson_loop(*couplings, volume, 4, sign) for sign in (1, -1)) / 2
    values = (known.cosine, known.sine, square, known.charge, known.charge2, 0.0, known.susceptibility)
    return {name: _cut(complex(value)) for name, value in zip(NAMES, values, strict=True)}


def _cut(value: complex) -> complex:
    """Zero for a part that is rounding."""
    real, imag = (0.0 if abs(x) < ROUNDING * max(abs(value), 1e-3) else x for x in (value.real, value.imag))
    return complex(real, imag)


def _mean(density: Tensor) -> Tensor:
    return density.mean((-1, -2))

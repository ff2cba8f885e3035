r"""Which steps can follow a drift: known from its stiffness, before a chain has run away.

Near a field the drift of Langevin is linear, dz = -lambda (z - z_0) dt with lambda = S'', and a step of size
h multiplies a deviation by

    1 - a (euler)        1 - a + a^2/2 (heun),        a = h lambda.

Where this is larger than 1 and Re lambda > 0 a step makes grow what the drift makes smaller: whatever the
statistics, the process is not the one that was asked for.  HMC is stable for h < 2/sqrt(lambda).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lattice.actions.protocol import Action

LEADING = 0.36  # h |lambda| up to which the error of averages is that of the leading order
ACCURATE = LEADING / 12.0  # of a step whose larger ones, 12 times as large, still are


def stiffness(action: Action, phi: NDArray[Any]) -> NDArray[Any]:
    """S'' of the stiffest waves, smooth or alternating, at each site of fields phi (n, *components, *shape).

    Of one site it is the derivative of S'; of a lattice the derivative along phi_x -> phi_x + eps s_x, with
    s_x = 1 or (-1)^x, the larger of the two.

    >>> from lattice.actions.phi4 import ScalarPhi4
    >>> float(stiffness(ScalarPhi4(0.2, 0.0), np.zeros((1, 4, 4)))[0, 0, 0].round(6))        # 2 + 4 kappa d
    3.6
    """
    at = torch.from_numpy(np.ascontiguousarray(phi))
    lattice = phi.shape[1 + len(action.components) :]
    # links that alternate alike are pure gauge: the stiffest wave alternates with their direction too
    waves = (*action.components, *lattice) if action.field == "angle" else lattice
    alternating = 1.0 - 2.0 * (np.indices(waves).sum(axis=0) % 2)
    eps, now, found = 1e-6 * (1.0 + np.abs(phi)), action.grad(at).numpy(), []
    for signs in (np.ones(waves), alternating):
        step = eps * signs
        found.append((action.grad(at + torch.from_numpy(step)).numpy() - now) / step)
    return np.asarray(np.where(np.abs(found[1]) > np.abs(found[0]), found[1], found[0]))


def growth(a: Any, heun: bool) -> Any:
    """|z'/z| of a step without noise, a = h lambda.

    >>> growth(2.0, heun=False), growth(2.0, heun=True), round(growth(0.5 + 0.5j, heun=True), 3)
    (1.0, 1.0, 0.559)
    """
    return abs(1.0 - a + (0.5 * a * a if heun else 0.0))


def unstable(lam: NDArray[Any], step: float, heun: bool) -> bool:
    """Whether more than half of the sites grow by a step where their drift leads back."""
    return bool(np.mean((lam.real > 0) & (growth(step * lam, heun) > 1.0)) > 0.5)


def largest_step(lam: NDArray[Any], step: float, heun: bool) -> float:
    """The largest step below an `unstable` one that is not, to 5 %."""
    while unstable(lam, step, heun):
        step /= 1.05
    return step


def typical(lam: NDArray[Any]) -> float:
    """|lambda| that nine of ten sites stay below."""
    return float(np.quantile(np.abs(lam), 0.9))


def two_digits(x: float) -> float:
    """x > 0, rounded down to two digits.

    >>> two_digits(2.19e-5), two_digits(0.3)
    (2.1e-05, 0.3)
    """
    unit = 10.0 ** (math.floor(math.log10(x)) - 1)
    return float(f"{math.floor(x / unit * (1 + 1e-12)) * unit:.2g}")

"""Extrapolation of averages to vanishing step size, with errors and the quality of the fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special
from einops import rearrange

from lattice.arrays import Floats, real_array
from lattice.errors import InputError

MIN_CHAINS, MIN_P_VALUE = 16, 1e-3  # fewer chains give no error worth fitting with


@dataclass(frozen=True)
class Extrapolation:
    """value(error) at step 0, slopes (order,) of h, h^2, ... with their errors, and how well the fit is.

    trusted is False where p_value < 1e-3 or the starts disagree; `reason` then says so ("" otherwise).
    """

    value: float
    error: float
    slopes: tuple[float, ...]
    slope_errors: tuple[float, ...]
    chi2: float
    dof: int
    p_value: float
    trusted: bool
    reason: str


def extrapolate_step(
    steps: Sequence[float] | Floats, values: Sequence[float] | Floats, errors: Sequence[float] | Floats,
    order: int = 1,
) -> Extrapolation:  # fmt: skip
    """Weighted least squares of value + slope_1 h + ... + slope_order h^order to independent points.

    Raises `InputError` for numbers that are not finite, steps that are not positive and distinct, errors
    that are not positive, order < 1, and fewer points than parameters + 1 (nothing would test the fit).

    >>> fit = extrapolate_step([0.1, 0.2, 0.3], [1.1, 1.2, 1.3], [0.01, 0.01, 0.01])
    >>> round(fit.value, 12), round(fit.slopes[0], 12), fit.dof, fit.trusted
    (1.0, 1.0, 1, True)
    """
    h, y, e = (real_array(x, name) for name, x in (("steps", steps), ("values", values), ("errors", errors)))
    if order < 1:
        raise InputError(f"order of the extrapolation must be >= 1, got {order}")
    if not (h.ndim == 1 and h.shape == y.shape == e.shape):
        raise InputError(f"steps, values, errors must be 1-d and alike, got {h.shape}, {y.shape}, {e.shape}")
    if len(h) < order + 2:
        raise InputError(f"an extrapolation of order {order} needs at least {order + 2} steps, got {len(h)}")
    for name, x in (("steps", h), ("values", y), ("errors", e)):
        if not np.isfinite(x).all():
            raise InputError(f"{name} of an extrapolation must be finite, got {x.tolist()}")
    if not h.min() > 0 or len(set(h.tolist())) < len(h):
        raise InputError(f"steps of an extrapolation must be positive and distinct, got {h.tolist()}")
    if not e.min() > 0:
        raise InputError(f"errors of an extrapolation must be positive, got {e.tolist()}")
    unit = h.max() ** np.arange(order + 1)  # powers of h/h_max keep the fit well conditioned
    design = np.vander(h / h.max(), order + 1, increasing=True) / rearrange(e, "step -> step 1")
    inverse = np.linalg.pinv(design)
    best = inverse @ (y / e)
    chi2, dof = float(((design @ best - y / e) ** 2).sum()), len(h) - order - 1
    coefficients, deviations = best / unit, np.sqrt((inverse**2).sum(axis=1)) / unit
    p = float(scipy.special.chdtrc(dof, chi2))
    reason = "" if p >= MIN_P_VALUE else (
        f"chi2/dof = {chi2:.1f}/{dof} (p = {p:.1e}): not a polynomial of order {order} in these steps; "
        f"use smaller steps or a higher order"
    )  # fmt: skip
    return Extrapolation(
        float(coefficients[0]), float(deviations[0]), tuple(coefficients[1:].tolist()),
        tuple(deviations[1:].tolist()), chi2, dof, p, not reason, reason,
    )  # fmt: skip

"""Moments and cumulants of one variable, real or complex, with errors: the rows of a toy run's table.

Laws here are symmetric under z -> -z. The odd moments then vanish and are given that value instead of their
sample values, in the cumulants too (see `lattice.statistics.cumulants.cumulant_ratio_z2`). Errors are
jackknife errors over blocks: whole chains of a Markov chain, consecutive samples of an independent one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lattice.arrays import Complexes, Floats
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.statistics.blocks import jackknife_errors
from lattice.statistics.cumulants import cumulants_from_moments, moments_from_cumulants
from lattice.statistics.notation import format_value

ORDERS = (2, 4, 6, 8)
N_BLOCKS = 256
MIN_BLOCKS = 16
ROUNDING = 1e-12  # of quadrature
TAUS = 20  # of 2 tau_int in a block of a Metropolis chain, at least


def variable(phi: Floats) -> Floats | Complexes:
    """z (n,) of stored fields: phi (n, 1) as it is, phi (n, 2) as x + iy."""
    return phi[:, 0] if phi.shape[1] == 1 else phi[:, 0] + 1j * phi[:, 1]


def blocks_of(ensemble: Ensemble) -> NDArray[np.int64]:
    """The jackknife block (n,) of every configuration: chains in groups, or runs of one chain's samples.

    Raises `InputError` for fewer than 16 configurations.
    """
    chains, index = np.unique(ensemble.chain, return_inverse=True)
    if len(chains) >= MIN_BLOCKS:
        return np.asarray(index * min(N_BLOCKS, len(chains)) // len(chains))
    if len(ensemble) < MIN_BLOCKS:
        raise InputError(f"{len(ensemble)} configurations are too few for errors; {MIN_BLOCKS} or more")
    a = (ensemble.attrs.get("about") or {}).get("acceptance", 1.0)
    long = int(len(ensemble) * a / (2 - a) / TAUS)  # independence Metropolis: 2 tau_int = (2 - a)/a
    blocks = max(MIN_BLOCKS, min(N_BLOCKS, long if a < 1 else len(ensemble)))
    return np.asarray(np.arange(len(ensemble)) * blocks // len(ensemble))


def estimates(
    z: Floats | Complexes, block: NDArray[np.int64], noise2: float = 0.0, weight: Floats | None = None
) -> dict[str, dict[str, Any]]:
    """m2...m8 and kappa2...kappa8 of z (n,): {"value": [re, im], "error": [re, im]}, errors from blocks (n,).

    noise2: variance of Gaussian noise in z, taken off kappa2 (the moments are then those without it).
    Raises `InputError` where a number is not finite.

    >>> found = estimates(np.array([1.0, -1.0] * 64), np.arange(128) // 4)
    >>> found["kappa4"]["value"], found["kappa4"]["error"]
    ([-2.0, 0.0], [0.0, 0.0])
    """
    if not np.isfinite(z).all():
        raise InputError(f"{int((~np.isfinite(z)).sum())} of {len(z)} samples are NaN or infinite")
    w = np.ones(len(z)) if weight is None else weight
    n_blocks = int(block.max()) + 1
    sums = np.zeros((n_blocks, ORDERS[-1]), dtype=np.complex128)
    total = np.bincount(block, weights=w, minlength=n_blocks)
    for order in ORDERS:
        power = w * z**order
        sums[:, order - 1] = np.bincount(block, weights=power.real, minlength=n_blocks)
        if np.iscomplexobj(power):
            sums[:, order - 1] += 1j * np.bincount(block, weights=power.imag, minlength=n_blocks)
    central = _numbers(sums.sum(0) / total.sum(), noise2)
    left_out = _numbers((sums.sum(0) - sums) / (total.sum() - total)[:, None], noise2)
    error = [jackknife_errors(part) for part in (left_out.real, left_out.imag)]
    return {
        name: {"value": [float(v.real), float(v.imag)], "error": [float(error[0][i]), float(error[1][i])]}
        for i, (name, v) in enumerate(zip(NAMES, central, strict=True))
    }


NAMES = tuple(f"{kind}{order}" for kind in ("m", "kappa") for order in ORDERS)


def _numbers(moments: Complexes, noise2: float) -> Complexes:
    """m2...m8 and kappa2...kappa8, (..., 8), of raw moments (..., 8) with Gaussian noise removed."""
    kappa = cumulants_from_moments(moments)
    if noise2:
        kappa[..., 1] -= noise2
        moments = np.asarray(moments_from_cumulants(kappa))
    even = [order - 1 for order in ORDERS]
    return np.concatenate([moments[..., even], kappa[..., even]], -1)


def exact_numbers(action: Any) -> dict[str, list[float]]:
    """The same numbers by quadrature: name -> [re, im], zero where they are rounding."""
    from lattice.exact.one_variable import toy_cumulants, toy_moments

    kappa = toy_cumulants(action, ORDERS[-1])
    values = np.concatenate([toy_moments(action, ORDERS), kappa[[order - 1 for order in ORDERS]]])
    pairs = np.stack([values.real, values.imag], 1)
    pairs[np.abs(pairs) < ROUNDING] = 0.0
    return dict(zip(NAMES, pairs.tolist(), strict=True))


def parts(name: str, is_complex: bool) -> list[tuple[str, int]]:
    """The rows of a name: (label, 0) for the real and (label, 1) for the imaginary part.

    >>> parts("kappa4", True), parts("m2", False)
    ([('Re kappa4', 0), ('Im kappa4', 1)], [('m2', 0)])
    """
    return [(f"Re {name}", 0), (f"Im {name}", 1)] if is_complex else [(name, 0)]


def show(entry: dict[str, Any], part: int) -> str:
    """value(error) of the real (0) or imaginary (1) part."""
    return format_value(entry["value"][part], entry["error"][part])

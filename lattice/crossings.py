"""Crossings of a scan's curves: from the results of `lattice.scan` to kappa_x(L1, L2) and kappa_c.

Dimensionless quantities only: "binder" is U_L, "xi_over_L" is xi_2nd/L; both tend to a step at kappa_c, and
their curves for two sizes cross near it. Certified points on lattices with equal extents are used.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lattice.errors import InputError
from lattice.notation import format_value
from lattice.scaling import (
    INVERSE_NU,
    MIN_POINTS,
    OMEGA,
    Crossing,
    CurveFit,
    crossing,
    extrapolate,
    fit_curve,
)
from lattice.scan_table import CERTIFIED

Curves = dict[int, list[tuple[float, float, float]]]
QUANTITIES = {"binder": "binder", "xi_over_L": "xi_2nd"}  # quantity -> the observable it is made of
MIN_PAIRS = 3  # (L, 2L) pairs needed for an extrapolation that tests itself
_BAD = 0.05


def dimensionless(result: Mapping[str, Any], quantity: str = "binder") -> tuple[float, float] | None:
    """(value, error) of "binder" or "xi_over_L" (xi_2nd over the longest extent); None where undefined."""
    if quantity not in QUANTITIES:
        raise InputError(f"a scan is crossed in {' or '.join(QUANTITIES)}, got {quantity!r}")
    divisor = 1 if quantity == "binder" else max(result["request"]["shape"])
    entry = result.get("observables", {}).get(QUANTITIES[quantity])
    if entry is None or entry["value"] is None or entry["error"] is None:
        return None
    return entry["value"] / divisor, entry["error"] / divisor


def scan_curves(
    results: Sequence[Mapping[str, Any]], quantity: str = "binder"
) -> dict[tuple[int, float], Curves]:
    """{(dimension, lam): {L: [(kappa, value, error), ...] sorted by kappa}} of the certified points."""
    groups: dict[tuple[int, float], Curves] = {}
    for result in results:
        shape = result["request"]["shape"]
        pair = dimensionless(result, quantity) if result["status"] == CERTIFIED else None
        if pair is None or len(set(shape)) != 1 or not pair[1] > 0:
            continue
        action = result["request"]["action"]
        curves = groups.setdefault((len(shape), action["lam"]), {})
        curves.setdefault(shape[0], []).append((action["kappa"], *pair))
    return {key: {n: sorted(curve) for n, curve in sorted(group.items())} for key, group in groups.items()}


def binder_crossings(results: Sequence[Mapping[str, Any]], quantity: str = "binder") -> list[dict[str, Any]]:
    """Crossings of all pairs of sizes with at least 3 certified kappas each, one block per dimension and lam.

    {"quantity", "dim", "lam", "fits": [{"L", "order", "chi2", "dof", "p_value", "n_dropped", "kappas",
    "centre", "scale", "coefficients", "covariance"}], "pairs": [{"L": [L1, L2], "kappa", "kappa_error",
    "value", "value_error", "correlation"} or {"L", "reason"}], "limit": see `_limit`, or None}
    """
    blocks = []
    for (dim, lam), group in scan_curves(results, quantity).items():
        curves = {n: curve for n, curve in group.items() if len({kappa for kappa, *_ in curve}) >= MIN_POINTS}
        if len(curves) < 2:
            continue
        fits = _fits(curves)
        found, pairs = _pairs(fits)
        blocks.append({
            "quantity": quantity, "dim": dim, "lam": lam,
            "fits": [_fit_json(fit) for fit in fits.values()], "pairs": pairs,
            "limit": _limit(found, fits) if dim == 2 else None,
        })  # fmt: skip
    return blocks


def curve_fit(block: Mapping[str, Any]) -> CurveFit:
    """The `CurveFit` of one entry of "fits"."""
    return CurveFit(
        block["L"], block["centre"], block["scale"], np.array(block["coefficients"]),
        np.array(block["covariance"]), block["chi2"], block["dof"], tuple(block["kappas"]),
        block["n_dropped"],
    )  # fmt: skip


def _fits(curves: Curves) -> dict[int, CurveFit]:
    """Fit twice: a poor fit of all points may lose those far from where its curve meets the others."""
    every = [kappa for curve in curves.values() for kappa, _, _ in curve]
    centre, scale = (min(every) + max(every)) / 2, (max(every) - min(every)) / 2
    near: dict[int, float | None] = dict.fromkeys(curves)
    fits: dict[int, CurveFit] = {}
    for _ in range(2):
        fits = {n: fit_curve(n, *zip(*curve), centre=centre, scale=scale, near=near[n])
                for n, curve in curves.items()}  # fmt: skip
        found, _pair = _pairs(fits)
        for n in curves:
            met = [c.kappa for c in found if n in c.lengths]
            near[n] = float(np.median(met)) if met else None
    return fits


def _pairs(fits: Mapping[int, CurveFit]) -> tuple[list[Crossing], list[dict[str, Any]]]:
    found: list[Crossing] = []
    rows: list[dict[str, Any]] = []
    for small, large in itertools.combinations(sorted(fits), 2):
        try:
            c = crossing(fits[small], fits[large])
        except InputError as error:
            rows.append({"L": [small, large], "reason": str(error)})
            continue
        found.append(c)
        rows.append({"L": [small, large], "kappa": c.kappa, "kappa_error": c.kappa_error, "value": c.value,
                     "value_error": c.value_error, "correlation": c.correlation})  # fmt: skip
    return found, rows


def _limit(found: Sequence[Crossing], fits: Mapping[int, CurveFit]) -> dict[str, Any] | None:
    """kappa_c and the limit of the crossing values, from the (L, 2L) pairs, two-dimensional Ising exponents.

    None with fewer than three such pairs. The smallest pairs are left out while the fit of kappa_x is bad
    (p < 0.05) and two remain. {"L": sizes used, "kappa": fit, "value": fit (see `scaling.extrapolate`),
    "kappa_spread", "value_spread": change of the limits when the smallest pair used is left out or, with two
    pairs, when the limit is the largest pair itself: the size of what the assumed exponents leave open,
    "kappa_error", "value_error": statistical error and spread in quadrature}
    """
    pairs = sorted((c for c in found if c.lengths[1] == 2 * c.lengths[0]), key=lambda c: c.lengths)
    if len(pairs) < MIN_PAIRS:
        return None
    powers = (INVERSE_NU + OMEGA, OMEGA)
    while len(pairs) > 2 and extrapolate(pairs, fits, powers[0], 0)["p_value"] < _BAD:
        pairs = pairs[1:]
    block: dict[str, Any] = {"L": [c.lengths[0] for c in pairs]}
    for column, name in enumerate(("kappa", "value")):
        fit = extrapolate(pairs, fits, powers[column], column)
        fewer = extrapolate(pairs[1:], fits, powers[column], column)["limit"] if len(pairs) > 2 else (
            pairs[-1].kappa, pairs[-1].value)[column]  # fmt: skip
        spread = abs(fit["limit"] - fewer)
        block |= {name: fit, f"{name}_spread": spread, f"{name}_error": math.hypot(fit["error"], spread)}
    return block


def _fit_json(fit: CurveFit) -> dict[str, Any]:
    return {"L": fit.length, "order": fit.order, "chi2": fit.chi2, "dof": fit.dof, "p_value": fit.p_value,
            "n_dropped": fit.n_dropped, "kappas": list(fit.kappas), "centre": fit.centre, "scale": fit.scale,
            "coefficients": fit.coefficients.tolist(), "covariance": fit.covariance.tolist()}  # fmt: skip


def format_crossings(block: Mapping[str, Any]) -> str:
    """One block of `binder_crossings` as text: the fits, the crossings, and the extrapolation."""
    symbol = {"binder": "U", "xi_over_L": "(xi/L)"}[block["quantity"]]
    lines = [f"crossings of {symbol}(kappa), lam = {block['lam']:g}, polynomial fits:"]
    for fit in block["fits"]:
        lost = f", {fit['n_dropped']} outermost points left out" if fit["n_dropped"] else ""
        lines.append(f"  L = {fit['L']:<4} order {fit['order']}, chi2/dof = {fit['chi2']:.1f}/{fit['dof']} "
                     f"(p = {fit['p_value']:.2g}){lost}")  # fmt: skip
    for pair in block["pairs"]:
        text = pair["reason"] if "reason" in pair else (
            f"kappa_x = {format_value(pair['kappa'], pair['kappa_error'])}, {symbol}_x = "
            f"{format_value(pair['value'], pair['value_error'])}, correlation {pair['correlation']:+.2f}")
        lines.append(f"  {'{} x {}'.format(*pair['L']):<9} {text}")
    limit = block["limit"]
    if limit is None:
        return "\n".join([*lines, f"  no extrapolation: it takes {MIN_PAIRS} pairs (L, 2L) and d = 2"])
    for key, name in (("kappa", "kappa_c"), ("value", f"{symbol}*")):
        fit = limit[key]
        lines.append(
            f"  {name} = {format_value(fit['limit'], limit[f'{key}_error'])} (statistics {fit['error']:.2g}, "
            f"extrapolation {limit[f'{key}_spread']:.2g}), assuming L^-{fit['power']:g} for L = "
            f"{', '.join(map(str, limit['L']))} with 2L, chi2/dof = {fit['chi2']:.1f}/{fit['dof']}"
        )
    return "\n".join(lines)

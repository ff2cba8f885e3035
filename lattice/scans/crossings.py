"""Crossings of a scan's curves: from the results of `lattice.scans.scan` to kappa_x(L1, L2) and kappa_c.

Dimensionless quantities only: "binder" is U_L, "xi_over_L" is xi_2nd/L; both tend to a step at kappa_c, and
their curves for two sizes cross near it. Certified points on lattices with equal extents are used.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lattice.errors import InputError
from lattice.scans import scaling
from lattice.scans.scaling import INVERSE_NU, MIN_POINTS, OMEGA, Crossing, CurveFit
from lattice.scans.table import CERTIFIED, axis_of, fixed_of, in_words
from lattice.statistics.notation import format_value

Curves = dict[int, list[tuple[float, float, float]]]
Group = tuple[int, str, tuple[tuple[str, Any], ...]]
QUANTITIES = {"binder": "binder", "xi_over_L": "xi_2nd"}  # quantity -> the observable it is made of
# At kappa_c of the 2D Ising class on the square torus (J. Salas, A. D. Sokal, J. Stat. Phys. 98 (2000) 551)
ISING = {"binder": 0.61069, "xi_over_L": 0.905049}
MIN_SIZES = 2  # (L, 2L) pairs, or sizes, of an extrapolation; from three on chi2 tests the exponents
VALUE_POWERS = OMEGA  # U_x = U* + b L^-omega
KAPPA_POWERS = (INVERSE_NU + OMEGA[0], INVERSE_NU + OMEGA[1])  # kappa_x = kappa_c + a L^-(1/nu + omega)
_OF_FIT = ("chi2", "dof", "n_dropped", "kappas", "centre", "scale", "coefficients", "covariance")
_OF_CROSSING = ("kappa", "kappa_error", "value", "value_error", "correlation")
_BAD = 0.05
_SLOWEST = 0.5  # an observed exponent below this is not one of a series that converges
_FAILURES = (InputError, np.linalg.LinAlgError, ArithmeticError)


def dimensionless(result: Mapping[str, Any], quantity: str = "binder") -> tuple[float, float] | None:
    """(value, error) of "binder" or "xi_over_L" (xi_2nd over the longest extent); None where undefined."""
    if quantity not in QUANTITIES:
        raise InputError(f"a scan is crossed in {' or '.join(QUANTITIES)}, got {quantity!r}")
    divisor = 1 if quantity == "binder" else max(result["request"]["shape"])
    entry = result.get("observables", {}).get(QUANTITIES[quantity])
    if entry is None or entry["value"] is None or entry["error"] is None:
        return None
    return entry["value"] / divisor, entry["error"] / divisor


def scan_curves(results: Sequence[Mapping[str, Any]], quantity: str = "binder") -> dict[Group, Curves]:
    """{(dimension, axis, other couplings): {L: [(kappa, value, error), ...] sorted by kappa}} of the
    certified points; kappa stands for the coupling of the axis, of spins the temperature."""
    groups: dict[Group, Curves] = {}
    for result in results:
        shape = result["request"]["shape"]
        pair = dimensionless(result, quantity) if result["status"] == CERTIFIED else None
        action = result["request"]["action"]
        if pair is None or len(set(shape)) != 1 or not pair[1] > 0 or axis_of(action) not in action:
            continue
        axis, kind = axis_of(action), str(action.get("kind", "phi4"))
        key = (len(shape), axis, tuple({"kind": kind, **fixed_of(action)}.items()))
        curves = groups.setdefault(key, {})
        curves.setdefault(shape[0], []).append((action[axis], *pair))
    return {key: {n: sorted(curve) for n, curve in sorted(group.items())} for key, group in groups.items()}


def binder_crossings(results: Sequence[Mapping[str, Any]], quantity: str = "binder") -> list[dict[str, Any]]:
    """Crossings of all pairs of sizes with at least 3 certified kappas each, one block per dimension, axis
    and other couplings. "kappa" below is the coupling of the axis, of spins the temperature.

    {"quantity", "dim", "axis", "fixed" and, of phi^4, "lam", "fits": [{"L", "order", "chi2", "dof",
    "p_value", "n_dropped", "kappas", "centre", "scale", "coefficients", "covariance"}], "pairs": [{"L": [L1,
    L2], "kappa", "kappa_error", "value", "value_error", "correlation"} or {"L", "reason"}],
    "limit": {"kappa": fit, "value": fit} or None: crossings of (L, 2L) for L to infinity, which take nothing
    as known but the range of exponents; the limit of "value" is a result, to be held against ISING,
    "universal": {"level", "sizes", "kappa": fit} or None: where the curves take the value ISING, which is
    an input to this kappa_c; a fit is that of `_to_infinity`,
    "problems": {"fits" | "limit" | "universal": reason}: what could not be computed, empty as a rule}
    """
    blocks = []
    for (dim, axis, couplings), group in scan_curves(results, quantity).items():
        curves = {n: curve for n, curve in group.items() if len({kappa for kappa, *_ in curve}) >= MIN_POINTS}
        fixed = {name: value for name, value in couplings if name != "kind"}
        ising = dim == 2 and dict(couplings)["kind"] != "potts" and not fixed.get("h")
        if len(curves) >= 2:
            about = {"quantity": quantity, "dim": dim, "axis": axis, "fixed": fixed, "ising": ising}
            about |= {"lam": fixed["lam"]} if "lam" in fixed else {}
            blocks.append({**about, **_block(curves, quantity, ising)})
    return blocks


def _block(curves: Curves, quantity: str, ising: bool) -> dict[str, Any]:
    """Each part on its own: one that cannot be computed leaves its reason and the others."""
    block: dict[str, Any] = {"fits": [], "pairs": [], "limit": None, "universal": None, "problems": {}}
    try:
        fits = _fits(curves)
        found, pairs = _pairs(fits)
        block |= {"fits": [_fit_json(fit) for fit in fits.values()], "pairs": pairs}
    except _FAILURES as error:
        block["problems"]["fits"] = _reason(error)
        return block
    parts: dict[str, Callable[[], dict[str, Any] | None]] = {
        # the crossings of xi/L nearly coincide far from their limit: their spread would not say how far
        "limit": lambda: _limit(found, fits) if quantity == "binder" else None,
        "universal": lambda: _universal(quantity, fits)}  # fmt: skip
    for part, compute in parts.items():
        try:
            block[part] = compute() if ising else None
        except _FAILURES as error:
            block["problems"][part] = _reason(error)
    return block


def _reason(error: Exception) -> str:
    return " ".join(f"{'' if isinstance(error, InputError) else type(error).__name__} {error}".split())


def _fit_json(fit: CurveFit) -> dict[str, Any]:
    known = {name: np.asarray(getattr(fit, name)).tolist() for name in _OF_FIT}
    return {"L": fit.length, "order": fit.order, "p_value": fit.p_value, **known}


def curve_fit(block: Mapping[str, Any]) -> CurveFit:
    """The `CurveFit` of one entry of "fits"."""
    known = {name: block[name] for name in _OF_FIT} | {"kappas": tuple(block["kappas"])}
    arrays = {name: np.array(block[name]) for name in ("coefficients", "covariance")}
    return CurveFit(length=block["L"], **{**known, **arrays})


def _fits(curves: Curves) -> dict[int, CurveFit]:
    """Fit twice: a poor fit of all points may lose those far from where its curve meets the others."""
    every = [kappa for curve in curves.values() for kappa, _, _ in curve]
    centre, scale = (min(every) + max(every)) / 2, (max(every) - min(every)) / 2
    near: dict[int, float | None] = dict.fromkeys(curves)
    fits: dict[int, CurveFit] = {}
    for _ in range(2):
        fits = {n: scaling.fit_curve(n, *zip(*curve), centre=centre, scale=scale, near=near[n])
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
            c = scaling.crossing(fits[small], fits[large])
        except InputError as error:
            rows.append({"L": [small, large], "reason": str(error)})
            continue
        found.append(c)
        rows.append({"L": [small, large], **{name: getattr(c, name) for name in _OF_CROSSING}})
    return found, rows


def _limit(found: Sequence[Crossing], fits: Mapping[int, CurveFit]) -> dict[str, Any] | None:
    """kappa_c and the limit of the crossing values, from the (L, 2L) pairs; None with fewer than two."""
    pairs = sorted((c for c in found if c.lengths[1] == 2 * c.lengths[0]), key=lambda c: c.lengths)
    if len(pairs) < MIN_SIZES:
        return None
    sizes = [c.lengths[0] for c in pairs]
    kappas, values = [c.kappa for c in pairs], [c.value for c in pairs]
    covariances = [scaling.crossing_covariance(pairs, fits, column) for column in (0, 1)]
    return {"kappa": _to_infinity(sizes, kappas, covariances[0], KAPPA_POWERS),
            "value": _to_infinity(sizes, values, covariances[1], VALUE_POWERS)}  # fmt: skip


def _universal(quantity: str, fits: Mapping[int, CurveFit]) -> dict[str, Any] | None:
    """kappa_c from where each curve takes the universal value that its class has at kappa_c; None with fewer
    than two sizes. The shift is again ~ L^-(1/nu + omega), but smaller than that of the crossings."""
    rows = []
    for length, fit in fits.items():
        with contextlib.suppress(InputError):
            rows.append((length, *scaling.level(fit, ISING[quantity])))
    if len(rows) < MIN_SIZES:
        return None
    sizes, kappas, errors = (list(column) for column in zip(*rows))
    kappa = _to_infinity(sizes, kappas, np.diag(np.square(errors)), KAPPA_POWERS)
    return {"level": ISING[quantity], "kappa": kappa,
            "sizes": [{"L": n, "kappa": k, "kappa_error": e} for n, k, e in rows]}  # fmt: skip


def _to_infinity(
    sizes: Sequence[int], values: Sequence[float], covariance: Any, powers: tuple[float, float]
) -> dict[str, Any]:
    """`scaling.extrapolate` over a range of exponents.

    The limit is computed with the exponent at either end of the range: "limits". "limit" is their mean,
    "error" the larger of their statistical errors, "spread" half of their difference, which is the
    systematic error of not knowing the exponent; "total_error" has both in quadrature. A true exponent inside
    the range is thus covered. When the exponent observed at the largest sizes is below the range by more than
    two of its errors, the range begins there ("warning" says so). The smallest sizes are left out while chi2
    rejects (p < 0.05) either end and more than two remain; "chi2" and "p_value" are of the worse end, "L" the
    sizes used, "powers" the range, "effective" the exponents observed (`_effective`, of all sizes).
    """
    effective = _effective(sizes, values, covariance)
    slow = bool(effective) and effective[-1]["power"] + 2 * effective[-1]["error"] < powers[0]
    if slow:
        powers = (max(effective[-1]["power"], _SLOWEST), powers[1])
    for first in range(len(sizes) - MIN_SIZES + 1):
        used, y, c = sizes[first:], np.array(values[first:]), np.asarray(covariance)[first:, first:]
        ends = [scaling.extrapolate(used, y, c, power) for power in powers]
        if min(end["p_value"] for end in ends) >= _BAD:
            break
    limits, worse = [end["limit"] for end in ends], min(ends, key=lambda end: end["p_value"])
    error, spread = max(end["error"] for end in ends), abs(limits[1] - limits[0]) / 2
    words = ["two sizes cannot test the exponents"] if len(used) == MIN_SIZES else []
    words += ["the exponent observed is below the one expected: larger lattices are needed"] if slow else []
    return {"limit": sum(limits) / 2, "error": error, "spread": spread,
            "total_error": math.hypot(error, spread), "powers": list(powers), "limits": limits,
            "L": list(used), "chi2": worse["chi2"], "dof": worse["dof"], "p_value": worse["p_value"],
            "effective": effective, "warning": "; ".join(words) or None}  # fmt: skip


def _effective(sizes: Sequence[int], values: Sequence[float], covariance: Any) -> list[dict[str, Any]]:
    """The exponent observed in every three values at L, 2L, 4L: [{"L", "power", "error"}], where one is."""
    rows, place = [], {size: k for k, size in enumerate(sizes)}
    for size in sizes:
        three = [place[n] for n in (size, 2 * size, 4 * size) if n in place]
        if len(three) == 3:
            with contextlib.suppress(InputError):
                block = np.asarray(covariance)[np.ix_(three, three)]
                power, error = scaling.effective_exponent(np.asarray(values)[three], block)
                rows.append({"L": [size, 2 * size, 4 * size], "power": power, "error": error})
    return rows


def format_crossings(block: Mapping[str, Any]) -> str:
    """One block of `binder_crossings` as text: the fits, the crossings, and the extrapolation."""
    symbol = {"binder": "U", "xi_over_L": "(xi/L)"}[block["quantity"]]
    x = {"kappa": "kappa", "temperature": "T"}[block.get("axis", "kappa")]
    fixed = block.get("fixed", {"lam": block.get("lam")})
    lines = [f"crossings of {symbol}({x}), {in_words(fixed)}, polynomial fits:"]
    for fit in block["fits"]:
        lost = f", {fit['n_dropped']} outermost points left out" if fit["n_dropped"] else ""
        lines.append(f"  L = {fit['L']:<4} order {fit['order']}, chi2/dof = {fit['chi2']:.1f}/{fit['dof']} "
                     f"(p = {fit['p_value']:.2g}){lost}")  # fmt: skip
    for pair in block["pairs"]:
        text = pair.get("reason") or (
            f"{x}_x = {format_value(pair['kappa'], pair['kappa_error'])}, {symbol}_x = "
            f"{format_value(pair['value'], pair['value_error'])}, correlation {pair['correlation']:+.2f}"
        )
        lines.append(f"  {'{} x {}'.format(*pair['L']):<9} {text}")
    lines += [f"  {part} could not be computed: {why}" for part, why in block["problems"].items()]
    limit, universal = block["limit"], block["universal"]
    if limit is not None:
        lines.append("  from the crossings of L with 2L, for L to infinity:")
        lines += _limit_lines(f"{x}_c", limit["kappa"])
        lines += _limit_lines(f"{symbol}*", limit["value"])
        if block["quantity"] in ISING:
            lines.append(f"    (the 2D Ising class has {symbol}* = {ISING[block['quantity']]:.5f})")
    elif not block["problems"]:
        lines.append(f"  no extrapolation of the crossings: {_why_no_limit(block)}")
    if universal is not None:
        sizes = ", ".join(f"{format_value(s['kappa'], s['kappa_error'])} (L = {s['L']})"
                          for s in universal["sizes"])  # fmt: skip
        lines.append(f"  with {symbol}* = {universal['level']:.5f} of the 2D Ising class as input, "
                     f"{symbol} = {symbol}* at {x} = {sizes}:")  # fmt: skip
        lines += _limit_lines(f"{x}_c", universal["kappa"])
    return "\n".join(lines)


def _why_no_limit(block: Mapping[str, Any]) -> str:
    if not block.get("ising", True):
        return "its powers of L are those of the 2D Ising class, which this model is not of"
    if block["quantity"] != "binder":
        return "those of xi/L nearly coincide far from their limit"
    n = sum("reason" not in pair and pair["L"][1] == 2 * pair["L"][0] for pair in block["pairs"])
    return f"it takes {MIN_SIZES} pairs of sizes (L, 2L) whose curves cross, found {n}"


def _limit_lines(name: str, fit: Mapping[str, Any]) -> list[str]:
    chi2 = f", chi2/dof <= {fit['chi2']:.1f}/{fit['dof']}" if fit["dof"] else ""
    lines = [f"    {name} = {format_value(fit['limit'], fit['total_error'])} (statistics {fit['error']:.2g}, "
             f"L^-{fit['powers'][0]:.3g} to L^-{fit['powers'][1]:.3g} {fit['spread']:.2g}; "
             f"L = {', '.join(map(str, fit['L']))}{chi2})"]  # fmt: skip
    lines += [f"      observed exponent {format_value(row['power'], row['error'])} from L = "
              f"{', '.join(map(str, row['L']))}" for row in fit["effective"]]  # fmt: skip
    return lines + ([f"      warning: {fit['warning']}"] if fit["warning"] else [])

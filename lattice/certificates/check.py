"""What the checks of a certificate are made of: errors of chain means, the record of a check, and its text.

Chains are independent, so with eight or more of them the error of a mean comes from the scatter of the chain
means, whatever the autocorrelation, and a deviation is Student's t turned into the equivalent number of
normal standard deviations; with fewer chains the Gamma method (Wolff, hep-lat/0306017) gives the error.
"""

from __future__ import annotations

import math
from typing import Any

from lattice.arrays import Floats
from lattice.statistics.gamma import EstimatorError
from lattice.statistics.notation import format_value
from lattice.statistics.pulls import mean_of_chains, sigmas_of

GATE = 4.5  # standard deviations
# the per-configuration quantities of a certificate, with their symbols
SYMBOLS = {
    "magnetization": "M", "abs_magnetization": "|M|", "m2": "M^2", "action": "S", "action_density": "s",
    "phi2": "phi^2", "walls": "walls", "charge": "Q", "abs_charge": "|Q|", "charge2": "Q^2",
}  # fmt: skip
Check = dict[str, Any]


def make_check(
    name: str, value: float | None, error: float | None, expected: str, passed: bool, detail: str
) -> Check:
    """The record of a check, JSON data."""
    return {
        "name": name, "value": value, "error": error, "expected": expected, "passed": bool(passed),
        "detail": detail,
    }  # fmt: skip


def failed_check(name: str, expected: str, detail: str) -> Check:
    """A check that could not be made, or that has no number."""
    return make_check(name, None, None, expected, False, detail)


def equality(name: str, value: float, error: float, dof: float, expected: float, detail: str = "") -> Check:
    """The check that value(error) equals `expected` within the gate."""
    sigmas = sigmas_of(value - expected, error, dof, max(abs(value), abs(expected)))
    text = f"{sigmas:.1f} sigma" + (f"; {detail}" if detail else "")
    passed = math.isfinite(value) and sigmas <= GATE
    return make_check(name, value, error, f"{expected:g}", passed, text)


def mean_is(name: str, parts: list[Floats], expected: float, detail: str) -> Check:
    """The check that the mean of a series, one part per chain, is `expected`."""
    try:
        return equality(name, *mean_of_chains(parts), expected, detail)
    except EstimatorError as error:
        return failed_check(name, f"{expected:g}", str(error))


def format_certificate(certificate: dict[str, Any]) -> str:
    """The certificate as text for a terminal: a verdict, a line per check, and the autocorrelation times."""
    reason = f" ({certificate['reason']})" if certificate["reason"] else ""
    lines = [f"Certificate: {certificate.get('verdict') or _verdict(certificate)}{reason}"]
    if "n_chains" in certificate:
        lines.append(f"  {certificate['n']} configurations in {certificate['n_chains']} chains")
    for check in certificate["checks"]:
        value = "" if check["value"] is None else f"{check['value']:.4g}"
        value = format_value(check["value"], check["error"]) if check["error"] else value
        limit = f"limit {check['limit']}" if "limit" in check else f"expected {check['expected']}"
        line = f"  {_verdict(check)}  {check['name']:<26} {value:<16} {limit:<25} {check['detail']}"
        lines.append(line.rstrip())
    tau = certificate.get("tau_int", {})
    times = [f"{SYMBOLS[k]} {format_value(t['value'], t['error'])}" for k, t in tau.items() if k != "unit"]
    if times:
        lines.append(f"  tau_int (1/2 + sum rho): {', '.join(times)} in {tau['unit']}")
    if certificate.get("n_independent") is not None:
        lines.append(f"  independent configurations N/(2 tau_int): {certificate['n_independent']:.0f}")
    return "\n".join(lines)


def _verdict(record: dict[str, Any]) -> str:
    return "PASSED" if record["passed"] else "FAILED"

"""What the checks of a certificate are made of: two field functions, errors of chain means, and the record of
a check.

Chains are independent, so with eight or more of them the error of a mean comes from the scatter of the chain
means, whatever the autocorrelation, and a deviation is Student's t turned into the equivalent number of
normal standard deviations; with fewer chains the Gamma method (Wolff, hep-lat/0306017) gives the error.
"""

from __future__ import annotations

import math
from typing import Any

from lattice.statistics.notation import format_value
from lattice.statistics.pulls import sigmas_of

GATE = 4.5  # standard deviations
# the per-configuration quantities of a certificate, with their symbols
SYMBOLS = {
    "abs_magnetization": "|M|",
    "m2": "M^2",
    "action": "S",
    "action_density": "s",
    "phi2": "phi^2",
    "walls": "walls",
}
Check = dict[str, Any]


def equality(name: str, value: float, error: float, dof: float, expected: float, detail: str = "") -> Check:
    """The check that value(error) equals `expected` within the gate."""
    sigmas = sigmas_of(value - expected, error, dof)
    text = f"{sigmas:.1f} sigma" + (f"; {detail}" if detail else "")
    passed = math.isfinite(value) and sigmas <= GATE
    return make_check(name, value, error, f"{expected:g}", passed, text)


def make_check(
    name: str, value: float | None, error: float | None, expected: str, passed: bool, detail: str
) -> Check:
    """The record of a check, JSON data."""
    return {
        "name": name,
        "value": value,
        "error": error,
        "expected": expected,
        "passed": bool(passed),
        "detail": detail,
    }


def failed_check(name: str, expected: str, detail: str) -> Check:
    """A check that could not be made, or that has no number."""
    return make_check(name, None, None, expected, False, detail)


def format_certificate(certificate: dict[str, Any]) -> str:
    """The certificate as text for a terminal: a verdict, a line per check, and the autocorrelation times."""
    word = certificate.get("verdict") or ("PASSED" if certificate["passed"] else "FAILED")
    lines = [f"Certificate: {word}" + (f" ({certificate['reason']})" if certificate["reason"] else "")]
    if "n_chains" in certificate:
        lines.append(f"  {certificate['n']} configurations in {certificate['n_chains']} chains")
    for check in certificate["checks"]:
        value = (
            ""
            if check["value"] is None
            else format_value(check["value"], check["error"])
            if check["error"]
            else f"{check['value']:.4g}"
        )
        verdict = "PASSED" if check["passed"] else "FAILED"
        line = f"  {verdict}  {check['name']:<26} {value:<16} {_limit(check):<25} {check['detail']}"
        lines.append(line.rstrip())
    times = [
        f"{SYMBOLS[name]} {format_value(tau['value'], tau['error'])}"
        for name, tau in certificate.get("tau_int", {}).items()
        if isinstance(tau, dict)
    ]
    if times:
        lines.append(f"  tau_int (1/2 + sum rho): {', '.join(times)} in {certificate['tau_int']['unit']}")
    if certificate.get("n_independent") is not None:
        lines.append(f"  independent configurations N/(2 tau_int): {certificate['n_independent']:.0f}")
    return "\n".join(lines)


def _limit(check: Check) -> str:
    if "limit" in check:
        return "" if check["limit"] is None else f"limit {check['limit']:.4g}"
    expected = check["expected"]
    return f"expected {expected:.6g}" if isinstance(expected, float) else f"expected {expected}"

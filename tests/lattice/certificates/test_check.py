"""The record of a check: the gate at 4.5 sigma, refusals that fail, and the certificate as text."""

from __future__ import annotations

import math

import numpy as np
import pytest
from series import ar1

from lattice.certificates.check import GATE, equality, failed_check, format_certificate, make_check, mean_is


@pytest.mark.parametrize(("sigmas", "passed"), [(0.0, True), (4.4, True), (4.6, False), (-4.6, False)])
def test_the_gate(sigmas: float, passed: bool) -> None:
    found = equality("s", 1 + 0.1 * sigmas, 0.1, math.inf, 1.0, "why")
    assert found["passed"] is passed == (abs(sigmas) <= GATE)
    assert found["detail"] == f"{abs(sigmas):.1f} sigma; why"
    assert found["expected"] == "1"


def test_few_chains_get_the_tails_of_student() -> None:
    """Eight errors of eight chains are 3.9 sigma, of many chains nearly eight."""
    assert not equality("s", 8.0, 1.0, 100, 0.0)["passed"]
    few = equality("s", 8.0, 1.0, 7, 0.0)
    assert float(few["detail"].split()[0]) == 3.9
    assert few["passed"]


def test_a_number_that_is_none_fails() -> None:
    assert not equality("s", math.nan, 0.1, 10, 0.0)["passed"]
    found = failed_check("s", "0", "no reason")
    assert (found["passed"], found["value"], found["error"]) == (False, None, None)


def test_means_of_chains_are_judged_by_their_scatter() -> None:
    """Of 400 true means within 4.5 sigma none fails; one shifted by a tenth of the width does."""
    found = []
    for seed in range(400):
        parts = list(ar1(np.random.default_rng([61, seed]), 200, 0.8, (16,)).T)
        found.append(mean_is("m", parts, 0.0, ""))
    assert all(check["passed"] for check in found)
    sigmas = np.array([float(check["detail"].split()[0]) for check in found])
    assert abs(np.mean(sigmas < 1) - 0.683) < 4 * math.sqrt(0.683 * 0.317 / 400)
    long = list(ar1(np.random.default_rng(62), 20_000, 0.8, (16,)).T)
    assert not mean_is("m", [part + 0.1 for part in long], 0.0, "")["passed"]
    assert "constant" in mean_is("m", [np.ones(50)] * 2, 1.0, "")["detail"]


def test_the_certificate_as_text() -> None:
    checks = [make_check("s", 0.5012, 0.0014, "0.5", True, "0.9 sigma"), failed_check("M", "0", "too short")]
    certificate = {
        "passed": False, "reason": "failed: M", "checks": checks, "n": 640, "n_chains": 16,
        "tau_int": {"m2": {"value": 0.62, "error": 0.03}, "unit": "saved configurations"},
        "n_independent": 516.1,
    }  # fmt: skip
    lines = format_certificate(certificate).splitlines()
    assert lines[0] == "Certificate: FAILED (failed: M)"
    assert lines[1] == "  640 configurations in 16 chains"
    assert lines[2].split() == ["PASSED", "s", "0.5012(14)", "expected", "0.5", "0.9", "sigma"]
    assert lines[3].split() == ["FAILED", "M", "expected", "0", "too", "short"]
    assert lines[4] == "  tau_int (1/2 + sum rho): M^2 0.620(30) in saved configurations"
    assert lines[5] == "  independent configurations N/(2 tau_int): 516"
    assert format_certificate({**certificate, "verdict": "doubtful"}).startswith("Certificate: doubtful (")

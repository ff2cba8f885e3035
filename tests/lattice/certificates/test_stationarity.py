"""Has it thermalised: series that have pass, and each way of not having is seen by its own check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from series import ar1

from lattice.certificates.check import SYMBOLS
from lattice.certificates.stationarity import (
    COMPARED,
    drift_checks,
    history_checks,
    scatter_checks,
    several_starts,
    start_checks,
)

N, CHAINS = 400, 32
STARTS = ["hot", "cold", "hot", "wall"] * 8


def stationary(seed: int) -> dict[str, list[Any]]:
    """Independent AR(1) series of tau_int = 1.5 for every quantity, CHAINS of them."""
    rng = np.random.default_rng([71, seed])
    return {name: list(2 + ar1(rng, N, 0.5, (CHAINS,)).T) for name in (*COMPARED, "magnetization")}


def failed(checks: list[Any]) -> set[str]:
    return {check["name"] for check in checks if not check["passed"]}


def all_checks(data: dict[str, list[Any]]) -> list[Any]:
    centred = {**data, "magnetization": [part - 2 for part in data["magnetization"]]}
    return [*start_checks(centred, STARTS, True), *drift_checks(centred), *scatter_checks(centred)]


def test_false_alarms_are_rare() -> None:
    """None of 60 sets of 23 checks may fail; deviations are those of normal laws."""
    found = [all_checks(stationary(seed)) for seed in range(60)]
    assert [failed(checks) for checks in found] == [set()] * 60
    sigmas = [float(c["detail"].split()[0]) for checks in found for c in checks if "sigma" in c["detail"]]
    assert len(sigmas) == 60 * 21
    assert abs(np.mean(np.array(sigmas) < 1) - 0.683) < 4 * np.sqrt(0.683 * 0.317 / 300)  # correlated rows


@pytest.mark.parametrize("kind", ["hot", "wall"])
def test_starts_that_are_remembered(kind: str) -> None:
    data = stationary(1)
    for part, start in zip(data["action_density"], STARTS):
        part += 3 * (start == kind) * np.exp(-np.arange(N) / 100)
    assert f"s {kind}-cold" in failed(all_checks(data))
    assert not any("|M|" in name for name in failed(all_checks(data)))


def test_cold_starts_that_keep_their_sign() -> None:
    data = stationary(2)
    for part, start in zip(data["magnetization"], STARTS):
        part += 0.5 * (start == "cold")
    assert failed(all_checks(data)) == {"M of cold starts"}
    assert failed(start_checks(data, STARTS, False)) == set()  # nothing says that it should change


def test_a_drift_and_a_trend() -> None:
    data = stationary(3)
    data["phi2"] = [part + np.linspace(-0.8, 0.8, N) for part in data["phi2"]]
    assert failed(all_checks(data)) == {"phi^2 drift", "phi^2 trend"}
    few = {name: parts[:4] for name, parts in data.items()}  # the Gamma method, halves only
    assert failed(drift_checks(few)) == {"phi^2 drift"}
    short = {name: [part[:3] for part in parts] for name, parts in data.items()}
    assert failed(drift_checks(short)) == {f"{SYMBOLS[name]} drift" for name in COMPARED}


def test_chains_in_different_states() -> None:
    data = stationary(4)
    data["abs_magnetization"] = [part + 0.5 * (c % 8 < 4) for c, part in enumerate(data["abs_magnetization"])]
    assert failed(scatter_checks(data)) == {"|M| between chains"}


def test_a_quantity_that_never_changes_is_no_disagreement() -> None:
    data = stationary(5)
    data["walls"] = [np.zeros(N)] * CHAINS
    for n, detail in ((CHAINS, "0.0 sigma"), (4, "constant, 0")):
        few = {name: parts[:n] for name, parts in data.items()}
        found = [check for check in start_checks(few, STARTS[:n], False) if "walls" in check["name"]]
        assert [(check["detail"], check["passed"]) for check in found] == [(detail, True)] * 2


def test_a_history_that_met_late() -> None:
    """All starts must agree in the second half: tau = n/20 passes, tau = n/3 does not."""
    t = np.arange(N)[:, None]
    hot = np.array([start == "hot" for start in STARTS])
    for tau, passed in ((N / 20, True), (N / 3, False)):
        noise = ar1(np.random.default_rng(72), N, 0.5, (2, CHAINS))
        abs_m, s = (2 + 0.1 * noise[:, i] - hot * np.exp(-t / tau) for i in (0, 1))
        checks = history_checks({"abs_magnetization": abs_m, "action_density": s, "start": STARTS})
        assert len(checks) == 4
        assert (failed(checks) == set()) == passed
    assert history_checks(None) == history_checks({"start": ["hot"] * 4}) == []
    assert several_starts(["hot", "cold"])
    assert not several_starts(["hot", "cold", "warm"])

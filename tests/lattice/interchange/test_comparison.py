"""The run of our own that judges foreign ensembles: its size, its own quality, what only it can see."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import ACTION, FREE, SMALL, failed, free_draws, own, protocol, saved

import lattice.interchange.comparison as foreign_guard
from lattice.actions.phi4 import ScalarPhi4
from lattice.certificates.monte_carlo import MIN_THERM_OVER_TAU
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.interchange.comparison import guard_checks, own_run, too_large, wanted_independent
from lattice.interchange.identities import series_of
from lattice.interchange.importing import format_import, import_file
from lattice.statistics.pulls import mean_of_chains


def test_the_guard_sees_equal_ensembles_as_equal() -> None:
    """Against closed forms: G(0) and s of the free field from our own run, and from exact draws."""
    guard = own(FREE, SMALL, 1, None)
    assert guard.attrs["certificate"]["passed"]
    g0 = 0.5 / (1 - 4 * FREE.kappa)
    series = series_of(guard.phi, FREE)
    for key, exact in (("vm2", g0), ("s", 0.5), ("schwinger_dyson", 1.0), ("zero_mode", 0.0)):
        value, error, _ = mean_of_chains([series[key][rows] for rows in guard.replicas()])
        assert abs(value - exact) < 4.5 * error < 0.4
    _, table = guard_checks(series_of(free_draws(4000, 1), FREE), None, guard)
    assert max(row["sigmas"] for row in table.values()) < 4.5
    assert set(table) == {"abs_m", "vm2", "binder", "s", "phi2", "phi4", "walls"}


def test_the_public_protocol(tmp_path: Path) -> None:
    """Hot start, 128 unit trajectories, one configuration per chain: only |M| and its like are wrong."""
    result = import_file(saved(tmp_path, protocol(ACTION, 16, 512)), ACTION)
    assert {"|M| of own run", "V M^2 of own run"} <= failed(result)
    assert "Schwinger-Dyson" not in failed(result)
    assert any("had not reached equilibrium" in hint for hint in result["hints"])
    row = result["guard"]["quantities"]["abs_m"]
    assert abs(row["value"] - 0.6593) < 4.5 * math.hypot(row["error"], 0.0033)
    assert abs(row["own_value"] - 0.7617) < 4.5 * math.hypot(row["own_error"], 0.0007)


def test_the_public_protocol_in_the_broken_phase(tmp_path: Path) -> None:
    action = ScalarPhi4(0.40, 0.022)
    result = import_file(saved(tmp_path, protocol(action, 32, 128)), action)
    assert result["guard"]["passed"], result["guard"]["reason"]
    assert {"|M| of own run", "s of own run", "walls of own run"} <= failed(result)
    row = result["guard"]["quantities"]["abs_m"]
    assert abs(row["value"] - 2.10) < 5 * row["error"]
    assert abs(row["own_value"] - 3.74824) < 4.5 * row["own_error"] < 0.005


def test_a_guard_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of our own that could not be certified judges nobody."""

    def bad(*args: Any) -> Ensemble:
        e = own(FREE, SMALL, 1, None)
        e = e.select(np.arange(len(e)))
        e.attrs["certificate"] = {**e.attrs["certificate"], "passed": False, "reason": "failed: s drift"}
        return e

    monkeypatch.setattr(foreign_guard, "own_run", bad)
    result = import_file(saved(tmp_path, free_draws(400, 10)), FREE)
    assert failed(result) == {"own run"}
    assert "could not be certified: failed: s drift" in format_import(result)


def test_a_lattice_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert too_large((512, 512)) == ""
    assert too_large((24, 24, 24, 24)) == (
        "a run of 512 configurations on 24x24x24x24 takes 1.36e+09 bytes, more than the 1.07e+09 it may"
    )
    with pytest.raises(InputError, match=r"512 configurations on 513x512 takes 1\.08e\+09 bytes"):
        own_run(FREE, (513, 512), 1, None)
    monkeypatch.setattr(foreign_guard, "MAX_BYTES", 50_000)
    monkeypatch.setattr(foreign_guard, "own_run", lambda *args: pytest.fail("our own run was started"))
    result = import_file(saved(tmp_path, free_draws(400, 10)), FREE)
    assert result["passed"]
    assert "identities of the file alone: a run of 512 configurations on 4x4 takes 6.55e+04" in format_import(
        result
    )
    assert result["guard"] is None
    wrong = import_file(saved(tmp_path, 1.05 * free_draws(400, 10)), FREE)  # the identities do judge
    assert "Schwinger-Dyson" in failed(wrong)


@pytest.mark.parametrize(("n_bytes", "n"), [(2**30, 4096), (128 * 3000, 2976), (128 * 512, 512)])
def test_the_run_fits(monkeypatch: pytest.MonkeyPatch, n_bytes: int, n: int) -> None:
    """As large as allowed; the wanted number of independent configurations comes down with it."""
    monkeypatch.setattr(foreign_guard, "MAX_BYTES", n_bytes)
    guard = own_run(FREE, SMALL, 3, None)
    assert len(guard) == n
    assert guard.phi.nbytes <= n_bytes
    assert wanted_independent(guard) == min(500, n / 4)
    assert guard.attrs["certificate"]["passed"]
    assert guard.attrs["certificate"]["n_independent"] >= wanted_independent(guard)


def test_too_few_independent_after_all_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[int, int]] = []

    def poor(action: Any, shape: Any, params: Any, *args: Any, **kwargs: Any) -> Ensemble:
        runs.append((params.n_therm, params.stride))
        e = own(FREE, SMALL, 1, None)
        e = e.select(np.arange(len(e)))
        tau = {"m2": {"value": 5.0, "error": 0.1}, "unit": ""}
        e.attrs["certificate"] = {**e.attrs["certificate"], "n_independent": 409.6, "tau_int": tau}
        return e

    own(FREE, SMALL, 1, None)
    monkeypatch.setattr(foreign_guard, "generate", poor)
    monkeypatch.setattr(foreign_guard, "own_run", own_run)
    result = import_file(saved(tmp_path, free_draws(400, 10)), FREE)
    assert failed(result) == {"own run"}
    assert "410 independent configurations judge nobody" in format_import(result)
    # tau_int = 5 saved configurations = 10, 50, ... trajectories: the stride follows it, and n_therm is
    # always more than what a certificate asks for
    assert [stride for _, stride in runs] == [2, 10, 50]
    assert all(n_therm >= MIN_THERM_OVER_TAU * stride for n_therm, stride in runs)


def test_the_seed_of_our_own_run_is_not_the_users() -> None:
    """A file made here with seed 1 must not be compared with itself."""
    guard = own(FREE, SMALL, 1, None)
    assert guard.attrs["seed"] not in range(1000)
    assert own(FREE, SMALL, 2, None).attrs["seed"] != guard.attrs["seed"]

"""The table of a scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lattice.scans.table import extents, format_scan, result_line, tau_trajectories
from lattice.statistics.notation import format_value


def test_tau_is_in_trajectories(scanned: tuple[Path, dict[str, Any]]) -> None:
    result = scanned[1]["points"][0]
    tau = tau_trajectories(result)
    assert tau is not None
    assert tau[0] == 2 * result["observables"]["susceptibility_full"]["tau_int"]


def test_a_row_per_point(scanned: tuple[Path, dict[str, Any]]) -> None:
    """Values with their errors, a dash for what was refused, and the reason of what failed."""
    results = scanned[1]["points"]
    lines = format_scan(results).splitlines()
    assert lines[0].split()[:4] == ["L", "kappa", "lam", "<|M|>"]
    assert len(lines) == 2 + 8 + 1
    entry = results[0]["observables"]["binder"]
    assert format_value(entry["value"], entry["error"]) in lines[2]
    assert lines[2].split()[:3] == ["4", "0.15", "0.1"]
    assert lines[2].endswith("passed")
    assert lines[8].split()[3:9] == ["-"] * 6
    assert "failed: " in lines[8]
    assert "normalisable" in lines[8]
    assert "not certified: " in lines[9]


def test_extents_and_words() -> None:
    assert [extents(shape) for shape in ((8, 8), (8,), (4, 6), (3, 3, 3))] == ["8", "8", "4x6", "3"]
    point = {"name": "p", "status": "failed", "reason": "disk full", "request": {}, "seconds": 1.0}
    assert "failed: disk full" in result_line(point)

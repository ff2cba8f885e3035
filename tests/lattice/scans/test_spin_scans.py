"""Scans of spins go along the temperature: axes, crossings at T_c, and no Ising limit where there is none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scan_points import step
from scipy.optimize import brentq

from lattice.actions.spins import Ising, Potts
from lattice.exact.ising import CRITICAL, potts_temperature
from lattice.exact.spins import known
from lattice.rng import normals
from lattice.scans.crossings import ISING, binder_crossings, format_crossings, scan_curves
from lattice.scans.scan import ScanPoint, run_scan, spin_point_name
from lattice.scans.table import axis_of, fixed_of, format_scan, in_words
from lattice.simulation.parameters import MonteCarlo


def result(action: dict[str, Any], length: int, value: float, error: float, dim: int = 2) -> dict[str, Any]:
    entry = {"value": value, "error": error}
    return {
        "name": f"{length}_{action}", "status": "certified", "reason": "", "stride": 1,
        "request": {"shape": [length] * dim, "action": action},
        "observables": {"binder": entry, "xi_2nd": {"value": value * length, "error": error * length}},
    }  # fmt: skip


def curves(
    action: dict[str, Any], t_c: float, seed: int = 1, dim: int = 2, error: float = 3e-4
) -> list[dict[str, Any]]:
    """Binder curves of L = 8 to 64 that fall with T and all cross at t_c, where they are the Ising value."""
    points = []
    for i, length in enumerate((8, 16, 32, 64)):
        ts = np.linspace(t_c - 0.04 / length, t_c + 0.04 / length, 7)
        noise = error * normals(seed, "test/curves", np.array([i]), 0, 7)[0]
        values = step(length, -ts, -t_c, ISING["binder"]) + noise
        points += [result({**action, "temperature": float(t)}, length, float(u), error, dim)
                   for t, u in zip(ts, values)]  # fmt: skip
    return points


ISING_2D = {"kind": "ising", "h": 0.0}
POTTS = {"kind": "potts", "q": 3, "h": 0.0, "direction": None}


def test_axes_and_what_is_fixed() -> None:
    assert axis_of(Ising(2.0).as_dict()) == axis_of(Potts(1.0, 3).as_dict()) == "temperature"
    assert axis_of({"kind": "ising_field", "temperature": 2.0}) == "temperature"
    for phi4 in ({"kind": "phi4", "kappa": 0.27, "lam": 0.022}, {"kappa": 0.27, "lam": 0.022}):
        assert axis_of(phi4) == "kappa"
        assert fixed_of(phi4) == {"lam": 0.022}
    assert axis_of({"kind": "free", "kappa": 0.2}) == "kappa"
    assert fixed_of(Ising(2.0, 0.1).as_dict()) == {"h": 0.1}
    assert fixed_of(Potts(1.0, 3).as_dict()) == {"q": 3, "h": 0.0}
    field = Potts(1.0, 3, h=0.5, direction=0)
    assert fixed_of(field.as_dict()) == {"q": 3, "h": 0.5, "direction": 0}
    assert in_words(fixed_of(field.as_dict())) == "q = 3, h = 0.5, direction = 0"


def test_names_of_points_are_distinct() -> None:
    assert spin_point_name((8, 8), Ising(2.27).as_dict()) == "L8_T2.27"
    assert spin_point_name((8, 4), Ising(2.0, -0.5).as_dict()) == "L8x4_T2_h-0.5"
    made = [
        spin_point_name((4, 4), a.as_dict())
        for a in (Potts(1.0, 3), Potts(1.0, 4), *(Potts(1.0, 3, h=0.5, direction=d) for d in range(3)))
    ]
    assert made[0] == "L4_T1_q3"
    assert len(set(made)) == 5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_synthetic_curves_cross_at_the_critical_temperature(seed: int) -> None:
    """By the crossings alone and by the universal value; control: another T is many errors away."""
    block = binder_crossings(curves(ISING_2D, CRITICAL, seed))[0]
    assert (block["axis"], block["dim"], block["fixed"]) == ("temperature", 2, {"h": 0.0})
    assert "lam" not in block
    assert json.loads(json.dumps(block)) == block
    assert not block["problems"]
    for pair in block["pairs"]:
        assert abs(pair["kappa"] - CRITICAL) < 4.5 * pair["kappa_error"]
    for fit in (block["limit"]["kappa"], block["universal"]["kappa"]):
        assert abs(fit["limit"] - CRITICAL) < 4.5 * fit["total_error"]
        assert fit["total_error"] < 0.002
        assert abs(fit["limit"] - 2.3) > 10 * fit["total_error"]
    assert (
        abs(block["limit"]["value"]["limit"] - ISING["binder"]) < 4.5 * block["limit"]["value"]["total_error"]
    )


def test_words() -> None:
    text = format_crossings(binder_crossings(curves(ISING_2D, CRITICAL))[0])
    for fragment in ("crossings of U(T), h = 0", "T_x = 2.2", "T_c = 2.2", "8 x 16", "2D Ising class"):
        assert fragment in text
    assert "kappa" not in text
    assert "lam" not in text
    text = format_crossings(binder_crossings(curves(POTTS, potts_temperature(3)))[0])
    assert "crossings of U(T), q = 3, h = 0" in text
    assert "T_x = 0.99" in text
    assert "kappa" not in text
    assert "T_c" not in text


@pytest.mark.parametrize(
    ("action", "dim", "ising"),
    [(ISING_2D, 2, True), (POTTS, 2, False), ({"kind": "ising", "h": 0.1}, 2, False), (ISING_2D, 3, False)],
)
def test_the_ising_limit_is_of_the_ising_class(action: dict[str, Any], dim: int, ising: bool) -> None:
    """Not of Potts models, of a field, or of three dimensions; the crossings of pairs are there for all."""
    block = binder_crossings(curves(action, 1.0, dim=dim))[0]
    assert len([pair for pair in block["pairs"] if "kappa" in pair]) == 6
    assert (block["limit"] is not None) == (block["universal"] is not None) == ising
    assert not block["problems"]


def test_models_are_kept_apart() -> None:
    """phi^4, Ising and two Potts models, of one scan or of many: the same blocks."""
    kappas = np.linspace(0.26, 0.28, 7)
    phi4 = [
        result({"kind": "phi4", "kappa": float(k), "lam": 0.022}, n, float(u), 3e-4)
        for n in (8, 16)
        for k, u in zip(kappas, step(n, kappas))
    ]
    parts = [phi4, *(curves({**POTTS, "q": q}, 1.0) for q in (3, 4)), curves(ISING_2D, 1.0)]
    together = [r for rows in zip(*parts) for r in rows] + [r for p in parts for r in p[len(phi4) :]]
    assert len(scan_curves(together)) == 4
    blocks = binder_crossings(together)
    for part in parts:
        assert binder_crossings(part)[0] in blocks
    assert {(b["axis"], b.get("lam")) for b in blocks} == {("kappa", 0.022), ("temperature", None)}


def where_exact_curves_cross(small: int, large: int) -> float:
    def gap(t: float) -> float:
        return known(Ising(t), (large, large))["binder"] - known(Ising(t), (small, small))["binder"]

    return float(brentq(gap, 2.0, 2.5))


def test_exact_binder_curves_of_small_tori() -> None:
    """U_L(T) of 4 x 4 and 8 x 8 to all digits: fits cross where the exact curves do."""
    ts = np.linspace(2.2, 2.4, 7)
    points = [
        result({**ISING_2D, "temperature": float(t)}, n, known(Ising(float(t)), (n, n))["binder"], 1e-5)
        for n in (4, 8)
        for t in ts
    ]
    pair = binder_crossings(points)[0]["pairs"][0]
    truth = where_exact_curves_cross(4, 8)
    assert 2.2 < truth < 2.4
    assert abs(pair["kappa"] - truth) < 4.5 * pair["kappa_error"] < 1e-3


def test_a_scan_that_is_run(tmp_path: Path) -> None:
    """Three temperatures of 4 x 4 and 6 x 6: certified, the exact values within errors, T and e, C in the
    table; the crossing is that of the exact curves."""
    short = MonteCarlo(n_configs=6400, n_chains=16, n_therm=100, update="heat-bath")
    ts = (2.1, 2.3, 2.5)
    points = [
        ScanPoint(spin_point_name((n, n), Ising(t).as_dict()), Ising(t), (n, n), short)
        for n in (4, 6)
        for t in ts
    ]
    content = run_scan(points, tmp_path, 7)
    for r in content["points"]:
        assert r["status"] == "certified", r["reason"]
        for name in ("energy", "specific_heat", "abs_magnetization", "binder"):
            entry = r["observables"][name]
            assert abs(entry["value"] - entry["exact"]) < 4.5 * entry["error"], (r["name"], name)
    lines = format_scan(content["points"]).splitlines()
    assert lines[0].split()[:3] == ["L", "T", "h"]
    assert {"e", "C", "U_L"} <= set(lines[0].split())
    assert lines[2].split()[:3] == ["4", "2.1", "0"]
    assert "kappa" not in "\n".join(lines)
    (block,) = [b for b in content["crossings"] if b["quantity"] == "binder"]
    pair = block["pairs"][0]
    exact = where_exact_curves_cross(4, 6)
    assert "reason" in pair or abs(pair["kappa"] - exact) < 4.5 * math.hypot(pair["kappa_error"], 0.01)


def test_the_table_of_potts_models_with_and_without_a_direction() -> None:
    actions = (Potts(1.0, 3), Potts(1.0, 3, h=0.1, direction=0))
    lines = format_scan([result(a.as_dict(), 8, 0.5, 0.01) for a in actions]).splitlines()
    assert lines[0].split()[:5] == ["L", "T", "q", "h", "direction"]
    assert lines[2].split()[:5] == ["8", "1", "3", "0", "-"]

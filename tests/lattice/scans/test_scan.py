"""Scans: points of their own, resumed, failures that stop nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scan_points import SHORT, numbers, point

from lattice.ensembles.ensemble import read_ensemble
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator
from lattice.files import run_lock
from lattice.processes import Team
from lattice.scans import scan as scan_module
from lattice.scans.scan import make_point, point_seed, read_point, run_scan
from lattice.scans.table import format_scan
from lattice.simulation.parameters import MonteCarlo


def test_one_folder_per_point_and_no_fields(scanned: tuple[Path, dict[str, Any]]) -> None:
    folder, scan = scanned
    assert json.loads((folder / "scan/scan.json").read_text()) == json.loads(json.dumps(scan))
    for result in scan["points"]:
        here = folder / "scan" / result["name"]
        if result["status"] != "failed":
            stored = json.loads((here / "result.json").read_text())
            assert numbers(stored) == {k: v for k, v in numbers(result).items() if k not in ("name", "note")}
            names = {p.name for p in here.iterdir()} - {"lock"}
            assert names == {"request.json", "result.json", "seconds.json"}
            assert result["seconds"] > 0
            assert result["cpu_seconds"] > 0


def test_a_point_that_fails_is_listed_and_stops_nothing(scanned: tuple[Path, dict[str, Any]]) -> None:
    results = {result["name"]: result for result in scanned[1]["points"]}
    assert [r["status"] for r in results.values()] == ["certified"] * 6 + ["failed", "not certified"]
    free = results["L4_kappa0.26"]
    assert "normalisable" in free["reason"]
    assert "observables" not in free
    assert not (scanned[0] / "scan/L4_kappa0.26/result.json").exists()  # it is tried again the next time
    assert "cannot be certified" in results["L4_kappa0.3"]["reason"]
    assert [block["quantity"] for block in scanned[1]["crossings"]] == ["binder", "xi_over_L"]
    assert [fit["L"] for fit in scanned[1]["crossings"][0]["fits"]] == [4, 6]
    assert {max(fit["kappas"]) for fit in scanned[1]["crossings"][0]["fits"]} == {0.25}
    table = format_scan(scanned[1]["points"])
    assert "failed: " in table
    assert "not certified: " in table
    assert len(table.splitlines()) == 2 + 8 + 1


def test_the_numbers_are_physics(tmp_path: Path) -> None:
    """chi of the free field is known; so is what the wrong kappa would give."""
    kappa = 0.15
    result = run_scan([point(kappa, lam=0.0)], tmp_path, 3)["points"][0]
    entry = result["observables"]["susceptibility_full"]
    exact, other = (free_propagator(k, (4, 4))[0, 0] for k in (kappa, 0.2))
    assert abs(entry["value"] - exact) < 4 * entry["error"]
    assert abs(entry["value"] - other) > 10 * entry["error"]


def test_points_have_their_own_random_numbers(scanned: tuple[Path, dict[str, Any]]) -> None:
    seeds = [result["request"]["seed"] for result in scanned[1]["points"]]
    assert len(set(seeds)) == len(seeds)
    assert seeds[0] == point_seed(7, "L4_kappa0.15")
    assert point_seed(8, "L4_kappa0.15") != seeds[0]
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_again_does_nothing_and_more_points_join(scanned: tuple[Path, dict[str, Any]]) -> None:
    folder, scan = scanned
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("result.json")}
    said: list[str] = []
    again = run_scan([point(0.15), point(0.2), point(0.22)], folder, 7, say=said.append)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert again["points"][:2] == scan["points"][:2]
    assert again["points"][2]["status"] == "certified"
    assert len(said) == 3
    assert all("certified" in line for line in said)


def test_a_changed_request_is_refused_before_any_work(scanned: tuple[Path, dict[str, Any]]) -> None:
    folder = scanned[0]
    other = SHORT.model_copy(update={"n_therm": 200})
    with pytest.raises(InputError, match="n_therm was 100, now 200") as caught:
        run_scan([point(0.19), point(0.2, params=other)], folder, 7)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="seed was"):
        run_scan([point(0.2)], folder, 8)
    assert not (folder / "scan/L4_kappa0.19").exists()


def test_fields_are_kept_on_request_and_can_be_made_again(scanned: tuple[Path, dict[str, Any]]) -> None:
    folder, scan = scanned
    kept = run_scan([point(0.15)], folder, 7, keep_fields=True)["points"][0]
    assert kept["fields_kept"]
    ensemble = read_ensemble(folder / "scan/L4_kappa0.15/ensemble")
    assert ensemble.identity == kept["identity"] == scan["points"][0]["identity"]
    assert kept["observables"] == scan["points"][0]["observables"]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two points of the scan are called L4_kappa0.2"):
        run_scan([point(0.2), point(0.2)], tmp_path, 1)
    with run_lock(tmp_path), pytest.raises(InputError, match="another process"):
        run_scan([point(0.2)], tmp_path, 1)
    (tmp_path / "scan/L4_kappa0.2").mkdir(parents=True)
    (tmp_path / "scan/L4_kappa0.2/result.json").write_text("{}")
    result = run_scan([point(0.2)], tmp_path, 1)["points"][0]
    assert result["status"] == "failed"
    assert "not the result of a scan point" in result["reason"]


@pytest.mark.parametrize("error", [OSError(28, "No space left"), MemoryError(), FloatingPointError("nan")])
def test_whatever_stops_one_point_is_its_reason(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = scan_module.generate

    def generate(action: Any, *args: Any, **kwargs: Any) -> Any:
        if action.kappa == 0.15:
            raise error
        return true(action, *args, **kwargs)

    monkeypatch.setattr(scan_module, "generate", generate)
    first, second = run_scan([point(0.15), point(0.2)], tmp_path, 7)["points"]
    assert (first["status"], second["status"]) == ("failed", "certified")
    assert first["reason"]


def test_the_reason_is_kept_until_the_next_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        assert not (tmp_path / "p/failure.json").exists()
        raise InputError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(scan_module, "generate", full)
        for _ in range(2):
            assert make_point(point(0.2), tmp_path / "p", 7)["reason"] == "disk full"
            assert json.loads((tmp_path / "p/failure.json").read_text()) == {"reason": "disk full"}
    assert make_point(point(0.2), tmp_path / "p", 7)["status"] == "certified"
    assert not (tmp_path / "p/failure.json").exists()


def test_a_program_error_is_left_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(scan_module, "generate", broken)
    with pytest.raises(RuntimeError):  # it is not an answer
        make_point(point(0.2), tmp_path, 7)
    assert read_point(point(0.2), tmp_path, 7)["reason"] == "RuntimeError a bug"


def test_a_point_at_work_is_not_called_failed_by_another(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        assert "another process" in make_point(point(0.2), tmp_path, 7)["reason"]
    assert not (tmp_path / "failure.json").exists()


def test_collecting_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [point(0.15), point(0.2), point(0.26, lam=0.0)]
    made = [make_point(p, tmp_path / "scan" / p.name, 7) for p in (points[0], points[2])]
    before = sorted(tmp_path.rglob("*"))

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a point was made")

    monkeypatch.setattr(scan_module, "generate", never)
    first, second, third = run_scan(points, tmp_path, 7, collect=True)["points"]
    assert first == made[0]
    assert (second["status"], second["reason"]) == ("failed", "not finished")
    assert third == made[1]
    assert "normalisable" in third["reason"]
    assert set(tmp_path.rglob("*")) - set(before) <= {tmp_path / "scan/scan.json", tmp_path / "lock"}
    with pytest.raises(InputError, match="seed was"):
        run_scan(points, tmp_path, 8, collect=True)


@pytest.mark.parametrize(("size", "busy", "stops"), [(1, True, False), (2, False, False), (2, True, True)])
def test_in_a_team_only_shared_work_stops_the_scan(
    size: int, busy: bool, stops: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the others have been told of a point, or after its last trajectory, they wait for the next."""
    team = Team(0, size)

    def fails(*args: Any, team: Team, **kwargs: Any) -> Any:
        team.busy = busy
        raise InputError("disk full")

    monkeypatch.setattr(scan_module, "generate", fails)
    if stops:
        with pytest.raises(InputError, match="disk full"):
            make_point(point(0.2), tmp_path, 7, team=team)
    else:
        assert make_point(point(0.2), tmp_path, 7, team=team)["reason"] == "disk full"


def test_ctrl_c_is_not_a_failed_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(scan_module, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_scan([point(0.2)], tmp_path, 1)
    assert not (tmp_path / "scan/L4_kappa0.2/result.json").exists()


def test_more_configurations_of_a_point(tmp_path: Path) -> None:
    """Of a point whose fields were kept they go on; the numbers are those of one go."""
    few, more = (replace(point(0.15), params=replaced(point(0.15).params, n)) for n in (600, 1600))
    short = run_scan([few], tmp_path / "a", 3, keep_fields=True)["points"][0]
    mine = tmp_path / "a/scan" / few.name / "ensemble" / "notes.txt"
    mine.write_text("mine")
    longer = run_scan([more], tmp_path / "a", 3)["points"][0]
    fresh = run_scan([more], tmp_path / "b", 3)["points"][0]
    assert longer["observables"] == fresh["observables"] != short["observables"]
    assert [path.name for path in mine.parent.iterdir()] == ["notes.txt"]
    assert not (tmp_path / "b/scan" / few.name / "ensemble").exists()
    with pytest.raises(InputError, match="n_configs was 1600, now 600: it holds more"):
        run_scan([few], tmp_path / "a", 3)


def replaced(params: MonteCarlo, n: int) -> MonteCarlo:
    return params.model_copy(update={"n_configs": n})


def test_a_scan_json_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan/scan.json").write_text('{"mine": 1}')
    with pytest.raises(InputError, match="not of a scan"):
        run_scan([point(0.15)], tmp_path, 3)
    assert (tmp_path / "scan/scan.json").read_text() == '{"mine": 1}'

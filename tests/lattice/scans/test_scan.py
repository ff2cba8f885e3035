"""Scans: points of their own, resumed after kill -9, failures that stop nothing, figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from killer import killed_command

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.ensembles.ensemble import read_ensemble
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator
from lattice.files import run_lock
from lattice.processes import Team
from lattice.scans import scan as scan_module
from lattice.scans.scan import ScanPoint, make_point, point_seed, read_point, run_scan
from lattice.scans.table import format_scan, tau_trajectories
from lattice.simulation.parameters import MonteCarlo

SHORT = MonteCarlo(n_configs=1600, n_chains=16, n_therm=100, shard_configs=400, stride=2)


def point(kappa: float, lam: float = 0.1, length: int = 4, params: MonteCarlo = SHORT) -> ScanPoint:
    action = ScalarPhi4(kappa, lam) if lam else FreeScalar(kappa)
    return ScanPoint(f"L{length}_kappa{kappa:g}", action, (length, length), params)


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """A result without times and provenance."""
    return {key: value for key, value in result.items() if key not in ("seconds", "cpu_seconds", "code")}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Three kappas on 4x4 and on 6x6, one point without a normalisable law, one that is too short."""
    folder = tmp_path_factory.mktemp("run")
    short = SHORT.model_copy(update={"n_configs": 32})
    points = [point(kappa, length=n) for n in (4, 6) for kappa in (0.15, 0.2, 0.25)]
    points += [point(0.26, lam=0.0), point(0.3, params=short)]
    return folder, run_scan(points, folder, 7)


def test_one_folder_per_point_and_no_fields(done: tuple[Path, dict[str, Any]]) -> None:
    folder, scan = done
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


def test_a_point_that_fails_is_listed_and_stops_nothing(done: tuple[Path, dict[str, Any]]) -> None:
    results = {result["name"]: result for result in done[1]["points"]}
    assert [r["status"] for r in results.values()] == ["certified"] * 6 + ["failed", "not certified"]
    free = results["L4_kappa0.26"]
    assert "normalisable" in free["reason"]
    assert "observables" not in free
    assert not (done[0] / "scan/L4_kappa0.26/result.json").exists()  # it is tried again the next time
    assert "cannot be certified" in results["L4_kappa0.3"]["reason"]
    assert [block["quantity"] for block in done[1]["crossings"]] == ["binder", "xi_over_L"]
    assert [fit["L"] for fit in done[1]["crossings"][0]["fits"]] == [4, 6]
    assert {max(fit["kappas"]) for fit in done[1]["crossings"][0]["fits"]} == {0.25}
    table = format_scan(done[1]["points"])
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


def test_tau_is_in_trajectories(done: tuple[Path, dict[str, Any]]) -> None:
    result = done[1]["points"][0]
    tau = tau_trajectories(result)
    assert tau is not None
    assert tau[0] == 2 * result["observables"]["susceptibility_full"]["tau_int"]


def test_points_have_their_own_random_numbers(done: tuple[Path, dict[str, Any]]) -> None:
    seeds = [result["request"]["seed"] for result in done[1]["points"]]
    assert len(set(seeds)) == len(seeds)
    assert seeds[0] == point_seed(7, "L4_kappa0.15")
    assert point_seed(8, "L4_kappa0.15") != seeds[0]
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_again_does_nothing_and_more_points_join(done: tuple[Path, dict[str, Any]]) -> None:
    folder, scan = done
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("result.json")}
    said: list[str] = []
    again = run_scan([point(0.15), point(0.2), point(0.22)], folder, 7, say=said.append)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert again["points"][:2] == scan["points"][:2]
    assert again["points"][2]["status"] == "certified"
    assert len(said) == 3
    assert all("certified" in line for line in said)


def test_a_changed_request_is_refused_before_any_work(done: tuple[Path, dict[str, Any]]) -> None:
    folder = done[0]
    longer = SHORT.model_copy(update={"n_configs": 3200})
    with pytest.raises(InputError, match="n_configs was 1600, now 3200") as caught:
        run_scan([point(0.19), point(0.2, params=longer)], folder, 7)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="seed was"):
        run_scan([point(0.2)], folder, 8)
    assert not (folder / "scan/L4_kappa0.19").exists()


def test_fields_are_kept_on_request_and_can_be_made_again(done: tuple[Path, dict[str, Any]]) -> None:
    folder, scan = done
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


class TestFailuresOnDisk:
    """failure.json, and collecting what is there."""

    def test_the_reason_is_kept_until_the_next_attempt(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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

    def test_a_program_error_is_left_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("a bug")

        monkeypatch.setattr(scan_module, "generate", broken)
        with pytest.raises(RuntimeError):  # it is not an answer
            make_point(point(0.2), tmp_path, 7)
        assert read_point(point(0.2), tmp_path, 7)["reason"] == "RuntimeError a bug"

    def test_a_point_at_work_is_not_called_failed_by_another(self, tmp_path: Path) -> None:
        with run_lock(tmp_path):
            assert "another process" in make_point(point(0.2), tmp_path, 7)["reason"]
        assert not (tmp_path / "failure.json").exists()

    def test_collecting_makes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_crossing_that_fails_loses_nothing_else(
    done: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffsq import plots
    from diffsq.commands import scan
    from lattice.scans import crossings

    def singular(*args: Any) -> Any:
        raise np.linalg.LinAlgError("Singular matrix")

    with monkeypatch.context() as patch:
        patch.setattr(crossings, "_fits", singular)
        points = done[1]["points"]
        lost = [block for q in crossings.QUANTITIES for block in crossings.binder_crossings(points, q)]
    assert [block["problems"] for block in lost] == [{"fits": "LinAlgError Singular matrix"}] * 2
    assert json.loads(json.dumps(lost)) == lost
    text = scan.scan_text({**done[1], "crossings": lost})
    assert "fits could not be computed: LinAlgError Singular matrix" in text
    assert "6 of 8 points certified" in text
    paths, reasons = scan._figures({**done[1], "crossings": lost}, tmp_path)
    assert (len(paths), reasons) == (5, [])
    with monkeypatch.context() as patch:
        patch.setattr(crossings, "_limit", singular)
        patch.setattr(crossings, "_universal", singular)
        (block,) = crossings.binder_crossings(done[1]["points"])
    assert block["problems"] == dict.fromkeys(("limit", "universal"), "LinAlgError Singular matrix")
    assert block["fits"] == done[1]["crossings"][0]["fits"]
    true = plots.scan_figures

    def undrawable(content: dict[str, Any]) -> Any:
        if content["crossings"]:
            raise ValueError("nothing to draw")
        return true(content)

    monkeypatch.setattr(plots, "scan_figures", undrawable)
    paths, reasons = scan._figures(done[1], tmp_path)
    assert (len(paths), reasons) == (5, ["figures with crossings: ValueError nothing to draw"])


def test_ctrl_c_is_not_a_failed_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(scan_module, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_scan([point(0.2)], tmp_path, 1)
    assert not (tmp_path / "scan/L4_kappa0.2/result.json").exists()


# --- the command -------------------------------------------------------------------------------------------

FILE: dict[str, Any] = {
    "name": "few", "seed": 7, "ensemble": SHORT.model_dump(),
    "points": [
        {"name": f"k{kappa:g}", "shape": [4, 4], "action": {"kappa": kappa, "lam": 0.1}}
        for kappa in (0.15, 0.2, 0.25)
    ],
}  # fmt: skip


def test_kill_in_the_middle_of_a_point_changes_no_number(tmp_path: Path) -> None:
    from diffsq.config.scan_file import points_file

    data = {**FILE, "points": FILE["points"][:2]}
    whole = run_scan(points_file(data).points, tmp_path / "whole", 7)["points"]
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(data))
    words = ["ensemble", str(tmp_path / "few.yaml"), "--run", str(tmp_path / "killed"), "--quiet"]
    killed_command("[2/2] k0.2 configurations", 60, words)
    assert not (tmp_path / "killed/scan/k0.2/result.json").exists()
    assert list((tmp_path / "killed/scan/k0.2/ensemble").glob("shard-*.h5"))  # it goes on from there
    killed = run_scan(points_file(data).points, tmp_path / "killed", 7)["points"]
    assert [numbers(result) for result in whole] == [numbers(result) for result in killed]


def test_exit_codes_tables_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffsq.commands.main import main

    monkeypatch.chdir(tmp_path)
    data = json.loads(json.dumps(FILE))
    path = tmp_path / "few.yaml"
    path.write_text(yaml.safe_dump(data))
    assert main(["ensemble", str(path), "--quiet", "--dry-run"]) == 0
    assert "would make 3 points in runs/few/scan" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    assert main(["ensemble", str(path), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "3 of 3 points certified" in out
    pictures = {p.name for p in (tmp_path / "runs/few/scan").glob("*.png")}
    names = ("magnetization", "susceptibility", "binder", "correlation_length", "tau")
    assert pictures == {f"{name}.png" for name in names}
    # published values: V<M^2> of the free field is 1/(2(1 - 4 kappa)), and one that is wrong
    point0 = {"name": "free", "shape": [4, 4], "action": {"kind": "free", "kappa": 0.15}}
    for value, code, word in (("1.25(2)", 0, "verdict: agree"), ("1.50(2)", 1, "verdict: differ"),
                              ("1.250(1)", 1, "error larger than the reference's")):  # fmt: skip
        reference = {"values": {"susceptibility_full": value}}
        path.write_text(yaml.safe_dump({**data, "points": [{**point0, "reference": reference}]}))
        words = ["--quiet", "--run", "published", "--set", "ensemble.n_configs=16000"]
        assert main(["ensemble", str(path), *words]) == code
        assert word in capsys.readouterr().out
    bad = {"name": "bad", "shape": [4, 4], "action": {"kind": "free", "kappa": 0.3}}
    path.write_text(yaml.safe_dump({**data, "points": [*data["points"][:2], bad]}))
    assert main(["ensemble", str(path), "--quiet"]) == 1
    out = capsys.readouterr().out
    assert "failed: bad: " in out
    assert "2 of 3 points certified" in out


def legend_of(figure: Any) -> Any:
    return figure.legends[0] if figure.legends else figure.axes[0].get_legend()


def test_figures_of_a_scan(done: tuple[Path, dict[str, Any]]) -> None:
    from diffsq import plots

    block = json.loads(json.dumps(done[1]["crossings"][0]))
    kappa = block["pairs"][0].get("kappa", 0.2)
    block["pairs"] = [{"L": [4, 6], "kappa": kappa, "kappa_error": 1e-3, "value": 0.3, "value_error": 0.01}]
    block["limit"] = {"kappa": {"limit": kappa, "total_error": 1e-3}}
    figures = plots.scan_figures({**done[1], "crossings": [block]})
    names = {"magnetization", "susceptibility", "binder", "correlation_length", "tau", "crossing"}
    assert set(figures) == names
    for name, figure in figures.items():
        (axes,) = figure.axes
        assert "[$\\kappa$" in axes.get_xlabel(), name
        assert "[" in axes.get_ylabel(), name
        texts = [text.get_text() for text in legend_of(figure).get_texts()]
        assert {"$L = 4$", "$L = 6$"} <= set(texts), name
    texts = [text.get_text() for text in legend_of(figures["crossing"]).get_texts()]
    assert any("4 \\times 6" in text for text in texts)
    assert any("kappa_c" in text for text in texts)

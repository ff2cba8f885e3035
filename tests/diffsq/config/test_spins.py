"""The config of spins: which kind of run, its scans, one line for what is wrong, and a run to the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffsq.commands.main import main
from diffsq.config.config import LatticeRun, config_from_dict, load_config, resolved_yaml
from diffsq.config.presets import preset
from diffsq.config.scan_file import points_file, scan_points, scan_ranges
from diffsq.config.spins import SpinRun
from lattice.actions.spins import Ising, Potts
from lattice.errors import InputError
from lattice.exact.ising import torus
from lattice.exact.spins import known

RUN: dict[str, Any] = {
    "name": "spins", "seed": 3,
    "action": {"kind": "ising", "temperature": 2.3},
    "lattice": {"shape": [8, 8]},
    "ensemble": {"n_configs": 2048, "n_chains": 16, "n_therm": 200, "update": "heat-bath"},
}  # fmt: skip
POTTS: dict[str, Any] = {**RUN, "action": {"kind": "potts", "temperature": 0.9, "q": 3}}


def written(folder: Path, data: dict[str, Any], **change: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**data, **change}))
    return path


def test_the_action_says_which_run(tmp_path: Path) -> None:
    """Nothing is trained or sampled; the resolved config is the same run."""
    for data, action in ((RUN, Ising(2.3)), (POTTS, Potts(0.9, 3))):
        config = config_from_dict(data)
        assert type(config) is SpinRun
        assert config.action == action
        assert config.shape == (8, 8)
        assert (config.models, config.processes, config.training, config.sampling) == ((), (), None, None)
        (tmp_path / "c.yaml").write_text(resolved_yaml(config))
        assert load_config(tmp_path / "c.yaml") == config
    assert type(load_config(preset("demo"))) is LatticeRun


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("action.temperatur=2", "did you mean action.temperature?"),
        ("action.temperature=-1", "action.temperature must be >= 0.*got -1"),
        ("action.temperature=0", "action.temperature must be > 0, got 0"),
        ("action.q=3", "action.q"),
        ("action.kind=isign", "did you mean.*ising"),
        ("action.kind=potts", "action.q is missing|q"),
        ("lattice.shape=[8,0]", "positive"),
        ("models=[score]", "models"),
        ("ensemble.update=heatbath", "ensemble.update.*heat-bath"),
        ("ensemble.n_chain=8", "did you mean ensemble.n_chains?"),
        ("training={n_steps: 4}", "training"),
    ],
)
def test_one_line_for_what_is_wrong(override: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as error:
        load_config(written(tmp_path, RUN), [override])
    assert "\n" not in str(error.value)


def test_points_of_a_scan() -> None:
    """Temperature fastest, then h, then L; names say what the points are."""
    points = scan_points(config_from_dict(RUN), ["temperature=2.2,2.4", "L=4,8", "h=0,0.1"])
    assert [p.name for p in points] == [
        f"L{n}_T{t:g}{h}" for n in (4, 8) for h in ("", "_h0.1") for t in (2.2, 2.4)
    ]
    assert points[3].action == Ising(2.4, 0.1)
    assert points[-1].shape == (8, 8)
    assert points[0].params == config_from_dict(RUN).ensemble
    three = scan_points(config_from_dict(POTTS), ["temperature=0.9:1.1:3"])
    assert [p.name for p in three] == ["L8_T0.9_q3", "L8_T1_q3", "L8_T1.1_q3"]
    assert three[1].action == Potts(1.0, 3)
    assert [p.name for p in scan_points(config_from_dict(RUN), ["L=6"])] == ["L6_T2.3"]
    cube = config_from_dict({**RUN, "lattice": {"shape": [4, 4, 4]}})
    assert scan_points(cube, ["L=6"])[0].shape == (6, 6, 6)


@pytest.mark.parametrize(
    ("data", "words", "message"),
    [
        (RUN, ["kappa=0.27"], "--scan kappa: this action has temperature, h and L to scan"),
        (RUN, ["lam=0.1", "temperature=2"], "--scan lam: this action has temperature, h and L"),
        (RUN, ["temperature=0,1"], "--scan L8_T0: action.temperature must be > 0, got 0"),
        (POTTS, ["h=0.1"], "--scan L8_T0.9_q3_h0.1: .*needs action.direction"),
        (RUN, ["T=2"], "--scan T: only .*temperature.* can be scanned"),
        (RUN, ["q=2,3"], "--scan q: only .* can be scanned"),
        (RUN, ["temperature=2,2"], "a value appears twice"),
        (RUN, ["temperature=1:3:200", "h=0:1:200"], "40000 points"),
    ],
)
def test_scans_that_are_refused(data: dict[str, Any], words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        scan_points(config_from_dict(data), words)
    assert "\n" not in str(error.value)


def test_phi4_has_no_temperature() -> None:
    for word in ("temperature=2", "h=0.1"):
        with pytest.raises(InputError, match="this action has kappa, lam and L to scan"):
            scan_points(load_config(preset("demo")), [word])
    assert scan_ranges(["temperature=2:2.5:3", "h=0"]) == {"temperature": [2.0, 2.25, 2.5], "h": [0.0]}


def test_a_file_of_points() -> None:
    """Both kinds, with a field; a mistake says at which point."""
    data: dict[str, Any] = {
        "name": "few", "ensemble": {"n_configs": 64, "n_chains": 4, "update": "heat-bath"},
        "points": [
            {"name": "a", "shape": [4, 4], "action": {"kind": "ising", "temperature": 2.3, "h": 0.1}},
            {"name": "b", "shape": [8], "action": {"kind": "potts", "temperature": 1, "q": 3}},
        ],
    }  # fmt: skip
    assert [p.action for p in points_file(data).points] == [Ising(2.3, 0.1), Potts(1.0, 3)]
    data["points"][1]["action"]["q"] = 1
    with pytest.raises(InputError, match="point b: action.q must be a number of states from 2 to 100, got 1"):
        points_file(data)


def summary_of(folder: Path, data: dict[str, Any], **change: Any) -> tuple[int, dict[str, Any]]:
    code = main(["run", str(written(folder, data, **change)), "--run", str(folder / "run"), "--quiet"])
    return code, json.loads((folder / "run" / "summary.json").read_text())


def test_a_run_of_ising_spins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Certified, beside the exact energies, and passed; the same command again makes nothing new."""
    code, summary = summary_of(tmp_path, RUN)
    assert code == 0
    assert summary["verdict"]["passed"]
    assert summary["verdict"]["certified"]
    assert summary["verdict"]["max_pull"]["training"] is not None
    assert abs(summary["verdict"]["max_pull"]["training"]) < 4.5
    assert {"energy", "specific_heat", "abs_magnetization", "binder", "c1"} <= set(summary["rows"])
    entries, exact = summary["columns"]["training"]["observables"], known(Ising(2.3), (8, 8))
    assert entries["energy"]["exact"] == torus((8, 8), 2.3).e
    assert entries["specific_heat"]["exact"] == torus((8, 8), 2.3).c
    for name in summary["rows"]:
        if name in exact:
            assert entries[name]["exact"] == exact[name]
            assert abs(entries[name]["value"] - exact[name]) < 4.5 * entries[name]["error"], name
    out = capsys.readouterr().out
    for words in ("energy", f"{exact['energy']:.6g}", "J = 1, energies per site", "verdict: passed"):
        assert words in out
    assert "kappa" not in out
    assert (tmp_path / "run" / "report.html").stat().st_size > 1000
    shards = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run" / "ensemble").iterdir()}
    assert summary_of(tmp_path, RUN)[0] == 0
    assert shards == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run" / "ensemble").iterdir()}


def test_a_run_of_potts_spins(tmp_path: Path) -> None:
    code, summary = summary_of(tmp_path, POTTS, lattice={"shape": [4, 4]})
    assert code == 0
    assert summary["verdict"]["passed"]
    entries = summary["columns"]["training"]["observables"]
    assert entries["energy"]["exact"] == pytest.approx(known(Potts(0.9, 3), (4, 4))["energy"])
    assert "exact" not in entries["abs_magnetization"]


def test_hmc_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, RUN, ensemble={"n_configs": 64, "n_chains": 4})
    assert main(["run", str(path), "--run", str(tmp_path / "run"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "diffsq: error: ensemble.update: hmc is not for spins; use ensemble.update: heat-"
    )
    assert error.count("\n") == 1


def test_a_run_of_frozen_spins_passes(tmp_path: Path) -> None:
    """Its certificate does: all values are the exact ones, to rounding."""
    summary = summary_of(tmp_path, RUN, action={"kind": "ising", "temperature": 0.25})[1]
    assert summary["verdict"]["certified"]
    assert summary["verdict"]["passed"]


def test_a_lattice_one_site_wide_is_measured(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, RUN, lattice={"shape": [1, 8]})[1]
    assert summary["notes"] == {}
    assert summary["columns"]["training"]["observables"]["energy"]["exact"] is not None


def test_a_direction_is_a_whole_number() -> None:
    action = {"kind": "potts", "temperature": 1, "q": 3, "h": 1, "direction": 1.0}
    with pytest.raises(InputError, match="action.direction must be a state, 0 to 2, got 1.0"):
        config_from_dict({**RUN, "action": action})

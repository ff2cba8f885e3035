"""Scans through the command: exit codes, tables, figures, kill -9, and what a failing crossing leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from killer import killed_command
from scan_points import FILE, numbers

from lattice.scans.scan import run_scan


def test_a_crossing_that_fails_loses_nothing_else(
    scanned: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffsq import plots
    from diffsq.commands import scan
    from lattice.scans import crossings

    def singular(*args: Any) -> Any:
        raise np.linalg.LinAlgError("Singular matrix")

    with monkeypatch.context() as patch:
        patch.setattr(crossings, "_fits", singular)
        points = scanned[1]["points"]
        lost = [block for q in crossings.QUANTITIES for block in crossings.binder_crossings(points, q)]
    assert [block["problems"] for block in lost] == [{"fits": "LinAlgError Singular matrix"}] * 2
    assert json.loads(json.dumps(lost)) == lost
    text = scan.scan_text({**scanned[1], "crossings": lost})
    assert "fits could not be computed: LinAlgError Singular matrix" in text
    assert "6 of 8 points certified" in text
    paths, reasons = scan._figures({**scanned[1], "crossings": lost}, tmp_path)
    assert (len(paths), reasons) == (5, [])
    with monkeypatch.context() as patch:
        patch.setattr(crossings, "_limit", singular)
        patch.setattr(crossings, "_universal", singular)
        (block,) = crossings.binder_crossings(scanned[1]["points"])
    assert block["problems"] == dict.fromkeys(("limit", "universal"), "LinAlgError Singular matrix")
    assert block["fits"] == scanned[1]["crossings"][0]["fits"]
    true = plots.scan_figures

    def undrawable(content: dict[str, Any]) -> Any:
        if content["crossings"]:
            raise ValueError("nothing to draw")
        return true(content)

    monkeypatch.setattr(plots, "scan_figures", undrawable)
    paths, reasons = scan._figures(scanned[1], tmp_path)
    assert (len(paths), reasons) == (5, ["figures with crossings: ValueError nothing to draw"])


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
    out = capsys.readouterr().out
    assert "would make 3 points in runs/few/scan" in out
    assert "would fail" not in out
    words = ["--quiet", "--dry-run", "--set", "ensemble.update=heat-bath"]
    assert main(["ensemble", str(path), *words]) == 0
    assert capsys.readouterr().out.count("ensemble.update: heat-bath is for spins only") == 3
    assert not (tmp_path / "runs").exists()
    assert main(["ensemble", str(path), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "3 of 3 points certified" in out
    pictures = {p.name for p in (tmp_path / "runs/few/scan").glob("*.png")}
    names = ("magnetization", "susceptibility", "binder", "correlation_length", "tau")
    assert pictures == {f"{name}.png" for name in names}
    # published values: V<M^2> of the free field is 1/(2(1 - 4 kappa)), and one that is wrong
    for words in (["report"], ["check", "levels"]):
        assert main([*words, "runs/few", "--quiet"]) == 2
        assert "runs/few is a scan: table and figures in runs/few/scan" in capsys.readouterr().err
    point0 = {"name": "free", "shape": [4, 4], "action": {"kind": "free", "kappa": 0.15}}
    for value, code, word in (("1.25(2)", 0, "verdict: agree"), ("1.50(2)", 1, "verdict: differ"),
                              ("1.250(1)", 1, "error larger than the reference's")):  # fmt: skip
        reference = {"values": {"susceptibility_full": value}}
        path.write_text(yaml.safe_dump({**data, "points": [{**point0, "reference": reference}]}))
        words = ["--quiet", "--run", "published", "--set", "ensemble.n_configs=16000"]
        assert main(["ensemble", str(path), *words]) == code
        assert word in capsys.readouterr().out
    path.write_text(yaml.safe_dump(data))
    mine = tmp_path / "runs/few/scan/tau.png"
    mine.write_text("mine")
    assert main(["ensemble", str(path), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "not drawn: tau: InputError runs/few/scan/tau.png is there already and not of a scan" in out
    assert mine.read_text() == "mine"
    assert "runs/few/scan/magnetization.png" in out.splitlines()  # the control: ours is drawn anew
    bad = {"name": "bad", "shape": [4, 4], "action": {"kind": "free", "kappa": 0.3}}
    path.write_text(yaml.safe_dump({**data, "points": [*data["points"][:2], bad]}))
    assert main(["ensemble", str(path), "--quiet"]) == 1
    out = capsys.readouterr().out
    assert "failed: bad: " in out
    assert "2 of 3 points certified" in out

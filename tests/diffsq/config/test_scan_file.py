"""Points files, --scan words and --set declarations: what is accepted, and the one line each mistake gets."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import ROOT

from diffsq.config.action_section import declared_action
from diffsq.config.scan_file import load_scan, points_file, scan_points, scan_ranges
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.scans.table import axis_of, extents

CONFIGS = ROOT / "configs"
POINTS_FILES = [
    path for path in sorted(CONFIGS.rglob("*.yaml"))
    if re.search("^points:", path.read_text(encoding="utf-8"), re.MULTILINE)
]  # fmt: skip
POINTS: dict[str, Any] = {
    "name": "few",
    "seed": 5,
    "ensemble": {"n_configs": 64, "n_chains": 4},
    "points": [
        {"name": "a", "shape": [4, 4], "action": {"kappa": 0.2, "lam": 0.1}},
        {
            "name": "b",
            "shape": [8, 4, 2],
            "action": {"convention": "flow", "mass2": -4, "coupling": 6.008},
            "ensemble": {"n_configs": 128},
            "reference": {"convention": "flow", "values": {"phi2": "0.184(1)"}, "source": "somewhere"},
        },
    ],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """POINTS with one entry replaced; `path` is dotted, None removes."""
    data = copy.deepcopy(POINTS)
    *parents, leaf = path.split(".")
    inner: Any = data
    for part in parents:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    if value is None:
        del inner[leaf]
    else:
        inner[leaf] = value
    return data


def test_a_points_file() -> None:
    scan = points_file(POINTS)
    a, b = scan.points
    assert (scan.name, scan.seed) == ("few", 5)
    assert (a.action, a.shape, a.params.n_configs, a.note) == (ScalarPhi4(0.2, 0.1), (4, 4), 64, None)
    assert (b.params.n_configs, b.params.n_chains) == (128, 4)
    kappa = b.action.kappa  # three dimensions: 2 g kappa^2 + (2d + m^2) kappa = 1
    assert 2 * 6.008 * kappa**2 + 2 * kappa == pytest.approx(1)
    assert b.action.lam == pytest.approx(6.008 * kappa**2)
    assert b.note["reference"]["values"] == {"phi2": "0.184(1)"}


@pytest.mark.parametrize(
    ("path", "value", "fragments"),
    [
        ("pointz", [], ["unknown key pointz; did you mean points?"]),
        ("points.0.shap", [4, 4], ["point a: unknown key shap; did you mean shape?"]),
        ("points.0.action.kapa", 0.2, ["point a: unknown key action.kapa; did you mean action.kappa?"]),
        ("points.1.reference.value", {}, ["point b", "did you mean reference.values?"]),
        ("points.0.ensemble", {"n_config": 8}, ["point a", "ensemble.n_config;", "ensemble.n_configs?"]),
        ("ensemble.n_chain", 8, ["unknown key ensemble.n_chain; did you mean ensemble.n_chains?"]),
        ("ensemble.n_chains", 3, ["ensemble.n_chains", "multiple of 2", "3"]),
        ("points.1.ensemble.n_chains", 3, ["point b: ensemble.n_chains", "3"]),
        ("points.0.name", None, ["point 1: name is missing"]),
        ("points.0.name", "../up", ["point ../up", "name", "must match"]),
        ("points.0.shape", [4, 0], ["point a", "positive extents"]),
        ("points.0.shape", [2] * 5, ["point a", "1 to 4"]),
        ("points.0.shape", 4, ["point a", "shape", "4"]),
        ("points.0.action", {"lam": 0.1}, ["point a", "action.kappa is missing"]),
        ("points.0.action", {"kappa": 0.1}, ["point a", "action.lam is missing"]),
        ("points.0.action.lam", -1, ["point a", "action.lam", ">= 0", "-1"]),
        ("points.0.action.kind", "phi6", ["point a", "action.kind", "phi6"]),
        ("points.0.action.mass2", -4, ["action.mass2 does not belong to convention kappa-lambda"]),
        ("points.1.action.kappa", 0.2, ["point b", "action.kappa does not belong to convention flow"]),
        ("points.1.action.coupling", None, ["point b", "action.coupling is missing"]),
        ("points.1.action.coupling", -1, ["point b", "coupling >= 0", "-1"]),
        (
            "points.1.action.convention",
            "flou",
            ["point b", "action.convention", "mean flow?", "flou"],
        ),
        ("points.1.reference.values", {"phi_2": "1(1)"}, ["point b", "phi_2", "did you mean phi2?"]),
        ("points.1.reference.values", {"phi2": "about 1"}, ["point b", "values.phi2", "0.7617(7)"]),
        ("points", [], ["points", "at least 1"]),
        ("points.0", "a", ["point 1", "must be a mapping"]),
        ("seed", -1, ["seed", "-1"]),
    ],
)
def test_each_mistake_gets_one_line(path: str, value: Any, fragments: list[str]) -> None:
    data = changed(path, value) if path != "points.0" else {**POINTS, "points": [value]}
    with pytest.raises(InputError) as caught:
        points_file(data)
    text = str(caught.value)
    assert "\n" not in text
    for fragment in fragments:
        assert fragment in text, text


def test_overrides_and_scan_words_of_a_points_file(tmp_path: Path) -> None:
    path = tmp_path / "few.yaml"
    path.write_text(yaml.safe_dump(POINTS))
    assert [p.params.n_configs for p in load_scan(path, [], ["seed=6"]).points] == [64, 128]
    scan = load_scan(path, [], ["ensemble.n_configs=32", "seed=6"])
    assert (scan.seed, [p.params.n_configs for p in scan.points]) == (6, [32, 32])
    whole = load_scan(path, [], ["ensemble={n_configs: 16, n_chains: 8}"])
    assert [(p.params.n_configs, p.params.n_chains) for p in whole.points] == [(16, 8)] * 2
    with pytest.raises(InputError, match="lists its points itself"):
        load_scan(path, ["kappa=0.2"])


def test_ranges() -> None:
    words = ["kappa=0.266,0.268:0.27:3", "L=8,16", "lam=1e-2"]
    assert scan_ranges(words) == {"kappa": [0.266, 0.268, 0.269, 0.27], "L": [8, 16], "lam": [0.01]}
    nine = scan_ranges(["kappa=0.26:0.28:9"])["kappa"]
    assert nine == [0.26, 0.2625, 0.265, 0.2675, 0.27, 0.2725, 0.275, 0.2775, 0.28]


@pytest.mark.parametrize(
    ("word", "fragment"),
    [
        ("kappa", "kappa=0.26,0.27"),
        ("kappa=", "kappa=0.26,0.27"),
        ("kapa=0.2", "only kappa, lam, L, temperature, h can be scanned"),
        ("kappa=a", "cannot read 'a'"),
        ("kappa=0.2,", "cannot read ''"),
        ("kappa=nan", "cannot read"),
        ("kappa=0.2:0.3", "start:stop:n"),
        ("kappa=0.2:0.3:1", "start:stop:n"),
        ("kappa=0.2:0.3:4:5", "start:stop:n"),
        ("kappa=0.2:0.3:1e9", "start:stop:n"),
        ("kappa=0.2,0.2", "twice"),
        ("L=8.5", "whole numbers"),
        ("L=0", "whole numbers"),
    ],
)
def test_bad_ranges(word: str, fragment: str) -> None:
    with pytest.raises(InputError) as caught:
        scan_ranges([word])
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_points_of_a_config(settings: dict[str, Any]) -> None:
    from diffsq.config.config import config_from_dict

    config = config_from_dict(settings)
    points = scan_points(config, ["kappa=0.2,0.3", "L=6,8"])
    assert [p.name for p in points] == [f"L{n}_kappa{k}_lam0.1" for n in (6, 8) for k in (0.2, 0.3)]
    assert [p.shape for p in points] == [(6, 6)] * 2 + [(8, 8)] * 2
    assert points[0].params == config.ensemble
    assert [p.name for p in scan_points(config, ["lam=0.2"])] == ["L8_kappa0.25_lam0.2"]
    for words, fragment in ((["kappa=0.2", "kappa=0.3"], "given twice"), (["lam=-1"], "action.lam|lam: "),
                            (["kappa=0:9:200", "lam=0:1:200"], "40000 points")):  # fmt: skip
        with pytest.raises(InputError, match=fragment):
            scan_points(config, words)


def test_there_are_points_files() -> None:
    assert POINTS_FILES


@pytest.mark.parametrize("path", POINTS_FILES, ids=lambda path: path.stem)
def test_points_files_of_the_project(path: Path) -> None:
    scan = load_scan(path, [])
    assert len({point.name for point in scan.points}) == len(scan.points)
    for point in scan.points:  # the name says what the point is
        if point.name.startswith("L"):
            named, coupling = re.split("_kappa|_T", point.name[1:])
            own = point.action.as_dict()
            assert (float(coupling), named) == (own[axis_of(own)], extents(point.shape))


def test_flow_points_are_where_the_literature_puts_them() -> None:
    points = {p.name: p for p in load_scan(Path("reference_phi4"), []).points}
    assert len(points) == 10
    for name, coupling in (("flow_L6", 6.975), ("flow_L8", 6.008), ("flow_L12", 5.276)):
        action = points[name].action
        assert action.kappa == pytest.approx(1 / math.sqrt(2 * coupling))  # m^2 = -4, d = 2
        assert action.lam == pytest.approx(0.5)


def test_conventions() -> None:
    assert declared_action(["action.kappa=0.27", "action.lam=0.022", "lattice.shape=[16,8]"]) == (
        ScalarPhi4(0.27, 0.022), (16, 8))  # fmt: skip
    action, _ = declared_action(
        ["action.convention=flow", "action.mass2=-4", "action.coupling=4.572", "lattice.shape=[32,32]"]
    )
    assert action.kappa == pytest.approx(1 / math.sqrt(2 * 4.572))
    assert declared_action(["action.kind=free", "action.kappa=0.2"])[0] == FreeScalar(0.2)


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ([], "declare the action"),
        (["action.kapa=0.2"], "did you mean action.kappa?"),
        (["kappa=0.2", "action.lam=1"], "unknown key kappa"),
        (["action.kappa=0.2"], "action.lam is missing"),
        (["action.kappa=0.2", "action.lam=-1"], "action.lam"),
        (["action.kappa=0.2", "action.lam=1", "lattice.shap=[4]"], "did you mean lattice.shape?"),
        (["action.kappa=x", "action.lam=1"], "action.kappa"),
        (["action.kappa"], "key.path=value"),
        (["action.convention=bare", "action.mass2=1", "action.coupling=1"], "lattice.shape"),
    ],
)
def test_mistakes(words: list[str], fragment: str) -> None:
    with pytest.raises(InputError) as caught:
        declared_action(words)
    assert fragment in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)

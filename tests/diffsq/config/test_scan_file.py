"""Points files, --scan words and --set declarations: what is accepted, and the one line each mistake gets."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffsq.config.action_section import declared_action
from diffsq.config.scan_file import load_scan, points_file, scan_points, scan_ranges
from diffsq.run_folder.reference import compare_with_references, format_references
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.observables.names import field_power

CONFIGS = Path(__file__).resolve().parents[3] / "configs"

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
        ("points.0", "a", ["point 1", "dictionary"]),
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
    scan = load_scan(path, [], ["ensemble.n_configs=32", "seed=6"])
    assert (scan.seed, [p.params.n_configs for p in scan.points]) == (6, [32, 128])
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
        ("kapa=0.2", "only kappa, lam, L can be scanned"),
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


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_points_files_of_the_project(path: Path) -> None:
    if "points:" not in path.read_text(encoding="utf-8"):
        return
    scan = load_scan(path, [])
    assert len({point.name for point in scan.points}) == len(scan.points)
    for point in scan.points:  # the name says what the point is
        if point.name.startswith("L"):
            extents, kappa = point.name[1:].split("_kappa")
            assert (float(kappa), extents) == (point.action.kappa, extents)


def test_flow_points_are_where_the_literature_puts_them() -> None:
    points = {p.name: p for p in load_scan(Path("reference_phi4"), []).points}
    assert len(points) == 10
    for name, coupling in (("flow_L6", 6.975), ("flow_L8", 6.008), ("flow_L12", 5.276)):
        action = points[name].action
        assert action.kappa == pytest.approx(1 / math.sqrt(2 * coupling))  # m^2 = -4, d = 2
        assert action.lam == pytest.approx(0.5)


class TestDeclared:
    def test_conventions(self) -> None:
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
    def test_mistakes(self, words: list[str], fragment: str) -> None:
        with pytest.raises(InputError) as caught:
            declared_action(words)
        assert fragment in str(caught.value), str(caught.value)
        assert "\n" not in str(caught.value)


# --- published values --------------------------------------------------------------------------------------


def measured(values: dict[str, tuple[float, float]], reference: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "p", "status": "certified", "note": {"reference": reference},
        "request": {"shape": [8, 8], "action": {"kappa": 0.25, "lam": 0.5}},
        "observables": {name: {"value": v, "error": e} for name, (v, e) in values.items()},
    }  # fmt: skip


def test_pulls_in_the_convention_of_the_reference() -> None:
    reference = {"convention": "flow", "values": {"phi2": "0.25(1)", "abs_magnetization": "0.5(1)",
                                                  "binder": "0.6(1)", "kappa4_ratio": "-1.0(1)"}}  # fmt: skip
    ours = {"phi2": (1.0, 0.03), "abs_magnetization": (1.0, 0.1), "binder": (0.7, 0.1),
            "kappa4_ratio": (-1.0, 0.1)}  # fmt: skip
    result = compare_with_references([measured(ours, reference)])
    assert result is not None
    rows = {row["name"]: row for row in result["rows"]}  # kappa = 1/4: their field is half of ours
    assert rows["phi2"]["value"] == pytest.approx(0.25)
    assert rows["phi2"]["error_ratio"] == pytest.approx(0.75)
    assert rows["abs_magnetization"]["value"] == pytest.approx(0.5)
    assert rows["binder"]["pull"] == pytest.approx(1 / math.sqrt(2))
    assert rows["kappa4_ratio"]["pull"] == pytest.approx(0)
    assert (result["verdict"], result["n"]) == ("agree", 4)
    assert result["large_pulls"] == result["large_errors"] == []
    assert "verdict: agree; of 4 values 0 with |pull| > 3 (largest 0.71)" in format_references(result)


def test_forgetting_the_convention_is_found() -> None:
    ours = {"phi2": (1.0, 0.01)}
    theirs = {"convention": "kappa-lambda", "values": {"phi2": "0.25(1)"}}
    wrong = compare_with_references([measured(ours, theirs)])
    assert wrong is not None
    assert (wrong["verdict"], wrong["large_errors"]) == ("differ", [])
    assert [row["name"] for row in wrong["large_pulls"]] == ["phi2"]
    assert "|pull| > 3: p phi2 +53.03" in format_references(wrong)


@pytest.mark.parametrize(
    ("value", "error", "pulls", "errors"),
    [
        (1.000, 0.010, 0, 0),  # an error as large as theirs is enough
        (1.000, 0.011, 0, 1),
        (1.042, 0.010, 0, 0),  # 2.97 combined errors
        (1.043, 0.010, 1, 0),  # 3.04
        (1.080, 0.020, 1, 1),
    ],
)
def test_three_errors_and_no_larger_error_than_theirs(
    value: float, error: float, pulls: int, errors: int
) -> None:
    reference = {"convention": "kappa-lambda", "values": {"phi2": "1.000(10)", "binder": "0.5(1)"}}
    result = compare_with_references([measured({"phi2": (value, error), "binder": (0.5, 0.05)}, reference)])
    assert result is not None
    assert (len(result["large_pulls"]), len(result["large_errors"])) == (pulls, errors)
    assert result["verdict"] == ("differ" if pulls or errors else "agree")
    text = format_references(result)
    assert ("|pull| > 3: p phi2" in text, "error larger than the reference's: p phi2" in text) == (
        bool(pulls), bool(errors))  # fmt: skip


def test_many_rows_may_have_a_large_pull_by_chance() -> None:
    """The family-wise false alarm of |pull| <= 3 is printed, and does not enter the verdict."""
    reference = {"convention": "kappa-lambda", "values": {"phi2": "1.0(1)"}}
    result = compare_with_references([measured({"phi2": (1.0, 0.1)}, reference)] * 59)
    assert result is not None
    assert result["false_alarm"] == pytest.approx(1 - 0.9973002039**59)
    assert "(59 independent right values have one beyond 3 in 15% of all cases" in format_references(result)
    off = {"phi2": (1.0 + 3.5 * math.hypot(0.1, 0.1), 0.1)}  # beyond 3, within the threshold for all, 4.30
    right = measured({"phi2": (1.0, 0.1)}, reference)
    one = compare_with_references([measured(off, reference), *[right] * 58])
    assert one is not None
    assert one["threshold"] > 3.5
    assert one["verdict"] == "differ"


def test_what_cannot_be_compared_is_listed() -> None:
    values = {"binder": "0.6666", "xi_2nd": "3(1)", "phi2": "1(1)"}
    reference = {"convention": "kappa-lambda", "values": values}
    ours = measured({"binder": (0.66, 0.01), "phi2": (1.0, 0.1)}, reference)
    failed = {"name": "q", "status": "failed", "reason": "no disk", "note": {"reference": reference}}
    result = compare_with_references([ours, failed, {**ours, "note": None}])
    assert result is not None
    assert result["n"] == 1
    assert [row["pull"] is None for row in result["rows"]] == [True, False]
    assert {(m["point"], m["name"]) for m in result["not_compared"]} == {("p", "xi_2nd"), ("q", "all")}
    assert "no disk" in format_references(result)
    assert "reference without error, not judged: p binder" in format_references(result)
    assert compare_with_references([{**ours, "note": None}]) is None
    none = compare_with_references([failed])
    assert none is not None
    assert none["verdict"] == "none"
    assert "no value could be compared" in format_references(none)


@pytest.mark.parametrize(("name", "power"), [("kappa4_m", 4), ("kappa6_m_ratio", 0), ("kappa4_ratio_z2", 0),
                                             ("action_density", 0), ("magnetization", 1)])  # fmt: skip
def test_powers_of_the_field(name: str, power: int) -> None:
    assert field_power(name) == power

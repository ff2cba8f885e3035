"""Configs of runs that watch training: which kind, what is refused, defaults, round trip, names of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from diffsq.config.config import config_from_dict, load_config, resolved_yaml
from diffsq.config.dynamics import DYNAMICS, DynamicsRun, PairsRun, TeacherRun, TextRun
from lattice.errors import InputError

PAIRS: dict[str, Any] = {"models": ["pairs"], "training": {"rows": [{"rate": 0.1, "batch": 16}]}}
STUDENTS: dict[str, Any] = {"models": ["teacher_student"], "training": {"rows": [{"rate": 0.1, "batch": 4}]}}
TEXT: dict[str, Any] = {"models": ["transformer"]}
KINDS = [
    (PAIRS, PairsRun, "pairs"),
    (STUDENTS, TeacherRun, "teacher-student"),
    (TEXT, TextRun, "text-spectra"),
]


def read(settings: dict[str, Any], **more: Any) -> DynamicsRun:
    found = config_from_dict({"name": "watched", **settings, **more})
    assert isinstance(found, DynamicsRun)
    return found


@pytest.mark.parametrize(("settings", "kind", "check"), KINDS)
def test_the_first_model_says_the_kind(settings: dict[str, Any], kind: type[DynamicsRun], check: str) -> None:
    found = read(settings)
    assert type(found) is kind is DYNAMICS[settings["models"][0]]
    assert list(found.checks) == [check]
    assert found.processes == ()
    assert found.shape == ()
    assert found.ensemble is None
    assert found.sampling is None
    assert found.source is None
    assert found.seed == 1
    assert read(settings, checks={check: False}).checks == {}


@pytest.mark.parametrize(("settings", "kind", "check"), KINDS)
def test_what_is_printed_is_read_back(
    tmp_path: Path, settings: dict[str, Any], kind: type[DynamicsRun], check: str
) -> None:
    for more in ({}, {"seed": 7}, {"checks": {check: False}}):
        found = read(settings, **more)
        path = tmp_path / "watched.yaml"
        path.write_text(resolved_yaml(found))
        again = load_config(path)
        assert type(again) is kind
        assert again == found


def test_the_presets() -> None:
    kinds: dict[str, type[DynamicsRun]] = {
        "dyson_rbm": PairsRun,
        "dyson_teacher_student": TeacherRun,
        "dyson_transformer": TextRun,
    }
    for name, kind in kinds.items():
        assert isinstance(load_config(ROOT / "configs/machines" / f"{name}.yaml"), kind)


def test_the_defaults_are_the_published_setting() -> None:
    """10 sites, m = 2, mu = 3, k = 3 sweeps; nano-GPT of two layers."""
    pairs, text = read(PAIRS), read(TEXT)
    assert isinstance(pairs, PairsRun)
    assert isinstance(text, TextRun)
    t = pairs.training
    assert (t.n_visible, t.mass, t.mu2, t.rows[0].noise, t.rows[0].k) == (10, 2.0, 9.0, "data", 3)
    m = text.training
    assert (m.n_layers, m.n_heads, m.width, m.block, m.batch) == (2, 4, 64, 64, 16)
    assert m.at[0] == 0
    assert m.at[-1] == m.n_steps == 1500


def test_rows_have_names() -> None:
    pair = {"rate": 0.1, "batch": 4}
    assert read({**PAIRS, "training": {"rows": [pair, pair, pair]}}).row_names() == [
        "pairs-0", "pairs-1", "pairs-2",
    ]  # fmt: skip
    sets = {**pair, "n_data": 64, "n_sets": 2}
    many_fresh = {**pair, "n_sets": 3}
    names = read({**STUDENTS, "training": {"rows": [pair, sets, many_fresh]}}).row_names()
    assert names == ["students-0", "students-1-0", "students-1-1", "students-2"]
    short = {"n_seeds": 2, "n_steps": 0, "at": [0], "shuffled_steps": 0}
    assert read({**TEXT, "training": short}).row_names() == ["text-0", "text-1", "shuffled-0", "shuffled-1"]
    assert len(set(names)) == len(names)


ROWS = {"rows": [{"rate": 0.1, "batch": 4}]}
BAD: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (PAIRS, {"training": {}}, "training.rows is missing"),
    (PAIRS, {"training": None}, "training"),
    (PAIRS, {"training": {"rows": []}}, "training.rows"),
    (PAIRS, {"training": {"rows": [{"rate": -0.1, "batch": 4}]}}, r"training.rows.*rate"),
    (PAIRS, {"training": {"rows": [{"rate": 0.1, "batch": 0}]}}, r"training.rows.*batch"),
    (PAIRS, {"training": {"rows": [{"rate": 0.1, "batch": 10**6}]}}, r"training.rows.*batch"),
    (PAIRS, {"training": {"rows": [{"rate": 0.1, "batch": 4, "noise": "datum"}]}}, "noise.*'chains'"),
    (PAIRS, {"training": {"rows": [{"rate": 0.1, "batch": 4, "k": 0}]}}, r"training.rows.*\bk\b"),
    (PAIRS, {"training": {"rows": [{"rate": 0.1, "batc": 4}]}}, r"unknown key .*batc; did you mean .*batch"),
    (PAIRS, {"training": {"rows": [{"rate": float("nan"), "batch": 4}]}}, "rate"),
    (PAIRS, {"training": {**ROWS, "n_visible": 3}}, "training.n_visible"),
    (PAIRS, {"training": {**ROWS, "n_replicas": 8}}, "training.n_replicas"),
    (PAIRS, {"training": {**ROWS, "mass": 0}}, "training.mass"),
    (PAIRS, {"training": {**ROWS, "n_apart": 0}}, "training.n_apart"),
    (PAIRS, {"training": {**ROWS, "n_snapshots": True}}, "training.n_snapshots must be a number"),
    (PAIRS, {"models": ["pairs", "transformer"]}, "models"),
    (PAIRS, {"models": ["pairs", "pairs"]}, "models must be distinct"),
    (PAIRS, {"models": ["pears"]}, "action is missing|models"),
    (PAIRS, {"action": {"kind": "free", "kappa": 0.2}}, r"models: \[pairs\] has no action.*leave them out"),
    (PAIRS, {"lattice": {"shape": [4, 4]}}, "no action, lattice or reference"),
    (PAIRS, {"ensemble": {"n_configs": 64}}, "ensemble"),
    (PAIRS, {"sampling": {"n_samples": 64}}, "sampling"),
    (PAIRS, {"machine": {"mu2": 3.0}}, "unknown key machine"),
    (PAIRS, {"checks": {"pears": {}}}, "checks.pears: no such check; did you mean pairs"),
    (STUDENTS, {"training": {}}, "training.rows is missing"),
    (STUDENTS, {"training": {"rows": [{"rate": 0.0, "batch": 4}]}}, r"training.rows.*rate"),
    (STUDENTS, {"training": {"rows": [{"rate": 0.1, "batch": 4, "n_data": 0}]}}, r"training.rows.*n_data"),
    (STUDENTS, {"training": {"rows": [{"rate": 0.1, "batch": 4, "n_sets": 0}]}}, r"training.rows.*n_sets"),
    (STUDENTS, {"training": {**ROWS, "amplitude": 0}}, "training.amplitude"),
    (STUDENTS, {"training": {**ROWS, "n_replicas": 10}}, "training.n_replicas"),
    (STUDENTS, {"training": {**ROWS, "n_steps": 1}}, "training.n_steps"),
    (STUDENTS, {"lattice": {"shape": [4, 4]}}, r"models: \[teacher_student\] has no action"),
    (TEXT, {"training": {"at": [30, 100]}}, "training.at must rise from 0 to at most n_steps = 1500"),
    (TEXT, {"training": {"at": []}}, "training.at must rise from 0"),
    (TEXT, {"training": {"at": [0, 100, 30]}}, r"training.at must rise.*got \[0, 100, 30\]"),
    (TEXT, {"training": {"at": [0, 2000]}}, "training.at must rise"),
    (TEXT, {"training": {"n_steps": 100}}, "training.at must rise from 0 to at most n_steps = 100"),
    (TEXT, {"training": {"width": 66}}, "training.width 66 is not divisible by n_heads = 4"),
    (TEXT, {"training": {"width": 4}}, "training.width"),
    (TEXT, {"training": {"n_seeds": 0}}, "training.n_seeds"),
    (TEXT, {"training": {"learning_rate": 0}}, "training.learning_rate"),
    (TEXT, {"training": {"checkpoint_every": 0}}, "training.checkpoint_every"),
    (TEXT, {"training": {"n_head": 4}}, "unknown key training.n_head; did you mean training.n_heads"),
    (TEXT, {"training": {"rows": []}}, "unknown key training.rows"),
    (TEXT, {"reference": {"kappa": 0.2, "lam": 0.0, "shape": [4], "values": {}}}, "leave them out|reference"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "bad", "words"), BAD)
def test_what_makes_no_sense_is_refused_in_one_line(
    settings: dict[str, Any], bad: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words) as refused:
        read(settings, **bad)
    assert "\n" not in str(refused.value)
    assert "<" not in str(refused.value), "no class of pydantic's"


def test_a_model_that_does_not_exist_is_named() -> None:
    """Before anything else that a config without it lacks."""
    with pytest.raises(InputError, match="models: no such model 'pair'; did you mean pairs"):
        config_from_dict({"name": "x", "models": ["pair"]})

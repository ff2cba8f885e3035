"""The order of the house: every file has its test, and none is long."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

MAX_FILE, MAX_FUNCTION = 350, 70
FOLDERS = ("lattice", "diffsq", "tests", "scripts")

# Files that another test looks after, by the reason for it: file -> test.
ELSEWHERE: dict[str, dict[str, str]] = {
    "a compiled loop is held to the tensors and the exact numbers of its update": {
        "lattice/updates/batch": "lattice/updates/test_local",
        **{f"lattice/updates/kernels/{name}": f"lattice/updates/test_{name}"
           for name in ("cluster", "complex_langevin", "fourier", "gibbs", "hmc", "langevin", "local",
                        "spins")},
        "lattice/updates/kernels/networks": "lattice/updates/test_neurons",
        "lattice/updates/kernels/layout": "lattice/updates/test_hmc",
        "diffsq/models/feature_kernels": "diffsq/models/test_velocity",
    },
    "types and names, nothing to run": {
        "diffsq/models/protocol": "test_layering",
        "diffsq/config/names": "diffsq/config/test_config",
    },
    "all figures are held to the same rules at once": {
        f"diffsq/plots/{name}": "diffsq/plots/test_plots"
        for name in ("chains", "complex_langevin", "complex_plane", "cumulants", "distributions",
                     "estimators", "fields", "learned_action", "sampling", "style", "summary", "training")
    },
    "all commands are refused and pass things on in the same way": {
        **{f"diffsq/commands/{name}": "diffsq/commands/test_main"
           for name in ("arguments", "data", "doctor", "run", "session")},
        "diffsq/commands/chain": "diffsq/run_folder/test_chain",
        "diffsq/commands/check": "diffsq/checks/test_perform",
    },
    "a check puts numbers of its analysis into words and figures": {
        "diffsq/checks/calibration": "diffsq/checks/test_perform",
        "diffsq/checks/fokker_planck": "physics/test_toy_run",
        "diffsq/checks/free_energy": "diffsq/checks/test_perform",
        "diffsq/checks/learned_action": "physics/test_toy_run",
        "diffsq/checks/levels": "diffsq/checks/test_perform",
        "diffsq/checks/likelihood": "diffsq/checks/test_perform",
        "diffsq/checks/limits": "physics/test_toy_run",
        "diffsq/checks/polish": "diffsq/analysis/test_polish",
        "diffsq/checks/samplers": "physics/test_toy_run",
        "diffsq/checks/strip": "physics/test_toy_run",
    },
    "a part of a whole that is tested as one": {
        "diffsq/models/combination": "diffsq/models/test_velocity",
        "lattice/observables/averages": "lattice/observables/test_measure",
        "lattice/ensembles/columns": "lattice/ensembles/test_ensemble",
        "lattice/ensembles/writer": "lattice/ensembles/test_ensemble",
        "lattice/interchange/families": "lattice/interchange/test_kinds",
        "lattice/interchange/hdf5": "lattice/interchange/test_kinds",
        "lattice/interchange/layouts": "lattice/interchange/test_misread",
        "diffsq/config/action_section": "diffsq/config/test_config",
        "diffsq/config/base": "diffsq/config/test_config",
        "diffsq/config/section": "diffsq/config/test_config",
        "diffsq/config/sections": "diffsq/config/test_config",
        "diffsq/report/reader": "diffsq/report/test_page",
        "diffsq/report/sample_sets": "diffsq/report/test_page",
        "diffsq/report/sections": "diffsq/report/test_page",
        "diffsq/report/tables": "diffsq/report/test_page",
        "diffsq/stages": "diffsq/test_pipeline",
        "diffsq/run_folder/pulls": "diffsq/run_folder/test_summary",
        "diffsq/run_folder/summary_text": "diffsq/run_folder/test_summary",
        "diffsq/run_folder/finished": "diffsq/checks/test_perform",
        "diffsq/training/loop": "diffsq/training/test_points",
        "diffsq/training/last_layer": "diffsq/training/test_points",
        "diffsq/analysis/point_cumulants": "physics/test_toy_run",
        "diffsq/sampling/point_sets": "physics/test_toy_run",
        "diffsq/sampling/folder": "diffsq/sampling/test_lattice_sets",
        "diffsq/plots/families": "diffsq/checks/test_curves",
        "diffsq/plots/criticality": "diffsq/checks/test_criticality",
        "diffsq/plots/gauge": "diffsq/checks/test_topology",
        "diffsq/plots/published": "diffsq/checks/test_published",
        "diffsq/training/grid": "diffsq/training/test_spin_grid",
    },
    "one word for two kinds of run, both of which are tested": {
        "diffsq/training/train": "physics/test_toy_run",
    },
}  # fmt: skip


def sources(package: str) -> list[str]:
    """The files of a package, as package/wing/name; folders and private files are not asked for a test."""
    paths = sorted((ROOT / package).rglob("*.py"))
    names = [path.relative_to(ROOT).with_suffix("").as_posix() for path in paths]
    return [name for name in names if not name.rpartition("/")[2].startswith("_")]


def mirrored(source: str) -> Path:
    folder, _, name = source.rpartition("/")
    return ROOT / "tests" / folder / f"test_{name}.py"


@pytest.mark.parametrize("package", ["lattice", "diffsq"])
def test_every_file_has_its_test(package: str) -> None:
    elsewhere = {source: test for group in ELSEWHERE.values() for source, test in group.items()}
    found = sources(package)
    missing = [name for name in found if not mirrored(name).is_file() and name not in elsewhere]
    assert missing == []
    for source, test in elsewhere.items():
        assert (ROOT / "tests" / f"{test}.py").is_file(), test
        if source.startswith(package):
            assert source in found, f"{source} is no more: take it out of the list"
            assert not mirrored(source).is_file(), f"{source} has a test of its own: take it out of the list"


def long(root: Path) -> Iterator[str]:
    """Files and functions beyond the limits, a line each."""
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        where, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
        lines = len(text.splitlines())
        if lines > MAX_FILE:
            yield f"{where}: {lines} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if (lines := node.end_lineno - node.lineno + 1) > MAX_FUNCTION:
                    yield f"{where}: {node.name} has {lines} lines"


def test_no_file_and_no_function_is_long() -> None:
    assert list(long(ROOT)) == []


def test_what_is_long_is_found(tmp_path: Path) -> None:
    (tmp_path / "lattice").mkdir()
    body = "    x = 1\n"
    (tmp_path / "lattice/a.py").write_text("def short():\n" + 69 * body + "def long():\n" + 70 * body)
    (tmp_path / "lattice/b.py").write_text(351 * "\n")
    assert list(long(tmp_path)) == ["lattice/a.py: long has 71 lines", "lattice/b.py: 351 lines"]

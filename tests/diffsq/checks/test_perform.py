"""`diffsq check`: files, exit codes, options and errors, on a small run of the free field."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fields import free_fields
from matplotlib.figure import Figure

from diffsq.checks import calibration, perform
from diffsq.checks.perform import MODULES, fits, read_options
from diffsq.commands import check
from diffsq.commands.arguments import CHECK_NAMES
from diffsq.commands.main import main
from diffsq.config.config import config_from_dict, resolved_yaml
from diffsq.run_folder.finished import open_run
from lattice.actions.phi4 import FreeScalar
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.writer import write_ensemble
from lattice.errors import InputError
from lattice.progress import Silent

CONFIG: dict[str, Any] = {
    "name": "check",
    "seed": 3,
    "action": {"kind": "free", "kappa": 0.2, "lam": 0.0},
    "lattice": {"shape": [4, 4]},
    "ensemble": {"n_configs": 2048, "n_chains": 16},
    "model": {"channels": 0, "n_levels": 2, "n_sigma": 6, "n_fit": 1024},
    "sde": {"sigma_min": 0.4},
    "training": {"n_steps": 4, "batch_size": 64, "validate_every": 4, "checkpoint_every": 4, "warmup": 1},
    "sampling": {"n_samples": 64, "n_levels": 6, "n_forward": 64},
}
SMALL = ["--set", "n_fields=64", "n_draws=7", "levels=[1, 4]", "--quiet", "--device", "cpu"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and sample stages on exact fields of the free action."""
    folder = tmp_path_factory.mktemp("check") / "run"
    folder.mkdir()
    config = config_from_dict(copy.deepcopy(CONFIG))
    (folder / "config.yaml").write_text(resolved_yaml(config), encoding="utf-8")
    action = FreeScalar(0.2)
    phi = free_fields(action, (4, 4), 2048, 5).numpy()
    write_ensemble(Ensemble.from_fields(phi, action, chain=np.arange(2048) // 128), folder / "ensemble")
    from diffsq.sampling.lattice_sets import sample
    from diffsq.training.lattice import train
    from lattice.ensembles.ensemble import read_ensemble

    ensemble = read_ensemble(folder / "ensemble")
    model = train(config, ensemble, folder / "train" / "score")
    sample(config, model, ensemble, folder / "samples" / "score-ve")
    return folder


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("diffsq: error: ")
    return lines[0]


def test_a_check_writes_numbers_and_figure(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    assert main(["check", "calibration", str(finished), *SMALL]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "calibration: passed" in printed.out
    assert "64 held-out fields of 2 chains" in printed.out
    content = json.loads((finished / "checks" / "calibration.json").read_text())
    assert (content["check"], content["passed"]) == ("calibration", True)
    assert content["options"] == {
        "n_fields": 64, "n_draws": 7, "levels": [1, 4], "method": "path", "held_out": True,
    }  # fmt: skip
    tests = content["result"]["tests"]
    assert len(tests) == 2 * 2 * 4  # kinds, levels, statistics
    assert all(sum(test["counts"]) == 64 and len(test["counts"]) == 8 for test in tests)
    assert (finished / "checks" / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a check changes nothing of its run"
    assert not list((finished / "checks").glob(".*"))


def no_figure(result: dict[str, Any]) -> Figure:
    return Figure((1, 1))


def test_the_same_again_and_as_json(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibration, "figure", no_figure)
    main(["check", "calibration", str(finished), *SMALL])
    first = json.loads((finished / "checks" / "calibration.json").read_text())
    capsys.readouterr()
    assert main(["check", "calibration", str(finished), *SMALL, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["result"] == first["result"]


def test_a_file_of_somebody_else_and_a_figure_that_is_gone(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the key of what it depends on a check is read back, but for a figure that is gone or changed."""
    monkeypatch.setattr(calibration, "figure", no_figure)
    shutil.rmtree(finished / "checks", ignore_errors=True)
    numbers, picture = finished / "checks" / "calibration.json", finished / "checks" / "calibration.png"
    options = {"n_fields": 64, "n_draws": 7, "levels": [1, 4]}
    (finished / "checks").mkdir()
    for path, text in ((picture, "mine"), (numbers, '{"mine": 1}')):
        path.write_text(text)
        with pytest.raises(InputError, match=f"{path.name}: is there already and not made by"):
            perform.check("calibration", finished, options)
        assert path.read_text() == text
        path.unlink()
    made = perform.check("calibration", finished, options, key="k")
    drawn, monkey = picture.read_bytes(), numbers.stat().st_mtime_ns
    assert perform.check("calibration", finished, options, key="k") == made
    assert numbers.stat().st_mtime_ns == monkey, "the control: it is read back"
    picture.unlink()
    perform.check("calibration", finished, options, key="k")
    assert picture.read_bytes() == drawn
    picture.write_text("edited")
    perform.check("calibration", finished, options, key="k")
    assert picture.read_bytes() == drawn
    assert (finished / "checks" / "calibration.png.changed-1").read_text() == "edited"


def test_a_negative_verdict_is_code_1(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(calibration, "ALPHA", 1.0)
    monkeypatch.setattr(calibration, "figure", no_figure)
    assert main(["check", "calibration", str(finished), *SMALL]) == 1
    assert "calibration: FAILED" in capsys.readouterr().out
    assert json.loads((finished / "checks" / "calibration.json").read_text())["passed"] is False


def test_a_sampler_that_is_too_narrow_is_found_out(finished: Path) -> None:
    """The kernel of the run with variances halved: the raw ranks fail, the corrected ones do not."""
    bench = open_run(finished)
    bench.path.variance *= 0.5
    result = calibration.run(bench, Silent(), n_fields=256, n_draws=7, levels=[4])
    assert result["p"]["raw"] < 1e-12
    assert result["p"]["corrected"] > 1e-4
    assert not result["passed"]
    assert "draws too narrow" in calibration.text(result)


def test_other_methods_and_their_figure(finished: Path) -> None:
    result = calibration.run(open_run(finished), Silent(), n_fields=64, n_draws=7, levels=[2], method="euler")
    assert set(result["p"]) == {"raw"}
    assert result["ess"] == {}
    assert isinstance(calibration.figure(result), Figure)
    everything = calibration.run(open_run(finished), Silent(), 400, 7, levels=[1], held_out=False)
    assert everything["n_chains"] == 16
    assert everything["n_fields"] > 256  # more than the held-out chains have


@pytest.mark.parametrize(
    ("args", "fragment"),
    [
        (["check", "calibratoin", "RUN"], "calibratoin"),
        (["check", "calibration"], "RUN"),
        (["check", "calibration", "nowhere"], "not a run folder"),
        (["check", "calibration", "RUN/ensemble"], "not a run folder"),
        (["check", "calibration", "RUN", "--device", "abacus"], "--device"),
        (["check", "calibration", "RUN", "--threads", "0"], "--threads"),
        (["check", "calibration", "RUN", "--set", "n_fields"], "NAME=VALUE"),
        (["check", "calibration", "RUN", "--set", "n_field=10"], "did you mean n_fields?"),
        (["check", "calibration", "RUN", "--set", "colour=10"], "n_fields, n_draws, levels"),
        (["check", "calibration", "RUN", "--set", "n_fields=ten"], "must be int"),
        (["check", "calibration", "RUN", "--set", "n_fields=2"], "at least 10"),
        (["check", "calibration", "RUN", "--set", "n_draws=1"], "n_draws must be at least 2"),
        (["check", "calibration", "RUN", "--set", "levels=["], "YAML"),
        (["check", "calibration", "RUN", "--set", "levels=[41]"], "1 ... 40"),
        (["check", "calibration", "RUN", "--set", "method=magic"], "path, euler or pc"),
        (["check", "calibration", "RUN", "--set", "method=heun"], "deterministic"),
    ],
)
def test_bad_command_lines(
    args: list[str], fragment: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(finished / "checks", ignore_errors=True)
    assert main([*(a.replace("RUN", str(finished)) for a in args), *["--quiet"] * (len(args) > 2)]) == 2
    assert fragment in error_line(capsys)
    assert not (finished / "checks").exists()


def test_a_run_without_parts_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part, fragment in (("samples", "samples"), ("train", "train"), ("ensemble", "ensemble")):
        folder = tmp_path / part
        shutil.copytree(finished, folder)
        shutil.rmtree(folder / part)
        assert main(["check", "calibration", str(folder), "--quiet"]) == 2
        line = error_line(capsys)
        assert fragment in line, line
        assert not (folder / "checks").exists()


class Toy:
    """A check without a verdict, with a NaN in its numbers."""

    @staticmethod
    def run(bench: Any, progress: Any, size: float = 1.0, tag: str = "x") -> dict[str, Any]:
        return {"passed": None, "size": size, "tag": tag, "missing": float("nan")}

    @staticmethod
    def text(result: dict[str, Any]) -> str:
        return f"size {result['size']}"

    @staticmethod
    def figure(result: dict[str, Any]) -> Figure:
        return no_figure(result)


def test_no_verdict_is_code_0(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "toy_check", Toy)  # type: ignore[arg-type]
    monkeypatch.setitem(MODULES, "levels", "toy_check")
    assert check.check_command(arguments("levels", finished, ["size=2"])) == 0
    assert capsys.readouterr().out.startswith("size 2.0\n")
    content = json.loads((finished / "checks" / "levels.json").read_text())
    assert content["options"] == {"size": 2.0, "tag": "x"}
    assert content["result"] == {"passed": None, "size": 2.0, "tag": "x", "missing": None}


def test_a_result_made_with_the_same_key_is_kept(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "toy_check", Toy)  # type: ignore[arg-type]
    monkeypatch.setitem(MODULES, "levels", "toy_check")
    made = perform.check("levels", finished, {"size": 2.0}, key="a")

    def later(bench: Any, progress: Any, size: float = 1.0) -> dict[str, Any]:
        return {"passed": False, "size": size}

    monkeypatch.setattr(Toy, "run", later)
    assert perform.check("levels", finished, {"size": 2.0}, key="a")["passed"] is made["passed"] is None
    assert perform.check("levels", finished, {"size": 2.0}, key="b")["passed"] is False
    assert perform.check("levels", finished, {"size": 2.0})["key"] is None  # asked for by hand: made anew


def test_samplers_are_refused_before_any_work() -> None:
    for options, words in (
        ({"methods": {"flwo": [48]}}, "no sampler flwo; did you mean flow"),
        ({"methods": {"flow": [2]}}, "from 4 on"), ({"n": 10}, "at least 1000"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            perform.check_options("samplers", options)


def arguments(name: str, run: Path, settings: list[str]) -> Any:
    from diffsq.commands.arguments import build_parser

    return build_parser().parse_args(["check", name, str(run), "--quiet", "--set", *settings])


def test_options_follow_the_annotations() -> None:
    def run(
        bench: Any, progress: Any, size: float = 1.0, which: tuple[str, ...] = (), flag: bool = False
    ) -> None:
        return None

    found = read_options(["size=1e-3", "which=[a, b]", "flag=true"], run, "toy")
    assert found == {"size": 1e-3, "which": ("a", "b"), "flag": True}
    assert isinstance(read_options(["size=2"], run, "toy")["size"], float)
    for setting in ("size=true", "size=[1]", "which=a", "which=[1]", "flag=1", "=3", "bench=1"):
        with pytest.raises(InputError):
            read_options([setting], run, "toy")
    assert fits(None, int | None)
    assert not fits(None, int)


@pytest.mark.parametrize("name", CHECK_NAMES)
def test_every_check_runs_and_speaks(name: str) -> None:
    module = __import__(MODULES[name], fromlist=["run"])
    assert callable(module.text)
    assert read_options([], module.run, name) == {}


def test_help_names_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert all(f"{name}:" in words for name in CHECK_NAMES)
    assert "example: diffsq check calibration" in words


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [("gibbs", {"n_chains": 7}, "even n_chains >= 8"), ("gibbs", {"n_sweeps": -1}, "n_sweeps >= 100"),
     ("quartic", {"n_blocks": 1}, "n_blocks >= 8"), ("learning", {"n_fields": 8}, "n_fields >= 4096")],
)  # fmt: skip
def test_options_that_measure_nothing_are_refused(name: str, options: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        perform.check_options(name, options)

"""The command line: exit codes, one-line errors, dry run, help."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest

from diffsq import pipeline
from diffsq.commands.arguments import STAGE_NAMES, WORDS, build_parser
from diffsq.commands.main import main
from diffsq.config.names import CHECK_NAMES
from diffsq.run_folder.records import STAGES
from lattice.errors import Notice

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = (
    "run", "ensemble", "train", "sample", "measure", "compare", "import", "export", "report", "check",
    "chain", "configs", "doctor",
)  # fmt: skip


def run(*args: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "diffsq", *map(str, args)],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}, timeout=120, check=False,
    )  # fmt: skip


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line on standard error."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("diffsq: error: ")
    return lines[0]


def test_stage_names_agree_with_the_pipeline() -> None:
    assert STAGE_NAMES == STAGES


def test_an_error_in_a_real_process_is_one_line_and_code_2(config_file: Path) -> None:
    done = run("run", config_file, "--set", "action.kapa=0.3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "diffsq: error: unknown key action.kapa; did you mean action.kappa?\n"


def test_a_traceback_only_on_request(config_file: Path) -> None:
    done = run("run", config_file, "--set", "action.kapa=0.3", DIFFSQ_TRACEBACK="1")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; from diffsq.commands.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(bool({'torch', 'numba', 'h5py', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, check=False
        ).returncode
        == 0
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        build_parser().parse_args([command, "--help"])
    assert done.value.code == 0
    assert f"example: diffsq {command}" in " ".join(capsys.readouterr().out.split())


def test_the_help_says_what_each_check_does() -> None:
    said = WORDS["check"][1]
    assert [name for name in CHECK_NAMES if f" {name}: " not in f" {said}" and f"{name}. " not in said] == []


@pytest.mark.parametrize(
    ("args", "fragment"),
    [
        ([], "COMMAND"),
        (["rum"], "rum"),
        (["run"], "CONFIG"),
        (["run", "CONFIG", "--bogus"], "--bogus"),
        (["run", "nowhere.yaml"], "no such config file"),
        (["run", "--set", "seed=2", "CONFIG"], "CONFIG"),
        (["run", "CONFIG", "--restart", "smaple"], "smaple"),
        (["train", "CONFIG", "--restart", "ensemble"], "use `diffsq run`"),
        (["run", "CONFIG", "--set", "seed=2", "nonsense"], "nonsense"),
        (["run", "CONFIG", "--threads", "0"], "--threads"),
        (["run", "CONFIG", "--device", "abacus"], "--device"),
        (["ensemble", "CONFIG", "--scan", "kapa=0.2"], "only kappa, lam, L"),
        (["ensemble", "CONFIG", "--scan", "kappa=0.2:x:3"], "start:stop:n"),
        (["ensemble", "CONFIG", "--scan", "kappa=0.2", "--set", "action.lamb=1"], "did you mean action.lam?"),
        (["ensemble", "CONFIG", "--scan", "kappa=0.2", "--restart", "ensemble"], "--restart"),
        (["ensemble", "nowhere.yaml", "--scan", "kappa=0.2"], "no such config file"),
        (["run", "CONFIG", "--scan", "kappa=0.2"], "--scan"),
        (["import", "fields.npy"], "declare the action"),
        (["import", "fields.npy", "--set", "action.kapa=0.2"], "did you mean action.kappa?"),
        (["export", "nowhere", "--to", "csv", "--out", "x"], "csv"),
        (["export", "nowhere", "--to", "arviz"], "--out"),
        (["measure", "nowhere.h5"], "nowhere.h5"),
        (["measure"], "FILE"),
        (["measure", "nowhere.h5", "--method", "bootstrap"], "bootstrap"),
        (["measure", "nowhere.h5", "--raw", "--metropolis"], "--metropolis"),
        (["check", "colour", "nowhere"], "colour"),
        (["chain", "CONFIG"], "no finished run here"),
        (["compare", "a.json", "b.json"], "a.json"),
        (["report", "nowhere"], "not a run folder"),
        (["doctor", "nowhere"], "no such folder"),
    ],
)
def test_bad_command_lines(
    args: list[str], fragment: str, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main([str(config_file) if a == "CONFIG" else a for a in args]) == 2
    assert fragment in error_line(capsys)
    assert [p.name for p in tmp_path.iterdir()] == [config_file.name], (
        "a refused command leaves nothing behind"
    )


def test_dry_run_prints_config_and_plan_and_makes_nothing(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(config_file), "--dry-run", "--set", "lattice.shape=[16,8]", "seed=9"]) == 0
    out = capsys.readouterr().out
    assert "shape: [16, 8]" in out
    assert "seed: 9" in out
    assert [line.split()[1:] for line in out.splitlines()[-5:]] == [[stage, "run"] for stage in STAGES]
    assert not (tmp_path / "runs").exists()


def failing(error: BaseException) -> Any:
    def run(*args: Any, **kwargs: Any) -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "fragment"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command continues"),
        (
            OSError(errno.ENOSPC, "No space left on device", "shard.h5"),
            2,
            "no space left on the disk (shard.h5)",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "Permission denied (x)"),
        (FloatingPointError("loss is not finite at sigma = 0.3"), 2, "sigma = 0.3"),
        (MemoryError(), 2, "memory"),
    ],
    ids=["ctrl-C", "disk full", "permission", "non-finite", "memory"],
)
def test_failures_while_working_are_one_line(
    error: BaseException, code: int, fragment: str, config_file: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "run", failing(error))
    assert main(["run", str(config_file), "--quiet"]) == code
    assert fragment in error_line(capsys)


def test_a_notice_is_one_line_and_other_warnings_are_as_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(args: Any) -> int:
        warnings.warn("no locks here", Notice, stacklevel=1)
        warnings.warn("something else", RuntimeWarning, stacklevel=1)
        return 0

    monkeypatch.setattr("diffsq.commands.main.COMMANDS", {"configs": warn})
    with pytest.warns(RuntimeWarning, match="something else"):
        assert main(["configs"]) == 0
    assert capsys.readouterr().err == "diffsq: warning: no locks here\n"


def test_a_bug_is_not_dressed_up_as_bad_input(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "run", failing(KeyError("bug")))
    with pytest.raises(KeyError):
        main(["run", str(config_file), "--quiet"])


def test_a_folder_that_cannot_be_made(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["ensemble", str(config_file), "--run", str(tmp_path / "file" / "run"), "--quiet"]) == 2
    assert str(tmp_path / "file") in error_line(capsys)


def test_doctor_passes_here(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["doctor", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "torch" in out
    assert "all well" in out


def test_doctor_finds_a_broken_sampler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffsq.commands import doctor
    from lattice.actions.phi4 import ScalarPhi4

    said: list[str] = []
    # A force that is 10 % off: HMC stays exact through its accept step, so the difference test must find it.
    true = ScalarPhi4.grad
    monkeypatch.setattr(ScalarPhi4, "grad", lambda self, phi: 1.1 * true(self, phi))
    assert not doctor.examine(tmp_path, said.append)
    assert any(line.startswith("FAILED") and "force" in line for line in said)


# --- thin commands: what they pass on and how they answer ---------------------------------------------------


@pytest.mark.parametrize("command", ["run", "sample"])
@pytest.mark.parametrize("quiet", [True, False])
def test_warnings_about_the_sample_are_always_said(
    command: str, quiet: bool, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "run"
    samples = folder / "samples" / "score-ve"
    samples.mkdir(parents=True)
    (samples / "diagnostics.json").write_text('{"warnings": ["the ESS is low", "do this"]}')
    monkeypatch.setattr(pipeline, "run", lambda *args, **options: None)
    monkeypatch.setattr(pipeline, "final_text", lambda folder: "the table")
    words = [command, str(config_file), "--run", str(folder), "--device", "cpu"]
    assert main([*words, *(["--quiet"] if quiet else [])]) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["diffsq: warning: the ESS is low", "diffsq: warning: do this"]
    assert "the ESS is low" not in printed.out  # it is data, and may be piped on
    (samples / "diagnostics.json").write_text("{}")  # a sampler without log-weights
    assert main([*words, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def fake_foreign(monkeypatch: pytest.MonkeyPatch, passed: bool) -> dict[str, Any]:
    """A `lattice.interchange.importing` that notes what it is called with."""
    called: dict[str, Any] = {}

    def import_file(path: Path, action: Any, shape: Any, **options: Any) -> dict[str, Any]:
        called.update(path=path, action=action, shape=shape, **options)
        return {"passed": passed}

    module = types.ModuleType("lattice.interchange.importing")
    module.import_file = import_file  # type: ignore[attr-defined]
    module.format_import = lambda result: f"passed: {result['passed']}"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lattice.interchange.importing", module)
    return called


@pytest.mark.parametrize(
    ("passed", "accept", "code"), [(True, False, 0), (False, False, 1), (False, True, 0), (True, True, 0)]
)
def test_import_passes_everything_on(
    passed: bool, accept: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lattice.actions.phi4 import ScalarPhi4

    called = fake_foreign(monkeypatch, passed)
    words = ["import", "f.h5", "--set", "action.kappa=0.27", "--set", "action.lam=0.022", "--dataset", "cfg",
             "--n-chains", "4", "--stride", "2", "--out", "o", "--seed", "9", "--quiet"]  # fmt: skip
    assert main([*words, *(["--accept-uncertified"] if accept else [])]) == code
    assert called.pop("progress") is not None
    assert called == {
        "path": Path("f.h5"), "action": ScalarPhi4(0.27, 0.022), "shape": None, "dataset": "cfg",
        "n_chains": 4, "stride": 2, "out": Path("o"), "accept_uncertified": accept, "seed": 9,
    }  # fmt: skip
    printed = capsys.readouterr()
    assert printed.out == f"passed: {passed}\n"
    assert ("warning" in printed.err) == (accept and not passed)


def test_import_passes_the_layout_on(monkeypatch: pytest.MonkeyPatch) -> None:
    called = fake_foreign(monkeypatch, True)
    main(
        [
            "import",
            "f.h5",
            "--set",
            "action.kappa=0.27",
            "action.lam=0.022",
            "--layout",
            "lattice,n",
            "--quiet",
        ]
    )
    assert called["layout"] == "lattice,n"


def test_export_prints_its_files(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from diffsq.commands import data

    module = types.ModuleType("lattice.interchange.exporting")
    module.export_ensemble = lambda ensemble, kind, out, *, fields: [  # type: ignore[attr-defined]
        f"{ensemble}.{kind}",
        str(out),
        f"fields={fields}",
    ]
    monkeypatch.setitem(sys.modules, "lattice.interchange.exporting", module)
    monkeypatch.setattr(data, "read", lambda path: path.name)
    for words, fields in (([], False), (["--fields"], True)):
        assert main(["export", "runs/e", "--to", "arviz", "--out", "x.nc", *words]) == 0
        assert capsys.readouterr().out == f"e.arviz\nx.nc\nfields={fields}\n"

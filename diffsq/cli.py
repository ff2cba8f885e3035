"""The `diffsq` command.

Its words are in `diffsq.arguments`.  Everything heavy is imported inside the commands, so that
`diffsq --help` answers at once.

Exit codes: 0 done; 1 a negative answer (`compare`: differ, `ensemble`: certificate or a scan's point failed,
`import`: refused, `check`, `doctor`: failed); 2 an error, one line on standard error; 130 interrupted.
DIFFSQ_TRACEBACK=1 shows the traceback.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsq.arguments import build_parser
from diffsq.names import STAGE_NAMES
from lattice.errors import InputError

if TYPE_CHECKING:
    from diffsq.config import Config
    from diffsq.toy_config import ToyConfig
    from lattice.ensemble import Ensemble


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    traceback = os.environ.get("DIFFSQ_TRACEBACK") == "1"
    try:
        args = build_parser().parse_args(argv)
        code = _together(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        if traceback:
            raise
        return _say_error("interrupted; the same command continues", 130)
    except BrokenPipeError:  # `diffsq measure ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (InputError, OSError, MemoryError, ArithmeticError) as error:
        if traceback:
            raise
        return _say_error(_words(error), 2)


def _together(args: argparse.Namespace) -> int:
    """The command; under torchrun process 0 runs it, and the others make their share of its ensembles.

    A failing process 0 just ends: torchrun then ends the others, which may be in the middle of anything.
    """
    args.team = None
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return COMMANDS[args.command](args)
    _limit_threads(getattr(args, "threads", None))
    from lattice.generate import serve
    from lattice.parallel import team_from_environment

    args.team = team_from_environment()
    if args.team.rank:
        serve(args.team)
        return 0
    code = COMMANDS[args.command](args)
    args.team.tell(None)
    args.team.close()
    return code


def stage_command(args: argparse.Namespace) -> int:
    """run, ensemble, train, sample."""
    _limit_threads(args.threads)
    if args.command == "ensemble":
        from diffsq.scan_command import is_scan, scan_command

        if is_scan(args):
            return scan_command(args)
        if args.submit is not None or args.keep_fields or args.collect:
            raise InputError(
                "--submit, --collect and --keep-fields are for a scan; give --scan or a file of points"
            )
    config, name = _load(args), args.command
    from diffsq import pipeline
    from diffsq.toy_summary import certificate_text

    folder = args.run or Path("runs") / config.name
    stages = pipeline.STAGES if name == "run" else (name,)
    if (
        args.restart is not None
        and name != "run"
        and STAGE_NAMES.index(args.restart) < STAGE_NAMES.index(name)
    ):
        raise InputError(
            f"--restart {args.restart} would discard what `diffsq {name}` needs; use `diffsq run`"
        )
    if args.dry_run:
        _print_plan(config, folder, pipeline.plan(config, folder, stages, args.restart))
        return 0
    from lattice.progress import make_progress

    say: Callable[[str], None] = (lambda text: None) if args.quiet else _to_stderr
    pipeline.run_stages(
        config, folder, stages, progress=make_progress(args.quiet), device=pick_device(args.device),
        accept_uncertified=args.accept_uncertified, restart=args.restart, say=say, team=args.team,
    )  # fmt: skip
    if name in ("run", "sample"):
        from diffsq.diagnostics import warnings_of

        for line in warnings_of(folder / pipeline.FOLDER["sample"]):
            _to_stderr(f"diffsq: warning: {line}")
    if name == "run":
        print(pipeline.final_text(folder))
    elif name == "ensemble":
        from lattice.certificate import format_certificate

        certificate = pipeline.certificate_of(folder)
        words = certificate_text if "tau_int" not in certificate else format_certificate
        print(words(certificate))
        return 0 if certificate["passed"] else 1
    else:
        print(f"{name}: done, in {folder / pipeline.FOLDER[name]}")
    return 0


def compare_command(args: argparse.Namespace) -> int:
    """compare A B."""
    from diffsq.compare import compare, format_compare
    from lattice.files import read_json
    from lattice.measure import measure

    def table(path: Path) -> dict[str, Any]:
        return read_json(path) if path.suffix == ".json" else measure(_read(path))

    result = compare(table(args.a), table(args.b))
    print(json.dumps(result, indent=1) if args.json else format_compare(result, (str(args.a), str(args.b))))
    return 1 if result["verdict"] == "differ" else 0


def import_command(args: argparse.Namespace) -> int:
    """import FILE."""
    from diffsq.declared import declared_action
    from lattice.foreign import format_import, import_file
    from lattice.progress import make_progress

    action, shape = declared_action(args.set)
    result = import_file(
        args.file, action, shape, dataset=args.dataset, n_chains=args.n_chains, stride=args.stride,
        out=args.out, accept_uncertified=args.accept_uncertified, seed=args.seed,
        progress=make_progress(args.quiet),
    )  # fmt: skip
    print(format_import(result))
    if not result["passed"] and args.accept_uncertified:
        _to_stderr("diffsq: warning: this ensemble failed its checks and was accepted on request")
    return 0 if result["passed"] or args.accept_uncertified else 1


def export_command(args: argparse.Namespace) -> int:
    """export ENSEMBLE."""
    from lattice.export import export

    for path in export(_read(args.ensemble), args.to, args.out, fields=args.fields):
        print(path)
    return 0


def report_command(args: argparse.Namespace) -> int:
    """report RUN."""
    from diffsq import pipeline
    from lattice.progress import make_progress

    config = pipeline.open_config(args.run)
    say: Callable[[str], None] = (lambda text: None) if args.quiet else _to_stderr
    pipeline.run_stages(config, args.run, ("measure", "report"), progress=make_progress(args.quiet), say=say)
    print(args.run / "report.html")
    return 0


def doctor_command(args: argparse.Namespace) -> int:
    """doctor [FOLDER]."""
    from diffsq.doctor import examine

    return 0 if examine(args.folder) else 1


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    **dict.fromkeys(("run", "ensemble", "train", "sample"), stage_command),
    "measure": lambda args: import_module("diffsq.measure_command").measure_command(args),
    "compare": compare_command,
    "import": import_command,
    "export": export_command,
    "report": report_command,
    "check": lambda args: import_module("diffsq.check_command").check_command(args),
    "chain": lambda args: import_module("diffsq.chain_command").chain_command(args),
    "doctor": doctor_command,
}


def pick_device(name: str) -> str:
    """The torch device to use; `InputError` when it is not there.

    >>> pick_device("cpu")
    'cpu'
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device must be cpu, cuda, cuda:N or auto, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device must be cpu, cuda, cuda:N or auto, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"--device {name}: PyTorch sees {torch.cuda.device_count()} CUDA devices; use --device cpu"
        )
    return name


def _load(args: argparse.Namespace) -> Config | ToyConfig:
    stray = [text for text in args.set if "=" not in text]
    if stray:
        raise InputError(f"--set takes KEY=VALUE, got {stray[0]!r} (a config file goes before --set)")
    from diffsq.toy_config import load_run_config

    return load_run_config(args.config, args.set)


def _limit_threads(n: int | None) -> None:
    if n is None:
        return
    if n < 1:
        raise InputError(f"--threads must be at least 1, got {n}")
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):  # read when torch and numba are imported, later
        os.environ[name] = str(n)
    import torch

    torch.set_num_threads(n)


def _read(path: Path) -> Ensemble:
    from lattice.ensemble import read_ensemble

    if (path / "stages.json").exists():
        raise InputError(
            f"{path} is a run folder; name one of its ensembles: {path / 'ensemble'} or {path / 'samples'}"
        )
    return read_ensemble(path)


def _print_plan(config: Config | ToyConfig, folder: Path, plan: dict[str, str]) -> None:
    from diffsq.config import resolved_yaml

    print(f"{resolved_yaml(config)}\n# would do, in {folder}:")
    for stage, action in plan.items():
        print(f"#   {stage:<9} {action}")


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, InputError):
        place = f" ({error.filename})" if error.filename else ""
        if error.errno == errno.ENOSPC:
            return f"no space left on the disk{place}; make some, then the same command continues"
        return f"{error.strerror or error}{place}"
    if isinstance(error, MemoryError):
        return "not enough memory; a smaller lattice, batch or ensemble is needed"
    return str(error)


def _say_error(text: str, code: int) -> int:
    print(f"diffsq: error: {' '.join(text.split())}", file=sys.stderr)
    return code

"""The `diffsq` command.

Plain argparse: the pydantic models of `config` already give types, ranges and the names of unknown keys, each
as one line; a second layer over them would only be a second place where errors are worded.  Everything heavy
is imported inside the commands, so that `diffsq --help` answers at once.

Exit codes: 0 done; 1 a negative answer (`compare`: differ, `ensemble`: certificate failed, `doctor`: a check
failed); 2 an error, one line on standard error; 130 interrupted.  DIFFSQ_TRACEBACK=1 shows the traceback.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from diffsq import __version__
from lattice.errors import InputError

if TYPE_CHECKING:
    from diffsq.config import Config
    from lattice.ensemble import Ensemble

STAGE_NAMES = ("ensemble", "train", "sample", "measure", "report")  # pipeline.STAGES, without importing it

DESCRIPTION = """\
Diffusion models as exact samplers for lattice field theory: from an action to a certified Monte Carlo
ensemble, a trained score, a sample with exact path-space weights, the table of observables, an HTML report.
Every command that is interrupted resumes when it is given again."""

EPILOG = """\
start with:  diffsq run configs/demo.yaml           the whole job, in runs/demo
             diffsq doctor                          versions, device and a short self-test
each command explains itself:  diffsq train --help"""

RUN_HELP = {
    "run": (
        "all stages: ensemble, train, sample, measure, report",
        "Run every stage in order. Finished stages with unchanged settings are skipped, an interrupted one "
        "resumes. Ends with the table of observables (training, raw, weighted, Metropolis) and "
        "the path of the report.",
        "diffsq run configs/demo.yaml --run runs/kappa26 --set action.kappa=0.26 --dry-run",
    ),
    "ensemble": (
        "make the certified Monte Carlo ensemble",
        "HMC interleaved with cluster updates, half of the chains hot and half cold; writes HDF5 shards, a "
        "manifest and a certificate (thermalisation, tau_int, acceptance, <exp(-dH)>, Schwinger-Dyson). "
        "Exit code 1 if the certificate fails.",
        "diffsq ensemble configs/demo.yaml --set ensemble.n_configs=100000",
    ),
    "train": (
        "train the score on the run's ensemble",
        "Closed-form regression base, then the U-Net by denoising score matching; held-out path KL per sigma "
        "and momentum shell. Refuses an ensemble without a passed certificate, unless --accept-uncertified.",
        "diffsq train configs/demo.yaml --set training.n_steps=5000 training.learning_rate=1e-3",
    ),
    "sample": (
        "draw configurations with the trained score",
        "The reverse process. The method `path` gives every configuration its exact log-weight; `euler`, "
        "`pc` and `heun` have none.",
        "diffsq sample configs/demo.yaml --set sampling.n_samples=20000",
    ),
}


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    traceback = os.environ.get("DIFFSQ_TRACEBACK") == "1"
    try:
        args = build_parser().parse_args(argv)
        code: int = args.command(args)
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


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(
        prog="diffsq", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"diffsq {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)

    def add(
        name: str, brief: str, text: str, example: str, run: Callable[..., int]
    ) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(
            name, help=brief, description=text, epilog=f"example:  {example}", allow_abbrev=False
        )
        sub.set_defaults(command=run, command_name=name)
        return sub

    for name, (brief, text, example) in RUN_HELP.items():
        _run_options(add(name, brief, text, example, stage_command))

    sub = add(
        "measure", "observables of any ensemble, with errors",
        "|M|, susceptibility, Binder cumulant, action density, two-point function, xi_2nd, cumulants: "
        "value(error) by the Gamma method over replicas, with tau_int; a weighted ensemble by "
        "self-normalised weights and the jackknife.",
        "diffsq measure runs/demo/samples --metropolis --json > metropolis.json", measure_command,
    )  # fmt: skip
    sub.add_argument(
        "file", metavar="FILE", type=Path, help="ensemble folder (with manifest.json), or one .h5 file"
    )
    sub.add_argument("--json", action="store_true", help="print JSON")
    how = sub.add_mutually_exclusive_group()
    how.add_argument(
        "--metropolis", action="store_true", help="correct by independence Metropolis, not by weights"
    )
    how.add_argument("--raw", action="store_true", help="ignore the weights: the uncorrected sampler")
    sub.add_argument("--seed", type=int, default=1, help="of the Metropolis accept steps (default 1)")

    sub = add(
        "compare", "two ensembles side by side, with pulls and a verdict",
        "Measures what is not measured yet. Exit code 1 when the verdict is `differ`.",
        "diffsq compare runs/demo/ensemble runs/demo/samples", compare_command,
    )  # fmt: skip
    for letter in "AB":
        sub.add_argument(
            letter.lower(), metavar=letter, type=Path, help="ensemble folder, .h5 file, or measure JSON"
        )
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = add(
        "report", "one self-contained HTML file of a run",
        "Measures again if anything changed, then writes summary.json and report.html into the run folder.",
        "diffsq report runs/demo", report_command,
    )  # fmt: skip
    sub.add_argument("run", metavar="RUN", type=Path, help="run folder")
    sub.add_argument("--quiet", action="store_true", help="no progress")

    sub = add(
        "doctor", "versions, device, threads, disk, and a short self-test",
        "Checks this installation: prints what a bug report needs and tests a few identities.",
        "diffsq doctor", doctor_command,
    )  # fmt: skip
    sub.add_argument(
        "folder", metavar="FOLDER", type=Path, nargs="?", default=Path("."), help="where runs would go"
    )
    return parser


def _run_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("config", metavar="CONFIG", type=Path, help="YAML file")
    sub.add_argument("--run", metavar="DIR", type=Path, help="run folder (default runs/<name>)")
    sub.add_argument(
        "--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[],
        help="override config values, such as lattice.shape=[32,32]; repeatable",
    )  # fmt: skip
    sub.add_argument(
        "--dry-run", action="store_true", help="print the resolved config and what would be done"
    )
    sub.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, or auto (default): cuda where there is one"
    )
    sub.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    sub.add_argument("--quiet", action="store_true", help="no progress, only the results")
    sub.add_argument("--accept-uncertified", action="store_true", help="train on an ensemble that failed")
    sub.add_argument(
        "--restart", metavar="STAGE", choices=STAGE_NAMES, help="first discard this stage and all after it"
    )


def stage_command(args: argparse.Namespace) -> int:
    """run, ensemble, train, sample."""
    _limit_threads(args.threads)
    config, name = _load(args), args.command_name
    from diffsq import pipeline

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
        accept_uncertified=args.accept_uncertified, restart=args.restart, say=say,
    )  # fmt: skip
    if name == "run":
        print(pipeline.final_text(folder))
    elif name == "ensemble":
        from lattice.certificate import format_certificate

        certificate = pipeline.certificate_of(folder)
        print(format_certificate(certificate))
        return 0 if certificate["passed"] else 1
    else:
        print(f"{name}: done, in {folder / pipeline.FOLDER[name]}")
    return 0


def measure_command(args: argparse.Namespace) -> int:
    """measure FILE."""
    from lattice.measure import format_table, measure

    ensemble = _read(args.file)
    if args.metropolis:
        from diffsq.exactness import independence_metropolis, metropolis_ensemble

        if ensemble.log_weight is None:
            raise InputError(
                f"{args.file} has no log-weights: there is nothing to correct, leave out --metropolis"
            )
        result = measure(metropolis_ensemble(ensemble, args.seed))
        accepted = independence_metropolis(ensemble.log_weight, args.seed)[1]
        result["ensemble"]["acceptance"] = float(accepted.mean())
    else:
        result = measure(ensemble, ignore_weights=args.raw)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print(format_table(result))
        if args.metropolis:
            print(f"independence Metropolis, acceptance {result['ensemble']['acceptance']:.3f}")
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


def _load(args: argparse.Namespace) -> Config:
    stray = [text for text in args.set if "=" not in text]
    if stray:
        raise InputError(f"--set takes KEY=VALUE, got {stray[0]!r} (a config file goes before --set)")
    from diffsq.config import load_config

    return load_config(args.config, args.set)


def _limit_threads(n: int | None) -> None:
    if n is None:
        return
    if n < 1:
        raise InputError(f"--threads must be at least 1, got {n}")
    for name in (
        "OMP_NUM_THREADS",
        "NUMBA_NUM_THREADS",
    ):  # read when torch and numba are imported, after this
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


def _print_plan(config: Config, folder: Path, plan: dict[str, str]) -> None:
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

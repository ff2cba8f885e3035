"""The `diffsq` command.

Its words are in `diffsq.commands.arguments`.  Everything heavy is imported inside the commands, so that
`diffsq --help` answers at once.

Exit codes: 0 done; 1 a negative answer (`compare`: differ, `ensemble`: certificate or a scan's point failed,
`import`: refused, `check`, `doctor`: failed); 2 an error, one line on standard error; 130 interrupted.
DIFFSQ_TRACEBACK=1 shows the traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from diffsq.commands.arguments import build_parser
from diffsq.commands.configs import configs_command
from diffsq.commands.data import compare_command, export_command, import_command
from diffsq.commands.run import report_command, stage_command
from diffsq.commands.session import limit_threads, plain_notices, say_error, to_stderr, words
from lattice.errors import InputError

if TYPE_CHECKING:
    from lattice.processes import Team


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    traceback = os.environ.get("DIFFSQ_TRACEBACK") == "1"
    try:
        args = build_parser().parse_args(argv)
        with plain_notices():
            code = _together(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        if traceback:
            raise
        return say_error("interrupted; the same command continues", 130)
    except BrokenPipeError:  # `diffsq measure ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (InputError, OSError, MemoryError, ArithmeticError) as error:
        if traceback:
            raise
        return say_error(words(error), 2)


def _together(args: argparse.Namespace) -> int:
    """The command; under torchrun process 0 runs it, and the others make their share of its ensembles,
    training and samples. A command that makes none joins nobody, whatever variables another launcher has
    left.

    A process 0 that fails while the others wait for work sends them home, so that its line is the only one;
    else it just ends, and torchrun ends the others, which may be in the middle of anything.
    """
    args.team = None
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return COMMANDS[args.command](args)
    from lattice.processes import launched, team_from_environment

    if not _is_shared(args):
        if launched() and os.environ.get("RANK", "0") != "0":
            to_stderr(
                f"diffsq: `{args.command}` is the work of one process; RANK={os.environ['RANK']} leaves it"
            )
            return 0
        return COMMANDS[args.command](args)
    args.team = team_from_environment(lambda text: to_stderr(f"diffsq: {text}"))  # before torch is imported
    limit_threads(getattr(args, "threads", None))
    if args.team.rank:
        return _serve(args)
    try:
        code = COMMANDS[args.command](args)
    except (InputError, OSError, MemoryError, ArithmeticError):
        if not args.team.busy:
            with contextlib.suppress(InputError):  # they may have ended themselves
                args.team.tell(None)
        raise
    args.team.tell(None)
    args.team.close()
    return code


def _serve(args: argparse.Namespace) -> int:
    """What another process than 0 does."""
    from diffsq.commands.session import pick_device
    from diffsq.stages import share_samples, share_training
    from lattice.processes import serve
    from lattice.simulation.monte_carlo import share

    def device() -> str:
        return pick_device(getattr(args, "device", "cpu"))

    def training(team: Team, folder: str) -> None:
        share_training(team, folder, device)

    def samples(team: Team, folder: str) -> None:
        share_samples(team, folder, device)

    serve(args.team, {"ensemble": share, "train": training, "samples": samples})
    return 0


def _is_shared(args: argparse.Namespace) -> bool:
    """Whether the command makes ensembles, models or samples here, which several processes can share."""
    elsewhere = getattr(args, "submit", None) is not None or getattr(args, "collect", False)
    return args.command in ("run", "ensemble", "train", "sample") and not (args.dry_run or elsewhere)


def doctor_command(args: argparse.Namespace) -> int:
    """doctor [FOLDER]."""
    from diffsq.commands.doctor import examine

    return 0 if examine(args.folder) else 1


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    **dict.fromkeys(("run", "ensemble", "train", "sample"), stage_command),
    "measure": lambda args: import_module("diffsq.commands.measure").measure_command(args),
    "compare": compare_command,
    "import": import_command,
    "export": export_command,
    "report": report_command,
    "check": lambda args: import_module("diffsq.commands.check").check_command(args),
    "chain": lambda args: import_module("diffsq.commands.chain").chain_command(args),
    "spectrum": lambda args: import_module("diffsq.commands.spectrum").spectrum_command(args),
    "configs": configs_command,
    "doctor": doctor_command,
}

"""One ensemble or sample set made by several processes: chains or blocks are split, decisions are shared.

    torchrun --nproc-per-node 4 -m -- diffsq run demo

Every random number belongs to its chain and trajectory, or to its sample and step, so the processes only
exchange what is decided from all together (the tuning, what is still to be made) or written by one of them,
and what they make equals the single-process work byte for byte. The engine is torch.distributed with the gloo
backend; process 0 speaks and decides, the others `serve` it.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from lattice.errors import InputError

VARIABLES = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
WAIT = 60  # seconds for the others to come; torchrun starts all at once
_A_MOMENT = 3.0
_ADVICE = f"start all processes with torchrun, or to work alone: unset {' '.join(VARIABLES)}"
_PATIENCE = datetime.timedelta(days=7)  # the others wait while process 0 does what is not split

Item = TypeVar("Item")


class Failed(InputError):
    """A process of the team failed, in its words; every process has been told and raises this or its own."""


@dataclass(frozen=True)
class _Failure:
    rank: int
    text: str


class Team:
    """The processes of this run; a team of one does nothing but answer.

    `busy` while the others are at work: then process 0 may not give it up and go on.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size, self.busy = rank, size, False

    def share(self, n: int) -> slice:
        """The part of n chains that is this process's, as equal as can be, in the order of the ranks.

        >>> [Team(rank, 3).share(8) for rank in range(3)]
        [slice(0, 2, None), slice(2, 5, None), slice(5, 8, None)]
        """
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def gather(self, part: Any, n: int) -> Any:
        """The parts of all processes, put together along axis 0 (n in all), on every process."""
        if self.size == 1:
            return part
        import torch
        import torch.distributed as dist

        part = np.ascontiguousarray(part)
        longest = -(-n // self.size) + 1  # gloo gathers tensors of one size
        padded = np.zeros((longest, *part.shape[1:]), dtype=part.dtype)
        padded[: len(part)] = part
        parts = [torch.from_numpy(np.empty_like(padded)) for _ in range(self.size)]
        with _connected():
            dist.all_gather(parts, torch.from_numpy(padded))
        shares = [Team(rank, self.size).share(n) for rank in range(self.size)]
        return np.concatenate([p.numpy()[: s.stop - s.start] for p, s in zip(parts, shares)])

    def tell(self, message: Any = None) -> Any:
        """What process 0 says (plain data), on every process."""
        if self.size == 1:
            return message
        import torch.distributed as dist

        box = [message]
        with _connected():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def exchange(self, own: Any = None) -> list[Any]:
        """What each process says (plain data), in the order of the ranks, on every process; all wait for all.

        Raises `Failed` on each where one has failed (`together`).
        """
        if self.size == 1:
            return [own]
        import torch.distributed as dist

        said: list[Any] = [None] * self.size
        with _connected():
            dist.all_gather_object(said, own)
        for failure in said:
            if isinstance(failure, _Failure):
                raise Failed(f"process {failure.rank} of {self.size}: {failure.text}")
        return said

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Around work that every process does, in which they wait for each other in `exchange` and `each`
        alone: so an error of any one is met by all at the next of these."""
        self.busy = True
        try:
            yield
            self.exchange()
        except Failed:
            self.busy = False
            raise
        except Exception as error:
            if self.size > 1:
                with contextlib.suppress(Failed):
                    self.exchange(_Failure(self.rank, str(error) or type(error).__name__))
            self.busy = False
            raise
        self.busy = False

    def each(self, function: Callable[[Item], Any], items: Sequence[Item]) -> Iterator[Any]:
        """function(item) of every item, made by one process each; in order on process 0, None on the others.

        They go in rounds of one item to each process, and all must go through all of this iterator.
        """
        if self.size == 1:
            yield from map(function, items)
            return
        import torch.distributed as dist

        for start in range(0, len(items), self.size):
            mine = start + self.rank
            own = function(items[mine]) if mine < len(items) else None
            self.exchange()  # where one has failed, none goes on
            made: list[Any] = [None] * self.size
            with _connected():
                dist.gather_object(own, made if self.rank == 0 else None, dst=0)
            yield from made[: len(items) - start]

    def close(self) -> None:
        if self.size > 1:
            import torch.distributed as dist

            dist.destroy_process_group()


def serve(team: Team, work: Mapping[str, Callable[[Team, Any], None]]) -> None:
    """What the other processes of a team do: their share of whatever work process 0 begins, until it stops
    (`team.tell(None)`). It begins with `team.tell((name, request))`, a name in `work`."""
    while (begun := team.tell()) is not None:
        name, request = begun
        work[name](team, request)


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise lost(error) from error


def lost(error: Exception) -> InputError:
    """What to say where the others do not answer."""
    reason = " ".join(str(error).split())[:100]
    return InputError(f"lost the other processes of this run ({reason}); start all of them again")


def team_from_environment(say: Callable[[str], None] = lambda text: None) -> Team:
    """The team torchrun started this process in, or a team of one.

    The others are waited for, `WAIT` or the seconds in the variable DIFFSQ_WAIT; `say` tells so when it takes
    more than a moment. Raises InputError where a variable is missing or no number, as another launcher leaves
    them, and when the others have not come in time.
    """
    given = {name: os.environ.get(name, "") for name in VARIABLES}
    size, rank = given["WORLD_SIZE"] or "1", given["RANK"]
    if not size.isdigit() or int(size) < 1:
        raise InputError(f"WORLD_SIZE must be a number of processes, got {size!r}; {_ADVICE}")
    if int(size) == 1:
        return Team()
    if missing := [name for name, text in given.items() if not text]:
        raise InputError(f"WORLD_SIZE={size} is set but not {', '.join(missing)}; {_ADVICE}")
    if not rank.isdigit() or int(rank) >= int(size):
        raise InputError(f"RANK must be 0 to {int(size) - 1} with WORLD_SIZE={size}, got {rank!r}; {_ADVICE}")
    if not given["MASTER_PORT"].isdigit():
        raise InputError(f"MASTER_PORT must be a number, got {given['MASTER_PORT']!r}; {_ADVICE}")
    return _joined(int(rank), int(size), f"{given['MASTER_ADDR']}:{given['MASTER_PORT']}", say)


def launched() -> bool:
    """Whether torchrun itself started this process, and not variables that somebody left behind."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def _joined(rank: int, size: int, place: str, say: Callable[[str], None]) -> Team:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # what it has to say is in the exception too
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    if dist.is_initialized():
        return Team(dist.get_rank(), dist.get_world_size())
    text = os.environ.get("DIFFSQ_WAIT", str(WAIT))
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"DIFFSQ_WAIT must be a number of seconds, got {text!r}")
    patience = datetime.timedelta(seconds=int(text))
    news = f"process {rank} of {size} waits for the others at {place}, {text} s at most"
    clock = threading.Timer(_A_MOMENT, say, (news,))
    clock.daemon = True
    clock.start()
    try:
        store, _, _ = next(iter(rendezvous("env://", timeout=patience)))
        store.set(f"diffsq/{rank}", "here")
        store.wait([f"diffsq/{other}" for other in range(size)], patience)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f"process {rank} of {size} (RANK, WORLD_SIZE) did not find the others at {place} within {text} s "
            f"({reason}); {_ADVICE}"
        ) from error
    finally:
        clock.cancel()
    return Team(rank, size)

"""One ensemble made by several processes: chains are split, what all must know is gathered.

    torchrun --nproc-per-node 4 -m -- diffsq ensemble demo

Every random number belongs to its chain and trajectory, so the processes only exchange what is decided from
all chains together (the tuning) or written (the fields), and the ensemble equals the single-process one byte
for byte. The engine is torch.distributed with the gloo backend; process 0 reads, writes and speaks, the
others `serve` it.
"""

from __future__ import annotations

import datetime
import os
from typing import Any

import numpy as np

from lattice.errors import InputError

_PATIENCE = datetime.timedelta(days=7)  # the others wait while process 0 does what is not split


class Team:
    """The processes of this run; a team of one does nothing but answer.

    `busy` while the others are at work on an ensemble: then process 0 may not give it up and go on.
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
        dist.all_gather(parts, torch.from_numpy(padded))
        shares = [Team(rank, self.size).share(n) for rank in range(self.size)]
        return np.concatenate([p.numpy()[: s.stop - s.start] for p, s in zip(parts, shares)])

    def tell(self, message: Any = None) -> Any:
        """What process 0 says (plain data), on every process."""
        if self.size == 1:
            return message
        import torch.distributed as dist

        box = [message]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def close(self) -> None:
        if self.size > 1:
            import torch.distributed as dist

            dist.destroy_process_group()


def team_from_environment() -> Team:
    """The team torchrun started this process in, or a team of one."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdigit():
        raise InputError(f"WORLD_SIZE must be a number of processes, got {text!r}; start with torchrun")
    if int(text) == 1 or "RANK" not in os.environ:
        return Team()
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=_PATIENCE)
    return Team(dist.get_rank(), dist.get_world_size())

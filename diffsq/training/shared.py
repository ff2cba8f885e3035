"""One training by several processes: each has its share of every batch, gradients are averaged.

The engine is DistributedDataParallel of PyTorch (Li et al., PVLDB 13 (2020) 3005) under torchrun. Random
numbers belong to the step and the row of the batch, so the shares of all processes are the batch that one
process would have: the same loss curve but for the order of sums. Process 0 fits what is closed-form, keeps
the checkpoints and the log, and says what goes wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from diffsq.models.lattice import LatticeScore
from diffsq.models.symmetry import Symmetry
from diffsq.training.loss import Batch, path_kl_rate
from lattice.errors import InputError
from lattice.processes import Team, lost


class Rate(nn.Module):
    """`path_kl_rate` of a model as a module, which is what DistributedDataParallel wraps: of its weights only
    those of the network are seen, the tables of its base are nobody's to average."""

    def __init__(self, model: LatticeScore) -> None:
        super().__init__()
        self.unet, self._model = model.unet, (model,)

    def forward(self, batch: Batch, frame: Symmetry) -> Tensor:
        """Nats per field and unit of ln sigma^2: (n,)."""
        return path_kl_rate(self._model[0], batch, frame)


def averaging(module: nn.Module, team: Team) -> nn.Module:
    """`module`, its gradients averaged over the processes of a team with every backward pass."""
    if team.size == 1:
        return module
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(module)


def same_tensors(module: nn.Module, team: Team) -> None:
    """Give the module of every process the tensors of that of process 0."""
    if team.size == 1:
        return
    own = {name: t.detach().cpu() for name, t in module.state_dict().items()} if team.rank == 0 else None
    module.load_state_dict(team.tell(own))


def mean_of(value: Tensor, team: Team) -> Tensor:
    """The mean of a number (), with its gradient only where it is a process's own."""
    if team.size == 1:
        return value.detach()
    return torch.from_numpy(team.gather(value.detach().double().cpu().numpy()[None], team.size)).mean()


def whole(part: Tensor, n: int, team: Team) -> Tensor:
    """The shares (m,) of all processes as one (n,)."""
    own = part.detach()
    return own if team.size == 1 else torch.from_numpy(team.gather(own.cpu().numpy(), n))


@contextmanager
def answered(team: Team) -> Iterator[None]:
    """Around a step, in which every process waits for the gradients of all. Raises `InputError` where one is
    gone."""
    try:
        yield
    except InputError:
        raise
    except RuntimeError as error:
        if team.size == 1 or not _is_of_gloo(error):
            raise
        raise lost(error) from error


def _is_of_gloo(error: Any) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("gloo", "connection", "peer", "process group"))

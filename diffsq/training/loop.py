"""The optimisation that all trainings share: schedule, average of the weights, log, checkpoints, refusals.

The learning rate rises over `warmup` steps and falls to zero as half a cosine. A step depends on its number
and on the weights alone, so a loop that continues from a checkpoint makes the bits of one that never stopped.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from diffsq.config.sections import PointTraining, TrainingConfig
from diffsq.training import checkpoint
from diffsq.training.shared import answered, mean_of, whole
from lattice.errors import InputError
from lattice.files import folder_error, write_atomic
from lattice.processes import Team
from lattice.progress import Progress

BETAS = (0.9, 0.99)  # of Adam


@dataclass(frozen=True)
class Loss:
    """Loss of a batch (), its share (m >= n,) of each sample, and the noise sigma (n,) of the first n."""

    value: Tensor
    rate: Tensor
    sigma: Tensor


class Loop:
    """One optimisation in the folder `out`, from the newest checkpoint of this key on.

    data: what a message tells the user to look at when the loss diverges. team: the processes that share it;
    process 0 alone reads and writes.
    """

    def __init__(
        self, settings: TrainingConfig | PointTraining, out: Path, key: str, progress: Progress, *,
        warmup: int, log_every: int, data: str, clip: float | None = None, team: Team | None = None,
    ) -> None:  # fmt: skip
        self.settings, self.out, self.key, self.progress = settings, out, key, progress
        self.warmup, self.log_every, self.data, self.clip = warmup, log_every, data, clip
        self.team, self.step, self.saved = team or Team(), 0, None
        if self.team.rank == 0:
            self.saved = checkpoint.load_checkpoint(out, key)
            checkpoint.drop_old(out, key)

    def share(self) -> None:
        """The checkpoint of process 0 on every process."""
        self.saved = self.team.tell(self.saved)

    def restore(self, model: nn.Module) -> bool:
        """Put the checkpoint's weights and tables into the model; False where there is no checkpoint."""
        if self.saved is not None:
            model.load_state_dict(self.saved[1]["model"])
        return self.saved is not None

    def run(
        self, model: nn.Module, network: nn.Module, optimizer: torch.optim.Optimizer,
        loss: Callable[[int], Loss], label: str,
        validate: Callable[[nn.Module], dict[str, float]] | None = None, validate_every: int = 1,
    ) -> nn.Module:  # fmt: skip
        """The average of `network`, a part of `model`, after all steps; `loss(step)` is that of a batch, of
        a team that of this process's share.

        validate(average) gives the values of a log line. Raises `InputError` for a loss, gradient or weight
        that is not finite.  Of a team, all are busy until it is over or all refuse in the same step: one that
        fails alone, or is killed, ends the run.
        """
        settings = self.settings
        average = AveragedModel(network, avg_fn=warm_average(settings.ema_decay))
        if self.saved is not None:
            self.step, parts = self.saved
            average.load_state_dict(parts["average"])
            fresh = optimizer.state_dict()
            optimizer.load_state_dict(checkpoint.unpack_optimizer(fresh, parts.get("optimizer", {})))
        first = self.team.rank == 0
        if first:
            self._rewind_log()
        self.progress.start(settings.n_steps, label, self.step)
        begun = time.monotonic()
        while self.step < settings.n_steps:
            with answered(self.team):
                value = self._advance(network, optimizer, loss(self.step))
            average.update_parameters(network)
            self.step += 1
            if not first:
                continue
            self.progress.update(1, loss=value)
            if self._due(self.log_every):
                rate, seconds = optimizer.param_groups[0]["lr"], round(time.monotonic() - begun, 2)
                self._log(loss=value, lr=rate, seconds=seconds)
            if validate is not None and self._due(validate_every):
                self._log(**validate(average.module))
            if self._due(settings.checkpoint_every):
                self._save(model, average, network, optimizer)
        self.progress.close()
        self.team.busy = False
        return average.module

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.settings.n_steps

    def _advance(self, network: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss) -> float:
        warm = min(1.0, (self.step + 1) / max(self.warmup, 1))
        decay = 0.5 * (1 + math.cos(math.pi * self.step / self.settings.n_steps))
        optimizer.param_groups[0]["lr"] = self.settings.learning_rate * warm * decay
        value = float(mean_of(loss.value, self.team))
        if not math.isfinite(value):
            raise self._diverged("loss", loss)
        optimizer.zero_grad()
        loss.value.backward()  # type: ignore[no-untyped-call]
        if self.clip is not None:
            norm = nn.utils.clip_grad_norm_(network.parameters(), self.clip)
            if not torch.isfinite(norm):  # one such step would put NaN into the next checkpoint
                raise self._diverged("gradient of the loss", loss)
        optimizer.step()
        return value

    def _diverged(self, what: str, loss: Loss) -> InputError:
        n = self.settings.batch_size
        self.team.busy = False  # all are here
        rate, sigma = (whole(q, n, self.team) for q in (loss.rate[: len(loss.sigma)], loss.sigma))
        worst = float(sigma[int(torch.nan_to_num(rate, nan=math.inf).argmax())])
        return InputError(
            f"the {what} is not finite at step {self.step}, sigma = {worst:.4g}; the last checkpoint in "
            f"{self.out} is kept: try a smaller training.learning_rate, or check {self.data}"
        )

    def _save(
        self, model: nn.Module, average: nn.Module, network: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        if not all(torch.isfinite(weight).all() for weight in network.parameters()):
            raise InputError(
                f"the weights are not finite after step {self.step}; the last checkpoint in {self.out} is "
                f"kept: try a smaller training.learning_rate"
            )
        packed = checkpoint.pack_optimizer(optimizer.state_dict())
        parts = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": packed}
        checkpoint.save_checkpoint(self.out, self.step, self.key, parts)

    def _log(self, **values: float) -> None:
        try:
            with open(self.out / "metrics.jsonl", "a") as file:
                file.write(json.dumps({"step": self.step, **values}) + "\n")
        except OSError as error:
            raise folder_error(self.out, error) from error

    def _rewind_log(self) -> None:
        path = self.out / "metrics.jsonl"
        kept = [line for line in checkpoint.read_lines(path) if line["step"] <= self.step]
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept).encode())


def warm_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential moving average with a memory that grows with the steps: early weights are forgotten."""

    def update(average: Tensor, new: Tensor, n: Tensor | int) -> Tensor:
        return torch.lerp(average, new, 1 - min(decay, (1 + int(n)) / (10 + int(n))))

    return update

"""Training: measure G(k), fit the regression base in closed form, then the U-Net on top by score matching.

Every random number of step n is a function of (seed, n), so a resumed training continues bitwise where the
last checkpoint left it. The model that is kept carries the exponential moving average of the U-Net's weights.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from diffsq.config.config import LatticeRun
from diffsq.models import files
from diffsq.models.lattice import LatticeScore
from diffsq.models.momentum import propagator
from diffsq.models.symmetry import Symmetry
from diffsq.training import checkpoint
from diffsq.training.loop import warm_average
from diffsq.training.loss import Batch, gain_rate, path_kl_rate, prepare
from diffsq.training.validation import held_out_batch, measure_gain, validation_table
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.files import read_json, sha256_file, write_atomic, write_json
from lattice.progress import Progress, Silent
from lattice.rng import normals, uniforms

EVALUATE = 64  # fields per network call outside training
FIELD_MARGIN = 1.2  # site posteriors are tabulated up to this times the largest |phi| seen


def train(
    config: LatticeRun,
    ensemble: Ensemble,
    out: Path,
    *,
    progress: Progress | None = None,
    device: str = "cpu",
) -> LatticeScore:
    """Train a score model on an ensemble; the same call again resumes, or returns the finished model.

    Writes out/model/, checkpoints, metrics.jsonl, validation.json and, last, manifest.json. Whole chains, a
    fraction `training.validation_fraction`, are held out. Raises `InputError` on a non-finite loss, naming
    sigma; the last good checkpoint is kept.
    """
    out.mkdir(parents=True, exist_ok=True)
    about = describe(config, ensemble)
    key = checkpoint.key_of(about)
    if (out / "manifest.json").exists() and read_json(out / "manifest.json").get("key") == key:
        return files.load_model(out / "model")[0]
    work = Training(config, ensemble, out, key, progress or Silent(), device)
    work.fit_base()
    work.fit_unet()
    model = work.finished()
    table = validation_table(model, work.held_out, work.gradient, config.seed)
    history = [line for line in checkpoint.read_lines(out / "metrics.jsonl") if "val_gain" in line]
    table["history"] = [
        {"step": h["step"], "gain": h["val_gain"], "gain_error": h["val_gain_error"]} for h in history
    ]
    write_json(out / "validation.json", table)
    files.save_model(model, out / "model", about)
    write_json(out / "manifest.json", {"key": key, "weights": sha256_file(out / "model/weights.safetensors")})
    return model


def describe(config: LatticeRun, ensemble: Ensemble) -> dict[str, Any]:
    """What a trained model is bound to, as stored in model.json."""
    if ensemble.shape != tuple(config.lattice.shape):
        raise InputError(f"the ensemble is {ensemble.shape}, the config says {config.lattice.shape}")
    if config.action is not None and ensemble.action.as_dict() != config.action.as_dict():
        raise InputError(f"the ensemble's action is {ensemble.action.as_dict()}, not the config's")
    full = config.model_dump(mode="json")
    return {
        "action": ensemble.action.as_dict(),
        "sde": full["sde"],
        "sizes": {name: full["model"][name] for name in ("channels", "n_levels", "n_sigma")},
        "ensemble": ensemble.identity,
        "config": {name: full[name] for name in ("seed", "action", "lattice", "sde", "model", "training")},
    }


class Training:
    """The state of one training run between steps."""

    def __init__(
        self, config: LatticeRun, ensemble: Ensemble, out: Path, key: str, progress: Progress, device: str
    ) -> None:
        self.config, self.out, self.key, self.progress = config, out, key, progress
        self.device = torch.device(device)
        train_set, held_out = ensemble.split_chains(config.training.validation_fraction)
        self.phi = torch.from_numpy(train_set.phi).to(self.device)
        self.held_out = torch.from_numpy(held_out.phi).to(self.device)
        self.action = ensemble.action
        self.gradient: Callable[[Tensor], Tensor] = ensemble.action.grad
        sizes = config.model.model_dump()
        self.model = files.build_model(ensemble.shape, sizes).to(self.device)
        self.saved = checkpoint.load_checkpoint(out, key)
        self.step = 0

    def normals(self, stream: str, step: int, n: int) -> Tensor:
        """(n, *shape) standard normal numbers of one step."""
        size = self.model.momenta.volume
        eps = normals(self.config.seed, f"train/{stream}", np.arange(n), step, size)
        return torch.from_numpy(eps).reshape(n, *self.model.shape).to(self.device)

    def uniforms(self, stream: str, step: int, n: int) -> Tensor:
        """(n,) uniform numbers of one step."""
        return torch.from_numpy(uniforms(self.config.seed, f"train/{stream}", np.array([0]), step, n)[0])

    def fit_base(self) -> None:
        """Propagator, noise range and regression base, or the ones of the checkpoint."""
        if self.saved is not None:
            self.model.load_state_dict(self.saved[1]["model"])
            return
        sde, settings = self.config.sde, self.config.model
        g = propagator(self.model.momenta, self.phi)
        sigma_max = sde.sigma_max or 2 * math.sqrt(float(g[0]))
        if sigma_max <= sde.sigma_min:
            raise InputError(
                f"sde.sigma_min = {sde.sigma_min} is not below sigma_max = {sigma_max:.4g} = 2 sqrt(G(0)) of "
                f"this ensemble; take it well below"
            )
        base = self.model.base
        base.set_gaussian(g, sde.sigma_min, sigma_max)
        base.set_action(self.action, FIELD_MARGIN * float(self.phi.abs().max()))
        self.progress.start(settings.n_sigma, "regression base")
        n_fit = min(settings.n_fit, len(self.phi))
        base.fit(
            self.phi,
            self.gradient,
            lambda node: self.normals("base", node, n_fit),
            lambda: self.progress.update(),
        )
        self.progress.close()

    def fit_unet(self) -> None:
        """The optimisation loop, from the newest checkpoint on."""
        settings, unet = self.config.training, self.model.unet
        if unet is not None and self.saved is None:
            initialise(unet, self.uniforms("initialise", 0, 2))
        if unet is None or settings.n_steps == 0:
            self.average: nn.Module | None = unet
            return
        average = AveragedModel(unet, avg_fn=warm_average(settings.ema_decay))
        optimizer = torch.optim.AdamW(
            unet.parameters(), settings.learning_rate, (0.9, 0.99), weight_decay=1e-3
        )
        if self.saved is not None:
            self.step, parts = self.saved
            average.load_state_dict(parts["average"])
            optimizer.load_state_dict(
                checkpoint.unpack_optimizer(optimizer.state_dict(), parts.get("optimizer", {}))
            )
        self.average = average.module
        self._rewind_metrics()
        validation = held_out_batch(self.model, self.held_out, self.gradient, self.config.seed)
        self.progress.start(settings.n_steps, "score matching", self.step)
        begun = time.monotonic()
        while self.step < settings.n_steps:
            loss = self._step(unet, optimizer)
            average.update_parameters(unet)
            self.step += 1
            last = self.step == settings.n_steps
            self.progress.update(1, loss=loss)
            if self.step % 20 == 0 or last:
                rate = optimizer.param_groups[0]["lr"]
                seconds = round(time.monotonic() - begun, 2)
                self._log({"step": self.step, "loss": loss, "lr": rate, "seconds": seconds})
            if self.step % settings.validate_every == 0 or last:
                gain, error = self._validate(validation)
                self._log({"step": self.step, "val_gain": gain, "val_gain_error": error})
                self.progress.update(0, gain=gain)
            if self.step % settings.checkpoint_every == 0 or last:
                self._check_weights(unet)
                parts = {
                    "model": checkpoint.parameters(self.model),
                    "average": checkpoint.parameters(average),
                    "optimizer": checkpoint.pack_optimizer(optimizer.state_dict()),
                }
                checkpoint.save_checkpoint(self.out, self.step, self.key, parts)
        self.progress.close()

    def batch(self, step: int) -> Batch:
        """The training batch of a step: fields at random, ln sigma stratified over the whole range."""
        n = self.config.training.batch_size
        rows = (self.uniforms("rows", step, n) * len(self.phi)).long().to(self.device)
        low, high = self.model.base.log_sigma[0], self.model.base.log_sigma[-1]
        position = (torch.arange(n) + self.uniforms("sigma", step, n)).to(self.device) / n
        sigma = torch.exp(low + (high - low) * position)
        return prepare(self.model, self.phi[rows], self.gradient, sigma, self.normals("noise", step, n))

    def _step(self, unet: nn.Module, optimizer: torch.optim.Optimizer) -> float:
        settings = self.config.training
        warm = min(1.0, (self.step + 1) / max(settings.warmup, 1))
        decay = 0.5 * (1 + math.cos(math.pi * self.step / settings.n_steps))
        optimizer.param_groups[0]["lr"] = settings.learning_rate * warm * decay
        frame = Symmetry.draw(self.uniforms("frame", self.step, 5), self.model.shape)
        batch = self.batch(self.step)
        rate = path_kl_rate(self.model, batch, frame)
        loss = self.model.log_range * rate.mean()
        if not torch.isfinite(loss):
            raise self._diverged("loss", batch, rate)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        if not torch.isfinite(norm):  # one such step would put NaN into the next checkpoint
            raise self._diverged("gradient of the loss", batch, rate)
        optimizer.step()
        return float(loss.detach())

    def _check_weights(self, unet: nn.Module) -> None:
        if not all(torch.isfinite(weight).all() for weight in unet.parameters()):
            raise InputError(
                f"the weights are not finite after step {self.step}; the last checkpoint in {self.out} is "
                f"kept: try a smaller training.learning_rate"
            )

    def _diverged(self, what: str, batch: Batch, rate: Tensor) -> InputError:
        worst = float(batch.sigma[int(torch.nan_to_num(rate.detach(), nan=math.inf).argmax())])
        return InputError(
            f"the {what} is not finite at step {self.step}, sigma = {worst:.4g}; the last checkpoint in "
            f"{self.out} is kept: try a smaller training.learning_rate, or check the ensemble"
        )

    def _validate(self, validation: Batch) -> tuple[float, float]:
        current, self.model.unet = self.model.unet, self.average  # type: ignore[assignment]
        rates = [
            gain_rate(self.model, validation.part(slice(i, i + EVALUATE)))[0].sum((-1, -2))
            for i in range(0, len(validation.x), EVALUATE)
        ]
        self.model.unet = current
        gains = self.model.log_range * torch.cat(rates)
        return float(gains.mean()), float(gains.std() / math.sqrt(len(gains)))

    def finished(self) -> LatticeScore:
        """The model with averaged weights and the posterior variance they leave, in evaluation mode."""
        if self.model.unet is not None:
            self.model.unet = self.average  # type: ignore[assignment]
            measure_gain(self.model, self.phi, self.gradient, self.config.seed)
        return self.model.eval()

    def _log(self, line: dict[str, Any]) -> None:
        with open(self.out / "metrics.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def _rewind_metrics(self) -> None:
        kept = [
            line for line in checkpoint.read_lines(self.out / "metrics.jsonl") if line["step"] <= self.step
        ]
        write_atomic(self.out / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept).encode())


def initialise(unet: nn.Module, uniform: Tensor) -> None:
    """Draw fresh weights by PyTorch's default law for convolutions and linear maps, own generator."""
    generator = torch.Generator().manual_seed(int(float(uniform[0]) * 2**62))
    for module in unet.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            if module.weight.abs().max() > 0:  # heads and gains that start at zero stay there
                bound = 1 / math.sqrt(fan_in)
                fresh = torch.rand(module.weight.shape, generator=generator) * 2 * bound - bound
                module.weight.data.copy_(fresh)
            if module.bias is not None and module.bias.abs().max() > 0:
                fresh = torch.rand(module.bias.shape, generator=generator) * 2 - 1
                module.bias.data.copy_(fresh / math.sqrt(fan_in))

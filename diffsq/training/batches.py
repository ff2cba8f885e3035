"""The batches of a training, functions of (seed, step) alone: fields, noise, targets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsq.config.sections import TrainingConfig
from diffsq.models.blocks import Fields, KeyedNoise, Rows, zero_modes
from diffsq.models.lattice import LatticeScore
from diffsq.training.loss import Batch, prepare
from diffsq.training.posterior_fields import PosteriorMeans, posterior_means
from lattice.rng import stream_id, uniforms

WHOLE = slice(None)
EVALUATE = 64  # fields at a time outside of steps
RARE = 0.02  # fields between the peaks of P(M), as a share, below which a sector is a law of its own
SMALL = 0.3  # of <|M|>: between the peaks


@dataclass(frozen=True)
class Batches:
    """Of training fields phi; action: None where only the fields are known."""

    model: LatticeScore
    phi: Rows
    action: Any
    settings: TrainingConfig
    seed: int

    def uniforms(self, stream: str, step: int, n: int) -> Tensor:
        """(n,) uniform numbers of one step."""
        return torch.from_numpy(uniforms(self.seed, f"train/{stream}", np.array([0]), step, n)[0])

    def generator(self) -> torch.Generator:
        """Of fresh weights."""
        return torch.Generator().manual_seed(int(float(self.uniforms("initialise", 0, 1)[0]) * 2**62))

    def noise(self, stream: str = "noise") -> KeyedNoise:
        """noise(step) -> (batch_size, *shape) standard normal numbers."""
        index = np.arange(self.settings.batch_size)
        return KeyedNoise(self.seed, f"train/{stream}", index, self.model.shape, self.phi.device)

    def fields(self, step: int, own: slice = WHOLE) -> Tensor:
        """Fields at random."""
        rows = (self.uniforms("rows", step, self.settings.batch_size) * len(self.phi)).long()[own]
        return self.phi[rows.to(self.phi.device)]

    def at(self, step: int, own: slice = WHOLE, n_posterior: int | None = None) -> Batch:
        """The batch of a step, or some rows of it, ln sigma stratified over the whole range; its targets
        averaged over the posterior as the settings say, or over `n_posterior` trajectories."""
        n, device = self.settings.batch_size, self.phi.device
        n_posterior = self.settings.n_posterior if n_posterior is None else n_posterior
        low, high = self.model.base.log_sigma[0], self.model.base.log_sigma[-1]
        position = (torch.arange(n) + self.uniforms("sigma", step, n))[own].to(device) / n
        sigma = torch.exp(low + (high - low) * position)
        grad = None if self.action is None else self.action.grad
        averaged = partial(self._averaged, step, own, n_posterior) if n_posterior else None
        bridge = self.noise("bridge").part(own)(step) if self.model.learns_spread else None
        return prepare(
            self.model, self.fields(step, own), grad, sigma, self.noise().part(own)(step), averaged, bridge
        )

    def _averaged(
        self, step: int, own: slice, n_posterior: int, phi: Tensor, x: Tensor, sigma: Tensor
    ) -> PosteriorMeans:
        seed = (self.seed + stream_id("train/posterior")) % 2**63
        return posterior_means(
            self.model.base, self.action, phi, x, sigma, n_posterior, seed=seed,
            chains=np.arange(self.settings.batch_size)[own], first=step * (n_posterior + 1),
        )  # fmt: skip

    def worth(self) -> dict[str, float]:
        """Of the targets' average over the posterior, on the first batch: the loss of the base alone with one
        draw and with the average, nats a field, most of it noise of the target; CPU seconds of a field."""
        found = dict[str, float]()
        for name, n_posterior in (("one_draw", 0), ("averaged", self.settings.n_posterior)):
            begun = time.process_time()
            batch = self.at(0, n_posterior=n_posterior)
            found[f"{name}_seconds"] = (time.process_time() - begun) / len(batch.x)
            rate = (batch.weight * batch.target.abs() ** 2).sum((-1, -2)).mean()
            found[name] = float(self.model.log_range * rate)
        return found


def one_sided(phi: Fields) -> bool:
    """Whether P(M) has two peaks with so little between them that one sign is a law of its own."""
    m = zero_modes(phi, EVALUATE).abs()
    return float((m < SMALL * m.mean()).double().mean()) < RARE

"""Models of U(1) links: the closed-form score of a plaquette action, known or learned, and the network on the
circle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsq.config.gauge import GaugeRun
from diffsq.models import gauge, torus
from diffsq.models.files import finished_model, save_model
from diffsq.models.gauge import GaugeScore
from diffsq.models.plaquette_law import PlaquetteLaw
from diffsq.models.torus import TorusNetwork, TorusScore
from diffsq.process.torus import SIGMA_MAX
from diffsq.training import harmonics
from diffsq.training.harmonics import fit_harmonics, smooth_charges
from diffsq.training.loop import BETAS, Loop, Loss
from lattice.actions.u1 import circulation
from lattice.arrays import Floats, wrapped
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.files import canonical_json, sha256_text
from lattice.progress import Progress, Silent
from lattice.rng import normals, uniforms

LAW = 1  # of the training: raise it with any change
LOWEST = 0.15  # sigma_min of the network: what it adds to a plaquette, in its standard deviations


def versions(config: GaugeRun) -> dict[str, int]:
    """The version of every law and fit that enters a model."""
    found = {"gauge": gauge.VERSION, "harmonics": harmonics.VERSION}
    return found | ({"torus": torus.VERSION, "training": LAW} if "torus" in config.models else {})


def train_gauge(
    config: GaugeRun, ensemble: Ensemble, out: Path, name: str, progress: Progress | None = None
) -> GaugeScore | TorusScore:
    """The model `name` in the folder `out`; the same call again resumes, or reads it.

    Raises `InputError` for links of another action or lattice, for charges asked of data that have none, and
    for a loss that is not finite.
    """
    about = describe(config, ensemble, name)
    key = sha256_text(canonical_json(about))
    done: GaugeScore | TorusScore | None = (
        finished_model(out, key, GaugeScore) if name == "score" else finished_model(out, key, TorusScore)
    )
    if done is not None:
        return done
    out.mkdir(parents=True, exist_ok=True)
    if name == "score":
        score, learned = fitted(config, ensemble)
        return save_model(score, out, {**about, "learned": learned, "key": key})
    trained = TorusTraining(config, ensemble, out, key, progress or Silent()).run()
    return save_model(trained, out, {**about, "key": key})


def describe(config: GaugeRun, ensemble: Ensemble, name: str) -> dict[str, Any]:
    """What a model is bound to, as stored in model.json."""
    config.require_action(ensemble.action)
    if ensemble.shape != tuple(config.shape):
        raise InputError(f"the ensemble is {ensemble.shape}, the config says {config.shape}")
    full = config.of(name).model_dump(mode="json")
    return {
        "action": ensemble.action.as_dict(), "ensemble": ensemble.identity,
        "config": {key: full[key] for key in ("seed", "action", "lattice", "models", "model", "training")},
        "versions": versions(config.of(name)),
    }  # fmt: skip


def fitted(config: GaugeRun, ensemble: Ensemble) -> tuple[GaugeScore, dict[str, Any]]:
    """The score of the action, or of one learned from the links, and what was learned."""
    settings = config.training
    rows, others = ensemble.split_rows(settings.validation_fraction)
    learned: dict[str, Any] = {}
    b = torch.tensor([config.action.beta.real], dtype=torch.float64)
    if not settings.use_action:
        found = fit_harmonics(
            ensemble.phi[rows], ensemble.phi[others], ensemble.chain[rows], settings.n_harmonics
        )
        learned = {name: getattr(found, name).tolist() for name in ("b", "error", "loss")}
        b = torch.from_numpy(found.b)
    charges = None
    if settings.sectors == "data":
        charges = smooth_charges(lifted_charges(ensemble.phi[rows], PlaquetteLaw(b), config.seed))
    return GaugeScore(ensemble.shape, b, charges), learned


def lifted_charges(links: Floats, law: PlaquetteLaw, seed: int) -> Floats:
    """The charges of the lifts of links (n, 2, L0, L1): (n,)."""
    theta = circulation(torch.from_numpy(links))
    u = uniforms(seed, "train/lift", np.arange(len(links)), 0, math.prod(theta.shape[1:]))
    flux = law.lifted(wrapped(theta), torch.from_numpy(u).reshape(theta.shape))
    found: Floats = (flux.sum((-1, -2)) / (2 * math.pi)).round().numpy()
    return found


class TorusTraining:
    """Denoising score matching of the network on the circle."""

    def __init__(self, config: GaugeRun, ensemble: Ensemble, out: Path, key: str, progress: Progress) -> None:
        self.seed, self.settings = config.seed, config.training
        self.links, self.rows = ensemble.phi, ensemble.split_rows(config.training.validation_fraction)[0]
        beta = config.action.beta.real
        spread = PlaquetteLaw(torch.tensor([beta], dtype=torch.float64)).spread
        sigma_min = LOWEST * math.sqrt(min(spread, 1.0)) / 2
        self.model = TorusScore(ensemble.shape, config.model.channels, beta, spread, sigma_min)
        self.loop = Loop(
            config.training, out, key, progress,  # type: ignore[arg-type]
            warmup=config.training.warmup, log_every=20, data="the links", clip=1.0,
        )  # fmt: skip

    def run(self) -> TorusScore:
        """The model with averaged weights, in evaluation mode."""
        network = self.model.network
        if not self.loop.restore(self.model):
            seed = int(
                uniforms(self.seed, "train/torus/initialise", np.zeros(1, np.int64), 0, 1)[0, 0] * 2**62
            )
            network.initialise(torch.Generator().manual_seed(seed))
        if self.settings.n_steps > 0:
            optimizer = torch.optim.Adam(network.parameters(), self.settings.learning_rate, BETAS)
            average = self.loop.run(self.model, network, optimizer, self.loss, "score matching on the circle")
            assert isinstance(average, TorusNetwork)
            self.model.network = average
        return self.model.eval().requires_grad_(False)

    def loss(self, step: int) -> Loss:
        """Path KL per plaquette, but for a constant, of a batch."""
        n, size = self.settings.batch_size, math.prod(self.links.shape[1:])
        u = uniforms(self.seed, "train/torus/batch", np.arange(n), step, 2)
        rows = self.rows[(u[:, 0] * len(self.rows)).astype(np.int64)]
        low, high = (math.log(end) for end in self.model.span)
        sigma = torch.from_numpy(np.exp(low + (high - low) * u[:, 1]))
        noise = torch.from_numpy(normals(self.seed, "train/torus/noise", np.arange(n), step, size))
        links = torch.from_numpy(self.links[rows])
        rate = denoising_error(self.model, links, noise.reshape(links.shape), sigma)
        return Loss(math.log(SIGMA_MAX / self.model.span[0]) * rate.mean(), rate, sigma)


def denoising_error(model: TorusScore, links: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """|sigma s + noise|^2 (n,) of the transverse modes, per plaquette: links and noise (n, 2, L0, L1)."""
    p = model.momenta
    at = sigma[:, None, None]
    u = p.modes(
        model.plaquette_field(circulation(links + sigma[:, None, None, None] * noise), sigma).double()
    )
    k = p.expand(p.khat2).sqrt()
    rest = u * k / at + p.modes(circulation(noise)) / k.clamp_min(1e-9)
    rest = torch.where(k > 1e-9, rest, torch.zeros_like(rest))
    return p.total(rest.abs() ** 2) / p.volume

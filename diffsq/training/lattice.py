"""Training: measure G(k), fit the regression base in closed form, then a U-Net on top by score matching, or
a network with a closed trace through the flow.

Every random number of step n is a function of (seed, n), so a resumed training continues bitwise where the
last checkpoint left it. The model that is kept carries the exponential moving average of the U-Net's weights.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from diffsq.config.config import LatticeRun
from diffsq.models import lattice, regression
from diffsq.models.blocks import KeyedNoise, Mapped, Rows, largest
from diffsq.models.files import finished_model, save_model
from diffsq.models.lattice import LatticeScore
from diffsq.models.lattice_flow import LatticeFlow, steps_of
from diffsq.models.momentum import propagator, smooth_propagator
from diffsq.models.regression import RegressionBase
from diffsq.models.site_network import SiteNetwork
from diffsq.models.spectra import brief
from diffsq.models.symmetry import Symmetry
from diffsq.models.unet import initialise
from diffsq.training.batches import Batches, one_sided
from diffsq.training.checkpoint import read_lines
from diffsq.training.flow_loss import (
    flow_loss,
    half_of_the_variance,
    log_weights,
    network_size,
    score_loss,
)
from diffsq.training.loop import BETAS, Loop, Loss
from diffsq.training.shared import Rate, averaging, same_tensors
from diffsq.training.validation import HeldOut, gain_of, held_out_batch, measure_gain, validation_table
from diffsq.training.wiener import fit_wiener
from lattice.arrays import Integers
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.files import canonical_json, sha256_text, write_json
from lattice.processes import Team
from lattice.progress import Progress, Silent
from lattice.statistics.blocks import jackknife_of

LAW = 2  # of the training for given settings and data: raise it with any change of what is learned
EVALUATE = 64  # fields per network call outside training
N_VALIDATE = 1024  # held-out fields that a network is judged by through the flow
FIELD_MARGIN = 1.2  # site posteriors are tabulated up to this times the largest |phi| seen
WEIGHT_DECAY = 1e-3


def train(
    config: LatticeRun,
    ensemble: Ensemble,
    out: str | Path,
    *,
    progress: Progress | None = None,
    device: str = "cpu",
    team: Team | None = None,
) -> LatticeScore:
    """Train a score model on an ensemble; the same call again resumes, or returns the finished model.

    Writes checkpoints, metrics.jsonl, validation.json and, last, out/model.json. Whole chains, a fraction
    `training.validation_fraction`, are held out. Raises `InputError` on a non-finite loss, naming sigma; the
    last good checkpoint is kept.  Process 0 of a `team` calls this, the others `share`.
    """
    out, team = Path(out), team or Team()
    about = describe(config, ensemble)
    key = sha256_text(canonical_json(about))
    if team.size > config.training.batch_size:
        raise InputError(
            f"{team.size} processes but training.batch_size = {config.training.batch_size}: start fewer"
        )
    done = finished_model(out, key, LatticeScore)
    if done is not None:
        return done
    out.mkdir(parents=True, exist_ok=True)
    team.tell(("train", str(out.resolve())))
    with team.together():
        work = Training(config, ensemble, out, key, progress or Silent(), device, team)
    model = work.run()
    table = validation_table(model, work.held_out, work.grad, config.seed)
    if work.worth:
        table["posterior"] = work.worth
    table["history"] = [
        {"step": line["step"], "gain": line["val_gain"], "gain_error": line["val_gain_error"]}
        for line in read_lines(out / "metrics.jsonl")
        if "val_gain" in line
    ]
    write_json(out / "validation.json", table)
    return save_model(model, out, {**about, "key": key})


def share(team: Team, open_run: Callable[[], tuple[LatticeRun, Ensemble, str]], out: Path) -> None:
    """What the other processes of a team do of `train`: their share of the steps. open_run: its config,
    ensemble, and this process's device."""
    with team.together():
        config, ensemble, device = open_run()
        key = sha256_text(canonical_json(describe(config, ensemble)))
        work = Training(config, ensemble, out, key, Silent(), device, team)
    work.run()


def versions(config: LatticeRun) -> dict[str, int]:
    """The version of every law and fit that enters a model: LAW is that of all but U-Nets that know an action
    or learn a spread, which are one younger."""
    own = config.model.channels > 0 and (config.training.use_action or config.model.covariance)
    return {"model": lattice.VERSION, "base": regression.VERSION, "training": LAW + own}


def describe(config: LatticeRun, ensemble: Ensemble) -> dict[str, Any]:
    """What a trained model is bound to, as stored in model.json: its hash is the key of a training."""
    action = ensemble.action
    if action.field != "real" or action.components or not action.even or len(ensemble.shape) != 2:
        raise InputError(
            "the lattice score is odd in one real field in two dimensions: it needs an even action (even = "
            f"True says so), not {action} on {ensemble.shape}"
        )
    if ensemble.shape != tuple(config.lattice.shape):
        raise InputError(f"the ensemble is {ensemble.shape}, the config says {config.lattice.shape}")
    config.require_action(ensemble.action)
    if config.training.n_posterior and not action.has_action:
        raise InputError(
            "training.n_posterior samples the posterior of an action, which this law has not; take 0"
        )
    if config.model.network and not action.has_action:
        raise InputError("model.network is judged by weights, which a law without an action has not; take 0")
    full = config.model_dump(mode="json")
    return {
        "action": ensemble.action.as_dict(),
        "ensemble": ensemble.identity,
        "config": {name: full[name] for name in ("seed", "action", "lattice", "sde", "model", "training")},
        "versions": versions(config),
        **inputs(config, ensemble),
    }


def inputs(config: LatticeRun, ensemble: Ensemble) -> dict[str, int]:
    """site = 1 where a U-Net sees the posterior of each site, which needs a known phi^4 action."""
    known = config.training.use_action and ensemble.action.phi4 is not None
    return {"site": 1} if config.model.channels and known and config.model.base == "regression" else {}


def in_halves(rows: Integers, chain: Integers) -> tuple[Integers, Integers]:
    """Rows of every other chain and of the rest, of a single chain its first and its last half."""
    chains = np.unique(chain[rows])
    if len(chains) == 1:
        early = np.sort(rows)
        return early[: len(rows) // 2], early[len(rows) // 2 :]
    even = np.isin(chain[rows], chains[::2])
    return rows[even], rows[~even]


class Training:
    """The state of one training run between steps."""

    def __init__(
        self, config: LatticeRun, ensemble: Ensemble, out: Path, key: str, progress: Progress, device: str,
        team: Team,
    ) -> None:  # fmt: skip
        self.team, self.worth = team, dict[str, float]()
        self.config, self.progress, self.device = config, progress, torch.device(device)
        parts = ensemble.split_rows(config.training.validation_fraction)
        self.phi = Rows.of(ensemble.phi, parts[0], self.device)
        self.halves = [Rows.of(ensemble.phi, q, self.device) for q in in_halves(parts[0], ensemble.chain)]
        self.held_out = HeldOut.of(ensemble, parts[1], config.seed, self.device)
        self.action = ensemble.action
        self.known = self.action.has_action and config.training.use_action
        self.grad = self.action.grad if self.known else None
        if config.model.network and one_sided(self.phi):
            raise InputError(
                "P(M) has two separate peaks: the flow is that of one sign, model.network is for both; "
                "take model.network 0"
            )
        sizes = config.model.model_dump(exclude={"base", "n_fit"}) | inputs(config, ensemble)
        sector = int(not config.model.channels and one_sided(self.phi))
        self.model = LatticeScore.unfitted(ensemble.shape, **sizes, sector=sector).to(self.device)
        known = self.action if self.known else None
        self.batches = Batches(self.model, self.phi, known, config.training, config.seed)
        self.loop = Loop(
            config.training, out, key, progress,
            warmup=config.training.warmup, log_every=20, data="the ensemble", clip=1.0, team=team,
        )  # fmt: skip

    def run(self) -> LatticeScore:
        """The model with averaged weights and the posterior variance they leave, in evaluation mode."""
        model, team = self.model, self.team
        self.loop.share()
        with team.together():
            restored = self.loop.restore(model)
            if not restored and team.rank == 0:
                self.fit_base()
        team.busy = True
        same_tensors(model, team)
        if model.unet is not None:
            if not restored:
                initialise(model.unet, self.batches.generator())
            if self.config.training.n_steps > 0:
                model.unet = self.fit_unet(model.unet)  # type: ignore[assignment]
            if team.rank:
                return model  # what is left is the work of one
            measure_gain(model, self.phi, self.grad, self.config.seed)
        if (network := model.base.network) is not None and self.config.training.n_steps > 0:
            if not restored:
                network.initialise(self.batches.generator())
            model.base.network = self.fit_network(network)
            measure_gain(model, self.phi, self.grad, self.config.seed)
        return model.eval().requires_grad_(False)

    def fit_base(self) -> None:
        """Propagator, noise range, and the closed form that the U-Net is a residual on; that of a sector."""
        settings, model = self.config.model, self.model
        n_fit = min(settings.n_fit, len(self.phi))
        bases = {"train/base": model.base}
        if settings.base == "wiener":
            bases = {"train/wiener": model.base}
        elif model.sector is not None:
            model.sector.set_centre(self.phi, EVALUATE)
            bases["train/sector"] = model.sector
        self.progress.start(len(bases) * settings.n_sigma, "regression base")
        for stream, base in bases.items():
            self._set_levels(base)
            noise = KeyedNoise(self.config.seed, stream, np.arange(n_fit), model.shape, self.device)
            if settings.base == "wiener":
                fit_wiener(base, self.phi, self.grad, noise, self.progress.update)
            else:
                base.fit(self.phi, self.grad, noise, self.progress.update)
        self.progress.close()

    def _set_levels(self, base: RegressionBase) -> None:
        sde = self.config.sde
        whole, *halves = (
            propagator(base.momenta, Mapped(q, base.of_sector)) for q in (self.phi, *self.halves)
        )
        g = smooth_propagator(base.momenta, whole, (halves[0], halves[1]))
        sigma_max = 2 * math.sqrt(float(g.max() if base.sector else g[0]))
        if not base.sector:
            sigma_max = sde.sigma_max or sigma_max
        if sigma_max <= sde.sigma_min:
            raise InputError(
                f"sde.sigma_min = {sde.sigma_min} is not below sigma_max = {sigma_max:.4g} = 2 sqrt(G(0)) of "
                f"this ensemble; take it well below"
            )
        base.set_gaussian(g, sde.sigma_min, sigma_max)
        if self.known and self.config.model.base == "regression":
            base.set_action(self.action, FIELD_MARGIN * largest(self.phi, EVALUATE))

    def fit_unet(self, unet: nn.Module) -> nn.Module:
        """Score matching from the newest checkpoint on: the average of the network."""
        settings = self.config.training
        self.rate = averaging(Rate(self.model), self.team)
        if self.team.rank == 0:
            validation, block = held_out_batch(self.model, self.held_out, self.grad, self.config.seed)

        def validate(average: nn.Module) -> dict[str, float]:
            current, self.model.unet = self.model.unet, average  # type: ignore[assignment]
            found = gain_of(self.model, validation, block)
            self.model.unet = current
            spread = {"spread": found["val_spread"]} if "val_spread" in found else {}
            self.progress.update(0, gain=found["val_gain"], **spread)
            weights = {name: w.detach().cpu().numpy() for name, w in average.named_parameters()}
            return {**found, **brief(weights)}

        optimizer = torch.optim.AdamW(
            unet.parameters(), settings.learning_rate, BETAS, weight_decay=WEIGHT_DECAY
        )
        return self.loop.run(
            self.model,
            unet,
            optimizer,
            self.loss,
            self.label("score matching"),
            validate,
            settings.validate_every,
        )

    def fit_network(self, network: SiteNetwork) -> SiteNetwork:
        """Through the flow or by score matching, from the newest checkpoint on: its average."""
        settings, base, action = self.config.training, self.model.base, self.action.action
        batches = self.batches
        kind = "variance" if settings.loss == "auto" else settings.loss
        n_levels = settings.n_levels or steps_of(base)
        flow = LatticeFlow(base, n_levels)  # its constants are made once
        fields, block = self.held_out.take(N_VALIDATE)

        def loss(step: int) -> Loss:
            if kind == "score":
                return score_loss(self.model, batches.at(step))
            found = flow_loss(kind, flow, batches.fields(step), batches.noise()(step), action)
            if settings.penalty:
                batch = batches.at(step)
                known = settings.n_posterior > 0
                size = score_loss(self.model, batch).value if known else network_size(self.model, batch)
                found = replace(found, value=found.value + 2 * settings.penalty * size)
            return found

        def validate(average: nn.Module) -> dict[str, float]:
            current, base.network = base.network, average  # type: ignore[assignment]
            with torch.no_grad():
                new = log_weights(LatticeFlow(base, n_levels), fields, action, EVALUATE)
            base.network = current
            data = torch.stack([new, before], 1).cpu().numpy()
            value, error = jackknife_of(half_of_the_variance, data, chain=block)
            self.progress.update(0, gain=value)
            return {"val_gain": value, "val_gain_error": error}

        base.network = None
        with torch.no_grad():
            before = log_weights(LatticeFlow(base, n_levels), fields, action, EVALUATE)
        base.network = network
        optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate, BETAS)
        return self.loop.run(  # type: ignore[return-value]
            self.model,
            network,
            optimizer,
            loss,
            self.label(f"network by {kind}"),
            validate,
            settings.validate_every,
        )

    def label(self, what: str) -> str:
        """What the bar says; of targets averaged over the posterior what that costs, and gains."""
        if not self.config.training.n_posterior or self.team.rank:
            return what
        self.worth = self.batches.worth()
        less = self.worth["one_draw"] / self.worth["averaged"]
        cost = 1e3 * self.worth["averaged_seconds"]
        return f"{what}, averaged targets ({less:.1f} times less noise, {cost:.0f} ms each)"

    def loss(self, step: int) -> Loss:
        """Path KL of this process's share of the batch of a step, seen in a lattice frame of the step's own;
        the mean over the processes is that of the batch."""
        n, rows = self.config.training.batch_size, self.team.share(self.config.training.batch_size)
        frame = Symmetry.draw(self.batches.uniforms("frame", step, 5), self.model.shape)
        batch = self.batches.at(step, rows)
        rate = self.rate(batch, frame)
        return Loss(self.model.log_range * rate.sum() * (self.team.size / n), rate, batch.sigma)

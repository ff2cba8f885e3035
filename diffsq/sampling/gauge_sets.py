"""The sample sets of U(1) links: of the flow and the paths of lifted flux, and of paths on the circle.

Samples of lifted flux get links of their plaquettes with holonomies and a gauge transformation uniform on the
circle: the law of all links, gauge orbits included, is that of the action after weighting.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsq.config.gauge import GaugeRun
from diffsq.models import gauge_flow
from diffsq.models.gauge import GaugeScore
from diffsq.models.gauge_flow import GaugeFlow, log_weight
from diffsq.models.protocol import Watch
from diffsq.models.torus import TorusScore
from diffsq.sampling import angle_kernel, gauge_path
from diffsq.sampling.angle_kernel import AnglePath
from diffsq.sampling.draws import Drawn, Sampling
from diffsq.sampling.flow_sets import draw_half, in_groups
from diffsq.sampling.folder import claim
from diffsq.sampling.gauge_path import GaugePath
from diffsq.sampling.lattice_sets import check_model
from diffsq.sampling.reverse_chain import finite
from diffsq.sampling.streams import noise_of
from lattice.actions.u1 import circulation
from lattice.arrays import Integers, wrapped
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.writer import EnsembleWriter
from lattice.files import canonical_json, sha256_text
from lattice.progress import Progress, Silent
from lattice.rng import uniforms
from lattice.simulation.gauge_draws import with_gauge

LAWS = {"flow": gauge_flow.VERSION, "path": gauge_path.VERSION, "angles": angle_kernel.VERSION}
DEFAULT = {"flow": gauge_flow.N_STEPS, "path": gauge_path.N_LEVELS, "angles": angle_kernel.N_LEVELS}
ORBITS = "uniform on every gauge orbit: two holonomies and a gauge transformation at each site"
N_CALIBRATION = 512  # training links that the variances of the paths on the circle are measured on


def sample_links(
    config: GaugeRun, model: GaugeScore | TorusScore, ensemble: Ensemble, out: Path,
    progress: Progress | None = None,
) -> Ensemble:  # fmt: skip
    """Draw `sampling.n_samples` links with log-weights, forward weights of held-out ones in forward.json; of
    the flow the first samples in half the steps, in half/. config: of one model alone (`GaugeRun.of`).

    More samples than `out` holds go on from there. Raises `InputError` when model, config and ensemble do not
    belong together, and for weights that are not finite.
    """
    check_model(model, ensemble)
    method = config.method
    n_levels = config.sampling.n_levels or DEFAULT[method]
    generated: dict[str, Any] = {
        "sampler": method, "law": LAWS[method], "process": "ve", "n_steps": n_levels, "links": ORBITS,
        "model": model.about["sha256"], "training_ensemble": model.about["ensemble"], "seed": config.seed,
        "stream": "sample", "sector": False,
    }  # fmt: skip
    zero = torch.zeros(1, dtype=torch.float64)
    work = Sampling(config, model, ensemble, out, "", "ve", zero, progress or Silent())
    kernel = _kernel(work, n_levels)
    generated["levels"] = kernel.levels.tolist()
    key = sha256_text(canonical_json(generated))
    work = replace(work, levels=kernel.levels, key=key)
    numbers = {"n_samples": config.n_samples, "n_forward": config.sampling.n_forward}
    request = claim(out, key, numbers)
    writer = EnsembleWriter(out, ensemble.action, (2, *ensemble.shape), key, {"generated": generated})
    work.forward(("model",), partial(_weigh, work, kernel))
    work.draw(writer, config.n_samples, partial(_block, work, kernel))
    if isinstance(kernel, GaugeFlow):
        fine = kernel.in_steps(2 * kernel.n_steps)
        own = {**generated, "levels": fine.levels.tolist(), "n_steps": fine.n_steps}
        draw_half(work, own, config.n_samples, partial(_block, work, fine))
    writer.finish({"generated": generated, "request": request})
    return writer.read()


Kernel = GaugeFlow | GaugePath | AnglePath


def _kernel(work: Sampling, n_levels: int) -> Kernel:
    model = work.model
    if isinstance(model, TorusScore):
        rows = work.ensemble.split_rows(work.config.training.validation_fraction)[0][:N_CALIBRATION]
        noise = work.noise("sample/calibration", rows, (2,))
        return AnglePath.of(model, n_levels).calibrate(work.fields(rows), noise)
    assert isinstance(model, GaugeScore)
    return GaugeFlow(model, n_levels) if work.config.method == "flow" else GaugePath.of(model, n_levels)


def target_of(work: Sampling) -> GaugeScore:
    """The score of the action itself, whose plaquette law is the target."""
    action: Any = work.ensemble.action
    beta = torch.tensor([action.beta.real], dtype=torch.float64)
    model = work.model
    if isinstance(model, GaugeScore) and torch.equal(model.harmonics.cpu(), beta):
        return model
    return GaugeScore(work.ensemble.shape, beta)


def _block(work: Sampling, kernel: Kernel, index: Integers, watch: Watch) -> Drawn:
    """One block of samples, with a watch that sees flux, or on the circle the plaquettes."""
    volume, what = math.prod(work.model.shape), f"log-weights of samples {index[0]}-{index[-1]}"
    if isinstance(kernel, AnglePath):
        start = math.pi * (2 * work.uniforms("sample/start", index, 2 * volume) - 1)
        start = start.reshape(len(index), 2, *work.model.shape)
        noise = work.noise("sample/reverse", index, (2,))
        links, log_w = kernel.sample(
            work.ensemble.action.action, start, noise, lambda n, a: watch(n, circulation(a).sin())
        )
        return links, finite(log_w, what)
    u = work.uniforms("sample/charge", index, volume + 3)
    flux, log_w = _flux(work, kernel, index, u[:, 0], watch)
    return links_of_flux(flux, u[:, 1:]), finite(log_w, what)


def flow_links(
    flow: GaugeFlow, target: GaugeScore, index: Integers, seed: int, stream: str
) -> tuple[Tensor, Tensor]:
    """Links (n, 2, L0, L1) and ln w (n,) of a flow alone, functions of (seed, stream, index)."""
    shape, volume = flow.score.shape, flow.momenta.volume
    u = torch.from_numpy(uniforms(seed, f"{stream}/charge", index, 0, volume + 3))
    white = noise_of(seed, stream, index, shape)(0)
    flux, log_w = in_groups(lambda a, b: flow.sample(target, a, b), white, u[:, 0])
    return links_of_flux(flux, u[:, 1:]), log_w


def links_of_flux(flux: Tensor, u: Tensor) -> Tensor:
    """Links of lifted flux (n, L0, L1), two holonomies and a gauge transformation drawn by u (n, V + 2)
    uniform."""
    return torch.from_numpy(with_gauge(wrapped(flux).numpy(), 2 * math.pi * u.numpy()))


def _flux(
    work: Sampling, kernel: GaugeFlow | GaugePath, index: Integers, u: Tensor, watch: Watch
) -> tuple[Tensor, Tensor]:
    target = target_of(work)
    if isinstance(kernel, GaugePath):
        charge = kernel.score.drawn_charges(u)
        noise = work.noise("sample/reverse", index)
        return kernel.of_charges(charge).sample(minus_log_weight(kernel.score, target), noise, watch=watch)
    watches: list[Watch] = [watch]

    def drawn(white: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        seen = watches.pop() if watches else None
        return kernel.sample(target, white, own, *([seen] if seen else []))

    return in_groups(drawn, work.noise("sample/flow", index)(0), u)  # type: ignore[return-value]


def minus_log_weight(score: GaugeScore, target: GaugeScore) -> Callable[[Tensor], Tensor]:
    """S of lifted flux, with all constants, and the law of its charge."""
    return lambda flux: -log_weight(score, target, flux, torch.zeros(len(flux), dtype=torch.float64))


def _weigh(work: Sampling, kernel: Kernel, links: Tensor, index: Integers) -> dict[str, Any]:
    """Forward log-weights of given links."""
    if isinstance(kernel, AnglePath):
        noise = work.noise("sample/forward", index, (2,))
        log_w = kernel.weigh(links, work.ensemble.action.action, noise)
        return {"model": finite(log_w, "forward log-weights").tolist()}
    target, shape = target_of(work), work.model.shape
    u = work.uniforms("sample/lift", index, math.prod(shape)).reshape(-1, *shape)
    if isinstance(kernel, GaugeFlow):
        log_w = in_groups(lambda a, b: kernel.latent(target, a, b), links, u)[1]
    else:
        flux = target.law.lifted(wrapped(circulation(links)), u)
        noise = work.noise("sample/forward", index)
        log_w = kernel.weigh(flux, minus_log_weight(kernel.score, target), noise)[0]
    return {"model": finite(log_w, "forward log-weights").tolist()}

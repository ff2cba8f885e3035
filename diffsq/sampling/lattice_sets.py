"""Global sampling of a trained model on a lattice, by the flow or the path with exact weights, or without."""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from diffsq.config.config import LatticeRun
from diffsq.models import lattice_flow
from diffsq.models.gauge import GaugeScore
from diffsq.models.lattice import LatticeScore
from diffsq.models.protocol import Watch
from diffsq.models.regression import RegressionBase
from diffsq.models.torus import TorusScore
from diffsq.sampling import flow_sets, lattice_path, steps
from diffsq.sampling.draws import Drawn, Sampling
from diffsq.sampling.folder import claim
from diffsq.sampling.lattice_path import ReversePath
from diffsq.sampling.levels import levels_of
from diffsq.sampling.reverse_chain import finite
from lattice.arrays import Integers
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.writer import EnsembleWriter
from lattice.errors import InputError
from lattice.files import canonical_json, sha256_text
from lattice.processes import Team
from lattice.progress import Progress, Silent

RETRAIN = "; retrain the model"


def sample(
    config: LatticeRun, model: LatticeScore, ensemble: Ensemble, out: Path, *,
    sde: str | None = None, progress: Progress | None = None, device: str = "cpu", team: Team | None = None,
) -> Ensemble:  # fmt: skip
    """Draw `sampling.n_samples` fields through the process `sde` (default: the first of sampling.sde).

    config: of one model alone (`LatticeRun.of`). model: from `diffsq.train` or `diffsq.load_model`, trained
    on this ensemble. For methods "flow" and "path": log-weights, and forward weights on held-out chains in
    forward.json; for the flow also the first samples in steps of half the size, in half/.
    More `n_samples` or `n_forward` than `out` holds go on from there.
    Raises `InputError` when the model belongs to another action, lattice or ensemble, or weights are not
    finite.  Process 0 of a `team` calls this, the others `drawn`; the files are the same.
    """
    writer, extras = drawn(config, model, ensemble, out, sde=sde, progress=progress, device=device, team=team)
    writer.finish(extras)
    return writer.read()


def drawn(
    config: LatticeRun, model: LatticeScore, ensemble: Ensemble, out: Path, *,
    sde: str | None = None, progress: Progress | None = None, device: str = "cpu", team: Team | None = None,
) -> tuple[EnsembleWriter, dict[str, Any]]:  # fmt: skip
    """As `sample`, all but the manifest: its writer, complete on process 0 of the team, and its entries."""
    check_model(model, ensemble)
    settings, process, team = config.sampling, sde or config.sampling.sde[0], team or Team()
    levels = levels_of(config, model.cpu(), process)
    generated = {
        "sampler": config.method, "law": law_of(config.method), "levels": levels.tolist(), "process": process,
        "start": "N(0, G(k) + sigma_max^2) per momentum mode", "model": model.about["sha256"],
        "training_ensemble": model.about["ensemble"], "seed": config.seed, "stream": "sample",
    }  # fmt: skip
    model = model.to(device)
    work = Sampling(config, model, ensemble, out, "", process, levels.to(device), progress or Silent(), team)
    flow = flow_sets.flow_of(work) if config.method == "flow" else None
    if flow is not None:
        generated |= {"levels": flow.levels.tolist(), **flow_sets.about(flow)}
        work = replace(work, levels=flow.levels)
    key = sha256_text(canonical_json(generated))
    work = replace(work, key=key)
    numbers = {"n_samples": config.n_samples, "n_forward": settings.n_forward}
    request = claim(out, key, numbers) if team.rank == 0 else {}
    writer = EnsembleWriter(out, ensemble.action, ensemble.shape, key, {"generated": generated})
    if flow is not None:
        flow_sets.write(work, flow, writer, generated)
    elif config.method == "path":
        path = ReversePath(model, work.levels)
        _forward(work, path)
        work.draw(writer, config.n_samples, partial(_path_block, work, path))
    else:
        work.draw(writer, config.n_samples, partial(_plain_block, work, steps.STEPS[config.method]))
    return writer, {"generated": generated, "request": request}


def law_of(method: str) -> int:
    """The version of the law of samples by this method."""
    return lattice_flow.VERSION if method == "flow" else lattice_path.VERSION


def check_model(
    model: LatticeScore | GaugeScore | TorusScore, ensemble: Ensemble, folder: Path | None = None
) -> None:
    """Refuse a model trained for another lattice, action or ensemble; `folder` is where it was read."""
    for name, have, want in (
        ("lattice", model.shape, ensemble.shape),
        ("action", model.about.get("action"), ensemble.action.as_dict()),
        ("ensemble", model.about.get("ensemble"), ensemble.identity),
    ):
        if have != want:
            where = f"{folder}: " if folder else ""
            raise InputError(f"{where}the model was trained for {name} {have}, not {want}; train one for it")


def _forward(work: Sampling, path: ReversePath) -> None:
    """Forward log-weights on held-out fields: of the model and, for its gain, of the closed forms."""
    rivals = {"model": path}
    if work.model.unet is not None:
        base = work.model.base
        rivals["wiener"] = ReversePath(wiener_of(base), work.levels)
        if work.config.model.base == "regression":
            rivals["base"] = ReversePath(LatticeScore(base, None), work.levels)

    def weigh(phi: Tensor, index: Integers) -> dict[str, Any]:
        noise, action, found = (
            work.noise("sample/forward", index),
            work.ensemble.action.action,
            dict[str, Any](),
        )
        for name, rival in rivals.items():
            log_w, increments = rival.weigh(phi, action, noise, work.frames())
            found[name] = finite(log_w, f"forward log-weights ({name})", RETRAIN).tolist()
            found.setdefault("increments", increments.tolist())  # of the first, the model
        return found

    work.forward((*rivals, "increments"), weigh)


def _path_block(work: Sampling, path: ReversePath, index: Integers, watch: Watch) -> Drawn:
    """One block of the path sampler."""
    noise = work.noise("sample/reverse", index)
    phi, log_w = path.sample(work.ensemble.action.action, noise, work.frames(), watch)
    return phi, finite(log_w, f"log-weights of samples {index[0]}-{index[-1]}", RETRAIN)


def _plain_block(work: Sampling, step: steps.Step, index: Integers, watch: Watch) -> Drawn:
    """One block of a sampler without weights."""
    noise, model = work.noise("sample/reverse", index), work.model
    white = noise(2 * len(work.levels) - 2)
    start = model.momenta.colour(white, model.base.g + work.levels[-1] ** 2)
    return steps.run(step, model, start, work.levels, noise, work.frames(), watch), None


def wiener_of(base: RegressionBase) -> LatticeScore:
    """The Wiener filter as a rival score: the best linear one, nothing of the regression in its D.

    Its reverse steps have the variance that it leaves open itself, the same at all sites, and the law of the
    zero mode that the base has. In a free field the two are the same.
    """
    filtered = copy.deepcopy(base)
    filtered.coefficients.zero_()
    filtered.explained.zero_()
    filtered.site.field_max.zero_()
    return LatticeScore(filtered, None)

"""The stages of a run on one variable, each returns the identity of what it made; run by `diffsq.pipeline`.

ensemble   complex Langevin with its verdict, or exact draws            ensemble/
train      one model per kind in `models`                              train/KIND/
sample     per model and process, samples/KIND-SDE/ (an ensemble); the learned energy made exact by
           Metropolis, samples/metropolis/; the scan of other samplers, samples/scan.json; the limits of
           the flow, samples/limits.json; and the cumulants along both processes, samples/flow.json
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from diffsq.config.sections import Process
from diffsq.config.toy import ToyConfig
from diffsq.models.points import PointModel
from diffsq.run_folder.records import Run, hashes
from diffsq.stages import require_certificate
from lattice.ensembles.ensemble import read_ensemble
from lattice.files import canonical_json, sha256_file, sha256_text, write_json
from lattice.progress import Progress
from lattice.rng import stream_id
from lattice.simulation.simulate import simulate

MADE = ("manifest.json", "scan.json", "limits.json", "flow.json")


def _config(run: Run) -> ToyConfig:
    assert isinstance(run.config, ToyConfig)
    return run.config


def _ensemble(run: Run, progress: Progress) -> str:
    config = _config(run)
    ensemble = simulate(
        config.build_action(),
        (),
        config.ensemble,
        seed=config.seed,
        out=run.out("ensemble"),
        progress=progress,
    )
    return ensemble.identity


def _train(run: Run, progress: Progress) -> str:
    from diffsq.training.points import train_points

    require_certificate(run)
    config = _config(run)
    points = torch.from_numpy(read_ensemble(run.out("ensemble")).phi)
    wanted: dict[str, tuple[str, torch.Tensor]] = {kind: (kind, points) for kind in config.models}
    for k in range(config.n_parts):
        wanted[f"part-{k}"] = (config.models[-1], points[k :: config.n_parts])
    for name, (kind, chosen) in wanted.items():
        settings = config.training.model_copy(update={"kind": kind})
        seed = config.seed if name == kind else (config.seed + stream_id(f"train/{name}")) % 2**64
        train_points(chosen, settings, seed, run.out("train") / name, progress)
    weights = {k: v for k, v in hashes(run, "train").items() if k.endswith(".safetensors")}
    return sha256_text(canonical_json(weights))


def models_of(run_folder: Path, config: ToyConfig) -> dict[str, PointModel]:
    """The trained models of a run, by kind."""
    from diffsq.models.files import load_model

    return {kind: load_model(run_folder / "train" / kind, PointModel) for kind in config.models}


def products(config: ToyConfig) -> Iterator[tuple[str, str, Process]]:
    """(name, kind, sde) of every sample set of a run."""
    for kind in config.models:
        for sde in config.sampling.sde:
            yield f"{kind}-{sde}", kind, sde


def _sample(run: Run, progress: Progress) -> str:
    config, out = _config(run), run.out("sample")
    ensemble = read_ensemble(run.out("ensemble"))
    models = models_of(run.folder, config)
    from diffsq.checks.toy_sample import Sampling

    work = Sampling(config, ensemble, models, out, run.records["sample"]["key"], progress)
    for name, kind, sde in products(config):
        work.draw(name, kind, sde)
    if "energy" in models:
        work.correct()
    work.scan()
    work.limits()
    work.flow()
    files = [f for f in sorted(out.rglob("*.json")) if f.name in MADE]
    return sha256_text(canonical_json([sha256_file(f) for f in files]))


def _measure(run: Run, progress: Progress) -> str:
    from diffsq.checks.toy_diagnostics import diagnose
    from diffsq.run_folder.toy_summary import summarize_toy

    data = read_ensemble(run.out("ensemble"))
    found = diagnose(_config(run), run.folder, data, progress)
    summary = summarize_toy(_config(run), run.folder, run.seconds(), found)
    write_json(run.folder / "summary.json", summary)
    return sha256_file(run.folder / "summary.json")


def _report(run: Run, progress: Progress) -> str:
    from diffsq.report.toy import build_toy_report

    build_toy_report(run.folder)
    return sha256_file(run.folder / "report.html")


STAGE: dict[str, Callable[[Run, Progress], str]] = {
    "ensemble": _ensemble, "train": _train, "sample": _sample, "measure": _measure, "report": _report,
}  # fmt: skip

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
from typing import Any

import torch

from diffsq.points import PointModel
from diffsq.records import Run, hashes
from diffsq.stages import require_certificate
from diffsq.toy_config import ComplexConfig, Process, RealToyConfig, ToyConfig
from lattice.ensemble import Ensemble, read_ensemble, write_ensemble
from lattice.files import canonical_json, sha256_file, sha256_text, write_json
from lattice.progress import Progress
from lattice.rng import stream_id

MADE = ("manifest.json", "scan.json", "limits.json", "flow.json")


def _config(run: Run) -> ToyConfig:
    assert isinstance(run.config, ToyConfig)
    return run.config


def _ensemble(run: Run, progress: Progress) -> str:
    config, out = _config(run), run.out("ensemble")
    if isinstance(config, ComplexConfig):
        from lattice.complex_generate import generate_complex

        return generate_complex(
            config.build_action(), (), config.ensemble, config.seed, out, progress=progress
        ).identity
    assert isinstance(config, RealToyConfig)
    return _draws(config, out).identity


def _draws(config: RealToyConfig, out: Path) -> Ensemble:
    """Exact draws and their certificate: the moments are those of quadrature."""
    from diffsq.toy_table import ORDERS, blocks_of, estimates, exact_numbers
    from lattice.toys import draw_toy

    action: Any = config.build_action()
    phi = draw_toy(action, config.ensemble.n_configs, config.seed)
    ensemble = Ensemble.from_fields(phi, action, attrs={"algorithm": "exact draws", "seed": config.seed})
    found, exact = estimates(phi[:, 0], blocks_of(ensemble)), exact_numbers(action)
    checks = []
    for name in (f"m{order}" for order in ORDERS):
        value, error = found[name]["value"][0], found[name]["error"][0]
        checks.append({
            "name": name, "value": value, "error": error, "expected": exact[name][0],
            "passed": bool(abs(value - exact[name][0]) <= 5 * error), "detail": "against quadrature",
        })  # fmt: skip
    passed = all(check["passed"] for check in checks)
    reason = "" if passed else "moments differ from quadrature"
    certificate = {"passed": passed, "reason": reason, "checks": checks}
    write_json(out / "certificate.json", certificate)
    write_ensemble(ensemble, out, {"certificate": certificate})
    return read_ensemble(out)


def _train(run: Run, progress: Progress) -> str:
    from diffsq.point_train import train_points

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
    from diffsq.point_train import load_points

    return {kind: load_points(run_folder / "train" / kind) for kind in config.models}


def products(config: ToyConfig) -> Iterator[tuple[str, str, Process]]:
    """(name, kind, sde) of every sample set of a run."""
    for kind in config.models:
        for sde in config.sampling.sde:
            yield f"{kind}-{sde}", kind, sde


def _sample(run: Run, progress: Progress) -> str:
    config, out = _config(run), run.out("sample")
    ensemble = read_ensemble(run.out("ensemble"))
    models = models_of(run.folder, config)
    from diffsq.toy_sample import Sampling

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
    from diffsq.toy_summary import summarize_toy

    summary = summarize_toy(_config(run), run.folder, run.seconds(), progress)
    write_json(run.folder / "summary.json", summary)
    return sha256_file(run.folder / "summary.json")


def _report(run: Run, progress: Progress) -> str:
    from diffsq.report.toy import build_toy_report

    build_toy_report(run.folder)
    return sha256_file(run.folder / "report.html")


STAGE: dict[str, Callable[[Run, Progress], str]] = {
    "ensemble": _ensemble, "train": _train, "sample": _sample, "measure": _measure, "report": _report,
}  # fmt: skip

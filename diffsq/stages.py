"""The stages of a run on phi^4: each returns the identity of what it made. `diffsq.pipeline` runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from diffsq.config.config import Config
from diffsq.run_folder.records import Run, certificate_of, hashes
from lattice.errors import InputError
from lattice.files import canonical_json, sha256_file, sha256_text, write_json
from lattice.progress import Progress


def _config(run: Run) -> Config:
    assert isinstance(run.config, Config)
    return run.config


def _ensemble(run: Run, progress: Progress) -> str:
    from lattice.simulation.monte_carlo import generate

    out, config = run.out("ensemble"), _config(run)
    if config.source is not None:
        return _taken_ensemble(run, config, Path(config.source))
    ensemble = generate(
        config.build_action(), config.lattice.shape, config.ensemble, config.seed, out, progress=progress,
        team=run.team,
    )  # fmt: skip
    return ensemble.identity


def _taken_ensemble(run: Run, config: Config, source: Path) -> str:
    """Copy an ensemble made elsewhere (`diffsq import`, another run) with its certificate into the run."""
    from lattice.certificates.monte_carlo import certify
    from lattice.ensembles.ensemble import read_ensemble, write_ensemble

    ensemble = read_ensemble(source, config.build_action())
    if ensemble.shape != tuple(config.lattice.shape):
        raise InputError(
            f"{source}: fields on {list(ensemble.shape)}, lattice.shape is {list(config.lattice.shape)}"
        )
    if ensemble.log_weight is not None:
        raise InputError(f"{source}: holds weighted samples; training needs fields drawn from exp(-S)")
    certificate = ensemble.attrs.get("certificate") or certify(ensemble)  # without one, it fails
    if not certificate["passed"] and not run.accept_uncertified:
        raise InputError(
            f"{source}: not certified ({certificate['reason']}); --accept-uncertified takes it all the same"
        )
    out = run.out("ensemble")
    ensemble.attrs["certificate"] = certificate
    write_json(out / "certificate.json", certificate)
    write_ensemble(ensemble, out)
    return read_ensemble(out).identity


def _train(run: Run, progress: Progress) -> str:
    from diffsq.training.lattice import train
    from lattice.ensembles.ensemble import read_ensemble

    require_certificate(run)
    config = _config(run)
    train(config, read_ensemble(run.out("ensemble")), run.out("train"), progress=progress, device=run.device)
    model = {k: v for k, v in hashes(run, "train").items() if "/model/" in k}
    return sha256_text(canonical_json(model))


def _sample(run: Run, progress: Progress) -> str:
    from diffsq.exactness.efficiency import diagnose
    from diffsq.models.files import load_model
    from diffsq.models.lattice import LatticeScore
    from diffsq.sampling.sample import sample
    from lattice.ensembles.ensemble import read_ensemble

    model = load_model(run.out("train") / "model", LatticeScore)
    sample(
        _config(run), model, read_ensemble(run.out("ensemble")), run.out("sample"), progress=progress,
        device=run.device,
    )  # fmt: skip
    diagnose(run.out("sample"), _config(run).seed)
    return read_ensemble(run.out("sample")).identity


def _measure(run: Run, progress: Progress) -> str:
    from diffsq.checks.perform import check
    from diffsq.run_folder.summary import summarize

    config = _config(run)
    for name, options in config.checks.items():
        check(name, run.folder, options, run.device, progress)
    summary = summarize(config, run.folder, run.seconds())
    write_json(run.folder / "summary.json", summary)
    return sha256_file(run.folder / "summary.json")


def _report(run: Run, progress: Progress) -> str:
    from diffsq.report.page import build_report

    build_report(run.folder)
    return sha256_file(run.folder / "report.html")


STAGE: dict[str, Callable[[Run, Progress], str]] = {
    "ensemble": _ensemble, "train": _train, "sample": _sample, "measure": _measure, "report": _report,
}  # fmt: skip


def require_certificate(run: Run) -> None:
    """Refuse an ensemble that failed its certificate, unless the user accepts it."""
    certificate = certificate_of(run.folder)
    if certificate["passed"] or run.accept_uncertified:
        return
    failed = (
        ", ".join(check["name"] for check in certificate["checks"] if not check["passed"]) or "no check named"
    )
    raise InputError(
        f"the ensemble in {run.out('ensemble')} failed its certificate ({failed}); make a longer one "
        f"(--restart ensemble with a larger ensemble.n_therm or n_configs), or --accept-uncertified"
    )

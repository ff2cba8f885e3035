"""The five stages of a run: each makes its part of the run folder and returns the identity of what it made.

    ensemble   Monte Carlo, complex Langevin, exact draws, certified; or from elsewhere    ensemble/
    train      one model per name in `models`, or the rows of a run that watches training  train/NAME/
    sample     one set per model and process, and the learned energy made exact            samples/NAME-SDE/
    measure    the checks, and summary.json                                                checks/
    report     one page                                                                    report.html

Which variant runs is said by the config's sections; `diffsq.pipeline` skips, resumes or refuses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from diffsq.checks.perform import check
from diffsq.config.config import Config, LatticeRun, PointRun
from diffsq.config.dynamics import DynamicsRun
from diffsq.config.families import FamilyRun
from diffsq.config.gauge import GaugeRun
from diffsq.config.machines import MachineRun, PicturesRun
from diffsq.config.spins import FlowRun
from diffsq.exactness.efficiency import diagnose
from diffsq.exactness.path_metropolis import correct
from diffsq.models.files import load_model
from diffsq.models.lattice import LatticeScore
from diffsq.models.machine_files import load_machine
from diffsq.models.points import PointModel
from diffsq.report.page import build_report
from diffsq.run_folder.own_files import hashes
from diffsq.run_folder.records import Run, certificate_of, open_config, versions
from diffsq.run_folder.summary import summarize
from diffsq.sampling import lattice_sets
from diffsq.sampling.point_sets import PointDraws
from diffsq.sampling.sample import sample
from diffsq.training import lattice as lattice_training
from diffsq.training.dynamics import train_rows
from diffsq.training.grid import make_grid
from diffsq.training.machines import train_machine
from diffsq.training.pictures import make_pictures, read_pictures
from diffsq.training.train import train
from lattice.certificates.monte_carlo import certify
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.ensembles.writer import write_ensemble
from lattice.errors import InputError
from lattice.files import canonical_json, sha256_file, sha256_text, write_json
from lattice.processes import Team
from lattice.progress import Progress
from lattice.simulation.simulate import simulate

FRESH = {"passed": True, "reason": "drawn afresh while training", "checks": [], "verdict": None}
"""The certificate of a run without data of its own."""


def make_ensemble(run: Run, progress: Progress) -> str:
    """Simulate, or take what `ensemble.source` names."""
    config, out = run.config, run.out("ensemble")
    if isinstance(config, PicturesRun):
        return make_pictures(config.ensemble.data, out)
    if isinstance(config, FlowRun | FamilyRun):
        return make_grid(config, out, progress)
    if isinstance(config, DynamicsRun):
        out.mkdir(exist_ok=True)
        write_json(out / "certificate.json", FRESH)
        return sha256_text(canonical_json(FRESH))
    if config.action is None:
        raise InputError("action: null takes the action of an ensemble given from Python; name one to run")
    if config.source is not None:
        return _taken(run, config, Path(config.source))
    made = simulate(
        config.action,
        config.shape,
        config.ensemble,
        seed=config.seed,
        out=out,
        progress=progress,
        team=run.team,
    )
    return made.identity


def _taken(run: Run, config: Config, source: Path) -> str:
    """Copy an ensemble made elsewhere (`diffsq import`, another run) with its certificate into the run."""
    ensemble = read_ensemble(source, config.action)
    if ensemble.shape != config.shape:
        raise InputError(f"{source}: fields on {list(ensemble.shape)}, lattice.shape is {list(config.shape)}")
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
    del ensemble  # before it is read back
    return read_ensemble(out).identity


def make_models(run: Run, progress: Progress) -> str:
    """Train every model; of a real variable, those of disjoint parts of the data too."""
    if run.config.models:
        require_certificate(run)
    config, out = run.config, run.out("train")
    if isinstance(config, GaugeRun) and run.device != "cpu":
        run.say(f"models of links are made and sampled on the CPU, not on {run.device}")
    out.mkdir(exist_ok=True)
    if isinstance(config, DynamicsRun):
        identity = run.records["ensemble"]["identity"] if isinstance(config, FlowRun | FamilyRun) else ""
        return train_rows(config, out, progress, run.out("ensemble"), identity)
    if isinstance(config, PicturesRun):
        phi, identity = read_pictures(run.out("ensemble"))
        train_machine(config, phi, identity, out / "rbm", progress)
        return _weights(run)
    ensemble = read_ensemble(run.out("ensemble"))
    for name in (*config.models, *(f"part-{k}" for k in range(getattr(config, "n_parts", 0)))):
        team = run.team if isinstance(config, LatticeRun) and has_steps(config.of(name)) else None
        train(config, ensemble, out / name, name=name, progress=progress, device=run.device, team=team)
    return _weights(run)


def has_steps(config: LatticeRun) -> bool:
    """Whether there is a U-Net to be trained, which several processes can share."""
    return bool(config.model.channels and config.training.n_steps)


def share_training(team: Team, folder: str, device: Callable[[], str]) -> None:
    """What the other processes of a team do of the training of the model in `folder`. What all refuse in the
    same step is process 0's to say; raises `InputError` for what this process alone meets there."""
    place = Path(folder)

    def opened() -> tuple[LatticeRun, Ensemble, str]:
        run = Run(open_config(place.parents[1]), place.parents[1])
        assert isinstance(run.config, LatticeRun)
        return run.config.of(place.name), read_ensemble(run.out("ensemble")), device()

    try:
        lattice_training.share(team, opened, place)
    except (InputError, OSError, MemoryError, ArithmeticError):
        if team.busy:
            raise


def _weights(run: Run) -> str:
    weights = {k: v for k, v in hashes(run.folder, "train").items() if k.endswith("/weights.safetensors")}
    return sha256_text(canonical_json(weights))


def make_samples(run: Run, progress: Progress) -> str:
    """Every sample set of the run, and what its weights say of the sampler."""
    config, out = run.config, run.out("sample")
    out.mkdir(exist_ok=True)
    if isinstance(config, DynamicsRun | PicturesRun):
        return sha256_text("nothing is sampled")
    ensemble = read_ensemble(run.out("ensemble"))
    if isinstance(config, MachineRun):
        machine, name = load_machine(run.out("train") / "rbm")[0], "rbm-exact"
        samples = sample(config, machine, ensemble, out / name, progress=progress)
        diagnose(out / name, config.seed)
        return sha256_text(canonical_json({name: samples.identity}))
    models, made = {str(name): load_model(run.out("train") / name) for name in config.models}, {}
    team = run.team if run.team and isinstance(config, LatticeRun) else Team()
    team.tell(("samples", str(run.folder.resolve())))
    with team.together():
        for name, model in models.items():
            for sde in config.processes:
                folder = out / f"{name}-{sde}"
                made[folder.name] = sample(
                    config, model, ensemble, folder, name=name, sde=sde, progress=progress, device=run.device,
                    team=team,
                )  # fmt: skip
                if isinstance(config, LatticeRun | GaugeRun):
                    diagnose(folder, config.seed)
    if isinstance(config, PointRun) and "energy" in models:
        points = {name: model for name, model in models.items() if isinstance(model, PointModel)}
        draws = PointDraws(config.sampling, config.seed, ensemble, points, progress)
        made["metropolis"] = correct(draws, out / "metropolis")
    return sha256_text(canonical_json({name: samples.identity for name, samples in made.items()}))


def share_samples(team: Team, folder: str, device: Callable[[], str]) -> None:
    """What the other processes of a team do of `make_samples`: their share of every sample set, from the
    config, models and ensemble in the run folder. Their errors are process 0's to say."""
    with contextlib.suppress(InputError, OSError, MemoryError, ArithmeticError), team.together():
        run, place = Run(open_config(Path(folder)), Path(folder)), device()
        config, ensemble = run.config, read_ensemble(run.out("ensemble"))
        assert isinstance(config, LatticeRun)
        for name in config.models:
            model = load_model(run.out("train") / name, LatticeScore)
            for sde in config.processes:
                out = run.out("sample") / f"{name}-{sde}"
                lattice_sets.drawn(config.of(name), model, ensemble, out, sde=sde, device=place, team=team)


def measure_run(run: Run, progress: Progress) -> str:
    """The checks of the config, each kept if made of the same samples with the same options; the summary."""
    inputs = {stage: run.records[stage]["identity"] for stage in ("ensemble", "train", "sample")}
    laws = [versions(run.config, stage) for stage in ("train", "sample")]
    laws += [own] if (own := versions(run.config, "measure")) else []
    for name, options in run.config.checks.items():
        key = sha256_text(canonical_json([name, options, inputs, laws]))
        check(name, run.folder, options, run.device, progress, key)
    summary = summarize(run.config, run.folder, run.seconds())
    write_json(run.folder / "summary.json", summary)
    return sha256_file(run.folder / "summary.json")


def write_report(run: Run, progress: Progress) -> str:
    """The page."""
    return sha256_file(build_report(run.folder))


STAGE: dict[str, Callable[[Run, Progress], str]] = {
    "ensemble": make_ensemble, "train": make_models, "sample": make_samples, "measure": measure_run,
    "report": write_report,
}  # fmt: skip


def require_certificate(run: Run) -> None:
    """Refuse an ensemble that failed its certificate, unless the user accepts it."""
    certificate = certificate_of(run.folder)
    if certificate["passed"] or run.accept_uncertified:
        return
    why = certificate["reason"].removeprefix("failed: ")
    raise InputError(
        f"the ensemble in {run.out('ensemble')} failed its certificate ({why}); make it longer with a "
        "larger ensemble.n_configs, or again with a larger ensemble.n_therm: `diffsq run CONFIG --run DIR "
        "--restart ensemble`; or --accept-uncertified"
    )

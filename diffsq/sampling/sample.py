"""One sample set of a model: fields with their weights, or points."""

from __future__ import annotations

from pathlib import Path

from diffsq.config.config import Config, LatticeRun, PointRun
from diffsq.config.families import FamilyRun
from diffsq.config.gauge import GaugeRun
from diffsq.config.machines import MachineRun
from diffsq.models import lattice_flow
from diffsq.models.gauge import GaugeScore
from diffsq.models.lattice import LatticeScore
from diffsq.models.points import PointModel
from diffsq.models.rbm import GaussianRBM
from diffsq.models.torus import TorusScore
from diffsq.sampling import gauge_sets, lattice_path, lattice_sets, machine_sets, point_sets
from diffsq.sampling.point_sets import PointDraws
from lattice.arrays import sha256_array
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.processes import Team
from lattice.progress import Progress, Silent

Learned = LatticeScore | PointModel | GaussianRBM | GaugeScore | TorusScore


def sample(
    config: Config, model: Learned, ensemble: Ensemble, out: str | Path, *,
    name: str | None = None, sde: str | None = None, progress: Progress | None = None, device: str = "cpu",
    team: Team | None = None,
) -> Ensemble:  # fmt: skip
    """Draw `sampling.n_samples` through the process `sde` (default: the first of sampling.sde) into `out`.

    model: from `diffsq.train` or `diffsq.load_model`, trained on this ensemble; on a lattice `name` says
    which of `models` it is (default: the first). The same schema as a Monte Carlo ensemble; fields by method
    "path" carry exact log-weights. The same call again reads what is there.
    Raises `InputError` when model, config and ensemble do not belong together, and for samples or weights
    that are not finite.  `team`: processes that draw one sample set on a lattice, each its share, all of them
    in `lattice_sets.drawn` at once.
    """
    out, process = Path(out), sde or config.processes[0]
    if isinstance(model, GaussianRBM) and isinstance(config, MachineRun):
        config.require_action(ensemble.action)
        return machine_sets.sample_machine(config, model, ensemble, out, progress)
    if isinstance(model, GaugeScore | TorusScore) and isinstance(config, GaugeRun):
        return gauge_sets.sample_links(config.of(name or config.models[0]), model, ensemble, out, progress)
    if isinstance(model, LatticeScore) and isinstance(config, LatticeRun):
        own = config.of(name or config.models[0])
        return lattice_sets.sample(
            own, model, ensemble, out, sde=process, progress=progress, device=device, team=team
        )
    if isinstance(model, PointModel) and isinstance(config, PointRun):
        config.require_action(ensemble.action)
        whole, parts = ensemble.phi, ensemble.parts(config.n_parts) if config.n_parts else []
        if not any(model.about["points"] == sha256_array(x) for x in (whole, *(whole[p] for p in parts))):
            raise InputError("the model was not trained on this ensemble: its data have another hash")
        if process not in config.sampling.n_levels:
            raise InputError(f"sampling.n_levels has no entry for {process}")
        draws = PointDraws(config.sampling, config.seed, ensemble, {model.kind: model}, progress or Silent())
        return draws.sample(model.kind, process, out)
    raise InputError(f"a {type(model).__name__} does not belong to the config {config.name!r}")


def measured(config: Config) -> dict[str, int]:
    """The versions of the laws that a check draws from, where a run has no sample sets of its own."""
    laws = {"law": lattice_path.VERSION, "flow": lattice_flow.VERSION}
    return laws if isinstance(config, FamilyRun) else {}


def versions(config: Config) -> dict[str, int]:
    """The version of the law that the sample sets of `config` are drawn from."""
    if isinstance(config, LatticeRun):
        return {"law": lattice_path.VERSION, "flow": lattice_flow.VERSION}
    if isinstance(config, GaugeRun):
        return gauge_sets.LAWS
    if isinstance(config, MachineRun):
        return {"law": machine_sets.LAW}
    if not isinstance(config, PointRun):
        return {}
    return {"law": point_sets.LAW}

"""What an independent configuration costs at and about the critical point: Markov chains and the diffusion.

At each kappa and L, CPU time per independent configuration is 2 tau_int times that of one step, tau_int that
of the slowest of |M|, M^2 and S:

    hmc 1       HMC in trajectories of unit length, leapfrog, as it is usually published
    hmc         HMC of the length that costs least in pilots from equilibrium fields
    clusters    a Metropolis sweep, two overrelaxation sweeps, two Wolff clusters, a random sign
    flow        independence Metropolis with proposals of the model's probability flow
    path        the same with the reverse paths of the same model

The Markov chains begin with the same equilibrium fields. The means of all must agree with those of the
clusters, to 4.5 sigma; a sampler whose tau_int its own chain cannot tell is counted, not compared. M itself
is not among the observables: HMC deep in the ordered phase keeps its sign, the others do not. Flow and path
have beside it what an independent configuration costs by weights, the seconds of a sample over ESS/N. What
the model has cost, ensembles and fit, is paid back after as many configurations
as the ledger says, if ever. One file for each theory in checks/criticality: an interrupted check goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffsq.checks.curves import crossover, must_rise
from diffsq.config.families import FamilyRun
from diffsq.config.sections import PATH_LEVELS
from diffsq.exactness.weights import acceptance, independence_metropolis
from diffsq.models import lattice_flow
from diffsq.models.blocks import slices
from diffsq.models.family import Family
from diffsq.models.family_files import load_family
from diffsq.models.lattice_flow import LatticeFlow, steps_of
from diffsq.plots.criticality import costs_figure
from diffsq.process.sde import SDES
from diffsq.run_folder.finished import DynamicsBench
from diffsq.sampling import lattice_path
from diffsq.sampling.family_sets import BLOCK, flow_fields, path_fields
from diffsq.sampling.lattice_path import ReversePath
from lattice.actions.phi4 import ScalarPhi4
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.files import canonical_json, read_json, sha256_text, write_json
from lattice.progress import Progress
from lattice.rng import stream_id
from lattice.scans.scan import point_name
from lattice.simulation.autocorrelation import (
    OBSERVABLES,
    autocorrelation,
    observed,
    of_series,
    typical,
)
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import Recipe
from lattice.simulation.thermalise import thermalise
from lattice.simulation.trajectory import Settings
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.weights import effective_sample_size

OF = {"config": FamilyRun}
VERSION = 2  # of the numbers of a theory: raise it with any change
GATE = 4.5  # sigma, of a mean
N_CHAINS, N_THERM = 16, 600
LENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # of HMC, up to half of L
PILOT = 0.15, 2**11  # error of tau_int, and trajectories at most, of a pilot
MARKOV = {
    "hmc 1": MonteCarlo(trajectory_length=1.0, integrator="leapfrog", target_acceptance=0.8, cluster="none",
                        n_clusters=0, n_chains=N_CHAINS, n_therm=N_THERM),
    "hmc": MonteCarlo(cluster="none", n_clusters=0, n_chains=N_CHAINS, n_therm=N_THERM),
    "clusters": MonteCarlo(update="local", n_overrelax=2, n_clusters=2, n_chains=N_CHAINS, n_therm=N_THERM),
}  # fmt: skip
EQUILIBRIUM = MonteCarlo(n_clusters=4, n_chains=N_CHAINS, n_therm=N_THERM)
SAMPLERS = ("flow", "path")
LAWS = {"flow": lattice_flow.VERSION, "path": lattice_path.VERSION}
WORDS = {"abs_magnetization": "tau(|M|)", "magnetization2": "tau(M^2)", "action_density": "tau(S)"}
Found = dict[str, Any]
Draw = Callable[[Integers, int], tuple[Tensor, Tensor]]


def run(
    bench: DynamicsBench, progress: Progress, *, kappas: list[float] | None = None, lam: float | None = None,
    sizes: list[int] | None = None, n_samples: int = 4096, error: float = 0.05, most: int = 2**14,
) -> dict[str, Any]:  # fmt: skip
    """passed: all means agree with those of the clusters.

    kappas, sizes: those of the training if not given; lam: the lowest. n_samples: of flow and path, half of
    it above 32^2. error: of tau_int, relative, that the Markov chains go on to; most: their trajectories.
    Raises `InputError` for theories that the model does not know.
    """
    family = load_family(bench.folder / "train" / "family")
    table = family.couplings
    lam = float(table.lam.min()) if lam is None else lam
    own = table.kappa[int((table.lam - lam).abs().argmin())].tolist()
    theories = [(k, n) for n in sizes or [int(n) for n in table.sizes.tolist()] for k in kappas or own]
    for kappa, size in theories:
        table.check(kappa, lam, size)
    progress.start(sum(size**2 for _, size in theories), "sites of theories")
    points = []
    for kappa, size in theories:
        n = max(n_samples // (2 if size > 32 else 1), 2 * BLOCK)
        request = {
            "version": VERSION, "model": family.about.get("sha256", ""), "seed": bench.config.seed,
            "kappa": kappa, "lam": lam, "size": size, "n_samples": n, "error": error, "most": most,
            "laws": LAWS,
        }  # fmt: skip
        points.append(kept_point(bench.folder, family, request))
        progress.update(size**2)
    progress.close()
    pulls = [pull for point in points for pull in pulls_of(point)]
    worst = max((abs(pull) for pull in pulls), default=0.0)
    return {
        "passed": bool(pulls and worst < GATE), "lam": lam, "points": points, "worst": worst,
        "n_pulls": len(pulls),
        "n_unknown": sum(not s["mean"] for p in points for s in p["samplers"].values()),
        "crossover": crossover(family, lam), "ledger": ledger(bench.folder, points),
    }  # fmt: skip


def kept_point(folder: Path, family: Family, request: Found) -> Found:
    """The numbers of a theory: of the Markov chains, and of the model's samplers, each read where they are
    there."""
    name = point_name((request["size"],) * 2, request["kappa"], request["lam"])
    path = folder / "checks" / "criticality" / f"{name}.json"
    have = read_json(path) if path.is_file() else {}
    for part, make, left_out in (
        ("markov", markov, ("model", "n_samples", "laws")), ("model", of_model, ("error", "most")),
    ):  # fmt: skip
        own = {name: value for name, value in request.items() if name not in left_out}
        key = sha256_text(canonical_json(own))
        if have.get(part, {}).get("key") != key:
            path.parent.mkdir(parents=True, exist_ok=True)
            have[part] = {"key": key, "samplers": make(family, request)}
            write_json(path, have)
    samplers = have["markov"]["samplers"] | have["model"]["samplers"]
    return {"kappa": request["kappa"], "size": request["size"], "samplers": samplers}


def _of(request: Found) -> tuple[ScalarPhi4, tuple[int, int], Callable[[str], int]]:
    """Action, lattice, and the seed of each part."""
    kappa, lam, size, seed = (request[name] for name in ("kappa", "lam", "size", "seed"))

    def seed_of(part: str) -> int:
        stream = f"criticality/{size}/{kappa:.12g}/{lam:.12g}/{part}"
        return int((seed + stream_id(stream)) % 2**63)

    return ScalarPhi4(kappa, lam), (size, size), seed_of


def markov(family: Family, request: Found) -> Found:
    """tau_int, means and costs of the Markov chains at one theory."""
    action, shape, seed_of = _of(request)
    found = dict[str, Found]()
    start = thermalise(Recipe(action, shape, EQUILIBRIUM, seed_of("equilibrium"))).phi
    for name, usual in MARKOV.items():
        params, settings = usual, Settings(1.0, 1)
        if usual.update == "hmc":
            lengths = [usual.trajectory_length] if usual.trajectory_length else LENGTHS
            tuned = [
                _tuned(Recipe(action, shape, usual.model_copy(update={"trajectory_length": length}),
                              seed_of(f"{name}/{length:g}")), start, len(lengths) > 1)
                for length in lengths if length <= max(4, shape[0] / 2)
            ]  # fmt: skip
            _, params, settings = min(tuned, key=lambda each: each[0])
        chains = autocorrelation(
            Recipe(action, shape, params, seed_of(name)), settings, start, error=request["error"],
            most=request["most"],
        )  # fmt: skip
        used = {"length": settings.length, "integrator_steps": settings.n_steps}
        found[name] = {**chains.as_dict(), **(used if params.update == "hmc" else {})}
    return found


def of_model(family: Family, request: Found) -> Found:
    """The same of the Metropolis chains of flow and path."""
    action, shape, seed_of = _of(request)
    model = family.at(request["kappa"], request["lam"], shape[0])
    base = model.base if model.sector is None else model.sector
    flow = LatticeFlow(base, steps_of(base))
    low, high = (float(model.base.log_sigma[end].exp()) for end in (0, -1))
    path = ReversePath(model, SDES["ve"](low, high).levels(max(PATH_LEVELS, steps_of(model.base))))
    draws: dict[str, Draw] = {
        "flow": lambda index, seed: flow_fields(flow, action.action, index, seed, "criticality/flow"),
        "path": lambda index, seed: path_fields(path, action.action, index, seed, "criticality/path"),
    }
    n = request["n_samples"]
    return {name: metropolis(action, draw, n, seed_of(name)) for name, draw in draws.items()}


def _tuned(recipe: Recipe[MonteCarlo], start: Floats, pilot: bool) -> tuple[float, MonteCarlo, Settings]:
    """The step number of HMC of this length tuned, and the cost of a pilot, infinite if not known."""
    settings = thermalise(recipe).settings
    if not pilot:
        return 0.0, recipe.params, settings
    error, most = PILOT
    found = autocorrelation(recipe, settings, start, error=error, most=most)
    return found.cost[0] if found.tau_int else math.inf, recipe.params, settings


def metropolis(action: ScalarPhi4, draw: Draw, n: int, seed: int) -> Found:
    """Independence Metropolis with n proposals: tau_int of the chain in proposals."""
    parts, spent = [], []
    for rows in slices(n, BLOCK):
        begun = time.process_time()
        parts.append(draw(np.arange(rows.start, rows.stop), seed))
        spent.append((time.process_time() - begun) / len(parts[-1][1]))
    fields, log_w = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    series = observed(action, fields)[:, independence_metropolis(log_w, seed)[0]]
    found = of_series(series[:, None], typical(np.array(spent[:-1] or spent)))  # the last block may be a part
    (rate, rate_error), (ess, ess_error) = acceptance(log_w, seed), effective_sample_size(log_w)
    seconds, spread = found.seconds
    by_weights = [seconds / ess, math.hypot(spread / ess, seconds * ess_error / ess**2)]
    return {
        **found.as_dict(), "acceptance": rate, "acceptance_error": rate_error, "ess": ess,
        "ess_error": ess_error, "cost_by_weights": by_weights,
    }  # fmt: skip


def pulls_of(point: Found) -> list[float]:
    """Every mean of a theory against that of the clusters, in errors."""
    samplers = point["samplers"]
    truth = samplers["clusters"]["mean"]
    return [
        (own["mean"][name][0] - truth[name][0]) / math.hypot(own["mean"][name][1], truth[name][1])
        for kind, own in samplers.items() if kind != "clusters" for name in truth if own["mean"]
    ]  # fmt: skip


def ledger(folder: Path, points: list[Found]) -> Found:
    """Seconds that the model cost, and after how many configurations each Markov chain would have cost more,
    by sampler and size: at the theory where that is soonest, None where it is never."""
    path = folder / "stages.json"
    records = read_json(path) if path.is_file() else {}
    spent = {stage: float(records[stage]["seconds"]) for stage in ("ensemble", "train") if stage in records}
    total, rows = sum(spent.values()), []
    for size in sorted({p["size"] for p in points}):
        for kind in SAMPLERS:
            for rival in MARKOV:
                saved, kappa = most_saved(points, size, kind, rival)
                n = total / saved if saved > 0 and total else None
                rows.append({"size": size, "sampler": kind, "rival": rival, "n": n, "kappa": kappa})
    return {"seconds": spent, "rows": rows}


def most_saved(points: list[Found], size: int, kind: str, rival: str) -> tuple[float, float]:
    """Seconds per independent configuration that one sampler saves over another, and the kappa of this size
    where that is most."""
    saved = [(-math.inf, math.nan)]
    for p in points:
        own, other = p["samplers"][kind]["cost"], p["samplers"][rival]["cost"]
        if p["size"] == size and own and other:
            saved.append((other[0] - own[0], p["kappa"]))
    return max(saved)


def text(result: dict[str, Any]) -> str:
    """A row per theory and sampler, the ledger, the verdict."""
    head = ["L", "kappa", "sampler", *WORDS.values(), "CPU ms/step", "CPU ms/independent", "by weights"]
    rows = [[*head, "acceptance"]]
    for p in result["points"]:
        for kind, own in p["samplers"].items():
            tau = [format_value(*own["tau_int"][name]) if own["tau_int"] else "-" for name in OBSERVABLES]
            cost = format_value(*(1e3 * x for x in own["cost"])) if own["cost"] else "not known"
            by_weights = own.get("cost_by_weights")
            other = format_value(*(1e3 * x for x in by_weights)) if by_weights else "-"
            rate = format_value(own["acceptance"], own["acceptance_error"]) if "acceptance" in own else "-"
            step = f"{1e3 * own['seconds'][0]:.3g}"
            rows.append([str(p["size"]), f"{p['kappa']:.6g}", kind, *tau, step, cost, other, rate])
    lines = aligned(rows)
    unknown = [
        f"L = {p['size']}, kappa = {p['kappa']:g}, {kind}: {own['failure']}"
        for p in result["points"] for kind, own in p["samplers"].items() if own["failure"]
    ]  # fmt: skip
    lines += unknown
    book = result["ledger"]
    if book["seconds"]:
        spent = ", ".join(f"{stage} {s:.0f} s" for stage, s in book["seconds"].items())
        lines.append(
            f"the model has cost, on the clock, its data made with clusters: {spent}; paid back, at the "
            "coupling where that is soonest:"
        )
        lines += [
            f"  L = {r['size']}: {r['sampler']} instead of {r['rival']}: "
            + (f"after {r['n']:.2g} configurations at kappa = {r['kappa']:g}" if r["n"] else "never")
            for r in book["rows"]
        ]
    lines.append(
        f"{result['n_pulls']} means of |M|, M^2, S against those of the clusters, largest pull "
        f"{result['worst']:.1f} sigma; of {result['n_unknown']} chains tau_int is not known, nothing compared"
    )
    return "\n".join(lines)


def figure(result: dict[str, Any]) -> Figure:
    """tau_int and cost against kappa."""
    return costs_figure(result)


def refuse(
    n_samples: int = 4096, error: float = 0.05, most: int = 2**14, kappas: list[float] | None = None,
    sizes: list[int] | None = None, **others: Any,
) -> None:  # fmt: skip
    """`InputError` for options that make no sense."""
    if n_samples < 2 * BLOCK:
        raise InputError(f"n_samples must be at least {2 * BLOCK}, got {n_samples}")
    if not 0 < error < 1:
        raise InputError(f"error must be between 0 and 1, got {error:g}: it is that of tau_int, relative")
    if not 64 <= most <= 2**24:
        raise InputError(f"most must be 64 to {2**24} trajectories, got {most}")
    must_rise(1, kappas=kappas, sizes=sizes)

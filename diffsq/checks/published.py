"""The published recipe and its table: samplers without weights, the action the model knows, the data.

    methods     Euler-Maruyama and predictor-corrector in N steps of the run's first model, raw, beside its
                paths and the flow, raw and weighted; every one against the certified ensemble
    action      -log q = S + log w against S, over the weighted samples: slope 1 and the spread of log w
    protocol    the data of the founding papers, hot starts, 128 trajectories, one configuration per chain:
                what that gives at this coupling, and what the certificate says

(Wang, Aarts, Zhou, 2309.17082, learn from such data.) Samples are kept in checks/published, and gone on from.
Verdict: the weighted columns agree with the ensemble; what has no weights is shown as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from diffsq.config.section import nearest
from diffsq.plots.published import published_figure
from diffsq.run_folder.finished import Workbench, sample_sets
from diffsq.run_folder.pulls import pull
from diffsq.sampling.lattice_sets import sample
from diffsq.sampling.steps import STEPS
from lattice.actions.protocol import Action
from lattice.arrays import Floats
from lattice.certificates.identities import wall_density
from lattice.certificates.monte_carlo import certify
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.files import read_json
from lattice.observables.measure import measure
from lattice.progress import Progress
from lattice.rng import stream_id
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import Recipe
from lattice.simulation.starts import start_fields, start_names
from lattice.simulation.thermalise import thermalise
from lattice.simulation.trajectory import one_trajectory
from lattice.statistics.blocks import jackknife_of
from lattice.statistics.notation import aligned, format_value, with_pull

METHODS = {"euler": [40, 160], "pc": [80]}
SHOWN = (
    "abs_magnetization", "susceptibility", "binder", "action_density", "phi2", "xi_2nd", "kappa4_ratio",
    "kappa6_ratio",
)  # fmt: skip
GATE = 4.5
N_TUNING = 200  # trajectories that tune the step of the protocol's HMC
KEPT = 400  # of S and -log q, and of M, in the figure


def run(
    bench: Workbench, progress: Progress, *, methods: dict[str, list[int]] | None = None, n: int = 512,
    n_protocol: int = 1024, n_traj: int = 128,
) -> dict[str, Any]:  # fmt: skip
    """methods: METHOD: [N, ...], n samples of each; n_protocol: chains of n_traj trajectories, 0 for none."""
    refuse(methods, n, n_protocol, n_traj)
    first = bench.config.of(bench.config.models[0])
    sets: dict[str, dict[str, Any]] = {"ensemble": column(bench.ensemble)}
    actions = {}
    for name, samples in sample_sets(bench.folder).items():
        raw = column(samples, raw=True)
        sets[f"{name} raw"] = raw
        if samples.log_weight is not None:
            sets[f"{name} weighted"] = column(samples)
            actions[name] = effective_action(samples)
    for method, numbers in (METHODS if methods is None else methods).items():
        for n_levels in numbers:
            settings = {"method": method, "n_levels": n_levels, "n_samples": n}
            own = first.model_copy(
                update={"sampling": first.sampling.model_copy(update=settings),
                        "seed": (bench.seed + stream_id(f"check/published/{method}-{n_levels}")) % 2**63}
            )  # fmt: skip
            folder = bench.folder / "checks" / "published" / f"{method}-{n_levels}"
            made = sample(
                own, bench.model, bench.ensemble, folder, progress=progress, device=str(bench.device)
            )
            sets[f"{method} {n_levels}"] = column(made)
    found = None
    if n_protocol:
        fields = protocol(bench.action, bench.ensemble.shape, n_protocol, n_traj, bench.seed)
        sets["protocol"] = column(Ensemble.from_fields(fields.phi, bench.action))
        found = {
            "n_traj": n_traj, "certificate": certify(fields)["reason"], "own": domains(fields.phi),
            "ensemble": domains(bench.ensemble.phi),
        }  # fmt: skip
    truth = sets["ensemble"]
    for own_column in sets.values():
        own_column["pulls"] = pulls_of(own_column, truth)
    exact = [p for name, c in sets.items() if name.endswith("weighted") for p in c["pulls"].values()]
    worst = max((abs(p) for p in exact), default=math.nan)
    return {
        "passed": bool(worst < GATE) if exact else None, "sets": sets, "actions": actions, "protocol": found,
        "worst": worst if exact else None, "gain": gain_of(bench),
    }  # fmt: skip


def column(samples: Ensemble, raw: bool = False) -> dict[str, Any]:
    """What is shown of an ensemble or sample set: observables, G(k), and M of some fields."""
    found = measure(samples, ignore_weights=raw)
    curves = found["two_point"]
    rows = np.linspace(0, len(samples) - 1, min(KEPT, len(samples))).astype(int)
    m = samples.phi[rows].mean(axis=(1, 2))
    return {
        "n": len(samples), "observables": {name: found["observables"].get(name) for name in SHOWN},
        "khat2": curves["khat2"], "G": curves["G"], "G_error": curves["G_error"],
        "m": m.tolist() if raw or samples.log_weight is None else None,
    }  # fmt: skip


def pulls_of(own: Mapping[str, Any], truth: Mapping[str, Any]) -> dict[str, float]:
    """Pull of every observable against the ensemble."""
    found = {}
    for name in SHOWN:
        entry = truth["observables"][name]
        if entry is None or entry["error"] is None or own is truth:
            continue
        size = pull(own["observables"][name], (entry["value"], entry["error"]))
        if size is not None:
            found[name] = size
    return found


def effective_action(samples: Ensemble) -> dict[str, Any]:
    """-log q = S + log w, up to a constant, against S: slope and correlation, sd of the difference."""
    assert samples.log_weight is not None
    s: Floats = samples.action.action(torch.from_numpy(samples.phi)).numpy()
    pairs = np.stack([s, s + samples.log_weight], axis=1)
    slope, error = jackknife_of(slope_of, pairs)
    rows = np.linspace(0, len(s) - 1, min(KEPT, len(s))).astype(int)
    shown = pairs[rows] - [0.0, float(samples.log_weight.mean())]
    return {
        "slope": slope, "slope_error": error, "correlation": float(np.corrcoef(pairs.T)[0, 1]),
        "spread": float(samples.log_weight.std()), "spread_s": float(s.std()), "pairs": shown.tolist(),
        "flow": samples.attrs["generated"]["sampler"] == "flow",
    }  # fmt: skip


def slope_of(pairs: Floats) -> float:
    """Slope of the second column on the first, by least squares.

    >>> slope_of(np.array([[0.0, 1.0], [1.0, 3.0], [2.0, 5.0]]))
    2.0
    """
    x, y = (pairs - pairs.mean(axis=0)).T
    return float((x @ y) / (x @ x))


def protocol(action: Action, shape: tuple[int, ...], n: int, n_traj: int, seed: int) -> Ensemble:
    """n chains of n_traj unit HMC trajectories from hot starts, of which the last field is kept."""
    seed = (seed + stream_id("check/published/protocol")) % 2**63
    params = MonteCarlo(
        n_chains=16, trajectory_length=1.0, integrator="leapfrog", target_acceptance=0.8, cluster="none",
        n_clusters=0, n_therm=N_TUNING,
    )  # fmt: skip
    tuning = (seed + stream_id("tuning")) % 2**63
    settings = thermalise(Recipe(action, shape, params, tuning)).settings
    hot = np.array([name == "hot" for name in start_names(2 * n)])
    phi = np.ascontiguousarray(start_fields(action, shape, 2 * n, seed)[hot])
    recipe = Recipe(action, shape, params.model_copy(update={"n_chains": n}), seed)
    for step in range(n_traj):
        phi, _, _ = one_trajectory(recipe, settings, phi, recipe.chains, step)
    return Ensemble.from_fields(phi, action, chain=recipe.chains, trajectory=np.full(n, n_traj))


def domains(phi: Floats) -> dict[str, float]:
    """Share of fields whose |M| is below half of the rms field, as with two domains, and of links whose ends
    differ in sign."""
    m = np.abs(phi.mean(axis=(1, 2)))
    rms = math.sqrt(float((phi**2).mean()))
    return {"split": float((m < rms / 2).mean()), "walls": float(wall_density(phi).mean())}


def gain_of(bench: Workbench) -> dict[str, float] | None:
    """Path KL that the first model gains over the Wiener filter, nats a field; None without a U-Net."""
    path = bench.folder / "samples" / f"{bench.config.models[0]}-{bench.config.processes[0]}"
    kl = read_json(path / "diagnostics.json").get("kl", {})
    if "wiener" not in kl:
        return None
    return {"wiener": kl["wiener"], "model": kl["model"], **{k: kl[k] for k in ("gain", "gain_error")}}


def text(result: dict[str, Any]) -> str:
    """A row per set, the action, the protocol."""
    rows = [["", "n", *SHOWN]]
    for name, own in result["sets"].items():
        cells = []
        for key in SHOWN:
            entry = own["observables"][key]
            if entry is None or entry["value"] is None or entry["error"] is None:
                cells.append("-")
                continue
            pair = entry["value"], entry["error"]
            cells.append(with_pull(*pair, own["pulls"][key]) if key in own["pulls"] else format_value(*pair))
        rows.append([name, str(own["n"]), *cells])
    lines = [*aligned(rows), "value(error) [pull against the ensemble]"]
    for name, a in result["actions"].items():
        law = "of the flow" if a["flow"] else "of paths, whose noise is in the spread"
        lines.append(
            f"{name}: -log q {law} against S: slope {format_value(a['slope'], a['slope_error'])}, "
            f"correlation {a['correlation']:.6f}, sd of the difference {a['spread']:.3g} beside "
            f"{a['spread_s']:.3g} of S"
        )
    if (gain := result["gain"]) is not None:
        lines.append(
            f"path KL: Wiener filter {gain['wiener']:.3g}, model {gain['model']:.3g} nats a field; gain "
            f"{format_value(gain['gain'], gain['gain_error'])}"
        )
    if (p := result["protocol"]) is not None:
        own, right = p["own"], p["ensemble"]
        lines.append(
            f"protocol, {p['n_traj']} trajectories from hot starts: |M| below half of the rms field in "
            f"{own['split']:.1%} of the fields (ensemble {right['split']:.1%}), {own['walls']:.4f} of the "
            f"links in a wall (ensemble {right['walls']:.4f}); a certificate says: {p['certificate']}"
        )
    return "\n".join(lines)


def figure(result: dict[str, Any]) -> Figure:
    """G(k) of every set over that of the ensemble, S against -log q, P(|M|)."""
    return published_figure(result)


def refuse(
    methods: dict[str, list[int]] | None = None, n: int = 512, n_protocol: int = 1024, n_traj: int = 128
) -> None:
    """`InputError` for samplers that do not exist and numbers that make no sense."""
    for method, numbers in (methods or {}).items():
        if method not in STEPS:
            known = nearest(method, tuple(STEPS))
            raise InputError(f"methods: no such sampler without weights: {method}{known}")
        if not numbers or min(numbers) < 2:
            raise InputError(f"methods.{method}: numbers of levels, 2 at least, got {numbers}")
    if n < 64:
        raise InputError(f"n must be at least 64, got {n}")
    if n_protocol and n_protocol < 32:
        raise InputError(f"n_protocol must be 0 or at least 32 chains, got {n_protocol}")
    if n_traj < 1:
        raise InputError(f"n_traj must be at least 1, got {n_traj}")

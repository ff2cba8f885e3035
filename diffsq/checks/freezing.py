r"""What an independent configuration of U(1) links costs as charges freeze: chains, exact draws, diffusion.

At each beta of L = 16 and along beta = 0.09375 L^2, CPU time per independent configuration is 2 tau_int(Q^2)
times that of one step:

    hmc         HMC in trajectories of unit length, its steps tuned
    winding     the same, and a winding move after each
    heat bath   sweeps of the heat bath
    exact       independent draws of all links
    diffusion   independence Metropolis with proposals of the run's model: its flow, beta changed

Chains begin with exact draws, so that none has to thermalise. Where a chain changes its charge too rarely for
its own autocorrelation to be seen, there is a bound by its jumps: of a reversible chain

    tau_int(Q) >= 2 <Q^2>/<(Q_{t+1} - Q_t)^2> - 1/2,     and that of Q^2 times the ratio of the two in a chain
                                                         that steps by one, in detailed balance with P(Q),

<Q^2> the exact one ("jumps"; series give 10 to 30 % more where both are known, for a jump is often taken
back). Its error is that of the scatter over chains. Where no chain ever moved, tau is beyond what three
changes would have made of it ("none": a bound at 95 %). Means of Q^2 and S of every chain whose tau_int
is known are held against the exact ones. One file for each coupling in checks/freezing: an interrupted check
goes on.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from diffsq.exactness.weights import acceptance, independence_metropolis
from diffsq.models import gauge, gauge_flow
from diffsq.models.blocks import slices
from diffsq.models.gauge import GaugeScore
from diffsq.models.gauge_flow import GaugeFlow
from diffsq.plots.gauge import LINE, freezing_figure
from diffsq.run_folder.finished import GaugeBench
from diffsq.sampling.gauge_sets import flow_links
from lattice.actions.u1 import U1
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.u1 import ChargeLaw, charge_law, wilson_loop
from lattice.files import canonical_json, read_json, sha256_text, write_json
from lattice.progress import Progress
from lattice.rng import stream_id
from lattice.simulation.autocorrelation import typical
from lattice.simulation.gauge_draws import draw_links
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import Recipe
from lattice.simulation.thermalise import thermalise
from lattice.simulation.trajectory import Settings, one_trajectory
from lattice.statistics.gamma import EstimatorError, gamma_method
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.weights import effective_sample_size

VERSION = 2  # of the numbers of a coupling: raise it with any change
BETAS = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0]
SIZES, LARGEST = [16, 32, 64], 256
GATE = 4.5  # sigma, of a mean
MOST_TAU, LEAST_ESS = 1.0, 0.9
UNSEEN = 3.0  # changes expected where none was seen
N_CHAINS, N_TUNING, BLOCK = 32, 300, 64
SLOW = 0.4  # relative error of tau_int from which on the jumps are counted instead
_OWN: dict[str, Any] = {"cluster": "none", "n_chains": N_CHAINS, "n_therm": N_TUNING}
MARKOV = {
    "hmc": MonteCarlo(**_OWN, trajectory_length=1.0),
    "winding": MonteCarlo(**_OWN, trajectory_length=1.0, n_winding=1),
    "heat bath": MonteCarlo(**_OWN, update="heat-bath"),
}
Found = dict[str, Any]


def run(
    bench: GaugeBench, progress: Progress, *, betas: list[float] | None = None,
    sizes: list[int] | None = None, n_samples: int = 2048, most: int = 2**13, error: float = 0.05,
) -> dict[str, Any]:  # fmt: skip
    """passed: the Metropolis chain of the diffusion has tau_int(Q) <= 1 and ESS/N >= 0.9 at every coupling,
    and all means agree with the exact ones.

    betas of L = 16; sizes of the line beta = 0.09375 L^2; n_samples of the diffusion and the exact draws, a
    quarter of it at 64^2; most: trajectories of a chain on 16^2, fewer on larger ones; error: of tau_int,
    relative, that chains go on to.
    """
    places = [(16, beta) for beta in (BETAS if betas is None else betas)]
    places += [(size, LINE * size**2) for size in (SIZES if sizes is None else sizes)]
    places = list(dict.fromkeys(places))
    progress.start(len(places), "couplings")
    points = []
    for size, beta in places:
        request = {
            "version": VERSION, "seed": bench.seed, "size": size, "beta": beta, "most": most, "error": error,
            "n_samples": max(n_samples // (4 if size >= 64 else 1), 4 * BLOCK),
            "model": bench.score.about.get("sha256", ""), "laws": [gauge.VERSION, gauge_flow.VERSION],
        }  # fmt: skip
        points.append(kept_point(bench, request))
        progress.update()
    progress.close()
    pulls = [
        (*pull, name, p["size"], p["beta"]) for p in points for name, s in p["samplers"].items()
        for pull in s["pulls"].items()
    ]  # fmt: skip
    worst = max((abs(size) for _, size, *_ in pulls), default=0.0)
    own = [p["samplers"]["diffusion"] for p in points]
    fast = all(s["tau_q"] is not None and s["tau_q"][0] <= MOST_TAU for s in own)
    return {
        "passed": bool(points) and worst < GATE and fast and all(s["ess"] >= LEAST_ESS for s in own),
        "points": points, "worst": worst, "n_pulls": len(pulls),
    }  # fmt: skip


def kept_point(bench: GaugeBench, request: Found) -> Found:
    """The numbers of all samplers at one coupling, read where they are there."""
    name = f"L{request['size']}_beta{request['beta']:.12g}"
    path = bench.folder / "checks" / "freezing" / f"{name}.json"
    key = sha256_text(canonical_json(request))
    have: Found = read_json(path) if path.is_file() else {}
    if have.get("key") != key:
        have = {"key": key, "samplers": {}}
    action, shape = U1(request["beta"]), (request["size"],) * 2
    for sampler in (*MARKOV, "exact", "diffusion"):
        if sampler not in have["samplers"]:
            seed = (request["seed"] + stream_id(f"freezing/{name}/{sampler}")) % 2**63
            if sampler in MARKOV:
                found = markov(action, shape, MARKOV[sampler], seed, request)
            elif sampler == "exact":
                found = exact(action, shape, seed, request["n_samples"])
            else:
                found = diffusion(bench.score, bench.action.beta.real, action, shape, seed, request)
            have["samplers"][sampler] = judged(found, action, shape)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, have)
    return {"size": request["size"], "beta": request["beta"], "samplers": have["samplers"]}


def markov(action: U1, shape: tuple[int, int], params: MonteCarlo, seed: int, request: Found) -> Found:
    """A chain from exact draws: tau_int of Q and Q^2, means of Q^2 and S, seconds per trajectory."""
    recipe = Recipe(action, shape, params, seed)
    tuning = Recipe(action, shape, params, (seed + stream_id("freezing/tuning")) % 2**63)
    settings = thermalise(tuning).settings if params.update == "hmc" else Settings(1.0, 1)
    phi = draw_links(action.beta.real, shape, N_CHAINS, seed)
    scale = (16 / max(shape)) ** 3 * (0.25 if params.update != "hmc" else 1.0)
    most = max(int(request["most"] * scale), 64)
    one_trajectory(recipe, settings, phi[:1], recipe.chains[:1], 0)  # compiles; not counted
    rows, spent, wanted = list[Floats](), list[float](), min(512, most)
    while True:
        for step in range(len(rows), wanted):
            begun = time.process_time()
            phi, _, _ = one_trajectory(recipe, settings, phi, recipe.chains, step)
            spent.append((time.process_time() - begun) / N_CHAINS)
            rows.append(observed(action, phi))
        found = of_series(np.stack(rows, 2), action, shape)
        known = found["how"] == "series" and found["tau_q2"][1] <= request["error"] * found["tau_q2"][0]
        if wanted >= most or known:
            return {**found, "seconds": list(typical(np.array(spent))), "n": wanted * N_CHAINS}
        wanted = min(2 * wanted, most)


def exact(action: U1, shape: tuple[int, int], seed: int, n: int) -> Found:
    """Independent draws."""
    parts, spent = list[Floats](), list[float]()
    for rows in slices(n, BLOCK):
        begun = time.process_time()
        links = draw_links(action.beta.real, shape, rows.stop - rows.start, seed, rows.start)
        spent.append((time.process_time() - begun) / len(links))
        parts.append(observed(action, links))
    series = np.concatenate(parts, 1)
    square = np.stack([series[0] ** 2, series[1]])
    error = square.std(1, ddof=1) / math.sqrt(n)
    means = {name: [float(m), float(e)] for name, m, e in zip(("q2", "s"), square.mean(1), error)}
    return {
        "tau_q": [0.5, 0.0], "tau_q2": [0.5, 0.0], "how": "independent", "mean": means, "n": n,
        "seconds": list(typical(np.array(spent))),
    }  # fmt: skip


def diffusion(
    model: GaugeScore, beta: float, action: U1, shape: tuple[int, int], seed: int, request: Found
) -> Found:
    """Metropolis chain of the flow of the run's model on this lattice, its harmonics times beta'/beta."""
    score = GaugeScore(shape, model.harmonics * (action.beta.real / beta))
    target = GaugeScore(shape, torch.tensor([action.beta.real], dtype=torch.float64))
    flow, parts, spent = GaugeFlow(score), list[tuple[Floats, Floats]](), list[float]()
    flow_links(flow, target, np.arange(1), seed, "freezing/first")  # makes its tables; not counted
    for rows in slices(request["n_samples"], BLOCK):
        begun = time.process_time()
        links, own = flow_links(flow, target, np.arange(rows.start, rows.stop), seed, "freezing")
        spent.append((time.process_time() - begun) / len(links))
        parts.append((observed(action, links.numpy()), own.numpy()))
    log_w = np.concatenate([w for _, w in parts])
    series = np.concatenate([x for x, _ in parts], 1)[:, independence_metropolis(log_w, seed)[0]]
    (rate, rate_error), (ess, ess_error) = acceptance(log_w, seed), effective_sample_size(log_w)
    return {
        **of_series(series[:, None], action, shape), "seconds": list(typical(np.array(spent[:-1] or spent))),
        "acceptance": [rate, rate_error], "ess": ess, "ess_error": ess_error, "n": len(log_w),
    }  # fmt: skip


def observed(action: U1, links: Floats) -> Floats:
    """Q and S per plaquette: (2, n)."""
    phi = torch.from_numpy(links)
    return np.stack([action.order(phi).numpy(), action.action(phi).numpy() / math.prod(links.shape[-2:])])


def of_series(series: Floats, action: U1, shape: tuple[int, int]) -> Found:
    """tau_int and means of series (2, n_chains, n_steps) of Q and S."""
    q, s = series
    try:
        own = [gamma_method(x[:, :, None]) for x in (q, q**2, s)]
        if own[1].tau_int_error <= SLOW * own[1].tau_int:
            return {
                "tau_q": [own[0].tau_int, own[0].tau_int_error],
                "tau_q2": [own[1].tau_int, own[1].tau_int_error], "how": "series",
                "mean": {name: [e.value, e.error] for name, e in zip(("q2", "s"), own[1:])},
            }  # fmt: skip
    except EstimatorError:
        pass
    square = (np.diff(q, axis=1) ** 2).mean(1)  # of each chain
    law = charge_law(action.beta.real, math.prod(shape))
    moved, known, ratio = float(square.mean()), law.moment(2), of_squares(law)
    if not moved:
        tau = 2 * known * (q.size - len(q)) / UNSEEN
        return {"tau_q": [tau, None], "tau_q2": [ratio * tau, None], "how": "none", "mean": {}}
    tau = 2 * known / moved - 0.5
    error = float(square.std(ddof=1)) / math.sqrt(len(q)) / moved * (tau + 0.5)
    return {"tau_q": [tau, error], "tau_q2": [ratio * tau, ratio * error], "how": "jumps", "mean": {}}


def of_squares(law: ChargeLaw) -> float:
    """tau_int(Q^2)/tau_int(Q) of a slow chain that steps by one, at rates min(1, P(Q')/P(Q)), exactly: 1/2
    of an oscillator, 1 where hardly more than Q = 0 and +-1 is left.

    >>> round(of_squares(charge_law(1.0, 256)), 2), round(of_squares(charge_law(30.0, 256)), 2)
    (0.57, 0.84)
    """
    p = law.probability[law.probability > 1e-12]
    q = law.charge[law.probability > 1e-12].astype(np.float64)
    up = np.minimum(1, p[1:] / p[:-1])
    rate = np.diag(up, 1) + np.diag(np.minimum(1, p[:-1] / p[1:]), -1)
    rate -= np.diag(rate.sum(1))
    taus = []
    for x in (q, q**2):
        x = x - p @ x / p.sum()
        answer = np.linalg.lstsq(-rate, x, rcond=None)[0]
        taus.append((p * x) @ (answer - p @ answer / p.sum()) / ((p * x) @ x))
    return float(taus[1] / taus[0])


def judged(found: Found, action: U1, shape: tuple[int, int]) -> Found:
    """The same with cost and pulls."""
    volume, beta = math.prod(shape), action.beta.real
    truth = {"q2": charge_law(beta, volume).moment(2), "s": -beta * wilson_loop(beta, volume, 1)}
    pulls = {name: (value - truth[name]) / error for name, (value, error) in found["mean"].items() if error}
    (tau, tau_error), (seconds, spread) = found["tau_q2"], found["seconds"]
    error = 2 * math.hypot((tau_error or 0.0) * seconds, tau * spread)
    return {**found, "cost": [2 * tau * seconds, error], "pulls": pulls}


def text(result: dict[str, Any]) -> str:
    """A row per coupling and sampler, and the verdict."""
    rows = [["L", "beta", "sampler", "tau(Q)", "tau(Q^2)", "by", "CPU ms/step", "CPU ms/independent", "ESS"]]
    for p in result["points"]:
        for name, s in p["samplers"].items():
            tau = [_shown(*s[key]) for key in ("tau_q", "tau_q2")]
            cost = _shown(1e3 * s["cost"][0], None if s["how"] == "none" else 1e3 * s["cost"][1])
            if s["how"] == "jumps":
                tau, cost = [f">= {x}" for x in tau], f">= {cost}"
            ess = f"{s['ess']:.5f}" if "ess" in s else "-"
            step = f"{1e3 * s['seconds'][0]:.3g}"
            rows.append([str(p["size"]), f"{p['beta']:g}", name, *tau, s["how"], step, cost, ess])
    verdict = "passed" if result["passed"] else "NOT passed"
    return "\n".join([
        *aligned(rows),
        f"{result['n_pulls']} means of Q^2 and S against the exact ones, largest pull {result['worst']:.1f} "
        f"sigma; tau_int = 1/2 + sum rho in steps of each; > where no chain moved (95 %); {verdict}",
    ])  # fmt: skip


def _shown(value: float, error: float | None) -> str:
    if error is None:
        return f"> {value:.2g}"
    return format_value(value, error) if error > 0 else f"{value:.3g}"


def figure(result: dict[str, Any]) -> Figure:
    """tau_int and cost, against beta and along the line."""
    return freezing_figure(result)


def refuse(
    betas: list[float] | None = None, sizes: list[int] | None = None, n_samples: int = 2048,
    most: int = 2**13, error: float = 0.05,
) -> None:  # fmt: skip
    """`InputError` for options that make no sense."""
    if any(not 0 < beta < math.inf for beta in betas or []):
        raise InputError(f"betas must be finite and above 0, got {betas}")
    if any(not 4 <= size <= LARGEST for size in sizes or []):
        raise InputError(f"sizes must be 4 to {LARGEST}, got {sizes}")
    if betas == [] and sizes == []:
        raise InputError("betas or sizes must name a coupling, both are empty")
    if n_samples < 4 * BLOCK or most < 64 or not 0 < error < 1:
        raise InputError(
            f"n_samples must be at least {4 * BLOCK}, most 64, error between 0 and 1; got {n_samples}, "
            f"{most}, {error:g}"
        )

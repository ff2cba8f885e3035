"""What a Gaussian machine has learned, beside the closed form: spectrum, cuts, KL, propagator, and the data.

Its draws are held against the action they should follow: phi dS/dphi = 1 per site, Binder's cumulant, the
susceptibility. The verdict: every mode within 1 % of what is predicted, nothing cut, and the Schwinger-Dyson
equation within 4.5 sigma, of errors small enough to see 5 %. A machine that is cut fails it, and one of an
interacting theory as far as its draws can tell.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffsq.analysis.gaussian_machines import ROUNDING, by_mass, by_nodes, cut_row, finite_data
from diffsq.exactness.weights import ln_z
from diffsq.models.second_moments import projected
from diffsq.plots.machines import machine_figure
from diffsq.run_folder.finished import MachineBench
from diffsq.training.contrastive import kernel_of
from lattice.arrays import Floats
from lattice.certificates.check import GATE
from lattice.certificates.identities import schwinger_dyson
from lattice.exact.gaussian_rbm import best_mass, divergence, learned
from lattice.observables.measure import measure, two_point
from lattice.observables.scalar import momentum_classes
from lattice.progress import Progress
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.pulls import mean_of_chains

CLOSE = 0.01
VISIBLE = 0.05  # of phi dS/dphi: a deviation that the draws must be able to show
SIZES = [256, 1024, 4096, 16384]
SHOWN = ("susceptibility_full", "abs_magnetization", "binder", "phi2", "action_density")


def run(
    bench: MachineBench, progress: Progress, masses: list[float] | None = None,
    nodes: list[int] | None = None, sizes: list[int] | None = None, n_draws: int = 4096,
) -> dict[str, Any]:  # fmt: skip
    """masses, nodes: cuts to compare (null: some); sizes: of finite data; n_draws fields for each cut."""
    kappa = kernel_of(bench.second)
    mu2, n_hidden = float(bench.machine.mu2), bench.machine.w.shape[-1]
    best = best_mass(kappa, n_hidden) if bench.config.training.mass and n_hidden < len(kappa) else None
    kl = float(bench.machine.divergence(bench.second))  # refuses modes without variance
    lam, known = bench.machine.spectrum.numpy(), np.sort(learned(kappa, best or mu2, n_hidden))
    volume, low, high = len(kappa), float(kappa[0]), float(kappa[-1])
    masses = masses or np.geomspace(low + 0.2 * (high - low), high, 5).round(6).tolist()
    nodes = nodes or sorted({1, volume // 8, volume // 4, volume // 2, volume} - {0})
    whole = max(mu2, 1.05 * high)  # a mass that cuts nothing
    cuts = [(float(m), volume) for m in masses] + [(whole, min(int(n), volume)) for n in nodes]
    return {
        "passed": None, "kappa": kappa.tolist(), "lambda": lam.tolist(), "predicted": known.tolist(),
        "mu2": mu2, "best_mass": best, "n_hidden": n_hidden,
        "largest_deviation": float(np.abs(lam / known - 1).max()),
        "off": int((np.abs(lam / known - 1) > CLOSE).sum()),
        "cut_by_mass": int((kappa >= mu2 * (1 - ROUNDING)).sum()),
        "cut_by_nodes": max(0, int((kappa < mu2).sum()) - n_hidden),
        "kl": kl, "kl_predicted": divergence(kappa, known),
        "propagator": _propagator(bench), "nodes": by_nodes(kappa, whole),
        "masses": {"mu2": (grid := np.geomspace(1.02 * low, 1.3 * high, 60)).tolist(),
                   "kl": by_mass(kappa, grid.tolist())},
        "cuts": [cut_row(kappa, m, n, n_draws, bench.seed, i) for i, (m, n) in enumerate(cuts)],
        "finite": finite_data(bench.trained_on, bench.second, mu2, n_hidden, sizes or SIZES),
        "observables": _observables(bench),
    } | _verdict_of(bench, lam, known, mu2, n_hidden, kappa)  # fmt: skip


def _verdict_of(
    bench: MachineBench, lam: Floats, known: Floats, mu2: float, n_hidden: int, kappa: Floats
) -> dict[str, Any]:
    """The verdict, with its reasons."""
    made = schwinger_dyson(bench.samples.phi, bench.action)
    error = float(made.std(ddof=1) / math.sqrt(len(made)))
    series = [schwinger_dyson(bench.ensemble.phi[rows], bench.action) for rows in bench.ensemble.replicas()]
    data = mean_of_chains(series)
    assert bench.samples.log_weight is not None
    exact, whole = None, error
    if bench.config.training.second == "exact":
        exact = 0.5 * float(len(kappa) * math.log(2 * math.pi) - np.log(kappa).sum())
    else:  # what is learned from data has their fluctuation too
        whole = math.hypot(error, data[1] * math.sqrt(len(bench.ensemble) / len(bench.trained_on)))
    sigmas = abs(float(made.mean()) - 1) / whole
    reasons = []
    if (off := int((np.abs(lam / known - 1) > CLOSE).sum())) > 0:
        reasons.append(
            f"{off} of {len(lam)} modes are more than 1 % from what is predicted: train longer, or "
            "with less noise"
        )
    if cut := int((kappa >= mu2 * (1 - ROUNDING)).sum()):
        reasons.append(f"mu^2 = {mu2:.5g} cuts {cut} modes, kappa up to {kappa[-1]:.5g}")
    if (below := int((kappa < mu2).sum())) > n_hidden:
        reasons.append(f"{n_hidden} hidden nodes leave out {below - n_hidden} modes")
    if GATE * whole > VISIBLE:
        reasons.append(f"phi dS/dphi is known to {whole:.2g} only: take more samples and configurations")
    elif sigmas > GATE:
        reasons.append(f"phi dS/dphi of its fields is {format_value(float(made.mean()), error)}, not 1")
    return {
        "passed": not reasons, "reasons": reasons, "ln_z": list(ln_z(bench.samples.log_weight)),
        "ln_z_exact": exact,
        "schwinger_dyson": {"machine": [float(made.mean()), error], "data": list(data[:2])},
    }  # fmt: skip


def _propagator(bench: MachineBench) -> dict[str, list[float]]:
    """By class of momenta: khat^2, G(k) learned from, 1/lambda(k) of the machine, and the size of the class.

    error: of G(k) of the whole ensemble, by the Gamma method (0 where it is refused, or G(k) is exact)."""
    shape = bench.config.shape
    g, lam = projected(bench.second, shape), projected(bench.machine.kernel, shape)
    classes, exact = momentum_classes(shape), bench.config.training.second == "exact"
    errors = [0.0] * len(classes)
    if not exact:
        known = np.nan_to_num(two_point(bench.ensemble, n_momenta=len(classes))["G_error"])
        errors = known.tolist()
    found: dict[str, list[float]] = {}
    for members, error in zip(classes, errors, strict=True):
        at, k2 = members[0], sum(4 * math.sin(math.pi * n / L) ** 2 for n, L in zip(members[0], shape))
        row = {
            "khat2": k2, "G": float(g[at]), "machine": 1 / float(lam[at]), "multiplicity": len(members),
            "error": error,
        }  # fmt: skip
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return found


def _observables(bench: MachineBench) -> dict[str, dict[str, list[float | None]]]:
    """Of the data and of the machine's fields as drawn."""
    tables = {
        "data": measure(bench.ensemble, two_point=False),
        "machine": measure(bench.samples, ignore_weights=True, two_point=False),
    }
    return {
        name: {
            of: [t["observables"][name]["value"], t["observables"][name]["error"]] for of, t in tables.items()
        }
        for name in SHOWN
    }


def text(result: dict[str, Any]) -> str:
    """The spectrum in words, the observables, the cuts and what finite data cost."""
    p = result["propagator"]
    apart = [abs(g / made - 1) for g, made in zip(p["G"], p["machine"], strict=True)]
    lines = [
        f"{len(result['kappa'])} modes, kappa from {result['kappa'][0]:.6g} to {result['kappa'][-1]:.6g}; "
        f"mu^2 = {result['mu2']:.6g}, {result['n_hidden']} hidden nodes: {result['cut_by_mass']} cut by the "
        f"mass, {result['cut_by_nodes']} by the nodes",
        f"lambda against its closed form: largest relative difference {result['largest_deviation']:.2g}; "
        f"{result['off']} modes beyond 1 %",
        *(
            ()
            if result["best_mass"] is None
            else (f"mu^2 was learned; the best is {result['best_mass']:.6g}",)
        ),
        f"KL from the data's Gaussian {result['kl']:.6g} nats, closed form {result['kl_predicted']:.6g}",
        f"1/lambda(k) against the G(k) learned from: largest relative difference {max(apart):.2g}",
        "",
    ]
    rows = [["of the fields as drawn", "data", "machine"]]
    dyson = result["schwinger_dyson"]
    for name, pair in {**result["observables"], "phi dS/dphi": dyson}.items():
        rows.append([name, *(_shown(pair[of]) for of in ("data", "machine"))])
    lines += aligned(rows)
    if (exact := result["ln_z_exact"]) is not None:
        value, error = result["ln_z"]
        error = max(error, 1e-12 * abs(value))
        lines.append(f"ln Z by weights {format_value(value, error)}, exact {exact:.8f}")
    best = result["nodes"]["best_mass"]
    shown = sorted({0, len(best) // 8, len(best) // 4, len(best) // 2, len(best) - 2})
    masses = ", ".join(f"{best[n]:.6g} ({n})" for n in shown if n < len(best) - 1)
    lines += [
        "",
        f"mu^2 of the largest likelihood, by hidden nodes: {masses}",
        *_cut_lines(result["cuts"]),
        "",
    ]
    rows = [["fields learned from", "KL", "of averaged moments", "largest kappa seen"]]
    for row in result["finite"]:
        rows.append(
            [str(row["n"]), f"{row['data']:.4g}", f"{row['symmetric']:.4g}", f"{row['data_kappa']:.4g}"]
        )
    lines += aligned(rows)
    words = "; ".join(result["reasons"])
    return "\n".join([*lines, "passed" if result["passed"] else f"NOT passed: {words}"])


def _cut_lines(cuts: list[dict[str, Any]]) -> list[str]:
    rows = [["mu^2", "nodes", "modes", "KL", "phi^2", "drawn", "sum kappa/lambda /2V", "drawn"]]
    for row in cuts:
        rows.append([
            f"{row['mu2']:.4g}", str(row["n_hidden"]), str(row["n_modes"]), f"{row['kl']:.6g}",
            f"{row['phi2']:.6f}", _shown(row["phi2_drawn"]), f"{row['action_density']:.6f}",
            _shown(row["action_density_drawn"]),
        ])  # fmt: skip
    return aligned(rows)


def _shown(pair: list[float | None]) -> str:
    value, error = pair
    if value is None:
        return "-"
    return format_value(value, error) if error else f"{value:.6g}"


def figure(result: dict[str, Any]) -> Figure:
    """Spectrum, propagator, KL and action density."""
    return machine_figure(result)

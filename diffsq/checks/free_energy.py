"""ln Z of a run's coupling three ways: reverse weights, forward weights, thermodynamic integration.

The two kinds of path weights share a model and nothing else (one are of proposals, the other of held-out
Monte Carlo fields); the integral over kappa knows neither model nor ensemble. Bennett's ratio joins the
first two.
"""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffsq.exactness.free_energy import path_bennett
from diffsq.exactness.weights import ln_z, ln_z_forward
from diffsq.plots.style import BLUE, GREEN, INK, PURPLE, VERMILLION, light_grid, new_figure, styled
from diffsq.run_folder.finished import Workbench
from diffsq.sampling.sample import BLOCK
from lattice.errors import InputError
from lattice.progress import Progress
from lattice.scans.thermodynamic_integration import Node, thermodynamic_integration
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.weights import check_log_weights

LIMIT = 4.0  # standard deviations
SEED_OF_INTEGRAL = 0x5EED  # keeps its simulations apart from the ensemble's, which may have the same seed
LABELS = {
    "reverse": "reverse weights",
    "forward": "forward weights",
    "bennett": "both (Bennett)",
    "integration": "thermodynamic integration",
}
COLOURS = {"reverse": BLUE, "forward": VERMILLION, "bennett": PURPLE, "integration": GREEN}


def run(
    bench: Workbench,
    progress: Progress,
    n_forward: int = 1024,
    n_nodes: int = 8,
    n_chains: int = 64,
    n_trajectories: int = 300,
) -> dict[str, Any]:
    """ln Z by each method, with pulls of every pair that is independent; passed: all within 4 sigma."""
    if bench.samples.log_weight is None:
        raise InputError(f"{bench.folder}: the samples have no log-weights; ln Z needs method path")
    reverse = check_log_weights(bench.samples.log_weight)
    forward, chain = _forward(bench, progress, n_forward)
    integral = thermodynamic_integration(
        bench.action, bench.ensemble.shape, seed=bench.seed ^ SEED_OF_INTEGRAL, n_nodes=n_nodes,
        n_chains=n_chains, n_trajectories=n_trajectories, progress=progress,
    )  # fmt: skip
    both = path_bennett(reverse, forward, chain)
    found = {
        "reverse": ln_z(reverse),
        "forward": ln_z_forward(forward, chain),
        "bennett": (both.value, both.error),
        "integration": (integral.value, integral.error),
    }
    pairs = [("reverse", "forward"), ("reverse", "integration"), ("forward", "integration")]
    pulls = {f"{a} - {b}": _pull(found[a], found[b]) for a, b in [*pairs, ("bennett", "integration")]}
    return {
        "kappa": bench.action.kappa,
        "lam": bench.action.lam,
        "shape": list(bench.ensemble.shape),
        "ln_z": {name: {"value": value, "error": error} for name, (value, error) in found.items()},
        "n": {"reverse": len(reverse), "forward": len(forward)},
        "overlap": both.ess,
        "pulls": pulls,
        "integration": {
            "ln_z_zero": integral.ln_z_zero,
            "statistical_error": integral.statistical_error,
            "rule_error": integral.rule_error,
            "coarse": integral.coarse,
            "coarse_error": integral.coarse_error,
            "nodes": [_node(node) for node in integral.nodes],
            "coarse_nodes": [_node(node) for node in integral.coarse_nodes],
        },
        "passed": all(abs(pull) < LIMIT for pull in pulls.values()),
    }


def _node(node: Node) -> dict[str, float]:
    return {
        "kappa": node.kappa,
        "weight": node.weight,
        "slope": node.slope.value,
        "error": node.slope.error,
        "tau_int": node.slope.tau_int,
        "acceptance": node.acceptance,
    }


def _forward(bench: Workbench, progress: Progress, n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Log-weights of held-out fields noised forward, and the chains of the fields."""
    phi, chain = bench.held_out_fields(n)
    progress.start(len(phi), "forward weights")
    parts = []
    for start in range(0, len(phi), BLOCK):
        part = phi[start : start + BLOCK]
        noise = bench.noise("check/free_energy/forward", np.arange(start, start + len(part)))
        parts.append(bench.path.weigh(part, bench.action.action, noise, bench.frames())[0].cpu().numpy())
        progress.update(len(part))
    progress.close()
    return check_log_weights(np.concatenate(parts)), chain


def _pull(a: tuple[float, float], b: tuple[float, float]) -> float:
    error = math.hypot(a[1], b[1])
    return (a[0] - b[0]) / error if error > 0 else math.nan


def text(result: dict[str, Any]) -> str:
    """The table of ln Z, pulls and the verdict."""
    volume = math.prod(result["shape"])
    rows = [["method", "ln Z", "ln Z/V", "pull against the integral"]]
    for name, label in LABELS.items():
        value, error = result["ln_z"][name]["value"], result["ln_z"][name]["error"]
        pull = result["pulls"].get(f"{name} - integration")
        scaled = format_value(value / volume, error / volume)
        rows.append([label, format_value(value, error), scaled, "" if pull is None else f"{pull:+.1f}"])
    integral = result["integration"]
    return "\n".join(
        [
            f"kappa = {result['kappa']:g}, lam = {result['lam']:g}, shape {tuple(result['shape'])}",
            *aligned(rows),
            f"reverse - forward: {result['pulls']['reverse - forward']:+.1f} sigma; "
            f"{result['n']['reverse']} proposals, {result['n']['forward']} held-out fields",
            f"integration: {len(integral['nodes'])} couplings "
            f"{format_value(integral['ln_z_zero'], 0).removesuffix('(0)')} at kappa = 0; "
            f"{len(integral['coarse_nodes'])} couplings give "
            f"{format_value(integral['coarse'], integral['coarse_error'])}, rule error "
            f"{integral['rule_error']:.2g}",
            f"passed: {result['passed']} (all within {LIMIT:g} sigma)",
        ]
    )


@styled
def figure(result: dict[str, Any]) -> Figure:
    """Left: ln Z by each method, about the integral. Right: the integrand at the nodes of both rules."""
    page = new_figure(10.4, 3.9)
    left, right = page.subplots(1, 2, width_ratios=(1, 1.15))
    _estimates(left, result)
    for name, label, colour, marker in (
        ("nodes", "Gauss–Legendre", GREEN, "o"),
        ("coarse_nodes", "second rule", INK, "s"),
    ):
        nodes = result["integration"][name]
        volume = math.prod(result["shape"])
        right.errorbar(
            [node["kappa"] for node in nodes],
            [node["slope"] / volume for node in nodes],
            yerr=[node["error"] / volume for node in nodes],
            color=colour, marker=marker, linestyle="none", label=f"{label}, {len(nodes)} couplings",
            markerfacecolor=colour if marker == "o" else "white", elinewidth=1.5,
        )  # fmt: skip
    right.set(xlabel=r"$\kappa$", ylabel=r"$V^{-1}\,\partial \ln Z/\partial\kappa$  [dimensionless]")
    right.legend(loc="upper left")
    light_grid(right)
    return page


def _estimates(axes: Axes, result: dict[str, Any]) -> None:
    centre = result["ln_z"]["integration"]
    names = list(LABELS)
    for row, name in enumerate(names):
        value, error = result["ln_z"][name]["value"], result["ln_z"][name]["error"]
        axes.errorbar(
            [value - centre["value"]], [-row], xerr=[error], color=COLOURS[name], marker="o", elinewidth=2
        )
        axes.annotate(
            format_value(value, error), (value - centre["value"], -row), xytext=(0, 8), ha="center",
            textcoords="offset points", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
        )  # fmt: skip
    axes.axvspan(-centre["error"], centre["error"], color=GREEN, alpha=0.12, linewidth=0)
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.set_yticks([-row for row in range(len(names))], [LABELS[name] for name in names])
    axes.tick_params(axis="y", which="both", length=0)
    axes.set(ylim=(-len(names) + 0.4, 0.7), xlabel=r"$\ln Z$ minus that of the integration")
    axes.margins(x=0.25)
    axes.grid(True, axis="x", which="major")
    axes.set_axisbelow(True)

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

from diffsq.exactness.free_energy import path_bennett
from diffsq.exactness.weights import ln_z, ln_z_forward
from diffsq.plots.style import BLUE, GREEN, INK, PURPLE, VERMILLION, note, panels, rows, styled
from diffsq.run_folder.finished import Workbench
from diffsq.sampling.draws import BLOCK
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.progress import Progress, counted
from lattice.scans.thermodynamic_integration import Node, thermodynamic_integration
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.pulls import pull
from lattice.statistics.weights import check_log_weights, distrusted

LIMIT = 4.0  # standard deviations
SEED_OF_INTEGRAL = 0x5EED  # keeps its simulations apart from the ensemble's, which may have the same seed
METHODS = {
    "reverse": ("reverse weights", BLUE),
    "forward": ("forward weights", VERMILLION),
    "bennett": ("both (Bennett)", PURPLE),
    "integration": ("thermodynamic integration", GREEN),
}
PAIRS = (  # those that are independent
    ("reverse", "forward"), ("reverse", "integration"), ("forward", "integration"), ("bennett", "integration")
)  # fmt: skip


def run(
    bench: Workbench, progress: Progress, n_forward: int = 1024, n_nodes: int = 8, n_chains: int = 64,
    n_trajectories: int = 300,
) -> dict[str, Any]:  # fmt: skip
    """ln Z by each method, with pulls of every pair that is independent; passed: all within 4 sigma.

    Without a verdict (None) where the errors of the weights are not to be trusted, whatever the pulls.
    """
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
    pulls = {f"{a} - {b}": _pull(found[a], found[b]) for a, b in PAIRS}
    parts = ("ln_z_zero", "statistical_error", "rule_error", "coarse", "coarse_error")
    return {
        "kappa": bench.action.kappa,
        "lam": bench.action.lam,
        "shape": list(bench.ensemble.shape),
        "ln_z": {name: {"value": value, "error": error} for name, (value, error) in found.items()},
        "n": {"reverse": len(reverse), "forward": len(forward)},
        "overlap": both.ess,
        "pulls": pulls,
        "integration": {
            **{name: getattr(integral, name) for name in parts},
            **{name: [_node(node) for node in getattr(integral, name)] for name in ("nodes", "coarse_nodes")},
        },
        "warnings": (lines := distrusted(reverse)),
        "passed": None if lines else all(abs(pull) < LIMIT for pull in pulls.values()),
    }


def _node(node: Node) -> dict[str, float]:
    slope, error, tau_int = node.slope.value, node.slope.error, node.slope.tau_int
    about = {"kappa": node.kappa, "weight": node.weight, "slope": slope, "error": error, "tau_int": tau_int}
    return {**about, "acceptance": node.acceptance}


def _forward(bench: Workbench, progress: Progress, n: int) -> tuple[Floats, Integers]:
    """Log-weights of held-out fields noised forward, and the chains of the fields."""
    phi, chain = bench.held_out_fields(n)
    parts = []
    for index in counted(progress, len(phi), BLOCK, "forward weights"):
        parts.append(bench.weigh(phi[index], "check/free_energy/forward", index).cpu().numpy())
    return check_log_weights(np.concatenate(parts)), chain


def _pull(a: tuple[float, float], b: tuple[float, float]) -> float:
    return pull(*a, *b) if math.hypot(a[1], b[1]) > 0 else math.nan


def text(result: dict[str, Any]) -> str:
    """The table of ln Z, pulls and the verdict."""
    volume, pulls, integral = math.prod(result["shape"]), result["pulls"], result["integration"]
    table = [["method", "ln Z", "ln Z/V", "pull against the integral"]]
    for name, (label, _) in METHODS.items():
        value, error = result["ln_z"][name]["value"], result["ln_z"][name]["error"]
        against = f"{name} - integration"
        pull = f"{pulls[against]:+.1f}" if against in pulls else ""
        table.append([label, format_value(value, error), format_value(value / volume, error / volume), pull])
    return "\n".join([
        f"kappa = {result['kappa']:g}, lam = {result['lam']:g}, shape {tuple(result['shape'])}",
        *aligned(table),
        f"reverse - forward: {pulls['reverse - forward']:+.1f} sigma; "
        f"{result['n']['reverse']} proposals, {result['n']['forward']} held-out fields",
        f"integration: {len(integral['nodes'])} couplings "
        f"{format_value(integral['ln_z_zero'], 0).removesuffix('(0)')} at kappa = 0; "
        f"{len(integral['coarse_nodes'])} couplings give "
        f"{format_value(integral['coarse'], integral['coarse_error'])}, rule error "
        f"{integral['rule_error']:.2g}",
        *(f"warning: {line}" for line in result["warnings"]),
        f"passed: {result['passed']} (all within {LIMIT:g} sigma)",
    ])  # fmt: skip


@styled
def figure(result: dict[str, Any]) -> Figure:
    """Left: ln Z by each method, about the integral. Right: the integrand at the nodes of both rules."""
    page, (left, right) = panels(10.4, 3.9, 1, 2, width_ratios=(1, 1.15))
    _estimates(left, result)
    volume = math.prod(result["shape"])
    for name, label, colour, marker, face in (
        ("nodes", "Gauss–Legendre", GREEN, "o", GREEN), ("coarse_nodes", "second rule", INK, "s", "white")
    ):  # fmt: skip
        nodes = result["integration"][name]
        kappa, slope, error = np.array([[node[k] for k in ("kappa", "slope", "error")] for node in nodes]).T
        right.errorbar(
            kappa, slope / volume, error / volume, color=colour, marker=marker, linestyle="none",
            label=f"{label}, {len(nodes)} couplings", markerfacecolor=face, elinewidth=1.5,
        )  # fmt: skip
    right.set(xlabel=r"$\kappa$", ylabel=r"$V^{-1}\,\partial \ln Z/\partial\kappa$  [dimensionless]")
    right.legend(loc="upper left")
    return page


def _estimates(axes: Axes, result: dict[str, Any]) -> None:
    centre = result["ln_z"]["integration"]
    axes.grid(False, axis="y")
    places = rows(axes, [label for label, _ in METHODS.values()])
    for place, (name, (_, colour)) in zip(places, METHODS.items()):
        value, error = result["ln_z"][name]["value"], result["ln_z"][name]["error"]
        off, box = value - centre["value"], {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        axes.errorbar([off], [place], xerr=[error], color=colour, marker="o", elinewidth=2)
        note(axes, format_value(value, error), (off, place), (0, 8), ha="center", bbox=box)
    axes.axvspan(-centre["error"], centre["error"], color=GREEN, alpha=0.12, linewidth=0)
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.set(ylim=(-0.6, len(places) - 0.3), xlabel=r"$\ln Z$ minus that of the integration")
    axes.margins(x=0.25)

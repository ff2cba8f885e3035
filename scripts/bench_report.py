"""What `bench_tau` found: exponents, tables, whether the algorithms agree, and the figure."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench_recipes import Recipe

from lattice.arrays import Floats
from lattice.files import write_atomic
from lattice.statistics.notation import format_value
from lattice.updates.integrator import scheme

OBSERVABLES = ("M2", "absM", "S")
STYLE = {
    "hmc": ("HMC", "#0072B2", "o"),
    "hmc-fourier": ("HMC, Fourier-\naccelerated", "#56B4E9", "s"),
    "wolff": ("Wolff + HMC", "#D55E00", "^"),
    "wolff-local": ("Wolff + local", "#E69F00", "v"),
    "sw": ("Swendsen\u2013Wang", "#009E73", "D"),
    "mala": ("MALA", "#CC79A7", "P"),
}


def fit_z(lengths: Floats, values: Floats, errors: Floats) -> tuple[float, float, float, int]:
    """z of value ~ L^z by weighted least squares of logarithms: (z, error, chi2, degrees of freedom).

    The error is enlarged by sqrt(chi2/dof) where that exceeds 1; nan with fewer than two points.

    >>> z, error, chi2, dof = fit_z(np.array([16.0, 32.0, 64.0]), np.array([1.0, 4.0, 16.0]), np.full(3, 0.1))
    >>> round(z, 6), dof
    (2.0, 1)
    """
    if len(lengths) < 2:
        return math.nan, math.nan, math.nan, 0
    x, y, weight = np.log(lengths), np.log(values), (values / errors) ** 2
    centre = (weight * x).sum() / weight.sum()
    spread = (weight * (x - centre) ** 2).sum()
    z = (weight * (x - centre) * y).sum() / spread
    chi2 = float((weight * (y - (weight * y).sum() / weight.sum() - z * (x - centre)) ** 2).sum())
    dof = len(x) - 2
    return float(z), float(spread**-0.5 * max(1.0, math.sqrt(chi2 / dof) if dof else 1.0)), chi2, dof


def forces(recipe: Recipe) -> float:
    """Force evaluations of one trajectory, nan where something else moves the field too."""
    (name, s), *others = recipe.items()
    if others or name not in ("hmc", "mala"):
        return math.nan
    return float(s["n_steps"] * (scheme(s["integrator"]).force_evaluations if name == "hmc" else 1))


# column of the table of exponents -> what it is of a point: (value, error) and a factor
EXPONENTS: dict[str, Callable[[dict[str, Any]], tuple[list[float], float]]] = {
    "tau M2 in trajectories": lambda p: (p["tau_int"]["M2"], 1.0),
    "tau abs M in trajectories": lambda p: (p["tau_int"]["absM"], 1.0),
    "tau S in trajectories": lambda p: (p["tau_int"]["S"], 1.0),
    "tau M2 in forces": lambda p: (p["tau_int"]["M2"], forces(p["recipe"])),
    "CPU per independent configuration and site, M2": lambda p: (p["cost_M2"], 1.0 / p["volume"]),
    "the same, slowest": lambda p: (p["cost_slowest"], 1.0 / p["volume"]),
}


def exponents(points: list[dict[str, Any]], smallest: int = 16) -> list[list[Any]]:
    """Per algorithm: its name, the number of points, and z of each of `EXPONENTS`.

    The settings are tuned at each L, so z in trajectories is no dynamical exponent where the trajectory grows
    with L; z in forces, or of the CPU time, is what a user pays.
    """
    rows = []
    for algorithm in dict.fromkeys(p["request"]["algorithm"] for p in points):
        used = [p for p in points if p["request"]["algorithm"] == algorithm]
        used = [p for p in used if p["request"]["L"] >= smallest]
        lengths = np.array([float(p["request"]["L"]) for p in used])
        row: list[Any] = [algorithm, len(used)]
        for of in EXPONENTS.values():
            pairs = np.array([np.multiply(*of(p)) for p in used]).reshape(-1, 2)
            row.append(fit_z(lengths, pairs[:, 0], pairs[:, 1]))
        rows.append(row)
    return rows


def shown_tau(value: float, error: float) -> str:
    """tau_int(error); an anticorrelated series, raised to 1/2 by the Gamma method, is a bound."""
    return "<= 0.5" if value < 0.5001 else format_value(value, error)


def describe(recipe: Recipe) -> str:
    parts = []
    for name, s in recipe.items():
        shown = [f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                 for key, value in s.items() if key != "target"]  # fmt: skip
        parts.append(f"{name} ({', '.join(shown)})" if shown else name)
    return " + ".join(parts)


def tables(points: list[dict[str, Any]]) -> str:
    """Markdown: one row per point, the exponents, and whether all algorithms agree on the averages."""
    lines = ["| algorithm | L | chains x trajectories | tau M2 | tau abs M | tau S | acceptance "
             "| CPU ms per trajectory | CPU s per independent configuration: M2 | slowest | V M2 "
             "| one trajectory |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    done = [p for p in points if p["failure"] is None]
    for p in done:
        tau = [shown_tau(*p["tau_int"][name]) for name in OBSERVABLES]
        m2 = format_value(*(p["volume"] * x for x in p["mean"]["M2"]))
        acceptance = ", ".join(f"{a:.2f}" for a in p["acceptance"].values())
        costs = [format_value(*p[key]) for key in ("cost_M2", "cost_slowest")]
        cells = [p["request"]["algorithm"], p["request"]["L"], f"{p['n_chains']} x {p['n_traj']}", *tau,
                 acceptance, f"{1e3 * p['cpu_per_trajectory']:.3g}", costs[0], f"{costs[1]} ({p['slowest']})",
                 m2, describe(p["recipe"])]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += [f"| {p['request']['algorithm']} | {p['request']['L']} | no result: {p['failure']} |"
              for p in points if p["failure"] is not None]  # fmt: skip
    lines += ["", "z, from L >= 16, each L tuned on its own:", "",
              f"| algorithm | points | {' | '.join(EXPONENTS)} |",
              "|---" * (2 + len(EXPONENTS)) + "|"]  # fmt: skip
    for algorithm, n, *fits in exponents(done):
        shown = [f"{format_value(z, error)}, chi2 {chi2:.1f}/{dof}" if n > 1 and math.isfinite(z) else "-"
                 for z, error, chi2, dof in fits]  # fmt: skip
        lines.append(f"| {algorithm} | {n} | " + " | ".join(shown) + " |")
    return "\n".join([*lines, "", agreement(done)])


def agreement(points: list[dict[str, Any]]) -> str:
    """The largest pull of any algorithm's mean against the weighted mean of all algorithms at the same L.

    All began with the same fields; chains of 100 tau_int forget them, so the runs count as independent.
    """
    largest, where = 0.0, "nothing to compare"
    for extent in {p["request"]["L"] for p in points}:
        same = [p for p in points if p["request"]["L"] == extent]
        for name in OBSERVABLES:
            value, error = np.array([p["mean"][name] for p in same]).T
            mean, variance = (value / error**2).sum() / (error**-2).sum(), 1 / (error**-2).sum()
            for p, v, e in zip(same, value, error):
                pull = abs(v - mean) / math.sqrt(max(e * e - variance, 1e-300)) if len(same) > 1 else 0.0
                if pull > largest:
                    largest, where = pull, f"{p['request']['algorithm']} L={extent} {name}"
    return f"Largest pull of a mean against the weighted mean of all algorithms: {largest:.1f} ({where})."


def figure(points: list[dict[str, Any]], path: Path) -> None:
    """tau_int(M^2) and CPU seconds per independent configuration against L, one curve per algorithm."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    plt.rcParams.update({"font.size": 15, "axes.spines.top": False, "axes.spines.right": False})
    drawn, axes = plt.subplots(1, 2, figsize=(14.5, 5.8), layout="constrained")
    done = [p for p in points if p["failure"] is None]
    for ax, key in zip(axes, ("tau", "cost_M2")):
        for algorithm in dict.fromkeys(p["request"]["algorithm"] for p in done):
            mine = [p for p in done if p["request"]["algorithm"] == algorithm]
            mine.sort(key=lambda p: p["volume"])
            y, error = np.array([p["tau_int"]["M2"] if key == "tau" else p[key] for p in mine]).T
            label, colour, marker = STYLE[algorithm]
            ax.errorbar([p["request"]["L"] for p in mine], y, error, marker=marker, ms=8, lw=2.2, capsize=4,
                        color=colour, label=label)  # fmt: skip
        ax.set(xscale="log", yscale="log", xlabel="$L$")
        ax.xaxis.set_major_locator(FixedLocator(sorted({p["request"]["L"] for p in done})))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.grid(alpha=0.25)
    axes[0].set_ylabel(r"$\tau_{\rm int}(M^2)$ in tuned trajectories")
    axes[1].set_ylabel("CPU s per independent configuration")
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    first = points[0]["request"]
    couplings = rf"$\kappa={first['kappa']:g}$, $\lambda={first['lam']:g}$"
    drawn.suptitle(rf"$\phi^4$ in two dimensions, {couplings}, one core")
    write_atomic(path, lambda file: drawn.savefig(file, dpi=160, format="png"))
    plt.close(drawn)

"""What a learned law of x + iy knows of its process: circulation of the score, residual of Fokker-Planck.

Circulation: the part of the learned score that is no gradient. Residual: of the Fokker-Planck equation of
complex Langevin at the learned energy, relative to its terms. At several noise levels. No verdict.
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure

from diffsq.analysis.fokker_planck import circulation, drift_of, fokker_planck
from diffsq.plots.style import BLUE, GREEN, VERMILLION, light_grid, new_figure, styled
from diffsq.run_folder.finished import PointBench
from lattice.progress import Progress

SIGMAS = (0.03, 0.1, 0.3)
N_POINTS = 20_000


def run(bench: PointBench, progress: Progress, sigmas: tuple[float, ...] = SIGMAS) -> dict[str, Any]:
    """sigmas: the noise levels, those within the range learned."""
    bench.complex_only("fokker-planck")
    rows = bench.draws.rows(N_POINTS)
    points, models = torch.from_numpy(bench.ensemble.phi[rows]), bench.models
    noise = float(getattr(bench.config.ensemble, "imaginary_noise", 0.0))
    low, high = bench.draws.range
    curl: dict[str, dict[str, float]] = {kind: {} for kind in models}
    rate: dict[str, dict[str, float]] = {}
    progress.start(len(sigmas) * (len(models) + ("energy" in models)), "diagnostics")
    for sigma in (s for s in sigmas if low <= s <= high):
        for kind, model in models.items():
            curl[kind][f"{sigma:g}"] = circulation(model, points, sigma, bench.seed)
            progress.update()
        if "energy" in models:
            rate[f"{sigma:g}"] = fokker_planck(
                models["energy"], drift_of(bench.action), points, sigma, bench.seed, imaginary_noise=noise
            )
            progress.update()
    progress.close()
    return {"passed": None, "circulation": curl, "fokker_planck": rate}


def text(result: dict[str, Any]) -> str:
    """A line per model, one for the residual."""
    lines = [
        f"circulation of the {kind} model, rms curl over rms gradient: {_at(values)}"
        for kind, values in result["circulation"].items()
        if values
    ]
    if result["fokker_planck"]:
        relative = {sigma: entry["relative"] for sigma, entry in result["fokker_planck"].items()}
        lines.append(f"Fokker-Planck residual of the learned energy, relative to its terms: {_at(relative)}")
    return "\n".join(lines)


def _at(values: dict[str, float]) -> str:
    return ", ".join(f"{value:.2g} at sigma = {sigma}" for sigma, value in values.items())


@styled
def figure(result: dict[str, Any]) -> Figure:
    """Circulation and residual against sigma."""
    page = new_figure(6.4, 3.8)
    axes = page.subplots()
    for (kind, values), colour in zip(result["circulation"].items(), (BLUE, GREEN)):
        sigmas = [float(s) for s in values]
        axes.plot(sigmas, list(values.values()), "o-", color=colour, label=f"curl, {kind}")
    rate = {float(sigma): entry["relative"] for sigma, entry in result["fokker_planck"].items()}
    if rate:
        label = "Fokker-Planck residual, energy"
        axes.plot(list(rate), list(rate.values()), "s--", color=VERMILLION, label=label)
    axes.set(xscale="log", yscale="log", xlabel=r"$\sigma$", ylabel="relative size")
    axes.legend()
    light_grid(axes)
    return page

"""The learned effective action S_DM(phi) of a real model, its band from models of disjoint parts of the
data."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from diffsq.analysis import learned_action as analysis
from diffsq.plots import learned_action as plot
from diffsq.run_folder.finished import PointBench
from lattice.progress import Progress


def run(bench: PointBench, progress: Progress) -> dict[str, Any]:
    """Needs `n_parts` of the run to be two or more: one model has no error band, and the check then says
    so."""
    bench.real_only("learned-action")
    if not bench.config.n_parts:
        return {"passed": None, "action": None}
    phi, sigma = analysis.support(bench.action), bench.config.training.sigma_min
    curves = [analysis.learned_curve(model, phi, sigma) for model in bench.parts()]
    return {"passed": None, "action": analysis.compare_action(curves, bench.action, phi, sigma).as_dict()}


def text(result: dict[str, Any]) -> str:
    """Couplings read off, and distances."""
    if result["action"] is None:
        return "no models of parts of the data (n_parts: 0), so no error band"
    return analysis.text(analysis.LearnedAction.from_dict(result["action"]))


def figure(result: dict[str, Any]) -> Figure | None:
    """S_DM over S and S_sigma."""
    if result["action"] is None:
        return None
    return plot.figure([analysis.LearnedAction.from_dict(result["action"])], [""])

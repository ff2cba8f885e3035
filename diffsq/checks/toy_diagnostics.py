"""What only a learned model can tell of a run on one variable: `diagnose` makes summary.json's "diagnostics".

Complex: circulation of the score (its part that is no gradient) and the Fokker-Planck residual of the learned
energy under the complex Langevin process, at several noise levels. Real: kappa_n(t) forward and backward, and
the learned effective action, its band from the models trained on disjoint parts of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsq.analysis.fokker_planck import circulation, fokker_planck
from diffsq.analysis.learned_action import LearnedAction, compare_action, learned_curve, support, text
from diffsq.config.toy import ComplexConfig, ToyConfig
from diffsq.models.files import load_model
from diffsq.models.points import PointModel
from lattice.ensembles.ensemble import Ensemble
from lattice.files import read_json
from lattice.progress import Progress

SIGMAS = (0.03, 0.1, 0.3)


def diagnose(config: ToyConfig, folder: Path, data: Ensemble, progress: Progress) -> dict[str, Any]:
    """Numbers as JSON data, and "lines" as printed."""
    if isinstance(config, ComplexConfig):
        return _complex(config, folder, data, progress)
    found: dict[str, Any] = {"flow": read_json(folder / "samples" / "flow.json")["flows"], "lines": []}
    if config.n_parts:
        learned = learned_action(config, folder)
        found |= {"action": learned.as_dict(), "lines": text(learned).splitlines()}
    return found


def drift_of(action: Any) -> Callable[[Tensor], Tensor]:
    """K = -S'(x + iy) as a field (n, 2) -> (n, 2)."""
    return lambda x: -action.grad(x)


def _complex(config: ComplexConfig, folder: Path, data: Ensemble, progress: Progress) -> dict[str, Any]:
    points = torch.from_numpy(data.phi)
    models = {kind: load_model(folder / "train" / kind, PointModel) for kind in config.models}
    progress.start(len(SIGMAS) * (len(models) + ("energy" in models)), "diagnostics")
    curl: dict[str, dict[str, float]] = {kind: {} for kind in models}
    rate: dict[str, dict[str, float]] = {}
    first = next(iter(models.values()))
    for sigma in (s for s in SIGMAS if first.sigma_min <= s <= first.sigma_max):
        for kind, model in models.items():
            curl[kind][f"{sigma:g}"] = circulation(model, points, sigma, config.seed)
            progress.update()
        if "energy" in models:
            rate[f"{sigma:g}"] = fokker_planck(
                models["energy"], drift_of(data.action), points, sigma, config.seed,
                imaginary_noise=config.ensemble.imaginary_noise,
            )  # fmt: skip
            progress.update()
    progress.close()
    lines = [
        f"circulation of the {kind} model, rms curl over rms gradient: {_at(values)}"
        for kind, values in curl.items()
        if values
    ]
    if rate:
        relative = {sigma: entry["relative"] for sigma, entry in rate.items()}
        lines.append(f"Fokker-Planck residual of the learned energy, relative to its terms: {_at(relative)}")
    return {"circulation": curl, "fokker_planck": rate, "lines": lines}


def _at(values: dict[str, float]) -> str:
    return ", ".join(f"{value:.2g} at sigma = {sigma}" for sigma, value in values.items())


def learned_action(config: ToyConfig, folder: Path) -> LearnedAction:
    """S_DM with its band, from the models trained on disjoint parts of the data."""
    parts = [load_model(folder / "train" / f"part-{k}", PointModel) for k in range(config.n_parts)]
    action: Any = config.build_action()
    phi, sigma = support(action), config.training.sigma_min
    return compare_action([learned_curve(model, phi, sigma) for model in parts], action, phi, sigma)

"""The singular values of a run's networks beside those of random matrices: what training has left white."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from torch import nn

from diffsq.models.files import load_model
from diffsq.models.lattice import LatticeScore
from diffsq.models.spectra import all_spectra, table, table_text
from diffsq.plots.spectra import spectra_figure
from diffsq.run_folder.finished import PointBench, Workbench
from lattice.errors import InputError
from lattice.progress import Progress


def run(bench: Workbench | PointBench, progress: Progress) -> dict[str, Any]:
    """Every matrix of the networks of all models. Raises `InputError` where there is none. No verdict."""
    networks: dict[str, nn.Module | None]
    if isinstance(bench, Workbench):
        names = bench.config.models
        others = {f"{name}.": load_model(bench.folder / "train" / name, LatticeScore) for name in names[1:]}
        networks = {f"{names[0]}.": bench.model.unet, **{name: m.unet for name, m in others.items()}}
    else:
        networks = {f"{name}.": model for name, model in bench.models.items()}
    weights = {
        f"{name}{key}": weight.detach().cpu().numpy()
        for name, network in networks.items()
        if network is not None
        for key, weight in network.named_parameters()
    }
    if not weights:
        raise InputError(
            f"{bench.folder}: its models have no network, only the closed form; take one with model.channels"
        )
    return {"passed": None, **table(*all_spectra(weights, progress))}


def text(result: dict[str, Any]) -> str:
    """A row per matrix."""
    return table_text(result)


def figure(result: dict[str, Any]) -> Figure:
    """Densities of eigenvalues."""
    return spectra_figure(result)

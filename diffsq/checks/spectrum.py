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
from diffsq.training.checkpoint import read_lines
from lattice.errors import InputError
from lattice.progress import Progress
from lattice.statistics.notation import aligned, format_value


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
    found = {"passed": None, **table(*all_spectra(weights, progress))}
    return found | {"history": _history(bench)}


def _history(bench: Workbench | PointBench) -> list[dict[str, Any]]:
    """Step, held-out gain, mean KS, outliers in all and mean spacing ratio while a score of fields was
    trained."""
    if not isinstance(bench, Workbench):
        return []
    lines = [
        line
        for path in sorted((bench.folder / "train").glob("*/metrics.jsonl"))
        for line in read_lines(path)
        if "ks" in line
    ]
    names = ("step", "val_gain", "val_gain_error", "ks", "outliers", "ratio")
    return [{name: line[name] for name in names} for line in lines]


def text(result: dict[str, Any]) -> str:
    """A row per matrix, and one for each step at which a score of fields was validated."""
    history = result.get("history") or []
    rows = [["step", "gain", "mean KS", "outliers", "<r>"]]
    for line in history:
        gain = format_value(line["val_gain"], line["val_gain_error"])
        rows.append(
            [str(line["step"]), gain, f"{line['ks']:.4f}", f"{line['outliers']:.0f}", f"{line['ratio']:.4f}"]
        )
    return "\n".join([table_text(result), *(["", *aligned(rows)] if history else [])])


def figure(result: dict[str, Any]) -> Figure:
    """Densities of eigenvalues."""
    return spectra_figure(result)

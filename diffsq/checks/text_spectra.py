"""Weights of a transformer while it learns a text: from Marchenko and Pastur's law to bulk and outliers.

Means over seeds, errors from their scatter. The control is the text with its characters shuffled: all that
can be learned of it is one vector of frequencies. Spacing ratios are held against random matrices of the same
shapes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffsq.config.dynamics import TextRun
from diffsq.models.spectra import N_NULL, null_of
from diffsq.plots.dynamics import text_figure
from diffsq.run_folder.finished import DynamicsBench
from lattice.certificates.check import GATE
from lattice.errors import InputError
from lattice.exact.random_matrix import RATIO_GOE, RATIO_POISSON
from lattice.progress import Progress
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.pulls import pull_of, sigmas_of

OF = {"config": TextRun}
NUMBERS = ("ks", "outliers", "largest_over_edge", "stable_rank")
FAR, FEWEST = 10.0, 3
APART = 5.0  # sigma by which a text must have more outliers than the same text shuffled
QUANTILE = 1.645  # of a normal law, 95 %


def run(bench: DynamicsBench, progress: Progress) -> dict[str, Any]:
    """The verdict: at the start the mean KS distance of every kind of matrix is that of random ones within
    4.5 sigma; at the last step that both have, the text has more outliers than the shuffled one in every
    kind, and in all by 5 sigma of the scatter over seeds; the loss of the shuffled text is not below its
    entropy; spacing ratios within 4.5 sigma of random matrices, 10 from Poisson levels. Three seeds at least.

    Raises `InputError` for a run of another kind.
    """
    if not isinstance(bench.config, TextRun):
        raise InputError("the check text-spectra is for a run with models: [transformer]")
    groups = {
        kind: [row for name, row in bench.rows.items() if name.startswith(f"{kind}-")]
        for kind in ("text", "shuffled")
    }
    first = groups["text"][0]
    found: dict[str, Any] = {kind: _table(rows) for kind, rows in groups.items()}
    found |= {
        "n_seeds": len(groups["text"]), "n_layers": first["settings"]["n_layers"],
        "n_texts": len({row["text_sha256"] for row in groups["text"]}),
        "sha256": first["text_sha256"], "python": first["python"],
        "n_parameters": first["n_parameters"], "entropy": first["unigram_entropy"],
        "eigenvalues": {kind: rows[0]["eigenvalues"] for kind, rows in groups.items()},
        "null": {kind: _null(first, kind) for kind in first["at"][0]["kinds"]},
    }  # fmt: skip
    reasons = _reasons(found)
    return {"passed": not reasons, "reasons": reasons, **found}


def _null(row: dict[str, Any], kind: str) -> list[float]:
    """KS mean and 95th percentile of Gaussian matrices of the shape of this kind."""
    width = row["settings"]["width"]
    shape = (width, 4 * width) if kind in ("fc", "out") else (width, width)
    null = null_of(shape)
    return [null.ks, null.ks_95]


def _mean(values: list[float]) -> list[float]:
    n = len(values)
    return [float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else 0.0]


def _table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By step: loss, ratio, the numbers of every kind of matrix, each a mean over seeds with its error."""
    table = []
    for i, at in enumerate(rows[0]["at"]):
        each = [row["at"][i] for row in rows]
        spread = float(np.mean([one["ratio_error"] for one in each]))
        error = spread * math.sqrt(1 / len(each) + 1 / N_NULL)  # of the null, too
        table.append({
            "step": at["step"], "val_loss": _mean([one["val_loss"] for one in each]),
            "ratio": [float(np.mean([one["ratio"] for one in each])), error], "null": at["ratio_null"],
            "all_outliers": _mean([sum(one["kinds"][k]["outliers"] for k in one["kinds"]) for one in each]),
            "kinds": {
                kind: {name: _mean([one["kinds"][kind][name] for one in each]) for name in NUMBERS}
                for kind in at["kinds"]
            },
        })  # fmt: skip
    return table


def _reasons(found: dict[str, Any]) -> list[str]:
    reasons = []
    n = found["n_seeds"]
    start = found["text"][0]["kinds"]
    for kind, (mean, high) in found["null"].items():
        spread = (high - mean) / QUANTILE / math.sqrt(n * found["n_layers"])
        if abs(start[kind]["ks"][0] - mean) > GATE * spread:
            reasons.append(f"{kind} is not a random matrix at the start")
    shared = [row for row in found["text"] if any(row["step"] == s["step"] for s in found["shuffled"])]
    text = shared[-1]
    control = next(row for row in found["shuffled"] if row["step"] == text["step"])
    near = [
        kind
        for kind in start
        if not text["kinds"][kind]["outliers"][0] > control["kinds"][kind]["outliers"][0]
    ]
    if n < FEWEST:
        reasons.append(f"{n} seeds have no scatter to speak of: take n_seeds {FEWEST} or more")
    elif text["step"] == 0:
        reasons.append("no step after the first at which both texts have spectra: nothing to compare")
    elif near or _more(text["all_outliers"], control["all_outliers"], n) < APART:
        reasons.append(f"not more outliers than of shuffled text{' in ' if near else ''}{', '.join(near)}")
    loss, error = found["shuffled"][-1]["val_loss"]
    if loss < found["entropy"] - GATE * max(error, 0.002):
        reasons.append("the loss of shuffled text is below its entropy")
    if found["n_texts"] > 1:
        reasons.append("the rows are of different texts")
    for kind in ("text", "shuffled"):
        for row in found[kind]:
            goe, poisson = (pull_of(row["ratio"], (known, 0.0)) for known in (row["null"], RATIO_POISSON))
            if abs(goe) <= GATE and poisson < FAR:
                reasons.append(f"too few levels of the {kind} to tell the GOE from Poisson's")
            elif abs(goe) > GATE:
                reasons.append(f"levels of the {kind} at step {row['step']} do not repel as in the GOE")
    return reasons


def _more(one: list[float], other: list[float], n: int) -> float:
    """Sigmas by which one mean over n seeds is above another, as Student's t has it; counts are whole."""
    rounding = 1 / math.sqrt(12 * n)
    error = math.hypot(max(one[1], rounding), max(other[1], rounding))
    return math.copysign(sigmas_of(one[0] - other[0], error, 2 * (n - 1)), one[0] - other[0])


def text(result: dict[str, Any]) -> str:
    """A row per step, the text and the control."""
    kinds = list(result["null"])
    lines = [
        f"{result['n_parameters']} parameters, {result['n_seeds']} seeds; text of Python {result['python']}, "
        f"sha256 {result['sha256'][:16]}; entropy of its characters {result['entropy']:.4f}",
        "KS of random matrices, mean (95 %): "
        + ", ".join(f"{kind} {null[0]:.3f} ({null[1]:.3f})" for kind, null in result["null"].items()),
    ]
    for name, words in (("ks", "KS"), ("outliers", "outliers"), ("largest_over_edge", "largest/edge")):
        rows = [["", "step", "loss", "<r>", *(f"{words} {kind}" for kind in kinds)]]
        for group in ("text", "shuffled"):
            for row in result[group]:
                cells = [format_value(*row["kinds"][kind][name]) for kind in kinds]
                shown = format_value(*row["val_loss"]), format_value(*row["ratio"])
                rows.append([group, str(row["step"]), *shown, *cells])
        lines += ["", *aligned(rows)]
    verdict = "passed" if result["passed"] else f"NOT passed: {'; '.join(result['reasons'])}"
    return "\n".join(
        [*lines, f"<r> {RATIO_GOE:.4f} of the GOE, {RATIO_POISSON:.4f} of Poisson levels", verdict]
    )


def figure(result: dict[str, Any]) -> Figure:
    """Densities at the start and at the end, KS and outliers by step."""
    return text_figure(result)

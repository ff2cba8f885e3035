"""Pairs of levels of machines under mini-batches: Wigner's law, its amplitude, where the square root ends.

<S> of a pair's own block is held against sqrt(2 pi alpha x/B)(1 - alpha x/kappa^2)^(-1/2), the shape against
<S^2>/<S>^2 = 4/pi (Poisson levels: 2), neighbours that are not degenerate against Wigner's law, which must
fail them, and rows of equal alpha/B against each other.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from matplotlib.figure import Figure

from diffsq.config.dynamics import PairsRun
from diffsq.plots.dynamics import pairs_figure
from diffsq.run_folder.finished import DynamicsBench
from lattice.certificates.check import GATE
from lattice.errors import InputError
from lattice.exact.random_matrix import SPREAD_GOE
from lattice.progress import Progress
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.pulls import pull_of

SMALL = 1 / 600  # alpha/B up to which the amplitude of a block must be that of the formula
FAILS = 5.0  # sigma from which on the square root of the whole spectrum is said to fail
POISSON = 2.0  # <S^2>/<S>^2
FAR = 10.0  # sigma that Poisson levels, and neighbours of other modes, must be away


def run(bench: DynamicsBench, progress: Progress) -> dict[str, Any]:
    """The verdict: amplitudes up to alpha/B = 1/600 within 4.5 sigma, every pair at 4/pi within 4.5 sigma and
    10 sigma from Poisson's 2, neighbours of different modes 10 sigma from 4/pi where the noise is small, and
    rows of equal alpha/B and noise alike.

    Raises `InputError` for a run of another kind.
    """
    if not isinstance(bench.config, PairsRun):
        raise InputError("the check pairs is for a run with models: [pairs]")
    rows = [_row(row) for row in bench.rows.values()]
    alike = _alike(rows)
    reasons = _reasons(rows, alike)
    moves = any("a" in pair for row in rows for pair in row["pairs"])
    return {
        "passed": not reasons if moves else None, "reasons": reasons, "rows": rows, "alike": alike,
        "mu2": bench.config.training.mu2,
    }  # fmt: skip


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its pulls: of the amplitude, of the shape, and of the sorted spectrum from the formula."""
    unit = row["rate"] / row["batch"]
    pairs = []
    for pair in row["pairs"]:
        if "a" not in pair:
            pairs.append(pair)
            continue
        pairs.append({
            **pair, "a_pull": pull_of(pair["a"], (pair["a_formula"], 0.0)),
            "sorted_pull": pull_of(pair["a_sorted"], (pair["a_formula"], 0.0)),
            "ratio_pull": pull_of(pair["ratio"], (SPREAD_GOE, 0.0)),
            "poisson_pull": pull_of(pair["ratio"], (POISSON, 0.0)),
        })  # fmt: skip
    return {**row, "pairs": pairs, "noise_per_step": unit}


def _alike(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pulls between rows of equal alpha/B and noise, pair by pair, in the sorted spectrum."""
    found = []
    for a, b in itertools.combinations(range(len(rows)), 2):
        one, other = rows[a], rows[b]
        same = math.isclose(one["noise_per_step"], other["noise_per_step"]) and one["noise"] == other["noise"]
        same = same and (one["noise"] == "data" or one["k"] == other["k"])
        if not same or one["rate"] == 0:
            continue
        pulls = [
            pull_of(p["a_sorted"], q["a_sorted"]) for p, q in zip(one["pairs"], other["pairs"], strict=True)
        ]
        found.append({"rows": [a, b], "pulls": pulls})
    return found


def _reasons(rows: list[dict[str, Any]], alike: list[dict[str, Any]]) -> list[str]:
    reasons = []
    for i, row in enumerate(rows):
        pairs = [pair for pair in row["pairs"] if "a" in pair]
        if not pairs:
            continue
        small = row["noise_per_step"] <= SMALL
        if small and max(abs(p["a_pull"]) for p in pairs) > GATE:
            reasons.append(f"row {i}: an amplitude is more than {GATE:g} sigma from its formula")
        if max(abs(p["ratio_pull"]) for p in pairs) > GATE:
            reasons.append(f"row {i}: <S^2>/<S>^2 is not 4/pi")
        if min(abs(p["poisson_pull"]) for p in pairs) < FAR:
            reasons.append(f"row {i}: too few spacings to tell Wigner's law from Poisson's")
        strangers = row["strangers"].get("ratio")
        if small and strangers and abs(pull_of(strangers, (SPREAD_GOE, 0.0))) < FAR:
            reasons.append(f"row {i}: neighbours of different modes look like Wigner's")
    for each in alike:
        if max(map(abs, each["pulls"])) > GATE:
            reasons.append(f"rows {each['rows'][0]} and {each['rows'][1]} have one alpha/B and differ")
    return reasons


def text(result: dict[str, Any]) -> str:
    """A row per setting and pair."""
    head = ["row", "alpha", "B", "noise", "kappa", "a of the block", "formula", "a sorted", "<S^2>/<S>^2",
            "<lambda>/kappa"]  # fmt: skip
    rows = [head]
    for i, row in enumerate(result["rows"]):
        for pair in row["pairs"]:
            begin = [str(i), f"{row['rate']:g}", str(row["batch"]), row["noise"], f"{pair['kappa']:.6g}"]
            if "a" not in pair:
                rows.append([*begin, "0", "-", "0", "-", format_value(*pair["over_kappa"])])
                continue
            rows.append([
                *begin, f"{format_value(*pair['a'])} [{pair['a_pull']:+.1f}]", f"{pair['a_formula']:.4f}",
                f"{format_value(*pair['a_sorted'])} [{pair['sorted_pull']:+.1f}]",
                format_value(*pair["ratio"]), f"{pair['over_kappa'][0]:.4f}",
            ])  # fmt: skip
    leading = f"{math.sqrt(2 * math.pi):.4f}"
    lines = [
        *aligned(rows),
        f"a = <S>/sqrt(alpha x/B), leading order sqrt(2 pi) = {leading}; pulls against the formula",
    ]
    for i, row in enumerate(result["rows"]):
        moved = [single for single in row["singles"] if "variance" in single]
        parts = [
            f"{format_value(*s['variance'])} at kappa = {s['kappa']:g} ({s['variance_formula'][0]:.4f})"
            for s in moved
        ]
        if parts:
            lines.append(f"row {i}: variance of single modes over 2 alpha x/B (formula): {', '.join(parts)}")
        if row["refused"]:
            lines.append(f"row {i}: {row['refused']} steps of single machines not taken, K was not positive")
    failing = [
        row
        for row in result["rows"]
        if row["noise"] == "data" and any(abs(p.get("sorted_pull", 0)) > FAILS for p in row["pairs"])
    ]
    if failing:
        low = min(row["noise_per_step"] for row in failing)
        lines.append(
            "square-root law of neighbours in the whole spectrum: fails from alpha/B = "
            f"{low:.4g} on (5 sigma)"
        )
    for each in result["alike"]:
        shown = " ".join(f"{size:+.1f}" for size in each["pulls"])
        lines.append(f"rows {each['rows'][0]} and {each['rows'][1]}, one alpha/B, sorted: pulls {shown}")
    for i, row in enumerate(result["rows"]):
        if row["strangers"] and row["noise_per_step"] <= SMALL and row["rate"] > 0:
            ratio = row["strangers"]["ratio"]
            far = abs(pull_of(ratio, (SPREAD_GOE, 0.0))) >= FAR
            lines.append(
                f"row {i}: neighbours of different modes, <S^2>/<S>^2 = {format_value(*ratio)}: "
                + ("not Wigner" if far else "like Wigner's")
            )
            break
    words = {True: "passed", False: f"NOT passed: {'; '.join(result['reasons'])}", None: "nothing moves"}
    verdict = words[result["passed"]]
    return "\n".join([*lines, verdict])


def figure(result: dict[str, Any]) -> Figure:
    """P(s), levels, and the amplitude against alpha/B."""
    return pairs_figure(result)

"""Pairs of levels of machines under mini-batches: Wigner's law, its amplitude, where the square root ends.

<S> of a pair's own block is held against sqrt(2 pi alpha x/B)(1 - alpha x/kappa^2)^(-1/2), the shape against
<S^2>/<S>^2 = 4/pi (Poisson levels: 2), neighbours that are not degenerate against Wigner's law, which must
fail them, and rows of equal alpha/B against each other. Both laws are of leading order in alpha/B: they are
asked for where the noise is small, up to BEYOND times alpha/B, and where it is large it is said how far off
they are.
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

OF = {"config": PairsRun}
SMALL = 1 / 600  # alpha/B, in units of the noise of data, up to which the laws of leading order are asked for
BEYOND = 8.0  # alpha/B times this is what amplitude and shape may be off besides, as a share
FAILS = 5.0  # sigma from which on the square root of the whole spectrum is said to fail
POISSON = 2.0  # <S^2>/<S>^2
FAR = 10.0  # sigma that Poisson levels, and neighbours of other modes, must be away


def run(bench: DynamicsBench, progress: Progress) -> dict[str, Any]:
    """The verdict: where the noise is at most that of alpha/B = 1/600, amplitudes and shapes within 4.5 sigma
    and 8 alpha/B of their laws, neighbours of different modes 10 sigma from 4/pi, and no step refused; at any
    noise the shape 10 sigma from Poisson's 2, and rows of equal alpha/B as alike as their formulas.

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
    noise = max((pair["noise"] for pair in row["pairs"] if "noise" in pair), default=1.0)
    return {**row, "pairs": pairs, "noise_per_step": unit, "small": 0 < unit * noise <= SMALL}


def _alike(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pairs of rows of equal alpha/B and noise: the pull, pair by pair in the sorted spectrum, of their
    difference from equality, or from that of their formulas, whichever is nearer."""
    found = []
    for a, b in itertools.combinations(range(len(rows)), 2):
        one, other = rows[a], rows[b]
        same = math.isclose(one["noise_per_step"], other["noise_per_step"]) and one["noise"] == other["noise"]
        same = same and (one["noise"] == "data" or one["k"] == other["k"])
        if same and one["rate"] > 0:
            pulls = [_apart(p, q) for p, q in zip(one["pairs"], other["pairs"], strict=True)]
            found.append({"rows": [a, b], "pulls": pulls})
    return found


def _apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Sigmas by which two amplitudes differ by more than between 1 and the ratio of their formulas."""
    (a, a_error), (b, b_error) = one["a_sorted"], other["a_sorted"]
    ratio = one["a_formula"] / other["a_formula"]
    low, high = sorted((b, b * ratio))
    off = a - min(max(a, low), high)
    return float(off / math.hypot(a_error, b_error))


def _reasons(rows: list[dict[str, Any]], alike: list[dict[str, Any]]) -> list[str]:
    reasons = []
    for i, row in enumerate(rows):
        pairs = [pair for pair in row["pairs"] if "a" in pair]
        if not pairs:
            continue
        share = BEYOND * row["noise_per_step"]
        if row["small"]:
            for name, value, law in (("amplitude", "a", "a_formula"), ("shape", "ratio", "")):
                off = [_off(p[value], p[law] if law else SPREAD_GOE, share) for p in pairs]
                if max(off) > GATE:
                    reasons.append(f"row {i}: {name} {max(off):.1f} sigma from its law")
            if row["refused"]:
                reasons.append(f"row {i}: {row['refused']} steps were not taken, which selects")
        if min(abs(p["poisson_pull"]) for p in pairs) < FAR:
            reasons.append(f"row {i}: too few spacings to tell Wigner's law from Poisson's")
        strangers = row["strangers"].get("ratio")
        if row["small"] and strangers and abs(pull_of(strangers, (SPREAD_GOE, 0.0))) < FAR:
            reasons.append(f"row {i}: neighbours of different modes look like Wigner's")
    for each in alike:
        if max(map(abs, each["pulls"])) > GATE:
            reasons.append(f"rows {each['rows'][0]} and {each['rows'][1]} have one alpha/B and differ")
    return reasons


def _off(pair: list[float], law: float, share: float) -> float:
    """Sigmas that a value [value, error] is farther from its law than a share of it."""
    return max(0.0, abs(pair[0] - law) - share * law) / pair[1]


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
    beyond = [
        row["noise_per_step"]
        for row in result["rows"]
        if row["noise"] == "data" and _mean_pull([p["ratio_pull"] for p in row["pairs"] if "a" in p]) > FAILS
    ]
    if beyond:
        lines.append(f"<S^2>/<S>^2 of the blocks: above 4/pi from alpha/B = {min(beyond):.4g} on (5 sigma)")
    for each in result["alike"]:
        shown = " ".join(f"{size:+.1f}" for size in each["pulls"])
        lines.append(f"rows {each['rows'][0]} and {each['rows'][1]}, one alpha/B, sorted: pulls {shown}")
    for i, row in enumerate(result["rows"]):
        if row["strangers"] and row["small"]:
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


def _mean_pull(pulls: list[float]) -> float:
    return sum(pulls) / math.sqrt(len(pulls)) if pulls else 0.0


def figure(result: dict[str, Any]) -> Figure:
    """P(s), levels, and the amplitude against alpha/B."""
    return pairs_figure(result)

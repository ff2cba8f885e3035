"""Random networks against their exact cumulants: a site, the zero mode, pairs of sites, widths.

Orders that this many networks cannot show are not held against anything: how many would is said, and no claim
is made of them. Of one site alone nothing is called free (`diffsq.analysis.network_tables`).

What is free and what clusters has three answers, one of them "undecided".

Verdict: all numbers that can be seen within 3 sigma of the exact ones, counting how many they are; laws in
1/N that hold for independent neurons, and do not for correlated ones.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from diffsq.analysis import network_tables as tables
from diffsq.plots.networks import networks_figure
from diffsq.run_folder.fields import NetworkBench
from lattice.actions.networks import InputNet, Network
from lattice.certificates.networks import ORDERS
from lattice.errors import InputError
from lattice.progress import Progress
from lattice.statistics.notation import aligned, format_value, with_pull
from lattice.statistics.pulls import sidak_threshold

POINT = 1.0
FEWEST = 20 * tables.GROUPS  # networks of each width
CHANCE = 2.7e-3  # two-sided, of 3 sigma


def run(
    bench: NetworkBench, progress: Progress, widths: list[int] | None = None, n_networks: int = 2**16,
    points: list[float] | None = None, others: list[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """widths: of fresh networks, n_networks of each, at one-dimensional inputs `points` (of a net of inputs;
    default 1), besides the run's own law for `others`, "kind" or "kind-output"; of a net of the lattice at
    its sites, of a local net as multiples of its density. Raises `InputError` for widths below 1 and for
    others that are no nets of inputs."""
    law: Network = bench.action
    refuse(widths, n_networks)
    if (points or others) and not isinstance(law, InputNet):
        raise InputError(f"points and others are for nets of inputs, this run's is a {law.kind}")
    site, mode, pairs = (of(law, bench.ensemble) for of in (tables.one_site, tables.zero_mode, tables.pairs))
    scanned = _scanned(bench, progress, list(dict.fromkeys(widths or [])), n_networks, points, others)
    known = [x for x in pairs if x["seen"] and x["exact"] is not None]
    seen = [x for x in (*site, *mode) if x.get("seen", True) and x["exact"] is not None]
    held = [*seen, *known, *(x for each in scanned for x in each["table"] if x["seen"])]
    pulls = [abs(x["pull"]) for x in held]
    limit = sidak_threshold(len(pulls), CHANCE)
    wrong = [each for each in scanned for c in each["claims"] if c["verdict"] == each["must_not"]]
    reasons = [f"largest of {len(pulls)} pulls {max(pulls):.1f}"] * (max(pulls) > limit)
    reasons += [f"law in 1/N of {each['name']}" for each in wrong]
    two_sites = [x for x in pairs if x["r"] > 0]
    higher = [x for x in site if x["order"] > 2 and x["seen"]]
    return {
        "passed": not reasons, "reasons": reasons, "law": law.as_dict(), "shape": list(bench.ensemble.shape),
        "n": len(bench.ensemble), "site": site, "zero_mode": mode, "pairs": pairs,
        "siblings": tables.siblings(law, bench.ensemble.shape), "largest": max(pulls), "limit": limit,
        "n_pulls": len(pulls), "one_site_says": tables.freedom(higher, None),
        "verdict": tables.freedom(higher, two_sites),
        "clustering": tables.clustering(pairs), "widths": scanned, "n_networks": n_networks,
    }  # fmt: skip


def refuse(widths: list[int] | None = None, n_networks: int = FEWEST, **_: Any) -> None:
    """`InputError` for nets without neurons, and for too few of them to have errors."""
    if bad := [width for width in widths or [] if width < 1]:
        raise InputError(f"the option widths of the check networks must be >= 1, got {bad[0]}")
    if n_networks < FEWEST:
        raise InputError(f"the option n_networks of the check networks must be >= {FEWEST}, got {n_networks}")


def _scanned(
    bench: NetworkBench, progress: Progress, widths: list[int], n_networks: int, points: list[float] | None,
    others: list[str] | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The tables over widths, of the run's law and of others."""
    if not widths:
        return []
    law, places = bench.action, points or [POINT]
    laws = {law.kind if law.output == "normal" else f"{law.kind}-{law.output}": law}
    laws |= {words: tables.named(words, law) for words in others or []}
    at: list[float | None] = [*places] if isinstance(law, InputNet) else [None]
    found = []
    progress.start(len(laws) * len(at), "widths")
    for name, each in laws.items():
        for point in at:
            table = tables.width_table(
                each, widths, n_networks, bench.seed, shape=bench.ensemble.shape, point=point
            )
            orders = ORDERS[1:] if each.independent else ORDERS[1:2]
            found.append({
                "name": name, "point": point, "table": table,
                "claims": [tables.claim(table, n) for n in orders],
                "independent": each.independent, "must_not": "refuted" if each.independent else "holds",
            })  # fmt: skip
            progress.update()
    progress.close()
    return found


def text(result: dict[str, Any]) -> str:
    """The tables, refusals, what is free and what clusters, and the verdict."""
    rows = [["of", "n", "sampled", "exact", ""]]
    for label, key in (("site", "site"), ("M", "zero_mode")):
        for x in result[key]:
            rows.append([label, str(x["order"]), *_cells(x)])
    rows += [[f"kappa4(0,0,r,r), r = {x['r']}", "4", *_cells(x)] for x in result["pairs"]]
    lines = [f"{result['n']} networks on {'x'.join(map(str, result['shape']))}: {_words(result['law'])}",
             *aligned(rows)]  # fmt: skip
    for each in result["widths"]:
        lines += ["", *_width_lines(each, result["n_networks"])]
    far = result["clustering"]
    size = f"kappa4(0,0,r,r) at r = {far['r']} is {format_value(far['value'], far['error'])}"
    how = {"violated": "VIOLATED"}.get(far["verdict"], far["verdict"])
    lines += [
        "",
        f"one site alone: {result['one_site_says']}; with pairs of sites: {result['verdict']}",
        f"cluster decomposition: {how}, {size}, {far['sigmas']:.1f} sigma from 0; "
        + (f"G0^2/N = {far['size']:.2g}" if far["seen"] else "refused, as kappa4 of a site"),
        f"largest of {result['n_pulls']} pulls {result['largest']:.1f}, limit {result['limit']:.1f}",
        "networks: passed" if result["passed"] else f"networks: NOT passed: {'; '.join(result['reasons'])}",
    ]
    return "\n".join(lines)


def _words(law: dict[str, Any]) -> str:
    return ", ".join([law["kind"], *(f"{k} = {v}" for k, v in law.items() if k != "kind")])


def _cells(x: dict[str, Any]) -> list[str]:
    exact = "-" if x["exact"] is None else f"{x['exact']:.8g}"
    if not x.get("seen", True):
        why = f"needs {x['needed']:.2g} networks at one site" if "needed" in x else "as kappa4 of a site"
        return [format_value(x["value"], x["error"]), exact, f"refused: {why}"]
    shown = format_value(x["value"], x["error"])
    return [shown if x["pull"] is None else with_pull(x["value"], x["error"], x["pull"]), exact, ""]


def _width_lines(each: dict[str, Any], n: int) -> list[str]:
    where = "" if each["point"] is None else f" at x = {each['point']:g}"
    rows = [["N", *(f"kappa{order}" for order in ORDERS)]]
    for width in dict.fromkeys(x["width"] for x in each["table"]):
        own = [x for x in each["table"] if x["width"] == width]
        rows.append([
            str(width),
            *(with_pull(x["value"], x["error"], x["pull"]) if x["seen"] else _needs(x) for x in own),
        ])  # fmt: skip
    lines = [f"{each['name']}{where}, {n} networks of each width", *aligned(rows)]
    for found in each["claims"]:
        law = f"kappa{found['order']} ~ N^{found['expected']}"
        if found["verdict"] == "refused":
            at = "at one site" if each["point"] is None else "at this input"
            why = f"needs {found['needed']:.2g} networks of each width {at}"
            if (given := len(rows) - 1) < tables.FEWEST:
                why = f"a slope takes {tables.FEWEST} widths, got {given}"
            lines.append(f"{law}: claim refused, {why}")
        elif found["verdict"] == "vanishes":
            lines.append(f"kappa{found['order']} vanishes: held against 0")
        else:
            lines.append(f"{law}: {found['verdict']}, slope {format_value(*found['slope'])}")
    return lines


def _needs(x: dict[str, Any]) -> str:
    return f"needs {x['needed']:.1g}"


def figure(result: dict[str, Any]) -> Figure:
    """kappa_2n against N, and kappa_4(0, 0, r, r) against r."""
    return networks_figure(result)

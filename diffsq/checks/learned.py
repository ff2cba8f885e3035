"""What the score has learned: the force per momentum shell, the couplings, and the running of the action.

Held-out fields are noised to each level sigma; `diffsq.analysis.effective_action` has the identities.
Verdict: at the smallest sigma, the smallest trained one, kappa, 1 - 2 lam and lam are those of the action
within 4 errors and a systematic one. A perfect score has the couplings of the action at every sigma, so what
they move by between two sigma is the score's own fault: the systematic error is how far the extrapolation
to sigma = 0, linear in sigma^2 through sigma_min and sqrt(2) sigma_min on the same fields, is from the value.
It passes only where it could have failed: the sum must be below `DECISIVE`; else there is no verdict.
"""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from diffsq.analysis import effective_action as learned
from diffsq.analysis.effective_action import BARE, EXTENDED, Noised
from diffsq.plots.style import GREY, INK, SERIES, SIGMA, panels, styled
from diffsq.run_folder.finished import Workbench
from lattice.actions.phi4 import ScalarPhi4
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.progress import Progress
from lattice.statistics.notation import aligned, format_value, with_pull

N_SIGMA = 4.0
DECISIVE = {"kappa": 0.02, "mass": 0.02, "lam": 0.10}  # deviations, of `scale`, that a verdict must see
SECOND = math.sqrt(2)  # of the smallest sigma, for the systematic error
WIDEST = 2.0  # largest sigma by default, in standard deviations of the field at a site
Couplings = dict[str, dict[str, float]]
LABELS = {"kappa": r"$\kappa$", "mass": r"$1-2\lambda$", "lam": r"$\lambda$"}
EXTRA_LABELS = {
    "phi6": r"$\phi^6$",
    "kappa_diagonal": r"$\phi_x\phi_{x\pm\hat1\pm\hat2}$",
    "kappa_two": r"$\phi_x\phi_{x\pm2\hat\mu}$",
    "phi2_phi2": r"$\phi_x^2\phi_{x+\hat\mu}^2$",
    "phi3_phi": r"$\phi_x^3\phi_{x\pm\hat\mu}$",
}
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
SMALLEST = 1e-4  # of the bare coupling, shown in the figure
STYLES = (*SERIES[:4], (GREY, "v"))


def run(
    bench: Workbench, progress: Progress, n_fields: int = 2048, n_levels: int = 8,
    sigma_max: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Compare at n_levels geometric sigma from the smallest trained to `sigma_max`, on n held-out fields."""
    if n_levels < 1 or n_fields < 40:
        raise InputError(f"n_levels must be >= 1 and n_fields >= 40, got {n_levels} and {n_fields}")
    phi, chain = bench.held_out_fields(n_fields)
    low, high = (float(bench.model.base.log_sigma[i].exp()) for i in (0, -1))
    top = min(high, max(WIDEST * float(bench.model.sigma_data), 2 * low)) if sigma_max is None else sigma_max
    if not low <= top <= high * (1 + 1e-9):
        raise InputError(f"sigma_max must be in the trained range {low:.4g} to {high:.4g}, got {top:.4g}")
    noise, frames = bench.noise("check/learned/noise", np.arange(len(phi))), bench.frames()

    def noised(i: int, sigma: float) -> Noised:
        return learned.evaluate(bench.model, bench.action, phi, sigma, noise(i), chain, frames(i))

    levels = []
    progress.start(n_levels + 1, "learned score")
    for i, sigma in enumerate(np.geomspace(low, top, n_levels).tolist()):
        levels.append(_level(bench, noised(i, sigma)))
        progress.update()
    first, second = levels[0]["couplings"], noised(0, min(SECOND * low, high))
    if first is not None:
        add_systematic(first, low, _readable(bench, second, BARE), second.sigma)
    progress.close()
    return {
        "action": bench.action.as_dict(), "shape": list(bench.model.shape), "n_fields": len(phi),
        "n_chains": len(np.unique(chain)), "levels": levels, "second_sigma": second.sigma,
        "passed": None if first is None else verdict(first, bench.action),
    }  # fmt: skip


def _readable(bench: Workbench, noised: Noised, terms: tuple[str, ...]) -> Couplings | None:
    try:
        return learned.read_couplings(noised, bench.action, terms)
    except InputError:  # so much noise that the terms look alike: nothing to show at this level
        return None


def add_systematic(couplings: Couplings, sigma: float, other: Couplings | None, second: float) -> None:
    """Put "systematic" into each of the couplings read at `sigma`: the distance to their extrapolation to
    sigma = 0, linear in sigma^2 with those read at `second` > sigma; infinite where nothing can be read."""
    for name, found in couplings.items():
        moved = math.inf if other is None else abs(found["value"] - other[name]["value"])
        found["systematic"] = moved * sigma**2 / (second**2 - sigma**2)


def _level(bench: Workbench, noised: Noised) -> dict[str, Any]:
    try:
        running = learned.effective_action(noised, EXTENDED)
    except InputError:  # the lattice is too small for more than the terms of the action
        running = learned.effective_action(noised, BARE)
    return {
        "sigma": noised.sigma, "couplings": _readable(bench, noised, BARE),
        "extended": _readable(bench, noised, EXTENDED), "running": running,
        "comparison": learned.compare_score(bench.model, noised),
    }  # fmt: skip


def scale(name: str, action: ScalarPhi4) -> float:
    """What a coupling's deviation is divided by: its size, 1 for 1 - 2 lam, at least 0.01."""
    return {"kappa": max(abs(action.kappa), 0.01), "lam": max(action.lam, 0.01)}.get(name, 1.0)


def verdict(couplings: Couplings, action: ScalarPhi4) -> bool | None:
    """Whether kappa, 1 - 2 lam and lam agree with the action; None if the errors leave it open.

    couplings: as `read_couplings` gives them, each with its "systematic" error too. That one excuses no
    deviation which is large by itself: what moves with sigma is the score's fault as well.
    """
    seen = sensitivity(couplings, action)
    for n, c in couplings.items():
        off, error = (abs(x) / scale(n, action) for x in (c["value"] - c["true"], c["error"]))
        if off > seen[n] or off > max(N_SIGMA * error, DECISIVE[n]):
            return False
    return True if all(seen[n] < DECISIVE[n] for n in couplings) else None


def sensitivity(couplings: Couplings, action: ScalarPhi4) -> dict[str, float]:
    """The deviation of each coupling, over its `scale`, that the verdict sees: 4 errors + systematic."""
    return {
        name: (N_SIGMA * c["error"] + c["systematic"]) / scale(name, action) for name, c in couplings.items()
    }


def text(result: dict[str, Any]) -> str:
    """Couplings per sigma with pulls, extra couplings, running action, and the shells at the ends."""
    levels, about = result["levels"], result["action"]
    rows = [["sigma", "kappa", "1 - 2 lam", "lam", "slope", "cosine, -dS", "cosine, target"]]
    for level in levels:
        totals = [format_value(*level["comparison"][n][-1]) for n in ("slope", "cosine", "target_cosine")]
        rows.append([f"{level['sigma']:.3f}", *_cells(level["couplings"], BARE), *totals])
    lines = [
        f"couplings of the clean action read off the score, value(error) [pull]; "
        f"kappa = {about['kappa']:g}, lam = {about['lam']:g}, kappa-lambda convention",
        *aligned(rows),
        "",
    ]
    extended = [level for level in levels if level["extended"]][:4]
    if extended:
        columns = [[f"sigma {each['sigma']:.3f}", *_cells(each["extended"], EXTENDED)] for each in extended]
        rows = [list(row) for row in zip(["term", *EXTENDED], *columns)]
        lines += ["the same with terms that the action does not have (true value 0)", *aligned(rows), ""]
    terms = tuple(levels[0]["running"])
    rows = [["sigma", *terms]]
    rows += [[f"{level['sigma']:.3f}", *_cells(level["running"], terms)] for level in levels]
    lines += [
        "effective action of the noised field, S_eff = -ln p_sigma, projected on the terms [pull against the"
        " same from the data]",
        *aligned(rows),
        "",
    ]
    for level in (levels[0], levels[-1])[: len(levels)]:
        lines += [f"per momentum shell at sigma = {level['sigma']:.3f}", *_shell_table(level), ""]
    passed = {True: "passed", False: "FAILED", None: "undecided (the errors hide more than asked for)"}
    lines += [
        f"{result['n_fields']} held-out fields of {result['n_chains']} chains, jackknife errors; "
        "cosine, -dS: with the clean force;",
        "cosine, target: with its sigma-corrected form (1 for a perfect score of a free field)",
        *_told(levels[0]["couplings"], about, result["second_sigma"]),
        f"verdict: {passed[result['passed']]}",
    ]
    return "\n".join(lines)


def _told(couplings: Couplings | None, about: dict[str, Any], second: float) -> list[str]:
    """What is asked of each coupling at the smallest sigma, and what deviation that sees."""
    if couplings is None:
        return ["no coupling can be read off at the smallest sigma"]
    action, lines = ScalarPhi4(about["kappa"], about["lam"]), []
    seen = sensitivity(couplings, action)
    for name, words in zip(BARE, ("kappa", "1 - 2 lam", "lam")):
        found = couplings[name]
        off = abs(found["value"] - found["true"]) / scale(name, action)
        lines.append(
            f"{words}: off by {100 * off:.2g}%, allowed {100 * seen[name]:.2g}% = {N_SIGMA:g} errors of "
            f"{found['error']:.2g} + systematic {found['systematic']:.2g} (from sigma = {second:.3f}); "
            f"decisive below {100 * DECISIVE[name]:g}%"
        )
    return lines


def _cells(found: Couplings | None, terms: tuple[str, ...]) -> list[str]:
    if not found:
        return ["-"] * len(terms)
    return [with_pull(*(found[name][key] for key in ("value", "error", "pull"))) for name in terms]


def _shell_table(level: dict[str, Any]) -> list[str]:
    compared = level["comparison"]
    columns = {
        "cosine, -dS": "cosine",
        "of the Wiener filter": "wiener_cosine",
        "cosine, target": "target_cosine",
        "relative error": "target_error",
        "slope": "slope",
        "control (another field)": "control",
    }
    cells = [[format_value(*shell) for shell in compared[name]] for name in columns.values()]
    return aligned([["shell", *columns], *(list(row) for row in zip(compared["shells"], *cells))])


@styled
def figure(result: dict[str, Any]) -> Figure:
    """Couplings over truth, cosines per shell, and the running effective action, against sigma."""
    sheet, three = panels(14.4, 4.6, 1, 3)
    levels, action = result["levels"], ScalarPhi4(result["action"]["kappa"], result["action"]["lam"])
    _draw_couplings(three[0], [level for level in levels if level["couplings"]], action)
    _draw_cosines(three[1], levels)
    _draw_running(three[2], levels, action)
    ticks = [t for t in TICKS if levels[0]["sigma"] / 1.2 < t < levels[-1]["sigma"] * 1.2]
    for axes in three:
        axes.set(xscale="log", xlabel=SIGMA)
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
    return sheet


def _numbers(levels: list[dict[str, Any]], part: str, name: str, *keys: Any) -> list[Floats]:
    """Of every level: the entries `keys` of the coupling or the comparison `name`."""
    return [np.array([level[part][name][key] for level in levels]) for key in keys]


def _draw_couplings(axes: Axes, levels: list[dict[str, Any]], action: ScalarPhi4) -> None:
    sigma = np.array([level["sigma"] for level in levels])
    known = levels and "systematic" in levels[0]["couplings"]["kappa"]
    allowed = sensitivity(levels[0]["couplings"], action) if known else {}
    axes.axhline(0.0, color=INK, linewidth=0.9)
    for i, (name, (colour, marker)) in enumerate(zip(BARE, STYLES)):
        unit = 100 / scale(name, action)
        value, error, true = _numbers(levels, "couplings", name, "value", "error", "true")
        place = sigma * 1.03 ** (i - 1)  # side by side, not on top of each other
        if math.isfinite(reach := 100 * allowed.get(name, math.inf)):
            axes.vlines(place[0], -reach, reach, color=colour, alpha=0.3, linewidth=5)
        axes.errorbar(
            place, unit * value - unit * true, unit * error, fmt=marker, color=colour, label=LABELS[name]
        )
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.35 * (high - low))
    axes.set(title="couplings read off the score", ylabel="deviation from the action [%]")
    axes.legend(loc="upper left", ncols=2)


def _draw_cosines(axes: Axes, levels: list[dict[str, Any]]) -> None:
    sigma = [level["sigma"] for level in levels]
    shells = levels[0]["comparison"]["shells"][:-1]
    shown = sorted({0, 1, len(shells) // 2, len(shells) - 1} & set(range(len(shells))))
    for shell, (colour, marker) in zip(shown, STYLES):
        value, error = _numbers(levels, "comparison", "cosine", shell)[0].T
        axes.errorbar(sigma, value, error, fmt=marker, color=colour, label=f"${shells[shell]}$")
        wiener, _ = _numbers(levels, "comparison", "wiener_cosine", shell)[0].T
        axes.plot(sigma, wiener, "--", color=colour, linewidth=1.2)
    axes.plot([], [], "--", color=INK, linewidth=1.2, label="Wiener filter")
    value, error = _numbers(levels, "comparison", "target_cosine", -1)[0].T
    axes.errorbar(sigma, value, error, fmt="x", color=INK, label=r"all, $\sigma$-corrected")
    axes.set(title=r"cosine of score and $-\partial S$", ylabel="cosine", ylim=(0.0, 1.5))
    axes.set_yticks(np.linspace(0.0, 1.0, 6))
    axes.legend(loc="upper center", fontsize=11, ncols=2)  # above 1, where no cosine can be


def _draw_running(axes: Axes, levels: list[dict[str, Any]], action: ScalarPhi4) -> None:
    """|coupling| on a log scale, a minus sign in the legend where it is negative; points beyond 2 errors."""
    sigma = np.array([level["sigma"] for level in levels])
    for i, name in enumerate(levels[0]["running"]):
        extra = name not in BARE
        colour, marker = STYLES[i if not extra else i - len(BARE)]
        unit = 1 / scale("kappa" if extra else name, action)
        value, error, true = (unit * q for q in _numbers(levels, "running", name, "value", "error", "true"))
        sign = np.sign(value[np.argmax(np.abs(value))])
        label = ("" if sign >= 0 else "−") + (EXTRA_LABELS[name] if extra else LABELS[name])
        seen = sign * value > np.maximum(2 * error, SMALLEST)
        if not seen.any():
            continue
        axes.errorbar(
            sigma[seen], sign * value[seen], error[seen], fmt=marker, color=colour, label=label,
            mfc="white" if extra else colour,
        )  # fmt: skip
        line = np.where(sign * true > SMALLEST, sign * true, np.nan)
        axes.plot(sigma, line, color=colour, linewidth=1.1, linestyle=":" if extra else "-")
    axes.set(title="effective action of the noised field", ylabel=r"coupling / bare (extra: $/\,\kappa$)")
    axes.set(yscale="log", ylim=(SMALLEST, 40.0))
    axes.legend(loc="upper center", fontsize=11, ncols=3)

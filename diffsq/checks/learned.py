"""What the score has learned: the force per momentum shell, the couplings, and the running of the action.

Held-out fields are noised to each level sigma; `diffsq.analysis.effective_action` has the identities.
Verdict: at the smallest sigma, the smallest trained one, kappa, 1 - 2 lam and lam agree with the action
within max(4 errors, 2 %), provided that 4 errors are below 10 %; else there is none.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from diffsq.analysis.effective_action import (
    BARE,
    EXTENDED,
    Noised,
    compare_score,
    effective_action,
    evaluate,
    read_couplings,
)
from diffsq.plots.style import BLUE, GREEN, GREY, INK, PURPLE, VERMILLION, light_grid, new_figure, styled
from diffsq.run_folder.finished import Workbench
from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError
from lattice.progress import Progress
from lattice.statistics.notation import aligned, format_value

AGREE, N_SIGMA, DECISIVE = 0.02, 4.0, 0.10
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
STYLES = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), (PURPLE, "D"), (GREY, "v"))


def run(
    bench: Workbench,
    progress: Progress,
    n_fields: int = 2048,
    n_levels: int = 8,
    sigma_max: float | None = None,
) -> dict[str, Any]:
    """Compare at n_levels geometric sigma from the smallest trained to `sigma_max`, on n held-out fields."""
    if n_levels < 1 or n_fields < 40:
        raise InputError(f"n_levels must be >= 1 and n_fields >= 40, got {n_levels} and {n_fields}")
    phi, chain = bench.held_out_fields(n_fields)
    low, high = (float(bench.model.base.log_sigma[i].exp()) for i in (0, -1))
    top = min(high, max(WIDEST * float(bench.model.sigma_data), 2 * low)) if sigma_max is None else sigma_max
    if not low <= top <= high * (1 + 1e-9):
        raise InputError(f"sigma_max must be in the trained range {low:.4g} to {high:.4g}, got {top:.4g}")
    noise, frames = bench.noise("check/learned/noise", np.arange(len(phi))), bench.frames()
    levels = []
    progress.start(n_levels, "learned score")
    for i, sigma in enumerate(np.geomspace(low, top, n_levels).tolist()):
        noised = evaluate(bench.model, bench.action, phi, sigma, noise(i), chain, frames(i))
        levels.append(_level(bench, noised))
        progress.update()
    progress.close()
    first = levels[0]["couplings"]
    return {
        "action": bench.action.as_dict(),
        "shape": list(bench.model.shape),
        "n_fields": len(phi),
        "n_chains": len(np.unique(chain)),
        "levels": levels,
        "passed": None if first is None else verdict(first, bench.action),
    }


def _level(bench: Workbench, noised: Noised) -> dict[str, Any]:
    def readable(terms: tuple[str, ...]) -> Couplings | None:
        try:
            return read_couplings(noised, bench.action, terms)
        except InputError:  # so much noise that the terms look alike: nothing to show at this level
            return None

    return {
        "sigma": noised.sigma,
        "couplings": readable(BARE),
        "extended": readable(EXTENDED),
        "running": _running(noised),
        "comparison": compare_score(bench.model, noised),
    }


def _running(noised: Noised) -> Couplings:
    """On all terms, or on those of the action where the lattice is too small for more."""
    try:
        return effective_action(noised, EXTENDED)
    except InputError:
        return effective_action(noised, BARE)


def scale(name: str, action: ScalarPhi4) -> float:
    """What a coupling's deviation is divided by: its size, 1 for 1 - 2 lam, at least 0.01."""
    return {"kappa": max(abs(action.kappa), 0.01), "lam": max(action.lam, 0.01)}.get(name, 1.0)


def verdict(couplings: Couplings, action: ScalarPhi4) -> bool | None:
    """Whether kappa, 1 - 2 lam and lam agree with the action; None if the errors leave it open."""
    off = {n: abs(c["value"] - c["true"]) / scale(n, action) for n, c in couplings.items()}
    error = {n: N_SIGMA * c["error"] / scale(n, action) for n, c in couplings.items()}
    if any(off[n] > max(error[n], AGREE) for n in couplings):
        return False
    return True if max(error.values()) < DECISIVE else None


def text(result: dict[str, Any]) -> str:
    """Couplings per sigma with pulls, extra couplings, running action, and the shells at the ends."""
    levels = result["levels"]
    rows = [["sigma", "kappa", "1 - 2 lam", "lam", "slope", "cosine, -dS", "cosine, target"]]
    for level in levels:
        c, compared = level["couplings"], level["comparison"]
        found = [_with_pull(c[name]) for name in BARE] if c else ["-"] * 3
        totals = [format_value(*compared[name][-1]) for name in ("slope", "cosine", "target_cosine")]
        rows.append([f"{level['sigma']:.3f}", *found, *totals])
    about = result["action"]
    lines = [
        f"couplings of the clean action read off the score, value(error) [pull]; "
        f"kappa = {about['kappa']:g}, lam = {about['lam']:g}, kappa-lambda convention",
        *aligned(rows),
        "",
    ]
    extended = [level for level in levels if level["extended"]]
    if extended:
        rows = [["term", *(f"sigma {level['sigma']:.3f}" for level in extended[:4])]]
        rows += [[n, *(_with_pull(level["extended"][n]) for level in extended[:4])] for n in EXTENDED]
        lines += ["the same with terms that the action does not have (true value 0)", *aligned(rows), ""]
    terms = list(levels[0]["running"])
    rows = [["sigma", *terms]]
    for level in levels:
        rows.append([f"{level['sigma']:.3f}", *(_with_pull(level["running"][n]) for n in terms)])
    lines += [
        "effective action of the noised field, S_eff = -ln p_sigma, projected on the terms [pull against the"
        " same from the data]",
        *aligned(rows),
        "",
    ]
    for level in (levels[0], levels[-1])[: len(levels)]:
        lines += [f"per momentum shell at sigma = {level['sigma']:.3f}", *_shell_table(level), ""]
    n, chains = result["n_fields"], result["n_chains"]
    lines.append(
        f"{n} held-out fields of {chains} chains, jackknife errors; cosine, -dS: with the clean force;"
    )
    lines.append("cosine, target: with its sigma-corrected form (1 for a perfect score of a free field)")
    passed = {True: "passed", False: "FAILED", None: "undecided (errors too large: more fields)"}
    lines.append(
        f"verdict: {passed[result['passed']]} (at the smallest sigma each coupling within "
        f"max({N_SIGMA:g} errors, {AGREE:.0%}))"
    )
    return "\n".join(lines)


def _with_pull(c: dict[str, float]) -> str:
    return f"{format_value(c['value'], c['error'])} [{c['pull']:+.1f}]"


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
    rows = [["shell", *columns]]
    for i, shell in enumerate(compared["shells"]):
        rows.append([shell, *(format_value(*compared[name][i]) for name in columns.values())])
    return aligned(rows)


@styled
def figure(result: dict[str, Any]) -> Figure:
    """Couplings over truth, cosines per shell, and the running effective action, against sigma."""
    sheet = new_figure(14.4, 4.6)
    first, second, third = sheet.subplots(1, 3)
    _draw_couplings(first, result)
    _draw_cosines(second, result["levels"])
    _draw_running(third, result)
    ends = [result["levels"][i]["sigma"] for i in (0, -1)]
    ticks = [t for t in TICKS if ends[0] / 1.2 < t < ends[1] * 1.2]
    for axes in (first, second, third):
        axes.set(xscale="log", xlabel=r"noise level $\sigma$ [$\kappa$–$\lambda$ field]")
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        light_grid(axes)
    return sheet


def _action(result: dict[str, Any]) -> ScalarPhi4:
    return ScalarPhi4(result["action"]["kappa"], result["action"]["lam"])


def _draw_couplings(axes: Axes, result: dict[str, Any]) -> None:
    levels = [level for level in result["levels"] if level["couplings"]]
    sigma = np.array([level["sigma"] for level in levels])
    axes.axhspan(-100 * AGREE, 100 * AGREE, color=GREY, alpha=0.15, linewidth=0, label=f"±{AGREE:.0%}")
    axes.axhline(0.0, color=INK, linewidth=0.9)
    for i, (name, (colour, marker)) in enumerate(zip(BARE, STYLES, strict=False)):
        unit = 100 / scale(name, _action(result))
        off = unit * np.array([level["couplings"][name]["value"] for level in levels])
        off -= unit * np.array([level["couplings"][name]["true"] for level in levels])
        error = unit * np.array([level["couplings"][name]["error"] for level in levels])
        place = sigma * 1.03 ** (i - 1)  # side by side, not on top of each other
        axes.errorbar(place, off, error, fmt=marker, color=colour, label=LABELS[name])
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.35 * (high - low))
    axes.set(title="couplings read off the score", ylabel="deviation from the action [%]")
    axes.legend(loc="upper left", ncols=2)


def _draw_cosines(axes: Axes, levels: list[dict[str, Any]]) -> None:
    sigma = [level["sigma"] for level in levels]
    shells = levels[0]["comparison"]["shells"][:-1]
    shown = sorted({0, 1, len(shells) // 2, len(shells) - 1} & set(range(len(shells))))
    for shell, (colour, marker) in zip(shown, STYLES, strict=False):
        value, error = _column(levels, "cosine", shell)
        axes.errorbar(sigma, value, error, fmt=marker, color=colour, label=f"${shells[shell]}$")
        axes.plot(sigma, _column(levels, "wiener_cosine", shell)[0], "--", color=colour, linewidth=1.2)
    axes.plot([], [], "--", color=INK, linewidth=1.2, label="Wiener filter")
    value, error = _column(levels, "target_cosine", -1)
    axes.errorbar(sigma, value, error, fmt="x", color=INK, label=r"all, $\sigma$-corrected")
    axes.set(title=r"cosine of score and $-\partial S$", ylabel="cosine", ylim=(0.0, 1.5))
    axes.set_yticks(np.linspace(0.0, 1.0, 6))
    axes.legend(loc="upper center", fontsize=11, ncols=2)  # above 1, where no cosine can be


def _column(levels: list[dict[str, Any]], name: str, shell: int) -> tuple[NDArray[Any], NDArray[Any]]:
    value, error = np.array([level["comparison"][name][shell] for level in levels]).T
    return value, error


def _draw_running(axes: Axes, result: dict[str, Any]) -> None:
    """|coupling| on a log scale, a minus sign in the legend where it is negative; points beyond 2 errors."""
    levels, action = result["levels"], _action(result)
    sigma = np.array([level["sigma"] for level in levels])
    for i, name in enumerate(levels[0]["running"]):
        extra = name not in BARE
        colour, marker = STYLES[i if not extra else i - len(BARE)]
        unit = 1 / scale("kappa" if extra else name, action)
        value, error, true = (
            unit * np.array([level["running"][name][key] for level in levels])
            for key in ("value", "error", "true")
        )
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

"""Polish: how the bias of raw samples heals with HMC trajectories, per momentum shell and observable.

Raw samples are the run's own fields without their weights, or new ones by Euler-Maruyama in few levels, with
a bias that shows. The reference is the whole ensemble, or the samples with their weights. Control: held-out
equilibrium fields polished the same way, against the training chains; the verdict is theirs: no bias beyond 5
errors appears.
"""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffsq.analysis import polish
from diffsq.analysis.polish import OBSERVABLES, RESOLVED, Reference
from diffsq.models.momentum import Momenta, shells
from diffsq.plots.style import BLUE, GREEN, GREY, INK, PURPLE, VERMILLION, panels, spread, styled
from diffsq.run_folder.finished import Workbench
from diffsq.sampling import steps
from diffsq.sampling.draws import BLOCK
from lattice.arrays import Floats, Integers, batches
from lattice.errors import InputError
from lattice.progress import Progress
from lattice.rng import uniforms
from lattice.statistics.notation import aligned, format_value, printed, with_pull
from lattice.statistics.pulls import mean_and_error, pull

CONTROL_LIMIT = 5.0
SAMPLERS = ("path", *steps.STEPS)
REFERENCES = ("ensemble", "weighted")
MARKERS, COLOURS = "os^Dv", (INK, VERMILLION, PURPLE, GREEN, BLUE)
LABELS = {
    "phi2": r"$\langle\phi^2\rangle$",
    "action_density": r"$s$",
    "abs_magnetization": r"$\langle|M|\rangle$",
    "kappa4": r"$\kappa_4$",
}


def run(
    bench: Workbench, progress: Progress, method: str = "path", n_samples: int = 2048, n_levels: int = 8,
    n_traj: int = 12, length: float | None = None, reference: str = "ensemble",
) -> dict[str, Any]:  # fmt: skip
    """Polish raw samples of `method` and equilibrium fields; `n_levels` is for the samplers without weights.

    length: of a trajectory, by default half of a quarter period of the fastest mode, so that the healing
    shows. Raises `InputError` for an unknown sampler or reference, and weights where there are none.
    """
    if method not in SAMPLERS or reference not in REFERENCES:
        raise InputError(
            f"method must be one of {', '.join(SAMPLERS)} and reference one of {', '.join(REFERENCES)}, "
            f"got {method!r} and {reference!r}"
        )
    if reference == "weighted" and (method != "path" or bench.samples.log_weight is None):
        raise InputError(f"samples of {method!r} have no weights; use reference ensemble or method path")
    action, g, momenta = bench.action, bench.model.base.g.cpu(), Momenta(bench.model.shape)
    tau = 0.5 * polish.quarter_period(g) if length is None else length
    n_steps = polish.steps_for(bench.ensemble, tau)
    progress.start(2 * (n_traj + 1) + (-(-n_samples // BLOCK) if method != "path" else 0), "polish")

    def measured(phi: Floats) -> Floats:
        return polish.measure_fields(momenta, action, phi)

    def heal(phi: Floats, number: int, truth: Reference, chain: Integers | None = None) -> dict[str, Any]:
        fields = polish.polish(action, phi, n_traj, number, length=tau, n_steps=n_steps)
        return polish.healing(fields, measured, truth, chain, progress.update)

    if method == "path":
        phi = bench.samples.phi[:n_samples]
    else:
        phi = _draw(bench, method, n_samples, n_levels, progress)
    log_weight, everything = bench.samples.log_weight, measured(bench.ensemble.phi)
    if reference == "weighted" and log_weight is not None:
        truth = Reference.of_weights(measured(phi), log_weight[: len(phi)])
    else:
        order = bench.ensemble.in_time()
        truth = Reference.of_ensemble(everything[order], bench.ensemble.chain[order])
    seed = int(uniforms(bench.seed, "check/polish/seed", np.zeros(1, dtype=np.int64), 0, 1)[0, 0] * 2**32)
    found = heal(phi, seed, truth)
    parts = bench.ensemble.split_rows(bench.config.training.validation_fraction)
    train, held_out = (bench.ensemble.in_time(part) for part in parts)
    trained = Reference.of_ensemble(everything[train], bench.ensemble.chain[train])
    control = heal(bench.ensemble.phi[held_out], seed + 1, trained, bench.ensemble.chain[held_out])
    progress.close()
    rows = zip(control["bias"], control["error"], strict=True)
    worst = max(abs(x) for bias, error in rows for x in _pulls(bias, error, trained.value))
    return {
        **found, "names": polish.names_of(momenta), "reference": truth.value.tolist(),
        "reference_error": truth.error.tolist(),
        "gaussian": _per_shell(momenta, polish.gaussian_factor(g, tau)), "control_pull": worst,
        "n_control": len(held_out), "method": method,
        "n_levels": bench.path.n_levels if method == "path" else n_levels, "n_samples": len(phi),
        "against": reference, "length": tau, "n_steps": n_steps, "passed": worst < CONTROL_LIMIT,
    }  # fmt: skip


def _draw(bench: Workbench, method: str, n: int, n_levels: int, progress: Progress) -> Floats:
    """Samples of a method without weights, in geometric levels over the trained range."""
    low, high = (float(bench.model.base.log_sigma[i]) for i in (0, -1))
    rest = torch.exp(torch.linspace(low, high, n_levels, dtype=torch.float64))
    levels = torch.cat([torch.zeros(1, dtype=torch.float64), rest]).to(bench.device)
    parts = []
    for rows in batches(-(-n // BLOCK) * BLOCK, BLOCK):
        noise = bench.noise("check/polish/noise", rows)
        start = bench.model.momenta.colour(noise(2 * n_levels), bench.model.base.g + levels[-1] ** 2)
        x = steps.run(steps.STEPS[method], bench.model, start, levels, noise, bench.frames())
        parts.append(x.cpu())
        progress.update()
    return np.asarray(torch.cat(parts)[:n].numpy())


def _per_shell(momenta: Momenta, q: torch.Tensor) -> list[float]:
    index, labels = shells(momenta)
    total = torch.zeros(len(labels), dtype=q.dtype).index_add(0, index, momenta.multiplicity * q)
    return [v / float(label["multiplicity"]) for v, label in zip(total.tolist(), labels)]


def _pulls(bias: Any, error: Any, size: Any) -> list[float]:
    """Biases of observables of these sizes in units of their errors, signed."""
    return [pull(s + b, e, s, 0.0) for b, e, s in zip(bias, error, size, strict=True)]


def text(result: dict[str, Any]) -> str:
    """Relative bias, value(error) [pull], against the number of trajectories, and how many each needs."""
    names, bias, error = result["names"], np.array(result["bias"]), np.array(result["error"])
    size, n_traj = np.abs(result["reference"]), len(bias) - 1
    shown = sorted({t for t in (0, 1, 2, 4, 8, 16, 32, n_traj) if t <= n_traj})
    rows = [["observable", "reference", *(f"{t} traj" for t in shown), "needed", "left, Gauss"]]
    for i, name in enumerate(names):
        cells = [
            with_pull(
                100 * bias[t, i] / size[i],
                100 * error[t, i] / size[i],
                _pulls(bias[t], error[t], size)[i],
            )
            for t in shown
        ]
        needed = result["healed"][i]
        left = f"{result['gaussian'][i]:.3f}" if i < len(result["gaussian"]) else ""
        value = format_value(result["reference"][i], result["reference_error"][i])
        rows.append([name, value, *cells, f"> {n_traj}" if needed is None else str(needed), left])
    rates = np.array(result["acceptance"][1:])
    accepted = printed(*mean_and_error(rates)) if n_traj > 1 else f"{rates.mean() if n_traj else 1:.3f}"
    against = "the ensemble" if result["against"] == "ensemble" else "the same samples with their weights"
    passed = "passed" if result["passed"] else "FAILED"
    return "\n".join([
        f"bias in % of the reference, value(error) [pull], of {result['n_samples']} raw samples "
        f"({result['method']}, {result['n_levels']} levels) after HMC trajectories",
        *aligned(rows),
        f"against {against}; needed: from there on |bias| < {RESOLVED:g} errors; "
        "left, Gauss: part of the bias that one trajectory leaves in a free field",
        f"HMC of length {result['length']:.3g} in {result['n_steps']} steps, acceptance {accepted}",
        f"control, {result['n_control']} equilibrium fields polished the same way: {passed} "
        f"(largest |pull| {result['control_pull']:.1f}, limit {CONTROL_LIMIT:g})",
    ])  # fmt: skip


@styled
def figure(result: dict[str, Any]) -> Figure:
    """|relative bias| against trajectories: left G(k) per shell, right the other observables."""
    sheet, (left, right) = panels(11.6, 4.8, 1, 2)
    names, t = result["names"], np.arange(len(result["bias"]))
    n_shell = len(names) - len(OBSERVABLES)
    size = np.abs(result["reference"])
    bias, error = np.abs(result["bias"]) / size, np.array(result["error"]) / size
    for i, colour, marker in zip(spread(n_shell, 5), COLOURS, MARKERS):
        _curve(left, bias[:, i], error[:, i], colour, marker, f"${names[i].removeprefix('G, ')}$")
        left.plot(t, bias[0, i] * result["gaussian"][i] ** t, "--", color=colour, linewidth=1.0)
    left.plot([], [], "--", color=GREY, linewidth=1.0, label="free field")
    for i, colour, marker in zip(range(n_shell, len(names)), COLOURS[1:], MARKERS):
        _curve(right, bias[:, i], error[:, i], colour, marker, LABELS[names[i]])
    left.set(title=r"$G(k)$ per momentum shell", ylabel="|bias| / reference")
    right.set(title="observables")
    for axes in (left, right):
        axes.set(yscale="log", xlabel="HMC trajectories after sampling")
        axes.legend(fontsize=11, ncols=2, loc="upper right")
        # one range for both, from a third of the smallest error to well above the largest bias
        axes.set_ylim(error.min() / 3, 12 * bias.max())
    return sheet


def _curve(axes: Axes, bias: Floats, error: Floats, colour: str, marker: str, label: str) -> None:
    """|bias|/reference; filled where it is beyond `RESOLVED` errors, open and faint where it is not."""
    t, seen = np.arange(len(bias)), bias > RESOLVED * error
    axes.errorbar(t[seen], bias[seen], error[seen], fmt=marker, color=colour, label=label)
    axes.errorbar(
        t[~seen], bias[~seen], error[~seen], fmt=marker, color=colour, mfc="white", alpha=0.45,
        label=None if seen.any() else label,
    )  # fmt: skip

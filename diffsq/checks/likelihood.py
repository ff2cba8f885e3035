"""The density of the probability flow against a run's own weights, and what a noisy log q does to Metropolis.

Fields of the flow with log q give weights e^(-S)/q, whose mean is Z as that of the run's is. With the exact
divergence, by differentiation (small lattices), this is an independent check of both: of the path, and of
the closed-form divergence of a run by the flow. On larger ones Hutchinson's estimate takes its place, and its
noise eta biases the weights, E[e^eta] > 1, as it biases Metropolis.
"""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffsq.exactness.noisy_metropolis import kept_noise_bias, noisy_acceptance
from diffsq.exactness.weights import acceptance, ln_z, log_mean_exp
from diffsq.plots.style import BLUE, GREY, INK, VERMILLION, panels, styled
from diffsq.process.sde import VESDE
from diffsq.run_folder.finished import Workbench
from diffsq.sampling.likelihood import ProbabilityFlow, hutchinson_probes
from lattice.arrays import Floats, batches
from lattice.errors import InputError
from lattice.progress import Progress
from lattice.statistics.blocks import jackknife_of
from lattice.statistics.notation import aligned, format_entry, format_value
from lattice.statistics.pulls import pull
from lattice.statistics.weights import check_log_weights, distrusted, effective_sample_size, spread_of

EXACT_UP_TO = 100  # sites
LIMIT = 4.0  # standard deviations
BATCH = 64


def run(
    bench: Workbench, progress: Progress, n_fields: int = 128, n_levels: int = 10, n_estimates: int = 8
) -> dict[str, Any]:
    """ln Z and ESS of n_fields flow samples beside those of the run's weights, and the noise of log q.

    n_estimates: Hutchinson estimates of each log q, one probe of signs each. passed: ln Z within 4 sigma of
    the run's weights' (None above 100 sites, where no exact divergence is taken, and where the errors of
    either are not to be trusted).
    """
    if n_fields < 40 or n_levels < 2 or n_estimates < 2:
        raise InputError("likelihood check: n_fields >= 40, n_levels >= 2 and n_estimates >= 2 are needed")
    if bench.samples.log_weight is None:
        raise InputError(
            f"{bench.folder}: the samples have no log-weights to compare with; use method flow or path"
        )
    path = check_log_weights(bench.samples.log_weight)
    exact = bench.model.momenta.volume <= EXACT_UP_TO
    action, phi, flow, coarse, noisy = _draw(bench, progress, n_fields, n_levels, n_estimates, exact)
    noise = noisy - (flow if exact else noisy.mean(0))
    spread = float(np.sqrt((noise**2).sum() / (noise.size if exact else noise.size - n_fields)))
    step, step_error = jackknife_of(
        lambda rows: log_mean_exp(rows[:, 0]) - log_mean_exp(rows[:, 1]), np.stack([flow, coarse], 1)
    )
    weights = {"flow": flow, "one_probe": noisy[0], "path": path}
    found = {name: _about(log_weight) for name, log_weight in weights.items()}
    off = pull(*(found[by][key] for by in ("flow", "path") for key in ("ln_z", "ln_z_error")))
    trusted = not (found["flow"]["warnings"] or found["path"]["warnings"])
    result: dict[str, Any] = {
        "kappa": bench.action.kappa, "lam": bench.action.lam, "shape": list(bench.model.shape),
        "divergence": "exact" if exact else "hutchinson", "n_fields": n_fields, "n_levels": n_levels,
        "n_estimates": n_estimates, **found,
        "step": {"levels": n_levels // 2, "value": step, "error": step_error}, "noise": spread,
        **_acceptances(weights, bench.seed),
        "log_weight": {"flow": flow.tolist(), "one_probe": noisy[0].tolist(), "path": path[:4096].tolist()},
        "pull": off, "passed": bool(abs(off) < LIMIT) if exact and trusted else None,
    }  # fmt: skip
    if exact:
        volume = bench.model.momenta.volume
        series = {"action_density": action / volume, "V m2": volume * phi.mean((1, 2)).numpy() ** 2}
        bias = {name: kept_noise_bias(value, flow, noisy) for name, value in series.items()}
        result["bias"] = {name: {"value": value, "error": error} for name, (value, error) in bias.items()}
    return result


def _about(log_weight: Floats) -> dict[str, Any]:
    (value, error), (ess, ess_error) = ln_z(log_weight), effective_sample_size(log_weight)
    about = {"ln_z": value, "ln_z_error": error, "ess": ess, "ess_error": ess_error, **spread_of(log_weight)}
    return {
        **about, "std": float(log_weight.std()), "n": len(log_weight), "warnings": distrusted(log_weight)
    }  # fmt: skip


def _acceptances(weights: dict[str, Floats], seed: int) -> dict[str, dict[str, float]]:
    pairs = {name: acceptance(log_weight, seed) for name, log_weight in weights.items()}
    ends = ("acceptance", "acceptance_error")
    return {end: {name: pair[i] for name, pair in pairs.items()} for i, end in enumerate(ends)}


def _draw(
    bench: Workbench, progress: Progress, n_fields: int, n_levels: int, n_estimates: int, exact: bool
) -> tuple[Floats, Tensor, Floats, Floats, Floats]:
    """S, fields, log-weights, the same with half of the levels, and (n_estimates, n) with one probe each.

    Without the exact divergence the log-weights are those of the mean of all estimates.
    """
    model, base = bench.model, bench.model.base
    sde = VESDE(float(base.log_sigma[0].exp()), float(base.log_sigma[-1].exp()))
    levels, half = (sde.levels(n).to(bench.device) for n in (n_levels, max(1, n_levels // 2)))
    rows: list[tuple[Tensor, ...]] = []
    passes = n_levels * (n_estimates + exact) + len(half) - 1
    kind = "exact" if exact else "Hutchinson"
    progress.start(-(-n_fields // BATCH) * passes, f"flow, {kind} divergence")
    for index in batches(n_fields, BATCH):
        noise = bench.noise("check/likelihood/start", index)(0)
        signs = hutchinson_probes(bench.seed, "check/likelihood/probe", index, n_estimates, model.shape)
        signs = signs.to(bench.device)

        def log_q(at: Tensor, probes: Tensor | None, z: Tensor = noise) -> tuple[Tensor, Tensor]:
            return ProbabilityFlow(model, at, bench.frames()(0)).sample(z, probes, progress.update)

        estimates = [log_q(levels, signs[i : i + 1]) for i in range(n_estimates)]
        phi = estimates[0][0]
        s = bench.action.action(phi)
        noisy = torch.stack([-s - q for _, q in estimates], 1)
        fine = -s - log_q(levels, None)[1] if exact else noisy.mean(1)
        phi_half, q_half = log_q(half, None if exact else signs)
        rows.append((s, phi, fine, -bench.action.action(phi_half) - q_half, noisy))
    progress.close()
    s, phi, fine, coarse, noisy = (torch.cat(parts).cpu() for parts in zip(*rows))
    return s.numpy(), phi, fine.numpy(), coarse.numpy(), noisy.numpy().T


def text(result: dict[str, Any]) -> str:
    """Both ln Z and ESS, the step error, and the bias of Metropolis with one probe."""
    label = "exact divergence" if result["divergence"] == "exact" else "Hutchinson: weights are biased"
    names = {"flow": f"flow, {label}", "one_probe": "flow, one probe", "path": "weights of the run"}
    head = ["weights", "fields", "ln Z", "ESS/N", "e^-Var(log w)", "largest weight", "std log w"]
    rows = [[*head, "acceptance"]]
    for name, title in names.items():
        q = result[name]
        numbers = (format_entry(q, each) for each in ("ln_z", "ess", "exp_minus_var"))
        rate = format_value(result["acceptance"][name], result["acceptance_error"][name])
        ends = f"{q['largest_weight']:.2g}", f"{q['std']:.3g}", rate
        rows.append([title, str(q["n"]), *numbers, *ends])
    step = result["step"]
    lines = [
        f"kappa = {result['kappa']:g}, lam = {result['lam']:g}, shape {tuple(result['shape'])}, "
        f"{result['n_levels']} levels",
        *aligned(rows),
        f"ln Z, {result['n_levels']} against {step['levels']} levels: "
        f"{format_value(step['value'], step['error'])}",
        f"one probe: noise of log q {result['noise']:.3g}; two equal states then accept "
        f"{float(noisy_acceptance(0.0, 2**0.5 * result['noise'])):.3f} instead of 1",
    ]
    for name, q in result.get("bias", {}).items():
        pull = q["value"] / q["error"] if q["error"] > 0 else 0.0
        bias = format_value(q["value"], q["error"])
        lines.append(f"bias of <{name}> in Metropolis with it: {bias} ({pull:+.1f})")
    lines += [f"warning, {names[name]}: {line}" for name in names for line in result[name]["warnings"]]
    verdict = "no verdict" if result["passed"] is None else f"passed: {result['passed']}"
    return "\n".join([*lines, f"flow - run: {result['pull']:+.1f} sigma; {verdict}"])


@styled
def figure(result: dict[str, Any]) -> Figure:
    """Left: log w of flow, flow with one probe and run. Right: acceptance with a noisy log q."""
    page, (left, right) = panels(10.4, 3.9, 1, 2)
    centre = result["path"]["ln_z"]
    exact = "flow, exact divergence" if result["divergence"] == "exact" else "flow, mean of all probes"
    series = {name: np.asarray(log_weight) - centre for name, log_weight in result["log_weight"].items()}
    low, high = np.quantile(np.concatenate(list(series.values())), [0.001, 0.999])
    edges = np.linspace(low, high, 41)
    for name, label, colour, kind, alpha in (
        ("path", "weights of the run", GREY, "stepfilled", 0.45),
        ("one_probe", "flow, one probe", VERMILLION, "step", 1.0),
        ("flow", exact, BLUE, "step", 1.0),
    ):
        left.hist(
            series[name], edges, density=True, histtype=kind, color=colour, alpha=alpha, linewidth=1.8,
            label=label,
        )  # fmt: skip
    left.set(xlabel=r"$\log w - \ln Z$ (run)", ylabel="density", yscale="log")
    left.margins(y=0.35)
    left.legend(loc="upper left", fontsize=11)
    delta = np.linspace(-4, 3, 281)
    right.plot(delta, np.minimum(1.0, np.exp(delta)), color=INK, label=r"exact, $\min(1, e^\Delta)$")
    spread = 2**0.5 * result["noise"]
    for size, colour, dash in ((spread, VERMILLION, "-"), (1.0, VERMILLION, "--"), (2.0, VERMILLION, ":")):
        what = f"noise {size:.2g}" + (" (one probe, both states)" if size == spread else "")
        right.plot(delta, noisy_acceptance(delta, size), color=colour, linestyle=dash, label=what)
    right.set(xlabel=r"$\Delta = \log w' - \log w$", ylabel=r"$E\,\min(1, e^{\Delta + \eta})$", ylim=(0, 1.5))
    right.legend(loc="upper left", fontsize=11)
    return page

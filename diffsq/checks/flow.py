r"""The flow against the path sampler of the same model, and its averages without the bias of finite steps.

Referee: the two samplers share the score alone, so that <O> and ln Z of both must agree.

Remainder: the weights of the flow are those of its differential equation, hence averages with N steps are off
by the integrator's error. With A_j = E[w O] in N 2^j steps, exactly

    A_infinity - A_0 = sum_(j>=1) (A_j - A_(j-1)) = E[(w_J O_J - w_(J-1) O_(J-1))/P(J)],

both flows of a pair from the same noise and J drawn anew for each (randomised levels: Rhee and Glynn, Oper.
Res. 63 (2015) 1026). A method of order 4 has differences of second moment ~ 2^(-8 j) at a cost ~ 2^j, so that
P(j) ~ 2^(-p j) has finite variance and mean cost for 1 < p < 8. p = 5/2: until the steps are shorter than the
distance of the levels of the base, whose coefficients are splines in between, differences fall more slowly.
Numerator and denominator of <O> = E[w O]/E[w] are then free of the bias, whatever N. (Where a sample of a
sector ends on the other side in one number of steps alone the difference is of order 1, at a rate ~ 2^(-4 j):
finite too.)

A_0 is of the run's own flow, whose features are float32; all others have them in float64. So the rounding of
float32, which no number of steps makes smaller, is part of the remainder: a shift of all samples alike, below
3 10^-5 in log w up to 64^2 and 2 10^-4 at 128^2 (configs/exact/README.md).

J ends at TOP, with 2^TOP N steps: what is left out is 2^(-4 TOP) of the remainder, 2^-32, of which n noises
know no more than 1/sqrt(n). Without the end one noise in 10^6 would go beyond.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffsq.exactness.weights import ln_z
from diffsq.models.blocks import block_size
from diffsq.models.lattice_flow import LatticeFlow
from diffsq.plots.style import BLUE, GREEN, INK, VERMILLION, panels, rows, styled
from diffsq.run_folder.finished import Workbench
from diffsq.sampling.draws import BLOCK
from diffsq.sampling.flow_sets import GROUP
from lattice.arrays import Floats, Integers, batches
from lattice.errors import InputError
from lattice.observables import scalar
from lattice.observables.names import in_short_table
from lattice.progress import Progress, counted
from lattice.rng import uniforms
from lattice.statistics.blocks import jackknife_error, jackknife_labels
from lattice.statistics.notation import aligned, format_entry, format_value
from lattice.statistics.pulls import pull, sidak_threshold
from lattice.statistics.weights import check_log_weights, distrusted, effective_sample_size, spread_of

LIMIT = 4.0  # standard deviations of one observable; of many the largest is as improbable
FALL = 2.5  # P(J = j) ~ 2^(-FALL j)
TOP = 8  # the largest J
AT_LEAST = 40  # samples, for a jackknife
Function = Callable[[Floats], float]


def run(bench: Workbench, progress: Progress, n_path: int = 1024, n_exact: int = 1024) -> dict[str, Any]:
    """The run's flow samples against n_path of the path sampler, and the remainder from n_exact noises.

    passed: flow - path and exact - path of all observables of the short table and ln Z within 4 sigma, their
    number counted in; None where the errors of the weights are not to be trusted. Raises `InputError` for
    samples of another sampler.
    """
    flow, samples = bench.flow, bench.samples
    if flow is None:
        raise InputError(
            f"{bench.folder}: the samples are not those of a flow; take sampling.method flow in a run of its "
            "own, or another check: free-energy is for samples of any method with weights"
        )
    if min(n_path, n_exact) < AT_LEAST:
        raise InputError(f"flow check: n_path and n_exact >= {AT_LEAST} are needed, got {n_path}, {n_exact}")
    log_w = check_log_weights(samples.log_weight if samples.log_weight is not None else [])
    phi_path, log_path = _path(bench, progress, n_path)
    table = Table(bench, float(log_w.max()))
    differences, levels, cost = _differences(bench, flow, table, progress, n_exact)
    own, path = (Means.of(table.columns(*each)) for each in ((samples.phi, log_w), (phi_path, log_path)))
    rest = Means.of(differences)
    found = {
        name: _entry(f, own, path, rest, _least(name, log_w, log_path)) for name, f in table.functions.items()
    }
    limit = sidak_threshold(len(found), 2 * NormalDist().cdf(-LIMIT))
    lines = [f"{name}: {line}" for name, w in (("flow", log_w), ("path", log_path)) for line in distrusted(w)]
    worst = {end: _worst(found, end) for end in ("pull", "exact_pull")}
    return {
        "shape": list(bench.ensemble.shape), "n_steps": flow.n_steps, "n_levels": bench.path.n_levels,
        "flow": _about(log_w), "path": _about(log_path), "n_exact": n_exact, "levels": levels, "cost": cost,
        "observables": found, "limit": limit, "worst": worst, "warnings": lines,
        "passed": None if lines else all(abs(value) < limit for _, value in worst.values()),
    }  # fmt: skip


def _about(log_weight: Floats) -> dict[str, Any]:
    ess, error = effective_sample_size(log_weight)
    return {"n": len(log_weight), "ess": ess, "ess_error": error, **spread_of(log_weight)}


class Table:
    """What is averaged: the primaries that the short table needs, times w e^-top, and this weight last.

    functions: observable -> function of the means (k + 1,) of the `columns`, ln Z first.
    """

    def __init__(self, bench: Workbench, top: float) -> None:
        self.action, self.top = bench.action, top
        known = scalar.definitions(bench.ensemble.shape, bench.action.even).items()
        short = {name: (columns, f) for name, (columns, f, _) in known if in_short_table(name)}
        self.names = sorted({column for columns, _ in short.values() for column in columns})
        self.functions: dict[str, Function] = {"ln_z": lambda means: top + float(np.log(means[-1]))}
        for name, (columns, f) in short.items():
            self.functions[name] = self._of([self.names.index(column) for column in columns], f)

    @staticmethod
    def _of(places: list[int], f: Callable[[Any], Any] | None) -> Function:
        def value(means: Floats) -> float:
            own = means[places] / means[-1]
            return float(own[0] if f is None else f(own))

        return value

    def columns(self, phi: Floats, log_weight: Floats) -> Floats:
        """(n, k + 1) of fields (n, *shape) and log w (n,)."""
        w, table = np.exp(log_weight - self.top), scalar.primaries(phi, self.action)
        return np.stack([*(w * table[name] for name in self.names), w], 1)


@dataclass(frozen=True)
class Means:
    """Of independent columns (n, k): their means (k,), and those without each of b blocks, (b, k)."""

    mean: Floats
    without: Floats

    @staticmethod
    def of(columns: Floats) -> "Means":
        """Of columns (n, k)."""
        labels = jackknife_labels(len(columns))
        sums = np.stack([columns[labels == block].sum(0) for block in range(int(labels.max()) + 1)])
        rest = (len(columns) - np.bincount(labels))[:, None]
        return Means(columns.mean(0), (sums.sum(0) - sums) / rest)

    def estimate(self, f: Function, shift: Floats | float = 0.0) -> tuple[float, float]:
        """f of the means + shift (k,), and its jackknife error; nan where it is undefined."""
        with np.errstate(all="ignore"):
            value, left_out = f(self.mean + shift), [f(row + shift) for row in self.without]
        return value, jackknife_error(left_out) if np.isfinite([value, *left_out]).all() else math.nan


def _entry(
    f: Function, flow: Means, path: Means, rest: Means, least: tuple[float, float]
) -> dict[str, float]:
    """One observable three ways; least: what the errors of flow and path are at least."""
    (value, error), (other, other_error) = flow.estimate(f), path.estimate(f)
    (exact, own), (_, rest_error) = flow.estimate(f, rest.mean), rest.estimate(f, flow.mean)
    error, own, other_error = max(error, least[0]), max(own, least[0]), max(other_error, least[1])
    both = math.hypot(own, rest_error)
    return {
        "flow": value, "flow_error": error, "path": other, "path_error": other_error,
        "pull": _pull(value, error, other, other_error),
        "remainder": exact - value, "remainder_error": rest_error, "exact": exact, "exact_error": both,
        "exact_pull": _pull(exact, both, other, other_error), "share": rest_error / both if both > 0 else 0.0,
    }  # fmt: skip


def _pull(*numbers: float) -> float:
    return pull(*numbers) if np.isfinite(numbers).all() else math.nan


def _least(name: str, *log_weights: Floats) -> tuple[float, float]:
    """The error of ln Z is also that of a Gaussian log w, see `lattice.statistics.weights`."""
    a, b = (ln_z(w)[1] if name == "ln_z" else 0.0 for w in log_weights)
    return a, b


def _worst(found: dict[str, dict[str, float]], end: str) -> tuple[str, float]:
    """The observable of the largest |pull| and it; infinite for a ln Z that is not defined."""
    pulls = {name: entry[end] for name, entry in found.items() if math.isfinite(entry[end])}
    if "ln_z" not in pulls:
        return "ln_z", math.inf
    return max(pulls.items(), key=lambda item: abs(item[1]))


def _path(bench: Workbench, progress: Progress, n: int) -> tuple[Floats, Floats]:
    """Fields and log-weights of the referee."""
    parts = []
    for index in counted(progress, n, BLOCK, "path"):
        noise = bench.noise("check/flow/path", index)
        parts.append([x.cpu() for x in bench.path.sample(bench.action.action, noise, bench.frames())])
    phi, log_w = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return phi, check_log_weights(log_w)


def chances() -> Floats:
    """P(J = j) for j = 1 ... TOP: (TOP,)."""
    p = 2.0 ** (-FALL * np.arange(TOP))
    return np.asarray(p / p.sum())


def _differences(
    bench: Workbench, flow: LatticeFlow, table: Table, progress: Progress, n: int
) -> tuple[Floats, list[dict[str, Any]], float]:
    """(columns with N 2^J - with N 2^(J-1) steps)/P(J), (n, k + 1), of n noises; what log w changes by at
    each J; and their evaluations of the score, relative to n flows of N steps."""
    index, p = np.arange(n), chances()
    drawn = uniforms(bench.seed, "check/flow/level", index, 0, 1)[:, 0]
    level = 1 + np.minimum(np.searchsorted(np.cumsum(p), drawn), TOP - 1)
    out, about, spent = np.zeros((n, len(table.names) + 1)), [], 0
    size = block_size(tuple(bench.ensemble.shape), BLOCK, GROUP[1])
    fine = LatticeFlow(flow.base, flow.n_steps, flow.process, torch.float64)
    progress.start(n, "remainder")
    for j in np.unique(level):
        own, change = index[level == j], []
        steps = [flow.n_steps * 2 ** int(k) for k in (j - 1, j)]
        pair = [flow if j == 1 else fine.in_steps(steps[0]), fine.in_steps(steps[1])]
        for part in batches(len(own), size):
            (low, w_low), (high, w_high) = (_drawn(bench, each, own[part]) for each in pair)
            out[own[part]] = (table.columns(high, w_high) - table.columns(low, w_low)) / p[j - 1]
            change.append(w_high - w_low)
            progress.update(len(part))
        rms = math.sqrt(float(np.mean(np.concatenate(change) ** 2)))
        about.append({"steps": steps, "n": len(own), "rms": rms})
        spent += len(own) * sum(_evaluations(each) for each in pair)
    progress.close()
    return out, about, spent / (n * _evaluations(flow))


def _drawn(bench: Workbench, flow: LatticeFlow, index: Integers) -> tuple[Floats, Floats]:
    """Fields and log w of the noises `index`, the same in any number of steps."""
    noise = bench.noise("check/flow/exact", index)(0)
    u = uniforms(bench.seed, "check/flow/sign", index, 0, 1)[:, 0]
    sign: Tensor = torch.from_numpy(np.where(u < 0.5, -1.0, 1.0)).to(noise.device)
    phi, log_w = flow.sample(bench.action.action, noise, sign)
    return phi.cpu().numpy(), check_log_weights(log_w.cpu().numpy(), at_least=1)


def _evaluations(flow: LatticeFlow) -> int:
    """Of the score by one flow: one for each step above sigma_1, four for each below."""
    return flow.n_steps + 4 * flow.below.n_steps


def text(result: dict[str, Any]) -> str:
    """The table of flow, path and exact values, how it was made, and the verdict."""
    head = ["observable", "flow", "path", "pull", "remainder", "exact", "pull", "its share of the error"]
    table = [head]
    for name, q in result["observables"].items():
        flow, path, rest, exact = (format_entry(q, each) for each in ("flow", "path", "remainder", "exact"))
        pulls = (f"{q[end]:+.1f}" for end in ("pull", "exact_pull"))
        table.append([name, flow, path, next(pulls), rest, exact, next(pulls), f"{q['share']:.2g}"])
    made = {"flow": f"flow, {result['n_steps']} steps", "path": f"path, {result['n_levels']} levels"}
    ess = [
        f"{title}: {q['n']} samples, ESS/N {format_value(q['ess'], q['ess_error'])}"
        for title, q in ((made[name], result[name]) for name in made)
    ]
    falls = ", ".join(
        f"{q['rms']:.2g} from {q['steps'][0]} to {q['steps'][1]} ({q['n']})" for q in result["levels"]
    )
    (name, value), (other, other_value) = (result["worst"][end] for end in ("pull", "exact_pull"))
    limit = result["limit"]
    lines = [
        f"shape {tuple(result['shape'])}; {'; '.join(ess)}",
        *aligned(table),
        f"remainder: {result['n_exact']} noises, each {result['cost']:.3g} times the cost of a sample; rms "
        f"change of log w by more steps: {falls}",
        f"largest pulls: flow - path {value:+.1f} ({name}), exact - path {other_value:+.1f} ({other}); limit "
        f"{limit:.2f}, as improbable among {len(result['observables'])} as {LIMIT:g} alone",
        *(f"warning, {line}" for line in result["warnings"]),
    ]
    if abs(other_value) < limit <= abs(value):
        lines.append("the exact values agree: it is the finite steps of the flow; raise sampling.n_levels")
    verdict = "no verdict" if result["passed"] is None else f"passed: {result['passed']}"
    return "\n".join([*lines, verdict])


@styled
def figure(result: dict[str, Any]) -> Figure:
    """Left: flow - path and exact - path over their errors. Right: the remainder over the flow's error."""
    found = {name: q for name, q in result["observables"].items() if math.isfinite(q["exact_pull"])}
    page, (left, right) = panels(10.4, 1.4 + 0.27 * len(found), 1, 2, sharey=True)
    places = rows(left, ["ln Z" if name == "ln_z" else name.replace("_", " ") for name in found])
    right.tick_params(axis="y", which="both", length=0)
    for end, shift, colour, marker, label in (
        ("pull", 0.12, VERMILLION, "s", "flow"), ("exact_pull", -0.12, BLUE, "o", "exact")
    ):  # fmt: skip
        pulls = [q[end] for q in found.values()]
        left.plot(pulls, np.add(places, shift), marker, color=colour, label=f"{label} − path")
    left.axvspan(-result["limit"], result["limit"], color=INK, alpha=0.07, linewidth=0)
    left.set(xlabel="difference in units of its error", ylim=(-0.7, len(found) + 0.6))
    left.legend(loc="upper left", ncols=2)
    ratio, error = (
        [q[key] / q["flow_error"] if q["flow_error"] > 0 else 0.0 for q in found.values()]
        for key in ("remainder", "remainder_error")
    )
    right.errorbar(ratio, places, xerr=error, color=GREEN, marker="o", linestyle="none")
    right.set(xlabel=f"(exact − flow)/error of the flow, {result['n_steps']} steps")
    for axes in (left, right):
        axes.axvline(0.0, color=INK, linewidth=0.8)
    return page

"""What one model of many theories says at each: observables and ln Z against kappa, exactly weighted.

At each kappa and L the model's flow draws fields with weights, none of them trained for: <|M|>, chi, U_L and
ln Z follow, and where the curves of U_L cross. Of two neighbouring kappa the ratio of Z is known twice: from
ln Z of either, the mean of its weights, and by Bennett's method from E = -dS/dkappa on the fields of both,
whose weights may be off by any factor. So ln Z and <E> = d ln Z/d kappa must belong together. Where the
fields of two kappa hardly overlap nothing is compared, which is counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffsq.config.families import FamilyRun
from diffsq.exactness.free_energy import bennett
from diffsq.exactness.weights import ln_z
from diffsq.models.family import Family
from diffsq.models.family_files import load_family
from diffsq.models.lattice_flow import LatticeFlow, steps_of
from diffsq.plots.families import curves_figure
from diffsq.plots.style import spread
from diffsq.run_folder.finished import DynamicsBench
from diffsq.sampling.family_sets import BLOCK, flow_fields
from lattice.actions.phi4 import ScalarPhi4
from lattice.arrays import Floats
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.observables.measure import measure
from lattice.progress import Progress
from lattice.scans.crossings import binder_crossings, format_crossings
from lattice.scans.table import CERTIFIED
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.weights import effective_sample_size

OF = {"config": FamilyRun}
GATE = 4.0  # sigma, of the ratio of Z
OVERLAP = 0.02  # of neighbours, below which nothing is compared
EFFECTIVE = 10.0  # samples, likewise
LARGEST = 0.3  # share of its error that finite steps may move ln Z by
NEAR, N_NEAR = 0.0025, 7  # about the crossover, where U_L is crossed: distance in kappa, and points
SHOWN = ("abs_magnetization", "susceptibility", "binder", "action_density")


def run(
    bench: DynamicsBench, progress: Progress, *, n_kappa: int = 12, kappas: list[float] | None = None,
    lam: float | None = None, sizes: list[int] | None = None, n_samples: int = 1024,
) -> dict[str, Any]:  # fmt: skip
    """passed: some neighbours overlap, all that do agree on the ratio of Z within 4 sigma, and every ESS/N is
    above 0.1.

    kappas, sizes: n_kappa values half-way between couplings of the training, its ends, and more about the
    crossover; the sizes of the training, those half-way between and the one beyond, if not given; lam: the
    lowest. Larger lattices than 32^2 get half of `n_samples`.
    Raises `InputError` for theories that the model does not know.
    """
    family = load_family(bench.folder / "train" / "family")
    table = family.couplings
    lam = float(table.lam.min()) if lam is None else lam
    low, high = table.range(lam)
    trained = table.kappa[int((table.lam - lam).abs().argmin())].tolist()
    shift = low - trained[0]  # of a lam between the lines
    own = [low, *(min(k + shift, high) for k in trained[1:-1]), high]
    chosen = kappas or default_kappas(own, n_kappa, crossover(family, lam))
    chosen_sizes = sizes or default_sizes([int(n) for n in table.sizes.tolist()], table.largest)
    for size in chosen_sizes:
        for kappa in chosen:
            table.check(kappa, lam, size)
    progress.start(len(chosen) * sum(n**2 for n in chosen_sizes), "sites of theories")
    points, ratios = list[dict[str, Any]](), list[dict[str, Any]]()
    for size in chosen_sizes:
        n, before = max(n_samples // (2 if size > 32 else 1), 2 * BLOCK), None
        for kappa in chosen:
            point, weights, hopping = theory(family, kappa, lam, size, n, bench.config.seed)
            points.append(point)
            if before is not None:
                ratios.append(ratio(before, (kappa, weights, hopping), size))
            before = kappa, weights, hopping
            progress.update(size**2)
    progress.close()
    middle = crossover(family, lam)
    near = [p for p in points if abs(p["kappa"] - middle) <= NEAR]
    crossings = [] if None in table.crossovers else binder_crossings(near)
    compared = [r for r in ratios if r["pull"] is not None]
    worst = max((abs(r["pull"]) for r in compared), default=0.0)
    lowest = min(p["ess"] for p in points)
    return {
        "passed": bool(compared and worst < GATE and lowest > 0.1), "lam": lam, "points": points,
        "ratios": ratios, "crossings": crossings, "worst": worst, "lowest": lowest,
        "trained": {"kappa": trained, "sizes": [int(n) for n in table.sizes.tolist()]},
    }  # fmt: skip


def crossover(family: Family, lam: float) -> float:
    """kappa between the phases, at this lam."""
    return float(family.couplings.weights(lam) @ family.couplings.references)


def default_kappas(known: list[float], n: int, middle: float) -> list[float]:
    """At most n of the places half-way between couplings of the training, where a fit may swing, both ends,
    and N_NEAR about the middle, to five digits.

    >>> default_kappas([0.24, 0.26, 0.28, 0.3], 3, 0.271)
    [0.24, 0.25, 0.2685, 0.26933, 0.27, 0.27017, 0.271, 0.27183, 0.27267, 0.2735, 0.29, 0.3]
    """
    between = [(a + b) / 2 for a, b in zip(known, known[1:], strict=False)]
    chosen = [between[i] for i in spread(len(between), n)]
    near = np.linspace(middle - NEAR, middle + NEAR, N_NEAR)
    low, high = known[0], known[-1]
    every = [round(float(k), 5) for k in (*chosen, *near)]
    return [low, *sorted({k for k in every if low < k < high}), high]


def default_sizes(known: list[int], largest: int) -> list[int]:
    """The sizes of the training, multiples of 8 half-way between the larger of them, and beyond.

    >>> default_sizes([8, 16, 32], 64)
    [8, 16, 24, 32, 48, 64]
    """
    every = [*known, largest] if largest > known[-1] else known
    between = [(a + b) // 2 for a, b in zip(every, every[1:], strict=False) if (a + b) % 16 == 0]
    return sorted({*every, *between})


def theory(
    family: Family, kappa: float, lam: float, size: int, n: int, seed: int
) -> tuple[dict[str, Any], Floats, Floats]:
    """One point as a scan's result with ESS and ln Z, its log-weights, and E of each field."""
    model, action = family.at(kappa, lam, size), ScalarPhi4(kappa, lam)
    base = model.base if model.sector is None else model.sector
    flow = LatticeFlow(base, steps_of(base))
    stream = f"curves/{size}/{kappa:.12g}/{lam:.12g}"
    fields, weights = flow_fields(flow, action.action, np.arange(n), seed, stream)
    hopping: Floats = (action.action(fields) - ScalarPhi4(kappa + 1, lam).action(fields)).numpy()
    log_w: Floats = weights.numpy()
    samples = Ensemble.from_fields(fields.numpy(), action, log_weight=log_w)
    measured = measure(samples, two_point=False)["observables"]
    (ess, ess_error), (z, z_error) = effective_sample_size(log_w), ln_z(log_w)
    half = flow_fields(flow.in_steps(2 * flow.n_steps), action.action, np.arange(BLOCK), seed, stream)[1]
    moved = (half - weights[:BLOCK]).numpy()
    steps = abs(float(moved.mean())) + float(moved.std()) / math.sqrt(BLOCK)
    slope = weighted(log_w, hopping)
    keep = {k: v for k, v in measured.items() if k in SHOWN}
    about = {"action": action.as_dict(), "shape": [size, size]}
    found = {
        "status": CERTIFIED, "name": f"L{size} kappa {kappa:g}", "request": about, "observables": keep,
        "kappa": kappa, "size": size, "n": n, "sector": model.sector is not None,
        "ess": ess, "ess_error": ess_error, "ln_z": z, "ln_z_error": z_error,
        "slope": slope[0], "slope_error": slope[1], "steps_share": steps / z_error,
    }  # fmt: skip
    return found, log_w, hopping


def weighted(log_w: Floats, values: Floats) -> tuple[float, float]:
    """Weighted mean and its error."""
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    mean = float(w @ values)
    return mean, float(np.sqrt((w**2) @ (values - mean) ** 2))


def ratio(
    first: tuple[float, Floats, Floats], second: tuple[float, Floats, Floats], size: int
) -> dict[str, Any]:
    """ln of the ratio of Z at two kappa, each with log-weights and E of its fields: by weights and by
    Bennett's method; pull None where the fields hardly overlap."""
    (low, w_low, e_low), (high, w_high, e_high) = first, second
    (a, a_error), (b, b_error) = ln_z(w_low), ln_z(w_high)
    change = high - low
    few = min(effective_sample_size(w)[0] * len(w) for w in (w_low, w_high)) < EFFECTIVE
    if few:
        return {
            "size": size, "kappa": (low + high) / 2, "by_weights": b - a, "by_energy": None,
            "error": math.hypot(a_error, b_error), "overlap": 0.0, "pull": None,
        }  # fmt: skip
    other = bennett(change * e_low, change * e_high, log_weight_a=w_low, log_weight_b=w_high)
    error = math.hypot(a_error, b_error, other.error)
    apart = other.ess < OVERLAP
    return {
        "size": size, "kappa": (low + high) / 2, "by_weights": b - a, "by_energy": other.value,
        "error": error, "overlap": other.ess, "pull": None if apart else (b - a - other.value) / error,
    }  # fmt: skip


def text(result: dict[str, Any]) -> str:
    """A row per theory, the crossings, the verdict."""
    rows = [["L", "kappa", "<|M|>", "chi", "U_L", "s", "ln Z", "ESS/N", "flow of"]]
    for p in result["points"]:
        cells = [
            format_value(o["value"], o["error"]) if (o := p["observables"][name])["error"] else "-"
            for name in SHOWN
        ]
        rows.append(
            [str(p["size"]), f"{p['kappa']:.6g}", *cells, format_value(p["ln_z"], p["ln_z_error"]),
             format_value(p["ess"], p["ess_error"]), "one sign" if p["sector"] else "both signs"]
        )  # fmt: skip
    lines = aligned(rows) + [format_crossings(block) for block in result["crossings"]]
    compared = [r for r in result["ratios"] if r["pull"] is not None]
    lines.append(
        f"ratios of Z of neighbouring kappa by weights and by energy: {len(compared)} of "
        f"{len(result['ratios'])} pairs overlap, largest pull {result['worst']:.1f} sigma; lowest ESS/N "
        f"{result['lowest']:.3f}"
    )
    if far := [p for p in result["points"] if p["steps_share"] > LARGEST]:
        most = max(far, key=lambda p: float(p["steps_share"]))
        lines.append(
            f"the finite steps of the flow may move ln Z by more than {LARGEST:g} of its error at {len(far)} "
            f"theories, most at L = {most['size']}, kappa = {most['kappa']:g}: {most['steps_share']:.2g}"
        )
    return "\n".join(lines)


def figure(result: dict[str, Any]) -> Figure:
    """The curves."""
    return curves_figure(result)


def refuse(
    n_kappa: int = 12, n_samples: int = 1024, kappas: list[float] | None = None,
    sizes: list[int] | None = None, **others: Any,
) -> None:  # fmt: skip
    """`InputError` for options that make no sense."""
    if n_kappa < 2:
        raise InputError(f"n_kappa must be at least 2, got {n_kappa}")
    if n_samples < 2 * BLOCK:
        raise InputError(f"n_samples must be at least {2 * BLOCK}, got {n_samples}")
    must_rise(2, kappas=kappas)
    must_rise(1, sizes=sizes)


def must_rise(fewest: int, **given: Sequence[float] | None) -> None:
    """`InputError` for values, if there are any, that are too few or do not rise.

    >>> must_rise(1, sizes=[8, 16], kappas=None)
    """
    for name, values in given.items():
        if values is not None and (len(values) < fewest or list(values) != sorted(set(values))):
            raise InputError(f"{name} must rise, {fewest} at least, got {list(values)}")

r"""A Boltzmann machine with a quartic visible prior: K and lambda by score matching, one linear system.

    p(phi) ~ exp[-(1/2) phi K phi - lam sum phi^4],    score = -(K phi + 4 lam phi^3)

Least squares of the score (Hyvaerinen, JMLR 6 (2005) 695) needs no normalisation and is linear in K(k) and
lam: with G_ab(k) = <(phi^a)~* (phi^b)~>/V,

    K(k) G_11(k) + 4 lam G_13(k) = 1   for every k,     sum_k [K(k) G_13(k) + 4 lam G_33(k)] = 3 V <phi^2>.

The first row is the Schwinger-Dyson equation of each mode. Of phi^4 the true K is 2 (1 - 2 lam) - 4 kappa sum
cos k: what a Gaussian machine cannot know. Errors are those of a jackknife over chains.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffsq.models.second_moments import symmetrised
from diffsq.plots.machines import quartic_figure
from diffsq.run_folder.finished import MachineBench
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.observables.scalar import momentum_classes
from lattice.progress import Progress
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.pulls import sidak_threshold, sigmas_of

N_BLOCKS, MIN_BLOCKS = 32, 8


def run(bench: MachineBench, progress: Progress, n_blocks: int = N_BLOCKS) -> dict[str, Any]:
    """n_blocks of whole chains for the jackknife.

    The verdict: lam and the hopping and mass terms fitted to K(k) are those of the action, where it is phi^4;
    none for another. Raises `InputError` for an ensemble of few chains.
    """
    shape, ensemble = bench.config.shape, bench.ensemble
    chains = np.unique(ensemble.chain)
    if len(chains) < MIN_BLOCKS:
        raise InputError(f"errors over chains need {MIN_BLOCKS} of them, the ensemble has {len(chains)}")
    groups = np.array_split(chains, min(n_blocks, len(chains)))
    progress.start(len(groups), "blocks of chains")
    sums = []
    for group in groups:
        sums.append(_moments(ensemble.phi[np.isin(ensemble.chain, group)]))
        progress.update()
    progress.close()
    total = np.sum(sums, axis=0)
    central = _solved(total, shape)
    without = np.array([_flat(_solved(total - part, shape), shape) for part in sums])
    flat, n = _flat(central, shape), len(groups)
    error = np.sqrt((n - 1) * without.var(0))
    classes = momentum_classes(shape)
    size = len(classes)
    names = ("lam", "kappa", "mass")
    found = {name: [float(flat[size + i]), float(error[size + i])] for i, name in enumerate(names)}
    form, true, pulls = bench.action.phi4, None, dict[str, float]()
    if form is not None:
        known = {"lam": form.lam, "kappa": form.kappa, "mass": 1 - 2 * form.lam}
        pulls = {name: (found[name][0] - known[name]) / found[name][1] for name in names}
        true = [2 * known["mass"] - 4 * form.kappa * _cosines(m[0], shape) for m in classes]
    most = sidak_threshold(len(names))
    power = symmetrised(total[1])  # G_11 V n
    gaussian = [float(total[0].flat[0] / power[m[0]]) for m in classes]
    return {
        "passed": all(sigmas_of(x, 1.0, n - 1) < most for x in pulls.values()) if pulls else None,
        "pulls": pulls, **found, "threshold": most, "kernel": flat[:size].tolist(),
        "kernel_error": error[:size].tolist(),
        "khat2": [sum(4 * math.sin(math.pi * a / b) ** 2 for a, b in zip(m[0], shape)) for m in classes],
        "gaussian": gaussian, "true": true, "n": len(ensemble), "n_blocks": n,
        "action": None if form is None else {"lam": form.lam, "kappa": form.kappa, "mass": 1 - 2 * form.lam},
    }  # fmt: skip


def refuse(n_blocks: int = N_BLOCKS) -> None:
    """`InputError` for few blocks."""
    if n_blocks < MIN_BLOCKS:
        raise InputError(f"the check quartic needs n_blocks >= {MIN_BLOCKS}, got {n_blocks}")


def _cosines(n: tuple[int, ...], shape: tuple[int, ...]) -> float:
    return sum(math.cos(2 * math.pi * a / b) for a, b in zip(n, shape, strict=True))


def _moments(phi: Floats, chunk: int = 4096) -> Floats:
    """Sums over fields (n, *shape): n, |phi~|^2/V, Re phi~* (phi^3)~/V, |(phi^3)~|^2/V on all momenta, and
    the sum of phi^2: (5, *shape)."""
    axes, volume = tuple(range(1, phi.ndim)), math.prod(phi.shape[1:])
    found = np.zeros((5, *phi.shape[1:]))
    for first in range(0, len(phi), chunk):
        part = phi[first : first + chunk]
        one, three = np.fft.fftn(part, axes=axes), np.fft.fftn(part**3, axes=axes)
        found[0] += len(part)
        found[1] += (np.abs(one) ** 2).sum(0) / volume
        found[2] += (one.conj() * three).real.sum(0) / volume
        found[3] += (np.abs(three) ** 2).sum(0) / volume
        found[4] += (part**2).sum()
    return found


def _solved(sums: Floats, shape: tuple[int, ...]) -> tuple[Floats, float]:
    """K (*shape) and lam."""
    n = float(sums[0].flat[0])
    g11, g13, g33 = (symmetrised(sums[i] / n) for i in (1, 2, 3))
    square = float(sums[4].flat[0]) / n  # V <phi^2>
    # K = (1 - 4 lam g13)/g11 put into the last equation
    lam = (3 * square - float((g13 / g11).sum())) / (4 * float((g33 - g13**2 / g11).sum()))
    return (1 - 4 * lam * g13) / g11, lam


def _flat(found: tuple[Floats, float], shape: tuple[int, ...]) -> Floats:
    """K by class, lam, and kappa and mass of 2 mass - 4 kappa sum cos k, fitted to K of every momentum."""
    kernel, lam = found
    angles = np.meshgrid(*(np.cos(2 * np.pi * np.arange(L) / L) for L in shape), indexing="ij")
    cosines = np.sum(angles, axis=0)
    design = np.stack([-4 * cosines.ravel(), np.full(cosines.size, 2.0)], 1)
    kappa, mass = np.linalg.lstsq(design, kernel.ravel(), rcond=None)[0]
    by_class = [float(kernel[members[0]]) for members in momentum_classes(shape)]
    return np.array([*by_class, lam, kappa, mass])


def text(result: dict[str, Any]) -> str:
    """The couplings that the prior has learned."""
    rows = [["coupling", "score matching", "of the action", "pull"]]
    for name in ("lam", "kappa", "mass"):
        known = result["action"]
        true, size = (f"{known[name]:.6g}", f"{result['pulls'][name]:+.1f}") if known else ("-", "-")
        rows.append([name, format_value(*result[name]), true, size])
    verdict = {True: "passed", False: "NOT passed", None: "no verdict: the action is not phi^4"}
    low = min(result["kernel"])
    return "\n".join([
        *aligned(rows),
        f"K(k) from {low:.4g} to {max(result['kernel']):.4g}, 1/G(k) from {min(result['gaussian']):.4g} to "
        f"{max(result['gaussian']):.4g}" + ("; K is not positive: without phi^4 no law" if low <= 0 else ""),
        f"{result['n']} fields, errors over {result['n_blocks']} blocks of chains; "
        f"{verdict[result['passed']]}",
    ])  # fmt: skip


def figure(result: dict[str, Any]) -> Figure:
    """K(k) beside 1/G(k)."""
    return quartic_figure(result)

"""What a complex Langevin verdict is made of: averages by chain, the drift's tail and histogram, and boundary
terms against the cut-off.  `lattice.certificates.complex_langevin` says what they mean and judges them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lattice.actions.protocol import Action
from lattice.actions.u1 import U1, circulation
from lattice.arrays import Complexes, Floats, complex_array, real_array
from lattice.statistics.pulls import mean_and_error
from lattice.statistics.rounding import rms

DEPTHS = (10, 30, 100, 300, 1000, 3000, 10000)
MAX_GROUPS, N_BINS = 100, 60
Curves = dict[str, dict[str, list[float]]]


def powers(action: Action) -> dict[str, tuple[int, bool]]:
    """The observables of a verdict, functions of `variables`: name -> (n, whether it is e^{inz}, not z^n)."""
    if isinstance(action, U1):
        return {"U_p": (1, True), "1/U_p": (-1, True), "U_p^2": (2, True), "1/U_p^2": (-2, True)}
    if action.period is not None:
        return {"e^{iz}": (1, True), "e^{2iz}": (2, True)}
    return {"z^2": (2, False), "z^4": (4, False)}


def variables(action: Action, z: Complexes) -> Complexes:
    """What a verdict looks at: z (..., *components, *shape) itself, but of links of U(1), which have a gauge,
    the plaquettes theta_p (..., L0, L1), U_p = e^{i theta_p}."""
    return _plaquettes(z) if isinstance(action, U1) else z


def _plaquettes(z: Complexes) -> Complexes:
    return np.asarray(circulation(torch.from_numpy(np.ascontiguousarray(z))).numpy())


def chain_averages(action: Action, z: Complexes) -> dict[str, Floats]:
    """The average of every chain over its times and sites, z (n_chains, n_times, *shape) -> (n_chains,), of
    "Re z^2", "Im z^2", ..."""
    z = variables(action, complex_array(z, "z"))
    out: dict[str, Floats] = {}
    for name, (n, wave) in powers(action).items():
        means = (np.exp(1j * n * z) if wave else z**n).reshape(len(z), -1).mean(axis=1)
        out |= {f"Re {name}": means.real, f"Im {name}": means.imag}
    return out


def chain_scales(action: Action, z: Complexes) -> dict[str, float]:
    """The rms of the terms of `chain_averages`, by the same names: averages are exact to its rounding."""
    out: dict[str, float] = {}
    z = variables(action, z)
    for name, (n, wave) in powers(action).items():
        size = rms(np.exp(1j * n * z) if wave else z**n)
        out |= {f"Re {name}": size, f"Im {name}": size}
    return out


def boundary_density(action: Action, z: Complexes) -> dict[str, Complexes]:
    """O'' + K O' averaged over the sites, for O of `powers`: z (n_chains, n_times, *shape) -> (n_chains,
    n_times). Of a plaquette the sum over its four links, where O'' is -4 n^2 O and K that of theta_p.

    >>> from lattice.actions.one_variable import ComplexGaussian
    >>> boundary_density(ComplexGaussian(1.0), np.array([[2.0 + 0j]]))["z^2"].tolist()     # 2 - 2 z^2
    [[(-6+0j)]]
    """
    z = complex_array(z, "z")
    flat = z.reshape(-1, *z.shape[2:])
    drift, out = -action.grad(torch.from_numpy(flat)).numpy(), {}
    flat, drift = variables(action, flat), variables(action, drift)
    links = 4 if isinstance(action, U1) else 1
    for name, (n, wave) in powers(action).items():
        if wave:
            density = np.exp(1j * n * flat) * (1j * n * drift - links * n * n)
        else:
            density = n * flat ** (n - 2) * (n - 1 + drift * flat)
        out[name] = density.reshape(*z.shape[:2], -1).mean(axis=2)
    return out


def drift_tail(drift: Floats) -> dict[str, list[float]]:
    """Hill's exponent 1/<ln(k/k_m)> over the m largest of drift (n_chains, n_times), m = 10, 30, ... up to a
    hundredth of all; its error is exponent/sqrt(number of chains among them)."""
    drift = real_array(drift, "drift")
    order = np.argsort(drift, axis=None, kind="stable")[::-1]
    values, chain = drift.reshape(-1)[order], order // drift.shape[1]
    out: dict[str, list[float]] = {"m": [], "drift": [], "exponent": [], "error": []}
    for m in DEPTHS:
        if m > max(DEPTHS[0], drift.size // 100) or m >= drift.size:
            break
        if values[m] > 0:
            mean = float(np.mean(np.log(values[:m] / values[m])))
        else:  # a drift that vanishes everywhere has no tail, one that rises from zero the longest
            mean = math.inf if values[0] > 0 else 0.0
        exponent = 1.0 / max(mean, 1e-12)
        independent = len(np.unique(chain[:m]))
        for key, x in zip(out, (m, values[m], exponent, exponent / math.sqrt(independent)), strict=True):
            out[key].append(float(x))
    return out


def drift_histogram(drift: Floats) -> dict[str, list[float]]:
    """Density of |K| on a logarithmic grid: edges (n + 1,), density per unit of |K| and error (n,)."""
    drift = real_array(drift, "drift")
    lowest, highest = float(np.quantile(drift, 1e-3)), float(drift.max()) * (1 + 1e-12)
    if not 0 < lowest < highest:
        return {"edges": [], "density": [], "error": []}
    edges = np.geomspace(lowest, highest, N_BINS + 1)
    counts = np.stack([np.histogram(group, edges)[0] / group.size for group in _groups(drift)])
    width = np.diff(edges)
    error = counts.std(axis=0, ddof=1) / math.sqrt(len(counts)) / width
    return {
        "edges": edges.tolist(),
        "density": (counts.mean(axis=0) / width).tolist(),
        "error": error.tolist(),
    }


def _groups(x: NDArray[Any]) -> list[NDArray[Any]]:
    """(n_chains, ...) cut into at most MAX_GROUPS groups of chains, of equal size where that is possible."""
    return np.array_split(x, min(len(x), MAX_GROUPS))


def cut_off(density: Complexes, y: Floats) -> Curves:
    """Re and Im of B(Y) with errors, no less than rounding: Y such that the weight beyond is 0.3, 0.1, 0.03,
    ..., 3/N, 0."""
    density, y = complex_array(density, "density"), real_array(y, "y")
    falling = np.sort(y, axis=None)[::-1]
    n, weights = y.size, []
    k = 1
    while (p := 10.0 ** (-k / 2)) * n >= 3:
        weights.append(p)
        k += 1
    cuts = [float(falling[int(p * n)]) for p in weights] + [float(falling[0])]
    value, error, scale = [], [], rms(density)
    for cut in cuts:
        means = np.where(y <= cut, density, 0.0).mean(axis=1)
        parts = [mean_and_error(part, scale) for part in (means.real, means.imag)]
        value.append(complex(*(mean for mean, _ in parts)))
        error.append(complex(*(own for _, own in parts)))
    common = {"Y": cuts, "weight": [*weights, 0.0] if cuts[-1] > 0 else [0.0] * len(cuts)}
    return {
        "Re": {**common, "value": [v.real for v in value], "error": [e.real for e in error]},
        "Im": {**common, "value": [v.imag for v in value], "error": [e.imag for e in error]},
    }

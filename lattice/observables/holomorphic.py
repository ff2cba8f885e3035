r"""The table of a complex Langevin ensemble: moments and cumulants of z, beside the exact numbers.

Averages are of holomorphic functions of z = x + iy, real and imaginary parts each with its own error by the
Gamma method over the chains (or, where these are too short, the jackknife with chains as blocks).  The
process and its starts are symmetric under z -> -z: even cumulants have the odd moments at their exact value
0, as `lattice.statistics.cumulants.cumulant_ratio_z2` does; odd moments are shown as they come and must
vanish.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lattice.actions.complexified import Complexified
from lattice.actions.phi4 import ComplexPhi4
from lattice.actions.protocol import Action
from lattice.actions.u1 import OneLink
from lattice.arrays import Complexes, Floats
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.complex_phi4 import phi4_exact
from lattice.exact.one_variable import toy_cumulants, toy_moments
from lattice.statistics.cumulants import cumulants_from_moments
from lattice.statistics.gamma import Derived, EstimatorError, gamma_method
from lattice.statistics.jackknife import jackknife
from lattice.statistics.notation import aligned, format_value

N_MAX, N_WAVES = 8, 4
METHOD = "Gamma method (Wolff hep-lat/0306017), tau_int = 1/2 + sum_t rho(t) in saved configurations"
SYMMETRY = "even cumulants with the odd moments at their exact value 0 (z -> -z)"
# name -> the primaries it needs, its function of their complex means, and the exact value if it is known
Known = dict[str, tuple[list[str], Callable[[Complexes], complex], complex | None]]


def complex_table(ensemble: Ensemble) -> dict[str, Any]:
    """Moments and cumulants of a complexified ensemble, JSON data.

    {"ensemble": {identity, action, shape, n, n_chains}, "observables": {name: {"re", "im": {value, error,
    tau_int, exact, pull[, reason]}}}, "method", "symmetry"}. One variable: z^1..z^8 and kappa2, 4, 6, 8; the
    one-link model: e^{inz}, n = 1..4; a lattice: phi2, phi4 and G0 = <(sum_x phi_x)^2>/V. With all of them
    Schwinger-Dyson, <z S'(z)> = 1 per site (one-link: <e^{iz}> - beta/2 <1 - e^{2iz}> = 0). exact and pull
    are None where no exact value is known. Raises `InputError` for an ensemble that is not complexified.
    """
    if not isinstance(ensemble.action, Complexified):
        raise InputError("a table of complex moments needs an ensemble of complex fields (x + iy)")
    action = ensemble.action.inner
    z = ensemble.phi[:, 0] + 1j * ensemble.phi[:, 1]
    series = primaries(action, z)
    replicas = [np.asarray(part) for part in ensemble.replicas()]
    observables = {
        name: {
            "re": _estimate([series[key] for key in keys], replicas, f, exact, "re"),
            "im": _estimate([series[key] for key in keys], replicas, f, exact, "im"),
        }
        for name, (keys, f, exact) in definitions(action, z.shape[1:]).items()
    }
    return {
        "ensemble": {
            "identity": ensemble.identity, "action": ensemble.action.as_dict(), "shape": list(ensemble.shape),
            "n": len(ensemble), "n_chains": len(replicas),
        },
        "observables": observables, "method": METHOD, "symmetry": SYMMETRY,
    }  # fmt: skip


def primaries(action: Action, z: Complexes) -> dict[str, Complexes]:
    """The series whose means everything is made of: z (n, *shape) -> complex (n,) each."""
    if isinstance(action, OneLink):
        return {f"e^{{{_wave(n)}iz}}": np.exp(1j * n * z) for n in range(1, N_WAVES + 1)}
    if not isinstance(action, ComplexPhi4):
        return {f"z^{n}": z**n for n in range(1, N_MAX + 1)}
    axes = tuple(range(1, z.ndim))
    drift = action.grad(torch.from_numpy(z)).numpy()
    volume = math.prod(z.shape[1:])
    return {
        "phi2": (z**2).mean(axis=axes),
        "phi4": (z**4).mean(axis=axes),
        "G0": z.sum(axis=axes) ** 2 / volume,
        "phi S'": (z * drift).mean(axis=axes),
    }


def definitions(action: Action, shape: tuple[int, ...]) -> Known:
    """The rows of the table by name."""
    if isinstance(action, OneLink):
        return _one_link(action)
    if isinstance(action, ComplexPhi4):
        return _lattice(action, shape)
    out: Known = {}
    exact = toy_moments(action, range(1, N_MAX + 1))
    for n in range(1, N_MAX + 1):
        out[f"z^{n}"] = ([f"z^{n}"], _first, complex(exact[n - 1]) if n % 2 == 0 else 0j)
    kappa = toy_cumulants(action, N_MAX)
    for n in range(2, N_MAX + 1, 2):
        keys = [f"z^{m}" for m in range(2, n + 1, 2)]
        out[f"kappa{n}"] = (keys, even_cumulant, complex(kappa[n - 1]))
    c2, c4 = _sd_coefficients(action)
    out["Schwinger-Dyson"] = (["z^2", "z^4"], lambda m: c2 * complex(m[0]) + c4 * complex(m[1]), 1 + 0j)
    return out


def even_cumulant(even_moments: Complexes) -> complex:
    """kappa_n from <z^2>, <z^4>, ..., <z^n> (n/2,), complex, the odd moments 0.

    >>> even_cumulant(np.array([1.0, 3.0]))                       # a Gaussian
    0j
    """
    moments = np.zeros(2 * len(even_moments), dtype=np.complex128)
    moments[1::2] = even_moments
    return complex(cumulants_from_moments(moments)[-1])


def _sd_coefficients(action: Action) -> tuple[complex, float]:
    """z S' = c2 z^2 + c4 z^4, read off S' at two points."""
    at = action.grad(torch.tensor([1.0, 2.0], dtype=torch.complex128)).numpy()
    c4 = complex(at[1] - 2 * at[0]) / 6
    return complex(at[0]) - c4, c4.real


def _one_link(action: OneLink) -> Known:
    exact = toy_moments(action, range(1, N_WAVES + 1))
    names = [f"e^{{{_wave(n)}iz}}" for n in range(1, N_WAVES + 1)]
    out: Known = {name: ([name], _first, complex(x)) for name, x in zip(names, exact, strict=True)}

    def balance(m: Complexes) -> complex:
        return complex(m[0] - 0.5 * action.beta * (1 - m[1]))

    return {**out, "Schwinger-Dyson": (names[:2], balance, 0j)}


def _lattice(action: ComplexPhi4, shape: tuple[int, ...]) -> Known:
    try:
        known = phi4_exact(action, shape)
        values: list[complex | None] = [known.phi2, known.phi4, known.zero_mode]
    except InputError:
        values = [None, None, None]
    out: Known = {name: ([name], _first, x) for name, x in zip(("phi2", "phi4", "G0"), values, strict=True)}
    return {**out, "Schwinger-Dyson": (["phi S'"], _first, 1 + 0j)}


def _wave(n: int) -> str:
    return "" if n == 1 else str(n)


def _first(means: Complexes) -> complex:
    return complex(means[0])


def _estimate(
    series: list[Complexes], replicas: list[NDArray[np.int64]], f: Callable[[Complexes], complex],
    exact: complex | None, part: str,
) -> dict[str, Any]:  # fmt: skip
    data = np.stack([x for s in series for x in (s.real, s.imag)], axis=1)

    def derived(means: Floats) -> float:
        value = f(means[0::2] + 1j * means[1::2])
        return value.real if part == "re" else value.imag

    value = derived(data.mean(axis=0))
    truth = None if exact is None else exact.real if part == "re" else exact.imag
    row: dict[str, Any] = {"value": value, "error": None, "tau_int": None, "exact": truth, "pull": None}
    try:
        error, tau = _error([data[index] for index in replicas], derived)
    except EstimatorError as reason:
        return {**row, "reason": str(reason)}
    pull = None if truth is None else (value - truth) / error
    return {**row, "error": error, "tau_int": tau, "pull": pull}


def _error(data: list[Floats], f: Derived) -> tuple[float, float | None]:
    try:
        estimate = gamma_method(data, f)
    except EstimatorError:
        estimate = jackknife(data, f)
    return estimate.error, estimate.tau_int if math.isfinite(estimate.tau_int) else None


def format_complex_table(table: dict[str, Any]) -> str:
    """Aligned text: a row per observable, for Re and Im value(error), exact value and pull; tau_int."""
    rows = [["", "Re", "exact", "pull", "Im", "exact", "pull", "tau_int"]]
    notes = []
    for name, parts in table["observables"].items():
        row = [name]
        for part in ("re", "im"):
            entry = parts[part]
            value, error = entry["value"], entry["error"]
            row.append(format_value(value, error) if error else f"{value:.6g}")
            row.append("-" if entry["exact"] is None else f"{entry['exact']:.6f}")
            row.append("-" if entry["pull"] is None else f"{entry['pull']:+.1f}")
            if "reason" in entry:
                notes.append(f"{part.capitalize()} {name}: {entry['reason']}")
        taus = [parts[part]["tau_int"] for part in ("re", "im") if parts[part]["tau_int"] is not None]
        rows.append([*row, f"{max(taus):.2f}" if taus else "-"])
    block = table["ensemble"]
    ending = f"n = {block['n']} in {block['n_chains']} chains, {table['method']}"
    return "\n".join([*aligned(rows), *notes, ending, table["symmetry"]])

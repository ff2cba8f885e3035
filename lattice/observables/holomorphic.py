r"""One variable, real or complex, and complex fields on a lattice: moments and cumulants of z, with errors.

    one variable   m_n = <z^n>, n = 1 ... 8, kappa_n, n = 2, 4, 6, 8    <z S'(z)> = 1
    one link       <e^{inz}>, n = 1 ... 4                               <e^{iz}> - beta/2 <1 - e^{2iz}> = 0
    lattice        phi2, phi4 per site, G0 = <(sum_x phi_x)^2>/V        <phi S'> = 1 per site
    links of U(1)  loops and the smooth charge: `lattice.observables.complex_gauge`

Averages are of holomorphic functions of z = x, stored as (n, 1), or x + iy, stored as (n, 2, *components,
*shape), real and imaginary part each with its own error; the last column, of links the last of the averages,
is the Schwinger-Dyson equation. The laws of one variable are symmetric under z -> -z: odd moments must
vanish, and in the cumulants they have their exact value 0 (see
`lattice.statistics.cumulants.cumulant_ratio_z2`). Jackknife errors leave out blocks: whole chains, long
parts of few chains, or consecutive independent draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange

from lattice.actions.phi4 import ComplexPhi4
from lattice.actions.protocol import says_itself
from lattice.actions.u1 import U1, OneLink
from lattice.arrays import Complexes, Floats, Integers, integer_array, number_array, real_array, same_length
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.complex_phi4 import phi4_exact
from lattice.exact.one_variable import toy_cumulants, toy_moments
from lattice.observables.complex_gauge import gauge_exact, gauge_series
from lattice.statistics.blocks import jackknife_errors
from lattice.statistics.cumulants import cumulants_from_moments, moments_from_cumulants
from lattice.statistics.rounding import rounding_of

ORDERS = (2, 4, 6, 8)
ODD = tuple(f"m{order - 1}" for order in ORDERS)
NAMES = tuple(f"{kind}{order}" for kind in ("m", "kappa") for order in ORDERS)
WAVES = ("e^{iz}", "e^{2iz}", "e^{3iz}", "e^{4iz}")
DYSON = "Schwinger-Dyson"
N_BLOCKS, MIN_BLOCKS = 256, 16
ROUNDING = 1e-12  # of quadrature, relative to the moment of the same order
TAUS = 20  # of 2 tau_int in a block of a Metropolis chain, at least


@dataclass(frozen=True)
class Rows:
    """What is measured: `of_means` turns means (..., k) of series (n, k) into one number per name.

    columns: the names of the series; exact: the numbers known without Monte Carlo, by name.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    series: Any
    of_means: Callable[[Any], Any]
    exact: Mapping[str, complex]

    @property
    def is_complex(self) -> bool:
        return np.iscomplexobj(self.series)


def is_holomorphic(ensemble: Ensemble) -> bool:
    """Complex fields stored as (x, y), or one real variable, (n, 1), with an even law."""
    action, alone = ensemble.action, ensemble.phi.shape[1:] == (1,)
    return action.holomorphic is not action or (action.one_variable and action.even and alone)


def variable(phi: Floats) -> Floats | Complexes:
    """z (n, *shape) of stored fields: phi (n, 1) as it is, phi (n, 2, *shape) as x + iy."""
    return phi[:, 0] if phi.shape[1] == 1 else phi[:, 0] + 1j * phi[:, 1]


def rows_of(ensemble: Ensemble) -> Rows:
    """The rows of a holomorphic ensemble.

    Gaussian noise in samples of a real variable, of variance about["noise2"], is taken off kappa_2 and the
    moments; of a complex one it averages out.
    """
    action, z = ensemble.action, variable(ensemble.phi)
    inner = action.holomorphic
    if isinstance(inner, OneLink):
        waves = np.stack([np.exp(1j * n * z) for n in range(1, len(WAVES) + 1)], axis=1)
        beta = inner.beta

        def balance(m: Any) -> Any:
            return np.concatenate([m, m[..., :1] - 0.5 * beta * (1 - m[..., 1:2])], axis=-1)

        exact = _known(lambda: dict(zip(WAVES, toy_moments(inner, range(1, len(WAVES) + 1)))))
        return Rows((*WAVES, DYSON), WAVES, waves, balance, {**exact, DYSON: 0.0})
    if isinstance(inner, U1):
        names, series, of_means = gauge_series(inner, np.asarray(z, dtype=np.complex128))
        exact = _known(lambda: gauge_exact(inner, z.shape[2:]) if says_itself(inner, "kind") else {})
        return Rows(names, names[: series.shape[1]], series, of_means, {**exact, DYSON: 0.0})
    dyson = z * variable(action.grad(torch.from_numpy(ensemble.phi)).numpy())
    if z.ndim > 1:
        sites = rearrange(z, "n ... -> n (...)")
        terms = [x.mean(axis=1) for x in (sites**2, sites**4, rearrange(dyson, "n ... -> n (...)"))]
        columns = np.stack([*terms[:2], sites.sum(axis=1) ** 2 / sites.shape[1], terms[2]], axis=1)
        names = ("phi2", "phi4", "G0", DYSON)
        exact = _known(lambda: _lattice_exact(inner, z.shape[1:]))
        return Rows(names, names, columns, lambda m: m, {**exact, DYSON: 1.0})
    if not action.even:
        raise InputError("moments of a complex variable are measured for laws symmetric under z -> -z only")
    noise2, powers, even = noise_of(ensemble), [z**n for n in ORDERS], NAMES[: len(ORDERS)]
    exact = _known(lambda: {name: complex(*pair) for name, pair in exact_numbers(action).items()})
    if noise2:
        return Rows(NAMES, even, np.stack(powers, axis=1), lambda m: numbers(m, noise2), exact)

    def moments(m: Any) -> Any:
        return np.concatenate([numbers(m[..., : len(ORDERS)]), m[..., len(ORDERS) :]], axis=-1)

    columns, others = np.stack([*powers, *(z ** (n - 1) for n in ORDERS), dyson], axis=1), (*ODD, DYSON)
    known = {**exact, **dict.fromkeys(ODD, 0.0), DYSON: 1.0}
    return Rows((*NAMES, *others), (*even, *others), columns, moments, known)


def noise_of(ensemble: Ensemble) -> float:
    """The variance of Gaussian noise in the samples of a real variable, 0 for all others."""
    real = ensemble.phi.shape[1] == 1
    return float((ensemble.attrs.get("about") or {}).get("noise2", 0.0)) if real else 0.0


def _known(exact: Callable[[], Mapping[str, complex]]) -> Mapping[str, complex]:
    """Exact numbers where there are any."""
    try:
        return exact()
    except InputError:
        return {}


def _lattice_exact(action: Any, shape: tuple[int, ...]) -> dict[str, complex]:
    if not (isinstance(action, ComplexPhi4) and says_itself(action, "kind")):
        return {}
    known = phi4_exact(action, shape)
    return {"phi2": known.phi2, "phi4": known.phi4, "G0": known.zero_mode}


def numbers(even: Any, noise2: float = 0.0) -> Any:
    """m_2 ... m_8 and kappa_2 ... kappa_8, (..., 8), of <z^2> ... <z^8> (..., 4), the odd moments 0.

    noise2: variance of Gaussian noise in z, taken off kappa_2 (the moments are then those without it).

    >>> numbers(np.array([1.0, 3.0, 15.0, 105.0]))[4:]                       # a Gaussian
    array([1., 0., 0., 0.])
    """
    moments = np.zeros((*even.shape[:-1], ORDERS[-1]), dtype=even.dtype)
    moments[..., 1::2] = even
    kappa = cumulants_from_moments(moments)
    if noise2:
        kappa[..., 1] -= noise2
        moments = np.asarray(moments_from_cumulants(kappa))
    return np.concatenate([moments[..., 1::2], kappa[..., 1::2]], axis=-1)


def few_chains(ensemble: Ensemble) -> bool:
    """Markov chains, too few to be the blocks of a jackknife: their errors are those of the Gamma method."""
    n = len(np.unique(ensemble.chain))
    markov = ensemble.log_weight is None and (n > 1 or "stride" in ensemble.attrs)
    return markov and n < MIN_BLOCKS


def blocks_of(ensemble: Ensemble) -> Integers:
    """The jackknife block (n,) of every configuration: chains in groups, or runs of samples, chain by chain,
    of few chains as long as can be.

    Raises `InputError` for fewer than 16 configurations.
    """
    chains, index = np.unique(ensemble.chain, return_inverse=True)
    if len(chains) >= MIN_BLOCKS:
        return np.asarray(index * min(N_BLOCKS, len(chains)) // len(chains))
    if len(ensemble.phi) < MIN_BLOCKS:
        raise InputError(f"{len(ensemble.phi)} configurations are too few for errors; {MIN_BLOCKS} or more")
    n, a = len(ensemble.phi), (ensemble.attrs.get("about") or {}).get("acceptance", 1.0)
    long = int(n * a / (2 - a) / TAUS)  # independence Metropolis: 2 tau_int = (2 - a)/a
    blocks = MIN_BLOCKS if few_chains(ensemble) else max(MIN_BLOCKS, min(N_BLOCKS, long if a < 1 else n))
    block = np.empty(n, dtype=np.int64)
    block[np.concatenate(ensemble.replicas())] = np.arange(n) * blocks // n
    return block


def without_blocks(
    columns: Any, of_means: Callable[[Any], Any], block: Integers, weight: Floats | None = None
) -> tuple[Complexes, Complexes]:
    """Numbers of the means of columns (n, k) and their errors by the jackknife over blocks (n,), Re and Im.

    weight (n,): averages are sum w x / sum w.
    """
    columns, block = number_array(columns, "columns"), integer_array(block, "block")
    w = np.ones(len(columns)) if weight is None else real_array(weight, "weight")
    same_length(columns=columns, block=block, weight=w)
    total, n_blocks = np.bincount(block, weights=w), int(block.max()) + 1
    sums = np.zeros((n_blocks, columns.shape[1]), dtype=np.complex128)
    for k in range(columns.shape[1]):
        x = w * columns[:, k]
        sums[:, k] = np.bincount(block, weights=x.real)
        if np.iscomplexobj(x):
            sums[:, k] += 1j * np.bincount(block, weights=x.imag)
    means = sums.sum(0) / total.sum()
    left_out = of_means((sums.sum(0) - sums) / (total.sum() - total)[:, None])
    floor = rounding_of(of_means, means, columns)
    errors = [
        np.where(found > 0, np.maximum(found, floor), 0.0)
        for found in (jackknife_errors(left_out.real), jackknife_errors(left_out.imag))
    ]
    return of_means(means), errors[0] + 1j * errors[1]


def estimates(
    z: Floats | Complexes, block: Integers, noise2: float = 0.0, weight: Floats | None = None
) -> dict[str, dict[str, Any]]:
    """m2...m8 and kappa2...kappa8 of z (n,): {"value": [re, im], "error": [re, im]}, errors from blocks (n,).

    noise2 as in `numbers`. Raises `InputError` where a number is not finite.

    >>> found = estimates(np.array([1.0, -1.0] * 64), np.arange(128) // 4)
    >>> found["kappa4"]["value"], found["kappa4"]["error"]
    ([-2.0, 0.0], [0.0, 0.0])
    """
    z = number_array(z, "z")
    if not np.isfinite(z).all():
        raise InputError(f"{int((~np.isfinite(z)).sum())} of {len(z)} samples are NaN or infinite")
    powers = np.stack([z**order for order in ORDERS], axis=1)
    value, error = without_blocks(powers, lambda m: numbers(m, noise2), block, weight)
    pairs = (np.stack([x.real, x.imag], axis=1).tolist() for x in (value, error))
    return {name: {"value": v, "error": e} for name, v, e in zip(NAMES, *pairs)}


def exact_numbers(action: Any) -> dict[str, list[float]]:
    """The same numbers by quadrature: name -> [re, im], zero where they are rounding."""
    kappa, moments = toy_cumulants(action, ORDERS[-1]), toy_moments(action, ORDERS)
    values = np.concatenate([moments, kappa[[order - 1 for order in ORDERS]]])
    size = np.maximum(np.abs(moments), np.abs(moments[0]) ** (np.array(ORDERS) / 2))
    pairs = np.stack([values.real, values.imag], 1)
    pairs[np.abs(pairs) < ROUNDING * np.tile(size, 2)[:, None]] = 0.0
    return dict(zip(NAMES, pairs.tolist()))


def parts(name: str, is_complex: bool) -> list[tuple[str, int]]:
    """The rows of a name: (label, 0) for the real and (label, 1) for the imaginary part.

    >>> parts("kappa4", True), parts("m2", False)
    ([('Re kappa4', 0), ('Im kappa4', 1)], [('m2', 0)])
    """
    return [(f"Re {name}", 0), (f"Im {name}", 1)] if is_complex else [(name, 0)]

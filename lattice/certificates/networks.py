r"""The certificate of an ensemble of random networks: are these independent fields of the law they claim?

There is no action, so there is no identity of exp(-S): what is asked is that of the exact cumulants, the even
ones to order 8 and, all laws being even, <M> and kappa_3 of a site, which are 0. Of independence: rho(1) of
M^2 and phi^2 in the order of drawing is 0, and no field is there twice; more is not seen.

Errors come from the scatter of independent groups of fields, the ensemble's chains. Every check is a
deviation in units of its own error, but for that of copies. Of the sample kappa_2n of a site the exact
variance is known too, and with it how many networks show kappa_2n of one site at three sigma of its error; an
order that asks for more of them than there are is listed with that number and not tested: where a mean is
carried by networks that are not in the sample, the sample's own error says nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.stats

from lattice.actions.networks import FreeNet, InputNet, LocalNet, Network, lattice_inputs
from lattice.arrays import Floats
from lattice.certificates.check import GATE, Check, equality, make_check
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.shards import batches
from lattice.errors import InputError
from lattice.exact.network_fields import (
    cumulant_variance,
    four_point,
    networks_needed,
    propagator,
    site_cumulants,
    zero_mode_cumulants,
)
from lattice.exact.network_kernel import joint_cumulant, with_odd
from lattice.statistics.blocks import jackknife_errors
from lattice.statistics.cumulants import cumulants_from_moments, moments_from_cumulants
from lattice.statistics.gamma import EstimatorError, gamma_method
from lattice.statistics.pulls import sigmas_of

ORDERS = (2, 4, 6, 8)
SIGMAS = 3.0  # at which an order must show to be tested
PER_CLASS = 4  # groups of fields for each class of momenta in chi^2
ABSENT = 1e-9  # of the largest G(k): less is a momentum that the net does not have
LAG = 1


def certify_network(ensemble: Ensemble) -> dict[str, Any]:
    """Certify fields of a network against its exact cumulants; the content as of
    `lattice.certificates.monte_carlo.certify`, with tau_int 1/2 among what is checked.

    Raises `InputError` for another law, and for fewer than 8 groups of fields.
    """
    law, chains = network_of(ensemble.action), ensemble.replicas()
    if len(chains) < 8:
        raise InputError(f"groups of fields are the blocks of errors: 8 or more, got {len(chains)}")
    checks = [
        *site_checks(law, ensemble, chains), *zero_mode_checks(law, ensemble, chains),
        propagator_check(law, ensemble, chains), *four_point_checks(law, ensemble, chains),
        *odd_checks(ensemble, chains), copies_check(law, ensemble.phi),
        *(independence(name, values) for name, values in _in_order(ensemble).items()),
    ]  # fmt: skip
    failed = [check["name"] for check in checks if not check["passed"]]
    return {
        "passed": not failed, "reason": f"failed: {', '.join(failed)}" if failed else "", "checks": checks,
        "tau_int": {**_tau(ensemble), "unit": "saved configurations, which are independent"},
        "n": len(ensemble), "n_chains": len(chains), "n_independent": float(len(ensemble)),
        "acceptance": None, "exp_minus_dH": None, "schwinger_dyson": None, "gate": GATE,
    }  # fmt: skip


def network_of(law: Any) -> Network:
    """The law as a network, or `InputError`."""
    if not isinstance(law, Network):
        raise InputError(f"a network is needed, whose cumulants are known, not {type(law).__name__}")
    return law


def even_cumulants(series: list[Floats]) -> tuple[Floats, Floats]:
    """kappa_2, kappa_4, ... of the even moments in `series`, one (n, n_orders) per group, odd ones being 0,
    and their jackknife errors over the groups: (n_orders,) each."""
    sums, counts = np.stack([x.sum(0) for x in series]), np.array([len(x) for x in series], dtype=float)

    def kappa(moments: Floats) -> Floats:
        whole = np.zeros((*moments.shape[:-1], 2 * moments.shape[-1]))
        whole[..., 1::2] = moments
        return np.asarray(cumulants_from_moments(whole).real[..., 1::2])

    left = (sums.sum(0) - sums) / (counts.sum() - counts)[:, None]
    return kappa(sums.sum(0) / counts.sum()), jackknife_errors(kappa(left))


def _powers(phi: Floats) -> Floats:
    """Means over the sites of phi^2, ..., phi^8: (n, *shape) -> (n, 4)."""
    out = np.empty((len(phi), len(ORDERS)))
    for part in batches(phi.shape):
        square = phi[part].reshape(len(phi[part]), -1) ** 2
        power = square.copy()
        for i in range(len(ORDERS)):
            out[part, i] = power.mean(1)
            power *= square
    return out


def site_checks(law: Network, ensemble: Ensemble, chains: list[Any]) -> list[Check]:
    """kappa_2 to kappa_8 of one site."""
    moments, shape = _powers(ensemble.phi), ensemble.shape
    value, error = even_cumulants([moments[rows] for rows in chains])
    exact = site_cumulants(law, shape)
    needed = {n: networks_needed(law, n // 2, shape=shape, sigmas=SIGMAS) for n in ORDERS}
    return _orders("kappa{} site", value, error, exact, needed, len(ensemble), len(chains))


def odd_checks(ensemble: Ensemble, chains: list[Any]) -> list[Check]:
    """<M>, which is kappa_1 of a site, and kappa_3 of a site: 0 of even laws. Errors by jackknife."""
    means, axes = np.empty((len(ensemble), 3)), tuple(range(1, ensemble.phi.ndim))
    for part in batches(ensemble.phi.shape):
        phi = ensemble.phi[part]
        means[part] = np.stack([phi.mean(axes), (phi**2).mean(axes), (phi**3).mean(axes)], axis=1)
    sums = np.stack([means[rows].sum(0) for rows in chains])
    counts = np.array([len(rows) for rows in chains], dtype=float)[:, None]
    value = cumulants_from_moments(sums.sum(0) / counts.sum()).real
    left = cumulants_from_moments((sums.sum(0) - sums) / (counts.sum() - counts)).real
    error = jackknife_errors(np.asarray(left))
    return [
        equality(name, float(value[i]), float(error[i]), len(chains) - 1, 0.0, "the law is even")
        for name, i in (("<M>", 0), ("kappa3 site", 2))
    ]


def copies_check(law: Network, phi: Floats) -> Check:
    """No field twice. Fields that are 0 everywhere do not count: those of no neurons. Of neurons with places
    and weights +-1 there are finitely many fields, of which some come again: not tested."""
    flat = np.ascontiguousarray(phi.reshape(len(phi), -1)) + 0.0
    kept = [row.tobytes() for row in flat if row.any()]
    copies = len(kept) - len(set(kept))
    finite = isinstance(law, LocalNet) and law.output == "signs"
    detail = "finitely many fields: not tested" if finite else "independent fields"
    return make_check("fields seen before", float(copies), None, "0", finite or not copies, detail)


def zero_mode_checks(law: Network, ensemble: Ensemble, chains: list[Any]) -> list[Check]:
    """kappa_2 and, where it is known, kappa_4 of M."""
    m = ensemble.phi.reshape(len(ensemble), -1).mean(1)
    moments = np.stack([m**2, m**4], axis=1)
    value, error = even_cumulants([moments[rows] for rows in chains])
    exact = {n: k for n, k in zero_mode_cumulants(law, ensemble.shape).items() if n <= 4}
    needed = {2: 0.0}
    if isinstance(law, FreeNet):
        even = np.array(list(zero_mode_cumulants(law, ensemble.shape, 8).values()))
        variance = cumulant_variance(moments_from_cumulants(with_odd(even))[1::2], 2)
        needed[4] = SIGMAS**2 * variance / exact[4] ** 2 if exact[4] else math.inf
    return _orders("kappa{} of M", value, error, exact, needed, len(ensemble), len(chains))


def _orders(
    label: str, value: Floats, error: Floats, exact: dict[int, float], needed: dict[int, float], n: int,
    n_chains: int,
) -> list[Check]:  # fmt: skip
    checks = []
    for i, (order, expected) in enumerate(exact.items()):
        name, wanted = label.format(order), needed[order]
        if math.isfinite(wanted) and wanted > n:
            at = " at one site" if "site" in label else ""
            words = f"needs {wanted:.2g} networks{at}: not tested"
            checks.append(make_check(name, float(value[i]), float(error[i]), f"{expected:g}", True, words))
        else:
            checks.append(equality(name, float(value[i]), float(error[i]), n_chains - 1, expected))
    return checks


def propagator_check(law: Network, ensemble: Ensemble, chains: list[Any]) -> Check:
    """G(k) of the classes of equal exact G(k), the largest of them first: Hotelling's T^2 of the groups'
    means, which counts correlations between momenta."""
    exact, phi = propagator(law, ensemble.shape).ravel(), ensemble.phi
    unit = exact.max()
    levels, label = np.unique(np.round(exact / unit, 10), return_inverse=True)
    rows = np.empty((len(phi), len(levels)))
    size = np.bincount(label)
    axes, volume = tuple(range(1, phi.ndim)), phi[0].size
    for part in batches(phi.shape):
        power = (np.abs(np.fft.fftn(phi[part], axes=axes)) ** 2).reshape(-1, volume) / volume
        rows[part] = np.stack([power[:, label == i].sum(1) for i in range(len(levels))], 1) / size
    chosen = [i for i in np.argsort(-levels) if levels[i] > ABSENT][: max(1, len(chains) // PER_CLASS)]
    means = np.stack([rows[each][:, chosen].mean(0) for each in chains])
    known = np.array([exact[label == i].mean() for i in chosen])
    n, p = means.shape
    off = means.mean(0) - known
    covariance = np.atleast_2d(np.cov(means.T)) / n
    t2 = float(off @ np.linalg.solve(covariance, off))
    chance = float(scipy.stats.f.sf(t2 * (n - p) / (p * (n - 1)), p, n - p))
    sigmas = float(-scipy.stats.norm.ppf(max(chance / 2, 1e-300)))
    detail = f"{p} classes of momenta; p = {chance:.2g}"
    return make_check("G(k)", t2, None, f"chi^2 of {p}", sigmas <= GATE, detail)


def displacements(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The r of kappa_4(0, 0, r, r): the nearest neighbour, and half the first axis."""
    zero = (0,) * (len(shape) - 1)
    return [(r, *zero) for r in dict.fromkeys((1, shape[0] // 2)) if 0 < r < shape[0]]


def pair_cumulants(phi: Floats, chains: list[Any], places: list[tuple[int, ...]]) -> tuple[Floats, Floats]:
    """<f_0^2 f_r^2> - <f^2>^2 - 2 <f_0 f_r>^2, averaged over the lattice, at each r of `places`, and
    errors."""
    axes = tuple(range(1, phi.ndim))
    columns = np.empty((len(phi), 1 + 2 * len(places)))
    for part in batches(phi.shape):
        f = phi[part]
        columns[part, 0] = (f * f).mean(axes)
        for i, r in enumerate(places):
            product = f * np.roll(f, r, axes)
            columns[part, 1 + 2 * i] = product.mean(axes)
            columns[part, 2 + 2 * i] = (product * product).mean(axes)
    sums = np.stack([columns[rows].sum(0) for rows in chains])
    counts = np.array([len(rows) for rows in chains], dtype=float)

    def kappa(x: Floats) -> Floats:
        return np.asarray(x[..., 2::2] - x[..., :1] ** 2 - 2 * x[..., 1::2] ** 2)

    left = (sums.sum(0) - sums) / (counts.sum() - counts)[:, None]
    return kappa(sums.sum(0) / counts.sum()), jackknife_errors(kappa(left))


def exact_pairs(law: Network, shape: tuple[int, ...], places: list[tuple[int, ...]]) -> list[float]:
    """The same exactly; `InputError` where it is not known."""
    if not isinstance(law, InputNet):
        return [float(four_point(law, shape)[r]) for r in places]
    x = lattice_inputs(shape).reshape(*shape, -1)
    origin = x[(0,) * len(shape)]
    return [joint_cumulant(law, np.stack([origin, origin, x[r], x[r]])) / law.width for r in places]


def four_point_checks(law: Network, ensemble: Ensemble, chains: list[Any]) -> list[Check]:
    """kappa_4(0, 0, r, r) at a few r, where it is known."""
    places = displacements(ensemble.shape)
    try:
        exact = exact_pairs(law, ensemble.shape, places)
    except InputError:
        return []
    if isinstance(law, InputNet) and networks_needed(law, 2, shape=ensemble.shape) > len(ensemble):
        return []  # as of one site
    value, error = pair_cumulants(ensemble.phi, chains, places)
    return [
        equality(f"kappa4(0,0,r,r) r = {r[0]}", float(v), float(e), len(chains) - 1, known)
        for r, v, e, known in zip(places, value, error, exact, strict=True)
    ]


def _in_order(ensemble: Ensemble) -> dict[str, Floats]:
    """M^2 and phi^2 in the order in which fields were drawn."""
    order = ensemble.in_time()
    return {
        "m2": ensemble.series["magnetization"][order] ** 2,
        "phi2": ensemble.series["phi2"][order],
    }


def independence(name: str, series: Floats) -> Check:
    """rho(1) of a series of independent numbers is 0 within 1/sqrt(n)."""
    x = series - series.mean()
    rho = float((x[:-LAG] * x[LAG:]).sum() / (x * x).sum())
    error = 1 / math.sqrt(len(x))
    passed = sigmas_of(rho, error) <= GATE
    words = {"m2": "M^2", "phi2": "phi^2"}[name]
    return make_check(f"rho(1) of {words}", rho, error, "0", passed, "independent fields")


def _tau(ensemble: Ensemble) -> dict[str, Any]:
    found = {}
    for name, series in _in_order(ensemble).items():
        try:
            estimate = gamma_method([series[:, None]])
        except EstimatorError:
            continue
        found[name] = {"value": estimate.tau_int, "error": estimate.tau_int_error}
    return found

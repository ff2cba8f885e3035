r"""Random networks against what is exact: one site, pairs of sites, widths; and what samples may claim.

A sample of M networks shows kappa_2n at three sigma of its error if M >= `networks_needed`, from the exact
moments to order 4n. Where it cannot, nothing is claimed of that order, whatever its own error says: the mean
is carried by networks that are not among the M.

    kappa_2n ~ N^(1-n)     claimed from the slope of ln |kappa_2n| in ln N over widths that show it, three or
    more free                   claimed from two sites only: a CosNet of Rayleigh weights has the one-site law
    of a
                           free field to all orders, and kappa_4(0, 0, r, r) = (2 G0^2 - 2 G_r^2)/N
    clusters               kappa_4(0, 0, r, r) -> 0 at the largest r
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lattice.actions.networks import NETWORKS, FreeNet, InputNet, LocalNet, Network
from lattice.arrays import Floats
from lattice.certificates.networks import ORDERS, even_cumulants, pair_cumulants
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError, nearest
from lattice.exact.network_fields import four_point, networks_needed, site_cumulants, zero_mode_cumulants
from lattice.exact.network_kernel import field_cumulants
from lattice.simulation.network_fields import draw_fields, draw_points
from lattice.statistics.pulls import sigmas_of

GATE = 4.5
FEWEST = 3  # widths for a slope
GROUPS = 64
Rows = list[dict[str, Any]]


def row(value: float, error: float, exact: float | None, dof: float, **more: Any) -> dict[str, Any]:
    """A number beside the exact one: value, error, exact, pull (signed, as normal sigma) and what else."""
    pull = None if exact is None else math.copysign(sigmas_of(value - exact, error, dof), value - exact)
    return {"value": float(value), "error": float(error), "exact": exact, "pull": pull, **more}


def moments(x: Floats, highest: int = 8) -> Floats:
    """Means of x^2, x^4, ..., x^highest over all axes but the first: (n, ...) -> (n, highest/2)."""
    flat = np.asarray(x).reshape(len(x), -1) ** 2
    power, out = flat.copy(), []
    for _ in range(highest // 2):
        out.append(power.mean(1))
        power = power * flat
    return np.stack(out, axis=1)


def one_site(law: Network, ensemble: Ensemble) -> Rows:
    """kappa_2, ..., kappa_8 of a site, each with `needed`, the networks that show it."""
    found, shape = [], ensemble.shape
    sums = moments(ensemble.phi)
    groups = ensemble.replicas()
    values, errors = even_cumulants([sums[rows] for rows in groups])
    exact = site_cumulants(law, shape)
    for order, value, error in zip(ORDERS, values, errors, strict=True):
        needed = networks_needed(law, order // 2, shape=shape)
        found.append(row(value, error, exact[order], len(groups) - 1, order=order, needed=needed))
    return found


def zero_mode(law: Network, ensemble: Ensemble) -> Rows:
    """kappa_2 and, where it is known, kappa_4 of M."""
    m = ensemble.phi.reshape(len(ensemble), -1).mean(1)
    groups, exact = ensemble.replicas(), zero_mode_cumulants(law, ensemble.shape)
    sums = moments(m[:, None], 4)
    found = zip((2, 4), *even_cumulants([sums[rows] for rows in groups]), strict=True)
    return [row(v, e, exact.get(n), len(groups) - 1, order=n, needed=0.0) for n, v, e in found]


def pairs(law: Network, ensemble: Ensemble) -> Rows:
    """kappa_4(0, 0, r, r) along the first axis, r = 0, ..., L/2; `exact` where it is known."""
    shape, groups = ensemble.shape, ensemble.replicas()
    rest = (0,) * (len(shape) - 1)
    places = [(r, *rest) for r in range(shape[0] // 2 + 1)]
    try:
        known: Any = four_point(law, shape)
    except InputError:
        known = None
    found = zip(places, *pair_cumulants(ensemble.phi, groups, places), strict=True)
    return [
        row(v, e, None if known is None else float(known[r]), len(groups) - 1, r=r[0]) for r, v, e in found
    ]


def siblings(law: Network, shape: tuple[int, ...]) -> dict[str, list[float]]:
    """Exact kappa_4(0, 0, r, r) of nets of the lattice with the propagator and number of neurons of `law`."""
    if not isinstance(law, FreeNet):
        return {}
    n, size = law.neurons(shape), math.prod(shape)
    output = "signs" if law.output == "rayleigh" else law.output
    cos = NETWORKS["cos_net"](max(1, round(n)), law.kappa, law.output, law.lam)  # type: ignore[call-arg]
    nets = {
        "plane waves": cos,
        "places, Poisson": LocalNet(n / size, law.kappa, output, law.lam),
        "places, N fixed": LocalNet(max(1, round(n)) / size, law.kappa, output, law.lam, False),
    }
    rest = (0,) * (len(shape) - 1)
    return {
        name: [float(four_point(net, shape)[(r, *rest)]) for r in range(shape[0] // 2 + 1)]
        for name, net in nets.items()
    }


def freedom(site: Rows, two_sites: Rows | None) -> str:
    """ "free", "not free" or "undecided", of cumulants beyond the second held against 0.

    >>> near, far = row(0.1, 0.1, None, 99), row(5.0, 0.1, None, 99)
    >>> freedom([near], None), freedom([near], [near]), freedom([near], [far]), freedom([far], None)
    ('undecided', 'free', 'not free', 'not free')
    """
    if any(abs(x["value"]) > GATE * x["error"] for x in [*site, *(two_sites or [])]):
        return "not free"
    return "undecided" if two_sites is None else "free"


def clustering(two_sites: Rows) -> dict[str, Any]:
    """Whether kappa_4(0, 0, r, r) is 0 at the largest r, with the sigma by which it is not."""
    far = two_sites[-1]
    sigmas = abs(far["value"]) / far["error"] if far["error"] > 0 else math.inf
    return {"r": far["r"], "value": far["value"], "error": far["error"], "sigmas": sigmas,
            "clusters": sigmas <= GATE}  # fmt: skip


def at_width(law: Network, width: int) -> Network:
    """The same law with another number of neurons; of a local net, with another density, so many times its
    own. `InputError` for a width below 1."""
    couplings = {name: value for name, value in law.as_dict().items() if name != "kind"}
    changed = {"rho": couplings["rho"] * width} if isinstance(law, LocalNet) else {"width": width}
    return NETWORKS[law.kind](**{**couplings, **changed})


def named(words: str, like: InputNet) -> InputNet:
    """The law "kind" or "kind-output" of inputs with the biases of `like`. Raises `InputError` for
    another."""
    kind, _, output = words.partition("-")
    known = {name: net for name, net in NETWORKS.items() if issubclass(net, InputNet)}
    if kind not in known:
        raise InputError(f"no net of inputs {kind!r}{nearest(kind, known)}; known: {', '.join(known)}")
    bias = 0.0 if kind == "relu_net" else 1.0
    return known[kind](like.width, output or "normal", sigma_b=like.sigma_b, sigma_hidden=bias)


def width_table(
    law: Network, widths: Sequence[int], n_networks: int, seed: int, *, shape: tuple[int, ...],
    point: float | None = None,
) -> Rows:  # fmt: skip
    """kappa_2, ..., kappa_8 of n_networks of each width, at one input `point` of a net of inputs, or averaged
    over the sites of a lattice; with `needed` and the noise `floor`, the error of one value per network."""
    found = []
    for width in widths:
        own = at_width(law, width)
        rows = np.arange(n_networks)
        if point is not None and isinstance(own, InputNet):
            x, where = draw_points(own, [[point]], rows, seed), {"point": [point]}
            exact = field_cumulants(own, [point])
        else:
            x, where = draw_fields(own, shape, rows, seed), {"shape": shape}  # type: ignore[dict-item]
            exact = site_cumulants(own, shape)
        sums = moments(x)
        values, errors = even_cumulants([sums[k::GROUPS] for k in range(GROUPS)])
        for order, value, error in zip(ORDERS, values, errors, strict=True):
            needed = networks_needed(own, order // 2, **where)  # type: ignore[arg-type]
            floor = abs(exact[order]) * math.sqrt(needed / n_networks) / 3 if math.isfinite(needed) else error
            found.append(
                row(value, error, exact[order], GROUPS - 1, order=order, width=width, needed=needed,
                    floor=float(floor), seen=bool(needed <= n_networks))
            )  # fmt: skip
    return found


def claim(table: Rows, order: int) -> dict[str, Any]:
    """What the table says of kappa_order ~ N^(1 - order/2): verdict "holds", "refuted" or "refused", the
    slope with its error, and how many networks the smallest width that does not show it needs."""
    own = [x for x in table if x["order"] == order]
    seen = [x for x in own if x["seen"]]
    missing = [x["needed"] for x in own if not x["seen"]]
    about = {"order": order, "expected": 1 - order // 2, "widths": [x["width"] for x in seen]}
    if len(seen) < FEWEST:
        needed = sorted(x["needed"] for x in own)[min(FEWEST, len(own)) - 1]
        return {**about, "verdict": "refused", "slope": None, "needed": needed}
    x, y = np.log([s["width"] for s in seen]), np.log([abs(s["value"]) for s in seen])
    weight = np.array([(s["value"] / s["error"]) ** 2 for s in seen])
    mean = (weight * x).sum() / weight.sum()
    spread = float((weight * (x - mean) ** 2).sum())
    slope, error = float((weight * (x - mean) * y).sum()) / spread, spread**-0.5
    holds = abs(slope - about["expected"]) <= GATE * error  # type: ignore[operator]
    return {
        **about, "verdict": "holds" if holds else "refuted", "slope": [slope, error],
        "needed": min(missing, default=None),
    }  # fmt: skip

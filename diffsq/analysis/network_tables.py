r"""Random networks against what is exact: one site, pairs of sites, widths; and what samples may claim.

A sample of M networks shows kappa_2n at three sigma of its error if M >= `networks_needed`, from the exact
moments to order 4n. Where it cannot, nothing is claimed of that order, whatever its own error says: the mean
is carried by networks that are not among the M.

    kappa_2n ~ N^(1-n)     claimed from the slope of ln |kappa_2n| in ln N over widths that show it, three or
                           more
    free                   claimed from two sites only: a CosNet of Rayleigh weights has the one-site law of a
                           free field to all orders, and kappa_4(0, 0, r, r) = (2 G0^2 - 2 G_r^2)/N
    clusters               kappa_4(0, 0, r, r) -> 0 at the largest r

"not free" and "violated" are cumulants beyond 4.5 errors from 0. "free" and "obeyed" are said only where the
test would have seen otherwise: |value| + 3 errors below a `size`, a third of the law's own cumulant, and at
the largest r G0^2/N, that of neurons that are everywhere. What is neither is "undecided", and what is refused
decides nothing.
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
from lattice.rng import stream_id
from lattice.simulation.network_fields import draw_fields, draw_points
from lattice.statistics.pulls import sigmas_of

GATE = 4.5
BOUND = 3.0  # errors added to a value that is held to be small
SHARE = 1 / 3  # of the exact cumulant, that would have been seen
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
    """kappa_2, ..., kappa_8 of a site, each with `needed`, the networks that show it at one site, `seen` if
    there are as many or if it vanishes, and `size`."""
    found, shape = [], ensemble.shape
    sums = moments(ensemble.phi)
    groups = ensemble.replicas()
    values, errors = even_cumulants([sums[rows] for rows in groups])
    exact = site_cumulants(law, shape)
    for order, value, error in zip(ORDERS, values, errors, strict=True):
        needed = networks_needed(law, order // 2, shape=shape)
        vanishes = math.isinf(needed)
        found.append(
            row(value, error, exact[order], len(groups) - 1, order=order, needed=needed,
                seen=bool(vanishes or needed <= len(ensemble)),
                size=None if vanishes else SHARE * abs(exact[order]))
        )  # fmt: skip
    return found


def zero_mode(law: Network, ensemble: Ensemble) -> Rows:
    """kappa_2 and, where it is known, kappa_4 of M."""
    m = ensemble.phi.reshape(len(ensemble), -1).mean(1)
    groups, exact = ensemble.replicas(), zero_mode_cumulants(law, ensemble.shape)
    sums = moments(m[:, None], 4)
    found = zip((2, 4), *even_cumulants([sums[rows] for rows in groups]), strict=True)
    return [row(v, e, exact.get(n), len(groups) - 1, order=n, needed=0.0) for n, v, e in found]


def pairs(law: Network, ensemble: Ensemble) -> Rows:
    """kappa_4(0, 0, r, r) along the first axis, r = 0, ..., L/2; `exact` where it is known, `size`, and
    `seen`, which for nets of inputs is as of kappa_4 at one site."""
    shape, groups = ensemble.shape, ensemble.replicas()
    rest = (0,) * (len(shape) - 1)
    places = [(r, *rest) for r in range(shape[0] // 2 + 1)]
    try:
        known: Any = four_point(law, shape)
    except InputError:
        known = None
    seen = not isinstance(law, InputNet) or networks_needed(law, 2, shape=shape) <= len(ensemble)
    everywhere, found = disconnected(law, shape), []
    for r, v, e in zip(places, *pair_cumulants(ensemble.phi, groups, places), strict=True):
        exact = None if known is None else float(known[r])
        size = SHARE * abs(exact) if exact and r != places[-1] else everywhere
        found.append(row(v, e, exact, len(groups) - 1, r=r[0], seen=bool(seen), size=size))
    return found


def disconnected(law: Network, shape: tuple[int, ...]) -> float:
    """G0^2/N of N neurons, without the output bias: of kappa_4(0, 0, r, r) where each neuron is everywhere.

    >>> from lattice.actions.networks import CosNet
    >>> round(disconnected(CosNet(4, 0.0), (8, 8)), 12)
    0.0625
    """
    g0 = site_cumulants(law, shape, 2)[2]
    if isinstance(law, InputNet):
        return float((g0 - law.sigma_b**2) ** 2 / law.width)
    assert isinstance(law, FreeNet)
    return float(g0**2 / law.neurons(shape))


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
    """ "free", "not free" or "undecided", of cumulants beyond the second, rows of `one_site` and `pairs`.

    "free" asks for pairs of sites, all of them bounded, and for bounds on the orders of one site that do not
    vanish in the law.

    >>> small, wide, far = (
    ...     row(v, e, None, 99, seen=True, size=1.0) for v, e in ((0.1, 0.1), (0.1, 0.4), (5, 0.1))
    ... )
    >>> freedom([small], None), freedom([small], [small]), freedom([small], [small, wide])
    ('undecided', 'free', 'undecided')
    >>> freedom([small], [far]), freedom([far], None), freedom([], [{**far, "seen": False}])
    ('not free', 'not free', 'undecided')
    """
    seen = [x for x in [*site, *(two_sites or [])] if x["seen"]]
    if any(abs(x["value"]) > GATE * x["error"] for x in seen):
        return "not free"
    if not two_sites or not all(x["seen"] for x in two_sites):
        return "undecided"
    return "free" if all(_bounded(x) for x in seen if x["size"] is not None) else "undecided"


def _bounded(x: dict[str, Any]) -> bool:
    return bool(abs(x["value"]) + BOUND * x["error"] < x["size"])


def clustering(two_sites: Rows) -> dict[str, Any]:
    """Whether kappa_4(0, 0, r, r) is 0 at the largest r: verdict "obeyed", "violated" or "undecided", with
    the sigma by which it is not, and the size that would have been seen."""
    far = two_sites[-1]
    sigmas = abs(far["value"]) / far["error"] if far["error"] > 0 else math.inf
    if not far["seen"]:
        verdict = "undecided"
    elif sigmas > GATE:
        verdict = "violated"
    else:
        verdict = "obeyed" if _bounded(far) else "undecided"
    about = {name: far[name] for name in ("r", "value", "error", "size", "seen")}
    return {**about, "sigmas": sigmas, "verdict": verdict}


def at_width(law: Network, width: int) -> Network:
    """The same law with another number of neurons; of a local net, with another density, so many times its
    own. `InputError` for a width below 1."""
    couplings = {name: value for name, value in law.as_dict().items() if name != "kind"}
    changed = {"rho": couplings["rho"] * width} if isinstance(law, LocalNet) else {"width": width}
    return NETWORKS[law.kind](**{**couplings, **changed})


def named(words: str, like: InputNet) -> InputNet:
    """The law "kind" or "kind-output" of inputs with the width and the output bias of `like`; hidden biases
    are those of the kind, 0 of ReLU and 1 of others, whatever `like` has. Raises `InputError` for another."""
    kind, _, output = words.partition("-")
    known = {name: net for name, net in NETWORKS.items() if issubclass(net, InputNet)}
    if kind not in known:
        raise InputError(f"no net of inputs {kind!r}{nearest(kind, known)}; known: {', '.join(known)}")
    bias = 0.0 if kind == "relu_net" else 1.0
    return known[kind](like.width, output or "normal", sigma_b=like.sigma_b, sigma_hidden=bias)


def seed_of(law: Network, point: float | None, seed: int) -> int:
    """The seed of the networks of one law, its width included, at one place: each has numbers of its own, and
    not those of the run's fields."""
    return (seed + stream_id(f"widths/{law.as_dict()}/{point}")) % 2**64


def width_table(
    law: Network, widths: Sequence[int], n_networks: int, seed: int, *, shape: tuple[int, ...],
    point: float | None = None,
) -> Rows:  # fmt: skip
    """kappa_2, ..., kappa_8 of n_networks of each width, at one input `point` of a net of inputs, or averaged
    over the sites of a lattice; with `needed`, the noise `floor`, the error of one value per network, and
    `vanishes`, which is held against 0."""
    found = []
    for width in widths:
        own = at_width(law, width)
        rows, key = np.arange(n_networks), seed_of(own, point, seed)
        if point is not None and isinstance(own, InputNet):
            x, where = draw_points(own, [[point]], rows, key), {"point": [point]}
            exact = field_cumulants(own, [point])
        else:
            x, where = draw_fields(own, shape, rows, key), {"shape": shape}  # type: ignore[dict-item]
            exact = site_cumulants(own, shape)
        sums = moments(x)
        values, errors = even_cumulants([sums[k::GROUPS] for k in range(GROUPS)])
        for order, value, error in zip(ORDERS, values, errors, strict=True):
            needed = networks_needed(own, order // 2, **where)  # type: ignore[arg-type]
            vanishes = math.isinf(needed)
            floor = error if vanishes else abs(exact[order]) * math.sqrt(needed / n_networks) / 3
            found.append(
                row(value, error, exact[order], GROUPS - 1, order=order, width=width, needed=needed,
                    floor=float(floor), vanishes=vanishes, seen=bool(vanishes or needed <= n_networks))
            )  # fmt: skip
    return found


def claim(table: Rows, order: int) -> dict[str, Any]:
    """What the table says of kappa_order ~ N^(1 - order/2): a verdict, the slope with its error, and how many
    networks the smallest width that does not show it needs.

    "holds": the slope is within 4.5 errors, those of the neighbouring powers are not, and the values have the
    signs of the exact ones; "refuted": it is not within; "undecided": neither; "refused": fewer than three
    widths show it; "vanishes": 0 at every width.
    """
    own = [x for x in table if x["order"] == order]
    seen = [x for x in own if x["seen"]]
    missing = [x["needed"] for x in own if not x["seen"]]
    expected = 1 - order // 2
    about = {"order": order, "expected": expected, "widths": [x["width"] for x in seen]}
    if all(x["vanishes"] for x in own):
        return {**about, "verdict": "vanishes", "slope": None, "needed": None}
    if len(seen) < FEWEST:
        needed = sorted(x["needed"] for x in own)[min(FEWEST, len(own)) - 1]
        return {**about, "verdict": "refused", "slope": None, "needed": needed}
    x, y = np.log([s["width"] for s in seen]), np.log([abs(s["value"]) for s in seen])
    weight = np.array([(s["value"] / s["error"]) ** 2 for s in seen])
    mean = (weight * x).sum() / weight.sum()
    spread = float((weight * (x - mean) ** 2).sum())
    slope, error = float((weight * (x - mean) * y).sum()) / spread, spread**-0.5
    within = [abs(slope - power) <= GATE * error for power in (expected, expected - 1, expected + 1)]
    signs = all(s["value"] * s["exact"] > 0 for s in seen)
    verdict = "refuted" if not within[0] else "holds" if signs and not any(within[1:]) else "undecided"
    return {**about, "verdict": verdict, "slope": [slope, error], "needed": min(missing, default=None)}

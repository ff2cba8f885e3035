r"""What of a network's fields is known exactly, by the names of `lattice.observables.measure`.

    phi2 = kappa_2,   phi4 = kappa_4 + 3 kappa_2^2,   U_L = -kappa_4(M)/(3 kappa_2(M)^2),   chi = V kappa_2(M)

and xi_2nd of the exact propagator, beside the cumulants of a site and, to order 4, of M = V^-1 sum_x f:
beyond that the tails of M hold what samples of any usual size, and their errors, do not see.
"""

from __future__ import annotations

import math
from typing import Any

from lattice.actions.networks import Network
from lattice.exact.network_fields import propagator, site_cumulants, zero_mode_cumulants
from lattice.observables.scalar import longest_axes, xi_second_moment

ROUNDING = 1e-12  # of kappa_2^(n/2): what vanishes is exactly 0


def network_values(law: Any, shape: tuple[int, ...]) -> dict[str, float]:
    """Exact values of fields of a network on a lattice, by observable; of another law none.

    >>> from lattice.actions.networks import CosNet
    >>> found = network_values(CosNet(4, 0.2, "signs"), (8, 8))
    >>> round(found["phi2"], 9), round(found["kappa4_ratio"], 12), round(found["kappa6_ratio"], 12)
    (0.635434994, -0.375, 0.625)
    """
    if not isinstance(law, Network):
        return {}
    site, mode, volume = site_cumulants(law, shape), zero_mode_cumulants(law, shape), math.prod(shape)
    g = propagator(law, shape)
    first = tuple(int(axis == longest_axes(shape)[0]) for axis in range(len(shape)))
    xi = float(xi_second_moment(g.flat[0], g[first], max(shape)))
    found = {
        "magnetization": 0.0,
        "susceptibility_full": volume * mode[2],
        "phi2": site[2],
        "phi4": site[4] + 3 * site[2] ** 2,
        **({"xi_2nd": xi} if math.isfinite(xi) else {}),
        **({"binder": -mode[4] / (3 * mode[2] ** 2)} if 4 in mode else {}),
    }
    for suffix, kappa in (("", site), ("_m", {n: value for n, value in mode.items() if n <= 4})):
        for n, exact in kappa.items():
            value = exact if abs(exact) > ROUNDING * kappa[2] ** (n // 2) else 0.0
            found[f"kappa{n}{suffix}"] = value
            if n > 2:
                ratio = value / kappa[2] ** (n // 2)
                found |= {f"kappa{n}{suffix}_ratio": ratio, f"kappa{n}{suffix}_ratio_z2": ratio}
    return found

r"""Real-space renormalisation of spins on the square lattice: block spins, and a recursion of the coupling.

Block spins: b x b sites become one, with the value most of them have; ties are drawn (Kadanoff, Physics 2
(1966) 263; Ma, Phys. Rev. Lett. 37 (1976) 461). Recursion: half the sites summed over, the couplings that
makes replaced by one of nearest neighbours (Maris and Kadanoff, Am. J. Phys. 46 (1978) 652),

    K' = (3/8) ln cosh 4K,   length scale b = sqrt 2,   slope dK'/dK = (3/2) tanh 4K,

with K* = 0.50698 (exact: K_c = ln(1 + sqrt 2)/2 = 0.44069) and 1/nu = ln slope/ln b, nu = 0.934 (exact: 1).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq

from lattice.arrays import Floats, Integers, integer_array
from lattice.errors import InputError
from lattice.rng import uniforms

SCALE = math.sqrt(2)  # of the length, one step of the recursion
EXACT_K, EXACT_NU = math.log(1 + math.sqrt(2)) / 2, 1.0


def block_spins(spins: Integers, b: int, seed: int, rows: Integers, q: int = 0) -> Integers:
    """Spins (n, L/b, M/b) of the blocks of spins (n, L, M): +-1, or 0 ... q - 1 of Potts models.

    rows (n,): by which the numbers of ties are drawn, one for a block: a row is the same in any batch. Raises
    `InputError` for extents that b does not divide and for other spins.
    """
    s = integer_array(spins, "spins")
    if s.ndim != 3 or b < 1 or s.shape[1] % b or s.shape[2] % b or not s.size:
        raise InputError(f"blocks of {b} x {b} need spins (n, L, M) of multiples of {b}, got {list(s.shape)}")
    if q == 1 or q < 0 or (q and not (0 <= s.min() <= s.max() < q)) or (not q and (np.abs(s) != 1).any()):
        raise InputError("spins are +1 or -1, or with q = 2 states and more 0 to q - 1, and there are others")
    n, height, width = len(s), s.shape[1] // b, s.shape[2] // b
    blocks = s.reshape(n, height, b, width, b)
    u = uniforms(seed, "real_space/ties", rows, 0, height * width).reshape(n, height, width)
    if not q:
        total = blocks.sum((2, 4))
        return np.where(total == 0, np.where(u < 0.5, -1, 1), np.sign(total))
    counts = (blocks[..., None] == np.arange(q)).sum((2, 4))
    most = counts == counts.max(-1, keepdims=True)
    pick = np.minimum((u * most.sum(-1)).astype(np.int64), most.sum(-1) - 1)
    found: Integers = (most.cumsum(-1) > pick[..., None]).argmax(-1)
    return found


def recursion(k: float) -> float:
    """K' = (3/8) ln cosh 4K. Raises `InputError` for couplings that are negative or not finite."""
    if not 0 <= k < math.inf:
        raise InputError(f"a coupling K = 1/T must be 0 or more and finite, got {k:g}")
    x = 4 * k
    return 3 / 8 * (x + math.log1p(math.exp(-2 * x)) - math.log(2))


def slope(k: float) -> float:
    """dK'/dK = (3/2) tanh 4K."""
    return 1.5 * math.tanh(4 * k)


def fixed_point() -> float:
    """K* > 0 with K' = K: the only one, unstable, between the stable 0 and infinity."""
    return float(brentq(lambda k: recursion(k) - k, 0.3, 0.8, xtol=1e-15))


def thermal_exponent() -> tuple[float, float]:
    """y_t = ln(dK'/dK)/ln b at K*, and nu = 1/y_t."""
    y = math.log(slope(fixed_point())) / math.log(SCALE)
    return y, 1 / y


def flow(k: float, n_steps: int) -> Floats:
    """K (n_steps + 1,) from a given one on: down to 0 below K*, up without end above. Raises `InputError` for
    couplings and steps that are none."""
    if n_steps < 0:
        raise InputError(f"a flow has 0 steps or more, got {n_steps}")
    found = [k]
    for _ in range(n_steps):
        found.append(recursion(found[-1]))
    return np.array(found)

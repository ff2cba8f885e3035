"""The random numbers of lattice.rng made on a device, by tensors: nothing is drawn on the CPU and copied.

Integers and uniforms are exactly those of lattice.rng. Normals take the same additions, multiplications,
divisions and roots in the same order, each of them an operation of its own; where these are IEEE in float64,
as on CUDA devices, the numbers are the same to the last bit. On some CPUs the square root of PyTorch is not
the nearest number: there they are the same to 2 ulp. Products of 32-bit words are put
together from 16-bit halves of the constant, so that nothing overflows int64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lattice import rng
from lattice.arrays import Integers
from lattice.rng import check_counters, stream_id

LOW, LOW16 = 0xFFFFFFFF, 0xFFFF
M0, M1, W0, W1 = (int(word) for word in (rng.M0, rng.M1, rng.W0, rng.W1))
ONE_BITS, MANTISSA, FRACTION50 = (int(word) for word in (rng.ONE_BITS, rng.MANTISSA, rng.FRACTION50))
LOG = (rng.A23, rng.A21, rng.A19, rng.A17, rng.A15, rng.A13, rng.A11, rng.A9, rng.A7, rng.A5, rng.A3, 1.0)
SIN = (rng.S17, rng.S15, rng.S13, rng.S11, rng.S9, rng.S7, rng.S5, rng.S3, 1.0)
COS = (rng.C16, rng.C14, rng.C12, rng.C10, rng.C8, rng.C6, rng.C4, -0.5, 1.0)


def normals(
    seed: int, stream: str, index: Integers, step: int, size: int, device: torch.device | str
) -> Tensor:
    """`lattice.rng.normals` (n, size) of `index` (n,), made on `device`; errors as there."""
    n0, n1 = random_bits(seed, stream, index, step, (size + 1) // 2, device)
    radius = (-2.0 * log_unit(unit(n0))).sqrt()
    cos, sin = cos_sin(n1)
    return torch.stack([radius * cos, radius * sin], -1).flatten(1)[:, :size]


def uniforms(
    seed: int, stream: str, index: Integers, step: int, size: int, device: torch.device | str
) -> Tensor:
    """`lattice.rng.uniforms` (n, size) of `index` (n,), made on `device`; errors as there."""
    bits = random_bits(seed, stream, index, step, (size + 1) // 2, device)
    return torch.stack([unit(n) for n in bits], -1).flatten(1)[:, :size]


def random_bits(
    seed: int, stream: str, index: Integers, step: int, n_blocks: int, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """The two 52-bit integers of each counter, int64 (n, n_blocks)."""
    words = check_counters(seed, index, step).astype("int64")
    rows = torch.from_numpy(words).to(device)[:, None]
    blocks = torch.arange(n_blocks, dtype=torch.int64, device=device)[None, :]
    c = philox(blocks, int(step), rows, stream_id(stream), int(seed) & LOW, int(seed) >> 32)
    # words 0 and 1 are the 64-bit number w0 + 2^32 w1, of which the top 52 bits are wanted
    return (c[0] >> 12) | (c[1] << 20), (c[2] >> 12) | (c[3] << 20)


def philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: int, k1: int) -> tuple[Any, Any, Any, Any]:
    """Ten rounds of Philox4x32; words are 32-bit values in int64 tensors, or ints where they are one for all.

    >>> [hex(int(word)) for word in philox(0, 0, 0, 0, 0, 0)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    for _ in range(10):
        (p, p_low), (q, q_low) = _product(M0, c0), _product(M1, c2)
        c0, c1, c2, c3 = q ^ c1 ^ k0, q_low, p ^ c3 ^ k1, p_low
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return c0, c1, c2, c3


def _product(m: int, c: Any) -> tuple[Any, Any]:
    """The high and the low word of m c."""
    low, high = c * (m & LOW16), c * (m >> 16)
    return (high + (low >> 16)) >> 16, (((high & LOW16) << 16) + low) & LOW


def unit(n: Tensor) -> Tensor:
    """(n + 1/2) 2^-52 of 52-bit integers, exactly."""
    return (2 * n + 1).double() * 2.0**-53


def log_unit(u: Tensor) -> Tensor:
    """ln u for u in (0, 1), as `lattice.rng.log_unit`."""
    bits = u.view(torch.int64)
    m, e = ((bits & MANTISSA) | ONE_BITS).view(torch.float64), ((bits >> 52) - 1023).double()
    high = m > rng.SQRT2
    m, e = torch.where(high, 0.5 * m, m), torch.where(high, e + 1.0, e)
    s = (m - 1.0) / (m + 1.0)
    return e * rng.LN2 + 2.0 * (_series(LOG, s * s) * s)


def cos_sin(n: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of 2 pi u - pi/4 for u = (n + 1/2) 2^-52, as `lattice.rng.cos_sin`."""
    quadrant = n >> 50
    theta = (unit((n & FRACTION50) << 2) - 0.5 + 1.5 * 2.0**-52) * rng.HALF_PI
    z = theta * theta
    s, c = _series(SIN, z) * theta, _series(COS, z)
    swap = (quadrant & 1) == 1
    a, b = torch.where(swap, s, c), torch.where(swap, c, s)
    return torch.where((quadrant == 1) | (quadrant == 2), -a, a), torch.where(quadrant >= 2, -b, b)


def _series(coefficients: tuple[float, ...], z: Tensor) -> Tensor:
    """Horner's rule from the highest power of z on."""
    first, second, *rest = coefficients
    total = first * z + second
    for coefficient in rest:
        total = total * z + coefficient
    return total

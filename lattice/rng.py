"""Counter-based random numbers: Philox4x32-10, keyed (seed, stream, index, step, position).

    key     = the 64-bit seed
    counter = (position // 2, step, index, crc32(stream name))

A number is a function of these five and of nothing else, so results cannot depend on the batch split, the
thread or the process that draws it.  One counter gives two uniforms u = (n + 1/2) 2^-52, strictly inside
(0, 1), and from them one Box-Muller pair

    z_0 = sqrt(-2 ln u_0) cos(2 pi u_1 - pi/4),   z_1 = sqrt(-2 ln u_0) sin(2 pi u_1 - pi/4).

Philox: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11.  The logarithm,
sine and cosine are plain series in IEEE arithmetic: they vectorise, and a stream is the same on every
machine.
"""

from __future__ import annotations

import functools
import math
import operator
import warnings
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from lattice.arrays import integer_array
from lattice.errors import InputError, Notice
from lattice.seeds import check_seed

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """numba.njit as used everywhere here: cached, without the GIL, strict IEEE (no fastmath)."""
    return _njit(function)


def inlined(function: F) -> F:
    """As `compiled`, always inlined: a call left standing would keep the caller's loop from vectorising."""
    return _njit(function, forceinline=True)


def _njit(function: F, **options: Any) -> F:
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        result: F = numba.njit(cache=True, **options)(function)
    except RuntimeError as error:  # a read-only installation, and no home folder to write to
        if "no locator" not in str(error):
            raise
        _say_uncached()
        result = numba.njit(**options)(function)
    return result


@functools.cache
def _say_uncached() -> None:
    text = (
        "compiled code cannot be kept (neither the installation nor the home folder can be written): it is "
        "compiled anew by every process; set NUMBA_CACHE_DIR to a folder that can be written"
    )
    warnings.warn(text, Notice, stacklevel=2)


M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
LOW, SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
ONE_BITS, MANTISSA = np.uint64(0x3FF0000000000000), np.uint64(0x000FFFFFFFFFFFFF)
TOP2, FRACTION50, TWO = np.uint64(50), np.uint64(0x0003FFFFFFFFFFFF), np.uint64(2)
U12, U52 = np.uint64(12), np.int64(52)
HALF_ULP = 2.0**-53
SQRT2, LN2, HALF_PI = 2.0**0.5, 0.6931471805599453, 1.5707963267948966
# series of artanh, sine and cosine, written out: a loop over coefficients would not vectorise
A3, A5, A7, A9, A11, A13 = 1 / 3, 1 / 5, 1 / 7, 1 / 9, 1 / 11, 1 / 13
A15, A17, A19, A21, A23 = 1 / 15, 1 / 17, 1 / 19, 1 / 21, 1 / 23
S3, S5, S7, S9, S11, S13, S15, S17 = ((-1) ** (n // 2) / math.factorial(n) for n in range(3, 18, 2))
C4, C6, C8, C10, C12, C14, C16 = ((-1) ** (n // 2) / math.factorial(n) for n in range(4, 17, 2))


@inlined
def _two_rounds(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    p, q = M0 * c0, M1 * c2
    c0, c1, c2, c3 = (q >> SHIFT) ^ c1 ^ k0, q & LOW, (p >> SHIFT) ^ c3 ^ k1, p & LOW
    k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    p, q = M0 * c0, M1 * c2
    c0, c1, c2, c3 = (q >> SHIFT) ^ c1 ^ k0, q & LOW, (p >> SHIFT) ^ c3 ^ k1, p & LOW
    return c0, c1, c2, c3, (k0 + W0) & LOW, (k1 + W1) & LOW


@inlined
def philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Ten rounds of Philox4x32; all words 32-bit values held in uint64, returns four of them."""
    # written out: a loop over the rounds would keep the loop over counters from vectorising
    c0, c1, c2, c3, k0, k1 = _two_rounds(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _two_rounds(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _two_rounds(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _two_rounds(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _two_rounds(c0, c1, c2, c3, k0, k1)
    return c0, c1, c2, c3


@inlined
def random_bits(seed: Any, stream: Any, index: Any, step: Any, block: Any) -> Any:
    """The two 52-bit integers of one counter (arguments uint64)."""
    w0, w1, w2, w3 = philox(block, step, index, stream, seed & LOW, seed >> SHIFT)
    return (w0 | (w1 << SHIFT)) >> U12, (w2 | (w3 << SHIFT)) >> U12


@inlined
def unit(n: Any) -> Any:
    """(n + 1/2) 2^-52 for a 52-bit integer, exactly: n becomes the mantissa of a number in [1, 2)."""
    return (np.uint64(n | ONE_BITS).view(np.float64) - 1.0) + HALF_ULP


@inlined
def log_unit(u: Any) -> Any:
    """ln u for u in (0, 1): u = m 2^e with m in [1/sqrt2, sqrt2), ln m = 2 artanh((m - 1)/(m + 1))."""
    bits = np.float64(u).view(np.uint64)
    m = np.uint64((bits & MANTISSA) | ONE_BITS).view(np.float64)
    e = np.float64(np.int64(bits >> np.uint64(52)) - np.int64(1023))
    high = m > SQRT2
    m = 0.5 * m if high else m
    e = e + 1.0 if high else e
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    series = A23 * z + A21
    series = (series * z + A19) * z + A17
    series = (series * z + A15) * z + A13
    series = (series * z + A11) * z + A9
    series = (series * z + A7) * z + A5
    series = ((series * z + A3) * z + 1.0) * s
    return e * LN2 + 2.0 * series


@inlined
def cos_sin(n: Any) -> Any:
    """cos and sin of 2 pi u - pi/4 for u = (n + 1/2) 2^-52: the two top bits are the quadrant."""
    quadrant = n >> TOP2
    theta = (unit((n & FRACTION50) << TWO) - 0.5 + 1.5 * 2.0**-52) * HALF_PI
    z = theta * theta
    s = ((S17 * z + S15) * z + S13) * z + S11
    s = (((s * z + S9) * z + S7) * z + S5) * z + S3
    s = (s * z + 1.0) * theta
    c = ((C16 * z + C14) * z + C12) * z + C10
    c = (((c * z + C8) * z + C6) * z + C4) * z - 0.5
    c = c * z + 1.0
    swap = (quadrant & np.uint64(1)) == np.uint64(1)
    a = s if swap else c
    b = c if swap else s
    cos = -a if (quadrant == np.uint64(1)) | (quadrant == np.uint64(2)) else a
    sin = -b if quadrant >= np.uint64(2) else b
    return cos, sin


@inlined
def normal_pair(seed: Any, stream: Any, index: Any, step: Any, block: Any) -> Any:
    """The Box-Muller pair of one counter (arguments uint64)."""
    n0, n1 = random_bits(seed, stream, index, step, block)
    radius = np.sqrt(-2.0 * log_unit(unit(n0)))
    cos, sin = cos_sin(n1)
    return radius * cos, radius * sin


@inlined
def uniform_at(seed: Any, stream: Any, index: Any, step: Any, position: Any) -> Any:
    """The uniform number at one position of a stream (arguments uint64)."""
    n0, n1 = random_bits(seed, stream, index, step, position >> np.uint64(1))
    return unit(n0) if (position & np.uint64(1)) == np.uint64(0) else unit(n1)


@compiled
def fill_normals(row: Any, seed: Any, stream: Any, index: Any, step: Any) -> None:
    """row (size,) = the first numbers of one stream (arguments uint64)."""
    for block in range(row.size // 2):
        row[2 * block], row[2 * block + 1] = normal_pair(seed, stream, index, step, np.uint64(block))
    if row.size % 2:
        row[row.size - 1] = normal_pair(seed, stream, index, step, np.uint64(row.size // 2))[0]


@compiled
def fill_uniforms(row: Any, seed: Any, stream: Any, index: Any, step: Any) -> None:
    """As `fill_normals`, uniform in (0, 1)."""
    for position in range(row.size):
        row[position] = uniform_at(seed, stream, index, step, np.uint64(position))


@compiled
def fill_rows(rows: Any, seed: Any, stream: Any, index: Any, step: Any, gaussian: Any) -> None:
    """rows (n, size) = the first numbers of the streams of index (n,), normal or uniform."""
    for i in range(index.size):
        if gaussian:
            fill_normals(rows[i], seed, stream, index[i], step)
        else:
            fill_uniforms(rows[i], seed, stream, index[i], step)


def stream_id(name: str) -> int:
    """The counter word of a named stream: crc32 of its name.

    >>> stream_id("hmc/momentum") == stream_id("hmc/accept")
    False
    """
    return zlib.crc32(name.encode())


def normals(seed: int, stream: str, index: NDArray[np.int64], step: int, size: int) -> NDArray[np.float64]:
    """Standard normal numbers (n, size) of `index` (n,) at `step` in the named stream.

    Raises `InputError` for a seed outside [0, 2^64), an index or step outside [0, 2^32).

    >>> a = normals(1, "doc", np.arange(4), step=7, size=5)
    >>> bool((a[2:3, :3] == normals(1, "doc", np.array([2]), step=7, size=3)).all())
    True
    """
    return _numbers(seed, stream, index, step, size, True)


def uniforms(seed: int, stream: str, index: NDArray[np.int64], step: int, size: int) -> NDArray[np.float64]:
    """Uniform numbers in (0, 1), same keys, shape and errors as `normals`."""
    return _numbers(seed, stream, index, step, size, False)


def _numbers(seed: int, stream: str, index: Any, step: int, size: int, gaussian: bool) -> NDArray[np.float64]:
    index = check_counters(seed, index, step)
    if not 0 <= size < 2**32:
        raise InputError(f"size must be in [0, 2^32), got {size}")
    rows = np.empty((index.size, size))
    fill_rows(rows, np.uint64(seed), np.uint64(stream_id(stream)), index, np.uint64(step), gaussian)
    return rows


def check_counters(seed: Any, index: Any, step: Any) -> NDArray[np.uint64]:
    """`index` as uint64 (n,), after checking that seed, index and step are integers that fit their words."""
    check_seed(seed)
    try:
        number = -1 if isinstance(step, bool) else operator.index(step)
    except TypeError:
        number = -1
    if not 0 <= number < 2**32:
        raise InputError(f"trajectory or step number must be an integer in [0, 2^32), got {step!r}")
    keys = np.atleast_1d(integer_array(index, "chain or stream indices"))
    if keys.ndim != 1 or (keys.size and (keys.min() < 0 or keys.max() >= 2**32)):
        raise InputError("chain or stream indices must be a 1-d integer array with values in [0, 2^32)")
    return keys.astype(np.uint64)

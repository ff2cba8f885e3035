"""The arrays of the package by name, what a user gives made into them, and their rows in parts.

Numbers are never changed on the way in: what float64 (int64, complex128) cannot hold as it is, an imaginary
part, a mask, an object, a fraction where integers are meant, is an `InputError` that says what to pass
instead.  float32 and small integers are widened, which loses nothing.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lattice.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Labels = NDArray[np.int8]
Complexes = NDArray[np.complex128]
EXACT = 2**53  # integers beyond are not all floats
Angles = TypeVar("Angles", Floats, "Tensor")
_KINDS = {"O": "objects", "U": "text", "S": "text", "V": "records", "M": "dates", "m": "time spans"}


def wrapped(angle: Angles) -> Angles:
    """Angles (...) in (-pi, pi], up to rounding: an array or a tensor, as it came.

    >>> wrapped(np.array([-math.pi, math.pi, 7.0])).round(4).tolist()
    [3.1416, 3.1416, 0.7168]
    """
    turns = (angle - math.pi) / (2 * math.pi)
    return angle - 2 * math.pi * (np.ceil(turns) if isinstance(turns, np.ndarray) else turns.ceil())


def real_array(values: Any, what: str, *, booleans: bool = False) -> Floats:
    """`values` as contiguous float64, or InputError naming `what`; a float64 array is not copied.

    booleans: True and False count as 1 and 0, as in a series of accepted steps.

    >>> real_array([1, 2], "phi").tolist()
    [1.0, 2.0]
    >>> real_array(np.array([1j]), "phi")
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: phi is complex: pass phi.real and phi.imag separately
    """
    array = _numbers(values, what)
    if array.dtype.kind == "c":
        raise InputError(f"{what} is complex: pass {_name(what)}.real and {_name(what)}.imag separately")
    if array.dtype.kind == "b" and not booleans:
        raise InputError(f"{what} is boolean, and not numbers: pass {_name(what)}.astype(float) for 1 and 0")
    if array.dtype.kind in "iu":
        _check_exact(array, what)
    return np.asarray(array, dtype=np.float64, order="C")


def complex_array(values: Any, what: str) -> Complexes:
    """`values`, real or complex, as contiguous complex128, or InputError as `real_array`."""
    array = _numbers(values, what)
    if array.dtype.kind == "c":
        return np.asarray(array, dtype=np.complex128, order="C")
    return real_array(array, what).astype(np.complex128)


def number_array(values: Any, what: str) -> NDArray[Any]:
    """complex128 of complex `values`, float64 of real ones, or InputError as `real_array`."""
    array = _numbers(values, what)
    return complex_array(array, what) if array.dtype.kind == "c" else real_array(array, what)


def integer_array(values: Any, what: str) -> Integers:
    """`values` as contiguous int64, or InputError naming `what`; whole floats are integers, True is none.

    >>> integer_array([0.0, 2.0], "chain").tolist()
    [0, 2]
    >>> integer_array([0.0, 0.5], "chain")
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: chain must be integers, got 0.5: pass integers, such as np.rint(chain)
    """
    array = _numbers(values, what)
    kind = array.dtype.kind
    if kind in "bc":
        found = "booleans" if kind == "b" else "complex numbers"
        raise InputError(f"{what} must be integers, got {found}: pass integers, such as np.arange(n)")
    if kind == "f":
        with np.errstate(invalid="ignore"):
            # float16 would make EXACT infinite
            bad = ~((array == np.rint(array)) & (np.abs(array) <= np.float64(EXACT)))
        if bad.any():
            first, name = array[bad].flat[0], _name(what)
            raise InputError(
                f"{what} must be integers, got {first:g}: pass integers, such as np.rint({name})"
            )
    if kind == "u" and array.size and int(array.max()) >= 2**63:
        raise InputError(f"{what} has an integer beyond 2^63, {array.max()}: pass numbers that int64 holds")
    return np.asarray(array, dtype=np.int64, order="C")


def row_numbers(indices: Any, n: int) -> Integers:
    """Rows 0 ... n - 1 chosen by integers, as they are, or by a mask (n,); InputError for any other.

    >>> row_numbers([True, False, True], 3).tolist(), row_numbers([2, 2, -1], 3).tolist()
    ([0, 2], [2, 2, -1])
    """
    array = _numbers(indices, "indices")
    if array.dtype.kind == "b":
        if array.shape != (n,):
            raise InputError(f"a mask of {n} configurations has shape ({n},), got {array.shape}")
        return np.flatnonzero(array)
    rows = np.atleast_1d(integer_array(array, "indices"))
    if rows.ndim > 1 or (rows.size and not -n <= rows.min() <= rows.max() < n):
        raise InputError(f"indices must be a list of integers in 0 ... {n - 1}, got {_range(rows)}")
    return rows


def _range(x: Integers) -> str:
    return f"shape {x.shape}" if x.ndim > 1 else f"{x.min()} to {x.max()}"


def real_number(value: Any, what: str) -> float:
    """One real number as a float, or InputError as `real_array`; arrays of one entry are numbers."""
    if isinstance(value, float):
        return float(value)
    array = real_array(value, what, booleans=True)
    if array.size != 1:
        raise InputError(f"{what} must be one number, got an array of shape {array.shape}")
    return float(array.reshape(()))


def same_length(**columns: Any) -> int:
    """The common length of arrays by name (None: not given), or InputError naming those that differ.

    >>> same_length(phi=np.zeros(3), chain=None)
    3
    """
    lengths = {name: len(x) for name, x in columns.items() if x is not None}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{n} of {name}" for name, n in lengths.items())
        raise InputError(f"one entry per configuration is needed in each, got {found}")
    return next(iter(lengths.values()))


def _name(what: str) -> str:
    """`what` as it can stand in code: the word itself, or x for a phrase."""
    return what if what.isidentifier() else "x"


def _numbers(values: Any, what: str) -> NDArray[Any]:
    """Any array of plain numbers or booleans that numpy holds as they are."""
    name = _name(what)
    if _masked(values):
        raise InputError(
            f"{what} has masked entries, no numbers: pass the rows without any, or {name}.filled(value)"
        )
    if hasattr(values, "detach") and (values.requires_grad or values.device.type != "cpu"):
        raise InputError(f"{what} is a tensor with a gradient or on a device: pass {name}.detach().cpu()")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # numpy's word for a masked entry in a list
            array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError, UserWarning) as error:
        raise InputError(
            f"{what} is no array of numbers ({' '.join(str(error).split())[:120]}): pass one of equal rows"
        ) from error
    if array.dtype.kind == "V" and array.dtype.names:
        raise InputError(
            f"{what} has columns {', '.join(array.dtype.names)}: pass one, {name}[{array.dtype.names[0]!r}]"
        )
    if array.dtype.kind not in "fciub":
        found = _KINDS.get(array.dtype.kind, str(array.dtype))
        raise InputError(f"{what} must be numbers, got {found}: pass {name}.astype(float) if they are some")
    if array.dtype.kind in "fc" and array.dtype.itemsize > (8 if array.dtype.kind == "f" else 16):
        narrow = "float" if array.dtype.kind == "f" else "complex"
        raise InputError(
            f"{what} is {array.dtype}, longer than double precision: pass {name}.astype({narrow}) to round"
        )
    return array


def _masked(values: Any) -> bool:
    """Whether an array, or one in nested lists, has masked entries."""
    if isinstance(values, np.ma.MaskedArray):
        return bool(np.ma.is_masked(values))
    return isinstance(values, list | tuple) and any(
        _masked(x) for x in values if isinstance(x, list | tuple | np.ma.MaskedArray)
    )


def _check_exact(array: NDArray[Any], what: str) -> None:
    if array.size and array.dtype.itemsize == 8:
        largest = max(abs(int(array.min())), abs(int(array.max())))
        if largest > EXACT:
            raise InputError(
                f"{what} has an integer beyond 2^53, {largest}, which float64 may not hold: pass floats, "
                f"{_name(what)}.astype(float), to round"
            )


def batches(n: int, size: int) -> Iterator[Integers]:
    """Row numbers 0 ... n - 1, at most `size` at a time.

    >>> [rows.tolist() for rows in batches(5, 2)]
    [[0, 1], [2, 3], [4]]
    """
    for first in range(0, n, size):
        yield np.arange(first, min(first + size, n))


def sha256_array(x: NDArray[Any]) -> str:
    """The hexadecimal sha256 of the numbers of an array."""
    return hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()

"""Numbers with errors as the field prints them, 0.31498(72), written and read, and tables of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lattice.arrays import real_number
from lattice.errors import InputError

ROUNDING = 1e-15  # of a number: errors below that are not of the number that a computer holds


def format_value(value: float | None, error: float | None) -> str:
    """value(error) with two digits of error, as the field prints it; errors of 1 or more keep their point,
    none is below the rounding of the value.

    >>> format_value(0.314981, 0.00072), format_value(44.04, 1.2), format_value(14386.9, 12.3)
    ('0.31498(72)', '44.0(1.2)', '14387(12)')
    >>> format_value(2.0, 0.0), format_value(2.0, math.nan), format_value(None, None)
    ('2(0)', '2(nan)', 'nan')
    """
    v = math.nan if value is None else real_number(value, "value")
    e = math.nan if error is None else abs(real_number(error, "error"))
    if not math.isfinite(v):
        return f"{v:g}"
    if not math.isfinite(e) or e == 0:
        mantissa, _, power_of_ten = f"{v:.10g}".partition("e")
        return f"{mantissa}({e:g})" + (f"e{power_of_ten}" if power_of_ten else "")
    e = max(e, ROUNDING * abs(v))
    largest = max(abs(v), e)
    if not 1e-4 <= largest < 1e7:  # one power of ten for value and error
        power = math.floor(math.log10(largest))
        return f"{format_value(v / 10.0**power, e / 10.0**power)}e{power:+03d}"
    decimals = 1 - int(f"{e:.1e}".split("e")[1])  # the exponent after rounding to two digits
    if decimals <= 0:
        return f"{round(v, decimals):.0f}({round(e, decimals):.0f})"
    return (
        f"{v:.{decimals}f}({e:.{decimals}f})"
        if e >= 1 or round(e, decimals) >= 1
        else f"{v:.{decimals}f}({round(e * 10.0**decimals)})"
    )


def format_entry(entry: Mapping[str, Any], name: str) -> str:
    """entry[NAME](entry[NAME_error])."""
    return format_value(entry[name], entry[f"{name}_error"])


def with_pull(value: float, error: float, pull: float) -> str:
    """value(error) with its pull behind.

    >>> with_pull(0.314981, 0.00072, -1.23)
    '0.31498(72) [-1.2]'
    """
    return f"{format_value(value, error)} [{pull:+.1f}]"


def printed(value: float | None, error: float | None = None, nothing: str = "-") -> str:
    """value(error), the bare number where there is no error, `nothing` where there is no number.

    >>> printed(0.5, 0.01), printed(0.123456789), printed(None)
    ('0.500(10)', '0.123457', '-')
    """
    return nothing if value is None else format_value(value, error) if error else f"{value:.6g}"


_PRINTED = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:\((\d+\.?\d*|\.\d+|nan|inf)\))?(?:e([+-]?\d+))?", re.I)


def parse_value(text: str) -> tuple[float, float]:
    """Inverse of `format_value`: (value, error); an error without a point counts units of the last digit.

    A number without parentheses has error nan (not stated).

    >>> parse_value("0.7617(7)"), parse_value("14386.9(10)"), parse_value("44.0(1.2)")
    ((0.7617, 0.0007), (14386.9, 1.0), (44.0, 1.2))
    """
    cleaned = str(text).strip().replace("\N{MINUS SIGN}", "-").replace(" ", "")
    if cleaned.lower() == "nan":
        return math.nan, math.nan
    match = _PRINTED.fullmatch(cleaned)
    if match is None:
        raise InputError(f"cannot read {text!r} as a value and its error; write 0.7617(7) or 44.0(1.2)")
    number, error, power = match.group(1), match.group(2), int(match.group(3) or 0)
    decimals = len(number.partition(".")[2])
    if error is None:
        stated = "nan"
    elif error.isdigit():
        stated = f"{error}e{power - decimals}"  # decimal text keeps 0.7617(7) -> 0.0007 exact
    else:
        stated = error if error.lower() in ("nan", "inf") else f"{error}e{power}"
    return float(f"{number}e{power}"), float(stated)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells, the first row a header -> lines with columns aligned and a rule below the header.

    >>> aligned([["name", "value"], ["binder", "0.5316(5)"]])
    ['name    value', '------  ---------', 'binder  0.5316(5)']
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * w for w in widths), *lines[1:]]

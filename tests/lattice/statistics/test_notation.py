"""value(error): what is printed is what the field writes, and it reads back."""

from __future__ import annotations

import math

import pytest

from lattice.errors import InputError
from lattice.statistics.notation import aligned, format_value, parse_value


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.314981, 0.00072, "0.31498(72)"),
        (14386.9, 1.0, "14386.9(1.0)"),
        (44.0, 1.2, "44.0(1.2)"),
        (0.0996, 0.0996, "0.10(10)"),
        (123456.0, 789.0, "123460(790)"),
        (-0.7473, 0.0019, "-0.7473(19)"),
        (1.0, 0.99999, "1.0(1.0)"),
        (0.0, 0.01, "0.000(10)"),
        (1.2345e-9, 3.4e-11, "1.234(34)e-09"),
        (4.1e9, 1.2e8, "4.10(12)e+09"),
        (5.0, 0.0, "5(0)"),
        (1e-12, 0.0, "1(0)e-12"),
    ],
)
def test_values_print_as_the_field_writes_them_and_read_back(value, error, text):
    assert format_value(value, error) == text
    v, e = parse_value(text)
    assert v == pytest.approx(value, abs=0.5 * error + 1e-15)
    assert e == pytest.approx(error, rel=0.051)


def test_missing_errors_print():
    assert format_value(0.5, math.nan) == "0.5(nan)"
    assert format_value(0.5, None) == "0.5(nan)"
    assert format_value(math.nan, 0.1) == "nan"
    value, error = parse_value("0.5(nan)")
    assert (value, math.isnan(error)) == (0.5, True)


def test_published_numbers_read():
    assert parse_value("14386.9(10)") == (14386.9, 1.0)
    assert parse_value("\N{MINUS SIGN}0.7473(19)") == (-0.7473, 0.0019)
    assert math.isnan(parse_value("0.666628")[1])
    with pytest.raises(InputError, match="cannot read 'about 3'"):
        parse_value("about 3")


def test_tables_align():
    lines = aligned([["name", "value"], ["kappa4_ratio", "-0.7473(19)"], ["s", "1"]])
    assert [line.index(word) for line, word in zip(lines[::2], ("value", "-0"))] == [14, 14]
    assert not any(line.endswith(" ") for line in lines)

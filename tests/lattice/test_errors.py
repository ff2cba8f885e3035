"""The one error of bad input, and its hint."""

import pytest

from lattice.errors import InputError, nearest, shown


def test_the_nearest_name_is_offered_and_nothing_far_off():
    assert nearest("kapa", ["kappa", "lam"]) == " (did you mean 'kappa'?)"
    assert nearest("zzz", ["kappa", "lam"]) == ""
    assert nearest("lamb", {"kappa": 1, "lam": 2}) == " (did you mean 'lam'?)"


def test_bad_input_is_a_value_error():
    with pytest.raises(ValueError, match="lam must be"):
        raise InputError("lam must be >= 0, got -1.0")


def test_bad_input_is_one_line_of_bounded_length_whatever_a_file_brings_in():
    text = str(InputError("got 'a\nb\r\nc\u2028d'"))
    assert text == "got 'a b c d'"
    assert len(str(InputError("x" * 10**6))) < 1100
    assert str(InputError("begin" + "x" * 10**6 + "end")).startswith("begin")
    assert str(InputError("begin" + "x" * 10**6 + "end")).endswith("end")


def test_what_contains_itself_can_be_shown():
    inside: list[object] = [1]
    inside.append(inside)
    laughs: list[object] = ["x"]
    for _ in range(40):
        laughs = [laughs] * 9
    assert len(shown(inside)) < 200
    assert len(shown(laughs)) < 10**5
    assert shown({"a": 1}) == "{'a': 1}"

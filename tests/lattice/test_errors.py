"""The one error of bad input, and its hint."""

import pytest

from lattice.errors import InputError, nearest


def test_the_nearest_name_is_offered_and_nothing_far_off():
    assert nearest("kapa", ["kappa", "lam"]) == " (did you mean 'kappa'?)"
    assert nearest("zzz", ["kappa", "lam"]) == ""
    assert nearest("lamb", {"kappa": 1, "lam": 2}) == " (did you mean 'lam'?)"


def test_bad_input_is_a_value_error():
    with pytest.raises(ValueError, match="lam must be"):
        raise InputError("lam must be >= 0, got -1.0")

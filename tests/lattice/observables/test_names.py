"""What observables are called: which are shown, and their powers of the field."""

from __future__ import annotations

import numpy as np
import pytest

from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.observables.measure import measure
from lattice.observables.names import field_power, in_short_table


def test_short_tables_leave_the_long_list_out() -> None:
    shown = [n for n in range(1, 9) if in_short_table(f"kappa{n}")]
    assert shown == [n for n in range(1, 9) if in_short_table(f"kappa{n}_m")] == [2, 4, 6, 8]
    assert [n for n in range(1, 9) if in_short_table(f"kappa{n}_k1_ratio")] == [4, 6]
    assert in_short_table("anything_else")
    assert not in_short_table("kappa4_ratio_z2")


def test_observables_scale_with_their_power_of_the_field() -> None:
    """phi -> 2 phi: every value and error of the table by 2^power, but for S, which is no power of phi."""
    phi = np.random.default_rng(4).normal(size=(400, 4, 4)) + 0.3
    one, two = (
        measure(Ensemble.from_fields(a * phi, ScalarPhi4(0.1, 0.02)))["observables"] for a in (1.0, 2.0)
    )
    for name in one.keys() - {"action_density"}:
        if one[name]["error"] is not None:
            factor = 2.0 ** field_power(name)
            for key in ("value", "error"):
                assert two[name][key] == pytest.approx(factor * one[name][key], rel=1e-6, abs=1e-9), name
    assert field_power("action_density") == 0
    assert two["action_density"]["value"] > 2 * one["action_density"]["value"]


def test_an_unknown_name_has_no_power() -> None:
    with pytest.raises(InputError, match="reference.values.susceptibilty; did you mean susceptibility"):
        field_power("susceptibilty")
    with pytest.raises(InputError, match="known: .*kappa4_ratio"):
        field_power("kappa9")

"""The kinds of action by name: to a dictionary and back, and what a dictionary cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from lattice.actions.complexified import Complexified
from lattice.actions.ising_field import IsingField
from lattice.actions.kinds import KINDS, action_from_dict
from lattice.actions.networks import CosNet, ErfNet, GaussNet, LocalNet, ReluNet
from lattice.actions.one_variable import ComplexGaussian, ComplexQuartic, RealQuartic, TwoPeak
from lattice.actions.phi4 import ComplexPhi4, FreeScalar, ScalarPhi4
from lattice.actions.spins import Ising, Potts
from lattice.actions.u1 import U1, OneLink
from lattice.errors import InputError

ONE_OF_EACH: list[Any] = [
    ScalarPhi4(0.27, 0.022), FreeScalar(0.2), ComplexPhi4(0.1, 0.3, 1 + 0.5j), ComplexGaussian(1 + 0.5j),
    ComplexQuartic(1 + 1j, 1.0), OneLink(0.7 - 0.2j), RealQuartic(-1.0, 0.4), TwoPeak(1.0, 0.5),
    ErfNet(10), ReluNet(10), GaussNet(10, sigma_b=1.0), CosNet(4, 0.2, "signs"), LocalNet(0.25, 0.2),
    Ising(2.0), Potts(1.0, 3), IsingField(0.3), U1(2.0), U1(2.0 + 1j, 0.3),
]  # fmt: skip


@pytest.mark.parametrize("action", ONE_OF_EACH, ids=lambda a: a.kind)
def test_files_give_the_action_back(action: Any) -> None:
    assert action_from_dict(action.as_dict()) == action
    if action.field == "complex":
        assert action_from_dict(Complexified(action).as_dict()) == Complexified(action)


def test_every_kind_is_here() -> None:
    assert {action.kind for action in ONE_OF_EACH} == set(KINDS)


def test_what_is_written() -> None:
    expected = {"kind": "phi4", "convention": "kappa-lambda", "kappa": 0.27, "lam": 0.022}
    assert ScalarPhi4(0.27, 0.022).as_dict() == expected


@pytest.mark.parametrize(
    ("section", "match"),
    [
        ({"kind": "phi5", "kappa": 1, "lam": 1}, "did you mean 'phi4'"),
        ({"kind": "one_links", "beta": 1}, "did you mean 'one_link'"),
        ({"kind": "phi4", "kapa": 1, "lam": 1}, r"unknown key action.kapa; did you mean action.kappa\?"),
        ({"kind": "one_link", "beta": [1, 1], "lam": 1}, "unknown key action.lam"),
        ({"kind": "phi4", "kappa": 1}, r"action.lam is missing \(phi4 has kappa"),
        ({"kind": "complex_quartic", "sigma0": [1, 1]}, "action.lam is missing"),
        (
            {"convention": "bare", "kappa": 1, "lam": 1},
            "action.convention must be 'kappa-lambda', got 'bare'",
        ),
        ({"kind": "one_link", "beta": [1, 1], "field": "z"}, r"action.field must be 'x\+iy'"),
    ],
)
def test_refusals_are_one_line(section: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        action_from_dict(section)
    assert "\n" not in str(caught.value)

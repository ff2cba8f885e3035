"""What an action says of itself: defaults, what a user's own needs, and that none of it loads torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from places import ROOT

from lattice.actions.complexified import Complexified
from lattice.actions.kinds import KINDS, action_from_dict
from lattice.actions.one_variable import ComplexQuartic
from lattice.actions.phi4 import ScalarPhi4
from lattice.actions.protocol import Action, says_itself
from lattice.errors import InputError


@dataclass(frozen=True)
class Sextic(Action):
    """A user's own: one site, S = phi^2 + g6 phi^6."""

    g6: float

    def action(self, phi: torch.Tensor) -> torch.Tensor:
        return (phi**2 + self.g6 * phi**6).flatten(1).sum(1)

    def grad(self, phi: torch.Tensor) -> torch.Tensor:
        return 2 * phi + 6 * self.g6 * phi**5


def test_couplings_are_checked_without_torch() -> None:
    code = (
        "import sys; from lattice.actions.kinds import action_from_dict\n"
        "action_from_dict({'kappa': 0.2, 'lam': 0.1}).check_normalisable((4, 4))\n"
        "sys.exit(bool({'torch', 'numba', 'scipy', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_what_an_action_of_the_users_own_says() -> None:
    action = Sextic(1)  # type: ignore[arg-type]
    assert action.as_dict() == {"kind": "Sextic", "g6": 1.0}
    assert (action.field, action.components, action.even, action.period) == ("real", (), False, None)
    assert (action.phi4, action.derivative, action.classical_field(2)) == (None, None, None)
    assert action.holomorphic is action
    with pytest.raises(InputError, match=r"action\.g6 must be a finite number, got 'strong'"):
        Sextic("strong")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown action.kind 'Sextic'"):
        action_from_dict(action.as_dict())


def test_an_action_without_its_gradient_cannot_be_made() -> None:
    half = type("Half", (Action,), {"action": Sextic.action})
    with pytest.raises(TypeError, match="grad"):
        half()


def test_a_subclass_of_phi4_with_another_action_is_not_phi4() -> None:
    class Extended(ScalarPhi4):
        def action(self, phi: torch.Tensor) -> torch.Tensor:
            return super().action(phi) + phi.flatten(1).pow(6).sum(1)

    assert Extended(0.2, 0.1).phi4 is None
    assert ScalarPhi4(0.2, 0.1).phi4 == ScalarPhi4(0.2, 0.1)


def test_a_subclass_with_a_law_of_its_own_has_a_kind_of_its_own() -> None:
    class Shifted(ComplexQuartic):
        def grad(self, z: torch.Tensor) -> torch.Tensor:
            return super().grad(z) + 3

    class Named(Shifted):
        kind = "named"

    class Same(ScalarPhi4):
        pass

    kinds = [law.as_dict()["kind"] for law in (Shifted(1 + 1j, 1.0), Named(1 + 1j, 1.0), Same(0.2, 0.1))]
    assert kinds == ["Shifted", "named", "phi4"]
    assert not says_itself(Shifted(1 + 1j, 1.0), "derivative")
    assert says_itself(ComplexQuartic(1 + 1j, 1.0), "derivative")


ANALYTIC = [
    kind
    for kind, law in KINDS.items()
    if law.has_action and not law.components and "temperature" not in law.__dataclass_fields__  # type: ignore[attr-defined]
]


@pytest.mark.parametrize("kind", ANALYTIC)
def test_every_kind_says_its_derivative_and_its_parity(kind: str) -> None:
    couplings = {"kappa": 0.1, "lam": 0.2, "mass": [1, 0.5], "sigma0": [1, 0.5], "beta": 0.7, "mu2": -1}
    couplings |= {"g": 2, "mu0": 1}
    names = KINDS[kind].__dataclass_fields__  # type: ignore[attr-defined]
    d = {name: value for name, value in couplings.items() if name in names} | {"kind": kind}
    d |= {"free": {"lam": 0}, "two_peak": {"sigma0": 0.5}}.get(kind, {})
    action = action_from_dict(d)
    z = torch.complex(*torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    assert action.even
    torch.testing.assert_close(action.action(-z), action.action(z))
    if (form := action.derivative) is None:
        assert kind == "two_peak"
        return
    near = z.roll(1, 1) + z.roll(-1, 1)
    known = form.linear * z + form.cubic * z**3 - form.hop * near + form.sine * z.sin()
    torch.testing.assert_close(action.grad(z), known.to(action.grad(z).dtype))


def test_components_stand_beside_the_lattice() -> None:
    stored = Complexified(action_from_dict({"kind": "one_link", "beta": 1}))
    assert (stored.components, stored.lattice_of((2, 4, 6)), stored.lattice_of((2,))) == ((2,), (4, 6), ())
    assert stored.period == stored.holomorphic.period
    with pytest.raises(InputError, match=r"are \(n, 2, \*shape\), got \(n, 3, 4\)"):
        stored.lattice_of((3, 4))

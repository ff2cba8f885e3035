"""Couplings in other conventions: the same number S for the same field, and the way back."""

import math

import pytest
import torch

from lattice.actions.conventions import CONVENTIONS, from_kappa_lambda, to_kappa_lambda
from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError


def test_strong_couplings_are_converted_too():
    action = to_kappa_lambda("flow", -4, 0.001, 2)
    assert (round(action.kappa, 2), action.lam) == (22.36, pytest.approx(0.5))
    back = from_kappa_lambda("flow", action.kappa, action.lam, 2)
    assert (back.mass2, back.coupling) == (pytest.approx(-4), pytest.approx(0.001))
    assert ScalarPhi4(0.2, 2000.0).lam == 2000


def field(shape, n=3, seed=0):
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def foreign_action(name, phi, mass2, coupling):
    """The action of each convention, written as its papers do."""
    axes = tuple(range(1, phi.dim()))
    kinetic = sum((torch.roll(phi, -1, a) - phi) ** 2 for a in axes)
    density = {
        "bare": kinetic / 2 + mass2 * phi**2 / 2 + coupling / 24 * phi**4,
        "flow": kinetic + mass2 * phi**2 + coupling * phi**4,
        "schaich-loinaz": kinetic / 2 + mass2 * phi**2 / 2 + coupling / 4 * phi**4,
    }[name]
    return density.sum(axes)


@pytest.mark.parametrize("name", list(CONVENTIONS))
@pytest.mark.parametrize("shape", [(6,), (4, 6), (3, 2, 4), (2, 3, 2, 2)])
@pytest.mark.parametrize(("kappa", "lam"), [(0.27, 0.022), (0.5, 0.9), (0.1, 0.0), (0.2, 0.5)])
def test_conventions(name, shape, kappa, lam):
    phi, dim = field(shape), len(shape)
    c = from_kappa_lambda(name, kappa, lam, dim)
    foreign = foreign_action(name, c.field_scale * phi, c.mass2, c.coupling)
    torch.testing.assert_close(foreign, ScalarPhi4(kappa, lam).action(phi), rtol=1e-12, atol=1e-11)
    back = to_kappa_lambda(name, c.mass2, c.coupling, dim)
    assert back.kappa == pytest.approx(kappa, rel=1e-12)
    assert back.lam == pytest.approx(lam, rel=1e-11, abs=1e-15)


def test_stated_relations():
    bare, flow, sl = (from_kappa_lambda(name, 0.27, 0.022, 2) for name in ("bare", "flow", "schaich-loinaz"))
    assert bare.mass2 == flow.mass2 == sl.mass2 == pytest.approx((1 - 0.044) / 0.27 - 4)
    assert bare.coupling == pytest.approx(6 * 0.022 / 0.27**2)
    assert flow.coupling == sl.coupling == pytest.approx(0.022 / 0.27**2)
    # m^2 = -4 in two dimensions, the point of the flow literature: lam = 1/2, kappa = 1/sqrt(2 lambda)
    for coupling in (6.975, 6.008, 5.276, 4.572):
        action = to_kappa_lambda("flow", -4.0, coupling, 2)
        assert action.lam == pytest.approx(0.5)
        assert action.kappa == pytest.approx(1 / math.sqrt(2 * coupling))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: from_kappa_lambda("flw", 0.2, 0.1, 2), "did you mean 'flow'"),
        (lambda: from_kappa_lambda("flow", -0.2, 0.1, 2), "kappa > 0"),
        (lambda: to_kappa_lambda("flow", -4.0, 0.0, 2), "no kappa > 0"),
        (lambda: to_kappa_lambda("flow", 1.0, -1.0, 2), "coupling >= 0"),
        (lambda: to_kappa_lambda("flow", 1.0, 1.0, 5), "dim must be 1 to 4"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)

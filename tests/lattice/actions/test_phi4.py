"""The action: force, symmetries, and what the conventions say about each other."""

import math

import numpy as np
import pytest
import torch

from lattice.actions.conventions import CONVENTIONS, from_kappa_lambda, to_kappa_lambda
from lattice.actions.kinds import action_from_dict
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError

SHAPES = [(7,), (4, 6), (2, 3, 4), (3, 2, 2, 4), (5, 1), (2, 2), (1,), (1, 1, 2)]


def field(shape, n=3, seed=0):
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def explicit_action(phi, kappa, lam):
    """S of one field by a loop over sites and axes, written from the formula."""
    total = 0.0
    for site in torch.cartesian_prod(*(torch.arange(e) for e in phi.shape)).reshape(-1, phi.dim()).tolist():
        x = phi[tuple(site)].item()
        for axis, extent in enumerate(phi.shape):
            forward = list(site)
            forward[axis] = (forward[axis] + 1) % extent
            total += -2 * kappa * x * phi[tuple(forward)].item()
        total += (1 - 2 * lam) * x**2 + lam * x**4
    return total


@pytest.mark.parametrize("shape", SHAPES)
def test_action_is_the_formula(shape):
    phi = field(shape)
    values = ScalarPhi4(-0.31, 0.17).action(phi)
    for f, value in zip(phi, values.tolist()):
        assert value == pytest.approx(explicit_action(f, -0.31, 0.17), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("action", [ScalarPhi4(0.27, 0.022), ScalarPhi4(-0.2, 0.9), FreeScalar(0.1)])
def test_force_is_the_gradient(action, shape):
    """4th-order central differences in a random direction and along every site of one field."""
    phi, h = field(shape, n=1), 1e-3
    directions = torch.cat([field(shape, n=2, seed=1), torch.eye(phi.numel()).double().reshape(-1, *shape)])
    for v in directions:
        s = [action.action(phi + c * h * v).item() for c in (-2, -1, 1, 2)]
        numeric = (s[0] - 8 * s[1] + 8 * s[2] - s[3]) / (12 * h)
        exact = (action.grad(phi)[0] * v).sum().item()
        assert abs(numeric - exact) < 1e-7 * max(abs(exact), 1e-2)


def test_symmetries():
    action, phi = ScalarPhi4(0.27, 0.022), field((4, 6, 2))
    s = action.action(phi)
    for axis, shift in ((1, 1), (2, 3), (3, 1)):
        torch.testing.assert_close(action.action(torch.roll(phi, shift, axis)), s, rtol=1e-13, atol=1e-12)
    torch.testing.assert_close(action.action(-phi), s, rtol=0, atol=0)
    torch.testing.assert_close(action.action(phi.permute(0, 3, 1, 2)), s, rtol=1e-13, atol=1e-12)
    torch.testing.assert_close(action.action(phi.flip(2)), s, rtol=1e-13, atol=1e-12)


def test_staggered_field_maps_kappa_to_minus_kappa():
    phi = field((4, 6))
    sign = (-1.0) ** torch.arange(4)[:, None] * (-1.0) ** torch.arange(6)
    s = ScalarPhi4(-0.3, 0.1).action(phi * sign)
    torch.testing.assert_close(s, ScalarPhi4(0.3, 0.1).action(phi), rtol=1e-13, atol=1e-12)


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


def test_dict_round_trip():
    for action in (ScalarPhi4(0.27, 0.022), FreeScalar(0.2)):
        assert action_from_dict(action.as_dict()) == action
    expected = {"kind": "phi4", "convention": "kappa-lambda", "kappa": 0.27, "lam": 0.022}
    assert ScalarPhi4(0.27, 0.022).as_dict() == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ScalarPhi4(0.2, -0.1), "action.lam must be >= 0"),
        (lambda: ScalarPhi4(float("nan"), 0.1), "action.kappa must be a finite number"),
        (lambda: ScalarPhi4("0.2", 0.1), "action.kappa must be a finite number"),
        (lambda: FreeScalar(0.2, 0.1), "action.lam must be 0 for kind free"),
        (lambda: ScalarPhi4(20.0, 0.1), "action.kappa must be >= -10 and <= 10, got 20"),
        (lambda: action_from_dict({"kind": "phi5", "kappa": 1, "lam": 1}), "did you mean 'phi4'"),
        (
            lambda: action_from_dict({"kind": "phi4", "kapa": 1, "lam": 1}),
            "did you mean action.kappa\\?",
        ),
        (
            lambda: action_from_dict({"kind": "phi4", "kappa": 1}),
            "action.lam is missing (phi4 has kappa",
        ),
        (lambda: action_from_dict({"convention": "bare", "kappa": 1, "lam": 1}), "convention"),
        (lambda: from_kappa_lambda("flw", 0.2, 0.1, 2), "did you mean 'flow'"),
        (lambda: from_kappa_lambda("flow", -0.2, 0.1, 2), "kappa > 0"),
        (lambda: to_kappa_lambda("flow", -4.0, 0.0, 2), "no kappa > 0"),
        (lambda: to_kappa_lambda("flow", 1.0, -1.0, 2), "coupling >= 0"),
        (lambda: to_kappa_lambda("flow", 1.0, 1.0, 5), "dim must be 1 to 4"),
        (lambda: ScalarPhi4(0.2, 0.1).action(torch.zeros(3)), "lattice shape"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")) as error:
        call()
    assert "\n" not in str(error.value)


def test_action_does_not_depend_on_batch_or_threads():
    """Bit for bit, on a lattice large enough for torch to share out a reduction."""
    phi = torch.from_numpy(np.random.default_rng(4).normal(size=(3, 192, 192)))
    action, threads = ScalarPhi4(0.27, 0.022), torch.get_num_threads()
    expected = action.action(phi)
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            assert torch.equal(action.action(phi), expected)
            assert torch.equal(torch.cat([action.action(phi[i : i + 1]) for i in range(3)]), expected)
    finally:
        torch.set_num_threads(threads)

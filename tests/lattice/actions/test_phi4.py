"""phi^4: the formula, its force and its symmetries."""

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ScalarPhi4(0.2, -0.1), "action.lam must be >= 0"),
        (lambda: ScalarPhi4(float("nan"), 0.1), "action.kappa must be a finite number"),
        (lambda: ScalarPhi4("0.2", 0.1), "action.kappa must be a finite number"),
        (lambda: FreeScalar(0.2, 0.1), "action.lam must be 0 for kind free"),
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

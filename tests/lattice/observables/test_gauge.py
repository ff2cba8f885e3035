"""Loops and charge of U(1): gauge invariance, Stokes, known instantons, signs under reflection."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lattice.errors import InputError
from lattice.observables.gauge import charge, loop_angles, plaquettes, polyakov_loop, wilson_loop, wrapped
from lattice.simulation.gauge_draws import links_of


def some(shape: tuple[int, int] = (4, 6), n: int = 5, seed: int = 1) -> Tensor:
    u = torch.rand(n, 2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 2 * math.pi * u - math.pi


def turned(links: Tensor, seed: int = 2) -> Tensor:
    """By a gauge transformation, and wrapped."""
    n, _, *shape = links.shape
    alpha = torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 7
    moved = [links[:, mu] + alpha - alpha.roll(-1, mu + 1) for mu in (0, 1)]
    return wrapped(torch.stack(moved, 1))


def test_gauge_invariance() -> None:
    links, other = some(), turned(some())
    assert (links - other).abs().max() > 1
    torch.testing.assert_close(plaquettes(links), plaquettes(other), rtol=0, atol=1e-12)
    assert torch.equal(charge(links), charge(other))
    for size in ((1, 1), (2, 3), (4, 6)):
        torch.testing.assert_close(wilson_loop(links, *size), wilson_loop(other, *size), rtol=0, atol=1e-12)
    for axis in (0, 1):
        torch.testing.assert_close(polyakov_loop(links, axis), polyakov_loop(other, axis), rtol=0, atol=1e-12)


def test_a_loop_is_the_flux_through_it() -> None:
    links, theta = some(), plaquettes(some())
    for height, width in ((1, 1), (2, 1), (1, 3), (2, 3), (3, 5)):
        flux = sum(theta.roll((-i, -j), (-2, -1)) for i in range(height) for j in range(width))
        assert isinstance(flux, Tensor)
        torch.testing.assert_close(
            (loop_angles(links, height, width) - flux).cos(), torch.ones_like(flux), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("q", [-3, 0, 1, 2])
def test_an_instanton_has_its_charge(q: int) -> None:
    theta = torch.full((1, 4, 6), 2 * math.pi * q / 24, dtype=torch.float64)
    links = torch.from_numpy(links_of(theta.numpy(), torch.tensor([[0.3, -1.0]]).double().numpy()))
    torch.testing.assert_close(plaquettes(links), theta, rtol=0, atol=1e-12)
    assert charge(links).tolist() == [q]
    assert charge(turned(links)).tolist() == [q]


def test_a_reflection_changes_the_sign_of_the_charge() -> None:
    links = some(n=200)
    # x_0 -> -x_0: links of axis 0 change their sense, and begin one site further
    mirrored = torch.stack([-links[:, 0].flip(-2).roll(-1, -2), links[:, 1].flip(-2)], 1)
    assert torch.equal(charge(mirrored), -charge(links))
    exchanged = links.flip(1).transpose(-1, -2)
    assert torch.equal(charge(exchanged), -charge(links))
    assert charge(links).abs().max() >= 1
    moved = links.roll((1, 2), (-2, -1))
    assert torch.equal(charge(moved), charge(links))


def test_loops_around_the_lattice() -> None:
    links = torch.zeros(1, 2, 4, 6, dtype=torch.float64)
    links[:, 0, 2] = 0.7
    links[:, 1, :, 3] = -0.2
    for axis, angle in ((0, 0.7), (1, -0.2)):
        found = complex(polyakov_loop(links, axis)[0])
        assert found == pytest.approx(complex(math.cos(angle), math.sin(angle)))
    assert charge(links).item() == 0


def test_bad_input() -> None:
    with pytest.raises(InputError, match="are \\(n, 2, L0, L1\\), got \\(3, 4, 4\\)"):
        charge(torch.zeros(3, 4, 4))
    with pytest.raises(InputError, match="5 x 1 does not fit on 4 x 6"):
        wilson_loop(some(), 5, 1)
    with pytest.raises(InputError, match="axis must be 0 or 1"):
        polyakov_loop(some(), 2)
    links = some()
    links[0, 0, 0, 0] = math.nan
    with pytest.raises(InputError, match="no whole number"):
        charge(links)

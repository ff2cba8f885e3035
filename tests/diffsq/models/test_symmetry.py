"""Lattice symmetries: maps of sites that keep neighbours together, drawn from the whole group."""

from __future__ import annotations

import itertools

import pytest
import torch
from fields import all_symmetries, generator, white
from torch import Tensor

from diffsq.models.symmetry import IDENTITY, Symmetry

SHAPES = [(8, 8), (8, 12)]


@pytest.mark.parametrize("shape", SHAPES)
def test_symmetry_is_the_site_map_it_says(shape: tuple[int, int]) -> None:
    """Translation, then reflection i -> L-1-i, then exchange of the axes, written out site by site."""
    x = white(shape, 2, 7)
    for g in all_symmetries(shape):
        out = torch.empty_like(x)
        for i, j in itertools.product(range(shape[0]), range(shape[1])):
            a, b = (i + g.shift[0]) % shape[0], (j + g.shift[1]) % shape[1]
            a = shape[0] - 1 - a if -2 in g.flip else a
            b = shape[1] - 1 - b if -1 in g.flip else b
            out[(slice(None), b, a) if g.exchange else (slice(None), a, b)] = x[:, i, j]
        assert torch.equal(g(x), out), g
        assert torch.equal(g.inverse(g(x)), x), g
        assert torch.equal(g(g.inverse(x)), x), g
        channels = x[:, None].expand(-1, 3, -1, -1)
        assert torch.equal(g(channels), out[:, None].expand(-1, 3, -1, -1)), g
    assert torch.equal(IDENTITY(x), x)


def test_symmetry_keeps_neighbours_together() -> None:
    """The nearest-neighbour sum is invariant; the order of inverse operations matters."""
    x = white((8, 8), 2, 8)

    def hopping(q: Tensor) -> Tensor:
        return (q * (q.roll(1, 1) + q.roll(1, 2))).sum((1, 2))

    for g in all_symmetries((8, 8)):
        torch.testing.assert_close(hopping(g(x)), hopping(x), rtol=1e-12, atol=1e-12)
    g = Symmetry((1, 3), (-2,), True)
    assert not torch.equal(Symmetry((-1, -3), (-2,), True)(g(x)), x)


@pytest.mark.parametrize("shape", SHAPES)
def test_drawn_symmetries_cover_the_group(shape: tuple[int, int]) -> None:
    u = torch.rand(4000, 5, generator=generator(9), dtype=torch.float64)
    drawn = [Symmetry.draw(row, shape) for row in u]
    shifts = torch.tensor([g.shift for g in drawn])
    for axis, extent in enumerate(shape):
        counts = torch.bincount(shifts[:, axis], minlength=extent).double()
        assert len(counts) == extent
        expected = 4000 / extent
        assert ((counts - expected) / expected**0.5).abs().max() < 4.5
    for count in (sum(-2 in g.flip for g in drawn), sum(-1 in g.flip for g in drawn)):
        assert abs(count - 2000) < 4.5 * 1000**0.5
    exchanged = sum(g.exchange for g in drawn)
    if shape[0] == shape[1]:
        assert abs(exchanged - 2000) < 4.5 * 1000**0.5
    else:
        assert exchanged == 0
    edges = Symmetry.draw(torch.tensor([1 - 2.0**-53] * 5, dtype=torch.float64), shape)
    assert edges.shift == (shape[0] - 1, shape[1] - 1)

"""Fields and noise in blocks: the same numbers as whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffsq.models.blocks import (
    KeyedNoise,
    Mapped,
    Rows,
    block_size,
    drawn,
    largest,
    slices,
    split,
    zero_modes,
)
from diffsq.models.momentum import Momenta, propagator
from diffsq.models.regression import RegressionBase
from lattice.actions.phi4 import ScalarPhi4

SHAPE = (4, 6)
NOISE = KeyedNoise(1, "test/blocks", np.arange(50), SHAPE)


def test_noise_is_the_same_in_any_blocks() -> None:
    whole = NOISE(3)
    assert whole.shape == (50, *SHAPE)
    for size in (1, 7, 50, 99):
        assert torch.equal(torch.cat(list(split(drawn(NOISE, 3), size))), whole)
        assert [rows.stop for rows in slices(50, size)][-1] == 50
    assert torch.equal(drawn(lambda step: whole, 0)[slice(3, 9)], whole[3:9])
    assert KeyedNoise(1, "test/blocks", 4, SHAPE)(3).shape == SHAPE
    assert torch.equal(KeyedNoise(1, "test/blocks", 4, SHAPE)(3), whole[4])


def test_rows_of_a_tensor() -> None:
    phi, rows = NOISE(0), torch.arange(0, 50, 3)
    some = Rows(phi, rows, torch.device("cpu"))
    assert len(some) == 17
    assert torch.equal(some[slice(2, 5)], phi[rows][2:5])
    assert torch.equal(some[torch.tensor([4, 4, 0])], phi[rows][[4, 4, 0]])
    assert largest(some, 5) == float(phi[rows].abs().max())
    modes = Momenta(SHAPE).modes(phi[rows])[..., 0, 0].real
    assert torch.allclose(zero_modes(some, 5), modes, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("chunk", [7, 16, None])
def test_streamed_fits_are_those_of_the_whole(chunk: int | None) -> None:
    """Propagator and regression, of rows in place and of a copy of them, in blocks and at once."""
    action, noise = ScalarPhi4(0.2, 0.1), KeyedNoise(2, "test/fit", np.arange(40), SHAPE)
    phi, rows = NOISE(1), torch.arange(1, 50, 2)
    some, bases = Rows(phi, rows, torch.device("cpu")), []
    for fields, size in ((phi[rows], 10**6), (some, chunk)):
        base = RegressionBase(Momenta(SHAPE), 4)
        base.set_gaussian(propagator(base.momenta, fields, size), 0.2, 4.0)
        base.set_action(action, 5.0)
        base.fit(fields, action.grad, noise, chunk=size)
        bases.append(base)
    for name, whole in bases[0].state_dict().items():  # of 40 fields: coefficients of some thousands
        streamed = bases[1].state_dict()[name]
        assert (streamed - whole).abs().max() <= 1e-8 * whole.abs().max(), name
    xk, sigma = bases[0].momenta.modes(phi), torch.linspace(0.2, 4.0, len(phi), dtype=torch.float64)
    c, other = (base(xk, sigma) for base in bases)
    assert (c - other).abs().max() < 1e-7 * c.abs().max()


def test_mapped_fields_are_made_when_asked_for() -> None:
    phi, seen = NOISE(1), []

    def halved(part: torch.Tensor) -> torch.Tensor:
        seen.append(len(part))
        return part / 2

    half = Mapped(Rows(phi, torch.arange(1, 50, 2), torch.device("cpu")), halved)
    assert len(half) == 25
    assert seen == []
    assert torch.equal(half[slice(2, 5)], phi[5:11:2] / 2)
    assert torch.equal(half[torch.tensor([3, 0])], phi[[7, 1]] / 2)
    assert seen == [3, 2]
    assert largest(half, 10) == float(phi[1::2].abs().max()) / 2
    assert seen[2:] == [10, 10, 5]


def test_blocks_are_set_by_the_lattice_alone() -> None:
    assert block_size((16, 16), 1024, 2**18) == 1024
    assert block_size((1024, 1024), 1024, 2**18) == 1

"""The grid of quadratures on the real axis."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lattice.actions.one_variable import ComplexGaussian, RealQuartic, TwoPeak
from lattice.actions.u1 import OneLink
from lattice.errors import InputError
from lattice.exact.quadrature import real_grid


@pytest.mark.parametrize(
    ("action", "norm"),
    [
        (ComplexGaussian(0.25 + 1j), (2 * math.pi / (0.25 + 1j)) ** 0.5),
        (ComplexGaussian(1e-4), (2 * math.pi * 1e4) ** 0.5),
        (TwoPeak(30.0, 0.2), 1.0),
    ],
)
def test_sums_on_it_are_integrals(action: object, norm: complex) -> None:
    """Trapezoidal sums of exp(-S), to rounding: narrow, wide and far-off laws find their own radius."""
    phi = real_grid(action, 20_001)  # type: ignore[arg-type]
    s = action.action(torch.from_numpy(phi)).numpy()  # type: ignore[attr-defined]
    assert np.exp(-s).sum() * (phi[1] - phi[0]) == pytest.approx(norm, rel=1e-12)


def test_nothing_is_left_beyond_it() -> None:
    action = RealQuartic(-1.0, 0.4)
    for drop in (20.0, 45.0):
        phi = real_grid(action, 2001, drop)
        s = action.action(torch.from_numpy(phi)).numpy()
        assert s[[0, -1]].min() - s.min() > drop
        assert phi[0] == -phi[-1]


def test_what_does_not_fall_off_is_refused() -> None:
    with pytest.raises(InputError, match="of OneLink does not fall off"):
        real_grid(OneLink(1.0), 101)

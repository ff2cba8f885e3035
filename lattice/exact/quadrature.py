"""The grid on which integrals over the real axis are summed."""

from __future__ import annotations

import numpy as np
import torch

from lattice.actions.protocol import Action
from lattice.arrays import Floats
from lattice.errors import InputError


def real_grid(action: Action, n: int, drop: float = 45.0) -> Floats:
    """A uniform grid (n,) on the real axis beyond which Re S lies more than `drop` above its lowest value."""
    radius, lowest = 1.0, 0.0
    for _ in range(200):
        phi = np.linspace(-radius, radius, 2001)
        s = action.action(torch.from_numpy(phi)).real.numpy()
        lowest = float(s.min())
        if min(s[0], s[-1]) - lowest > drop:
            return np.linspace(-radius, radius, n)
        radius *= 1.1
    raise InputError(f"exp(-S) of {type(action).__name__} does not fall off on the real axis")

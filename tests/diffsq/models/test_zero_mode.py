"""The posterior of the zero mode: two sharp peaks, and one that is not split."""

import math

import numpy as np
import pytest
import torch

from diffsq.models.zero_mode import ZeroModeDenoiser
from lattice.rng import normals

SIGMA = torch.tensor([2.0])


def test_posterior_of_two_sharp_peaks() -> None:
    one_mode = ZeroModeDenoiser()
    one_mode.fit(torch.full((1000,), 3.0, dtype=torch.float64))
    z = torch.tensor([0.4], dtype=torch.float64)
    posterior = one_mode.posterior(z, SIGMA.double())
    peak = float(one_mode.centre[one_mode.log_p.argmax()].abs())
    odds = math.exp(-2 * peak * 0.4 / (4.0 + float(one_mode.width2)))
    assert float(posterior.q) == pytest.approx(odds / (1 + odds), rel=2e-3)
    assert float(posterior.minor_mean) == pytest.approx(-peak, rel=2e-2)
    assert one_mode.two_peaks()


def test_gaussian_zero_mode_is_not_split() -> None:
    one_mode = ZeroModeDenoiser()
    one_mode.fit(torch.from_numpy(normals(2, "test/zero", np.arange(1), 0, 50000)[0]))
    assert not one_mode.two_peaks()

"""The two-peak law in closed form: score, denoiser, energy and cumulants agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffsq.models.two_peak import TwoPeakScore
from lattice.actions.one_variable import TwoPeak
from lattice.errors import InputError
from lattice.exact.one_variable import toy_cumulants

LAW = TwoPeakScore(1.0, 0.25)


def test_two_peak_cumulants_agree_with_the_toy_model() -> None:
    assert np.allclose(LAW.cumulants, toy_cumulants(TwoPeak(1.0, 0.25), 8).real, atol=1e-12)
    other = TwoPeakScore(0.7, 0.4)
    assert np.allclose(other.cumulants, toy_cumulants(TwoPeak(0.7, 0.4), 8).real, atol=1e-12)


def test_score_denoiser_energy_and_posterior_variance() -> None:
    x = torch.linspace(-3, 3, 41, dtype=torch.float64)[:, None]
    for level in (0.01, 0.3, 2.0):
        sigma, h = torch.full((1,), level, dtype=torch.float64), 1e-5
        slope = (LAW.energy(x + h, sigma) - LAW.energy(x - h, sigma)) / (2 * h)
        assert torch.allclose(LAW.score(x, sigma)[:, 0], -slope, rtol=1e-6, atol=1e-6)
        assert torch.allclose(LAW.denoise(x, sigma), x + level**2 * LAW.score(x, sigma), atol=1e-10)
        # Tweedie's second identity: C = sigma^2 dD/dx
        slope = (LAW.denoise(x + h, sigma) - LAW.denoise(x - h, sigma)) / (2 * h)
        assert torch.allclose(LAW.posterior_variance(x, sigma), level**2 * slope, rtol=1e-5, atol=1e-9)
    zero = torch.zeros(1, dtype=torch.float64)
    assert torch.allclose(LAW.score(x, zero), -TwoPeak(1.0, 0.25).grad(x), rtol=1e-10)


def test_two_peaks_have_a_width() -> None:
    with pytest.raises(InputError, match="sigma0 > 0"):
        TwoPeakScore(1.0, 0.0)

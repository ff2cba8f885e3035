"""The reverse step of the zero mode: densities against quadrature, draws against densities."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest

from diffsq.models.zero_mode import ZeroModeDenoiser, log_gauss
from diffsq.sampling.zero_mode_step import ZeroModeLaw, fit_variance, zero_mode_law
from lattice.rng import normals

SIGMA = torch.tensor([2.0])


def column(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def law(q: float) -> ZeroModeLaw:
    return ZeroModeLaw(column(q), column(0.7), column(3.0), column(0.4))


def cdf(law: ZeroModeLaw, z: np.ndarray) -> np.ndarray:
    parts = [(1 - law.q, 0 * law.shift, law.variance), (law.q, law.shift, law.minor)]
    at = torch.as_tensor(z, dtype=torch.float64)
    return sum(w * torch.special.ndtr((at - mean) / v.sqrt()) for w, mean, v in parts).numpy()


@pytest.mark.parametrize("q", [0.0, 1e-3, 0.3, 0.5])
def test_density_is_normalised(q: float) -> None:
    total = quad(lambda z: float(law(q).log_density(column(z)).exp()), -12, 14, limit=200, epsabs=1e-10)[0]
    assert total == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("q", [0.0, 0.1, 0.5])
def test_draws_follow_the_density(q: float) -> None:
    white = torch.from_numpy(normals(1, "test/zero", np.arange(1), 0, 20000)[0])
    one = law(q)
    many = ZeroModeLaw(*(t.expand(20000) for t in (one.q, one.variance, one.shift, one.minor)))
    z = many.draw(white).numpy()
    p = kstest(z, lambda x: cdf(one, x)).pvalue
    wrong = kstest(z, lambda x: cdf(law(min(q + 0.05, 0.55)), x)).pvalue
    assert p > 1e-4
    assert wrong < 1e-12  # negative control: 5 % of the weight on the wrong peak


def test_two_components_keep_the_mean_of_the_score_model() -> None:
    one_mode = ZeroModeDenoiser()
    one_mode.fit(torch.cat([torch.full((500,), 3.0), torch.full((500,), 3.4)]).double())
    z = torch.linspace(-4, 4, 9, dtype=torch.float64)
    posterior = one_mode.posterior(z, SIGMA.expand(9).double())
    d0 = one_mode(z, SIGMA.expand(9).double()) + 0.2
    rho, bridge = torch.tensor(0.3), torch.tensor(0.5)
    shift, two = zero_mode_law(posterior, d0, rho, bridge, True)
    # about rho (D - x): mean of the mixture = shift + q * law.shift must vanish
    assert torch.allclose(shift + two.q * two.shift, torch.zeros(9, dtype=torch.float64), atol=1e-6)


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


def test_variance_fit_recovers_a_known_law() -> None:
    n = 40000
    white = torch.from_numpy(normals(3, "test/zero", np.arange(2), 0, n))
    v = 1 + 0.5 * torch.tanh(white[1])
    zero = torch.zeros(n, dtype=torch.float64)
    z = white[0] * (0.2 + v).sqrt()  # bridge 0.2 and the whole posterior variance
    given = ZeroModeLaw(zero, v, zero, torch.ones_like(zero))
    bridge = torch.tensor(0.2, dtype=torch.float64)
    fraction, mean, c = fit_variance(z, given, bridge)
    slope = fraction * float(1 - bridge / c) / mean
    assert float(c) == pytest.approx(float(0.2 + v.mean()), rel=5 * math.sqrt(2 / n))
    assert slope == pytest.approx(1 / float(0.2 + v.mean()), rel=0.15)
    flat = log_gauss(z, c.expand(n)).mean()
    fitted = log_gauss(z, c * (1 + slope * (v - mean))).mean()
    assert fitted > flat


@pytest.mark.parametrize("follows", [0.0, 0.5, 1.0])
def test_variance_fit_finds_how_much_follows(follows: float) -> None:
    n = 40000
    white = torch.from_numpy(normals(5, "test/zero", np.arange(2), 0, n))
    v = 1 + 0.5 * torch.tanh(white[1])
    zero = torch.zeros(n, dtype=torch.float64)
    z = white[0] * (0.2 + v.mean() + follows * (v - v.mean())).sqrt()
    given = ZeroModeLaw(zero, v, zero, torch.ones_like(zero))
    fraction, _, _ = fit_variance(z, given, torch.tensor(0.2, dtype=torch.float64))
    assert fraction == pytest.approx(follows, abs=0.11)  # a grid of steps 0.1

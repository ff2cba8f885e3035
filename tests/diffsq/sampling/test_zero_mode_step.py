"""The reverse step of the zero mode: densities against quadrature, draws against densities."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest

from diffsq.models.zero_mode import ZeroModeDenoiser
from diffsq.sampling.zero_mode_step import ZeroModeLaw, table_variance, zero_mode_law
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
    rho, bridge, scale = torch.tensor(0.3), torch.tensor(0.5), torch.tensor(0.9)
    shift, two = zero_mode_law(posterior, d0, rho, bridge, scale)
    # about rho (D - x): mean of the mixture = shift + q * law.shift must vanish
    assert torch.allclose(shift + two.q * two.shift, torch.zeros(9, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("two_peaks", [False, True])
def test_the_table_follows_z_and_keeps_the_mean_of_the_model(two_peaks: bool) -> None:
    """bridge + rho^2 scale v(z): over noisy z the posterior part is C(0) where scale = C(0)/<v>."""
    n, sigma = 20000, torch.tensor([0.7, 2.0], dtype=torch.float64)
    clean = torch.from_numpy(normals(3, "test/zero", np.arange(2), 0, n))
    z0 = 2.5 * torch.tanh(clean[0]) if two_peaks else clean[0]
    one_mode = ZeroModeDenoiser()
    one_mode.fit(z0)
    assert one_mode.two_peaks() == two_peaks
    mean = table_variance(one_mode, sigma)
    for at, known in zip(sigma, mean, strict=True):
        z = z0 + at * clean[1]
        found = one_mode.posterior(z, at.expand(n)).variance
        assert abs(float(found.mean() - known)) < 4 * float(found.std()) / math.sqrt(n) + 0.01 * float(known)
        # the denoiser's own error; negative control: 10 % more
        missed = (z0 - one_mode(z, at.expand(n))) ** 2
        error = float(missed.std()) / math.sqrt(n)
        assert abs(float(missed.mean() - known)) < 4 * error
        assert abs(float(missed.mean() - 1.1 * known)) > 4 * error


def test_the_likely_component_has_bridge_and_scaled_posterior() -> None:
    one_mode = ZeroModeDenoiser()
    one_mode.fit(torch.from_numpy(normals(4, "test/zero", np.arange(1), 0, 2000)[0]))
    z, sigma = torch.linspace(-2, 2, 5, dtype=torch.float64), torch.tensor(1.5, dtype=torch.float64)
    posterior = one_mode.posterior(z, sigma.expand(5))
    rho, bridge, scale = (torch.tensor(value, dtype=torch.float64) for value in (0.3, 0.5, 0.8))
    _, law = zero_mode_law(posterior, one_mode(z, sigma.expand(5)), rho, bridge, scale)
    assert torch.allclose(law.variance, 0.5 + 0.09 * 0.8 * posterior.major_variance)
    assert (posterior.major_variance < posterior.variance).all()
    assert torch.allclose(law.minor, 1.05 * (0.5 + 0.09 * posterior.minor_variance))  # never scaled down

"""The noising processes: schedules, what they do to cumulants, and path weights in VP variables."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from fields import generator
from scipy.stats import multivariate_normal
from small_models import equilibrium, noise_of, phi4_model, still
from small_paths import as_matrix

from diffsq.process.sde import VESDE, VPSDE
from diffsq.sampling.lattice_path import ReversePath
from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError
from lattice.statistics.cumulants import cumulants_from_moments

MU, WIDTH = 1.0, 0.25
KAPPA = {2: MU**2 + WIDTH**2, 4: -2 * MU**4, 6: 16 * MU**6}
SCHEDULES = [VESDE(0.05, 30.0), VESDE(0.2, 0.9), VESDE(1e-3, 1.0)]


@pytest.mark.parametrize("sde", SCHEDULES)
def test_time_is_the_inverse_of_sigma(sde: VESDE) -> None:
    t = torch.linspace(0, 1, 33, dtype=torch.float64)
    torch.testing.assert_close(sde.time(sde.sigma(t)), t, rtol=0, atol=1e-13)
    assert float(sde.sigma(t[0])) == pytest.approx(sde.sigma_min, rel=1e-14)
    assert float(sde.sigma(t[-1])) == pytest.approx(sde.sigma_max, rel=1e-14)


@pytest.mark.parametrize("sde", SCHEDULES)
def test_g_squared_is_the_rate_of_variance(sde: VESDE) -> None:
    t, h = torch.linspace(0, 1, 17, dtype=torch.float64), 1e-5
    rate = (sde.sigma(t + h) ** 2 - sde.sigma(t - h) ** 2) / (2 * h)
    torch.testing.assert_close(sde.diffusion(t) ** 2, rate, rtol=1e-7, atol=0)
    rate_of_sigma = ((sde.sigma(t + h) - sde.sigma(t - h)) / (2 * h)) ** 2  # the wrong derivative is far off
    assert ((sde.diffusion(t) ** 2 / rate_of_sigma - 1).abs() > 0.1).all()


@pytest.mark.parametrize("sde", SCHEDULES)
@pytest.mark.parametrize("n", [2, 5, 40])
def test_levels_start_at_zero_and_are_geometric(sde: VESDE, n: int) -> None:
    levels = sde.levels(n)
    assert levels.shape == (n + 1,)
    assert levels.dtype == torch.float64
    assert float(levels[0]) == 0
    ratio = levels[2:] / levels[1:-1]
    torch.testing.assert_close(ratio, ratio[:1].expand(n - 1), rtol=1e-12, atol=0)
    assert float(levels[1]) == pytest.approx(sde.sigma_min)
    assert float(levels[-1]) == pytest.approx(sde.sigma_max)
    assert float((levels[1:] ** 2 - levels[:-1] ** 2).sum()) == pytest.approx(sde.sigma_max**2)


def diffuse(
    sde: VESDE, step: Callable[[torch.Tensor, float], torch.Tensor], n: int = 1_000_000
) -> torch.Tensor:
    """Two-peak data, sigma_min of noise, then 40 steps of dx = g dw; midpoint rule for g."""
    gen, n_steps = generator(7), 40
    x = torch.randint(0, 2, (n,), generator=gen).double() * 2 * MU - MU
    x += math.sqrt(WIDTH**2 + sde.sigma_min**2) * torch.randn(n, generator=gen, dtype=torch.float64)
    for i in range(n_steps):
        g = sde.diffusion(torch.tensor((i + 0.5) / n_steps, dtype=torch.float64))
        x += step(g, 1 / n_steps) * torch.randn(n, generator=gen, dtype=torch.float64)
    return x


def deviations(x: torch.Tensor, expected: dict[int, float]) -> dict[int, float]:
    """(kappa_n - expected)/error from 100 blocks."""
    blocks = x.reshape(100, -1)
    moments = torch.stack([(blocks**n).mean(1) for n in range(1, 9)], 1).numpy()
    mean = cumulants_from_moments(moments.mean(0))
    spread = torch.tensor([list(cumulants_from_moments(m)) for m in moments]).std(0) / 10
    return {n: float((mean[n - 1] - k) / spread[n - 1]) for n, k in expected.items()}


def test_noise_moves_the_second_cumulant_and_no_other() -> None:
    sde = VESDE(0.1, 1.0)
    truth = {**KAPPA, 2: KAPPA[2] + sde.sigma_max**2}
    good = diffuse(sde, lambda g, dt: g * math.sqrt(dt))
    for n, deviation in deviations(good, truth).items():
        assert abs(deviation) < 4.5, n
    assert abs(deviations(good, {2: KAPPA[2]})[2]) > 100  # it did grow
    # a process that also shrinks the field (VP) does not conserve the higher ones
    assert min(abs(d) for d in deviations(0.9 * good, truth).values()) > 10


def test_a_wrong_power_of_dt_is_caught() -> None:
    sde = VESDE(0.1, 1.0)
    wrong = diffuse(sde, lambda g, dt: g * dt)
    found = deviations(wrong, {**KAPPA, 2: KAPPA[2] + sde.sigma_max**2})
    assert abs(found[2]) > 100
    assert abs(found[4]) < 4.5  # still Gaussian noise: only the second cumulant can tell


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (2.0, 1.0), (0.1, math.inf), (math.nan, 1.0), (0.1, math.nan)],
)
def test_impossible_schedules_are_refused(low: float, high: float) -> None:
    with pytest.raises(InputError, match="need 0 < sigma_min < sigma_max") as info:
        VESDE(low, high)
    assert "\n" not in str(info.value)


# --- the variance-preserving process ----------------------------------------------------------------------

VP = VPSDE(0.1, 12.0)


def test_vp_noise_and_signal_obey_their_equations() -> None:
    t, h = torch.linspace(0.05, 0.95, 19, dtype=torch.float64), 1e-5
    rate = (VP.signal(t + h).log() - VP.signal(t - h).log()) / (2 * h)
    torch.testing.assert_close(rate, -0.5 * VP.beta(t), rtol=1e-8, atol=0)  # f = exp(-1/2 int k)

    def xi(s: torch.Tensor) -> torch.Tensor:  # Xi = f^2 sigma^2 obeys dXi/dt = g^2 - k Xi
        return (VP.signal(s) * VP.sigma(s)) ** 2

    derivative = (xi(t + h) - xi(t - h)) / (2 * h)
    torch.testing.assert_close(derivative, VP.diffusion(t) ** 2 - VP.beta(t) * xi(t), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(VP.signal(t) ** 2 + xi(t), torch.ones_like(t))  # unit variance stays
    wrong = VP.diffusion(t) ** 2 / 2 - VP.beta(t) * xi(t)  # a lost sqrt 2 in g
    assert ((derivative - wrong).abs() > 0.05).all()


def test_vp_times_and_levels() -> None:
    sigma = torch.tensor([0.1, 0.7, 3.0, 12.0], dtype=torch.float64)
    torch.testing.assert_close(VP.sigma(VP.time(sigma)), sigma, rtol=1e-12, atol=0)
    levels = VP.levels(9)
    assert levels.shape == (10,)
    assert levels[[0, 1, -1]].tolist() == pytest.approx([0.0, 0.1, 12.0])
    assert (levels.diff() > 0).all()
    torch.testing.assert_close(VP.time(levels[1:]).diff(), VP.time(levels[1:]).diff()[:1].expand(8))
    with pytest.raises(InputError, match="sigma_min"):
        VPSDE(2.0, 1.0)


def test_vp_weights_in_its_own_variables_are_those_of_the_path() -> None:
    """log w of y = f x, every density a dense Gaussian of the VP process, is the log w of the path in x."""
    action, shape = ScalarPhi4(0.22, 0.04), (2, 2)
    model = phi4_model(action, equilibrium(action, shape, 2048))
    sde = VPSDE(*(float(model.base.log_sigma[i].exp()) for i in (0, -1)))
    levels, n, v = sde.levels(4), 5, 4
    path, p = ReversePath(model, levels), model.momenta
    trail: dict[int, torch.Tensor] = {}
    _, log_w = path.sample(
        action.action, noise_of("vp", n, shape), still, lambda level, x: trail.update({level: x})
    )
    f = torch.cat([torch.ones(1, dtype=torch.float64), sde.signal(sde.time(levels[1:]))]).numpy()
    y = {level: f[level] * x.reshape(n, v).numpy() for level, x in trail.items()}
    unit = torch.eye(v, dtype=torch.float64).reshape(v, *shape)

    def dense(variance: torch.Tensor) -> np.ndarray:
        return p.fields(p.expand(variance) * p.modes(unit)).reshape(v, v).numpy()

    start = f[4] ** 2 * dense(model.base.g + levels[-1] ** 2)
    expected = -action.action(trail[0]).numpy() - multivariate_normal.logpdf(y[4], np.zeros(v), start)
    for step in range(4):
        a = f[step + 1] / f[step]
        k_integral = -2 * math.log(a)
        noise = (1 - math.exp(-k_integral)) if step else f[1] ** 2 * float(levels[1]) ** 2
        law = path.reverse(trail[step + 1], step, still(step))
        mean = f[step] * p.fields(law.mean).reshape(n, v).numpy()
        cov = f[step] ** 2 * dense(path.variance[step])
        assert law.spread is not None
        for i in range(n):
            m = as_matrix(law.spread, i)
            expected[i] += multivariate_normal.logpdf(y[step + 1][i], a * y[step][i], noise * np.eye(v))
            expected[i] -= multivariate_normal.logpdf(y[step][i], mean[i], m @ cov @ m.T)
    assert log_w.numpy() == pytest.approx(expected, abs=1e-8)

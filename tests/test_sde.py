"""The variance-expanding process: schedule, and what it does to cumulants."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from fields import generator

from diffsq.sde import VESDE
from lattice.cumulants import cumulants_from_moments
from lattice.errors import InputError

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

"""Samplers of points on laws known exactly: Gaussian, and two peaks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_points import KAPPA, TwoPeak, gaussian_model, with_errors

from diffsq.process.sde import VESDE, VPSDE
from diffsq.sampling.flow import METHODS, sample_points
from diffsq.sampling.point_path import calibrated
from diffsq.sampling.streams import POINT_BLOCK
from lattice.errors import InputError

COVARIANCE = torch.tensor([[0.75, -0.25], [-0.25, 0.25]], dtype=torch.float64)
ROOT = torch.linalg.cholesky(COVARIANCE)


def normal_points(n: int) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) @ ROOT.T


def moments(x: torch.Tensor) -> torch.Tensor:
    """Second and fourth moments of the whitened components (2, 2)."""
    white = torch.linalg.solve(ROOT, x.T)
    return torch.stack([(white**2).mean(1), (white**4).mean(1)])


@pytest.mark.parametrize("sde", [VESDE, VPSDE])
@pytest.mark.parametrize("method", METHODS)
def test_gaussian_data_without_training(method: str, sde: type[VESDE] | type[VPSDE]) -> None:
    """Moments within 4 sigma, but for the O(1/N) of the samplers that have one."""
    model, n = gaussian_model(COVARIANCE), 2 * POINT_BLOCK
    levels = sde(0.02, 8.0).levels({"euler": 120, "pc": 80, "flow": 24}.get(method, 80))
    kernel = calibrated(model, levels, normal_points(POINT_BLOCK), 1) if method == "path" else None
    x = sample_points(model, levels, n, 3, method, kernel=kernel)
    step = {"euler": 0.08, "pc": 0.08, "heun": 0.03, "path": 0.015, "flow": 0.0}[method]
    for order, found in zip((2, 4), moments(x)):
        truth = {2: 1.0, 4: 3.0}[order]
        error = math.sqrt({2: 2, 4: 96}[order] / n)
        assert ((found - truth).abs() < 4 * error + order * step).all()
    assert abs(float((x[:, 0] * x[:, 1]).mean()) + 0.25) < 4 * math.sqrt(0.25 / n) + step


def errors(method: str, sizes: tuple[int, ...]) -> list[float]:
    """Deviation of the spread of a deterministic sampler from the exact one, for several N."""
    model, out = gaussian_model(COVARIANCE[:1, :1]), []
    for n in sizes:
        levels = torch.cat([torch.zeros(1), 5.0 * (torch.arange(1, n + 1) / n) ** 1.5]).double()
        start = sample_points(model, levels, 50, 3, method)
        exact = sample_points(model, levels[[0, 1, -1]], 50, 3, "flow")
        out.append(abs(float((start / exact).mean()) - 1))
    return out


def test_orders_in_the_number_of_levels() -> None:
    """heun is of second order; the flow in whitened variables is exact for a Gaussian."""
    found = errors("heun", (32, 64, 128))
    assert np.log2(found[0] / found[1]) == pytest.approx(2, abs=0.3)
    assert np.log2(found[1] / found[2]) == pytest.approx(2, abs=0.3)
    assert max(errors("flow", (8, 64))) < 1e-12


@pytest.mark.parametrize(("method", "n_levels", "limit"), [("flow", 32, 4.0), ("heun", 240, 4.0)])
def test_two_peaks_from_their_exact_score(method: str, n_levels: int, limit: float) -> None:
    levels = VESDE(0.005, 12.0).levels(n_levels)
    x = sample_points(TwoPeak(), levels, 8 * POINT_BLOCK, 5, method)[:, 0]
    value, error = with_errors(x)
    assert (np.abs(value - KAPPA) < limit * error).all()


@pytest.mark.parametrize("method", ["euler", "pc"])
def test_first_order_samplers_come_closer_with_more_levels(method: str) -> None:
    off = []
    for n in (10, 50):
        x = sample_points(TwoPeak(), VESDE(0.005, 12.0).levels(n), 2 * POINT_BLOCK, 5, method)[:, 0]
        value, error = with_errors(x)
        off.append(abs(value[0] - KAPPA[0]))
    assert off[0] > 10 * error[0]
    assert off[1] < 0.5 * off[0]


def test_flow_sees_a_wrong_score() -> None:
    class Wrong(TwoPeak):
        def score(self, x: torch.Tensor, sigma: torch.Tensor, frame: object = None) -> torch.Tensor:
            return 1.03 * super().score(x, sigma)

    x = sample_points(Wrong(), VESDE(0.005, 12.0).levels(32), 8 * POINT_BLOCK, 5, "flow")[:, 0]
    value, error = with_errors(x)
    assert np.abs(value - KAPPA)[0] > 10 * error[0]


def test_samples_do_not_depend_on_how_many_are_drawn() -> None:
    model, levels = gaussian_model(COVARIANCE), VESDE(0.1, 8.0).levels(8)
    for method in ("flow", "euler"):
        many = sample_points(model, levels, 2 * POINT_BLOCK + 10, 4, method)
        assert torch.equal(sample_points(model, levels, 10, 4, method), many[:10])
        second = sample_points(model, levels, 2 * POINT_BLOCK + 10, 4, method, blocks=range(1, 3))
        assert torch.equal(second, many[POINT_BLOCK:])
    assert not torch.equal(many[:10], sample_points(model, levels, 10, 5, method))
    seen: list[int] = []
    sample_points(model, levels, 10, 4, "flow", watch=lambda level, x: seen.append(level))
    assert seen == [8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_samples_stay_in_the_box_of_the_data() -> None:
    model, levels = gaussian_model(COVARIANCE), VESDE(0.1, 8.0).levels(8)
    model.box.copy_(torch.tensor([[-0.5, -0.2], [0.5, 0.2]]))
    x = sample_points(model, levels, 1000, 4, "flow")
    assert (x.abs().max(0).values == torch.tensor([0.5, 0.2])).all()


def test_wrong_requests() -> None:
    model, levels = gaussian_model(COVARIANCE), VESDE(0.1, 8.0).levels(8)
    with pytest.raises(InputError, match="choose one of euler, pc, heun, flow, path"):
        sample_points(model, levels, 10, 1, "magic")
    with pytest.raises(InputError, match="needs a kernel"):
        sample_points(model, levels, 10, 1, "path")
    with pytest.raises(InputError, match="0 = sigma_0"):
        sample_points(model, levels[1:], 10, 1, "flow")
    kernel = calibrated(model, levels, normal_points(1000), 1)
    with pytest.raises(InputError, match="other levels"):
        sample_points(model, VESDE(0.1, 8.0).levels(9), 10, 1, "path", kernel=kernel)
    model.variance[0] = math.nan
    with pytest.raises(InputError, match="damaged"):
        sample_points(model, levels, 10, 1, "euler")
    broken = gaussian_model(COVARIANCE)
    broken.network.weight.data.fill_(math.nan)
    with pytest.raises(InputError, match="NaN or infinite"):
        sample_points(broken, levels, 10, 1, "flow")

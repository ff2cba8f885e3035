"""The posterior mean of a data set on a grid: against direct sums, and against a law known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from diffsq.training.posterior_means import Table, binned, check_points, draw_nodes, table
from lattice.errors import InputError

MU, S0 = 1.0, 0.25


@pytest.fixture
def rng() -> np.random.Generator:
    """Of each test anew: its numbers do not depend on which tests ran before it."""
    return np.random.default_rng(11)


def two_peak(n: int, rng: np.random.Generator) -> np.ndarray:
    return (S0 * rng.normal(size=n) + MU * np.where(rng.random(n) < 0.5, 1, -1))[:, None]


def exact_mean(x: np.ndarray, sigma: float) -> np.ndarray:
    v = S0**2 + sigma**2
    return (S0**2 * x + sigma**2 * MU * np.tanh(MU * x / v)) / v


def exact_density(x: np.ndarray, sigma: float) -> np.ndarray:
    v = S0**2 + sigma**2
    return sum(0.5 * np.exp(-((x - m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v) for m in (MU, -MU))


def weighted_rms(found: Table, error: np.ndarray) -> float:
    return float(np.sqrt((found.density * error**2).sum() / found.density.sum()))


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_direct_sums_over_the_data_and_its_mirror_image(
    dim: int, sigma: float, rng: np.random.Generator
) -> None:
    points = rng.normal(size=(400, dim)) * np.array([1.0, 0.3])[:dim]
    found = table(points, sigma, cells=64 if dim == 1 else 24)
    x, mean, density = found.at(draw_nodes(found.density, rng.random(200)))
    both = np.concatenate([points, -points])
    weight = np.exp(-0.5 * ((x[:, None] - both) ** 2).sum(-1) / sigma**2)
    direct = (weight[..., None] * both).sum(1) / weight.sum(1, keepdims=True)
    ratio = density * (2 * np.pi * sigma**2) ** (dim / 2) / weight.mean(1)
    assert np.sqrt(((mean - direct) ** 2).mean()) < 0.005 * sigma  # rms: a lone point shows its cell
    assert np.sqrt(((ratio - 1) ** 2).mean()) < 0.005


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0, 8.0])
def test_posterior_mean_of_the_two_peak_law(sigma: float, rng: np.random.Generator) -> None:
    """The error is that of 2^20 data points, whatever the noise: cells and cut-off are not seen."""
    n = 2**20
    found = table(two_peak(n, rng), sigma)
    x = found.axes[0]
    width = sigma / np.sqrt(1 + sigma**2)  # of the posterior
    error = weighted_rms(found, (found.mean[:, 0] - exact_mean(x, sigma)) / width)
    effective = 2 * n * min(1.0, sigma)
    assert error < 4 / np.sqrt(effective)
    assert weighted_rms(found, found.density / exact_density(x, sigma) - 1) < 10 / np.sqrt(effective)
    blunt = weighted_rms(found, (found.mean[:, 0] - x * 1.0625 / (1.0625 + sigma**2)) / width)
    if sigma < 2:  # a Wiener filter would be seen
        assert blunt > 0.1


def test_cell_width_is_taken_back(rng: np.random.Generator) -> None:
    """Variance of p_sigma is that of the data plus sigma^2, not plus h^2/12 = sigma^2/192 as well."""
    points, sigma = two_peak(2**18, rng), 0.8
    found = table(points, sigma)
    h = found.axes[0][1] - found.axes[0][0]
    assert found.density.sum() * h == pytest.approx(1, abs=1e-9)
    variance = (found.density * found.axes[0] ** 2).sum() * h
    assert variance == pytest.approx((points**2).mean() + sigma**2, abs=2e-4)


def test_the_target_is_odd(rng: np.random.Generator) -> None:
    found = table(rng.normal(size=(1000, 2)) + 0.3, 0.5)
    assert np.allclose(found.mean, -found.mean[::-1, ::-1], atol=1e-12)
    assert np.allclose(found.density, np.flip(found.density), atol=1e-14)


def test_nodes_are_drawn_from_the_density(rng: np.random.Generator) -> None:
    found = table(two_peak(2**16, rng), 0.3)
    x = found.at(draw_nodes(found.density, rng.random(100_000)))[0][:, 0]
    h = found.axes[0][1] - found.axes[0][0]
    for n in (2, 4, 6):
        truth = (found.density * found.axes[0] ** n).sum() * h
        assert abs((x**n).mean() - truth) < 4 * (x**n).std() / np.sqrt(len(x))  # stratified: far below
    flat = found.at(draw_nodes(np.ones_like(found.density), rng.random(100_000)))[0][:, 0]
    assert (flat**2).mean() > 1.5 * (x**2).mean()


def test_bins_are_centred() -> None:
    centres, counts = binned(np.array([[0.4, 0.0], [-2.6, 1.0]]), np.array([1.0, 1.0]))
    assert [len(c) for c in centres] == [7, 3]
    assert counts.sum() == 4
    assert counts[3, 1] == 2
    assert counts[0, 2] == 1
    assert counts[6, 0] == 1


@pytest.mark.parametrize(
    ("points", "what"),
    [
        (np.zeros((4, 3)), "shape"), (np.zeros(4), "shape"), (np.zeros((1, 1)), "N >= 2"),
        (np.array([[1.0], [np.nan]]), "first is row 1"), (np.array([[1.0], [np.inf]]), "NaN or infinite"),
        (np.ones((5, 1)), "same value"),
    ],
)  # fmt: skip
def test_bad_points_are_refused(points: np.ndarray, what: str) -> None:
    with pytest.raises(InputError, match=what):
        check_points(points)


def test_a_law_of_one_variable_in_two_is_refused(rng: np.random.Generator) -> None:
    flat = np.stack([rng.normal(size=100), 1e-9 * rng.normal(size=100)], 1)
    with pytest.raises(InputError, match="hardly varies"):
        check_points(flat)
    with pytest.raises(InputError, match=r"noise of 1e-05 is too fine .* sigma_min"):
        table(rng.normal(size=(100, 1)), 1e-5)


def test_an_outlier_is_named(rng: np.random.Generator) -> None:
    points = np.concatenate([rng.normal(size=(100, 2)), [[1e6, 0.0]]])
    with pytest.raises(InputError, match="outliers"):
        table(points, 0.01)

"""Rank calibration passes with exact reverse processes, fails with a wrong root two and a scaled score."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
import torch
from fields import MU, free_fields, generator, two_peak, two_peak_denoiser
from small_models import Shrunk, equilibrium, free_model, geometric, levels_of, phi4_model, still
from torch import Tensor

from diffsq.analysis.calibration import (
    Draw,
    PathRanks,
    Stream,
    field_statistics,
    independent_rows,
    path_ranks,
    plain_draw,
    ranks,
)
from diffsq.models.lattice import LatticeScore
from diffsq.models.spread import Spread
from diffsq.models.symmetry import IDENTITY, Symmetry
from diffsq.sampling import steps
from diffsq.sampling.lattice_path import ReversePath, ReverseStep
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.arrays import Integers
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.statistics.uniformity import holm, uniformity

K = 15
PASSES, FAILS = 1e-4, 1e-12


def p_values(found: dict[str, Integers], n_draws: int = K) -> list[float]:
    """p of each statistic, corrected for their number."""
    return holm([uniformity(rank, n_draws).p for rank in found.values()])


# --- the free field: the reverse kernel is exact ----------------------------------------------------------

SHAPE, KAPPA, N_FREE = (4, 4), 0.2, 700
FREE = FreeScalar(KAPPA)


class Scaled(LatticeScore):
    """The score times `factor`."""

    factor = 1.1

    def posterior(
        self, xk: Tensor, sigma: Tensor, frame: Symmetry = IDENTITY
    ) -> tuple[Tensor, Spread | None]:
        d, spread = super().posterior(xk, sigma, frame)
        return xk + self.factor * (d - xk), spread


class LouderStep(ReverseStep):
    """Its noise multiplied by `factor`."""

    factor = 1.0

    def draw(self, noise: Tensor) -> Tensor:
        return super().draw(self.factor * noise)


class WrongNoise(ReversePath):
    """Steps with their noise multiplied by `factor`."""

    factor = math.sqrt(0.5)

    def reverse(self, x: Tensor, n: int, frame: Symmetry) -> LouderStep:
        step = LouderStep(**vars(super().reverse(x, n, frame)))
        step.factor = self.factor
        return step


class TooMuchNoise(WrongNoise):
    factor = math.sqrt(2.0)


def free_ranks(path: ReversePath, level: int, n: int = N_FREE) -> PathRanks:
    stream = Stream(3, f"test/free/{level}")
    phi = free_fields(FREE, SHAPE, n, 11)
    return path_ranks(path, level, phi, FREE.action, field_statistics(FREE.action, stream), K, stream, still)


@lru_cache(maxsize=1)
def free_path() -> ReversePath:
    return ReversePath(free_model(SHAPE, KAPPA), geometric(6, 0.3, 8.0))


@pytest.mark.parametrize("level", [1, 3, 6])
def test_the_free_field_is_calibrated(level: int) -> None:
    found = free_ranks(free_path(), level)
    assert list(found.raw) == ["M", "|M|", "s", "phi_x"]
    assert min(p_values(found.raw)) > PASSES
    assert found.ess == pytest.approx(1, abs=1e-9)
    # all weights are equal, and the corrected ranks are the raw ones
    for name, raw in found.raw.items():
        assert (found.corrected[name] != raw).mean() < 1e-3


@pytest.mark.parametrize("wrong", [WrongNoise, TooMuchNoise])
def test_free_field_with_a_wrong_root_two_fails(wrong: type[WrongNoise]) -> None:
    path = wrong(free_path().model, free_path().levels)
    for level in (1, 6):
        found = free_ranks(path, level, 500)
        assert min(p_values(found.raw)) < FAILS
        for name in ("M", "phi_x"):
            words = uniformity(found.raw[name], K).words()
            assert ("too narrow" if wrong is WrongNoise else "too wide") in words


def test_free_field_with_a_scaled_score_fails() -> None:
    path = ReversePath(Scaled(free_path().model.base, None), free_path().levels)
    assert min(p_values(free_ranks(path, 6, 600).raw)) < FAILS


def test_a_wrong_action_fails_with_any_sampler() -> None:
    """Corrected ranks judge the fields too: these are not of this action."""
    other = FreeScalar(0.24)
    stream = Stream(3, "test/other")
    found = path_ranks(
        free_path(), 4, free_fields(FREE, SHAPE, 800, 11), other.action,
        field_statistics(other.action, stream), K, stream, still,
    )  # fmt: skip
    assert min(p_values(found.corrected)) < FAILS


@pytest.mark.parametrize("name", ["euler", "pc"])
def test_samplers_without_weights(name: str) -> None:
    """Calibrated on fine levels, not on coarse ones."""
    model, phi = free_model(SHAPE, KAPPA), free_fields(FREE, SHAPE, 300, 13)
    smallest = {}
    for n in (3, 40):
        levels = 2.0 * (torch.arange(n + 1, dtype=torch.float64) / n) ** 1.5
        stream = Stream(5, f"test/{name}")
        draw = plain_draw(steps.STEPS[name], model, levels, n, stream, still)
        statistics = field_statistics(FREE.action, stream)
        smallest[n] = min(p_values(ranks(draw, phi, 2.0, statistics, 3, stream), 3))
    assert smallest[40] > PASSES
    assert smallest[3] < FAILS


def test_a_deterministic_sampler_is_refused() -> None:
    model, levels = free_model(SHAPE, KAPPA), geometric(4, 0.3, 2.0)
    stream = Stream(5, "test/heun")
    draw = plain_draw(steps.heun, model, levels, 4, stream, still)
    with pytest.raises(InputError, match="deterministic"):
        ranks(draw, free_fields(FREE, SHAPE, 20, 1), 2.0, field_statistics(FREE.action, stream), K, stream)


# --- the two-peak density, site by site ----------------------------------------------------------------


def site_value(phi: Tensor, index: Integers) -> Tensor:
    return phi.flatten(1)[:, 0]


SITE = {"phi": site_value, "|phi|": lambda phi, index: site_value(phi, index).abs()}


def two_peak_draw(sigma: float, score_factor: float, noise_factor: float, n: int = 100) -> Draw:
    """Euler-Maruyama of the reverse SDE with the exact score -x/s^2 + (mu/s^2) tanh(mu x/s^2)."""
    levels, source = sigma * (np.arange(n + 1) / n) ** 1.5, generator(22)

    def draw(x: Tensor, index: Integers) -> Tensor:
        for step in reversed(range(n)):
            high, delta = levels[step + 1], levels[step + 1] ** 2 - levels[step] ** 2
            score = (two_peak_denoiser(x, high) - x) / high**2
            noise = torch.randn(x.shape, generator=source, dtype=torch.float64)
            x = x + score_factor * delta * score + noise_factor * math.sqrt(delta) * noise
        return x

    return draw


def two_peak_p(sigma: float, n: int, score_factor: float = 1.0, noise_factor: float = 1.0) -> float:
    stream = Stream(9, f"test/two-peak/{sigma}")
    phi = two_peak((1, 1), n, 21)
    draw = two_peak_draw(sigma, score_factor, noise_factor)
    return min(p_values(ranks(draw, phi, sigma, SITE, K, stream)))


def test_the_two_peak_score_is_the_closed_form() -> None:
    x, sigma = torch.linspace(-3, 3, 7, dtype=torch.float64), 0.8
    s2 = 0.5**2 + sigma**2
    exact = -x / s2 + MU / s2 * torch.tanh(MU * x / s2)
    assert torch.allclose((two_peak_denoiser(x, sigma) - x) / sigma**2, exact)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_the_two_peak_density_is_calibrated(sigma: float) -> None:
    assert two_peak_p(sigma, 5000) > PASSES


@pytest.mark.parametrize("factor", [math.sqrt(0.5), math.sqrt(2.0)])
def test_two_peaks_with_a_wrong_root_two_fail(factor: float) -> None:
    assert two_peak_p(1.0, 1000, noise_factor=factor) < FAILS


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_two_peaks_with_a_scaled_score_fail(factor: float) -> None:
    assert two_peak_p(3.0, 24000, score_factor=factor) < FAILS


# --- corrected ranks ---------------------------------------------------------------------------------------

PHI4 = ScalarPhi4(0.2, 0.05)


class WrongSign(ReversePath):
    """log F with the wrong sign."""

    def log_forward(self, x_low: Tensor, x_high: Tensor, step: int) -> Tensor:
        return -super().log_forward(x_low, x_high, step)


@lru_cache(maxsize=2)
def bad_path(kind: type[ReversePath]) -> ReversePath:
    phi = equilibrium(PHI4, (2, 2), 4096)
    model = Shrunk(phi4_model(PHI4, phi).base, None)
    return kind(model, levels_of(model, 8))


def bad_ranks(kind: type[ReversePath]) -> PathRanks:
    stream = Stream(4, "test/bad")
    phi = equilibrium(PHI4, (2, 2), 500, 77)
    statistics = field_statistics(PHI4.action, stream)
    return path_ranks(bad_path(kind), 5, phi, PHI4.action, statistics, 7, stream, still)


def test_corrected_ranks_are_uniform_for_a_bad_score() -> None:
    found = bad_ranks(ReversePath)
    assert min(p_values(found.raw, 7)) < FAILS
    assert min(p_values(found.corrected, 7)) > PASSES
    assert 0.1 < found.ess < 0.95


def test_corrected_ranks_catch_a_wrong_weight() -> None:
    assert min(p_values(bad_ranks(WrongSign).corrected, 7)) < FAILS


# --- numbers, rows and input ------------------------------------------------------------------------------


def split_in_two(phi: Tensor, whole: Callable[[Tensor], dict[str, Integers]]) -> None:
    """Numbers belong to fields: the first fields alone have the same ranks."""
    everything, part = whole(phi), whole(phi[: len(phi) // 3])
    for name, rank in part.items():
        assert np.array_equal(rank, everything[name][: len(rank)])


def test_ranks_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(7, "test/batch")
    phi, statistics = free_fields(FREE, SHAPE, 60, 3), field_statistics(FREE.action, stream)

    def whole(fields: Tensor) -> dict[str, Integers]:
        return path_ranks(free_path(), 2, fields, FREE.action, statistics, K, stream, still).raw

    split_in_two(phi, whole)
    before = whole(phi)
    monkeypatch.setattr("diffsq.analysis.calibration.ROW_SITES", 16 * K * 7)
    assert all(np.array_equal(rank, before[name]) for name, rank in whole(phi).items())


def test_independent_rows_are_far_apart_in_their_chain() -> None:
    rng, n_chains, length = np.random.default_rng(8), 4, 2000
    x = np.zeros((n_chains, length))
    for t in range(1, length):  # autoregressive, tau_int of x^2 (1 + a^2)/(2 (1 - a^2)) = 2.3
        x[:, t] = 0.8 * x[:, t - 1] + rng.normal(size=n_chains)
    phi = np.broadcast_to(x.reshape(-1, 1, 1), (n_chains * length, 2, 2))
    ensemble = Ensemble.from_fields(phi, ScalarPhi4(0.2, 0.05), chain=np.repeat(np.arange(n_chains), length))
    rows, spacing = independent_rows(ensemble, 10**6)
    assert 6 <= spacing <= 16
    for chain in range(n_chains):
        assert (np.diff(ensemble.trajectory[rows[ensemble.chain[rows] == chain]]) == spacing).all()
    few, _ = independent_rows(ensemble, 50)
    assert len(few) == 50
    assert set(few) <= set(rows)
    assert len(set(ensemble.chain[few])) == n_chains


def test_bad_input_is_one_line() -> None:
    stream = Stream(1, "test/bad-input")
    statistics, phi = field_statistics(FREE.action, stream), free_fields(FREE, SHAPE, 10, 1)
    with pytest.raises(InputError, match="level must be in 1 ... 6"):
        path_ranks(free_path(), 7, phi, FREE.action, statistics, K, stream, still)
    with pytest.raises(InputError, match="n_draws"):
        path_ranks(free_path(), 2, phi, FREE.action, statistics, 1, stream, still)
    with pytest.raises(InputError, match="NaN"):
        ranks(lambda x, index: x * math.nan, phi, 1.0, statistics, K, stream)
    with pytest.raises(InputError, match="log-weights are NaN"):
        path_ranks(free_path(), 2, phi, lambda f: FREE.action(f) * math.inf, statistics, K, stream, still)

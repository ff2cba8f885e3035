"""The weight of a path: unbiased for any law of the steps, equal to dense Gaussians, wrong ones caught."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from small_models import equilibrium, noise_of, phi4_model, still
from small_paths import SHAPE, TWO, as_matrix, draw, good_path, path_of, truth, widened
from torch import Tensor

from diffsq.exactness.weights import forward_ess, ln_z, ln_z_forward
from diffsq.models.symmetry import IDENTITY, Symmetry
from diffsq.sampling.lattice_path import ReversePath, ReverseStep
from diffsq.sampling.zero_mode_step import ZeroModeLaw
from lattice.actions.phi4 import ScalarPhi4
from lattice.statistics.weights import distrusted, effective_sample_size


class WrongSign(ReversePath):
    """log F with the wrong sign."""

    def log_forward(self, low: Tensor, high: Tensor, n: int) -> Tensor:
        return -super().log_forward(low, high, n)


class Flat(ReverseStep):
    """Without the determinant of the variances."""

    def log_density(self, x: Tensor) -> Tensor:
        return super().log_density(x) + 0.5 * (self.momenta.multiplicity * self.variance.log()).sum()


class Plain(ReverseStep):
    """Drawn with the zero mode's own law, weighed without."""

    def log_density(self, x: Tensor) -> Tensor:
        z, log_det = self.residual(x)
        return self.momenta.log_normal(z, self.variance) - log_det


class Left(ReverseStep):
    """A density left out."""

    def log_density(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=torch.float64)


class NoDeterminant(ReversePath):
    def reverse(self, x: Tensor, n: int, frame: Symmetry) -> ReverseStep:
        return Flat(**vars(super().reverse(x, n, frame)))


class OneStepShort(ReversePath):
    """The last step's density left out."""

    def reverse(self, x: Tensor, n: int, frame: Symmetry) -> ReverseStep:
        law = super().reverse(x, n, frame)
        return law if n else Left(**vars(law))


def ln_z_of(path: ReversePath) -> tuple[float, float]:
    return ln_z(draw(path)[1].numpy())


@pytest.mark.parametrize("two_peaks", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_any_law_of_the_zero_mode_is_unbiased(two_peaks: bool, scale: float) -> None:
    path = path_of(good_path().model, 8)
    path.two_peaks, path.zero_scale = two_peaks, scale * path.zero_scale
    value, error = ln_z_of(path)
    assert abs(value - truth().ln_z) < 4 * error


def test_any_variance_is_unbiased() -> None:
    value, error = ln_z_of(widened())
    assert abs(value - truth().ln_z) < 4 * error


@pytest.mark.parametrize("wrong", [WrongSign, NoDeterminant, OneStepShort])
def test_wrong_weights_are_caught(wrong: type[ReversePath]) -> None:
    log_w = draw(widened(wrong))[1].numpy()
    value, error = ln_z(log_w)
    assert abs(value - truth().ln_z) > 10 * error or distrusted(log_w)
    assert not distrusted(draw(widened())[1].numpy())


def test_forward_and_reverse_weights_agree() -> None:
    path = good_path()
    reverse = draw(path)[1].numpy()
    phi = equilibrium(TWO, SHAPE, 4096, 77)
    forward = path.weigh(phi, TWO.action, noise_of("test/up", 4096, SHAPE), still)[0].numpy()
    (a, da), (b, db) = ln_z(reverse), ln_z_forward(forward)
    assert abs(a - b) < 4 * math.hypot(da, db)
    assert abs(b - truth().ln_z) < 4 * db
    (a, da), (b, db) = effective_sample_size(reverse), forward_ess(forward)
    assert abs(a - b) < 4 * math.hypot(da, db)
    # negative control: the same average over proposals instead of equilibrium fields is not Z
    value, error = ln_z_forward(draw(widened())[1].numpy())
    assert abs(value - truth().ln_z) > 10 * error


def dense(path: ReversePath, variance: Tensor) -> np.ndarray:
    """Position-space covariance F^-1 c(k) F."""
    v = path.momenta.volume
    unit = torch.eye(v, dtype=torch.float64).reshape(v, *path.model.shape)
    return path.momenta.colour(unit, variance**2).reshape(v, v).numpy()


@pytest.mark.parametrize("shape", [(2, 2), (4, 6)])
def test_weight_step_by_step_with_dense_covariances(shape: tuple[int, ...]) -> None:
    action = ScalarPhi4(0.22, 0.2)
    phi = equilibrium(action, shape, 2048)
    path = path_of(phi4_model(action, phi), 5)
    assert not path.two_peaks
    assert path.model.base.site.known
    n, v = 6, path.momenta.volume
    trail: dict[int, Tensor] = {}
    x0, log_w = path.sample(
        action.action, noise_of("dense", n, shape), still, lambda level, x: trail.update({level: x})
    )
    assert sorted(trail) == list(range(6))
    assert torch.equal(trail[0], x0)
    levels, flat = path.levels, {k: x.reshape(n, v).numpy() for k, x in trail.items()}
    start = path.model.base.g + levels[-1] ** 2
    expected = -action.action(x0).numpy()
    expected -= multivariate_normal.logpdf(flat[5], np.zeros(v), dense(path, start))
    for step in range(5):
        high = levels[step + 1].expand(n)
        d, spread = path.model.posterior(path.momenta.modes(trail[step + 1]), high)
        rho = 1 - levels[step] ** 2 / levels[step + 1] ** 2
        mean = (trail[step + 1] + rho * (path.momenta.fields(d) - trail[step + 1])).reshape(n, v).numpy()
        bridge = rho * levels[step] ** 2
        cov = dense(path, bridge + rho**2 * path.model.posterior_variance(high[:1])[0])
        delta = float(levels[step + 1] ** 2 - levels[step] ** 2)
        for i in range(n):
            expected[i] += multivariate_normal.logpdf(flat[step + 1][i], flat[step][i], delta * np.eye(v))
            assert spread is not None
            m = as_matrix(spread.of_step(path.share[step]), i)
            assert np.abs(m - np.eye(v)).max() > 1e-4
            expected[i] -= multivariate_normal.logpdf(flat[step][i], mean[i], m @ cov @ m.T)
    assert log_w.numpy() == pytest.approx(expected, abs=1e-8)
    # the forward weight of the same path is the same number
    ups = {s: (trail[s + 1] - trail[s]) / (levels[s + 1] ** 2 - levels[s] ** 2).sqrt() for s in range(5)}
    again, _ = path.weigh(x0, action.action, ups.__getitem__, still)
    assert again.numpy() == pytest.approx(expected, abs=1e-8)
    # negative control: with a law of the zero mode that it was not drawn from
    path.two_peaks = True
    wrong, _ = path.weigh(x0, action.action, ups.__getitem__, still)
    assert np.abs(wrong.numpy() - expected).max() > 1e-3


def test_entropy_of_a_step_needs_the_law_of_the_zero_mode() -> None:
    """<-ln R>_R = sum_k ln(2 pi e c(k))/2, the zero mode with its own variance; else the density is off."""
    action, shape, n = ScalarPhi4(0.25, 0.2), (4, 6), 4096
    phi = equilibrium(action, shape, n)
    path = path_of(phi4_model(action, phi), 5)
    step, p = 1, path.momenta
    plain = path.reverse(phi + path.levels[step + 1] * noise_of("test/up", n, shape)(0), step, IDENTITY)
    zero, variance = torch.zeros(n, dtype=torch.float64), (4 * path.variance[step, 0]).expand(n)
    law = ReverseStep(p, plain.mean, plain.variance, ZeroModeLaw(zero, variance, zero, variance))
    x = law.draw(noise_of("test/step", n, shape)(0))
    each = (2 * math.pi * math.e * path.variance[step]).log()
    entropy = 0.5 * ((p.multiplicity * each)[1:].sum() + (2 * math.pi * math.e * variance).log())
    for kind, gate in ((ReverseStep, "right"), (Plain, "wrong"), (Flat, "wrong")):
        off = kind(**vars(law)).log_density(x) + entropy
        sigmas = abs(float(off.mean() / (off.std() / math.sqrt(n))))
        assert sigmas < 4 if gate == "right" else sigmas > 10, kind

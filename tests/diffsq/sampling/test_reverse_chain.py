"""The weight of a path: unbiased for any law of the steps, equal to dense Gaussians, wrong ones caught."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from small_models import equilibrium, levels_of, noise_of, phi4_model, still
from small_paths import SHAPE, TWO, calibrated, draw, good_path, tilted, truth
from torch import Tensor

from diffsq.exactness.weights import forward_ess, ln_z, ln_z_forward
from diffsq.models.symmetry import IDENTITY, Symmetry
from diffsq.sampling.lattice_path import ReversePath, ReverseStep
from lattice.actions.phi4 import ScalarPhi4
from lattice.statistics.weights import distrusted, effective_sample_size


class WrongSign(ReversePath):
    """log F with the wrong sign."""

    def log_forward(self, low: Tensor, high: Tensor, n: int) -> Tensor:
        return -super().log_forward(low, high, n)


class Flat(ReverseStep):
    """Without the determinant of e^{b h/2}."""

    def log_density(self, x: Tensor) -> Tensor:
        return super().log_density(x) + 0.5 * self.tilt.flatten(1).sum(1)


class Silent(ReverseStep):
    """Drawn with the coupling of the sublattices, weighed without."""

    def log_density(self, x: Tensor) -> Tensor:
        coupling = replace(self.coupling, h=torch.zeros_like(self.coupling.h))
        return ReverseStep(**{**vars(self), "coupling": coupling}).log_density(x)


class Left(ReverseStep):
    """A density left out."""

    def log_density(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=torch.float64)


class NoJacobian(ReversePath):
    def reverse(self, x: Tensor, n: int, frame: Symmetry) -> ReverseStep:
        return Flat(**vars(super().reverse(x, n, frame)))


class NoCoupling(ReversePath):
    def reverse(self, x: Tensor, n: int, frame: Symmetry) -> ReverseStep:
        return Silent(**vars(super().reverse(x, n, frame)))


class OneStepShort(ReversePath):
    """The last step's density left out."""

    def reverse(self, x: Tensor, n: int, frame: Symmetry) -> ReverseStep:
        law = super().reverse(x, n, frame)
        return law if n else Left(**vars(law))


def ln_z_of(path: ReversePath) -> tuple[float, float]:
    return ln_z(draw(path)[1].numpy())


@pytest.mark.parametrize("two_peaks", [0, 1])
@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_any_law_of_the_zero_mode_is_unbiased(two_peaks: int, slope: float) -> None:
    path = tilted()
    path.kernel.two_peaks[:], path.kernel.zero_slope[:] = two_peaks, slope
    value, error = ln_z_of(path)
    assert abs(value - truth().ln_z) < 4 * error


def test_any_tilt_is_unbiased() -> None:
    value, error = ln_z_of(tilted())
    assert abs(value - truth().ln_z) < 4 * error


@pytest.mark.parametrize("wrong", [WrongSign, NoJacobian, OneStepShort])
def test_wrong_weights_are_caught(wrong: type[ReversePath]) -> None:
    right = tilted()
    log_w = draw(wrong(right.model, right.kernel))[1].numpy()
    value, error = ln_z(log_w)
    assert abs(value - truth().ln_z) > 10 * error or distrusted(log_w)
    assert not distrusted(draw(right)[1].numpy())


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
    value, error = ln_z_forward(draw(tilted())[1].numpy())
    assert abs(value - truth().ln_z) > 10 * error


def root(path: ReversePath, variance: Tensor) -> np.ndarray:
    """Position-space matrix F^-1 sqrt(c(k)) F, symmetric."""
    v = path.momenta.volume
    unit = torch.eye(v, dtype=torch.float64).reshape(v, *path.model.shape)
    return path.momenta.colour(unit, variance).reshape(v, v).numpy()


def dense(path: ReversePath, variance: Tensor, tilt: np.ndarray, coupling: np.ndarray) -> np.ndarray:
    """Position-space covariance e^{t/2} C^{1/2} (1 + L) (1 + L)^T C^{1/2} e^{t/2}."""
    factor = np.exp(0.5 * tilt)[:, None] * root(path, variance) @ (np.eye(len(tilt)) + coupling)
    return factor @ factor.T


def dense_coupling(path: ReversePath, high: Tensor, h: np.ndarray, shift: int) -> np.ndarray:
    """L = (1 - E) Q diag(h) Q E, Q^2 = C(k)/mean C, E the even sites of a lattice moved by `shift` rows."""
    p = path.momenta
    _, c = path.model.base.wiener(high[None])
    q = root(path, c[0] / ((p.multiplicity * c[0]).sum() / p.volume))
    rows, columns = np.indices(path.model.shape)
    even = ((rows + shift + columns) % 2 == 0).ravel().astype(float)
    return (1 - even)[:, None] * (q @ np.diag(h) @ q) * even


def moved(step: int) -> Symmetry:
    """Even and odd sites change places from step to step."""
    return Symmetry((step % 2, 0))


@pytest.mark.parametrize("shape", [(2, 2), (4, 6)])
def test_weight_step_by_step_with_dense_covariances(shape: tuple[int, ...]) -> None:
    action = ScalarPhi4(0.22, 0.2)
    phi = equilibrium(action, shape, 2048)
    path = calibrated(phi4_model(action, phi), 5, phi)
    path.kernel.tilt[:] = torch.linspace(1.5, -0.5, 5)
    path.kernel.coupling[:] = torch.linspace(6, -3, 5)
    path.kernel.zero_slope[:], path.kernel.two_peaks[:] = 0, 0  # the zero mode's own law is checked below
    n, v = 6, path.momenta.volume
    trail: dict[int, Tensor] = {}
    x0, log_w = path.sample(
        action.action, noise_of("dense", n, shape), moved, lambda level, x: trail.update({level: x})
    )
    assert sorted(trail) == list(range(6))
    assert torch.equal(trail[0], x0)
    levels, flat = path.kernel.levels, {k: x.reshape(n, v).numpy() for k, x in trail.items()}
    start = path.model.base.g + levels[-1] ** 2
    expected = -action.action(x0).numpy()
    expected -= multivariate_normal.logpdf(
        flat[5], np.zeros(v), dense(path, start, np.zeros(v), np.zeros((v, v)))
    )
    for step in range(5):
        high = levels[step + 1].expand(n)
        d, log_variance = path.model.denoise(path.momenta.modes(trail[step + 1]), high)
        rho = 1 - levels[step] ** 2 / levels[step + 1] ** 2
        mean = (trail[step + 1] + rho * (path.momenta.fields(d) - trail[step + 1])).reshape(n, v).numpy()
        h = (log_variance - path.kernel.tilt_mean[step]).reshape(n, v).numpy()
        tilt, strength = float(path.kernel.tilt[step]) * h, float(path.kernel.coupling[step])
        delta = float(levels[step + 1] ** 2 - levels[step] ** 2)
        for i in range(n):
            coupling = dense_coupling(path, levels[step + 1], strength * h[i], step % 2)
            cov = dense(path, path.kernel.variance[step], tilt[i], coupling)
            expected[i] += multivariate_normal.logpdf(flat[step + 1][i], flat[step][i], delta * np.eye(v))
            expected[i] -= multivariate_normal.logpdf(flat[step][i], mean[i], cov)
    assert log_w.numpy() == pytest.approx(expected, abs=1e-8)
    # the forward weight of the same path is the same number
    ups = {s: (trail[s + 1] - trail[s]) / (levels[s + 1] ** 2 - levels[s] ** 2).sqrt() for s in range(5)}
    again, _ = path.weigh(x0, action.action, ups.__getitem__, moved)
    assert again.numpy() == pytest.approx(expected, abs=1e-8)
    # negative controls: the coupling left out, or the sublattices of the lattice at rest
    silent, _ = NoCoupling(path.model, path.kernel).weigh(x0, action.action, ups.__getitem__, moved)
    other, _ = path.weigh(x0, action.action, ups.__getitem__, still)
    for wrong in (silent, other):
        assert np.abs(wrong.numpy() - expected).max() > 1e-3


def test_entropy_of_a_step_needs_the_coupling() -> None:
    """<-ln R>_R = sum_k ln(2 pi e c(k))/2 + sum_x t_x/2: a density weighed without its coupling is off."""
    action, shape, n = ScalarPhi4(0.25, 0.2), (4, 6), 4096
    phi = equilibrium(action, shape, n)
    path = ReversePath.predicted(phi4_model(action, phi), levels_of(phi4_model(action, phi), 5))
    path.kernel.tilt[:], path.kernel.coupling[:] = 1.0, 3.0
    path.kernel.zero_slope[:], path.kernel.two_peaks[:] = 0, 0
    step, p = 1, path.momenta
    law = path.reverse(phi + path.kernel.levels[step + 1] * noise_of("test/up", n, shape)(0), step, IDENTITY)
    law.zero.variance = path.kernel.variance[step, 0].expand(n)
    x = law.draw(noise_of("test/step", n, shape)(0))
    white = (p.multiplicity * (2 * math.pi * math.e * path.kernel.variance[step]).log()).sum()
    entropy = 0.5 * (white + law.tilt.flatten(1).sum(1))
    for kind, gate in ((ReverseStep, "right"), (Silent, "wrong"), (Flat, "wrong")):
        off = kind(**vars(law)).log_density(x) + entropy
        sigmas = abs(float(off.mean() / (off.std() / math.sqrt(n))))
        assert sigmas < 4 if gate == "right" else sigmas > 10, kind

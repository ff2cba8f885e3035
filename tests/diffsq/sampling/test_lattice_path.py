"""Path weights: exact for the free field at any number of levels, unbiased for any score, with controls."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from small_models import (
    equilibrium,
    free_model,
    geometric,
    levels_of,
    noise_of,
    phi4_model,
    spoil,
    still,
)
from torch import Tensor

from diffsq.exactness.weights import forward_ess, ln_z, ln_z_forward
from diffsq.models.lattice import LatticeScore
from diffsq.models.symmetry import IDENTITY, Symmetry
from diffsq.sampling.lattice_path import ReversePath, ReverseStep
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.exact.scalar import SmallLattice, free_propagator, one_site_moments, small_lattice
from lattice.statistics.blocks import jackknife_of
from lattice.statistics.weights import effective_sample_size

TWO = ScalarPhi4(0.2, 0.05)
SHAPE = (2, 2)
N = 8000


@lru_cache(maxsize=1)
def truth() -> SmallLattice:
    return small_lattice(TWO, SHAPE)


def calibrated(model: LatticeScore, n_levels: int, phi: Tensor) -> ReversePath:
    path = ReversePath.predicted(model, levels_of(model, n_levels))
    path.calibrate(phi, noise_of("test/calibrate", len(phi), model.shape), still, chunk=4096)
    return path


@lru_cache(maxsize=1)
def good_path() -> ReversePath:
    phi = equilibrium(TWO, SHAPE, 4096)
    return calibrated(phi4_model(TWO, phi), 8, phi)


def weighted(phi: Tensor, log_w: Tensor, observable: Tensor) -> tuple[float, float]:
    w = (log_w - log_w.max()).exp()
    return jackknife_of(
        lambda d: float((d[:, 0] * d[:, 1]).sum() / d[:, 0].sum()), torch.stack([w, observable], 1).numpy()
    )


def draw(path: ReversePath, n: int = N, stream: str = "test/draw") -> tuple[Tensor, Tensor]:
    return path.sample(TWO.action, noise_of(stream, n, path.model.shape), still)


# --- the free field: every weight is Z --------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 2), (4, 4), (6, 4)])
@pytest.mark.parametrize("n_levels", [1, 2, 7])
def test_free_field_every_path_weighs_z(shape: tuple[int, ...], n_levels: int) -> None:
    action, model = FreeScalar(0.2), free_model(shape, 0.2)
    exact = 0.5 * np.log(2 * np.pi * free_propagator(0.2, shape)).sum()
    path = ReversePath.predicted(model, geometric(n_levels, 0.05, 8.0))
    noise = noise_of("free", 64, shape)
    phi, log_w = path.sample(action.action, noise, still)
    assert log_w.numpy() == pytest.approx(exact, abs=1e-10)
    assert path.weigh(3 * phi + 1, action.action, noise, still)[0].numpy() == pytest.approx(exact, abs=1e-9)


def test_free_field_a_wrong_propagator_spreads_the_weights() -> None:
    model = free_model((4, 4), 0.2)
    model.base.g.mul_(1.1)
    path = ReversePath.predicted(model, geometric(7, 0.05, 8.0))
    _, log_w = path.sample(FreeScalar(0.2).action, noise_of("free", 4096, (4, 4)), still)
    exact = 0.5 * np.log(2 * np.pi * free_propagator(0.2, (4, 4))).sum()
    value, error = ln_z(log_w.numpy())
    assert log_w.std() > 0.1
    assert abs(value - exact) < 4 * error


def test_increments_vanish_for_the_free_field() -> None:
    path = ReversePath.predicted(free_model((4, 4), 0.15), geometric(5, 0.1, 6.0))
    phi = noise_of("any", 32, (4, 4))(0)
    _, steps = path.weigh(phi, FreeScalar(0.15).action, noise_of("up", 32, (4, 4)), still)
    assert steps.shape == (32, 5)
    assert steps.abs().max() < 1e-10


# --- phi^4 against quadrature -----------------------------------------------------------------------------


def test_two_by_two_against_quadrature() -> None:
    phi, log_w = draw(good_path())
    exact = truth()
    value, error = ln_z(log_w.numpy())
    assert error < 0.006
    assert abs(value - exact.ln_z) < 4 * error
    m = phi.mean((1, 2))
    for observable, known in (
        (m.abs(), exact.abs_m),
        (m**2, exact.m2),
        (m**4, exact.m4),
        ((phi**2).mean((1, 2)), exact.phi2),
        ((phi**4).mean((1, 2)), exact.phi4),
        (TWO.action(phi) / 4, exact.action_density),
    ):
        value, error = weighted(phi, log_w, observable)
        assert abs(value - known) < 4 * error
        assert error < 0.02 * abs(known) + 0.005
    assert effective_sample_size(log_w.numpy())[0] > 0.9


def test_kappa_zero_against_one_site_integrals() -> None:
    action = ScalarPhi4(0.0, 0.022)
    phi = equilibrium(action, (4, 4), 4096)
    path = calibrated(phi4_model(action, phi), 8, phi)
    x, log_w = path.sample(action.action, noise_of("zero", 4096, (4, 4)), still)
    value, error = ln_z(log_w.numpy())
    assert abs(value - 0.57827798 * 16) < 4 * error
    value, error = weighted(x, log_w, (x**2).mean((1, 2)))
    assert abs(value - one_site_moments(action, (2,))[0]) < 4 * error


class Shrunk(LatticeScore):
    """A denoiser 20 % too small."""

    def denoise(self, xk: Tensor, sigma: Tensor, frame: Symmetry = IDENTITY) -> tuple[Tensor, Tensor]:
        d, u = super().denoise(xk, sigma, frame)
        return 0.8 * d, u


def bad_model(kind: str) -> LatticeScore:
    phi = equilibrium(TWO, SHAPE, 4096)
    if kind == "random U-Net":
        return spoil(phi4_model(TWO, phi, channels=4), 0.3)
    return Shrunk(phi4_model(TWO, phi).base, None)


@pytest.mark.parametrize("kind", ["random U-Net", "shrunk"])
def test_a_bad_score_costs_efficiency_never_correctness(kind: str) -> None:
    path = calibrated(bad_model(kind), 8, equilibrium(TWO, SHAPE, 4096))
    phi, log_w = draw(path)
    value, error = ln_z(log_w.numpy())
    assert abs(value - truth().ln_z) < 4 * error
    phi2 = (phi**2).mean((1, 2))
    value, error = weighted(phi, log_w, phi2)
    assert abs(value - truth().phi2) < 4 * error
    raw, raw_error = float(phi2.mean()), float(phi2.std() / math.sqrt(N))
    assert abs(raw - truth().phi2) > 10 * raw_error, (
        "the proposal must be visibly wrong for this to test anything"
    )
    good, good_error = effective_sample_size(draw(good_path())[1].numpy())
    bad, bad_error = effective_sample_size(log_w.numpy())
    assert bad < good - 4 * math.hypot(good_error, bad_error)


# --- the formula itself -----------------------------------------------------------------------------------


class WrongSign(ReversePath):
    """log F with the wrong sign."""

    def log_forward(self, x_low: Tensor, x_high: Tensor, step: int) -> Tensor:
        return -super().log_forward(x_low, x_high, step)


class NoJacobian(ReversePath):
    """Without the determinant of e^{b h/2}."""

    def log_reverse(self, x_low: Tensor, law: ReverseStep, step: int) -> Tensor:
        return super().log_reverse(x_low, law, step) + 0.5 * law.tilt.flatten(1).sum(1)


class OneStepShort(ReversePath):
    """The last step's density left out."""

    def log_reverse(self, x_low: Tensor, law: ReverseStep, step: int) -> Tensor:
        return super().log_reverse(x_low, law, step) * (step > 0)


class NoCoupling(ReversePath):
    """Drawn with the coupling of the sublattices, weighed without."""

    def log_reverse(self, x_low: Tensor, law: ReverseStep, step: int) -> Tensor:
        silent = replace(law.coupling, h=torch.zeros_like(law.coupling.h))
        return super().log_reverse(x_low, replace(law, coupling=silent), step)


def tilted() -> ReversePath:
    """The good path with another kernel: a stronger tilt, a coupling of the sublattices, wider steps."""
    kernel = copy.deepcopy(good_path().kernel)
    kernel.tilt[:] = 0.8
    kernel.tilt_mean -= 0.2
    kernel.coupling[:] = 0.3
    return ReversePath(good_path().model, kernel)


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
    value, error = ln_z_of(wrong(right.model, right.kernel))
    assert abs(value - truth().ln_z) > 10 * error


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
    x = path.draw(law, noise_of("test/step", n, shape)(0), step)
    white = (p.multiplicity * (2 * math.pi * math.e * path.kernel.variance[step]).log()).sum()
    entropy = 0.5 * (white + law.tilt.flatten(1).sum(1))
    for kind, gate in ((ReversePath, "right"), (NoCoupling, "wrong"), (NoJacobian, "wrong")):
        off = kind(path.model, path.kernel).log_reverse(x, law, step) + entropy
        sigmas = abs(float(off.mean() / (off.std() / math.sqrt(n))))
        assert sigmas < 4 if gate == "right" else sigmas > 10, kind


# --- symmetries -------------------------------------------------------------------------------------------


class After:
    """The frame f seen from a lattice transformed by g: f o g^-1."""

    def __init__(self, f: Symmetry, g: Symmetry) -> None:
        self.f, self.g = f, g

    def __call__(self, x: Tensor) -> Tensor:
        return self.f(self.g.inverse(x))

    def inverse(self, x: Tensor) -> Tensor:
        return self.g(self.f.inverse(x))


FRAMES = [Symmetry((1, 2), (-1,), True), Symmetry((0, 3), (), False), Symmetry((3, 1), (-2, -1), True)]


@pytest.mark.parametrize(
    "g",
    [
        Symmetry((1, 0)),
        Symmetry((2, 3)),
        Symmetry((0, 0), (-2,)),
        Symmetry((0, 0), (), True),
        Symmetry((1, 1), (-1,), True),
    ],
)
def test_weights_are_invariant_when_the_whole_path_is_transformed(g: Symmetry) -> None:
    action = ScalarPhi4(0.22, 0.04)
    phi = equilibrium(action, (4, 4), 2048)
    path = calibrated(spoil(phi4_model(action, phi, channels=4), 0.03), 3, phi)
    noise = noise_of("symmetry", 64, (4, 4))
    x, log_w = path.sample(action.action, noise, FRAMES.__getitem__)
    there, same = path.sample(action.action, lambda s: g(noise(s)), lambda s: After(FRAMES[s], g))  # type: ignore[arg-type, return-value]
    assert torch.allclose(there, g(x), atol=1e-4)
    assert torch.allclose(same, log_w, atol=2e-3)
    # the U-Net lacks these symmetries: without moving its frame the weights do change
    _, other = path.sample(action.action, lambda s: g(noise(s)), FRAMES.__getitem__)
    assert (other - log_w).abs().max() > 0.05


def test_weights_are_even() -> None:
    action = ScalarPhi4(0.22, 0.04)
    phi = equilibrium(action, (4, 4), 2048)
    path = calibrated(spoil(phi4_model(action, phi, channels=4), 0.03), 3, phi)
    noise = noise_of("symmetry", 64, (4, 4))
    x, log_w = path.sample(action.action, noise, FRAMES.__getitem__)
    mirror, same = path.sample(action.action, lambda s: -noise(s), FRAMES.__getitem__)
    assert torch.allclose(mirror, -x, atol=1e-5)
    assert torch.allclose(same, log_w, atol=1e-4)


# --- the measured kernel ----------------------------------------------------------------------------------


def residuals(path: ReversePath, phi: Tensor) -> tuple[Tensor, Tensor]:
    """Per step: whitened residual power per class over its expectation, and mean log R, on fields `phi`."""
    noise, x, powers, likelihood = noise_of("test/fresh", len(phi), path.model.shape, 9), phi, [], []
    for step in range(path.kernel.n_levels):
        delta = path.kernel.levels[step + 1] ** 2 - path.kernel.levels[step] ** 2
        high = x + delta.sqrt() * noise(step)
        law = path.reverse(high, step, IDENTITY)
        white = (x - path.momenta.fields(law.mean)) * torch.exp(-0.5 * law.tilt)
        power = path.momenta.power(white).mean(0) / path.kernel.variance[step]
        powers.append(power[1:])  # the zero mode has a law of its own
        likelihood.append(path.log_reverse(x, law, step))
        x = high
    return torch.stack(powers), torch.stack(likelihood)


def test_calibration_on_fresh_fields() -> None:
    action, shape = ScalarPhi4(0.25, 0.2), (8, 8)
    phi, fresh = equilibrium(action, shape, 4096), equilibrium(action, shape, 4096, 6)
    path = calibrated(phi4_model(action, phi), 6, phi)
    power, _ = residuals(path, fresh)
    multiplicity = path.momenta.multiplicity[1:]
    error = (2 / (4096 * multiplicity)).sqrt()
    # never narrower, one or two percent wider, up to the smoothness of the fit in k
    assert ((power - 1).abs() < 0.05 + 4 * error).all()
    weight = multiplicity / path.momenta.volume
    assert (((power - 1) * weight).sum(1).abs() < 0.015).all()
    flat = ReversePath(path.model, path.kernel.__class__(**vars(path.kernel)))
    flat.kernel.tilt = torch.zeros_like(path.kernel.tilt)
    flat.kernel.variance = path.kernel.variance.clone()
    for each in (flat, path):  # both with the variances that suit these fields best
        each.kernel.variance[:, 1:] *= residuals(each, fresh)[0]
    gain = (residuals(path, fresh)[1] - residuals(flat, fresh)[1]).sum(0)
    assert (path.kernel.tilt > 0).sum() > 3, "narrow where the site posterior is narrow"
    assert gain.mean() > 4 * gain.std() / math.sqrt(len(gain))


def test_calibration_is_a_function_of_its_arguments() -> None:
    phi = equilibrium(TWO, SHAPE, 4096)
    again = calibrated(phi4_model(TWO, phi), 8, phi).kernel
    first = good_path().kernel
    assert all(torch.equal(getattr(again, name), getattr(first, name)) for name in vars(first))

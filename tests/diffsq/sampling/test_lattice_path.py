"""Paths of fields: every weight is Z for the free field, quadrature for phi^4, symmetries of the weight."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from posteriors import site_draws
from small_models import Shrunk, equilibrium, free_model, geometric, noise_of, phi4_model, spoil, still
from small_paths import SHAPE, TWO, N, draw, good_path, path_of, truth
from torch import Tensor

from diffsq.exactness.weights import ln_z, ln_z_forward
from diffsq.models.lattice import LatticeScore
from diffsq.models.symmetry import Symmetry
from diffsq.sampling.lattice_path import VERSION, ReversePath, ReverseStep, path_from
from diffsq.sampling.reverse_chain import rise
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator, one_site_moments
from lattice.statistics.blocks import jackknife_of
from lattice.statistics.weights import effective_sample_size


def weighted(phi: Tensor, log_w: Tensor, observable: Tensor) -> tuple[float, float]:
    w = (log_w - log_w.max()).exp()
    return jackknife_of(
        lambda d: float((d[:, 0] * d[:, 1]).sum() / d[:, 0].sum()), torch.stack([w, observable], 1).numpy()
    )


# --- the free field: every weight is Z --------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 2), (4, 4), (6, 4)])
@pytest.mark.parametrize("n_levels", [1, 2, 7])
def test_free_field_every_path_weighs_z(shape: tuple[int, ...], n_levels: int) -> None:
    action, model = FreeScalar(0.2), free_model(shape, 0.2)
    exact = 0.5 * np.log(2 * np.pi * free_propagator(0.2, shape)).sum()
    path = ReversePath(model, geometric(n_levels, 0.05, 8.0))
    noise = noise_of("free", 64, shape)
    phi, log_w = path.sample(action.action, noise, still)
    assert log_w.numpy() == pytest.approx(exact, abs=1e-10)
    assert path.weigh(3 * phi + 1, action.action, noise, still)[0].numpy() == pytest.approx(exact, abs=1e-9)


def test_free_field_a_wrong_propagator_spreads_the_weights() -> None:
    model = free_model((4, 4), 0.2)
    model.base.g.mul_(1.1)
    path = ReversePath(model, geometric(7, 0.05, 8.0))
    _, log_w = path.sample(FreeScalar(0.2).action, noise_of("free", 4096, (4, 4)), still)
    exact = 0.5 * np.log(2 * np.pi * free_propagator(0.2, (4, 4))).sum()
    value, error = ln_z(log_w.numpy())
    assert log_w.std() > 0.1
    assert abs(value - exact) < 4 * error


def test_increments_vanish_for_the_free_field() -> None:
    path = ReversePath(free_model((4, 4), 0.15), geometric(5, 0.1, 6.0))
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
    path = path_of(phi4_model(action, phi), 8)
    x, log_w = path.sample(action.action, noise_of("zero", 4096, (4, 4)), still)
    value, error = ln_z(log_w.numpy())
    assert abs(value - 0.57827798 * 16) < 4 * error
    value, error = weighted(x, log_w, (x**2).mean((1, 2)))
    assert abs(value - one_site_moments(action, (2,))[0]) < 4 * error


def bad_model(kind: str) -> LatticeScore:
    phi = equilibrium(TWO, SHAPE, 4096)
    if kind == "random U-Net":
        return spoil(phi4_model(TWO, phi, channels=4), 0.3)
    return Shrunk(phi4_model(TWO, phi).base, None)


@pytest.mark.parametrize("kind", ["random U-Net", "shrunk"])
def test_a_bad_score_costs_efficiency_never_correctness(kind: str) -> None:
    path = path_of(bad_model(kind), 8)
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


class Forgetful(ReversePath):
    """The determinant of the spread left out."""

    def reverse(self, x: Tensor, n: int, frame: Symmetry) -> ReverseStep:
        law = super().reverse(x, n, frame)
        assert law.spread is not None
        return Blind(**vars(law))


class Blind(ReverseStep):
    def log_density(self, x: Tensor) -> Tensor:
        return super().log_density(x) + self.residual(x)[1]


def test_any_spread_costs_efficiency_never_correctness() -> None:
    """Random log-variances and couplings from a U-Net: Z and <phi^2> hold unless weights forget it."""
    model = phi4_model(TWO, equilibrium(TWO, SHAPE, 4096), 4, covariance=1)
    assert model.unet is not None
    assert model.unet.spread is not None
    generator = torch.Generator().manual_seed(5)
    for name, weight in model.unet.spread.named_parameters():
        size = 0.6 if name.startswith("last") else 0.5
        weight.data = size * torch.randn(weight.shape, generator=generator)
    model.eval().requires_grad_(False)
    path = path_of(model, 8)
    phi, log_w = draw(path)
    value, error = ln_z(log_w.numpy())
    assert abs(value - truth().ln_z) < 4 * error
    value, error = weighted(phi, log_w, (phi**2).mean((1, 2)))
    assert abs(value - truth().phi2) < 4 * error
    good, good_error = effective_sample_size(draw(good_path())[1].numpy())
    bad, bad_error = effective_sample_size(log_w.numpy())
    assert bad < good - 4 * math.hypot(good_error, bad_error)
    up = noise_of("test/up", N, SHAPE)
    backward = path.weigh(equilibrium(TWO, SHAPE, N, 5), TWO.action, up, still)[0]
    value, error = ln_z_forward(backward.numpy())
    assert abs(value - truth().ln_z) < 4 * error
    value, error = ln_z(draw(Forgetful(model, path.levels))[1].numpy())
    assert abs(value - truth().ln_z) > 10 * error


def test_knowing_where_the_posterior_is_wide_helps() -> None:
    """At lam = 1/2 steps of the variance of each site have a smaller relative entropy than steps without."""
    action, shape, n = ScalarPhi4(0.0, 0.5), (4, 4), 4096
    phi = site_draws(action, shape, n, 3)
    path = path_of(phi4_model(action, phi), 12)
    up = noise_of("test/up", n, shape)
    known = path.weigh(phi, action.action, up, still)[0]
    gained = known - Plain(path.model, path.levels).weigh(phi, action.action, up, still)[0]
    assert float(-gained.mean()) > 6 * float(gained.std()) / math.sqrt(n)


class Plain(ReversePath):
    """One variance for all sites."""

    def reverse(self, x: Tensor, n: int, frame: Symmetry) -> ReverseStep:
        return replace(super().reverse(x, n, frame), spread=None)


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
    path = path_of(spoil(phi4_model(action, phi, channels=4), 0.03), 3)
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
    path = path_of(spoil(phi4_model(action, phi, channels=4), 0.03), 3)
    noise = noise_of("symmetry", 64, (4, 4))
    x, log_w = path.sample(action.action, noise, FRAMES.__getitem__)
    mirror, same = path.sample(action.action, lambda s: -noise(s), FRAMES.__getitem__)
    assert torch.allclose(mirror, -x, atol=1e-5)
    assert torch.allclose(same, log_w, atol=1e-4)


# --- the variances of the steps ---------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", [0.24, 0.30])
def test_stated_variances_are_those_of_fresh_fields(kappa: float) -> None:
    """In the symmetric and in the broken phase: residuals of noised fields that the fit never saw."""
    action, shape, n = ScalarPhi4(kappa, 0.022), (4, 4), 4096
    path = path_of(phi4_model(action, equilibrium(action, shape, n)), 6)
    x, noise, p = equilibrium(action, shape, n, 6), noise_of("test/fresh", n, shape), path.momenta
    for step, low, high in rise(path.levels, x, noise, range(path.n_levels)):
        law = path.reverse(high, step, still(step))
        assert (law.zero is not None) == (kappa > 0.27)
        residual, _ = law.residual(low)
        power = p.class_mean(residual.abs() ** 2).mean(0) / law.variance
        error = (2 / (n * p.multiplicity)).sqrt()
        assert ((power - 1)[1:].abs() < 0.03 + 4 * error[1:]).all()
        whole = ((power - 1) * p.multiplicity)[1:].sum() / p.volume
        assert abs(float(whole)) < 0.015
        assert abs(float(whole) - 0.05) > 0.015  # negative control: 5 % wider
        zero, z = law.zero, residual[..., 0, 0].real
        mean, variance = torch.zeros_like(z), law.variance[0]
        if zero is not None:
            mean = zero.q * zero.shift
            variance = (1 - zero.q) * (zero.variance + mean * zero.shift) + zero.q * zero.minor
        off = (z - mean) ** 2 / variance - 1
        gate = 0.03 + 4 * float(off.std()) / math.sqrt(n)
        assert abs(float(off.mean())) < gate
        assert abs(float((1 + off).mean()) / 1.3 - 1) > gate  # negative control: 30 % wider


def test_samples_tell_their_path() -> None:
    path = good_path()
    made = {"sampler": "path", "law": VERSION, "levels": path.levels.tolist()}

    def samples(**changes: object) -> Ensemble:
        attrs = {"generated": {**made, **changes}}
        return Ensemble.from_fields(np.zeros((2, *SHAPE)), TWO, attrs=attrs)

    same = path_from(samples(), path.model, torch.device("cpu"))
    assert torch.equal(same.levels, path.levels)
    assert torch.equal(same.variance, path.variance)
    with pytest.raises(InputError, match="of method euler have no path"):
        path_from(samples(sampler="euler"), path.model, torch.device("cpu"))
    with pytest.raises(InputError, match=f"of version 4 of the path, this is {VERSION}; sample again"):
        path_from(samples(law=4), path.model, torch.device("cpu"))

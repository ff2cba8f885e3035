"""What the score has learned: exact scores give exact answers, and a wrong score is seen."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from fields import free_fields
from small_models import Scaled, equilibrium, free_model, noise_of, phi4_model
from torch import Tensor

from diffsq.analysis import effective_action as module
from diffsq.analysis.effective_action import (
    BARE,
    EXTENDED,
    GRADIENTS,
    compare_score,
    effective_action,
    evaluate,
    gradients,
    read_couplings,
    true_couplings,
)
from diffsq.models.lattice import LatticeScore
from diffsq.models.symmetry import IDENTITY, Symmetry
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.rng import uniforms

SHAPE = (6, 6)
FREE = FreeScalar(0.2)
SITE = ScalarPhi4(0.0, 0.2)


class OneSite(LatticeScore):
    """The exact score of independent sites (kappa = 0), by quadrature of E[F | x]."""

    def score(self, x: Tensor, sigma: Tensor, frame: Symmetry = IDENTITY) -> Tensor:
        phi, log_p = site_density()
        flat, width = x.reshape(-1, 1), float(sigma[0])
        weight = torch.softmax(log_p - (flat - phi) ** 2 / (2 * width**2), 1)
        force = -2 * (1 - 2 * SITE.lam) * phi - 4 * SITE.lam * phi**3
        return (weight @ force).reshape(x.shape)


def site_density() -> tuple[Tensor, Tensor]:
    phi = torch.linspace(-4, 4, 801, dtype=torch.float64)
    return phi, -(1 - 2 * SITE.lam) * phi**2 - SITE.lam * phi**4


def site_fields(n: int, shape: tuple[int, int], seed: int) -> Tensor:
    """Exact draws at kappa = 0, by inversion of the distribution function."""
    phi, log_p = site_density()
    cdf = torch.cumsum(torch.exp(log_p), 0).numpy()
    u = uniforms(seed, "test/site", np.arange(n), 0, shape[0] * shape[1])
    return torch.from_numpy(np.interp(u, cdf / cdf[-1], phi.numpy() + 0.005)).reshape(n, *shape)


def noise(n: int, shape: tuple[int, ...] = SHAPE, step: int = 0) -> Tensor:
    return noise_of("test/learned", n, shape)(step)


@pytest.mark.parametrize("name", EXTENDED)
def test_each_basis_function_is_the_gradient_of_an_action(name: str) -> None:
    """The derivative matrix of a gradient is symmetric; phi^3 times neighbours alone would not be."""

    def g(phi: Tensor) -> Tensor:
        return GRADIENTS[name](phi.reshape(1, 4, 5)).reshape(-1)

    phi = noise(1, (4, 5)).reshape(-1)
    jacobian = torch.autograd.functional.jacobian(g, phi)
    assert torch.allclose(jacobian, jacobian.T, atol=1e-12)
    lone = torch.autograd.functional.jacobian(lambda p: (p.reshape(4, 5) ** 3).roll(1, 0).reshape(-1), phi)
    assert not torch.allclose(lone, lone.T, atol=1e-3)


def test_the_action_is_in_the_basis_and_gradients_have_the_stated_normalisation() -> None:
    action, phi = ScalarPhi4(0.27, 0.3), noise(3)
    c = torch.tensor(true_couplings(action, EXTENDED), dtype=torch.float64)
    assert torch.allclose(torch.einsum("j,njxy->nxy", c, gradients(phi, EXTENDED)), action.grad(phi))
    for name, term in {
        "phi6": lambda p: (p**6).sum(),
        "kappa_diagonal": lambda p: -2 * (p * (p.roll((1, 1), (1, 2)) + p.roll((1, -1), (1, 2)))).sum(),
        "kappa_two": lambda p: -2 * (p * (p.roll(2, 1) + p.roll(2, 2))).sum(),
        "phi2_phi2": lambda p: sum((p**2 * p.roll(1, mu) ** 2).sum() for mu in (1, 2)),
        "phi3_phi": lambda p: sum((p**3 * p.roll(1, mu) + p * p.roll(1, mu) ** 3).sum() for mu in (1, 2)),
    }.items():
        leaf = phi.clone().requires_grad_()
        (exact,) = torch.autograd.grad(term(leaf), leaf)
        assert torch.allclose(GRADIENTS[name](phi), exact), name


@pytest.mark.parametrize("sigma", [0.05, 0.4, 1.0])
def test_free_field_is_read_exactly_at_every_sigma(sigma: float) -> None:
    """The target is noiseless for a Gaussian theory: couplings to rounding, cosine with the target 1."""
    phi = free_fields(FREE, SHAPE, 600, seed=3)
    model = free_model(SHAPE, FREE.kappa)
    noised = evaluate(model, FREE, phi, sigma, noise(600))
    for name, c in read_couplings(noised, FREE).items():
        assert abs(c["value"] - c["true"]) < 1e-9, name
    table = compare_score(model, noised)
    assert min(v for v, _ in table["target_cosine"]) > 1 - 1e-12
    assert max(v for v, _ in table["target_error"]) < 1e-6
    for (value, _), (wiener, _) in zip(table["cosine"], table["wiener_cosine"], strict=True):
        assert abs(value - wiener) < 1e-9
    for value, error in table["control"]:
        assert abs(value) < 4.5 * error + 1e-12


def test_bare_cosine_of_the_free_field_falls_as_the_closed_form() -> None:
    """A perfect score has cosine sqrt(sum 1/(G + sigma^2)/sum 1/G): not the model's fault."""
    model, sigma = free_model(SHAPE, FREE.kappa), 1.0
    noised = evaluate(model, FREE, free_fields(FREE, SHAPE, 4000, seed=4), sigma, noise(4000))
    p, g = model.momenta, model.base.g
    exact = float(((p.multiplicity / (g + sigma**2)).sum() / (p.multiplicity / g).sum()).sqrt())
    value, error = compare_score(model, noised)["cosine"][-1]
    assert exact < 0.7
    assert error < 0.005
    assert abs(value - exact) < 4 * error


def test_couplings_without_control_variate_agree_with_the_truth() -> None:
    """Nothing of the action enters here; the error is larger, the mean the same."""
    phi = free_fields(FREE, SHAPE, 4000, seed=5)
    noised = evaluate(free_model(SHAPE, FREE.kappa), FREE, phi, 0.7, noise(4000))
    for name, c in read_couplings(noised, FREE, control_variate=False).items():
        assert c["error"] > 1e-5
        assert abs(c["pull"]) < 4, name


@pytest.mark.parametrize("control_variate", [True, False])
def test_a_scaled_score_scales_the_couplings(control_variate: bool) -> None:
    """Negative control: ten per cent wrong comes out ten per cent wrong, also in slope and running."""
    model = Scaled(free_model(SHAPE, FREE.kappa).base, None)
    noised = evaluate(model, FREE, free_fields(FREE, SHAPE, 2000, seed=6), 0.5, noise(2000))
    for name, c in read_couplings(noised, FREE, control_variate=control_variate).items():
        assert abs(c["value"] - 1.1 * c["true"]) < 4.5 * c["error"], name
        assert name == "lam" or abs(c["pull"]) > 10
    slope, error = compare_score(model, noised)["slope"][-1]
    assert abs(slope - 1 / 1.1) < 4 * error + 1e-9
    assert abs(effective_action(noised)["kappa"]["pull"]) > 10


def test_independent_sites_against_quadrature() -> None:
    """kappa = 0 with the exact score of the quartic site: lam and kappa at small and large noise."""
    n, shape = 1200, (4, 4)
    model = OneSite(free_model(shape, 0.0).base, None)
    phi = site_fields(n, shape, seed=7)
    lam = []
    for step, sigma in enumerate((0.1, 0.4, 0.8)):
        noised = evaluate(model, SITE, phi, sigma, noise(n, shape, step))
        found = read_couplings(noised, SITE)
        for name, c in found.items():
            assert abs(c["pull"]) < 4.5, (name, sigma)
        assert found["lam"]["error"] < 0.01
        running = effective_action(noised, BARE)
        assert all(abs(c["pull"]) < 4.5 for c in running.values())
        lam.append(running["lam"]["value"])
        slopes = compare_score(model, noised)["slope"]
        assert all(abs(value - 1) < 4.5 * error for value, error in slopes)
    assert SITE.lam > lam[0] > 2 * lam[1] > 4 * lam[2]  # S_eff runs to a Gaussian


def test_extra_couplings_of_the_perfect_score_vanish() -> None:
    n, shape = 2000, (5, 5)
    model = OneSite(free_model(shape, 0.0).base, None)
    noised = evaluate(model, SITE, site_fields(n, shape, seed=8), 0.2, noise(n, shape))
    for name, c in read_couplings(noised, SITE, EXTENDED).items():
        assert abs(c["pull"]) < 4.5, name
        assert c["error"] < 0.05


def test_running_of_the_free_field_against_its_kernel() -> None:
    """S_eff has the kernel 1/(G + sigma^2); its projection is a least squares over momenta."""
    sigma, n = 0.6, 1500
    model = free_model(SHAPE, FREE.kappa)
    noised = evaluate(model, FREE, free_fields(FREE, SHAPE, n, seed=9), sigma, noise(n))
    linear = ("kappa", "mass", "kappa_diagonal", "kappa_two")
    delta = torch.zeros(1, *SHAPE, dtype=torch.float64)
    delta[0, 0, 0] = 1.0
    p = model.momenta
    basis = p.class_mean(p.modes(gradients(delta, linear)[0]).real * p.volume**0.5).T
    variance = model.base.g + sigma**2
    weight = (p.multiplicity * variance)[:, None]
    exact = torch.linalg.solve(basis.T @ (weight * basis), basis.T @ (weight[:, 0] / variance))
    found = effective_action(noised)
    for name, value in zip(linear, exact.tolist(), strict=True):
        c = found[name]
        assert abs(c["value"] - value) < 4.5 * c["error"], name
        assert abs(c["value"] - c["true"]) < 1e-9
    for name in set(EXTENDED) - set(linear):
        assert abs(found[name]["value"]) < 4.5 * found[name]["error"], name
    assert found["kappa"]["value"] < 0.7 * FREE.kappa
    assert found["kappa_diagonal"]["value"] > 10 * found["kappa_diagonal"]["error"]


def test_running_ends_at_the_action() -> None:
    """As sigma -> 0 the extra couplings go as sigma^2 to zero."""
    model, phi = free_model(SHAPE, FREE.kappa), free_fields(FREE, SHAPE, 400, seed=10)
    runs = [effective_action(evaluate(model, FREE, phi, s, noise(400))) for s in (0.1, 0.05)]
    for name, true in zip(EXTENDED, true_couplings(FREE, EXTENDED), strict=True):
        off = [run[name]["value"] - true for run in runs]
        if abs(off[0]) > 1e-4:
            assert off[0] / off[1] == pytest.approx(4.0, rel=0.15), name
        assert abs(off[1]) < 0.01
    assert abs(runs[0]["kappa_diagonal"]["value"]) > 1e-3


def test_a_fitted_model_of_an_interacting_theory() -> None:
    """The regression base at L = 6 reads kappa to a few per mille and lam to ten per cent on new fields."""
    action = ScalarPhi4(0.25, 0.022)
    phi = equilibrium(action, SHAPE, 2048)
    model = phi4_model(action, phi[:1024])
    noised = evaluate(model, action, phi[1024:], 0.25, noise(1024))
    found = read_couplings(noised, action)
    assert found["kappa"]["value"] == pytest.approx(action.kappa, rel=0.01)
    assert found["lam"]["value"] == pytest.approx(action.lam, rel=0.15)
    table = compare_score(model, noised)
    assert table["target_cosine"][-1][0] > 0.99
    assert table["cosine"][-1][0] > 0.9
    assert abs(table["control"][-1][0]) < 4.5 * table["control"][-1][1]


def test_bad_input_is_refused() -> None:
    model, phi = free_model(SHAPE, FREE.kappa), free_fields(FREE, SHAPE, 40, seed=11)
    eps = noise(40)
    for sigma in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="sigma"):
            evaluate(model, FREE, phi, sigma, eps)
    with pytest.raises(InputError, match="must both be"):
        evaluate(model, FREE, phi, 0.5, eps[:3])
    with pytest.raises(InputError, match="chain numbers"):
        evaluate(model, FREE, phi, 0.5, eps, np.arange(3))
    broken = phi.clone()
    broken[7, 0, 0] = torch.nan
    with pytest.raises(InputError, match="first in field 7"):
        evaluate(model, FREE, broken, 0.5, eps)
    bad = Scaled(model.base, None)
    bad.factor = float("inf")
    with pytest.raises(InputError, match="score"):
        evaluate(bad, FREE, phi, 0.5, eps)
    small = free_model((2, 2), FREE.kappa)
    noised = evaluate(small, FREE, free_fields(FREE, (2, 2), 40, seed=12), 0.5, noise(40, (2, 2)))
    with pytest.raises(InputError, match="cannot be told apart"):
        read_couplings(noised, FREE, EXTENDED)


def test_result_does_not_depend_on_the_number_of_fields_asked_for() -> None:
    """Fields are evaluated in fixed chunks: field i has the same score in any larger set."""
    action = ScalarPhi4(0.25, 0.022)
    phi = equilibrium(action, SHAPE, 2048)
    model = phi4_model(action, phi[:1024])
    few, many = (evaluate(model, action, phi[:n], 0.3, noise(n)).score for n in (128, 192))
    assert torch.equal(few, many[:128])


def test_doctests() -> None:
    assert doctest.testmod(module).failed == 0

"""ln Z differences against quadrature on 2x2: two weighted samples, reweighting, Bennett, with controls."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
from scipy.stats import norm
from small_models import equilibrium, levels_of, noise_of, phi4_model, still

from diffsq.exactness.free_energy import (
    FreeEnergy,
    action_values,
    bennett,
    difference,
    path_bennett,
    reweighted,
)
from diffsq.exactness.weights import ln_z, ln_z_forward
from diffsq.sampling.lattice_path import ReversePath
from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError
from lattice.exact.scalar import small_lattice
from lattice.rng import normals

SHAPE, N = (2, 2), 5000
A, B, FAR = ScalarPhi4(0.2, 0.05), ScalarPhi4(0.22, 0.04), ScalarPhi4(0.45, 0.05)


@lru_cache(maxsize=4)
def exact(action: ScalarPhi4) -> float:
    return small_lattice(action, SHAPE, spacing=0.4).ln_z


@lru_cache(maxsize=2)
def weighted(action: ScalarPhi4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Path samples with reverse log-weights, and forward log-weights of other equilibrium fields."""
    phi = equilibrium(action, SHAPE, 4096)
    model = phi4_model(action, phi)
    path = ReversePath(model, levels_of(model, 4))
    fields, log_w = path.sample(action.action, noise_of(f"test/{action.kappa}", N, SHAPE), still)
    held_out = equilibrium(action, SHAPE, 4096, 77)
    forward, _ = path.weigh(held_out, action.action, noise_of("test/up", 4096, SHAPE), still)
    return fields.numpy(), log_w.numpy(), forward.numpy()


def agrees(found: FreeEnergy, truth: float, at_most: float) -> bool:
    assert found.error < at_most
    return abs(found.value - truth) < 4 * found.error


def ratios(phi_a: np.ndarray, phi_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """S_A - S_B on fields of both."""
    first, second = (action_values(A, phi) - action_values(B, phi) for phi in (phi_a, phi_b))
    return first, second


def test_difference_of_two_weighted_samples() -> None:
    truth = exact(B) - exact(A)
    found = difference(weighted(A)[1], weighted(B)[1])
    assert agrees(found, truth, 0.01)
    assert abs(difference(weighted(B)[1], weighted(A)[1]).value - truth) > 10 * found.error
    assert 0.5 < found.ess <= 1


def test_reweighting_an_equilibrium_ensemble() -> None:
    phi = equilibrium(A, SHAPE, N, 6).numpy()
    truth = exact(B) - exact(A)
    found = reweighted(A, B, phi)
    assert agrees(found, truth, 0.01)
    # negative control: the exponent with the other sign
    shift = action_values(A, phi) - action_values(B, phi)
    value, error = ln_z(-shift)
    assert abs(value - truth) > 10 * error


def test_reweighting_a_weighted_ensemble_and_why_its_weights_matter() -> None:
    phi, log_w, _ = weighted(A)
    found = reweighted(A, B, phi, log_w)
    assert agrees(found, exact(B) - exact(A), 0.01)
    # ln Z at the other coupling is that of the first and the difference
    value, error = ln_z(log_w + action_values(A, phi) - action_values(B, phi))
    assert abs(value - exact(B)) < 4 * error
    assert value == pytest.approx(ln_z(log_w)[0] + found.value, abs=1e-10)
    # proposals of a spoilt law: only the weights make them an ensemble of A
    spoilt = 1.2 * phi
    bent = log_w + action_values(A, phi) - action_values(A, spoilt) + 4 * math.log(1.2)
    right, wrong = reweighted(A, B, spoilt, bent), reweighted(A, B, spoilt)
    assert abs(right.value - (exact(B) - exact(A))) < 4 * right.error
    assert abs(wrong.value - (exact(B) - exact(A))) > 10 * wrong.error


def test_reweighting_too_far_is_refused() -> None:
    phi = equilibrium(A, SHAPE, N, 6).numpy()
    with pytest.raises(InputError, match="leaves ESS/N"):
        reweighted(A, FAR, phi)
    with pytest.raises(InputError, match="40 fields"):
        reweighted(A, B, phi[:40])
    with pytest.raises(InputError, match="5000 fields but 10 log-weights"):
        reweighted(A, B, phi, np.zeros(10))


@pytest.mark.parametrize("n_a", [1500, N])
def test_bennett_between_equilibrium_ensembles(n_a: int) -> None:
    r_a, r_b = ratios(equilibrium(A, SHAPE, N, 6)[:n_a].numpy(), equilibrium(B, SHAPE, N, 7).numpy())
    found, truth = bennett(r_a, r_b), exact(B) - exact(A)
    assert agrees(found, truth, 0.01)
    assert found.ess == pytest.approx(1, abs=0.1)  # neighbours
    assert bennett(-r_b, -r_a).value == pytest.approx(-found.value, abs=1e-9)
    # less noise than reweighting either ensemble alone
    assert found.error < min(ln_z(r_a)[1], ln_z(-r_b)[1])
    # negative controls: the wrong sign of the exponent; one that is half as large
    for wrong in (bennett(-r_a, -r_b), bennett(0.5 * r_a, 0.5 * r_b)):
        assert abs(wrong.value - truth) > 10 * max(wrong.error, found.error)


def test_bennett_with_weights() -> None:
    (phi_a, w_a, _), (phi_b, w_b, _) = weighted(A), weighted(B)
    r_a, r_b = ratios(phi_a, phi_b)
    found = bennett(r_a, r_b, log_weight_a=w_a, log_weight_b=w_b)
    assert agrees(found, exact(B) - exact(A), 0.01)
    constant = bennett(r_a, r_b, log_weight_a=w_a + 800, log_weight_b=w_b - 900)
    assert constant.value == pytest.approx(found.value, abs=1e-9)


def test_bennett_error_is_the_scatter_of_repetitions() -> None:
    """Gaussians N(0, 1) and N(0.8, 1), ln(Z_B/Z_A) = 0.3: 300 repetitions of 200 and 100 draws."""
    z = normals(3, "test/bennett", np.arange(300), 0, 300)

    def log_ratio(x: np.ndarray) -> np.ndarray:
        return 0.3 + norm.logpdf(x, 0.8) - norm.logpdf(x)

    found = [bennett(log_ratio(row[:200]), log_ratio(0.8 + row[200:])) for row in z]
    values, errors = np.array([f.value for f in found]), np.array([f.error for f in found])
    assert abs(values.mean() - 0.3) < 4 * values.std() / math.sqrt(300)
    assert values.std() == pytest.approx(errors.mean(), rel=4 / math.sqrt(600))


def test_bennett_of_reverse_and_forward_paths() -> None:
    _, reverse, forward = weighted(A)
    found = path_bennett(reverse, forward)
    assert agrees(found, exact(A), 0.006)
    assert found.error < min(ln_z(reverse)[1], ln_z_forward(forward)[1])
    wrong = path_bennett(-reverse, -forward)
    assert abs(wrong.value - exact(A)) > 10 * wrong.error


def test_correlated_fields_count_by_their_chains() -> None:
    r_a, r_b = ratios(equilibrium(A, SHAPE, 500, 6).numpy(), equilibrium(B, SHAPE, 500, 7).numpy())
    chain = np.repeat(np.arange(500), 4)
    four, one = bennett(np.repeat(r_a, 4), np.repeat(r_b, 4), chain_a=chain, chain_b=chain), bennett(r_a, r_b)
    blind = bennett(np.repeat(r_a, 4), np.repeat(r_b, 4))
    assert four.value == pytest.approx(one.value, abs=1e-9)
    assert four.error == pytest.approx(one.error, rel=0.3)
    assert blind.error < 1.3 * one.error


def test_numbers_that_are_not_finite_are_refused() -> None:
    bad = np.array([0.0, np.nan] * 20)
    with pytest.raises(InputError, match="20 of 40"):
        bennett(bad, np.zeros(40))
    with pytest.raises(InputError, match="40 log-ratios but 3 log-weights"):
        bennett(np.zeros(40), np.zeros(40), log_weight_a=np.zeros(3))

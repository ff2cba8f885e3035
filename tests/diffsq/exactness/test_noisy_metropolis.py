"""Metropolis with a noisy log q: acceptance in closed form, bias with fresh and with kept noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from small_models import levels_of, noise_of
from small_paths import SHAPE, TWO, smooth_model

from diffsq.exactness.noisy_metropolis import kept_noise_bias, noisy_acceptance, noisy_odds
from diffsq.exactness.weights import independence_metropolis
from diffsq.sampling.likelihood import ProbabilityFlow, hutchinson_probes
from lattice.errors import InputError
from lattice.exact.scalar import small_lattice
from lattice.rng import normals, uniforms
from lattice.statistics.blocks import jackknife_of


@pytest.mark.parametrize(("delta", "noise"), [(0.7, 0.4), (-1.3, 1.0), (3.0, 2.0), (-6.0, 0.3), (0.0, 0.0)])
def test_noisy_acceptance_by_quadrature(delta: float, noise: float) -> None:
    known = min(1.0, math.exp(delta))
    if noise:
        kink = [-delta / noise]
        known = quad(lambda z: min(1.0, math.exp(delta + noise * z)) * norm.pdf(z), -12, 12, points=kink)[0]
        assert abs(known - min(1.0, math.exp(delta))) > 1e-4, "the noise must matter here"
    assert float(noisy_acceptance(delta, noise)) == pytest.approx(known, abs=1e-7)
    assert float(noisy_acceptance(800.0, noise)) == pytest.approx(1.0)


def test_fresh_noise_between_two_states() -> None:
    """A chain on two states, w_B/w_A = e, noise 1 drawn at every decision: the odds are not e."""
    n_chains, steps, delta, noise = 4000, 60, 1.0, 1.0
    eta = normals(6, "test/two", np.arange(n_chains), 0, steps)
    u = uniforms(6, "test/two", np.arange(n_chains), 1, steps)

    def share(size: float) -> tuple[float, float]:
        state = np.zeros(n_chains, dtype=bool)
        seen = []
        for t in range(steps):
            ratio = np.where(state, -delta, delta) + size * eta[:, t]
            state ^= np.log(u[:, t]) < ratio
            seen.append(state.copy())
        late = np.mean(seen[20:], axis=0)
        return float(late.mean()), float(late.std() / math.sqrt(n_chains))

    exact, biased = math.e / (1 + math.e), float(noisy_odds(delta, noise) / (1 + noisy_odds(delta, noise)))
    value, error = share(0.0)
    assert abs(value - exact) < 4 * error
    value, error = share(noise)
    assert abs(value - biased) < 4 * error
    assert abs(value - exact) > 10 * error


def test_kept_noise_bends_the_law() -> None:
    """Proposals from the target N(0, 1), noise in log q of variance a x^2: variance 1/(1 - a)."""
    n, a = 160_000, 0.3
    z = normals(7, "test/kept", np.array([0, 1]), 0, n)
    x, eta = z[0], math.sqrt(a) * np.abs(z[0]) * z[1]
    for log_w, variance in ((np.zeros(n), 1.0), (eta, 1 / (1 - a))):
        chain = x[independence_metropolis(log_w, seed=3)[0]] ** 2
        value, error = jackknife_of(lambda d: float(d.mean()), chain[:, None], 200)
        assert abs(value - variance) < 4 * error
    assert abs(value - 1.0) > 10 * error
    bias, error = kept_noise_bias(x**2, np.zeros(n), eta[None])
    assert abs(bias - (1 / (1 - a) - 1)) < 4 * error
    # noise of one size everywhere is harmless when it is kept
    bias, error = kept_noise_bias(x**2, np.zeros(n), 0.5 * z[1][None])
    assert abs(bias) < 4 * error


def test_hutchinson_noise_biases_metropolis_with_a_real_flow() -> None:
    model, n = smooth_model(), 3000
    flow, noise = ProbabilityFlow(model, levels_of(model, 4)), noise_of("bias", n, SHAPE)(0)
    phi, log_q = flow.sample(noise)
    exact = (-TWO.action(phi) - log_q).numpy()
    noisy = []
    for draw in range(6):
        probes = hutchinson_probes(8, f"test/bias/{draw}", np.arange(n), 1, SHAPE, "gaussian")
        noisy.append((-TWO.action(phi) - flow.sample(noise, probes=probes)[1]).numpy())
    truth = small_lattice(TWO, SHAPE, spacing=0.4)
    observable = (phi**2).mean((1, 2)).numpy()
    rows = np.stack([observable, np.exp(exact - exact.max())], 1)
    value, error = jackknife_of(lambda d: float((d[:, 0] * d[:, 1]).sum() / d[:, 1].sum()), rows)
    assert abs(value - truth.phi2) < 4 * error
    bias, bias_error = kept_noise_bias(observable, exact, np.array(noisy))
    assert bias > 8 * bias_error


def test_a_negative_noise_is_refused() -> None:
    with pytest.raises(InputError, match="standard deviation"):
        noisy_acceptance(0.0, -1.0)

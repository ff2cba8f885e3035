"""Independence Metropolis, ln Z and forward ESS against closed forms for Gaussian log-weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import erfc
from scipy.stats import kstest, norm
from series import ar1

from diffsq.exactness.weights import (
    acceptance,
    acceptance_of,
    forward_ess,
    forward_kl,
    independence_metropolis,
    ln_z,
    ln_z_forward,
    metropolis_ensemble,
    reverse_kl,
)
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.rng import normals, uniforms
from lattice.statistics.weights import effective_sample_size

N = 20000
LOG_Z = 3.7


def gaussian_log_weights(v: float, n: int = N, forward: bool = False) -> np.ndarray:
    """log w ~ N(ln Z - v/2, v) under R; under F its mean is ln Z + v/2."""
    z = normals(4, f"test/w{forward}", np.array([0]), 0, n)[0]
    return LOG_Z + math.sqrt(v) * z + (0.5 if forward else -0.5) * v


@pytest.mark.parametrize("v", [0.05, 0.5, 1.5])
def test_acceptance_of_gaussian_log_weights(v: float) -> None:
    found, error = acceptance(gaussian_log_weights(v), seed=1)
    expected = erfc(math.sqrt(v) / 2)
    assert abs(found - expected) < 4 * error
    binomial = math.sqrt(expected * (1 - expected) / N)
    assert binomial < error < 3 * binomial  # repeats correlate


@pytest.mark.parametrize("v", [0.1, 0.5])
def test_ess_and_ln_z_of_gaussian_log_weights(v: float) -> None:
    reverse, forward = gaussian_log_weights(v), gaussian_log_weights(v, forward=True)
    for value, error in (ln_z(reverse), ln_z_forward(forward)):
        assert abs(value - LOG_Z) < 4 * error
        assert error == pytest.approx(math.sqrt(math.expm1(v) / N), rel=0.35)
    for value, error in (effective_sample_size(reverse), forward_ess(forward)):
        assert abs(value - math.exp(-v)) < 4 * error
    # the two laws are not interchangeable
    value, error = ln_z(forward)
    assert abs(value - LOG_Z) > 10 * error
    value, error = ln_z_forward(reverse)
    assert abs(value - LOG_Z) > 10 * error


@pytest.mark.parametrize("v", [0.5, 1.2])
def test_errors_cover_over_correlated_chains(v: float) -> None:
    """32 chains, tau_int = 9/2: at most 2 % beyond three errors, mean pull below 0.3; chains unknown fail."""
    rng, chain = np.random.default_rng(5), np.repeat(np.arange(32), 64)
    runs = [v / 2 + math.sqrt(v) * ar1(rng, 64, 0.8, (32,)).T.ravel() for _ in range(200)]
    for estimate, truth in (
        (forward_ess, math.exp(-v)),
        (ln_z_forward, 0.0),
        (lambda x, c: forward_kl(x, (0.0, 0.0), c), v / 2),
    ):
        value, error = np.array([estimate(x, chain) for x in runs]).T
        pulls = (value - truth) / error
        assert np.mean(np.abs(pulls) > 3) <= 0.02
        assert abs(pulls.mean()) < 0.3
    value, error = np.array([forward_kl(x[np.argsort(rng.random(2048))], (0.0, 0.0)) for x in runs]).T
    assert np.mean(np.abs(value - v / 2) > 3 * error) > 0.1  # negative control: shuffled, called independent


@pytest.mark.parametrize("v", [0.1, 1.2])
def test_the_error_of_the_acceptance_covers(v: float) -> None:
    truth, z = erfc(math.sqrt(v) / 2), normals(4, "test/accept", np.arange(100), 0, 1024)
    value, error = np.array([acceptance(math.sqrt(v) * x, seed) for seed, x in enumerate(z)]).T
    pulls = (value - truth) / error
    assert abs(pulls.mean()) < 0.5
    assert abs(pulls.std() - 1) < 4 / math.sqrt(200)


def test_an_acceptance_of_one_has_an_error() -> None:
    """The weights of 100 proposals may be equal by chance."""
    rate, error = acceptance_of(np.ones(100, dtype=bool))
    assert rate == 1
    assert 0 < error < 0.02
    rate, error = acceptance_of([True, False, True])  # too short for the Gamma method
    assert rate == 0.5
    assert 0.3 < error < 0.7


def test_reverse_kl_knows_that_its_parts_are_correlated() -> None:
    for seed in range(3):
        log_w = gaussian_log_weights(0.5, 20000 - seed)
        value, error = reverse_kl(log_w)
        assert abs(value - 0.25) < 4 * error
        assert error == pytest.approx(math.sqrt((math.expm1(0.5) - 0.5) / N), rel=0.2)
        assert error < 0.5 * math.hypot(ln_z(log_w)[1], log_w.std() / math.sqrt(N))


def test_forward_collapse_of_a_thin_tailed_proposal() -> None:
    """Target N(0, 1), proposal N(0, 0.45): E_R[w^2] is infinite; fields of the target see it first."""
    z = normals(4, "test/thin", np.array([0, 1]), 0, 4000)
    width = math.sqrt(0.45)

    def log_w(x: np.ndarray) -> np.ndarray:
        return norm.logpdf(x) - norm.logpdf(x, scale=width)

    assert forward_ess(log_w(z[1]))[0] < 0.5 * effective_sample_size(log_w(width * z[0]))[0]


def test_ln_z_without_overflow() -> None:
    for shift in (-5000.0, 5000.0):
        assert ln_z(shift + np.log([1.0, 3.0] * 8))[0] == pytest.approx(shift + math.log(2), abs=1e-9)


def wrong_chain(log_weight: np.ndarray, log_u: np.ndarray) -> np.ndarray:
    """The rejected proposal is dropped instead of counting the old state again."""
    state, kept = 0, [0]
    for i in range(1, len(log_weight)):
        if log_u[i] < log_weight[i] - log_weight[state]:
            state = i
            kept.append(i)
    return np.array(kept)


def test_the_chain_leaves_the_target_invariant() -> None:
    """Target N(0, 1), proposals N(0.3, 1.5); 4000 chains of 8 proposals, each started in equilibrium."""
    n_chains, length = 4000, 9
    z = normals(11, "test/proposals", np.arange(n_chains), 0, length)
    x = 0.3 + 1.5 * z
    x[:, 0] = z[:, 0]
    log_w = norm.logpdf(x) - norm.logpdf(x, 0.3, 1.5)
    ends, wrong = [], []
    for c in range(n_chains):
        indices, _ = independence_metropolis(log_w[c], seed=1000 + c)
        ends.append(x[c, indices[-1]])
        log_u = np.log(uniforms(1000 + c, "exactness/metropolis", np.array([0]), 0, length)[0])
        kept = wrong_chain(log_w[c], log_u + 0.7)  # and accepts too rarely: p = min(1, w'/2w)
        wrong.append(x[c, kept].mean() if len(kept) > 1 else x[c, 0])
    assert kstest(ends, norm.cdf).pvalue > 6e-5
    flipped = [x[c, independence_metropolis(-log_w[c], seed=1000 + c)[0][-1]] for c in range(n_chains)]
    assert kstest(flipped, norm.cdf).pvalue < 1e-20, "w/w' for w'/w must be caught"
    always = x[:, -1]
    assert kstest(always, norm.cdf).pvalue < 1e-20, "accepting everything must be caught"


def test_rejections_repeat_the_state() -> None:
    log_w = gaussian_log_weights(1.0, 500)
    indices, accepted = independence_metropolis(log_w, seed=2)
    assert indices[0] == 0
    assert accepted[0]
    assert (indices[accepted] == np.flatnonzero(accepted)).all()
    assert (indices[1:][~accepted[1:]] == indices[:-1][~accepted[1:]]).all()
    assert 0 < (~accepted).sum() < 499


def test_a_decision_does_not_depend_on_what_follows() -> None:
    log_w = gaussian_log_weights(1.0, 1000)
    indices, _ = independence_metropolis(log_w, seed=2)
    for n in (2, 17, 500):
        assert (independence_metropolis(log_w[:n], seed=2)[0] == indices[:n]).all()
    changed = log_w.copy()
    changed[700:] += 5
    assert (independence_metropolis(changed, seed=2)[0][:700] == indices[:700]).all()
    assert (independence_metropolis(log_w, seed=3)[0] != indices).any()


def test_proposals_must_come_from_one_law() -> None:
    """Two laws used in runs of 8, each with its own weight: the chain is biased; drawn afresh it is not.

    (Why `diffsq.sampling.streams` has one lattice frame per step, not one per block of samples.) Exact, by
    matrices.
    """
    pi = np.array([0.5, 0.3, 0.2])
    laws = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    w = pi / laws

    def kernel(law: int) -> np.ndarray:
        k = np.zeros((3, 2, 3, 2))
        for x in range(3):
            for f in range(2):
                k[x, f, :, law] += laws[law] * np.minimum(1, w[law] / w[f, x])
                k[x, f, x, f] += 1 - (laws[law] * np.minimum(1, w[law] / w[f, x])).sum()
        return k.reshape(6, 6)

    start = np.repeat(pi / 2, 2)
    for run, exact in ((1, True), (8, False)):
        end = sum(0.5 * start @ np.linalg.matrix_power(kernel(law), run) for law in range(2))
        assert (np.abs(end.reshape(3, 2).sum(1) - pi).max() < 1e-12) == exact


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    log_w = gaussian_log_weights(0.5, 50)
    log_w[[3, 7]] = bad
    for function in (ln_z, ln_z_forward, forward_ess):
        with pytest.raises(InputError, match="2 of 50 log-weights are NaN or infinite"):
            function(log_w)
    with pytest.raises(InputError, match="2 of 50"):
        independence_metropolis(log_w, seed=1)


def test_too_few_weights_are_refused() -> None:
    with pytest.raises(InputError, match="2 or more"):
        ln_z(np.array([1.0]))


def test_metropolis_ensemble_is_a_chain_without_weights() -> None:
    phi = normals(5, "test/phi", np.arange(64), 0, 16).reshape(64, 4, 4)
    log_w = gaussian_log_weights(1.0, 64)
    ensemble = Ensemble.from_fields(phi, ScalarPhi4(0.2, 0.1), log_weight=log_w)
    chain = metropolis_ensemble(ensemble, seed=6)
    indices, accepted = independence_metropolis(log_w, seed=6)
    assert chain.log_weight is None
    assert (chain.phi == phi[indices]).all()
    assert (chain.trajectory == np.arange(64)).all()
    assert len(chain.replicas()) == 1
    assert (chain.series["accepted"] == accepted).all()
    assert (chain.series["phi2"] == ensemble.series["phi2"][indices]).all()
    assert chain.attrs["metropolis"]["acceptance"] == pytest.approx(accepted[1:].mean())
    assert chain.identity not in ("", ensemble.identity)
    ensemble.log_weight = None
    with pytest.raises(InputError, match="no log-weights"):
        metropolis_ensemble(ensemble, seed=6)

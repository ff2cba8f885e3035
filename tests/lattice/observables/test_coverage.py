"""Errors of everything measured, on ensembles whose exact answers are known, with controls."""

import math

import numpy as np
import pytest
from exact_ensembles import free_ensemble, one_chain_each, propagator, white_ensemble

from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError
from lattice.observables.measure import measure, two_point
from lattice.observables.names import in_short_table


def exact_free(shape, kappa):
    g, volume = propagator(shape, kappa), math.prod(shape)
    m2, p2 = g[0, 0] / volume, g.mean()
    return {
        "abs_magnetization": math.sqrt(2 * m2 / math.pi),
        "magnetization": 0.0,
        "susceptibility": volume * m2 * (1 - 2 / math.pi),
        "susceptibility_full": g[0, 0],
        "binder": 0.0,
        "action_density": 0.5,
        "phi2": p2,
        "phi4": 3 * p2**2,
        "kappa2": p2,
        "kappa4": 0.0,
        "kappa2_m": m2,
        "kappa4_m": 0.0,
        "kappa4_ratio": 0.0,
        "kappa4_m_ratio": 0.0,
        "kappa1": 0.0,
        "kappa3": 0.0,
        "kappa3_m": 0.0,
        "kappa1_k1": 0.0,
        "kappa2_k1": g[1, 0] / 2,
        "kappa2_k2": g[1, 1] / 2,
        "kappa3_k1": 0.0,
        "kappa4_k1": 0.0,
        "kappa4_k1_ratio": 0.0,
        "kappa4_k2_ratio_z2": 0.0,
        "kappa4_ratio_z2": 0.0,
        "kappa4_m_ratio_z2": 0.0,
        "xi_2nd": math.sqrt(g[0, 0] / g[1, 0] - 1) / (2 * math.sin(math.pi / shape[0])),
    }


def pulls_of(make, exact, n_seeds, **options):
    tables = [measure(make(seed), **options)["observables"] for seed in range(n_seeds)]
    return {
        name: np.array([(t[name]["value"] - x) / t[name]["error"] for t in tables])
        for name, x in exact.items()
    }


@pytest.mark.parametrize("make", [free_ensemble, white_ensemble])
def test_every_observable_covers_its_exact_value(make):
    shape, kappa = ((6, 6), 0.22) if make is free_ensemble else ((4, 4), 0.05)
    exact = exact_free(shape, kappa)
    if make is white_ensemble:
        del exact["xi_2nd"]  # xi = 0.25 there: G(0)/G(k1) is too near 1 for Gaussian errors
    for name, pulls in pulls_of(make, exact, 60).items():
        assert abs(pulls.mean()) < 4.5 / math.sqrt(60) + 0.1, name
        assert abs(pulls.std() - 1) < 4.5 / math.sqrt(120), name
        assert np.max(np.abs(pulls)) < 5, name


def disagreements(a, b):
    """The observables of the short table whose errors in two measurements differ by more than half."""
    pairs = {name: [m["observables"][name]["error"] for m in (a, b)] for name in a["observables"]}
    return [name for name, (x, y) in pairs.items() if in_short_table(name) and not 2 / 3 < x / y < 1.5]


def test_the_jackknife_covers_and_agrees_with_the_gamma_method():
    exact = {name: x for name, x in exact_free((6, 6), 0.22).items() if "4" not in name and "3" not in name}
    for name, pulls in pulls_of(free_ensemble, exact, 25, method="jackknife", two_point=False).items():
        assert abs(pulls.mean()) < 4.5 / math.sqrt(25) + 0.1, name
        assert abs(pulls.std() - 1) < 4.5 / math.sqrt(50), name
    ensemble = free_ensemble(1, n=1000)
    gamma, jack = measure(ensemble), measure(ensemble, method="jackknife")
    assert disagreements(gamma, jack) == []
    assert "jackknife" in jack["method"]
    for name, row in jack["observables"].items():
        assert row["value"] == gamma["observables"][name]["value"]
        assert row["tau_int"] == gamma["observables"][name]["tau_int"]
    # negative control: correlated configurations called independent draws
    repeated = one_chain_each(np.repeat(ensemble.phi, 8, axis=0), 4, ensemble.action)
    shuffled = repeated.phi[np.random.default_rng(2).permutation(8000)]
    naive = measure(one_chain_each(shuffled, 8000, ensemble.action), method="jackknife", two_point=False)
    assert "phi2" in disagreements(measure(repeated, two_point=False), naive)
    with pytest.raises(InputError, match="method must be"):
        measure(ensemble, method="bootstrap")


def test_broken_phase_ratios():
    """Two peaks with unequal populations: the symmetric estimator is far nearer to the truth."""
    rng = np.random.default_rng(33)
    phi = rng.choice([-3.0, 3.0], p=[0.4, 0.6], size=(4000, 1, 1)) + 0.5 * rng.normal(size=(4000, 4, 4))
    table = measure(one_chain_each(phi, 4, ScalarPhi4(0.4, 0.022)), two_point=False)["observables"]
    truth = -2 * 3**4 / (9 + 0.25) ** 2
    z2 = table["kappa4_ratio_z2"]
    assert abs(z2["value"] - truth) < 4 * z2["error"]
    assert abs(table["kappa4_ratio"]["value"] - truth) > 20 * z2["error"]


def test_ignoring_the_weights_measures_the_proposal():
    """Negative control: without weights the answers are those of kappa = 0, many errors off."""
    raw = pulls_of(white_ensemble, exact_free((4, 4), 0.0) | {"xi_2nd": 0.0}, 1, ignore_weights=True)
    assert abs(raw["susceptibility_full"][0]) < 4
    wrong = pulls_of(white_ensemble, exact_free((4, 4), 0.05), 1, ignore_weights=True)
    assert abs(wrong["susceptibility_full"][0]) > 4


def test_two_point_errors_against_the_free_theory():
    shape, kappa = (6, 6), 0.22
    g = propagator(shape, kappa)
    result = two_point(free_ensemble(8, n=8000))
    index = tuple(result["momenta"].astype(int).T)
    assert np.max(np.abs(result["G"] - g[index]) / result["G_error"]) < 4.5
    assert result["multiplicity"].sum() == 36
    exact_c = np.fft.ifft(g[:, 0]).real[:4]
    assert np.max(np.abs(result["C"] - exact_c) / result["C_error"]) < 4.5
    weighted = two_point(white_ensemble(8, n=8000))
    g = propagator((4, 4), 0.05)
    index = tuple(weighted["momenta"].astype(int).T)
    assert np.max(np.abs(weighted["G"] - g[index]) / weighted["G_error"]) < 4.5
    assert len(two_point(free_ensemble(8, n=400), n_momenta=3)["G"]) == 3

"""Moments and cumulants with block errors: exact numbers, coverage of the errors, noise taken off."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lattice.actions.complexified import Complexified
from lattice.actions.one_variable import ComplexGaussian, ComplexQuartic, TwoPeak
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.observables.moments import NAMES, blocks_of, estimates, exact_numbers, parts, variable
from lattice.rng import normals
from lattice.simulation.exact_draws import draw_toy

N = 100_000


def gaussian(seed: int, n: int = N) -> np.ndarray:
    """z with <z^2> = 1/sigma0 = (1 - i)/2: the stationary law of complex Langevin at sigma0 = 1 + i."""
    eps = normals(seed, "toy_table/z", np.array([0]), 0, 2 * n).reshape(n, 2)
    return eps @ np.linalg.cholesky(np.array([[0.75, -0.25], [-0.25, 0.25]])).T @ np.array([1, 1j])


def test_complex_gaussian_within_its_errors() -> None:
    found = estimates(gaussian(1), np.arange(N) // 500)
    exact = exact_numbers(Complexified(ComplexGaussian(1 + 1j)))
    for name in NAMES:
        for part in (0, 1):
            assert abs(found[name]["value"][part] - exact[name][part]) < 4.5 * found[name]["error"][part]
    assert abs(found["m4"]["value"][1]) > 10 * found["m4"]["error"][1]  # -3/2, not zero
    wrong = exact_numbers(Complexified(ComplexGaussian(1 + 1.5j)))
    assert abs(found["m2"]["value"][1] - wrong["m2"][1]) > 10 * found["m2"]["error"][1]


def test_errors_cover() -> None:
    """The pulls of 200 independent sets scatter like a unit normal."""
    pulls = []
    for seed in range(200):
        entry = estimates(gaussian(seed, 2000), np.arange(2000) // 20)["m4"]
        pulls.append((entry["value"][1] + 1.5) / entry["error"][1])
    assert abs(np.std(pulls) - 1) < 4 / math.sqrt(2 * 200)
    assert abs(np.mean(pulls)) < 4 / math.sqrt(200) + 0.15  # a ratio: the error knows the value


def test_two_peaks_against_closed_forms() -> None:
    action = TwoPeak(1.0, 0.25)
    ensemble = Ensemble.from_fields(draw_toy(action, N, seed=3), action)
    found = estimates(variable(ensemble.phi), blocks_of(ensemble))
    for name, exact in {"kappa2": 1.0625, "kappa4": -2.0, "kappa6": 16.0, "kappa8": -272.0}.items():
        assert exact_numbers(action)[name][0] == pytest.approx(exact, rel=1e-12)
        assert abs(found[name]["value"][0] - exact) < 4.5 * found[name]["error"][0]
        assert found[name]["error"][1] == 0


def test_noise_is_taken_off_the_second_cumulant_only() -> None:
    action, sigma = TwoPeak(1.0, 0.25), 0.3
    phi = draw_toy(action, N, seed=4)[:, 0]
    block = np.arange(N) // 500
    noisy = phi + sigma * normals(5, "toy_table/noise", np.array([0]), 0, N)[0]
    clean, raw, mended = estimates(phi, block), estimates(noisy, block), estimates(noisy, block, sigma**2)
    assert raw["kappa2"]["value"][0] - mended["kappa2"]["value"][0] == pytest.approx(sigma**2)
    for name in ("m2", "m4", "m6"):
        error = math.hypot(clean[name]["error"][0], mended[name]["error"][0])
        assert abs(clean[name]["value"][0] - mended[name]["value"][0]) < 4.5 * error
        assert abs(clean[name]["value"][0] - raw[name]["value"][0]) > 10 * error
    assert raw["kappa4"]["value"] == mended["kappa4"]["value"]


def test_blocks_are_whole_chains() -> None:
    phi = np.zeros((64, 2)) + 0.5
    chain = np.tile(np.arange(32), 2)
    ensemble = Ensemble.from_fields(phi, Complexified(ComplexQuartic(1.0, 1.0)), chain=chain)
    block = blocks_of(ensemble)
    assert (block[:32] == block[32:]).all()
    assert len(set(block.tolist())) == 32
    one = Ensemble.from_fields(phi, Complexified(ComplexQuartic(1.0, 1.0)))
    assert (np.diff(blocks_of(one)) >= 0).all()


def test_bad_input() -> None:
    with pytest.raises(InputError, match="1 of 20 samples are NaN"):
        estimates(np.array([math.nan] + [1.0] * 19), np.arange(20))
    few = Ensemble.from_fields(np.ones((8, 1)), TwoPeak(1.0, 0.25))
    with pytest.raises(InputError, match="too few"):
        blocks_of(few)


def test_rows() -> None:
    assert [label for label, _ in parts("m2", True)] == ["Re m2", "Im m2"]

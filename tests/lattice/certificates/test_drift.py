"""What a complex Langevin verdict is made of: known tails, the Langevin operator, a density."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lattice.actions.one_variable import ComplexQuartic
from lattice.actions.u1 import U1, OneLink, circulation
from lattice.certificates.drift import boundary_density, chain_averages, drift_histogram, drift_tail


def test_hills_exponent_of_known_tails() -> None:
    rng = np.random.default_rng(4)
    for alpha in (4 / 3, 2.0):
        tail = drift_tail(rng.random((400, 500)) ** (-1 / alpha))
        exponent, error = np.array(tail["exponent"]), np.array(tail["error"])
        assert (np.abs(exponent - alpha) < 4 * error).all()
        assert tail["m"][-1] == 1000
    tail = drift_tail(rng.exponential(size=(400, 500)))
    assert tail["exponent"][0] > 5
    assert tail["exponent"] == sorted(tail["exponent"], reverse=True) or tail["exponent"][1] > 5


def test_the_boundary_density_is_the_langevin_operator() -> None:
    """O'' - S' O' by differences, for every model and observable."""
    z = np.array([[0.3 + 0.2j, -1.1 + 0.4j, 0.7 - 0.3j]])
    h = 1e-4
    for action in (ComplexQuartic(1 + 1j, 1.0), OneLink(0.7 + 0.4j)):
        force = action.grad(torch.from_numpy(z)).numpy()
        for name, found in boundary_density(action, z).items():
            n = 4 if "4" in name else 2 if "2" in name else 1

            def o(w: np.ndarray, n: int = n, name: str = name) -> np.ndarray:
                return np.asarray(np.exp(1j * n * w) if "e" in name else w**n)

            second = (o(z + h) - 2 * o(z) + o(z - h)) / h**2
            first = (o(z + h) - o(z - h)) / (2 * h)
            assert np.allclose(found, second - force * first, atol=1e-5)


def test_the_boundary_density_of_links_is_the_langevin_operator_on_plaquettes() -> None:
    """sum over links of O'' - S' O' by differences, averaged over the plaquettes."""
    action, rng, h = U1(1.5 + 0.4j, 0.7), np.random.default_rng(1), 1e-4
    z = rng.normal(size=(1, 1, 2, 2, 3)) + 0.3j * rng.normal(size=(1, 1, 2, 2, 3))
    drift = -action.grad(torch.from_numpy(z[0])).numpy()
    names = boundary_density(action, z)
    assert list(names) == ["U_p", "1/U_p", "U_p^2", "1/U_p^2"]
    for name, n in zip(names, (1, -1, 2, -2)):

        def o(w: np.ndarray, n: int = n) -> complex:
            return complex(np.exp(1j * n * circulation(torch.from_numpy(w)).numpy()).mean())

        total = 0.0
        for index in np.ndindex(2, 2, 3):
            step = np.zeros_like(z[0])
            step[0][index] = h
            one, none, other = (o(z[0] + s) for s in (step, 0 * step, -step))
            total += (one - 2 * none + other) / h**2 + drift[0][index] * (one - other) / (2 * h)
        assert names[name][0, 0] == pytest.approx(total, abs=1e-5)
        assert chain_averages(action, z)[f"Re {name}"][0] == pytest.approx(o(z[0]).real)


def test_the_histogram_is_a_density() -> None:
    drift = np.abs(np.random.default_rng(3).normal(size=(64, 1000)))
    out = drift_histogram(drift)
    edges, density, error = (np.array(out[key]) for key in ("edges", "density", "error"))
    centre = np.sqrt(edges[1:] * edges[:-1])
    expected = np.sqrt(2 / np.pi) * np.exp(-(centre**2) / 2)
    use = density > 20 / (drift.size * np.diff(edges))
    assert (np.abs(density - expected)[use] < 5 * error[use] + 0.02 * expected[use]).all()
    assert np.sum(density * np.diff(edges)) == pytest.approx(0.999, abs=2e-3)


def test_a_drift_that_vanishes_has_no_tail_and_one_that_rises_from_zero_a_long_one() -> None:
    drift = np.zeros((400, 500))
    assert min(drift_tail(drift)["exponent"]) > 1e6
    drift[0, :5] = 1.0
    assert drift_tail(drift)["exponent"][0] == 0.0

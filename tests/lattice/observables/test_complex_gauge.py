"""Complexified links: loops and the smooth charge by hand, and beside exact values in the table of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from lattice.actions.complexified import Complexified
from lattice.actions.u1 import U1, circulation
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.u1_theta import averages
from lattice.observables.complex_gauge import NAMES, SERIES, gauge_exact, gauge_series
from lattice.observables.measure import format_table, measure
from lattice.simulation.complex_langevin import generate_complex
from lattice.simulation.parameters import ComplexLangevin

ACTION = U1(5 + 0.2j)


def links(shape: tuple[int, ...], n: int = 3) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.asarray(rng.normal(size=(n, 2, *shape)) + 0.3j * rng.normal(size=(n, 2, *shape)))


def test_the_series_by_hand() -> None:
    action, z = U1(1.5, 0.7), links((3, 4))
    names, series, of_means = gauge_series(action, z)
    found = dict(zip(names, series.T))
    p = circulation(torch.from_numpy(z)).numpy()
    square = p + np.roll(p, -1, 1) + np.roll(p, -1, 2) + np.roll(p, (-1, -1), (1, 2))
    assert np.allclose(found["plaquette"], np.cos(p).mean((1, 2)))
    assert np.allclose(found["sine"], np.sin(p).mean((1, 2)))
    assert np.allclose(found["wilson_2x2"], np.cos(square).mean((1, 2)))
    assert np.allclose(found["smooth_charge"], np.sin(p).sum((1, 2)) / (2 * math.pi))
    assert names == NAMES == (*SERIES, "susceptibility")
    q = found["smooth_charge"]
    assert of_means(series.mean(0))[-1] == pytest.approx(((q**2).mean() - q.mean() ** 2) / 12)


def test_schwinger_dyson_is_the_langevin_operator_on_a_plaquette() -> None:
    """sum over links of (d^2 + K d) e^{i theta_p}, by differences of the first derivative."""
    action, z, h = U1(1.5 + 0.4j, 0.7), torch.from_numpy(links((2, 3), 1)), 1e-4
    drift, total = -action.grad(z), 0.0
    for index in np.ndindex(2, 2, 3):
        step = torch.zeros_like(z)
        step[0][index] = h
        one, none, other = ((1j * circulation(z + s)).exp().mean() for s in (step, 0 * step, -step))
        total += (one - 2 * none + other) / h**2 + drift[0][index] * (one - other) / (2 * h)
    found = gauge_series(action, z.numpy())[1][0, SERIES.index("Schwinger-Dyson")]
    assert found == pytest.approx(complex(total), abs=1e-6)


def test_exact_values_are_those_of_the_closed_form() -> None:
    known, wanted = gauge_exact(U1(2.0, 1.0), (4, 4)), averages(2.0, 1.0, 16)
    assert known["plaquette"] == pytest.approx(wanted.cosine)
    assert known["susceptibility"] == pytest.approx(wanted.susceptibility)
    assert known["plaquette"].imag == known["smooth_charge"].real == 0.0  # no rounding
    assert set(gauge_exact(U1(2.0), (4, 4))) == set(NAMES)


def test_a_run_beside_its_exact_values(tmp_path: Path) -> None:
    """A complex beta that is nearly real, and a torus too small for another charge."""
    parameters = ComplexLangevin(n_configs=6400, n_chains=64, n_therm=20, step=0.003, step_sizes=())
    ensemble = generate_complex(ACTION, (2, 3), parameters, 4, tmp_path)
    table = measure(ensemble)
    rows = table["observables"]
    assert list(rows) == [f"{part} {name}" for name in NAMES for part in ("Re", "Im")]
    pulls = {k: (x["value"] - x["exact"]) / x["error"] for k, x in rows.items()}
    assert max(map(abs, pulls.values())) < 4
    assert table["ensemble"]["shape"] == [2, 3]
    assert "0.912609" in format_table(table)
    # negative control: the same links called those of another coupling
    wrong = Complexified(U1(5 - 0.2j))
    other = Ensemble.from_fields(ensemble.phi, wrong, ensemble.chain, ensemble.trajectory)
    found = measure(other)["observables"]["Im plaquette"]
    assert abs(found["value"] - found["exact"]) > 20 * found["error"]


def test_an_action_of_ones_own_has_no_exact_values() -> None:
    @dataclass(frozen=True)
    class Other(U1):
        def action(self, phi: torch.Tensor) -> torch.Tensor:
            return 2 * super().action(phi)

        def grad(self, phi: torch.Tensor) -> torch.Tensor:
            return 2 * super().grad(phi)

    phi = np.random.default_rng(1).normal(size=(40, 2, 2, 2, 2))
    rows = measure(Ensemble.from_fields(phi, Complexified(Other(1.0))))["observables"]
    assert [name for name, row in rows.items() if "exact" in row] == [
        "Re Schwinger-Dyson", "Im Schwinger-Dyson"
    ]  # fmt: skip


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError):
        gauge_series(ACTION, np.zeros((3, 4), complex))
    with pytest.raises(InputError, match=r"\(n, 2, 2, \*shape\)"):
        Complexified(ACTION).z(torch.zeros(3, 2, 4, 4))

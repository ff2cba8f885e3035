"""The table of complex moments and cumulants: values, errors, exact numbers beside them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lattice.actions.complexified import Complexified
from lattice.actions.one_variable import ComplexGaussian, ComplexQuartic
from lattice.actions.phi4 import ComplexPhi4
from lattice.actions.u1 import OneLink
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.one_variable import toy_cumulants, toy_moments
from lattice.observables.holomorphic import complex_table, even_cumulant, format_complex_table
from lattice.simulation.complex_langevin import generate_complex
from lattice.simulation.parameters import ComplexLangevin

BUDGET = ComplexLangevin(n_configs=40_000, n_chains=400, n_therm=12, step=0.02, step_sizes=())


@pytest.fixture(scope="module")
def quartic(tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    return generate_complex(ComplexQuartic(1 + 1j, 1.0), (), BUDGET, 8, tmp_path_factory.mktemp("q"))


def test_the_quartic(quartic: Ensemble) -> None:
    table = complex_table(quartic)
    rows = table["observables"]
    assert list(rows) == [f"z^{n}" for n in range(1, 9)] + ["kappa2", "kappa4", "kappa6", "kappa8",
                                                           "Schwinger-Dyson"]  # fmt: skip
    exact = toy_cumulants(quartic.action, 8)
    for n in (2, 4, 6, 8):
        assert rows[f"kappa{n}"]["im"]["exact"] == pytest.approx(exact[n - 1].imag)
        assert rows[f"z^{n}"]["re"]["exact"] == pytest.approx(toy_moments(quartic.action, [n])[0].real)
    pulls = [row[part]["pull"] for row in rows.values() for part in ("re", "im")]
    assert max(abs(pull) for pull in pulls) < 4
    assert max(row[part]["tau_int"] for row in rows.values() for part in ("re", "im")) < 3
    assert rows["Schwinger-Dyson"]["re"]["value"] == pytest.approx(1, abs=0.05)
    assert json.loads(json.dumps(table)) == table
    text = format_complex_table(table)
    assert "0.428142" in text
    assert "odd moments at their exact value 0" in text


def test_the_errors_are_those_of_independent_chains(quartic: Ensemble) -> None:
    """The Gamma method against the scatter of the chain means, of a moment and of a cumulant."""
    z = (quartic.phi[:, 0] + 1j * quartic.phi[:, 1]).reshape(100, 400)  # times, chains
    rows = complex_table(quartic)["observables"]
    means = (z**2).mean(axis=0).real
    assert rows["z^2"]["re"]["error"] == pytest.approx(means.std(ddof=1) / 20, rel=0.15)
    m = np.stack([(z**n).mean(axis=0) for n in (2, 4, 6, 8)])
    left_out = [even_cumulant((m.sum(axis=1) - m[:, c]) / 399).imag for c in range(400)]
    error = math.sqrt(399 / 400 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2))
    assert rows["kappa8"]["im"]["error"] == pytest.approx(error, rel=0.2)


def test_a_wrong_action_is_far_off(quartic: Ensemble) -> None:
    """Negative control: the same fields called those of another coupling."""
    other = Ensemble.from_fields(
        quartic.phi, Complexified(ComplexQuartic(1 + 1.2j, 1.0)), quartic.chain, quartic.trajectory
    )
    rows = complex_table(other)["observables"]
    assert abs(rows["z^2"]["im"]["pull"]) > 10
    assert abs(rows["Schwinger-Dyson"]["im"]["pull"]) > 10


def test_the_even_cumulants_of_exact_moments() -> None:
    for action in (ComplexQuartic(1 + 1j, 1.0), ComplexGaussian(1 + 0.5j)):
        moments, kappa = toy_moments(action, [2, 4, 6, 8]), toy_cumulants(action, 8)
        for n in (2, 4, 6, 8):
            assert abs(even_cumulant(moments[: n // 2]) - kappa[n - 1]) < 1e-9


@pytest.mark.parametrize(
    ("action", "shape", "names"),
    [
        (OneLink(5 + 0.1j), (), ["e^{iz}", "e^{2iz}", "e^{3iz}", "e^{4iz}", "Schwinger-Dyson"]),
        (ComplexPhi4(0.1, 0.3, 1 + 0.5j), (2, 2), ["phi2", "phi4", "G0", "Schwinger-Dyson"]),
        (ComplexPhi4(0.1, 0.3, 1 + 0.5j), (2, 3), ["phi2", "phi4", "G0", "Schwinger-Dyson"]),
    ],
)
def test_other_models(action: Any, shape: tuple[int, ...], names: list[str], tmp_path: Path) -> None:
    parameters = BUDGET.model_copy(update={"n_configs": 12_000})
    table = complex_table(generate_complex(action, shape, parameters, 4, tmp_path))
    assert list(table["observables"]) == names
    for name, row in table["observables"].items():
        for part in ("re", "im"):
            if shape == (2, 3) and name != "Schwinger-Dyson":
                assert row[part]["exact"] is None
                assert row[part]["pull"] is None
            else:
                assert abs(row[part]["pull"]) < 4
    assert format_complex_table(table)


def test_few_configurations_and_real_couplings() -> None:
    """Chains too short for the Gamma method are jackknife blocks; an imaginary part that vanishes has no
    error and says so."""
    rng = np.random.default_rng(1)
    phi = np.stack([rng.normal(size=200), np.zeros(200)], axis=1)
    ensemble = Ensemble.from_fields(phi, Complexified(ComplexGaussian(1.0)), chain=np.arange(200) % 40)
    rows = complex_table(ensemble)["observables"]
    assert abs(rows["z^2"]["re"]["pull"]) < 4
    assert rows["z^2"]["im"]["error"] is None
    assert rows["z^2"]["im"]["reason"]
    assert "Im z^2" in format_complex_table(complex_table(ensemble))


def test_a_real_ensemble_is_refused() -> None:
    with pytest.raises(InputError, match="complex fields"):
        complex_table(Ensemble.from_fields(np.ones((20, 2)), ComplexGaussian(1.0)))  # type: ignore[arg-type]

"""Thermometers and special states of a torus, of Ising and of Potts spins alike."""

from __future__ import annotations

import numpy as np
import pytest

from diffsq.analysis.spin_scale import Scale
from diffsq.analysis.thermometers import exact_values
from lattice.exact.ising import CRITICAL, magnetisation_law, magnetisation_moments, potts_torus, torus

ISING = Scale(2, (4, 4), (0.0, 2.0, 3.0), 1)
POTTS = Scale(3, (3, 3), (0.0, 0.5, 1.0, 1.5, 2.5), 1)


def test_ising_is_exact() -> None:
    critical = ISING.critical()
    assert ISING.t_critical == CRITICAL
    assert critical["e"] == pytest.approx(torus((4, 4), CRITICAL).e, abs=1e-12)
    law = magnetisation_moments(magnetisation_law((4, 4), CRITICAL))
    assert critical["abs_m"] == pytest.approx(law["abs_m"], abs=1e-9)
    assert ISING.read("e", torus((4, 4), 2.7).e, 0.0).t == pytest.approx(2.7, abs=1e-9)
    two = ISING.mixture([0.0, 2.0])
    assert two["e"] == pytest.approx((-2 + torus((4, 4), 2.0).e) / 2, abs=1e-12)


def test_potts_has_an_exact_energy_and_a_measured_order() -> None:
    """e of T_c and of mixtures to rounding; the thermometers read the grid back."""
    critical = POTTS.critical()
    assert critical["e"] == pytest.approx(potts_torus((3, 3), 3, POTTS.t_critical).e, abs=1e-12)
    assert 0 < critical["abs_m"] < 1
    two = POTTS.mixture([0.5, 1.5])
    assert two["e"] == pytest.approx(np.mean([potts_torus((3, 3), 3, t).e for t in (0.5, 1.5)]), abs=1e-12)
    assert 0.5 < two["t_e"] < 1.5
    assert POTTS.read("e", potts_torus((3, 3), 3, 1.0).e, 0.0).t == pytest.approx(1.0, abs=1e-9)
    assert POTTS.read("abs_m", POTTS.potts.at(1.5)["abs_m"], 0.0).t == pytest.approx(1.5, abs=1e-6)


def test_a_mixture_has_the_errors_of_its_parts() -> None:
    """Of two measured temperatures, independent; e has none, and of Ising nothing has."""
    low, high, two = POTTS.potts.at(0.5), POTTS.potts.at(1.5), POTTS.mixture([0.5, 1.5])
    for name in ("abs_m", "c1"):
        known = np.hypot(low[f"{name}_error"], high[f"{name}_error"]) / 2
        assert two[f"{name}_error"] == pytest.approx(known, rel=1e-12)
    assert two["abs_m_error"] > two["e_error"] == 0
    assert not any(name.endswith("_error") for name in ISING.mixture([0.0, 2.0]))


def test_ordered_spins_of_an_energy() -> None:
    """c1 of Ising spins of one temperature; none of Potts, of frozen and of the hottest."""
    law = exact_values(1.7, (4, 4))
    assert ISING.ordered(law["e"]) == pytest.approx(law["c1"], abs=1e-9)
    assert ISING.ordered(-2.0) is None
    assert ISING.ordered(0.1) is None
    assert POTTS.ordered(-1.5) is None

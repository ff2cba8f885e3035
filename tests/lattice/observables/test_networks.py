"""Exact values beside what is measured of networks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lattice.actions.networks import CosNet, ErfNet, LocalNet, Network
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble
from lattice.observables.measure import format_table, measure
from lattice.observables.networks import network_values
from lattice.simulation.network_fields import draw_fields

SHAPE = (8, 8)
LAWS: list[Network] = [CosNet(4, 0.2, "signs"), LocalNet(1.0, 0.2, "signs"), ErfNet(2)]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.kind)
def test_what_is_measured_is_what_is_exact(law: Network) -> None:
    phi = draw_fields(law, SHAPE, np.arange(2**15), 5)
    ensemble = Ensemble.from_fields(phi, law, chain=np.arange(len(phi)) % 64)
    entries = measure(ensemble)["observables"]
    exact = {name: entry for name, entry in entries.items() if "exact" in entry}
    assert {"phi2", "phi4", "kappa4_ratio", "kappa6", "xi_2nd", "kappa2_m"} <= set(exact)
    assert ("binder" in exact) is (law.kind != "erf_net")
    for name in ("phi2", "phi4", "kappa4", "kappa4_ratio", "kappa2_m", "xi_2nd", "susceptibility_full"):
        assert abs(exact[name]["value"] - exact[name]["exact"]) < 4.5 * exact[name]["error"], name


def test_there_is_no_action_density() -> None:
    law = CosNet(4, 0.2, "signs")
    phi = draw_fields(law, SHAPE, np.arange(2048), 5)
    ensemble = Ensemble.from_fields(phi, law, chain=np.arange(2048) % 64)
    assert (ensemble.series["action"] == 0).all()
    found = measure(ensemble)
    assert "action_density" not in found["observables"]
    assert "exact" in format_table(found)
    assert network_values(ScalarPhi4(0.2, 0.1), SHAPE) == {}


def test_numbers_by_closed_forms() -> None:
    """M of the net at N = 4: kappa_4(M)/kappa_2(M)^2 = (3/2p0 - 3)/4, p0 = 1/(V G0 K(0)); xi_2nd = 1 here."""
    found = network_values(CosNet(4, 0.2, "signs"), SHAPE)
    ratio = (1.5 / 0.061473637 - 3) / 4
    assert found["kappa4_m_ratio"] == pytest.approx(ratio, rel=1e-8)
    assert found["binder"] == pytest.approx(-ratio / 3, rel=1e-8)
    assert found["xi_2nd"] == pytest.approx(math.sqrt(0.4 / (2 - 8 * 0.2)), rel=1e-12)
    assert found["susceptibility_full"] == pytest.approx(1 / (2 - 8 * 0.2), rel=1e-12)

"""phi^4 by networks: one neuron by quadrature, the limit against the transfer matrix, fits that must fail."""

from __future__ import annotations

import numpy as np
import pytest

from diffsq.analysis.network_phi4 import QUANTITIES, deformed, fourth_cumulant, limit, seed_of
from lattice.actions.networks import CosNet, LocalNet
from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError
from lattice.exact.chain_phi4 import ring

SHAPE, LAM = (8,), 0.1
LAWS = ("normal", "rayleigh", "signs")


def test_without_deformation_it_is_the_free_field() -> None:
    found = deformed(CosNet(4, 0.2), SHAPE, 3, 256, 100)
    g0 = ring(ScalarPhi4(0.2, 0.0), 8).phi2
    assert abs(found["phi2"][0] - g0) < 4.5 * found["phi2"][1]
    assert found["acceptance"] == 1.0


def test_one_neuron_of_sign_weights_by_quadrature() -> None:
    """f = (2G0)^(1/2) cos(kx + b): <phi^2> under P(k) exp(-lam sum f^4) is one sum and one integral."""
    law = CosNet(1, 0.2, "signs", LAM)
    k = 2 * np.pi * np.arange(8) / 8
    g = 1 / (2 * (1 - 2 * LAM) - 4 * 0.2 * np.cos(k))
    b = 2 * np.pi * (np.arange(256) + 0.5) / 256
    f = np.sqrt(2 * g.mean()) * np.cos(k[:, None, None] * np.arange(8) + b[None, :, None])
    weight = g[:, None] * np.exp(-LAM * (f**4).sum(-1))
    exact = (weight * (f**2).mean(-1)).sum() / weight.sum()
    found = deformed(law, SHAPE, 5, 512, 300)
    assert abs(found["phi2"][0] - exact) < 4.5 * found["phi2"][1]
    assert found["phi2"][1] < 0.01 * exact


def test_three_laws_have_one_limit_the_transfer_matrix_knows() -> None:
    table = [
        {"law": output, "width": n, **deformed(CosNet(n, 0.2, output, LAM), SHAPE, 7, 256, 120)}
        for output in LAWS
        for n in (4, 8, 16, 32)
    ]
    known = ring(ScalarPhi4(0.2, LAM), 8)
    limits, exact = {name: limit(table, True, name) for name in QUANTITIES}, known.phi2
    expected = {"phi4": known.phi4, "next": known.correlations[1]}
    for name, number in expected.items():
        assert abs(limits[name]["value"][0] - number) < 4.5 * limits[name]["value"][1], name
        assert limits[name]["value"][1] < 0.02 * number, name
    kappa4 = fourth_cumulant(table, limits)
    assert abs(kappa4[0] - (known.phi4 - 3 * exact**2)) < 4.5 * kappa4[1]
    assert kappa4[0] < -10 * kappa4[1]
    found = limits["phi2"]
    value, error = found["value"]
    assert abs(value - exact) < 4.5 * error
    assert error < 0.003
    assert found["p"] > 1e-4
    free = ring(ScalarPhi4(0.2, 0.0), 8).phi2
    assert free - value > 10 * error
    normal = [x for x in table if x["law"] == "normal"]
    assert exact - normal[0]["phi2"][0] > 10 * normal[0]["phi2"][1]  # no network of four is phi^4


def test_the_error_of_the_fourth_cumulant_counts_the_covariance() -> None:
    """Rows whose phi^4 moves with phi^2 as 6 a: kappa_4 = a4 - 3 a^2 does not move."""
    a = 0.5
    rows = [
        {"law": "x", "width": n, "phi2": [a, 0.01], "phi4": [1.0, 6 * a * 0.01], "covariance": 6 * a * 1e-4}
        for n in (1, 2, 4, 8)
    ]
    limits = {name: limit(rows, False, name) for name in ("phi2", "phi4")}
    assert fourth_cumulant(rows, limits) == pytest.approx([0.25, 0.0], abs=1e-7)
    apart = [{**x, "covariance": 0.0} for x in rows]
    assert fourth_cumulant(apart, limits)[1] == pytest.approx(2**0.5 * limits["phi4"]["value"][1])


def test_each_law_and_width_has_numbers_of_its_own() -> None:
    nets = [CosNet(n, 0.2, output, LAM) for output in LAWS for n in (4, 8, 16)]
    assert len({7, *(seed_of(net, 7) for net in nets)}) == 10
    assert 0 <= seed_of(nets[0], 2**64 - 1) < 2**64


def test_fits_that_do_not_hold() -> None:
    rows = [{"law": "x", "width": n, "phi2": [1 + 2 / n + 5 / n**2, 0.01]} for n in (1, 2, 4, 8)]
    assert limit(rows, False)["p"] < 1e-6
    assert limit(rows, True)["value"][0] == pytest.approx(1.0)
    with pytest.raises(InputError, match="2 numbers do not fix a limit and 2 slopes"):
        limit(rows[:2], True)


def test_refusals() -> None:
    with pytest.raises(InputError, match="flat mode, or one that grows"):
        deformed(CosNet(4, 0.5, "normal", 0.1), SHAPE, 1, 64, 20)  # K(0) < 0: the broken phase
    with pytest.raises(InputError, match="n_chains must be >= 8"):
        deformed(CosNet(4, 0.2), SHAPE, 1, 4, 20)
    with pytest.raises(InputError, match="of fixed number"):
        deformed(LocalNet(0.5, 0.2), SHAPE, 1, 64, 20)  # type: ignore[arg-type]

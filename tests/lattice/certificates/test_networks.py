"""The certificate of random networks: passed by the law it claims, failed by any other; what it cannot see is
said, not passed over."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from lattice.actions.networks import CosNet, ErfNet, GaussNet, LocalNet, Network, ReluNet
from lattice.actions.phi4 import ScalarPhi4
from lattice.arrays import Floats
from lattice.certificates.networks import (
    certify_network,
    copies_check,
    displacements,
    even_cumulants,
    exact_pairs,
    independence,
    network_of,
    pair_cumulants,
)
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.network_fields import four_point, networks_needed
from lattice.rng import normals
from lattice.simulation.network_fields import draw_fields

SHAPE, GROUPS, N = (8, 8), 64, 16384
LAWS: list[Network] = [
    CosNet(4, 0.2, "signs"), CosNet(4, 0.2, "rayleigh"), CosNet(4, 0.2, "correlated"), LocalNet(0.25, 0.2),
    LocalNet(0.25, 0.2, "signs", poisson=False), ErfNet(2), ReluNet(10), GaussNet(10, sigma_b=0.5),
]  # fmt: skip


def drawn(law: Network, n: int = N, seed: int = 2) -> Floats:
    return draw_fields(law, SHAPE, np.arange(n), seed)


def certificate(phi: Floats, law: Network) -> dict[str, Any]:
    return certify_network(Ensemble.from_fields(phi, law, chain=np.arange(len(phi)) % GROUPS))


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in found["checks"]}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: f"{law.kind}-{law.output}")
def test_a_net_is_certified_as_itself(law: Network) -> None:
    found = certificate(drawn(law), law)
    assert found["passed"], found["reason"]
    assert found["n_independent"] == N
    for entry in (x for x in found["tau_int"].values() if isinstance(x, dict)):
        assert abs(entry["value"] - 0.5) < 4.5 * entry["error"]
    assert found["schwinger_dyson"] is None


@pytest.mark.parametrize(
    ("claimed", "true", "shown_by"),
    [
        (CosNet(4, 0.2, "signs"), CosNet(4, 0.2), {"kappa4 site", "kappa4(0,0,r,r) r = 4"}),
        (CosNet(4, 0.2, "rayleigh"), CosNet(100, 0.2, "rayleigh"), {"kappa4(0,0,r,r) r = 4"}),
        (CosNet(4, 0.2), CosNet(4, 0.2, "correlated"), {"kappa4 site"}),
        (CosNet(8, 0.2), CosNet(8, 0.2, lam=0.01), {"G(k)", "kappa2 site"}),
        (LocalNet(0.25, 0.2), LocalNet(0.25, 0.2, poisson=False), {"kappa4(0,0,r,r) r = 4"}),
        (ErfNet(2), ErfNet(3), {"kappa4 site"}),
        (ReluNet(10), ReluNet(10, sigma_b=0.3), {"kappa2 of M", "G(k)"}),
    ],
    ids=["signs-normal", "rayleigh-free", "normal-correlated", "mass", "poisson-fixed", "width", "bias"],
)  # fmt: skip
def test_another_law_fails_by_what_tells_them_apart(
    claimed: Network, true: Network, shown_by: set[str]
) -> None:
    found = certificate(drawn(true, 4 * N if isinstance(claimed, LocalNet) else N), claimed)
    assert not found["passed"]
    assert shown_by <= {name for name, check in by_name(found).items() if not check["passed"]}


def test_one_site_does_not_tell_a_rayleigh_net_from_a_free_field() -> None:
    """Every one-site number of the free field passes; two sites fail at more than ten sigma."""
    law = CosNet(4, 0.2, "rayleigh")
    checks = by_name(certificate(drawn(law), CosNet(10**6, 0.2, "rayleigh")))
    one_site = [check for name, check in checks.items() if name.endswith(" site")]
    assert len(one_site) == 5
    assert all(check["passed"] for check in one_site)
    far = checks["kappa4(0,0,r,r) r = 4"]
    assert not far["passed"]
    assert far["value"] > 10 * far["error"]


def test_orders_that_need_more_networks_are_listed_not_tested() -> None:
    law = GaussNet(10)
    checks = by_name(certificate(drawn(law), law))
    needed = networks_needed(law, 3, shape=SHAPE)
    assert needed > 1e20
    assert checks["kappa6 site"]["detail"] == f"needs {needed:.2g} networks at one site: not tested"
    short = float(checks["kappa6 site"]["expected"]) - checks["kappa6 site"]["value"]
    assert short > 4.5 * checks["kappa6 site"]["error"]  # which would have been an alarm, and a false one
    assert "not tested" not in checks["kappa2 site"]["detail"]


@pytest.mark.parametrize("law", [CosNet(4, 0.2, "signs"), LocalNet(0.25, 0.2), ErfNet(2)])
def test_fields_times_the_sign_of_m_fail_by_odd_cumulants(law: Network) -> None:
    """All even numbers of them are right."""
    phi = drawn(law, 4096)
    turned = phi * np.where(phi.mean((1, 2)) < 0, -1, 1)[:, None, None]
    checks = by_name(certificate(turned, law))
    assert {name for name, check in checks.items() if not check["passed"]} >= {"<M>"}
    assert checks["<M>"]["value"] > 10 * checks["<M>"]["error"]
    assert {name for name, check in checks.items() if not check["passed"]} <= {"<M>", "kappa3 site"}


def test_skewed_numbers_of_mean_zero_fail_by_kappa_3() -> None:
    """x^2 - 1 of normal x: kappa_3 = 8."""
    law, n = CosNet(4, 0.2), 4096
    phi = normals(3, "test/skewed", np.arange(n), 0, 64).reshape(n, *SHAPE) ** 2 - 1
    checks = by_name(certificate(phi, law))
    assert checks["<M>"]["passed"]
    assert not checks["kappa3 site"]["passed"]
    assert abs(checks["kappa3 site"]["value"] - 8) < 4.5 * checks["kappa3 site"]["error"]


def test_a_copy_anywhere_is_seen_and_fields_of_no_neurons_are_none() -> None:
    law = CosNet(4, 0.2, "signs")
    phi = drawn(law, 4096)
    assert by_name(certificate(phi, law))["fields seen before"]["value"] == 0
    phi[3000] = phi[17]
    found = certificate(phi, law)
    assert found["reason"] == "failed: fields seen before"
    few = LocalNet(0.05, 0.2)
    empty = drawn(few, 4096)
    assert (~empty.any((1, 2))).sum() > 10
    assert copies_check(few, empty)["passed"]
    places = LocalNet(1 / 64, 0.2, "signs", poisson=False)
    again = copies_check(places, drawn(places, 1024))
    assert again["passed"]
    assert again["value"] > 500
    assert "not tested" in again["detail"]


def test_copies_and_correlated_rows_are_not_independent() -> None:
    phi = drawn(CosNet(4, 0.2, "signs"), 4096)
    phi[1::2] = phi[::2]
    failed = certificate(phi, CosNet(4, 0.2, "signs"))["reason"]
    assert "rho(1) of M^2" in failed
    assert "fields seen before" in failed
    x = normals(1, "test/series", np.arange(1), 0, 10001)[0]
    assert independence("m2", x)["passed"]
    assert not independence("m2", x[1:] + 0.2 * x[:-1])["passed"]


def test_cumulants_of_normal_numbers_and_their_errors() -> None:
    """kappa_2 = 1, of error (2/n)^(1/2); kappa_4 = 0, of error (24/n)^(1/2)."""
    x = normals(1, "test/normal", np.arange(GROUPS), 0, 1000)
    value, error = even_cumulants([np.stack([y**2, y**4], 1) for y in x])
    n = x.size
    np.testing.assert_allclose(error, [math.sqrt(2 / n), math.sqrt(24 / n)], rtol=0.4)
    assert (np.abs(value - [1, 0]) < 4.5 * error).all()


def test_pairs_by_hand_and_exactly() -> None:
    phi, r = drawn(ErfNet(3), 64), (3, 0)
    value, _ = pair_cumulants(phi, [np.arange(32), np.arange(32, 64)], [r])
    moved = np.roll(phi, -3, axis=1)
    by_hand = (phi**2 * moved**2).mean() - (phi**2).mean() ** 2 - 2 * (phi * moved).mean() ** 2
    assert value[0] == pytest.approx(by_hand, abs=1e-12)
    for law in (ErfNet(3), LocalNet(0.25, 0.2)):
        exact = four_point(law, (4, 4))
        assert exact_pairs(law, (4, 4), [(1, 0), (2, 0)]) == pytest.approx([exact[1, 0], exact[2, 0]])
    assert displacements((8, 8)) == [(1, 0), (4, 0)]
    assert displacements((2,)) == [(1,)]


def test_refusals() -> None:
    with pytest.raises(InputError, match="a network is needed, .*not ScalarPhi4"):
        network_of(ScalarPhi4(0.2, 0.1))
    few = Ensemble.from_fields(drawn(CosNet(4, 0.2), 64), CosNet(4, 0.2), chain=np.arange(64) % 4)
    with pytest.raises(InputError, match="8 or more, got 4"):
        certify_network(few)
    with pytest.raises(InputError, match="known for erf_net and gauss_net"):
        exact_pairs(ReluNet(4), SHAPE, [(1, 0)])

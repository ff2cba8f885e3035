"""Tables of networks: what may be claimed of samples, and what must be refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from diffsq.analysis.network_tables import (
    at_width,
    claim,
    clustering,
    freedom,
    named,
    one_site,
    pairs,
    seed_of,
    siblings,
    width_table,
    zero_mode,
)
from lattice.actions.networks import CosNet, ErfNet, GaussNet, LocalNet, Network, ReluNet
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.network_fields import four_point
from lattice.rng import normals
from lattice.simulation.network_fields import draw_fields

SHAPE = (8, 8)


def drawn(law: Network, n: int = 2**15) -> Ensemble:
    return Ensemble.from_fields(draw_fields(law, SHAPE, np.arange(n), 4), law, chain=np.arange(n) % 64)


def higher(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [x for x in rows if x["order"] > 2]


def test_one_site_never_certifies_a_rayleigh_net_as_free() -> None:
    """Its one-site cumulants are those of a free field; two sites show kappa_4 at more than ten sigma."""
    ensemble = drawn(CosNet(4, 0.2, "rayleigh"))
    site, two = one_site(CosNet(4, 0.2, "rayleigh"), ensemble), pairs(CosNet(4, 0.2, "rayleigh"), ensemble)
    assert all(abs(x["value"]) < 4.5 * x["error"] for x in higher(site))
    assert freedom(higher(site), None) == "undecided"
    assert freedom(higher(site), two[1:]) == "not free"
    assert two[-1]["value"] > 10 * two[-1]["error"]


@pytest.mark.parametrize(("law", "n"), [(CosNet(1000, 0.2, "rayleigh"), 1024), (ErfNet(100), 4096)])
def test_what_could_not_have_been_seen_is_undecided(law: Network, n: int) -> None:
    """Each is a net of finite width and shows nothing in so few networks."""
    ensemble = drawn(law, n)
    site, two = one_site(law, ensemble), pairs(law, ensemble)
    assert all(abs(x["value"]) < 4.5 * x["error"] for x in [*higher(site), *two[1:]] if x["seen"])
    assert freedom(higher(site), two[1:]) == "undecided"
    assert clustering(two)["verdict"] == "undecided"


def test_a_gaussian_field_is_free_where_four_neurons_would_show() -> None:
    """Independent normal numbers held against four plane waves at kappa = 0, of the same propagator."""
    law, n = CosNet(4, 0.0, "signs"), 2**15
    phi = np.sqrt(0.5) * normals(4, "test/free", np.arange(n), 0, 64).reshape(n, *SHAPE)
    free = Ensemble.from_fields(phi, law, chain=np.arange(n) % 64)
    site, two = higher(one_site(law, free))[:1], pairs(law, free)
    assert freedom(site, two[1:]) == "free"
    assert clustering(two)["verdict"] == "obeyed"
    assert clustering(two)["size"] == pytest.approx(0.0625)
    few = [{**x, "error": 100 * x["error"], "value": 0.0} for x in two]
    assert freedom(site, few[1:]) == "undecided"
    assert clustering(few)["verdict"] == "undecided"
    assert freedom(site, [{**x, "seen": False, "value": 1e9} for x in two]) == "undecided"


def test_plane_waves_do_not_cluster_and_neurons_with_places_do() -> None:
    waves, places = clustering(pairs(CosNet(4, 0.2), drawn(CosNet(4, 0.2)))), LocalNet(0.25, 0.2)
    assert waves["verdict"] == "violated"
    assert waves["sigmas"] > 10
    own = pairs(places, drawn(places))
    assert clustering(own)["verdict"] == "obeyed"
    assert own[0]["value"] > 10 * own[0]["error"]
    fixed = LocalNet(0.25, 0.2, "signs", poisson=False)
    assert clustering(pairs(fixed, drawn(fixed)))["verdict"] == "violated"


@pytest.mark.parametrize("law", [CosNet(4, 0.2, "signs"), LocalNet(0.25, 0.2), ErfNet(2), ReluNet(5)])
def test_tables_are_exact_within_errors(law: Network) -> None:
    ensemble = drawn(law)
    rows = [*(x for x in one_site(law, ensemble) if x["needed"] <= 2**15), *zero_mode(law, ensemble)]
    known = [x for x in [*rows, *pairs(law, ensemble)] if x["exact"] is not None]
    assert len(known) >= 2
    assert max(abs(x["pull"]) for x in known) < 4.5


def test_independent_neurons_have_their_laws_in_one_over_n() -> None:
    table = width_table(CosNet(2, 0.2, "signs"), [1, 2, 4], 2**15, 7, shape=SHAPE)
    found = {n: claim(table, n) for n in (4, 6)}
    assert [found[n]["verdict"] for n in (4, 6)] == ["holds", "holds"]
    for n, slope in ((4, -1), (6, -2)):
        assert abs(found[n]["slope"][0] - slope) < 4.5 * found[n]["slope"][1]
        assert found[n]["slope"][1] < 0.05
    for x in table:
        if x["seen"]:
            assert abs(x["pull"]) < 4.5


def table_of(values: list[float], error: float, exact: float = 1.0) -> list[dict[str, Any]]:
    about: dict[str, Any] = {"order": 4, "seen": True, "needed": 1.0, "vanishes": False}
    return [
        {**about, "width": n, "value": v, "error": error * abs(v), "exact": exact / n}
        for n, v in zip((1, 2, 4), values, strict=True)
    ]


def test_a_claim_excludes_the_neighbouring_powers_and_has_the_signs() -> None:
    assert claim(table_of([1, 0.5, 0.25], 0.01), 4)["verdict"] == "holds"
    assert claim(table_of([1, 0.5, 0.25], 0.5), 4)["verdict"] == "undecided"  # N^0 and N^-2 are not excluded
    assert claim(table_of([-1, -0.5, -0.25], 0.01), 4)["verdict"] == "undecided"
    assert claim(table_of([1, 0.25, 0.0625], 0.01), 4)["verdict"] == "refuted"


def test_cumulants_that_vanish_are_held_against_zero() -> None:
    table = width_table(CosNet(2, 0.2, "rayleigh"), [1, 2, 4], 2**13, 7, shape=SHAPE)
    assert [claim(table, n)["verdict"] for n in (4, 6)] == ["vanishes"] * 2
    own = [x for x in table if x["order"] == 4]
    assert all(x["seen"] and abs(x["pull"]) < 4.5 for x in own)
    assert max(x["error"] for x in own) < 0.05


def test_each_law_width_and_point_has_numbers_of_its_own() -> None:
    laws = [CosNet(2, 0.2), CosNet(4, 0.2), CosNet(2, 0.2, "signs"), ErfNet(2)]
    seeds = {7, *(seed_of(law, point, 7) for law in laws for point in (None, 0.2, 1.0))}
    assert len(seeds) == 13
    assert 0 <= seed_of(laws[0], None, 2**64 - 1) < 2**64


def test_correlated_neurons_claimed_one_over_n_are_refuted() -> None:
    law = named("erf_net-correlated", ErfNet(1))
    assert not law.independent
    table = width_table(law, [3, 10, 30, 100], 2**15, 7, shape=SHAPE, point=1.0)
    found = claim(table, 4)
    assert found["verdict"] == "refuted"
    assert found["slope"][0] + 1 > 10 * found["slope"][1]


def test_gauss_nets_claims_are_refused_with_what_they_need() -> None:
    """Of a million samples nobody reads 1/N^2."""
    table = width_table(GaussNet(10), [5, 10, 20], 2**14, 7, shape=SHAPE, point=1.0)
    found = claim(table, 6)
    assert found["verdict"] == "refused"
    assert found["slope"] is None
    assert found["needed"] > 1e30
    assert [x["seen"] for x in table if x["order"] == 6] == [False] * 3


def test_widths_names_and_siblings() -> None:
    assert at_width(LocalNet(0.25, 0.2), 4) == LocalNet(1.0, 0.2)
    assert at_width(CosNet(4, 0.2, "signs", 0.1), 9) == CosNet(9, 0.2, "signs", 0.1)
    with pytest.raises(InputError, match="action.width must be a whole number of neurons >= 1, got 0"):
        at_width(ErfNet(2), 0)
    assert named("relu_net", ErfNet(3, sigma_b=0.5)) == ReluNet(3, sigma_b=0.5)
    assert named("gauss_net", ErfNet(3, sigma_hidden=2.0)).sigma_hidden == 1.0
    for words, match in (("cos_net", "no net of inputs"), ("erf_net-x", "action.output must be one of")):
        with pytest.raises(InputError, match=match):
            named(words, ErfNet(3))
    found = siblings(LocalNet(0.25, 0.2), SHAPE)
    assert found["places, Poisson"] == pytest.approx(four_point(LocalNet(0.25, 0.2), SHAPE)[:5, 0].tolist())
    assert siblings(ErfNet(2), SHAPE) == {}

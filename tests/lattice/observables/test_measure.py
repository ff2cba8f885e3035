"""The table of observables: names, refusals, JSON, columns."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
from exact_ensembles import NAMES, Fields, free_ensemble, one_chain_each, white_ensemble
from series import ar1

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.actions.protocol import Action
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.observables.measure import format_table, measure, two_point


def test_without_the_symmetry_no_symmetric_ratio():
    class Tilted(ScalarPhi4):
        even = False

        def action(self, phi):
            return super().action(phi) + 0.1 * phi.sum(dim=(1, 2))

    ensemble = free_ensemble(3, n=400)
    ensemble.action = Tilted(0.2, 0.0)
    assert set(measure(ensemble)["observables"]) == {name for name in NAMES if not name.endswith("_z2")}


def test_replicas_of_unequal_length_and_no_two_point():
    whole = free_ensemble(4, n=400)
    keep = np.r_[0:90, 100:400]
    cut = Fields(whole.phi[keep], whole.chain[keep], whole.trajectory[keep], whole.action)
    result = measure(cut, two_point=False)
    assert result["two_point"] is None
    assert result["observables"]["phi2"]["value"] == pytest.approx((cut.phi**2).mean())
    assert result["observables"]["phi2"]["error"] == pytest.approx(
        measure(whole)["observables"]["phi2"]["error"], rel=0.15
    )
    assert result["modes"] == {"k1": [1, 0], "k2": [1, 1]}


def test_names_shape_and_json():
    ensemble = free_ensemble(0, n=400)
    ensemble.attrs = {"stride": 2}
    result = measure(ensemble)
    assert set(result["observables"]) == NAMES
    for row in result["observables"].values():
        assert {"value", "error", "tau_int", "tau_int_error"} <= set(row)
    assert result["tau_unit"] == "saved configurations (1 = 2 trajectories)"
    assert result["ensemble"] == {
        "identity": "0" * 64,
        "action": ensemble.action.as_dict(),
        "shape": [6, 6],
        "n": 400,
        "n_replicas": 4,
        "weighted": False,
        "ess": None,
        "ess_error": None,
    }
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_weighted_ensembles_state_their_ess_and_no_tau():
    ensemble = white_ensemble(1)
    result = measure(ensemble)
    w = np.exp(ensemble.log_weight)
    assert result["ensemble"]["ess"] == pytest.approx(w.sum() ** 2 / (len(w) * (w**2).sum()))
    assert 0 < result["ensemble"]["ess_error"] < 0.05
    row = result["observables"]["phi2"]
    assert row["tau_int"] is None
    assert row["value"] == pytest.approx((w * (ensemble.phi**2).mean(axis=(1, 2))).sum() / w.sum())
    assert "weighted" in result["tau_unit"]
    json.dumps(result, allow_nan=False)
    drawn = measure(ensemble, ignore_weights=True)
    assert drawn["ensemble"]["ess"] is None
    assert drawn["observables"]["phi2"]["value"] == pytest.approx((ensemble.phi**2).mean())


def test_estimates_do_not_depend_on_how_chains_are_interleaved():
    ensemble = free_ensemble(2, n=400)
    order = np.argsort(ensemble.trajectory, kind="stable")
    mixed = Fields(ensemble.phi[order], ensemble.chain[order], ensemble.trajectory[order], ensemble.action)
    a, b = measure(ensemble)["observables"], measure(mixed)["observables"]
    for name in NAMES:
        for key in ("value", "error"):
            assert b[name][key] == pytest.approx(a[name][key], rel=1e-7, abs=1e-10), name


def test_xi_is_null_with_a_reason_where_it_is_undefined():
    phi = np.random.default_rng(3).normal(size=(200, 4, 4))
    phi -= 0.9 * phi.mean(axis=(1, 2), keepdims=True)
    row = measure(one_chain_each(phi, 1, ScalarPhi4(0.1, 0.0)))["observables"]["xi_2nd"]
    assert row["value"] is None
    assert row["error"] is None
    assert "G(0)" in row["reason"]
    site = measure(one_chain_each(phi[:, :1, :1], 1, ScalarPhi4(0.1, 0.0)))
    assert "no momentum besides" in site["observables"]["xi_2nd"]["reason"]
    assert site["observables"]["phi2"]["error"] > 0


def test_refused_observables_are_listed_and_the_rest_is_measured():
    rng = np.random.default_rng(4)
    phi = rng.normal(size=(500, 4, 4))
    phi += 1.0 - phi.mean(axis=(1, 2), keepdims=True)  # M = 1 on every configuration
    table = measure(one_chain_each(phi, 1, ScalarPhi4(0.1, 0.0)))["observables"]
    assert table["magnetization"]["value"] == pytest.approx(1.0)
    assert table["magnetization"]["error"] is None
    assert "constant" in table["magnetization"]["reason"]
    assert table["binder"]["value"] == pytest.approx(2 / 3)
    assert table["binder"]["error"] is None
    assert table["phi2"]["error"] > 0


def test_short_ensembles_keep_their_values():
    result = measure(free_ensemble(5, n=8, n_chains=1))
    assert all(
        row["error"] is None and "too short" in row["reason"]
        for row in result["observables"].values()
        if row["value"] is not None
    )
    assert result["observables"]["phi2"]["value"] > 0
    json.dumps(result, allow_nan=False)


def test_one_configuration_per_chain_is_an_independent_sample():
    ensemble = free_ensemble(6, n=500, n_chains=500)
    result = measure(ensemble)
    assert result["ensemble"]["n_replicas"] == 1
    assert result["observables"]["phi2"]["tau_int"] == pytest.approx(0.5, abs=0.2)


def autocorrelated(seed, n_chains=4, length=1024):
    """Chains of fields whose every site is an AR(1) series, the complete ensemble."""
    x = ar1(np.random.default_rng([33, seed]), length, 0.8, (n_chains, 2, 2))
    return one_chain_each(np.moveaxis(x, 1, 0).reshape(-1, 2, 2), n_chains, FreeScalar(0.1))


def rows_of(whole, keep):
    return Fields(whole.phi[keep], whole.chain[keep], whole.trajectory[keep], whole.action)


@pytest.mark.parametrize("method", ["gamma", "jackknife"])
@pytest.mark.parametrize(
    ("missing", "note"),
    [
        ([100, 101, 2000, 4000], "pairs at equal distance: 3 of 4 chains, first chain 0"),  # 4 of 4096
        (np.arange(3077, 4096), "chain 3 has only 5 configurations"),
        (np.arange(1025, 2048, 2), "pairs at equal distance: 1 of 4 chains, first chain 1"),  # another stride
        (np.arange(1, 4096, 4), "4 of 4 chains"),
    ],
)
def test_chains_with_gaps_of_several_strides_and_short_ones_have_errors(missing, note, method):
    whole = autocorrelated(1)
    part = rows_of(whole, np.delete(np.arange(4096), missing))
    complete, found = measure(whole, method=method), measure(part, method=method)
    assert note in found["method"]
    assert note not in complete["method"]
    assert [("common spacing" in m["tau_unit"]) for m in (complete, found)] == [False, True]
    for name in ("phi2", "abs_magnetization", "binder", "susceptibility"):
        row, of_all = found["observables"][name], complete["observables"][name]
        # what is missing makes the error larger, by less than the root of the numbers: neighbours know it
        fewer = math.sqrt(4096 / len(part.phi))
        assert 0.85 < row["error"] / of_all["error"] < 1.15 * fewer
        assert abs(row["value"] - of_all["value"]) < 4 * of_all["error"] * math.sqrt(fewer**2 - 0.99)
        assert row["tau_int"] == pytest.approx(of_all["tau_int"], abs=4 * of_all["tau_int_error"])
    assert all(e is not None and e > 0 for e in found["two_point"]["G_error"])
    assert note in format_table(found)


def test_times_without_a_common_spacing_have_values_and_a_reason():
    whole = autocorrelated(2)
    whole.trajectory = whole.trajectory * 1000 + np.arange(4096) % 7 // 6
    row = measure(whole)["observables"]["phi2"]
    assert row["value"] == pytest.approx((whole.phi**2).mean())
    assert row["error"] is None
    assert "spacings have only 1 in common" in row["reason"]


def test_bad_ensembles_are_refused():
    good = free_ensemble(7, n=40)
    with_nan = free_ensemble(7, n=40)
    with_nan.phi[5, 0, 0] = math.nan
    with pytest.raises(InputError, match="first in configuration 5"):
        measure(with_nan)
    twice = free_ensemble(7, n=40)
    twice.trajectory[13] = twice.trajectory[16]
    with pytest.raises(InputError, match=r"trajectory 6 of chain 1 is stored twice, rows 13 and 16 \(1 such"):
        measure(twice)
    twice.trajectory[:] = 0
    with pytest.raises(InputError, match=r"trajectory 0 of chain 0 is stored twice, rows 0 and 1 \(36 such"):
        measure(twice)
    bad_weight = white_ensemble(7, n=40)
    bad_weight.log_weight[3] = math.nan
    with pytest.raises(InputError, match="1 of 40 log-weights"):
        measure(bad_weight)
    with pytest.raises(InputError, match="no configurations"):
        measure(Fields(good.phi[:0], good.chain[:0], good.trajectory[:0], good.action))


def test_real_ensemble_class():
    from lattice.ensembles.ensemble import Ensemble

    source = free_ensemble(9, n=400)
    ensemble = Ensemble.from_fields(source.phi, source.action, chain=source.chain)
    a, b = measure(ensemble)["observables"], measure(source)["observables"]
    assert a == b


def test_one_measurement():
    text = format_table(measure(free_ensemble(10, n=400)))
    lines = text.splitlines()
    assert lines[0].split() == ["observable", "value", "tau_int"]
    row = next(line for line in lines if line.startswith("phi2 "))
    assert row.count("(") == 2
    assert lines[0].index("value") == row.index(row.split()[1])
    assert "tau_int = 1/2 + sum" in text
    assert "in saved configurations" in text


def test_the_cumulants_are_printed_on_request():
    result = measure(free_ensemble(10, n=400), two_point=False)
    short, everything = format_table(result), format_table(result, everything=True)
    rows = {line.split()[0] for line in short.splitlines()}
    assert {"kappa2", "kappa8_m_ratio", "kappa4_k1_ratio", "kappa6_k1_ratio"} <= rows
    assert not rows & {"kappa1", "kappa3_ratio", "kappa4_k1", "kappa4_ratio_z2", "kappa4_k2_ratio"}
    assert len(short.splitlines()) < 40
    assert {line.split()[0] for line in everything.splitlines()} >= NAMES


def test_columns_beside_each_other():
    weighted = measure(white_ensemble(10, n=400))
    raw = measure(white_ensemble(10, n=400), ignore_weights=True)
    lines = format_table({"raw": raw, "weighted": weighted}).splitlines()
    assert lines[0].split() == ["observable", "raw", "weighted"]
    assert any(line.startswith("weighted: n = 400") and "ESS/N" in line for line in lines)


@dataclass(frozen=True)
class Planar(Action):
    """Two real components without interaction."""

    mass: float
    components = (2,)

    def action(self, phi):
        return self.mass * (phi**2).flatten(1).sum(1)

    def grad(self, phi):
        return 2 * self.mass * phi


def test_several_components_are_refused():
    ensemble = Ensemble.from_fields(np.random.default_rng(1).normal(size=(50, 2, 4, 4)), Planar(1.0))
    for use in (measure, two_point):
        with pytest.raises(InputError, match="one component, real or complex; those of Planar have 2"):
            use(ensemble)


def test_many_chains_too_short_for_the_gamma_method_have_errors_over_chains():
    whole = white_ensemble(3, n=600)
    pairs = Fields(whole.phi, np.arange(600) // 2, np.arange(600) % 2, whole.action)
    whole = Fields(whole.phi, np.arange(600), np.zeros(600, dtype=int), whole.action)
    found, known = (measure(x, two_point=False)["observables"]["phi2"] for x in (pairs, whole))
    assert found["error"] == pytest.approx(known["error"], rel=0.3)
    assert found["value"] == known["value"]
    few = Fields(whole.phi[:6], np.arange(6) // 2, np.arange(6) % 2, whole.action)
    assert measure(few, two_point=False)["observables"]["phi2"]["error"] is None

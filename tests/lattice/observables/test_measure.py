"""The table of observables: exact answers for ensembles that can be drawn independently, refusals, JSON."""

import json
import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.observables.measure import format_table, measure, two_point
from lattice.observables.names import in_short_table

NAMES = {
    "abs_magnetization",
    "magnetization",
    "susceptibility",
    "susceptibility_full",
    "binder",
    "action_density",
    "phi2",
    "phi4",
    "xi_2nd",
}
LAWS = ("", "_m", "_k1", "_k2")
NAMES |= {f"kappa{n}{law}" for n in range(1, 9) for law in LAWS}
NAMES |= {f"kappa{n}{law}_ratio" for n in range(3, 9) for law in LAWS}
NAMES |= {f"kappa{n}{law}_ratio_z2" for n in (4, 6, 8) for law in LAWS}


@dataclass
class Fields:
    """The part of an Ensemble that measure reads."""

    phi: np.ndarray
    chain: np.ndarray
    trajectory: np.ndarray
    action: ScalarPhi4
    log_weight: np.ndarray | None = None
    attrs: dict = field(default_factory=dict)
    identity: str = "0" * 64

    def replicas(self):
        return [np.flatnonzero(self.chain == c) for c in np.unique(self.chain)]


def one_chain_each(phi, n_chains, action, **more):
    n = len(phi) // n_chains
    return Fields(phi, np.repeat(np.arange(n_chains), n), np.tile(np.arange(n), n_chains), action, **more)


def propagator(shape, kappa):
    k = np.meshgrid(*(2 * np.pi * np.arange(e) / e for e in shape), indexing="ij")
    return 1 / (2 * (1 - 2 * kappa * sum(np.cos(x) for x in k)))


def free_ensemble(seed, n=2000, shape=(6, 6), kappa=0.22, n_chains=4):
    """Independent exact samples of the free theory."""
    g = propagator(shape, kappa)
    noise = np.fft.fft2(np.random.default_rng([31, seed]).normal(size=(n, *shape)))
    return one_chain_each(np.fft.ifft2(noise * np.sqrt(g)).real, n_chains, FreeScalar(kappa))


def white_ensemble(seed, n=2000, shape=(4, 4), kappa=0.05):
    """Independent sites drawn at kappa = 0, weighted to the free theory at kappa: log w = S_0 - S."""
    phi = np.random.default_rng([32, seed]).normal(size=(n, *shape)) * math.sqrt(0.5)
    log_weight = 2 * kappa * sum(np.sum(phi * np.roll(phi, 1, axis), axis=(1, 2)) for axis in (1, 2))
    return one_chain_each(phi, 1, FreeScalar(kappa), log_weight=log_weight)


def exact_free(shape, kappa):
    g, volume = propagator(shape, kappa), math.prod(shape)
    m2, p2 = g[0, 0] / volume, g.mean()
    return {
        "abs_magnetization": math.sqrt(2 * m2 / math.pi),
        "magnetization": 0.0,
        "susceptibility": volume * m2 * (1 - 2 / math.pi),
        "susceptibility_full": g[0, 0],
        "binder": 0.0,
        "action_density": 0.5,
        "phi2": p2,
        "phi4": 3 * p2**2,
        "kappa2": p2,
        "kappa4": 0.0,
        "kappa2_m": m2,
        "kappa4_m": 0.0,
        "kappa4_ratio": 0.0,
        "kappa4_m_ratio": 0.0,
        "kappa1": 0.0,
        "kappa3": 0.0,
        "kappa3_m": 0.0,
        "kappa1_k1": 0.0,
        "kappa2_k1": g[1, 0] / 2,
        "kappa2_k2": g[1, 1] / 2,
        "kappa3_k1": 0.0,
        "kappa4_k1": 0.0,
        "kappa4_k1_ratio": 0.0,
        "kappa4_k2_ratio_z2": 0.0,
        "kappa4_ratio_z2": 0.0,
        "kappa4_m_ratio_z2": 0.0,
        "xi_2nd": math.sqrt(g[0, 0] / g[1, 0] - 1) / (2 * math.sin(math.pi / shape[0])),
    }


def pulls_of(make, exact, n_seeds, **options):
    tables = [measure(make(seed), **options)["observables"] for seed in range(n_seeds)]
    return {
        name: np.array([(t[name]["value"] - x) / t[name]["error"] for t in tables])
        for name, x in exact.items()
    }


@pytest.mark.parametrize("make", [free_ensemble, white_ensemble])
def test_every_observable_covers_its_exact_value(make):
    shape, kappa = ((6, 6), 0.22) if make is free_ensemble else ((4, 4), 0.05)
    exact = exact_free(shape, kappa)
    if make is white_ensemble:
        del exact["xi_2nd"]  # xi = 0.25 there: G(0)/G(k1) is too near 1 for Gaussian errors
    for name, pulls in pulls_of(make, exact, 60).items():
        assert abs(pulls.mean()) < 4.5 / math.sqrt(60) + 0.1, name
        assert abs(pulls.std() - 1) < 4.5 / math.sqrt(120), name
        assert np.max(np.abs(pulls)) < 5, name


def disagreements(a, b):
    """The observables of the short table whose errors in two measurements differ by more than half."""
    pairs = {name: [m["observables"][name]["error"] for m in (a, b)] for name in a["observables"]}
    return [name for name, (x, y) in pairs.items() if in_short_table(name) and not 2 / 3 < x / y < 1.5]


def test_the_jackknife_covers_and_agrees_with_the_gamma_method():
    exact = {name: x for name, x in exact_free((6, 6), 0.22).items() if "4" not in name and "3" not in name}
    for name, pulls in pulls_of(free_ensemble, exact, 25, method="jackknife", two_point=False).items():
        assert abs(pulls.mean()) < 4.5 / math.sqrt(25) + 0.1, name
        assert abs(pulls.std() - 1) < 4.5 / math.sqrt(50), name
    ensemble = free_ensemble(1, n=1000)
    gamma, jack = measure(ensemble), measure(ensemble, method="jackknife")
    assert disagreements(gamma, jack) == []
    assert "jackknife" in jack["method"]
    for name, row in jack["observables"].items():
        assert row["value"] == gamma["observables"][name]["value"]
        assert row["tau_int"] == gamma["observables"][name]["tau_int"]
    # negative control: correlated configurations called independent draws
    repeated = one_chain_each(np.repeat(ensemble.phi, 8, axis=0), 4, ensemble.action)
    shuffled = repeated.phi[np.random.default_rng(2).permutation(8000)]
    naive = measure(one_chain_each(shuffled, 8000, ensemble.action), method="jackknife", two_point=False)
    assert "phi2" in disagreements(measure(repeated, two_point=False), naive)
    with pytest.raises(InputError, match="method must be"):
        measure(ensemble, method="bootstrap")


def test_broken_phase_ratios():
    """Two peaks with unequal populations: the symmetric estimator is far nearer to the truth."""
    rng = np.random.default_rng(33)
    phi = rng.choice([-3.0, 3.0], p=[0.4, 0.6], size=(4000, 1, 1)) + 0.5 * rng.normal(size=(4000, 4, 4))
    table = measure(one_chain_each(phi, 4, ScalarPhi4(0.4, 0.022)), two_point=False)["observables"]
    truth = -2 * 3**4 / (9 + 0.25) ** 2
    z2 = table["kappa4_ratio_z2"]
    assert abs(z2["value"] - truth) < 4 * z2["error"]
    assert abs(table["kappa4_ratio"]["value"] - truth) > 20 * z2["error"]


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


def test_ignoring_the_weights_measures_the_proposal():
    """Negative control: without weights the answers are those of kappa = 0, many errors off."""
    raw = pulls_of(white_ensemble, exact_free((4, 4), 0.0) | {"xi_2nd": 0.0}, 1, ignore_weights=True)
    assert abs(raw["susceptibility_full"][0]) < 4
    wrong = pulls_of(white_ensemble, exact_free((4, 4), 0.05), 1, ignore_weights=True)
    assert abs(wrong["susceptibility_full"][0]) > 4


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


def test_bad_ensembles_are_refused():
    good = free_ensemble(7, n=40)
    with_nan = free_ensemble(7, n=40)
    with_nan.phi[5, 0, 0] = math.nan
    with pytest.raises(InputError, match="first in configuration 5"):
        measure(with_nan)
    gap = free_ensemble(7, n=40)
    gap.trajectory[25:30] += 3
    with pytest.raises(InputError, match="chain 2: trajectory 4 is followed by 8 where the spacing is 1"):
        measure(gap)
    twice = free_ensemble(7, n=40)
    twice.trajectory[:] = 0
    with pytest.raises(InputError, match="evenly spaced"):
        measure(twice)
    bad_weight = white_ensemble(7, n=40)
    bad_weight.log_weight[3] = math.nan
    with pytest.raises(InputError, match="1 of 40 log-weights"):
        measure(bad_weight)
    with pytest.raises(InputError, match="no configurations"):
        measure(Fields(good.phi[:0], good.chain[:0], good.trajectory[:0], good.action))


def test_two_point_errors_against_the_free_theory():
    shape, kappa = (6, 6), 0.22
    g = propagator(shape, kappa)
    result = two_point(free_ensemble(8, n=8000))
    index = tuple(result["momenta"].astype(int).T)
    assert np.max(np.abs(result["G"] - g[index]) / result["G_error"]) < 4.5
    assert result["multiplicity"].sum() == 36
    exact_c = np.fft.ifft(g[:, 0]).real[:4]
    assert np.max(np.abs(result["C"] - exact_c) / result["C_error"]) < 4.5
    weighted = two_point(white_ensemble(8, n=8000))
    g = propagator((4, 4), 0.05)
    index = tuple(weighted["momenta"].astype(int).T)
    assert np.max(np.abs(weighted["G"] - g[index]) / weighted["G_error"]) < 4.5
    assert len(two_point(free_ensemble(8, n=400), n_momenta=3)["G"]) == 3


def test_real_ensemble_class():
    from lattice.ensembles.ensemble import Ensemble

    source = free_ensemble(9, n=400)
    ensemble = Ensemble.from_fields(source.phi, source.action, chain=source.chain)
    a, b = measure(ensemble)["observables"], measure(source)["observables"]
    assert a == b


class TestTable:
    def test_one_measurement(self):
        text = format_table(measure(free_ensemble(10, n=400)))
        lines = text.splitlines()
        assert lines[0].split() == ["observable", "value", "tau_int"]
        row = next(line for line in lines if line.startswith("phi2 "))
        assert row.count("(") == 2
        assert lines[0].index("value") == row.index(row.split()[1])
        assert "tau_int = 1/2 + sum" in text
        assert "in saved configurations" in text

    def test_the_cumulants_are_printed_on_request(self):
        result = measure(free_ensemble(10, n=400), two_point=False)
        short, everything = format_table(result), format_table(result, everything=True)
        rows = {line.split()[0] for line in short.splitlines()}
        assert {"kappa2", "kappa8_m_ratio", "kappa4_k1_ratio", "kappa6_k1_ratio"} <= rows
        assert not rows & {"kappa1", "kappa3_ratio", "kappa4_k1", "kappa4_ratio_z2", "kappa4_k2_ratio"}
        assert len(short.splitlines()) < 40
        assert {line.split()[0] for line in everything.splitlines()} >= NAMES

    def test_columns_beside_each_other(self):
        weighted = measure(white_ensemble(10, n=400))
        raw = measure(white_ensemble(10, n=400), ignore_weights=True)
        lines = format_table({"raw": raw, "weighted": weighted}).splitlines()
        assert lines[0].split() == ["observable", "raw", "weighted"]
        assert any(line.startswith("weighted: n = 400") and "ESS/N" in line for line in lines)

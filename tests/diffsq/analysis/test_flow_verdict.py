"""Verdicts on end points with the numbers of measured flows: what is critical, and what must not be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from diffsq.analysis.flow_verdict import Ends, apart, verdict
from diffsq.analysis.rbm_flow import NAMES, EndPoint
from diffsq.analysis.thermometers import exact_values
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.rng import normals, uniforms

# e, |m|, m^2, c1 of 10 x 10, exact: at T_c, at T = 1.5, of the training grids 0(.25)6 and 4(.25)6
CRITICAL = {"e": -1.4762429084, "abs_m": 0.75627437, "m2": 0.61256768, "c1": 0.1470}
COLD = {"e": -1.9511165199, "abs_m": 0.98649953, "m2": 0.97358760, "c1": 0.0025}
WIDE = {"e": -1.119016, "abs_m": 0.506769, "m2": 0.419379, "c1": 0.161668}
HOT = {"e": -0.438537, "abs_m": 0.138671, "m2": 0.030266, "c1": 0.216835}
SITES = 100


def ends(e: float, abs_m: float, m2: float, c1: float, n: int = 6, spread: float | Floats = 0.004,
         seed: int = 1, apart: float = 0.0, noise: float = 0.002) -> tuple[Ends, Ends]:  # fmt: skip
    """Cold and hot end points of n machines, `spread` from machine to machine and `noise` from the chains."""
    z = normals(seed, "test/verdict", np.arange(3), 0, 4 * n).reshape(3, n, 4)
    own = np.array([e, abs_m, m2, c1]) + spread * z[0]
    gap = np.array([apart, 0, 0, 0])
    errors = np.full((n, 4), noise)
    return Ends(own + noise * z[1] - gap / 2, errors), Ends(own + noise * z[2] + gap / 2, errors)


def judged(
    pair: tuple[Ends, Ends], mixture: dict[str, float] | None = None, **options: Any
) -> dict[str, Any]:
    return verdict(*pair, SITES, CRITICAL, mixture or WIDE, **options)


def test_critical_by_all_three() -> None:
    for seed in range(8):
        found = judged(ends(**CRITICAL, seed=seed))
        assert found["verdict"] == "critical"
        assert max(found["pulls"]["critical"].values()) < 4
        assert any("not mixture: e by" in reason for reason in found["reasons"])
        assert found["values"]["e"][0] == pytest.approx(CRITICAL["e"], abs=0.02)


@pytest.mark.parametrize("name", ["e", "abs_m", "c1"])
def test_two_of_three_are_not_critical(name: str) -> None:
    wrong = {**CRITICAL, name: CRITICAL[name] + 0.12}
    found = judged(ends(**wrong))
    assert found["verdict"] == "none of these"
    assert f"not critical: {name} by" in " ".join(found["reasons"])


def test_mixtures() -> None:
    assert judged(ends(**WIDE))["verdict"] == "mixture"
    assert judged(ends(**HOT), HOT)["verdict"] == "mixture"
    assert judged(ends(**HOT))["verdict"] == "none of these"


def equal_pairs(e: float, abs_m: float, c1: float) -> tuple[float, float, float, float]:
    """With the m^2 that mean-field states of this energy have."""
    return e, abs_m, (1 + (SITES - 1) * -e / 2) / SITES, c1


# measured flows of machines by contrastive divergence: e, |m|, c1
FIELDS = {
    "N_h=4": (-0.871, 0.660, 0.0), "N_h=16": (-1.330, 0.815, 0.0), "N_h=64": (-1.734, 0.930, 0.001),
    "published time": (-0.965, 0.691, 0.01), "T<=3": (-1.883, 0.970, 0.001),
    "shuffled": (-1.723, 0.928, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_mean_field_ends(name: str) -> None:
    found = judged(ends(*equal_pairs(*FIELDS[name]), spread=0.001))
    assert found["verdict"] == "mean-field"
    assert max(abs(x) for x in found["pulls"]["mean-field"].values()) < 1


def test_what_must_not_be_critical() -> None:
    """Random weights (independent spins, and published m = 0.594), hot data, shuffled data, long cd."""
    for values in (
        (0.0, 0.0796, 0.01, 0.0), (-0.7, 0.59389, 0.36, 0.0), (-0.416, 0.139, 0.030, 0.206),
        equal_pairs(-1.723, 0.928, 0.0), equal_pairs(-1.801, 0.948, 0.001), (-0.76, 0.607, 0.39, 0.01),
    ):  # fmt: skip
        for spread in (0.001, 0.01):
            assert judged(ends(*values, spread=spread))["verdict"] != "critical"


def test_ordered_ising_is_no_mean_field() -> None:
    """Unlike neighbours are few at T = 1.5, and correlated all the same."""
    found = judged(ends(**COLD, spread=0.0002))
    assert found["verdict"] == "none of these"
    assert "not mean-field" in " ".join(found["reasons"])


@pytest.mark.parametrize("t", [0.8, 1.0])
def test_ordered_spins_of_one_temperature_are_not_told_from_a_mean_field(t: float) -> None:
    """Of so few unlike spins nearly all are alone, as in a mean field; that c1 would be seen is known from
    spins of one temperature."""
    exact = exact_values(t, (10, 10))
    pair = ends(**{name: exact[name] for name in NAMES}, spread=1e-6, noise=1e-6)
    assert judged(pair)["verdict"] == "mean-field", "by itself"
    found = judged(pair, ordered=exact["c1"])
    assert found["verdict"] == "undecided"
    assert "so ordered that spins of one temperature look alike" in " ".join(found["reasons"])


def test_mean_fields_are_told_from_spins_of_one_temperature() -> None:
    """c1 of these with the same energy is far from 0."""
    pair = ends(*equal_pairs(*FIELDS["N_h=16"]), spread=0.001)
    assert judged(pair, ordered=0.21)["verdict"] == "mean-field"


def test_free_spins_are_no_ordered_ones() -> None:
    """c1 of so hot spins is small as well."""
    free = judged(ends(-0.01, 0.0796, 0.01, 0.005, spread=0.001), ordered=0.005)
    assert free["verdict"] == "independent spins"


POTTS_CRITICAL = {"e": -1.577, "abs_m": 0.70, "c1": 0.13}
POTTS_MIXTURE = {"e": -1.3, "abs_m": 0.4, "c1": 0.12}


def equal_potts(shares: tuple[float, ...], n_seeds: int = 5, n: int = 400) -> tuple[Ends, Ends]:
    """Ends of machines of three states on 10 x 10, spins drawn one by one with these shares, the states in
    any order: all pairs are alike."""
    made = []
    for start in range(2):
        points = []
        for seed in range(n_seeds):
            u = uniforms(seed, f"test/potts/{start}", np.arange(n), 0, SITES)
            s = np.searchsorted(np.cumsum(shares)[:-1], u).reshape(n, 10, 10)
            near = [(s == np.roll(s, 1, axis)).mean((1, 2)) for axis in (1, 2)]
            far = np.mean([(s == np.roll(s, 5, axis)).mean((1, 2)) for axis in (1, 2)], axis=0)
            share = np.array([(s == a).mean((1, 2)) for a in range(3)])
            rows = np.stack([
                -np.sum(near, axis=0), (3 * share.max(0) - 1) / 2, (3 * (share**2).sum(0) - 1) / 2,
                3 / 2 * (np.mean(near, axis=0) - far),
            ])  # fmt: skip
            points.append(EndPoint(rows.mean(1), rows.std(1, ddof=1) / math.sqrt(n)))
        made.append(Ends.of(points))
    return made[0], made[1]


@pytest.mark.parametrize(
    ("shares", "word"),
    [
        ((1 / 3, 1 / 3, 1 / 3), "independent spins"), ((0.6, 0.35, 0.05), "mean-field"),
        ((0.8, 0.1, 0.1), "mean-field"), ((0.5, 0.5, 0.0), "mean-field"),
    ],
)  # fmt: skip
def test_potts_spins_whose_pairs_are_all_alike(shares: tuple[float, ...], word: str) -> None:
    """Shares of the lesser states may differ: m^2 is that of all three, and <|m|>^2 another. As +-1 spins of
    the same e and m^2 they would be nothing."""
    pair = equal_potts(shares)
    found = verdict(*pair, SITES, POTTS_CRITICAL, POTTS_MIXTURE, q=3)
    assert found["verdict"] == word
    assert max(abs(x) for x in found["pulls"]["mean-field"].values()) < 0.5
    assert verdict(*pair, SITES, POTTS_CRITICAL, POTTS_MIXTURE)["verdict"] == "none of these"
    wrong = [Ends(np.c_[x.values[:, :2], x.values[:, 1] ** 2, x.values[:, 3]], x.errors) for x in pair]
    same = verdict(*wrong, SITES, POTTS_CRITICAL, POTTS_MIXTURE, q=3)["verdict"] == word
    assert same is (len(set(shares)) < 3 and shares[2] > 0)


def test_one_thermometer_alone_is_refused() -> None:
    """|m| at its critical value, the others not measured; and two without c1."""
    for missing in ((0, 2, 3), (1, 2), (3,)):
        pair = ends(**CRITICAL)
        for one in pair:
            one.values[:, list(missing)] = math.nan
        found = judged(pair, readings={"t_m": [2.26, 2.27, 2.28, 2.27, 2.26, 2.27]}, t_critical=2.2692)
        assert found["verdict"] == "not converged"
        assert "one thermometer without the others" in " ".join(found["reasons"])


def test_cold_and_hot_apart_is_refused() -> None:
    """Persistent chains: -1.264 from cold, -1.047 from hot; and 0.02 with ten times its error."""
    for gap in (0.217, 0.02):
        found = judged(ends(**{**CRITICAL, "e": -1.476}, apart=gap))
        assert found["verdict"] == "not converged"
        assert "sigma apart in e: run longer" in " ".join(found["reasons"])
        assert found["pulls"]["cold-hot e"] > 4
    cold, hot = ends(**CRITICAL)
    unknown = judged((Ends(cold.values, np.full((6, 4), np.inf)), hot))
    assert unknown["verdict"] == "not converged"


def test_few_seeds_are_refused_and_wide_ones_tell_nothing() -> None:
    assert "4 seeds" in judged(ends(**CRITICAL, n=4))["reasons"][0]
    assert judged(ends(**CRITICAL, n=4))["verdict"] == "too few seeds"
    both = judged(ends(**{**CRITICAL, "e": -1.476}, apart=0.217, n=4))
    assert both["verdict"] == "not converged"  # more of them would not help
    assert "4 seeds" in both["reasons"][0]
    assert "run longer" in both["reasons"][1]
    wide = judged(ends(**CRITICAL, spread=0.3, n=5))
    assert wide["verdict"] == "undecided"
    assert "scatter too much, or differ too little, to tell critical from mixture" in " ".join(
        wide["reasons"]
    )


def test_an_answer_that_fits_is_shown_by_an_interval_too() -> None:
    """The values of T_c, the only ones that fit, from machines so unlike that e might be 0.1 off."""
    near, wide = (
        judged(ends(**CRITICAL, spread=np.array([s, 0.004, 0.004, 0.004]), n=5)) for s in (0.004, 0.15)
    )
    assert max(wide["pulls"]["critical"].values()) < 4
    assert near["verdict"] == "critical"
    assert wide["verdict"] == "undecided"
    assert "to tell that it is critical: take more" in wide["reasons"][-1]


@pytest.mark.parametrize("t", [2.15, 2.4, 2.5])
def test_another_temperature_is_never_taken_for_critical(t: float) -> None:
    """Five machines of 10 x 10 spins with the scatter of trained ones: of 100 sets at most two."""
    spread = np.array([0.03, 0.02, 0.02, 0.015])
    exact = exact_values(t, (10, 10))
    values = {name: exact[name] for name in NAMES}
    found = [judged(ends(**values, n=5, spread=spread, seed=s))["verdict"] for s in range(100)]
    assert found.count("critical") + found.count("mixture") <= 2
    assert "mean-field" not in found
    assert found.count("none of these") > 20, "and it is seen that it is no answer"


def test_errors_of_known_values_count() -> None:
    """|m| at T_c of Potts spins is measured: machines 0.02 off are 2 sigma off with an error of 0.01; with
    0.02 nothing is shown."""
    pair = ends(**{**CRITICAL, "abs_m": CRITICAL["abs_m"] + 0.02}, spread=0.001, noise=0.001)
    for error, word in ((0.0, "none of these"), (0.01, "critical"), (0.02, "undecided")):
        found = verdict(*pair, SITES, {**CRITICAL, "abs_m_error": error}, WIDE)
        assert found["verdict"] == word
    assert found["pulls"]["critical"]["abs_m"] < 2


def test_starts_apart_are_named() -> None:
    cold, hot = ends(**CRITICAL)
    assert list(apart(cold, hot)) == list(NAMES)
    assert max(apart(cold, hot).values()) < 4
    moved = Ends(hot.values + np.array([0, 0, 0, 0.05]), hot.errors)
    assert [name for name, x in apart(cold, moved).items() if x > 4] == ["c1"]
    lost = Ends(cold.values * np.array([1, 1, 1, math.nan]), cold.errors)
    assert list(apart(lost, hot)) == ["e", "abs_m", "m2"]
    assert apart(cold, Ends(hot.values, np.full((6, 4), np.inf)))["e"] == math.inf


def test_readings_are_said_and_do_not_decide() -> None:
    pair = ends(*equal_pairs(-1.330, 0.815, 0.0), spread=0.001)
    at = [2.27, 2.26, 2.28, 2.25, 2.27, 2.28]
    found = judged(pair, readings={"network": at, "t_e": [2.38] * 5 + [2.39]}, t_critical=2.2692)
    assert found["verdict"] == "mean-field"
    assert found["readings"]["network"]["sigma"] < 4
    assert found["readings"]["t_e"]["sigma"] > 4
    lost = judged(pair, readings={"t_m": [2.27, math.inf]})
    assert "t_m reads no temperature in some seed" in lost["reasons"]


def test_gates_hold_at_their_level() -> None:
    """Of 300 sets of critical machines none is refused; of as many 1.5 % off in |m| with errors of 0.1 %
    nearly all are."""
    right = [judged(ends(**CRITICAL, seed=s, n=8))["verdict"] for s in range(300)]
    assert right.count("critical") >= 298
    off = {**CRITICAL, "abs_m": CRITICAL["abs_m"] * 1.015}
    wrong = [judged(ends(**off, seed=s, n=12, spread=0.0025))["verdict"] for s in range(100)]
    assert wrong.count("critical") <= 5


def test_what_cannot_be_judged() -> None:
    cold, hot = ends(**CRITICAL)
    with pytest.raises(InputError, match="same seeds"):
        judged((cold, ends(**CRITICAL, n=5)[1]))
    with pytest.raises(InputError, match="mixture values lack c1"):
        judged((cold, hot), {"e": -1.0, "abs_m": 0.5})
    with pytest.raises(InputError, match="a share in"):
        judged((cold, hot), share=0.0)
    with pytest.raises(InputError, match="ends are"):
        Ends(np.zeros((5, 3)), np.zeros((5, 3)))
    with pytest.raises(InputError, match="errors of end points"):
        Ends(np.zeros((5, 4)), np.full((5, 4), -1.0))
    made = Ends.of([EndPoint(np.arange(4.0), np.ones(4))] * 5)
    assert made.values.shape == (5, 4)

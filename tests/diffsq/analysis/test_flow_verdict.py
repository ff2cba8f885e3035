"""Verdicts on end points with the numbers of measured flows: what is critical, and what must not be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from diffsq.analysis.flow_verdict import Ends, verdict
from diffsq.analysis.rbm_flow import EndPoint
from lattice.errors import InputError
from lattice.rng import normals

# e, |m|, m^2, c1 of 10 x 10, exact: at T_c, at T = 1.5, of the training grids 0(.25)6 and 4(.25)6
CRITICAL = {"e": -1.4762429084, "abs_m": 0.75627437, "m2": 0.61256768, "c1": 0.1470}
COLD = {"e": -1.9511165199, "abs_m": 0.98649953, "m2": 0.97358760, "c1": 0.0025}
WIDE = {"e": -1.119016, "abs_m": 0.506769, "m2": 0.419379, "c1": 0.161668}
HOT = {"e": -0.438537, "abs_m": 0.138671, "m2": 0.030266, "c1": 0.216835}
SITES = 100


def ends(e: float, abs_m: float, m2: float, c1: float, n: int = 6, spread: float = 0.004, seed: int = 1,
         apart: float = 0.0) -> tuple[Ends, Ends]:  # fmt: skip
    """Cold and hot end points of n machines, `spread` from machine to machine and 0.002 from the chains."""
    z = normals(seed, "test/verdict", np.arange(3), 0, 4 * n).reshape(3, n, 4)
    own = np.array([e, abs_m, m2, c1]) + spread * z[0]
    gap = np.array([apart, 0, 0, 0])
    errors = np.full((n, 4), 0.002)
    return Ends(own + 0.002 * z[1] - gap / 2, errors), Ends(own + 0.002 * z[2] + gap / 2, errors)


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
    assert judged(ends(**CRITICAL, n=4))["verdict"] == "not converged"
    wide = judged(ends(**CRITICAL, spread=0.3, n=5))
    assert wide["verdict"] == "not converged"
    assert "scatter too much to tell" in " ".join(wide["reasons"])


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

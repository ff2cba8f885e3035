"""The Ising model without Monte Carlo: Kaufman, transfer matrix, enumeration agree; tables to digits."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from lattice.errors import InputError
from lattice.exact import ising
from lattice.exact.ising import CRITICAL, enumerated, magnetisation_law, magnetisation_moments, torus

# 10 x 10, from a transfer matrix of another program: T, e, C, <|m|>, <m^2>, U
TABLE = (
    (1.0, -1.9971602041, 0.0233795647, 0.99927575, 0.99856772, 0.666646),
    (1.5, -1.9511165199, 0.1972758584, 0.98649953, 0.97358760, 0.666136),
    (2.0, -1.7454310211, 0.7231648901, 0.91112159, 0.83771020, 0.657693),
    (2.25, -1.5001682053, 1.2332724300, 0.77239072, 0.63380578, 0.618510),
    (2.5, -1.1851013304, 1.1332393457, 0.53839279, 0.35528433, 0.491412),
    (4.0, -0.5574472041, 0.1717536457, 0.16627042, 0.04276718, 0.063273),
)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"T={row[0]}")
def test_ten_by_ten_to_the_digits_of_the_table(row: tuple[float, ...]) -> None:
    t, e, c, abs_m, m2, binder = row
    found = torus((10, 10), t)
    assert found.e == pytest.approx(e, abs=1e-9)
    assert found.c == pytest.approx(c, abs=1e-9)
    moments = magnetisation_moments(magnetisation_law((10, 10), t))
    assert moments["abs_m"] == pytest.approx(abs_m, abs=1e-8)
    assert moments["m2"] == pytest.approx(m2, abs=1e-8)
    assert moments["binder"] == pytest.approx(binder, abs=1e-6)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (2, 4), (2, 2)])
@pytest.mark.parametrize("t", [1.3, CRITICAL, 3.0])
def test_kaufman_is_enumeration(shape: tuple[int, int], t: float) -> None:
    """At T_c itself too, where one of the four products vanishes and its derivative does not."""
    a, b = torus(shape, t), enumerated(shape, t)
    assert a.ln_z == pytest.approx(b.ln_z, abs=1e-12)
    assert a.e == pytest.approx(b.e, abs=1e-12)
    assert a.c == pytest.approx(b.c, abs=1e-11)
    assert torus(shape[::-1], t).ln_z == pytest.approx(a.ln_z, abs=1e-12)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (4, 2)])
def test_the_law_of_the_magnetisation_by_all_states(shape: tuple[int, int]) -> None:
    t, n = 2.4, math.prod(shape)
    known = np.zeros(n + 1)
    for spins in itertools.product((1, -1), repeat=n):
        s = np.array(spins).reshape(shape)
        bonds = (s * np.roll(s, 1, 0)).sum() + (s * np.roll(s, 1, 1)).sum()
        known[(n + s.sum()) // 2] += math.exp(bonds / t)
    law = magnetisation_law(shape, t)
    np.testing.assert_allclose(law, known / known.sum(), atol=1e-13)
    np.testing.assert_allclose(law, law[::-1], atol=1e-13)
    assert np.abs(magnetisation_law(shape, 2.3) - law).max() > 1e-3


def test_energy_and_specific_heat_are_derivatives_of_ln_z() -> None:
    t, h = 2.1, 1e-4
    low, middle, high = (torus((6, 8), t + x).ln_z / 48 for x in (-h, 0.0, h))
    d_t = (high - low) / (2 * h)
    assert torus((6, 8), t).e == pytest.approx(t**2 * d_t, rel=1e-6)
    c = (torus((6, 8), t + h).e - torus((6, 8), t - h).e) / (2 * h)
    assert torus((6, 8), t).c == pytest.approx(c, rel=1e-6)
    assert middle > 0


def test_the_torus_becomes_the_infinite_lattice() -> None:
    """Exponentially fast away from T_c, with 1/L at T_c."""
    for t in (1.8, 3.2):
        assert torus((64, 64), t).e == pytest.approx(ising.infinite_energy(t), abs=1e-9)
    assert ising.infinite_energy(CRITICAL) == pytest.approx(-math.sqrt(2), abs=1e-6)
    gap = [torus((n, n), CRITICAL).e + math.sqrt(2) for n in (16, 32, 64)]
    assert gap[0] / gap[1] == pytest.approx(2, abs=0.02)
    assert gap[1] / gap[2] == pytest.approx(2, abs=0.01)
    assert ising.infinite_magnetisation(2.0) == pytest.approx(0.9113193779, abs=1e-9)
    assert ising.infinite_magnetisation(2.3) == 0
    law = magnetisation_law((10, 10), 1.6)
    assert magnetisation_moments(law)["abs_m"] == pytest.approx(ising.infinite_magnetisation(1.6), abs=1e-3)


def test_where_the_specific_heat_is_largest() -> None:
    """Not at T_c: 0.075 above it at L = 10."""
    for n, c, t in ((8, 1.191839, 2.361980), (10, 1.309055, 2.344592), (16, 1.552204, 2.317507)):
        found = ising.hottest(n)
        assert found[0] == pytest.approx(t, abs=1e-6)
        assert found[1] == pytest.approx(c, abs=1e-6)


def test_a_chain_in_a_field() -> None:
    """The tabulated maxima of C, and a ring of 12 sites where the correlation length is short."""
    for field, t, c in ((0.0, 0.83356, 0.439229), (0.5, 1.53314, 0.660980), (1.0, 2.07327, 0.607135)):
        assert ising.chain_in_field(t, field).c == pytest.approx(c, abs=1e-6)
    ring, chain = enumerated((16,), 3.0, 1.0), ising.chain_in_field(3.0, 1.0)
    assert ring.ln_z / 16 == pytest.approx(chain.ln_z, abs=1e-8)
    assert ring.e == pytest.approx(chain.e, abs=1e-6)
    assert ring.c == pytest.approx(chain.c, abs=1e-5)


def test_critical_temperatures() -> None:
    assert CRITICAL == pytest.approx(2.269185314213)
    assert ising.bethe_temperature(4) == pytest.approx(2.885390)
    assert ising.potts_temperature(2) == pytest.approx(CRITICAL / 2)  # delta(s, s') = (1 + s s')/2
    assert ising.potts_temperature(3) == pytest.approx(0.994973, abs=1e-6)
    assert ising.potts_temperature(4) == pytest.approx(0.910239, abs=1e-6)


@pytest.mark.parametrize("t", [0.0, -1.0, math.nan, math.inf])
def test_temperatures_that_are_none(t: float) -> None:
    for function in (lambda: torus((4, 4), t), lambda: ising.infinite_energy(t), lambda: enumerated((4,), t)):
        with pytest.raises(InputError, match="temperature must be positive and finite"):
            function()


def test_what_cannot_be_counted() -> None:
    with pytest.raises(InputError, match="up to 24 spins"):
        enumerated((5, 5), 2.0)
    with pytest.raises(InputError, match="rows of 2 to 14"):
        magnetisation_law((16, 16), 2.0)
    with pytest.raises(InputError, match="two extents of 2 sites or more"):
        torus((1, 8), 2.0)
    with pytest.raises(InputError, match="3 neighbours"):
        ising.bethe_temperature(2)
    with pytest.raises(InputError, match="two states"):
        ising.potts_temperature(1)


def test_potts_tori() -> None:
    """Tables to their digits; two states are Ising's: delta(s, s') = (1 + s s')/2, T twice as large."""
    for n, q, t, e, c in (
        (6, 3, ising.potts_temperature(3), -1.6737359, 2.0599531), (6, 3, 0.8, -1.9210739, 0.6280044),
        (6, 3, 1.5, -1.0480783, 0.4056701), (5, 4, ising.potts_temperature(4), -1.6563046, 2.6775364),
    ):  # fmt: skip
        found = ising.potts_torus((n, n), q, t)
        assert found.e == pytest.approx(e, abs=1e-7)
        assert found.c == pytest.approx(c, abs=1e-7)
    two, spins = ising.potts_torus((4, 5), 2, 1.2), torus((4, 5), 2.4)
    assert two.ln_z == pytest.approx(spins.ln_z + 20 / 1.2, abs=1e-12)  # 40 bonds of 1/2
    assert two.e == pytest.approx(spins.e / 2 - 1, abs=1e-12)
    assert two.c == pytest.approx(spins.c, abs=1e-11)
    assert ising.potts_torus((4, 4), 3, 1.07634).c == pytest.approx(1.65025, abs=1e-5)
    for t in (1.0, 1.15):  # of the largest c of 4 x 4
        assert ising.potts_torus((4, 4), 3, t).c < 1.65025
    with pytest.raises(InputError, match="at most 2048 states"):
        ising.potts_torus((8, 8), 3, 1.0)
    with pytest.raises(InputError, match="^q >= 2, rows .*; 1 states on 4 have 1"):
        ising.potts_torus((4, 4), 1, 1.0)


def test_a_torus_in_a_field() -> None:
    """By all states; without a field Kaufman's; near the largest C of 10 x 10 in two fields."""
    for field in (0.0, 0.3, -0.7):
        a, b = ising.torus_in_field((3, 4), 2.3, field), enumerated((3, 4), 2.3, field)
        assert a.ln_z == pytest.approx(b.ln_z, abs=1e-12)
        assert a.e == pytest.approx(b.e, abs=1e-12)
        assert a.c == pytest.approx(b.c, abs=2e-9)
    assert ising.torus_in_field((8, 8), 2.25, 0.0).e == pytest.approx(torus((8, 8), 2.25).e, abs=1e-10)
    for field, t, c in ((0.5, 3.0988, 0.86025), (2.0, 4.5567, 0.63368)):
        near = [ising.torus_in_field((10, 10), t + x, field).c for x in (-0.05, 0.0, 0.05)]
        assert near[1] == pytest.approx(c, abs=2e-4)
        assert near[1] > max(near[0], near[2])
    with pytest.raises(InputError, match="rows of 2 to 14"):
        ising.torus_in_field((15, 15), 2.0, 0.1)


@pytest.mark.parametrize("shape", [(3, 4), (4, 4), (2, 5)])
@pytest.mark.parametrize("t", [0.4, 2.3, 5.0])
def test_correlations_by_all_states(shape: tuple[int, int], t: float) -> None:
    """Along the second axis; distances r and L - r alike, 0 gives 1, and the nearest are the energy."""
    v = math.prod(shape)
    s = (1.0 - 2.0 * ((np.arange(2**v)[:, None] >> np.arange(v)) & 1)).reshape(-1, *shape)
    bonds = ((s * np.roll(s, 1, 1)) + (s * np.roll(s, 1, 2))).sum((1, 2))
    w = np.exp((bonds - bonds.max()) / t)
    for r in range(shape[1] + 1):
        known = float((w * s[:, 0, 0] * s[:, 0, r % shape[1]]).sum() / w.sum())
        assert ising.correlation(shape, t, r) == pytest.approx(known, abs=1e-12)
        assert ising.correlation(shape, t, -r) == pytest.approx(known, abs=1e-12)
    near = [ising.correlation(two, t, 1) for two in (shape, shape[::-1])]
    assert -sum(near) == pytest.approx(torus(shape, t).e, abs=1e-12)
    with pytest.raises(InputError, match="rows of 2 to 12 sites, got 13"):
        ising.correlation((4, 13), t, 1)


@pytest.mark.parametrize("shape", [(3, 4), (4, 4), (2, 3), (5, 2)])
@pytest.mark.parametrize(("t", "field"), [(0.5, 0.2), (2.3, 0.0), (2.3, 0.4), (3.1, -1.2), (9.0, 3.0)])
def test_energy_of_bonds_and_magnetisation_in_a_field(shape: tuple[int, int], t: float, field: float) -> None:
    """u without the field's part and m, by all states, odd in H; u - H m is e; another H has other ones."""
    v = math.prod(shape)
    s = (1.0 - 2.0 * ((np.arange(2**v)[:, None] >> np.arange(v)) & 1)).reshape(-1, *shape)
    bonds = ((s * np.roll(s, 1, 1)) + (s * np.roll(s, 1, 2))).sum((1, 2))
    total = s.sum((1, 2))
    log_w = (bonds + field * total) / t
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    u, m = ising.moments_in_field(shape, t, field)
    assert u == pytest.approx(-float(w @ bonds) / v, abs=1e-11)
    assert m == pytest.approx(float(w @ total) / v, abs=1e-11)
    assert ising.moments_in_field(shape[::-1], t, field) == pytest.approx((u, m), abs=1e-11)
    assert ising.moments_in_field(shape, t, -field) == pytest.approx((u, -m), abs=1e-11)
    assert u - field * m == pytest.approx(ising.torus_in_field(shape, t, field).e, abs=1e-10)
    assert abs(ising.moments_in_field(shape, t, field + 0.1)[1] - m) > 1e-6


def test_moments_in_a_field_at_the_edges() -> None:
    """Free spins at large T and H; without a field Kaufman's e and no m; rows that are too long, no T."""
    u, m = ising.moments_in_field((6, 6), 1e6, 5e5)
    assert m == pytest.approx(math.tanh(0.5), abs=1e-5)
    assert u == pytest.approx(-2 * math.tanh(0.5) ** 2, abs=1e-5)
    assert ising.moments_in_field((8, 8), 2.25, 0.0) == pytest.approx((torus((8, 8), 2.25).e, 0), abs=1e-10)
    with pytest.raises(InputError, match="rows of 2 to 14"):
        ising.moments_in_field((15, 16), 2.0, 0.1)
    with pytest.raises(InputError, match="temperature must be positive"):
        ising.moments_in_field((4, 4), 0.0, 0.1)

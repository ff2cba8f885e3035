"""Lattice fields of networks: tables to their digits, and small lattices by enumeration of all neurons."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import poisson as poisson_law

from lattice.actions.networks import (
    CosNet,
    ErfNet,
    FreeNet,
    GaussNet,
    LocalNet,
    Network,
    ReluNet,
    lattice_inputs,
)
from lattice.actions.phi4 import FreeScalar
from lattice.errors import InputError
from lattice.exact.network_fields import (
    correlations,
    cumulant_variance,
    four_point,
    networks_needed,
    profile,
    propagator,
    reference,
    site_cumulants,
    zero_mode_cumulants,
)
from lattice.exact.network_kernel import kernel, neuron_cumulants
from lattice.exact.scalar import free_propagator
from lattice.statistics.cumulants import cumulants_from_moments

EIGHT, KAPPA, N = (8, 8), 0.2, 4
COS = (  # N r4, N^2 r6, N^3 r8, N kappa4(0,0,r,r)/G0^2 at r = (4, 0) without -2 (G_r/G0)^2
    ("normal", 1.5, 0.0, -39.375, 3.5), ("rayleigh", 0.0, 0.0, 0.0, 2.0),
    ("signs", -1.5, 10.0, -144.375, 0.5),
)  # fmt: skip


def ratios(cumulants: dict[int, float]) -> dict[int, float]:
    return {n: value / cumulants[2] ** (n / 2) for n, value in cumulants.items()}


def test_the_free_propagator_to_the_digits_of_the_table() -> None:
    for law in (CosNet(N, KAPPA), LocalNet(0.25, KAPPA), LocalNet(0.25, KAPPA, poisson=False)):
        g = correlations(law, EIGHT)
        assert (g[0, 0], g[1, 0], g[4, 0]) == pytest.approx((0.635434994, 0.169293743, 0.010270775), abs=1e-9)
        np.testing.assert_array_equal(propagator(law, EIGHT), free_propagator(KAPPA, EIGHT))
    assert propagator(CosNet(N, KAPPA), EIGHT)[0, 0] / (64 * g[0, 0]) == pytest.approx(0.061473637, abs=1e-9)
    shifted = correlations(CosNet(N, KAPPA, lam=0.1), (8,))
    assert shifted[0] == pytest.approx(0.72172619, abs=1e-8)


@pytest.mark.parametrize("row", COS, ids=lambda row: str(row[0]))
def test_cos_nets_to_the_digits_of_the_table(row: tuple[Any, ...]) -> None:
    law = CosNet(N, KAPPA, row[0])
    r = ratios(site_cumulants(law, EIGHT))
    assert (N * r[4], N**2 * r[6], N**3 * r[8]) == pytest.approx(row[1:4], abs=1e-11)
    g = correlations(law, EIGHT)
    pair = N * four_point(law, EIGHT)[4, 0] / g[0, 0] ** 2
    assert pair == pytest.approx(row[4] - 2 * (g[4, 0] / g[0, 0]) ** 2, abs=1e-12)
    values = {"normal": 0.35325, "rayleigh": 0.20184, "signs": 0.05042}
    assert four_point(law, EIGHT)[4, 0] == pytest.approx(values[row[0]], abs=6e-6)
    if row[0] == "signs":
        assert ratios(zero_mode_cumulants(law, EIGHT))[4] == pytest.approx(5.350, abs=5e-4)


def test_local_nets_to_the_digits_of_the_table() -> None:
    rho = 0.25
    g = profile(LocalNet(rho, KAPPA), EIGHT)
    sums = (g[0, 0], (g**2).sum(), (g**4).sum(), (g**6).sum())
    assert sums == pytest.approx((0.768205854, 0.635434994, 0.348622446, 0.205528769), abs=1e-9)
    r = ratios(site_cumulants(LocalNet(rho, KAPPA, "signs"), EIGHT))
    assert (rho * r[4], rho**2 * r[6]) == pytest.approx((0.8634020764, 0.8010492815), abs=1e-9)
    normal = ratios(site_cumulants(LocalNet(rho, KAPPA), EIGHT))
    assert normal[4] == pytest.approx(3 * r[4], rel=1e-12)
    pair = rho * four_point(LocalNet(rho, KAPPA, "signs"), EIGHT)[:, 0]
    assert (pair[1], pair[2], pair[3]) == pytest.approx((0.01110029, 0.00058380, 4.519e-5), abs=1e-8)
    fixed = LocalNet(rho, KAPPA, "signs", poisson=False)
    assert ratios(site_cumulants(fixed, EIGHT))[4] == pytest.approx(3.2661, abs=1e-4)
    assert four_point(fixed, EIGHT)[4, 0] == pytest.approx(-0.0252, abs=5e-5)


def enumerated(law: FreeNet, shape: tuple[int, ...], n_neurons: int) -> tuple[np.ndarray, np.ndarray]:
    """All fields (n, V) of n_neurons with output signs or normal numbers, and their weights (n,)."""
    v = math.prod(shape)
    where = np.array(list(np.ndindex(*shape)))
    g = propagator(law, shape)
    if law.output == "signs":
        a, weight = np.array([1.0, -1.0]), np.array([0.5, 0.5])
    else:
        a, weight = np.polynomial.hermite_e.hermegauss(9)
        weight = weight / weight.sum()
    parts, chances = [], []
    for place in np.ndindex(*shape):
        if isinstance(law, LocalNet):
            moved = np.roll(profile(law, shape), place, tuple(range(len(shape)))).ravel() / law.rho**0.5
            waves, chance = moved[None], 1 / v
        else:
            b = 2 * np.pi * (np.arange(18) + 0.5) / 18  # a trapezoidal rule, exact for powers to 17
            k = 2 * np.pi * np.array(place) / np.array(shape)
            waves = (2 * g.mean() / law.neurons(shape)) ** 0.5 * np.cos(b[:, None] + where @ k)
            chance = g[place] / g.sum() / len(b)
        for x, w in zip(a, weight, strict=True):
            parts.append(x * waves)
            chances.append(np.full(len(waves), w * chance))
    one, p = np.concatenate(parts), np.concatenate(chances)
    fields, weights = one, p
    for _ in range(n_neurons - 1):
        fields = (fields[:, None] + one[None]).reshape(-1, v)
        weights = np.outer(weights, p).ravel()
    return fields, weights


@pytest.mark.parametrize(
    ("law", "shape"),
    [(CosNet(1, 0.2), (2, 3)), (CosNet(1, 0.1, "signs", 0.1), (2, 3)), (CosNet(2, 0.3, "signs"), (4,)),
     (LocalNet(0.5, 0.2, poisson=False), (4,)),
     (LocalNet(1 / 3, 0.15, "signs", 0.05, poisson=False), (3, 2))],
    ids=str,
)  # fmt: skip
def test_small_lattices_by_all_their_neurons(law: FreeNet, shape: tuple[int, ...]) -> None:
    """Sites, zero mode, two and four points, odd moments: enumerated."""
    fields, p = enumerated(law, shape, int(law.neurons(shape)))
    assert p.sum() == pytest.approx(1, abs=1e-12)
    for values, known in (
        (fields[:, 1], site_cumulants(law, shape)), (fields.mean(1), zero_mode_cumulants(law, shape)),
    ):  # fmt: skip
        moments = np.array([(p * values**n).sum() for n in range(1, 9)])
        found = cumulants_from_moments(moments)
        np.testing.assert_allclose(found[1::2], list(known.values()), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found[::2], 0, atol=1e-12)
    g = (p[:, None] * fields[:, :1] * fields).sum(0)
    np.testing.assert_allclose(g, correlations(law, shape).ravel(), atol=1e-12)
    four = (p[:, None] * fields[:, :1] ** 2 * fields**2).sum(0) - g[0] ** 2 - 2 * g**2
    np.testing.assert_allclose(four, four_point(law, shape).ravel(), atol=1e-12)
    assert np.abs(four).max() > 1e-3


def test_a_poisson_number_of_neurons_by_enumeration() -> None:
    """0.15 neurons on average, up to 5 of them; a fixed number of that mean would have another kappa_4."""
    law, shape = LocalNet(0.05, 0.2, "signs"), (3,)
    mean, total = law.neurons(shape), np.zeros((2, 6))
    for n in range(1, 6):
        fields, p = enumerated(law, shape, n)
        p = p * poisson_law.pmf(n, mean)
        total += [[(p * x**m).sum() for m in range(1, 7)] for x in (fields[:, 0], fields.mean(1))]
    for moments, known in zip(total, (site_cumulants, zero_mode_cumulants), strict=True):
        exact, found = known(law, shape), cumulants_from_moments(moments)
        assert (found[1], found[3], found[5]) == pytest.approx((exact[2], exact[4], exact[6]), rel=2e-3)
        assert 3 * exact[2] ** 2 / mean > 0.1 * exact[4]


def test_only_the_poisson_net_clusters() -> None:
    """Far apart in units of G0^2: <a^4> - 1 of cos-nets over N, nothing, and -1/N of a fixed number."""
    shape, r = (64,), 21  # where neither r nor 2 r is near 0
    for output, rest in (("normal", 2.0), ("rayleigh", 1.0), ("signs", 0.0)):
        law = CosNet(N, KAPPA, output)
        assert N * four_point(law, shape)[r] / correlations(law, shape)[0] ** 2 == pytest.approx(
            rest, abs=1e-5
        )
    for poisson, rest in ((True, 0.0), (False, -1.0)):
        net = LocalNet(0.25, KAPPA, poisson=poisson)
        assert 16 * four_point(net, shape)[r] / correlations(net, shape)[0] ** 2 == pytest.approx(
            rest, abs=1e-5
        )


@pytest.mark.parametrize(
    "law", [CosNet(N, KAPPA), LocalNet(0.25, KAPPA, "signs"), ErfNet(N), GaussNet(N)], ids=str
)
def test_one_factor_for_all_neurons_stays_at_any_width(law: Network) -> None:
    """kappa_4/kappa_2^2 -> 3 (<c^4> - 1) = 3 as N grows, where independent neurons go to 0."""
    shape = (4, 4)
    wide: dict[str, Any] = {"rho": 1e5} if isinstance(law, LocalNet) else {"width": 10**6}
    values = {**law.as_dict(), **wide}
    values.pop("kind")
    for output, rest in (("signs", 0.0), ("correlated", 3.0)):
        values["output"] = output
        found = site_cumulants(type(law)(**values), shape)
        assert found[4] / found[2] ** 2 == pytest.approx(rest, abs=0.01)


def test_correlated_four_points() -> None:
    """r = 0 is the site's kappa_4, and far apart <c^4> - 1 in units of G0^2 stays for any N."""
    for law in (CosNet(1000, KAPPA, "correlated"), LocalNet(50.0, KAPPA, "correlated")):
        found = four_point(law, EIGHT)
        assert found[0, 0] == pytest.approx(site_cumulants(law, EIGHT)[4], rel=1e-12)
        assert found[4, 0] / correlations(law, EIGHT)[0, 0] ** 2 == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("law", [ErfNet(3, sigma_b=0.5), ReluNet(3, sigma_hidden=0.5), GaussNet(2)], ids=str)
def test_nets_of_inputs_are_translation_invariant(law: Any) -> None:
    """The kernel of any two sites is the correlation at their distance; G(k) >= 0; sites are points."""
    shape = (3, 4)
    x = lattice_inputs(shape)
    k, g = kernel(law, x, x).reshape(*shape, *shape), correlations(law, shape)
    for i, j in np.ndindex(shape):
        np.testing.assert_allclose(k[i, j], np.roll(g, (i, j), (0, 1)), atol=1e-13)
    assert propagator(law, shape).min() > -1e-12
    found = reference(law, shape)
    assert found["site"][2] == pytest.approx(g[0, 0])
    assert found["site"][4] == pytest.approx(neuron_cumulants(law, x[5])[4] / law.width, rel=1e-10)
    assert found["zero_mode"] == pytest.approx({2: propagator(law, shape)[0, 0] / 12})
    if not isinstance(law, ReluNet):
        assert four_point(law, shape)[0, 0] == pytest.approx(found["site"][4], rel=1e-10)


def test_the_variance_of_a_cumulant() -> None:
    """n! of the unit normal; kappa_2 and kappa_4 by hand of another law."""
    normal = [float(math.prod(range(1, 2 * n, 2))) for n in range(1, 9)]
    assert [cumulant_variance(np.array(normal), n) for n in (1, 2, 3, 4)] == pytest.approx(
        [2, 24, 720, 40320]
    )
    m2, m4, m6, m8 = 1.3, 4.0, 20.0, 150.0
    by_hand = m8 - m4**2 - 12 * m2 * (m6 - m4 * m2) + 36 * m2**2 * (m4 - m2**2)
    assert cumulant_variance(np.array([m2, m4, m6, m8]), 2) == pytest.approx(by_hand)
    assert cumulant_variance(np.array([m2, m4]), 1) == pytest.approx(m4 - m2**2)


def test_the_gauss_net_cannot_be_measured() -> None:
    """10^6 networks of 10 neurons know E[s^4] to 322 %: their 1/N^2 of kappa_6 is no measurement."""
    law = GaussNet(10)
    one = networks_needed(law, 2, point=[0.0], sigmas=1.0)
    assert math.sqrt(one / 1e6) == pytest.approx(3.22, rel=0.03)
    assert networks_needed(law, 3, point=[0.0]) > 1e17
    assert networks_needed(law, 3, shape=EIGHT) > 1e15
    for law2 in (ErfNet(10), ReluNet(10), CosNet(4, KAPPA), LocalNet(0.25, KAPPA)):
        assert networks_needed(law2, 2, shape=EIGHT) < 1e5
    assert networks_needed(CosNet(4, KAPPA, "signs"), 3, shape=EIGHT) < 1e4
    assert networks_needed(CosNet(4, KAPPA, "normal"), 3, shape=EIGHT) == math.inf
    assert networks_needed(CosNet(4, KAPPA, "rayleigh"), 2, shape=EIGHT) == math.inf


def test_what_cannot_be_said_is_refused() -> None:
    bad: list[tuple[Callable[[], Any], str]] = [
        (lambda: propagator(CosNet(4, 0.3), EIGHT), "flat mode"),
        (lambda: site_cumulants(LocalNet(0.3, 0.2, poisson=False), (4,)), "fixed number must be whole"),
        (lambda: four_point(ReluNet(3), (4,)), "known for erf_net and gauss_net"),
        (lambda: four_point(ErfNet(3, "correlated"), (4,)), "no 1/N law"),
        (lambda: networks_needed(ErfNet(3), 5, shape=(4,)), "n = 1 to 4"),
        (lambda: networks_needed(ErfNet(3), 2), "say where"),
        (lambda: networks_needed(CosNet(3, 0.2), 2, point=[1.0]), "a net of inputs is needed, not CosNet"),
        (lambda: cumulant_variance(np.ones(3), 2), "asks for moments to order 8"),
        (lambda: reference(FreeScalar(0.2), (4,)), "a net of inputs is needed, not FreeScalar"),  # type: ignore[arg-type]
    ]  # fmt: skip
    for call, words in bad:
        with pytest.raises(InputError, match=words):
            call()
    assert list(itertools.islice(reference(CosNet(4, 0.2), (4,)), 3)) == ["site", "zero_mode", "propagator"]

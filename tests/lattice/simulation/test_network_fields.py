"""Draws of random networks against exact cumulants, and what one-site tests and large samples cannot see."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lattice.actions.networks import CosNet, ErfNet, GaussNet, LocalNet, Network, ReluNet, lattice_inputs
from lattice.actions.phi4 import FreeScalar
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.network_fields import (
    correlations,
    cumulant_variance,
    four_point,
    networks_needed,
    reference,
)
from lattice.exact.network_kernel import field_cumulants, joint_cumulant, kernel, neuron_cumulants, with_odd
from lattice.simulation.network_fields import draw_fields, draw_points
from lattice.statistics.cumulants import cumulants_from_moments, moments_from_cumulants

SHAPE, KAPPA, M, GATE = (8, 8), 0.2, 65536, 4.5
BLOCKS = 128
LAWS: tuple[Network, ...] = (
    CosNet(4, KAPPA), CosNet(4, KAPPA, "signs"), CosNet(4, KAPPA, "rayleigh"),
    CosNet(3, KAPPA, "correlated"), LocalNet(0.25, KAPPA, "signs"),
    LocalNet(0.25, KAPPA, "signs", poisson=False), LocalNet(0.5, KAPPA, lam=0.05),
    ErfNet(2, "signs", sigma_b=0.3), ReluNet(3, "signs", sigma_hidden=0.5),
    GaussNet(10, "signs", sigma_hidden=0.3),
)  # fmt: skip


def jackknife(columns: Floats, function: Callable[[Floats], Any]) -> tuple[Any, Any]:
    """function of the means of columns (n, k) of independent rows, and its error from blocks."""
    blocks = columns[: len(columns) // BLOCKS * BLOCKS].reshape(BLOCKS, -1, columns.shape[1]).mean(1)
    total = blocks.sum(0)
    left = np.array([function((total - block) / (BLOCKS - 1)) for block in blocks])
    return function(total / BLOCKS), np.sqrt((BLOCKS - 1) * left.var(0))


def even(moments: Floats) -> Floats:
    return np.asarray(cumulants_from_moments(with_odd(moments))[1::2])


def site_moments(phi: Floats, highest: int = 6) -> Floats:
    """Site averages of phi^2, phi^4, ... (n, highest/2) of each field."""
    square = phi.reshape(len(phi), -1) ** 2
    power, found = square, [square.mean(1)]
    for _ in range(highest // 2 - 1):
        power = power * square
        found.append(power.mean(1))
    return np.stack(found, 1)


def pair(phi: Floats, r: int) -> tuple[float, float]:
    """kappa_4(0, 0, r, r) along both axes, averaged over sites."""
    products = [phi * np.roll(phi, r, axis) for axis in (1, 2)]
    columns = np.stack([(x**power).mean((1, 2)) for power in (1, 2) for x in products], 1)
    columns = np.concatenate([(phi**2).mean((1, 2))[:, None], columns], 1)
    value, error = jackknife(columns, lambda m: (m[3] + m[4]) / 2 - m[0] ** 2 - 2 * ((m[1] + m[2]) / 2) ** 2)
    return float(value), float(error)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_fields_have_the_exact_cumulants(law: Network) -> None:
    """Sites to order 6, momenta, the zero mode; odd moments vanish; a free field is excluded."""
    n = M // 4
    phi, known = draw_fields(law, SHAPE, np.arange(n), seed=5), reference(law, SHAPE)
    exact = np.array([known["site"][n] for n in (2, 4, 6)])
    value, error = jackknife(site_moments(phi), even)
    assert (np.abs(value - exact) < GATE * error).all()
    power = (np.abs(np.fft.fftn(phi, axes=(1, 2))) ** 2).reshape(n, -1) / 64
    flat, spread = known["propagator"].ravel(), power.std(0) / n**0.5
    off, main = np.abs(power.mean(0) - flat), flat > 1e-2 * flat.max()  # weaker ones have heavy tails
    assert (off < GATE * spread + 1e-13)[main].all()
    assert np.abs(power.mean(0) - np.roll(flat, 1)).max() > 10 * spread.max()
    zero = phi.mean((1, 2))
    orders = [m for m in (2, 4) if m in known["zero_mode"]]
    found, spread = jackknife(np.stack([zero**m for m in orders], 1), even)
    assert (np.abs(found - [known["zero_mode"][m] for m in orders]) < GATE * spread).all()
    for odd in (zero, (phi**2 * phi).mean((1, 2)), (phi**2 * np.roll(phi, 1, 1)).mean((1, 2))):
        assert abs(odd.mean()) < GATE * odd.std() / n**0.5
    assert (abs(value[1]) > 10 * error[1]) == (law.output != "rayleigh")


@pytest.mark.parametrize("law", [LAWS[0], LAWS[4], LAWS[7]], ids=str)
def test_fields_are_translation_invariant(law: Network) -> None:
    """Site by site, not on average only: <f_x^2>, <f_x^4>, <f_x f_(x + 1)> of all 64 sites."""
    n = M // 4
    phi, known = draw_fields(law, SHAPE, np.arange(n), seed=6), reference(law, SHAPE)
    fourth = moments_from_cumulants(with_odd(np.array(list(known["site"].values()))))[3]
    for values, exact in (
        (phi**2, known["site"][2]), ((phi**2) ** 2, fourth),
        (phi * np.roll(phi, 1, 1), correlations(law, SHAPE)[1, 0]),
        (phi * np.roll(phi, 1, 2), correlations(law, SHAPE)[0, 1]),
    ):  # fmt: skip
        error = values.std(0) / n**0.5
        assert (np.abs(values.mean(0) - exact) < GATE * error).all()


def test_signs_of_four_neurons_and_the_table() -> None:
    """r4 -0.375, r6 0.625, r8 -2.256 of sites, 5.350 of the zero mode; as many normal weights miss them."""
    phi = draw_fields(CosNet(4, KAPPA, "signs"), SHAPE, np.arange(M), seed=7)
    power = np.array([2, 3, 4])

    def ratio(m: Floats) -> Floats:
        k = even(m)
        return np.asarray(k[1:] / k[0] ** power[: len(k) - 1])

    value, error = jackknife(site_moments(phi, 8), ratio)
    assert (np.abs(value - [-0.375, 0.625, -2.255859375]) < GATE * error).all()
    assert (error < [0.004, 0.02, 0.15]).all()
    zero = phi.mean((1, 2))
    value, error = jackknife(np.stack([zero**2, zero**4], 1), ratio)
    assert abs(value[0] - 5.350176) < GATE * error[0]
    assert value[0] > 10 * error[0]
    other = draw_fields(CosNet(4, KAPPA), SHAPE, np.arange(M // 4), seed=7)
    value, error = jackknife(site_moments(other, 8), ratio)
    assert value[0] + 0.375 > 10 * error[0]


def test_one_site_alone_does_not_certify_a_free_field() -> None:
    """Rayleigh weights: every cumulant of one site vanishes, kappa_4(0,0,r,r) does not."""
    law = CosNet(4, KAPPA, "rayleigh")
    phi = draw_fields(law, SHAPE, np.arange(M), seed=8)
    value, error = jackknife(site_moments(phi, 8), even)
    assert (np.abs(value[1:]) < GATE * error[1:]).all()
    site = np.sort(phi[:, 3, 5]) / reference(law, SHAPE)["site"][2] ** 0.5
    normal = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in site])
    assert np.abs(normal - (np.arange(M) + 0.5) / M).max() < 2.2 / M**0.5  # Kolmogorov, 1e-4
    value, error = pair(phi, 4)
    assert value > 10 * error
    assert abs(value - 0.20184) < GATE * error


def test_cos_nets_do_not_cluster() -> None:
    """At the largest distance the cos-net and a fixed number of local neurons keep kappa_4, by more than ten
    errors; a Poisson number does not, and has it nearby."""
    for law, known in (
        (CosNet(4, KAPPA), 0.35325), (CosNet(4, KAPPA, "signs"), 0.05042),
        (LocalNet(0.25, KAPPA, "signs", poisson=False), -0.0252),
    ):  # fmt: skip
        value, error = pair(draw_fields(law, SHAPE, np.arange(M), seed=9), 4)
        assert abs(value) > 10 * error
        assert abs(value - known) < GATE * error + 6e-5
        assert four_point(law, SHAPE)[4, 0] == pytest.approx(known, abs=6e-5)
    law = LocalNet(0.25, KAPPA, "signs")
    phi = draw_fields(law, SHAPE, np.arange(M), seed=9)
    value, error = pair(phi, 4)
    assert abs(value) < GATE * error
    assert error < 0.0252 / 10
    value, error = pair(phi, 1)
    assert value > 10 * error
    assert abs(value - 0.0444) < GATE * error


def test_correlated_weights_do_not_become_free() -> None:
    """kappa_4/kappa_2^2 of N = 4, 16, 64: falls with 1/N for independent weights, stays for one factor."""
    found: dict[str, list[float]] = {}
    for output in ("normal", "correlated"):
        for width in (4, 16, 64):
            law = CosNet(width, KAPPA, output)
            phi = draw_fields(law, (4,), np.arange(M // 2), seed=10)
            value, error = jackknife(site_moments(phi, 4), lambda m: even(m)[1] / even(m)[0] ** 2)
            exact = reference(law, (4,))["site"]
            assert abs(value - exact[4] / exact[2] ** 2) < GATE * error
            assert value > 10 * error or (output == "normal" and width > 4)
            found.setdefault(output, []).append(float(value))
    assert found["normal"][0] / max(found["normal"][2], 1e-3) > 6
    assert min(found["correlated"]) > 2.5


def test_erf_networks_at_a_point() -> None:
    """The one-dimensional net at x = 1: kappa_4 ~ 1/N, kappa_6 < 0 at N = 1, and four points."""
    for width, n in ((1, 10**6), (2, 5 * 10**5)):
        law = ErfNet(width)
        f = draw_points(law, [[1.0]], np.arange(n), seed=12)
        value, error = jackknife(np.concatenate([f**2, f**4, f**6], 1), even)
        c = neuron_cumulants(law, [1.0])
        assert (np.abs(value - [c[2], c[4] / width, c[6] / width**2]) < GATE * error).all()
        assert value[1] > 10 * error[1]
    x = np.array([[1.0], [0.6], [0.2], [-0.2]])
    f = draw_points(ErfNet(2), x, np.arange(400_000), seed=13)
    k = kernel(ErfNet(2), x, x)
    pairs = k[0, 1] * k[2, 3] + k[0, 2] * k[1, 3] + k[0, 3] * k[1, 2]
    product = f.prod(1)
    exact = joint_cumulant(ErfNet(2), x) / 2
    assert abs(product.mean() - pairs - exact) < GATE * product.std() / len(f) ** 0.5
    assert product.mean() - pairs > 10 * product.std() / len(f) ** 0.5


@pytest.mark.parametrize(
    "law", [ErfNet(3, sigma_b=0.4), ReluNet(3, sigma_hidden=0.7), GaussNet(20, sigma_hidden=0.3)]
)
def test_kernels_of_points_in_three_dimensions(law: Any) -> None:
    x = 0.5 * np.array([[1.0, 0.2, -0.4], [0.3, -1.0, 0.8], [0.0, 0.0, 0.0]])
    f, k = draw_points(law, x, np.arange(M), seed=14), kernel(law, x, x)
    products = f[:, :, None] * f[:, None]
    error = products.std(0) / M**0.5
    assert (np.abs(products.mean(0) - k) < GATE * error + 1e-15).all()
    wrong = kernel(type(law)(law.width, sigma_b=law.sigma_b, sigma_hidden=law.sigma_hidden + 0.3), x, x)
    if not isinstance(law, GaussNet):  # whose kernel does not know it
        assert np.abs((wrong - products.mean(0)) / np.maximum(error, 1e-9)).max() > 10


def test_the_number_of_networks_needed() -> None:
    """The scatter of kappa_4 and kappa_6 over 400 samples is the predicted one; of gauss nets 1/N^2 is lost:
    samples of 2 10^5 networks of 10 neurons stay far below the exact kappa_6."""
    law, size, samples = ErfNet(2), 2000, 400
    f = draw_points(law, [[1.0]], np.arange(size * samples), seed=15)[:, 0].reshape(samples, size)
    found = np.array([even(np.array([(x**m).mean() for m in (2, 4, 6)])) for x in f])
    moments = moments_from_cumulants(with_odd(np.array(list(field_cumulants(law, [1.0], 12).values()))))[1::2]
    for n in (1, 2, 3):
        predicted = (cumulant_variance(moments, n) / size) ** 0.5
        assert found[:, n - 1].std() / predicted == pytest.approx(1, abs=4.5 * 0.05)
    needed = networks_needed(law, 2, point=[1.0])
    value = found[:, 1].mean() / found[:, 1].std() * (needed / size) ** 0.5
    assert value == pytest.approx(3, rel=0.2)
    gauss = GaussNet(10)
    assert networks_needed(gauss, 3, point=[0.0]) > 1e10 * 10**6
    for seed in range(5):
        f = draw_points(gauss, [[0.0]], np.arange(200_000), seed)
        kappa = even(np.array([(f**m).mean() for m in (2, 4, 6)]))
        assert 0 < kappa[2] < 0.7 * field_cumulants(gauss, [0.0])[6]


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_batch_and_order_change_no_bit(law: Network) -> None:
    whole = draw_fields(law, SHAPE, np.arange(300), seed=2)
    order = [299, 0, 17, 4]
    assert np.array_equal(draw_fields(law, SHAPE, order, seed=2), whole[order])
    assert np.array_equal(draw_fields(law, SHAPE, 17, seed=2), whole[17:18])
    assert not np.isclose(draw_fields(law, SHAPE, np.arange(300), seed=3), whole).any(axis=(1, 2)).all()
    assert np.unique(whole[:, 0, 0]).size > 250 or isinstance(law, LocalNet)


def test_one_axis_and_three_axes() -> None:
    """Other shapes: propagator of every momentum on (6,) and (2, 3, 4), of cos- and local nets."""
    for shape in ((6,), (2, 3, 4)):
        for law in (CosNet(2, 0.12, "signs"), LocalNet(0.5, 0.12)):
            phi = draw_fields(law, shape, np.arange(20_000), seed=16)
            axes = tuple(range(1, phi.ndim))
            power = np.abs(np.fft.fftn(phi, axes=axes)) ** 2 / phi[0].size
            known, error = reference(law, shape)["propagator"], power.std(0) / 20_000**0.5
            assert (np.abs(power.mean(0) - known) < GATE * error).all()


def test_fields_of_nets_of_inputs_are_their_values_at_the_sites() -> None:
    law = ErfNet(5, sigma_b=0.3)
    found = draw_points(law, lattice_inputs(SHAPE), np.arange(9), seed=4)
    assert np.array_equal(draw_fields(law, SHAPE, np.arange(9), seed=4), found.reshape(9, *SHAPE))


def test_what_cannot_be_drawn_is_refused() -> None:
    bad: list[tuple[Callable[[], Any], str]] = [
        (lambda: draw_fields(CosNet(4, 0.3), SHAPE, [0], 1), "flat mode"),
        (lambda: draw_fields(CosNet(4, 0.2), (), [0], 1), "lattice shape"),
        (lambda: draw_fields(CosNet(4, 0.2), SHAPE, [-1], 1), "stream indices"),
        (lambda: draw_fields(ErfNet(4), SHAPE, [0.5], 1), "rows must be integers"),
        (lambda: draw_fields(ErfNet(4), SHAPE, [0], -1), "seed"),
        (lambda: draw_fields(LocalNet(0.3, 0.2, poisson=False), (4,), [0], 1), "must be whole"),
        (lambda: draw_fields(FreeScalar(0.2), SHAPE, [0], 1), "a network is one of"),  # type: ignore[arg-type]
        (lambda: draw_points(CosNet(4, 0.2), [[1.0]], [0], 1), "only nets of inputs have values at points"),  # type: ignore[arg-type]
        (lambda: draw_points(ErfNet(4), [1.0], [0], 1), r"points must be finite \(n, d\)"),
    ]  # fmt: skip
    for call, words in bad:
        with pytest.raises(InputError, match=words):
            call()

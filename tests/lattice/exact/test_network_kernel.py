"""Networks of inputs: tables to their digits, kernels and four points by quadrature of another kind."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import erf

from lattice.actions.networks import CosNet, ErfNet, GaussNet, InputNet, ReluNet
from lattice.errors import InputError
from lattice.exact.network_kernel import (
    field_cumulants,
    joint_cumulant,
    kernel,
    neuron_cumulants,
    neuron_moments,
    one_over_width,
    preactivations,
    with_odd,
)
from lattice.statistics.cumulants import cumulants_from_moments

ERF = (
    (0.2, 0.4719929798, 0.3663314893, 0.0714104475, -2.300132),
    (0.6, 0.5220627094, 0.3871831904, -0.0525153529, -2.653548),
    (1.0, 0.5903344706, 0.3997964146, -0.2484836454, -2.690031),
)
JOINT = (
    ((1, 1, -1, -1), 0.6969895744),
    ((1, 0.6, 0.2, -0.2), 0.3460630968),
    ((-1, -0.6, 0.6, 1), 0.5268219186),
)
Activation = Callable[[np.ndarray, float], np.ndarray]
ACTIVATIONS: tuple[tuple[InputNet, Activation], ...] = (
    (ErfNet(1), lambda z, s: erf(z)),
    (GaussNet(1, sigma_hidden=0.7), lambda z, s: np.exp(z - s)),
    (ErfNet(1, sigma_hidden=0.4), lambda z, s: erf(z)),
)


def grid_mean(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], d: int, step: float, end: float
) -> float:
    """The mean of function(w (n, d), b (n,)) over independent unit normals, by the trapezoidal rule."""
    axis = np.arange(-end, end + step / 2, step)
    nodes = np.stack([x.ravel() for x in np.meshgrid(*[axis] * (d + 1), indexing="ij")], 1)
    weight = np.exp(-(nodes**2).sum(1) / 2) * (step / math.sqrt(2 * math.pi)) ** (d + 1)
    return float((weight * function(nodes[:, :d], nodes[:, d])).sum())


def product_of(law: InputNet, s: Activation, points: np.ndarray) -> Callable[..., np.ndarray]:
    d = points.shape[1]

    def found(w: np.ndarray, b: np.ndarray) -> np.ndarray:
        h = law.sigma_hidden
        values = [s(w @ x / math.sqrt(d) + h * b, h**2 + float(x @ x) / d) for x in points]
        return np.prod(values, axis=0)

    return found


@pytest.mark.parametrize("row", ERF, ids=lambda row: f"x={row[0]}")
def test_erf_to_the_digits_of_the_table(row: tuple[float, ...]) -> None:
    found = neuron_cumulants(ErfNet(5), [row[0]])
    for order, known, digits in zip((2, 4, 6, 8), row[1:], (1e-10, 1e-10, 1e-10, 1e-6), strict=True):
        assert found[order] == pytest.approx(known, abs=digits)


def test_relu_and_gauss_by_closed_form() -> None:
    for x in (0.3, 1.0, 2.0):
        known = {2: x**2 / 2, 4: 15 * x**4 / 4, 6: 82.5 * x**6, 8: 3661.875 * x**8}
        assert neuron_cumulants(ReluNet(3), [x]) == pytest.approx(known, rel=1e-12)
        s = 1 + x**2
        gauss = neuron_cumulants(GaussNet(3), [x])
        assert gauss[2] == pytest.approx(1, rel=1e-12)
        assert gauss[4] == pytest.approx(3 * math.exp(4 * s) - 3, rel=1e-12)
        assert gauss[6] == pytest.approx(15 * math.exp(12 * s) - 45 * math.exp(4 * s) + 30, rel=1e-12)
    assert neuron_cumulants(GaussNet(3), [0.0])[4] == pytest.approx(160.79445, abs=1e-5)
    assert neuron_cumulants(GaussNet(3), [0.0])[6] == pytest.approx(2.438895e6, rel=1e-6)
    found = field_cumulants(GaussNet(10), [0.0])
    assert (found[4], found[6]) == pytest.approx((16.079, 24388.9), rel=1e-4)


@pytest.mark.parametrize(("points", "known"), JOINT)
def test_four_points_to_the_digits_of_the_table(points: tuple[float, ...], known: float) -> None:
    for order in itertools.permutations(range(4)):
        x = np.array([points[i] for i in order])[:, None]
        assert joint_cumulant(ErfNet(7), x) == pytest.approx(known, abs=1e-10)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize(("law", "s"), ACTIVATIONS, ids=["erf", "gauss", "erf-0.4"])
def test_four_points_by_quadrature_in_the_weights(law: InputNet, s: Activation, d: int) -> None:
    points = np.array([[0.9, -0.3], [0.1, 0.7], [-0.6, 0.5], [0.4, 1.1]])[:, :d]
    end = 9.0 if isinstance(law, ErfNet) else 12.0

    def mean(of: list[int]) -> float:
        return grid_mean(product_of(law, s, points[of]), d, 0.2, end)

    pairs = mean([0, 1]) * mean([2, 3]) + mean([0, 2]) * mean([1, 3]) + mean([0, 3]) * mean([1, 2])
    known = 3 * mean([0, 1, 2, 3]) - pairs
    assert joint_cumulant(law, points) == pytest.approx(known, abs=1e-9)
    assert abs(joint_cumulant(law, 1.1 * points) - known) > 1e-3


def test_four_equal_points_are_one() -> None:
    for law in (ErfNet(2), ErfNet(2, "signs"), GaussNet(2, "signs"), ErfNet(2, sigma_hidden=0.0)):
        x = np.tile([[0.4, -0.8, 0.5]], (4, 1))
        assert joint_cumulant(law, x) == pytest.approx(neuron_cumulants(law, x[0])[4], rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("d", [1, 2])
def test_kernels_by_quadrature(d: int) -> None:
    points = np.array([[0.9, -0.3], [-0.6, 0.5]])[:, :d]
    for law, s in ACTIVATIONS:
        known = grid_mean(product_of(law, s, points), d, 0.2, 12.0)
        assert kernel(law, points[:1], points[1:])[0, 0] == pytest.approx(known, abs=1e-12)
    law = ReluNet(1, sigma_hidden=0.6)
    root = np.linalg.cholesky(preactivations(law, points, points))
    angle = 2 * math.pi * (np.arange(2**18) + 0.5) / 2**18  # of the two normal numbers; <r^2> = 2
    z = np.maximum(root @ np.stack([np.cos(angle), np.sin(angle)]), 0)
    assert kernel(law, points[:1], points[1:])[0, 0] == pytest.approx(2 * (z[0] * z[1]).mean(), abs=1e-9)


@pytest.mark.parametrize(
    "law", [ErfNet(3, sigma_b=0.5), ReluNet(3), ReluNet(3, sigma_hidden=1.0), GaussNet(3)]
)
def test_the_diagonal_of_the_kernel_is_kappa_2(law: InputNet) -> None:
    """Two ways to the same number, kernel and moments; and positive eigenvalues."""
    x = np.array([[0.3, 0.0, 1.0], [-0.5, 0.2, 0.1], [0.0, 0.0, 0.0], [2.0, 1.0, -1.0]])
    k = kernel(law, x, x)
    for i, point in enumerate(x):
        assert k[i, i] == pytest.approx(field_cumulants(law, point)[2], abs=1e-12)
        assert k[i, i] == pytest.approx(neuron_cumulants(law, point)[2] + law.sigma_b**2, abs=1e-12)
    np.testing.assert_allclose(k, k.T, atol=1e-14)
    assert np.linalg.eigvalsh(k)[0] > -1e-12


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_gauss_kernel_is_normalised_in_any_dimension(d: int) -> None:
    """K(x, x) = 1 + sigma_b^2. The exponent (4 + 4 x^2)/2d of a code in use divides the hidden bias by d too:
    its kernel is too large by e^(2 - 2/d) from d = 2 on."""
    x = np.linspace(-0.5, 0.8, d)
    law = GaussNet(5, sigma_b=1.0)
    assert kernel(law, [x], [x])[0, 0] == pytest.approx(2, rel=1e-14)
    y = x + 0.7
    assert kernel(law, [x], [y])[0, 0] - 1 == pytest.approx(math.exp(-0.49 / 2), rel=1e-12)
    s = 1 + float(x @ x) / d
    wrong = math.exp(2 * s) / math.exp((4 + 4 * float(x @ x)) / (2 * d))
    assert wrong == pytest.approx((1.0, 2.718282, 3.793668)[d - 1], abs=1e-6)


@pytest.mark.parametrize("law", [ErfNet(3), ReluNet(3), GaussNet(3)])
def test_rotations_of_the_inputs_change_nothing(law: InputNet) -> None:
    """w is isotropic: kernel and kappa_4 of rotated points are those of the points, of stretched ones not."""
    x = np.array([[0.9, -0.3], [0.1, 0.7], [-0.6, 0.5], [0.4, 1.1]])
    c, s = math.cos(0.7), math.sin(0.7)
    turned, stretched = x @ np.array([[c, -s], [s, c]]), x * np.array([1.3, 0.8])
    np.testing.assert_allclose(kernel(law, turned, turned), kernel(law, x, x), atol=1e-13)
    assert np.abs(kernel(law, stretched, stretched) - kernel(law, x, x)).max() > 0.01
    if not isinstance(law, ReluNet):
        assert joint_cumulant(law, turned) == pytest.approx(joint_cumulant(law, x), rel=1e-11)
        assert joint_cumulant(law, stretched) != pytest.approx(joint_cumulant(law, x), rel=1e-3)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_cumulants_fall_with_their_power_of_the_width(n: int) -> None:
    """kappa_2n N^(n-1) = c_2n at every N; with one factor for all neurons kappa_4 stays."""
    c = neuron_cumulants(ErfNet(1), [0.6])[2 * n]
    for width in (1, 2, 10, 1000):
        found = field_cumulants(ErfNet(width), [0.6])[2 * n]
        assert found == pytest.approx(c * width ** one_over_width(n), rel=1e-6, abs=1e-13)
    if n == 2:
        for width in (1, 10, 1000):
            found = field_cumulants(ErfNet(width, "correlated"), [0.6])
            # <c^4> = 2 of an exponential c^2, <f^4> = 3 kappa_2^2 + kappa_4 of independent neurons
            known = 2 * (3 * found[2] ** 2 + c / width) - 3 * found[2] ** 2
            assert found[4] == pytest.approx(known, rel=1e-12)
        assert found[4] / found[2] ** 2 == pytest.approx(3, abs=0.01)


def test_the_output_bias_is_in_kappa_2_only() -> None:
    plain, biased = (field_cumulants(ErfNet(3, sigma_b=b), [0.6]) for b in (0.0, 0.8))
    assert biased[2] - plain[2] == pytest.approx(0.64)
    assert [biased[n] for n in (4, 6, 8)] == [plain[n] for n in (4, 6, 8)]


def test_hermite_quadrature_would_not_do() -> None:
    """The moments are those of a fine uniform grid; 200 nodes of Hermite's rule miss c_8 of the table."""
    fine = [grid_mean(lambda w, b, m=m: erf(math.sqrt(2) * b) ** m, 0, 0.01, 12.0) for m in (2, 4, 6, 8)]
    np.testing.assert_allclose(neuron_moments(ErfNet(1, "signs"), 2.0), fine, rtol=1e-12)
    node, weight = np.polynomial.hermite_e.hermegauss(200)
    rough = [(weight * erf(math.sqrt(2) * node) ** m).sum() / weight.sum() for m in (2, 4, 6, 8)]
    for moments, good in ((fine, True), (rough, False)):
        weighted = np.array(moments) * (1, 3, 15, 105)
        found = cumulants_from_moments(with_odd(weighted))[7]
        assert bool(abs(found - neuron_cumulants(ErfNet(1), [1.0])[8]) < 1e-7) is good


def test_what_has_no_such_cumulant_is_refused() -> None:
    points = np.ones((4, 2))
    bad: list[tuple[Callable[[], Any], str]] = [
        (lambda: neuron_cumulants(ErfNet(3, "correlated"), [1.0]), "'correlated' has no 1/N law"),
        (lambda: joint_cumulant(GaussNet(3, "correlated"), points), "'correlated' has no 1/N law"),
        (lambda: joint_cumulant(ReluNet(3), points), "known for erf_net and gauss_net, not relu_net"),
        (lambda: joint_cumulant(ErfNet(3), points[:3]), r"four points \(4, d\), got shape \(3, 2\)"),
        (lambda: kernel(ErfNet(3), points, points[:, :1]), "as many inputs each, got 2 and 1"),
        (lambda: kernel(ErfNet(3), points[0], points), r"points must be finite \(n, d\)"),
        (lambda: kernel(ErfNet(3), np.nan * points, points), r"points must be finite \(n, d\)"),
        (lambda: kernel(InputNet(3), points, points), "closed forms are of erf_net, .*not InputNet"),
        (lambda: neuron_moments(ErfNet(3), -1.0), "variance of a pre-activation"),
        (lambda: one_over_width(0), "n >= 1"),
        (lambda: kernel(CosNet(3, 0.2), points, points), "a net of inputs is needed, not CosNet"),  # type: ignore[arg-type]
    ]  # fmt: skip
    for call, words in bad:
        with pytest.raises(InputError, match=words):
            call()

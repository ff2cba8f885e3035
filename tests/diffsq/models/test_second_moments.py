"""Second moments on a lattice: sums over symmetries written out, matrices of translations, the free field."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from own_actions import Own

from diffsq.models import second_moments as second
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.gaussian_rbm import lattice_kernel
from lattice.rng import normals

SHAPES = [(6,), (4, 4), (3, 5), (2, 3, 3)]


def fields(n: int, shape: tuple[int, ...]) -> Floats:
    return normals(1, "test/fields", np.arange(n), 0, math.prod(shape)).reshape(n, *shape)


def averaged(power: Floats) -> Floats:
    """Over reflections and permutations of equal axes, momentum by momentum."""
    shape, found = power.shape, np.zeros(power.shape)
    orders = [o for o in itertools.permutations(range(len(shape))) if [shape[a] for a in o] == list(shape)]
    images = list(itertools.product(orders, itertools.product((1, -1), repeat=len(shape))))
    for k in np.ndindex(shape):
        at = [tuple(sign * k[a] % shape[a] for a, sign in zip(o, s, strict=True)) for o, s in images]
        found[k] = np.mean([power[tuple(np.array(image))] for image in at])
    return found


def plane_waves(shape: tuple[int, ...]) -> np.ndarray:
    """exp(i k x)/sqrt(V), (V momenta, V sites), written out."""
    places = np.array(list(np.ndindex(shape)))
    phase = 2 * np.pi * (places[:, None] * places[None] / np.array(shape)).sum(-1)
    waves: np.ndarray = np.exp(1j * phase) / math.prod(shape) ** 0.5
    return waves


@pytest.mark.parametrize("shape", SHAPES)
def test_symmetrised_is_the_average_over_the_group(shape: tuple[int, ...]) -> None:
    power = fields(1, shape)[0] ** 2
    found = second.symmetrised(power)
    np.testing.assert_allclose(found, averaged(power), rtol=1e-13)
    np.testing.assert_allclose(second.symmetrised(found), found, rtol=1e-13)
    assert found.sum() == pytest.approx(power.sum())
    assert np.abs(found - power).max() > 0.05


def test_axes_of_other_extents_stay_apart() -> None:
    """Equal ones are one: G(k, 0) = G(0, k) of a square, not of 4 x 4 momenta beside 3 x 5."""
    square = second.symmetrised(fields(1, (4, 4))[0] ** 2)
    assert np.array_equal(square, square.T)
    slab = second.symmetrised(fields(1, (3, 5))[0] ** 2)
    np.testing.assert_allclose(slab[1, :], slab[2, :], rtol=1e-13)
    assert abs(slab[1, 0] - slab[0, 1]) > 0.01


@pytest.mark.parametrize("shape", SHAPES)
def test_the_power_is_that_of_plane_waves(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    phi = fields(11, shape)
    amplitudes = phi.reshape(11, -1) @ plane_waves(shape)
    known = averaged((np.abs(amplitudes) ** 2).mean(0).reshape(shape))
    np.testing.assert_allclose(second.power_of(phi), known, rtol=1e-12)
    monkeypatch.setattr(second, "CHUNK", 4)
    np.testing.assert_allclose(second.power_of(phi), known, rtol=1e-12)
    assert known.mean() == pytest.approx((phi**2).mean())  # Parseval


@pytest.mark.parametrize("shape", SHAPES)
def test_the_matrix_has_these_eigenvalues_on_plane_waves(shape: tuple[int, ...]) -> None:
    power = second.power_of(fields(5, shape))
    matrix, waves = second.circulant(power).numpy(), plane_waves(shape)
    np.testing.assert_allclose(waves @ matrix, power.reshape(-1, 1) * waves, atol=1e-12)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-14)
    whole = matrix.reshape(*shape, *shape)
    axes = tuple(range(len(shape)))
    moved = np.roll(whole, (1,) * 2 * len(shape), axes + tuple(len(shape) + a for a in axes))
    assert np.array_equal(moved, whole)


@pytest.mark.parametrize("shape", SHAPES)
def test_projected_is_the_inverse_of_the_matrix(shape: tuple[int, ...]) -> None:
    """Of data's own matrix it is the power; of one with a site apart, its mean in each plane wave."""
    phi = fields(7, shape)
    power = second.power_of(phi)
    np.testing.assert_allclose(second.projected(second.circulant(power), shape), power, rtol=1e-11)
    moments = second.data_second(phi)
    np.testing.assert_allclose(moments.numpy(), np.einsum("ni,nj->ij", *[phi.reshape(7, -1)] * 2) / 7)
    np.testing.assert_allclose(second.projected(moments, shape), power, rtol=1e-11)
    assert (second.circulant(power) - moments).abs().max() > 0.1  # data alone have no symmetry
    alone = torch.zeros_like(moments)
    alone[1, 1] = 1.0
    np.testing.assert_allclose(second.projected(alone, shape), 1 / math.prod(shape), rtol=1e-12)


@pytest.mark.parametrize("shape", [(6,), (4, 4), (4, 6), (2, 4, 4)])
def test_the_free_field_is_its_own_hessian(shape: tuple[int, ...]) -> None:
    """circulant(G) inverts the matrix of the force, and has the spectrum 1/K(p)."""
    action, size = FreeScalar(0.11), math.prod(shape)
    unit = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    hessian = action.grad(unit).reshape(size, size)
    power = second.exact_power(action, shape)
    moments = second.circulant(power)
    assert (hessian @ moments - torch.eye(size)).abs().max() < 1e-12
    values = torch.linalg.eigvalsh(moments).flip(0).numpy()
    np.testing.assert_allclose(1 / values, lattice_kernel(shape, 0.11), rtol=1e-12)
    assert (hessian @ second.circulant(second.exact_power(FreeScalar(0.12), shape)) - torch.eye(size)).abs(
    ).max() > 0.01  # fmt: skip
    np.testing.assert_allclose(second.exact_power(ScalarPhi4(0.11, 0.0), shape), power, rtol=1e-14)


def test_the_power_of_many_fields_is_the_propagator() -> None:
    """Each class of m momenta is known to sqrt(2/(m n)); degenerate modes are the same to the bit."""
    n, shape = 6000, (4, 4)
    power = second.exact_power(FreeScalar(0.2), shape)
    root = torch.linalg.cholesky(second.circulant(power)).numpy()
    phi = (fields(n, shape).reshape(n, 16) @ root.T).reshape(n, *shape)
    found = second.power_of(phi)
    size = np.array([(np.abs(power - g) < 1e-12).sum() for g in power.ravel()]).reshape(shape)
    error = power * np.sqrt(2 / (size * n))
    assert (np.abs(found - power) < 4.5 * error).all()
    assert (np.abs(found - second.exact_power(FreeScalar(0.22), shape)) > 10 * error).any()
    assert found[1, 0] == pytest.approx(found[0, 3], rel=1e-14)
    assert second.data_second(phi).diagonal().std() > 1e-3


def test_other_actions_have_no_exact_propagator() -> None:
    with pytest.raises(InputError, match="that of the free field, lam = 0"):
        second.exact_power(ScalarPhi4(0.2, 0.01), (4, 4))
    with pytest.raises(InputError, match="the exact propagator is of phi.4 only, not Own"):
        second.exact_power(Own(0.2, 0.0), (4, 4))

"""Per-configuration primaries against direct sums, symmetries and the free theory."""

import itertools
import math

import numpy as np
import pytest
import torch

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.observables.scalar import (
    definitions,
    longest_axes,
    mode_classes,
    momentum_classes,
    primaries,
    two_point_series,
    xi_second_moment,
)

ACTION = ScalarPhi4(kappa=0.27, lam=0.022)
SHAPES = [(6,), (4, 4), (8, 3), (4, 2, 4), (2, 3, 2, 3)]


def fields(n, shape, seed=1):
    return np.random.default_rng(seed).normal(size=(n, *shape)) + 0.3


def momentum_power(phi):
    """|phi~(k)|^2/V on all k."""
    axes = tuple(range(1, phi.ndim))
    return np.abs(np.fft.fftn(phi, axes=axes)) ** 2 / math.prod(phi.shape[1:])


def free_fields(n, shape, kappa, seed=2):
    """Exact samples of the free theory: white noise times sqrt G(k), G = 1/[2(1 - 2 kappa sum cos k)]."""
    k = np.meshgrid(*(2 * np.pi * np.arange(e) / e for e in shape), indexing="ij")
    g = 1 / (2 * (1 - 2 * kappa * sum(np.cos(x) for x in k)))
    axes = tuple(range(1, len(shape) + 1))
    noise = np.fft.fftn(np.random.default_rng(seed).normal(size=(n, *shape)), axes=axes)
    return np.fft.ifftn(noise * np.sqrt(g), axes=axes).real, g


@pytest.mark.parametrize("shape", SHAPES)
def test_primaries_against_direct_sums(shape):
    phi, volume = fields(5, shape), math.prod(shape)
    p = primaries(phi, ACTION)
    m = phi.reshape(5, -1).sum(axis=1) / volume
    np.testing.assert_allclose(p["m"], m)
    np.testing.assert_allclose(p["abs_m"], np.abs(m))
    for n in range(1, 9):
        np.testing.assert_allclose(p[f"m{n}"], m**n, rtol=1e-12)
        np.testing.assert_allclose(p[f"phi{n}"], np.sum(phi.reshape(5, -1) ** n, axis=1) / volume, rtol=1e-12)
    np.testing.assert_allclose(p["s"] * volume, ACTION.action(torch.from_numpy(phi)).numpy(), rtol=1e-13)
    power = momentum_power(phi)
    np.testing.assert_allclose(p["g0"], power.reshape(5, -1)[:, 0], rtol=1e-12)
    k1 = [tuple(1 if a == axis else 0 for a in range(len(shape))) for axis in longest_axes(shape)]
    np.testing.assert_allclose(p["g1"], np.mean([power[(slice(None), *k)] for k in k1], axis=0), rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_modes_against_the_fourier_transform(shape):
    """Moments of Re and Im phi~(k)/sqrt(V) over the class; a k with k = -k has a real part only."""
    phi, axes = fields(5, shape), tuple(range(1, len(shape) + 1))
    tilde = np.fft.fftn(phi, axes=axes) / math.sqrt(math.prod(shape))
    p, power = primaries(phi, ACTION), momentum_power(phi)
    for name, members in mode_classes(shape).items():
        pairs = {min(n, tuple(-i % e for i, e in zip(n, shape))) for n in members}
        real = [n for n in pairs if all(2 * i % e == 0 for i, e in zip(n, shape))]
        first = {n for n in members if n in pairs}
        assert len(first) == len(pairs)
        total = sum(power[(slice(None), *n)] for n in members)
        np.testing.assert_allclose(
            p[f"{name}_2"] * (2 * len(pairs) - len(real)),
            0.5 * (total + sum((power[(slice(None), *n)] for n in real), 0.0)),
        )
        for n in (4, 6, 8):
            parts = [tilde[(slice(None), *k)].real ** n for k in pairs]
            parts += [tilde[(slice(None), *k)].imag ** n for k in pairs if k not in real]
            np.testing.assert_allclose(p[f"{name}_{n}"], np.mean(parts, axis=0), rtol=1e-9)


def test_modes_of_a_plane_wave():
    x = np.indices((8, 8))
    phase = 2 * np.pi * (x[0] + x[1]) / 8
    p = primaries((3 * np.cos(phase) + np.sin(phase))[None], ACTION)
    # phi~(1,1) = V/2 (3 - i), the other modes of the class vanish: odd moments keep their sign
    scale = 8 / 2
    np.testing.assert_allclose(p["k2_1"], scale * (3 - 1) / 4)
    np.testing.assert_allclose(p["k2_3"], scale**3 * (27 - 1) / 4)
    np.testing.assert_allclose(p["k1_2"], 0, atol=1e-12)


def test_mode_classes_of_tiny_lattices():
    assert mode_classes((1, 1)) == {}
    assert {k: v[0] for k, v in mode_classes((2, 2)).items()} == {"k1": (1, 0), "k2": (1, 1)}
    assert list(mode_classes((2,))) == ["k1"]
    assert "kappa4" in definitions((1, 1), True)
    assert "kappa4_k1" not in definitions((1, 1), True)


def test_ratios_with_exact_odd_moments_are_for_even_laws():
    offered = set(definitions((4, 4), True)) - set(definitions((4, 4), False))
    assert offered == {f"kappa{n}{law}_ratio_z2" for n in (4, 6, 8) for law in ("", "_m", "_k1", "_k2")}


def test_primaries_do_not_depend_on_the_chunking(monkeypatch):
    phi = fields(7, (4, 4))
    whole, (g, c, _) = primaries(phi, ACTION), two_point_series(phi)
    monkeypatch.setattr("lattice.observables.scalar._CHUNK_SITES", 48)
    for name, x in primaries(phi, ACTION).items():
        np.testing.assert_allclose(x, whole[name], rtol=1e-13)
    np.testing.assert_allclose(two_point_series(phi)[0], g)
    np.testing.assert_allclose(two_point_series(phi)[1], c)


@pytest.mark.parametrize("shape", SHAPES)
def test_translations_reflections_and_sign(shape):
    phi = fields(3, shape)
    p = primaries(phi, ACTION)
    moved = np.flip(np.roll(phi, 1, axis=1), axis=-1)
    for name, x in primaries(moved, ACTION).items():
        if name[0] != "k" or name in ("k1_2", "k2_2"):  # a translation rotates Re into Im phi~(k)
            np.testing.assert_allclose(x, p[name], rtol=1e-10, atol=1e-12)
    odd = {"m"} | {f"{kind}{n}" for kind in ("m", "phi", "k1_", "k2_") for n in (1, 3, 5, 7)}
    for name, x in primaries(-phi, ACTION).items():
        np.testing.assert_allclose(x, -p[name] if name in odd else p[name], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_correlator_is_the_direct_sum_and_sums_to_g0(shape):
    phi, volume = fields(2, shape), math.prod(shape)
    _, c, _ = two_point_series(phi)
    axes, length = longest_axes(shape), max(shape)
    assert c.shape == (2, length // 2 + 1)
    for t in range(c.shape[1]):
        direct = []
        for axis in axes:
            slices = phi.sum(axis=tuple(1 + a for a in range(len(shape)) if a != axis))
            direct.append(np.sum(slices * np.roll(slices, -t, axis=1), axis=1) / volume)
        np.testing.assert_allclose(c[:, t], np.mean(direct, axis=0), rtol=1e-10)
    copies = [1 if t == 0 or 2 * t == length else 2 for t in range(c.shape[1])]
    np.testing.assert_allclose(c @ copies, primaries(phi, ACTION)["g0"], rtol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_momentum_classes_partition_the_momenta_by_symmetry(shape):
    classes = momentum_classes(shape)
    everything = [n for members in classes for n in members]
    assert sorted(everything) == sorted(itertools.product(*(range(e) for e in shape)))
    g = two_point_series(fields(3, shape))[0]
    multiplicity = np.array([len(members) for members in classes])
    # Parseval: sum_k |phi~|^2/V = sum_x phi^2
    np.testing.assert_allclose(g @ multiplicity, np.sum(fields(3, shape).reshape(3, -1) ** 2, axis=1))


def test_fewer_classes_are_the_lowest():
    phi = fields(3, (6, 4))
    g, _, classes = two_point_series(phi, 5)
    everything, _, all_classes = two_point_series(phi)
    assert classes == all_classes[:5]
    np.testing.assert_allclose(g, everything[:, :5], rtol=1e-12)
    power = momentum_power(phi)
    for i, members in enumerate(all_classes):
        mean = np.mean([power[(slice(None), *n)] for n in members], axis=0)
        np.testing.assert_allclose(everything[:, i], mean, rtol=1e-10)


def test_classes_of_a_rectangle_keep_its_axes_apart():
    first = {members[0]: len(members) for members in momentum_classes((8, 4))}
    assert first[(1, 0)] == 2
    assert first[(0, 1)] == 2
    assert (0, 1) not in {members[0] for members in momentum_classes((4, 4))}


@pytest.mark.parametrize("shape", [(8, 8), (12, 4)])
def test_free_propagator_and_xi(shape):
    kappa = 0.22
    phi, exact = free_fields(20000, shape, kappa)
    g, _, classes = two_point_series(phi)
    mean, error = g.mean(axis=0), g.std(axis=0) / math.sqrt(len(g))
    pulls = [(mean[i] - exact[members[0]]) / error[i] for i, members in enumerate(classes)]
    assert np.max(np.abs(pulls)) < 4.5
    p = primaries(phi, FreeScalar(kappa))
    volume = math.prod(shape)
    assert p["s"].mean() == pytest.approx(0.5, abs=4 * p["s"].std() / math.sqrt(len(phi)))  # <S> = V/2
    assert p["s"].var() * volume == pytest.approx(0.5, rel=4 * math.sqrt(2 / len(phi)))
    # xi_2nd of the free theory is 1/m with m^2 = (1 - 4 kappa)/kappa, exactly
    xi = xi_second_moment(exact[0, 0], exact[1, 0], shape[0])
    assert xi == pytest.approx(math.sqrt(kappa / (1 - 4 * kappa)), rel=1e-12)


def test_xi_is_undefined_without_a_decay():
    assert math.isnan(xi_second_moment(1.0, 1.0, 8))
    assert math.isnan(xi_second_moment(0.5, 1.0, 8))
    assert math.isnan(xi_second_moment(1.0, 1.0, 1))


def test_bad_fields_are_refused():
    phi = fields(4, (4, 4))
    phi[2, 1, 1] = math.nan
    for use in (lambda: primaries(phi, ACTION), lambda: two_point_series(phi)):
        with pytest.raises(InputError, match="1 of 4 configurations, first in configuration 2"):
            use()
    with pytest.raises(InputError, match="non-empty"):
        primaries(np.empty((0, 4, 4)), ACTION)
    with pytest.raises(InputError, match=r"\(n, \*shape\)"):
        primaries(np.ones(4), ACTION)

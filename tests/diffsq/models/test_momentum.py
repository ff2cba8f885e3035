"""Momentum bookkeeping against the full Fourier transform and explicit covariance matrices."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from fields import free_fields, hessian, white
from scipy.stats import multivariate_normal

from diffsq.models.momentum import N_SMOOTH_G, Momenta, propagator, smooth_propagator
from lattice.actions.phi4 import FreeScalar
from lattice.exact.scalar import free_propagator

SHAPES = [(8, 8), (16, 8), (8, 16), (4, 6), (5, 5), (3, 7), (6, 5), (9,), (3, 4, 4)]


def label(n: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """What a class is, said independently: |n_mu|, sorted among axes of equal length."""
    steps = [min(a, extent - a) for a, extent in zip(n, shape, strict=True)]
    return tuple(
        sorted(s for s, e in zip(steps, shape, strict=True) if e == extent)[
            [mu for mu, e in enumerate(shape) if e == extent].index(axis)
        ]
        for axis, extent in enumerate(shape)
    )


def variance_of(p: Momenta) -> torch.Tensor:
    """A per-class variance of no particular symmetry beyond the classes, spread over two decades."""
    return torch.exp(2 * torch.sin(1.7 * torch.arange(p.n_class, dtype=torch.float64)))


def covariance(p: Momenta, variance: torch.Tensor) -> torch.Tensor:
    """(V, V) covariance in position space, from v(k) by a plain double sum over momenta and sites."""
    sites = list(itertools.product(*[range(extent) for extent in p.shape]))
    v = dict(zip(classes(p), variance.tolist(), strict=True))
    k = 2 * np.pi * np.array(sites) / np.array(p.shape)
    phase = np.exp(1j * k @ np.array(sites).T)
    per_mode = np.array([v[label(n, p.shape)] for n in sites])
    return torch.from_numpy((phase.conj().T @ (per_mode[:, None] * phase)).real / p.volume)


def classes(p: Momenta) -> list[tuple[int, ...]]:
    """Label of each class, read off `index`."""
    found: dict[int, tuple[int, ...]] = {}
    for n in np.ndindex(*p.index.shape):
        found.setdefault(int(p.index[n]), label(n, p.shape))
    return [found[c] for c in range(p.n_class)]


@pytest.mark.parametrize("shape", SHAPES)
def test_parseval_and_inverse(shape: tuple[int, ...]) -> None:
    p, x = Momenta(shape), white(shape, 3, 1)
    xk = p.modes(x)
    norm = (x**2).flatten(1).sum(1)
    torch.testing.assert_close(p.total(xk.abs() ** 2), norm, rtol=1e-13, atol=0)
    torch.testing.assert_close(p.fields(xk), x, rtol=0, atol=1e-13)
    # without the weights half of the spectrum is missing
    assert ((xk.abs() ** 2).flatten(1).sum(1) < 0.9 * norm).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_count_every_mode_once(shape: tuple[int, ...]) -> None:
    p = Momenta(shape)
    assert float(p.weight.sum()) == float(p.multiplicity.sum()) == math.prod(shape)
    labels = [label(n, shape) for n in np.ndindex(*shape)]
    assert p.n_class == len(set(labels))
    assert len(set(classes(p))) == p.n_class
    assert p.multiplicity.tolist() == [labels.count(c) for c in classes(p)]
    torch.testing.assert_close(p.class_sum(p.weight), p.multiplicity)


@pytest.mark.parametrize("shape", SHAPES)
def test_class_mean_is_the_mean_over_the_full_spectrum(shape: tuple[int, ...]) -> None:
    p, x = Momenta(shape), white(shape, 1, 2)
    full = np.abs(np.fft.fftn(x[0].numpy())) ** 2 / p.volume
    khat2: dict[tuple[int, ...], set[float]] = {}
    power: dict[tuple[int, ...], list[float]] = {}
    for n in np.ndindex(*shape):
        power.setdefault(label(n, shape), []).append(full[n])
        k2 = sum(4 * math.sin(math.pi * a / e) ** 2 for a, e in zip(n, shape, strict=True))
        khat2.setdefault(label(n, shape), set()).add(round(k2, 9))
    brute = torch.tensor([np.mean(power[c]) for c in classes(p)])
    torch.testing.assert_close(p.power(x)[0], brute, rtol=1e-12, atol=0)
    assert all(len(values) == 1 for values in khat2.values())
    one = torch.tensor([next(iter(khat2[c])) for c in classes(p)], dtype=torch.float64)
    torch.testing.assert_close(p.khat2, one, rtol=0, atol=1e-8)
    torch.testing.assert_close(p.class_mean(p.expand(brute)), brute, rtol=1e-13, atol=0)


def test_axes_are_exchanged_only_where_they_are_equal() -> None:
    square, strip = Momenta((8, 8)), Momenta((16, 8))
    assert square.index[1, 2] == square.index[2, 1] == square.index[7, 2]
    assert strip.index[1, 2] != strip.index[2, 1]
    assert strip.index[1, 2] == strip.index[15, 2]
    assert square.n_class == 15
    assert strip.n_class == 9 * 5


@pytest.mark.parametrize("shape", [(4, 4), (4, 6), (3, 5)])
def test_log_normal_is_the_multivariate_normal(shape: tuple[int, ...]) -> None:
    p, x = Momenta(shape), white(shape, 5, 3)
    variance = variance_of(p)
    law = multivariate_normal(np.zeros(p.volume), covariance(p, variance).numpy())
    truth = torch.from_numpy(law.logpdf(x.flatten(1).numpy()))
    torch.testing.assert_close(p.log_normal(p.modes(x), variance), truth, rtol=1e-11, atol=0)
    assert (p.log_normal(p.modes(x), 1.01 * variance) - truth).abs().min() > 1e-3


@pytest.mark.parametrize("shape", [(4, 4), (4, 6), (5, 3)])
def test_colour_gives_the_covariance_asked_for(shape: tuple[int, ...]) -> None:
    p, n = Momenta(shape), 40_000
    variance = variance_of(p)
    x = p.colour(white(shape, n, 4), variance)
    error = variance * torch.sqrt(2 / (p.multiplicity * n))
    measured = propagator(p, x)
    assert ((measured - variance) / error).abs().max() < 4.5
    assert ((measured - 1.2 * variance) / error).abs().min() > 10
    truth = covariance(p, variance)
    sample = x.flatten(1).T @ x.flatten(1) / n
    spread = torch.sqrt((truth**2 + truth.diagonal()[:, None] * truth.diagonal()) / n)
    assert ((sample - truth) / spread).abs().max() < 5  # 400-odd correlated entries


@pytest.mark.parametrize(("kappa", "shape"), [(0.24, (8, 8)), (0.2, (16, 8)), (-0.2, (4, 6)), (0.22, (5, 7))])
def test_propagator_of_a_free_field(kappa: float, shape: tuple[int, ...]) -> None:
    """Draws made in position space with the action's matrix; truth in closed form in momentum space."""
    p, n, action = Momenta(shape), 20_000, FreeScalar(kappa)
    truth = torch.from_numpy(free_propagator(kappa, shape))[..., : shape[-1] // 2 + 1]
    per_class = p.class_mean(truth)
    torch.testing.assert_close(p.expand(per_class), truth, rtol=1e-12, atol=0)
    torch.testing.assert_close(  # the same statement without Monte Carlo: covariance = inverse of the matrix
        covariance(p, per_class), torch.linalg.inv(hessian(action, shape)), rtol=1e-9, atol=1e-11
    )
    phi = free_fields(action, shape, n, 5)
    measured, error = propagator(p, phi), per_class * torch.sqrt(2 / (p.multiplicity * n))
    assert ((measured - per_class) / error).abs().max() < 4.5
    wrong = p.class_mean(torch.from_numpy(free_propagator(0.9 * kappa, shape))[..., : shape[-1] // 2 + 1])
    assert ((measured - wrong) / error).abs().max() > 10


def test_propagator_keeps_the_mean_and_ignores_the_chunks() -> None:
    p, x = Momenta((4, 6)), white((4, 6), 101, 6)
    torch.testing.assert_close(propagator(p, x, chunk=7), propagator(p, x), rtol=1e-13, atol=0)
    shifted = propagator(p, x + 2.0) - propagator(p, x)
    zero = torch.tensor(2.0) ** 2 * p.volume + 2 * 2.0 * x.mean(0).sum()
    torch.testing.assert_close(shifted[0], zero.double(), rtol=1e-10, atol=0)
    assert shifted[1:].abs().max() < 1e-12


def nats(p: Momenta, g: torch.Tensor, known: torch.Tensor) -> float:
    """KL(known || g) of Gaussian fields, k = 0 left out."""
    ratio = known / g
    return float(0.5 * (p.multiplicity * (ratio - 1 - ratio.log()))[1:].sum())


def measured(p: Momenta, known: torch.Tensor, n: int, seed: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """G of n fields and of their halves."""
    fields = p.colour(white(p.shape, n, seed), known)
    return propagator(p, fields), [propagator(p, q) for q in fields.chunk(2)]


def smooth(p: Momenta, known: torch.Tensor, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """G of n fields, and the smooth one."""
    g, (one, other) = measured(p, known, n, seed)
    return g, smooth_propagator(p, g, (one, other))


@pytest.mark.parametrize(("shape", "m2"), [((32, 32), 0.01), ((32, 32), 1.0), ((64, 8), 0.05)])
def test_a_smooth_propagator_has_less_noise(shape: tuple[int, ...], m2: float) -> None:
    """n_class/2n nats of noise for n fields become those of as many numbers as are fitted."""
    p, n = Momenta(shape), 400
    known = 1 / (m2 + p.khat2 + 0.1 * p.khat4)
    half, other = measured(p, known, 2, 0)[1]
    assert nats(p, smooth_propagator(p, known, (half, other)), known) < 1e-3
    both = [smooth(p, known, n, seed) for seed in range(8)]
    assert all(g[0] == q[0] for g, q in both)
    raw, less = (np.mean([nats(p, pair[i], known) for pair in both]) for i in (0, 1))
    assert raw == pytest.approx((p.n_class - 1) / (2 * n), rel=0.3)
    assert less == pytest.approx((N_SMOOTH_G + 1) / (2 * n), rel=0.6)


@pytest.mark.parametrize("m2", [0.03, 0.3])
def test_what_is_not_smooth_in_k2_is_left_as_measured(m2: float) -> None:
    """kappa < 0: G is largest at (pi, pi), and a polynomial in ln k^2 would lose it."""
    p = Momenta((32, 32))
    known = 1 / (m2 + 8 - p.khat2)
    g, found = smooth(p, known, 40_000, 1)
    assert found is g
    little = smooth_propagator(p, g, tuple(measured(p, known, 8, 2)[1]))  # halves that know no better
    assert nats(p, little, known) > 10 * nats(p, g, known)


def test_few_classes_and_absent_modes_are_left_as_they_are() -> None:
    p = Momenta((8, 8))
    g = 1 / (0.1 + p.khat2)
    assert smooth_propagator(p, g, (g, g)) is g
    p = Momenta((32, 32))
    g = 1 / (0.1 + p.khat2)
    for wrong in (0.0, -1.0, math.nan):
        bad = g.clone()
        bad[7] = wrong
        assert smooth_propagator(p, bad, (g, g)) is bad
        assert smooth_propagator(p, g, (bad, g)) is g

"""Features of noisy fields: their definitions term by term, bounds, and lattice symmetries."""

from __future__ import annotations

import math

import pytest
import torch
from fields import white
from torch import Tensor

from diffsq.models.features import ODD, SATURATION, SECTOR, Features, bounded
from diffsq.models.momentum import Momenta
from diffsq.models.regression import RegressionBase
from lattice.actions.phi4 import ScalarPhi4


def base_of(shape: tuple[int, int], sector: bool = False) -> RegressionBase:
    base = RegressionBase(Momenta(shape), 3, sector)
    p = base.momenta
    base.set_gaussian(1 / (0.3 + p.khat2), 0.1, 10.0)
    base.set_action(ScalarPhi4(0.3, 0.4), 3.0)
    base.centre.fill_(0.7 if sector else 0.0)
    base.coefficients.copy_(white((p.n_class, base.n_feature), 3, 51) / 10)
    base.zero_mode.fit(white((), 1000, 52))
    return base


def circulant(kernel: Tensor, q: Tensor) -> Tensor:
    """sum_y K(x - y) q(y), site by site."""
    out = torch.zeros_like(q)
    for i in range(q.shape[1]):
        for j in range(q.shape[2]):
            out += kernel[i, j] * q.roll((i, j), (1, 2))
    return out


@pytest.mark.parametrize("sector", [False, True])
@pytest.mark.parametrize("sigma", [0.2, 1.5])
def test_features_are_what_their_terms_say(sector: bool, sigma: float) -> None:
    """Powers, mean fields, and the trees with the posterior covariance C."""
    base, s = base_of((6, 4), sector), torch.tensor([sigma], dtype=torch.float64)
    p, terms = base.momenta, SECTOR if sector else ODD
    x = 1.5 * white((6, 4), 5, 1)
    w, c = (p.expand(q[0]) for q in base.wiener(s))
    mu = p.fields(w * p.modes(x))
    scale = (p.total(w * p.expand(base.g)) / p.volume).sqrt()
    u = mu * (1 / scale).float()  # a number that float32 holds
    v, m = 3 * torch.tanh(u / 3), 3 * torch.tanh(u.mean((1, 2), keepdim=True) / 3)
    tree = c / (p.total(c) / p.volume)
    tree[0, 0] = tree.flatten()[1:].max()
    kernel = p.fields(tree + 0j) / math.sqrt(p.volume)
    found = Features(base.filters(s, torch.float64), p.modes(x)).stack()
    assert found.shape == (5, len(terms) + 1, 6, 3)
    for j, term in enumerate(terms):
        known = v**term.v * m**term.m
        if term.inner:
            known = v**term.v * circulant(kernel, v**term.inner)
        assert (p.fields(found[:, j]) - known).abs().max() < 1e-12 * known.abs().max(), term
        assert (p.fields(found[:, j]) - 1.01 * known).abs().max() > 1e-4 * known.abs().max(), term
    filters = base.filters(s, torch.float64)
    assert filters.site is not None
    known = filters.site.iterate(x + base.centre, mu + base.centre)[0][:, -1]
    assert (p.fields(found[:, -1]) - known).abs().max() < 1e-12 * known.abs().max()
    assert known.abs().max() > 1e-6
    # the base has them in single precision, and one of the zero mode alone
    all_features = base.features(p.modes(x), s)
    assert all_features.shape == (5, base.n_feature, 6, 3)
    assert (all_features[:, :-1] - found).abs().max() < 1e-4 * found.abs().max()
    own = base.zero_mode(p.modes(x)[:, 0, 0].real, s) - w[0, 0] * p.modes(x)[:, 0, 0].real
    torch.testing.assert_close(
        all_features[:, -1, 0, 0].real.double(), own / c[0, 0].sqrt(), rtol=1e-5, atol=1e-6
    )
    assert not all_features[:, -1].flatten(1)[:, 1:].any()


def test_features_are_odd_and_bounded() -> None:
    base = base_of((6, 8))
    p, s = base.momenta, torch.ones(1).double()
    x = 3 * white((6, 8), 16, 31)
    f = base.features(p.modes(x), s)
    assert base.n_feature == len(ODD) + 2
    assert (base.features(-p.modes(x), s) + f).abs().max() < 1e-6 * f.abs().max()
    sums = float(base.filters(s).tree.max())
    most = SATURATION ** max(t.v + t.m + t.inner for t in ODD) * max(1.0, sums) * math.sqrt(p.volume)
    for size in (1e2, 1e6):
        terms = base.features(size * p.modes(x), s)[:, : len(ODD)]
        assert terms.abs().max() <= 1.001 * most
        assert terms.abs().amax((0, 2, 3)).min() > 0.1
    assert bounded(torch.tensor(1e9)) == SATURATION
    assert (1e2 * x).pow(3).abs().max() > 1e6  # a bare cubic is not


@pytest.mark.parametrize("sector", [False, True])
def test_levels_of_their_own_are_those_of_each_sample(sector: bool) -> None:
    """sigma (n,) is (1,) for each sample, tables and kernels too."""
    base = base_of((6, 4), sector)
    xk, sigma = base.momenta.modes(white((6, 4), 5, 2)), torch.logspace(-1, 1, 5, dtype=torch.float64)
    together, c = base.features(xk, sigma), base(xk, sigma)
    for i in range(5):
        alone = base.features(xk[i : i + 1], sigma[i : i + 1])
        assert (together[i] - alone[0]).abs().max() < 3e-6 * alone.abs().max()
        assert (c[i] - base(xk[i : i + 1], sigma[i : i + 1])[0]).abs().max() < 3e-6 * c[i].abs().max()
    a = base.momenta.expand(base.at(base.coefficients, sigma).transpose(1, 2))
    assert ((a * together).sum(1) - c).abs().max() < 1e-5 * c.abs().max()


@pytest.mark.parametrize("shape", [(8, 8), (12, 6)])
def test_base_commutes_with_the_lattice_symmetries(shape: tuple[int, int]) -> None:
    base = base_of(shape)
    p = base.momenta
    x, sigma = white(shape, 16, 53), torch.logspace(-1, 1, 16, dtype=torch.float64)
    out = p.fields(base(p.modes(x), sigma))
    moves = {
        "translation": lambda q: q.roll((3, 1), (1, 2)),
        "reflection 0": lambda q: q.flip(1),
        "reflection 1": lambda q: q.flip(2),
    }
    if shape[0] == shape[1]:
        moves["exchange"] = lambda q: q.transpose(1, 2)
    for name, move in moves.items():
        there = p.fields(base(p.modes(move(x)), sigma))
        assert (there - move(out)).abs().max() < 3e-5 * out.abs().max(), name
        assert (there - out).abs().max() > 0.1 * out.abs().max(), name

"""The joint least squares of many theories: the equations, and a fit that finds what was put in."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from small_family import KAPPAS, LAM, free_family, free_fields

from diffsq.models.family import Frame
from diffsq.models.momentum import Momenta
from diffsq.models.regression import least_squares
from diffsq.training.family import Member, fit_family, normal_equations
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator


def frame(n_sigma: int, n_class: int, seed: int) -> Frame:
    g = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64) + 0.5

    return Frame(some(2), some(3, n_sigma), some(2, n_class), some(n_sigma, 4))


def test_coefficients_that_are_smooth_are_found() -> None:
    """Two theories, sums of data whose right-hand side has known coefficients."""
    g = torch.Generator().manual_seed(1)
    n_sigma, n_class, n = 6, 5, 5  # four features and the control variate
    truth = torch.randn(2, 3, 2, n, generator=g, dtype=torch.float64)
    matrix = right = torch.zeros((), dtype=torch.float64)
    for seed in (1, 2, 3, 4):
        f = frame(n_sigma, n_class, seed)
        data = torch.randn(n_sigma, n_class, 40, n, generator=g, dtype=torch.float64)
        unit = torch.cat([f.unit, torch.ones(n_sigma, 1, dtype=torch.float64)], 1)
        own = torch.einsum("y,as,bk,si,yabi->ski", f.theory, f.r, f.t, unit, truth)
        target = torch.einsum("skni,ski->skn", data, own)
        rows = torch.cat([data, target[..., None]], -1)
        weight = torch.rand(n_sigma, n_class, generator=g, dtype=torch.float64) + 0.1
        a, b = normal_equations(rows.mT @ rows, weight, f)
        theory = torch.outer(f.theory, f.theory)
        matrix = matrix + torch.einsum("xy,ij->xiyj", theory, a)
        right = right + torch.outer(f.theory, b)
    size = right.numel()
    found = torch.linalg.solve(matrix.reshape(size, size), right.flatten()).reshape(truth.shape)
    assert float((found - truth).abs().max()) < 1e-6
    smooth = least_squares(matrix.reshape(size, size), right.flatten()).reshape(truth.shape)
    assert float((smooth - truth).abs().max()) < 0.1  # its ridge


def test_a_member_is_measured() -> None:
    ensemble = free_fields(0.2, 8)
    member = Member.of(lambda: ensemble)
    momenta = Momenta((8, 8))
    assert (member.kappa, member.lam, member.size) == (0.2, LAM, 8)
    assert torch.allclose(member.g, momenta.power(torch.from_numpy(ensemble.phi)).mean(0))
    assert member.numbers[0] == pytest.approx(math.log(float(member.g[0])))
    m = ensemble.phi.mean((1, 2))
    assert member.rho == pytest.approx(abs(m).mean() ** 2 / (m**2).mean())
    assert math.exp(member.numbers[3]) == pytest.approx(1.2 * abs(ensemble.phi).max())
    assert float(member.error[0] / member.g[0]) == pytest.approx(math.sqrt(2 / len(m)), rel=0.6)


def test_the_fit_knows_the_couplings_that_it_was_given() -> None:
    table = free_family().couplings
    assert table.kappa.tolist() == [list(KAPPAS)]
    assert table.sizes.tolist() == [4, 8]
    assert table.largest == 16
    for sector in (False, True):
        for zero in (False, True):
            assert bool(torch.isfinite(free_family().weights(sector, zero)).all())
    assert float(free_family().weights(True, False).abs().max()) == 0  # no ensemble has two peaks


def line(lam: float, kappas: tuple[float, ...]) -> list[Any]:
    """Free fields that are said to be of this lam."""

    def read(kappa: float, size: int) -> Ensemble:
        free = free_fields(kappa, size, 1024)
        return Ensemble.from_fields(free.phi, ScalarPhi4(kappa, lam), chain=free.chain)

    return [partial(read, kappa, size) for size in (4, 8) for kappa in kappas]


def test_two_lines_of_unequal_length_are_one_family() -> None:
    reads = line(1e-6, (0.1, 0.14, 0.18, 0.22)) + line(2e-6, (0.1, 0.14, 0.18, 0.215))
    family = fit_family(reads, sigma_min=0.2, n_sigma=16, n_fit=64, seed=3)
    for lam in (1e-6, 1.4e-6, 2e-6):
        point = family.couplings.at(0.17, lam, 8)
        exact = float(free_propagator(0.17, (8, 8)).real[0, 0])
        assert abs(math.log(point.g0 / exact)) < 0.15
        assert family.at(0.17, lam, 16).shape == (16, 16)


def test_lines_with_and_without_a_crossover_are_refused() -> None:
    reads = line(1e-6, (0.1, 0.14, 0.18, 0.22)) + line(2e-6, (0.24, 0.245, 0.248, 0.2499))
    with pytest.raises(InputError, match="1 of 2 lines have no crossover .* lam = 1e-06"):
        fit_family(reads, sigma_min=0.2, n_sigma=16, n_fit=64, seed=3)

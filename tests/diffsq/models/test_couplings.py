"""The numbers of a theory between and beyond those that were measured: exact for free fields."""

from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import pytest
import torch

from diffsq.models.couplings import Couplings, lowest
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator

KAPPAS = np.linspace(0.1, 0.24, 15)
SIZES = (8, 16, 32)


def numbers(kappa: float, size: int) -> list[float]:
    g = free_propagator(kappa, (size, size)).real
    return [math.log(g[0, 0]), math.log(g[0, 1]), math.log(1 - 2 / math.pi), math.log(4.0)]


def free_table(lams: tuple[float, ...] = (0.02,), sizes: tuple[int, ...] = SIZES) -> Couplings:
    """Of free fields at every lam, whose kappa is shifted by lam."""
    table = Couplings(len(lams), len(KAPPAS), len(sizes))
    table.lam.copy_(torch.tensor(lams, dtype=torch.float64))
    table.sizes.copy_(torch.tensor(sizes, dtype=torch.float64))
    for i, lam in enumerate(lams):
        table.kappa[i] = torch.tensor(KAPPAS + lam)
        for j, size in enumerate(sizes):
            rows = [numbers(float(k), size) for k in KAPPAS]
            table.values[i, j] = torch.tensor(rows, dtype=torch.float64)
    return table


def off(table: Couplings, kappa: float, size: int, lam: float = 0.02) -> float:
    """Largest error of ln G(0) and ln G(2 pi/L)."""
    p, (g0, g1, *_) = table.at(kappa + lam, lam, size), numbers(kappa, size)
    return max(abs(math.log(p.g0) - g0), abs(math.log(p.g1) - g1))


@pytest.mark.parametrize("size", SIZES)
def test_at_the_nodes_the_numbers_are_those_measured(size: int) -> None:
    assert off(free_table(), float(KAPPAS[5]), size) < 1e-12


@pytest.mark.parametrize(("size", "most"), [(8, 2e-3), (32, 2e-3), (64, 3e-3), (24, 0.03), (48, 0.03)])
def test_free_fields_between_the_couplings_and_beyond_the_sizes(size: int, most: float) -> None:
    assert off(free_table(), 0.207, size) < most


def test_twice_the_size_from_the_wrong_pair_is_far_off() -> None:
    wrong = free_table()
    wrong.values[:, [1, 2]] = wrong.values[:, [2, 1]]
    assert off(wrong, 0.207, 64) > 20 * off(free_table(), 0.207, 64)


def test_sizes_that_are_no_doubling_know_nothing_beyond() -> None:
    table = free_table(sizes=(8, 12))
    assert table.largest == 12
    assert free_table().largest == 64
    with pytest.raises(InputError, match=r"L = 8 to 12"):
        table.at(0.2, 0.02, 24)


def test_lines_of_lam_meet_their_own_numbers_and_those_between() -> None:
    lams = (0.01, 0.02, 0.04)
    table = free_table(lams)
    for lam in (*lams, 0.015):  # every line is the same theory, shifted by lam
        assert off(table, 0.2, 16, lam) < (1e-9 if lam in lams else 2e-2)
    assert table.weights(0.02).tolist() == [0.0, 1.0, 0.0]
    assert float(table.weights(0.03).sum()) == pytest.approx(1)


def test_a_point_says_what_it_is_known_from() -> None:
    beyond, inside = (free_table().at(0.22, 0.02, size) for size in (64, 16))
    assert (beyond.known, inside.known) == (32, 16)
    assert beyond.rho == pytest.approx(2 / math.pi)
    assert beyond.first == lowest(64)
    assert -1 <= inside.place <= 1
    assert inside.waves.tolist() == [1.0]


@pytest.mark.parametrize(
    ("kappa", "lam", "size", "words"),
    [
        (0.3, 0.02, 16, "action.kappa 0.3 is outside .* 0.12 to 0.26"),
        (0.2, 0.05, 16, "action.lam 0.05 is outside .* 0.02 alone"),
        (0.2, 0.02, 66, r"lattice.shape \[66, 66\] is outside .* L = 8 to 64"),
        (0.2, 0.02, 4, "L = 8 to 64"),
    ],
)
def test_what_is_not_known_is_refused_with_the_range(kappa: float, lam: float, size: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        free_table().at(kappa, lam, size)


def test_the_crossover_is_where_kappa_counts_from() -> None:
    table = deepcopy(free_table())
    v = table.values[0, -1, :, 0] - table.values[0, -1, :, 1]
    assert float(table.references[0]) == pytest.approx(float(table.kappa.mean()))  # v stays below 3
    table.values[0, -1, :, 0] += 3 - v[7]
    assert float(table.references[0]) == pytest.approx(float(table.kappa[0, 7]), abs=1e-9)


def test_lines_of_other_lengths_are_known_to_their_own_ends() -> None:
    table = free_table((0.01, 0.02))
    table.kappa[1] = torch.tensor(0.02 + 0.1 + (KAPPAS - 0.1) * 0.9)  # shorter by a tenth
    for lam in (0.01, 0.02):
        line = table.kappa[int(lam > 0.015)]
        assert table.range(lam) == pytest.approx((float(line.min()), float(line.max())))
        for kappa in (float(line.min()), float(line.max())):
            assert table.at(kappa, lam, 16).kappa == kappa
    low, high = table.range(0.014)
    assert table.at(low, 0.014, 16).g0 < table.at(high, 0.014, 16).g0


def test_noise_in_v_far_from_the_crossover_is_no_error() -> None:
    table = free_table()
    table.values[0, -2, :4, 0] = table.values[0, -2, :4, 1] + torch.tensor([-0.012, -0.004, 0.006, 0.0061])
    table.values[0, -1, :4, 0] = table.values[0, -1, :4, 1] + 0.001
    point = table.at(float(table.kappa[0, 1]) + 0.001, 0.02, 64)
    assert math.isfinite(point.g0)

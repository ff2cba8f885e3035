"""The flow without sampling error: exact for Gaussian data, and its limits for two peaks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_points import KAPPA, gaussian_model

from diffsq.analysis.flow_limits import limit_cells, limit_lines, limits, many_steps, pushed
from diffsq.models.points import PointModel
from diffsq.models.tabulated import Tabulated
from diffsq.models.two_peak import TwoPeakScore
from diffsq.process.sde import VESDE


class Exact(PointModel):
    """The exact score of two peaks in a model's place."""

    def __init__(self) -> None:
        super().__init__(1, "score", 4, 2)
        self.set_gaussian(torch.tensor([[KAPPA[0]]]), 0.02, 40.0)  # 10: the start law costs 0.008 in kappa_8
        self.log_rho[0] = math.log(8.0)

    def residual(self, u, sigma, create_graph=False):  # type: ignore[no-untyped-def]
        root = torch.sqrt(self.variance + sigma[:, None] ** 2)
        s = TwoPeakScore().score(u.double() * root, sigma)
        return (root * s + u.double()) / self.rho(sigma)[:, None], None


def test_a_gaussian_is_reproduced() -> None:
    model = gaussian_model(torch.tensor([[0.7]], dtype=torch.float64))
    found = pushed(Tabulated(model), VESDE(0.01, 20.0).levels(8))
    narrow = 0.7 * 0.7 / (0.7 + 0.01**2)  # x_0 = D(x_1)
    assert found[0] == pytest.approx(narrow, rel=1e-9)
    assert np.abs(found[1:]).max() < 1e-8


def test_steps_and_last_level_go_to_the_exact_cumulants() -> None:
    model = Exact().requires_grad_(False)
    rows, low = limits({"score": model}, {"ve": 64}), model.sigma_min
    by = {(row["of"], row["n_levels"], row["epsilon"]): np.array(row["kappa"]) for row in rows}
    steps = [np.abs(by["N", n, low] - by["N", None, low]).max() for n in (32, 64, 128)]
    assert steps[0] > 8 * steps[1]  # fourth order
    assert np.abs(by["epsilon", 128, None] - KAPPA).max() < 2e-3  # kappa_8: 7e-6
    small = [by["epsilon", 128, factor * low][0] - KAPPA[0] for factor in (1.0, 2.0, 4.0)]
    assert small[1] / small[0] == pytest.approx(4, abs=0.5)  # epsilon^2
    assert small[0] == pytest.approx(-(0.02**2), rel=0.1)


def test_the_table() -> None:
    row = {"model": "score", "sde": "ve", "of": "N", "n_levels": None, "epsilon": 0.01}
    rows = [{**row, "kappa": [1, 2, 3, 4]}]
    exact = {f"kappa{n}": [float(k), 0.0] for n, k in zip((2, 4, 6, 8), KAPPA, strict=True)}
    cells = limit_cells(rows, exact)
    assert cells[1][5:] == ["1.0625", "-2", "16", "-272"]
    assert cells[2] == ["score", "ve", "N", "infinity", "0.01", "1", "2", "3", "4"]
    assert "infinity" in limit_lines(rows, exact)[-1]
    assert limit_lines([], exact) == []


def test_no_limit_before_the_steps_converge() -> None:
    numbers, end = [12, 24, 48], np.array([1.0, -2.0])
    good = [end + 50.0 / (n - 1) ** 4 for n in numbers]
    found = many_steps(numbers, good)
    assert found is not None
    assert np.abs(found - end).max() < 1e-12
    assert many_steps(numbers, [end + 5.0 / n for n in numbers]) is None
    few = limits({"score": Exact().requires_grad_(False)}, {"ve": 4}, 2**12 + 1)
    assert [row["kappa"] for row in few if row["n_levels"] is None][0] is None
    assert limit_cells(few, {f"kappa{n}": [0.0, 0.0] for n in (2, 4, 6, 8)})[5][5:] == ["-"] * 4


def test_the_last_level_stays_in_the_range_learned() -> None:
    model = Exact().requires_grad_(False)
    model.set_gaussian(torch.tensor([[KAPPA[0]]]), 0.3, 1.0)
    rows = limits({"score": model}, {"ve": 8}, 2**10 + 1)
    assert [row["epsilon"] for row in rows if row["of"] == "epsilon"] == pytest.approx([0.3, 0.6, None])
    model.set_gaussian(torch.tensor([[KAPPA[0]]]), 0.6, 1.0)
    assert len(limits({"score": model}, {"ve": 8}, 2**10 + 1)) == 5

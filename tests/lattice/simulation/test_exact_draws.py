"""Exact draws of one variable: moments, distribution, and independence of how many are drawn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from longer import same_numbers

from lattice.actions.one_variable import ComplexGaussian, RealQuartic, TwoPeak
from lattice.errors import InputError
from lattice.exact.one_variable import toy_cumulants, toy_moments
from lattice.files import read_json
from lattice.simulation.exact_draws import draw_toy, generate_draws
from lattice.simulation.parameters import ExactDraws


@pytest.mark.parametrize("action", [TwoPeak(1.0, 0.25), RealQuartic(-1.0, 0.4), RealQuartic(1.0, 0.4)])
def test_exact_draws_have_the_exact_moments(action: Any) -> None:
    n = 400_000
    phi = draw_toy(action, n, seed=3)[:, 0]
    for order in (1, 2, 4, 6, 8):
        power = phi**order
        exact = toy_moments(action, [order])[0].real
        assert abs(power.mean() - exact) < 4 * power.std() / math.sqrt(n)
    wrong = toy_moments(TwoPeak(1.02, 0.25) if isinstance(action, TwoPeak) else RealQuartic(-0.9, 0.4), [2])
    assert abs((phi**2).mean() - wrong[0].real) > 10 * (phi**2).std() / math.sqrt(n)  # negative control


def test_draws_depend_on_their_number_only() -> None:
    action = RealQuartic(-1.0, 0.4)
    assert np.array_equal(draw_toy(action, 9000, 3)[:100], draw_toy(action, 100, 3))
    assert not np.array_equal(draw_toy(action, 100, 4), draw_toy(action, 100, 3))


def test_the_inverse_cdf_is_that_of_the_density() -> None:
    """Draws of one well are ordered as their uniforms; the CDF at quantiles against fine quadrature."""
    action = RealQuartic(1.0, 0.4)
    phi = np.sort(draw_toy(action, 200_000, 1)[:, 0])
    grid = np.linspace(-8, 8, 200_001)
    p = np.exp(-action.action(torch.from_numpy(grid)).numpy())
    cdf = np.cumsum(p) / p.sum()
    u = np.interp(phi, grid, cdf)
    gap = np.abs(u - (np.arange(u.size) + 0.5) / u.size).max()
    assert gap < 1.95 / math.sqrt(u.size)  # Kolmogorov-Smirnov at 0.1 %


def test_a_folder_keeps_its_draws_and_their_certificate(tmp_path: Path) -> None:
    law, params = RealQuartic(1.0, 0.4), ExactDraws(n_configs=1000)
    first = generate_draws(law, (), params, 1, tmp_path / "e")
    files = {path.name: path.read_bytes() for path in (tmp_path / "e").iterdir()}
    with pytest.raises(InputError, match="seed was 1, now 2; choose another"):
        generate_draws(law, (), params, 2, tmp_path / "e")
    with pytest.raises(
        InputError, match=r"action\.g was 0\.4, now 0\.5; ensemble\.n_configs was 1000, now 2000"
    ):
        generate_draws(RealQuartic(1.0, 0.5), (), ExactDraws(n_configs=2000), 1, tmp_path / "e")
    assert generate_draws(law, (1,), params, 1, tmp_path / "e").identity == first.identity
    assert {path.name: path.read_bytes() for path in (tmp_path / "e").iterdir()} == files
    with pytest.raises(InputError, match=r"exact draws are of one variable: .* \[1\], got \[8, 8\]"):
        generate_draws(law, (8, 8), params, 1, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_subclass_is_drawn_from_its_own_law() -> None:
    class Narrow(TwoPeak):
        def action(self, z: torch.Tensor) -> torch.Tensor:
            return 4.0 * super().action(z)

    law, n = Narrow(1.0, 1.0), 20_000
    square = draw_toy(law, n, 1)[:, 0] ** 2
    exact = toy_cumulants(law, 2)[1].real
    assert abs(square.mean() - exact) < 4 * square.std() / math.sqrt(n)
    assert exact < 1  # the parent's is 2


def test_complex_actions_have_no_draws() -> None:
    with pytest.raises(InputError, match="complex"):
        draw_toy(ComplexGaussian(1 + 1j), 10, 1)


def test_more_draws_go_on_from_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    law, fresh = RealQuartic(1.0, 0.4), tmp_path / "fresh"
    short = generate_draws(law, (), ExactDraws(n_configs=1500), 1, tmp_path / "e")
    first = (tmp_path / "e" / "shard-0000.h5").read_bytes()
    monkeypatch.setattr("lattice.ensembles.writer._SHARD_BYTES", 8 * 1000)  # of several files
    longer = generate_draws(law, (), ExactDraws(n_configs=5000), 1, tmp_path / "e")
    assert same_numbers(longer, generate_draws(law, (), ExactDraws(n_configs=5000), 1, fresh))
    assert not same_numbers(longer, short)
    assert longer.attrs["certificate"] == read_json(fresh / "certificate.json")
    assert (tmp_path / "e" / "shard-0000.h5").read_bytes() == first
    with pytest.raises(InputError, match=r"n_configs was 5000, now 1500: it holds more than that"):
        generate_draws(law, (), ExactDraws(n_configs=1500), 1, tmp_path / "e")

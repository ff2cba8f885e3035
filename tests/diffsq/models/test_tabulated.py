"""Tables of a learned score of one variable: the same function, in the samplers too."""

from __future__ import annotations

import pytest
import torch
from small_points import gaussian_model, random_model, random_points

from diffsq.models.tabulated import REACH, WORTH, Tabulated, fast
from diffsq.process.sde import VESDE
from diffsq.sampling.flow import sample_points
from diffsq.sampling.streams import POINT_BLOCK


@pytest.mark.parametrize("kind", ["score", "energy"])
@pytest.mark.parametrize("sigma", [0.05, 0.6, 5.0])
def test_the_same_score_on_the_grid_and_beyond_it(kind: str, sigma: float) -> None:
    model, level = random_model(1, kind), torch.tensor([sigma], dtype=torch.float64)
    _, root = model.whitened(torch.zeros(1, 1, dtype=torch.float64), level)
    x = float(root) * torch.linspace(-1.5 * REACH, 1.5 * REACH, 5001, dtype=torch.float64)[:, None]
    table, truth = Tabulated(model), model.score(x, level)
    assert (table.score(x, level) - truth).abs().max() < 3e-6 * truth.abs().max()  # float32
    assert torch.allclose(table.denoise(x, level), x + sigma**2 * table.score(x, level))
    coarse = torch.linspace(float(x[0, 0]), float(x[-1, 0]), 200, dtype=torch.float64)
    nearest = coarse[(x - coarse).abs().argmin(1)][:, None]
    assert (model.score(nearest, level) - truth).abs().max() > 1e-3 * truth.abs().max()


def test_samples_are_those_of_the_network() -> None:
    model, levels = random_model(1, "score"), VESDE(0.05, 5.0).levels(12)
    for method in ("flow", "euler"):
        x = sample_points(model, levels, POINT_BLOCK, 1, method)
        assert torch.allclose(sample_points(Tabulated(model), levels, POINT_BLOCK, 1, method), x, atol=1e-5)


def test_where_tables_pay() -> None:
    one, two = gaussian_model(torch.eye(1).double()), gaussian_model(torch.eye(2).double())
    assert isinstance(fast(one, WORTH), Tabulated)
    assert fast(one, WORTH - 1) is one
    assert fast(two, 10**7) is two
    with pytest.raises(ValueError, match="one variable"):
        Tabulated(two)
    assert random_points(4, 1).shape == (4, 1)

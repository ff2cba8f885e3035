"""The config of a family: a grid of theories, and what is wrong with one in a line."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from diffsq.config.config import config_from_dict, resolved_yaml
from diffsq.config.families import FamilyRun
from lattice.errors import InputError

LINE = {"lam": 0.022, "kappa": [0.25, 0.26, 0.27, 0.28]}
RUN: dict[str, Any] = {
    "name": "x", "models": ["family"], "ensemble": {"lines": [LINE], "sizes": [4, 8]},
}  # fmt: skip


def test_a_grid_is_all_pairs() -> None:
    config = config_from_dict(RUN)
    assert isinstance(config, FamilyRun)
    assert list(config.checks) == ["curves"]
    points = config.ensemble.points()
    assert len(points) == 8
    action, shape = points["L8_kappa0.26_lam0.022"]
    assert (action.kappa, action.lam, shape) == (0.26, 0.022, (8, 8))
    assert config_from_dict(yaml.safe_load(resolved_yaml(config))).model_dump() == config.model_dump()
    assert config.ensemble.monte_carlo.n_saved == 16384


@pytest.mark.parametrize(
    ("ensemble", "words"),
    [
        ({"sizes": [8, 4]}, "sizes must rise"),
        ({"sizes": [8]}, "ensemble.sizes"),
        ({"sizes": [5, 10]}, "ensemble.sizes"),
        ({"lines": [{"lam": 0.022, "kappa": [0.25, 0.24, 0.26, 0.27]}]}, "kappa must rise"),
        ({"lines": [{"lam": 0.022, "kappa": [0.25, 0.26]}]}, "kappa"),
        ({"lines": [{"lam": 0.0, "kappa": LINE["kappa"]}]}, "lam"),
        ({"lines": [LINE, LINE]}, "lam must rise"),
        ({"lines": [LINE, {"lam": 0.1, "kappa": [0.2, 0.25, 0.3, 0.31, 0.32]}]}, "as many kappa"),
        ({"line": [LINE]}, "unknown key ensemble.line"),
    ],
)
def test_bad_grids_are_refused(ensemble: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        config_from_dict({**RUN, "ensemble": {**RUN["ensemble"], **ensemble}})
    assert "\n" not in str(error.value)


def test_an_action_or_a_lattice_belong_to_a_single_theory() -> None:
    with pytest.raises(InputError, match="no action, lattice or reference|lattice"):
        config_from_dict({**RUN, "lattice": {"shape": [8, 8]}})

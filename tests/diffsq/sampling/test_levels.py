"""Where the noise levels are put."""

from __future__ import annotations

import pytest
import torch
from small_config import SETTINGS
from small_models import free_model

from diffsq.config.config import LatticeRun, config_from_dict
from diffsq.process.sde import SDES
from diffsq.sampling.levels import levels_of


@pytest.mark.parametrize("sde", ["ve", "vp"])
def test_levels_are_those_of_the_process_over_the_range_of_the_model(sde: str) -> None:
    config, model = config_from_dict(SETTINGS), free_model((4, 4), 0.2)
    assert isinstance(config, LatticeRun)
    levels = levels_of(config, model, sde)
    torch.testing.assert_close(levels, SDES[sde](0.05, 8.0).levels(4))
    assert levels[[0, 1, -1]].tolist() == pytest.approx([0, 0.05, 8.0])

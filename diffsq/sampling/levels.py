"""The noise levels of a run: where its process has them."""

from torch import Tensor

from diffsq.config.config import LatticeRun
from diffsq.models.lattice import LatticeScore
from diffsq.process.sde import SDES


def levels_of(config: LatticeRun, model: LatticeScore, sde: str) -> Tensor:
    """The noise levels (n_levels + 1,) of a process of a run, from zero to the model's sigma_max."""
    low, high = (float(model.base.log_sigma[end].exp()) for end in (0, -1))
    return SDES[sde](low, high).levels(config.n_levels)

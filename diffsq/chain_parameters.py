"""What a Markov chain of `diffsq chain` is made of: the `chain` section of a run's config.

Kept apart from diffsq.chain so that reading a config needs neither torch nor numba nor HDF5.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Extents = tuple[int, int]


class ChainParameters(BaseModel):
    """Moves cycled in order; one step, after which every chain is saved, is one cycle."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    moves: tuple[Literal["independence", "denoise", "hmc", "wolff", "overrelaxation"], ...] = Field(
        ("denoise",), min_length=1, max_length=20, description="cycled in this order"
    )
    depth: float | None = Field(
        None, gt=0, description="noise width sigma up to which `denoise` goes (nearest level); null: all"
    )
    block: Extents | None = Field(
        None, description="`denoise` proposes a block of sites in each window of the run's lattice; null: all"
    )
    shape: Extents | None = Field(
        None, description="the chain's lattice, a multiple of the run's own; null: the run's own"
    )
    n_chains: int = Field(16, ge=2, le=2**16, multiple_of=2, description="independent chains")
    n_steps: int = Field(500, ge=1, le=2**24, description="cycles, each saved")
    start: Literal["hmc", "ensemble", "samples"] = Field(
        "hmc", description="n_therm trajectories; held-out training chains; the run's raw samples"
    )
    n_therm: int = Field(
        500, ge=10, le=2**24, description="HMC + Wolff trajectories before, also to tune the move `hmc`"
    )
    n_clusters: int = Field(2, ge=1, le=10000, description="clusters of one `wolff` move")
    n_calibration: int = Field(
        1024, ge=64, description="training fields on which the block kernel's tilt is measured"
    )

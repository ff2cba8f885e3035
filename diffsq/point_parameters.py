"""How a score or energy model of points is trained: the `points` section of a run's config.

Kept apart from the training so that reading a config needs neither torch nor numba.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PointTraining(BaseModel):
    """Network, noise range and optimisation; noise is in the units of the points."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["score", "energy"] = Field("energy", description="vector field, or gradient of an energy")
    width: int = Field(64, ge=4, le=1024, description="units of each hidden layer")
    depth: int = Field(3, ge=2, le=8, description="hidden layers")
    sigma_min: float = Field(0.01, gt=0, description="lowest noise level")
    sigma_max: float | None = Field(
        None, gt=0, description="highest noise level; null: ten standard deviations of the data"
    )
    n_sigma: int = Field(96, ge=8, le=1024, description="noise levels trained on, geometric")
    n_nodes: int = Field(2**14, ge=64, le=2**22, description="training points of each noise level")
    n_steps: int = Field(2000, ge=0, le=10**7, description="optimiser steps")
    batch_size: int = Field(4096, ge=8, le=2**20, description="points per step")
    learning_rate: float = Field(2e-3, gt=0, description="of the first step; falls to zero")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="memory of the average of weights")
    target: Literal["gridded", "noisy"] = Field(
        "gridded", description="E[x_0|x] summed over the data set, or x_0 itself (plain score matching)"
    )
    energy_weight: float = Field(
        1.0, ge=0, description="of the squared error of the energy itself beside that of the score"
    )
    solve: bool = Field(True, description="end with the last layer solved exactly, by least squares")
    checkpoint_every: int = Field(500, ge=1, description="steps")

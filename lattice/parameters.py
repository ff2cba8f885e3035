"""How an ensemble is made, apart from its action and lattice: the `ensemble` section of a run's config.

Kept apart from lattice.generate so that reading a config needs neither torch nor numba nor HDF5.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

_SHARD_BYTES = 2**24


class EnsembleParameters(BaseModel):
    """How an ensemble is made. One trajectory is one HMC trajectory, `n_clusters` Wolff updates and a random
    sign.

    >>> EnsembleParameters(n_chains=64, n_configs=1000).n_saved
    1024
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_configs: int = Field(
        65536, ge=1, description="configurations to save, rounded up to the same number for every chain"
    )
    n_chains: int = Field(
        128, ge=2, le=2**20, multiple_of=2, description="independent chains, half hot and half cold"
    )
    n_therm: int = Field(
        500, ge=10, le=2**31, description="trajectories of every chain before the first saved one"
    )
    stride: int = Field(1, ge=1, le=2**20, description="trajectories between saved configurations of a chain")
    trajectory_length: float = Field(4.0, gt=0, le=100, description="HMC time, in the units of H = p^2/2 + S")
    length_jitter: float = Field(
        0.2, ge=0, lt=1, description="the length is uniform in trajectory_length*(1 -+ this)"
    )
    n_steps: int | None = Field(
        None, ge=1, le=10000, description="integrator steps; null: tuned while thermalising"
    )
    target_acceptance: float = Field(0.9, ge=0.3, le=0.99, description="what n_steps is tuned to")
    integrator: Literal["leapfrog", "omelyan2", "omelyan4"] = "omelyan2"
    n_clusters: int = Field(
        2,
        ge=0,
        le=10000,
        description="Wolff updates after each trajectory, then a random global sign; 0: neither",
    )
    shard_configs: int | None = Field(
        None, ge=1, description="configurations per file, rounded up as n_configs; null: 16 MB"
    )

    @property
    def n_times(self) -> int:
        """Saved configurations of each chain."""
        return -(-self.n_configs // self.n_chains)

    @property
    def n_saved(self) -> int:
        """Saved configurations in all: n_configs rounded up to a multiple of n_chains."""
        return self.n_times * self.n_chains

    def times_per_shard(self, volume: int) -> int:
        """Saved times (of all chains) in one file."""
        wanted = self.shard_configs or _SHARD_BYTES // (8 * volume)
        return max(1, -(-wanted // self.n_chains) if self.shard_configs else wanted // self.n_chains)

"""How an ensemble is made, apart from its action and lattice: the `ensemble` section of a run's config.

Kept apart from lattice.generate so that reading a config needs neither torch nor numba nor HDF5.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

_SHARD_BYTES = 2**24


class EnsembleParameters(BaseModel):
    """How an ensemble is made. One trajectory is an update of the amplitudes (HMC, or a local Metropolis
    sweep), `n_overrelax` overrelaxation sweeps, the cluster updates and, with these, a random global sign.

    >>> EnsembleParameters(n_chains=64, n_configs=1000).n_saved
    1024
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_configs: int = Field(
        65536, ge=1, description="configurations to save, rounded up to the same number for every chain"
    )
    n_chains: int = Field(
        128, ge=2, le=2**20, multiple_of=2, description="independent chains, hot, cold and domain-wall starts"
    )
    n_therm: int = Field(
        500, ge=10, le=2**31, description="trajectories of every chain before the first saved one"
    )
    stride: int = Field(1, ge=1, le=2**20, description="trajectories between saved configurations of a chain")
    update: Literal["hmc", "local"] = Field("hmc", description="what moves the amplitudes")
    trajectory_length: float | None = Field(
        None,
        gt=0,
        le=100,
        description="HMC time in the units of H = p^2/2 + S (or, accelerated, of pAp/2 + S); null: tuned",
    )
    length_jitter: float = Field(
        0.2, ge=0, lt=1, description="the length is uniform in trajectory_length*(1 -+ this)"
    )
    n_steps: int | None = Field(
        None, ge=1, le=10000, description="integrator steps; null: tuned while thermalising"
    )
    target_acceptance: float = Field(0.9, ge=0.3, le=0.99, description="what n_steps is tuned to")
    integrator: Literal["leapfrog", "omelyan2", "omelyan4"] = "omelyan2"
    acceleration: Literal["none", "free", "measured"] = Field(
        "none", description="kinetic term of HMC from the free or the measured propagator (lattice.fourier)"
    )
    metropolis_width: float = Field(
        1.5, gt=0, le=100, description="of the proposals phi -> phi + width*(2u - 1) of a local update"
    )
    n_overrelax: int = Field(0, ge=0, le=1000, description="overrelaxation sweeps after each update")
    cluster: Literal["wolff", "swendsen-wang"] = "wolff"
    n_clusters: int = Field(
        2,
        ge=0,
        le=10000,
        description="Wolff clusters (or one Swendsen-Wang sweep) after each, then a random sign; 0: neither",
    )
    source: str | None = Field(
        None, description="an ensemble folder (from `diffsq import`) to take instead of generating one"
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

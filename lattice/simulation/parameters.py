"""How an ensemble is made, apart from its action and lattice: the `ensemble` section of a run's config.

Kept apart from what makes them, so that reading a config needs neither torch nor numba nor HDF5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from lattice.errors import InputError

_SHARD_BYTES = 2**24
N_CLUSTERS = 2
GROUPS = 64  # of exact draws of a lattice
_CONFIGS = "configurations to save, rounded up to the same number for every chain"


class Chains(BaseModel):
    """What all ensembles made by Markov chains say: how many configurations, of how many chains, by file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_configs: int = Field(65536, ge=1, description=_CONFIGS)
    n_chains: int = Field(
        128, ge=2, le=2**20, multiple_of=2, description="independent chains, hot, cold and domain-wall starts"
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

    def times_per_shard(self, numbers: int) -> int:
        """Saved times (of all chains) in one file, for configurations of so many numbers."""
        if self.shard_configs:
            return -(-self.shard_configs // self.n_chains)
        return max(1, _SHARD_BYTES // (8 * numbers) // self.n_chains)


class MonteCarlo(Chains):
    """How an ensemble is made. One trajectory is an update of the amplitudes (HMC, a local Metropolis sweep,
    heat bath, or block Gibbs), `n_overrelax` overrelaxation sweeps, the cluster updates and, with these, a
    random global sign; of U(1) links then `n_winding` winding moves.

    `unsaid`: keys that are not written where they have these values, at which nothing changes: folders made
    before a key was there go on.

    >>> MonteCarlo(n_chains=64, n_configs=1000).n_saved
    1024
    >>> "n_winding" in MonteCarlo().model_dump(), "n_winding" in MonteCarlo(n_winding=1).model_dump()
    (False, True)
    """

    unsaid: ClassVar[Mapping[str, Any]] = {"n_winding": 0}

    n_therm: int = Field(
        500, ge=10, le=2**31, description="trajectories of every chain before the first saved one"
    )
    stride: int = Field(1, ge=1, le=2**20, description="trajectories between saved configurations of a chain")
    update: Literal["hmc", "local", "gibbs", "heat-bath"] = Field(
        "hmc",
        description="what moves the amplitudes; gibbs: of a machine with hidden nodes; spins: heat-bath or "
        "local, which is Metropolis; U(1) links: hmc or heat-bath",
    )
    trajectory_length: float | None = Field(
        None, gt=0, le=100,
        description="HMC time in the units of H = p^2/2 + S (or, accelerated, of pAp/2 + S); null: tuned",
    )  # fmt: skip
    length_jitter: float = Field(
        0.2, ge=0, lt=1, description="the length is uniform in trajectory_length*(1 -+ this)"
    )
    n_steps: int | None = Field(
        None, ge=1, le=10000, description="integrator steps; null: tuned while thermalising"
    )
    target_acceptance: float = Field(0.9, ge=0.3, le=0.99, description="what n_steps is tuned to")
    integrator: Literal["leapfrog", "omelyan2", "omelyan4"] = "omelyan2"
    acceleration: Literal["none", "free", "measured"] = Field(
        "none",
        description="kinetic term of HMC from the free or the measured propagator (lattice.updates.fourier)",
    )
    metropolis_width: float = Field(
        1.5, gt=0, le=100, description="of the proposals phi -> phi + width*(2u - 1) of a local update"
    )
    n_overrelax: int = Field(0, ge=0, le=1000, description="overrelaxation sweeps after each update")
    cluster: Literal["wolff", "swendsen-wang", "none"] = Field(
        "wolff", description="cluster updates; U(1) links have none: the default is taken as none there"
    )
    n_clusters: int = Field(
        N_CLUSTERS, ge=0, le=10000,
        description="Wolff clusters (or one Swendsen-Wang sweep) after each, then a random sign; 0: neither",
    )  # fmt: skip
    n_winding: int = Field(
        0, ge=0, le=10000, description="of U(1) links: moves that change the charge, after each"
    )
    source: str | None = Field(
        None, description="an ensemble folder (from `diffsq import`) to take instead of generating one"
    )

    @model_validator(mode="after")
    def _steps_of_a_length(self) -> MonteCarlo:
        if self.n_steps is not None and self.trajectory_length is None:
            raise InputError(
                "ensemble.n_steps needs ensemble.trajectory_length: a step number alone is no step"
            )
        return self

    @model_serializer(mode="wrap")
    def _written(self, own: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = own(self)
        silent = [name for name, value in self.unsaid.items() if name in found and found[name] == value]
        return {name: value for name, value in found.items() if name not in silent}

    @property
    def clusters(self) -> int:
        """Cluster updates of one trajectory."""
        return {"none": 0, "wolff": self.n_clusters, "swendsen-wang": min(self.n_clusters, 1)}[self.cluster]


class ComplexLangevin(Chains):
    """How a complex Langevin ensemble is made. A trajectory is the Langevin time `tau`; one is saved each.

    >>> ComplexLangevin(n_chains=64, n_configs=1000).n_saved
    1024
    >>> ComplexLangevin(step=0.01).extrapolation_steps
    (0.04, 0.08, 0.12)
    """

    n_configs: int = Field(1_000_000, ge=1, description=_CONFIGS)
    n_chains: int = Field(2000, ge=16, le=2**20, multiple_of=2, description="chains, half from each start")
    n_therm: int = Field(
        20, ge=4, le=2**31, description="trajectories of every chain before the first saved one"
    )
    tau: float = Field(1.0, gt=0, le=1e4, description="Langevin time between saved configurations of a chain")
    step: float = Field(0.005, gt=0, le=10, description="largest substep")
    scheme: Literal["heun", "euler"] = Field(
        "heun", description="error of averages of order step^2 (heun) or step (euler)"
    )
    adaptive: bool = Field(True, description="shorten the substep where the drift is large")
    step_sizes: tuple[float, ...] | None = Field(
        None,
        description="larger steps run beside for the limit step -> 0; null: 4, 8, 12 times step; []: none",
    )
    step_fraction: float = Field(0.1, gt=0, le=1, description="statistics of each of these, of the run's own")
    imaginary_noise: float = Field(0.0, ge=0, le=100, description="N_I of the noise, N_R = 1 + N_I")
    start_width: float = Field(1.0, gt=0, le=100, description="width of the random starts")

    @model_validator(mode="after")
    def _larger_steps(self) -> ComplexLangevin:
        sizes = self.extrapolation_steps
        if len(set(sizes)) < len(sizes) or any(not 0 < self.step < size for size in sizes):
            raise ValueError(f"step_sizes must be distinct and larger than step = {self.step:g}")
        if any(not size <= self.tau / 4 for size in (self.step, *sizes)):
            raise ValueError(f"step and step_sizes must be at most tau/4 = {self.tau / 4:g}, got {sizes}")
        if len(sizes) == 1:
            raise ValueError("step_sizes needs two or more sizes, to test the fit (or [] for none)")
        return self

    @property
    def extrapolation_steps(self) -> tuple[float, ...]:
        """The larger steps run beside."""
        if self.step_sizes is None:
            return tuple(round(factor * self.step, 12) for factor in (4, 8, 12))
        return self.step_sizes

    @property
    def order(self) -> int:
        """The power of the step in the leading error of averages."""
        return 2 if self.scheme == "heun" else 1


class ExactDraws(BaseModel):
    """Independent exact draws (real models of one variable, U(1) links): n_configs to train on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_configs: int = Field(default=2**22, ge=1000, le=10**8)

    @property
    def groups(self) -> Chains:
        """The same of a lattice, dealt to groups that are kept as chains.

        >>> ExactDraws(n_configs=1000).groups.n_saved
        1024
        """
        return Chains(n_configs=self.n_configs, n_chains=GROUPS)


class RandomNetworks(Chains):
    """Independent fields of random networks. The groups they are dealt to, field i to group i mod n_chains,
    are kept as chains: blocks of errors, and what is held out of a training.

    >>> RandomNetworks(n_configs=1000).n_saved
    1024
    """

    n_chains: int = Field(64, ge=8, le=2**20, multiple_of=2, description="groups of independent fields")

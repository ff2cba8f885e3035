"""The sections of a run's config. Reading them needs neither torch nor numba nor HDF5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from diffsq.config.names import STEP_NAMES
from diffsq.config.section import Section, nearest
from lattice.actions.protocol import check_shape
from lattice.errors import InputError
from lattice.statistics.notation import parse_value

MIN_EXTENT, MAX_EXTENT = 4, 4096
Process = Literal["ve", "vp"]
LatticeModel = Literal["closed", "score"]
LATTICE_MODELS: tuple[str, ...] = get_args(LatticeModel)
Checks = dict[str, dict[str, Any]]  # `diffsq check` NAME: {option: value}


class ShapeConfig(Section):
    """Periodic lattice of one to four extents."""

    shape: tuple[int, ...]

    @field_validator("shape")
    @classmethod
    def _is_a_lattice(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        try:
            check_shape(shape)
        except InputError:
            raise InputError(f"lattice.shape must be 1 to 4 positive extents, got {list(shape)}") from None
        return shape


class LatticeConfig(ShapeConfig):
    """Two even extents: the score network is two-dimensional."""

    @field_validator("shape")
    @classmethod
    def _is_a_lattice(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 2:
            raise InputError(f"lattice.shape must be two extents such as [16, 16], got {list(shape)}")
        for extent in shape:
            if extent % 2 or not MIN_EXTENT <= extent <= MAX_EXTENT:
                raise InputError(
                    f"lattice.shape: extents must be even, {MIN_EXTENT} to {MAX_EXTENT}, got {list(shape)}"
                )
        return shape


class SdeConfig(Section):
    """Noise-to-signal ratio from sigma_min to sigma_max; null = 2 sqrt(G(k=0)) of the training ensemble."""

    sigma_min: float = Field(default=0.2, gt=0)
    sigma_max: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> SdeConfig:
        if self.sigma_max is not None and self.sigma_max <= self.sigma_min:
            raise InputError(
                f"sde.sigma_max must exceed sde.sigma_min = {self.sigma_min}, got {self.sigma_max}"
            )
        return self


class ModelConfig(Section):
    """The score model: n_levels resolutions of the U-Net; n_sigma noise levels of the regression base, each
    fitted to n_fit training fields.

    base: what the U-Net is a residual on, the closed-form regression or the bare Wiener filter W x. network:
    channels of a network per site whose trace is closed-form, so that the flow keeps its density; then
    channels is 0. covariance: the U-Net says too where the posterior is wide, by a log-variance of each site
    and couplings to its neighbours, for the steps of the path sampler.
    """

    channels: int = Field(default=8, ge=0, le=1024)
    n_levels: int = Field(default=3, ge=1, le=8)
    n_sigma: int = Field(default=32, ge=4)
    n_fit: int = Field(default=4096, ge=1)
    base: Literal["regression", "wiener"] = "regression"
    network: int = Field(default=0, ge=0, le=256)
    covariance: bool = False
    unsaid: ClassVar[Mapping[str, Any]] = {"covariance": False}

    @model_validator(mode="after")
    def _one_network(self) -> ModelConfig:
        if self.covariance and not self.channels:
            raise InputError("model.covariance is learned by the U-Net: it needs model.channels > 0")
        if self.network and (self.channels or self.base == "wiener"):
            raise InputError(
                "model.network is the network of a flow, on the regression: take model.channels 0 and "
                "model.base regression with it"
            )
        return self


class TrainingConfig(Section):
    """Adam steps with warm-up, exponential moving average, held-out validation.

    loss: of the U-Net "score", denoising score matching; of model.network that too, or through the flow and
    its density, in n_levels steps (null: of 0.22 in ln sigma): "variance", Var log w of training fields,
    "likelihood", their -log q, or "reverse", the mean of -log w of samples. "auto" is score for the one,
    variance for the other. penalty: through the flow, of twice the path KL between the base with the network
    and without, so that it stays a score. use_action: false learns from configurations alone, as of an
    ensemble whose action nobody knows: no control variate, no site posterior. Weights, and what validation
    says of a network, know it all the same. n_posterior: targets of score matching averaged over so many
    trajectories of the posterior of x; the penalty is then of the path KL to these, not to the base.
    """

    n_steps: int = Field(default=3000, ge=0)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=5e-3, gt=0)
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    warmup: int = Field(default=100, ge=0)
    validation_fraction: float = Field(default=0.125, gt=0, le=0.5)
    validate_every: int = Field(default=250, ge=1)
    checkpoint_every: int = Field(default=250, ge=1)
    loss: Literal["auto", "score", "variance", "likelihood", "reverse"] = "auto"
    n_levels: int | None = Field(default=None, ge=8)
    penalty: float = Field(default=0.0, ge=0)
    use_action: bool = True
    n_posterior: int = Field(default=0, ge=0, le=1000)
    unsaid: ClassVar[Mapping[str, Any]] = {"use_action": True, "n_posterior": 0}

    @model_validator(mode="after")
    def _posterior_of_an_action(self) -> TrainingConfig:
        if self.n_posterior and not self.use_action:
            raise InputError(
                "training.n_posterior samples the posterior of an action: take 0 with use_action false"
            )
        return self


def one_of(*names: str) -> AfterValidator:
    """A setting that is one of these names."""

    def known(value: str) -> str:
        if value not in names:
            raise ValueError(f"must be one of {', '.join(names)}, got {value!r}")
        return value

    return AfterValidator(known)


def some_process(sde: tuple[str, ...]) -> tuple[str, ...]:
    """`sampling.sde`, or InputError where it is empty or names a process twice."""
    if not sde or len(set(sde)) < len(sde):
        raise InputError(f"sampling.sde must be [ve], [vp] or [ve, vp], got {list(sde)}")
    return sde


Method = Annotated[str, one_of("auto", "flow", "path", *STEP_NAMES)]
FLOW_LEVELS, PATH_LEVELS = 24, 40  # steps where the config says nothing
MIN_FLOW_LEVELS = 4  # what an integrator of order 4 needs
NumberOfSamples = Annotated[int, Field(ge=20, le=10**9)]
Setting = TypeVar("Setting")
OrEach = Annotated[
    Annotated[Setting, Tag("<one>")] | Annotated[dict[str, Setting], Tag("<each>")],
    Discriminator(lambda given: "<each>" if isinstance(given, Mapping) else "<one>"),
]
"""A setting of all models, or a mapping with one for each."""


def of_model(given: Setting | dict[str, Setting], name: str) -> Setting:
    """The setting of one model."""
    return given[name] if isinstance(given, dict) else given


def check_each(key: str, given: object, models: Sequence[str]) -> None:
    """InputError unless a mapping, if it is one, has an entry for each of `models` and none for no model.

    >>> check_each("sampling.method", {"scor": "path"}, ["score"])
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: sampling.method.scor: no such model; did you mean score?
    """
    if not isinstance(given, Mapping):
        return
    for name in given:
        if name not in LATTICE_MODELS:
            raise InputError(f"{key}.{name}: no such model{nearest(name, LATTICE_MODELS)}")
    if missing := [name for name in models if name not in given]:
        raise InputError(f"{key} has no entry for {', '.join(missing)}")


class SamplingConfig(Section):
    """Reverse process: "flow", the probability flow with its density, and "path", steps of noise, both with
    exact log-weights; "euler", "pc" (predictor-corrector), "heun" without. "auto" is the flow where the trace
    of the score is closed-form, without a U-Net, else the path.

    n_levels: steps of the integrator, null for 40; of the flow for steps of 0.22 in ln sigma, 24 at least.
    start: of the flow, both signs of M or one and a random sign; "auto" chooses by P(M) and held-out fields.
    sde: the processes sampled through: "ve" variance-expanding, levels geometric in sigma; "vp"
    variance-preserving, levels uniform in its time.
    method and n_samples may be mappings, one value for each of `models`.
    """

    n_samples: OrEach[NumberOfSamples] = 8192
    n_levels: int | None = Field(default=None, ge=2)
    n_forward: int = Field(default=2048, ge=20)
    method: OrEach[Method] = "auto"
    start: Literal["auto", "symmetric", "sector"] = "auto"
    sde: tuple[Process, ...] = ("ve",)

    @field_validator("sde")
    @classmethod
    def _some_process(cls, sde: tuple[str, ...]) -> tuple[str, ...]:
        return some_process(sde)


class ReferenceConfig(Section):
    """Known results ``NAME: value(error)`` at one point; used only when the run is at that point."""

    kappa: float
    lam: float = Field(ge=0)
    shape: tuple[int, ...]
    values: dict[str, str]

    @field_validator("values")
    @classmethod
    def _readable(cls, values: dict[str, str]) -> dict[str, str]:
        for name, text in values.items():
            try:
                parse_value(text)
            except ValueError as error:
                raise InputError(f"reference.values.{name} must look like 0.7617(7), got {text!r}") from error
        return values


Extents = tuple[int, int]


class ChainParameters(BaseModel):
    """Moves cycled in order; one step, after which every chain is saved, is one cycle."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    moves: tuple[Literal["independence", "latent", "denoise", "hmc", "wolff", "overrelaxation"], ...] = Field(
        ("denoise",), min_length=1, max_length=20, description="cycled in this order"
    )
    rho: float = Field(
        0.9, ge=0, lt=1, description="`latent` moves the noise z of the flow to rho z + sqrt(1 - rho^2) xi"
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


METROPOLIS_SIGMA = 10.0  # in lowest noise levels: below, the energy is steep and poorly known


class PointSampling(Section):
    """Global sampling: `n_samples` of each model by `method`, through the levels of each process in `sde`,
    `n_levels` of them (a number, or one for each).

    n_metropolis: paths of `metropolis_levels` levels offered to the
    Metropolis correction of an energy model, at the noise metropolis_sigma (null: 10 training.sigma_min,
    or the middle of the range of ln sigma where that is less).
    n_calibration: points on which the kernel of "path" is measured.
    """

    n_samples: int = Field(default=10**6, ge=1000, le=2**25)
    n_levels: dict[str, Annotated[int, Field(ge=4, le=100_000)]] = {"ve": 24, "vp": 48}
    method: Annotated[str, one_of("flow", "path", *STEP_NAMES)] = "flow"
    sde: tuple[Process, ...] = ("ve", "vp")
    n_metropolis: int = Field(default=10**6, ge=1000, le=10**9)
    metropolis_levels: int = Field(default=40, ge=4, le=100_000)
    metropolis_sigma: float | None = Field(default=None, gt=0)
    n_calibration: int = Field(default=65536, ge=1000)

    @field_validator("n_levels", mode="before")
    @classmethod
    def _one_for_each(cls, n_levels: Any) -> Any:
        return n_levels if isinstance(n_levels, dict) else {"ve": n_levels, "vp": n_levels}

    @field_validator("sde")
    @classmethod
    def _some_process(cls, sde: tuple[str, ...]) -> tuple[str, ...]:
        return some_process(sde)

    @model_validator(mode="after")
    def _levels_for_each(self) -> PointSampling:
        if stray := set(self.n_levels) - {"ve", "vp"}:
            raise InputError(f"sampling.n_levels is for ve and vp, got {', '.join(sorted(stray))}")
        missing = [sde for sde in self.sde if sde not in self.n_levels]
        if missing:
            raise InputError(f"sampling.n_levels has no entry for {', '.join(missing)}")
        return self

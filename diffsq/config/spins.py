"""The config of Ising and Potts spins: one ensemble held against what is exact, or a grid of temperatures
from which binary Boltzmann machines learn, whose flow v -> h -> v -> ... is followed."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from diffsq.config.base import Config
from diffsq.config.dynamics import DynamicsRun
from diffsq.config.section import Section
from diffsq.config.sections import ShapeConfig
from lattice.actions.spins import Ising, Potts, Spins
from lattice.errors import InputError
from lattice.exact.ising import MOST_STATES
from lattice.simulation.parameters import MonteCarlo

MOST_POINTS = 1000


class SpinRun(Config):
    """Spins at one temperature; nothing is learned."""

    lattice: ShapeConfig
    ensemble: MonteCarlo
    models: tuple[()] = ()
    sampling: None = None
    training: None = None

    @property
    def processes(self) -> tuple[str, ...]:
        """Nothing is sampled."""
        return ()


class SpinGrid(Section):
    """Ensembles of q states (2: Ising) at all `temperatures` and `fields`, each certified, n_configs of each;
    heat bath and Wolff clusters. ground_state: the states of T = 0 besides, as many of each."""

    q: int = Field(default=2, ge=2, le=20)
    temperatures: tuple[float, ...] = Field(min_length=1, max_length=MOST_POINTS)
    fields: tuple[float, ...] = Field(default=(0.0,), min_length=1)
    direction: int | None = None
    ground_state: bool = False
    n_configs: int = Field(default=2000, ge=20)
    n_chains: int = Field(default=40, ge=2, le=2**16, multiple_of=2)
    n_therm: int = Field(default=300, ge=10)
    n_clusters: int = Field(default=4, ge=0)

    @field_validator("temperatures")
    @classmethod
    def _positive(cls, temperatures: tuple[float, ...]) -> tuple[float, ...]:
        if list(temperatures) != sorted(set(temperatures)) or not temperatures[0] > 0:
            raise InputError(
                f"ensemble.temperatures must rise and be above 0, got {list(temperatures)}; T = 0 is "
                "ensemble.ground_state: true"
            )
        return temperatures

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if len(self.temperatures) * len(self.fields) > MOST_POINTS:
            raise InputError(f"ensemble: at most {MOST_POINTS} pairs of temperatures and fields")
        if self.ground_state and any(self.fields):
            raise InputError("ensemble.ground_state is for spins without a field: leave out ensemble.fields")
        if self.q == 2 and self.direction is not None:
            raise InputError("ensemble.direction is for Potts spins; the field of Ising spins has its sign")
        if len(self.points()) < len(self.temperatures) * len(self.fields):
            raise InputError("ensemble: two temperatures or fields are equal to 12 digits")
        return self

    def points(self) -> dict[str, Spins]:
        """The model of each ensemble by the name of its folder."""
        found: dict[str, Spins] = {}
        for h in self.fields:
            for t in self.temperatures:
                own = Ising(t, h) if self.q == 2 else Potts(t, self.q, h, self.direction)
                found[f"T{t:.12g}" + f"_h{h:.12g}" * bool(h)] = own
        return found

    @property
    def monte_carlo(self) -> MonteCarlo:
        """How each is made."""
        return MonteCarlo(
            n_configs=self.n_configs, n_chains=self.n_chains, n_therm=self.n_therm, update="heat-bath",
            n_clusters=self.n_clusters,
        )  # fmt: skip


class FlowRow(Section):
    """Machines of one kind, one for each seed: +-1 ("spin") or {0, 1} ("bit") nodes, biases or none.

    part: of the grid, from the first to the second temperature; shuffled: the sites of every configuration,
    each in an order of its own; at: steps of learning where the flow is followed besides the last; width of
    the initial weights. n_steps: 0 for random weights.
    """

    units: Literal["spin", "bit"] = "spin"
    biases: bool = False
    n_hidden: int = Field(ge=1, le=4096)
    method: Literal["cd", "pcd", "tempered"] = "cd"
    k: int = Field(default=1, ge=1, le=1000)
    rate: float = Field(default=0.0, ge=0, le=100)
    batch: int = Field(default=100, ge=1)
    n_steps: int = Field(ge=0, le=10**8)
    at: tuple[int, ...] = ()
    width: float = Field(default=0.1, ge=0)
    part: tuple[float, float] | None = None
    shuffled: bool = False

    @field_validator("at")
    @classmethod
    def _from_the_start(cls, at: tuple[int, ...]) -> tuple[int, ...]:
        if any(step < 0 for step in at):
            raise InputError(f"at: steps of learning are 0 or more, got {list(at)}")
        return at

    @model_validator(mode="after")
    def _within(self) -> Self:
        if self.n_steps and not self.rate:
            raise InputError(f"rate: machines that learn for n_steps = {self.n_steps} need one above 0")
        if any(step > self.n_steps for step in self.at):
            raise InputError(f"at: steps up to n_steps = {self.n_steps}, got {list(self.at)}")
        return self

    @property
    def followed(self) -> list[int]:
        """The steps where the flow is followed."""
        return sorted({*self.at, self.n_steps})


class Thermometer(Section):
    """A network that reads the temperature off a configuration: Adam, n_steps; T of the grid are its
    classes."""

    n_steps: int = Field(default=4000, ge=10)
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(256, 64), min_length=1)
    batch: int = Field(default=256, ge=1)
    rate: float = Field(default=1e-3, gt=0, le=1)


class FlowTraining(Section):
    """n_seeds machines of every row, each with its own part of the data; the flow of n_chains from all spins
    alike (cold) and from random ones (hot), n_sweeps; none of a thermometer: null."""

    n_seeds: int = Field(default=5, ge=2, le=100)
    n_chains: int = Field(default=400, ge=16, le=2**16)
    n_sweeps: int = Field(default=300, ge=10, le=10**5)
    thermometer: Thermometer | None = Thermometer()
    rows: tuple[FlowRow, ...] = Field(min_length=1)


class FlowRun(DynamicsRun):
    """Binary machines that learn spins of a grid of temperatures, and where their flow goes."""

    usual_checks: ClassVar[tuple[str, ...]] = ("spin-flow",)
    takes_lattice: ClassVar[bool] = True
    lattice: ShapeConfig
    ensemble: SpinGrid
    models: tuple[Literal["spin_flow"], ...] = ("spin_flow",)
    training: FlowTraining

    @model_validator(mode="after")
    def _parts(self) -> Self:
        grid, seeds = self.ensemble, self.training.n_seeds
        if self.training.thermometer and any(grid.fields):
            raise InputError("training.thermometer reads temperatures without a field; set it to null")
        if self.training.thermometer and (grid.n_chains < 4 or len(grid.temperatures) < 2):
            raise InputError(
                "training.thermometer needs two temperatures and four chains, some of them to calibrate "
                "with; set it to null"
            )
        if grid.n_chains % seeds:
            raise InputError(
                f"ensemble.n_chains = {grid.n_chains} must be a multiple of training.n_seeds = {seeds}: each "
                "machine learns from chains of its own"
            )
        if "spin-flow" in self.checks:
            self._check_served()
        for i, row in enumerate(self.training.rows):
            low, high = row.part or (0.0, float("inf"))
            if not any(low <= t <= high for t in grid.temperatures):
                raise InputError(f"training.rows.{i}: no temperature of the grid from {low:g} to {high:g}")
            if grid.q > 2 and row.units != "bit":
                raise InputError(f"training.rows.{i}: units of {grid.q} states are bit, one for each state")
        return self

    def _check_served(self) -> None:
        """`InputError`, before anything is made, for what the check spin-flow cannot judge."""
        shape, q = self.lattice.shape, self.ensemble.q
        if any(self.ensemble.fields):
            advice = "field-flow: {}, " if q == 2 else ""
            raise InputError(
                f"the check spin-flow is for spins without a field: checks: {{{advice}spin-flow: false}}"
            )
        square = len(shape) == 2 and shape[0] == shape[1]
        if not square or not 3 <= shape[0] <= 12 or (q > 2 and q ** shape[0] > MOST_STATES):
            raise InputError(
                f"the check spin-flow knows exact values of square tori of 3 to 12 sites a side (of Potts "
                f"q^L <= {MOST_STATES}), got {list(shape)}; leave it out by checks: {{spin-flow: false}}"
            )

    def row_names(self) -> list[str]:
        return [
            *(["thermometer"] if self.training.thermometer else []),
            *(f"flow-{i}" for i in range(len(self.training.rows))),
        ]

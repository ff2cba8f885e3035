"""The config of runs that watch training itself: Dyson Brownian motion of weights, row by row.

A row is one setting, of many replicas or of one seed; rows are made one after another and kept.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from diffsq.config.base import Config
from diffsq.config.section import Section
from lattice.errors import InputError
from lattice.exact.gaussian_rbm import chain_kernel, largest_step


class PairRow(Section):
    """rate of a step, batch, and what is sampled: "data", C' being exact; "chains", `batch` persistent ones
    of k sweeps beside the exact C; "both"."""

    rate: float = Field(ge=0)
    batch: int = Field(ge=1, le=10**5)
    noise: Literal["data", "chains", "both"] = "data"
    k: int = Field(default=3, ge=1)


class PairTraining(Section):
    """Machines that learn the free field of `mass` on a chain of n_visible sites, kappa_p = m^2 + 2 -
    2 cos p, from fresh data: n_replicas machines, n_snapshots of each, n_apart slowest relaxation times
    apart."""

    n_visible: int = Field(default=10, ge=4, le=64)
    mass: float = Field(default=2.0, gt=0)
    mu2: float = Field(default=9.0, gt=0)
    n_replicas: int = Field(default=256, ge=16, le=2**16)
    n_snapshots: int = Field(default=8, ge=1)
    n_apart: float = Field(default=1.0, gt=0)
    rows: tuple[PairRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _stable(self) -> Self:
        kappa = chain_kernel(self.n_visible, self.mass)
        if self.mu2 <= kappa[-1]:
            raise InputError(
                f"training.mu2 must be above the largest kappa = {kappa[-1]:g}, got {self.mu2:g}"
            )
        most, mode = largest_step(kappa, self.mu2)
        for row in self.rows:
            if row.rate >= most:
                raise InputError(
                    f"training.rows: a rate of {row.rate:g} is unstable, mode {mode} with kappa = "
                    f"{kappa[mode]:.6g} allows less than {most:.6g}"
                )
        return self


class TeacherRow(Section):
    """rate of a step and batch; data: fresh at every step, or a set of n_data of them for all replicas."""

    rate: float = Field(gt=0)
    batch: int = Field(ge=1)
    n_data: int | None = Field(default=None, ge=1)
    n_sets: int = Field(default=1, ge=1, description="data sets, each a row of its own")

    @model_validator(mode="after")
    def _stationary(self) -> Self:
        if (most := 2 / (1 + 3 / self.batch)) <= self.rate:
            raise InputError(
                f"training.rows: a rate of {self.rate:g} has no stationary state with batches of "
                f"{self.batch}; take less than {most:.6g}"
            )
        if self.n_data is not None and self.n_data < self.batch:
            raise InputError(
                f"training.rows: a batch of {self.batch} needs as many data, n_data is {self.n_data}"
            )
        return self


class TeacherTraining(Section):
    """2 x 2 students of one teacher, with symmetric noise of width `amplitude` on what it says."""

    amplitude: float = Field(default=0.1, gt=0)
    n_replicas: int = Field(default=3000, ge=64, le=2**20)
    n_steps: int = Field(default=400, ge=10)
    rows: tuple[TeacherRow, ...] = Field(min_length=1)


class TextTraining(Section):
    """A character transformer on the text that comes with Python, and on the same text shuffled."""

    n_seeds: int = Field(default=5, ge=1, le=100)
    n_layers: int = Field(default=2, ge=1, le=16)
    n_heads: int = Field(default=4, ge=1)
    width: int = Field(default=64, ge=8, le=1024)
    block: int = Field(default=64, ge=4, le=4096)
    batch: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    n_steps: int = Field(default=1500, ge=0)
    at: tuple[int, ...] = (0, 30, 100, 300, 1500)
    shuffled_steps: int = Field(default=300, ge=0)
    checkpoint_every: int = Field(default=250, ge=1)

    @model_validator(mode="after")
    def _steps(self) -> Self:
        if list(self.at) != sorted(set(self.at)) or self.at[:1] != (0,) or self.at[-1] > self.n_steps:
            raise InputError(
                f"training.at must rise from 0 to at most n_steps = {self.n_steps}, got {list(self.at)}"
            )
        if self.width % self.n_heads:
            raise InputError(f"training.width {self.width} is not divisible by n_heads = {self.n_heads}")
        return self


class DynamicsRun(Config):
    """Rows of training; nothing is sampled, and there is no action."""

    takes_lattice: ClassVar[bool] = False
    ensemble: Any = None
    sampling: None = None

    @model_validator(mode="after")
    def _alone(self) -> Self:
        lattice = None if self.takes_lattice else self.lattice
        if self.action is not None or lattice is not None or self.reference is not None:
            raise InputError(
                f"models: [{self.models[0]}] has no action, lattice or reference: leave them out"
            )
        return self

    @model_validator(mode="after")
    def _no_data(self) -> Self:
        if self.ensemble is not None and not self.takes_lattice:
            raise InputError(f"models: [{self.models[0]}] has no ensemble: leave it out")
        return self

    @property
    def processes(self) -> tuple[str, ...]:
        """Nothing is sampled."""
        return ()

    @abstractmethod
    def row_names(self) -> list[str]:
        """What the rows are called, in order: the folders in train/."""


class PairsRun(DynamicsRun):
    """Pairs of eigenvalues of K of machines at the end of training."""

    usual_checks: ClassVar[tuple[str, ...]] = ("pairs",)
    models: tuple[Literal["pairs"], ...] = ("pairs",)
    training: PairTraining

    def row_names(self) -> list[str]:
        return [f"pairs-{i}" for i in range(len(self.training.rows))]


class TeacherRun(DynamicsRun):
    """Students of a teacher, fresh data and a single data set."""

    usual_checks: ClassVar[tuple[str, ...]] = ("teacher-student",)
    models: tuple[Literal["teacher_student"], ...] = ("teacher_student",)
    training: TeacherTraining

    def row_names(self) -> list[str]:
        return [
            f"students-{i}" + (f"-{k}" if row.n_data else "")
            for i, row in enumerate(self.training.rows)
            for k in range(row.n_sets if row.n_data else 1)
        ]


class TextRun(DynamicsRun):
    """A transformer, over seeds, on a text and on the same text shuffled."""

    usual_checks: ClassVar[tuple[str, ...]] = ("text-spectra",)
    models: tuple[Literal["transformer"], ...] = ("transformer",)
    training: TextTraining = TextTraining()

    def row_names(self) -> list[str]:
        return [f"{kind}-{k}" for kind in ("text", "shuffled") for k in range(self.training.n_seeds)]


DYNAMICS: dict[str, type[DynamicsRun]] = {
    "pairs": PairsRun, "teacher_student": TeacherRun, "transformer": TextRun,
}  # fmt: skip

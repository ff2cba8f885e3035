"""The config of a Gaussian restricted Boltzmann machine: its data, its size, how it learns, what it draws.

The data are an ensemble of the action, or pictures that come with a package. Conventions are those of
lattice.exact.gaussian_rbm; in a config of an action they are of the kappa-lambda fields.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from diffsq.config.base import Config
from diffsq.config.section import Section
from diffsq.config.sections import ShapeConfig
from lattice.errors import InputError
from lattice.simulation.parameters import MonteCarlo


class DataSet(Section):
    """Data from a package instead of an ensemble: scikit-learn's digits, 8 x 8 (extra `digits`)."""

    data: Literal["digits"]


class MachineSizes(Section):
    """n_hidden: null for as many hidden nodes as sites. mu2: null for 1.05 times the largest kappa of the
    data, so that the mass cuts no mode. width of the initial weights; s of the hidden nodes."""

    n_hidden: int | None = Field(default=None, ge=1, le=4096)
    mu2: float | None = Field(default=None, gt=0)
    s: float = Field(default=1.0, gt=0)
    width: float = Field(default=0.02, gt=0)


class MachineTraining(Section):
    """rate: null for half of the largest stable one. second: the second moments learned from, of the data as
    they are ("data"), averaged over the symmetries of the lattice ("symmetric"), or those of the free field
    ("exact"). batch: fields of a mini-batch, null for all of them in expectation.

    rate times `cooling` every `period` steps; heavy-ball momentum; k sweeps of cd and pcd; natural: the
    natural gradient; mass: mu^2 is learned; n_records steps, spaced by their logarithm, are written down.
    """

    method: Literal["exact", "cd", "pcd"] = "exact"
    second: Literal["data", "symmetric", "exact"] = "data"
    rate: float | None = Field(default=None, gt=0)
    n_steps: int = Field(default=3000, ge=0, le=10**8)
    batch: int | None = Field(default=None, ge=1)
    k: int = Field(default=1, ge=1, le=10**4)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    cooling: float = Field(default=1.0, gt=0, le=1)
    period: int = Field(default=64, ge=1)
    natural: bool = False
    mass: bool = False
    validation_fraction: float = Field(default=0.125, gt=0, le=0.5)
    n_records: int = Field(default=64, ge=2, le=10**4)
    checkpoint_every: int = Field(default=500, ge=1)

    @model_validator(mode="after")
    def _batches(self) -> Self:
        if self.method == "pcd" and self.batch is None:
            raise InputError("training.method pcd needs mini-batches: set training.batch, or take exact")
        if self.batch is not None and self.second != "data":
            raise InputError(f"training.batch draws from the data; training.second {self.second} has none")
        return self


class MachineSampling(Section):
    """Independent exact draws of the machine, with their log-weights; n_forward held-out fields weighed."""

    n_samples: int = Field(default=8192, ge=20, le=10**9)
    n_forward: int = Field(default=2048, ge=20)


class MachineRun(Config):
    """A Gaussian machine of one action on a lattice. Its samples have exact weights, as those of any sampler
    here."""

    usual_checks: ClassVar[tuple[str, ...]] = ("machine", "learning", "gibbs")

    lattice: ShapeConfig
    ensemble: MonteCarlo = MonteCarlo()
    models: tuple[Literal["rbm"], ...] = ("rbm",)
    machine: MachineSizes = MachineSizes()
    training: MachineTraining = MachineTraining()
    sampling: MachineSampling = MachineSampling()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.action is None:
            raise InputError("a machine learns from an action, or from a data set, ensemble: {data: digits}")
        form = self.action.phi4
        if self.action.components or self.action.field != "real" or self.action.one_variable:
            raise InputError("a Gaussian machine learns real fields of one component on a lattice")
        if self.training.second == "exact" and (form is None or form.lam != 0):
            raise InputError(
                "training.second exact is the propagator of the free field; this action is interacting: take "
                "symmetric or data"
            )
        if self.ensemble.update == "gibbs":
            raise InputError(
                "ensemble.update: gibbs is for the fields of a machine (lattice.GaussianMachine), not for "
                "the action it learns; take hmc"
            )
        self.action.check_normalisable(self.lattice.shape)
        return self

    @property
    def processes(self) -> tuple[str, ...]:
        """How samples are drawn."""
        return ("exact",)


class PicturesRun(Config):
    """A Gaussian machine of a data set: no action, no samples with weights."""

    usual_checks: ClassVar[tuple[str, ...]] = ("pictures",)

    ensemble: DataSet
    models: tuple[Literal["rbm"], ...] = ("rbm",)
    machine: MachineSizes = MachineSizes()
    training: MachineTraining = MachineTraining(method="cd")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.action is not None or self.lattice is not None or self.reference is not None:
            raise InputError("a data set has no action, lattice or reference: leave them out")
        if self.sampling is not None:
            raise InputError("a data set has no action to weigh samples with: leave sampling out")
        if self.training.second != "data":
            raise InputError(
                f"a data set has no symmetry: training.second {self.training.second} is of a lattice"
            )
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a picture."""
        return (8, 8)

    @property
    def processes(self) -> tuple[str, ...]:
        """Nothing is sampled with weights."""
        return ()

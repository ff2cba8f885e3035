"""The config of a family of theories: phi^4 at many couplings and sizes, from which one model is fitted."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from diffsq.config.dynamics import DynamicsRun
from diffsq.config.section import Section
from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError
from lattice.scans.scan import point_name
from lattice.simulation.parameters import MonteCarlo

MOST_POINTS = 2000
MOST_LINES = 3  # the normal matrix of all coefficients has 6048 rows for each
FEWEST_KAPPA = 4  # a cubic spline goes through


class Line(Section):
    """One lam and the values of kappa there."""

    lam: Annotated[float, Field(gt=0, le=10)]
    kappa: tuple[Annotated[float, Field(ge=0, le=10)], ...] = Field(min_length=FEWEST_KAPPA)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if list(self.kappa) != sorted(set(self.kappa)):
            raise InputError(f"ensemble.lines of lam = {self.lam:g}: kappa must rise, got {list(self.kappa)}")
        return self


class FamilyGrid(Section):
    """An ensemble at every kappa of every line, on squares of all `sizes`; each certified, n_configs of each.

    Where the two largest sizes differ by a factor of two, the model knows twice the largest, too.
    """

    lines: tuple[Line, ...] = Field(min_length=1, max_length=MOST_LINES)
    sizes: tuple[Annotated[int, Field(ge=4, le=1024, multiple_of=2)], ...] = Field(min_length=2)
    n_configs: int = Field(default=16384, ge=256)
    n_chains: int = Field(default=128, ge=4, le=2**16, multiple_of=2)
    n_therm: int = Field(default=500, ge=10)

    @model_validator(mode="after")
    def _grid(self) -> Self:
        if list(self.sizes) != sorted(set(self.sizes)):
            raise InputError(f"ensemble.sizes must rise, got {list(self.sizes)}")
        lams = [line.lam for line in self.lines]
        if lams != sorted(set(lams)):
            raise InputError(f"ensemble.lines: lam must rise from line to line, got {lams}")
        numbers = sorted({len(line.kappa) for line in self.lines})
        if len(numbers) > 1:
            raise InputError(f"ensemble.lines: each needs as many kappa, got {numbers}")
        if len(lams) * numbers[0] * len(self.sizes) > MOST_POINTS:
            raise InputError(f"ensemble: at most {MOST_POINTS} ensembles")
        return self

    def points(self) -> dict[str, tuple[ScalarPhi4, tuple[int, ...]]]:
        """Action and lattice of each ensemble by the name of its folder."""
        return {
            point_name((size, size), kappa, line.lam): (ScalarPhi4(kappa, line.lam), (size, size))
            for line in self.lines for size in self.sizes for kappa in line.kappa
        }  # fmt: skip

    @property
    def monte_carlo(self) -> MonteCarlo:
        """How each is made."""
        return MonteCarlo(n_configs=self.n_configs, n_chains=self.n_chains, n_therm=self.n_therm)


class FamilyTraining(Section):
    """Lowest noise level, how many levels, and the fields of every level in every ensemble; of lattices above
    32^2 fewer, of as many sites."""

    sigma_min: float = Field(default=0.15, gt=0, le=1)
    n_sigma: int = Field(default=28, ge=16, le=256)
    n_fit: int = Field(default=1024, ge=64)


class FamilyRun(DynamicsRun):
    """One closed-form score for all couplings and sizes of a grid, and the curves it draws between them."""

    usual_checks: ClassVar[tuple[str, ...]] = ("curves",)
    takes_lattice: ClassVar[bool] = True
    lattice: None = None
    ensemble: FamilyGrid
    models: tuple[Literal["family"], ...] = ("family",)
    training: FamilyTraining = FamilyTraining()

    def row_names(self) -> list[str]:
        return ["family"]

"""What e, |m| and c1 mean on a torus of Ising or Potts spins: temperatures, and two states to know.

Ising: all exact (`diffsq.analysis.thermometers`). Potts: e exact, |m| and c1 measured at the temperatures of
the grid and at T_c (`diffsq.analysis.potts_thermometers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from diffsq.analysis.potts_thermometers import PottsValues, potts_values
from diffsq.analysis.thermometers import (
    NAMES,
    Reading,
    exact_values,
    mixture,
    read_energy,
    read_magnetisation,
)
from lattice.exact.ising import CRITICAL, potts_temperature


@dataclass(frozen=True)
class Scale:
    """What e, |m| and c1 mean on this torus: temperatures read off them, their values at T_c and in a
    mixture."""

    q: int
    shape: tuple[int, int]
    grid: tuple[float, ...]
    seed: int

    @property
    def t_critical(self) -> float:
        return CRITICAL if self.q == 2 else potts_temperature(self.q)

    @cached_property
    def potts(self) -> PottsValues:
        """Of q > 2: at T_c and at every temperature of the grid."""
        return potts_values(self.q, self.shape, sorted({*self.grid, self.t_critical}), self.seed)

    def critical(self) -> dict[str, float]:
        """e, |m|, m^2 and c1 at T_c."""
        if self.q == 2:
            return exact_values(CRITICAL, self.shape)
        return self.potts.at(self.t_critical)

    def mixture(self, temperatures: list[float]) -> dict[str, float]:
        """The same of equal shares, with t_e and t_m that they read as."""
        if self.q == 2:
            return mixture(temperatures, self.shape)
        rows = [self.potts.at(t) for t in temperatures]
        found = {name: float(np.mean([row[name] for row in rows])) for name in NAMES}
        found |= {
            f"{name}_error": float(np.sqrt(np.sum([row[f"{name}_error"] ** 2 for row in rows])) / len(rows))
            for name in NAMES
        }
        found["t_e"] = self.read("e", found["e"], 0.0).t
        found["t_m"] = self.read("abs_m", found["abs_m"], 0.0).t
        return found

    def ordered(self, e: float) -> float | None:
        """c1 of spins of one temperature with this energy, of Ising."""
        t = self.read("e", e, 0.0).t
        if self.q > 2 or not 0 < t < np.inf:
            return None
        return exact_values(t, self.shape)["c1"]

    def read(self, name: str, value: float, error: float) -> Reading:
        """The temperature of e or |m|."""
        if self.q > 2:
            return self.potts.curve(name).read(value, error)
        read = read_energy if name == "e" else read_magnetisation
        return read(value, error, self.shape)

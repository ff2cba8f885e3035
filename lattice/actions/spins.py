r"""Spins on a periodic lattice: the Ising model and the Potts model of q states, in a field.

    Ising   S = -(1/T) [sum_<xy> s_x s_y + h sum_x s_x],                     phi = s = -1, +1
    Potts   S = -(1/T) [sum_<xy> delta(s_x, s_y) + h sum_x delta(s_x, d)],   phi = s = 0 .. q - 1

J = 1; h is the field H of the textbooks, d its direction. An axis of extent 2 counts its bond twice and an
axis of extent 1 couples a site to itself, as in phi^4. Both are one model with labels 0 .. q - 1,

    exp(-S) = const prod_<xy> exp[K delta(l_x, l_y)] prod_x w(l_x),

K = 2/T for Ising and 1/T for Potts: that is what the compiled updates know (`Spins`). Reviews: R. J. Baxter,
Exactly Solved Models in Statistical Mechanics (1982); F. Y. Wu, Rev. Mod. Phys. 54 (1982) 235.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from lattice.actions.protocol import Action, Range, check_shape, sum_sites
from lattice.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from lattice.arrays import Floats, Labels

COLD = Range(0.0, why="it is a temperature")


class Spins(Action):
    """Spins of q states; `temperature` T > 0 and field `h` are couplings of each kind."""

    field = "spin"
    ranges = {"temperature": COLD}
    temperature: float
    h: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise InputError(f"action.temperature must be > 0, got {self.temperature:g}")

    @property
    @abstractmethod
    def n_states(self) -> int:
        """q."""

    @property
    @abstractmethod
    def coupling(self) -> float:
        """K, the weight exp(K) of two neighbours in the same state."""

    @property
    @abstractmethod
    def log_weights(self) -> Floats:
        """ln w (q,), the weight of a site by its state."""

    @abstractmethod
    def labels(self, phi: Floats) -> Labels:
        """The states 0 .. q - 1 of spins phi, the same shape. Raises `InputError` for what is no spin."""

    @abstractmethod
    def values(self, labels: Labels) -> Floats:
        """The spins phi of states."""

    def grad(self, phi: Tensor) -> Tensor:
        """There is none: `InputError`."""
        raise InputError(
            "spins have no gradient: use ensemble.update: heat-bath or local, and cluster: wolff or "
            "swendsen-wang"
        )

    def bonds(self, forward: list[Tensor]) -> Tensor:
        """[(n, *shape), ...] -> (n,): the sum over sites, for what each has with its forward neighbours."""
        check_shape(tuple(forward[0].shape[1:]))
        return sum_sites(reduce(add, forward))


@dataclass(frozen=True)
class Ising(Spins):
    """phi = -1, +1 at the temperature T in the field h. Raises `InputError` for T <= 0.

    >>> import torch
    >>> Ising(2.0).action(torch.ones(1, 4, 4, dtype=torch.float64)) / 16       # e/T = -2/T
    tensor([-1.], dtype=torch.float64)
    """

    temperature: float
    h: float = 0.0
    kind = "ising"

    @property
    def even(self) -> bool:  # type: ignore[override]
        """Without a field."""
        return self.h == 0

    @property
    def n_states(self) -> int:
        return 2

    @property
    def coupling(self) -> float:
        return 2.0 / self.temperature

    @property
    def log_weights(self) -> Floats:
        import numpy as np

        return np.array([-1.0, 1.0]) * (self.h / self.temperature)

    def action(self, phi: Tensor) -> Tensor:
        pairs = self.bonds([phi * phi.roll(-1, axis) for axis in range(1, phi.dim())])
        return -(pairs + self.h * sum_sites(phi)) / self.temperature

    def labels(self, phi: Floats) -> Labels:
        import numpy as np

        if not (np.abs(phi) == 1).all():
            bad = np.asarray(phi)[np.abs(phi) != 1].flat[0]
            raise InputError(f"spins of the Ising model are -1 and +1, got {bad:g}")
        return (np.asarray(phi) > 0).astype(np.int8)

    def values(self, labels: Labels) -> Floats:
        import numpy as np

        return 2.0 * labels.astype(np.float64) - 1.0

    def classical_field(self, dim: int) -> float | None:
        return 1.0


@dataclass(frozen=True)
class Potts(Spins):
    """phi = 0 .. q - 1 at the temperature T, in a field h along the state `direction`.

    M is (q x - 1)/(q - 1), x the fraction of sites in the largest state. Raises `InputError` for T <= 0,
    fewer than 2 or more than 100 states, and a field without a direction.

    >>> import torch
    >>> Potts(1.0, q=3).action(torch.zeros(1, 4, 4, dtype=torch.float64)) / 16
    tensor([-2.], dtype=torch.float64)
    """

    temperature: float
    q: int
    h: float = 0.0
    direction: int | None = None
    kind = "potts"

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.q) is not int or not 2 <= self.q <= 100:
            raise InputError(f"action.q must be a number of states from 2 to 100, got {self.q}")
        if self.direction is None:
            if self.h:
                raise InputError(
                    f"action.h = {self.h:g} of a Potts model needs action.direction, the state it favours: "
                    f"0 to {self.q - 1}"
                )
        elif type(self.direction) is not int or self.direction not in range(self.q):
            raise InputError(f"action.direction must be a state, 0 to {self.q - 1}, got {self.direction}")

    @property
    def n_states(self) -> int:
        return self.q

    @property
    def coupling(self) -> float:
        return 1.0 / self.temperature

    @property
    def log_weights(self) -> Floats:
        import numpy as np

        found = np.zeros(self.q)
        if self.direction is not None:
            found[self.direction] = self.h / self.temperature
        return found

    def action(self, phi: Tensor) -> Tensor:
        found = self.bonds([(phi == phi.roll(-1, axis)).to(phi.dtype) for axis in range(1, phi.dim())])
        if self.direction is not None and self.h:
            found = found + self.h * sum_sites((phi == self.direction).to(phi.dtype))
        return -found / self.temperature

    def order(self, phi: Tensor) -> Tensor:
        """M (n,) of fields (n, *shape), from 1/(q - 1) of rounding above 0 to 1."""
        flat = phi.flatten(1)
        counts = [(flat == state).sum(1) for state in range(self.q)]
        largest = counts[0]
        for other in counts[1:]:
            largest = largest.maximum(other)
        return (self.q * largest.to(phi.dtype) / flat.shape[1] - 1.0) / (self.q - 1.0)

    def labels(self, phi: Floats) -> Labels:
        import numpy as np

        rounded = np.where(np.isfinite(phi), phi, -1).astype(np.int8)
        if not ((rounded == phi) & (rounded >= 0) & (rounded < self.q)).all():
            bad = np.asarray(phi)[~((rounded == phi) & (rounded >= 0) & (rounded < self.q))].flat[0]
            raise InputError(f"spins of this Potts model are the states 0 to {self.q - 1}, got {bad:g}")
        return rounded

    def values(self, labels: Labels) -> Floats:
        import numpy as np

        return labels.astype(np.float64)


def spins_of(action: Action, what: str) -> Spins:
    """The action as spins; `InputError` "`what` spins only, ..." for another."""
    if not isinstance(action, Spins):
        raise InputError(f"{what} spins only (kind ising or potts), not {type(action).__name__}")
    return action

r"""The visible fields of a Gaussian restricted Boltzmann machine: a free field whose kernel was learned.

    S(phi) = (1/2) phi^T K phi - J phi,   K = mu^2 - s^2 W W^T,

phi the sites in row order (Park, Aarts, Lucini 2309.15002). With the hidden nodes put back in, block Gibbs
(lattice.updates.gibbs) is an exact update.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lattice.actions.protocol import Action
from lattice.arrays import Floats
from lattice.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class GaussianMachine(Action):
    """w (n_visible, n_hidden), mu2, s, and a source (n_visible,) or None. Files know its weights by their
    hash: give the action to read them.

    Raises `InputError` for weights that are not a finite matrix, and where K is not positive.

    >>> GaussianMachine(np.eye(4), 2.0).kernel.tolist()[0]
    [1.0, 0.0, 0.0, 0.0]
    """

    w: Floats
    mu2: float
    s: float = 1.0
    source: Floats | None = None
    kind = "gaussian_rbm"

    def __post_init__(self) -> None:
        super().__post_init__()
        w = np.ascontiguousarray(self.w, dtype=np.float64)
        source = None if self.source is None else np.ascontiguousarray(self.source, dtype=np.float64)
        if w.ndim != 2 or not w.size or not np.isfinite(w).all():
            raise InputError(f"w must be a finite matrix (n_visible, n_hidden), got shape {list(w.shape)}")
        if source is not None and (source.shape != w.shape[:1] or not np.isfinite(source).all()):
            raise InputError(f"source must be finite ({len(w)},), got shape {list(source.shape)}")
        for name, value in (("w", w), ("source", source), ("even", source is None)):
            object.__setattr__(self, name, value)
        if not (self.mu2 > 0 and self.s > 0):
            raise InputError(f"action.mu2 and action.s must be positive, got {self.mu2:g} and {self.s:g}")
        lowest = float(np.linalg.eigvalsh(self.kernel)[0])
        if not lowest > 0:
            raise InputError(f"K = mu^2 - s^2 W W^T is not positive: its lowest eigenvalue is {lowest:.6g}")

    @cached_property
    def kernel(self) -> Floats:
        """K (n_visible, n_visible)."""
        found: Floats = self.mu2 * np.eye(len(self.w)) - self.s**2 * self.w @ self.w.T
        return found

    def as_dict(self) -> dict[str, Any]:
        """Couplings, and the hash of the weights and of the source."""
        digest = hashlib.sha256(self.w.tobytes())
        if self.source is not None:
            digest.update(self.source.tobytes())
        shape = {"n_visible": self.w.shape[0], "n_hidden": self.w.shape[1]}
        return {"kind": self.kind, **shape, "mu2": self.mu2, "s": self.s, "weights": digest.hexdigest()}

    def _pull(self, flat: Tensor) -> Tensor:
        """K phi of fields (n, n_visible)."""
        w = flat.new_tensor(self.w)
        return self.mu2 * flat - self.s**2 * (flat @ w) @ w.mT

    def action(self, phi: Tensor) -> Tensor:
        flat = phi.flatten(1)
        found = 0.5 * (flat * self._pull(flat)).sum(1)
        return found if self.source is None else found - flat @ flat.new_tensor(self.source)

    def grad(self, phi: Tensor) -> Tensor:
        found = self._pull(phi.flatten(1))
        if self.source is not None:
            found = found - found.new_tensor(self.source)
        return found.reshape(phi.shape)

    def check_normalisable(self, shape: tuple[int, ...]) -> None:
        if math.prod(shape) != len(self.w):
            raise InputError(
                f"the machine has {len(self.w)} visible nodes, a lattice {list(shape)} has "
                f"{math.prod(shape)} sites"
            )

"""What a sampler needs of a model, and the types of noise and lattice frames."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from diffsq.models.symmetry import Symmetry


class Scored(Protocol):
    """What has a score: grad ln p_sigma(x) of x (n, ...) at sigma (n,), evaluated in a lattice frame."""

    def score(self, x: Tensor, sigma: Tensor, frame: Symmetry = ..., /) -> Tensor:
        """The score, like x."""


class PointScore(Protocol):
    """What a sampler of points needs: see diffsq.models.points.PointModel."""

    dim: int

    @property
    def covariance(self) -> Tensor:
        """Data covariance (d, d)."""

    @property
    def box(self) -> Tensor:
        """Smallest and largest coordinates of the data (2, d)."""

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0|x] (n, d)."""

    def score(self, x: Tensor, sigma: Tensor, frame: Symmetry = ..., /) -> Tensor:
        """grad ln p_sigma(x) (n, d)."""


Noise = Callable[[int], Tensor]
"""noise(step) -> standard normal (n, *shape), float64; one step number per level, N for the start."""
Frames = Callable[[int], Symmetry]
"""frames(step) -> the lattice frame in which the U-Net sees that step."""
ActionFunction = Callable[[Tensor], Tensor]
"""S(x) of x (n, ...): (n,) float64."""
Watch = Callable[[int, Tensor], None]
"""watch(n, x_n) sees every level, n = N first."""


def unseen(level: int, x: Tensor) -> None:
    """A watch that looks away."""

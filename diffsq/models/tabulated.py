"""The score of one learned variable from tables: the same function of x, many times faster on many points.

At a fixed noise level the residual f(u) of `diffsq.models.points` is a smooth function of one variable. It is
evaluated once on an even grid and interpolated by the cubic through the four nearest nodes, with an error of
order h^4 f''''/40, h = 1e-3: below the rounding of the float32 network. Beyond the grid the network itself is
asked.
"""

import torch
from torch import Tensor

from diffsq.models.points import PointModel

REACH = 9.0  # of the grid, in whitened units; a normal variable passes it once in 10^18
NODES = 2**14 + 1
KEPT = 1024  # tables, 130 kB each
WORTH = 4 * NODES  # points from which on tables pay


class Tabulated:
    """The score and denoiser of a model of one variable, one table per noise level asked for.

    Raises `ValueError` for a model of two variables.
    """

    dim = 1

    def __init__(self, model: PointModel) -> None:
        if model.dim != 1:
            raise ValueError("tables are for models of one variable")
        self.model, self.covariance, self.box = model, model.covariance, model.box
        self.tables: dict[float, Tensor] = {}

    def score(self, x: Tensor, sigma: Tensor, frame: object = None) -> Tensor:
        """d ln p_sigma/dx: x (n, 1) float64, sigma (1,) or (n,) all equal -> (n, 1) float64."""
        sigma = sigma[:1]
        u, root = self.model.whitened(x, sigma)
        found: Tensor = (self.model.rho(sigma) * self._residual(u[:, 0], sigma) - u[:, 0])[:, None] / root
        found = found * self.model.axes[0, 0]
        outside = (u.abs() > REACH).any(1)
        if outside.any():
            found[outside] = self.model.score(x[outside], sigma)
        return found

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0|x] = x + sigma^2 score: shapes as `score`."""
        return x + sigma[:1, None] ** 2 * self.score(x, sigma)

    @torch.no_grad()
    def _residual(self, u: Tensor, sigma: Tensor) -> Tensor:
        key = float(sigma)
        step = 2 * REACH / (NODES - 1)
        if key not in self.tables:
            if len(self.tables) >= KEPT:
                self.tables.clear()
            # one node more at either end, so that every cell has its four
            grid = step * torch.arange(-1, NODES + 1, dtype=torch.float64) - REACH
            dtype = self.model.network.weight.dtype
            self.tables[key] = self.model.residual(grid[:, None].to(dtype), sigma)[0][:, 0].double()
        table = self.tables[key]
        place = (u.clamp(-REACH, REACH) + REACH) / step
        cell = place.long().clamp(0, NODES - 2)
        w = place - cell
        a, b, c, d = (table[cell + k] for k in range(4))
        outer = w * (1 - w) / 6 * ((w - 2) * a - (w + 1) * d)
        inner = (1 - w) * (1 + w) * (2 - w) / 2 * b + w * (1 + w) * (2 - w) / 2 * c
        return inner + outer


def fast(model: PointModel, n: int) -> "PointModel | Tabulated":
    """The model, or its tables where n points of one variable are to be drawn and tables pay."""
    return Tabulated(model) if model.dim == 1 and n >= WORTH else model

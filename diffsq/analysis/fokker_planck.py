r"""What only a learned law can tell: circulation of its score, and whether a process keeps it.

With s = grad ln P at a small noise sigma, and its Jacobian J_ab = d_b s_a by automatic differentiation:

    circulation   curl = d_x s_y - d_y s_x, zero for the gradient of an energy; relative to |J|
    Fokker-Planck complex Langevin, dx = K_x dt + sqrt(2 N_R) dW_R, dy = K_y dt + sqrt(2 N_I) dW_I,
                  N_R = 1 + N_I, changes P at the rate

                  (d_t P)/P = -div K - K.s + N_R (d_x s_x + s_x^2) + N_I (d_y s_y + s_y^2),

                  zero where P is stationary, be it right or wrong; relative to the size of its terms

(the equation is that of Aarts, Seiler, Stamatescu 0912.3360). Both are evaluated on data points
with the noise of that level added, with the network in float64.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from diffsq.models.points import PointModel
from lattice.arrays import Floats, real_array
from lattice.errors import InputError
from lattice.rng import normals

Field = Callable[[Tensor], Tensor]
"""A vector field: (n, 2) float64 -> (n, 2)."""
BATCH = 4096
DIFFERENCE = 1e-4  # of the central differences of the drift: error 1e-8 K'''


def score_jacobian(model: PointModel, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """The score (n, d) and J_ab = d s_a/d x_b (n, d, d) at points x (n, d), float64 throughout."""
    level = torch.tensor([sigma], dtype=torch.float64)
    network, t = copy.deepcopy(model.network).double(), model.position(level)
    u, root = model.whitened(x.double(), level)
    rho = float(model.rho(level))

    def left(v: Tensor) -> Tensor:
        if model.kind == "score":
            odd: Tensor = network(v, t) - network(-v, t)
            return odd
        slope: Tensor = torch.func.grad(lambda w: network(w, t).sum())(v)
        return -slope

    columns = []
    for axis in range(model.dim):
        direction = torch.eye(model.dim, dtype=u.dtype)[axis].expand(u.shape)
        value, slope = torch.func.jvp(left, (u,), (direction,))[:2]
        columns.append((rho * slope - direction) / root / root[:, axis : axis + 1])
    jacobian = torch.stack(columns, -1).detach()
    score = (rho * value.detach() - u) / root @ model.axes.T
    return score, model.axes @ jacobian @ model.axes.T


def noised(points: Tensor, sigma: float, n: int, seed: int) -> Tensor:
    """At most n points of the data (N, d), evenly over their rows, with noise sigma: (n, d)."""
    rows = torch.linspace(0, len(points) - 1, min(n, len(points))).long()
    eps = normals(seed, "points/check", np.array([0]), 0, len(rows) * points.shape[1])
    return torch.from_numpy(real_array(points[rows], "points")) + sigma * torch.from_numpy(eps).reshape(
        len(rows), -1
    )


def circulation(model: PointModel, points: Tensor, sigma: float, seed: int = 0, n: int = 20000) -> float:
    """rms of the curl of the score over the rms of |grad s|, on n data points (N, 2) noised by sigma.

    Zero for an energy model, up to rounding; the non-conservative part of a score model. Raises `InputError`
    for points of one variable, which have no curl.
    """
    if model.dim != 2:
        raise InputError("circulation needs points in two dimensions: in one every score is a gradient")
    curl, size = 0.0, 0.0
    for x in torch.split(noised(points, sigma, n, seed), BATCH):
        j = score_jacobian(model, x, sigma)[1]
        curl += float(((j[:, 1, 0] - j[:, 0, 1]) ** 2).sum())
        size += float((j**2).sum())
    return math.sqrt(curl / size)


def divergence(field: Field, x: Tensor) -> Tensor:
    """div K (n,) of a vector field at x (n, d), by central differences."""
    total = torch.zeros(len(x), dtype=torch.float64)
    for axis, step in enumerate(DIFFERENCE * torch.eye(x.shape[1], dtype=x.dtype)):
        total += (field(x + step) - field(x - step))[:, axis] / (2 * DIFFERENCE)
    return total


def fokker_planck(
    model: PointModel, drift: Field, points: Tensor, sigma: float, seed: int = 0, n: int = 20000,
    imaginary_noise: float = 0.0,
) -> dict[str, float]:  # fmt: skip
    """Rate (d_t P)/P of the learned law under complex Langevin with this drift K (n, 2) -> (n, 2).

    Returns rms of the rate, of its largest term, and `relative` = rms rate over the root of the summed mean
    squares of its terms: near zero where the process keeps the law, one where nothing cancels. The
    noise sigma itself moves the law, by a rate of order sigma^2, so take it small. Raises `InputError` unless
    the points are two-dimensional and the drift finite.
    """
    if model.dim != 2:
        raise InputError("the Fokker-Planck residual needs points (x, y) of a complexified variable")
    n_i, sums, count = imaginary_noise, torch.zeros(7, dtype=torch.float64), 0
    for x in torch.split(noised(points, sigma, n, seed), BATCH):
        s, j = score_jacobian(model, x, sigma)
        k = drift(x)
        diffusion = [(1 + n_i) * j[:, 0, 0], (1 + n_i) * s[:, 0] ** 2, n_i * j[:, 1, 1], n_i * s[:, 1] ** 2]
        terms = torch.stack([-divergence(drift, x), -(k * s).sum(1), *diffusion])
        sums += torch.cat([terms, terms.sum(0, keepdim=True)]).square().sum(1)
        count += len(x)
    if not torch.isfinite(sums).all():
        raise InputError("the Fokker-Planck rate is NaN or infinite: the drift or the score is, somewhere")
    mean = sums / count
    return {
        "rate": math.sqrt(float(mean[-1])),
        "largest_term": math.sqrt(float(mean[:-1].max())),
        "relative": math.sqrt(float(mean[-1] / mean[:-1].sum())),
    }


def log_density_map(
    model: PointModel, drift: Field, extent: tuple[float, float, float, float], sigma: float, n: int = 201
) -> dict[str, Floats]:
    """Numbers for a figure: x (n,), y (n,), log P (n, n) [y, x], and drift arrows at 15 x 15 points.

    extent: x_min, x_max, y_min, y_max. Kind "energy" only.
    """
    level = torch.tensor([sigma], dtype=torch.float64)

    def grid(m: int) -> tuple[Tensor, Tensor, Tensor]:
        gx, gy = (torch.linspace(a, b, m, dtype=torch.float64) for a, b in (extent[:2], extent[2:]))
        yy, xx = torch.meshgrid(gy, gx, indexing="ij")
        return gx, gy, rearrange([xx, yy], "component y x -> (y x) component")

    gx, gy, x = grid(n)
    with torch.no_grad():
        log_p = -torch.cat([model.energy(part, level) for part in torch.split(x, BATCH)])
    places = grid(15)[2]
    found = {"x": gx, "y": gy, "log_p": log_p.reshape(n, n), "places": places, "drift": drift(places)}
    return {name: value.numpy() for name, value in found.items()}


def drift_of(action: Any) -> Callable[[Tensor], Tensor]:
    """K = -S'(x + iy) as a field (n, 2) -> (n, 2)."""
    return lambda x: -action.grad(x)

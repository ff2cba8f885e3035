r"""The last layer of a point model in closed form, and the targets it is fitted to.

With the features h_k(u, t) of the last hidden layer fixed, f and g of diffsq.models.points are linear in the
last weights W_mk = coefficient of T_m(t) h_k: weighted least squares over all training points, a sum over
noise levels of Kronecker products T T^T x H, solved once. The error left is orthogonal to every feature, so
averages over the noised law lose what they share with the features: moments of samples come out several
times closer than after the optimiser alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffsq.models.points import N_LAST, N_RHO, PointModel, chebyshev, gaussian_energy

GUARD = 1e-3  # weight of a guard point beside a training point: enough against wells, too little to be seen
RIDGE = 1e-9  # relative to the diagonal: features are nearly dependent


@dataclass(frozen=True)
class Targets:
    """Training points of every noise level, float32 but for sigma (J,), in the model's units.

    u (J, M, d) whitened, f (J, M, d) what is left of the score over rho, g (J, M) the same of the energy,
    weight (J, d) of the squared errors of f: rho^2 sigma^2/v, the rate |D - D*|^2/c of the path KL (mean 1).
    share (J, M) in [0, 1] of that weight given to the error of g: n/(n + 30) with n data points within reach,
    for -ln p_sigma of few is biased. guard_u (J, K, d), guard_g (J, K): points where there are no data, with
    a floor of the density as target, and hardly any weight: between data and nowhere E must not fall. Their
    errors count in nats, guard_weight (J,) = rho^2 up to 1: where rho is small, in units of rho they would
    outweigh the data.
    """

    sigma: Tensor
    u: Tensor
    f: Tensor
    g: Tensor
    weight: Tensor
    share: Tensor
    guard_u: Tensor
    guard_g: Tensor
    guard_weight: Tensor


def prepared(
    model: PointModel, sigma: Tensor, x: Tensor, mean: Tensor, energy: Tensor, share: Tensor,
    guard_x: Tensor, guard_energy: Tensor,
) -> Targets:  # fmt: skip
    """Targets in the model's units, from float64; sets log_rho.

    sigma (J,); points x and posterior means (J, M, d), their -ln p_sigma and share (J, M); guards x (J, K, d)
    and their energies (J, K).
    """
    u, f, g = torch.empty_like(x), torch.empty_like(x), torch.empty_like(energy)
    guard_u, guard_g = torch.empty_like(guard_x), torch.empty_like(guard_energy)
    for j in range(len(sigma)):
        u[j], root = model.whitened(x[j], sigma[j : j + 1])
        f[j] = root * ((mean[j] - x[j]) / sigma[j] ** 2 @ model.axes) + u[j]
        g[j] = energy[j] - gaussian_energy(u[j], root)
        guard_u[j], root = model.whitened(guard_x[j], sigma[j : j + 1])
        guard_g[j] = guard_energy[j] - gaussian_energy(guard_u[j], root)
    size = (f**2).mean((1, 2)).sqrt().clamp_min(1e-6)
    powers = model.position(sigma)[:, None] ** torch.arange(N_RHO)
    # normal equations: lstsq is not bitwise repeatable
    model.log_rho.copy_(torch.linalg.solve(powers.T @ powers, powers.T @ size.log()))
    rho = model.rho(sigma)
    weight = (rho * sigma)[:, None] ** 2 / model.variance
    return Targets(
        sigma, u.float(), (f / rho[:, None, None]).float(), (g / rho[:, None]).float(),
        (weight / weight.mean()).float(), share.float(), guard_u.float(), (guard_g / rho[:, None]).float(),
        (rho**2).clamp_max(1).float(),
    )  # fmt: skip


def solve_last_layer(model: PointModel, targets: Targets, energy_weight: float) -> None:
    """Set the last weights to the least-squares solution over all `targets`."""
    n_feature, n_out = model.network.weight.shape[1:]
    size = N_LAST * n_feature
    normal = torch.zeros(size, size, dtype=torch.float64)
    right = torch.zeros(size, n_out, dtype=torch.float64)
    with torch.no_grad():
        for j, sigma in enumerate(targets.sigma):
            t = model.position(sigma[None])
            gram, moment = _level(model, targets, j, t.float(), energy_weight)
            t_m = chebyshev(t)[0]
            normal += torch.kron(torch.outer(t_m, t_m), gram)
            right += torch.kron(t_m[:, None], moment)
        # features that vanish identically (the one of an odd network) get weight zero
        scale = normal.diagonal().sqrt().clamp_min(1e-12 * float(normal.diagonal().max()) ** 0.5)
        normal = normal / scale[:, None] / scale + RIDGE * torch.eye(size, dtype=torch.float64)
        solution = torch.linalg.solve(normal, right / scale[:, None]) / scale[:, None]
        model.network.weight.copy_(solution.reshape(N_LAST, n_feature, n_out))


def _level(
    model: PointModel, targets: Targets, j: int, t: Tensor, energy_weight: float
) -> tuple[Tensor, Tensor]:
    """Gram matrix of the features at one noise level and their products with the target, both weighted."""
    u, f, g, weight = targets.u[j], targets.f[j].double(), targets.g[j].double(), targets.weight[j].double()
    network = model.network
    if model.kind == "score":
        h = (network.features(u, t) - network.features(-u, t)).double()
        # the components' weights differ by one factor at all levels: each component has the same solution
        return weight[0] * h.T @ h, weight[0] * h.T @ f
    h = network.features(u, t).double()
    # E itself on the scale of its mean weight; the slope of E is minus f
    each = energy_weight * weight.mean() * targets.share[j].double()[:, None]
    gram, moment = h.T @ (each * h), h.T @ (each * g[:, None])
    h = network.features(targets.guard_u[j], t).double()
    one = energy_weight * GUARD * targets.guard_weight[j].double() * weight.mean() * len(u) / len(h)
    gram, moment = gram + one * h.T @ h, moment + one * h.T @ targets.guard_g[j].double()[:, None]
    for axis in range(model.dim):
        direction = torch.zeros_like(u)
        direction[:, axis] = -1
        slope = torch.func.jvp(lambda v: network.features(v, t), (u,), (direction,))[1].double()
        gram += weight[axis] * slope.T @ slope
        moment += weight[axis] * slope.T @ f[:, axis : axis + 1]
    return gram, moment

"""Training of score and energy models of points: regression on the exact posterior mean, resumable.

Adam on nodes drawn from p_sigma (diffsq.training.posterior_means), all noise levels in every batch, then the
average of the weights with its last layer solved exactly (diffsq.training.last_layer). The loss is the path
KL per unit of ln sigma^2, 1/2 |D - D*|^2/c, for an energy model with the squared error of E itself added: a
small error of its gradient can add up to a large one of the energy. Random numbers are functions of (seed,
step): a resumed training continues bitwise. A folder holds model.json, weights.safetensors and metrics.jsonl.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from diffsq.config.sections import PointTraining
from diffsq.models import points as model_points
from diffsq.models.files import finished_model, save_model
from diffsq.models.points import PointModel, gaussian_energy
from diffsq.training.last_layer import GUARD, Targets, prepared, solve_last_layer
from diffsq.training.loop import BETAS, Loop, Loss
from diffsq.training.posterior_means import Table, check_points, draw_nodes, table, tables
from lattice.arrays import Floats, sha256_array
from lattice.errors import InputError
from lattice.files import canonical_json, sha256_text
from lattice.progress import Progress, Silent
from lattice.rng import normals, uniforms
from lattice.seeds import check_seed

STDS = 10.0  # sigma_max in standard deviations of the data, where it is not given
WARMUP = 50  # steps
LAW = 6  # of the training for given settings and data: raise it with any change of what is learned
GUARDS = 8  # training points per guard point
FEW = 30.0  # data within reach, below which -ln p_sigma is not trusted
FLOOR = 1e-5  # weight of a Gaussian added to the law where a guard asks for it
MARGIN, NEAR = 2.0, 0.3  # guards lie in the data's box times this, and see data within this many std


def train_points(
    points: Tensor | Floats, settings: PointTraining, seed: int, out: Path, progress: Progress | None = None
) -> PointModel:
    """Train on points (N, d), d = 1 or 2, of a law symmetric under x -> -x; the same call again resumes.

    Raises `InputError` for points that are not finite or of another shape, for a noise range that is empty,
    and for a loss that is not finite.
    """
    data, seed = check_points(points), check_seed(seed)
    about = {
        "seed": seed, "settings": settings.model_dump(mode="json"), "n_points": len(data),
        "points": sha256_array(data),
        "versions": versions(),
    }  # fmt: skip
    key = sha256_text(canonical_json(about))
    done = finished_model(out, key, PointModel)
    if done is not None:
        return done
    out.mkdir(parents=True, exist_ok=True)
    model = PointTrainer(data, settings, seed, out, key, progress or Silent()).run()
    return save_model(model, out, {**about, "key": key})


def versions() -> dict[str, int]:
    """The version of every law and fit that enters a model."""
    return {"model": model_points.VERSION, "training": LAW}


class PointTrainer:
    """The state of one training between steps."""

    def __init__(
        self, data: Floats, settings: PointTraining, seed: int, out: Path, key: str, progress: Progress
    ) -> None:
        self.data, self.settings, self.seed, self.progress = data, settings, seed, progress
        high = settings.sigma_max or STDS * float(data.std(0).max())
        if settings.sigma_min >= high:
            raise InputError(f"sigma_min = {settings.sigma_min} is not below sigma_max = {high:.4g}")
        self.sigma = np.geomspace(settings.sigma_min, high, settings.n_sigma)
        self.model = PointModel(data.shape[1], settings.kind, settings.width, settings.depth)
        own = torch.from_numpy(data).clone()  # sums are bitwise repeatable in memory that torch has aligned
        self.model.set_gaussian(own.T @ own / len(own), settings.sigma_min, high)
        reach = torch.from_numpy(np.abs(data).max(0))
        self.model.box.copy_(torch.stack([-reach, reach]))
        self.loop = Loop(settings, out, key, progress, warmup=WARMUP, log_every=50, data="the points")

    def run(self) -> PointModel:
        """Targets, optimisation, closed form."""
        targets, network = self.targets(), self.model.network
        if not self.loop.restore(self.model):
            self._initialise(network)
        if self.settings.n_steps > 0:
            optimizer = torch.optim.Adam(network.parameters(), self.settings.learning_rate, BETAS)
            label = f"{self.settings.kind} model"
            average = self.loop.run(
                self.model, network, optimizer, lambda step: self.loss(step, targets), label
            )
            network.load_state_dict(average.state_dict())
        if self.settings.solve:
            solve_last_layer(self.model, targets, self.settings.energy_weight)
        if not all(torch.isfinite(p).all() for p in self.model.parameters()):
            raise InputError(
                "the weights are not finite: try a smaller training.learning_rate, or check the points"
            )
        return self.model.eval().requires_grad_(False)

    def targets(self) -> Targets:
        """Nodes drawn from p_sigma at every noise level with their exact targets."""
        j, m, dim = self.settings.n_sigma, self.settings.n_nodes, self.model.dim
        x, mean = np.empty((2, j, m, dim))
        energy, share = np.empty((2, j, m))
        n_guard = -(-m // GUARDS)
        guard_x, guard_energy = np.empty((j, n_guard, dim)), np.empty((j, n_guard))
        width = NEAR * math.sqrt(float(self.model.variance[0]))
        near = table(self.data, max(self.settings.sigma_min, width))
        self.progress.start(j, "posterior means")
        shifts = self._uniforms("shifts", 0, j * dim).reshape(j, dim) - 0.5
        for level, found in enumerate(tables(self.data, self.sigma, shifts=shifts)):
            nodes = draw_nodes(found.density, self._uniforms("nodes", level, m))
            x[level], mean[level], density = found.at(nodes)
            energy[level] = -np.log(density)
            share[level] = self._share(density, found.sigma)
            guard_x[level] = self._guards(level, found.sigma, n_guard)
            guard_energy[level] = self._guard_energy(guard_x[level], found, near)
            if self.settings.target == "noisy":
                x[level], mean[level] = self._noised(level, found.sigma, m)
                energy[level], share[level] = 0.0, 0.0  # plain score matching knows no energy
            self.progress.update()
        self.progress.close()
        arrays = (self.sigma, x, mean, energy, share, guard_x, guard_energy)
        return prepared(self.model, *(torch.from_numpy(a).clone() for a in arrays))

    def _share(self, density: Floats, sigma: float) -> Floats:
        """n/(n + FEW) with n data points within reach of places where p_sigma is `density`."""
        reached = 2 * len(self.data) * density * (2 * math.sqrt(math.pi) * sigma) ** self.data.shape[1]
        return np.asarray(reached / (reached + FEW))

    def _guards(self, level: int, sigma: float, n: int) -> Floats:
        """Points anywhere in the data's box, enlarged, and four sigma beyond."""
        reach = MARGIN * np.abs(self.data).max(0) + 4 * sigma
        place = self._uniforms("guards", level, n * self.model.dim).reshape(n, -1)
        return np.asarray(reach * (2 * place - 1))

    def _guard_energy(self, x: Floats, found: Table, near: Table) -> Floats:
        """-ln of p_sigma where it is known, of a wider law elsewhere, and of a little of a Gaussian."""
        own, wide = found.density_at(x), found if found.sigma > near.sigma else near
        known = self._share(own, found.sigma)
        with np.errstate(divide="ignore"):  # no density at all: the floor alone
            there = np.log(known * own + (1 - known) * wide.density_at(x))
        u, root = self.model.whitened(torch.from_numpy(x), torch.tensor([found.sigma], dtype=torch.float64))
        return np.asarray(-np.logaddexp(there, math.log(FLOOR) - gaussian_energy(u, root).numpy()))

    def _noised(self, level: int, sigma: float, n: int) -> tuple[Floats, Floats]:
        """Plain denoising score matching: points, and the same with noise."""
        rows = (self._uniforms("rows", level, n) * len(self.data)).astype(np.int64)
        eps = normals(self.seed, "points/noise", np.array([level]), 0, n * self.model.dim)
        return self.data[rows] + sigma * eps.reshape(n, -1), self.data[rows]

    def _uniforms(self, stream: str, step: int, n: int) -> Floats:
        return np.asarray(uniforms(self.seed, f"points/{stream}", np.array([0]), step, n)[0])

    def _initialise(self, network: nn.Module) -> None:
        """PyTorch's default law for linear maps from our own random numbers; the last layer stays zero."""
        generator = torch.Generator().manual_seed(int(self._uniforms("initialise", 0, 1)[0] * 2**62))
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                bound = 1 / math.sqrt(layer.in_features)
                for weight in layer.parameters(recurse=False):
                    fresh = torch.rand(weight.shape, generator=generator) * 2 - 1
                    weight.data.copy_(bound * fresh)

    def loss(self, step: int, targets: Targets) -> Loss:
        """Squared errors of a batch, every level equally often; of an energy at its guards too."""
        settings, n = self.settings, self.settings.batch_size
        level = torch.arange(n) * settings.n_sigma // n
        row = torch.from_numpy((self._uniforms("batch", step, n) * settings.n_nodes).astype(np.int64))
        sigma, weight = targets.sigma[level], targets.weight[level]
        found, energy = self.model.residual(targets.u[level, row], sigma, create_graph=True)
        rate = (weight * (found - targets.f[level, row]) ** 2).mean(1)
        if energy is not None:
            each = settings.energy_weight * weight.mean(1)
            rate = rate + each * targets.share[level, row] * (energy - targets.g[level, row]) ** 2
            some = slice(step % GUARDS, None, GUARDS)
            level, row = level[some], row[some] // GUARDS
            t = self.model.position(sigma[some]).float()
            guard = self.model.network(targets.guard_u[level, row], t)[:, 0] - targets.guard_g[level, row]
            share = len(rate) / len(guard) * GUARD * targets.guard_weight[level] * each[some]
            rate = torch.cat([rate, share * guard**2])
        return Loss(rate.sum() / n, rate, sigma)

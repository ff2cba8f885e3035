"""What the sample stage of a run on one variable makes, part by part; a part that is there is kept.

KIND-SDE/     n_samples drawn at once by the model KIND through the levels of the process SDE
metropolis/   the learned energy at a small noise level, sampled exactly
scan.json     other samplers and numbers of levels; with the exact score too, where there is one
limits.json   the flow without sampling error, step -> 0 and epsilon -> 0 (real models)
flow.json     kappa_n(t) along the forward and the backward process (real models)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffsq.config.sections import METROPOLIS_SIGMA, Process
from diffsq.config.toy import ToyConfig
from diffsq.models.points import PointModel
from diffsq.models.protocol import PointScore
from diffsq.models.tabulated import fast
from diffsq.models.two_peak import TwoPeakScore
from diffsq.process.cumulants import Tally, Watch, exact_average, flow, forward, signal
from diffsq.process.sde import SDES
from diffsq.sampling.flow import sample_points
from diffsq.sampling.point_path import calibrated
from diffsq.sampling.streams import POINT_BLOCK, noise_of
from lattice.actions.one_variable import RealQuartic, TwoPeak
from lattice.ensembles.ensemble import Ensemble, write_ensemble
from lattice.errors import InputError
from lattice.files import read_json, write_json
from lattice.observables.moments import estimates, variable
from lattice.progress import Progress
from lattice.rng import stream_id
from lattice.simulation.exact_draws import draw_toy

METROPOLIS, EXACT = "metropolis", "exact score"
ORDERS = (2, 4, 6, 8)
FLOW = 2**18  # samples followed along both processes
WIDER = 0.01  # of the variances of weighted steps
PARTS = 16  # jackknife blocks in each block of random numbers
SETS = 2**12  # blocks of random numbers reserved for each sampler: 3.4e7 points


def labels(block: int, n: int, total: int) -> NDArray[np.int64]:
    """The jackknife block of each of n samples of a block of random numbers, of `total` samples in all."""
    return np.asarray(PARTS * block + np.arange(n) * PARTS // min(POINT_BLOCK, total))


def unseen(level: int, x: Tensor) -> None:
    """A watch that looks away."""


class Sampling:
    """The sample stage at work: models by kind, the data they learned from, and where the parts go."""

    def __init__(
        self, config: ToyConfig, data: Ensemble, models: dict[str, PointModel], out: Path, key: str,
        progress: Progress,
    ) -> None:  # fmt: skip
        self.config, self.settings, self.data, self.models = config, config.sampling, data, models
        self.out, self.key, self.progress = out, key, progress
        first = next(iter(models.values()))
        self.low, self.high = first.sigma_min, first.sigma_max
        law = data.action
        self.exact = {EXACT: TwoPeakScore(law.mu0, law.sigma0)} if isinstance(law, TwoPeak) else {}

    def levels(self, sde: str, n_levels: int) -> Tensor:
        """Noise levels (n_levels + 1,) of a process over the range that the models learned."""
        return SDES[sde](self.low, self.high).levels(n_levels)

    def draw(self, name: str, kind: str, sde: Process) -> None:
        """The sample set `name`."""
        settings = self.settings
        if self._there(name):
            return
        n_levels = settings.n_levels[sde]
        clamped: list[int] = []
        x = self._points(kind, sde, settings.method, n_levels, settings.n_samples, clamped=clamped)
        about: dict[str, Any] = {"model": kind, "sde": sde, "method": settings.method, "n_levels": n_levels}
        about |= {"clamped": sum(clamped)}
        self._write(name, x, about)

    def correct(self) -> None:
        """Independence Metropolis on whole paths, for exp(-E) at a small noise level."""
        from diffsq.exactness.path_metropolis import metropolis_points

        if self._there(METROPOLIS):
            return
        model = self.models["energy"]
        middle = (self.low * self.high) ** 0.5
        low = self.settings.metropolis_sigma or min(METROPOLIS_SIGMA * self.low, middle)
        if low >= self.high:
            raise InputError(f"sampling.metropolis_sigma = {low:g} must be below sigma_max = {self.high:.4g}")
        levels = SDES["ve"](low, self.high).levels(self.settings.metropolis_levels)
        kernel = calibrated(model, levels, self._some_points(), self.config.seed, WIDER)
        n = self.settings.n_metropolis
        data, labels = self._other_points()
        chain = metropolis_points(
            model, kernel, n, self.config.seed, data, self.progress, fast(model, n), labels
        )
        about = {"model": "energy", "noise2": chain.sigma**2, **chain.as_dict()}
        self._write(METROPOLIS, chain.points, about)

    def scan(self) -> None:
        """Every sampler and number of levels of `sampling.scan`, with every model and both processes."""
        path, settings = self.out / "scan.json", self.settings
        if path.is_file() and read_json(path).get("made_with") == self.key:
            return
        rows = []
        for kind in (*self.models, *self.exact):
            for sde in SDES:
                for method, numbers in settings.scan.items():
                    for n_levels in numbers:
                        row = {"model": kind, "sde": sde, "method": method, "n_levels": n_levels}
                        rows.append({**row, "n": settings.n_scan, **self._entries(row)})
        write_json(path, {"made_with": self.key, "rows": rows})

    def _entries(self, row: dict[str, Any]) -> dict[str, Any]:
        """One row of the scan; a sampler that runs away is a result too."""
        try:
            how = (row["model"], row["sde"], row["method"], row["n_levels"])
            x = self._points(*how, self.settings.n_scan, purpose="scan/")
        except InputError as error:
            return {"entries": None, "reason": str(error)}
        return {"entries": estimates(variable(x.numpy()), np.arange(len(x)) * 100 // len(x))}

    def limits(self) -> None:
        """kappa_n of the flow in its limits, by `diffsq.analysis.flow_limits`."""
        from diffsq.analysis.flow_limits import limits

        path, settings = self.out / "limits.json", self.settings
        if path.is_file() and read_json(path).get("made_with") == self.key:
            return
        real = self.data.phi.shape[1] == 1 and settings.method == "flow"
        rows = limits(self.models, {sde: settings.n_levels[sde] for sde in settings.sde}) if real else []
        write_json(path, {"made_with": self.key, "rows": rows})

    def flow(self) -> None:
        """kappa_n(t): data noised forward, samples of KIND-SDE watched backward, and the formula."""
        path = self.out / "flow.json"
        if path.is_file() and read_json(path).get("made_with") == self.key:
            return
        real = self.data.phi.shape[1] == 1
        flows = [self._flow(sde) for sde in self.settings.sde] if real else []
        write_json(path, {"made_with": self.key, "flows": flows})

    def _flow(self, sde: Process) -> dict[str, Any]:
        kind = self.config.models[-1]
        levels = self.levels(sde, self.settings.n_levels[sde])
        n = min(self.settings.n_samples, len(self.data), FLOW)
        f, blocks = signal(SDES[sde](self.low, self.high), levels), -(-n // POINT_BLOCK)
        up, down = Tally(len(levels), PARTS * blocks), Tally(len(levels), PARTS * blocks)
        rows = torch.from_numpy(self.data.phi[:n])
        for block in range(blocks):
            x = rows[block * POINT_BLOCK : (block + 1) * POINT_BLOCK]
            noise = noise_of(self.config.seed, f"toy/forward/{sde}", block, (POINT_BLOCK, 1))
            label = labels(block, len(x), n)
            forward(x, levels, lambda i: noise(i)[: len(x)], lambda i, y: up.add(i, f[i] * y, label))  # noqa: B023
        seen = [0] * len(levels)

        def watch(level: int, x: Tensor) -> None:
            down.add(level, f[level] * x, labels(seen[level], len(x), n))
            seen[level] += 1

        self._points(kind, sde, self.settings.method, self.settings.n_levels[sde], n, watch)
        sigma = levels.numpy()
        return {
            "sde": sde, "model": kind, "sigma": sigma.tolist(), "orders": list(ORDERS),
            "analytic": self._analytic(f, sigma), "forward": up.curve(sigma, ORDERS, z2=True).as_dict(),
            "exact_average": exact_average(up, f, sigma, ORDERS, z2=True).as_dict(),
            "backward": down.curve(sigma, ORDERS, z2=True).as_dict(),
        }  # fmt: skip

    def _analytic(self, f: Any, sigma: Any) -> list[list[float]]:
        from lattice.exact.one_variable import toy_cumulants

        kappa = toy_cumulants(self.data.action, max(ORDERS)).real
        rows: list[list[float]] = flow(kappa, f, sigma)[:, [n - 1 for n in ORDERS]].tolist()
        return rows

    def _points(
        self, kind: str, sde: str, method: str, n_levels: int, n: int, watch: Watch = unseen,
        purpose: str = "", clamped: list[int] | None = None,
    ) -> Tensor:  # fmt: skip
        """n points, of other random numbers than those of any other sampler."""
        model: PointScore = self.exact[EXACT] if kind == EXACT else fast(self.models[kind], n)
        levels, kernel = self.levels(sde, n_levels), None
        if method == "path":
            kernel = calibrated(model, levels, self._some_points(), self.config.seed)
        first = SETS * (stream_id(f"{purpose}{kind}/{sde}/{method}/{n_levels}") % 2**18)
        last = first - (-n // POINT_BLOCK)
        return sample_points(
            model, levels, last * POINT_BLOCK, self.config.seed, method, self.progress, kernel=kernel,
            blocks=range(first, last), watch=watch, clamped=clamped,
        )[:n]  # fmt: skip

    def _some_points(self) -> Tensor:
        """Training points spread evenly over the ensemble."""
        rows = np.linspace(0, len(self.data) - 1, min(len(self.data), self.settings.n_calibration))
        return torch.from_numpy(self.data.phi[rows.astype(np.int64)])

    def _other_points(self) -> tuple[Tensor, NDArray[np.int64] | None]:
        """Points for the forward weights, and their chains: fresh draws, or data not used to calibrate."""
        n, law = min(len(self.data), self.settings.n_calibration), self.data.action
        if isinstance(law, RealQuartic | TwoPeak):
            seed = (self.config.seed + stream_id("toy/forward weights")) % 2**64
            return torch.from_numpy(draw_toy(law, n, seed)), None
        rows = (np.arange(n) * len(self.data)) // n + len(self.data) // (2 * n)
        return torch.from_numpy(self.data.phi[rows]), self.data.chain[rows]

    def _there(self, name: str) -> bool:
        path = self.out / name / "manifest.json"
        return path.is_file() and read_json(path).get("made_with") == self.key

    def _write(self, name: str, x: Tensor, about: dict[str, Any]) -> None:
        attrs = {"algorithm": "diffusion", "seed": self.config.seed, "about": about}
        ensemble = Ensemble.from_fields(x.numpy(), self.data.action, attrs=attrs)
        write_ensemble(ensemble, self.out / name, {"made_with": self.key})

"""Global sampling of a trained model, with exact path weights.

Fields are drawn in fixed blocks of 64, whatever the number asked for, and every random number is a function
of (seed, index, step): the same sample comes out of any split over shards, runs or processes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffsq.config.config import LatticeRun
from diffsq.models.lattice import LatticeScore
from diffsq.models.protocol import Frames as LatticeFrames
from diffsq.models.protocol import Noise
from diffsq.sampling import steps
from diffsq.sampling.lattice_path import VERSION, ReversePath, has_kernel, read_kernel, save_kernel, with_unet
from diffsq.sampling.levels import levels_of
from diffsq.sampling.streams import frames_of, noise_of
from lattice.ensembles.ensemble import Ensemble, EnsembleWriter
from lattice.errors import InputError
from lattice.files import canonical_json, read_json, sha256_text, write_atomic, write_json
from lattice.progress import Progress, Silent

BLOCK = 64
SHARD_BLOCKS = 16
N_FRAMES = 12
N_WIENER = 2048  # calibration fields for the Wiener filter, shown for comparison only


def sample(
    config: LatticeRun,
    model: LatticeScore,
    ensemble: Ensemble,
    out: str | Path,
    *,
    sde: str | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
) -> Ensemble:
    """Draw `sampling.n_samples` fields through the process `sde` (default: the first of sampling.sde), in the
    schema of a Monte Carlo ensemble.

    model: from `diffsq.train` or `diffsq.load_model`, trained on this ensemble.

    For method "path": log-weights, kernel calibrated on the training chains, forward weights on held-out
    chains in forward.json. Raises `InputError` when the model belongs to another action,
    lattice or ensemble, or weights are not finite.
    """
    out = Path(out)
    check_model(model, ensemble)
    out.mkdir(parents=True, exist_ok=True)
    settings = config.sampling
    process = sde or config.sampling.sde[0]
    levels = levels_of(config, model, ensemble, process)
    generated = {
        "sampler": settings.method,
        "law": VERSION,
        "levels": levels.tolist(),
        "process": process,
        "start": "N(0, G(k) + sigma_max^2) per momentum mode",
        "model": model.about["sha256"],
        "training_ensemble": model.about["ensemble"],
        "seed": config.seed,
        "stream": "sample",
        "n_calibration": settings.n_calibration,
    }
    key = sha256_text(
        canonical_json({**generated, "n_samples": settings.n_samples, "n_forward": settings.n_forward})
    )
    writer = EnsembleWriter(out, ensemble.action, ensemble.shape, key, {"generated": generated})
    work = Sampling(
        config, model.to(device), ensemble, out, key, levels, progress or Silent(), torch.device(device)
    )
    if settings.method == "path":
        work.calibrate()
        write_json(out / "forward.json", work.forward())
        work.draw(writer, work.path_block)
    else:
        step = steps.STEPS[settings.method]
        work.draw(writer, lambda index, watch: work.plain_block(step, index, watch))
    writer.finish({"generated": generated})
    return writer.read()


def check_model(model: LatticeScore, ensemble: Ensemble, folder: Path | None = None) -> None:
    """Refuse a model trained for another lattice, action or ensemble; `folder` is where it was read."""
    for name, have, want in (
        ("lattice", model.shape, ensemble.shape),
        ("action", model.about.get("action"), ensemble.action.as_dict()),
        ("ensemble", model.about.get("ensemble"), ensemble.identity),
    ):
        if have != want:
            where = f"{folder}: " if folder else ""
            raise InputError(f"{where}the model was trained for {name} {have}, not {want}; train one for it")


Watch = Callable[[int, Tensor], None]


class Sampling:
    """One sampling run: its model, streams of random numbers, and what is already on disk."""

    def __init__(
        self,
        config: LatticeRun,
        model: LatticeScore,
        ensemble: Ensemble,
        out: Path,
        key: str,
        levels: Tensor,
        progress: Progress,
        device: torch.device,
    ) -> None:
        self.config, self.model, self.out, self.key = config, model, out, key
        self.levels = levels.to(device)
        self.progress, self.device = progress, device
        self.action = ensemble.action
        self.train_set, self.held_out = ensemble.split_chains(config.training.validation_fraction)
        self.path: ReversePath | None = None
        self.base_path: ReversePath

    def noise(self, stream: str, index: NDArray[np.int64]) -> Noise:
        """Standard normal fields of the samples `index` in a stream, a function of the step."""
        return noise_of(self.model, self.config.seed, stream, index, self.device)

    def frames(self) -> LatticeFrames:
        """Lattice frame of each step."""
        return frames_of(self.model, self.config.seed)

    def fields(self, ensemble: Ensemble, n: int) -> tuple[Tensor, NDArray[np.int64]]:
        """n fields spread evenly over the ensemble, and their chains."""
        rows = np.linspace(0, len(ensemble) - 1, min(n, len(ensemble))).astype(np.int64)
        return torch.from_numpy(ensemble.phi[rows]).to(self.device), ensemble.chain[rows]

    def calibrate(self) -> None:
        """Measure the reverse kernel on training fields, or read it back.

        Measured with the regression base, which costs a fraction of the U-Net and so sees many fields; what
        the U-Net explains beyond it narrows the variance by the ratio of the two predictions.
        """
        if not has_kernel(self.out, self.key):
            base = self._calibrated(LatticeScore(self.model.base, None), self.config.sampling.n_calibration)
            save_kernel(self.out, base.kernel, self.key)
        self.base_path = read_kernel(self.out / "kernel.safetensors", self.model)
        self.path = with_unet(self.base_path, self.model)

    def _calibrated(self, model: LatticeScore, n: int) -> ReversePath:
        path = ReversePath.predicted(model, self.levels)
        phi, _ = self.fields(self.train_set, n)
        self.progress.start(path.kernel.n_levels, "reverse kernel")
        noise = self.noise("sample/calibrate", np.arange(len(phi)))
        path.calibrate(phi, noise, self.frames(), lambda: self.progress.update())
        self.progress.close()
        return path

    def forward(self) -> dict[str, Any]:
        """Forward log-weights on held-out fields: of the model and, for its gain, of the closed forms."""
        assert self.path is not None
        rivals = {"model": self.path, **self._closed_form()}
        phi, chain = self.fields(self.held_out, self.config.sampling.n_forward)
        starts = range(0, len(phi), BLOCK)
        self.progress.start(len(phi), "forward weights")
        results: dict[str, list[float]] = {name: [] for name in rivals}
        increments = []
        for block, start in enumerate(starts):
            part = self.out / f"forward-{block:04d}.json"
            saved = read_json(part) if part.exists() else {}
            if saved.get("key") != self.key:
                saved = {"key": self.key, **self._forward_block(rivals, phi[start : start + BLOCK], block)}
                write_json(part, saved)
            for name in rivals:
                results[name] += saved[name]
            increments += saved["increments"]
            self.progress.update(min(BLOCK, len(phi) - start))
        self.progress.close()
        return {**results, "increments": increments, "chain": chain.tolist()}

    def _closed_form(self) -> dict[str, ReversePath]:
        """The same chain with the regression base alone and with the Wiener filter alone, each calibrated."""
        if self.model.unet is None:
            return {}
        wiener = LatticeScore(type(self.model.base)(self.model.momenta, len(self.model.base.log_sigma)), None)
        wiener.to(self.device)
        wiener.base.g.copy_(self.model.base.g)
        wiener.base.log_sigma.copy_(self.model.base.log_sigma)
        return {"base": self.base_path, "wiener": self._calibrated(wiener, N_WIENER)}

    def _forward_block(self, rivals: dict[str, ReversePath], phi: Tensor, block: int) -> dict[str, Any]:
        index = np.arange(block * BLOCK, block * BLOCK + len(phi))
        found: dict[str, Any] = {}
        for name, path in rivals.items():
            log_w, steps = path.weigh(
                phi,
                self.action.action,
                self.noise("sample/forward", index),
                self.frames(),
            )
            if not torch.isfinite(log_w).all():
                raise InputError(f"forward log-weights ({name}) are NaN or infinite; retrain the model")
            found[name] = log_w.tolist()
            if name == "model":
                found["increments"] = steps.tolist()
        return found

    def path_block(self, index: NDArray[np.int64], watch: Watch) -> tuple[Tensor, Tensor | None]:
        """One block of the path sampler: fields and log-weights."""
        assert self.path is not None
        noise, frames = self.noise("sample/reverse", index), self.frames()
        phi, log_w = self.path.sample(self.action.action, noise, frames, watch)
        bad = int((~torch.isfinite(log_w)).sum())
        if bad:
            raise InputError(
                f"{bad} log-weights of samples {index[0]}-{index[-1]} are NaN or infinite; retrain the model"
            )
        return phi, log_w

    def plain_block(
        self, step: steps.Step, index: NDArray[np.int64], watch: Watch
    ) -> tuple[Tensor, Tensor | None]:
        """One block of a sampler without weights."""
        noise, frames = self.noise("sample/reverse", index), self.frames()
        g = self.model.base.g
        start = self.model.momenta.colour(noise(2 * len(self.levels) - 2), g + self.levels[-1] ** 2)
        return steps.run(step, self.model, start, self.levels, noise, frames, watch), None

    def draw(
        self,
        writer: EnsembleWriter,
        block_of: Callable[[NDArray[np.int64], Watch], tuple[Tensor, Tensor | None]],
    ) -> None:
        """Write all shards that are not there yet, and the denoising sequence of the first field."""
        n = self.config.sampling.n_samples
        size = BLOCK * SHARD_BLOCKS
        self.progress.start(n, "samples")
        for k, start in enumerate(range(0, n, size)):
            count = min(size, n - start)
            if writer.verified(k) is not None:
                self.progress.update(count)
                continue
            parts = []
            for first in range(start, start + count, BLOCK):
                watch = Frames(N_FRAMES, self.config.sampling.n_levels) if first == 0 else None
                parts.append(block_of(np.arange(first, first + BLOCK), watch or (lambda level, x: None)))
                if watch is not None:
                    watch.write(self.out / "sequence.h5", self.levels.cpu().numpy())
                self.progress.update(min(BLOCK, start + count - first))
            phi = torch.cat([p for p, _ in parts])[:count].cpu().numpy()
            weights = [w for _, w in parts if w is not None]
            index = np.arange(start, start + count)
            writer.append(
                k,
                phi=phi,
                chain=np.zeros_like(index),
                trajectory=index,
                log_weight=torch.cat(weights)[:count].cpu().numpy() if weights else None,
            )
        self.progress.close()


class Frames:
    """Keeps the first field of a block at `n` levels spread from the start to the end of the chain."""

    def __init__(self, n: int, n_levels: int) -> None:
        self.wanted = set(np.linspace(0, n_levels, min(n, n_levels + 1)).round().astype(int).tolist())
        self.kept: list[tuple[int, NDArray[np.float64]]] = []

    def __call__(self, level: int, x: Tensor) -> None:
        if level in self.wanted:
            self.kept.append((level, x[0].cpu().numpy().copy()))

    def write(self, path: Path, sigma: NDArray[np.float64]) -> None:
        """HDF5 file with phi (n_frames, *shape) and sigma (n_frames,), from noise to field."""

        with h5py.File("sequence", "w", driver="core", backing_store=False) as h5:
            h5["phi"] = np.stack([phi for _, phi in self.kept])
            h5["sigma"] = sigma[[level for level, _ in self.kept]]
            h5.flush()
            write_atomic(path, h5.id.get_file_image())

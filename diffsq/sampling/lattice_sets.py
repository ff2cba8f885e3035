"""Global sampling of a trained model, with exact path weights.

Fields are drawn in fixed blocks of 64, whatever the number asked for, and every random number is a function
of (seed, index, step): the same sample comes out of any split over shards, runs or processes.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from diffsq.config.config import LatticeRun
from diffsq.models.lattice import LatticeScore
from diffsq.models.protocol import Frames, Noise
from diffsq.models.regression import RegressionBase
from diffsq.sampling import steps
from diffsq.sampling.folder import claim
from diffsq.sampling.lattice_path import VERSION, ReversePath
from diffsq.sampling.levels import levels_of
from diffsq.sampling.reverse_chain import Watch, finite, unseen
from diffsq.sampling.streams import frames_of, noise_of
from lattice.arrays import Floats, Integers, sha256_array
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.writer import EnsembleWriter
from lattice.errors import InputError
from lattice.files import canonical_json, read_json, sha256_text, write_atomic, write_json
from lattice.progress import Progress, Silent

BLOCK = 64
SHARD_BLOCKS = 16
N_FRAMES = 12
RIVALS = 3  # of what forward.json holds of base and Wiener filter: raise it with any change
RETRAIN = "; retrain the model"
Drawn = tuple[Tensor, Tensor | None]
"""Fields of a block, and their log-weights where the sampler has them."""


def sample(
    config: LatticeRun, model: LatticeScore, ensemble: Ensemble, out: Path, *,
    sde: str | None = None, progress: Progress | None = None, device: str = "cpu",
) -> Ensemble:  # fmt: skip
    """Draw `sampling.n_samples` fields through the process `sde` (default: the first of sampling.sde).

    config: of one model alone (`LatticeRun.of`). model: from `diffsq.train` or `diffsq.load_model`, trained
    on this ensemble. For methods "flow" and "path": log-weights, and forward weights on held-out chains in
    forward.json.
    More `n_samples` or `n_forward` than `out` holds go on from there.
    Raises `InputError` when the model belongs to another action, lattice or ensemble, or weights are not
    finite.
    """
    check_model(model, ensemble)
    settings, process = config.sampling, sde or config.sampling.sde[0]
    levels = levels_of(config, model.cpu(), process)
    generated = {
        "sampler": config.method, "law": VERSION, "levels": levels.tolist(), "process": process,
        "start": "N(0, G(k) + sigma_max^2) per momentum mode", "model": model.about["sha256"],
        "training_ensemble": model.about["ensemble"], "seed": config.seed, "stream": "sample",
    }  # fmt: skip
    key = sha256_text(canonical_json(generated))
    request = claim(out, key, {"n_samples": config.n_samples, "n_forward": settings.n_forward})
    writer = EnsembleWriter(out, ensemble.action, ensemble.shape, key, {"generated": generated})
    model = model.to(device)
    work = Sampling(config, model, ensemble, out, key, process, levels.to(device), progress or Silent())
    if config.method == "path":
        path = ReversePath(model, work.levels)
        write_json(out / "forward.json", work.forward(path))
        work.draw(writer, partial(work.path_block, path))
    else:
        work.draw(writer, partial(work.plain_block, steps.STEPS[config.method]))
    writer.finish({"generated": generated, "request": request})
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


@dataclass
class Sampling:
    """One sampling run: its model, streams of random numbers, and what is already on disk."""

    config: LatticeRun
    model: LatticeScore
    ensemble: Ensemble
    out: Path
    key: str
    process: str
    levels: Tensor
    progress: Progress

    def noise(self, stream: str, index: Integers) -> Noise:
        """Standard normal fields of the samples `index` in a stream of the process, by the step."""
        model = self.config.models[0]
        stream = f"{stream}/{self.process}" + ("" if model == "score" else f"/{model}")  # none shares numbers
        return noise_of(self.config.seed, stream, index, self.model.shape, self.levels.device)

    def frames(self) -> Frames:
        """Lattice frame of each step."""
        return frames_of(self.config.seed, self.model.shape)

    def rows(self, n: int) -> Integers:
        """n rows of the ensemble spread over the held-out chains; more go on from these."""
        part = self.ensemble.split_rows(self.config.training.validation_fraction)[1]
        return self.ensemble.spread(n, seed=self.config.seed, stream="sample", among=part)

    def fields(self, rows: Integers) -> Tensor:
        """The configurations `rows`."""
        return torch.from_numpy(self.ensemble.phi[rows]).to(self.levels.device)

    def forward(self, path: ReversePath) -> dict[str, Any]:
        """Forward log-weights on held-out fields: of the model and, for its gain, of the closed forms."""
        rivals = {"model": path}
        if self.model.unet is not None:
            base = self.model.base
            rivals |= {"wiener": ReversePath(wiener_of(base), self.levels)}
            if self.config.model.base == "regression":
                rivals |= {"base": ReversePath(LatticeScore(base, None), self.levels)}
        rows = self.rows(self.config.sampling.n_forward)
        phi = self.fields(rows)
        results: dict[str, list[Any]] = {name: [] for name in (*rivals, "increments")}
        self.progress.start(len(phi), "forward weights")
        for block, part in enumerate(torch.split(phi, BLOCK)):
            file = self.out / f"forward-{block:04d}.json"
            key = sha256_text(f"{self.key}/{RIVALS}/{block}/{sha256_array(part.cpu().numpy())}")
            saved = read_json(file) if file.exists() else {}
            if saved.get("key") != key:
                saved = {"key": key, **self._forward_block(rivals, part, block)}
                write_json(file, saved)
            for name, values in results.items():
                values += saved[name]
            self.progress.update(len(part))
        self.progress.close()
        where = {name: getattr(self.ensemble, name)[rows].tolist() for name in ("chain", "trajectory")}
        return {**results, **where}

    def _forward_block(self, rivals: dict[str, ReversePath], phi: Tensor, block: int) -> dict[str, Any]:
        noise = self.noise("sample/forward", np.arange(block * BLOCK, block * BLOCK + len(phi)))
        found: dict[str, Any] = {}
        for name, path in rivals.items():
            log_w, increments = path.weigh(phi, self.ensemble.action.action, noise, self.frames())
            found[name] = finite(log_w, f"forward log-weights ({name})", RETRAIN).tolist()
            found.setdefault("increments", increments.tolist())  # of the first, the model
        return found

    def path_block(self, path: ReversePath, index: Integers, watch: Watch) -> Drawn:
        """One block of the path sampler."""
        noise = self.noise("sample/reverse", index)
        phi, log_w = path.sample(self.ensemble.action.action, noise, self.frames(), watch)
        return phi, finite(log_w, f"log-weights of samples {index[0]}-{index[-1]}", RETRAIN)

    def plain_block(self, step: steps.Step, index: Integers, watch: Watch) -> Drawn:
        """One block of a sampler without weights."""
        noise, model = self.noise("sample/reverse", index), self.model
        white = noise(2 * len(self.levels) - 2)
        start = model.momenta.colour(white, model.base.g + self.levels[-1] ** 2)
        return steps.run(step, model, start, self.levels, noise, self.frames(), watch), None

    def draw(self, writer: EnsembleWriter, block_of: Callable[[Integers, Watch], Drawn]) -> None:
        """Write all shards that are not there yet, and the denoising sequence of the first field."""
        n, size = self.config.n_samples, BLOCK * SHARD_BLOCKS
        self.progress.start(n, "samples")
        for k, rows, kept in writer.spans(n, size):
            if kept is not None:
                self.progress.update(len(rows))
                continue
            parts, skip = [], rows.start % BLOCK  # a block is drawn whole, whatever is wanted of it
            for first in range(rows.start - skip, rows.stop, BLOCK):
                seen = Sequence(N_FRAMES, len(self.levels) - 1) if first == rows.start == 0 else None
                parts.append(block_of(np.arange(first, first + BLOCK), seen or unseen))
                if seen is not None:
                    seen.write(self.out / "sequence.h5", self.levels.cpu().numpy())
                self.progress.update(min(first + BLOCK, rows.stop) - max(first, rows.start))
            own, index = slice(skip, skip + len(rows)), np.arange(rows.start, rows.stop)
            phi = torch.cat([p for p, _ in parts])[own].cpu().numpy()
            weights = [w for _, w in parts if w is not None]
            log_w = torch.cat(weights)[own].cpu().numpy() if weights else None
            writer.append(k, phi=phi, chain=np.zeros_like(index), trajectory=index, log_weight=log_w)
        self.progress.close()


def wiener_of(base: RegressionBase) -> LatticeScore:
    """The Wiener filter as a rival score: the best linear one, nothing of the regression in its D.

    Its reverse steps have the variance that it leaves open itself, and the law of the zero mode that the base
    has, so the path KL of the two differ by their scores. In a free field they are the same.
    """
    filtered = copy.deepcopy(base)
    filtered.coefficients.zero_()
    filtered.explained.zero_()
    return LatticeScore(filtered, None)


class Sequence:
    """A watch that keeps the first field of a block at `n` levels spread over the chain."""

    def __init__(self, n: int, n_levels: int) -> None:
        self.wanted = set(np.linspace(0, n_levels, min(n, n_levels + 1)).round().astype(int).tolist())
        self.kept: dict[int, Floats] = {}

    def __call__(self, level: int, x: Tensor) -> None:
        if level in self.wanted:
            self.kept[level] = x[0].cpu().numpy().copy()

    def write(self, path: Path, sigma: Floats) -> None:
        """HDF5 file with phi (n_frames, *shape) and sigma (n_frames,), from noise to field."""
        with h5py.File("sequence", "w", driver="core", backing_store=False) as h5:
            h5["phi"] = np.stack(list(self.kept.values()))
            h5["sigma"] = sigma[list(self.kept)]
            h5.flush()
            write_atomic(path, h5.id.get_file_image())

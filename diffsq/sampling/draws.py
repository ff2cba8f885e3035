"""Drawing the sample set of a model on a lattice: random streams, shards, forward weights, resumed.

Fields are drawn in fixed blocks of 64, whatever the number asked for, and every random number is a function
of (seed, index, step): the same sample comes out of any split over shards, runs or processes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from diffsq.config.config import LatticeRun
from diffsq.models.lattice import LatticeScore
from diffsq.models.protocol import Frames, Noise
from diffsq.sampling.reverse_chain import Watch, unseen
from diffsq.sampling.streams import frames_of, noise_of
from lattice.arrays import Floats, Integers, sha256_array
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.writer import EnsembleWriter
from lattice.files import read_json, sha256_text, write_atomic, write_json
from lattice.progress import Progress
from lattice.rng import uniforms

BLOCK = 64
SHARD_BLOCKS = 16
N_FRAMES = 12
FORWARD = 4  # of what forward.json holds: raise it with any change
Drawn = tuple[Tensor, Tensor | None]
"""Fields of a block, and their log-weights where the sampler has them."""


@dataclass
class Sampling:
    """One sampling run: its model, streams of random numbers, and what is already on disk.

    levels (N + 1,) of the sampler, sigma_0 = 0 first, on the device.
    """

    config: LatticeRun
    model: LatticeScore
    ensemble: Ensemble
    out: Path
    key: str
    process: str
    levels: Tensor
    progress: Progress

    def stream(self, name: str) -> str:
        """A stream of this process and model: none shares numbers with another."""
        model = self.config.models[0]
        return f"{name}/{self.process}" + ("" if model == "score" else f"/{model}")

    def noise(self, name: str, index: Integers) -> Noise:
        """Standard normal fields of the samples `index` in a stream, by the step."""
        stream, device = self.stream(name), self.levels.device
        return noise_of(self.config.seed, stream, index, self.model.shape, device)

    def signs(self, name: str, index: Integers) -> Tensor:
        """+1 or -1 of each of the samples `index`: (n,)."""
        drawn = uniforms(self.config.seed, self.stream(name), index, 0, 1)[:, 0]
        return torch.from_numpy(np.where(drawn < 0.5, -1.0, 1.0)).to(self.levels.device)

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

    def forward(
        self, names: Sequence[str], weigh: Callable[[Tensor, Integers], dict[str, Any]]
    ) -> dict[str, Any]:
        """Forward weights of held-out fields, a list of each of `names`, with chain and trajectory of each.

        weigh(phi, index): the lists of a block of fields (n, *shape), kept in a file as soon as it is there.
        """
        rows = self.rows(self.config.sampling.n_forward)
        phi = self.fields(rows)
        results: dict[str, list[Any]] = {name: [] for name in names}
        self.progress.start(len(phi), "forward weights")
        for block, part in enumerate(torch.split(phi, BLOCK)):
            file = self.out / f"forward-{block:04d}.json"
            key = sha256_text(f"{self.key}/{FORWARD}/{block}/{sha256_array(part.cpu().numpy())}")
            saved = read_json(file) if file.exists() else {}
            if saved.get("key") != key:
                saved = {"key": key, **weigh(part, np.arange(block * BLOCK, block * BLOCK + len(part)))}
                write_json(file, saved)
            for name, values in results.items():
                values += saved[name]
            self.progress.update(len(part))
        self.progress.close()
        where = {name: getattr(self.ensemble, name)[rows].tolist() for name in ("chain", "trajectory")}
        return {**results, **where}

    def draw(
        self,
        writer: EnsembleWriter,
        n: int,
        block_of: Callable[[Integers, Watch], Drawn],
        what: str = "samples",
    ) -> None:
        """Write all shards of n samples that are not there yet, and the denoising sequence of the first."""
        self.progress.start(n, what)
        for k, rows, kept in writer.spans(n, BLOCK * SHARD_BLOCKS):
            if kept is not None:
                self.progress.update(len(rows))
                continue
            parts, skip = [], rows.start % BLOCK  # a block is drawn whole, whatever is wanted of it
            for first in range(rows.start - skip, rows.stop, BLOCK):
                first_of_all = first == rows.start == 0 and writer.folder == self.out
                seen = Frieze(N_FRAMES, len(self.levels) - 1) if first_of_all else None
                parts.append(block_of(np.arange(first, first + BLOCK), seen or unseen))
                if seen is not None:
                    seen.write(writer.folder / "sequence.h5", self.levels.cpu().numpy())
                self.progress.update(min(first + BLOCK, rows.stop) - max(first, rows.start))
            own, index = slice(skip, skip + len(rows)), np.arange(rows.start, rows.stop)
            phi = torch.cat([p for p, _ in parts])[own].cpu().numpy()
            weights = [w for _, w in parts if w is not None]
            log_w = torch.cat(weights)[own].cpu().numpy() if weights else None
            writer.append(k, phi=phi, chain=np.zeros_like(index), trajectory=index, log_weight=log_w)
        self.progress.close()


class Frieze:
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

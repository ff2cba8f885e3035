"""Drawing the sample set of a model on a lattice: random streams, shards, forward weights, resumed.

Fields are drawn in fixed blocks of 64, whatever the number asked for, and every random number is a function
of (seed, index, step): the same sample comes out of any split over shards, runs or processes. Of a team,
process 0 says what is missing and every process draws: whole shards, written by the one that drew them, while
there is one for each, then the blocks of the rest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from diffsq.models.protocol import Frames, Noise, Watch, unseen
from diffsq.sampling.streams import frames_of, noise_of
from lattice.arrays import Floats, Integers, sha256_array
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.writer import EnsembleWriter
from lattice.errors import InputError
from lattice.files import read_json, sha256_text, write_atomic, write_json
from lattice.processes import Team
from lattice.progress import Progress
from lattice.rng import uniforms

BLOCK = 64
SHARD_BLOCKS = 16
N_FRAMES = 12
FORWARD = 4  # of what forward.json holds: raise it with any change
Drawn = tuple[Tensor, Tensor | None]
"""Fields of a block, and their log-weights where the sampler has them."""
Part = tuple[Floats, Floats | None]
"""The same as arrays."""


@dataclass
class Sampling:
    """One sampling run, of fields or links: its model, streams of random numbers, what is already on disk.

    levels (N + 1,) of the sampler, sigma_0 = 0 first, on the device.
    """

    config: Any
    model: Any
    ensemble: Ensemble
    out: Path
    key: str
    process: str
    levels: Tensor
    progress: Progress
    team: Team = field(default_factory=Team)

    def stream(self, name: str) -> str:
        """A stream of this process and model: none shares numbers with another."""
        model = self.config.models[0]
        return f"{name}/{self.process}" + ("" if model == "score" else f"/{model}")

    def noise(self, name: str, index: Integers, components: tuple[int, ...] = ()) -> Noise:
        """Standard normal fields of the samples `index` in a stream, by the step."""
        stream, device = self.stream(name), self.levels.device
        return noise_of(self.config.seed, stream, index, (*components, *self.model.shape), device)

    def uniforms(self, name: str, index: Integers, n: int) -> Tensor:
        """n uniform numbers for each of the samples `index`: (len(index), n)."""
        drawn = uniforms(self.config.seed, self.stream(name), index, 0, n)
        return torch.from_numpy(drawn).to(self.levels.device)

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

    def forward(self, names: Sequence[str], weigh: Callable[[Tensor, Integers], dict[str, Any]]) -> None:
        """forward.json: forward weights of held-out fields, a list of each of `names`, and chain and
        trajectory of each.

        weigh(phi, index): the lists of a block of fields (n, *shape), kept in a file as soon as it is there.
        """
        rows = self.rows(self.config.sampling.n_forward)
        parts = torch.split(self.fields(rows), BLOCK)
        keys = [
            sha256_text(f"{self.key}/{FORWARD}/{block}/{sha256_array(part.cpu().numpy())}")
            for block, part in enumerate(parts)
        ]
        missing: list[int] = []
        if self.team.rank == 0:
            missing = [block for block, key in enumerate(keys) if self._saved(block).get("key") != key]
        missing = self.team.exchange(missing)[0]

        def make(block: int) -> None:
            self._forward_block(block, parts[block], keys[block], weigh)

        self.progress.start(len(rows), "forward weights", len(rows) - sum(len(parts[b]) for b in missing))
        for block, _ in zip(missing, self.team.each(make, missing), strict=True):
            self.progress.update(len(parts[block]))
        self.progress.close()
        if self.team.rank == 0:
            saved = [self._saved(block) for block in range(len(parts))]
            results = {name: [x for each in saved for x in each[name]] for name in names}
            where = {name: getattr(self.ensemble, name)[rows].tolist() for name in ("chain", "trajectory")}
            write_json(self.out / "forward.json", {**results, **where})

    def _forward_block(
        self, block: int, phi: Tensor, key: str, weigh: Callable[[Tensor, Integers], dict[str, Any]]
    ) -> None:
        write_json(self._file(block), {"key": key, **weigh(phi, np.arange(len(phi)) + block * BLOCK)})

    def _file(self, block: int) -> Path:
        return self.out / f"forward-{block:04d}.json"

    def _saved(self, block: int) -> dict[str, Any]:
        return read_json(self._file(block)) if self._file(block).exists() else {}

    def draw(
        self,
        writer: EnsembleWriter,
        n: int,
        block_of: Callable[[Integers, Watch], Drawn],
        what: str = "samples",
    ) -> None:
        """Write all shards of n samples that are not there yet, and the denoising sequence of the first.

        Every process calls this; the writer of process 0 then knows all shards.
        """
        missing: list[tuple[int, range]] = []
        if self.team.rank == 0:
            spans = writer.spans(n, BLOCK * SHARD_BLOCKS)
            missing = [(k, rows) for k, rows, kept in spans if kept is None]
        missing = self.team.exchange(missing)[0]
        self.progress.start(n, what, n - sum(len(rows) for _, rows in missing))
        mine, size = self.team.rank, self.team.size
        n_whole = len(missing) // size * size
        whole, rest = missing[:n_whole], missing[n_whole:]

        def block(first: int) -> Part:
            return self._block(writer, first, block_of)

        def shard(piece: tuple[int, range]) -> None:
            k, rows = piece
            parts = []
            for first in blocks_of(rows):
                parts.append(block(first))
                self.progress.update(min(first + BLOCK, rows.stop) - max(first, rows.start))
            append(writer, k, rows, parts)

        for number, _ in enumerate(self.team.each(shard, whole)):
            if number % size != mine:
                self.progress.update(len(whole[number][1]))
        parts = self.team.each(block, [first for _, rows in rest for first in blocks_of(rows)])
        for k, rows in rest:
            own = [next(parts) for _ in blocks_of(rows)]
            if mine == 0:
                append(writer, k, rows, own)
                self.progress.update(len(rows))
        if mine == 0:
            require(writer, [k for number, (k, _) in enumerate(whole) if number % size])
        self.progress.close()

    def _block(
        self, writer: EnsembleWriter, first: int, block_of: Callable[[Integers, Watch], Drawn]
    ) -> Part:
        """The samples first, ..., first + BLOCK - 1, with the denoising sequence of the very first."""
        watched = first == 0 and writer.folder == self.out
        seen = Frieze(N_FRAMES, len(self.levels) - 1) if watched else None
        phi, log_w = block_of(np.arange(first, first + BLOCK), seen or unseen)
        if seen is not None:
            seen.write(writer.folder / "sequence.h5", self.levels.cpu().numpy())
        return phi.cpu().numpy(), None if log_w is None else log_w.cpu().numpy()


def blocks_of(rows: range) -> range:
    """The first sample of each block that samples `rows` are in: a block is drawn whole, whatever is wanted.

    >>> list(blocks_of(range(70, 130)))
    [64, 128]
    """
    return range(rows.start - rows.start % BLOCK, rows.stop, BLOCK)


def append(writer: EnsembleWriter, k: int, rows: range, parts: Sequence[Part]) -> None:
    """Write shard k, the samples `rows`, of the blocks that they are in."""
    index, skip = np.arange(rows.start, rows.stop), rows.start % BLOCK
    own = slice(skip, skip + len(rows))
    phi = np.concatenate([p for p, _ in parts])[own]
    weights = [w for _, w in parts if w is not None]
    log_w = np.concatenate(weights)[own] if weights else None
    writer.append(k, phi=phi, chain=np.zeros_like(index), trajectory=index, log_weight=log_w)


def require(writer: EnsembleWriter, shards: Sequence[int]) -> None:
    """`InputError` unless the shards that other processes have written are there."""
    for k in shards:
        if writer.verified(k) is None:
            raise InputError(
                f"{writer.path(k)}: not there after another process has written it; all processes need one "
                "file system"
            )


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

"""Flows of machines from cold and from hot starts, until they agree."""

from __future__ import annotations

import numpy as np

from diffsq.analysis.flow_verdict import Ends, apart
from diffsq.analysis.rbm_flow import N_SIGMA, Flow, end_point, flow
from diffsq.models.binary_rbm import BinaryRBM
from lattice.arrays import Floats
from lattice.progress import Progress
from lattice.rng import uniforms

STARTS = ("cold", "hot")


def start_spins(kind: str, n: int, n_sites: int, q: int, seed: int) -> Floats:
    """n configurations (n, n_sites): cold, all spins alike, the states in turn; hot, random."""
    if kind == "cold":
        states = np.arange(n) % q
        spins = np.repeat(states[:, None], n_sites, axis=1)
    else:
        spins = (uniforms(seed, "flow/hot", np.arange(n), 0, n_sites) * q).astype(np.int64)
    found: Floats = spins.astype(np.float64)
    return 2 * found - 1 if q == 2 else found


def kept_steps(n_sweeps: int) -> list[int]:
    """The sweeps at which the network reads: some, as if by their logarithm, and the last."""
    return sorted({0, *np.geomspace(1, n_sweeps, 10).round().astype(int).tolist()})


def until_they_agree(
    starts: list[tuple[BinaryRBM, int, list[Floats]]], n_sweeps: int, longest: int, shape: tuple[int, int],
    is_read: bool, progress: Progress,
) -> list[list[Flow]]:  # fmt: skip
    """Flows of every machine, cold and hot, of n_sweeps and twice as many again and again while the ends of
    cold and hot starts are apart, up to `longest` times n_sweeps."""
    done, pairs = 0, list[list[Flow]]()
    while True:
        more = n_sweeps if not done else done
        keep = {more, *(kept_steps(n_sweeps) if is_read and not done else [])}
        made = []
        for place, (one, seed, begin) in enumerate(starts):
            from_ = [pair.kept[done] for pair in pairs[place]] if done else begin
            made.append([
                flow(one, spins, more, (seed + i) % 2**64, "sample", shape, keep, done)
                for i, spins in enumerate(from_)
            ])  # fmt: skip
            progress.update(0 if done else 1)
        if done:
            made = [[a.then(b) for a, b in zip(*both, strict=True)] for both in zip(pairs, made, strict=True)]
        pairs = made
        done += more
        ends = [Ends.of([end_point(pair[i]) for pair in pairs]) for i in (0, 1)]
        if 2 * done > longest * n_sweeps or max(apart(*ends).values()) < N_SIGMA:
            return pairs

"""The sample set of a Gaussian machine: independent exact draws, with the log-weights of the run's action.

    log w = -S(phi) - ln p(phi),   ln p = -(1/2) phi K phi + (1/2) ln det K - (V/2) ln 2 pi

so that a machine is one more global sampler, exact after weighting, and as good as the free field that is
nearest to the action.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffsq.config.machines import MachineRun
from diffsq.models.rbm import GaussianRBM
from diffsq.sampling.flow_sets import in_groups
from diffsq.sampling.folder import claim
from diffsq.sampling.reverse_chain import finite
from lattice.arrays import Floats, sha256_array
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.writer import EnsembleWriter
from lattice.files import canonical_json, sha256_text, write_json
from lattice.progress import Progress, Silent
from lattice.rng import normals

LAW = 1  # raise it with any change
BLOCK = 64  # fields drawn together, whatever the number asked for
SHARD = 8192


def sample_machine(
    config: MachineRun, machine: GaussianRBM, ensemble: Ensemble, out: Path,
    progress: Progress | None = None,
) -> Ensemble:  # fmt: skip
    """Draw `sampling.n_samples` fields; forward weights on held-out chains in forward.json.

    More samples than `out` holds go on from there. Raises
    `InputError` for weights that are not finite and when `out` holds other samples.
    """
    generated = {
        "sampler": "gaussian", "law": LAW, "levels": [], "process": "exact",
        "model": sha256_array(machine.w.numpy()), "mu2": float(machine.mu2), "s": machine.s,
        "source": None if machine.source is None else sha256_array(machine.source.numpy()),
        "training_ensemble": ensemble.identity, "seed": config.seed, "stream": "rbm/sample",
    }  # fmt: skip
    key, settings, progress = sha256_text(canonical_json(generated)), config.sampling, progress or Silent()
    request = claim(out, key, {"n_samples": settings.n_samples, "n_forward": settings.n_forward})
    writer = EnsembleWriter(out, ensemble.action, ensemble.shape, key, {"generated": generated})
    _forward(config, machine, ensemble, out)
    progress.start(settings.n_samples, "samples")
    for k, rows, kept in writer.spans(settings.n_samples, SHARD):
        if kept is None:
            blocks = range(rows.start - rows.start % BLOCK, rows.stop, BLOCK)
            phi = np.concatenate([drawn(machine, config.seed, first) for first in blocks])
            phi = phi[rows.start % BLOCK :][: len(rows)].reshape(len(rows), *ensemble.shape)
            writer.append(
                k, phi=phi, chain=np.zeros(len(rows), dtype=np.int64), trajectory=np.array(rows),
                log_weight=log_weights(machine, ensemble, phi),
            )  # fmt: skip
        progress.update(len(rows))
    progress.close()
    writer.finish({"generated": generated, "request": request})
    return writer.read()


def drawn(machine: GaussianRBM, seed: int, first: int) -> Floats:
    """The samples first, ..., first + BLOCK - 1: (BLOCK, n_visible)."""
    noise = normals(seed, "rbm/sample", np.arange(first, first + BLOCK), 0, machine.w.shape[-2])
    return machine.sample(torch.from_numpy(noise)).numpy()


def log_weights(machine: GaussianRBM, ensemble: Ensemble, phi: Floats) -> Floats:
    """log w (n,) of fields (n, *shape) for the action of the ensemble."""

    def weigh(part: Tensor) -> tuple[Tensor]:
        return (-ensemble.action.action(part) - machine.log_prob(part.flatten(1)),)

    (found,) = in_groups(weigh, torch.from_numpy(phi))
    return finite(found, "log-weights of the machine", "; train it again").numpy()


def _forward(config: MachineRun, machine: GaussianRBM, ensemble: Ensemble, out: Path) -> None:
    held_out = ensemble.split_rows(config.training.validation_fraction)[1]
    rows = ensemble.spread(config.sampling.n_forward, seed=config.seed, stream="sample", among=held_out)
    found = {"model": log_weights(machine, ensemble, ensemble.phi[rows]).tolist()}
    where = {name: getattr(ensemble, name)[rows].tolist() for name in ("chain", "trajectory")}
    write_json(out / "forward.json", {**found, **where})

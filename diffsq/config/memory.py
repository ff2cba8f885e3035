"""How much memory each stage of a run will need, from its config, and the refusal of what cannot fit.

Fields are counted as they are held: the ensemble once in every stage,
samples once and, measured, with their Metropolis chain. What is worked on in blocks, and
the programs themselves, are in `BASE`; `scripts/bench_memory.py` measures all of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from diffsq.config.config import Config, LatticeRun
from diffsq.config.dynamics import DynamicsRun
from diffsq.config.gauge import GaugeRun
from diffsq.config.machines import MachineRun, PicturesRun
from diffsq.config.sections import FLOW_LEVELS
from diffsq.config.spins import FlowRun, SpinRun
from lattice.memory import machine_memory, require_memory

BASE = 1.1e9  # bytes
NUMBER = 8  # bytes
THROUGH_FLOW = 130  # bytes that a step through the flow keeps per site, field, channel and level
ACTIVATIONS = 170  # bytes that a training step keeps per site, field of the batch and channel
MATRICES = 12  # of sites by sites that a machine is trained and checked with
POINT = 220  # bytes of a point of one variable while its powers are averaged
Terms = dict[str, tuple[int, float]]
"""Setting -> its value, and the bytes that one more of it takes."""


def terms(config: Config, stage: str) -> Terms:
    """What the memory of a stage is in proportion to."""
    if isinstance(config, FlowRun):
        points = len(config.ensemble.points())
        copies = 1 if stage == "ensemble" else 4
        return {
            "ensemble.n_configs": (
                config.ensemble.n_configs,
                float(copies * points * math.prod(config.shape)),
            )
        }
    if isinstance(config, DynamicsRun | PicturesRun):
        return {}
    if isinstance(config, SpinRun):
        each = float(NUMBER * math.prod(config.shape))
        return {"ensemble.n_configs": (config.ensemble.n_saved, each if stage == "ensemble" else 3 * each)}
    if isinstance(config, MachineRun):
        each, copies = float(NUMBER * math.prod(config.shape)), 3 if stage == "measure" else 1
        held: Terms = {"ensemble.n_configs": (config.ensemble.n_saved, each)}
        if stage != "ensemble":
            held["lattice.shape, sites squared,"] = (math.prod(config.shape) ** 2, float(MATRICES * NUMBER))
        if stage not in ("ensemble", "train"):
            held["sampling.n_samples"] = (config.sampling.n_samples, copies * each)
        return held
    if isinstance(config, GaugeRun):
        each, n = float(2 * NUMBER * math.prod(config.shape)), config.ensemble
        held = {"ensemble.n_configs": (getattr(n, "n_saved", n.n_configs), each)}
        if config.models and stage not in ("ensemble", "train"):
            copies = 1 if stage == "sample" else 2 * len(config.models)
            held["sampling.n_samples"] = (config.n_samples, copies * each)
        return held
    if not isinstance(config, LatticeRun):
        each = POINT if stage in ("measure", "report") else POINT / 3
        found: Terms = {"ensemble.n_configs": (config.ensemble.n_configs, each)}
        if config.models and stage not in ("ensemble", "train"):
            found["sampling.n_samples"] = (config.sampling.n_samples, each)
        return found
    alone = [config.of(name) for name in config.models]
    field = NUMBER * math.prod(config.shape)
    found = {"ensemble.n_configs": (config.ensemble.n_saved, float(field))}
    if stage == "train" and config.model.channels and "score" in config.models:
        each = ACTIVATIONS * math.prod(config.shape) * config.model.channels
        found["training.batch_size"] = (config.training.batch_size, each)
    through = config.training.loss != "score" and "score" in config.models
    if stage == "train" and config.model.network and through:
        steps = config.training.n_levels or FLOW_LEVELS
        each = THROUGH_FLOW * math.prod(config.shape) * config.model.network * steps
        found["training.batch_size"] = (config.training.batch_size, float(each))
    if alone and stage in ("sample", "measure", "report"):
        copies = 1 if stage == "sample" else 2 * len(config.processes) * len(config.models)
        n_samples = max(model.n_samples for model in alone)
        found["sampling.n_samples"] = (n_samples, copies * field)
    return found


def check_memory(config: Config, stages: Sequence[str]) -> None:
    """`InputError` for the first of the stages that cannot fit into this machine's memory; it says what it
    needs, what there is, and which setting, at which value, would do."""
    have = machine_memory()
    for stage in stages:
        found = terms(config, stage)
        if not found:
            continue
        sizes = {name: value * each for name, (value, each) in found.items()}
        needed, largest = BASE + sum(sizes.values()), max(sizes, key=lambda name: sizes[name])
        fits = int((have - needed + sizes[largest]) / found[largest][1])
        advice = (
            f"take {largest} at most {fits}" if fits > 0 else f"take smaller {', '.join(found)} or lattice"
        )
        require_memory(needed, f"the stage {stage} at {largest} = {found[largest][0]}", advice)

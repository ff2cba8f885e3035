"""The sample set of the probability flow: which flow, its weights, and what steps of half the size change.

The start law is chosen by the data. Where fields hardly ever are between two peaks of P(M) it is that of one
sector: no number of held-out fields would tell what a flow of both signs does there, and its few samples have
any weight. Else both flows weigh the same held-out fields, and one sector is taken where its forward ESS is
clearly larger: between peaks that touch it is the one whose weights have a tail that few fields show.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsq.models.blocks import block_size, slices
from diffsq.models.lattice import LatticeScore
from diffsq.models.lattice_flow import VERSION, LatticeFlow, steps_of
from diffsq.models.protocol import Watch, unseen
from diffsq.models.regression import RegressionBase
from diffsq.sampling.draws import BLOCK, Drawn, Sampling
from lattice.arrays import Floats, Integers
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.writer import EnsembleWriter
from lattice.errors import InputError
from lattice.files import canonical_json, sha256_text
from lattice.statistics.weights import log_moments

GROUP = 64, 2**16  # fields, and sites, that go through a flow together: a block, which a cache holds
N_CHOICE = 256  # held-out fields that decide between two start laws
UNSEEN = 1e-6  # probability between the peaks below which nothing is known of what is there
CLEARLY = 0.5  # of -ln ESS of the symmetric law, from which on that of one sector is better
N_HALF = 512  # samples that are drawn again in steps of half the size
HALF = "half"
START = {
    False: "N(0, G(k) + sigma_max^2) per momentum mode",
    True: "N(0, G(k) + sigma_max^2) per mode of phi sign(M) - <|M|>, then a random sign",
}


def in_groups(function: Callable[..., tuple[Tensor, ...]], *arrays: Tensor) -> tuple[Tensor, ...]:
    """function of arrays (n, ...), always of the same number of rows at a time: the last ones are repeated.

    So the numbers of a field are the same bits whatever else is asked for.
    """
    size = block_size(tuple(arrays[0].shape[1:]), *GROUP)
    found = []
    for rows in slices(len(arrays[0]), size):
        parts = [a[rows] for a in arrays]
        n = len(parts[0])
        padded = [torch.cat([a, a[-1:].expand(size - n, *a.shape[1:])]) if n < size else a for a in parts]
        found.append([result[:n] for result in function(*padded)])
    return tuple(torch.cat(columns) for columns in zip(*found, strict=True))


def log_weights(work: Sampling, flow: LatticeFlow, phi: Tensor) -> Tensor:
    """log w (n,) of given fields (n, *shape)."""
    action = work.ensemble.action.action
    return in_groups(lambda part: flow.latent(part, action), phi)[1]


def flow_of(work: Sampling) -> LatticeFlow:
    """The flow of a model through the steps of the config, its start law chosen by the data unless given.

    Raises `InputError` for a model with a U-Net, and where a sector is asked for that the model has not.
    """
    model, config, start = work.model, work.config, work.config.sampling.start
    if model.unet is not None:
        raise InputError(
            "the divergence of a score with a U-Net is not closed-form: the flow is for the closed form "
            "alone; take sampling.method path"
        )
    bases = {"symmetric": model.base, "sector": model.sector}
    if start == "sector" and model.sector is None:
        raise InputError(
            "sampling.start sector: P(M) of the training fields has no two separate peaks, so the model "
            "knows no sector; take auto"
        )

    def made(base: RegressionBase) -> LatticeFlow:
        return LatticeFlow(base, config.sampling.n_levels or steps_of(base), work.process)

    if start == "auto" and model.sector is not None and model.base.zero_mode.between() < UNSEEN:
        start = "sector"
    known = {name: made(base) for name, base in bases.items() if base is not None and start in ("auto", name)}
    if len(known) == 1:
        return next(iter(known.values()))
    phi = torch.split(work.fields(work.rows(N_CHOICE)), BLOCK)

    def part(piece: tuple[str, int]) -> Floats:
        return log_weights(work, known[piece[0]], phi[piece[1]]).cpu().numpy()

    found = work.team.each(part, [(name, block) for name in known for block in range(len(phi))])
    parts = {name: [next(found) for _ in phi] for name in known}
    best = ""
    if work.team.rank == 0:
        spread = {name: _spread(values) for name, values in parts.items()}
        best = "sector" if spread["sector"] < CLEARLY * spread["symmetric"] else "symmetric"
    return known[work.team.exchange(best)[0]]


def _spread(log_weights: list[Floats]) -> float:
    """-ln of the forward ESS."""
    return -log_moments(np.concatenate(log_weights), {1: -1.0, -1: -1.0})[0]


def flow_from(samples: Ensemble, model: LatticeScore) -> LatticeFlow | None:
    """The flow that drew `samples` of this model, on its device; None for samples of another sampler.

    Raises `InputError` for samples of another version of its law.
    """
    made = samples.attrs.get("generated") or {}
    if made.get("sampler") != "flow":
        return None
    if made.get("law") != VERSION:
        raise InputError(f"samples of version {made.get('law')} of the flow, this is {VERSION}; sample again")
    base = model.sector if made["sector"] else model.base
    assert base is not None
    return LatticeFlow(base, made["n_steps"], made["process"])


def about(flow: LatticeFlow) -> dict[str, Any]:
    """What a sample set says of its flow."""
    return {"start": START[flow.base.sector], "sector": flow.base.sector, "n_steps": flow.n_steps}


def write(work: Sampling, flow: LatticeFlow, writer: EnsembleWriter, generated: dict[str, Any]) -> None:
    """Forward weights where there are data, the samples, and the first of them in half steps, in half/."""

    def weigh(phi: Tensor, index: Integers) -> dict[str, Any]:
        return {"model": log_weights(work, flow, phi).tolist()}

    if len(work.ensemble):
        work.forward(("model",), weigh)
    n = work.config.n_samples
    work.draw(writer, n, partial(_block, work, flow))
    fine = flow.in_steps(2 * flow.n_steps)
    own = {**generated, "levels": fine.levels.tolist(), **about(fine)}
    draw_half(work, own, n, partial(_block, work, fine))


def draw_half(
    work: Sampling, generated: dict[str, Any], n: int, block: Callable[[Integers, Watch], Drawn]
) -> None:  # fmt: skip
    """The first of n samples again, drawn as `generated` says, in steps of half the size, in half/."""
    action, fields = work.ensemble.action, (*work.ensemble.action.components, *work.ensemble.shape)
    key = sha256_text(canonical_json(generated))
    half = EnsembleWriter(work.out / HALF, action, fields, key, {"generated": generated})
    work.draw(half, min(n, N_HALF), block, "half steps")
    if work.team.rank == 0:
        half.finish({"generated": generated})


def _block(work: Sampling, flow: LatticeFlow, index: Integers, watch: Watch) -> Drawn:
    """One block of the flow."""
    noise, signs = work.noise("sample/flow", index)(0), work.signs("sample/sign", index)
    action, watches = work.ensemble.action.action, [watch]

    def drawn(white: Tensor, sign: Tensor) -> tuple[Tensor, Tensor]:
        return flow.sample(action, white, sign, watches.pop() if watches else unseen)

    try:
        return in_groups(drawn, noise, signs)  # type: ignore[return-value]
    except InputError as error:
        raise InputError(f"samples {index[0]}-{index[-1]}: {error}") from None

r"""Neurons of lattice networks: drawn from their law, summed into fields, and moved towards phi^4.

    P(theta) -> P(theta) exp(-lam sum_x f(x; theta)^4)/Z,

with the free part of S in the law of the net, K(p) = 2 (1 - 2 lam) - 4 kappa sum_mu cos p_mu, is phi^4 up to
1/N: as N grows f is a free field under the undeformed law, weighted with exp(-lam sum f^4) (Demirtas,
Halverson, Maiti, Schwartz, Stoner 2307.03223). Metropolis: one neuron after another is drawn anew from its
law and accepted with min(1, exp(-lam d sum f^4)). K(0) > 0 is needed: no broken phase at tree level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lattice.actions.networks import FreeNet, LocalNet, Network
from lattice.actions.protocol import Range, real_coupling
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.exact.network_fields import correlations, profile, propagator
from lattice.rng import normals, uniforms
from lattice.updates.batch import check_chains
from lattice.updates.kernels.networks import metropolis_rows, neuron_rows

OUTPUT, FACTOR = "network/output", "network/factor"
PLACE, PHASE = "network/place", "network/phase"
ACCEPT = "network/accept"
START = 0  # trajectory of the first neurons; sweeps count from 1


@dataclass(frozen=True, eq=False)
class Neurons:
    """Of n fields, N each: output weights, places (mode or centre, in row order), phases, (n, N); and how
    many of each row count, (n,)."""

    a: Floats
    place: Integers
    phase: Floats
    counts: Integers


def output_weights(law: Network, seed: int, rows: Integers, step: int, width: int) -> Floats:
    """Output weights (n, width), times the common factor of a row if it has one. Random numbers from (seed,
    "network/output" and "network/factor", row, step)."""
    if law.output == "signs":
        return np.where(uniforms(seed, OUTPUT, rows, step, width) < 0.5, -1.0, 1.0)
    if law.output == "rayleigh":
        return np.asarray(np.sqrt(-np.log(uniforms(seed, OUTPUT, rows, step, width))))
    a = normals(seed, OUTPUT, rows, step, width)
    if not law.independent:
        a *= np.sqrt(-np.log(uniforms(seed, FACTOR, rows, step, 1)))
    return a


def draw_neurons(
    law: FreeNet, shape: tuple[int, ...], counts: Integers, seed: int, rows: Integers, step: int
) -> Neurons:
    """Neurons of the undeformed law; those of a row depend on (seed, row, step) only."""
    g, width = propagator(law, shape).ravel(), int(counts.max(initial=0))
    chosen = uniforms(seed, PLACE, rows, step, width)
    if isinstance(law, LocalNet):
        place = np.floor(chosen * g.size).astype(np.int64)
        phase = np.zeros(chosen.shape)
    else:
        law_of_modes = np.cumsum(g)
        place = np.searchsorted(law_of_modes[:-1] / law_of_modes[-1], chosen, side="right")
        phase = 2 * np.pi * uniforms(seed, PHASE, rows, step, width)
    a = output_weights(law, seed, rows, step, width)
    return Neurons(a, place.astype(np.int64), phase, counts)


def tables(law: FreeNet, shape: tuple[int, ...]) -> tuple[float, tuple[Any, ...]]:
    """What multiplies an output weight, and extents, cosines, sines and profile as the loops take them."""
    angles = np.zeros((len(shape), max(shape)))
    for axis, extent in enumerate(shape):
        angles[axis, :extent] = 2 * np.pi * np.arange(extent) / extent
    extents = np.array(shape, dtype=np.int64)
    if isinstance(law, LocalNet):
        g, scale = profile(law, shape).ravel(), law.rho**-0.5
    else:
        g, scale = np.zeros(0), (2 * correlations(law, shape).flat[0] / law.neurons(shape)) ** 0.5
    return float(scale), (extents, np.cos(angles), np.sin(angles), g)


def fields_of(law: FreeNet, shape: tuple[int, ...], neurons: Neurons) -> Floats:
    """f (n, *shape) of these neurons."""
    scale, rest = tables(law, shape)
    phi = np.empty((len(neurons.a), int(np.prod(shape))))
    neuron_rows(phi, scale * neurons.a, neurons.place, neurons.phase, neurons.counts, *rest)
    return phi.reshape(-1, *shape)


def _metropolis_law(law: Network, shape: tuple[int, ...]) -> FreeNet:
    if not isinstance(law, FreeNet) or not law.independent or (isinstance(law, LocalNet) and law.poisson):
        raise InputError(
            f"neurons are redrawn of a cos_net, or a local_net of fixed number, with independent output "
            f"weights, not of {law.as_dict()}"
        )
    propagator(law, shape)
    return law


def start_neurons(law: Network, shape: tuple[int, ...], seed: int, chains: Integers) -> Neurons:
    """Neurons of the undeformed law, one field a chain.

    Raises `InputError` for correlated weights, a Poisson number of neurons, nets of inputs, and K(p) <= 0.
    """
    net = _metropolis_law(law, shape)
    counts = np.full(len(chains), int(net.neurons(shape)), dtype=np.int64)
    return draw_neurons(net, shape, counts, seed, np.asarray(chains), START)


def neuron_sweep(
    law: Network, lam: float, state: Neurons, *, shape: tuple[int, ...], seed: int, chains: Integers,
    trajectory: int,
) -> tuple[Neurons, Floats, Floats]:  # fmt: skip
    """Neurons after each has been offered its redrawn self once; their fields (n, *shape); acceptance (n,).

    Stationary: the law of the net times exp(-lam sum_x f^4), which is phi^4 up to 1/N if law.lam is lam.
    Random numbers from (seed, "network/...", chain, trajectory), trajectory >= 1: the batch changes no bit.
    Raises `InputError` as `start_neurons`, and for lam < 0 or counters that do not fit.
    """
    net, lam = _metropolis_law(law, shape), real_coupling("lam", lam, Range(0.0))
    check_chains(seed, chains, trajectory, len(state.a))
    if trajectory == START:
        raise InputError(f"trajectory {START} draws the first neurons: sweeps count from {START + 1}")
    chains, width = np.asarray(chains), state.a.shape[1]
    if width != net.neurons(shape):
        raise InputError(
            f"state has {width} neurons a field, the law {net.neurons(shape):g} on {list(shape)}"
        )
    offered = draw_neurons(net, shape, state.counts, seed, chains, trajectory)
    scale, rest = tables(net, shape)
    a, place, phase = scale * state.a, state.place.copy(), state.phase.copy()
    phi, accepted = np.empty((len(a), int(np.prod(shape)))), np.zeros(len(a), dtype=np.int64)
    metropolis_rows(
        phi, a, place, phase, scale * offered.a, offered.place, offered.phase,
        uniforms(seed, ACCEPT, chains, trajectory, width), lam, accepted, *rest,
    )  # fmt: skip
    moved = Neurons(a / scale, place, phase, state.counts)
    return moved, phi.reshape(-1, *shape), accepted / width

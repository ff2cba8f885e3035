"""phi^4 from deformed parameter densities: exact at small widths by enumeration, and as 1/N -> 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lattice.actions.networks import CosNet, ErfNet, FreeNet, LocalNet
from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError
from lattice.exact.chain_phi4 import ring
from lattice.exact.network_fields import correlations, profile, propagator
from lattice.simulation.network_fields import draw_fields
from lattice.updates.neurons import Neurons, draw_neurons, fields_of, neuron_sweep, start_neurons

LAM, KAPPA, GATE = 0.1, 0.2, 4.5
TABLE = {  # <phi^2> of N = 4, 16, 64 and errors, from another program
    "normal": ((0.37758, 0.00058), (0.46333, 0.00074), (0.49451, 0.00114)),
    "rayleigh": ((0.43464, 0.00054), (0.48513, 0.00069), (0.50118, 0.00122)),
    "signs": ((0.52059, 0.00065), (0.50994, 0.00084), (0.50635, 0.00116)),
}


def swept(
    law: FreeNet, shape: tuple[int, ...], lam: float, n: int, sweeps: int, first: int = 8
) -> tuple[np.ndarray, float]:
    """Per chain the average <phi^2>, <phi^4>, <phi phi_1> over sweeps after the first, (n, 3); acceptance."""
    chains = np.arange(n)
    state, total, accepted = start_neurons(law, shape, 3, chains), np.zeros((n, 3)), 0.0
    for t in range(1, first + sweeps + 1):
        state, phi, rate = neuron_sweep(law, lam, state, shape=shape, seed=3, chains=chains, trajectory=t)
        if t > first:
            accepted += float(rate.mean()) / sweeps
            square, flat = phi**2, (n, -1)
            for i, x in enumerate((square, square**2, phi * np.roll(phi, 1, 1))):
                total[:, i] += x.reshape(flat).mean(1) / sweeps
    return total, accepted


def mean_error(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.mean(0), x.std(0) / len(x) ** 0.5


def deformed(law: FreeNet, shape: tuple[int, ...], lam: float, n_neurons: int) -> np.ndarray:
    """<phi^2>, <phi^4>, <phi phi_1> of all neurons of +-1 weights by enumeration, each field weighted."""
    v = math.prod(shape)
    where, g = np.array(list(np.ndindex(*shape))), propagator(law, shape)
    parts, chances = [], []
    for place in np.ndindex(*shape):
        if isinstance(law, LocalNet):
            waves = np.roll(profile(law, shape), place, tuple(range(len(shape)))).reshape(1, v) / law.rho**0.5
            chance = 1 / v
        else:
            b = 2 * np.pi * (np.arange(48) + 0.5) / 48
            k = 2 * np.pi * np.array(place) / np.array(shape)
            waves = (2 * g.mean() / law.neurons(shape)) ** 0.5 * np.cos(b[:, None] + where @ k)
            chance = g[place] / g.sum() / len(b)
        for sign in (1, -1):
            parts.append(sign * waves)
            chances.append(np.full(len(waves), chance / 2))
    one, p = np.concatenate(parts), np.concatenate(chances)
    f, w = one, p
    for _ in range(n_neurons - 1):
        f, w = (f[:, None] + one[None]).reshape(-1, v), np.outer(w, p).ravel()
    w = w * np.exp(-lam * (f**4).sum(1))
    phi = f.reshape(-1, *shape)
    values = (phi**2, phi**4, phi * np.roll(phi, 1, 1))
    return np.array([(w * x.reshape(len(w), -1).mean(1)).sum() for x in values]) / w.sum()


@pytest.mark.parametrize(
    ("law", "shape", "lam"),
    [(CosNet(1, KAPPA, "signs", LAM), (3,), 0.8), (CosNet(2, KAPPA, "signs", LAM), (4,), 0.5),
     (CosNet(2, 0.1, "signs"), (2, 2), 0.6), (LocalNet(0.5, KAPPA, "signs", LAM, poisson=False), (6,), 0.4)],
    ids=str,
)  # fmt: skip
def test_a_few_neurons_by_enumeration(law: FreeNet, shape: tuple[int, ...], lam: float) -> None:
    """The deformed law at finite width, exactly; neither the undeformed one nor another lam."""
    n = int(law.neurons(shape))
    found, error = mean_error(swept(law, shape, lam, 10_000, 8, first=20)[0])
    assert (np.abs(found - deformed(law, shape, lam, n)) < GATE * error).all()
    for other in (0.0, 0.5 * lam, 1.5 * lam):
        assert (np.abs(found - deformed(law, shape, other, n)) > 10 * error).any()


def test_without_deformation_all_is_accepted() -> None:
    law, chains = CosNet(3, KAPPA, lam=LAM), np.arange(50)
    state = start_neurons(law, (8,), 5, chains)
    moved, phi, rate = neuron_sweep(law, 0.0, state, shape=(8,), seed=5, chains=chains, trajectory=4)
    assert (rate == 1).all()
    fresh = draw_neurons(law, (8,), state.counts, 5, chains, 4)
    assert np.array_equal(moved.place, fresh.place)
    np.testing.assert_allclose(moved.a, fresh.a, rtol=1e-14)
    np.testing.assert_allclose(phi, fields_of(law, (8,), fresh), atol=1e-12)


def test_the_field_is_that_of_the_neurons() -> None:
    """Also where some were refused: f of the new state, by cosines written out, and by g moved."""
    chains, shape = np.arange(40), (3, 4)
    laws: tuple[FreeNet, ...] = (CosNet(5, 0.1, lam=LAM), LocalNet(0.5, 0.1, "signs", LAM, poisson=False))
    for law in laws:
        state = start_neurons(law, shape, 6, chains)
        moved, phi, rate = neuron_sweep(law, 1.5, state, shape=shape, seed=6, chains=chains, trajectory=1)
        assert 0.1 < rate.mean() < 0.95
        known = np.zeros_like(phi)
        for i in range(len(chains)):
            for a, place, b in zip(moved.a[i], moved.place[i], moved.phase[i], strict=True):
                k = np.unravel_index(place, shape)
                if isinstance(law, LocalNet):
                    known[i] += law.rho**-0.5 * a * np.roll(profile(law, shape), k, (0, 1))
                else:
                    size = (2 * correlations(law, shape)[0, 0] / law.width) ** 0.5
                    x, y = np.meshgrid(np.arange(3) / 3, np.arange(4) / 4, indexing="ij")
                    known[i] += size * a * np.cos(2 * np.pi * (k[0] * x + k[1] * y) + b)
        np.testing.assert_allclose(phi, known, atol=1e-12)
        np.testing.assert_allclose(fields_of(law, shape, moved), known, atol=1e-12)


def test_first_neurons_are_those_of_the_drawn_fields() -> None:
    law, chains = CosNet(5, 0.1, "signs"), np.array([3, 8])
    found = fields_of(law, (4, 4), start_neurons(law, (4, 4), 9, chains))
    assert np.array_equal(found, draw_fields(law, (4, 4), chains, 9))


@pytest.mark.parametrize("output", TABLE)
def test_phi4_as_the_width_grows(output: str) -> None:
    """<phi^2> of the table at N = 4, 16, 64 on eight sites; the polynomial in 1/N through them ends at the
    transfer matrix, and N = 4 alone does not."""
    exact, values, errors = ring(ScalarPhi4(KAPPA, LAM), 8), [], []
    for width, (known, spread) in zip((4, 16, 64), TABLE[output], strict=True):
        law = CosNet(width, KAPPA, output, LAM)
        found, accepted = swept(law, (8,), LAM, 20_000 // width, 24)
        value, error = mean_error(found)
        assert abs(value[0] - known) < GATE * math.hypot(float(error[0]), spread)
        assert 0.74 < accepted < 0.96
        values.append(value)
        errors.append(error)
    weight = np.array([1, -20, 64]) / 45  # of 1/N = 1/4, 1/16, 1/64 at 0, to second order
    limit, error = weight @ np.array(values), np.sqrt(weight**2 @ np.array(errors) ** 2)
    known = np.array([exact.phi2, exact.phi4, exact.correlations[1]])
    assert (np.abs(limit - known) < GATE * error).all()
    assert (np.abs(values[0] - known) > 10 * errors[0]).any()
    free = correlations(CosNet(4, KAPPA, output, LAM), (8,))[0]
    assert abs(limit[0] - free) > 10 * error[0]


def test_batch_and_order_change_no_bit() -> None:
    law, shape, order = CosNet(6, 0.1, lam=LAM), (4, 4), np.array([7, 2, 0])

    def run(chains: np.ndarray) -> np.ndarray:
        state = start_neurons(law, shape, 7, chains)
        for t in (1, 2, 3):
            state, phi, _ = neuron_sweep(law, 0.5, state, shape=shape, seed=7, chains=chains, trajectory=t)
        return phi

    whole = run(np.arange(9))
    assert np.array_equal(run(order), whole[order])
    state = start_neurons(law, shape, 7, order)
    kept = state.a.copy()
    neuron_sweep(law, 0.5, state, shape=shape, seed=7, chains=order, trajectory=1)
    assert np.array_equal(state.a, kept)


def test_what_has_no_such_sweep_is_refused() -> None:
    chains = np.arange(2)
    good = CosNet(3, KAPPA, lam=LAM)
    state: Neurons = start_neurons(good, (8,), 1, chains)
    keys: dict[str, Any] = {"shape": (8,), "seed": 1, "chains": chains, "trajectory": 1}
    bad: list[tuple[Callable[[], Any], str]] = [
        (lambda: start_neurons(ErfNet(3), (8,), 1, chains), "neurons are redrawn of a cos_net"),
        (lambda: start_neurons(CosNet(3, 0.2, "correlated"), (8,), 1, chains), "independent output weights"),
        (lambda: start_neurons(LocalNet(0.5, 0.2), (8,), 1, chains), "local_net of fixed number"),
        (lambda: start_neurons(CosNet(3, 0.45, lam=LAM), (8,), 1, chains), "flat mode"),
        (lambda: neuron_sweep(good, -0.1, state, **keys), "lam must be >= 0"),
        (lambda: neuron_sweep(good, 0.1, state, **{**keys, "trajectory": 0}), "sweeps count from 1"),
        (lambda: neuron_sweep(good, 0.1, state, **{**keys, "chains": np.arange(3)}), "2 fields, 3 chains"),
        (lambda: neuron_sweep(CosNet(4, KAPPA), 0.1, state, **keys), "has 3 neurons a field, the law 4"),
    ]  # fmt: skip
    for call, words in bad:
        with pytest.raises(InputError, match=words):
            call()

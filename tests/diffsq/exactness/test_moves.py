"""Independence and noise-denoise moves leave the target where it is, for any score; wrong ones do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from small_models import (
    Shrunk,
    equilibrium,
    free_model,
    geometric,
    levels_of,
    noise_of,
    phi4_model,
    spoil,
    still,
)
from torch import Tensor

from diffsq.exactness import moves
from diffsq.exactness.moves import (
    State,
    hmc,
    in_groups,
    independence,
    metropolis,
    nearest_level,
    noise_denoise,
    overrelaxation,
    wolff,
)
from diffsq.exactness.weights import acceptance
from diffsq.models.symmetry import Symmetry
from diffsq.sampling.lattice_path import ReversePath, ReverseStep
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.exact.scalar import SmallLattice, small_lattice

TWO, SHAPE, N = ScalarPhi4(0.25, 0.022), (2, 2), 1024
CHAINS = np.arange(N)


@pytest.fixture
def large_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of tiny fields at once."""
    monkeypatch.setattr(moves, "GROUP", N)


class Unknown(ReverseStep):
    """A step whose density nobody knows."""

    def log_density(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=torch.float64)


class Forgetful(ReversePath):
    """A weight that leaves log R out."""

    def reverse(self, x: Tensor, n: int, frame: Symmetry) -> Unknown:
        return Unknown(**vars(super().reverse(x, n, frame)))


def fields(seed: int) -> Tensor:
    return equilibrium(TWO, SHAPE, N, seed)


@lru_cache(maxsize=4)
def path_of(kind: str) -> ReversePath:
    phi = equilibrium(TWO, SHAPE, 2048)
    model = phi4_model(TWO, phi, channels=4 if kind == "random U-Net" else 0)
    model = spoil(model, 0.1) if kind == "random U-Net" else model
    return ReversePath(Shrunk(model.base, None) if kind == "shrunk" else model, levels_of(model, 6))


def moments(phi: np.ndarray) -> list[np.ndarray]:
    m = phi.mean((1, 2))
    s = TWO.action(torch.from_numpy(phi)).numpy() / 4
    return [np.abs(m), m**2, m**4, (phi**2).mean((1, 2)), (phi**4).mean((1, 2)), s]


@lru_cache(maxsize=1)
def quadrature() -> SmallLattice:
    return small_lattice(TWO, SHAPE)


def pulls(phi: np.ndarray) -> np.ndarray:
    """How far independent fields are from quadrature, in standard errors."""
    known = quadrature()
    truth = (known.abs_m, known.m2, known.m4, known.phi2, known.phi4, known.action_density)
    errors = [x.std() / math.sqrt(len(x)) for x in moments(phi)]
    return np.array([(x.mean() - t) / e for x, t, e in zip(moments(phi), truth, errors, strict=True)])


def stays(move: Callable[..., tuple[State, object]], n_steps: int = 2) -> np.ndarray:
    """The fields of many chains started in equilibrium, after some steps."""
    state = State.of(fields(21).numpy())
    for step in range(n_steps):
        state, _ = move(state, seed=3, chains=CHAINS, step=step)
    return state.phi


def smallest_p(phi: np.ndarray) -> float:
    """Kolmogorov-Smirnov against fresh equilibrium fields: M, s and one site, the smallest p."""
    fresh = fields(33).numpy()
    one, two = ((f.mean((1, 2)), TWO.action(torch.from_numpy(f)).numpy(), f[:, 0, 1]) for f in (phi, fresh))
    return min(float(kstest(a, b).pvalue) for a, b in zip(one, two, strict=True))


def independent(path: ReversePath) -> Callable[..., tuple[State, object]]:
    return partial(independence, path, TWO.action, still)


def denoising(path: ReversePath, depth: int) -> Callable[..., tuple[State, object]]:
    return partial(noise_denoise, path, TWO.action, still, depth)


# --- equilibrium stays equilibrium ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["good", "shrunk", "random U-Net"])
def test_equilibrium_is_left_where_it_is(kind: str, large_groups: None) -> None:
    path = path_of(kind)
    for move in (independent(path), denoising(path, 2), denoising(path, 6)):
        phi = stays(move)
        assert (phi != fields(21).numpy()).any((1, 2)).mean() > 0.05, "the move must do something"
        assert smallest_p(phi) > 1e-5
        assert np.abs(pulls(phi)).max() < 4.5


@pytest.mark.parametrize("depth", [2, 6])
def test_without_log_r_equilibrium_is_lost(depth: int, large_groups: None) -> None:
    path = path_of("shrunk")
    phi = stays(denoising(Forgetful(path.model, path.levels), depth), 8)
    assert smallest_p(phi) < 1e-16
    assert np.abs(pulls(phi)).max() > 10


def test_without_the_accept_step_equilibrium_is_lost(large_groups: None) -> None:
    path = path_of("shrunk")

    def always_accepted(state: State, **keys: object) -> tuple[State, object]:
        phi, _ = path.sample(TWO.action, noise_of("raw", N, SHAPE), still)
        return State.of(phi.numpy()), None

    assert smallest_p(stays(always_accepted, 1)) < 1e-20


def test_from_raw_samples_to_equilibrium(large_groups: None) -> None:
    """A biased start forgets itself, on quadrature: convergence, not only invariance."""
    path = path_of("shrunk")
    phi, log_w = path.sample(TWO.action, noise_of("raw", N, SHAPE), still)
    assert np.abs(pulls(phi.numpy())).max() > 10
    state = State.of(phi.numpy(), log_w.numpy())
    cycle = [independent(path), denoising(path, 3), partial(hmc, TWO, 1.0, 6, "omelyan2")]
    for step in range(18):
        state, _ = cycle[step % 3](state, seed=4, chains=CHAINS, step=step)
    assert np.abs(pulls(state.phi)).max() < 4.5


# --- the moves themselves ---------------------------------------------------------------------------------


def test_independence_keeps_its_weight_and_others_lose_it(large_groups: None) -> None:
    path = path_of("good")
    state, info = independent(path)(State.of(fields(21).numpy()), seed=1, chains=CHAINS, step=0)
    assert np.isfinite(state.log_w).all()
    again, second = independent(path)(state, seed=1, chains=CHAINS, step=1)
    kept = second.accepted == 0  # type: ignore[attr-defined]
    assert 0 < kept.sum() < N
    assert np.array_equal(again.log_w[kept], state.log_w[kept])
    assert np.array_equal(again.phi[kept], state.phi[kept])
    for move in (denoising(path, 2), partial(wolff, TWO, 1), partial(overrelaxation, TWO, 1)):
        moved, _ = move(again, seed=1, chains=CHAINS, step=2)
        assert np.isnan(moved.log_w).all()
    # the rate is that of the weights of independent proposals
    _, log_w = path.sample(TWO.action, noise_of("rate", 8192, SHAPE), still)
    expected, error = acceptance(log_w.numpy(), 1)
    error = math.hypot(error, math.sqrt(expected * (1 - expected) / N))
    assert abs(second.accepted.mean() - expected) < 4 * error  # type: ignore[attr-defined]


def test_a_gaussian_theory_is_always_accepted() -> None:
    action, shape = FreeScalar(0.2), (4, 4)
    path = ReversePath(free_model(shape, 0.2), geometric(5, 0.05, 8.0))
    state = State.of(noise_of("any", 16, shape)(0).numpy())
    for depth in (1, 3, 5):
        new, info = noise_denoise(
            path, action.action, still, depth, state, seed=1, chains=np.arange(16), step=0
        )
        assert np.abs(info.log_ratio).max() < 1e-9
        assert (new.phi != state.phi).all()


def test_depth_tunes_the_acceptance(large_groups: None) -> None:
    path, state = path_of("shrunk"), State.of(fields(21).numpy())
    rates = []
    for depth in (1, 3, 6):
        _, info = noise_denoise(path, TWO.action, still, depth, state, seed=1, chains=CHAINS, step=0)
        rates.append(np.exp(np.minimum(info.log_ratio[:, 0], 0)))
    for deeper in rates[1:]:
        error = math.sqrt((rates[0].var() + deeper.var()) / N)
        assert rates[0].mean() - deeper.mean() > 4 * error


def test_the_same_chain_whatever_the_number_of_chains() -> None:
    path = path_of("random U-Net")
    cycle = [
        independent(path),
        denoising(path, 3),
        partial(hmc, TWO, 1.0, 6, "omelyan2"),
        partial(wolff, TWO, 1),
    ]
    results = []
    for n in (5, 40):
        state, history = State.of(fields(21).numpy()[:n]), []
        for step in range(8):
            state, _ = cycle[step % 4](state, seed=9, chains=np.arange(n), step=step)
            history.append(state.phi)
        results.append(np.stack(history)[:, :5])
    assert np.array_equal(results[0], results[1])
    other, _ = cycle[1](State.of(fields(21).numpy()[:5]), seed=9, chains=np.arange(5), step=7)
    assert not np.array_equal(other.phi, results[0][1])


def test_in_groups_joins_and_fills_up() -> None:
    seen: list[int] = []

    def double(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(x))
        return 2 * x, y

    a, b = in_groups(double, torch.device("cpu"), np.arange(37.0), np.arange(37))
    assert np.array_equal(a, 2 * np.arange(37.0))
    assert np.array_equal(b, np.arange(37))
    assert len(set(seen)) == 1


def test_bad_input_in_one_line() -> None:
    with pytest.raises(InputError, match="1 proposal weights are NaN or infinite"):
        metropolis("denoise", np.array([0.0, np.nan]), {"seed": 1, "chains": np.arange(2), "step": 0})
    with pytest.raises(InputError, match="depth must be a level from 1 to 6, got 7"):
        denoising(path_of("good"), 7)(State.of(fields(21).numpy()), seed=1, chains=CHAINS, step=0)
    with pytest.raises(InputError, match="depth must be a noise width sigma from 0.2 to 1.6, got 3"):
        nearest_level(torch.tensor([0.0, 0.2, 1.6]), 3.0)

"""Block moves: the conditional law against dense matrices, exactness on lattices of any size, controls."""

from __future__ import annotations

import math
from functools import lru_cache, partial

import numpy as np
import pytest
import torch
from scipy.stats import kstest, multivariate_normal
from small_models import Shrunk, equilibrium, free_model, geometric, levels_of, noise_of, phi4_model, still
from torch import Tensor

from diffsq.exactness import moves
from diffsq.exactness.block_moves import BlockPath, Tiling, block_moves
from diffsq.exactness.moves import MoveInfo, State
from diffsq.models.lattice import LatticeScore
from diffsq.models.symmetry import IDENTITY, Symmetry
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.exact.scalar import one_site_moments

ACTION, SHAPE, LARGE, BLOCK = ScalarPhi4(0.25, 0.022), (4, 4), (8, 4), (2, 2)
N = 1024


class Forgetful(BlockPath):
    """An acceptance that leaves log R_B out."""

    def log_reverse(self, low: Tensor, mean: Tensor, step: int) -> Tensor:
        return torch.zeros(len(low), dtype=torch.float64)


class Unmoved(BlockPath):
    """The old path weighed with the same mean as the new one: a law that looks at the block's old values."""

    def reverse(self, x: Tensor, phi: Tensor, step: int, frame: Symmetry) -> Tensor:
        return 0.5 * (super().reverse(x, phi, step, frame) + self.inside(phi))


@pytest.fixture
def large_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of tiny fields at once."""
    monkeypatch.setattr(moves, "GROUP", 2 * N)


@lru_cache(maxsize=2)
def model_of(shrunk: bool) -> LatticeScore:
    model = phi4_model(ACTION, equilibrium(ACTION, SHAPE, 4096))
    return Shrunk(model.base, None) if shrunk else model


def block_path(shrunk: bool = False, kind: type[BlockPath] = BlockPath, depth: int = 5) -> BlockPath:
    model = model_of(shrunk)
    return kind(model, levels_of(model, 6)[: depth + 1], BLOCK)


def sweeps(path: BlockPath, phi: np.ndarray, n_steps: int, shape: tuple[int, ...]) -> tuple[State, MoveInfo]:
    state, tiling = State.of(phi), Tiling(shape, SHAPE)
    for step in range(n_steps):
        state, info = block_moves(
            path, tiling, ACTION.action, still, state, seed=3, chains=np.arange(len(phi)), step=step
        )
    return state, info


def smallest_p(phi: np.ndarray, shape: tuple[int, ...]) -> float:
    """Kolmogorov-Smirnov against fresh equilibrium fields: M, s, two neighbours, the smallest p."""

    def observables(f: np.ndarray) -> tuple[np.ndarray, ...]:
        s = ACTION.action(torch.from_numpy(f)).numpy()
        return f.mean((1, 2)), s, f[:, 0, 1], f[:, 0, 1] * f[:, 1, 1]

    fresh = equilibrium(ACTION, shape, 4 * N, 33).numpy()
    return min(float(kstest(a, b).pvalue) for a, b in zip(observables(phi), observables(fresh), strict=True))


# --- the law of the block ---------------------------------------------------------------------------------


def test_the_conditional_law_against_dense_matrices() -> None:
    path, n, v = block_path(), 5, 16
    p, out = path.momenta, ~path.mask.flatten().numpy()
    b = path.sites.numpy()
    unit = torch.eye(v, dtype=torch.float64).reshape(v, *SHAPE)
    noise = noise_of("dense", n, SHAPE)
    phi, x = 1.3 * noise(0), 2 * noise(1)
    values = noise(2).flatten(1)[:, b]
    for step in range(5):
        at = path.steps[step]
        low = 0.0 if step == 0 else float(path.steps[step - 1].high)
        rho, high = 1 - low**2 / float(at.high) ** 2, at.high[None]
        c = path.model.posterior_variance(high)[0].clone()
        c[0] = path.model.base.wiener(high)[1][0, 0]
        cov = p.fields(p.expand(c) * p.modes(unit)).reshape(v, v).numpy()
        dk = path.model.denoise(p.modes(x), at.high.expand(n))
        d = p.fields(dk).flatten(1).numpy()
        found = path.log_reverse(values, path.reverse(x, phi, step, IDENTITY), step).numpy()
        gain = cov[np.ix_(b, out)] @ np.linalg.inv(cov[np.ix_(out, out)])
        inner = cov[np.ix_(b, b)] - gain @ cov[np.ix_(out, b)]
        inner = rho * low**2 * np.eye(4) + rho**2 * inner
        for i in range(n):
            mean = d[i, b] + gain @ (phi[i].flatten().numpy()[out] - d[i, out])
            centre = x[i].flatten().numpy()[b]
            known = multivariate_normal.logpdf(values[i].numpy(), centre + rho * (mean - centre), inner)
            assert found[i] == pytest.approx(known, abs=1e-9)


def test_draws_have_the_density_they_claim() -> None:
    path = block_path()
    x = noise_of("x", 1, SHAPE)(0).expand(20000, *SHAPE)
    mean = path.reverse(x, 0.5 * x, 2, IDENTITY)
    values = path.draw(mean, noise_of("white", 20000, BLOCK)(0).flatten(1), 2)
    assert ((values - mean).mean(0).abs() < 4 * values.std(0) / math.sqrt(20000)).all()
    entropy = -path.log_reverse(values, mean, 2)
    cov = path.steps[2].factor @ path.steps[2].factor.T
    known = 0.5 * (4 + 4 * math.log(2 * math.pi) + float(torch.logdet(cov)))
    assert abs(float(entropy.mean()) - known) < 4 * float(entropy.std()) / math.sqrt(20000)


@pytest.mark.parametrize("shape", [(8, 8), (16, 24)])
def test_a_gaussian_theory_is_always_accepted_at_any_volume(shape: tuple[int, ...]) -> None:
    action = FreeScalar(0.22)
    for n_levels in (1, 6):
        path = BlockPath(free_model((8, 8), 0.22), geometric(n_levels, 0.1, 8.0), (4, 4))
        state = State.of(noise_of("any", 4, shape)(0).numpy())
        tiling = Tiling(shape, (8, 8))
        new, info = block_moves(
            path, tiling, action.action, still, state, seed=1, chains=np.arange(4), step=0
        )
        assert np.abs(info.log_ratio).max() < 1e-9
        changed = (new.phi != state.phi).sum((1, 2))
        assert (changed == 16 * tiling.n_windows).all()


# --- exactness --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [SHAPE, LARGE])
@pytest.mark.parametrize("shrunk", [False, True])
def test_equilibrium_is_left_where_it_is(shape: tuple[int, ...], shrunk: bool, large_groups: None) -> None:
    phi = equilibrium(ACTION, shape, N, 21).numpy()
    state, info = sweeps(block_path(shrunk), phi, 6, shape)
    assert (state.phi != phi).mean() > 0.2
    assert info.log_ratio.shape == (N, 1 if shape == SHAPE else 2)
    assert smallest_p(state.phi, shape) > 1e-5


@pytest.mark.parametrize("wrong", [Forgetful, Unmoved])
def test_a_wrong_law_loses_equilibrium(wrong: type[BlockPath], large_groups: None) -> None:
    phi = equilibrium(ACTION, SHAPE, N, 21).numpy()
    state, _ = sweeps(block_path(True, wrong), phi, 12, SHAPE)
    assert smallest_p(state.phi, SHAPE) < 1e-12


def test_from_a_wrong_start_to_the_one_site_integrals(large_groups: None) -> None:
    """kappa = 0: sites are independent, and blocks alone reach equilibrium from any start."""
    action = ScalarPhi4(0.0, 0.022)
    model = phi4_model(action, equilibrium(action, SHAPE, 4096))
    path = BlockPath(model, levels_of(model, 4), BLOCK)
    n = 256
    state = State.of(2 * noise_of("start", n, SHAPE)(0).numpy())
    move = partial(block_moves, path, Tiling(SHAPE, SHAPE), action.action, still)
    for step in range(24):
        state, info = move(state, seed=2, chains=np.arange(n), step=step)
    known = one_site_moments(action, (2, 4))
    for power, truth in zip((2, 4), known, strict=True):
        sites = (state.phi**power).mean((1, 2))
        assert abs(sites.mean() - truth) < 4 * sites.std() / math.sqrt(n)
    assert info.accepted.mean() > 0.8


# --- what the move touches --------------------------------------------------------------------------------


def test_windows_cover_the_lattice_once() -> None:
    tiling = Tiling((8, 12), (4, 6))
    index = tiling.index(np.array([[0, 0], [3, 5]]))
    assert index.shape == (2, 4, 4, 6)
    for sites in index:
        assert sorted(sites.flatten()) == list(range(96))
    assert index[1, 0, 0, 0] == 3 * 12 + 5
    assert index[1, 0, 1, 1] == 4 * 12 + 6


def test_the_action_of_the_window_changes_as_that_of_the_lattice() -> None:
    phi = noise_of("phi", 3, (8, 8))(0).numpy()
    state, info = sweeps(block_path(), phi, 1, (8, 8))
    path, tiling = block_path(), Tiling((8, 8), SHAPE)
    sites = tiling.index(np.array([[2, 1]] * 3))
    windows = np.take_along_axis(phi.reshape(3, -1), sites.reshape(3, -1), 1).reshape(-1, *SHAPE)
    other = path.replaced(torch.from_numpy(windows), torch.ones(12, 4, dtype=torch.float64)).numpy()
    moved = np.empty((3, 64))
    np.put_along_axis(moved, sites.reshape(3, -1), other.reshape(3, -1), 1)

    def s(f: np.ndarray) -> np.ndarray:
        return ACTION.action(torch.from_numpy(f)).numpy()

    change = (s(other) - s(windows)).reshape(3, 4).sum(1)
    assert s(moved.reshape(3, 8, 8)) - s(phi) == pytest.approx(change, abs=1e-10)
    assert state.phi.shape == phi.shape
    assert info.log_ratio.shape == (3, 4)


def test_the_same_chain_whatever_the_number_of_chains() -> None:
    phi = equilibrium(ACTION, LARGE, N, 21).numpy()[:40]
    few, many = (sweeps(block_path(), phi[:n], 3, LARGE)[0].phi for n in (5, 40))
    assert np.array_equal(few, many[:5])


def test_bad_input_in_one_line() -> None:
    model = model_of(False)
    with pytest.raises(InputError, match=r"model's lattice \[4, 4\], got \[5, 2\]"):
        BlockPath(model, levels_of(model, 2), (5, 2))
    with pytest.raises(InputError, match=r"multiples of the model's own \[4, 4\].*got \[6, 8\]"):
        Tiling((6, 8), (4, 4))
    with pytest.raises(InputError, match="with a rim of one site"):
        Tiling((8, 4), (4, 4)).check_block((3, 2))

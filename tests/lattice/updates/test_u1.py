"""Heat bath and winding moves of links: exact laws, detailed balance, gauge covariance, wrong acceptance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from lattice.actions.phi4 import ScalarPhi4
from lattice.actions.u1 import U1
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact import u1 as exact
from lattice.observables.gauge import charge, plaquettes, wilson_loop
from lattice.simulation.gauge_draws import draw_links, links_of
from lattice.updates.u1 import link_heat_bath, winding_update

Update = Callable[..., tuple[Floats, Any]]
BOTH: list[Update] = [link_heat_bath, winding_update]


def keys(n: int, trajectory: int = 0, seed: int = 1) -> dict[str, Any]:
    return {"seed": seed, "chains": np.arange(n), "trajectory": trajectory}


def numbers(phi: Floats) -> dict[str, Floats]:
    """Plaquette, 2x2 loop and Q^2 of links, each (n,)."""
    links = torch.from_numpy(phi)
    w11, w22 = (wilson_loop(links, size, size).numpy() for size in (1, 2))
    return {"W11": w11, "W22": w22, "Q2": charge(links).numpy() ** 2}


def truth(beta: float, volume: int) -> dict[str, float]:
    w11, w22 = (exact.wilson_loop(beta, volume, area) for area in (1, 4))
    return {"W11": w11, "W22": w22, "Q2": exact.charge_law(beta, volume).moment(2)}


def pulls(samples: dict[str, Floats], known: dict[str, float]) -> dict[str, float]:
    """Deviations in errors of means over chains, the first axis."""
    return {k: float((x.mean() - known[k]) / (x.std(ddof=1) / math.sqrt(len(x)))) for k, x in samples.items()}


def turned(phi: Floats) -> Floats:
    """By a gauge transformation."""
    n, _, *shape = phi.shape
    alpha = np.random.default_rng(5).uniform(-3, 3, (n, *shape))
    return phi + np.stack([alpha - np.roll(alpha, -1, mu) for mu in (1, 2)], axis=1)


def distance(a: Floats, b: Floats) -> float:
    """Of angles on the circle, the largest."""
    x = a - b
    return float(np.abs(x - 2 * np.pi * np.round(x / (2 * np.pi))).max())


@pytest.mark.parametrize(("beta", "extent", "n"), [(2.0, 8, 200), (4.0, 16, 100)])
@pytest.mark.parametrize("winding", [False, True])
def test_from_a_cold_start_to_the_exact_numbers(beta: float, extent: int, n: int, winding: bool) -> None:
    action, phi, seen = U1(beta), np.zeros((n, 2, extent, extent)), []
    n_therm, n_times = (60, 100) if winding or beta < 3 else (150, 150)
    for t in range(n_therm + n_times):
        phi, info = link_heat_bath(action, phi, **keys(n, t))
        if winding:
            phi, moves = winding_update(action, phi, **keys(n, t))
        if t >= n_therm:
            seen.append(numbers(phi))
    means = {name: np.mean([x[name] for x in seen], axis=0) for name in seen[0]}
    found = pulls(means, truth(beta, extent**2))
    assert max(map(abs, found.values())) < 4.5, found
    assert abs(pulls(means, truth(1.05 * beta, extent**2))["W11"]) > 20
    assert 1.0 < info.attempts.mean() < 1.6
    if winding:
        assert 0.5 < moves.accepted.mean() < 0.8
    assert ((phi > -np.pi) & (phi <= np.pi)).all()


@pytest.mark.parametrize("update", BOTH)
@pytest.mark.parametrize("shape", [(2, 2), (3, 5)])
def test_the_exact_law_stays(update: Update, shape: tuple[int, int]) -> None:
    """Of exact draws, after one and more updates: P(Q) by chi^2, and loops."""
    beta, n = 1.5, 6000
    volume, phi = math.prod(shape), draw_links(1.5, shape, 6000, seed=8)
    law = exact.charge_law(beta, volume)
    for t in range(3):
        before, (phi, _) = phi, update(U1(beta), phi, **keys(n, t))
    assert distance(before, phi) > 1
    samples, known = numbers(phi), truth(beta, volume)
    if shape == (2, 2):
        del samples["W22"], known["W22"]  # all plaquettes: 1
    found = pulls(samples, known)
    assert max(map(abs, found.values())) < 4, found
    q = charge(torch.from_numpy(phi)).numpy()
    expected = n * np.array([law.probability[law.charge == k][0] for k in (-1, 0, 1)])
    seen = np.array([(q == k).sum() for k in (-1, 0, 1)])
    expected, seen = (np.append(x, n - x.sum()) for x in (expected, seen))
    common = expected > 5
    assert chi2.sf((((seen - expected) ** 2) / expected)[common].sum(), common.sum() - 1) > 1e-4


def test_a_winding_move_adds_one_instanton_and_can_be_undone() -> None:
    beta, shape, n = 3.0, (4, 6), 400
    action, phi = U1(beta), draw_links(3.0, (4, 6), 400, seed=2)
    new, info = winding_update(action, phi, **keys(n))
    taken = info.accepted[:, 0]
    assert 0.2 < taken.mean() < 0.9
    assert distance(new[~taken], phi[~taken]) < 1e-12
    before, after = (plaquettes(torch.from_numpy(x)).numpy() for x in (phi, new))
    step = np.remainder(after - before + np.pi, 2 * np.pi) - np.pi
    assert np.abs(np.abs(step[taken]) - 2 * np.pi / 24).max() < 1e-12
    assert (np.ptp(step, axis=(1, 2)) < 1e-12).all()
    assert 0.4 < (step[taken, 0, 0] > 0).mean() < 0.6
    s = [action.action(torch.from_numpy(x)).numpy() for x in (phi, new)]
    np.testing.assert_allclose((s[1] - s[0])[taken], info.dS[taken, 0], atol=1e-11)
    # undone: of moves back from there by the other sign, dS is minus what it was
    there, back = new[taken], np.sign(step[taken, 0, 0])
    away = np.full((len(there), *shape), 2 * np.pi / 24) * -back[:, None, None]
    undone = there + links_of(away, np.zeros((len(there), 2)))
    s_undone = action.action(torch.from_numpy(undone)).numpy()
    np.testing.assert_allclose(s_undone - s[1][taken], -info.dS[taken, 0], atol=1e-11)


def test_where_it_lies_and_how_many() -> None:
    """Many moves in one call are many calls' law; every site begins one; acceptance follows dS."""
    n = 4000
    phi = draw_links(2.0, (2, 3), n, seed=4)
    new, info = winding_update(U1(2.0), phi, **keys(n), n_moves=5)
    assert info.dS.shape == info.accepted.shape == (n, 5)
    found = pulls({"Q2": charge(torch.from_numpy(new)).numpy() ** 2}, truth(2.0, 6))
    assert abs(found["Q2"]) < 4
    chance = np.minimum(1, np.exp(-info.dS))
    assert abs((info.accepted - chance).mean()) < 4 * np.sqrt((chance * (1 - chance)).mean() / info.dS.size)
    cold = np.zeros((n, 2, 2, 3))
    moved, first = winding_update(U1(0.1), cold, **keys(n))
    places = {tuple(np.round(x, 6)) for x in moved[first.accepted[:, 0]].reshape(-1, 12)}
    assert len(places) == 12  # six sites, two signs
    same, none = winding_update(U1(2.0), phi, **keys(n), n_moves=0)
    assert none.dS.shape == (n, 0)
    np.testing.assert_allclose(same, phi, atol=1e-15)


def test_a_wrong_acceptance_is_seen() -> None:
    """Negative control: the same moves, all accepted, or with the square root of the weight."""
    beta, volume, n = 2.0, 6, 6000
    rng = np.random.default_rng(6)
    for power in (0.0, 0.5):
        phi = draw_links(beta, (2, 3), n, seed=4)
        for _ in range(3):
            sign = rng.choice([-1.0, 1.0], n)
            theta = sign[:, None, None] * np.full((n, 2, 3), 2 * np.pi / volume)
            new = phi + links_of(theta, np.zeros((n, 2)))
            s = [U1(beta).action(torch.from_numpy(x)).numpy() for x in (phi, new)]
            taken = rng.random(n) < np.exp(power * (s[0] - s[1]))
            phi = np.where(taken[:, None, None, None], new, phi)
        assert abs(pulls(numbers(phi), truth(beta, volume))["W11"]) > 8


def test_gauge_transformations_commute_with_the_updates() -> None:
    phi = draw_links(2.0, (4, 6), 50, seed=1)
    other = turned(phi)
    assert distance(phi, other) > 1
    one, two = (link_heat_bath(U1(2.0), x, **keys(50)) for x in (phi, other))
    np.testing.assert_array_equal(one[1].attempts, two[1].attempts)
    assert distance(turned(one[0]), two[0]) < 1e-10
    a, b = (winding_update(U1(2.0), x, **keys(50)) for x in (phi, other))
    np.testing.assert_allclose(a[1].dS, b[1].dS, atol=1e-11)
    assert distance(turned(a[0]), b[0]) < 1e-10


@pytest.mark.parametrize("update", BOTH)
def test_bits_do_not_depend_on_company_and_threads(update: Update) -> None:
    phi = draw_links(1.0, (3, 4), 13, seed=1)
    kept = phi.copy()
    x, _ = update(U1(1.0), phi, **keys(13), n_threads=1)
    np.testing.assert_array_equal(phi, kept)
    np.testing.assert_array_equal(update(U1(1.0), phi, **keys(13), n_threads=4)[0], x)
    alone, _ = update(U1(1.0), phi[7:8], seed=1, chains=np.array([7]), trajectory=0)
    np.testing.assert_array_equal(alone[0], x[7])
    assert distance(update(U1(1.0), phi, **keys(13, 1))[0], x) > 0.1


@pytest.mark.parametrize("update", BOTH)
def test_bad_input(update: Update) -> None:
    phi = np.zeros((2, 2, 4, 4))
    for action, text in (
        (ScalarPhi4(0.2, 0.1), r"these updates know U\(1\) links only, not ScalarPhi4"),
        (U1(2.0, theta=1.0), r"S is complex: action.beta = 2, action.theta = 1"),
        (U1(1 + 1j), r"S is complex: action.beta = 1\+1j"),
    ):
        with pytest.raises(InputError, match=text):
            update(action, phi, **keys(2))
    for bad, text in (
        (np.zeros((2, 4, 4)), "fields of U1 are"),
        (np.zeros((2, 2, 1, 4)), r"at least 2, got lattice.shape \[1, 4\]"),
        (np.zeros((2, 2, 4)), "two periodic extents"),
        (np.zeros((3, 2, 4, 4)), "chains must name every field"),
    ):
        with pytest.raises(InputError, match=text):
            update(U1(1.0), bad, **keys(2))
    with pytest.raises(InputError, match="n_sweeps must be >= 1"):
        link_heat_bath(U1(1.0), phi, **keys(2), n_sweeps=0)
    with pytest.raises(InputError, match="n_moves must be >= 0"):
        winding_update(U1(1.0), phi, **keys(2), n_moves=-1)

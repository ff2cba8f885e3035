"""Closed forms of the Gaussian machine against its differential equation, its matrices, and known numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from machine_tables import KL_BY_NODES
from scipy.integrate import quad, solve_ivp

from lattice.errors import InputError
from lattice.exact import gaussian_rbm as rbm

CHAIN, MU2 = rbm.chain_kernel(10, 2.0), 9.0
FIELD = rbm.lattice_kernel((8, 8), 0.2)

# kappa, y*, t(1/2), t(99 %), growth, relaxation, CD-1, CD-3, largest step: of independent code
KNOWN = (
    (4, 5, 20.983092, 29.701477, 0.277778, 0.625000, 0.691358, 0.970599, 3.2000),
    (4.381966, 4.618034, 24.673654, 35.723483, 0.234194, 0.481004, 0.736713, 0.981749, 4.157966),
    (5.381966, 3.618034, 37.558260, 57.790459, 0.149389, 0.249816, 0.838393, 0.995779, 8.005883),
    (6.618034, 2.381966, 66.096504, 110.603241, 0.079982, 0.108770, 0.929954, 0.999656, 18.387495),
    (7.618034, 1.381966, 119.468443, 218.554370, 0.040313, 0.047626, 0.976422, 0.999987, 41.994116),
    (8, 1, 162.691927, 312.468150, 0.027778, 0.031250, 0.987654, 0.999998, 64.0000),
)


def test_the_table() -> None:
    for kappa, known in zip(np.unique(CHAIN.round(9)), KNOWN, strict=True):
        star, y0 = MU2 - kappa, 0.01
        k = np.array(kappa)
        found = [
            kappa, star, rbm.time_between(y0, star / 2, kappa, MU2),
            rbm.time_between(y0, 0.99 * star, kappa, MU2), float(rbm.growth_rate(k, MU2)),
            float(rbm.relaxation_rate(k, MU2)), float(rbm.cd_factor(star, MU2, 1)),
            float(rbm.cd_factor(star, MU2, 3)), rbm.largest_step(k[None], MU2)[0],
        ]  # fmt: skip
        np.testing.assert_allclose(found, known, rtol=2e-6, atol=1e-6)


def test_divergences_and_masses() -> None:
    found = [rbm.divergence(CHAIN, rbm.learned(CHAIN, MU2, n)) for n in range(11)]
    np.testing.assert_allclose(found, KL_BY_NODES, atol=1e-6)
    known = (0.266860, 0.163436, 0.049857, 0.007746, 0)
    found = [rbm.divergence(CHAIN, rbm.learned(CHAIN, mu2, 10)) for mu2 in (4.5, 5, 6, 7, 8)]
    np.testing.assert_allclose(found, known, atol=1e-6)
    known = (5.656854, 5.929764, 6.203671, 6.595368, 6.852873, 7.249114, 7.426149, 7.741238, 7.804346, 8)
    found = [rbm.best_mass(CHAIN, n) for n in range(10)]
    np.testing.assert_allclose(found, known, atol=1e-6)
    for n in (0, 3, 7):  # a minimum
        best = rbm.best_mass(CHAIN, n)
        at, *around = (
            rbm.divergence(CHAIN, rbm.learned(CHAIN, mu2, n)) for mu2 in (best, best - 0.01, best + 0.01)
        )
        assert at < min(around)
    with pytest.raises(InputError, match="any mu.2 >= 8"):
        rbm.best_mass(CHAIN, 10)


@pytest.mark.parametrize(
    ("mu2", "n_hidden", "phi2", "density", "kl"),
    [(2.5, 64, 0.652774, 0.527543, 0.170617), (2.0, 64, 0.688864, 0.579105, 0.702886),
     (1.5, 64, 0.796696, 0.712571, 2.317755), (4, 1, 0.285156, 0.257031, 20.55849),
     (4, 5, 0.368063, 0.283326, 13.629461), (4, 9, 0.424390, 0.307790, 9.473813),
     (4, 21, 0.516748, 0.369753, 4.162367), (4, 37, 0.583395, 0.434084, 1.425943), (4, 64, 0.635435, 0.5, 0)],
)  # fmt: skip
def test_two_dimensions(mu2: float, n_hidden: int, phi2: float, density: float, kl: float) -> None:
    """The action density goes up with a mass cut and down with one by hidden nodes."""
    lam = rbm.learned(FIELD, mu2, n_hidden)
    found = rbm.phi2(lam), rbm.action_density(FIELD, lam), rbm.divergence(FIELD, lam)
    np.testing.assert_allclose(found, (phi2, density, kl), atol=1e-6)


def test_divergence_is_the_integral() -> None:
    kappa, lam = 1.3, 2.1
    p = lambda x, k: math.sqrt(k / (2 * math.pi)) * math.exp(-k * x * x / 2)  # noqa: E731
    known = quad(lambda x: p(x, kappa) * math.log(p(x, kappa) / p(x, lam)), -12, 12)[0]
    assert rbm.divergence(np.array([kappa]), np.array([lam])) == pytest.approx(known, abs=1e-10)
    mean = quad(lambda x: p(x, kappa) * math.log(p(x, lam)), -12, 12)[0]
    assert rbm.log_likelihood(np.array([kappa]), np.array([lam])) == pytest.approx(mean, abs=1e-10)


@pytest.mark.parametrize(("y0", "s"), [(0.01, 1.0), (0.3, 0.7), (2.9, 1.0)])
def test_trajectories_solve_the_equation(y0: float, s: float) -> None:
    """From below and from above y*; by a rate of half the size they do not."""
    kappa, mu2 = 1.5, 4.0
    t = np.linspace(0, 60, 13)
    y = rbm.trajectory(t, y0, kappa, mu2, s)
    for factor in (2.0, 1.0):
        solved = solve_ivp(
            lambda _, q, f=factor: f * s**2 * q * (1 / kappa - 1 / (mu2 - q)), (0, 60), [y0], t_eval=t,
            rtol=1e-11, atol=1e-12,
        ).y[0]  # fmt: skip
        if factor == 2:
            np.testing.assert_allclose(y, solved, atol=1e-8)
        else:
            assert np.abs(y - solved).max() > 5e-4


def test_rates_are_the_slopes_of_the_trajectory() -> None:
    kappa, mu2, s = 1.5, 4.0, 0.7
    early = rbm.trajectory(np.array([0.0, 0.1]), 1e-9, kappa, mu2, s)
    assert math.log(early[1] / early[0]) / 0.1 == pytest.approx(
        float(rbm.growth_rate(np.array(kappa), mu2, s)), rel=1e-6
    )
    late = 2.5 - rbm.trajectory(np.array([24.0, 25.0]), 0.1, kappa, mu2, s)
    rate = float(rbm.relaxation_rate(np.array(kappa), mu2, s))
    assert -math.log(late[1] / late[0]) == pytest.approx(rate, rel=1e-5)


def ascend(kappa: float, mu2: float, alpha: float, k: int | None, steps: int = 4000) -> float:
    """y of one mode after many steps of W <- W + alpha (C - 1/K) W, in expectation with k steps of CD."""
    xi = math.sqrt(0.9 * (mu2 - kappa))
    for _ in range(steps):
        gap = 1 / kappa - 1 / (mu2 - xi**2)
        xi += alpha * gap * (1.0 if k is None else 1 - (xi**2 / mu2) ** (2 * k)) * xi
        if not xi**2 < mu2:
            return math.inf
    return xi**2


@pytest.mark.parametrize("k", [None, 1, 3])
def test_largest_step(k: int | None) -> None:
    limit, mode = rbm.largest_step(CHAIN, MU2, k=k)
    assert mode == 0
    assert abs(ascend(4.0, MU2, 0.98 * limit, k) - 5) < 1e-6
    assert abs(ascend(4.0, MU2, 1.05 * limit, k) - 5) > 0.1


def turned(alpha: float, mu2: float, k: int | None, natural: int, steps: int = 600) -> float:
    """How far W ends from its fixed point after a small turn of the lowest mode into the highest."""
    c = np.diag(1 / CHAIN)
    kept = CHAIN < mu2
    w = np.diag(np.sqrt(np.where(kept, mu2 - CHAIN, 0)))
    end = w.copy()
    w[9, 0] += 1e-6
    for _ in range(steps):
        gap = c - np.linalg.inv(mu2 * np.eye(10) - w @ w.T)
        if k is not None:
            power = np.linalg.matrix_power(w @ w.T / mu2, k)
            gap = gap - power @ gap @ power
        w = w + alpha * (np.diag(CHAIN) @ gap @ np.diag(CHAIN) if natural else gap) @ w
        if not np.isfinite(w).all() or np.abs(w - end).max() > 1:
            return math.inf
    return float(np.abs(w - end).max())


@pytest.mark.parametrize(
    ("k", "natural", "limit"), [(None, False, 16.0), (1, False, 16.0), (None, True, 0.28125)]
)
def test_no_learned_mode_turns_into_a_cut_one(k: int | None, natural: int, limit: float) -> None:
    """mu^2 = 4.5: kappa = 4 and a pair are learned. Along y alone 32 and 2 would be allowed."""
    mu2 = 4.5
    found = rbm.largest_natural_step(CHAIN, mu2) if natural else rbm.largest_step(CHAIN, mu2, k=k)
    assert found == (pytest.approx(limit), 9)
    assert turned(0.95 * limit, mu2, k, natural) < 1e-8
    assert turned(1.05 * limit, mu2, k, natural) > 1e-3


def test_limits_by_the_number_of_hidden_nodes() -> None:
    """A mode that is left out though it is infrared: 2 over 1/kappa_a - 1/kappa_b."""
    for kappa in (np.array([2.0, 2.2]), np.array([2.2, 2.0])):
        most, _ = rbm.largest_step(kappa, 2.1 + 1e-9, n_hidden=1)
        assert most == pytest.approx(min(4 / 0.1, 2 / (1 / 2 - 1 / 2.2)), rel=1e-6)
    assert rbm.largest_step(np.array([2.0, 2.0]), 9.0, n_hidden=1)[0] == pytest.approx(4 / 7)


def test_gibbs() -> None:
    """Block Gibbs of one mode is an autoregression: E[phi'|phi] = s^2 W^2 phi/mu^2."""
    mu2, kappa = 4.0, 0.4
    rho = float(rbm.gibbs_rho(np.array(kappa), mu2))
    assert rho == pytest.approx((mu2 - kappa) / mu2)
    assert float(rbm.gibbs_tau_int(np.array(kappa), mu2)) == pytest.approx(0.5 + rho / (1 - rho))


def test_cut_modes_and_bad_input() -> None:
    kappa = np.array([3.0, 1.0, np.inf, 2.0])
    np.testing.assert_array_equal(rbm.learned(kappa, 2.5, 3), [2.5, 1, 2.5, 2])
    np.testing.assert_array_equal(rbm.learned(kappa, 2.5, 1), [2.5, 1, 2.5, 2.5])
    assert math.isfinite(rbm.log_likelihood(kappa, rbm.learned(kappa, 2.5, 3)))
    with pytest.raises(InputError, match="learns nothing"):
        rbm.largest_step(kappa, 0.9)
    with pytest.raises(InputError, match="mode 1 has -1"):
        rbm.learned(np.array([1.0, -1.0]), 2.0, 1)
    for ends in ((0.1, 2.5), (0.1, 3.5), (3.1, 2.5)):
        with pytest.raises(InputError, match="on one side of y"):
            rbm.time_between(*ends, 1.0, 3.0)
    with pytest.raises(InputError, match="finite and not negative"):
        rbm.trajectory(np.array([1.0, -1.0]), 0.1, 1.0, 3.0)
    with pytest.raises(InputError, match="n_hidden 0 or more"):
        rbm.learned(kappa, 2.0, -1)
    with pytest.raises(InputError, match="mu.2 must be positive"):
        rbm.learned(kappa, 0.0, 1)
    with pytest.raises(InputError, match="at least one step"):
        rbm.largest_step(kappa, 4.0, k=0)
    rates = rbm.relaxation_rate(np.array([1.0, 6.0, np.inf]), 3.0)
    np.testing.assert_allclose(rates, [4.0, 2 * (1 / 3 - 1 / 6), 2 / 3])
    with pytest.raises(InputError, match="K.p. of the free field must be positive"):
        rbm.lattice_kernel((8, 8), 0.26)


def test_a_mass_has_no_best_where_only_modes_without_variance_are_left() -> None:
    """kappa = inf counts in the harmonic mean, as the digits' dead pixels do, and alone it has none."""
    kappa = np.array([1.0, 2.0, 4.0, np.inf])
    assert rbm.best_mass(kappa, 1) == pytest.approx(3 / (1 / 2 + 1 / 4))
    with pytest.raises(InputError, match="only modes without variance"):
        rbm.best_mass(kappa, 3)

"""Machines of other sizes and masses against the tables of independent code, and finite data by Wishart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from machine_tables import KL_BY_NODES
from scipy.special import digamma

from diffsq.analysis.gaussian_machines import by_mass, by_nodes, cut_row, finite_data, mean_of, most_likely
from diffsq.models.rbm import GaussianRBM
from diffsq.models.second_moments import circulant, exact_power
from diffsq.training.contrastive import Learning, learn
from lattice.actions.phi4 import FreeScalar
from lattice.exact.gaussian_rbm import chain_kernel, divergence, lattice_kernel, learned
from lattice.rng import normals

FIELD, CHAIN = lattice_kernel((8, 8), 0.2), chain_kernel(10, 2.0)
SECOND = circulant(exact_power(FreeScalar(0.2), (8, 8)))
CUTS = [  # mu^2, N_h, modes, <phi^2>, <S>/V, KL
    (2.5, 64, 43, 0.652774, 0.527543, 0.170617), (2.0, 64, 25, 0.688864, 0.579105, 0.702886),
    (1.5, 64, 21, 0.796696, 0.712571, 2.317755), (4.0, 1, 1, 0.285156, 0.257031, 20.55849),
    (4.0, 5, 5, 0.368063, 0.283326, 13.629461), (4.0, 9, 9, 0.424390, 0.307790, 9.473813),
    (4.0, 21, 21, 0.516748, 0.369753, 4.162367), (4.0, 37, 37, 0.583395, 0.434084, 1.425943),
    (4.0, 64, 64, 0.635435, 0.5, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("mu2", "nodes", "modes", "phi2", "density", "kl"), CUTS)
def test_the_cuts(mu2: float, nodes: int, modes: int, phi2: float, density: float, kl: float) -> None:
    """Exactly as in the table, by draws within their error, and no draws of the uncut machine."""
    row = cut_row(FIELD, mu2, nodes, 4096, 1, 3)
    assert (row["mu2"], row["n_hidden"], row["n_modes"]) == (mu2, nodes, modes)
    found = [row["phi2"], row["action_density"], row["kl"]]
    np.testing.assert_allclose(found, [phi2, density, kl], atol=1e-6)
    for name, exact, uncut in (("phi2", phi2, 0.635435), ("action_density", density, 0.5)):
        value, error = row[f"{name}_drawn"]
        assert abs(value - exact) < 4.5 * error
        assert error < 0.005
        if nodes < 37 or mu2 < 2.5:
            assert abs(value - uncut) > 10 * error


def test_draws_of_other_rows_are_others() -> None:
    one, same, index, seed = (
        cut_row(FIELD, 2.0, 64, 100, s, i)["phi2_drawn"] for s, i in ((1, 0), (1, 0), (1, 1), (2, 0))
    )
    assert one == same
    assert one[0] not in (index[0], seed[0])
    assert mean_of(np.array([1.0, 3.0])) == [2.0, 1.0]


def test_the_divergence_by_nodes_and_by_mass() -> None:
    found = by_nodes(CHAIN, 9.0)
    np.testing.assert_allclose(found["kl"], KL_BY_NODES, atol=1e-6)
    masses = (5.656854, 5.929764, 6.203671, 6.595368, 6.852873, 7.249114, 7.426149, 7.741238, 7.804346, 8)
    np.testing.assert_allclose(found["best_mass"], [*masses, 9], atol=1e-6)
    assert (np.array(found["kl_best"])[:9] < np.array(found["kl"])[:9] - 1e-3).all()
    assert found["kl_best"][9] == pytest.approx(0)  # the last mode itself
    for n, (mu2, kl) in enumerate(zip(found["best_mass"], found["kl_best"], strict=True)):
        for near in (0.99, 1.01):
            assert divergence(CHAIN, learned(CHAIN, near * mu2, n)) > kl - 1e-12
    np.testing.assert_allclose(
        by_mass(CHAIN, (4.5, 5, 6, 7, 8)), (0.266860, 0.163436, 0.049857, 0.007746, 0), atol=1e-6
    )
    np.testing.assert_allclose(by_mass(FIELD, (1.5, 2.0, 2.5)), (2.317755, 0.702886, 0.170617), atol=1e-6)
    at_four = by_nodes(FIELD, 4.0)["kl"]
    np.testing.assert_allclose(
        [at_four[n] for n in (1, 5, 9, 21, 37, 64)], [row[-1] for row in CUTS[3:]], atol=1e-6
    )


def drawn(n: int, seed: int) -> Any:
    white = normals(seed, "test/finite", np.arange(n), 0, 64)
    return (white @ torch.linalg.cholesky(SECOND).numpy().T).reshape(n, 8, 8)


def wishart(degrees: int, size: int) -> float:
    """Mean KL of N(0, C) from N(0, C'), C' of so many draws of C: exact, for any C of `size` modes."""
    inverse = degrees * size / (degrees - size - 1)
    ln_det = digamma((degrees - np.arange(size)) / 2).sum() + size * np.log(2 / degrees)
    return float(0.5 * (inverse - size + ln_det))


def test_finite_data_cost_what_wishart_says() -> None:
    """No cut: of the matrix as it is, and of the momenta averaged over the symmetries of the square."""
    taken: dict[str, list[list[float]]] = {"data": [], "symmetric": []}
    for seed in range(6):
        rows = finite_data(drawn(1024, seed), SECOND, 40.0, 64, [256, 1024, 4096])
        assert [row["n"] for row in rows] == [256, 1024]
        assert [row["rank"] for row in rows] == [64, 64]
        for name in taken:
            taken[name].append([row[name] for row in rows])
        assert all(row["data_kappa"] > 3.6 for row in rows)
        assert all(abs(row["symmetric_kappa"] / 3.6 - 1) < 0.5 for row in rows)
    orbit = [
        len({(a, b), (-a % 8, b), (a, -b % 8), (-a % 8, -b % 8), (b, a), (-b % 8, a), (b, -a % 8),
             (-b % 8, -a % 8)})
        for a in range(5) for b in range(a + 1)
    ]  # fmt: skip
    assert sum(orbit) == 64
    for i, n in enumerate((256, 1024)):
        data = np.array(taken["data"])[:, i]
        exact = wishart(n, 64)
        # chi^2 of 2080 numbers, and a half more for the tail at 4 fields per mode
        assert abs(data.mean() - exact) < 1.5 * 4.5 * exact * (2 / 2080 / 6) ** 0.5
        symmetric = np.array(taken["symmetric"])[:, i]
        exact = sum(m * wishart(m * n, 1) for m in orbit)
        assert abs(symmetric.mean() - exact) < 4.5 * exact * (2 / 15 / 6) ** 0.5
        assert data.min() > 20 * symmetric.max()


def test_the_table_of_finite_data() -> None:
    """M = 256, 1024, 4096: kappa_max 8.25, 4.58, 3.75 and KL 6.31, 1.099, 0.263, of other draws."""
    rows = finite_data(drawn(4096, 7), SECOND, 20.0, 64, [256, 1024, 4096])
    for row, kappa, kl in zip(rows, (8.25, 4.58, 3.75), (6.31, 1.099, 0.263), strict=True):
        assert row["data"] == pytest.approx(kl, rel=0.2)
        assert row["data_kappa"] == pytest.approx(kappa, rel=0.15)
    few = finite_data(drawn(40, 8), SECOND, 5.0, 64, [40])[0]
    assert few["rank"] == 40
    assert np.isinf(few["data_kappa"])
    assert np.isfinite(few["data"])
    assert few["symmetric"] < 0.1 * few["data"]


def test_the_most_likely_machine_is_where_training_ends() -> None:
    """And its spectrum, KL and likelihood are those of the closed form; perturbed it is less likely."""
    rows = torch.from_numpy(normals(9, "test/likely", np.arange(50), 0, 6))
    second = rows.T @ rows / 50
    kappa = np.sort(1 / np.linalg.eigvalsh(second.numpy()))
    for mu2, n_hidden, s in ((3.0, 6, 1.0), (3.0, 2, 1.0), (1.0, 6, 1.0), (3.0, 3, 0.6)):
        best = most_likely(second, mu2, n_hidden, s)
        np.testing.assert_allclose(best.spectrum, np.sort(learned(kappa, mu2, n_hidden)), rtol=1e-12)
        noise = torch.from_numpy(normals(10, "test/w", np.arange(6), 0, n_hidden))
        begin = GaussianRBM.initial(6, n_hidden, mu2, 0.1, noise, s)
        how = Learning(0.5 * Learning(0.0).limit(second, begin)[0])
        *_, (_, machine) = learn(begin, second, how, 3000)
        assert (machine.kernel - best.kernel).abs().max() < 1e-5
        likely = float(best.log_prob(rows).mean())
        assert float(machine.log_prob(rows).mean()) == pytest.approx(likely, abs=1e-8)
        for size in (0.05, -0.05):
            other = GaussianRBM(best.w + size * noise, best.mu2, None, s)
            assert float(other.log_prob(rows).mean()) < likely - 1e-4


def test_modes_without_variance_stay_at_the_mass() -> None:
    second = torch.diag(torch.tensor([2.0, 0.0, 0.5, 1e-18])).double()
    machine = most_likely(second, 3.0, 4)
    np.testing.assert_allclose(machine.spectrum, [0.5, 2, 3, 3], rtol=1e-12)

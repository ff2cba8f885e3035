"""Block Gibbs: the law of a sweep, its equilibrium, its slowing down, and ensembles made by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from longer import same_numbers
from own_actions import Own

from lattice.actions.gaussian_rbm import GaussianMachine
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.errors import InputError
from lattice.exact.gaussian_rbm import gibbs_rho, gibbs_tau_int
from lattice.rng import normals
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.simulate import simulate
from lattice.statistics.gamma import gamma_method
from lattice.updates.gibbs import gibbs_sweep

N, N_HIDDEN, MU2, S = 4, 3, 2.0, 1.4
W = 0.35 * normals(2, "test/gibbs", np.arange(N), 0, N_HIDDEN)
SOURCE = np.array([0.5, -1.0, 0.0, 2.0])
MACHINE, SOURCED = GaussianMachine(W, MU2, S), GaussianMachine(W, MU2, S, SOURCE)
PULL = S**2 * W @ W.T / MU2  # <phi'> = PULL phi + J/mu^2
NOISE = np.eye(N) / MU2 + PULL / MU2
M = 200_000


def sweep(phi: np.ndarray, machine: GaussianMachine = MACHINE, trajectory: int = 0) -> np.ndarray:
    return gibbs_sweep(machine, phi, seed=3, chains=np.arange(len(phi)), trajectory=trajectory)


def covariance(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of rows, and its error element by element."""
    products = x[:, :, None] * x[:, None]
    return products.mean(0), products.std(0) / len(x) ** 0.5


def equilibrium(machine: GaussianMachine, n: int) -> np.ndarray:
    white = normals(4, "test/start", np.arange(n), 0, N)
    source = np.zeros(N) if machine.source is None else machine.source
    root = np.linalg.cholesky(np.linalg.inv(machine.kernel))
    found: np.ndarray = white @ root.T + np.linalg.solve(machine.kernel, source)
    return found


def test_a_sweep_is_linear_with_the_known_matrix() -> None:
    """The same random numbers from two fields: apart by s^2 W W^T (phi - phi')/mu^2, and the source moves
    the end by J/mu^2; all to rounding."""
    phi = normals(5, "test/phi", np.arange(6), 0, N)
    still = sweep(np.zeros((6, N)))
    np.testing.assert_allclose(sweep(phi) - still, phi @ PULL, atol=1e-13)
    np.testing.assert_allclose(sweep(phi, SOURCED) - sweep(phi), np.tile(SOURCE / MU2, (6, 1)), atol=1e-13)
    np.testing.assert_allclose(PULL, np.eye(N) - MACHINE.kernel / MU2, atol=1e-14)


def test_the_law_of_a_sweep() -> None:
    """Mean and covariance over many chains from one field, of independent chains; no sweep of another s."""
    phi = np.array([1.0, -2.0, 0.5, 3.0])
    found = sweep(np.tile(phi, (M, 1)), SOURCED)
    mean = PULL @ phi + SOURCE / MU2
    assert (np.abs(found.mean(0) - mean) < 4.5 * np.sqrt(NOISE.diagonal() / M)).all()
    apart, error = covariance(found - mean)
    assert (np.abs(apart - NOISE) < 4.5 * error).all()
    wrong = np.eye(N) / MU2 + 1.1**2 * PULL / MU2
    assert (np.abs(apart - wrong) > 10 * error).any()
    assert (np.abs(found.mean(0) - 1.1**2 * PULL @ phi - SOURCE / MU2) > 10 * error.diagonal()).any()
    standard = (found - mean)[:, 0] / NOISE[0, 0] ** 0.5
    assert abs((standard**4).mean() - 3) < 4.5 * (96 / M) ** 0.5
    turned = sweep(np.tile(phi, (M, 1)), SOURCED, trajectory=1)
    assert abs(((found - mean) * (turned - mean)).mean(0) / NOISE.diagonal()).max() < 4.5 / M**0.5


@pytest.mark.parametrize("machine", [MACHINE, SOURCED])
def test_the_equilibrium_stays(machine: GaussianMachine) -> None:
    """N(K^-1 J, K^-1) after two sweeps: exactly by the matrices, and by the loop; another law moves."""
    known = np.linalg.inv(machine.kernel)
    np.testing.assert_allclose(PULL @ known @ PULL.T + NOISE, known, atol=1e-13)
    np.testing.assert_allclose(PULL @ known, (PULL @ known).T, atol=1e-13)  # detailed balance
    centre = known @ (np.zeros(N) if machine.source is None else machine.source)
    phi = equilibrium(machine, M)
    for t in range(2):
        phi = sweep(phi, machine, t)
    assert (np.abs(phi.mean(0) - centre) < 4.5 * np.sqrt(known.diagonal() / M)).all()
    found, error = covariance(phi - centre)
    assert (np.abs(found - known) < 4.5 * error).all()
    cold, error = covariance(sweep(np.tile(centre, (M, 1)), machine) - centre)
    assert (np.abs(cold - known) > 10 * error).any()


def test_every_mode_forgets_at_its_rate() -> None:
    """rho(1) = 1 - lambda/mu^2 in equilibrium, the slowest for the smallest lambda."""
    values, modes = np.linalg.eigh(MACHINE.kernel)
    phi = equilibrium(MACHINE, M)
    one, other = phi @ modes, sweep(phi) @ modes
    rho = (one * other).mean(0) * values
    known = gibbs_rho(values, MU2)
    error = (one * other).std(0) * values / M**0.5
    assert (np.abs(rho - known) < 4.5 * error).all()
    assert np.abs(rho - known[::-1])[[0, -1]].min() > 10 * error.max()
    assert known[0] > 0.5
    assert abs(known[-1]) < 1e-12  # more visible nodes than hidden ones: a mode of lambda = mu^2


def test_batch_and_order_change_no_bit() -> None:
    phi = normals(6, "test/phi", np.arange(9), 0, N)
    whole = sweep(phi, SOURCED, 7)
    keys: dict[str, Any] = {"seed": 3, "trajectory": 7}
    assert np.array_equal(gibbs_sweep(SOURCED, phi[3:5], chains=np.arange(3, 5), **keys), whole[3:5])
    order = np.array([4, 0, 8, 2])
    assert np.array_equal(gibbs_sweep(SOURCED, phi[order], chains=order, **keys), whole[order])
    square = phi.reshape(9, 2, 2)
    assert np.array_equal(sweep(square, SOURCED, 7), whole.reshape(9, 2, 2))
    for other in ({"seed": 4, "trajectory": 7}, {"seed": 3, "trajectory": 8}):
        assert not np.isclose(gibbs_sweep(SOURCED, phi, chains=np.arange(9), **other), whole).any()
    kept = phi.copy()
    sweep(phi)
    assert np.array_equal(phi, kept)


def test_what_is_no_batch_of_the_machine_is_refused() -> None:
    phi, keys = np.zeros((2, 4)), {"seed": 1, "chains": np.arange(2), "trajectory": 0}
    for action in (FreeScalar(0.1), ScalarPhi4(0.1, 0.1), Own(0.1, 0.1)):
        with pytest.raises(InputError, match="gibbs knows the hidden nodes of a GaussianMachine only, not"):
            gibbs_sweep(action, phi.reshape(2, 2, 2), **keys)  # type: ignore[arg-type]
    bad: list[tuple[Any, dict[str, Any], str]] = [
        (np.zeros((2, 5)), {}, "has 4 visible nodes"), (phi.astype(np.float32), {}, "must be float64"),
        (np.zeros(4), {}, "must be float64"), (phi[:0], {}, "n >= 1"),
        (phi, {"chains": np.arange(3)}, "2 fields, 3 chains"), (phi, {"seed": -1}, "seed"),
        (phi, {"trajectory": -1}, "trajectory"),
    ]  # fmt: skip
    for fields, changes, words in bad:
        with pytest.raises(InputError, match=words):
            gibbs_sweep(MACHINE, fields, **{**keys, **changes})


SHAPE = (2, 4)
FIELD_W = 0.5 * normals(7, "test/w", np.arange(8), 0, 6)
FIELD = GaussianMachine(FIELD_W * (1.5 / np.linalg.norm(FIELD_W, 2)), 3.0)
PARAMS: dict[str, Any] = {
    "n_configs": 12800, "n_chains": 32, "n_therm": 150, "update": "gibbs", "cluster": "none", "n_clusters": 0,
}  # fmt: skip


def made(folder: Path, machine: Any = FIELD, **changes: Any) -> Ensemble:
    return simulate(machine, SHAPE, MonteCarlo(**{**PARAMS, **changes}), seed=8, out=folder)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    return made(tmp_path_factory.mktemp("gibbs") / "e")


def test_an_ensemble_is_certified_with_the_exact_variances(ensemble: Ensemble) -> None:
    """Of every mode 1/lambda, with tau_int = mu^2/lambda - 1/2 sweeps."""
    certificate = ensemble.attrs["certificate"]
    assert certificate["passed"], [check for check in certificate["checks"] if not check["passed"]]
    assert ensemble.attrs["algorithm"]["name"] == "gibbs"
    assert ensemble.series["dH"].max() == 0
    assert ensemble.series["accepted"].min() == 1
    values, modes = np.linalg.eigh(FIELD.kernel)
    along = ensemble.phi.reshape(len(ensemble), -1) @ modes
    slow, rows = 0, ensemble.replicas()
    for mode, lam in enumerate(values):
        estimate = gamma_method([along[row, mode, None] ** 2 for row in rows])
        assert abs(estimate.value - 1 / lam) < 4.5 * estimate.error
        assert estimate.error < 0.1 / lam
        tau = gamma_method([along[row, mode, None] for row in rows])
        assert abs(tau.tau_int - float(gibbs_tau_int(np.array(lam), 3.0))) < 4.5 * tau.tau_int_error
        slow += tau.tau_int > 1.2
    assert slow >= 1
    assert abs(along[:, 0].var() * values[-1] - 1) > 1  # the slowest mode is no fast one


def test_a_source_has_its_mean(tmp_path: Path) -> None:
    source = np.linspace(-1, 1.5, 8)
    found = made(tmp_path / "e", GaussianMachine(FIELD.w, 3.0, 1.0, source))
    assert found.attrs["certificate"]["passed"]
    known = np.linalg.solve(FIELD.kernel, source)
    flat = found.phi.reshape(len(found), -1)
    for site in range(8):
        estimate = gamma_method([flat[row, site, None] for row in found.replicas()])
        assert abs(estimate.value - known[site]) < 4.5 * estimate.error
    assert np.abs(known).max() > 10 * estimate.error


def test_more_configurations_go_on_to_the_bit(ensemble: Ensemble, tmp_path: Path) -> None:
    first = made(tmp_path / "e", n_configs=3200)
    assert len(first) == 3200
    grown = made(tmp_path / "e")
    assert same_numbers(grown, ensemble)
    assert grown.attrs["certificate"] == ensemble.attrs["certificate"]
    assert same_numbers(read_ensemble(tmp_path / "e", FIELD), ensemble)
    with pytest.raises(InputError, match="holds an ensemble"):
        made(tmp_path / "e", GaussianMachine(0.99 * FIELD.w, 3.0))


@pytest.mark.parametrize("action", [FreeScalar(0.1), ScalarPhi4(0.2, 0.1), Own(0.2, 0.1)])
def test_another_action_is_refused_in_one_line(action: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ensemble.update: gibbs knows .* use ensemble.update: hmc") as error:
        made(tmp_path / "e", action)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "e").exists()
    with pytest.raises(InputError, match="visible nodes"):
        simulate(FIELD, (4, 4), MonteCarlo(**PARAMS), seed=1, out=tmp_path / "e")
    for changes in ({"cluster": "wolff", "n_clusters": 1}, {"n_overrelax": 1}, {"acceleration": "free"}):
        with pytest.raises(InputError, match="knows phi.4 only, not GaussianMachine"):
            made(tmp_path / "e", **changes)

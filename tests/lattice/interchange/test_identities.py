"""What a foreign ensemble says about itself: identities, copies, order of chains, independence."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
from foreign import FREE, SLOW, SMALL, Array, failed, find, free_draws, saved, sigmas_found

from lattice.interchange.identities import independence_check, order_check, series_of
from lattice.interchange.importing import format_import, import_file
from lattice.simulation.monte_carlo import MonteCarlo, generate


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Array:
    """64 chains of 64 configurations, HMC without clusters, tau_int(M^2) = 3.3: (64, 64, 8, 8)."""
    params = MonteCarlo(
        n_configs=4096, n_chains=64, n_therm=600, stride=3, n_clusters=0, trajectory_length=1.0
    )
    e = generate(SLOW, (8, 8), params, 3, tmp_path_factory.mktemp("slow"))
    return e.phi[np.concatenate(e.replicas())].reshape(64, 64, 8, 8)


def test_false_alarms_are_rare(tmp_path: Path) -> None:
    """Exact draws of a free field, read as independent and as chains: none of 60 files may fail."""
    sigmas = []
    for seed in range(60):
        path = saved(tmp_path, free_draws(400, seed))
        result = import_file(path, FREE, n_chains=None if seed % 2 else 16)
        assert result["passed"], format_import(result)
        names = ("Schwinger-Dyson", "Schwinger-Dyson of M", "M (Z2)")
        identities = [find(result, name) for name in names]
        sigmas.append([float(check["detail"].split(" sigma")[0]) for check in identities])
    near = float((np.array(sigmas) < 1).mean())
    assert abs(near - 0.683) < 4.5 * math.sqrt(0.683 * 0.317 / 120)  # the three are a little correlated


def test_correlated_configurations_called_independent(tmp_path: Path) -> None:
    """One chain with rho = 0.5 between neighbours, and two chains stored side by side."""
    noise = free_draws(2000, 3)
    phi = noise.copy()
    for t in range(1, len(phi)):
        phi[t] = 0.5 * phi[t - 1] + math.sqrt(0.75) * noise[t]
    result = import_file(saved(tmp_path, phi), FREE)
    assert "independence" in failed(result)
    assert "1 apart" in find(result, "independence")["detail"]
    assert any("n_chains" in hint for hint in result["hints"])
    assert import_file(saved(tmp_path, phi), FREE, n_chains=1)["passed"]
    side_by_side = phi.reshape(2, 1000, 4, 4).transpose(1, 0, 2, 3).reshape(2000, 4, 4)
    again = import_file(saved(tmp_path, side_by_side), FREE)
    assert "2 apart" in find(again, "independence")["detail"]
    assert independence_check(series_of(noise, FREE))["passed"]


def test_time_before_chain(tmp_path: Path, slow: Array) -> None:
    """HMC at tau_int(M^2) = 3.3: (chain, time) is taken, (time, chain) refused, and its n_independent
    shows what it would have been certified with."""
    action, shape = SLOW, (8, 8)
    right = import_file(saved(tmp_path, slow), action, shape)
    assert right["passed"], format_import(right)
    assert right["certificate"]["n_independent"] < 1000
    assert "the first axis as 64 chains" in right["notes"][0]
    assert "(time, chain)" in right["notes"][0]
    wrong = import_file(saved(tmp_path, slow.swapaxes(0, 1)), action, shape)
    assert failed(wrong) == {"order of chains"}
    assert wrong["certificate"]["n_independent"] > 3000
    assert "equal positions of chains 1 apart" in find(wrong, "order of chains")["detail"]
    assert sigmas_found(wrong) > 20
    assert any("look like (time, chain)" in hint and "n_chains" in hint for hint in wrong["hints"])


@pytest.mark.parametrize("n_chains", [128, 64, 32, 16, 8, 4, 2, 1])
def test_wrong_number_of_chains(tmp_path: Path, slow: Array, n_chains: int) -> None:
    """64 chains side by side in a flat file, cut into any number of pieces."""
    flat = slow.swapaxes(0, 1).reshape(-1, 8, 8)
    result = import_file(saved(tmp_path, flat), SLOW, n_chains=n_chains)
    assert "order of chains" in failed(result)
    assert sigmas_found(result) > 10
    assert any("n_chains is wrong" in hint for hint in result["hints"])


@pytest.mark.parametrize("n_chains", [16, 64, 256, 512])
def test_chains_cut_at_the_wrong_places(tmp_path: Path, slow: Array, n_chains: int) -> None:
    """Chains one after the other: joined ones keep their tau_int, too short pieces are refused."""
    result = import_file(saved(tmp_path, slow.reshape(-1, 8, 8)), SLOW, n_chains=n_chains)
    assert result["passed"] == (n_chains <= 64), format_import(result)
    assert ("order of chains" in failed(result)) == (n_chains >= 256)


@pytest.mark.parametrize(("n_chains", "length"), [(2, 200), (8, 100), (64, 60)])
@pytest.mark.parametrize("frozen", [False, True])
def test_order_of_true_chains(n_chains: int, length: int, frozen: bool) -> None:
    """AR(1) chains of tau_int = 4.5, also with a sign of M that never changes: no alarm in 200 files."""
    rng, a = np.random.default_rng(n_chains), 0.8
    rows = [np.arange(length) + length * c for c in range(n_chains)]
    for _ in range(200):
        noise = rng.normal(size=(2, n_chains, length + 60)) * math.sqrt(1 - a * a)
        m, s = scipy.signal.lfilter([1.0], [1.0, -a], noise, axis=2)[:, :, 60:]
        if frozen:
            m = rng.choice([-1.0, 1.0], size=(n_chains, 1)) * (5 + m)
        series = {"m": m.reshape(-1), "abs_m": np.abs(m).reshape(-1), "s": s.reshape(-1)}
        check = order_check(series, rows, 4.5)
        assert check["passed"], check["detail"]


def test_copies(tmp_path: Path) -> None:
    """Augmented data are no new draws; copies of the predecessor in a chain are rejections."""
    phi = free_draws(400, 4)
    moved = np.roll(-phi[17], (1, 2), axis=(0, 1))
    result = import_file(saved(tmp_path, np.concatenate([phi, moved[None]])), FREE)
    assert failed(result) == {"copies"}
    assert "400 is a copy of 17" in find(result, "copies")["detail"]
    rejected = phi.copy()
    rejected[1::2] = rejected[::2]
    assert "copies" in failed(import_file(saved(tmp_path, rejected), FREE))
    chain = import_file(saved(tmp_path, rejected), FREE, n_chains=8)
    assert find(chain, "copies")["passed"]
    assert find(chain, "repeats in chains")["value"] == 0.5
    rejected[:] = rejected[::4].repeat(4, axis=0)
    frozen = import_file(saved(tmp_path, rejected), FREE, n_chains=8)
    assert "repeats in chains" in failed(frozen)


def test_constant_fields_and_one_sign(tmp_path: Path) -> None:
    phi = free_draws(400, 5)
    phi[7] = 0.3
    result = import_file(saved(tmp_path, phi), FREE)
    assert "constant fields" in failed(result)
    assert "configuration 7" in find(result, "constant fields")["detail"]
    one_sign = free_draws(400, 6)
    one_sign *= np.sign(one_sign.mean(axis=(1, 2)))[:, None, None]
    result = import_file(saved(tmp_path, one_sign), FREE)
    assert failed(result) == {"M (Z2)"}
    assert "random sign" in result["hints"][0]


def test_too_few(tmp_path: Path) -> None:
    assert "configurations" in failed(import_file(saved(tmp_path, free_draws(99, 7)), FREE))
    assert "own run" in failed(import_file(saved(tmp_path, free_draws(1, 7)), FREE))


def test_drifting_chains(tmp_path: Path) -> None:
    phi = free_draws(1600, 8).reshape(16, 100, 4, 4)
    phi *= np.linspace(0.8, 1.18, 100)[None, :, None, None]  # the average is about right
    result = import_file(saved(tmp_path, phi), FREE, SMALL)
    assert {"phi^2 drift", "phi^2 trend", "s trend"} <= failed(result)

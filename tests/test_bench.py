"""The two benchmarks run at tiny size and print their columns; their references are the package's updates.

No time is asserted anywhere.
"""

from __future__ import annotations

import doctest
import json
import math
from pathlib import Path

import bench_common
import bench_machines
import bench_recipes
import bench_report
import bench_tau
import bench_torch
import bench_updates
import numpy as np
import pytest
import torch
from bench_clusters import wolff_frontier, wolff_stack

from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError
from lattice.rng import normals, uniforms
from lattice.updates.cluster import WOLFF, wolff_update
from lattice.updates.integrator import evolve
from lattice.updates.kernels.layout import neighbour_table

ACTION, SHAPE, SEED = ScalarPhi4(0.27088, 0.022), (8, 6), 5


def fields(n: int, scale: float = 1.0) -> np.ndarray:
    return scale * normals(SEED, "test/bench", np.arange(n), 0, math.prod(SHAPE)).reshape(n, *SHAPE)


def stack_update(phi: np.ndarray, kappa: float, chain: int) -> np.ndarray:
    """`wolff_stack` with the random numbers of `wolff_update`."""
    numbers = iter(uniforms(SEED, WOLFF, np.array([chain]), 3, 4096)[0].tolist())
    flat, table = phi.reshape(-1).copy(), neighbour_table(SHAPE).astype(np.int64)
    wolff_stack(flat, table.tolist() if chain % 2 else table, kappa, 5, numbers.__next__)
    return flat.reshape(SHAPE)


def test_the_python_cluster_update_is_the_compiled_one() -> None:
    phi = fields(16)
    new, _ = wolff_update(ACTION, phi, seed=SEED, chains=np.arange(16), trajectory=3, n_clusters=5)
    assert (new != phi).any()
    for chain in range(16):
        assert (stack_update(phi[chain], ACTION.kappa, chain) == new[chain]).all()
    # negative control: another coupling gives other clusters
    assert any((stack_update(phi[c], 0.5 * ACTION.kappa, c) != new[c]).any() for c in range(16))


def sizes_of_frontier(phi: np.ndarray, kappa: float, n: int) -> np.ndarray:
    table, rng = neighbour_table(SHAPE).astype(np.int64), np.random.default_rng(SEED)
    flat = phi.reshape(-1)
    return np.array([wolff_frontier(flat.copy(), table, kappa, 1, rng)[0] for _ in range(n)])


def test_the_numpy_cluster_update_has_the_same_law() -> None:
    """Mean size of the cluster of a random site of one fixed field, 4000 draws each: within 4.5 errors."""
    phi, n = np.abs(fields(1))[0], 4000
    repeated = np.broadcast_to(phi, (n, *SHAPE))
    _, info = wolff_update(ACTION, repeated, seed=SEED, chains=np.arange(n), trajectory=0)

    def pull(kappa: float) -> float:
        mine = sizes_of_frontier(phi, kappa, n)
        error = math.sqrt((mine.var() + info.size.var()) / n)
        return abs(float(mine.mean() - info.size.mean())) / error

    assert pull(ACTION.kappa) < 4.5
    assert pull(0.5 * ACTION.kappa) > 10  # negative control: exp(-2 kappa ...) instead of exp(-4 kappa ...)


def test_the_numpy_cluster_update_flips_what_it_counts() -> None:
    """Frozen bonds everywhere: a cluster is a whole domain of one sign."""
    phi = np.full(SHAPE, 30.0)
    phi[3:] = -30.0
    flat = phi.reshape(-1).copy()
    table = neighbour_table(SHAPE).astype(np.int64)
    (size,) = wolff_frontier(flat, table, ACTION.kappa, 1, np.random.default_rng(1))
    assert size in (3 * 6, 5 * 6)
    assert (np.abs(flat) == 30.0).all()
    assert len(set(flat)) == 1  # the two domains have become one


def test_the_fused_leapfrog_is_the_integrator() -> None:
    phi, p = torch.from_numpy(fields(4)), torch.from_numpy(fields(8)[4:])
    new, new_p = bench_torch.leapfrog_steps(ACTION, phi, p, 7, compile_step=False)
    right, right_p = evolve(ACTION.grad, phi, p, length=0.7, n_steps=7, integrator="leapfrog")
    assert torch.allclose(new, right, rtol=0, atol=1e-12)
    assert torch.allclose(new_p, right_p, rtol=0, atol=1e-12)


def test_the_machine_loops_do_the_work_they_report() -> None:
    a, b, c = np.zeros(5), np.full(5, 2.0), np.full(5, 4.0)
    bench_common.triad(a, b, c, 1)
    assert (a == 8.0).all()
    x = np.full(3, 2.0)
    bench_common.multiply_add(x, 1)
    expected = 2.0
    for _ in range(8):
        expected = expected * 0.999 + 0.001
    assert np.allclose(x, expected, rtol=1e-14)
    assert bench_common.triad_bytes(10, total=2400)() == 2400
    assert bench_common.fma_flops(3)() == 3 * 256 * 16


def test_bench_updates_prints_its_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    tiny = ["--sizes", "4", "--repeat", "2", "--chains", "4", "--torch-chains", "2", "8", "--out", str(out)]
    assert bench_updates.main(tiny) == 0
    text = capsys.readouterr().out
    for words in (
        "| L | chains | update | unit |", "site-leapfrogs/s", "eager torch at its best batch", "| Wolff |",
        "stack on NumPy arrays", "stack on lists",
        "NumPy over the front", "Swendsen-Wang", "Metropolis", "overrelaxation",
        "MALA", "omelyan2", "Fourier", "fraction of triad", "goal 5", "goal 20", "CUDA",
    ):  # fmt: skip
        assert words in text, words
    data = json.loads(out.read_text())
    (result,) = data["results"]
    assert result["L"] == 4
    assert all(len(turns) == 2 for turns in result["turns"].values())
    assert data["machine"]["cpu"]
    assert "host" not in out.read_text().lower()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_asked_for_in_vain(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_updates.main(["--device", "cuda"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "no CUDA device" in captured.err
    assert captured.out == ""


def test_every_candidate_is_exact_on_one_site_pairs() -> None:
    """Recipes call what they name: a 2 x 2 lattice at kappa = 0 has <phi^2> of the one-site integral."""
    from lattice.exact.scalar import one_site_moments

    action, shape, n = ScalarPhi4(0.0, 0.1), (2, 2), 512
    (exact,) = one_site_moments(action, (2,))
    for algorithm, candidates in bench_recipes.CANDIDATES.items():
        recipe = candidates(2)[-1]
        phi = 0.7 * normals(SEED, "test/start", np.arange(n), 0, 4).reshape(n, *shape)
        chains = bench_tau.Chains(action, recipe, phi, SEED, np.ones(shape))
        chains.run(0.0, at_least=40)
        square = np.mean(chains.phi**2, axis=(1, 2))
        error = square.std() / math.sqrt(n)
        assert abs(square.mean() - exact) < 4.5 * error, algorithm
        names = set(recipe) - {"wolff", "sw"}
        assert set(chains.summary()["acceptance"]) == names
        assert chains.cpu > 0


def test_the_examples_in_the_scripts_hold() -> None:
    for module in (bench_tau, bench_report, bench_updates):
        assert doctest.testmod(module).failed == 0


def test_short_tau_of_an_ar1_process() -> None:
    """Series of only twice tau_int: right on the average of 50; shuffled numbers have no memory."""
    rng, rho = np.random.default_rng(3), math.exp(-1 / 20)
    x = np.empty((40, 50, 400))
    x[0] = rng.normal(size=(50, 400))
    for t in range(1, 40):
        x[t] = rho * x[t - 1] + math.sqrt(1 - rho**2) * rng.normal(size=(50, 400))
    exact = 0.5 * (1 + rho) / (1 - rho)
    found = np.array([bench_tau.short_tau(x[:, i]) for i in range(50)])
    assert abs(found.mean() - exact) < 4.5 * found.std() / math.sqrt(50)
    assert found.std() < 0.25 * exact
    shuffled = rng.permutation(x.ravel()).reshape(x.shape)
    assert max(bench_tau.short_tau(shuffled[:, i]) for i in range(50)) < 1.0


def test_fit_of_z() -> None:
    lengths = np.array([16.0, 32.0, 64.0, 128.0])
    rng, pulls, errors = np.random.default_rng(2), [], []
    for _ in range(400):
        true = 0.3 * lengths**1.3
        z, error, _, dof = bench_report.fit_z(lengths, true * np.exp(0.05 * rng.normal(size=4)), 0.05 * true)
        assert dof == 2
        pulls.append((z - 1.3) / error)
        errors.append(error)
    assert abs(np.mean(pulls)) < 4.5 / math.sqrt(400)
    plain = 0.05 / math.sqrt(np.var(np.log(lengths)) * 4)
    assert min(errors) > 0.8 * plain  # the weights fluctuate, too
    assert max(errors) > 1.5 * plain  # enlarged where chi2 is large
    assert math.isnan(bench_report.fit_z(lengths[:1], lengths[:1], lengths[:1])[0])


def test_bench_tau_runs_resumes_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--sizes", "4", "6", "--algorithms", "hmc", "sw", "--budget", "0.4", "--out", str(tmp_path)]
    assert bench_tau.main(tiny) == 0
    text = capsys.readouterr().out
    for words in ("tau M2", "tau abs M", "tau S", "CPU s per independent configuration", "tau M2 in forces",
                  "n_steps", "Largest pull"):  # fmt: skip
        assert words in text, words
    point = json.loads((tmp_path / "hmc_L4.json").read_text())
    assert set(point["tau_int"]) == set(bench_report.OBSERVABLES)
    assert len(point["pilots"]) == len(bench_recipes.CANDIDATES["hmc"](4))
    assert point["cost_M2"][0] == pytest.approx(2 * point["tau_int"]["M2"][0] * point["cpu_per_trajectory"])
    assert point["start"]["n_chains"] >= point["n_chains"]
    assert (tmp_path / "tau.png").read_bytes()[:4] == b"\x89PNG"
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*_L*.json")}
    assert bench_tau.main(tiny) == 0
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("*_L*.json")}
    capsys.readouterr()
    assert bench_tau.main([*tiny, "--kappa", "0.2"]) == 2
    assert "another --out" in capsys.readouterr().err


def test_a_point_without_result_is_listed_and_done_again(tmp_path: Path) -> None:
    options = bench_tau.arguments(["--algorithms", "sw", "--budget", "0.3", "--out", str(tmp_path)])
    good = bench_tau.point("sw", 4, options)
    path = tmp_path / "sw_L4.json"
    path.write_text(json.dumps({**good, "failure": "M2: series too short", "n_traj": 0}))
    assert "no result: M2" in bench_report.tables([json.loads(path.read_text())])
    assert bench_tau.point("sw", 4, options)["n_traj"] > 0


def test_starts_that_disagree_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the start check: an update that moves nothing leaves hot and cold apart."""
    monkeypatch.setattr(bench_tau, "make_sweep", lambda *_: lambda phi, t: (phi, {}))
    with pytest.raises(InputError, match="hot and other starts differ"):
        bench_tau.equilibrium(ACTION, 4, SEED, tmp_path)


def test_replicas_in_one_tensor_and_in_a_loop(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--replicas", "32", "--sites", "4", "--batch", "4", "--steps", "3", "--repeat", "1"]
    assert bench_machines.batched(bench_machines.arguments(few)) == 32 * 3
    assert bench_machines.looped(bench_machines.arguments(few)) == 3
    assert bench_machines.main(few) == 0
    assert "ratio" in capsys.readouterr().out

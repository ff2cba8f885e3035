"""`check gibbs`: block Gibbs of a machine is as slow as known; of another machine the check fails."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffsq.analysis.gaussian_machines import most_likely
from diffsq.checks import gibbs
from diffsq.config.config import config_from_dict
from diffsq.config.machines import MachineRun
from diffsq.models.rbm import GaussianRBM
from diffsq.models.second_moments import circulant, exact_power
from diffsq.run_folder.finished import MachineBench
from lattice.actions.gaussian_rbm import GaussianMachine
from lattice.actions.phi4 import FreeScalar
from lattice.ensembles.ensemble import read_ensemble
from lattice.errors import InputError
from lattice.exact.gaussian_rbm import lattice_kernel
from lattice.progress import Silent

MU2 = 4.0
MACHINE = most_likely(circulant(exact_power(FreeScalar(0.2), (4, 4))), MU2, 16)


def make_bench(folder: Path, machine: GaussianRBM = MACHINE) -> MachineBench:
    """The best machine of the free field on 4 x 4: all that the check looks at."""
    config = config_from_dict({
        "name": "gibbs", "seed": 5, "action": {"kind": "free", "kappa": 0.2}, "lattice": {"shape": [4, 4]},
        "models": ["rbm"],
    })  # fmt: skip
    assert isinstance(config, MachineRun)
    nothing: Any = None
    return MachineBench(folder, config, config.action, machine, {}, nothing, nothing)


def run(bench: MachineBench, n_chains: int = 16, **options: Any) -> dict[str, Any]:
    found = gibbs.run(bench, Silent(), n_chains=n_chains, **options)
    json.dumps(found, allow_nan=False)
    return found


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> MachineBench:
    return make_bench(tmp_path_factory.mktemp("gibbs"))


@pytest.fixture(scope="module")
def found(bench: MachineBench) -> dict[str, Any]:
    return run(bench)


def test_the_sampler_of_the_machine_is_as_slow_as_known(found: dict[str, Any]) -> None:
    """rho(1) = 1 - kappa/mu^2 = 0.9 of the zero mode, tau_int = mu^2/kappa - 1/2 = 9.5; variance 1/kappa."""
    assert found["passed"] is True
    assert found["certified"] is True
    kappa = lattice_kernel((4, 4), 0.2)
    first = found["modes"][0]
    assert (first["rho_exact"], first["tau_exact"]) == pytest.approx((0.9, 9.5))
    assert found["slowest"] == pytest.approx(9.5)
    for row in found["modes"]:
        assert np.abs(kappa - row["lambda"]).min() < 1e-9
        assert row["rho_exact"] == pytest.approx(1 - row["lambda"] / MU2)
        assert abs(row["rho"] - row["rho_exact"]) < 4.5 * row["rho_error"]
        assert abs(row["tau"] - row["tau_exact"]) < 4.5 * row["tau_error"]
        n_effective = found["n"] / (2 * row["tau_exact"])
        assert abs(row["variance"] - 1) < 4.5 * np.sqrt(2 / n_effective)
    assert found["largest_pull"] < found["threshold"] < 4.5


def test_the_ensemble_is_in_the_run_and_made_once(bench: MachineBench, found: dict[str, Any]) -> None:
    action = GaussianMachine(MACHINE.w.numpy(), MU2, MACHINE.s)
    made = read_ensemble(bench.folder / "checks" / "gibbs", action)
    assert len(made) == found["n"] == 16 * 570
    assert made.attrs["certificate"]["passed"]
    assert run(bench) == found


def other(scale: float) -> Any:
    """The action of a machine whose weights are scaled, in place of the run's own."""
    return lambda w, mu2, s: GaussianMachine(scale * w, mu2, s)


@pytest.mark.parametrize("scale", [0.95, 0.5])
def test_a_machine_that_is_not_the_one_sampled_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    """Its own ensemble is sound and certified; rho and tau are another machine's, and too small: a sampler
    that claims tau_int < mu^2/kappa - 1/2."""
    monkeypatch.setattr(gibbs, "GaussianMachine", other(scale))
    found = run(make_bench(tmp_path), n_chains=32)
    assert found["certified"] is True
    assert found["passed"] is False
    assert found["largest_pull"] > 8  # Student's t of 32 chains, as a normal law has it
    first = found["modes"][0]
    assert first["rho_pull"] < -10
    assert first["tau"] < first["tau_exact"]
    assert gibbs.text(found).endswith("NOT passed")


def test_a_kernel_by_another_machine_with_the_same_spectrum_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotated: modes of K are directions, not only numbers."""
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))
    monkeypatch.setattr(gibbs, "GaussianMachine", lambda w, mu2, s: GaussianMachine(turn @ w, mu2, s))
    assert run(make_bench(tmp_path), n_chains=32)["largest_pull"] > 10


def test_what_is_not_certified_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine: Any = vars(gibbs)["simulate"]

    def doubtful(*args: Any, **options: Any) -> Any:
        made = genuine(*args, **options)
        made.attrs["certificate"] = {**made.attrs["certificate"], "passed": False, "reason": "failed: drift"}
        return made

    monkeypatch.setattr(gibbs, "simulate", doubtful)
    found = run(make_bench(tmp_path))
    assert found["passed"] is False
    assert "NOT certified (failed: drift)" in gibbs.text(found)


def test_a_machine_without_coupling_has_nothing_to_sample(tmp_path: Path) -> None:
    dark = replace(MACHINE, w=torch.zeros_like(MACHINE.w))
    with pytest.raises(InputError, match="no mode is below mu.2"):
        run(make_bench(tmp_path, dark))


def test_other_options_make_the_ensemble_again(tmp_path: Path) -> None:
    """The options of the check are the user's, in the config of a finished run too: longer, more chains."""
    bench = make_bench(tmp_path)
    short = run(bench, n_sweeps=600)
    assert short["n"] == 16 * 600
    assert run(bench, n_sweeps=900)["n"] == 16 * 900
    assert run(bench, n_chains=32, n_sweeps=600)["n"] == 32 * 600


def test_words_and_figure(found: dict[str, Any]) -> None:
    told = gibbs.text(found)
    assert told.isascii()
    assert told.splitlines()[-1] == "passed"
    assert "9120 fields of 16 chains, one a sweep: certified" in told
    (axes,) = gibbs.figure(found).axes
    assert axes.get_xscale() == axes.get_yscale() == "log"

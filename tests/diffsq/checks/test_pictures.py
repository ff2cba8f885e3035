"""`check pictures`: the digits' known numbers; machines that are not the best of their size fail."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffsq.analysis.gaussian_machines import most_likely
from diffsq.checks import pictures
from diffsq.checks.perform import serves
from diffsq.config.config import config_from_dict
from diffsq.config.machines import PicturesRun
from diffsq.models.rbm import GaussianRBM
from diffsq.run_folder.finished import PicturesBench
from diffsq.training.machines import log_likelihood
from diffsq.training.pictures import digits
from lattice.progress import Silent

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def phi() -> np.ndarray:
    return digits()


def bench_of(phi: np.ndarray, mu2: float = 36.0, n_hidden: int = 64, machine: Any = None) -> PicturesBench:
    """The digits, and the machine of the largest likelihood or the one given."""
    config = config_from_dict({
        "name": "digits", "models": ["rbm"], "ensemble": {"data": "digits"},
        "machine": {"mu2": mu2, "n_hidden": n_hidden},
    })  # fmt: skip
    assert isinstance(config, PicturesRun)
    second = torch.from_numpy(phi.reshape(len(phi), -1))
    second = second.mT @ second / len(phi)
    bench = PicturesBench(Path(), config, machine or most_likely(second, mu2, n_hidden), {}, phi)
    bench.__dict__["history"] = [
        {"step": step, "spectrum": made.spectrum.tolist(), "log_likelihood": log_likelihood(made, second)}
        for step, made in ((0, most_likely(second, mu2, 2)), (10, bench.machine))
    ]
    return bench


def run(bench: PicturesBench, **options: Any) -> dict[str, Any]:
    found = pictures.run(bench, Silent(), **options)
    json.dumps(found, allow_nan=False)
    return found


@pytest.fixture(scope="module")
def found(phi: np.ndarray) -> dict[str, Any]:
    return run(bench_of(phi))


def test_the_numbers_of_the_digits(found: dict[str, Any]) -> None:
    """Of an independent computation: second moments, modes, likelihoods, masses, largest steps."""
    assert found["passed"] is True
    assert found["dead"] == [0, 32, 39]
    assert found["trace"] == pytest.approx(15.014199, abs=1e-6)
    assert found["largest"][:5] == pytest.approx([10.4553, 0.69883, 0.63858, 0.5525, 0.39373], rel=1e-4)
    assert (found["n_below"], found["n_kept"], found["n_learnt"]) == (26, 26, 26)
    table = {row["n_hidden"]: row for row in found["table"]}
    mu6 = {
        0: -214.395,
        1: -29.665,
        4: -1.8216,
        9: 12.8965,
        16: 17.6301,
        25: 18.3235,
        36: 18.3235,
        64: 18.3235,
    }
    mu12 = {0: -980.8004, 1: -232.1773, 4: -104.3577, 9: -25.2655, 16: 12.3665, 25: 28.3574, 36: 32.8706,
            49: 33.1193}  # fmt: skip
    for mu, known in (("6", mu6), ("12", mu12)):
        for n, value in known.items():
            assert table[n]["log_likelihood"][mu] == pytest.approx(value, abs=2e-3), (mu, n)
    best = {4: 22.48, 9: 38.93, 16: 67.26, 25: 123.89, 36: 284.15, 49: 3726}
    for n, value in best.items():
        assert table[n]["best_mass"] == pytest.approx(value, rel=2e-4), n
    assert table[64]["best_mass"] is None, "modes without variance alone: no largest likelihood"
    assert found["limits"]["exact"] == pytest.approx(2.55e-4, rel=2e-3)
    assert found["limits"]["cd"] == pytest.approx(0.048, rel=2e-2)
    assert found["limits"]["way"] <= found["limits"]["cd"]
    assert found["log_likelihood"] == pytest.approx(found["best_log_likelihood"], abs=1e-9)
    assert found["best_log_likelihood"] == pytest.approx(18.3235, abs=2e-3)


@pytest.mark.parametrize(("mu", "below"), [(2, 6), (3, 11), (4, 17), (12, 43), (20, 49), (50, 51)])
def test_modes_below_the_mass(phi: np.ndarray, mu: float, below: int) -> None:
    """ "UV divergent" modes, kappa beyond any mass, stay out."""
    result = run(bench_of(phi, mu2=float(mu**2)), nodes=[4], n_shown=2)
    assert (result["n_below"], result["n_kept"]) == (below, below)
    assert result["passed"] is True
    assert result["stiff"] >= 64 - 51 - 1


def test_an_untrained_machine_and_one_that_lacks_a_mode_fail(phi: np.ndarray) -> None:
    untrained = GaussianRBM.initial(
        64, 64, 36.0, 0.1, torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    )
    second = bench_of(phi).second
    for machine, most in ((untrained, 1), (most_likely(second, 36.0, 25), 25)):
        result = run(bench_of(phi, machine=replace(machine, w=_square(machine.w))))
        assert result["passed"] is False
        assert result["n_learnt"] <= most
        assert result["log_likelihood"] < result["best_log_likelihood"]
        assert pictures.text(result).endswith("NOT passed: train longer")


def _square(w: torch.Tensor) -> torch.Tensor:
    """With hidden nodes that do nothing, up to 64."""
    return torch.cat([w, torch.zeros(len(w), 64 - w.shape[1], dtype=w.dtype)], 1)


def test_a_mode_off_by_two_per_cent_fails(phi: np.ndarray) -> None:
    """Less learned and more: also a machine that overshoots is not the best."""
    best = bench_of(phi).machine
    values, basis = np.linalg.eigh(best.kernel.numpy())
    for factor in (0.98, 1.02):
        changed = values * np.where(np.arange(64) == 3, factor, 1.0)
        w = basis * np.sqrt(np.clip(36 - changed, 0, None))
        result = run(bench_of(phi, machine=GaussianRBM(torch.from_numpy(w), best.mu2)))
        assert result["n_learnt"] == 25
        assert result["passed"] is False


def test_fewer_nodes_rebuild_less(found: dict[str, Any]) -> None:
    errors = [row["error"] for row in found["regenerated"]]
    assert [row["n_hidden"] for row in found["regenerated"]] == [64, 25, 16, 9, 4]
    assert errors[1:] == sorted(errors[1:])
    for row in found["regenerated"]:
        assert np.array(row["rebuilt"]).shape == np.array(row["drawn"]).shape == (8, 8, 8)
        assert (np.array(row["drawn"]).mean((1, 2)) > 0).all()


def test_what_one_sweep_makes_of_a_picture(phi: np.ndarray, found: dict[str, Any]) -> None:
    """Its mean is W W^T phi/mu^2 = (1 - K/mu^2) phi: of one hidden node the projection on the first mode
    times 1 - kappa/mu^2."""
    result = run(bench_of(phi), nodes=[1], n_shown=3)
    shown = np.array(result["shown"]).reshape(3, 64)
    flat = phi.reshape(len(phi), 64)
    values, basis = np.linalg.eigh(flat.T @ flat / len(flat))
    known = (1 - 1 / values[-1] / 36) * np.outer(shown @ basis[:, -1], basis[:, -1])
    np.testing.assert_allclose(np.array(result["regenerated"][0]["rebuilt"]).reshape(3, 64), known, atol=2e-4)


def test_words_and_figure(phi: np.ndarray, found: dict[str, Any]) -> None:
    told = pictures.text(found)
    assert told.isascii()
    assert told.splitlines()[-1] == "passed"
    for word in (
        "pixels 0, 32, 39 never change",
        "26 of 64 modes are below mu^2 = 36",
        "step 10: 26 of 26 modes",
    ):
        assert word in told
    assert len(pictures.figure(found).axes) == 6 * 17
    assert serves("pictures", bench_of(phi))


def test_a_machine_of_no_steps_is_told_too(phi: np.ndarray) -> None:
    """training.n_steps 0: its history is step 0 alone."""
    bench = bench_of(phi)
    bench.__dict__["history"] = bench.history[:1]
    assert pictures.text(run(bench, nodes=[4], n_shown=2))

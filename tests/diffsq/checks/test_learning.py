"""`check learning`: paths, factors and limits are those of the closed forms, and wrong ones are seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffsq.checks import learning
from diffsq.checks.perform import serves
from diffsq.config.config import config_from_dict
from diffsq.config.machines import MachineRun
from diffsq.models.machine_files import load_machine
from diffsq.run_folder.finished import MachineBench
from diffsq.training.contrastive import Learning
from diffsq.training.machines import train_machine
from lattice.errors import InputError
from lattice.exact import gaussian_rbm
from lattice.progress import Silent

FAST: dict[str, Any] = {"n_steps": 600, "n_fields": 2**15}


def make_bench(folder: Path, mu2: float = 3.0, n_steps: int = 200) -> MachineBench:
    """The published chain of 10 sites, m = 2, in our convention: kappa 4/3 ... 8/3, mu^2 = 3.

    No ensemble: the second moments are exact.
    """
    config = config_from_dict({
        "name": "learning", "seed": 2, "action": {"kind": "free", "kappa": 1 / 6}, "lattice": {"shape": [10]},
        "models": ["rbm"], "machine": {"mu2": mu2, "width": 0.1},
        "training": {"second": "exact", "n_steps": n_steps, "rate": 0.1},
    })  # fmt: skip
    assert isinstance(config, MachineRun)
    train_machine(config, np.zeros((4, 10)), "none", folder / "train" / "rbm")
    machine, about = load_machine(folder / "train" / "rbm")
    nothing: Any = None
    bench = MachineBench(folder, config, config.action, machine, about, nothing, nothing)
    bench.__dict__["trained_on"] = np.zeros((4, 10))
    return bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> MachineBench:
    return make_bench(tmp_path_factory.mktemp("learning"))


@pytest.fixture(scope="module")
def found(bench: MachineBench) -> dict[str, Any]:
    result = learning.run(bench, Silent(), **FAST)
    json.dumps(result, allow_nan=False)
    return result


def test_the_closed_forms_hold(found: dict[str, Any]) -> None:
    """A third of the published kappa, so three times the rates: growth, relaxation, factors, largest step."""
    assert found["passed"] is True
    np.testing.assert_allclose(3 * np.array(found["kappa"])[[0, -1]], [4, 8])
    assert len(found["kappa"]) == 6, "of degenerate modes one"
    kappa = 3 * np.array(found["kappa"])
    np.testing.assert_allclose(np.array(found["rates"]["growth"]) / 3, 2 * (1 / kappa - 1 / 9))
    np.testing.assert_allclose(np.array(found["rates"]["relaxation"]) / 3, 2 * (9 - kappa) / kappa**2)
    by_name = {row["method"]: row for row in found["limits"]}
    assert by_name["exact"]["rate"] == pytest.approx(3.2 / 3)
    assert by_name["cd"]["rate"] == pytest.approx(3.2 / 3 / 0.691358, rel=1e-5)
    assert by_name["natural"]["rate"] == pytest.approx(3 / 5)
    assert all(row["below"] and not row["above"] for row in found["limits"])
    assert [rows["k"] for rows in found["factors"]] == [1, 3]
    for rows in found["factors"]:
        for row in rows["modes"]:
            known = 1 - ((9 - 3 * row["kappa"]) / 18) ** (2 * rows["k"])  # at y*/2
            assert row["formula"] == pytest.approx(known)
            assert row["expected"] == pytest.approx(known), "of the expectation, no sampling"
            assert abs(row["sampled"] - known) < 4.5 * row["error"]


def test_two_rates_differ_by_order_alpha_and_their_limit_by_much_less(found: dict[str, Any]) -> None:
    coarse, fine = found["differences"]
    assert coarse / fine == pytest.approx(2, rel=0.2)
    assert found["limit"] < 0.2 * fine
    assert found["left"] < learning.ORDER
    y, exact = np.array(found["y"]), np.array(found["exact"])
    assert y.shape == exact.shape == (33, 6)
    assert (np.diff(exact, axis=0) >= 0).all()


def slower(t: Any, y0: float, kappa: float, mu2: float, s: float = 1.0) -> Any:
    """The slides' relaxation lacks a factor: here time runs 2 % too slowly."""
    return gaussian_rbm.trajectory(0.98 * np.asarray(t), y0, kappa, mu2, s)


def test_a_wrong_trajectory_is_seen(bench: MachineBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "trajectory", slower)
    result = learning.run(bench, Silent(), **FAST)
    assert result["passed"] is False
    assert result["left"] > learning.ORDER
    assert learning.text(result).endswith("NOT passed")


def test_a_wrong_factor_is_seen(bench: MachineBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """CD-k with the power k instead of 2 k."""
    monkeypatch.setattr(learning, "cd_factor", lambda y, mu2, k: 1 - (np.asarray(y) / mu2) ** k)
    result = learning.run(bench, Silent(), n_steps=600, n_fields=2**17, k=[1])
    assert result["passed"] is False
    assert max(row["sigmas"] for row in result["factors"][0]["modes"]) > 10


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_wrong_limit_is_seen(
    bench: MachineBench, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    """Ten per cent too small: it stays above it. Too large: it leaves below it."""

    def wrong(*args: Any, **options: Any) -> tuple[float, int]:
        most, mode = gaussian_rbm.largest_step(*args, **options)
        return factor * most, mode

    monkeypatch.setattr(learning, "largest_step", wrong)
    result = learning.run(bench, Silent(), **FAST)
    assert result["passed"] is False
    row = result["limits"][0]
    assert (row["below"], row["above"]) == ((True, True) if factor < 1 else (False, False))
    assert ("STAYS above it" if factor < 1 else "LEAVES below it") in learning.text(result)
    assert result["step_rate"] == pytest.approx(factor * found["step_rate"])


def test_the_published_rates(bench: MachineBench) -> None:
    """lr 3.0 converges at kappa = 4, lr 3.4 does not: of K a third of theirs, 1.0 and 1.133."""
    kappa = np.array([4 / 3])
    assert learning._stays(kappa, 3.0, Learning(1.0))
    assert not learning._stays(kappa, 3.0, Learning(3.4 / 3))


def test_modes_that_the_mass_cuts_are_left_out(tmp_path: Path, bench: MachineBench) -> None:
    cut = make_bench(tmp_path, mu2=2.0, n_steps=5)
    result = learning.run(cut, Silent(), **FAST)
    assert max(result["kappa"]) < 2
    assert result["passed"] is True
    dark = replace(bench, machine=replace(bench.machine, mu2=bench.machine.mu2.new_tensor(1.0)))
    dark.__dict__["trained_on"] = np.zeros((4, 10))
    with pytest.raises(InputError, match="mu.2 = 1 cuts every mode: there is nothing to learn"):
        learning.run(dark, Silent(), **FAST)


def test_words_and_figure(bench: MachineBench, found: dict[str, Any]) -> None:
    told = learning.text(found)
    assert told.isascii()
    assert told.splitlines()[-1] == "passed"
    for word in ("CD-1 factor at y*/2", "CD-3", "natural gradient", "stays below it, leaves above it"):
        assert word in told
    assert len(learning.figure(found).axes) == 2
    assert [line["step"] for line in found["history"]][0] == 0
    assert found["history"][-1]["step"] == 200
    assert serves("learning", bench)


def test_a_machine_of_no_steps_is_drawn_too(tmp_path: Path) -> None:
    """training.n_steps 0, the untrained machine: its history is step 0 alone."""
    result = learning.run(make_bench(tmp_path, n_steps=0), Silent(), **FAST)
    assert len(learning.figure(result).axes) == 2

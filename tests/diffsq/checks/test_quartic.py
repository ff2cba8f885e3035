"""`check quartic`: score matching recovers the couplings of phi^4, and no others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import equilibrium

from diffsq.checks import quartic
from diffsq.checks.perform import serves
from diffsq.config.config import config_from_dict
from diffsq.config.machines import MachineRun
from diffsq.run_folder.finished import MachineBench
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.actions.protocol import Action
from lattice.ensembles.ensemble import Ensemble
from lattice.observables.scalar import momentum_classes
from lattice.progress import Silent

SHAPE, N = (8, 8), 8192
ACTION = ScalarPhi4(0.27, 0.022)


def make_bench(action: Action, fields: ScalarPhi4, shape: tuple[int, ...] = SHAPE) -> MachineBench:
    """Fields of `fields`, said to be of `action`."""
    config = config_from_dict({
        "name": "quartic", "action": {"kind": "phi4", "kappa": 0.27, "lam": 0.022},
        "lattice": {"shape": shape}, "models": ["rbm"],
    })  # fmt: skip
    assert isinstance(config, MachineRun)
    phi = equilibrium(fields, shape, N).numpy()
    nothing: Any = None
    ensemble = Ensemble.from_fields(phi, fields, chain=np.arange(N) % 64)
    return MachineBench(Path(), config, action, nothing, {}, ensemble, nothing)


@pytest.fixture(scope="module")
def bench() -> MachineBench:
    return make_bench(ACTION, ACTION)


def run(bench: MachineBench, **options: Any) -> dict[str, Any]:
    found = quartic.run(bench, Silent(), **options)
    json.dumps(found, allow_nan=False)
    return found


def test_the_couplings_of_phi4_are_recovered(bench: MachineBench) -> None:
    """lam, kappa and 1 - 2 lam within 4.5 sigma, every K(k) too, which 1/G(k) is not by 10 sigma."""
    found = run(bench)
    assert found["passed"] is True
    for name, known in (("lam", 0.022), ("kappa", 0.27), ("mass", 1 - 2 * 0.022)):
        value, error = found[name]
        assert abs(value - known) < 4.5 * error
        assert error < 0.05 * known
        assert found["pulls"][name] == pytest.approx((value - known) / error)
    classes = momentum_classes(SHAPE)
    kernel, error = np.array(found["kernel"]), np.array(found["kernel_error"])
    true = [2 * 0.956 - 4 * 0.27 * sum(np.cos(2 * np.pi * n / 8) for n in m[0]) for m in classes]
    np.testing.assert_allclose(found["true"], true)
    assert (np.abs(kernel - true) < 4.5 * error).all()
    assert min(found["true"]) < 0 < min(found["gaussian"]), "no Gaussian machine has this K"
    zero = found["khat2"].index(0.0)
    assert (found["gaussian"][zero] - kernel[zero]) > 10 * error[zero]


def test_another_action_is_not_confirmed() -> None:
    """Negative control: the same fields said to be of another lam, of another kappa."""
    for wrong in (ScalarPhi4(0.27, 0.03), ScalarPhi4(0.25, 0.022), FreeScalar(0.24)):
        found = run(make_bench(wrong, ACTION))
        assert found["passed"] is False
        assert max(map(abs, found["pulls"].values())) > 8
        assert "NOT passed" in quartic.text(found)


def test_fields_of_a_gaussian_law_have_no_quartic_term() -> None:
    """Drawn with the propagator of phi^4: lam is zero within its error, and phi^4 is refuted by 10 sigma."""
    phi = equilibrium(ACTION, SHAPE, N).numpy()
    power = (np.abs(np.fft.fft2(phi)) ** 2).mean(0)
    power = (power + power.T) / 2
    white = np.fft.fft2(np.random.default_rng(4).normal(size=phi.shape))
    bench = make_bench(ACTION, ACTION)
    made = np.fft.ifft2(np.sqrt(power / 64) * white).real
    fake = Ensemble.from_fields(made, ACTION, chain=np.arange(N) % 64)
    found = run(replace(bench, ensemble=fake))
    assert found["passed"] is False
    value, error = found["lam"]
    assert abs(value) < 4.5 * error
    assert found["pulls"]["lam"] < -10


def test_the_free_field_has_lam_zero() -> None:
    free = FreeScalar(0.2)
    found = run(make_bench(free, free, (4, 4)))
    assert found["passed"] is True
    value, error = found["lam"]
    assert abs(value) < 4.5 * error
    assert found["action"] == {"lam": 0.0, "kappa": 0.2, "mass": 1.0}


def test_the_errors_are_those_of_repetitions() -> None:
    """lam of eight independent parts scatters as the jackknife of each says, within a factor."""
    bench = make_bench(ACTION, ACTION)
    parts = []
    for part in range(8):
        chains = np.isin(bench.ensemble.chain, np.arange(8 * part, 8 * part + 8))
        parts.append(run(replace(bench, ensemble=bench.ensemble.select(np.flatnonzero(chains))))["lam"])
    values, errors = np.array(parts).T
    assert 0.3 < values.std(ddof=1) / errors.mean() < 2.2
    whole = run(bench)["lam"]
    assert abs(values.mean() - whole[0]) < 4.5 * whole[1]
    assert errors.mean() / whole[1] == pytest.approx(np.sqrt(8), rel=0.4)


def test_words_figure_and_kind(bench: MachineBench) -> None:
    found = run(bench, n_blocks=16)
    assert found["n_blocks"] == 16
    told = quartic.text(found)
    assert told.isascii()
    assert "K is not positive: without phi^4 no law" in told
    assert told.endswith("8192 fields, errors over 16 blocks of chains; passed")
    (axes,) = quartic.figure(found).axes
    labels = axes.get_legend_handles_labels()[1]
    assert any("the action's own" in label for label in labels)
    assert serves("quartic", bench)


def test_an_action_that_is_not_phi4_has_no_verdict(bench: MachineBench) -> None:
    unknown: Any = type("Unknown", (), {"phi4": None})()
    found = run(replace(bench, action=unknown))
    assert found["passed"] is None
    assert found["true"] is None
    assert quartic.text(found).endswith("no verdict: the action is not phi^4")
    assert quartic.figure(found).axes

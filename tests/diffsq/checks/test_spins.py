"""`check spins`: spins drawn given a field have its law, weights mend those of another temperature."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from figures import drawn
from scipy.special import logsumexp

from diffsq.checks import spins
from diffsq.checks.perform import serves
from diffsq.config.config import LatticeRun, config_from_dict
from diffsq.run_folder.finished import Workbench
from lattice.actions.ising_field import IsingField
from lattice.actions.phi4 import ScalarPhi4
from lattice.actions.protocol import Action
from lattice.arrays import Floats
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.spins import known
from lattice.progress import Silent

T, N, BATCH = 2.5, 2048, 64
ACTION = IsingField(T)


@cache
def states(side: int) -> Floats:
    """All spins (2^V, side, side)."""
    numbers = np.arange(2 ** (side * side))[:, None] >> np.arange(side * side)
    return (2.0 * (numbers & 1) - 1).reshape(-1, side, side)


def log_p(t: float, side: int) -> Floats:
    """ln p (2^V,) of all states at a temperature."""
    s = -ACTION.spins.action(torch.from_numpy(states(side))).numpy() * T / t
    return np.asarray(s - logsumexp(s))


def fields(t: float, seed: int, side: int = 4) -> Floats:
    """phi (N, side, side) of spins at the temperature t with the noise of ACTION."""
    rng, all_states = np.random.default_rng(seed), states(side)
    own = all_states[rng.choice(len(all_states), N, p=np.exp(log_p(t, side)))]
    root = 1 / np.sqrt(ACTION.eigenvalues((side, side)))
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=own.shape)) * root).real
    return np.asarray(own + noise)


def log_q(phi: Floats, t: float) -> Floats:
    """ln q (N,) of such fields: a sum over all states."""
    side = phi.shape[-1]
    all_states = states(side)
    pull = ACTION.kernel(torch.from_numpy(all_states)).numpy()  # K s
    of_states = log_p(t, side) - (all_states * pull).sum((1, 2)) / 2
    own = (phi * ACTION.kernel(torch.from_numpy(phi)).numpy()).sum((1, 2)) / 2
    across = pull.reshape(len(all_states), -1).T
    sums = [logsumexp(part.reshape(len(part), -1) @ across + of_states, axis=1)
            for part in np.split(phi, N // BATCH)]  # fmt: skip
    log_det = float(np.log(ACTION.eigenvalues((side, side))).sum())
    return np.concatenate(sums) - own + log_det / 2 - side**2 / 2 * math.log(2 * math.pi)


def bench_of(
    t: float, action: Action = ACTION, seed: int = 1, side: int = 4, weights: bool = True
) -> Workbench:
    config = config_from_dict({
        "name": "spins", "action": {"kind": "ising_field", "temperature": T}, "lattice": {"shape": [4, 4]},
        "ensemble": {"cluster": "none"}, "model": {"channels": 0, "n_levels": 1}, "models": ["closed"],
    })  # fmt: skip
    assert isinstance(config, LatticeRun)
    phi, chain = fields(t, seed, side), np.arange(N) % 64
    log_w = -ACTION.action(torch.from_numpy(phi)).numpy() - log_q(phi, t) if weights else np.zeros(N)
    nothing: Any = None
    return Workbench(
        folder=Path(), config=config, action=action, model=nothing, path=nothing, flow=None,
        ensemble=Ensemble.from_fields(fields(T, seed + 100, side), action, chain), device=torch.device("cpu"),
        samples=Ensemble.from_fields(phi, action, chain, log_weight=log_w),
    )  # fmt: skip


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Samples of T = 3.2, weighted to 2.5."""
    result = spins.run(bench_of(3.2), Silent())
    json.dumps(result, allow_nan=False)
    return result


def test_spins_of_the_data_are_those_of_the_model(found: dict[str, Any]) -> None:
    for name in spins.NAMES:
        assert abs(found["sets"]["training"][name]["pull"]) < 4.5, name
    for label in ("T_E", "T_m"):
        t, error = found["sets"]["training"][label]
        assert abs(t - T) < 4.5 * error


def test_weights_mend_another_temperature(found: dict[str, Any]) -> None:
    """Raw spins are 10 sigma off, on the side of T = 3.2 by both thermometers, weighted ones are exact."""
    assert found["passed"] is True
    assert found["ess"] > 0.2
    raw, weighted = found["sets"]["raw"], found["sets"]["weighted"]
    assert abs(raw["energy"]["pull"]) > 10
    assert abs(raw["abs_magnetization"]["pull"]) > 10
    for label in ("T_E", "T_m"):
        t, error = raw[label]
        assert T + 10 * error < t < 3.2 + 4.5 * error
    for name in ("energy", "abs_magnetization", "c1"):
        assert abs(weighted[name]["pull"]) < 4.5
        assert weighted[name]["error"] < 0.05


def test_ln_z_is_kaufmans(found: dict[str, Any]) -> None:
    z = found["ln_z"]
    assert z["exact"] == pytest.approx(known(ACTION.spins, (4, 4))["ln_z"], abs=1e-12)
    assert abs(z["pull"]) < 4.5
    assert 0 < z["error"] < 0.05


def test_samples_without_their_weights_fail() -> None:
    assert spins.run(bench_of(3.2, weights=False), Silent())["passed"] is False


def test_few_effective_samples_do_not_pass() -> None:
    """Spins all but free, weighted to T = 2.5: near all exact values within errors that say little."""
    found = spins.run(bench_of(50.0), Silent())
    pulls = [found["sets"]["weighted"][name]["pull"] for name in spins.NAMES[:3]] + [found["ln_z"]["pull"]]
    assert all(abs(x) < 3 for x in pulls)
    assert found["ess"] < 0.1
    assert found["passed"] is False
    assert spins.text(found).endswith(f"ESS/N {found['ess']:.3g}: NOT passed")


def test_what_has_no_error_does_not_pass() -> None:
    """c1 of 3 x 3 is 0 for all spins, far ones being neighbours."""
    found = spins.run(bench_of(3.2, side=3), Silent())
    assert found["sets"]["weighted"]["c1"]["pull"] is None
    assert found["ess"] > 0.2
    assert found["passed"] is False


def test_text_and_figure(found: dict[str, Any]) -> None:
    words = spins.text(found)
    assert "T_m" in words
    assert "ln Z of the Ising model" in words
    assert f"ESS/N {found['ess']:.3g}: passed" in words
    drawn(spins.figure, found, 1)


@pytest.mark.parametrize(
    ("action", "words"),
    [(ScalarPhi4(0.2, 0.1), "ising_field"), (IsingField(2.0, h=0.3), "h = 0")],
)
def test_refused(action: Action, words: str) -> None:
    bench = bench_of(T, weights=False)
    bench.action = action
    with pytest.raises(InputError, match=words):
        spins.run(bench, Silent())


def test_serves_a_run_on_a_lattice() -> None:
    assert serves("spins", bench_of(T, weights=False))

"""`check spins`: spins drawn given a field have its law, weights mend those of another temperature."""

from __future__ import annotations

import itertools
import json
import math
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

SHAPE, T, N = (3, 3), 2.5, 12_800
ACTION = IsingField(T)
STATES = np.array(list(itertools.product((-1.0, 1.0), repeat=9))).reshape(-1, *SHAPE)


def log_p(t: float) -> Floats:
    """ln p (512,) of all states at a temperature."""
    s = -ACTION.spins.action(torch.from_numpy(STATES)).numpy() * T / t
    return np.asarray(s - logsumexp(s))


def fields(t: float, seed: int) -> tuple[Floats, Floats]:
    """phi (N, 3, 3) of spins at the temperature t with the noise of ACTION, and ln q of each."""
    rng = np.random.default_rng(seed)
    own = STATES[rng.choice(len(STATES), N, p=np.exp(log_p(t)))]
    root = 1 / np.sqrt(ACTION.eigenvalues(SHAPE))
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=own.shape)) * root).real
    phi = own + noise
    log_det = float(np.log(ACTION.eigenvalues(SHAPE)).sum())
    pull = ACTION.kernel(torch.from_numpy(STATES)).numpy()  # K s
    own = (phi * ACTION.kernel(torch.from_numpy(phi)).numpy()).sum((1, 2))
    cross = phi.reshape(N, -1) @ pull.reshape(len(STATES), -1).T
    quadratic = own[:, None] - 2 * cross + (STATES * pull).sum((1, 2))[None]
    log_q = logsumexp(log_p(t)[None] - quadratic / 2, axis=1)
    return phi, log_q + log_det / 2 - 9 / 2 * math.log(2 * math.pi)


def bench_of(t: float, action: Action = ACTION, seed: int = 1) -> Workbench:
    config = config_from_dict({
        "name": "spins", "action": {"kind": "ising_field", "temperature": T}, "lattice": {"shape": [4, 4]},
        "ensemble": {"cluster": "none"}, "model": {"channels": 0, "n_levels": 1}, "models": ["closed"],
    })  # fmt: skip
    assert isinstance(config, LatticeRun)
    data, _ = fields(T, seed + 100)
    phi, log_q = fields(t, seed)
    log_w = -ACTION.action(torch.from_numpy(phi)).numpy() - log_q
    chain = np.arange(N) % 64
    nothing: Any = None
    return Workbench(
        folder=Path(), config=config, action=action, model=nothing, path=nothing, flow=None,
        ensemble=Ensemble.from_fields(data, action, chain), device=torch.device("cpu"),
        samples=Ensemble.from_fields(phi, action, chain, log_weight=log_w),
    )  # fmt: skip


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Samples of T = 3.2, weighted to 2.5."""
    result = spins.run(bench_of(3.2), Silent())
    json.dumps(result, allow_nan=False)
    return result


def test_spins_of_the_data_are_those_of_the_model(found: dict[str, Any]) -> None:
    for name in ("energy", "abs_magnetization", "specific_heat", "binder"):  # c1 of 3 x 3 is 0
        assert abs(found["sets"]["training"][name]["pull"]) < 4.5, name
    for label in ("T_E", "T_m"):
        t, error = found["sets"]["training"][label]
        assert abs(t - T) < 4.5 * error


def test_weights_mend_another_temperature(found: dict[str, Any]) -> None:
    """Raw spins are 10 sigma off, on the side of T = 3.2 by both thermometers, weighted ones are exact."""
    assert found["passed"] is True
    raw, weighted = found["sets"]["raw"], found["sets"]["weighted"]
    assert abs(raw["energy"]["pull"]) > 10
    assert abs(raw["abs_magnetization"]["pull"]) > 10
    for label in ("T_E", "T_m"):
        t, error = raw[label]
        assert T + 10 * error < t < 3.2 + 4.5 * error
    for name in ("energy", "abs_magnetization"):
        assert abs(weighted[name]["pull"]) < 4.5
        assert weighted[name]["error"] < 0.05


def test_ln_z_is_kaufmans(found: dict[str, Any]) -> None:
    z = found["ln_z"]
    assert z["exact"] == pytest.approx(known(ACTION.spins, SHAPE)["ln_z"], abs=1e-12)
    assert abs(z["pull"]) < 4.5
    assert 0 < z["error"] < 0.05


def test_samples_without_their_weights_fail() -> None:
    bench = bench_of(3.2)
    bench.samples.log_weight = np.zeros(N)
    assert spins.run(bench, Silent())["passed"] is False


def test_text_and_figure(found: dict[str, Any]) -> None:
    words = spins.text(found)
    assert "T_m" in words
    assert "ln Z of the Ising model" in words
    assert words.endswith("passed")
    drawn(spins.figure, found, 1)


@pytest.mark.parametrize(
    ("action", "words"),
    [(ScalarPhi4(0.2, 0.1), "ising_field"), (IsingField(2.0, h=0.3), "h = 0")],
)
def test_refused(action: Action, words: str) -> None:
    bench = bench_of(T)
    bench.action = action
    with pytest.raises(InputError, match=words):
        spins.run(bench, Silent())


def test_serves_a_run_on_a_lattice() -> None:
    assert serves("spins", bench_of(T))

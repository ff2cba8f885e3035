"""Gains on held-out fields: which fields, and errors that know of chains and of levels with common fields."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_models import free_model

from diffsq.training import validation
from diffsq.training.validation import N_LEVELS, PER_LEVEL, HeldOut, validation_table
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble

CHAINS, TIMES, RHO = 16, 64, 5 / 7  # tau_int = 3
CPU = torch.device("cpu")


def correlated(generator: np.random.Generator) -> Ensemble:
    """Fields that are one number each, an AR(1) series along every chain, stored time by time."""
    x = np.empty((TIMES, CHAINS))
    x[0] = generator.standard_normal(CHAINS)
    for t in range(1, TIMES):
        x[t] = RHO * x[t - 1] + math.sqrt(1 - RHO**2) * generator.standard_normal(CHAINS)
    phi = np.broadcast_to(x.reshape(-1, 1, 1), (TIMES * CHAINS, 2, 2)).copy()
    chain = np.tile(np.arange(CHAINS), TIMES)
    return Ensemble.from_fields(phi, ScalarPhi4(0.2, 0.02), chain=chain)


def test_every_level_has_fields_of_all_chains() -> None:
    ensemble = correlated(np.random.default_rng(1))
    rows = np.arange(len(ensemble))
    held_out = HeldOut.of(ensemble, rows, 1, CPU)
    for draw in range(6):
        fields, block = held_out.take(PER_LEVEL, draw)
        assert len(fields) == PER_LEVEL
        assert set(np.bincount(block, minlength=CHAINS)) == {PER_LEVEL // CHAINS}
    first, second = (set(held_out.take(PER_LEVEL, draw)[0][:, 0, 0].tolist()) for draw in (0, 1))
    assert not first & second
    assert len(held_out.take(10**6)[0]) == len(ensemble)


def test_errors_know_of_chains_and_common_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gain of a field taken to be its value: quoted and true error of the total agree."""

    def as_they_are(model: object, fields: torch.Tensor, *rest: object) -> list[torch.Tensor]:
        return [fields]

    def value(model: object, fields: torch.Tensor, index: object, n_shells: int) -> torch.Tensor:
        return fields[:, 0, 0].expand(2, n_shells, -1).transpose(1, 2)

    monkeypatch.setattr(validation, "_batches", as_they_are)
    monkeypatch.setattr(validation, "_rates", value)
    model = free_model((2, 2), 0.2)
    generator, totals, quoted = np.random.default_rng(2), [], []
    for _ in range(300):
        ensemble = correlated(generator)
        held_out = HeldOut.of(ensemble, np.arange(len(ensemble)), 1, CPU)
        table = validation_table(model, held_out, torch.zeros_like, 1)
        totals.append(table["total"]["base"])
        quoted.append(table["total"]["base_error"])
    true, size = np.std(totals), 1 / math.sqrt(2 * len(totals))
    assert abs(np.mean(quoted) / true - 1) < 4.5 * size
    independent = model.log_range * len(table["shells"]) / math.sqrt(N_LEVELS * PER_LEVEL)
    assert independent / true < 1 - 10 * size, "the control: fields and levels taken as independent"

"""Benches of fields: what is held out, noise by name and index, and a run of networks without a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import COS, made

from lattice.errors import InputError


def test_a_bench_of_networks(tmp_path: Path) -> None:
    bench = made(tmp_path / "run", COS, [4, 4])
    rows = bench.held_out_rows()
    assert set(bench.ensemble.chain[rows]) == set(range(56, 64))  # an eighth of the groups
    phi, chain = bench.held_out_fields(100)
    assert phi.shape == (100, 4, 4)
    assert chain.min() >= 56
    assert len(bench.held_out()) == len(rows)
    noise = bench.noise("check/test", np.array([3, 5]))(0)
    assert torch.equal(noise[1:], bench.noise("check/test", np.array([5]))(0))
    assert not torch.equal(noise, bench.noise("check/other", np.array([3, 5]))(0))
    assert bench.frames()(0) is not None
    with pytest.raises(InputError, match="the check x needs a model"):
        bench.learned("x")

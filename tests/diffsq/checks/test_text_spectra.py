"""`check text-spectra`: outliers in a text alone pass; shuffled text and Poisson levels do not."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffsq.checks import text_spectra
from diffsq.checks.perform import serves
from diffsq.config.config import config_from_dict
from diffsq.config.dynamics import DynamicsRun
from diffsq.models.spectra import null_of, pooled_ratio, spectrum
from diffsq.models.transformer import KINDS
from diffsq.run_folder.finished import DynamicsBench
from diffsq.training.dynamics import read_rows, train_rows
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.progress import Silent
from lattice.rng import normals

ENTROPY, WIDTH = 3.25, 32
LOSS = {"text": {0: 4.5, 100: 2.4, 300: 2.0}, "shuffled": {0: 4.6, 100: ENTROPY + 0.01}}


@lru_cache(maxsize=4096)
def matrix(kind: str, seed: int, step: int, spikes: int) -> Floats:
    """White, with so many directions that stand out."""
    m = 4 * WIDTH if kind in ("fc", "out") else WIDTH
    w = normals(seed, f"test/{kind}", np.arange(1), step, WIDTH * m).reshape(WIDTH, m)
    left, _ = np.linalg.qr(
        normals(seed, f"test/left/{kind}", np.arange(1), step, WIDTH**2).reshape(WIDTH, WIDTH)
    )
    right, _ = np.linalg.qr(
        normals(seed, f"test/right/{kind}", np.arange(1), step, m * WIDTH).reshape(m, WIDTH)
    )
    sizes = np.zeros(WIDTH)
    sizes[:spikes] = np.sqrt(m) * (2.5 + 0.4 * np.arange(spikes))
    found: Floats = w + (left * sizes) @ right.T
    return found


def poisson(kind: str, seed: int, step: int) -> Floats:
    """Levels of the same density that do not know of each other: each from a matrix of its own."""
    m = 4 * WIDTH if kind in ("fc", "out") else WIDTH
    rng = np.random.default_rng([seed, step, KINDS.index(kind)])
    values = np.linalg.svd(rng.normal(size=(WIDTH, WIDTH, m)), compute_uv=False)
    chosen = values[np.arange(WIDTH), rng.integers(0, WIDTH, WIDTH)]
    return np.diag(chosen) @ np.eye(WIDTH, m)


def record(seed: int, step: int, loss: float, spikes: int, make: Any = None) -> dict[str, Any]:
    """As `diffsq.training.text.record`, of two layers."""
    found = {
        f"{layer}.{kind}": spectrum(
            make(kind, 10 * seed + layer, step) if make else matrix(kind, 10 * seed + layer, step, spikes)
        )
        for layer in (0, 1) for kind in KINDS
    }  # fmt: skip
    kinds = {}
    for kind in KINDS:
        each = [s for name, s in found.items() if name.endswith(f".{kind}")]
        kinds[kind] = {
            "ks": np.mean([s.ks for s in each]), "outliers": np.mean([s.outliers for s in each]),
            "largest_over_edge": np.mean([s.over_edge for s in each]),
            "stable_rank": np.mean([s.stable_rank for s in each]),
        }  # fmt: skip
    ratio, error, null = pooled_ratio(list(found.values()))
    return {"step": step, "val_loss": loss + 0.001 * seed, "kinds": kinds, "ratio": ratio, "ratio_null": null,
            "ratio_error": error, "x": {name: s.x.tolist() for name, s in found.items()}}  # fmt: skip


def row(kind: str, seed: int, spikes: dict[int, int], make: Any = None) -> dict[str, Any]:
    records = [record(seed, step, LOSS[kind][step], n, make if step else None) for step, n in spikes.items()]
    return {
        "seed": seed, "shuffled": kind == "shuffled", "settings": {"width": WIDTH, "n_layers": 2},
        "text_sha256": "f" * 64,
        "n_parameters": 1000, "unigram_entropy": ENTROPY, "python": "3.11",
        "at": [{key: value for key, value in one.items() if key != "x"} for one in records],
        "eigenvalues": {str(one["step"]): one["x"] for one in (records[0], records[-1])},
    }  # fmt: skip


TEXT, CONTROL = {0: 0, 100: 5, 300: 7}, {0: 0, 100: 1}


def bench_of(rows: dict[str, dict[str, Any]], **training: Any) -> DynamicsBench:
    config = config_from_dict({"name": "text", "models": ["transformer"], "training": training})
    assert isinstance(config, DynamicsRun)
    return DynamicsBench(Path(), config, rows)


def rows_of(
    text: dict[int, int] = TEXT, control: dict[int, int] = CONTROL, n_seeds: int = 4, make: Any = None
) -> dict[str, dict[str, Any]]:
    """Of four seeds; the same start for a text and its control, as in a run."""
    groups = {"text": text, "shuffled": control}
    return {
        f"{kind}-{k}": row(kind, k, spikes, make if kind == "text" else None)
        for kind, spikes in groups.items() for k in range(n_seeds)
    }  # fmt: skip


def run(bench: DynamicsBench) -> dict[str, Any]:
    found = text_spectra.run(bench, Silent())
    json.dumps(found, allow_nan=False)
    return found


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return run(bench_of(rows_of()))


def test_structure_in_a_text_alone_passes(found: dict[str, Any]) -> None:
    assert found["reasons"] == []
    assert found["passed"] is True
    assert found["n_seeds"] == 4
    assert [at["step"] for at in found["text"]] == [0, 100, 300]
    null = null_of((WIDTH, 4 * WIDTH))
    assert found["null"]["fc"] == found["null"]["out"] == [null.ks, null.ks_95]
    assert found["null"]["q"] == [null_of((WIDTH, WIDTH)).ks, null_of((WIDTH, WIDTH)).ks_95]
    at, control = found["text"][1]["kinds"], found["shuffled"][1]["kinds"]
    for kind in KINDS:
        assert at[kind]["outliers"][0] == pytest.approx(5, abs=1)
        assert control[kind]["outliers"][0] == pytest.approx(1, abs=0.5)


def test_shuffled_text_said_to_be_a_text_fails() -> None:
    """The control on both sides: whatever it has, structure it is not."""
    result = run(bench_of(rows_of(text={0: 0, 100: 1})))
    assert result["passed"] is False
    (reason,) = result["reasons"]
    assert reason.startswith("not more outliers than of shuffled text")
    assert "NOT passed: not more outliers" in text_spectra.text(result)


def test_text_said_to_be_shuffled_fails() -> None:
    """A control that learns what only a text has: its loss is below the entropy of its characters."""
    rows = rows_of()
    for k in range(4):
        rows[f"shuffled-{k}"] = row("text", k, {0: 0, 100: 5})
    result = run(bench_of(rows))
    assert result["passed"] is False
    assert "the loss of shuffled text is below its entropy" in result["reasons"]
    assert any("not more outliers" in reason for reason in result["reasons"])


def test_weights_that_are_not_random_at_the_start_fail() -> None:
    result = run(bench_of(rows_of(text={0: 12, 100: 12}, control={0: 0, 100: 1})))
    assert all(f"{kind} is not a random matrix at the start" in result["reasons"] for kind in KINDS)


def test_poisson_levels_fail() -> None:
    result = run(bench_of(rows_of(make=poisson)))
    assert result["passed"] is False
    for step in (100, 300):
        assert f"levels of the text at step {step} do not repel as in the GOE" in result["reasons"]
    ratio, error = result["text"][-1]["ratio"]
    assert abs(ratio - 0.3863) < 4.5 * error
    assert not any("shuffled at" in reason for reason in result["reasons"])


def test_a_run_that_shows_nothing_does_not_pass() -> None:
    """No step but the first that text and control have both: nothing was compared."""
    result = run(bench_of(rows_of(text={0: 0, 300: 7}, control={0: 0})))
    assert result["passed"] is not True


def test_one_seed_has_no_error_and_is_no_evidence() -> None:
    """n_seeds 1 is allowed: words and figure, but no 5 sigma from a scatter that is not there."""
    result = run(bench_of(rows_of(text={0: 0, 100: 3}, control={0: 0, 100: 2}, n_seeds=1)))
    assert text_spectra.text(result)
    assert text_spectra.figure(result).axes
    assert any("outliers" in reason or "seed" in reason for reason in result["reasons"])


def test_words_figure_and_kind(found: dict[str, Any]) -> None:
    told = text_spectra.text(found)
    assert told.isascii()
    assert told.splitlines()[-1] == "passed"
    for word in ("1000 parameters, 4 seeds", "KS q", "outliers out", "largest/edge fc", "of Poisson levels"):
        assert word in told
    assert len(text_spectra.figure(found).axes) == 4
    bench = bench_of(rows_of())
    assert serves("text-spectra", bench)
    other = config_from_dict({
        "name": "p", "models": ["pairs"], "training": {"rows": [{"rate": 0.1, "batch": 4}]},
    })  # fmt: skip
    assert isinstance(other, DynamicsRun)
    with pytest.raises(InputError, match=r"is for a run with models: \[transformer\]"):
        run(DynamicsBench(Path(), other, {}))


def test_rows_as_training_makes_them(tmp_path: Path) -> None:
    """A few steps of a model of one layer: read, compared, told, drawn."""
    given = {"n_seeds": 1, "n_layers": 1, "n_heads": 2, "width": 16, "block": 8, "batch": 4, "n_steps": 2,
             "at": [0, 2], "shuffled_steps": 2}  # fmt: skip
    bench = bench_of({}, **given)
    train_rows(bench.config, tmp_path, Silent())
    bench.rows = read_rows(bench.config, tmp_path)
    result = run(bench)
    assert result["passed"] is False, "nothing is learned in two steps"
    assert result["entropy"] == pytest.approx(3.25, abs=0.3)
    assert text_spectra.text(result)
    assert text_spectra.figure(result).axes

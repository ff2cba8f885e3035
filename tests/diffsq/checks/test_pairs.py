"""`check pairs`: Wigner's law with its amplitude passes; Poisson levels, strangers, other noise do not."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffsq.checks import pairs
from diffsq.checks.perform import serves
from diffsq.config.config import config_from_dict
from diffsq.config.dynamics import DynamicsRun
from diffsq.run_folder.finished import DynamicsBench
from diffsq.training import pairs as training
from diffsq.training.pairs import pair_row
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.gaussian_rbm import chain_kernel
from lattice.progress import Silent

SETTINGS: list[dict[str, Any]] = [
    {"rate": 0.1, "batch": 128}, {"rate": 0.05, "batch": 64},
    {"rate": 0.1, "batch": 128, "noise": "chains"}, {"rate": 0.0, "batch": 4},
]  # fmt: skip
KAPPA = chain_kernel(6, 2.0)  # 4, 5, 5, 7, 7, 8


def config_of(rows: list[dict[str, Any]], models: str = "pairs") -> DynamicsRun:
    sizes = {"n_visible": 6, "mu2": 20.0, "n_replicas": 64, "n_snapshots": 8, "n_apart": 0.5}
    given = {**sizes, "rows": rows} if models == "pairs" else {"rows": rows}
    found = config_from_dict({"name": "pairs", "models": [models], "training": given})
    assert isinstance(found, DynamicsRun)
    return found


def bench_of(rows: list[dict[str, Any]], settings: list[dict[str, Any]] | None = None) -> DynamicsBench:
    named = {f"pairs-{i}": row for i, row in enumerate(rows)}
    return DynamicsBench(Path(), config_of(settings or SETTINGS[: len(rows)]), named)


def run(bench: DynamicsBench) -> dict[str, Any]:
    found = pairs.run(bench, Silent())
    json.dumps(found, allow_nan=False)
    return found


@pytest.fixture(scope="module")
def trained() -> list[dict[str, Any]]:
    config: Any = config_of(SETTINGS)
    return [
        pair_row(config.training, row, 20 + i, Silent()) for i, row in enumerate(config.training.rows)
    ]  # fmt: skip


def synthetic(monkeypatch: pytest.MonkeyPatch, blocks: Floats, **row: Any) -> dict[str, Any]:
    """The row of machines whose K are `blocks` (n_machines, n_snapshots, 6, 6)."""
    given = {"rate": 0.1, "batch": 128, **row}
    config: Any = config_of([given])
    with monkeypatch.context() as patch:
        patch.setattr(training, "snapshots", lambda *_: (blocks, 0))
        return pair_row(config.training, config.training.rows[0], 1, Silent())


def gaussian(n: int = 64, times: int = 8, diagonal: float = 1.0, off: float = 1.0, seed: int = 3) -> Floats:
    """K about the modes' own: GOE blocks of the formula's variance, or with other elements."""
    rng = np.random.default_rng(seed)
    x = 20 - KAPPA
    variance = 0.1 * x / 128 / (1 - 0.1 * x / KAPPA**2)
    noise = rng.normal(size=(n, times, 6, 6))
    noise = np.triu(noise, 1) + np.swapaxes(np.triu(noise, 1), -1, -2)
    scale = np.sqrt(np.sqrt(variance[:, None] * variance))
    found = off * noise * scale
    places = np.arange(6)
    found[..., places, places] = diagonal * rng.normal(size=(n, times, 6)) * np.sqrt(2 * variance)
    made: Floats = found + np.diag(KAPPA)
    return made


def test_trained_machines_pass(trained: list[dict[str, Any]]) -> None:
    found = run(bench_of(trained))
    assert found["passed"] is True
    assert found["reasons"] == []
    assert found["mu2"] == 20
    (alike,) = found["alike"]
    assert alike["rows"] == [0, 1], "chains are another noise"
    for row in found["rows"][:3]:
        for pair in row["pairs"]:
            assert abs(pair["a_pull"]) < 4.5
            assert abs(pair["ratio_pull"]) < 4.5
            assert pair["poisson_pull"] < -10
    assert all("a" not in pair for pair in found["rows"][3]["pairs"]), "without a rate nothing moves"


def test_levels_of_the_goe_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(bench_of([synthetic(monkeypatch, gaussian())]))["passed"] is True


def test_poisson_levels_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Independent spacings of the exponential law, with the mean that Wigner's would have."""
    blocks = gaussian()
    rng = np.random.default_rng(8)
    for i, j in ((1, 2), (3, 4)):
        s = rng.exponential(size=blocks.shape[:2]) * 0.26
        blocks[..., i, i], blocks[..., j, j] = KAPPA[i] - s / 2, KAPPA[i] + s / 2
        blocks[..., i, j] = blocks[..., j, i] = 0
    found = run(bench_of([synthetic(monkeypatch, blocks)]))
    assert found["passed"] is False
    assert any("row 0: shape" in reason for reason in found["reasons"])
    assert "row 0: too few spacings to tell Wigner's law from Poisson's" in found["reasons"]
    assert pairs.text(found).endswith("Poisson's")
    assert "NOT passed: row 0" in pairs.text(found)


@pytest.mark.parametrize(
    ("diagonal", "off", "what"),
    [
        (1.2, 1.2, "row 0: amplitude"),  # 20 % too much noise
        (math.sqrt(0.5), math.sqrt(0.5), "row 0: amplitude"),  # without the 2
        (1.0, 0.2, "row 0: shape"),  # levels that hardly repel
    ],
)
def test_wrong_noise_fails(monkeypatch: pytest.MonkeyPatch, diagonal: float, off: float, what: str) -> None:
    found = run(bench_of([synthetic(monkeypatch, gaussian(diagonal=diagonal, off=off))]))
    assert found["passed"] is False
    assert any(what in reason for reason in found["reasons"])


def test_strangers_said_to_be_wigner_fail(
    monkeypatch: pytest.MonkeyPatch, trained: list[dict[str, Any]]
) -> None:
    """Neighbours of different modes that repel as a pair does: as if the check took pairs for strangers."""
    row = deepcopy(trained[0])
    assert row["strangers"]["ratio"][0] < 1.1
    row["strangers"] = {"ratio": row["pairs"][0]["ratio"], "n": 512}
    found = run(bench_of([row]))
    assert found["reasons"] == ["row 0: neighbours of different modes look like Wigner's"]
    assert found["passed"] is False
    assert "not Wigner" not in pairs.text(found), "nor do the words above it say the contrary"


def test_strangers_claimed_as_a_pair_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The upper level of one pair and the lower of the next, put where a pair should be."""
    blocks = gaussian()
    values = np.linalg.eigvalsh(blocks)
    middle = (values[..., 2] + values[..., 3]) / 2
    for i, j in ((1, 2), (3, 4)):
        blocks[..., i, j] = blocks[..., j, i] = 0
        blocks[..., i, i], blocks[..., j, j] = (
            values[..., 2] - middle + KAPPA[i],
            values[..., 3] - middle + KAPPA[i],
        )
    found = run(bench_of([synthetic(monkeypatch, blocks)]))
    assert found["passed"] is False
    assert any("row 0: shape" in reason for reason in found["reasons"])


def test_rows_of_one_alpha_over_b_that_differ_fail(trained: list[dict[str, Any]]) -> None:
    """Beyond alpha/B = 1/600 only the rows are held against each other: one of them with 1.3 times the
    spacings."""
    rows = deepcopy(trained[:2])
    for row, scale in zip(rows, (1.0, 1.3), strict=True):
        row["batch"] = row["batch"] // 16
        for pair in row["pairs"]:
            pair["a_sorted"] = [scale * number for number in pair["a_sorted"]]
    found = run(bench_of(rows))
    assert found["reasons"] == ["rows 0 and 1 have one alpha/B and differ"]
    assert run(bench_of(trained[:2]))["passed"] is True


def test_the_square_root_is_not_asked_for_where_the_noise_is_large(trained: list[dict[str, Any]]) -> None:
    """At alpha/B = 1/40 amplitudes 20 % low are no reason, and the words say from where on."""
    row = deepcopy(trained[0])
    row["batch"] = 4
    for pair in row["pairs"]:
        for name in ("a", "a_sorted"):
            pair[name] = [0.8 * pair["a_formula"], 0.01]
    found = run(bench_of([row]))
    assert found["passed"] is True
    assert "fails from alpha/B = 0.025 on (5 sigma)" in pairs.text(found)
    row["batch"] = 128
    assert run(bench_of([row]))["passed"] is False


def test_a_run_in_which_nothing_moves(trained: list[dict[str, Any]]) -> None:
    """rate 0 alone: a row is a row, in words and figure too."""
    found = run(bench_of([trained[3]], SETTINGS[3:]))
    assert found["passed"] is not False
    assert "pairs" in pairs.text(found) or "kappa" in pairs.text(found)
    assert pairs.figure(found).axes


def test_words_figure_and_kind(trained: list[dict[str, Any]]) -> None:
    bench = bench_of(trained)
    found = run(bench)
    told = pairs.text(found)
    assert told.isascii()
    assert told.splitlines()[-1] == "passed"
    for word in (
        "leading order sqrt(2 pi) = 2.5066",
        "rows 0 and 1, one alpha/B",
        "not Wigner",
        "single modes",
    ):
        assert word in told
    assert len(pairs.figure(found).axes) == 4
    assert serves("pairs", bench)
    assert not serves("machine", bench)
    other = DynamicsBench(Path(), config_of([{"rate": 0.1, "batch": 4}], "teacher_student"), {})
    with pytest.raises(InputError, match=r"pairs is for a run with models: \[pairs\]"):
        run(other)

"""Spectra of random matrices are those of random matrices; structure, Poisson levels, dead rows are not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from diffsq.models import spectra
from diffsq.models.spectra import all_spectra, brief, matrices, null_of, pooled_ratio, spectrum
from lattice.errors import InputError
from lattice.exact.random_matrix import RATIO_GOE, RATIO_POISSON
from lattice.progress import Silent
from lattice.rng import normals, uniforms


def white(n: int, m: int, step: int = 0) -> np.ndarray[Any, Any]:
    return normals(9, "test/spectra", np.arange(1), step, n * m).reshape(n, m)


def test_white_matrices_are_white_whatever_their_scale_and_their_law() -> None:
    uniform = uniforms(9, "test/flat", np.arange(1), 0, 64 * 256).reshape(64, 256) - 0.5
    for w, unit in (
        (white(64, 256), 1),
        (white(64, 256, 1), 1e-200),
        (white(64, 256, 2), 1e200),
        (uniform, 1),
    ):
        found, null = spectrum(unit * w), null_of((64, 256))
        assert found.rank == 64
        assert found.ks < 1.5 * null.ks_95
        assert found.outliers <= 1
        assert found.over_edge < 1.1
        assert found.stable_rank == pytest.approx(64 / 2.2, rel=0.1)
        assert found.deviation / unit == pytest.approx(w.std(), rel=0.03)
    one, other = spectrum(w), spectrum(w.T)
    assert (one.ks, one.outliers) == (other.ks, other.outliers)
    np.testing.assert_allclose(one.x, other.x)


def test_the_null_is_that_of_the_project_notes() -> None:
    """Kolmogorov-Smirnov distances, mean (95 %), of independent code with 60 draws."""
    for shape, mean, high in (
        ((64, 64), 0.036, 0.052),
        ((96, 384), 0.025, 0.032),
        ((128, 512), 0.021, 0.025),
    ):
        null = null_of(shape)
        assert null.n == 64
        assert null.ks == pytest.approx(mean, abs=0.003)
        assert null.ks_95 == pytest.approx(high, abs=0.006)
        assert null.outliers < 0.1


def test_structure_is_found_in_a_rank_one_part_and_the_bulk_stays() -> None:
    u, v = white(64, 1, 3), white(1, 256, 4)
    found = spectrum(white(64, 256) + u @ v)
    assert found.outliers == 1
    assert found.over_edge > 15
    assert found.stable_rank < 3
    assert found.ks < 1.5 * null_of((64, 256)).ks_95
    heavy = spectrum(np.sign(white(64, 256)) * np.abs(white(64, 256)) ** 4)  # nothing white about its rows
    assert heavy.ks > 2 * null_of((64, 256)).ks_95


def test_repulsion_is_told_from_none() -> None:
    """<r> of matrices is that of GOE; diagonal ones, whose levels are independent, have Poisson's."""
    drawn = [spectrum(white(96, 96 + 32 * k, 10 + k)) for k in range(12)]
    value, error, null = pooled_ratio(drawn)
    assert abs(value - RATIO_GOE) < 4 * error
    assert null == pytest.approx(RATIO_GOE, abs=0.01)
    assert abs(value - RATIO_POISSON) > 8 * error
    levels = np.sqrt(uniforms(9, "test/levels", np.arange(12), 0, 96))
    value, error, _ = pooled_ratio([spectrum(np.diag(x)) for x in levels])
    assert abs(value - RATIO_POISSON) < 5 * error  # fluctuates more than with repulsion
    assert abs(value - RATIO_GOE) > 8 * error


def test_errors_of_the_pooled_ratio_cover() -> None:
    groups = [[spectrum(white(32, 64, 100 + 8 * g + k)) for k in range(8)] for g in range(24)]
    values, errors, (known, *_) = np.array([pooled_ratio(group) for group in groups]).T
    chi2 = float((((values - known) / errors) ** 2).mean())
    assert 1 - 4 * math.sqrt(2 / 24) < chi2 < 1 + 4 * math.sqrt(2 / 24) + 0.3


def test_rank_is_counted() -> None:
    w = white(32, 64)
    w[:3] = 0
    assert spectrum(w).rank == 29
    w[3] = w[4]
    found = spectrum(w)
    assert found.rank == 28
    assert len(found.ratios) == 26
    assert (found.x[:4] < 1e-12).all()
    with pytest.raises(InputError, match="layer: has rank 10 of 32"):
        spectrum(white(32, 10) @ white(10, 64), "layer")


def test_what_has_no_spectrum_is_left_out_with_a_reason_and_nan_is_refused() -> None:
    weights = {"a": white(16, 32), "kernel": white(16, 72).reshape(16, 8, 3, 3), "bias": white(1, 16)[0],
               "small": white(4, 9), "steps": np.arange(12).reshape(3, 4),
               "none": np.zeros((0, 5))}  # fmt: skip
    assert [name for name, _ in matrices(weights)] == ["a", "kernel", "small"]
    found, left = all_spectra(weights, Silent())
    assert {name: s.shape for name, s in found.items()} == {"a": (16, 32), "kernel": (16, 72)}
    assert left == {"small": "small: has 4 rows or columns, a spectrum needs 8"}
    weights["a"][2, 3] = np.nan
    with pytest.raises(InputError, match="a: 1 of 512 numbers are NaN"):
        all_spectra(weights, Silent())
    with pytest.raises(InputError, match="none of 1 arrays has a spectrum"):
        all_spectra({"bias": white(1, 4)[0]}, Silent())
    with pytest.raises(InputError, match="a spectrum is one of a matrix"):
        spectrum(white(1, 4)[0])


def test_large_shapes_draw_fewer_nulls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectra, "NULL_WORK", 20 * 32 * 32 * 64)
    assert null_of((32, 64), seed=77).n == 20


def test_what_a_log_keeps_of_all_matrices() -> None:
    """Means over matrices of what each says alone; none for networks without a matrix."""
    weights = {"a": white(16, 32), "b": white(16, 64, 1), "few": white(2, 64), "row": np.ones(5)}
    alone = [spectrum(weights[name]) for name in "ab"]
    found = brief(weights)
    assert found["ks"] == pytest.approx(np.mean([s.ks for s in alone]))
    assert found["outliers"] == sum(s.outliers for s in alone)
    assert found["ratio"] == pytest.approx(np.concatenate([s.ratios for s in alone]).mean())
    assert brief({"few": white(2, 64)}) == {}

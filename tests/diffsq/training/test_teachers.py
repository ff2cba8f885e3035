"""Teacher and student: amplitudes against numbers and exact moments, the surmise, and what does not hold."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from diffsq.training import teachers
from diffsq.training.teachers import (
    TeacherRow,
    data_set,
    formula,
    largest_rate,
    moved,
    noise_of,
    run_row,
    second_moments,
    spacing,
)
from lattice.errors import InputError
from lattice.progress import Silent
from lattice.rng import normals

# <S>/sqrt(alpha A^2/B) of an independent implementation, 3000 seeds, and its error
KNOWN = {(0.1, 64): (1.845, 0.018), (0.1, 16): (1.788, 0.018), (0.1, 4): (1.825, 0.018),
         (0.3, 16): (1.920, 0.019), (0.5, 16): (2.090, 0.020)}  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> dict[tuple[float, int], dict[str, Any]]:
    return {key: run_row(TeacherRow(*key, n_steps=200), 1, Silent()) for key in KNOWN}


@pytest.mark.parametrize("key", KNOWN)
def test_the_amplitudes(rows: dict[Any, Any], key: tuple[float, int]) -> None:
    """Within 4 sigma of the numbers, and <S^2> within 4 sigma, half a percent, of its exact value."""
    row, (known, error) = rows[key], KNOWN[key]
    assert abs(row["a"] - known) < 4 * math.hypot(error, row["a_error"])
    assert abs(row["s2"] - row["s2_exact"]) < 4 * row["s2_error"]
    assert row["s2_error"] < 0.008 * row["s2_exact"]
    assert row["formula_0"] - 4 * row["a_error"] < row["a"] < row["formula_3"] + 4 * row["a_error"]
    assert row["n_turned"] == 0


def test_laws_that_do_not_hold(rows: dict[Any, Any]) -> None:
    """Without alpha in 2 - alpha, sqrt(pi) at every rate; with c = 0 or 3 at a large one."""
    row = rows[0.5, 16]
    assert row["a"] - math.sqrt(math.pi) > 50 * row["a_error"]
    assert row["a"] - row["formula_0"] > 10 * row["a_error"]
    assert row["formula_3"] - row["a"] > 5 * row["a_error"]
    assert formula(0.0, 16, 3.0) == pytest.approx(math.sqrt(math.pi))


def test_the_surmise(rows: dict[Any, Any]) -> None:
    """4/pi where M hardly fluctuates; Poisson's 2 nowhere."""
    row = rows[0.1, 64]
    assert abs(row["s2_ratio"] - 4 / math.pi) < 4 * row["s2_ratio_error"]
    for row in rows.values():
        assert 2 - row["s2_ratio"] > 100 * row["s2_ratio_error"]


def test_errors_are_those_of_other_seeds() -> None:
    """The spread over 24 seeds against the error that one of them says, 4 sigma of a chi^2."""
    row = TeacherRow(0.5, 4, n_replicas=100, n_steps=60)
    found = [run_row(row, seed, Silent()) for seed in range(24)]
    for name in ("a", "s2_ratio", "s2"):
        spread = np.var([one[name] for one in found], ddof=1)
        said = np.mean([one[f"{name}_error"] ** 2 for one in found])
        assert abs(spread / said - 1) < 4 * math.sqrt(2 / 23)


@pytest.mark.parametrize(("alpha", "batch"), [(0.1, 64), (0.3, 4), (0.5, 16), (0.4, 1), (1.0, 16)])
def test_exact_moments_of_fresh_data(alpha: float, batch: int) -> None:
    """By hand: |d|^2, u^2 and a^2 of D = u 1 + a J + d feed each other through M = (1 + m_0) 1 + m."""
    f, c, source = 2 * alpha - alpha**2 * (1 + 1 / batch), alpha**2 / batch, alpha**2 / batch
    equations = np.array([[f, -2 * c, -2 * c], [-c, f, 0.0], [-c, 0.0, f]])
    d2, *_ = np.linalg.solve(equations, [2 * source, source, 0.0])
    row = TeacherRow(alpha, batch, n_steps=10**6)
    assert second_moments(row) == pytest.approx(4 * d2, rel=1e-12)
    assert second_moments(replace(row, amplitude=3.0)) == pytest.approx(36 * d2, rel=1e-12)


def test_where_the_largest_rate_is() -> None:
    """<D^2> diverges there, not before; and large data sets are like fresh data."""
    limit = largest_rate(4)
    assert limit == pytest.approx(8 / 7)
    near = [second_moments(TeacherRow(limit * (1 - e), 4, n_steps=10**9)) for e in (1e-2, 1e-3, 1e-4)]
    assert near[1] / near[0] == pytest.approx(10, rel=0.1)
    assert near[2] / near[1] == pytest.approx(10, rel=0.1)
    row = TeacherRow(0.3, 4, fresh=False, n_data=400_000, n_steps=200)
    fresh = second_moments(replace(row, fresh=True))
    assert second_moments(row, data_set(row, 1)) == pytest.approx(fresh, rel=0.01)


def test_fixed_data_sets_differ() -> None:
    """Each within 4 sigma of its own exact <S^2>; between them many times the error of the replicas."""
    row = TeacherRow(0.1, 4, n_replicas=1500, n_steps=150, n_data=64)
    rows = [run_row(replace(row, fresh=False), seed, Silent()) for seed in range(1, 7)]
    a = np.array([one["a"] for one in rows])
    for one in rows:
        assert abs(one["s2"] - one["s2_exact"]) < 4 * one["s2_error"]
    assert a.std(ddof=1) > 4 * np.mean([one["a_error"] for one in rows])
    assert abs(a.mean() - 1.825) < 4 * math.hypot(a.std(ddof=1) / math.sqrt(6), 0.018)


def test_the_spacing_is_one_of_singular_values() -> None:
    """And of the eigenvalues of the symmetric part, while det W > 0; beyond, of neither."""
    d = normals(1, "test/teachers", np.arange(500), 0, 4).reshape(-1, 2, 2)
    near, far = 2 * np.eye(2) + 0.2 * d, 2 * np.eye(2) + 2 * d
    singular = -np.diff(np.linalg.svd(near, compute_uv=False))[:, 0]
    assert np.abs(singular - spacing(near)).max() < 1e-12
    symmetric = np.diff(np.linalg.eigvalsh((near + near.transpose(0, 2, 1)) / 2))[:, 0]
    assert np.abs(symmetric - spacing(near)).max() < 1e-12
    turned = np.linalg.det(far) <= 0
    singular = -np.diff(np.linalg.svd(far, compute_uv=False))[:, 0]
    assert 50 < turned.sum() < 450
    assert np.abs(singular - spacing(far))[~turned].max() < 1e-12
    assert np.abs(singular - spacing(far))[turned].min() > 1e-4
    assert np.iscomplexobj(np.linalg.eigvals(near))


def test_a_step_is_the_gradient_of_the_mean_squared_error() -> None:
    x, w = normals(1, "test/x", np.arange(3), 0, 10).reshape(3, 5, 2), 2 * np.eye(2) + np.ones((3, 2, 2))
    no_noise = np.zeros((3, 2, 2))
    after, h = moved(w, x, no_noise, 0.2), 1e-6

    def loss(w: Any) -> Any:
        return 0.5 * (((x @ w.transpose(0, 2, 1)) - 2 * x) ** 2).sum(2).mean(1)

    for i, j in np.ndindex(2, 2):
        step = np.zeros((2, 2))
        step[i, j] = h
        gradient = (loss(w + step) - loss(w - step)) / (2 * h)
        assert np.abs(after[:, i, j] - w[:, i, j] + 0.2 * gradient).max() < 1e-8


def test_without_a_rate_nothing_changes() -> None:
    row = TeacherRow(0.1, 4, n_steps=200, n_replicas=50)
    w = normals(1, "test/w", np.arange(50), 0, 4).reshape(50, 2, 2)
    x, noise = normals(1, "test/x", np.arange(50), 0, 8).reshape(50, 4, 2), noise_of(row, 1, 0)
    assert np.array_equal(moved(w, x, noise, 0.0), w)
    assert (moved(w, x, noise, 0.1) != w).all()


def test_noise_is_symmetric_with_twice_the_variance_on_the_diagonal() -> None:
    row = TeacherRow(0.1, 4, n_steps=200, n_replicas=20_000, amplitude=3.0)
    noise = noise_of(row, 1, 5)
    assert np.array_equal(noise, noise.transpose(0, 2, 1))
    for (i, j), variance in {(0, 0): 4.5, (1, 1): 4.5, (0, 1): 2.25}.items():
        assert abs(noise[:, i, j].var() / variance - 1) < 4 * math.sqrt(2 / 20_000)
    assert abs((noise[:, 0, 0] * noise[:, 1, 1]).mean()) < 4 * 4.5 / math.sqrt(20_000)


def test_the_unit_is_the_amplitude_and_numbers_depend_on_the_seed_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = TeacherRow(0.3, 4, n_replicas=60, n_steps=100)
    one, small = run_row(row, 1, Silent()), run_row(replace(row, amplitude=1e-3), 1, Silent())
    assert small["a"] == pytest.approx(one["a"], rel=1e-9)
    assert run_row(row, 2, Silent())["a"] != one["a"]
    monkeypatch.setattr(teachers, "MOST", 60)
    assert run_row(row, 1, Silent()) == one, "in parts"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"alpha": 0.0}, r"alpha must be in \(0, 1.14286\)"),
        ({"alpha": 1.2}, r"alpha must be in \(0, 1.14286\) for batches of 4, got 1.2"),
        ({"alpha": math.nan}, "alpha must be in"),
        ({"batch": 0}, "batch of at least 1"),
        ({"n_replicas": 1}, "at least 2 replicas"),
        ({"amplitude": 0.0}, "positive amplitude"),
        ({"fresh": False, "n_data": 3}, "the data set has 3; take a larger n_data"),
        ({"n_steps": 20}, "20 steps are too few at alpha = 0.1.*take at least 1"),
    ],
)
def test_rows_that_make_no_sense(bad: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TeacherRow(**({"alpha": 0.1, "batch": 4} | bad))


def test_data_sets_on_which_a_rate_is_unstable_or_slow() -> None:
    row = TeacherRow(1.0, 4, fresh=False, n_data=4, n_steps=1000)
    with pytest.raises(InputError, match="no stationary state on this data set.*take a smaller alpha"):
        second_moments(row, 2 * data_set(row, 1))
    one = TeacherRow(0.1, 1, fresh=False, n_data=1, n_steps=1000)
    with pytest.raises(InputError, match="or more data"):
        second_moments(one, data_set(one, 1))
    few = TeacherRow(0.1, 4, fresh=False, n_data=64, n_steps=100)
    with pytest.raises(InputError, match="100 steps are too few on this data set; take at least"):
        second_moments(few, data_set(few, 1) / 2)

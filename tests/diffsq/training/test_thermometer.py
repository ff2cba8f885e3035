"""A network thermometer: what it reads, where it refuses, and what it cannot see."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from small_spins import ising

from diffsq.analysis.thermometers import read_energy
from diffsq.training.thermometer import (
    Calibration,
    Thermometer,
    as_units,
    calibrate,
    load_thermometer,
    save_thermometer,
    shuffled,
    train_thermometer,
)
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.exact.ising import torus
from lattice.rng import uniforms

GRID, N, SIZE = np.arange(1.0, 4.51, 0.5), 300, 8
TRUE = np.repeat(GRID, N)
Held = tuple[Thermometer, Integers, Calibration]


@pytest.fixture(scope="module")
def held() -> Held:
    """A thermometer, configurations it has not seen, and its calibration by these."""
    seen, fresh = (ising(N, SIZE, GRID, 60, seed) for seed in (1, 2))
    found = train_thermometer(seen, TRUE, 1, widths=(64, 32), n_steps=1000)
    return found, fresh, calibrate(found, fresh, TRUE)


def energy(spins: Floats | Integers) -> tuple[float, float]:
    s = spins.reshape(-1, SIZE, SIZE)
    e = -(s * np.roll(s, 1, 1) + s * np.roll(s, 1, 2)).mean((1, 2))
    return float(e.mean()), float(e.std(ddof=1)) / math.sqrt(len(e))


def test_it_reads_temperatures_and_how_well(held: Held) -> None:
    """Mean readings rise; a configuration near T_c tells its T no better than to 0.3; ends are pulled in."""
    _, _, scale = held
    assert (np.diff(scale.mean[1:-2]) > 4 * np.hypot(scale.error[1:-3], scale.error[2:-2])).all()
    near = GRID == 2.5
    assert 0.3 < float(scale.sd[near][0]) < 1.5
    assert abs(float(scale.bias[near][0])) < float(scale.sd[near][0])
    assert scale.bias[-1] < -0.2
    assert scale.bias[0] > 0
    np.testing.assert_allclose(scale.error, scale.sd / math.sqrt(N))


def test_probabilities_are_a_law(held: Held) -> None:
    found, fresh, _ = held
    p = found.probabilities(fresh)
    assert p.shape == (len(fresh), len(GRID))
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(found.read(fresh[:7]), (p[:7] / p[:7].sum(1, keepdims=True)) @ GRID, atol=1e-6)


def test_it_cannot_tell_shuffled_sites(held: Held) -> None:
    """At T = 3 spins with their sites shuffled read as before, to a quarter of the spread of one reading; the
    exact e is 10 sigma and more off."""
    found, fresh, scale = held
    at = TRUE == 3.0
    mixed = shuffled(fresh[at], 3)
    np.testing.assert_array_equal(np.sort(mixed, 1), np.sort(fresh[at], 1))
    spread = float(scale.sd[GRID == 3.0][0])
    assert abs(found.read(mixed).mean() - found.read(fresh[at]).mean()) < spread / 4
    right, (e, error) = read_energy(*energy(fresh[at]), (SIZE, SIZE)), energy(mixed)
    assert abs(right.t - 3.0) < 4.5 * right.error
    assert abs(e - torus((SIZE, SIZE), 3.0).e) > 10 * error
    assert read_energy(e, error, (SIZE, SIZE)).t > 5


def test_what_is_outside_its_range_is_refused(held: Held) -> None:
    """Spins of infinite temperature read as some T, which the calibration refuses; and a true T outside."""
    found, fresh, scale = held
    inner = Calibration(scale.t[1:], scale.mean[1:], scale.error[1:], scale.sd[1:])
    for t in (2.0, 2.5, 3.0):
        read = found.read(ising(N, SIZE, np.array([t]), 60, 9))
        error = float(read.std(ddof=1)) / math.sqrt(N)
        back, said = inner.temperature(float(read.mean()), error)
        assert abs(back - t) < 4.5 * said
    free = np.where(uniforms(1, "test/free", np.arange(3000), 0, SIZE**2) < 0.5, -1, 1)
    read = found.read(free)
    assert GRID[0] < read.mean() < GRID[-1]  # an answer for anything
    with pytest.raises(InputError, match="outside those in the range of training"):
        inner.temperature(float(read.mean()))
    with pytest.raises(InputError, match="outside those in the range of training"):
        inner.temperature(0.2)
    for t in (0.9, 4.6, math.nan):
        with pytest.raises(InputError):
            calibrate(found, fresh[:3], [2.0, 2.0, t])


def test_a_calibration_is_inverted() -> None:
    """Linear readings: T and its error by hand; readings that do not rise are none."""
    t = np.array([1.0, 2.0, 4.0])
    scale = Calibration(t, 1 + t / 2, np.full(3, 0.03), np.full(3, 0.3))
    back, error = scale.temperature(2.5, 0.04)
    assert back == pytest.approx(3.0)
    assert error == pytest.approx(0.05 / 0.5)
    assert scale.temperature(3.0)[0] == pytest.approx(4.0)
    np.testing.assert_allclose(scale.bias, [0.5, 0, -1])
    with pytest.raises(InputError, match="do not rise"):
        Calibration(t, np.array([1.0, 2.0, 2.0]), t, t).temperature(1.5)


def test_it_is_a_function_of_its_seed(tmp_path: Path) -> None:
    """Same seed, same bits, whatever torch's own generator holds; on disk too."""
    spins = ising(20, 4, np.array([1.0, 4.0]), 20)
    t = np.repeat([1.0, 4.0], 20)
    made = []
    for global_seed, seed in ((1, 5), (2, 5), (2, 6)):
        torch.manual_seed(global_seed)
        made.append(train_thermometer(spins, t, seed, widths=(8,), n_steps=30))
    for (w, b), (x, y), (other, _) in zip(*(one.layers for one in made)):
        assert w.equal(x)
        assert b.equal(y)
        assert not w.equal(other)
    save_thermometer(made[0], tmp_path / "t.safetensors")
    found = load_thermometer(tmp_path / "t.safetensors")
    np.testing.assert_array_equal(found.read(spins), made[0].read(spins))
    np.testing.assert_array_equal(found.temperatures, [1.0, 4.0])


def test_what_is_no_thermometer(tmp_path: Path) -> None:
    spins, t = np.ones((6, 4)), np.array([1.0, 1, 1, 2, 2, 2])
    for data, at, options, words in (
        (spins, t[:3], {}, "a temperature each"), (spins[0], t, {}, "a temperature each"),
        (math.nan * spins, t, {}, "need finite spins"), (spins, math.inf * t, {}, "need finite spins"),
        (spins, np.ones(6), {}, "two temperatures or more"), (spins, t, {"n_steps": 0}, "need steps"),
        (spins, t, {"rate": math.nan}, "need steps"), (spins, t, {"widths": (0,)}, "need steps"),
        (spins, t, {"rate": 1e38}, "need steps"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            train_thermometer(data, at, 1, **options)  # type: ignore[arg-type]
    found = train_thermometer(spins, t, 1, widths=(3,), n_steps=1)
    for bad, words in ((spins[:, :3], r"reads spins \(n, 4\)"), (spins * math.inf, "NaN or infinite")):
        with pytest.raises(InputError, match=words):
            found.read(bad)
    with pytest.raises(InputError, match="two configurations or more"):
        calibrate(found, spins[:3], [1.0, 1.0, 2.0])
    with pytest.raises(InputError, match="as many temperatures"):
        calibrate(found, spins, t[:2])
    path = tmp_path / "t.safetensors"
    with pytest.raises(InputError, match="no thermometer here"):
        load_thermometer(path)
    save_thermometer(found, path)
    tensors = load(path.read_bytes())
    for change in ({"b1": torch.zeros(5)}, {"w1": torch.zeros(7, 2)}, {"w0": torch.full((4, 3), math.nan)}):
        path.write_bytes(save({**tensors, **change}))
        with pytest.raises(InputError, match="not the layers"):
            load_thermometer(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not the file of a thermometer"):
        load_thermometer(path)


def test_units_of_spins() -> None:
    """+-1 as they are; of Potts one number for each state, so that no state is nearer to another."""
    s = np.array([[0, 2, 1], [2, 2, 2]])
    units = as_units(s, 3)
    assert units.tolist() == [[1, 0, 0, 0, 0, 1, 0, 1, 0], [0, 0, 1] * 3]
    assert units.dtype == np.float64
    gaps = np.linalg.norm(as_units(np.arange(3)[:, None], 3)[:, None] - np.eye(3)[None], axis=-1)
    np.testing.assert_allclose(gaps, np.sqrt(2) * (1 - np.eye(3)))
    ising = np.array([[1, -1, 1]])
    np.testing.assert_array_equal(as_units(ising), ising)

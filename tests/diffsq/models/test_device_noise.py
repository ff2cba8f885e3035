"""Numbers made by tensors are those of lattice.rng, and nothing leaves the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_device import fake_device

from diffsq.models import device_noise
from diffsq.models.blocks import KeyedNoise
from lattice import rng
from lattice.errors import InputError

INDEX = np.array([0, 1, 5, 2**31, 2**32 - 1])
CASES = [(0, "doc", 0, 64), (2**64 - 1, "sample/flow/ve", 2**32 - 1, 101), (12345678901234567, "a", 7, 1)]


@pytest.mark.parametrize("case", CASES)
def test_integers_and_uniforms_are_exact(case: tuple[int, str, int, int]) -> None:
    seed, stream, step, size = case
    found = device_noise.uniforms(seed, stream, INDEX, step, size, "cpu").numpy()
    np.testing.assert_array_equal(found, rng.uniforms(seed, stream, INDEX, step, size))
    n0, n1 = device_noise.random_bits(seed, stream, INDEX, step, 1, "cpu")
    words = [np.uint64(x) for x in (seed, rng.stream_id(stream))]
    for i, index in enumerate(INDEX):
        exact = rng.random_bits.py_func(*words, np.uint64(index), np.uint64(step), np.uint64(0))
        assert (int(n0[i, 0]), int(n1[i, 0])) == tuple(map(int, exact))


@pytest.mark.parametrize("case", CASES)
def test_normals_are_the_same(case: tuple[int, str, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """To 2 ulp by the square root of PyTorch, which is not the nearest number on every CPU, and to the last
    bit by one that is."""
    seed, stream, step, size = case
    index = np.concatenate([INDEX, np.arange(3000)])
    expected = rng.normals(seed, stream, index, step, size)
    found = device_noise.normals(seed, stream, index, step, size, "cpu").numpy()
    np.testing.assert_array_max_ulp(found, expected, 2)
    monkeypatch.setattr(torch.Tensor, "sqrt", lambda x: torch.from_numpy(np.sqrt(x.numpy())))
    found = device_noise.normals(seed, stream, index, step, size, "cpu").numpy()
    np.testing.assert_array_equal(found, expected)
    other = device_noise.normals(seed, stream, index, step ^ 1, size, "cpu").numpy()  # the control
    assert np.abs(other - expected).max() > 1


@pytest.mark.parametrize("n", [0, 1, 2**50 - 1, 2**50, 2**51, 2**51 + 2**50, 2**52 - 1])
def test_the_ends_of_every_quadrant(n: int) -> None:
    number = torch.tensor([n])
    u = device_noise.unit(number)
    assert float(u) == (2 * n + 1) * 2.0**-53
    assert float(device_noise.log_unit(u)) == pytest.approx(np.log(float(u)), rel=1e-15)
    cos, sin = device_noise.cos_sin(number)
    angle = 2 * np.pi * float(u) - np.pi / 4
    assert (float(cos), float(sin)) == pytest.approx((np.cos(angle), np.sin(angle)), abs=1e-15)


@pytest.mark.parametrize("bad", [(-1, [0], 0), (0, [2**32], 0), (0, [0], 2**32)])
def test_counters_that_do_not_fit_are_refused(bad: tuple[int, list[int], int]) -> None:
    seed, index, step = bad
    with pytest.raises(InputError, match="must be"):
        device_noise.normals(seed, "doc", np.array(index), step, 4, "cpu")


def test_noise_is_made_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without memory stands for one that is not here; numbers of the CPU are never asked for."""

    def drawn(*args: object) -> None:
        raise AssertionError("drawn on the CPU")

    monkeypatch.setattr("diffsq.models.blocks.normals", drawn)
    with fake_device() as place:
        made = KeyedNoise(3, "doc", np.arange(6), (4, 5), place)(2)
        assert (made.shape, made.dtype, made.device.type) == ((6, 4, 5), torch.float64, place.type)
        one = KeyedNoise(3, "doc", 7, (4, 5), str(place))(2)
        assert (one.shape, one.device.type) == ((4, 5), place.type)
    with pytest.raises(AssertionError, match="drawn on the CPU"):  # the control
        KeyedNoise(3, "doc", np.arange(6), (4, 5))(2)

"""Noise and frames are functions of their names alone."""

from __future__ import annotations

import numpy as np
import torch

from diffsq.sampling.streams import frames_of, noise_of
from lattice.rng import normals


def test_noise_does_not_depend_on_its_company() -> None:
    many = noise_of(3, "test", np.arange(40), (4, 6))
    few = noise_of(3, "test", np.array([7, 30]), (4, 6))
    assert torch.equal(few(5), many(5)[[7, 30]])
    assert few(5).shape == (2, 4, 6)
    assert torch.equal(noise_of(3, "test", 7, (4, 6))(5), few(5)[0])  # one index has no axis of its own
    assert not torch.equal(few(6), few(5))
    for seed, stream in ((4, "test"), (3, "other")):
        assert not torch.equal(noise_of(seed, stream, np.array([7, 30]), (4, 6))(5), few(5))
    assert few(5)[0].flatten().tolist() == normals(3, "test", np.array([7]), 5, 24)[0].tolist()


def test_one_frame_for_each_step() -> None:
    frames = frames_of(3, (6, 6))
    drawn = [frames(step) for step in range(50)]
    assert drawn == [frames(step) for step in range(50)]
    assert len(set(drawn)) > 40
    assert drawn != [frames_of(4, (6, 6))(step) for step in range(50)]
    assert not any(frames_of(3, (6, 4))(step).exchange for step in range(50))

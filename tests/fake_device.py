"""A device that is not there: tensors on it have a shape, a type and a place, and no numbers.

What mixes it with the CPU is an error, and so is what waits for its numbers (bool, float, item of a tensor),
as it would make a real device wait. A CUDA device cannot be stood for by a build without CUDA, so it is a
backend of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration

from diffsq.models import spline

NAME = "abacus"


class _Mode(FakeTensorMode):
    """Single numbers, too, are not known: else they would be truly copied to the device."""

    avoid_device_init = True

    def may_turn_const(self, t: torch.Tensor) -> bool:
        return False


@functools.cache
def _register() -> None:
    setup = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
    if setup is None:
        pytest.skip("this PyTorch has no backends written in Python")
    setup(NAME)


@contextmanager
def fake_device() -> Iterator[torch.device]:
    """The device; within the block every tensor, on the CPU too, is without numbers."""
    _register()
    mode = _Mode(allow_non_fake_inputs=True)  # what was kept of earlier work, on the CPU
    spline._pieces.cache_clear()
    try:
        with mode:
            yield torch.device(NAME)
    finally:
        spline._pieces.cache_clear()  # it has no numbers

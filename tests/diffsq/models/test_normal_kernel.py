"""Normal matrices by the compiled loop: those of a plain sum, the same to the last bit for any threads."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from fields import white
from places import ROOT

from diffsq.models.momentum import Momenta
from diffsq.models.normal_kernel import normal_sums
from lattice.arrays import Floats

SHAPE = (6, 4)


def rows(n: int) -> Floats:
    """(n, 5, n_mode, 2) float32, the modes of five white fields each."""
    found = torch.view_as_real(Momenta(SHAPE).modes(white((5, *SHAPE), n, 1)).flatten(2)).float()
    return found.numpy()


def sums(x: Floats) -> Floats:
    p = Momenta(SHAPE)
    return normal_sums(x, p.index.flatten().numpy(), p.weight.flatten().numpy(), p.n_class)


@pytest.mark.parametrize("n", [1, 3, 37])
def test_sums_per_class(n: int) -> None:
    p, x = Momenta(SHAPE), rows(n)
    found = sums(x)
    f = x[..., 0].astype(float) + 1j * x[..., 1]
    product = np.einsum("sik,sjk,k->ijk", f.conj(), f, p.weight.flatten().numpy()).real
    known = np.stack([product[..., p.index.flatten().numpy() == c].sum(-1) for c in range(p.n_class)])
    np.testing.assert_allclose(found, known, rtol=0, atol=1e-12 * np.abs(known).max())
    assert np.array_equal(found, found.transpose(0, 2, 1))
    # of white noise a mode of unit power each, mirror images counted
    if n > 30:
        power = found.diagonal(0, 1, 2).mean(1) / (n * p.multiplicity.numpy())
        assert (np.abs(power - 1) < 4.5 * np.sqrt(2 / (5 * n * p.multiplicity.numpy()))).all()


def test_nan_stays_nan() -> None:
    x = rows(9)
    x[5, 2, 3, 0] = np.nan
    lost = np.isnan(sums(x))
    assert lost[Momenta(SHAPE).index.flatten()[3], 2].all()
    assert lost.sum() == 9


SCRIPT = """
import hashlib, numba, numpy as np
from diffsq.models import feature_kernels as fk, normal_kernel
rng = np.random.default_rng(1)
x = rng.normal(size=(37, 5, 24, 2)).astype(np.float32)
index, weight, field = np.arange(24) % 7, rng.random(24), rng.normal(size=(37, 6, 4))
cubics, flat, scale = np.tile(weight[:4, None], 9), rng.normal(size=(37, 3, 24)), rng.random((37, 3))
for threads in (1, 2, 3):
    numba.set_num_threads(threads)
    means, slopes, out, c = np.empty((37, 1, 6, 4)), np.empty((37, 3, 6, 4)), np.zeros(37), np.zeros((37, 24))
    sums = normal_kernel.normal_sums(x, index, weight, 7)
    fk.iterate(field, field, cubics, 1.0, 0.1, 2.0, means, slopes)
    fk.site_trace(slopes, 0.3, weight[:6], 0.1, out)
    fk.add_overlaps(flat, np.array([[0, 1], [2, 2]]), flat[0, :2], out)
    fk.add_features(flat, np.arange(3), flat[0], scale, c)
    print(hashlib.sha256(b"".join(q.tobytes() for q in (sums, means, slopes, out, c))).hexdigest())
print(hashlib.sha256(normal_kernel.normal_sums(x[::-1].copy(), index, weight, 7).tobytes()).hexdigest())
print(hashlib.sha256(sums.tobytes()).hexdigest())
"""


def test_the_same_bits_for_any_number_of_threads() -> None:
    """Of the velocity's loops too; sums in another order are not the same bits."""
    env = {**os.environ, "NUMBA_NUM_THREADS": "3", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, check=True, capture_output=True, text=True)
    one, two, three, reverse, straight = done.stdout.split()
    assert one == two == three
    assert reverse != straight

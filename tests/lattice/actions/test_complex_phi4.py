"""phi^4 with a complex mass: symmetries of the action, and complex Langevin on small lattices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lattice.actions.phi4 import ComplexPhi4
from lattice.errors import InputError
from lattice.exact.complex_phi4 import phi4_exact
from lattice.updates.complex_langevin import complex_langevin_update

ACTION = ComplexPhi4(kappa=0.1, lam=0.3, mass=1 + 0.5j)


def fields(shape: tuple[int, ...]) -> torch.Tensor:
    rng = np.random.default_rng(7)
    return torch.from_numpy(rng.normal(size=shape) + 0.3j * rng.normal(size=shape))


@pytest.mark.parametrize("shape", [(1,), (4,), (3, 5), (2, 3, 4)])
def test_symmetries(shape: tuple[int, ...]) -> None:
    z = fields((3, *shape))
    s = ACTION.action(z)
    axes = tuple(range(1, z.dim()))
    assert torch.allclose(ACTION.action(z.roll(1, axes[-1])), s)
    assert torch.allclose(ACTION.action(z.flip(axes)), s)
    assert torch.allclose(ACTION.action(-z), s)
    mirror = ComplexPhi4(ACTION.kappa, ACTION.lam, ACTION.mass.conjugate())
    assert torch.allclose(mirror.action(z.conj()), s.conj())
    assert torch.allclose(mirror.grad(z.conj()), ACTION.grad(z).conj())


def test_extents_one_and_two_are_counted_as_the_sum_says() -> None:
    z = fields((4, 1))
    assert torch.allclose(ACTION.action(z), ((ACTION.mass - 0.2) * z**2 + 0.3 * z**4)[:, 0])
    z = fields((4, 2))
    bonds = -2 * 0.1 * 2 * z[:, 0] * z[:, 1]
    assert torch.allclose(ACTION.action(z), bonds + (ACTION.mass * z**2 + 0.3 * z**4).sum(1))


def test_a_shape_of_five_axes_is_refused() -> None:
    with pytest.raises(InputError, match="1 to 4"):
        ACTION.action(fields((1, 1, 1, 1, 1, 1)))


@pytest.mark.parametrize(
    ("action", "shape"),
    [(ACTION, (2, 2)), (ACTION, (3,)), (ComplexPhi4(0.15, 0.0, 1 + 0.5j), (3, 2))],
)
def test_complex_langevin_gives_the_exact_averages(action: ComplexPhi4, shape: tuple[int, ...]) -> None:
    n, n_times, z = 500, 30, np.zeros((500, *shape), dtype=np.complex128)
    total = np.zeros((3, n), dtype=np.complex128)
    axes = tuple(range(1, z.ndim))
    for t in range(6 + n_times):
        z, _ = complex_langevin_update(
            action, z, seed=5, chains=np.arange(n), trajectory=t, tau=1.0, step=0.02, drift_scale=10.0
        )
        if t >= 6:
            zero_mode = z.sum(axis=axes) ** 2 / math.prod(shape)
            total += np.stack([(z**2).mean(axis=axes), (z**4).mean(axis=axes), zero_mode]) / n_times
    exact = phi4_exact(action, shape)
    wrong = phi4_exact(ComplexPhi4(action.kappa, action.lam, action.mass.conjugate()), shape)
    rows = [(total[0], exact.phi2, wrong.phi2), (total[1], exact.phi4, wrong.phi4)]
    for row, known, control in [*rows, (total[2], exact.zero_mode, wrong.zero_mode)]:
        for part in ("real", "imag"):
            x = getattr(row, part)
            error = x.std(ddof=1) / math.sqrt(n)
            assert abs(x.mean() - getattr(known, part)) < 4 * error
        assert abs(row.imag.mean() - control.imag) > 10 * row.imag.std(ddof=1) / math.sqrt(n)

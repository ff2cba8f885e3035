"""A Gaussian machine on phi^4, where it must fail: two-point functions right, all beyond them wrong."""

from __future__ import annotations

import math

import numpy as np
import torch
from small_models import equilibrium, noise_of
from torch import Tensor

from diffsq.models.momentum import Momenta
from diffsq.models.rbm import GaussianRBM
from diffsq.training.contrastive import Learning, kernel_of, learn
from lattice.actions.phi4 import ScalarPhi4

SHAPE, ACTION, N = (8, 8), ScalarPhi4(0.27, 0.022), 8192
VOLUME = 64


def averaged(phi: Tensor) -> Tensor:
    """<phi_x phi_y> (V, V), averaged over translations, rotations, reflections: the power of each class."""
    p = Momenta(SHAPE)
    power = p.class_mean((p.modes(phi).abs() ** 2).mean(0))
    root = p.colour(torch.eye(VOLUME, dtype=torch.float64).reshape(VOLUME, *SHAPE), power)
    columns = root.flatten(1)
    return columns @ columns


def numbers(phi: Tensor) -> dict[str, tuple[float, float]]:
    """chi_full, Binder's cumulant and phi dS/dphi per site, with errors over 64 parts."""
    m = phi.mean((1, 2))
    dyson = (phi * ACTION.grad(phi)).mean((1, 2))
    parts = [
        (VOLUME * a**2, a**2, a**4, b) for a, b in zip(m.split(N // 64), dyson.split(N // 64), strict=True)
    ]
    means = np.array([[float(q.mean()) for q in part] for part in parts])
    binder = 1 - means[:, 2] / (3 * means[:, 1] ** 2)
    columns = {"chi": means[:, 0], "binder": binder, "dyson": means[:, 3]}
    return {name: (float(c.mean()), float(c.std(ddof=1) / 8)) for name, c in columns.items()}


def test_a_gaussian_machine_has_the_propagator_of_phi4_and_nothing_else() -> None:
    phi = equilibrium(ACTION, SHAPE, N)
    second = averaged(phi)
    mu2 = 1.01 * float(kernel_of(second).max())
    start = GaussianRBM.initial(VOLUME, VOLUME, mu2, 0.02, noise_of("phi4/w", 1, (VOLUME, VOLUME))(0)[0])
    for _, machine in learn(start, second, Learning(0.2, natural=True), 3000):  # noqa: B007
        pass
    assert np.abs(machine.spectrum.numpy() / kernel_of(second) - 1).max() < 1e-3
    drawn = machine.sample(noise_of("phi4/draw", N, (VOLUME,))(0)).reshape(N, *SHAPE)
    true, made = numbers(phi), numbers(drawn)
    assert abs(made["chi"][0] - true["chi"][0]) < 4 * math.hypot(made["chi"][1], true["chi"][1])
    assert abs(true["dyson"][0] - 1) < 4 * true["dyson"][1]
    assert abs(made["dyson"][0] - 1) > 10 * made["dyson"][1]
    assert true["binder"][0] > 0.4
    assert abs(made["binder"][0]) < 4 * made["binder"][1] + 0.03

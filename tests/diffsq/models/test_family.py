"""One model for many theories: what it says of free fields at couplings and sizes that it has never seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_family import KAPPAS, LAM, free_family, free_fields, free_ln_z

from diffsq.models.family import Family, point_of
from diffsq.models.lattice_flow import LatticeFlow, steps_of
from diffsq.models.momentum import Momenta
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.actions.u1 import OneLink
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator


def exact_g(kappa: float, size: int) -> torch.Tensor:
    """Per class."""
    momenta = Momenta((size, size))
    g = torch.from_numpy(free_propagator(kappa, (size, size)).real.copy())
    return momenta.class_mean(g[:, : size // 2 + 1])


@pytest.mark.parametrize(("kappa", "size"), [(0.14, 4), (0.2, 8), (0.19, 8), (0.16, 8), (0.19, 16)])
def test_the_propagator_of_free_fields(kappa: float, size: int) -> None:
    family = free_family()
    point = family.couplings.at(kappa, LAM, size)
    found = family.propagator(point, Momenta((size, size)))
    assert (
        float((found / exact_g(kappa, size)).log().abs().max()) < 0.12
    )  # G(0) of 4096 fields is known to 2 %


@pytest.mark.parametrize(("kappa", "size"), [(0.14, 8), (0.19, 4), (0.19, 8), (0.19, 16)])
def test_the_flow_is_right_where_it_was_not_trained(kappa: float, size: int) -> None:
    model, action = free_family().at(kappa, LAM, size), ScalarPhi4(kappa, LAM)
    assert model.sector is None
    assert model.about["action"] == action.as_dict()
    flow = LatticeFlow(model.base, steps_of(model.base))
    phi = torch.from_numpy(free_fields(kappa, size).phi[::16])
    _, log_w = flow.latent(phi, action.action)
    n = len(log_w)
    ess = math.exp(-float(log_w.var()))
    assert ess > 0.9
    up = -float(torch.logsumexp(-log_w, 0)) + math.log(n)
    error = float((log_w.mean() - log_w).exp().std()) / math.sqrt(n)
    assert abs(up - free_ln_z(kappa, size)) < 4 * error + 1e-3


def test_a_theory_taken_for_another_has_no_weight() -> None:
    model = free_family().at(0.19, LAM, 8)
    phi = torch.from_numpy(free_fields(0.1, 8).phi[::16])
    _, log_w = LatticeFlow(model.base, steps_of(model.base)).latent(phi, ScalarPhi4(0.1, LAM).action)
    assert math.exp(-float(log_w.var())) < 0.5


def test_coefficients_beyond_the_largest_size_are_those_of_the_largest() -> None:
    family = free_family()
    points = [family.couplings.at(0.19, LAM, size) for size in (8, 16)]
    bases = [family.base(p, Momenta((p.size, p.size)), sector=False) for p in points]
    frames = [family.frame(b, p, zero=False) for b, p in zip(bases, points, strict=True)]
    assert torch.equal(frames[0].theory, frames[1].theory)


def test_a_sector_is_what_is_asked_for() -> None:
    family = free_family()
    with pytest.raises(InputError, match="outside"):
        family.at(0.25, LAM, 8)
    sector = family.at(KAPPAS[-1], LAM, 8, sector=True).sector
    assert sector is not None
    assert sector.sector
    point = family.couplings.at(KAPPAS[-1], LAM, 8)
    assert float(sector.centre) == pytest.approx(math.sqrt(point.rho * point.g0) / 8)
    assert float(sector.g[0]) == pytest.approx(point.g0 * (1 - point.rho))


@pytest.mark.parametrize(
    ("action", "shape", "words"),
    [(OneLink(1.0), (8, 8), "the action is one_link"), (ScalarPhi4(0.2, 0.02), (8, 4), "squares"),
     (ScalarPhi4(0.2, 0.02), (8, 8, 8), "squares")],
)  # fmt: skip
def test_other_theories_are_refused(action: object, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        point_of(action, shape)


def test_a_free_scalar_is_a_theory_too() -> None:
    assert point_of(FreeScalar(0.2), (4, 4)) == (0.2, 0.0, 4)


def test_between_couplings_the_propagator_does_not_swing() -> None:
    """Couplings as close in the middle and far apart at the ends as those of phi4-2d: half-way between them
    splines are right, where powers of kappa as many were off by a factor of five."""
    near = [0.2625, 0.265, 0.2675, 0.26875, 0.27, 0.27125, 0.2725, 0.27375, 0.275, 0.2775, 0.28]
    nodes = np.array([0.24, 0.245, 0.25, 0.255, 0.26, *near, 0.285, 0.29, 0.295, 0.3])
    family = Family(1, len(nodes), 2, 16)
    family.couplings.kappa.copy_(torch.from_numpy(nodes)[None])
    places = family.couplings.places

    def rough(place: np.ndarray) -> np.ndarray:
        """As a crossover is: a step of its own width."""
        return np.tanh(12 * place)

    between = (places[1:] + places[:-1]) / 2
    noise = 0.002 * np.random.default_rng(5).normal(size=len(places))
    splines = np.stack([family.splines(float(p)).numpy() for p in (*places, *between)])
    np.testing.assert_allclose(splines.sum(1), 1)
    powers = np.polynomial.chebyshev.chebvander(np.array([*places, *between]), 13)
    worst = []
    for rows in (splines, powers):
        c = np.linalg.lstsq(rows[: len(places)], rough(places) + noise, rcond=None)[0]
        worst.append(np.abs(rows[len(places) :] @ c - rough(between)).max())
    assert worst[0] < 0.15
    assert worst[1] > 0.5  # the control

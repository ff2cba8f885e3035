"""The lifted plaquette: its lifts are the action's weight, its charges those of the partition function."""

from __future__ import annotations

import math

import pytest
import torch

from diffsq.models.plaquette_law import PlaquetteLaw
from lattice.errors import InputError
from lattice.exact.u1 import charge_law, ln_z


def law_of(*harmonics: float) -> PlaquetteLaw:
    return PlaquetteLaw(torch.tensor(harmonics, dtype=torch.float64))


@pytest.mark.parametrize("harmonics", [(0.2,), (2.0,), (96.0,), (1.5, 0.4, -0.1)])
def test_the_sum_over_lifts_is_the_weight_of_the_angle(harmonics: tuple[float, ...]) -> None:
    law, theta = law_of(*harmonics), torch.linspace(-3.1, 3.1, 41, dtype=torch.float64)
    lifts = theta[:, None] + 2 * math.pi * torch.arange(-8, 9, dtype=torch.float64)
    found = torch.logsumexp(law.log_w(lifts), 1)
    assert (found - law.log_angle(theta)).abs().max() < 1e-11


@pytest.mark.parametrize(
    ("beta", "volume"), [(1e-3, 64), (0.3, 16), (1.0, 64), (4.0, 256), (7.0, 4), (96.0, 1024), (384.0, 4096)]
)
def test_its_characteristic_function_is_the_partition_function(beta: float, volume: int) -> None:
    """sum_Q int dnu w^(nu)^V e^{-2 pi i nu Q} = sum_n w^(n)^V = Z, by Poisson's formula."""
    law = law_of(beta)
    c = law.characteristic(torch.arange(-12, 13, dtype=torch.float64))
    power = (c.sign() ** (volume % 2) * c.abs() ** volume).sum()
    found = volume * (beta + law.log_norm - math.log(2 * math.pi)) + float(power.log())
    assert abs(found - ln_z(beta, volume)) < 1e-9 * max(1.0, volume * beta / 100)


def test_charges_of_lifts_are_those_of_angles_where_plaquettes_stay_within_pi() -> None:
    q, log_p = law_of(7.0).charges(256)
    exact = charge_law(7.0, 256)
    known = dict(zip(exact.charge.tolist(), exact.probability.tolist(), strict=True))
    assert all(
        abs(float(p.exp()) - known[int(n)]) < 1e-6 for n, p in zip(q, log_p, strict=True) if abs(n) < 5
    )
    coarse = law_of(1.0).charges(64)
    assert abs(float(coarse[1].exp() @ coarse[0] ** 2) - charge_law(1.0, 64).moment(2)) > 0.05
    assert abs(float(coarse[1].exp().sum()) - 1) < 1e-12


def test_lifts_are_drawn_from_their_law() -> None:
    law, g = law_of(0.7), torch.Generator().manual_seed(5)
    flux, weight = law.grid
    drawn = flux[torch.multinomial(weight, 200_000, True, generator=g)]
    angle = drawn - 2 * math.pi * torch.round(drawn / (2 * math.pi))
    again = law.lifted(angle, torch.rand(len(angle), generator=g, dtype=torch.float64))
    square = again**2
    assert abs(float(square.mean() - law.variance)) < 4 * float(square.std()) / math.sqrt(len(square))
    assert abs(float((angle**2).mean() - law.variance)) > 10 * float(square.std()) / math.sqrt(len(square))


@pytest.mark.parametrize("harmonics", [(-1.0,), (0.0,), (math.nan,)])
def test_laws_that_are_refused(harmonics: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="<cos theta> must be above 0"):
        law_of(*harmonics)

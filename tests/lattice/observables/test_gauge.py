"""Loops and charge of U(1): gauge invariance, Stokes, known instantons, signs under reflection; the table of
measured numbers beside the exact ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lattice.actions.u1 import U1
from lattice.arrays import wrapped
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.u1 import known
from lattice.observables.gauge import (
    charge,
    gauge_definitions,
    loop_angles,
    plaquettes,
    polyakov_loop,
    wilson_loop,
)
from lattice.observables.measure import format_table, measure, two_point
from lattice.observables.names import field_power, in_short_table
from lattice.simulation.gauge_draws import draw_links, links_of


def some(shape: tuple[int, int] = (4, 6), n: int = 5, seed: int = 1) -> Tensor:
    u = torch.rand(n, 2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 2 * math.pi * u - math.pi


def turned(links: Tensor, seed: int = 2) -> Tensor:
    """By a gauge transformation, and wrapped."""
    n, _, *shape = links.shape
    alpha = torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 7
    moved = [links[:, mu] + alpha - alpha.roll(-1, mu + 1) for mu in (0, 1)]
    return wrapped(torch.stack(moved, 1))


def test_gauge_invariance() -> None:
    links, other = some(), turned(some())
    assert (links - other).abs().max() > 1
    torch.testing.assert_close(plaquettes(links), plaquettes(other), rtol=0, atol=1e-12)
    assert torch.equal(charge(links), charge(other))
    for size in ((1, 1), (2, 3), (4, 6)):
        torch.testing.assert_close(wilson_loop(links, *size), wilson_loop(other, *size), rtol=0, atol=1e-12)
    for axis in (0, 1):
        torch.testing.assert_close(polyakov_loop(links, axis), polyakov_loop(other, axis), rtol=0, atol=1e-12)


def test_a_loop_is_the_flux_through_it() -> None:
    links, theta = some(), plaquettes(some())
    for height, width in ((1, 1), (2, 1), (1, 3), (2, 3), (3, 5)):
        flux = sum(theta.roll((-i, -j), (-2, -1)) for i in range(height) for j in range(width))
        assert isinstance(flux, Tensor)
        torch.testing.assert_close(
            (loop_angles(links, height, width) - flux).cos(), torch.ones_like(flux), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("q", [-3, 0, 1, 2])
def test_an_instanton_has_its_charge(q: int) -> None:
    theta = torch.full((1, 4, 6), 2 * math.pi * q / 24, dtype=torch.float64)
    links = torch.from_numpy(links_of(theta.numpy(), torch.tensor([[0.3, -1.0]]).double().numpy()))
    torch.testing.assert_close(plaquettes(links), theta, rtol=0, atol=1e-12)
    assert charge(links).tolist() == [q]
    assert charge(turned(links)).tolist() == [q]


def test_a_reflection_changes_the_sign_of_the_charge() -> None:
    links = some(n=200)
    # x_0 -> -x_0: links of axis 0 change their sense, and begin one site further
    mirrored = torch.stack([-links[:, 0].flip(-2).roll(-1, -2), links[:, 1].flip(-2)], 1)
    assert torch.equal(charge(mirrored), -charge(links))
    exchanged = links.flip(1).transpose(-1, -2)
    assert torch.equal(charge(exchanged), -charge(links))
    assert charge(links).abs().max() >= 1
    moved = links.roll((1, 2), (-2, -1))
    assert torch.equal(charge(moved), charge(links))


def test_loops_around_the_lattice() -> None:
    links = torch.zeros(1, 2, 4, 6, dtype=torch.float64)
    links[:, 0, 2] = 0.7
    links[:, 1, :, 3] = -0.2
    for axis, angle in ((0, 0.7), (1, -0.2)):
        found = complex(polyakov_loop(links, axis)[0])
        assert found == pytest.approx(complex(math.cos(angle), math.sin(angle)))
    assert charge(links).item() == 0


def test_bad_input() -> None:
    with pytest.raises(InputError, match="are \\(n, 2, L0, L1\\), got \\(3, 4, 4\\)"):
        charge(torch.zeros(3, 4, 4))
    with pytest.raises(InputError, match="5 x 1 does not fit on 4 x 6"):
        wilson_loop(some(), 5, 1)
    with pytest.raises(InputError, match="axis must be 0 or 1"):
        polyakov_loop(some(), 2)
    links = some()
    links[0, 0, 0, 0] = math.nan
    with pytest.raises(InputError, match="no whole number"):
        charge(links)


def drawn(beta: float, shape: tuple[int, int], n: int, seed: int = 1, **also: Any) -> Ensemble:
    return Ensemble.from_fields(draw_links(beta, shape, n, seed), U1(beta), np.arange(n) % 16, **also)


def pulls(table: dict[str, Any]) -> dict[str, float]:
    return {k: (e["value"] - e["exact"]) / e["error"] for k, e in table.items() if e["error"]}


@pytest.mark.parametrize(
    ("beta", "shape", "n"),
    [(2.0, (8, 8), 4000), (0.7, (2, 2), 4000), (1.0, (3, 3), 4000), (1.0, (2, 3), 4000), (4.0, (4, 7), 4000)],
)
def test_measured_beside_exact(beta: float, shape: tuple[int, int], n: int) -> None:
    found = measure(drawn(beta, shape, n, seed=4))
    table = found["observables"]
    assert found["two_point"] is None
    assert table.keys() == known(beta, shape).keys()
    assert all(table[name]["exact"] == value for name, value in known(beta, shape).items())
    assert max(map(abs, pulls(table).values())) < 4.5, format_table(found)
    assert all(e["error"] for e in table.values())  # loops around the whole torus are not measured
    assert all(e["tau_int"] == pytest.approx(0.5, abs=0.15) for e in table.values() if e["error"])
    # negative control: another beta
    ratio = table["plaquette"]
    assert abs(ratio["value"] - known(1.1 * beta, shape)["plaquette"]) > 4 * ratio["error"]
    assert table["chi_top"]["value"] == pytest.approx(table["charge2"]["value"] / math.prod(shape))


def test_no_number_knows_gauge_or_period_and_q_is_odd_under_conjugation() -> None:
    ensemble = drawn(2.0, (4, 6), 300)
    links = torch.from_numpy(ensemble.phi)
    table = measure(ensemble)["observables"]
    for other, sign in ((turned(links), 1), (links + 2 * math.pi, 1), (-links, -1)):
        again = measure(Ensemble.from_fields(other.numpy(), U1(2.0), ensemble.chain))["observables"]
        for name, entry in table.items():
            factor = sign if name == "charge" else 1
            assert again[name]["value"] == pytest.approx(factor * entry["value"], abs=1e-12)
            assert again[name]["error"] == pytest.approx(entry["error"], rel=1e-6)


def test_weights_reach_another_beta() -> None:
    """exp(-S') by weights from draws of exp(-S); without them the answers are those of S."""
    n, other = 20_000, U1(2.2)
    phi = draw_links(2.0, (4, 4), n, seed=3)
    s = other.action(torch.from_numpy(phi)) - U1(2.0).action(torch.from_numpy(phi))
    ensemble = Ensemble.from_fields(phi, other, log_weight=-s.numpy())
    table = measure(ensemble)["observables"]
    assert max(map(abs, pulls(table).values())) < 4.5
    raw = measure(ensemble, ignore_weights=True)["observables"]
    assert abs(pulls(raw)["plaquette"]) > 10


def test_creutz_ratios_carry_the_errors_of_their_loops() -> None:
    """Gamma method against the jackknife; and on a large torus they are the string tension."""
    gamma, jack = (
        measure(drawn(2.0, (8, 8), 4000), method=way)["observables"] for way in ("gamma", "jackknife")
    )
    for name in ("creutz_2x2", "creutz_3x3"):
        assert gamma[name]["error"] == pytest.approx(jack[name]["error"], rel=0.2)
        assert known(2.0, (64, 64))[name] == pytest.approx(-math.log(0.6977746579640080), abs=1e-9)
    independent = math.hypot(*(gamma[w]["error"] / gamma[w]["value"] for w in ("wilson_2x2", "plaquette")))
    assert gamma["creutz_2x2"]["error"] < 0.9 * independent  # loops are correlated
    noise = np.random.default_rng(1).uniform(-3, 3, (40, 2, 8, 8))
    entry = measure(Ensemble.from_fields(noise, U1(2.0)))["observables"]["creutz_3x3"]
    assert entry["error"] is None or math.isfinite(entry["error"])


def test_an_s_of_its_own_has_no_exact_numbers() -> None:
    @dataclass(frozen=True)
    class Improved(U1):
        def action(self, phi: Tensor) -> Tensor:
            return 1.1 * super().action(phi)

    table = measure(Ensemble.from_fields(draw_links(1.0, (4, 4), 50, 1), Improved(1.0)))["observables"]
    assert table.keys() == known(1.0, (4, 4)).keys()
    assert not any("exact" in entry for entry in table.values())


def test_names_and_refusals_of_the_table() -> None:
    for name in gauge_definitions((8, 8)):
        assert in_short_table(name)
        assert field_power(name) == 0
    with pytest.raises(InputError, match="unknown observable"):
        field_power("wilson")
    with pytest.raises(InputError, match="two_point needs real fields on a lattice"):
        two_point(drawn(1.0, (4, 4), 20))
    ensemble = drawn(1.0, (4, 4), 20)
    ensemble.phi[3, 0, 0, 0] = math.nan
    with pytest.raises(InputError, match="NaN"):
        measure(ensemble)
    with pytest.raises(InputError, match="NaN or inf"):
        Ensemble.from_fields(ensemble.phi, U1(1.0))
    with pytest.raises(InputError, match=r"fields of U1 are \(n, 2, \*shape\)"):
        Ensemble.from_fields(np.zeros((3, 4, 4)), U1(1.0))

"""Sectors: charges of real parts, independent charges of known chains, groups of starts; and the verdict on
runs of links, trusted where their averages are right and only there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from lattice.actions.complexified import Complexified
from lattice.actions.one_variable import ComplexGaussian
from lattice.actions.u1 import U1, OneLink
from lattice.certificates.complex_langevin import verdict
from lattice.certificates.sectors import (
    charges,
    expected_outside,
    has_sectors,
    independent_charges,
    is_cold,
    is_real,
    topology,
    worst_difference,
)
from lattice.ensembles.ensemble import Ensemble
from lattice.exact.u1 import charge_law
from lattice.observables.measure import measure
from lattice.simulation.complex_langevin import generate_complex
from lattice.simulation.parameters import ComplexLangevin


def telegraph(rate: float, n_chains: int = 400, n_times: int = 400, seed: int = 1) -> np.ndarray:
    """Charges 0 and 1 that change with this probability a step: tau_int is 1/(2 rate) for small rates."""
    rng = np.random.default_rng(seed)
    changes = rng.random((n_chains, n_times)) < rate
    changes[:, 0] = rng.random(n_chains) < 0.5
    return np.cumsum(changes, axis=1) % 2.0


def test_what_has_sectors() -> None:
    assert has_sectors(U1(1.0, 0.5))
    assert not has_sectors(OneLink(1.0))
    assert not has_sectors(ComplexGaussian(1.0))


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.02])
def test_independent_charges_of_a_telegraph(rate: float) -> None:
    """rho(t) = (1 - 2 rate)^t: n/(2 tau_int) of a long chain, 2 tau_int = (1 - rate)/rate."""
    expected = 400 * rate / (1 - rate)
    assert independent_charges(telegraph(rate)) == pytest.approx(expected, rel=4 * math.sqrt(2 / 400) + 0.1)


def test_frozen_chains_fail_and_moving_ones_pass() -> None:
    frozen = np.tile(np.random.default_rng(1).integers(-2, 3, size=(64, 1)).astype(float), (1, 100))
    found = topology(frozen, real=True)
    assert not found["passed"]
    assert found["value"] == pytest.approx(1)
    assert "sectors of its starts" in found["detail"]
    assert not topology(telegraph(0.01), real=True)["passed"]
    moving = telegraph(0.2)
    assert topology(moving, real=True)["passed"]
    astray = topology(moving, real=False)  # the same of a complex law: its plaquettes have passed pi
    assert not astray["passed"]
    assert "pass pi" in astray["detail"]
    for real in (True, False):
        assert topology(np.zeros((64, 100)), real=real)["passed"]  # hot starts included: no sector but one
        once = np.zeros((64, 100))
        once[5, 7:9] = 1
        assert topology(once, real=real)["passed"] == real


def test_sectors_that_were_never_seen_are_counted_on() -> None:
    """beta = 5 on 3 x 3 has 2e-4 of its weight at other charges: theta = 0.3 was wrong by 15 sigma in
    <sin theta_p> in 3840 configurations, all of them at Q = 0. On 2 x 2 there are none."""
    none = np.zeros((64, 60))
    for action, volume, passed in ((U1(5.0, 0.3), 9, False), (U1(5.0, 0.3), 4, True), (U1(5.0), 9, True)):
        expected = expected_outside(action, volume, none.size)
        assert topology(none, real=is_real(action), expected=expected)["passed"] == passed
    assert expected_outside(U1(1e-9 + 1j), 9, 10) == expected_outside(U1(1j), 9, 10) == 10
    assert not topology(none, real=True, expected=expected_outside(U1(2.0), 16, none.size))["passed"]


def test_which_laws_are_real() -> None:
    assert is_real(U1(1.0))
    assert not is_real(U1(1.0, 0.5))
    assert not is_real(U1(1 + 1j))


def test_the_charge_is_that_of_the_real_part() -> None:
    """A uniform flux 2 pi Q/V in an imaginary background."""
    flux, shape = 2 * math.pi * 3 / 16, (4, 4)
    links = np.zeros((1, 1, 2, *shape), complex)
    links[0, 0, 0] -= flux * np.arange(4)[None, :]
    links[0, 0, 1, :, -1] = 4 * flux * np.arange(4)
    z = links + 1j * np.random.default_rng(1).normal(size=links.shape)
    assert charges(U1(1.0), np.concatenate([z, -z], axis=1)).tolist() == [[3, -3]]


def test_groups_of_chains_that_differ_are_told() -> None:
    rng, cold = np.random.default_rng(1), is_cold(np.arange(64))
    assert cold.sum() == 32
    x = {"a": rng.normal(size=64), "b": rng.normal(size=64)}
    scales = {"a": 1.0, "b": 1.0}
    assert worst_difference(x, scales, cold, ~cold)[0] < 4
    x["b"] = x["b"] + 2 * cold
    worst, difference, error, name = worst_difference(x, scales, cold, ~cold)
    assert worst > 4.5
    assert name == "b"
    assert abs(difference - 2) < 4 * error
    assert worst_difference(x, scales, cold, cold & False)[0] == -1


def test_the_verdict_on_frozen_links_is_not_trusted() -> None:
    """Links at the saddle points of their charges, all else in order: hot chains at 1, cold ones at 0."""
    rng, n_chains, n_times, shape = np.random.default_rng(2), 64, 50, (4, 4)
    chain = np.tile(np.arange(n_chains), n_times)
    flux = np.zeros((2, *shape))
    flux[0] -= 2 * math.pi / 16 * np.arange(4)[None, :]
    flux[1, :, -1] = 2 * math.pi / 4 * np.arange(4)
    x = 0.05 * rng.normal(size=(len(chain), 2, *shape)) + flux * ~is_cold(chain)[:, None, None, None]
    phi = np.stack([x, 0.01 * rng.normal(size=x.shape)], axis=1)
    found = verdict(Ensemble.from_fields(phi, Complexified(U1(50.0, 1.0)), chain=chain))
    failed = {check["name"] for check in found["checks"] if not check["passed"]}
    assert {"hot, cold", "topology"} <= failed
    assert not found["passed"]


@dataclass(frozen=True)
class Case:
    """A run of links, its substep, and the checks it must fail."""

    action: U1
    shape: tuple[int, ...]
    step: float
    fails: frozenset[str] = frozenset()


CASES = [
    Case(U1(5 + 0.5j), (2, 2), 0.004),
    Case(U1(5.0, 3.0), (2, 2), 0.004),
    Case(U1(1.0, 0.5), (4, 4), 0.01, frozenset({"drift tail"})),
    Case(U1(0.5, math.pi), (4, 4), 0.02, frozenset({"drift tail"})),
    Case(U1(10 + 1j), (4, 4), 0.01, frozenset({"hot, cold", "topology"})),
    Case(U1(4 + 0.4j), (3, 3), 0.01, frozenset({"topology"})),
    Case(U1(5.0, 0.3), (3, 3), 0.008, frozenset({"topology"})),
]


def largest_pull(ensemble: Ensemble) -> float:
    rows = measure(ensemble)["observables"].values()
    return max(abs(row["value"] - row["exact"]) / row["error"] for row in rows if row["error"])


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.action}")
def test_links_are_trusted_where_the_averages_are_right_and_only_there(case: Case, tmp_path: Path) -> None:
    """Right: a torus with one sector, where the plaquettes stay away from pi. Wrong, by more than 4 sigma:
    large drifts where they do not, frozen charges, and a few passages of pi (0.3 %) without a tail to see."""
    parameters = ComplexLangevin(
        n_configs=64 * 60, n_chains=64, n_therm=20, step=case.step, step_fraction=0.2,
        step_sizes=() if case.fails else (2 * case.step, 3 * case.step),
    )  # fmt: skip
    ensemble = generate_complex(case.action, case.shape, parameters, 3, tmp_path)
    found, worst = ensemble.attrs["certificate"], largest_pull(ensemble)
    failed = {check["name"] for check in found["checks"] if not check["passed"]}
    if case.fails:
        assert worst > 4
        assert case.fails <= failed
        assert not found["passed"]
    else:
        assert worst < 4
        assert found["verdict"] == "trusted", found["reason"]


def test_what_theta_does_is_seen_where_complex_langevin_works(tmp_path: Path) -> None:
    """<sin theta_p> is i 3e-4 at beta = 5, theta = 3 on 2 x 2: nothing without theta, and of its sign."""
    parameters = ComplexLangevin(n_configs=6400, n_chains=64, n_therm=20, step=0.005, step_sizes=())
    ensemble = generate_complex(U1(5.0, 3.0), (2, 2), parameters, 4, tmp_path)
    row = measure(ensemble)["observables"]["Im sine"]
    assert abs(row["value"] - row["exact"]) < 4 * row["error"]
    assert row["value"] > 10 * row["error"]


def test_the_geometric_charge_has_no_drift_and_its_theta_is_never_known(tmp_path: Path) -> None:
    """Q jumps and is constant between: dQ/da = 0 wherever it is, and complex Langevin of exp(i theta Q)
    samples theta = 0. At beta = 1 its <Q^2> is that law's, and not that of theta = 1 by many sigma."""
    beta, theta, shape = 1.0, 1.0, (4, 4)
    z = torch.from_numpy(np.random.default_rng(1).normal(size=(8, 2, *shape)))
    assert torch.equal(U1(beta).order(z), U1(beta).order(z + 1e-7 * torch.randn_like(z)))
    parameters = ComplexLangevin(n_configs=6400, n_chains=64, n_therm=20, step=0.02, step_sizes=())
    ensemble = generate_complex(U1(beta), shape, parameters, 5, tmp_path)
    charge = U1(beta).order(torch.from_numpy(ensemble.phi[:, 0])).numpy()
    means = np.array([(charge[part] ** 2).mean() for part in ensemble.replicas()])
    value, error = means.mean(), means.std(ddof=1) / 8
    law = charge_law(beta, 16)
    weight = law.probability * np.cos(theta * law.charge)
    at_theta = float((weight * law.charge.astype(float) ** 2).sum() / weight.sum())
    assert abs(value - law.moment(2)) < 4 * error
    assert abs(value - at_theta) > 10 * error

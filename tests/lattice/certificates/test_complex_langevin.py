"""The verdict is right: trusted where complex Langevin agrees with quadrature, not trusted where it does not.

The wrong cases are known ones: the quartic without a strip (outside 3 A^2 >= B^2), imaginary noise, the
one-link model at strong complex coupling, and phi^4 with a mass that is mostly imaginary.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT

from lattice.actions.complexified import Complexified
from lattice.actions.one_variable import ComplexGaussian, ComplexQuartic
from lattice.actions.phi4 import ComplexPhi4
from lattice.actions.u1 import OneLink
from lattice.certificates.complex_langevin import verdict
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.observables.measure import format_table, measure
from lattice.simulation.complex_langevin import generate_complex
from lattice.simulation.parameters import ComplexLangevin

SEED, FEW = 3, 16_000  # configurations of a lattice
BUDGET: dict[str, Any] = {
    "n_configs": 40_000, "n_chains": 400, "n_therm": 12, "step": 0.02, "step_sizes": (0.06, 0.1),
    "step_fraction": 0.2,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    action: Any
    trusted: bool
    shape: tuple[int, ...] = ()
    imaginary_noise: float = 0.0


CASES = [
    Case(ComplexGaussian(1 + 1j), True),
    Case(ComplexGaussian(1 + 0.5j), True),
    Case(ComplexGaussian(1 + 1j), True, imaginary_noise=0.5),
    Case(ComplexQuartic(1 + 1j, 1.0), True),
    Case(OneLink(5 + 0.1j), True),
    Case(ComplexPhi4(0.1, 0.3, 1 + 0.5j), True, shape=(2, 2)),
    Case(ComplexQuartic(1 + 5j, 1.0), False),
    Case(ComplexQuartic(0.5 + 4j, 1.0), False),
    Case(ComplexQuartic(1 + 1j, 1.0), False, imaginary_noise=0.5),
    Case(OneLink(1j), False),
    Case(OneLink(0.1 + 1j), False),
    Case(OneLink(1 + 1j), False),
    Case(ComplexPhi4(0.1, 0.3, 0.5 + 2j), False, shape=(2, 2)),
]


def largest_pull(ensemble: Ensemble) -> float:
    """The largest deviation of a moment from its exact value, in sigma."""
    rows = measure(ensemble)["observables"]
    return max(
        abs(row["value"] - row["exact"]) / row["error"]
        for name, row in rows.items()
        if "kappa" not in name and "Dyson" not in name and "exact" in row and row["error"]
    )


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.action}{'+noise' * (c.imaginary_noise > 0)}")
def test_trusted_where_the_moments_are_right_and_only_there(case: Case, tmp_path: Path) -> None:
    n = FEW if case.shape else BUDGET["n_configs"]
    parameters = ComplexLangevin(**(BUDGET | {"n_configs": n, "imaginary_noise": case.imaginary_noise}))
    ensemble = generate_complex(case.action, case.shape, parameters, SEED, tmp_path)
    found = ensemble.attrs["certificate"]
    assert (largest_pull(ensemble) < 4) == case.trusted  # what quadrature says of the run
    assert (found["verdict"] == "trusted") == found["passed"] == case.trusted
    assert found["verdict"] == ("trusted" if case.trusted else "wrong")
    assert found["reason"]
    names = [check["name"].split(" Re ")[0].split(" Im ")[0] for check in found["checks"]]
    assert names == [
        "drift tail", "boundary term", "boundary term", "Schwinger-Dyson", "step size", "starts", "escapes",
        "cut-offs",
    ]  # fmt: skip


def test_the_page_says_how_many_configurations_are_tested() -> None:
    page = (ROOT / "configs/one_variable/README.md").read_text(encoding="utf-8")
    many, few = (f"{n:,}".replace(",", " ") for n in (BUDGET["n_configs"], FEW))
    assert f"On {len(CASES)} cases (a test: {many} configurations each, {few} of φ⁴, seed {SEED})" in page


def ensemble_of(z: np.ndarray, action: Any, n_chains: int = 50) -> Ensemble:
    """z (n,) as an ensemble of equal chains."""
    chain = np.arange(len(z)) % n_chains
    return Ensemble.from_fields(np.stack([z.real, z.imag], axis=1), Complexified(action), chain=chain)


def exact_gaussian(n: int, seed: int = 1) -> np.ndarray:
    """Points of the stationary law of sigma0 = 1 + i."""
    x, y = np.random.default_rng(seed).multivariate_normal([0, 0], [[0.75, -0.25], [-0.25, 0.25]], n).T
    return np.asarray(x + 1j * y)


def check(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(c for c in found["checks"] if c["name"].startswith(name))


def test_each_check_catches_its_own_trouble() -> None:
    action, z = ComplexGaussian(1 + 1j), exact_gaussian(40_000)
    found = verdict(ensemble_of(z, action))
    assert [c["name"] for c in found["checks"] if not c["passed"]] == ["step size"]  # none was given
    assert found["verdict"] == "doubtful"
    assert json.loads(json.dumps(found)) == found

    shifted = verdict(ensemble_of(1.05 * z, action))
    assert not check(shifted, "Schwinger-Dyson")["passed"]

    odd = np.arange(len(z)) % 2 == 1
    starts = verdict(ensemble_of(np.where(odd, 1.1 * z, z), action))
    assert not check(starts, "starts")["passed"]

    assert not check(verdict(ensemble_of(z, action), escapes=1), "escapes")["passed"]

    few = verdict(ensemble_of(z[:400], action))  # nothing is far out among so few
    assert not check(few, "cut-offs")["passed"]
    assert few["verdict"] == "doubtful"

    rng = np.random.default_rng(2)
    spikes = np.where(rng.random(len(z)) < 0.003, 3 * rng.random(len(z)) ** (-1 / 2), 1.0)
    heavy = verdict(ensemble_of(z * spikes, action))
    assert not check(heavy, "drift tail")["passed"]
    assert heavy["verdict"] == "wrong"


@pytest.mark.parametrize(
    ("action", "shape"),
    [
        (ComplexGaussian(20.0), ()), (ComplexQuartic(-10.0, 1.0), ()), (OneLink(1.0), ()),
        (ComplexPhi4(0.1, 0.02, 1.0), (2, 2)),
    ],
    ids=lambda x: type(x).__name__,
)  # fmt: skip
def test_a_real_law_is_trusted(action: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    """Im z is zero up to rounding, some 1e-186 with a scatter that underflows: no deviation is made of it."""
    parameters = ComplexLangevin(n_configs=8000, n_chains=200)
    ensemble = generate_complex(action, shape, parameters, 2, tmp_path)
    assert largest_pull(ensemble) < 4
    assert ensemble.attrs["certificate"]["verdict"] == "trusted", ensemble.attrs["certificate"]["reason"]
    table = format_table({"run": measure(ensemble)})
    assert "inf" not in table


@pytest.mark.parametrize(("wrong", "found"), [(1e-16, False), (1e-6, True)])
def test_a_small_imaginary_part_that_is_wrong_is_found(wrong: float, found: bool) -> None:
    """Negative control: every z turned by an angle that is far below its scatter, but not below rounding."""
    z = np.random.default_rng(3).normal(size=40_000) / np.sqrt(20) * (1 + 1j * wrong)
    judged = verdict(ensemble_of(z, ComplexGaussian(20.0)))
    assert check(judged, "Schwinger-Dyson")["passed"] != found
    odd = np.arange(len(z)) % 2 == 1
    starts = verdict(ensemble_of(np.where(odd, z, z.real), ComplexGaussian(20.0)))
    assert check(starts, "starts")["passed"] != found


def test_the_step_check() -> None:
    action, z = ComplexGaussian(1 + 1j), exact_gaussian(40_000)
    exact = {"Re z^2": 0.5, "Im z^2": -0.5, "Re z^4": 0.0, "Im z^4": -1.5}

    def sizes(slope: float) -> dict[str, Any]:
        rows = [
            {"step": h, "averages": {name: [x + slope * h * h, 0.02] for name, x in exact.items()}}
            for h in (0.1, 0.2, 0.3)
        ]
        return {"step": 0.02, "order": 2, "sizes": rows}

    good = verdict(ensemble_of(z, action), steps=sizes(1.0))
    assert good["verdict"] == "trusted"
    limit = good["steps"]["limits"]["Re z^2"]
    assert abs(limit["limit"] - 0.5) < 4 * limit["limit_error"]
    coarse = sizes(60.0)
    coarse["step"] = 0.08  # the run's own average is the exact one: not what this slope says of its step
    bad = verdict(ensemble_of(z, action), steps=coarse)
    assert not check(bad, "step size")["passed"]
    assert bad["verdict"] == "doubtful"
    lost = {"step": 0.02, "order": 2, "sizes": [{"step": 0.1, "runaway": "ran away"}]}
    assert check(verdict(ensemble_of(z, action), steps=lost), "step size")["detail"] == "ran away"


def test_the_boundary_term_of_one_link_at_imaginary_coupling() -> None:
    """beta = i b: the stationary law is 1/(4 pi cosh^2 y), uniform in x (1808.05187), and B(Y) for e^{iz} has
    its plateau at i b/2: e^{iz} averages to 0, where I_1/I_0 is not."""
    rng = np.random.default_rng(6)
    n, b = 400_000, 0.8
    z = rng.uniform(-np.pi, np.pi, n) + 1j * np.arctanh(2 * rng.random(n) - 1)
    found = verdict(ensemble_of(z, OneLink(1j * b), n_chains=100))
    curve = found["boundary"]["Im e^{iz}"]
    for i, weight in enumerate(curve["weight"]):
        if 3e-4 < weight < 0.02:
            correction = 1.2 * b * weight  # the plateau is reached as the weight beyond Y goes to 0
            assert abs(curve["value"][i] - b / 2) < 4 * curve["error"][i] + correction
    assert found["verdict"] == "wrong"
    assert not check(found, "boundary term Im e^{iz}")["passed"]


def test_refusals() -> None:
    z = exact_gaussian(4000)
    with pytest.raises(InputError, match="complex fields"):
        verdict(Ensemble.from_fields(np.ones((20, 2)), ComplexGaussian(1.0)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="16 or more chains"):
        verdict(ensemble_of(z, ComplexGaussian(1 + 1j), n_chains=8))
    uneven = Ensemble.from_fields(
        np.stack([z.real, z.imag], 1), Complexified(ComplexGaussian(1 + 1j)), chain=np.arange(4000) % 30
    )
    with pytest.raises(InputError, match="equal length"):
        verdict(uneven)

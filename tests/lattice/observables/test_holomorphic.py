"""One variable and complex fields: moments, cumulants and their errors, exact numbers beside them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lattice.actions.complexified import Complexified
from lattice.actions.one_variable import ComplexGaussian, ComplexQuartic, RealQuartic, TwoPeak
from lattice.actions.phi4 import ComplexPhi4, ScalarPhi4
from lattice.actions.u1 import OneLink
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.one_variable import toy_cumulants, toy_moments
from lattice.observables.holomorphic import (
    NAMES,
    ODD,
    blocks_of,
    estimates,
    exact_numbers,
    numbers,
    parts,
    variable,
)
from lattice.observables.measure import format_table, measure, two_point
from lattice.rng import normals
from lattice.simulation.complex_langevin import generate_complex
from lattice.simulation.exact_draws import draw_toy
from lattice.simulation.parameters import ComplexLangevin

BUDGET = ComplexLangevin(n_configs=40_000, n_chains=400, n_therm=12, step=0.02, step_sizes=())
N = 100_000
GAUSSIAN = Complexified(ComplexGaussian(1 + 1j))


@pytest.fixture(scope="module")
def quartic(tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    return generate_complex(ComplexQuartic(1 + 1j, 1.0), (), BUDGET, 8, tmp_path_factory.mktemp("q"))


def pulls(table: dict[str, Any]) -> dict[str, float]:
    rows = {name: row for name, row in table["observables"].items() if row["error"] and "exact" in row}
    return {name: (row["value"] - row["exact"]) / row["error"] for name, row in rows.items()}


def gaussian(seed: int, n: int = N) -> np.ndarray:
    """(x, y) with <z^2> = 1/sigma0 = (1 - i)/2: the stationary law of complex Langevin at sigma0 = 1 + i."""
    eps = normals(seed, "toy_table/z", np.array([0]), 0, 2 * n).reshape(n, 2)
    return eps @ np.linalg.cholesky(np.array([[0.75, -0.25], [-0.25, 0.25]])).T


def gaussian_z(seed: int, n: int = N) -> np.ndarray:
    return gaussian(seed, n) @ np.array([1, 1j])


@pytest.mark.parametrize("method", ["gamma", "jackknife"])
def test_the_quartic(quartic: Ensemble, method: Any) -> None:
    table = measure(quartic, method=method)
    rows = table["observables"]
    assert list(rows) == [
        f"{part} {name}" for name in (*NAMES, *ODD, "Schwinger-Dyson") for part in ("Re", "Im")
    ]
    exact = toy_cumulants(quartic.action, 8)
    for n in (2, 4, 6, 8):
        assert rows[f"Im kappa{n}"]["exact"] == pytest.approx(exact[n - 1].imag)
        assert rows[f"Re m{n}"]["exact"] == pytest.approx(toy_moments(quartic.action, [n])[0].real)
    assert len(pulls(table)) == len(rows)
    assert max(map(abs, pulls(table).values())) < 4
    assert rows["Re Schwinger-Dyson"]["value"] == pytest.approx(1, abs=0.05)
    assert json.loads(json.dumps(table)) == table
    text = format_table(table)
    assert "0.428142" in text
    assert "odd moments at their exact value 0" in text
    assert ("tau_int" in text) == (method == "gamma")
    if method == "gamma":
        assert max(row["tau_int"] for row in rows.values()) < 3


def test_the_errors_are_those_of_independent_chains(quartic: Ensemble) -> None:
    """The Gamma method against the scatter of the chain means, of a moment and of a cumulant; the usual
    errors are those of the final table of a run; neither method contradicts the other."""
    z = variable(quartic.phi).reshape(100, 400)  # times, chains
    gamma, usual = measure(quartic, method="gamma"), measure(quartic)
    means = (z**2).mean(axis=0).real
    assert gamma["observables"]["Re m2"]["error"] == pytest.approx(means.std(ddof=1) / 20, rel=0.15)
    m = np.stack([(z**n).mean(axis=0) for n in (2, 4, 6, 8)])
    left_out = numbers((m.sum(axis=1) - m.T) / 399)[:, -1].imag
    error = math.sqrt(399 / 400 * np.sum((left_out - left_out.mean()) ** 2))
    assert gamma["observables"]["Im kappa8"]["error"] == pytest.approx(error, rel=0.2)
    assert usual["method"].startswith("jackknife over 256 blocks of whole chains")
    found = estimates(variable(quartic.phi), blocks_of(quartic))
    for name in NAMES:
        for label, part in parts(name, True):
            assert usual["observables"][label]["value"] == pytest.approx(
                found[name]["value"][part], rel=1e-12
            )
            assert usual["observables"][label]["error"] == pytest.approx(found[name]["error"][part], rel=1e-9)
    for name, row in usual["observables"].items():
        assert row["error"] == pytest.approx(gamma["observables"][name]["error"], rel=0.5)


def test_a_wrong_action_is_far_off(quartic: Ensemble) -> None:
    """Negative control: the same fields called those of another coupling."""
    wrong = Complexified(ComplexQuartic(1 + 1.2j, 1.0))
    found = pulls(measure(Ensemble.from_fields(quartic.phi, wrong, quartic.chain, quartic.trajectory)))
    assert abs(found["Im m2"]) > 10
    assert abs(found["Im Schwinger-Dyson"]) > 10


def test_the_even_cumulants_of_exact_moments() -> None:
    for action in (ComplexQuartic(1 + 1j, 1.0), ComplexGaussian(1 + 0.5j)):
        moments, kappa = toy_moments(action, [2, 4, 6, 8]), toy_cumulants(action, 8)
        assert np.allclose(numbers(moments), [*moments, *kappa[1::2]], atol=1e-9)


@pytest.mark.parametrize(
    ("action", "shape", "names"),
    [
        (OneLink(5 + 0.1j), (), ["e^{iz}", "e^{2iz}", "e^{3iz}", "e^{4iz}", "Schwinger-Dyson"]),
        (ComplexPhi4(0.1, 0.3, 1 + 0.5j), (2, 2), ["phi2", "phi4", "G0", "Schwinger-Dyson"]),
        (ComplexPhi4(0.1, 0.3, 1 + 0.5j), (2, 3), ["phi2", "phi4", "G0", "Schwinger-Dyson"]),
    ],
)
@pytest.mark.parametrize("method", ["gamma", "jackknife"])
def test_other_models(
    action: Any, shape: tuple[int, ...], names: list[str], method: Any, tmp_path: Path
) -> None:
    parameters = BUDGET.model_copy(update={"n_configs": 12_000})
    ensemble = generate_complex(action, shape, parameters, 4, tmp_path)
    table = measure(ensemble, method=method)
    assert list(table["observables"]) == [f"{part} {name}" for name in names for part in ("Re", "Im")]
    known = ["Schwinger-Dyson"] if shape == (2, 3) else names
    assert list(pulls(table)) == [f"{part} {name}" for name in known for part in ("Re", "Im")]
    assert max(map(abs, pulls(table).values())) < 4
    assert "z -> -z" not in format_table(table)
    with pytest.raises(InputError, match="two_point needs real fields on a lattice"):
        two_point(ensemble)


def test_real_couplings_and_chains_of_few_configurations() -> None:
    """An imaginary part that vanishes has no error and says so; short chains are what the jackknife takes."""
    phi = np.stack([np.random.default_rng(1).normal(size=200), np.zeros(200)], axis=1)
    ensemble = Ensemble.from_fields(phi, Complexified(ComplexGaussian(1.0)), chain=np.arange(200) % 40)
    rows = measure(ensemble)["observables"]
    assert abs(pulls(measure(ensemble))["Re m2"]) < 4
    assert rows["Im m2"]["error"] is None
    assert "Im m2: constant" in format_table(measure(ensemble))
    assert "short" in measure(ensemble, method="gamma")["observables"]["Re m2"]["reason"]


def test_draws_of_two_peaks_and_their_noise() -> None:
    """A real variable, exact draws: rows without Re and Im; samples with noise give the law without it."""
    action, sigma = TwoPeak(1.0, 0.25), 0.3
    phi = draw_toy(action, N, seed=3)
    table = measure(Ensemble.from_fields(phi, action))
    assert list(table["observables"]) == [*NAMES, *ODD, "Schwinger-Dyson"]
    assert table["observables"]["kappa8"]["exact"] == pytest.approx(-272.0, rel=1e-12)
    assert max(map(abs, pulls(table).values())) < 4.5
    noisy = phi + sigma * normals(5, "toy_table/noise", np.array([0]), 0, N).reshape(N, 1)
    mended = measure(Ensemble.from_fields(noisy, action, attrs={"about": {"noise2": sigma**2}}))
    assert list(mended["observables"]) == list(NAMES)
    assert max(map(abs, pulls(mended).values())) < 4.5
    assert abs(pulls(measure(Ensemble.from_fields(noisy, action)))["m2"]) > 10  # negative control


@pytest.mark.parametrize("method", ["gamma", "jackknife"])
def test_weights_turn_one_law_into_another(method: Any) -> None:
    """x, y of one complex Gaussian weighted to another: w = exp(-S_r + S_q) of real parts' densities."""
    phi, target = gaussian(6), np.array([[0.7, -0.2], [-0.2, 0.3]])
    inverses = [np.linalg.inv(c) for c in (np.array([[0.75, -0.25], [-0.25, 0.25]]), target)]
    log_weight = 0.5 * sum(s * np.sum((phi @ m) * phi, axis=1) for s, m in zip((1, -1), inverses))
    ensemble = Ensemble.from_fields(phi, GAUSSIAN, log_weight=log_weight)
    found, drawn = measure(ensemble, method=method), measure(ensemble, ignore_weights=True)
    assert 0.3 < found["ensemble"]["ess"] < 1
    for part, exact in (("Re", 0.7 - 0.3), ("Im", -0.4)):
        row = found["observables"][f"{part} m2"]
        assert abs(row["value"] - exact) < 4.5 * row["error"]
    assert max(map(abs, pulls(drawn).values())) < 4.5
    assert abs(pulls(found)["Re m2"]) > 10  # the target is not the action's own law
    assert "ESS/N" in format_table(found)


def test_what_is_one_variable() -> None:
    """An action with hopping, and one that is not even, keep the table of real fields."""
    phi = draw_toy(RealQuartic(1.0, 0.4), 400, 1)
    assert "kappa4" in measure(Ensemble.from_fields(phi, ScalarPhi4(0.2, 0.1)))["observables"]
    assert "binder" in measure(Ensemble.from_fields(phi, ScalarPhi4(0.2, 0.1)))["observables"]

    class Tilted(RealQuartic):
        even = False

        def action(self, z: Any) -> Any:
            return super().action(z) + z.sum(dim=-1)

    tilted: Any = Tilted(1.0, 0.4)
    assert "kappa3" in measure(Ensemble.from_fields(phi, tilted))["observables"]
    lattice = Ensemble.from_fields(phi.reshape(-1, 2, 2), RealQuartic(1.0, 0.4))
    assert "binder" in measure(lattice)["observables"]


def test_a_complex_law_that_is_not_even_has_no_table_of_even_moments() -> None:
    class Shifted(ComplexGaussian):
        even = False

        def action(self, z: Any) -> Any:
            return super().action(z) + z

    fields = Ensemble.from_fields(gaussian(1, 100), Complexified(Shifted(1 + 1j)))
    with pytest.raises(InputError, match=r"laws symmetric under z -> -z only"):
        measure(fields)


def test_complex_gaussian_within_its_errors() -> None:
    found = estimates(gaussian_z(1), np.arange(N) // 500)
    exact = exact_numbers(GAUSSIAN)
    for name in NAMES:
        for part in (0, 1):
            assert abs(found[name]["value"][part] - exact[name][part]) < 4.5 * found[name]["error"][part]
    assert abs(found["m4"]["value"][1]) > 10 * found["m4"]["error"][1]  # -3/2, not zero
    wrong = exact_numbers(Complexified(ComplexGaussian(1 + 1.5j)))
    assert abs(found["m2"]["value"][1] - wrong["m2"][1]) > 10 * found["m2"]["error"][1]


def test_errors_cover() -> None:
    """The pulls of 200 independent sets scatter like a unit normal."""
    found = []
    for seed in range(200):
        entry = estimates(gaussian_z(seed, 2000), np.arange(2000) // 20)["m4"]
        found.append((entry["value"][1] + 1.5) / entry["error"][1])
    assert abs(np.std(found) - 1) < 4 / math.sqrt(2 * 200)
    assert abs(np.mean(found)) < 4 / math.sqrt(200) + 0.15  # a ratio: the error knows the value


def test_two_peaks_against_closed_forms() -> None:
    action = TwoPeak(1.0, 0.25)
    ensemble = Ensemble.from_fields(draw_toy(action, N, seed=3), action)
    found = estimates(variable(ensemble.phi), blocks_of(ensemble))
    for name, exact in {"kappa2": 1.0625, "kappa4": -2.0, "kappa6": 16.0, "kappa8": -272.0}.items():
        assert exact_numbers(action)[name][0] == pytest.approx(exact, rel=1e-12)
        assert abs(found[name]["value"][0] - exact) < 4.5 * found[name]["error"][0]
        assert found[name]["error"][1] == 0


def test_noise_is_taken_off_the_second_cumulant_only() -> None:
    action, sigma = TwoPeak(1.0, 0.25), 0.3
    phi = draw_toy(action, N, seed=4)[:, 0]
    block = np.arange(N) // 500
    noisy = phi + sigma * normals(5, "toy_table/noise", np.array([0]), 0, N)[0]
    clean, raw, mended = estimates(phi, block), estimates(noisy, block), estimates(noisy, block, sigma**2)
    assert raw["kappa2"]["value"][0] - mended["kappa2"]["value"][0] == pytest.approx(sigma**2)
    for name in ("m2", "m4", "m6"):
        error = math.hypot(clean[name]["error"][0], mended[name]["error"][0])
        assert abs(clean[name]["value"][0] - mended[name]["value"][0]) < 4.5 * error
        assert abs(clean[name]["value"][0] - raw[name]["value"][0]) > 10 * error
    assert raw["kappa4"]["value"] == mended["kappa4"]["value"]


def test_blocks_are_whole_chains() -> None:
    phi = np.zeros((64, 2)) + 0.5
    chain = np.tile(np.arange(32), 2)
    ensemble = Ensemble.from_fields(phi, Complexified(ComplexQuartic(1.0, 1.0)), chain=chain)
    block = blocks_of(ensemble)
    assert (block[:32] == block[32:]).all()
    assert len(set(block.tolist())) == 32
    one = Ensemble.from_fields(phi, Complexified(ComplexQuartic(1.0, 1.0)))
    assert (np.diff(blocks_of(one)) >= 0).all()


def test_few_markov_chains_have_errors_that_know_their_autocorrelation() -> None:
    """AR(1) of a unit Gaussian, 4 chains stored time by time: tau_int of x^2 is 1/2 + r^2/(1 - r^2)."""
    n, r = 2000, 0.95
    x = np.random.default_rng(2).normal(size=(n, 4))
    for t in range(1, n):
        x[t] = r * x[t - 1] + math.sqrt(1 - r * r) * x[t]
    chain, time = np.tile(np.arange(4), n), np.repeat(np.arange(n), 4)
    ensemble = Ensemble.from_fields(x.reshape(-1, 1), RealQuartic(1.0, 0.0), chain, time)
    expected = math.sqrt((1 + r * r) / (1 - r * r) * 2 / (4 * n))
    assert measure(ensemble)["method"].startswith("Gamma method")
    for method in (None, "jackknife"):
        error = measure(ensemble, method=method)["observables"]["m2"]["error"]
        assert error == pytest.approx(expected, rel=0.4), method
    one = ensemble.select(chain == 0)
    assert measure(one)["method"].startswith("jackknife")  # of draws, as far as it says
    one.attrs["stride"] = 1
    assert measure(one)["method"].startswith("Gamma method")


def test_bad_input() -> None:
    with pytest.raises(InputError, match="1 of 20 samples are NaN"):
        estimates(np.array([math.nan] + [1.0] * 19), np.arange(20))
    few = Ensemble.from_fields(np.ones((8, 1)), TwoPeak(1.0, 0.25))
    with pytest.raises(InputError, match="too few"):
        blocks_of(few)
    with pytest.raises(InputError, match="too few"):
        measure(few)
    with pytest.raises(InputError, match="method must be"):
        measure(few, method="bootstrap")  # type: ignore[arg-type]


def test_rows() -> None:
    assert [label for label, _ in parts("m2", True)] == ["Re m2", "Im m2"]


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6])
def test_exact_numbers_are_cut_at_rounding_relative_to_their_size(size: float) -> None:
    """m_8 = 105/sigma0^4 is 1e-22 at sigma0 = 1e6, and no rounding of anything."""
    exact = exact_numbers(ComplexGaussian(size * (1 + 1j)))
    for order, factor in ((2, 1), (4, 3), (6, 15), (8, 105)):
        wanted = factor / (size * (1 + 1j)) ** (order / 2)
        assert complex(*exact[f"m{order}"]) == pytest.approx(wanted, rel=1e-9)
    assert exact["m4"][0] == exact["kappa4"][0] == exact["kappa8"][1] == 0.0

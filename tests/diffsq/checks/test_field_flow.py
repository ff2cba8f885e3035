"""`check field-flow`: ends in a temperature and a field, or none; the line of the largest C; the mixture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_spins import enumerated

from diffsq.checks import field_flow
from diffsq.checks.perform import serves
from diffsq.config.config import config_from_dict
from diffsq.config.spins import FlowRun
from diffsq.models.binary_rbm import BinaryRBM
from diffsq.run_folder.finished import DynamicsBench
from diffsq.training.dynamics import read_rows, train_rows
from diffsq.training.grid import make_grid
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.ising import moments_in_field
from lattice.progress import Silent

CD: dict[str, Any] = {"n_hidden": 8, "rate": 0.05, "n_steps": 200, "batch": 50, "biases": True}
RUN: dict[str, Any] = {
    "name": "fields", "models": ["spin_flow"], "lattice": {"shape": [4, 4]},
    "ensemble": {"temperatures": [2.0, 4.0], "fields": [0.5, 1.0], "n_configs": 400, "n_chains": 20,
                 "n_therm": 50},
    "training": {"n_seeds": 5, "n_chains": 64, "n_sweeps": 60, "thermometer": None,
                 "rows": [CD, {**CD, "n_steps": 0, "biases": False}]},
    "checks": {"spin-flow": False, "field-flow": {}},
}  # fmt: skip
LEARNED, RANDOM = range(2)


def config_of(**change: Any) -> FlowRun:
    found = config_from_dict({**RUN, **change})
    assert isinstance(found, FlowRun)
    return found


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> DynamicsBench:
    folder, config = tmp_path_factory.mktemp("fields"), config_of()
    identity = make_grid(config, folder / "ensemble", Silent())
    train_rows(config, folder / "train", Silent(), folder / "ensemble", identity)
    return DynamicsBench(folder, config, read_rows(config, folder / "train"))


@pytest.fixture(scope="module")
def found(bench: DynamicsBench) -> dict[str, Any]:
    result = field_flow.run(bench, Silent())
    json.dumps(result, allow_nan=False)
    return result


def squared(t: float, h: float) -> float:
    """<m^2> of 4 x 4 spins in a field, of all states."""
    states, p = enumerated(4, t)
    m = states.mean(1)
    w = p * np.exp(16 * h * (m - 1) / t)
    return float(w @ m**2 / w.sum())


def with_ends(
    monkeypatch: pytest.MonkeyPatch, u: float, m: float, apart: float = 0.0, m2: float | None = None,
    scatter: float = 1e-4,
) -> dict[str, Any]:  # fmt: skip
    """The result where all ends of the only row are (u, m, m^2), u and m to `scatter`, `apart` sigma between
    starts."""
    numbers = iter(range(10**6))

    def end(*_: Any) -> tuple[Floats, Floats]:
        i = next(numbers)
        hot, seed = i % 2, i // 2
        shake = scatter * math.sin(3 * seed + 1)
        values = np.array(
            [u + shake, m - shake, m**2 if m2 is None else m2, 0.1]
        ) + hot * apart * 0.003 / math.sqrt(5)
        return values, np.full(4, 0.003 / math.sqrt(2))

    weights = BinaryRBM(torch.zeros(5, 16, 2))
    monkeypatch.setattr(field_flow, "read_machines", lambda *_: {200: weights})
    monkeypatch.setattr(field_flow, "flow", lambda *_: None)
    monkeypatch.setattr(field_flow, "signed_end", end)
    row = {"row": config_of().training.rows[0].model_dump(), "followed": [200], "sha256": "0", "n_sites": 16}
    return field_flow.run(DynamicsBench(Path(), config_of(), {"flow-0": row}), Silent())


def test_a_row_and_its_end(found: dict[str, Any]) -> None:
    """Learned spins in fields point along them; both starts end alike."""
    learned = found["rows"][LEARNED]
    assert found["passed"] is not (learned["apart"] > 4 or found["rows"][RANDOM]["apart"] > 4)
    assert learned["m"][0] > 0.5
    assert learned["u"][0] < -1
    assert 0 <= learned["n_found"] <= 5
    assert abs(found["rows"][RANDOM]["u"][0]) < 4.5 * found["rows"][RANDOM]["u"][1] + 0.02
    assert "t" not in found["rows"][RANDOM], "free spins are hotter than any"


def test_the_mixture_is_that_of_the_grid(found: dict[str, Any]) -> None:
    """u and m exactly, and the place that they read as."""
    pairs = [moments_in_field((4, 4), t, h) for t in (2.0, 4.0) for h in (0.5, 1.0)]
    u, m = np.mean(pairs, axis=0)
    null = found["mixture"]
    assert (null["u"], null["m"]) == pytest.approx((u, m), abs=1e-12)
    assert null["found"] is True
    assert moments_in_field((4, 4), null["t"], null["h"]) == pytest.approx((u, m), abs=1e-6)


def test_the_line_of_the_largest_specific_heat(found: dict[str, Any]) -> None:
    """Rises with the field."""
    h, t, c = np.array(found["line"]).T
    assert h.tolist() == list(field_flow.LINE)
    assert (np.diff(t) > 0).all()
    assert (c > 0.5).all()


def test_a_place_on_the_line_and_one_off_it(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any]) -> None:
    """Of spins at T and H, read back; 0.5 below the line they are not on it."""
    t, h = next((t, h) for h, t, _ in found["line"] if h == 1.0)
    on = with_ends(monkeypatch, *moments_in_field((4, 4), t, h), m2=squared(t, h))
    row = on["rows"][0]
    assert row["n_found"] == 5
    assert row["t"][0] == pytest.approx(t, abs=0.02)
    assert row["h"][0] == pytest.approx(h, abs=0.02)
    assert row["hottest"] == pytest.approx(t, abs=0.02)
    assert field_flow.verdict_of(row) == "on the line of the largest C"
    assert on["passed"] is True
    below = with_ends(monkeypatch, *moments_in_field((4, 4), t - 0.5, h), m2=squared(t - 0.5, h))
    off = below["rows"][0]
    assert off["off"] > 4
    assert "off the line of the largest C" in field_flow.verdict_of(off)


def test_the_third_moment_must_fit(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any]) -> None:
    """u and m of a place on the line with <m^2> of none: as of spins whose m does not fluctuate."""
    t, h = next((t, h) for h, t, _ in found["line"] if h == 1.0)
    u, m = moments_in_field((4, 4), t, h)
    known = squared(t, h)
    assert field_flow._m2((4, 4), t, h) == pytest.approx(known, abs=1e-7)
    row = with_ends(monkeypatch, u, m)["rows"][0]
    assert "t" in row
    assert row["m2"][0] == pytest.approx(m**2 - known, abs=1e-3)
    assert row["m2"][2] > 4
    assert field_flow.verdict_of(row).startswith("no (T, H): <m^2> is ")


def test_a_wide_scatter_is_undecided(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any]) -> None:
    """Ends on the line in the mean, with temperatures so unlike that it might be 0.1 off."""
    t, h = next((t, h) for h, t, _ in found["line"] if h == 1.0)
    place = moments_in_field((4, 4), t, h)
    row = with_ends(monkeypatch, *place, m2=squared(t, h), scatter=0.05)["rows"][0]
    assert row["n_found"] == 5
    assert row["off"] < 4
    assert abs(row["gap"][0]) < 0.1 < abs(row["gap"][0]) + 2.8 * row["gap"][1]
    assert field_flow.verdict_of(row).startswith("undecided: ")


def test_independent_spins_have_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """u = -2 m^2, which a machine of few nodes ends in: no T and H, in words and in the figure."""
    found = with_ends(monkeypatch, -2 * 0.6**2, 0.6)
    row = found["rows"][0]
    assert "t" not in row
    assert row["n_found"] == 0
    assert row["mean_field"] == pytest.approx(0, abs=1e-3)
    assert "(T, H) in 0 of the seeds' ends only" in field_flow.text(found)
    assert len(field_flow.figure(found).axes) == 2


@pytest.mark.parametrize(("apart", "passed"), [(0.5, True), (8.0, False)])
def test_starts_that_do_not_agree_do_not_pass(
    monkeypatch: pytest.MonkeyPatch, apart: float, passed: bool
) -> None:
    found = with_ends(monkeypatch, *moments_in_field((4, 4), 3.0, 0.5), apart=apart)
    assert found["rows"][0]["apart"] == pytest.approx(apart, rel=0.2)
    assert found["passed"] is passed
    assert field_flow.text(found).endswith("passed" if passed else "sigma apart")
    words = field_flow.verdict_of(found["rows"][0])
    assert words.startswith("no end: cold and hot starts ") is not passed
    cold, hot = (found["rows"][0][start]["m"][0] for start in ("cold", "hot"))
    assert hot - cold == pytest.approx(apart * 0.003 / math.sqrt(5), abs=1e-12)
    assert found["rows"][0]["m"][0] == pytest.approx(cold if not passed else (cold + hot) / 2, abs=1e-12)


def test_sweeps_instead_of_the_configs(bench: DynamicsBench, monkeypatch: pytest.MonkeyPatch) -> None:
    made, flow = [], field_flow.flow
    monkeypatch.setattr(field_flow, "flow", lambda *given: made.append(flow(*given)) or made[-1])
    one = DynamicsBench(bench.folder, bench.config, {"flow-1": bench.rows["flow-1"]})
    field_flow.run(one, Silent(), n_sweeps=12)
    assert [len(x.series) for x in made] == [13] * 10


def test_words_and_figure(found: dict[str, Any]) -> None:
    text = field_flow.text(found)
    lines = text.splitlines()
    assert lines[0].startswith("machines")
    assert lines[0].endswith("verdict")
    for words in ("scatter of 5 seeds; largest C on this torus at T = ", "(H = 0.25)", "(H = 2)",
                  "a machine without fault ends in the mixture: u = ", "random W, N_h 8"):  # fmt: skip
        assert words in text
    assert len(field_flow.figure(found).axes) == 2


def test_refusals(bench: DynamicsBench) -> None:
    for shape in ([11, 11], [4, 5], [16], [4, 4, 4]):
        config = config_of(lattice={"shape": shape})
        with pytest.raises(InputError, match="is for square tori up to 10 sites"):
            field_flow.run(DynamicsBench(Path(), config, {}), Silent())
    rows = {**RUN["training"], "rows": [{**CD, "units": "bit"}]}
    potts = config_of(ensemble={"q": 3, "temperatures": [1.0]}, training={**rows, "n_seeds": 4})
    with pytest.raises(InputError, match="of Ising spins"):
        field_flow.run(DynamicsBench(Path(), potts, {}), Silent())
    assert serves("field-flow", bench)


def test_free_spins_have_no_magnetisation(found: dict[str, Any]) -> None:
    value, error = found["rows"][RANDOM]["m"]
    assert abs(value) < 4.5 * error + 0.02


def test_the_mixture_has_the_ground_state() -> None:
    ensemble = {"temperatures": [2.0, 4.0], "ground_state": True}
    null = field_flow.run(DynamicsBench(Path(), config_of(ensemble=ensemble), {}), Silent())["mixture"]
    u = (-2 + sum(moments_in_field((4, 4), t, 0.0)[0] for t in (2.0, 4.0))) / 3
    assert null["u"] == pytest.approx(u, abs=1e-9)

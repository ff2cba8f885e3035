"""`check spin-flow`: a small run to its end; what no control may be called; three thermometers."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffsq.analysis import potts_thermometers
from diffsq.checks import spin_flow
from diffsq.checks.perform import serves
from diffsq.config.config import config_from_dict
from diffsq.config.spins import FlowRun
from diffsq.exactness.annealed import base_field
from diffsq.pipeline import run
from diffsq.run_folder.finished import DynamicsBench, open_run
from diffsq.run_folder.records import STAGES
from diffsq.training.dynamics import read_rows, train_rows
from diffsq.training.grid import make_grid
from diffsq.training.spin_grid import data_of, read_grid
from diffsq.training.spin_rows import read_machines
from lattice.errors import InputError
from lattice.exact.ising import CRITICAL, potts_temperature, torus
from lattice.files import read_json
from lattice.progress import Silent
from lattice.rng import stream_id

CD: dict[str, Any] = {"n_hidden": 8, "rate": 0.03, "n_steps": 400, "batch": 50}
NETWORK = {"n_steps": 200, "widths": [16]}
RUN: dict[str, Any] = {
    "name": "flow", "models": ["spin_flow"], "lattice": {"shape": [4, 4]},
    "ensemble": {"temperatures": [0.25, 1.5, 2.25, 3.0, 4.0], "ground_state": True, "n_configs": 640,
                 "n_chains": 20, "n_therm": 50},
    "training": {"n_seeds": 5, "n_chains": 32, "n_sweeps": 40, "thermometer": NETWORK,
                 "rows": [{**CD, "at": [50]}, {**CD, "n_steps": 0}, {**CD, "shuffled": True},
                          {**CD, "part": [3, 4], "n_steps": 40},
                          {**CD, "method": "pcd", "units": "bit", "biases": True, "n_steps": 100}]},
}  # fmt: skip
TRAINED, RANDOM, SHUFFLED, PART, PERSISTENT = range(5)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole run but its figure and report."""
    folder = tmp_path_factory.mktemp("flow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spin_flow, "N_ANNEAL", 100)
        patch.setattr(spin_flow, "figure", lambda _: None)
        run(config_from_dict(RUN), folder / "run", STAGES[:-1], say=lambda _: None)
    return folder / "run"


@pytest.fixture(scope="module")
def content(finished: Path) -> dict[str, Any]:
    found = read_json(finished / "checks" / "spin-flow.json")
    json.dumps(found, allow_nan=False)
    return found


@pytest.fixture
def bench(finished: Path, monkeypatch: pytest.MonkeyPatch) -> DynamicsBench:
    """The finished run, to be checked again in little time."""
    monkeypatch.setattr(spin_flow, "N_ANNEAL", 10)
    found = open_run(finished)
    assert isinstance(found, DynamicsBench)
    return found


def test_a_run_passes(finished: Path, content: dict[str, Any]) -> None:
    assert content["passed"] is True
    assert content["result"]["reasons"] == []
    assert read_json(finished / "summary.json")["verdict"]["passed"] is True


def test_rows_and_their_ends(content: dict[str, Any]) -> None:
    """Learning moves the end away from free spins; random weights stay there; both starts end alike."""
    rows = content["result"]["rows"]
    assert [row["name"] for row in rows] == [f"flow-{i}" for i in range(5)]
    assert [at["step"] for at in rows[TRAINED]["at"]] == [50, 400]
    last = [row["at"][-1] for row in rows]
    assert last[RANDOM]["verdict"] == "independent spins"
    assert abs(last[RANDOM]["end"]["e"][0]) < 0.1
    e, error = last[TRAINED]["end"]["e"]
    assert e + 10 * error < -0.5, "ten sigma from free spins"
    assert last[TRAINED]["verdict"] in ("mean-field", "none of these", "mixture")
    for at in last:
        assert np.shape(at["cold"]) == np.shape(at["hot"]) == (5, 4)
        ends = (np.array(at["cold"]) + np.array(at["hot"])).mean(0) / 2
        np.testing.assert_allclose([at["end"][name][0] for name in spin_flow.NAMES], ends)
        assert (np.diff(at["curves"]["n"]) > 0).all()
    np.testing.assert_allclose(last[TRAINED]["curves"]["cold"]["mean"][0], [-2, 1, 1, 0], atol=1e-12)
    singular = [at["singular"][0] for at in last]
    assert singular[TRAINED] > 2 * singular[RANDOM]


def test_controls_are_never_critical(content: dict[str, Any]) -> None:
    rows = content["result"]["rows"]
    for i in (RANDOM, SHUFFLED, PART):
        assert spin_flow.is_control(rows[i], CRITICAL)
        assert all(at["verdict"] != "critical" for at in rows[i]["at"])
    for i in (TRAINED, PERSISTENT):
        assert not spin_flow.is_control(rows[i], CRITICAL)


def test_mixtures_are_those_of_what_is_learned(content: dict[str, Any]) -> None:
    """Means of the exact energies, T = 0 too; of a part its own temperatures."""
    e = {t: torus((4, 4), t).e for t in RUN["ensemble"]["temperatures"]}
    rows = content["result"]["rows"]
    assert rows[TRAINED]["at"][-1]["mixture"]["e"] == pytest.approx((-2 + sum(e.values())) / 6, abs=1e-10)
    part = rows[PART]["at"][-1]["mixture"]
    assert part["e"] == pytest.approx((e[3.0] + e[4.0]) / 2, abs=1e-10)
    assert 3 < part["t_e"] < 4
    assert content["result"]["t_critical"] == CRITICAL
    assert content["result"]["critical"]["e"] == pytest.approx(torus((4, 4), CRITICAL).e)


def test_readings_are_of_their_ends(content: dict[str, Any]) -> None:
    """e(T_E) is e, seed by seed; a temperature beyond all is null."""
    at = content["result"]["rows"][TRAINED]["at"][-1]
    both = (np.array(at["cold"]) + np.array(at["hot"])) / 2
    for t, e in zip(at["readings"]["T_E"], both[:, 0], strict=True):
        assert torus((4, 4), t).e == pytest.approx(e, abs=1e-9)
    assert set(at["readings"]) == {"T_E", "T_m", "T_NN"}
    network = content["result"]["thermometer"]
    read = [t for t in at["readings"]["T_NN"] if t is not None]  # beyond all: not the same on every processor
    assert all(0 <= t <= 4 for t in read), "it reads inside its training, whatever it is"
    assert network["t"] == [0, *RUN["ensemble"]["temperatures"]]
    free = content["result"]["rows"][RANDOM]["at"][-1]["readings"]
    assert None in free["T_E"] or max(free["T_E"]) > 10


def test_the_likelihood_is_the_exact_one(finished: Path, content: dict[str, Any]) -> None:
    """ln Z by all states of the machine's hidden nodes, within 4.5 sigma of annealing."""
    config = content["result"]["rows"][TRAINED]
    bench = open_run(finished)
    assert isinstance(bench, DynamicsBench)
    assert isinstance(bench.config, FlowRun)
    machine = read_machines(bench.rows["flow-0"], finished / "train" / "flow-0")[400].one(0).to(torch.float64)
    data = read_grid(bench.config, finished / "ensemble").of_machine(0, 5)
    known = float(machine.log_likelihood(machine.encode(data), machine.ln_z()).mean()) / 16
    found = config["log_likelihood"]
    assert found["trusted"] is True
    assert abs(found["value"] - known) < 4.5 * found["error"] + 1e-9
    assert found["value"] - content["result"]["rows"][RANDOM]["log_likelihood"]["value"] > 0.05


def test_what_is_said(content: dict[str, Any]) -> None:
    text = content["text"]
    lines = text.splitlines()
    places = [lines[0].find(f"  {word}  ") for word in ("steps", "T_E", "T_m", "T_NN", "c1", "agree after")]
    assert 0 < places[0]
    assert places == sorted(set(places))
    assert lines[0].endswith("verdict")
    assert "mixture T_E, T_m" in lines[0]
    assert len(lines) == 2 + 6 + 1 + 5 + 1 + 1
    for words in (
        "T_c = 2.269185: e -1.5656, |m| 0.8439, c1 0.0423 on this torus", "scatter of 5 seeds",
        "mixture: what a machine without fault reads", "random W, N_h 8", "CD-1, shuffled",
        "CD-1, T 3 to 4", "{0,1} N_h 8 PCD-1, biases", "T_NN: a network; at T = 2.25 it reads", "ln p = ",
        "sites shuffled",
    ):  # fmt: skip
        assert words in text
    assert "beyond" in next(line for line in lines if line.startswith("random W"))
    assert lines[-1] == "passed"


@pytest.mark.parametrize(("word", "named"), [("critical", {RANDOM, SHUFFLED, PART}), ("not converged", {0})])
def test_controls_called_critical_and_starts_apart_do_not_pass(
    bench: DynamicsBench, monkeypatch: pytest.MonkeyPatch, word: str, named: set[int]
) -> None:
    """As if every end were: persistent chains alone need not agree, trained machines may be critical."""
    pulls = {"cold-hot e": 1.0 if word == "critical" else 9.0}
    made = {"verdict": word, "reasons": ["because"], "pulls": pulls, "values": {}, "readings": {}}
    monkeypatch.setattr(spin_flow, "verdict", lambda *_, **__: made)
    found = spin_flow.run(bench, Silent(), n_chains=16, longest=1)
    assert found["passed"] is False
    why = "a control is called critical" if word == "critical" else "because"
    assert found["reasons"] == [f"flow-{i}: {why}" for i in sorted(named)]
    assert f"NOT passed: flow-{min(named)}: {why}" in spin_flow.text(found)


def test_which_rows_are_controls() -> None:
    """Those whose part is without T_c; its ends belong to it."""
    row = {"part": None, "shuffled": False, "n_steps": 10}
    assert not spin_flow.is_control(row, CRITICAL)
    for part, control in (((1, 3), False), ((CRITICAL, 3), False), ((0, 2.2), True), ((2.3, 6), True)):
        assert spin_flow.is_control({**row, "part": part}, CRITICAL) is control


def small(folder: Path, **change: Any) -> DynamicsBench:
    """A run of one row, made without the pipeline."""
    given = {**RUN, **change, "training": {**RUN["training"], "thermometer": None, **change["training"]}}
    config = config_from_dict(given)
    assert isinstance(config, FlowRun)
    identity = make_grid(config, folder / "ensemble", Silent())
    train_rows(config, folder / "train", Silent(), folder / "ensemble", identity)
    return DynamicsBench(folder, config, read_rows(config, folder / "train"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spin_flow, "N_ANNEAL", 10)
    monkeypatch.setattr(potts_thermometers, "LONG", 50)


@pytest.mark.usefixtures("quick")
def test_potts_spins(tmp_path: Path) -> None:
    """Three states: T_c of their own, the mixture of exact and measured values, no network."""
    ensemble = {"q": 3, "temperatures": [0.5, 1.6], "n_configs": 200, "n_chains": 20}
    bench = small(tmp_path, ensemble=ensemble, training={"rows": [{**CD, "units": "bit"}]})
    found = spin_flow.run(bench, Silent())
    assert found["t_critical"] == potts_temperature(3)
    assert found["thermometer"] is None
    at = found["rows"][0]["at"][-1]
    assert at["verdict"] != "critical"
    assert at["end"]["e"][0] < -2 / 3 - 0.1, "more alike than free spins"
    assert 0.5 < at["mixture"]["t_e"] < 1.6
    assert "T_NN: a network" not in spin_flow.text(found)


def bench_of(**change: Any) -> DynamicsBench:
    training = {**RUN["training"], "thermometer": None, "rows": [CD]}
    config = config_from_dict({**RUN, "training": training, **change})
    assert isinstance(config, FlowRun)
    return DynamicsBench(Path(), config, {})


def test_refusals() -> None:
    """In one line, before anything is read; the check is for runs of this kind."""
    fields, without = {"temperatures": [2.0], "fields": [0, 0.5]}, {"checks": {"spin-flow": False}}
    with pytest.raises(InputError, match="without a field; take field-flow"):
        spin_flow.run(bench_of(ensemble=fields, **without), Silent())
    for shape in ([4, 5], [16], [4, 4, 4]):
        with pytest.raises(InputError, match="is for square tori of 3 to 12 sites a side, lattice.shape is"):
            spin_flow.run(bench_of(lattice={"shape": shape}, **without), Silent())
    pairs = config_from_dict(
        {"name": "x", "models": ["pairs"], "training": {"rows": [{"rate": 0.1, "batch": 4}]}}
    )
    other = DynamicsBench(Path(), pairs, {})  # type: ignore[arg-type]
    assert not serves("spin-flow", other)
    assert serves("pairs", other)
    with pytest.raises(InputError, match=r"is for a run with models: \[spin_flow\]"):
        spin_flow.run(other, Silent())


def test_starts_that_agree_pass_though_nothing_is_told(
    bench: DynamicsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """passed: cold and hot starts agree, and no control is critical."""
    words = "the seeds scatter too much, or differ too little, to tell mixture from mean-field: take more"
    made = {"verdict": "undecided", "reasons": [words], "pulls": {"cold-hot e": 0.5}}
    monkeypatch.setattr(spin_flow, "verdict", lambda *_, **__: made)
    bench.rows = {"flow-0": bench.rows["flow-0"]}
    assert spin_flow.run(bench, Silent(), n_chains=16)["passed"] is True


def test_the_likelihood_of_shuffled_rows_is_of_what_they_have_learned(
    bench: DynamicsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Any] = []
    monkeypatch.setattr(spin_flow, "base_field", lambda m, data: taken.append(data) or base_field(m, data))
    assert isinstance(bench.config, FlowRun)
    grid, seed = read_grid(bench.config, bench.folder / "ensemble"), bench.config.seed
    seed = (seed + stream_id("rows/flow-2")) % 2**64
    own = data_of(grid, bench.config.training.rows[SHUFFLED], 5, seed)[0]
    bench.rows = {"flow-2": bench.rows["flow-2"]}
    spin_flow.run(bench, Silent(), n_chains=16)
    assert {tuple(row) for row in taken[0].tolist()} <= {tuple(row) for row in own.tolist()}


@pytest.mark.parametrize("shape", [[2, 2], [16, 16]])
def test_tori_without_exact_values_are_refused_before_any_flow(
    shape: list[int], monkeypatch: pytest.MonkeyPatch, bench: DynamicsBench
) -> None:
    """By the check too, for a run made without it."""

    def read(*_: Any) -> None:
        raise AssertionError("machines were read")

    monkeypatch.setattr(spin_flow, "read_machines", read)
    change = {"lattice": {"shape": shape}, "checks": {"spin-flow": False}}
    bench.config = config_from_dict({**RUN, **change})  # type: ignore[assignment]
    with pytest.raises(InputError, match="3 to 12 sites a side"):
        spin_flow.run(bench, Silent())


def test_few_seeds_do_not_pass(bench: DynamicsBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four machines have no verdict: that controls are not critical is not said of them."""
    read = spin_flow.read_machines

    def four(*given: Any) -> Any:
        return {step: replace(m, w=m.w[:4]) for step, m in read(*given).items()}

    monkeypatch.setattr(spin_flow, "read_machines", four)
    bench.rows = {"flow-1": bench.rows["flow-1"]}
    found = spin_flow.run(bench, Silent(), n_chains=16)
    assert found["rows"][0]["at"][-1]["verdict"] == "too few seeds"
    assert found["passed"] is False
    assert found["reasons"] == ["fewer than 5 seeds: no verdict, of controls neither"]


def test_rows_whose_starts_differ_have_no_temperature(content: dict[str, Any]) -> None:
    """Both ends instead, in words; the other rows as before."""
    result = deepcopy(content["result"])
    at = result["rows"][PART]["at"][-1]
    at["pulls"]["cold-hot c1"] = 9.0
    at["cold"], at["hot"] = [[-1.25, 0.75, 0.6, 0.125]] * 5, [[-0.5, 0.25, 0.1, 0.375]] * 5
    lines = spin_flow.text(result).splitlines()
    own = next(line for line in lines if line.startswith("±1 N_h 8 CD-1, T 3 to 4"))
    cells = [cell.strip() for cell in own.split("  ") if cell.strip()]
    assert cells[3:9] == ["-1.250 cold, -0.500 hot", "-", "0.750 cold, 0.250 hot", "-", "-",
                          "0.125 cold, 0.375 hot"]  # fmt: skip
    assert sum(" cold, " in line for line in lines) == 1
    assert not spin_flow.has_end(at)
    assert spin_flow.has_end(result["rows"][RANDOM]["at"][-1])


def test_curves_of_temperatures(content: dict[str, Any]) -> None:
    """T_E and T_m of the mean over machines, and of one scatter less and more: e of the torus read back."""
    curves = content["result"]["rows"][TRAINED]["at"][-1]["curves"]
    for start in ("cold", "hot"):
        one, n = curves[start], len(curves["n"])
        assert n <= spin_flow.CURVE + 1
        assert np.shape(one["T_E"]) == np.shape(one["T_m"]) == (3, n)
        mean, spread = (np.array(one[name])[:, 0] for name in ("mean", "spread"))
        for k, ts in zip((0, -1, 1), one["T_E"], strict=True):
            e = mean + k * spread
            for t, x in zip(ts, e.tolist(), strict=True):
                if t:
                    assert torus((4, 4), t).e == pytest.approx(x, abs=1e-9)
                else:
                    assert x < -1.9999 or x > -1e-4
        mid = [(low, t, high) for t, low, high in zip(*one["T_E"], strict=True) if low and t and high]
        assert len(mid) > n / 2
        assert all(low <= t <= high for low, t, high in mid)
    assert curves["cold"]["T_E"][0][0] == 0

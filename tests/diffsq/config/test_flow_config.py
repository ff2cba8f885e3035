"""The config of machines that learn spins of a grid: points, rows, round trip, one line for what is wrong."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from diffsq.config.config import config_from_dict, load_config, resolved_yaml
from diffsq.config.spins import FlowRow, FlowRun
from lattice.actions.spins import Ising, Potts
from lattice.errors import InputError
from lattice.exact.ising import CRITICAL

ROW: dict[str, Any] = {"n_hidden": 4, "rate": 0.02, "n_steps": 10}
BASE: dict[str, Any] = {
    "name": "flow", "models": ["spin_flow"], "lattice": {"shape": [4, 4]},
    "ensemble": {"temperatures": [1.5, 2.25, 3]}, "training": {"rows": [ROW]},
}  # fmt: skip
NO_NETWORK: dict[str, Any] = {"training": {"thermometer": None}}
IN_FIELD: dict[str, Any] = {**NO_NETWORK, "checks": {"spin-flow": False, "field-flow": {}}}
POTTS: dict[str, Any] = {"ensemble": {"q": 3}, "row": {"units": "bit"}}


def read(*changes: dict[str, Any]) -> FlowRun:
    """BASE with sections updated; "row": of the only row."""
    data = deepcopy(BASE)
    for change in changes:
        for key, value in change.items():
            if key == "row":
                data["training"]["rows"][0] |= value
            elif key in ("ensemble", "training") and isinstance(value, dict):
                data[key] |= value
            else:
                data[key] = value
    found = config_from_dict(data)
    assert isinstance(found, FlowRun)
    return found


def test_which_run_it_is() -> None:
    found = read()
    assert type(found) is FlowRun
    assert list(found.checks) == ["spin-flow"]
    assert (found.processes, found.sampling, found.source, found.action) == ((), None, None, None)
    assert found.shape == (4, 4)
    assert found.row_names() == ["thermometer", "flow-0"]
    assert found.ensemble.monte_carlo.update == "heat-bath"
    assert found.ensemble.monte_carlo.n_clusters == 4
    dropped = read({"checks": {"spin-flow": False, "field-flow": {}}})
    assert dropped.checks == {"field-flow": {}}


def test_points_of_the_grid() -> None:
    """Temperature fastest, then the field; the name is that of the folder; fields of 0 have none."""
    assert read().ensemble.points() == {"T1.5": Ising(1.5), "T2.25": Ising(2.25), "T3": Ising(3.0)}
    in_field = read({"ensemble": {"temperatures": [1, 2], "fields": [0, 0.5, -0.25]}}, IN_FIELD)
    assert list(in_field.ensemble.points().items()) == [
        ("T1", Ising(1.0)), ("T2", Ising(2.0)), ("T1_h0.5", Ising(1.0, 0.5)), ("T2_h0.5", Ising(2.0, 0.5)),
        ("T1_h-0.25", Ising(1.0, -0.25)), ("T2_h-0.25", Ising(2.0, -0.25)),
    ]  # fmt: skip
    ensemble = {"q": 3, "fields": [0.1], "direction": 2}
    potts = read({**POTTS, "ensemble": ensemble}, {**NO_NETWORK, "checks": {"spin-flow": False}})
    assert potts.ensemble.points()["T3_h0.1"] == Potts(3.0, 3, 0.1, 2)
    fine = read({"ensemble": {"temperatures": [0.1 + 0.2, 0.30001]}}).ensemble.points()
    assert list(fine) == ["T0.3", "T0.30001"]


def test_rows_have_names() -> None:
    three = read({"training": {"rows": [ROW, ROW, ROW]}})
    assert three.row_names() == ["thermometer", "flow-0", "flow-1", "flow-2"]
    assert read(NO_NETWORK).row_names() == ["flow-0"]


@pytest.mark.parametrize(
    ("row", "followed"),
    [({}, [10]), ({"at": [5, 0, 5]}, [0, 5, 10]), ({"at": [10]}, [10]), ({"n_steps": 0}, [0])],
)
def test_the_steps_that_are_followed(row: dict[str, Any], followed: list[int]) -> None:
    assert read({"row": row}).training.rows[0].followed == followed


@pytest.mark.parametrize(
    "changes",
    [
        [{}], [{"seed": 7}], [NO_NETWORK], [POTTS], [{"ensemble": {"ground_state": True}}],
        [{"checks": {"spin-flow": False, "real-space": {"side": 16}}}],
        [{"ensemble": {"fields": [0, 0.5]}}, IN_FIELD],
        [{"row": {"part": [1.5, 2.25], "shuffled": True, "units": "bit", "biases": True, "at": [0, 5]}}],
        [{"training": {"thermometer": {"n_steps": 20, "widths": [8]}}}],
    ],
)  # fmt: skip
def test_what_is_printed_is_read_back(tmp_path: Path, changes: list[dict[str, Any]]) -> None:
    found = read(*changes)
    path = tmp_path / "flow.yaml"
    path.write_text(resolved_yaml(found))
    again = load_config(path)
    assert type(again) is FlowRun
    assert again == found
    assert again.ensemble.points() == found.ensemble.points()


def test_random_weights_have_no_rate() -> None:
    assert FlowRow(n_hidden=3, n_steps=0).rate == 0


def test_the_presets() -> None:
    """Every flow of configs/spins is one, with T = 0 among temperatures without a field; its controls."""
    names = [path.name for path in sorted((ROOT / "configs/spins").glob("*flow*.yaml"))]
    assert len(names) >= 3
    for name in names:
        config = load_config(ROOT / "configs/spins" / name)
        assert isinstance(config, FlowRun)
        grid = config.ensemble
        assert grid.ground_state is (len(grid.temperatures) > 1 and not any(grid.fields))
    main = load_config(ROOT / "configs/spins/ising_flow.yaml")
    assert isinstance(main, FlowRun)
    assert main.training.n_seeds >= 5
    rows = main.training.rows
    assert any(row.shuffled for row in rows)
    assert any(row.n_steps == 0 for row in rows)
    assert any(row.part and row.part[0] > CRITICAL for row in rows), "a part without T_c"


BAD: list[tuple[list[dict[str, Any]], str]] = [
    ([{"ensemble": {"temperatures": [0, 1]}}], "temperatures must rise and be above 0.*ground_state: true"),
    ([{"ensemble": {"temperatures": [-1, 1]}}], "temperatures must rise and be above 0"),
    ([{"ensemble": {"temperatures": [2, 1]}}], r"must rise and be above 0, got \[2.0, 1.0\]"),
    ([{"ensemble": {"temperatures": [1, 1]}}], "temperatures must rise"),
    ([{"ensemble": {"temperatures": []}}], "ensemble.temperatures"),
    ([{"ensemble": {"temperatures": [float("nan")]}}], "ensemble.temperatures.0: must be a finite number"),
    ([{"ensemble": {"temperatures": [i + 1.0 for i in range(101)], "fields": list(range(10))}}, IN_FIELD],
     "at most 1000 pairs"),
    ([{**POTTS, "ensemble": {"q": 3, "fields": [0.5]}}, IN_FIELD], "Potts model needs action.direction"),
    ([{**POTTS, "ensemble": {"q": 3, "fields": [0.5], "direction": 3}}, IN_FIELD], "direction.*got 3"),
    ([{"ensemble": {"q": 1}}], "ensemble.q: must be greater than or equal to 2"),
    ([{"ensemble": {"q": 3}}], "training.rows.0: units of 3 states are bit"),
    ([{"ensemble": {"ground_state": True, "fields": [0.5]}}, IN_FIELD], "leave out ensemble.fields"),
    ([{"ensemble": {"fields": [0, 0.5]}}, {"checks": IN_FIELD["checks"]}],
     "thermometer reads temperatures without a field.*null"),
    ([{"ensemble": {"n_chains": 41}}], "ensemble.n_chains: must be a multiple of 2"),
    ([{"training": {"n_seeds": 3}}], "n_chains = 40 must be a multiple of training.n_seeds = 3"),
    ([{"training": {"n_seeds": 0}}], "training.n_seeds"),
    ([{"training": {"n_chains": 8}}], "training.n_chains"),
    ([{"training": {"n_sweeps": 5}}], "training.n_sweeps"),
    ([{"training": {"rows": []}}], r"^training.rows: must have at least 1 item, got \[\]$"),
    ([{"training": {"rows": 3}}], "^training.rows: must be a list, got 3$"),
    ([{"training": {"n_chain": 100}}], "did you mean training.n_chains"),
    ([{"training": {"thermometer": {"widths": []}}}], "training.thermometer.widths"),
    ([{"training": None}], "training"),
    ([{"row": {"n_hidden": 0}}], r"^training.rows.0.n_hidden: must be greater than or equal to 1, got 0$"),
    ([{"row": {"n_hidden": 0, "k": 0}}], r"n_hidden: must be .*, got 0 \(and 1 more\)$"),
    ([{"row": {"rate": 0}}], "^training.rows.0: rate: machines that learn for n_steps = .* need one above 0"),
    ([{"row": {"rate": -1}}], "training.rows.0.rate"),
    ([{"row": {"n_steps": -1}}], "training.rows.0.n_steps"),
    ([{"row": {"k": 0}}], "training.rows.0.k"),
    ([{"row": {"batch": 0}}], "training.rows.0.batch"),
    ([{"row": {"width": -1}}], "training.rows.0.width"),
    ([{"row": {"method": "pdc"}}], "training.rows.0.method: must be 'cd', 'pcd' or 'tempered'"),
    ([{"row": {"units": "potts"}}], "training.rows.0.units: must be 'spin' or 'bit'"),
    ([{"row": {"part": [4, 5]}}], "training.rows.0: no temperature of the grid from 4 to 5"),
    ([{"row": {"part": [3, 1.5]}}], "no temperature of the grid from 3 to 1.5"),
    ([{"action": {"kind": "ising", "temperature": 2.0}}], "has no action"),
    ([{"lattice": None}], "lattice"),
    ([{"sampling": {"n_samples": 64}}], "sampling"),
    ([{"models": ["spin_flow", "rbm"]}], "models.1"),
    ([{"models": ["spin_flows"]}], "no such model 'spin_flows'; did you mean spin_flow"),
    ([{"checks": {"spinflow": {}}}], "no such check; did you mean spin-flow"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), BAD)
def test_what_makes_no_sense_is_refused_in_one_line(changes: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        read(*changes)
    assert "\n" not in str(refused.value)
    assert "<" not in str(refused.value), "no class of pydantic's"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([{"ensemble": {"fields": [0, 0.5]}}], r"a field: checks: \{field-flow: \{\}, spin-flow: false"),
        ([{**POTTS, "ensemble": {"q": 3, "fields": [0.1], "direction": 1}}], r"checks: \{spin-flow: false"),
        *(([{"lattice": {"shape": shape}}], "square tori of 3 to 12 sites a side.*got")
          for shape in ([2, 2], [13, 13], [4, 5], [16], [4, 4, 4])),
        ([{**POTTS, "lattice": {"shape": [7, 7]}}], r"q\^L <= 2048\), got \[7, 7\]"),
    ],
)  # fmt: skip
def test_what_the_check_cannot_judge_is_refused_before_anything_is_made(
    changes: list[dict[str, Any]], words: str
) -> None:
    """While the check is asked for: the same run without it is one."""
    with pytest.raises(InputError, match=words):
        read(NO_NETWORK, *changes)
    assert read(NO_NETWORK, *changes, {"checks": {"spin-flow": False}}).checks == {}


def test_tori_that_the_check_knows() -> None:
    for changes in ({}, {"lattice": {"shape": [3, 3]}}, {"lattice": {"shape": [12, 12]}},
                    {**POTTS, "lattice": {"shape": [6, 6]}}):  # fmt: skip
        assert list(read(NO_NETWORK, changes).checks) == ["spin-flow"]


@pytest.mark.parametrize(
    "changes",
    [
        [{"row": {"at": [-5]}}],  # an assertion of read_machines after the training
        [{"row": {"at": [20]}}],  # beyond n_steps = 10: left out
        [{"ensemble": {"fields": []}}],  # no ensemble at all
        [{"ensemble": {"fields": [0.5, 0.5]}}, IN_FIELD],  # one of the two
        [{"ensemble": {"temperatures": [2.0, 2.0 + 1e-13]}}],  # one folder for both: one of them
        [{"ensemble": {"direction": 1}}],  # of Ising spins: left out
        [{"ensemble": {"n_chains": 2}}, {"training": {"n_seeds": 2}}],  # none left to calibrate with
        [{"ensemble": {"temperatures": [2.0]}}],  # the thermometer needs two, said after the ensembles
        [{"training": {"thermometer": {"widths": [0]}}}],
        [{"training": {"thermometer": {"rate": 2}}}],
    ],
)  # fmt: skip
def test_what_fails_later_is_refused_at_once(changes: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError):
        read(*changes)

"""`check criticality`: samplers of one law at one cost each, kept theories, a wrong sampler that fails."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_family import KAPPAS, LAM, free_family

from diffsq.checks import criticality
from diffsq.checks.perform import check_options, serves
from diffsq.config.config import config_from_dict
from diffsq.models.family_files import save_family
from diffsq.run_folder.finished import DynamicsBench
from diffsq.run_folder.own_files import own_name
from lattice.errors import InputError
from lattice.files import read_json, write_json
from lattice.progress import Silent

RUN: dict[str, Any] = {
    "name": "x", "models": ["family"],
    "ensemble": {"lines": [{"lam": LAM, "kappa": list(KAPPAS)}], "sizes": [4, 8]},
}  # fmt: skip
OPTIONS: dict[str, Any] = {"kappas": [0.19], "sizes": [4, 8], "n_samples": 512, "most": 1024, "error": 0.2}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> DynamicsBench:
    folder = tmp_path_factory.mktemp("criticality")
    save_family(free_family(), folder / "train" / "family", {})
    stages = {"ensemble": {"seconds": 30.0}, "train": {"seconds": 10.0}}
    write_json(folder / "stages.json", stages)
    config: Any = config_from_dict(RUN)
    return DynamicsBench(folder, config, {})


@pytest.fixture(scope="module")
def found(bench: DynamicsBench) -> dict[str, Any]:
    return criticality.run(bench, Silent(), **OPTIONS)


def test_all_samplers_agree(found: dict[str, Any]) -> None:
    assert found["passed"]
    assert found["n_pulls"] == 2 * 4 * 3
    for point in found["points"]:
        assert set(point["samplers"]) == {*criticality.MARKOV, *criticality.SAMPLERS}
        for kind, own in point["samplers"].items():
            s, error = own["mean"]["action_density"]
            assert abs(s - 0.5) < 5 * error + 1e-3  # of a free field
            assert own["cost"][0] == pytest.approx(2 * own["tau_int"][own["slowest"]][0] * own["seconds"][0])
            if kind in criticality.SAMPLERS:  # the model is nearly exact: every proposal is independent
                assert own["acceptance"] > 0.95
                assert own["cost_by_weights"][0] == pytest.approx(own["seconds"][0] / own["ess"])
                assert abs(own["tau_int"]["magnetization2"][0] - 0.5) < 0.4


def test_a_wrong_sampler_fails(bench: DynamicsBench, tmp_path: Path, monkeypatch: Any) -> None:
    """Fields 5 % too large with the weights of the right ones: their chain moves well, to a wrong mean."""
    flow_fields = criticality.flow_fields

    def larger(*args: Any) -> Any:
        fields, weights = flow_fields(*args)
        return 1.05 * fields, weights

    shutil.copytree(bench.folder / "train", tmp_path / "train")
    monkeypatch.setattr(criticality, "flow_fields", larger)
    wrong = DynamicsBench(tmp_path, bench.config, {})
    found = criticality.run(wrong, Silent(), **OPTIONS | {"sizes": [8], "n_samples": 2048})
    assert not found["passed"]
    assert found["worst"] > 10


def test_a_chain_that_hardly_moves_is_not_compared(found: dict[str, Any]) -> None:
    stuck = copy.deepcopy(found["points"][0])
    stuck["samplers"]["path"] |= {"mean": {}, "tau_int": {}, "cost": None, "failure": "too short"}
    assert len(criticality.pulls_of(stuck)) == 9
    words = criticality.text({**found, "points": [stuck], "n_unknown": 1})
    assert "not known" in words
    assert "of 1 chains tau_int is not known" in words
    assert criticality.figure({**found, "points": [stuck]})


def test_theories_are_kept(bench: DynamicsBench, found: dict[str, Any], monkeypatch: Any) -> None:
    kept = sorted((bench.folder / "checks" / "criticality").glob("*.json"))
    assert len(kept) == 2
    assert all(own_name("measure", str(path.relative_to(bench.folder))) for path in kept)
    monkeypatch.setattr(criticality, "markov", None)  # nothing is made again
    with monkeypatch.context() as patch:
        patch.setattr(criticality, "of_model", None)
        assert criticality.run(bench, Silent(), **OPTIONS) == found
        with pytest.raises(TypeError):
            criticality.run(bench, Silent(), **OPTIONS | {"n_samples": 1024})
    more = criticality.run(bench, Silent(), **OPTIONS | {"sizes": [4], "n_samples": 256})
    same, new = found["points"][0]["samplers"], more["points"][0]["samplers"]
    assert all(new[kind] == same[kind] for kind in criticality.MARKOV)  # chains know no model
    assert new["flow"] != same["flow"]


def test_the_ledger(bench: DynamicsBench, found: dict[str, Any]) -> None:
    """40 seconds of training are paid back after 40/(cost of the rival - own cost)."""
    points = copy.deepcopy(found["points"])
    for p in points:
        p["samplers"]["hmc"]["cost"][0] = p["samplers"]["flow"]["cost"][0] + 0.01
        p["samplers"]["clusters"]["cost"] = None
    book = criticality.ledger(bench.folder, points)
    assert sum(book["seconds"].values()) == 40
    row = {(r["size"], r["sampler"], r["rival"]): r["n"] for r in book["rows"]}
    assert row[4, "flow", "hmc"] == pytest.approx(4000)
    assert row[4, "flow", "clusters"] is None
    assert "never" in criticality.text({**found, "ledger": book})


def test_words_and_figure(found: dict[str, Any]) -> None:
    words = criticality.text(found)
    assert words.count("flow") >= 2
    assert "largest pull" in words
    assert len(criticality.figure(found).axes) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": 10}, "n_samples must be at least"), ({"error": 2.0}, "error must be between"),
        ({"most": 3}, "most must be"), ({"kappas": [0.2, 0.1]}, "kappas must rise"),
    ],
)  # fmt: skip
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_options("criticality", options)


def test_unknown_theories_are_refused(bench: DynamicsBench) -> None:
    assert serves("criticality", bench)
    with pytest.raises(InputError, match="0.22"):
        criticality.run(bench, Silent(), kappas=[0.3], sizes=[4])
    assert not (bench.folder / "checks" / "criticality" / "L4_kappa0.3_lam1e-06.json").exists()
    assert read_json(bench.folder / "stages.json")

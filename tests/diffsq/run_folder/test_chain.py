"""Chains of moves: stored as ensembles, resumed to the bit, refused when settings do not fit."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killer import killed, killed_command
from longer import same_numbers
from small_config import RUN

from diffsq.commands.chain import summary, text
from diffsq.commands.main import main
from diffsq.config.sections import ChainParameters
from diffsq.exactness.weights import metropolis_ensemble
from diffsq.run_folder.chain import chain
from diffsq.run_folder.finished import Workbench, open_run
from lattice.ensembles.ensemble import read_ensemble
from lattice.errors import InputError
from lattice.observables.measure import measure

MIXED = {"moves": ["denoise", "hmc", "wolff", "independence"], "depth": 1.0, "n_chains": 4, "n_steps": 60,
         "n_therm": 40, "start": "ensemble"}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chain")
    (folder / "small.yaml").write_text(RUN)
    for stage in ("ensemble", "train", "sample"):
        main([stage, str(folder / "small.yaml"), "--run", str(folder / "run"), "--quiet"])
    return folder / "run"


@pytest.fixture(scope="module")
def bench(run: Path) -> Workbench:
    return open_run(run)


@pytest.fixture(scope="module")
def flow_bench(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """The same ensemble and model, sampled by the flow."""
    folder = tmp_path_factory.mktemp("flow")
    config = RUN.replace("method: path", "method: flow").replace("n_levels: 6", "n_levels: 4")
    (folder / "small.yaml").write_text(config)
    for stage in ("ensemble", "train", "sample"):
        main([stage, str(folder / "small.yaml"), "--run", str(folder / "run"), "--quiet"])
    return open_run(folder / "run")


def settings(**values: Any) -> ChainParameters:
    return ChainParameters.model_validate({**MIXED, **values})


def test_a_mixed_chain_is_an_ordinary_ensemble(bench: Workbench, tmp_path: Path) -> None:
    made = chain(bench, settings(), tmp_path / "chain")
    read = read_ensemble(tmp_path / "chain", bench.action)
    assert np.array_equal(made.phi, read.phi)
    assert len(read) == 240
    assert len(read.replicas()) == 4
    assert read.trajectory.max() == 60
    for name in ("accepted", *(f"accepted_{m}" for m in MIXED["moves"]), "path_log_weight"):  # type: ignore[attr-defined]
        assert np.isfinite(read.series[name]).all()
    assert read.series["accepted_wolff"].min() == 1
    assert np.array_equal(chain(bench, settings(), tmp_path / "chain").phi, made.phi)
    result = summary(read)
    assert 0.5 < result["acceptance"]["denoise"][0] < 1
    printed = text(result)
    assert "4 chains of 60 steps on 4x4, started from the ensemble" in printed
    assert "acceptance independence: 0." in printed
    with pytest.raises(InputError, match=r"chain.n_steps was 60, now 50: it holds more .*chain.n_steps=60"):
        chain(bench, settings(n_steps=50), tmp_path / "chain")


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"moves": ["independence"], "start": "samples"},
        {"moves": ["denoise", "hmc"], "block": [2, 2], "depth": 2.0, "start": "hmc"},
    ],
    ids=["mixed", "independence", "blocks"],
)
def test_more_steps_go_on_from_what_is_there(
    bench: Workbench, tmp_path: Path, values: dict[str, Any]
) -> None:
    """From 20 steps through an interruption to the 60 of one go."""
    grows(bench, tmp_path, values)


@pytest.mark.parametrize("moves", [["latent"], ["independence"], ["latent", "wolff"]])
def test_chains_of_a_flow_go_on_from_what_is_there(
    flow_bench: Workbench, tmp_path: Path, moves: list[str]
) -> None:
    grows(flow_bench, tmp_path, {"moves": moves, "rho": 0.7, "start": "samples"})


def anew(folder: Path, *args: Any, **options: Any) -> None:
    """The chain of a run that a process has opened itself."""
    bench = open_run(folder)
    assert isinstance(bench, Workbench)
    chain(bench, *args, **options)


def grows(bench: Workbench, tmp_path: Path, values: dict[str, Any]) -> None:
    short = chain(bench, settings(n_steps=20, **values), tmp_path / "a")
    killed("chain", 12, anew, bench.folder, settings(**values), tmp_path / "a")
    assert same_numbers(read_ensemble(tmp_path / "a", bench.action), short)
    longer = chain(bench, settings(**values), tmp_path / "a")
    assert same_numbers(longer, chain(bench, settings(**values), tmp_path / "b"))
    assert not same_numbers(longer, short)
    assert read_ensemble(tmp_path / "a", bench.action).identity == longer.identity


def test_every_kind_of_chain_agrees_with_the_ensemble(
    bench: Workbench, flow_bench: Workbench, tmp_path: Path
) -> None:
    path_bench = bench
    known = measure(bench.ensemble, two_point=False)["observables"]
    kinds = {
        "independence": settings(moves=["independence"], n_steps=100, n_chains=16, start="samples"),
        "denoise": settings(moves=["denoise"], depth=None, n_steps=100, n_chains=16),
        "block": settings(moves=["denoise", "hmc"], block=[2, 2], depth=2.0, n_steps=100, n_chains=16),
        "latent": settings(moves=["latent"], rho=0.7, n_steps=100, n_chains=16),
        "flow": settings(moves=["independence"], n_steps=100, n_chains=16, start="samples"),
    }
    for name, chosen in kinds.items():
        bench = flow_bench if name in ("latent", "flow") else path_bench
        made = chain(bench, chosen, tmp_path / name)
        series = {
            "abs_magnetization": np.abs(made.series["magnetization"]),
            "action_density": made.series["action"] / 16,
            "phi2": made.series["phi2"],
        }
        for observable, values in series.items():
            means = np.array([values[index].mean() for index in made.replicas()])  # of independent chains
            value, error = means.mean(), means.std(ddof=1) / 4
            exact = known[observable]
            assert error < 0.1 * exact["value"]
            assert abs(value - exact["value"]) < 5 * np.hypot(error, exact["error"]), (name, observable)


def test_independence_is_the_chain_of_the_weights(bench: Workbench, tmp_path: Path) -> None:
    made = chain(bench, settings(moves=["independence"], n_chains=16, n_steps=60), tmp_path / "chain")
    accepted = made.series["accepted"].reshape(60, 16).mean(0)
    known = metropolis_ensemble(bench.samples, 1).attrs["metropolis"]
    error = math.hypot(float(accepted.std(ddof=1)) / 4, known["acceptance_error"])
    assert abs(float(accepted.mean()) - known["acceptance"]) < 4 * error < 0.4


def test_the_chain_of_a_flow_is_that_of_its_steps(flow_bench: Workbench, tmp_path: Path) -> None:
    """Made with samples that were drawn again in other steps it is refused."""
    chosen, flow = settings(moves=["latent"], n_steps=2, start="samples"), flow_bench.flow
    assert flow is not None
    made = chain(flow_bench, chosen, tmp_path / "chain")
    assert made.series["accepted_latent"].mean() > 0.5
    other = replace(flow_bench, flow=flow.in_steps(flow.n_steps + 1))
    with pytest.raises(InputError, match="flow.n_steps was 4, now 5"):
        chain(other, chosen, tmp_path / "chain")


def test_a_larger_lattice_by_blocks(bench: Workbench, tmp_path: Path) -> None:
    chosen = settings(moves=["denoise", "wolff"], block=[2, 2], shape=[8, 12], start="hmc", n_steps=20)
    made = chain(bench, chosen, tmp_path / "chain")
    assert made.shape == (8, 12)
    assert made.attrs["n_therm"] == 40
    assert made.attrs["start"] == "hmc"
    assert 0.3 < made.series["accepted_denoise"].mean() < 1
    accepted = 6 * made.series["accepted_denoise"]  # six blocks, each on its own
    assert accepted == pytest.approx(np.round(accepted), abs=1e-9)
    assert ((accepted > 0.5) & (accepted < 5.5)).any()


BLOCKS = ["chain.n_chains=4", "chain.n_steps=60", "chain.n_therm=40",
          "chain.moves=[denoise,hmc,independence]",
          "chain.depth=1.0", "chain.block=[2,2]"]  # fmt: skip


def command(run: Path) -> list[str]:
    config = str(run.parent / "small.yaml")
    return ["chain", config, "--device", "cpu", "--run", str(run), "--set", *BLOCKS]


@pytest.fixture(scope="module")
def whole(run: Path) -> Path:
    """The chain of every killed run below, made without interruption."""
    assert main([*command(run), "--quiet"]) == 0
    return run / "chain"


@pytest.mark.parametrize("label", ["thermalisation:7", "chain:55"])
def test_kill_9_then_the_same_command_writes_the_same_bytes(
    run: Path, whole: Path, tmp_path: Path, label: str
) -> None:
    shutil.copy(run.parent / "small.yaml", tmp_path)
    killed = tmp_path / "run"
    shutil.copytree(run, killed, ignore=shutil.ignore_patterns("chain"))
    name, _, count = label.partition(":")
    killed_command(name, int(count), command(killed))
    assert not (killed / "chain" / "manifest.json").exists()
    assert main([*command(killed), "--quiet"]) == 0
    files = sorted(whole.glob("*.h5"))
    assert [file.name for file in files] == ["shard-0000.h5", "shard-0001.h5", "therm.h5"]
    for file in files:
        assert file.read_bytes() == (killed / "chain" / file.name).read_bytes(), file.name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"shape": [8, 8]},
            r"chain.shape \[8, 8\] is not the run's own \[4, 4\]: denoise moves whole fields",
        ),
        ({"block": [2, 2], "shape": [6, 8]}, r"chain: lattice extents must be multiples"),
        ({"block": [3, 2], "shape": [8, 8], "moves": ["denoise"]}, "rim of one site"),
        ({"block": [5, 5]}, "must fit into the window"),
        ({"block": [2, 2], "moves": ["hmc"]}, "chain.block is for the move denoise"),
        ({"block": [2, 2], "shape": [8, 8], "moves": ["denoise"]}, "chain.start must be hmc"),
        ({"depth": 1e3}, r"chain.depth must be a noise width sigma from"),
        ({"start": "samples", "n_chains": 1000}, "start samples has only 256 fields"),
        ({"moves": ["latent"]}, "^chain.moves: latent .* of a flow; this run's sampler is not the flow$"),
    ],
)
def test_settings_that_do_not_fit(
    bench: Workbench, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        chain(bench, settings(**values), tmp_path / "chain")
    assert not (tmp_path / "chain").exists()


def test_the_command_refuses_another_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(run.parent / "small.yaml")
    assert main(["chain", config, "--run", str(run), "--quiet", "--set", "action.kappa=0.2"]) == 2
    assert "was made with other settings: action.kappa was 0.25, now 0.2" in capsys.readouterr().err
    assert main(["chain", config, "--run", str(tmp_path / "none"), "--quiet"]) == 2
    assert "no finished run here" in capsys.readouterr().err
    assert main(["chain", config, "--run", str(run), "--set", "chain.moves=[hmcc]"]) == 2
    assert capsys.readouterr().err.count("\n") == 1

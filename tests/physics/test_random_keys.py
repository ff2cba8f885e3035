"""No random number is used twice: in a run on a lattice, of one variable, in a chain of moves, in a scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_keys import recorded
from small_config import RUN

import diffsq
from diffsq.config.sections import ChainParameters
from diffsq.run_folder.chain import chain
from diffsq.run_folder.finished import Workbench, open_run
from lattice.actions.phi4 import ScalarPhi4
from lattice.rng import normals, stream_id, uniforms
from lattice.scans.scan import ScanPoint, run_scan
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.stochastic_quantization import stochastic_quantization

# the frames of the steps are part of the sampler's law, and so is which configurations are chosen
DEFINES = {"sample/frame", "rows/sample", "rows/checks", "rows/points", "rows/validation"}
PAIRED = {
    "exactness/metropolis",  # the acceptance, and the chain that has it
    "points/check",  # models and noise levels are compared on the same points
    "points/start",  # the check cumulants draws the run's own set again, to watch it on its way
}
POINTS = """
name: points
seed: 3
action: {kind: two_peak, mu0: 1.0, sigma0: 0.25}
ensemble: {n_configs: 20000}
training: {n_steps: 200, n_nodes: 2048, n_sigma: 24, batch_size: 512, width: 16}
sampling: {n_samples: 1000, n_metropolis: 1000, n_calibration: 1024, n_levels: {ve: 16, vp: 16}}
checks: {samplers: {methods: {flow: [12], path: [12]}, n: 1000}, limits: false, learned-action: false}
n_parts: 2
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "small.yaml").write_text(RUN)
    with recorded() as keys:
        diffsq.run(
            diffsq.load_config(folder / "small.yaml", ["sampling.sde=[ve,vp]"]),
            folder / "run",
            say=lambda line: None,
        )
    assert len({stream_id(name) for name in keys.streams}) == len(keys.streams) > 8
    assert not keys.repeated.keys() - DEFINES - PAIRED
    return open_run(folder / "run")


def test_a_run_of_two_models(tmp_path: Path) -> None:
    """They share nothing but the held-out fields and noise that they are compared on."""
    (tmp_path / "small.yaml").write_text(RUN)
    two = ["models=[closed, score]", "model.base=wiener", "model.channels=2", "training.n_steps=2"]
    with recorded() as keys:
        diffsq.run(diffsq.load_config(tmp_path / "small.yaml", two), tmp_path / "run", say=lambda line: None)
    assert {"train/base", "train/wiener", "sample/reverse/ve", "sample/reverse/ve/closed"} <= keys.streams
    compared = {"validation/table", "sample/forward/ve"}
    assert not keys.repeated.keys() - DEFINES - PAIRED - compared


def test_a_chain_thermalises_and_moves_with_different_numbers(bench: Workbench, tmp_path: Path) -> None:
    moves = ["hmc", "wolff", "overrelaxation", "denoise", "independence"]
    settings = {"moves": moves, "depth": 1.0, "n_chains": 4, "n_steps": 20, "n_therm": 100, "start": "hmc"}
    with recorded() as keys:
        chain(bench, ChainParameters.model_validate(settings), tmp_path / "chain")
        blocks = {**settings, "moves": ["denoise", "hmc"], "block": [2, 2], "depth": 2.0}
    assert {"update hmc_trajectory", "update wolff_update", "chain/independence/accept"} <= keys.streams
    assert not keys.repeated.keys() - DEFINES
    with recorded() as keys:
        chain(bench, ChainParameters.model_validate(blocks), tmp_path / "blocks")
    assert not keys.repeated.keys() - DEFINES


def test_a_run_of_one_variable(tmp_path: Path) -> None:
    (tmp_path / "points.yaml").write_text(POINTS)
    with recorded() as keys:
        diffsq.run(diffsq.load_config(tmp_path / "points.yaml"), tmp_path / "run", say=lambda line: None)
    assert {"points/nodes", "points/path", "points/start/score/ve/flow/16"} <= keys.streams
    assert not {name for name in keys.repeated if not name.startswith(tuple(DEFINES | PAIRED))}


def test_a_scan_and_a_step_extrapolation(tmp_path: Path) -> None:
    params = MonteCarlo(n_configs=64, n_chains=8, n_therm=50)
    points = [ScanPoint(f"k{k}", ScalarPhi4(k, 0.022), (4, 4), params) for k in (0.2, 0.25)]
    with recorded() as keys:
        run_scan(points, tmp_path, seed=1)
        stochastic_quantization(
            ScalarPhi4(0.2, 0.022), (4, 4), n_chains=16, tau_therm=1.0, tau_run=2.0, seed=1
        )
    assert {"update hmc_trajectory", "update langevin_update"} <= keys.streams
    assert not keys.repeated


def test_a_number_used_twice_is_seen() -> None:
    with recorded() as keys:
        normals(1, "a", np.arange(4), 0, 3)
        uniforms(1, "a", np.array([3, 5, 5]), 0, 1)
        normals(2, "a", np.arange(4), 0, 3)
    assert keys.repeated == {"a": 1}

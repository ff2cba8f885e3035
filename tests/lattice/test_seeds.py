"""Seeds are integers, Python's or NumPy's: one line for anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffsq.config.config import config_from_dict
from diffsq.exactness.weights import acceptance, independence_metropolis, metropolis_ensemble
from lattice.actions.one_variable import ComplexGaussian, TwoPeak
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.interchange.importing import import_file
from lattice.rng import normals, uniforms
from lattice.scans.scan import point_seed, run_scan
from lattice.scans.thermodynamic_integration import thermodynamic_integration
from lattice.seeds import check_seed
from lattice.simulation.exact_draws import draw_toy
from lattice.simulation.parameters import ComplexLangevin, ExactDraws, MonteCarlo
from lattice.simulation.simulate import simulate
from lattice.simulation.starts import start_fields
from lattice.simulation.stochastic_quantization import stochastic_quantization
from lattice.updates.hmc import hmc_trajectory

ACTION, INDEX = ScalarPhi4(0.2, 0.02), np.arange(4)
LOG_WEIGHT = np.linspace(-1.0, 1.0, 20)
WEIGHTED = Ensemble.from_fields(np.ones((20, 2, 2)), ACTION, log_weight=LOG_WEIGHT)
SMALL = ComplexLangevin(n_chains=16, n_configs=16, n_therm=4, step=0.05, step_sizes=())
GOOD = (np.int64(3), np.uint8(3), np.array(3), torch.tensor(3))
BAD = (1.5, 1.0, True, np.True_, np.float64(1), "1", None, -1, 2**64, np.array([1]), 1j)
POINT = {
    "name": "x", "action": {"kappa": 0.2, "lam": 0.02}, "lattice": {"shape": [4, 4]}, "ensemble": {},
    "model": {"n_levels": 1},
}  # fmt: skip


@pytest.mark.parametrize("seed", GOOD)
def test_integers_of_any_make_are_seeds(seed: Any) -> None:
    assert check_seed(seed) == 3
    assert type(check_seed(seed)) is int
    assert (normals(seed, "test", INDEX, 0, 3) == normals(3, "test", INDEX, 0, 3)).all()
    assert config_from_dict({**POINT, "seed": seed}).seed == 3


@pytest.mark.parametrize("seed", BAD)
@pytest.mark.parametrize(
    "f",
    [
        check_seed, lambda s: normals(s, "test", INDEX, 0, 3), lambda s: uniforms(s, "test", INDEX, 0, 3),
        lambda s: config_from_dict({**POINT, "seed": s}), lambda s: point_seed(s, "x"),
        lambda s: run_scan([], Path("nowhere"), s), lambda s: independence_metropolis(LOG_WEIGHT, s),
        lambda s: metropolis_ensemble(WEIGHTED, s), lambda s: acceptance(LOG_WEIGHT, s),
        lambda s: draw_toy(TwoPeak(1.0, 0.3), 10, s), lambda s: import_file(Path("nowhere"), ACTION, seed=s),
        lambda s: simulate(ACTION, (4, 4), MonteCarlo(), seed=s, out="nowhere"),
        lambda s: simulate(ComplexGaussian(1.0), (), SMALL, seed=s, out="nowhere"),
        lambda s: simulate(TwoPeak(1.0, 0.3), (), ExactDraws(), seed=s, out="nowhere"),
        lambda s: stochastic_quantization(ACTION, (4, 4), seed=s),
        lambda s: start_fields(ACTION, (4, 4), 2, s),
        lambda s: thermodynamic_integration(ACTION, (2, 2), seed=s, n_nodes=3),
        lambda s: hmc_trajectory(ACTION, np.ones((4, 2, 2)), seed=s, chains=INDEX, trajectory=0, length=1.0,
                                 n_steps=2),
    ],
)  # fmt: skip
def test_what_is_no_integer_is_no_seed(f: Callable[[Any], Any], seed: Any) -> None:
    with pytest.raises(
        InputError, match=r"seed must be (an integer in \[0, 2\^64\)|a number), got"
    ) as refused:
        f(seed)
    assert "\n" not in str(refused.value)
    assert not Path("nowhere").exists()


def test_a_numpy_seed_gives_the_same_folder(tmp_path: Path) -> None:
    """... and a run of it is resumed by the Python integer."""
    made = simulate(ComplexGaussian(1.0), (), SMALL, seed=np.int64(3), out=tmp_path / "a")
    again = simulate(ComplexGaussian(1.0), (), SMALL, seed=3, out=tmp_path / "a")
    assert again.identity == made.identity
    draws = simulate(TwoPeak(1.0, 0.3), (), ExactDraws(n_configs=1000), seed=np.array(3), out=tmp_path / "b")
    assert draws.attrs["seed"] == 3
    assert metropolis_ensemble(WEIGHTED, np.int64(3)).attrs["metropolis"]["seed"] == 3
    with pytest.raises(InputError, match="seed was 3, now 4"):
        simulate(ComplexGaussian(1.0), (), SMALL, seed=np.int64(4), out=tmp_path / "a")


def test_extents_that_are_no_integers_are_not_cut(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shape must be integers, got 4\.5"):
        simulate(ACTION, (4.5, 4), MonteCarlo(), seed=1, out=tmp_path)

"""What an ensemble is asked for with: values out of range, roundings, and nothing heavy to import."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pydantic
import pytest

from lattice.simulation.parameters import ComplexLangevin, MonteCarlo


@pytest.mark.parametrize(
    "bad",
    [
        {"n_configs": 0},
        {"n_chains": 7},
        {"n_therm": 0},
        {"trajectory_length": 0.0},
        {"target_acceptance": 1.0},
        {"integrator": "euler"},
        {"n_cfg": 3},
        {"acceleration": "fast"},
        {"cluster": "wolf"},
        {"update": "heatbath"},
        {"n_winding": -1},
        {"n_winding": 0.5},
    ],
)
def test_parameters_out_of_range(bad: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        MonteCarlo(**bad)


def test_rounding_up_to_whole_chains() -> None:
    p = MonteCarlo(n_configs=1000, n_chains=64, shard_configs=100)
    assert p.n_saved == 1024
    assert p.n_times == 16
    assert p.times_per_shard(256) == 2
    assert MonteCarlo(n_chains=128).times_per_shard(2**24) == 1


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"step_sizes": (0.01, 0.1)}, "larger than step"),
        ({"step_sizes": (0.1,)}, "two or more"),
        ({"step": -1.0}, "greater than 0"),
        ({"n_chains": 17}, "multiple of 2"),
        ({"n_chain": 16}, "n_chain"),
    ],
)
def test_complex_langevin_that_makes_no_sense(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ComplexLangevin(**({"step": 0.02, "tau": 0.5} | changes))


def test_the_parameters_import_neither_torch_nor_numba() -> None:
    code = "import sys, lattice.simulation.parameters; "
    code += "print({'torch', 'numba', 'h5py'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_key_that_changes_nothing_is_not_written() -> None:
    """Requests and identities of folders from before it was there stay."""
    for mode in ("json", "python"):
        assert "n_winding" not in MonteCarlo().model_dump(mode=mode)
        assert MonteCarlo(n_winding=2).model_dump(mode=mode)["n_winding"] == 2
    assert MonteCarlo(**MonteCarlo(n_winding=2).model_dump()) == MonteCarlo(n_winding=2)
    assert MonteCarlo(**MonteCarlo().model_dump()) == MonteCarlo()

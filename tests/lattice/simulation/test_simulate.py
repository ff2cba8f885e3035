"""One word for every method: the parameters name it, and the ensemble is that of its own module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lattice.actions.one_variable import ComplexGaussian, TwoPeak
from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError
from lattice.simulation.complex_langevin import generate_complex
from lattice.simulation.exact_draws import draw_toy
from lattice.simulation.monte_carlo import generate
from lattice.simulation.parameters import ComplexLangevin, ExactDraws, MonteCarlo
from lattice.simulation.simulate import simulate

MC = MonteCarlo(n_configs=32, n_chains=8, n_therm=20)
CL = ComplexLangevin(n_configs=64, n_chains=16, n_therm=4, step=0.05, step_sizes=())


@pytest.mark.parametrize(
    ("action", "shape", "parameters", "make"),
    [(ScalarPhi4(0.2, 0.1), (4, 4), MC, generate), (ComplexGaussian(1 + 1j), (), CL, generate_complex)],
    ids=["Monte Carlo", "complex Langevin"],
)
def test_the_class_of_the_parameters_is_the_method(
    action: Any, shape: Any, parameters: Any, make: Any, tmp_path: Path
) -> None:
    one = simulate(action, shape, parameters, seed=3, out=tmp_path / "one")
    two = make(action, shape, parameters, 3, tmp_path / "two")
    assert one.identity == two.identity
    again = simulate(action, shape, parameters, seed=3, out=str(tmp_path / "one"))
    np.testing.assert_array_equal(again.phi, one.phi)
    with pytest.raises(InputError, match="seed was 3, now 4"):
        simulate(action, shape, parameters, seed=4, out=tmp_path / "one")


def test_a_shape_is_a_tuple(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shape is a tuple of extents, such as \(8, 8\), got 8"):
        simulate(ScalarPhi4(0.2, 0.1), 8, MC, seed=3, out=tmp_path)  # type: ignore[arg-type]


def test_draws_are_those_of_the_law(tmp_path: Path) -> None:
    law = TwoPeak(1.0, 0.25)
    drawn = simulate(law, (), ExactDraws(n_configs=1000), seed=3, out=tmp_path)
    np.testing.assert_array_equal(drawn.phi, draw_toy(law, 1000, 3))


def test_shards_that_a_kill_left_beyond_what_is_asked_are_named(tmp_path: Path) -> None:
    def make(n: int) -> Any:
        asked = MonteCarlo(n_configs=n, n_chains=16, n_therm=20, shard_configs=320)
        return simulate(ScalarPhi4(0.25, 0.022), (4, 4), asked, seed=5, out=tmp_path / "k")

    make(320)
    old = (tmp_path / "k/manifest.json").read_text()
    make(640)
    (tmp_path / "k/manifest.json").write_text(old)  # as kill -9 leaves it
    with pytest.raises(InputError, match="ask for 640 or more"):
        make(480)
    assert len(make(640)) == 640

"""What is asked for: refused in one line where it cannot be made, and its folder only for what it asks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_actions import O2, Own

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.actions.protocol import Action
from lattice.ensembles.ensemble import read_ensemble
from lattice.errors import InputError
from lattice.files import write_json
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import Recipe, check_recipe
from lattice.simulation.simulate import simulate

PARAMS: dict[str, Any] = {"n_configs": 8, "n_chains": 4, "n_therm": 10, "cluster": "none"}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Times, chains and series in the order they were made; another request is refused by name."""
    recipe = Recipe(O2(0.1, 0.2), (2, 3), MonteCarlo(**PARAMS), 5)
    assert recipe.made(tmp_path) is None
    fields = np.random.default_rng(1).normal(size=(2, 4, *recipe.fields))
    writer = recipe.writer(tmp_path, {"name": "none"}, n_therm=10, stride=3)
    recipe.write(writer, 0, fields, np.array([13, 16]), {"dH": np.arange(8.0).reshape(2, 4)}, more=1)
    done = recipe.finish(writer, writer.read(), {"passed": True, "checks": []})
    again = recipe.made(tmp_path)
    assert again is not None
    assert again.identity == done.identity == read_ensemble(tmp_path, recipe.action).identity
    np.testing.assert_array_equal(again.phi.reshape(fields.shape), fields)
    assert again.trajectory.tolist() == [13] * 4 + [16] * 4
    assert again.chain.tolist() == [0, 1, 2, 3] * 2
    assert again.series["dH"].tolist() == list(range(8))
    assert (again.attrs["stride"], again.attrs["certificate"]["passed"]) == (3, True)
    with pytest.raises(InputError, match="action.lam was 0.2, now 0.3; choose another run folder"):
        Recipe(O2(0.1, 0.3), (2, 3), recipe.params, 5).made(tmp_path)


def test_an_unfinished_folder_is_known_by_its_request(tmp_path: Path) -> None:
    recipe = Recipe(ScalarPhi4(0.2, 0.1), (4,), MonteCarlo(**PARAMS), 5)
    write_json(tmp_path / "request.json", {**recipe.request(), "seed": 6})
    assert recipe.made(tmp_path) is None, "nothing was made for it yet: it may still change"
    write_json(tmp_path / "request.json", {**recipe.request(), "seed": 6})
    (tmp_path / "therm.h5").write_bytes(b"")
    with pytest.raises(InputError, match="made with other settings: seed was 6, now 5"):
        recipe.made(tmp_path)


@pytest.mark.parametrize(
    ("action", "shape", "words"),
    [
        (FreeScalar(0.3), (4, 4), "no normalisable"),
        (ScalarPhi4(0.2, 0.1), (), "1 to 4 positive extents"),
    ],
)
def test_what_is_no_law_is_refused(action: Action, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_recipe(Recipe(action, shape, MonteCarlo(), 1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "ensemble.cluster: wolff knows phi^4 only, not Own: use ensemble.cluster: none"),
        ({"cluster": "none", "update": "local"}, "ensemble.update: local knows phi^4 only"),
        ({"cluster": "none", "n_overrelax": 2}, "use ensemble.n_overrelax: 0"),
        ({"cluster": "none", "acceleration": "free"}, "use ensemble.acceleration: none"),
    ],
)
def test_what_only_phi4_has_is_refused_with_advice(settings: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        simulate(Own(0.2, 0.1), (4, 4), MonteCarlo(**settings), seed=1, out=tmp_path / "e")
    assert words in str(caught.value)
    assert not (tmp_path / "e").exists()


@dataclass(frozen=True)
class Careless(Action):
    """What can go wrong in a few lines."""

    fault: str
    even = True

    def action(self, phi: torch.Tensor) -> torch.Tensor:
        s = (phi**2 + 0.1 * phi * (self.fault == "odd")).sum((1, 2))
        return s.sum() if self.fault == "sum" else s.float() if self.fault == "float" else s

    def grad(self, phi: torch.Tensor) -> torch.Tensor:
        return 2 * phi.sum(1) if self.fault == "shape" else 2 * phi / (0.0 if self.fault == "inf" else 1.0)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            "sum",
            r"Careless.action of fields \(2, 4, 4\) must be finite float64 \(2,\), got .*64 \(\)",
        ),
        ("float", r"Careless.action .* got torch.float32"),
        ("shape", r"Careless.grad .* must be finite float64 \(2, 4, 4\), got torch.float64 \(2, 4\)"),
        ("inf", "Careless.grad .* must be finite"),
        ("odd", r"says that it is even, but S\(-phi\) is not S\(phi\)"),
    ],
)
def test_a_careless_action_gets_one_line(fault: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        simulate(Careless(fault), (4, 4), MonteCarlo(**PARAMS), seed=1, out=tmp_path)
    with pytest.raises(InputError, match="an action is a lattice.Action, got object"):
        simulate(object(), (4, 4), MonteCarlo(**PARAMS), seed=1, out=tmp_path)

"""The config of U(1) links: what it takes, what it refuses in one line."""

from __future__ import annotations

from typing import Any

import pytest

from diffsq.config.config import config_from_dict, resolved_yaml
from diffsq.config.gauge import GaugeRun
from diffsq.config.yaml_file import read_yaml
from lattice.errors import InputError
from lattice.simulation.parameters import ExactDraws, MonteCarlo

BASE: dict[str, Any] = {"name": "u1", "action": {"kind": "u1", "beta": 2.0}, "lattice": {"shape": [4, 6]}}


def made(**changes: Any) -> GaugeRun:
    config = config_from_dict({**BASE, **changes})
    assert isinstance(config, GaugeRun)
    return config


def test_ensembles_are_draws_or_chains_by_what_they_say() -> None:
    assert isinstance(made().ensemble, ExactDraws)
    assert made(ensemble={}).ensemble == ExactDraws(n_configs=16384)
    assert made(ensemble={"n_configs": 5000}).ensemble == ExactDraws(n_configs=5000)
    chains = made(ensemble={"n_configs": 5000, "update": "heat-bath", "cluster": "none"}).ensemble
    assert isinstance(chains, MonteCarlo)
    assert made().checks.keys() == {"topology"}


@pytest.mark.parametrize("ensemble", [{"n_configs": 4000}, {"n_chains": 8, "n_configs": 80}])
def test_what_is_written_is_read_back(ensemble: dict[str, Any], tmp_path: Any) -> None:
    config = made(ensemble=ensemble, models=["score", "torus"])
    path = tmp_path / "config.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    assert config_from_dict(read_yaml(path)) == config


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"action": {"kind": "u1", "beta": 0}}, "action.beta must be > 0, got 0"),
        ({"action": {"kind": "u1", "beta": -2}}, "action.beta must be > 0, got -2"),
        ({"action": {"kind": "u1", "beta": [2, 1]}}, r"S is complex: .*field: x\+iy"),
        ({"action": {"kind": "u1", "beta": 2, "theta": 1.0}}, "S is complex: .*check theta"),
        ({"action": {"kind": "u1", "bet": 2}}, r"unknown key action.bet; did you mean action.beta\?"),
        ({"lattice": {"shape": [4]}}, "two periodic extents of at least 2"),
        ({"lattice": {"shape": [4, 1]}}, "two periodic extents of at least 2"),
        ({"lattice": {"shape": [4, 6], "boundary": "open"}}, "unknown key lattice.boundary"),
        ({"lattice": {"shape": [1024, 1024]}}, "at most 262144 plaquettes"),
        ({"models": ["scores"]}, "models"),
        ({"sampling": {"method": "pc"}}, "sampling.method"),
        ({"ensemble": {"n_configs": 10}}, "ensemble.n_configs"),
        ({"training": {"sectors": "some"}}, "training.sectors"),
        ({"ensemble": None}, "ensemble"),
        ({"ensemble": {"n_config": 1000}}, r"unknown key ensemble.n_config; did you mean ensemble.n_configs"),
        ({"models": ["torus"], "checks": {"freezing": {}}}, "checks.freezing asks the model score"),
    ],
)
def test_refusals_are_one_line(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        made(**changes)
    assert "\n" not in str(caught.value)


def test_a_model_alone() -> None:
    both = made(models=["score", "torus"])
    assert (both.of("torus").method, both.of("score").method) == ("angles", "flow")
    with pytest.raises(InputError, match=r"no model toru; did you mean torus\?"):
        both.of("toru")

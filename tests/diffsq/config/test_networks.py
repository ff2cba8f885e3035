"""The config of networks: a run without an action, its samplers, one line for what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffsq.config.config import WITHOUT_WEIGHTS, NetworkRun, config_from_dict, resolved_yaml, run_kind
from diffsq.config.memory import terms
from diffsq.config.presets import found
from lattice.actions.networks import CosNet, ErfNet
from lattice.errors import InputError
from lattice.simulation.parameters import RandomNetworks

COS: dict[str, Any] = {
    "name": "n", "action": {"kind": "cos_net", "width": 4, "kappa": 0.2, "output": "signs"},
    "lattice": {"shape": [8, 8]}, "ensemble": {},
}  # fmt: skip


def build(**changes: Any) -> NetworkRun:
    made = config_from_dict({**COS, **changes})
    assert type(made) is NetworkRun
    return made


def test_a_law_without_action_has_a_run_of_its_own() -> None:
    config = build()
    assert run_kind(ErfNet(4), "score") is NetworkRun
    assert config.action == CosNet(4, 0.2, "signs")
    assert config.ensemble == RandomNetworks()
    assert config.method == WITHOUT_WEIGHTS
    assert config.of("score").method == WITHOUT_WEIGHTS
    assert build(sampling={"method": "pc"}).method == "pc"
    assert config.source is None


def test_it_comes_back_from_its_own_text(tmp_path: Any) -> None:
    from diffsq.config.config import load_config

    path = tmp_path / "n.yaml"
    path.write_text(resolved_yaml(build(checks={"networks": {"widths": [1, 2]}})))
    assert load_config(path) == build(checks={"networks": {"widths": [1, 2]}})


def test_without_models_the_lattice_is_of_any_dimension() -> None:
    assert build(lattice={"shape": [8]}, models=[]).shape == (8,)
    with pytest.raises(InputError, match="two extents"):
        build(lattice={"shape": [8]})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampling": {"method": "flow"}}, "flow weighs its samples with S, and cos_net is a law"),
        ({"sampling": {"method": "path"}}, "take euler, pc, heun"),
        ({"action": {**COS["action"], "width": 0}}, "action.width must be a whole number of neurons >= 1"),
        ({"action": {**COS["action"], "output": "sign"}}, "did you mean signs|'signs'"),
        ({"action": {**COS["action"], "kappa": 0.3}}, "no broken phase"),
        ({"action": {"kind": "local_net", "kappa": 0.2, "rho": -1.0}}, "action.rho must be a density > 0"),
        ({"action": {"kind": "local_net", "kappa": 0.2, "rho": 0.3, "poisson": False}}, "must be whole"),
        ({"action": {"kind": "erf_net", "width": 3, "output": "rayleigh"}}, "gives a erf_net a mean"),
        ({"ensemble": {"n_therm": 100}}, "n_therm"),
        ({"action": {"kind": "cos_nets", "width": 4, "kappa": 0.2}}, "did you mean 'cos_net'"),
    ],
)  # fmt: skip
def test_refusals(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        build(**changes)
    assert "\n" not in str(caught.value)


def test_memory_and_presets() -> None:
    assert terms(build(models=[]), "measure")["ensemble.n_configs"] == (65536, 8.0 * 64)
    for name in ("nnft_erf", "nnft_cos", "nnft_local", "nnft_phi4"):
        assert found(Path(name)).is_file()

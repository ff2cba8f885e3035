"""The config of machines: which run it is, its defaults, one line for what is wrong, and it round-trips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffsq.config.config import Config, LatticeRun, config_from_dict, load_config, resolved_yaml, run_kind
from diffsq.config.machines import MachineRun, MachineSizes, MachineTraining, PicturesRun
from lattice.actions.phi4 import FreeScalar
from lattice.errors import InputError

MACHINE: dict[str, Any] = {
    "name": "m", "action": {"kind": "free", "kappa": 0.2}, "lattice": {"shape": [8, 8]}, "models": ["rbm"],
}  # fmt: skip
PICTURES: dict[str, Any] = {"name": "p", "models": ["rbm"], "ensemble": {"data": "digits"}}
PHI4 = {"kind": "phi4", "kappa": 0.25, "lam": 0.022}


def build(base: dict[str, Any], **changes: Any) -> Config:
    return config_from_dict({key: x for key, x in {**base, **changes}.items() if x != "none"})


def test_the_model_and_the_data_say_which_run() -> None:
    machine, pictures = build(MACHINE), build(PICTURES)
    assert type(machine) is MachineRun
    assert type(pictures) is PicturesRun
    assert isinstance(machine.action, FreeScalar)
    assert (machine.shape, pictures.shape) == ((8, 8), (8, 8))
    assert pictures.action is None
    assert (machine.processes, pictures.processes) == (("exact",), ())
    assert run_kind(FreeScalar(0.2), "score") is LatticeRun
    assert run_kind(FreeScalar(0.2), "rbm", {"n_configs": 8}) is MachineRun
    assert type(build(MACHINE, models=["score"], ensemble={})) is LatticeRun


def test_a_machine_is_of_any_dimension() -> None:
    for shape in ([10], [3, 5], [2, 2, 4], [2, 2, 2, 2]):
        found = build(MACHINE, lattice={"shape": shape}, action={"kind": "free", "kappa": 0.1})
        assert found.shape == tuple(shape)


def test_defaults() -> None:
    machine, pictures = build(MACHINE), build(PICTURES)
    assert isinstance(machine, MachineRun)
    assert isinstance(pictures, PicturesRun)
    sizes = MachineSizes(n_hidden=None, mu2=None, s=1.0, width=0.02)
    assert machine.machine == pictures.machine == sizes
    exact = MachineTraining(
        method="exact", second="data", rate=None, n_steps=3000, batch=None, k=1, momentum=0.0, cooling=1.0,
        period=64, natural=False, mass=False, validation_fraction=0.125, n_records=64, checkpoint_every=500,
    )  # fmt: skip
    assert machine.training == exact
    assert pictures.training == exact.model_copy(update={"method": "cd"})
    assert (machine.sampling.n_samples, machine.sampling.n_forward) == (8192, 2048)
    assert pictures.sampling is None
    assert (set(machine.checks), set(pictures.checks)) == ({"machine", "learning", "gibbs"}, {"pictures"})
    assert set(build(MACHINE, checks={"gibbs": False}).checks) == {"machine", "learning"}
    assert (machine.seed, machine.ensemble.update) == (1, "hmc")


@pytest.mark.parametrize(
    ("base", "changes"),
    [(MACHINE, {}),
     (MACHINE, {"action": PHI4, "training": {"second": "symmetric", "natural": True, "rate": 0.1}}),
     (MACHINE, {"machine": {"n_hidden": 3, "mu2": 4.0, "s": 0.5, "width": 0.1}, "seed": 2**63}),
     (MACHINE, {"training": {"method": "pcd", "batch": 64, "k": 3, "momentum": 0.8, "cooling": 0.92}}),
     (MACHINE, {"training": {"second": "exact"}, "sampling": {"n_samples": 20, "n_forward": 20},
                "checks": {"learning": False, "gibbs": {"n_chains": 16}}, "ensemble": {"cluster": "none"}}),
     (PICTURES, {}), (PICTURES, {"training": {"method": "exact", "mass": True, "batch": 7}, "checks": {}}),
     (PICTURES, {"checks": {"pictures": False}, "machine": {"mu2": 36.0, "n_hidden": 64}})],
)  # fmt: skip
def test_the_resolved_config_is_the_same_run(
    base: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:  # fmt: skip
    config = build(base, **changes)
    path = tmp_path / "c.yaml"
    path.write_text(resolved_yaml(config))
    again = load_config(path)
    assert type(again) is type(config)
    assert again == config
    assert resolved_yaml(again) == resolved_yaml(config)


TRAINING = [
    ({"method": "pcd"}, "method pcd needs mini-batches: set training.batch, or take exact"),
    ({"batch": 8, "second": "symmetric"}, "training.batch draws from the data; training.second symmetric"),
    ({"method": "sgd"}, "training.method: must be 'exact', 'cd' or 'pcd', got 'sgd'"),
    ({"second": "first"}, "training.second: must be"), ({"rate": 0.0}, "training.rate: must be greater"),
    ({"rate": float("nan")}, "training.rate"), ({"n_steps": -1}, "training.n_steps: must be greater"),
    ({"batch": 0}, "training.batch: must be greater"), ({"k": 0}, "training.k: must be greater"),
    ({"momentum": 1.0}, "training.momentum: must be less than 1"),
    ({"cooling": 0.0}, "training.cooling: must be greater than 0"),
    ({"cooling": 1.1}, "training.cooling: must be less than or equal to 1"),
    ({"period": 0}, "training.period"), ({"n_records": 1}, "training.n_records: must be greater"),
    ({"validation_fraction": 0.6}, "training.validation_fraction: must be less"),
    ({"checkpoint_every": 0}, "training.checkpoint_every"), ({"rates": 1}, "did you mean training.rate"),
    ({"natural": "maybe"}, "training.natural"), ({"k": True}, "training.k must be a number, got True"),
]  # fmt: skip


@pytest.mark.parametrize(("training", "words"), TRAINING)
@pytest.mark.parametrize("base", [MACHINE, PICTURES])
def test_trainings_that_make_no_sense(base: dict[str, Any], training: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        build(base, training=training)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"action": "none"}, "a machine learns from an action, or from a data set, ensemble: {data: digits}"),
     ({"action": None}, "a machine learns from an action"), ({"lattice": "none"}, "lattice is missing"),
     ({"action": {"kind": "complex_phi4", "kappa": 0.1, "lam": 0.1, "mass": [1, 1]}},
      "real fields of one component"),
     ({"action": {"kind": "two_peak", "mu0": 1.0, "sigma0": 0.25}, "lattice": {"shape": [1]}},
      "real fields of one component"),
     ({"action": PHI4, "training": {"second": "exact"}}, "action is interacting: take symmetric or data"),
     ({"action": {"kind": "free", "kappa": 0.25}}, "kappa"),
     ({"lattice": {"shape": [0, 4]}}, "1 to 4 positive"),
     ({"machine": {"n_hidden": 0}}, "machine.n_hidden: must be greater"),
     ({"machine": {"mu2": 0}}, "machine.mu2: must be greater than 0"),
     ({"machine": {"s": -1}}, "machine.s: must"), ({"machine": {"width": 0}}, "machine.width: must"),
     ({"machine": {"hidden": 3}}, "unknown key machine.hidden"),
     ({"sampling": {"n_samples": 19}}, "sampling.n_samples: must be greater"),
     ({"sampling": {"n_forward": 19}}, "sampling.n_forward: must be greater"),
     ({"models": ["rbm", "rbm"]}, "models must be distinct"),
     ({"models": ["rbm", "score"]}, "models.1: must be"),
     ({"sde": {"kind": "ve"}}, "sde"), ({"checks": {"machines": {}}}, "no such check; did you mean machine?"),
     ({"ensemble": {"update": "heat"}}, "ensemble.update: must be 'hmc', 'local', 'gibbs' or 'heat-bath'")],
)  # fmt: skip
def test_what_is_no_machine_of_an_action(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        build(MACHINE, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"action": PHI4}, "a data set has no action, lattice or reference: leave them out"),
     ({"lattice": {"shape": [8, 8]}}, "a data set has no action, lattice or reference"),
     ({"training": {"second": "symmetric"}}, "a data set has no symmetry: training.second symmetric is of a"),
     ({"training": {"second": "exact"}}, "a data set has no symmetry: training.second exact"),
     ({"ensemble": {"data": "mnist"}}, "ensemble.data: must be 'digits', got 'mnist'"),
     ({"ensemble": {"data": "digits", "n_configs": 8}}, "unknown key ensemble.n_configs"),
     ({"models": ["rbm", "closed"]}, "models.1: must be")],
)  # fmt: skip
def test_what_is_no_machine_of_pictures(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        build(PICTURES, **changes)
    assert "\n" not in str(error.value)


def test_samples_of_pictures_are_not_asked_for() -> None:
    """No action gives them weights."""
    with pytest.raises(InputError, match="sampling"):
        build(PICTURES, sampling={"n_samples": 100})

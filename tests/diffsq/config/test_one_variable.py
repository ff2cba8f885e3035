"""The config of a run on one variable: which kind of run, one line for what is wrong, and it round-trips."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffsq.config.config import ComplexRun, LatticeRun, RealRun, config_from_dict, load_config, resolved_yaml
from diffsq.config.presets import preset
from lattice.actions.one_variable import ComplexGaussian, ComplexQuartic, RealQuartic, TwoPeak
from lattice.errors import InputError


def test_the_action_says_which_run() -> None:
    built = {
        name: load_config(preset(name)).action
        for name in ("cl_quartic", "cl_gaussian", "toy_two_peak", "toy_double_well")
    }
    assert built["cl_quartic"] == ComplexQuartic(1 + 1j, 1.0)
    assert isinstance(built["cl_gaussian"], ComplexGaussian)
    assert built["toy_two_peak"] == TwoPeak(1.0, 0.25)
    assert built["toy_double_well"] == RealQuartic(-1.0, 0.4)
    for name, kind in (("demo", LatticeRun), ("cl_quartic", ComplexRun), ("toy_two_peak", RealRun)):
        assert type(load_config(preset(name))) is kind


@pytest.mark.parametrize("name", ["cl_quartic", "toy_double_well"])
def test_resolved_config_is_the_same_run(name: str, tmp_path: Path) -> None:
    config = load_config(preset(name))
    (tmp_path / "c.yaml").write_text(resolved_yaml(config))
    assert load_config(tmp_path / "c.yaml") == config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("action.lamm=1", "did you mean action.lam?"),
        ("action.lam=-1", "action.lam must be >= 0.*got -1"),
        ("action.sigma0=[1,2,3]", "action.sigma0 must be a number or the pair"),
        ("models=[score,score]", r"models must be distinct"),
        ("models=[flow]", "models.0: must be 'score' or 'energy', got 'flow'"),
        ("sampling.sde=[]", "sampling.sde must be"),
        ("sampling.method=hmc", "sampling.method: must be one of flow, path, euler, pc, heun"),
        ("training.kind=score", "training.kind is set by `models`"),
        ("n_parts=1", "n_parts must be 0 or at least 2"),
        ("ensemble.n_chain=3", "did you mean ensemble.n_chains?"),
        ("action.kind=complex_quintic", "complex_quintic.*did you mean.*complex_quartic"),
        ("sampling.scan={}", "sampling.scan is called checks.samplers.methods since version 0.2"),
        ("checks.stripp={}", "checks.stripp: no such check; did you mean strip?"),
    ],
)
def test_one_line_for_what_is_wrong(override: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        load_config(preset("cl_quartic"), [override])
    assert "\n" not in str(error.value)


def test_a_real_number_is_a_complex_one() -> None:
    config = load_config(preset("cl_quartic"), ["action.sigma0=2"])
    assert config.action == ComplexQuartic(2.0 + 0j, 1.0)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lattice.shape=[8,8]", r"ComplexQuartic is a model of one variable: lattice.shape is \[1\]"),
        ("n_parts=2", "n_parts is for real models"),
        ("sampling.metropolis_sigma=0.001", "metropolis_sigma must lie in the range learned, 0.01 to inf"),
        ("ensemble.tau=0.05", "at most tau/4"),
        ("sampling.n_levels={ve: 20, vpp: 3}", "sampling.n_levels"),
        ("sampling.n_levels={ve: 20}", "sampling.n_levels has no entry for vp"),
    ],
)
def test_settings_that_do_not_fit_each_other(override: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_config(preset("cl_quartic"), [override])


def test_a_score_model_alone_needs_no_metropolis() -> None:
    """The published noise range, sigma from 1 to 10, has no room for ten times the lowest level."""
    overrides = ["models=[score]", "training.sigma_min=1", "training.sigma_max=10"]
    assert load_config(preset("cl_quartic"), overrides).models == ("score",)
    load_config(preset("cl_quartic"), ["sampling.metropolis_sigma=0.001", "models=[score]"])


def test_checks_are_usual_and_may_be_dropped() -> None:
    usual = load_config(preset("cl_quartic")).checks
    assert set(usual) == {"strip", "samplers", "fokker-planck"}
    assert usual["samplers"]["n"] == 20000
    assert set(load_config(preset("cl_quartic"), ["checks.samplers=false"]).checks) == {
        "strip",
        "fokker-planck",
    }
    assert load_config(preset("cl_quartic"), ["models=[]", "checks=null"]).checks == {}


def test_one_link_and_a_complex_mass_are_reachable() -> None:
    link = {"name": "link", "action": {"kind": "one_link", "beta": [1.0, 0.5]}}
    assert "set models: []" in refusal(link)
    assert isinstance(config_from_dict({**link, "models": []}), ComplexRun)
    mass = {"name": "mass", "action": {"kind": "complex_phi4", "kappa": 0.1, "lam": 0.5, "mass": [1.0, 1.0]}}
    assert config_from_dict({**mass, "models": [], "lattice": {"shape": [2, 2]}}).shape == (2, 2)
    assert "models: []" in refusal({**mass, "lattice": {"shape": [2, 2]}})


def refusal(data: dict[str, object]) -> str:
    with pytest.raises(InputError) as caught:
        config_from_dict(data)
    return str(caught.value)


def test_a_check_that_is_dropped_stays_dropped(tmp_path: Path) -> None:
    config = load_config("toy_double_well", ["checks.limits=false", "checks.samplers=false"])
    assert set(config.checks) == {"cumulants", "learned-action"}
    (tmp_path / "again.yaml").write_text(resolved_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "again.yaml") == config

"""The config of a run on one variable: which kind of run, one line for what is wrong, and it round-trips."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffsq.config.config import Config, resolved_yaml
from diffsq.config.toy import ComplexConfig, RealToyConfig, load_run_config
from lattice.actions.one_variable import ComplexGaussian, ComplexQuartic, RealQuartic, TwoPeak
from lattice.errors import InputError


def test_the_action_says_which_run() -> None:
    built = {
        name: load_run_config(name).build_action()
        for name in ("cl_quartic", "cl_gaussian", "toy_two_peak", "toy_double_well")
    }
    assert built["cl_quartic"] == ComplexQuartic(1 + 1j, 1.0)
    assert isinstance(built["cl_gaussian"], ComplexGaussian)
    assert built["toy_two_peak"] == TwoPeak(1.0, 0.25)
    assert built["toy_double_well"] == RealQuartic(-1.0, 0.4)
    assert isinstance(load_run_config("demo"), Config)
    assert isinstance(load_run_config("cl_quartic"), ComplexConfig)
    assert isinstance(load_run_config("toy_two_peak"), RealToyConfig)


@pytest.mark.parametrize("name", ["cl_quartic", "toy_double_well"])
def test_resolved_config_is_the_same_run(name: str, tmp_path: Path) -> None:
    config = load_run_config(name)
    (tmp_path / "c.yaml").write_text(resolved_yaml(config))
    assert load_run_config(tmp_path / "c.yaml") == config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("action.lamm=1", "did you mean action.lam?"),
        ("action.lam=-1", "action.lam: must be greater than or equal to 0, got -1"),
        ("action.sigma0=[1,2,3]", "action.sigma0 must be a number or the pair"),
        ("models=[score,score]", r"models must be \[score\], \[energy\] or both"),
        ("models=[flow]", "models.0: must be 'score' or 'energy', got 'flow'"),
        ("sampling.sde=[]", "sampling.sde must be"),
        ("sampling.method=hmc", "sampling.method: must be 'flow', 'path', 'euler', 'pc' or 'heun'"),
        ("training.kind=score", "training.kind is set by `models`"),
        ("n_parts=1", "n_parts must be 0 or at least 2"),
        ("ensemble.n_chain=3", "did you mean ensemble.n_chains?"),
        ("action.kind=complex_quintic", "action.kind must be one of phi4, free, complex_gaussian"),
    ],
)
def test_one_line_for_what_is_wrong(override: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        load_run_config("cl_quartic", [override])
    assert "\n" not in str(error.value)


def test_a_real_number_is_a_complex_one() -> None:
    config = load_run_config("cl_quartic", ["action.sigma0=2"])
    assert config.build_action() == ComplexQuartic(2.0 + 0j, 1.0)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("n_parts=2", "n_parts is for real models"),
        ("sampling.metropolis_sigma=0.001", "metropolis_sigma must lie in the range learned, 0.01 to inf"),
        ("ensemble.tau=0.05", "at most tau/4"),
        ("sampling.scan={flow: [1]}", "sampling.scan.flow.0: must be greater than or equal to 4"),
        ("sampling.n_levels={ve: 20, vpp: 3}", "sampling.n_levels"),
        ("sampling.n_levels={ve: 20}", "sampling.n_levels has no entry for vp"),
    ],
)
def test_settings_that_do_not_fit_each_other(override: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_run_config("cl_quartic", [override])


def test_a_score_model_alone_needs_no_metropolis() -> None:
    """The published noise range, sigma from 1 to 10, has no room for ten times the lowest level."""
    overrides = ["models=[score]", "training.sigma_min=1", "training.sigma_max=10"]
    assert load_run_config("cl_quartic", overrides).models == ("score",)
    load_run_config("cl_quartic", ["sampling.metropolis_sigma=0.001", "models=[score]"])

"""The final table: verdict, pulls, and a summary without weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffsq.config.config import config_from_dict
from diffsq.run_folder import summary as summaries
from diffsq.run_folder.summary_text import table_text
from lattice.actions.one_variable import TwoPeak
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.writer import write_ensemble
from lattice.files import write_json

CHECKS = ("samplers", "limits", "cumulants", "learned-action")

KL = {"wiener": 3.0, "base": 0.4, "model": 0.3, "gain": 0.1, "gain_error": 0.01}
OBSERVABLES = {"abs_magnetization": (0.76, 0.01), "binder": (0.53, 0.005)}


def column(shift: float = 0.0) -> dict[str, Any]:
    entries = {
        name: {"value": value + shift * error, "error": error, "tau_int": 0.5, "tau_int_error": 0.1}
        for name, (value, error) in OBSERVABLES.items()
    }
    return {"ensemble": {}, "observables": entries, "tau_unit": "saved configurations"}


def a_summary(weighted: float, metropolis: float, reference: bool = True) -> dict[str, Any]:
    values = {"abs_magnetization": "0.760(1)", "binder": "0.5300(5)", "ln_z": "182.0(1)"}
    return {
        "columns": {
            "training": column(),
            "raw": column(9),
            "weighted": column(weighted),
            "metropolis": column(metropolis),
        },
        "rows": ["abs_magnetization", "binder"],
        "gated": ["weighted", "metropolis"],
        "notes": {},
        "reference": {"values": values} if reference else None,
        "exact": None,
        "against": "reference" if reference else "training",
        "sampling": {
            "score-ve": {
                "n": 100,
                "ess": {"reverse": 0.6, "reverse_error": 0.01, "forward": 0.5, "forward_error": 0.02},
                "acceptance": 0.6,
                "ln_z": {"value": 182.1, "error": 0.1},
                "kl": KL,
                "warnings": [],
                "clamped": None,
            }
        },
        "ensemble_verdict": None,
        "checks": {},
        "seconds": {"ensemble": 12.0},
    }


CERTIFIED = {"passed": True, "checks": []}


def test_verdict_passes_exact_columns_and_does_not_judge_the_raw_one() -> None:
    result = summaries.verdict(a_summary(0.5, -1.0), CERTIFIED)
    assert result["passed"]
    assert result["max_pull"]["raw"] > 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s["columns"].update(weighted=column(9)),
        lambda s: s["columns"].update(metropolis=column(-9)),
        lambda s: s["columns"].pop("metropolis"),
        lambda s: s["columns"]["weighted"]["observables"]["binder"].update(error=None),
        lambda s: s["sampling"]["score-ve"]["ln_z"].update(value=190.0),
        lambda s: s["checks"].update(strip={"passed": False, "text": ""}),
    ],
    ids=["weighted off", "metropolis off", "no metropolis", "no error", "ln Z off", "check failed"],
)
def test_verdict_fails_when_an_exact_number_is_off_or_missing(spoil: Callable[[dict[str, Any]], Any]) -> None:
    summary = a_summary(0.5, -1.0)
    spoil(summary)
    assert not summaries.verdict(summary, CERTIFIED)["passed"]


def test_verdict_fails_without_a_certificate() -> None:
    assert not summaries.verdict(a_summary(0.5, -1.0), {"passed": False, "checks": []})["passed"]


@pytest.mark.parametrize("reference", [True, False])
def test_table_shows_values_errors_and_pulls(reference: bool) -> None:
    summary = a_summary(0.5, -1.0, reference)
    summary["verdict"] = summaries.verdict(summary, CERTIFIED)
    lines = table_text(summary).splitlines()
    row = next(line for line in lines if line.startswith("abs_magnetization"))
    assert "0.760(10)" in row
    assert "[+9.0]" in row or "[+6.4]" in row  # against the reference, or against the training ensemble
    assert lines[0].split()[1] == ("reference" if reference else "training")
    assert any(line.startswith("verdict: passed") for line in lines)


def test_efficiencies_are_printed_with_errors_and_what_explains_them() -> None:
    summary = a_summary(0.5, -1.0)
    sampling = summary["sampling"]["score-ve"]
    sampling["acceptance_error"] = 0.004
    sampling["spread"] = {
        way: {"exp_minus_var": 0.61, "exp_minus_var_error": 0.02, "largest_weight": share}
        for way, share in (("reverse", 0.0123), ("forward", 0.004))
    }
    sampling["kl"] = {**KL, "wiener_error": 0.2, "base_error": 0.03, "model_error": 0.02}
    summary["verdict"] = summaries.verdict(summary, CERTIFIED)
    lines = table_text(summary).splitlines()
    assert (
        "ESS/N: reverse 0.600(10) [e^-Var(log w) 0.610(20), largest weight 0.012], "
        "forward 0.500(20) [e^-Var(log w) 0.610(20), largest weight 0.004]"
    ) in lines
    assert "Metropolis acceptance 0.6000(40)" in lines
    held_out = "wiener 3.00(20), base 0.400(30), model 0.300(20), gain 0.100(10)"
    assert f"KL on held-out data: {held_out}" in lines


def test_table_shows_the_warnings_of_the_sample() -> None:
    summary = a_summary(0.5, -1.0)
    summary["sampling"]["score-ve"]["warnings"] = ["ESS/N is low", "do this"]
    summary["verdict"] = summaries.verdict(summary, CERTIFIED)
    lines = table_text(summary).splitlines()
    assert [line for line in lines if line.startswith("warning")] == [
        "warning: ESS/N is low", "warning: do this"
    ]  # fmt: skip


PATH = {
    "reverse": {"ess": 0.6, "ess_error": 0.01}, "forward": {"ess": 0.5, "ess_error": 0.02},
    "acceptance": 0.6, "ln_z": 182.1, "ln_z_error": 0.1, "kl": KL, "warnings": ["ESS/N is low"],
}  # fmt: skip


@pytest.mark.parametrize("diagnostics", [PATH, {"levels": [0.0, 0.2]}], ids=["path", "no weights"])
def test_summary_takes_what_the_sampler_has(
    diagnostics: dict[str, Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    weighted = diagnostics is PATH
    action = ScalarPhi4(0.25, 0.1)
    phi = np.random.default_rng(1).normal(size=(512, 8, 8))
    log_weight = 0.1 * phi[:, 0, 0] if weighted else None
    write_ensemble(Ensemble.from_fields(phi, action, np.arange(512) // 64), tmp_path / "ensemble")
    samples = Ensemble.from_fields(phi, action, log_weight=log_weight)
    write_ensemble(samples, tmp_path / "samples" / "score-ve")
    write_json(tmp_path / "ensemble" / "certificate.json", CERTIFIED)
    write_json(tmp_path / "samples" / "score-ve" / "diagnostics.json", diagnostics)
    summary = summaries.summarize(config_from_dict(settings), tmp_path, {"ensemble": 1.0})
    json.dumps(summary, allow_nan=False)
    found = summary["sampling"]["score-ve"]
    assert found["kl"] == (KL if weighted else dict.fromkeys(KL))
    assert found["ess"]["forward"] == (0.5 if weighted else None)
    assert set(summary["columns"]) == {"training", "raw", *(["weighted", "metropolis"] if weighted else [])}
    assert summary["verdict"]["passed"] == weighted  # a sample without weights is never exact
    text = table_text(summary)
    assert ("gain 0.100(10)" in text) == weighted
    assert ("KL on held-out data" in text) == weighted
    assert ("warning: ESS/N is low" in text) == weighted


def test_each_of_two_models_has_columns_by_its_name(settings: dict[str, Any], tmp_path: Path) -> None:
    """The network's sampler has no weights: its exact columns are missing, and the verdict says so."""
    both = {
        **settings, "models": ["closed", "score"],
        "sampling": {**settings.get("sampling", {}), "method": {"closed": "path", "score": "euler"}},
    }  # fmt: skip
    phi = np.random.default_rng(1).normal(size=(512, 8, 8))
    action = ScalarPhi4(0.25, 0.1)
    write_ensemble(Ensemble.from_fields(phi, action, np.arange(512) // 64), tmp_path / "ensemble")
    write_json(tmp_path / "ensemble" / "certificate.json", CERTIFIED)
    for name, log_weight in (("closed-ve", 0.1 * phi[:, 0, 0]), ("score-ve", None)):
        write_ensemble(Ensemble.from_fields(phi, action, log_weight=log_weight), tmp_path / "samples" / name)
        found = PATH if log_weight is not None else {"levels": [0.0, 0.2]}
        write_json(tmp_path / "samples" / name / "diagnostics.json", found)
    summary = summaries.summarize(config_from_dict(both), tmp_path, {"ensemble": 1.0})
    closed = [f"closed form {kind}" for kind in ("raw", "weighted", "metropolis")]
    assert list(summary["columns"]) == ["training", *closed, "U-Net raw"]
    words = "the sampler 'euler' gives no log-weights"
    assert summary["notes"] == {"U-Net weighted, U-Net metropolis": words}
    assert not summary["verdict"]["passed"]
    assert any(line.startswith("U-Net weighted ") for line in summary["verdict"]["missing"])
    assert "closed form: Metropolis acceptance 0.6" in table_text(summary)


def test_data_and_samples_of_one_variable_are_held_against_what_is_known(tmp_path: Path) -> None:
    """Real: data and samples against the exact numbers; samples 10 % too wide are seen."""
    from lattice.simulation.exact_draws import draw_toy

    config = config_from_dict({
        "name": "x", "action": {"kind": "two_peak", "mu0": 1.0, "sigma0": 0.25},
        "ensemble": {"n_configs": 4000}, "checks": dict.fromkeys(CHECKS, False),
    })  # fmt: skip
    law = TwoPeak(1.0, 0.25)
    write_ensemble(Ensemble.from_fields(draw_toy(law, 4000, 1), law), tmp_path / "ensemble")
    write_json(tmp_path / "ensemble" / "certificate.json", CERTIFIED)
    for name, stretch in (("score-ve", 1.0), ("energy-ve", 1.1)):
        wrong = Ensemble.from_fields(stretch * draw_toy(law, 4000, 2), law)
        write_ensemble(wrong, tmp_path / "samples" / name)
    summary = summaries.summarize(config, tmp_path, {"ensemble": 1.0})
    assert summary["against"] == "exact"
    assert summary["exact"]["kappa4"] == (-2.0, 0.0)
    assert summaries.column_pulls(summary, "training").keys() == set(summary["rows"])
    assert summary["verdict"]["max_pull"]["score-ve"] < 4 < 10 < summary["verdict"]["max_pull"]["energy-ve"]
    assert not summary["verdict"]["passed"]
    assert "exact" in table_text(summary).splitlines()[0]

"""The final table: verdict, pulls, and a summary without weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffsq.config.config import config_from_dict
from diffsq.run_folder import summary as summaries
from lattice.files import write_json

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
        "notes": {},
        "reference": {"values": values} if reference else None,
        "ess": {"reverse": 0.6, "reverse_error": 0.01, "forward": 0.5, "forward_error": 0.02},
        "acceptance": 0.6,
        "ln_z": {"value": 182.1, "error": 0.1},
        "kl": {"wiener": 3.0, "base": 0.4, "model": 0.3, "gain": 0.1, "gain_error": 0.01},
        "seconds": {"ensemble": 12.0},
    }  # fmt: skip


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
        lambda s: s["ln_z"].update(value=190.0),
    ],
    ids=["weighted off", "metropolis off", "no metropolis", "no error", "ln Z off"],
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
    lines = summaries.table_text(summary).splitlines()
    row = next(line for line in lines if line.startswith("abs_magnetization"))
    assert "0.760(10)" in row
    assert "[+9.0]" in row or "[+6.4]" in row  # against the reference, or against the training ensemble
    assert lines[0].split()[1] == ("reference" if reference else "training")
    assert any(line.startswith("verdict: passed") for line in lines)


def test_table_shows_the_warnings_of_the_sample() -> None:
    summary = {**a_summary(0.5, -1.0), "warnings": ["ESS/N is low", "do this"]}
    summary["verdict"] = summaries.verdict(summary, CERTIFIED)
    lines = summaries.table_text(summary).splitlines()
    assert [line for line in lines if line.startswith("warning")] == [
        "warning: ESS/N is low", "warning: do this"
    ]  # fmt: skip


KL = {"wiener": 3.0, "base": 0.4, "model": 0.3, "gain": 0.1, "gain_error": 0.01}
PATH = {
    "reverse": {"ess": 0.6, "ess_error": 0.01}, "forward": {"ess": 0.5, "ess_error": 0.02},
    "acceptance": 0.6, "ln_z": 182.1, "ln_z_error": 0.1, "kl": KL, "warnings": ["ESS/N is low"],
}  # fmt: skip


@pytest.mark.parametrize("diagnostics", [PATH, {"levels": [0.0, 0.2]}], ids=["path", "no weights"])
def test_summary_takes_what_the_sampler_has(
    diagnostics: dict[str, Any], settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighted = diagnostics is PATH
    columns = {"training": column(), "raw": column(9)}
    columns |= {"weighted": column(), "metropolis": column()} if weighted else {}
    monkeypatch.setattr(summaries, "_columns", lambda config, folder: (columns, {}))
    for folder in ("ensemble", "samples"):
        (tmp_path / folder).mkdir()
    write_json(tmp_path / "ensemble" / "certificate.json", CERTIFIED)
    write_json(tmp_path / "samples" / "diagnostics.json", diagnostics)
    summary = summaries.summarize(config_from_dict(settings), tmp_path, {"ensemble": 1.0})
    json.dumps(summary, allow_nan=False)
    assert summary["kl"] == (KL if weighted else dict.fromkeys(KL))
    assert summary["ess"]["forward"] == (0.5 if weighted else None)
    assert summary["verdict"]["passed"] == weighted  # a sample without weights is never exact
    text = summaries.table_text(summary)
    assert ("gain 0.100(10)" in text) == weighted
    assert ("path KL" in text) == weighted
    assert ("warning: ESS/N is low" in text) == weighted

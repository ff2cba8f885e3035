"""The report: every section present, self-contained, numbers of summary.json, unfinished runs tolerated."""

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import synthetic_run

from diffsq.report.page import build_report, certificate_words
from diffsq.report.tables import comparison, label_of, show
from diffsq.run_folder.pulls import pull
from lattice.errors import InputError
from lattice.files import read_json, write_json
from lattice.observables.names import in_short_table
from lattice.statistics.notation import parse_value

SECTIONS = (
    "certificate",
    "section-thermalisation",
    "section-autocorrelation",
    "section-training",
    "section-gain-levels",
    "section-gain-shells",
    "section-schedule",
    "section-sequence",
    "section-weights",
    "section-path-kl",
    "section-level-variance",
    "section-pm",
    "section-two-point",
    "section-pulls",
    "table",
    "cost",
    "config",
    "versions",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_run(tmp_path_factory.mktemp("run") / "layout")


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return build_report(run).read_text(encoding="utf-8")


def cell(page: str, observable: str, column: str) -> str:
    row = re.search(rf'<tr data-observable="{observable}">.*?</tr>', page, re.DOTALL).group()
    return re.search(rf'data-column="{column}">(.*?)</td>', row, re.DOTALL).group(1)


def test_every_section_has_its_figure(page: str) -> None:
    for key in SECTIONS:
        assert f'id="{key}"' in page
        if key.startswith("section-"):
            part = page[page.index(f'<section id="{key}"') :]
            assert "<svg" in part[: part.index("</section>")], key
    assert "not run yet" not in page
    assert "not drawn" not in page


def test_page_is_self_contained(page: str) -> None:
    assert "http" not in page
    assert "<script" not in page
    assert "<link" not in page
    assert not re.search(r"url\((?!#)", page)
    references = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert references
    assert all(link.startswith(("#", "data:image/")) for link in references)


def test_ids_are_unique_and_links_resolve(page: str) -> None:
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'href="#([^"]*)"', page) + re.findall(r"url\(#([^)]*)\)", page)
    assert set(targets) <= set(ids)


def test_table_equals_summary(run: Path, page: str) -> None:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    for column, table in summary["columns"].items():
        short = {name: entry for name, entry in table["observables"].items() if in_short_table(name)}
        assert "kappa4_k1_ratio" in short
        for name, entry in short.items():
            assert cell(page, name, column).startswith(show(entry)), (name, column)
    assert summary["reference"]["values"]["phi2"] in page
    assert show(summary["sampling"]["score-ve"]["ln_z"]) in page
    assert "4 min 14 s" in page


def test_pulls_are_marked_without_colour(run: Path, page: str) -> None:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    raw = summary["columns"]["raw"]["observables"]["susceptibility_full"]
    size = pull(raw, parse_value(summary["reference"]["values"]["susceptibility_full"]))
    assert size is not None
    mark = " !!" if abs(size) >= 3 else " !" if abs(size) >= 2 else ""
    assert f"<small>{size:+.1f}σ{mark}" in cell(page, "susceptibility_full", "raw")


def test_pull_by_hand_and_against_monte_carlo_without_reference() -> None:
    entry, truth = {"value": 1.3, "error": 0.03}, {"value": 1.0, "error": 0.04}
    summary = {
        "rows": ["phi2"], "reference": None, "exact": None, "against": "training", "sampling": {},
        "columns": {"training": {"observables": {"phi2": truth}}, "raw": {"observables": {"phi2": entry}}},
    }  # fmt: skip
    (row,) = comparison(summary)
    assert row.cells["raw"].pull == pytest.approx(6.0)
    assert row.cells["raw"].pull_text == "+6.0σ !!"
    assert np.isnan(row.cells["training"].pull)
    known = {**summary, "reference": {"values": {"phi2": "1.0(4)"}}, "against": "reference"}
    assert comparison(known)[0].cells["raw"].grade == "ok"
    assert pull({"value": None, "error": None}, (1.0, 0.04)) is None


def test_the_answer_comes_first_and_the_certificate_is_folded(page: str) -> None:
    places = [
        page.index(f'id="{key}"') for key in ("table", "section-sequence", "section-pulls", "certificate")
    ]
    assert places == sorted(places)
    assert page.index('class="verdict') < places[0]
    folded = page[places[-1] :]
    assert "<details><summary>2 of 2 checks passed</summary>" in folded


@pytest.mark.usefixtures("plain_figures")
def test_a_failed_check_opens_the_certificate(run: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(run, bad, ignore=shutil.ignore_patterns("samples", "train", "summary.json"))
    certificate = json.loads((bad / "ensemble" / "certificate.json").read_text())
    certificate["checks"][0]["passed"] = certificate["passed"] = False
    write_json(bad / "ensemble" / "certificate.json", certificate)
    page = build_report(bad).read_text(encoding="utf-8")
    assert "<details open><summary>1 of 2 checks passed</summary>" in page


@pytest.fixture
def plain_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not written as SVG, which takes most of the time and is tested above."""
    monkeypatch.setattr("diffsq.plots.to_svg", lambda figure, name: "<svg></svg>")


@pytest.mark.usefixtures("plain_figures")
def test_the_certificate_of_spins_is_not_that_of_hmc() -> None:
    made = {"n_chains": 40, "n_therm": 300}
    for config in (
        {"action": {"kind": "ising", "temperature": 2.0}, "ensemble": made},
        {"action": None, "ensemble": {**made, "temperatures": [1.5, 2.0]}},
    ):
        title, reading = certificate_words(config)
        assert title == "Certificate of the spins"
        assert "Callen" in reading
        assert "ΔH" not in reading
    assert "ΔH" in certificate_words({"action": {"kind": "phi4"}, "ensemble": made})[1]


def test_missing_stages_are_named(run: Path, tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    shutil.copytree(
        run, partial, ignore=shutil.ignore_patterns("samples", "train", "summary.json", "report.html")
    )
    page = build_report(partial).read_text(encoding="utf-8")
    for key in SECTIONS:
        assert f'id="{key}"' in page
    assert page.count("not run yet: diffsq train") == 3
    assert page.count("not run yet: diffsq sample") == 5
    assert "not drawn" not in page
    assert "Run not complete: ensemble certified" in page
    (tmp_path / "empty").mkdir()
    assert "not run yet: diffsq ensemble" in build_report(tmp_path / "empty").read_text(encoding="utf-8")


@pytest.mark.usefixtures("plain_figures")
def test_the_tiles_say_the_efficiency_with_errors(run: Path, page: str) -> None:
    sampling = read_json(run / "summary.json")["sampling"]["score-ve"]
    assert "0.7100(60)" in page  # acceptance
    assert page.count("e^-Var(log w) ") == 2
    for way in ("reverse", "forward"):
        assert f"largest weight {sampling['spread'][way]['largest_weight']:.2g}" in page
    assert re.search(r"KL/V = [\d.]+\(\d+\)(e-\d+)? per site", page)


def test_damaged_stage_is_said_not_hidden(run: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged, ignore=shutil.ignore_patterns("train", "summary.json", "report.html"))
    shard = damaged / "samples" / "score-ve" / "shard-0000.h5"
    shard.write_bytes(shard.read_bytes()[:-100])
    (damaged / "samples" / "score-ve" / "sequence.h5").write_bytes(b"no HDF5")
    page = build_report(damaged).read_text(encoding="utf-8")
    assert "not drawn: " in page
    assert "shard-0000.h5" in page
    assert "sequence.h5: truncated, damaged or not HDF5" in page


def test_sampler_without_weights_is_no_problem(tmp_path: Path) -> None:
    plain = tmp_path / "euler"
    folder = plain / "samples" / "score-ve"
    folder.mkdir(parents=True)
    write_json(folder / "manifest.json", {})
    write_json(folder / "diagnostics.json", {"levels": [0.0, 1.0, 2.0], "reverse": None, "acceptance": None})
    page = build_report(plain).read_text(encoding="utf-8")
    assert page.count("this sampler gives no log-weights") == 3
    assert "not drawn" not in page


def test_text_from_files_is_escaped(run: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "config.yaml").write_text("name: '<img src=x>'\n", encoding="utf-8")
    page = build_report(odd).read_text(encoding="utf-8")
    assert "<img" not in page
    assert html.escape("<img src=x>") in page
    assert label_of("<b>").html == "&lt;b&gt;"


def test_no_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        build_report(tmp_path / "nothing")


@pytest.mark.usefixtures("plain_figures")
@pytest.mark.parametrize("columns", [3, {"training": {"observables": {"phi2": -1.5}}}, {"training": []}])
def test_a_summary_that_says_what_no_run_does_is_refused(run: Path, tmp_path: Path, columns: Any) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged, ignore=shutil.ignore_patterns("train", "samples", "report.html"))
    summary = json.loads((damaged / "summary.json").read_text())
    write_json(damaged / "summary.json", {**summary, "columns": columns})
    with pytest.raises(InputError, match="--restart measure") as caught:
        build_report(damaged)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("plain_figures")
def test_a_certificate_with_a_number_gone_is_refused(run: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged, ignore=shutil.ignore_patterns("train", "samples", "report.html"))
    path = damaged / "ensemble" / "certificate.json"
    certificate = json.loads(path.read_text())
    del certificate["checks"][1]["value"]
    write_json(path, certificate)
    with pytest.raises(InputError, match="a JSON file in it says what no run does"):
        build_report(damaged)

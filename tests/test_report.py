"""The report: every section present, self-contained, numbers of summary.json, unfinished runs tolerated.

The fixture writes a run folder of the free field on 8 x 8, where everything is known: Monte Carlo fields are
exact draws, the "sampler" draws from a propagator a few percent off, and its log-weight is the exact ratio.
"""

import html
import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from diffsq.report import build_report
from diffsq.report.tables import comparison, label_of, pull, show
from lattice.action import FreeScalar
from lattice.ensemble import Ensemble, write_ensemble
from lattice.errors import InputError
from lattice.files import write_json
from lattice.measure import measure

SHAPE, KAPPA, N = (8, 8), 0.22, 1024
VOLUME = 64
SECTIONS = (
    "certificate",
    "section-thermalisation",
    "section-autocorrelation",
    "section-training",
    "section-kl-levels",
    "section-kl-shells",
    "section-schedule",
    "section-sequence",
    "section-weights",
    "section-level-kl",
    "section-pm",
    "section-two-point",
    "section-pulls",
    "table",
    "cost",
    "config",
    "versions",
)
CONFIG = """name: layout
seed: 1
action:
  kind: free
  kappa: 0.22
  lam: 0.0
lattice:
  shape: [8, 8]
"""


def khat2() -> np.ndarray:
    k = 4 * np.sin(np.pi * np.arange(8) / 8) ** 2
    return k[:, None] + k[None, :]


def propagator() -> np.ndarray:
    """G(k) = 1/[2(1 - 2 kappa sum cos k)] of the free action."""
    return 1 / (2 * (1 - 4 * KAPPA + KAPPA * khat2()))


def draw(rng: np.random.Generator, g: np.ndarray, n: int) -> np.ndarray:
    noise = np.fft.fftn(rng.normal(size=(n, *SHAPE)), axes=(1, 2))
    return np.fft.ifftn(noise * np.sqrt(g), axes=(1, 2)).real


def log_density(phi: np.ndarray, g: np.ndarray) -> np.ndarray:
    power = np.abs(np.fft.fftn(phi, axes=(1, 2))) ** 2 / VOLUME
    return -0.5 * (power / g + np.log(2 * np.pi * g)).sum((1, 2))


def write_therm(folder: Path, rng: np.random.Generator) -> None:
    t = np.arange(300)[:, None]
    start = ["hot", "cold"] * 4
    side = np.array([-0.2 if name == "hot" else 2.0 for name in start])
    abs_m = np.abs(0.25 + side * np.exp(-t / 25) + 0.12 * rng.normal(size=(300, 8)))
    with h5py.File(folder / "therm.h5", "w") as file:
        file["abs_magnetization"] = abs_m
        file["magnetization"] = abs_m
        file["action_density"] = 0.5 - 0.4 * side * np.exp(-t / 10) + 0.08 * rng.normal(size=(300, 8))
        file["dH"] = 0.1 * rng.normal(size=(300, 8))
        file.attrs["start"] = json.dumps(start)


def write_train(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    lines = [
        {
            "step": s,
            "loss": 1 + np.exp(-s / 300) + 0.1 * rng.random(),
            "lr": 1e-3,
            "seconds": 0.1 * s,
            "extra": 1,
        }
        for s in range(0, 2000, 10)
    ]
    lines += [
        {"step": s, "val_kl_base": 0.36, "val_kl_model": 0.25 + 0.11 * np.exp(-s / 500)}
        for s in range(0, 2001, 250)
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "metrics.jsonl").write_text(
        text + '\n{"step": 2000, "lo', encoding="utf-8"
    )  # cut short by a kill
    sigma = np.geomspace(0.15, 20, 16)
    base = 0.02 * np.exp(-(np.log(sigma / 1.5)[:, None] ** 2) / 2) * np.exp(-np.arange(6) / 2)
    model = base * (0.6 + 0.3 * rng.random(base.shape))
    shells = [
        {"label": f"k^2={value}", "multiplicity": size}
        for value, size in (("0", 1), ("0.59", 4), ("1.17", 4), ("2.00", 4), ("2.59", 8), ("3.41", 4))
    ]
    write_json(
        folder / "validation.json",
        {
            "sigma": sigma,
            "shells": shells,
            "kl_wiener": 4 * base,
            "kl_base": base,
            "kl_model": model,
            "total": {"wiener": 4 * base.sum(), "base": base.sum(), "model": model.sum()},
            "gain": base.sum() - model.sum(),
            "gain_error": 0.004,
            "history": [],
        },
    )
    write_json(folder / "manifest.json", {"complete": True})


def write_samples(folder: Path, samples: Ensemble, forward: np.ndarray, rng: np.random.Generator) -> dict:
    reverse = samples.log_weight
    ln_z = float(np.log(np.mean(np.exp(reverse))))
    u, v = reverse - ln_z, forward - ln_z
    levels = np.concatenate([[0.0], np.geomspace(0.15, 20, 20)])
    diagnostics = {
        "levels": levels,
        "reverse": {
            "ess": 1 / np.mean(np.exp(2 * u)),
            "ess_error": 0.01,
            "kl": -u.mean(),
            "log_weight": reverse,
        },
        "forward": {"ess": 1 / np.mean(np.exp(v)), "ess_error": 0.02, "kl": v.mean(), "log_weight": forward},
        "acceptance": 0.71,
        "ln_z": ln_z,
        "ln_z_error": float(np.exp(u).std() / np.sqrt(len(u))),
        "per_level": {
            "sigma": levels[1:],
            "kl": 0.02 * np.exp(-(np.log(levels[1:]) ** 2)),
            "variance": 0.05 * np.exp(-(np.log(levels[1:]) ** 2)),
        },
    }
    write_ensemble(samples, folder)
    write_json(folder / "diagnostics.json", diagnostics)
    noise = levels[::-1]
    with h5py.File(folder / "sequence.h5", "w") as file:
        file["phi"] = samples.phi[0] + noise[:, None, None] * rng.normal(size=(len(noise), *SHAPE))
        file["sigma"] = noise
    return diagnostics


def certificate() -> dict:
    checks = [
        {
            "name": "Schwinger-Dyson",
            "value": 1.0012,
            "error": 0.0014,
            "expected": "1",
            "passed": True,
            "detail": "0.9 sigma",
        },
        {
            "name": "origin",
            "value": None,
            "error": None,
            "expected": "known history",
            "passed": True,
            "detail": "hot & cold",
        },
    ]
    tau = {
        "abs_magnetization": {"value": 0.52, "error": 0.02},
        "m2": {"tau_int": 0.5, "tau_int_error": 0.02},
        "unit": "saved",
    }
    return {
        "passed": True,
        "reason": "",
        "checks": checks,
        "tau_int": tau,
        "n_independent": 1969.2,
        "acceptance": {"value": 0.91, "error": 0.002},
    }


def synthetic_run(folder: Path) -> Path:
    """Write a complete run folder in the format of the stages."""
    rng = np.random.default_rng(7)
    action, g = FreeScalar(KAPPA), propagator()
    q = g * (1 + 0.12 * np.exp(-khat2()))
    chain = np.arange(N) % 16
    monte_carlo = Ensemble.from_fields(
        draw(rng, g, N), action, chain=chain, attrs={"stride": 4, "n_therm": 300}
    )
    phi = draw(rng, q, N)
    offset = 0.5 * np.log(2 * np.pi * g).sum()  # S = -log p + ln Z, so w = e^-S/q
    samples = Ensemble.from_fields(phi, action, log_weight=log_density(phi, g) - log_density(phi, q) + offset)
    forward = log_density(monte_carlo.phi, g) - log_density(monte_carlo.phi, q) + offset
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    write_ensemble(monte_carlo, folder / "ensemble")
    write_json(folder / "ensemble" / "certificate.json", certificate())
    write_therm(folder / "ensemble", rng)
    write_train(folder / "train", rng)
    diagnostics = write_samples(folder / "samples", samples, forward, rng)
    resampled = samples.select(
        rng.choice(N, N, p=np.exp(samples.log_weight) / np.exp(samples.log_weight).sum())
    )
    columns = {
        "training": measure(monte_carlo),
        "raw": measure(samples, ignore_weights=True),
        "weighted": measure(samples),
        "metropolis": measure(resampled, ignore_weights=True),
    }
    write_json(
        folder / "summary.json",
        {
            "name": "layout",
            "config": {},
            "columns": columns,
            "reference": {
                "kappa": KAPPA,
                "lam": 0.0,
                "shape": SHAPE,
                "values": {
                    "phi2": f"{g.mean():.5f}(1)",
                    "susceptibility_full": f"{g[0, 0]:.4f}(1)",
                    "ln_z": f"{offset:.4f}(1)",
                },
            },
            "ess": {
                "reverse": diagnostics["reverse"]["ess"],
                "reverse_error": 0.01,
                "forward": diagnostics["forward"]["ess"],
                "forward_error": 0.02,
            },
            "acceptance": 0.71,
            "ln_z": {"value": diagnostics["ln_z"], "error": diagnostics["ln_z_error"]},
            "kl": {"wiener": 1.0, "base": 0.36, "model": 0.25, "gain": 0.11, "gain_error": 0.004},
            "seconds": {"ensemble": 31.5, "train": 254.0, "sample": 61.2, "measure": 8.0},
            "verdict": {
                "passed": True,
                "certified": True,
                "missing": [],
                "max_pull": {},
                "against": "reference",
            },
            "versions": {"diffsq": "0.1.0", "packages": {"numpy": "2.4.1"}},
        },
    )
    return folder


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
        for name, entry in table["observables"].items():
            assert cell(page, name, column).startswith(show(entry)), (name, column)
    assert summary["reference"]["values"]["phi2"] in page
    assert show(summary["ln_z"]) in page
    assert "4 min 14 s" in page


def test_pulls_are_marked_without_colour(run: Path, page: str) -> None:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    raw = summary["columns"]["raw"]["observables"]["susceptibility_full"]
    size = pull(raw, summary["reference"]["values"]["susceptibility_full"])
    mark = " !!" if abs(size) >= 3 else " !" if abs(size) >= 2 else ""
    assert f"<small>{size:+.1f}σ{mark}" in cell(page, "susceptibility_full", "raw")


def test_pull_by_hand_and_against_monte_carlo_without_reference() -> None:
    entry, truth = {"value": 1.3, "error": 0.03}, {"value": 1.0, "error": 0.04}
    summary = {
        "columns": {"training": {"observables": {"phi2": truth}}, "raw": {"observables": {"phi2": entry}}}
    }
    (row,) = comparison(summary)
    assert row.cells["raw"].pull == pytest.approx(6.0)
    assert row.cells["raw"].pull_text == "+6.0σ !!"
    assert np.isnan(row.cells["training"].pull)
    assert comparison({**summary, "reference": {"values": {"phi2": "1.0(4)"}}})[0].cells["raw"].grade == "ok"
    assert np.isnan(pull({"value": None, "error": None}, truth))


def test_missing_stages_are_named(run: Path, tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    shutil.copytree(
        run, partial, ignore=shutil.ignore_patterns("samples", "train", "summary.json", "report.html")
    )
    page = build_report(partial).read_text(encoding="utf-8")
    for key in SECTIONS:
        assert f'id="{key}"' in page
    assert page.count("not run yet: diffsq train") == 3
    assert page.count("not run yet: diffsq sample") == 4
    assert "not drawn" not in page
    assert "Run not complete: ensemble certified" in page
    (tmp_path / "empty").mkdir()
    assert "not run yet: diffsq ensemble" in build_report(tmp_path / "empty").read_text(encoding="utf-8")


def test_damaged_stage_is_said_not_hidden(run: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged, ignore=shutil.ignore_patterns("train", "summary.json", "report.html"))
    shard = damaged / "samples" / "shard-0000.h5"
    shard.write_bytes(shard.read_bytes()[:-100])
    (damaged / "samples" / "sequence.h5").write_bytes(b"no HDF5")
    page = build_report(damaged).read_text(encoding="utf-8")
    assert "not drawn: " in page
    assert "shard-0000.h5" in page
    assert "sequence.h5: not a readable HDF5 file" in page


def test_sampler_without_weights_is_no_problem(tmp_path: Path) -> None:
    plain = tmp_path / "euler"
    (plain / "samples").mkdir(parents=True)
    write_json(
        plain / "samples" / "diagnostics.json",
        {"levels": [0.0, 1.0, 2.0], "reverse": None, "acceptance": None},
    )
    page = build_report(plain).read_text(encoding="utf-8")
    assert page.count("this sampler gives no log-weights") == 2
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

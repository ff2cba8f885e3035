"""One self-contained HTML page per run: ``build_report(run_dir)``.

Figures are inline SVG, style is inline CSS, nothing is loaded from elsewhere: the file can be mailed,
archived beside the ensemble, or shown in a talk.  The answer comes first: verdict, final table, the denoised
field; then what it rests on.  A stage that has not run is named as such instead of failing.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from diffsq.report.reader import DAMAGE, Absent, NotRun, RunFolder
from diffsq.report.sample_sets import set_sections
from diffsq.report.sections import (
    FIRST,
    SECTIONS,
    build_sections,
    check_sections,
    has_table,
    overview,
)
from diffsq.report.tables import (
    column_labels,
    comparison,
    duration,
    largest_pull,
    pretty,
    show,
    show_tau,
    variable_of,
    verdict_tiles,
)
from diffsq.run_folder.summary import TRAINING, truth_of
from lattice.errors import InputError
from lattice.files import write_atomic

PHI4 = (
    "S = Σ<sub>x</sub> [−2κ Σ<sub>μ</sub> φ<sub>x</sub>φ<sub>x+μ</sub> + {mass} φ<sub>x</sub>² "
    "+ λφ<sub>x</sub>⁴]"
)
FORMULAS = {
    "phi4": PHI4.format(mass="(1−2λ)") + " (κ–λ convention)", "free": PHI4.format(mass="(1−2λ)") + ", λ = 0",
    "complex_phi4": PHI4.format(mass="m"), "one_link": "S = −β cos z",
    "complex_gaussian": "S = ½ σ<sub>0</sub> z²", "complex_quartic": "S = ½ σ<sub>0</sub> z² + ¼ λ z⁴",
    "real_quartic": "S = ½ μ² φ² + (g/4!) φ⁴",
    **dict.fromkeys(
        ("erf_net", "relu_net", "gauss_net"), "f = N<sup>−½</sup> Σ a s(w·x/√d + b), no action"
    ),
    "cos_net": "f = (2G<sub>0</sub>/N)<sup>½</sup> Σ a cos(kx + b), no action",
    "local_net": "f = ρ<sup>−½</sup> Σ a g(x − c), no action",
    "ising": "S = −(1/T) [Σ s<sub>x</sub>s<sub>y</sub> + h Σ s<sub>x</sub>]",
    "potts": "S = −(1/T) [Σ δ(s<sub>x</sub>, s<sub>y</sub>) + h Σ δ(s<sub>x</sub>, d)]",
    "ising_field": "φ = s + noise, S = ½ φKφ − Σ ln 2cosh (Kφ + h/T)",
    "two_peak": "p = ½ [N(μ<sub>0</sub>, σ<sub>0</sub>²) + N(−μ<sub>0</sub>, σ<sub>0</sub>²)]",
}  # fmt: skip
NAMES = {
    "phi4": "φ⁴ theory", "free": "free scalar", "complex_phi4": "φ⁴ with a complex mass",
    "one_link": "U(1) one-link model",
    "complex_gaussian": "Complex Gaussian", "complex_quartic": "Complex quartic model",
    "ising": "Ising model", "potts": "Potts model", "ising_field": "Ising model as a real field",
    "real_quartic": "Real quartic model", "two_peak": "Two-peak law",
    "erf_net": "Networks of erf", "relu_net": "Networks of ReLU", "gauss_net": "Gauss networks",
    "cos_net": "Networks of plane waves", "local_net": "Networks of neurons with places",
}  # fmt: skip
SUBJECTS = {
    "rbm": "A Gaussian machine of pictures", "pairs": "Pairs of levels in learned weights",
    "teacher_student": "Students of a teacher", "transformer": "A transformer of characters",
    "spin_flow": "Flow of binary machines of spins",
}  # fmt: skip
"""Runs without action, by their model."""
SYMBOLS = {
    "kappa": "κ", "lam": "λ", "mass": "m", "beta": "β", "sigma0": "σ₀", "mu2": "μ²", "g": "g", "mu0": "μ₀",
    "width": "N", "rho": "ρ",
    "temperature": "T", "h": "h", "q": "q", "m2": "m²",
}  # fmt: skip
CERTIFICATES = {
    "data": (
        "The data",
        "No ensemble of an action: what can be asked of data that come with a package, or are drawn afresh "
        "while training.",
    ),
    "complex Langevin": (
        "Verdict on complex Langevin",
        "Complex Langevin can converge to a wrong answer without a sign of it in any chain. Every check has "
        "its number and error: a power-law tail of the drift or a boundary term is <i>wrong</i>, anything "
        "else that fails is <i>doubtful</i>.",
    ),
    "networks": (
        "Certificate of the networks",
        "Independent fields of a law without an action, against its exact cumulants: a site, the zero mode, "
        "G(<i>k</i>), pairs of sites. What so many networks cannot show is listed with the number it needs.",
    ),
    "exact draws": (
        "Certificate of the exact draws",
        "Independent draws, of one variable by the inverse distribution function, of links plaquette by "
        "plaquette; moments, or loops and charges, against the exact ones.",
    ),
    "Monte Carlo": (
        "Certificate of the Monte Carlo ensemble",
        "Every check the training ensemble had to pass, with the number expected of a correct, thermalised "
        "simulation: hot and cold starts agree, ⟨e<sup>−ΔH</sup>⟩ = 1, and the Schwinger–Dyson identity "
        "⟨φ ∂S/∂φ⟩ = 1 per site.",
    ),
    "spins": (
        "Certificate of the spins",
        "Every check the spins had to pass: hot and cold starts agree, chains are long, and Callen's "
        "identity, a spin against its law given its neighbours, has mean 0 (listed as Schwinger–Dyson). Of "
        "several temperatures one line each: its own certificate, and its energy beside the exact one.",
    ),
}


def build_report(run_dir: str | Path) -> Path:
    """Write ``run_dir/report.html`` from whatever stages the run folder holds, and return its path.

    A finished run on a lattice also gets ``overview.png``: one field denoised above the pulls of the final
    table.

    Raises InputError if ``run_dir`` is not a folder, or its config or summary cannot be read; a damaged
    file of a single stage becomes a note in its section.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise InputError(f"{run_dir}: no such run folder")
    path = run_dir / "report.html"
    run = RunFolder(run_dir)
    try:
        with contextlib.suppress(Absent):
            picture = io.BytesIO()
            overview(run).savefig(picture, format="png", dpi=110)
            write_atomic(run_dir / "overview.png", picture.getvalue())
        page = render(run).encode("utf-8", errors="replace")
    except InputError:
        raise
    except (*DAMAGE, jinja2.UndefinedError) as error:
        raise InputError(
            f"{run_dir}: its config.yaml or a JSON file in it says what no run does ({type(error).__name__} "
            f"{error}); `diffsq run CONFIG --run DIR --restart measure` makes its results again"
        ) from error
    write_atomic(path, page)
    return path


def render(run: RunFolder) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.PackageLoader("diffsq.report", "templates"),
    )  # fmt: skip
    environment.filters |= {
        "show": show, "show_tau": show_tau, "pretty": pretty, "duration": duration, "html": Markup,
    }  # fmt: skip
    return environment.get_template("report.html.j2").render(**_context(run))


def certificate_words(config: Mapping[str, Any]) -> tuple[str, str]:
    """Title of a run's certificate, and how it is read."""
    kind, made = (config.get("action") or {}).get("kind"), config.get("ensemble") or {}
    if kind in ("ising", "potts") or "temperatures" in made:
        return CERTIFICATES["spins"]
    return CERTIFICATES[column_labels({"config": config, "columns": {TRAINING: {}}})[TRAINING]]


def _context(run: RunFolder) -> dict[str, Any]:
    summary, config = run.summary, run.config
    rows, labels = comparison(summary), column_labels(summary)
    certificate, certificate_note = _certificate(run)
    action, shape = config.get("action") or {}, (config.get("lattice") or {}).get("shape") or []
    first = build_sections(run, FIRST)
    rest = [*set_sections(run), *build_sections(run, SECTIONS), *check_sections(run)]
    title, reading = certificate_words(config)
    return {
        "name": summary.get("name") or config.get("name") or run.path.name,
        "action": _action_words(action) or SUBJECTS.get(str((config.get("models") or [""])[0]), ""),
        "formula": FORMULAS.get(str(action.get("kind")), ""),
        "lattice": " × ".join(str(extent) for extent in shape),
        "dimension": len(shape),
        "tiles": verdict_tiles(summary, rows, math.prod(shape)),
        "verdict": _verdict(summary, rows, certificate),
        "certificate": certificate,
        "certificate_note": certificate_note,
        "certificate_title": title,
        "certificate_reading": reading,
        "failed": [check for check in (certificate or {}).get("checks") or [] if not check["passed"]],
        "first": first,
        "has_table": has_table(config),
        "sections": rest,
        "problems": [section for section in (*first, *rest) if section.problem],
        "rows": rows,
        "columns": labels,
        "known": _known(summary),
        "baseline": _baseline(summary),
        "tau_unit": _tau_unit(summary, certificate),
        "one_variable": bool(variable_of(summary)),
        "links": "plaquette" in summary.get("rows", []),
        "seconds": _seconds(summary),
        "config_text": run.config_text,
        "versions": _flat(summary.get("versions") or {}),
        "identities": _identities(summary, labels),
    }


def _known(summary: dict[str, Any]) -> str:
    """Heading of the column of what is known, empty without one."""
    if not summary or not truth_of(summary, TRAINING):
        return ""
    return "reference" if summary["reference"] is not None else "exact"


def _baseline(summary: Mapping[str, Any]) -> str:
    words = {"reference": "the reference", "exact": "the exact value", "training": "the training data"}
    return words[summary.get("against", "training")]


def _action_words(action: Mapping[str, Any]) -> str:
    def number(value: Any) -> str:
        if isinstance(value, list):
            return f"{value[0]:g} {'+' if value[1] >= 0 else '−'} {abs(value[1]):g}i"
        return f"{value:g}"

    kind = NAMES.get(str(action.get("kind")), str(action.get("kind", "")))
    couplings = [f"{SYMBOLS[key]} = {number(value)}" for key, value in action.items() if key in SYMBOLS]
    return ", ".join(part for part in (kind, *couplings) if part)


def _certificate(run: RunFolder) -> tuple[dict[str, Any] | None, str]:
    try:
        return run.certificate, ""
    except NotRun as missing:
        return None, str(missing)
    except InputError as error:
        return None, f"cannot be read: {error}"


def _tau_unit(summary: Mapping[str, Any], certificate: Mapping[str, Any] | None) -> str:
    training = (summary.get("columns") or {}).get(TRAINING) or {}
    unit = training.get("tau_unit") or ((certificate or {}).get("tau_int") or {}).get("unit")
    return str(unit) if unit else "saved configurations"


def _verdict(
    summary: dict[str, Any], rows: list[Any], certificate: Mapping[str, Any] | None
) -> dict[str, str]:
    """One sentence and a grade: what the exactness of this run rests on, or how far the run has come."""
    if not summary:
        passed = certificate and certificate.get("passed")
        done = "ensemble certified" if passed else "ensemble not certified yet"
        return {"text": f"Run not complete: {done}; the sections below show the stages found.", "grade": ""}
    found, worst = summary["verdict"], largest_pull(summary, rows)
    text, grade = "Passed." if found["passed"] else "Not passed.", ""
    if worst is not None:
        row, column, cell = worst
        grade = cell.grade
        within = {"ok": "agrees", "warn": "agrees within 3σ", "off": "disagrees somewhere"}[grade]
        text += (
            f" What the samples say, corrected where they can be, {within} with {_baseline(summary)}: "
            f"largest deviation {abs(cell.pull):.1f}σ, {row.label.html} of {column_labels(summary)[column]}."
        )
    if not found["certified"]:
        text += " The training data are not certified."
    if found["missing"]:
        text += f" Not measured: {', '.join(found['missing'])}."
    if found["failed_checks"]:
        text += f" Failed checks: {', '.join(found['failed_checks'])}."
    return {"text": text, "grade": grade if found["passed"] else "off"}


def _seconds(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    seconds = {stage: float(s) for stage, s in (summary.get("seconds") or {}).items()}
    longest = max(seconds.values(), default=0.0) or 1.0
    stages = [{"stage": stage, "seconds": s, "share": 100 * s / longest} for stage, s in seconds.items()]
    return [*stages, {"stage": "total", "seconds": sum(seconds.values()), "share": 0.0}] if stages else []


def _flat(entries: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in entries.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key} ")
        else:
            flat[f"{prefix}{key}"] = "–" if value is None else str(value)
    return flat


def _identities(summary: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, str]:
    """n and sha256 of every measured ensemble, as far as the summary names them."""
    found = {}
    for column, table in (summary.get("columns") or {}).items():
        ensemble = table.get("ensemble") or {}
        parts = [f"n = {ensemble['n']}"] if "n" in ensemble else []
        parts += [f"sha256 {ensemble['identity']}"] if ensemble.get("identity") else []
        if parts:
            found[labels[column]] = ", ".join(parts)
    return found

"""The summary of a run: one table of columns against what is known, one verdict, for every kind of run.

Columns: the training data and every sample set. On a lattice a set with weights gives three, raw, weighted
and metropolis, behind its label where there are several sets; of one variable it gives one, named as the
set. Data are held against the reference or the exact values; samples against these too, but those learned
from complex Langevin, whose own law nobody knows, against the data. A column or number that does not exist
is null.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from diffsq.config.config import Config, NetworkRun, PointRun
from diffsq.config.dynamics import DynamicsRun
from diffsq.config.machines import PicturesRun
from diffsq.config.sections import of_model
from diffsq.config.spins import SpinRun
from diffsq.exactness import discretisation
from diffsq.exactness.weights import metropolis_ensemble
from diffsq.run_folder.finished import sample_sets
from diffsq.run_folder.pulls import Truth, pull, rows_of
from diffsq.run_folder.records import certificate_of
from lattice.actions.complexified import Complexified
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.errors import InputError
from lattice.files import read_json
from lattice.observables.measure import measure
from lattice.provenance import code_version
from lattice.statistics.notation import aligned, format_value, parse_value
from lattice.statistics.weights import ess_words

TRAINING, RAW = "training", "raw"
KERNELS = ("wiener", "base", "model")
KL = (*KERNELS, "gain", "gain_error")  # of the whole path, in nats per configuration
WAYS = ("reverse", "forward")
SPREAD = ("exp_minus_var", "exp_minus_var_error", "largest_weight")
MAX_PULL = 3.0
MIN_ESS = 0.1  # of a learned energy; below it a few samples carry the Metropolis column
NOTHING: dict[str, Any] = {"observables": {}}  # a column that could not be measured


def summarize(config: Config, folder: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """The content of summary.json: measured columns, what is known, efficiencies, checks, versions,
    verdict."""
    data = None if isinstance(config, DynamicsRun | PicturesRun) else read_ensemble(folder / "ensemble")
    certificate = certificate_of(folder)
    columns, notes, gated = _columns(config, folder, data)
    training = columns.get(TRAINING, NOTHING)
    exact = {
        name: (entry["exact"], 0.0)
        for name, entry in training["observables"].items()
        if entry.get("exact") is not None
    }
    reference = config.active_reference()
    is_complex = data is not None and isinstance(data.action, Complexified)
    against = "reference" if reference else "training" if is_complex or not exact else "exact"
    summary: dict[str, Any] = {
        "name": config.name,
        "config": json.loads(config.model_dump_json()),
        "rows": rows_of(training),
        "columns": columns,
        "gated": gated,
        "notes": notes,
        "reference": reference.model_dump(mode="json") if reference else None,
        "exact": exact or None,
        "against": against,
        "sampling": {
            name: _efficiency(folder, name, samples) for name, samples in sample_sets(folder).items()
        },
        "ensemble_verdict": certificate.get("verdict"),
        "checks": {name: _check(folder, name) for name in config.checks},
        "seconds": seconds,
        "versions": code_version(),
    }
    return {**summary, "verdict": verdict(summary, certificate)}


def set_label(config: Mapping[str, Any], name: str) -> str:
    """What a sample set is called: of several models of fields in words, else by its folder.

    >>> both = {"sde": {}, "models": ["closed", "score"], "model": {"channels": 8}}
    >>> [set_label({**both, "sampling": {"sde": ["ve"]}}, f"{model}-ve") for model in both["models"]]
    ['closed form', 'U-Net']
    """
    model, _, process = name.rpartition("-")
    if "sde" not in config or len(config["models"]) == 1:
        return name
    sampling, network = config["sampling"], config["model"]
    if model == "closed":
        method = of_model(sampling.get("method", "path"), model)
        words = "closed form" if method in ("path", "auto") else method
    elif network["channels"]:
        words = "U-Net"
    else:
        words = "network" if network.get("network") else f"{network['base']} filter"
    return words if len(sampling["sde"]) == 1 else f"{words} {process}"


def prefix_of(config: Mapping[str, Any], sets: Collection[str], name: str) -> str:
    """What the columns of a sample set begin with; nothing for the only set of a run."""
    return "" if len(sets) == 1 else f"{set_label(config, name)} "


def _check(folder: Path, name: str) -> dict[str, Any]:
    content = read_json(folder / "checks" / f"{name}.json")
    return {"passed": content["passed"], "text": content["text"]}


def _columns(
    config: Config, folder: Path, data: Ensemble | None
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Measured columns, the reason for each that could not be measured, and those that the verdict asks
    for."""
    sets = sample_sets(folder)
    if data is None:
        return {}, {}, []
    makers: dict[str, Callable[[], dict[str, Any]]] = {TRAINING: lambda: measure(data)}
    notes: dict[str, str] = {}
    gated = [TRAINING] if isinstance(config, SpinRun) else []
    for name, samples in sets.items():
        if isinstance(config, PointRun):
            makers[name] = lambda samples=samples: measure(samples)  # type: ignore[misc]
            gated.append(name)
            continue
        prefix = prefix_of(config.model_dump(mode="json"), sets, name)
        makers[f"{prefix}{RAW}"] = lambda samples=samples: measure(samples, ignore_weights=True)  # type: ignore[misc]
        if isinstance(config, NetworkRun):  # nothing corrects them, and their law is known exactly
            gated.append(f"{prefix}{RAW}")
            continue
        corrected = [f"{prefix}weighted", f"{prefix}metropolis"]
        gated += corrected  # a sampler without weights is never exact: they are then missing
        if samples.log_weight is None:
            method = of_model(config.sampling.method, name.rpartition("-")[0])
            notes[", ".join(corrected)] = f"the sampler {method!r} gives no log-weights"
            continue
        makers[corrected[0]] = lambda samples=samples: measure(samples)  # type: ignore[misc]
        makers[corrected[1]] = lambda samples=samples: measure(metropolis_ensemble(samples, config.seed))  # type: ignore[misc]
    columns: dict[str, Any] = {}
    for name, make in makers.items():
        try:
            columns[name] = make()
        except InputError as error:  # an estimator that cannot answer is a result too
            notes[name] = str(error)
    return columns, notes, gated


def _efficiency(folder: Path, name: str, samples: Ensemble) -> dict[str, Any]:
    """How efficient a sample set is, from its diagnostics or from what it says about itself."""
    path = folder / "samples" / name / "diagnostics.json"
    if path.is_file():
        found = read_json(path)
        ways = {way: found.get(way) or {} for way in WAYS}
        ess = {f"{way}{end}": ways[way].get(f"ess{end}") for way in WAYS for end in ("", "_error")}
        spread = {way: {name: ways[way].get(name) for name in SPREAD} for way in WAYS}
        kl = {**dict.fromkeys(KL), **(found.get("kl") or {})}
        steps = found.get("discretisation")
        extra = {
            "kl": kl, "warnings": found.get("warnings", []), "clamped": None,
            "discretisation": discretisation.words(steps) if steps else None,
        }  # fmt: skip
    else:
        found = samples.attrs.get("about") or {}
        ess = {"reverse": found.get("ess"), "reverse_error": found.get("ess_error")}
        ess |= {"forward": found.get("ess_forward"), "forward_error": found.get("ess_forward_error")}
        spread = found.get("spread") or {}
        lines = [*_warnings(found), *(found.get("distrusted") or [])]
        extra = {"kl": dict.fromkeys(KL), "warnings": lines, "clamped": found.get("clamped")}
    ln_z = {"value": found.get("ln_z"), "error": found.get("ln_z_error")}
    accepted = {name: found.get(name) for name in ("acceptance", "acceptance_error")}
    return {"n": len(samples), "ess": ess, "spread": spread, **accepted, "ln_z": ln_z, **extra}


def _warnings(about: dict[str, Any]) -> Iterator[str]:
    if about.get("ess", 1.0) < MIN_ESS:
        yield f"reverse ESS/N below {MIN_ESS}: few paths carry the weight; train longer"
    if about.get("ess_forward", 1.0) < MIN_ESS:
        yield (
            f"forward ESS/N below {MIN_ESS}: proposals lack weight where the data are; "
            "more metropolis_levels, or train longer"
        )


def truth_of(summary: dict[str, Any], column: str = "") -> Truth:
    """What a column is held against: reference, exact values, or the training data (nothing for
    themselves)."""
    known: Truth = {}
    if summary["reference"] is not None:
        pairs = {name: parse_value(text) for name, text in summary["reference"]["values"].items()}
        known = {name: pair for name, pair in pairs.items() if pair[1] < float("inf")}
    elif summary["exact"] is not None and (column == TRAINING or summary["against"] == "exact"):
        known = {name: (value, error) for name, (value, error) in summary["exact"].items()}
    elif column != TRAINING:
        found = summary["columns"].get(TRAINING, NOTHING)["observables"]
        known = {name: (e["value"], e["error"]) for name, e in found.items() if e["error"] is not None}
    return known


def column_pulls(summary: dict[str, Any], column: str) -> dict[str, float]:
    """Row -> pull of a column; rows without one are left out.

    Samples learned from the very data they are held against: as far as a model reproduces the data's
    fluctuation too, it is common to both, and the pull too small by up to sqrt(2).
    """
    truth = truth_of(summary, column)
    observables = summary["columns"].get(column, NOTHING)["observables"]
    found = {name: pull(observables.get(name), truth.get(name)) for name in summary["rows"]}
    return {name: size for name, size in found.items() if size is not None}


def verdict(summary: dict[str, Any], certificate: dict[str, Any]) -> dict[str, Any]:
    """Largest |pull| of each column over the table's rows.

    passed: the ensemble is certified, every row of the gated columns has an error and a pull within 3, ln Z
    too, and no check failed.
    """
    worst: dict[str, float | None] = {
        name: max(map(abs, column_pulls(summary, name).values()), default=None)
        for name in dict.fromkeys((*summary["columns"], *summary["gated"]))
    }
    for name, sampling in summary["sampling"].items():
        size = pull(sampling["ln_z"], truth_of(summary).get("ln_z"))
        if size is not None:
            worst[f"{prefix_of(summary.get('config', {}), summary['sampling'], name)}ln_z"] = abs(size)
    missing = [
        f"{column} {name}"
        for column in summary["gated"]
        for name in summary["rows"]
        if name in truth_of(summary, column) and not _has_error(summary, column, name)
    ]
    if TRAINING in summary["gated"] and TRAINING not in summary["columns"]:
        missing.append(TRAINING)
    asked = [size for name, size in worst.items() if name in summary["gated"] or name.endswith("ln_z")]
    failed = [name for name, check in summary["checks"].items() if check["passed"] is False]
    within = all(size is None or size <= MAX_PULL for size in asked)
    return {
        "against": summary["against"],
        "certified": bool(certificate["passed"]),
        "max_pull": worst,
        "missing": missing,
        "failed_checks": failed,
        "passed": bool(certificate["passed"] and within and not missing and not failed),
    }


def _has_error(summary: dict[str, Any], column: str, name: str) -> bool:
    entry = summary["columns"].get(column, NOTHING)["observables"].get(name)
    known = entry is not None and entry["value"] is not None
    if column == TRAINING and known and entry["error"] is None:  # frozen spins: their certificate judges them
        return any(word in entry.get("reason", "") for word in ("vanish", "constant"))
    return known and entry["error"] is not None


def table_text(summary: dict[str, Any]) -> str:
    """The final table for the terminal: value(error) [pull] per column, the checks, efficiencies, verdict."""
    known = truth_of(summary, TRAINING)
    head = "reference" if summary["reference"] is not None else "exact"
    rows = [["observable", *([head] if known else []), *summary["columns"]]]
    sizes = {column: column_pulls(summary, column) for column in summary["columns"]}
    for name in summary["rows"]:
        cells = [show(*known[name]) if name in known else "-"] if known else []
        for column, content in summary["columns"].items():
            size = sizes[column].get(name)
            cells.append(
                _entry(content["observables"].get(name)) + ("" if size is None else f" [{size:+.1f}]")
            )
        rows.append([name, *cells])
    against = {"reference": "the reference", "exact": "the exact values", "training": "the training data"}
    words = against[summary["against"]]
    if known and summary["against"] == "training":
        words += ", theirs against the exact values"
    convention = "; odd moments are zero by symmetry" if summary["exact"] else "; kappa-lambda convention"
    if "specific_heat" in summary["rows"]:
        convention = "; J = 1, energies per site"
    lines = [*aligned(rows), f"value(error) [pull against {words}]{convention}"] if len(rows) > 1 else []
    lines += [f"{column}: not measured, {why}" for column, why in summary["notes"].items()]
    for name, check in summary["checks"].items():
        lines += ["", f"check {name}:", check["text"]]
    return "\n".join([*lines, *([""] if summary["checks"] else []), *_tail(summary)])


def _tail(summary: dict[str, Any]) -> list[str]:
    lines = []
    several = len(summary["sampling"]) > 1
    for name, sampling in summary["sampling"].items():
        label = set_label(summary.get("config", {}), name)
        lines += [f"{label}: {line}" if several else line for line in _sampling_lines(summary, sampling)]
    if summary["ensemble_verdict"]:
        lines.append(f"complex Langevin: {summary['ensemble_verdict']}")
    lines.append("seconds: " + ", ".join(f"{stage} {s:.0f}" for stage, s in summary["seconds"].items()))
    found = summary["verdict"]
    worst = ", ".join(f"{name} {size:.1f}" for name, size in found["max_pull"].items() if size is not None)
    failed = f"; failed checks: {', '.join(found['failed_checks'])}" if found["failed_checks"] else ""
    alone = "by its checks" if summary["checks"] else "nothing to compare with"
    compared = f"largest |pull|: {worst}" if worst else alone
    lines.append(f"verdict: {'passed' if found['passed'] else 'NOT passed'} ({compared}{failed})")
    return lines


def _sampling_lines(summary: dict[str, Any], sampling: dict[str, Any]) -> Iterator[str]:
    kl, lnz = sampling["kl"], sampling["ln_z"]
    if sampling["ess"]["reverse"] is not None:
        yield f"ESS/N: {', '.join(f'{way} {ess_of(sampling, way)}' for way in WAYS)}"
    if sampling["acceptance"] is not None:
        yield f"Metropolis acceptance {show(sampling['acceptance'], sampling.get('acceptance_error'))}"
    if lnz["value"] is not None:
        truth = truth_of(summary).get("ln_z")
        size = pull(lnz, truth)
        known = f" (reference {show(*truth)} [{size:+.1f}])" if truth and size is not None else ""
        yield f"ln Z = {show(lnz['value'], lnz['error'])}{known}"
    if sampling.get("discretisation"):
        yield sampling["discretisation"]
    parts = [
        f"{name} {show(kl[name], kl.get(f'{name}_error'))}"
        for name in (*KERNELS, "gain")
        if kl.get(name) is not None
    ]
    if parts:
        yield f"KL on held-out data: {', '.join(parts)}"
    if sampling["clamped"]:
        yield f"{sampling['clamped']} of {sampling['n']} brought back into the box of the data"
    yield from (f"warning: {line}" for line in sampling["warnings"])


def ess_of(sampling: dict[str, Any], way: str) -> str:
    """ESS/N of one way as it is printed, with e^-Var log w and the largest weight behind."""
    ess, spread = sampling["ess"], (sampling.get("spread") or {}).get(way) or {}
    return ess_words(ess.get(way), ess.get(f"{way}_error"), spread)


def _entry(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None or entry["value"] is None else show(entry["value"], entry["error"])


def show(value: float | None, error: float | None) -> str:
    """value(error), or the value alone where it has no error."""
    if value is None:
        return "-"
    return f"{value:.6g}" if error is None or error <= 0 else format_value(value, error)

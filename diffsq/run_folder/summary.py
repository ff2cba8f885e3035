"""The summary of a run: one table of columns against what is known, one verdict, for every kind of run.

Columns: the training data and every sample set. On a lattice a set with weights gives three, raw, weighted
and metropolis, behind its label where there are several sets; of one variable it gives one, named as the
set. Data are held against the reference or the exact values; samples against these too, but those learned
from complex Langevin, whose own law nobody knows, against the data. A column or number that does not exist
is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from diffsq.config.config import Config, NetworkRun, PointRun
from diffsq.config.dynamics import DynamicsRun
from diffsq.config.gauge import GaugeRun
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
from lattice.exact.u1 import ln_z as exact_ln_z
from lattice.files import read_json
from lattice.observables.measure import measure
from lattice.provenance import code_version
from lattice.statistics.notation import parse_value

TRAINING, RAW = "training", "raw"
KERNELS = ("wiener", "base", "model")
KL = (*KERNELS, "gain", "gain_error")  # of the whole path, in nats per configuration
WAYS = ("reverse", "forward")
SPREAD = ("exp_minus_var", "exp_minus_var_error", "largest_weight")
LINKS = {"score": "lifted flux", "torus": "circle"}  # what the models of U(1) work with
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
    if isinstance(config, GaugeRun):
        exact["ln_z"] = exact_ln_z(config.action.beta.real, math.prod(config.shape)), 0.0
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
    if (config.get("action") or {}).get("kind") == "u1" and model in LINKS:
        return LINKS[model]
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
        if not isinstance(config, GaugeRun) or name.startswith(f"{config.models[0]}-"):  # others: controls
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
    judged = tuple(summary["gated"])
    asked = [
        size
        for name, size in worst.items()
        if name in judged or name.endswith("ln_z") and _of_a_gated_set(name, judged)
    ]
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


def _of_a_gated_set(name: str, gated: tuple[str, ...]) -> bool:
    """Whether an ln Z, "PREFIXln_z", is of a sample set that the verdict asks for."""
    prefix = name.removesuffix("ln_z").strip()
    return not prefix or any(column.startswith(prefix) for column in gated)


def _has_error(summary: dict[str, Any], column: str, name: str) -> bool:
    entry = summary["columns"].get(column, NOTHING)["observables"].get(name)
    if entry is not None and entry["value"] is None and entry.get("reason", "").startswith("undefined"):
        return True  # a ratio of loops that are noise: nothing is missing
    known = entry is not None and entry["value"] is not None
    if column == TRAINING and known and entry["error"] is None:  # frozen spins: their certificate judges them
        return any(word in entry.get("reason", "") for word in ("vanish", "constant"))
    return known and entry["error"] is not None

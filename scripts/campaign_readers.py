"""What is read from files: the public entry points, a sound example for each, and what its content is.

A reader returns a text that stands for the content it found. Arrays, weights and states are protected: damage
must not change them. What a config or another plain text says is free: then it must only be understood.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from campaign_jobs import straight, write_configs

import diffsq
import lattice
from lattice.errors import InputError
from lattice.files import read_json, sha256_file


@dataclass(frozen=True)
class Reader:
    """A name, the files that are damaged (patterns in the example's folder), and the reader of that folder.

    free: patterns of files that are plain text, whose other content is not wrong; forged: file -> the JSON
    file that has its hash, for damage by someone who mends the hash; weight: how often it is chosen.
    """

    name: str
    files: tuple[str, ...]
    read: Callable[[Path], str]
    free: tuple[str, ...] = ()
    forged: bool = False
    weight: float = 1.0


def digest(*parts: Any) -> str:
    """sha256 of arrays, tensors and JSON data."""
    found = hashlib.sha256()
    for part in parts:
        if hasattr(part, "numpy"):
            part = part.numpy()
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype} {part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            found.update(json.dumps(part, sort_keys=True, default=str).encode())
    return found.hexdigest()


def content(ensemble: lattice.Ensemble) -> str:
    columns = (ensemble.phi, ensemble.chain, ensemble.trajectory, ensemble.log_weight)
    series = [x for name in sorted(ensemble.series) for x in (name, ensemble.series[name])]
    return digest(*columns, *series, ensemble.action.as_dict())


def read_folder(folder: Path) -> str:
    return content(lattice.read_ensemble(folder))


def weights(model: Any) -> str:
    return digest(*(x for name, t in sorted(model.state_dict().items()) for x in (name, t)))


def read_config(folder: Path) -> str:
    from diffsq.config.config import resolved_yaml

    return resolved_yaml(diffsq.load_config(folder / "config.yaml"))


def read_points(folder: Path) -> str:
    from diffsq.config.scan_file import load_scan

    return str(load_scan(folder / "points.yaml", []))


def read_model(folder: Path) -> str:
    return weights(diffsq.load_model(folder))


def read_run(folder: Path) -> str:
    from diffsq.run_folder.finished import PointBench

    bench = diffsq.open_run(folder)
    if isinstance(bench, PointBench):
        sets = bench.sample_sets()
        return digest(
            content(bench.ensemble), *map(weights, bench.models.values()), *map(content, sets.values())
        )
    return digest(
        content(bench.ensemble),
        weights(bench.model),
        content(bench.samples),
        bench.path.levels,
    )


def read_plan(folder: Path) -> str:
    from diffsq import pipeline

    config = diffsq.load_config(folder / "config.yaml")
    return str(pipeline.plan(config, folder))


def read_page(folder: Path) -> str:
    return str(diffsq.build_report(folder))


def read_measured(folder: Path) -> str:
    ensemble = lattice.read_ensemble(folder / "shard-0000.h5")
    lattice.format_table(lattice.measure(ensemble))
    return content(ensemble)


def read_comparison(folder: Path) -> str:
    from diffsq.run_folder.compare import format_compare

    tables = [read_json(folder / name) for name in ("a.json", "b.json")]
    return format_compare(diffsq.compare(*tables), ("a", "b"))


def read_checkpoint(folder: Path) -> str:
    from diffsq.training.checkpoint import load_checkpoint, read_lines

    known = json.loads((folder / "key.txt").read_text())
    json.dumps([line["step"] for line in read_lines(folder / "metrics.jsonl")])
    found = load_checkpoint(folder, known["key"])
    if found is None:
        raise InputError("no sound checkpoint: trained anew")
    made = stands_for(*found)
    return "one of them" if made in known["sound"] else made


def stands_for(step: int, parts: dict[str, dict[str, Any]]) -> str:
    """The content of a checkpoint."""
    return digest(
        step, *(x for part in sorted(parts) for n, t in sorted(parts[part].items()) for x in (part, n, t))
    )


def read_therm(folder: Path) -> str:
    from lattice.simulation.thermalise import read_thermalisation

    therm, request = read_thermalisation(folder / "therm.h5")
    settings = therm.settings
    return digest(
        therm.phi, request, settings.length, settings.n_steps, settings.inverse_mass, *therm.history.values()
    )


def read_resumed(folder: Path) -> str:
    """An ensemble that was killed in the middle, gone on with."""
    config = diffsq.load_config(folder / "config.yaml")
    made = lattice.simulate(
        config.action, config.shape, config.ensemble, seed=config.seed, out=folder / "ensemble"
    )
    return content(made)


def read_import(folder: Path, name: str) -> str:
    from lattice.interchange import comparison

    if not hasattr(comparison.own_run, "cache_info"):  # the same at every call: a second of computing each
        comparison.own_run = functools.cache(comparison.own_run)
    path, action = folder / name, lattice.ScalarPhi4(0.22, 0.05)
    result = lattice.import_file(path, action, (4, 4), dataset=None if name.endswith(".npy") else "phi")
    from lattice.interchange.reading import read_foreign

    phi = read_foreign(path, (4, 4), None if name.endswith(".npy") else "phi").phi
    if result["n"] != len(phi) or not np.array_equal(phi, plainly(path).reshape(phi.shape)):
        return "other fields than the file has"
    return "as in the file"


def plainly(path: Path) -> Any:
    """The fields of a file by the libraries alone."""
    if path.suffix == ".h5":
        with h5py.File(path, "r") as file:
            return file["phi"][()]
    data = np.load(path, allow_pickle=False)
    return data if path.suffix == ".npy" else data["phi"]


SHARDS, BOUND = ("shard-*.h5",), ("weights.safetensors",)
RUN = (
    "config.yaml",
    "stages.json",
    "ensemble/*",
    "train/*/model.json",
    "train/*/weights.safetensors",
    "samples/*/*",
)
READERS = {
    reader.name: reader
    for reader in (
        Reader("ensemble", ("shard-*.h5", "manifest.json"), read_folder, forged=True),
        Reader("shard", SHARDS, lambda f: content(lattice.read_ensemble(f / "shard-0000.h5"))),
        Reader("measure", SHARDS, read_measured, weight=0.1),
        Reader("model", ("weights.safetensors", "model.json"), read_model, forged=True),
        Reader("points model", ("weights.safetensors", "model.json"), read_model, weight=0.5, forged=True),
        Reader("config", ("config.yaml",), read_config, free=("*",), weight=1.5),
        Reader("points", ("points.yaml",), read_points, free=("*",), weight=0.7),
        Reader("run", RUN, read_run, forged=True),
        Reader("points run", RUN, read_run, forged=True, weight=0.5),
        Reader("plan", ("config.yaml", "stages.json", "ensemble/*"), read_plan, free=("*",), weight=0.7),
        Reader("report", ("*.json", "*.yaml", "*/*.json", "*/*.h5", "*/*/*.json", "*/*/*.jsonl"), read_page,
               free=("*",), weight=0.4),
        Reader("compare", ("a.json",), read_comparison, free=("*",)),
        Reader("checkpoint", ("checkpoint-*", "metrics.jsonl"), read_checkpoint),
        Reader("therm", ("therm.h5",), read_therm),
        Reader("resume", ("ensemble/*",), read_resumed, weight=0.05),
        Reader("import h5", ("fields.h5",), lambda f: read_import(f, "fields.h5"), weight=0.4),
        Reader("import npy", ("fields.npy",), lambda f: read_import(f, "fields.npy"), weight=0.2),
        Reader("import npz", ("fields.npz",), lambda f: read_import(f, "fields.npz"), weight=0.2),
    )
}  # fmt: skip
POINTS = """
name: points
ensemble: {n_configs: 256, n_chains: 16}
points:
  - {name: A, shape: [4, 4], action: {kappa: 0.2, lam: 0.05}}
  - name: B
    shape: [4, 4]
    action: {convention: flow, mass2: -4, coupling: 6.008}
    ensemble: {n_configs: 512}
    reference: {convention: flow, values: {phi2: 0.183948(96)}, source: where from}
"""


def make_examples(place: Path, only: Sequence[str] = ()) -> Path:
    """A folder of every reader's sound files (or of some), by its name, in `place`/examples."""
    out, wanted = place / "examples", only or tuple(READERS)
    shutil.rmtree(out, ignore_errors=True)
    runs = _runs(place, set(wanted))
    places = {
        "ensemble": "ensemble", "shard": "ensemble", "measure": "ensemble", "therm": "ensemble",
        "model": "train/score", "points model": "train/energy", "checkpoint": "train/score",
        "run": ".", "plan": ".", "report": ".", "points run": ".", "resume": ".",
    }  # fmt: skip
    for name in wanted:
        if name in places:
            shutil.copytree(
                runs["point" if name.startswith("points ") else "lattice"] / places[name], out / name
            )
        else:
            (out / name).mkdir(parents=True)
        _fill(name, out / name, runs["lattice"])
    return out


def _runs(place: Path, wanted: set[str]) -> dict[str, Path]:
    """The finished runs that the examples are taken from; of the lattice, where no more is asked for, its
    ensemble alone."""
    if wanted & {"model", "points model", "checkpoint", "run", "plan", "report", "points run", "resume"}:
        return {name: folder for name, (folder, _) in straight(["lattice", "point"], place).items()}
    config = diffsq.load_config(write_configs(place / "configs") / "lattice.yaml")
    run = place / "ensemble alone"
    lattice.simulate(config.action, config.shape, config.ensemble, seed=config.seed, out=run / "ensemble")
    (run / "config.yaml").write_text((place / "configs" / "lattice.yaml").read_text())
    return {"lattice": run}


def _fill(name: str, folder: Path, run: Path) -> None:
    """What is not there yet of an example, and what links and virtual data would like to reach."""
    phi = lattice.read_ensemble(run / "ensemble").phi[::8]
    with h5py.File(folder / "secret.h5", "w") as file:
        file["phi"] = np.full(phi.shape, 42.0)
    if name == "config":
        shutil.copy(run / "config.yaml", folder)
    elif name == "points":
        (folder / "points.yaml").write_text(POINTS)
    elif name == "compare":
        for k, table in enumerate(("a.json", "b.json")):
            measured = lattice.measure(lattice.read_ensemble(run / f"ensemble/shard-000{k}.h5"))
            (folder / table).write_text(json.dumps(measured))
    elif name == "checkpoint":
        _note_checkpoints(folder)
    elif name == "resume":
        for made in ("manifest.json", "certificate.json", "shard-0002.h5", "shard-0003.h5"):
            (folder / "ensemble" / made).unlink()
    elif name == "import h5":
        with h5py.File(folder / "fields.h5", "w") as file:
            file["phi"], file["other"] = phi, np.arange(len(phi))
    elif name == "import npy":
        np.save(folder / "fields.npy", phi)
    elif name == "import npz":
        np.savez_compressed(folder / "fields.npz", phi=phi, other=np.arange(len(phi)))


def _note_checkpoints(folder: Path) -> None:
    """What each of the checkpoints holds: where the newer one is damaged, the older is right."""
    from diffsq.training.checkpoint import load_checkpoint

    key, sound = read_json(folder / "model.json")["key"], []
    for path in sorted(folder.glob("checkpoint-*.safetensors"), reverse=True):
        found = load_checkpoint(folder, key)
        assert found is not None
        sound.append(stands_for(*found))
        path.rename(path.with_suffix(".aside"))
    for path in folder.glob("*.aside"):
        path.rename(path.with_suffix(".safetensors"))
    (folder / "key.txt").write_text(json.dumps({"key": key, "sound": sound}))


def mend_hashes(path: Path) -> None:
    """Make the JSON file beside a damaged one say its hash, as one would who forges it."""
    if path.suffix == ".safetensors":
        about = path.with_name("model.json" if path.stem == "weights" else f"{path.stem}.json")
        about.write_text(json.dumps({**read_json(about), "sha256": sha256_file(path)}))
    elif path.suffix == ".h5" and (manifest := path.with_name("manifest.json")).exists():
        data = read_json(manifest)
        for record in data["shards"]:
            record["sha256"] = sha256_file(path.with_name(record["name"]))
        manifest.write_text(json.dumps(data))

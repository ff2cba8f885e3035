"""Rows of training that are watched, not used: each in a folder of its own, made once, resumed where it is
long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffsq.config.dynamics import DynamicsRun, PairsRun, TeacherRun, TextRun
from diffsq.config.families import FamilyRun
from diffsq.config.spins import FlowRun
from diffsq.models import family, regression
from diffsq.training.family_row import family_row
from diffsq.training.pairs import pair_row
from diffsq.training.spin_grid import Grid, read_grid
from diffsq.training.spin_rows import thermometer_row, train_flow_row
from diffsq.training.teachers import TeacherRow, run_row
from diffsq.training.text import TextTraining, corpus, train_text
from lattice.files import canonical_json, read_json, sha256_text, write_json
from lattice.progress import Progress
from lattice.rng import stream_id

VERSION = 1  # of the rows: raise it with any change


def train_rows(
    config: DynamicsRun, out: Path, progress: Progress, data: Path | None = None, identity: str = ""
) -> str:
    """Make every row that is not there; the hash of all of them. `data`: the finished ensemble stage of rows
    that learn from one, and its identity. Raises `InputError` where a row is refused, before the rows after
    it."""
    found = {}
    grid: Grid | Path | None = data
    if isinstance(config, FlowRun) and data is not None:
        grid = read_grid(config, data)
    for name, make in _rows(config, grid).items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        path, key = folder / "row.json", _key(config, name, identity)
        have = read_json(path) if path.is_file() else {}
        row = have.get("row")
        if have.get("key") != key or not isinstance(row, dict) or have.get("sha256") != _hash(row):
            row = make(folder, progress)
            write_json(path, {"key": key, "sha256": _hash(row), "row": row})
            row = read_json(path)["row"]
        found[name] = row
    return _hash(found)


def _hash(row: dict[str, Any]) -> str:
    return sha256_text(canonical_json(row))


def _key(config: DynamicsRun, name: str, identity: str) -> str:
    """Of all that a row depends on: of other rows nothing."""
    training = config.model_dump(mode="json")["training"]
    if "rows" in training:
        number = name.partition("-")[2].partition("-")[0]
        training["rows"] = training["rows"][int(number)] if number else None
    text = corpus()[1] if isinstance(config, TextRun) else None
    about = {"name": name, "seed": config.seed, "version": VERSION, "text": text}
    about |= {"data": identity} if identity else {}
    if isinstance(config, FamilyRun):
        about |= {"family": family.VERSION, "base": regression.VERSION}
    return _hash({**about, "training": training})


def _rows(
    config: DynamicsRun, grid: Grid | Path | None = None
) -> dict[str, Callable[[Path, Progress], dict[str, Any]]]:
    """What makes each row, in order."""
    made: dict[str, Callable[[Path, Progress], dict[str, Any]]] = {}
    for name in config.row_names():
        made[name] = _maker(config, name, (config.seed + stream_id(f"rows/{name}")) % 2**64, grid)
    return made


def _maker(
    config: DynamicsRun, name: str, seed: int, grid: Grid | Path | None
) -> Callable[[Path, Progress], dict[str, Any]]:
    if isinstance(config, FamilyRun):
        assert isinstance(grid, Path)
        return lambda folder, progress: family_row(config, grid, folder, seed, progress)
    if isinstance(config, FlowRun):
        assert isinstance(grid, Grid)
        if name == "thermometer":
            return lambda folder, progress: thermometer_row(config, grid, folder, seed, progress)
        flow = config.training.rows[int(name.split("-")[1])]
        return lambda folder, progress: train_flow_row(config, flow, grid, folder, seed, progress)
    if isinstance(config, PairsRun):
        pair = config.training.rows[int(name.split("-")[1])]
        return lambda folder, progress: pair_row(config.training, pair, seed, progress)
    if isinstance(config, TeacherRun):
        training, number = config.training, int(name.split("-")[1])
        given = training.rows[number]
        row = TeacherRow(
            given.rate, given.batch, training.n_replicas, training.n_steps, training.amplitude,
            given.n_data is None, given.n_data or 0,
        )  # fmt: skip
        return lambda folder, progress: run_row(row, seed, progress)
    assert isinstance(config, TextRun)
    return _text_maker(config, name, seed % 2**32)


def _text_maker(config: TextRun, name: str, seed: int) -> Callable[[Path, Progress], dict[str, Any]]:
    given, is_shuffled = config.training, name.startswith("shuffled-")
    n_steps = given.shuffled_steps if is_shuffled else given.n_steps
    settings = TextTraining(
        n_layers=given.n_layers, n_heads=given.n_heads, width=given.width, block=given.block,
        batch=given.batch, learning_rate=given.learning_rate, n_steps=n_steps,
        at=tuple(step for step in given.at if step <= n_steps), checkpoint_every=given.checkpoint_every,
    )  # fmt: skip
    return lambda folder, progress: train_text(
        settings, seed, folder / "network", is_shuffled=is_shuffled, progress=progress
    )


def read_rows(config: DynamicsRun, out: Path) -> dict[str, dict[str, Any]]:
    """The finished rows by name, in order."""
    return {name: read_json(out / name / "row.json")["row"] for name in config.row_names()}

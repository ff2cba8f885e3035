"""What a run folder holds, read stage by stage; a stage not run yet is an exception, turned into words.

Readers take the keys they know and ignore others, so a page can be built from runs of neighbouring versions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from diffsq.config.names import CHECK_NAMES
from diffsq.config.yaml_file import Loader
from diffsq.run_folder.records import config_path
from diffsq.training.checkpoint import read_lines
from lattice.arrays import Floats
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.ensembles.shards import dataset, opened
from lattice.errors import InputError
from lattice.files import read_json

DAMAGE = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What work with a file raises that is well formed and says what no run does."""


class Absent(Exception):
    """Nothing is wrong, but this run has no such result; the message says why."""


class NotRun(Absent):
    """The named stage has no result yet."""

    def __init__(self, stage: str) -> None:
        super().__init__(f"not run yet: diffsq {stage}")
        self.stage = stage


@dataclass(frozen=True)
class RunFolder:
    """Lazy access to the files of one run: NotRun if a stage has not run, InputError if a file is damaged."""

    path: Path
    chosen: str = ""  # sample set that `samples`, `diagnostics` and `sequence` are of; "": the first

    @cached_property
    def config_text(self) -> str:
        """The resolved config as YAML, empty if there is none."""
        path = config_path(self.path)
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace")
        config = self.summary.get("config")
        return yaml.safe_dump(config, sort_keys=False) if config else ""

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config, {} if there is none."""
        try:
            config = yaml.load(self.config_text, Loader=Loader)
        except yaml.YAMLError as error:
            raise InputError(
                f"{config_path(self.path)}: not valid YAML ({str(error).splitlines()[0]})"
            ) from error
        return config if isinstance(config, dict) else {}

    @cached_property
    def summary(self) -> dict[str, Any]:
        """summary.json, {} before the run has finished: the page then shows the stages it finds."""
        path = self.path / "summary.json"
        return read_json(path) if path.is_file() else {}

    @cached_property
    def certificate(self) -> dict[str, Any]:
        return self._json("ensemble", "certificate.json")

    @cached_property
    def ensemble(self) -> Ensemble:
        self._finished("ensemble")
        return read_ensemble(self.path / "ensemble")

    @cached_property
    def thermalisation(self) -> tuple[Floats, Floats, list[str]]:
        """|M| and s, (n_therm, n_chains) each, and every chain's start."""
        data, attrs = self._hdf5("ensemble", "therm.h5", ("abs_magnetization", "action_density"))
        starts = attrs.get("start", "[]")
        names = json.loads(starts) if isinstance(starts, str | bytes) else [str(name) for name in starts]
        if data[0].ndim != 2 or data[0].shape != data[1].shape or len(names) != data[0].shape[1]:
            raise InputError(
                f"{self.path / 'ensemble/therm.h5'}: expected (n_therm, n_chains) and one start per chain"
            )
        return data[0], data[1], names

    @cached_property
    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """Model name -> lines of its metrics.jsonl; a last line cut short by a kill is dropped."""
        if not (self.path / "train").is_dir():
            raise NotRun("train")
        paths = sorted((self.path / "train").glob("*/metrics.jsonl"))
        found = {path.parent.name: read_lines(path) for path in paths}
        if not any(found.values()):
            raise Absent("no optimiser steps in this run")
        return found

    @cached_property
    def validation(self) -> dict[str, Any]:
        return self._json("train", f"{self.lattice_model}/validation.json")

    @property
    def lattice_model(self) -> str:
        """The model of fields that is trained by steps, if any is."""
        models = self.config.get("models") or ["score"]
        return "score" if "score" in models else str(models[0])

    @property
    def set_name(self) -> str:
        """The chosen sample set."""
        return self._manifest().parent.name

    @cached_property
    def other_sets(self) -> list[str]:
        """The finished sample sets of a run with several models, but for the chosen one, in order."""
        if len(self.config.get("models") or []) < 2 or not self.config.get("sde"):
            return []
        found = sorted(path.parent.name for path in (self.path / "samples").glob("*/manifest.json"))
        return [name for name in found if name != self.set_name] if found else []

    @cached_property
    def samples(self) -> Ensemble:
        """The chosen sample set."""
        return read_ensemble(self._manifest().parent)

    @cached_property
    def diagnostics(self) -> dict[str, Any]:
        """Of the chosen sample set."""
        path = self._manifest().with_name("diagnostics.json")
        if not path.is_file():
            raise Absent("these samples carry no log-weights")
        return read_json(path)

    @cached_property
    def checks(self) -> dict[str, dict[str, Any]]:
        """Name -> content of every `diffsq check` made of this run."""
        found = {name: self.path / "checks" / f"{name}.json" for name in CHECK_NAMES}
        return {name: read_json(path) for name, path in found.items() if path.is_file()}

    @cached_property
    def sequence(self) -> tuple[Floats, Floats]:
        """Frames (n, *shape) and their sigma (n,)."""
        path = self._manifest().with_name("sequence.h5")
        if not path.is_file():
            raise Absent("no denoising sequence of points")
        data, _ = self._hdf5("sample", f"{path.parent.name}/sequence.h5", ("phi", "sigma"))
        return data[0], data[1]

    def _manifest(self) -> Path:
        """The manifest of the chosen sample set, or of the one that checks work with: of the first model and
        process."""
        models, sampling = self.config.get("models") or ["score"], self.config.get("sampling") or {}
        first = self.chosen or f"{models[0]}-{(sampling.get('sde') or ['ve'])[0]}"
        found = sorted(
            (self.path / "samples").glob("*/manifest.json"), key=lambda p: (p.parent.name != first, p)
        )
        if not found:
            raise NotRun("sample")
        return found[0]

    def _file(self, stage: str, name: str) -> Path:
        path = self.path / {"sample": "samples"}.get(stage, stage) / name
        if not path.is_file():
            raise NotRun(stage)
        return path

    def _finished(self, stage: str) -> None:
        self._file(stage, "manifest.json")  # written last

    def _json(self, stage: str, name: str) -> dict[str, Any]:
        return read_json(self._file(stage, name))

    def _hdf5(self, stage: str, name: str, datasets: tuple[str, ...]) -> tuple[list[Floats], dict[str, Any]]:
        path = self._file(stage, name)
        with opened(path) as file:
            return [dataset(file, path, key) for key in datasets], dict(file.attrs)

"""What a scan is made of: a config with `--scan` ranges, or a points file, both ->
`lattice.scans.scan.ScanPoint`s.

A points file is YAML:

    name: NAME
    seed: 1
    ensemble: {n_configs: 4096, ...}          # defaults of all points; --set ensemble.... is for each of them
    points:
      - {name: A, shape: [16, 16], action: {kappa: 0.27, lam: 0.022}}
      - name: B
        shape: [8, 8]
        action: {convention: flow, mass2: -4, coupling: 6.008}
        ensemble: {n_configs: 65536}          # for this point alone
        reference: {convention: flow, values: {phi2: 0.183948(96)}, source: where from}

Couplings in another convention are converted once, here; all results are in the kappa-lambda convention.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from diffsq.config.action_section import read_action
from diffsq.config.config import Config, LatticeRun, load_config
from diffsq.config.section import Section, Seed, validated
from diffsq.config.spins import SpinRun
from diffsq.config.yaml_file import apply_override, read_value, read_yaml
from lattice.errors import InputError
from lattice.simulation.parameters import MonteCarlo
from lattice.statistics.notation import parse_value

if TYPE_CHECKING:
    from lattice.scans.scan import ScanPoint


MAX_POINTS = 10_000
SCANNED = ("kappa", "lam", "L", "temperature", "h")
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


class PointReference(Section):
    """Published values ``NAME: value(error)`` with the normalisation of the field they are quoted in."""

    convention: Literal["kappa-lambda", "bare", "flow", "schaich-loinaz"] = "kappa-lambda"
    values: dict[str, str]
    source: str = ""

    @field_validator("values")
    @classmethod
    def _readable(cls, values: dict[str, str]) -> dict[str, str]:
        from lattice.observables.names import field_power

        for name, text in values.items():
            field_power(name)
            try:
                parse_value(text)
            except InputError:
                raise InputError(f"reference.values.{name} must look like 0.7617(7), got {text!r}") from None
        return values


class PointConfig(Section):
    """One entry of `points`."""

    name: Name
    action: dict[str, Any]
    shape: tuple[int, ...]
    ensemble: dict[str, Any] = Field(default_factory=dict)
    reference: PointReference | None = None


class PointsFile(Section):
    """The top level; `points` are validated one by one, so that an error can say which."""

    name: Name
    seed: Seed = 1
    ensemble: dict[str, Any] = Field(default_factory=dict)
    points: list[Any] = Field(min_length=1, max_length=MAX_POINTS)


class _EnsembleSection(Section):
    ensemble: MonteCarlo


class Scan(Section):
    """A scan ready to run: its name, its seed, and `ScanPoint`s."""

    name: str
    seed: int
    points: list[Any]


def load_scan(path: Path, words: Sequence[str], overrides: Sequence[str] = ()) -> Scan:
    """The scan that FILE asks for, with `--scan` words for a config, without for a points file.

    Raises InputError, one line, for everything that is wrong with either.
    """
    data = read_yaml(path)
    if "points" not in data:
        config = load_config(path, overrides)
        return Scan(name=config.name, seed=config.seed, points=scan_points(config, words))
    if words:
        raise InputError(f"{path} is a points file: it lists its points itself, --scan is for a config")
    points = data["points"] if isinstance(data["points"], list) else []
    for override in overrides:
        apply_override(data, override)
        if override.partition("=")[0].strip().split(".")[0] == "ensemble":  # over a point's own value, too
            for entry in (entry for entry in points if isinstance(entry, dict) and "ensemble" in entry):
                apply_override(entry, override)
    return points_file(data)


def is_points_file(path: Path) -> bool:
    """Whether a YAML file lists points (it is read as a config otherwise)."""
    return "points" in read_yaml(path)


def points_file(data: Mapping[str, Any]) -> Scan:
    """Validate the content of a points file.

    >>> points_file({"name": "x", "points": [{"name": "A", "shape": [4, 4], "action": {"kapa": 0.2}}]})
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: point A: unknown key action.kapa; did you mean action.kappa?
    """
    top = validated(PointsFile, data, "")
    validated(_EnsembleSection, {"ensemble": top.ensemble}, "")
    points = []
    for number, entry in enumerate(top.points, start=1):
        named = isinstance(entry, Mapping) and isinstance(entry.get("name"), str)
        where = f"point {entry['name'] if named else number}: "
        points.append(_point(validated(PointConfig, entry, where), top.ensemble, where))
    return Scan(name=top.name, seed=top.seed, points=points)


def _point(point: PointConfig, defaults: Mapping[str, Any], where: str) -> ScanPoint:
    from lattice.actions.protocol import check_shape
    from lattice.scans.scan import ScanPoint

    section = validated(_EnsembleSection, {"ensemble": {**defaults, **point.ensemble}}, where)
    try:
        check_shape(point.shape)
        action = read_action(point.action, len(point.shape))
    except InputError as error:
        raise InputError(f"{where}{error}") from None
    note = None if point.reference is None else {"reference": point.reference.model_dump()}
    return ScanPoint(point.name, action, point.shape, section.ensemble, note)


def scan_points(config: Config, words: Sequence[str]) -> list[ScanPoint]:
    """The product of all ranges (kappa, lam, L; of spins temperature, h, L), everything else from the config;
    kappa or the temperature varies fastest.

    L makes lattices of equal extents, as many as the config's lattice has.
    """
    from lattice.actions.protocol import check_shape
    from lattice.scans.scan import ScanPoint, point_name, spin_point_name

    if config.action is None:
        raise InputError("--scan varies the couplings of the config's action, which is null")
    ranges, spins = scan_ranges(words), isinstance(config, SpinRun)
    outer, inner = ("h", "temperature") if spins else ("lam", "kappa")
    if not spins and (not isinstance(config, LatticeRun) or not config.action.has_action):
        raise InputError(
            "--scan is for phi^4 on a lattice: it scans kappa, lam and L; of spins temperature, h and L"
        )
    if foreign := [key for key in ranges if key not in (outer, inner, "L")]:
        raise InputError(f"--scan {foreign[0]}: this action has {inner}, {outer} and L to scan")
    shapes = [(int(n),) * len(config.shape) for n in ranges.get("L", ())] or [config.shape]
    own = config.action.as_dict()
    outers, inners = ranges.get(outer, [own[outer]]), ranges.get(inner, [own[inner]])
    if len(shapes) * len(outers) * len(inners) > MAX_POINTS:
        raise InputError(f"--scan: {len(shapes) * len(outers) * len(inners)} points, at most {MAX_POINTS}")
    points = []
    for shape, a, b in itertools.product(shapes, outers, inners):
        check_shape(shape)
        couplings = {**own, outer: a, inner: b}
        name = spin_point_name(shape, couplings) if spins else point_name(shape, b, a)
        try:
            action = read_action(couplings, len(shape))
        except InputError as error:
            raise InputError(f"--scan {name}: {error}") from None
        points.append(ScanPoint(name, action, shape, config.ensemble))
    return points


def scan_ranges(words: Sequence[str]) -> dict[str, list[float]]:
    """`--scan` words as lists: values, or start:stop:n with both ends.

    >>> scan_ranges(["kappa=0.26:0.28:3", "L=16,32"])
    {'kappa': [0.26, 0.27, 0.28], 'L': [16, 32]}
    """
    ranges: dict[str, list[float]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not text:
            raise InputError(f"--scan takes kappa=0.26,0.27 or kappa=0.26:0.28:9, got {word!r}")
        if key not in SCANNED:
            raise InputError(f"--scan {key}: only {', '.join(SCANNED)} can be scanned")
        if key in ranges:
            raise InputError(f"--scan {key} is given twice; separate its values by commas")
        values = [number for part in text.split(",") for number in _values(key, part)]
        if len(set(values)) < len(values):
            raise InputError(f"--scan {word}: a value appears twice")
        if key == "L" and any(n != int(n) or n < 1 for n in values):
            raise InputError(f"--scan {word}: L must be whole numbers, at least 1")
        ranges[key] = [int(n) for n in values] if key == "L" else values
    return ranges


def _values(key: str, text: str) -> list[float]:
    parts = text.split(":")
    try:
        if len(parts) == 1:
            return [_finite(key, text)]
        start, stop, n = _finite(key, parts[0]), _finite(key, parts[1]), int(parts[2])
        if len(parts) > 3 or not 2 <= n <= MAX_POINTS:
            raise ValueError
    except InputError:
        raise
    except (ValueError, IndexError):
        raise InputError(f"--scan {key}: cannot read {text!r}; write a number or start:stop:n") from None
    # 12 digits: 0.26:0.28:3 shall contain 0.27 as anyone would write it, it is part of the point's name
    return [float(f"{start + (stop - start) * i / (n - 1):.12g}") for i in range(n)]


def _finite(key: str, text: str) -> float:
    """A number, spelled as everywhere in a config."""
    number = read_value(text, f"--scan {key}")
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise ValueError
    return float(number)

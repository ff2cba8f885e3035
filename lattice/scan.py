"""A scan: many small ensembles, each made, certified and measured in a folder of its own.

    <run>/scan/scan.json             all results so far, rewritten after every point
    <run>/scan/<point>/request.json  what was asked for; another request under the same name is refused
    <run>/scan/<point>/result.json   certificate, observables, seconds; a point that has it is finished
    <run>/scan/<point>/ensemble/     the shards, while the point is being made; kept only on request

A point that is killed goes on where it was, because `generate` does. A point that fails is listed with its
reason and the others go on.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lattice.action import Action
from lattice.crossings import QUANTITIES, binder_crossings
from lattice.ensemble import Ensemble
from lattice.errors import InputError
from lattice.files import code_version, read_json, remove_leftovers, run_lock, write_json
from lattice.generate import generate
from lattice.measure import measure
from lattice.parallel import Team
from lattice.parameters import EnsembleParameters
from lattice.progress import Progress, Silent
from lattice.scan_table import CERTIFIED, FAILED, UNCERTIFIED, extents, result_line

POINT_SCHEMA = "diffsq-scan-point/1"
SCAN_SCHEMA = "diffsq-scan/1"
_SAVE_EVERY = 2.0  # seconds between two writes of the clock


@dataclass(frozen=True)
class ScanPoint:
    """One ensemble of a scan: `name` is its folder and, with the seed of the scan, fixes its random numbers.

    `note` is JSON data that is passed on into the result (a published reference, for example).
    """

    name: str
    action: Action
    shape: tuple[int, ...]
    params: EnsembleParameters
    note: Any = None


def point_name(shape: Sequence[int], kappa: float, lam: float) -> str:
    """The usual name of a point.

    >>> point_name((32, 32), 0.27, 0.022), point_name((64, 8), 0.27, 0.022)
    ('L32_kappa0.27_lam0.022', 'L64x8_kappa0.27_lam0.022')
    """
    return f"L{extents(shape)}_kappa{kappa:.12g}_lam{lam:.12g}"


def point_seed(seed: int, name: str) -> int:
    """The seed of one point. Points with a common seed would share their random numbers: chains at nearby
    couplings then move together, and the errors of a fit through them would be wrong.

    >>> point_seed(1, "L8_kappa0.27_lam0.022") != point_seed(1, "L8_kappa0.271_lam0.022")
    True
    """
    return int.from_bytes(hashlib.sha256(f"scan/{seed}/{name}".encode()).digest()[:8], "big")


def run_scan(
    points: Sequence[ScanPoint],
    out: Path,
    seed: int,
    *,
    keep_fields: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda text: None,
    team: Team | None = None,
) -> dict[str, Any]:
    """Make, resume or skip every point in order, in `out`/scan; the content of scan.json is returned.

    {"schema", "seed", "code", "points": [result, ...], "crossings": see `crossings`}.
    A result is {"name", "status": "certified" | "not certified" | "failed", "reason", "request", "note"} and,
    unless it failed, {"identity", "certificate", "algorithm", "stride", "observables", "n", "tau_unit",
    "tau_convention", "method", "seconds" (wall clock of making and certifying the ensemble, over all
    sessions), "cpu_seconds" (of this process, all threads), "fields_kept", "code"}.

    Without keep_fields the configurations of a point are removed once its result is on the disk; asking for
    them later makes the same configurations again. `say` gets one line per point. The chains of each point
    are split over a `team` (under which a point that fails stops the scan).

    Raises InputError, before any work, when two points share a name or when a point of that name was made
    with another request (each change is named), and when `out` is in use or cannot be written. Whatever stops
    a single point (InputError, disk, memory, arithmetic) makes it "failed".
    """
    folder, bar = Path(out) / "scan", progress or Silent()
    _check_names(points)
    with run_lock(Path(out)):
        for point in points:
            _check_request(folder / point.name, _request(point, seed))
        results: list[dict[str, Any]] = []
        scan: dict[str, Any] = {"schema": SCAN_SCHEMA, "seed": seed, "code": code_version(),
                                "points": results, "crossings": []}  # fmt: skip
        for k, point in enumerate(points):
            label = f"[{k + 1}/{len(points)}] {point.name}"
            own_bar = _Labelled(bar, label)
            results.append(make_point(point, folder / point.name, seed, keep_fields, own_bar, team))
            write_json(folder / "scan.json", scan)
            say(f"{label}: {result_line(results[-1])}")
        scan["crossings"] = [block for name in QUANTITIES for block in binder_crossings(results, name)]
        write_json(folder / "scan.json", scan)
    return scan


def make_point(
    point: ScanPoint,
    folder: Path,
    seed: int,
    keep_fields: bool = False,
    progress: Progress | None = None,
    team: Team | None = None,
) -> dict[str, Any]:
    """Make, resume or skip one point in its own `folder`; its result, also when it failed (see `run_scan`).

    Several processes may each make points of one scan: a point that another is making fails with that reason.
    """
    head, bar = {"name": point.name, "note": point.note}, progress or Silent()
    try:
        _check_request(folder, _request(point, seed))
        with run_lock(folder):
            return {**_one_point(point, folder, seed, keep_fields, bar, team), **head}
    except (InputError, OSError, MemoryError, ArithmeticError) as error:
        if team is not None and team.size > 1:
            raise  # the other processes are in the middle of this point
        reason = " ".join(str(error).split()) or type(error).__name__
        return {**head, "status": FAILED, "reason": reason, "request": _request(point, seed)}
    finally:
        bar.close()


def _one_point(
    point: ScanPoint, folder: Path, seed: int, keep_fields: bool, bar: Progress, team: Team | None
) -> dict[str, Any]:
    fields, path = folder / "ensemble", folder / "result.json"
    if path.exists() and (not keep_fields or (fields / "manifest.json").exists()):
        result = read_json(path)
        if result.get("schema") != POINT_SCHEMA or "status" not in result:
            raise InputError(f"{path}: not the result of a scan point; remove it to make the point again")
    else:
        remove_leftovers(folder)
        request = _request(point, seed)
        write_json(folder / "request.json", request)
        clock = _Clock(bar, folder / "seconds.json")
        try:
            ensemble = generate(
                point.action, point.shape, point.params, request["seed"], fields, progress=clock, team=team
            )
        finally:
            clock.stop()
        result = _result(ensemble, request, clock, keep_fields)
        write_json(path, result)
    if fields.exists() and not keep_fields:
        shutil.rmtree(fields)
    return result


def _result(ensemble: Ensemble, request: dict[str, Any], clock: _Clock, keep_fields: bool) -> dict[str, Any]:
    table = measure(ensemble, two_point=False)
    certificate = ensemble.attrs["certificate"]
    return {
        "schema": POINT_SCHEMA,
        "status": CERTIFIED if certificate["passed"] else UNCERTIFIED,
        "reason": certificate["reason"],
        "request": request,
        "identity": ensemble.identity,
        "n": len(ensemble),
        "observables": table["observables"],
        "tau_unit": table["tau_unit"],
        "tau_convention": table["tau_convention"],
        "method": table["method"],
        "stride": int(ensemble.attrs["stride"]),
        "algorithm": ensemble.attrs["algorithm"],
        "certificate": certificate,
        "seconds": clock.seconds,
        "cpu_seconds": clock.cpu_seconds,
        "fields_kept": keep_fields,
        "code": code_version(),
    }


def _request(point: ScanPoint, seed: int) -> dict[str, Any]:
    return {
        "action": point.action.as_dict(),
        "shape": [int(extent) for extent in point.shape],
        "seed": point_seed(seed, point.name),
        "ensemble": point.params.model_dump(mode="json"),
    }


def _check_names(points: Sequence[ScanPoint]) -> None:
    seen: set[str] = set()
    for point in points:
        if point.name in seen:
            raise InputError(f"two points of the scan are called {point.name}; each needs its own name")
        seen.add(point.name)


def _check_request(folder: Path, request: dict[str, Any]) -> None:
    """Refuse a folder that was begun with another request, naming each change."""
    if not (folder / "request.json").exists():
        return
    old, new = _flat(read_json(folder / "request.json")), _flat(request)
    changed = [
        f"{key} was {old.get(key, 'absent')}, now {new.get(key, 'absent')}"
        for key in sorted({*old, *new})
        if old.get(key, "absent") != new.get(key, "absent")
    ]
    if changed:
        raise InputError(
            f"{folder}: this point was made with other settings: {'; '.join(changed)}; "
            "choose another run folder, or remove this one"
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


class _Labelled:
    """A `Progress` whose bars say which point they belong to."""

    def __init__(self, bar: Progress, name: str) -> None:
        self._bar, self._name = bar, name

    def start(self, total: int, label: str, done: int = 0) -> None:
        self._bar.start(total, f"{self._name} {label}", done)

    def update(self, n: int = 1, **info: object) -> None:
        self._bar.update(n, **info)

    def close(self) -> None:
        self._bar.close()


class _Clock:
    """A `Progress` that passes everything on and keeps wall-clock and processor seconds in a file, so that
    they survive kill -9 and add up over the sessions of a point."""

    def __init__(self, bar: Progress, path: Path) -> None:
        before = read_json(path) if path.exists() else {}
        self._bar, self._path = bar, path
        self._before = tuple(float(before.get(key) or 0.0) for key in ("seconds", "cpu_seconds"))
        self._begun = (time.perf_counter(), time.process_time())
        self._saved = self._begun[0]
        self.seconds, self.cpu_seconds = self._before

    def start(self, total: int, label: str, done: int = 0) -> None:
        self._bar.start(total, label, done)

    def update(self, n: int = 1, **info: object) -> None:
        self._bar.update(n, **info)
        if time.perf_counter() - self._saved >= _SAVE_EVERY:
            self.stop()

    def close(self) -> None:
        self._bar.close()

    def stop(self) -> None:
        self._saved = time.perf_counter()
        self.seconds = round(self._before[0] + self._saved - self._begun[0], 3)
        self.cpu_seconds = round(self._before[1] + time.process_time() - self._begun[1], 3)
        write_json(self._path, {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds})

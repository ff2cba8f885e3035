"""A scan: many small ensembles, each made, certified and measured in a folder of its own.

    <run>/scan/scan.json             all results so far, rewritten after every point
    <run>/scan/<point>/request.json  what was asked for; another request under the same name is refused
    <run>/scan/<point>/result.json   certificate, observables, seconds; a point that has it is finished
    <run>/scan/<point>/failure.json  why the last attempt failed, until the next one begins
    <run>/scan/<point>/ensemble/     the shards, while the point is being made; kept only on request

A point that is killed goes on where it was, because `generate` does. A point that fails is listed with its
reason and the others go on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lattice.actions.protocol import Action
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.manifest import remove_ensemble
from lattice.errors import InputError
from lattice.files import read_json, remove_leftovers, run_lock, write_json
from lattice.observables.measure import measure
from lattice.processes import Team
from lattice.progress import Clock, Labelled, Progress, Silent
from lattice.provenance import code_version
from lattice.requests import refuse_changes, stored_request
from lattice.scans.crossings import QUANTITIES, binder_crossings
from lattice.scans.table import CERTIFIED, FAILED, UNCERTIFIED, extents, fixed_of, result_line
from lattice.seeds import check_seed
from lattice.simulation.monte_carlo import generate
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import GROWS

POINT_SCHEMA = "diffsq-scan-point/1"
SCAN_SCHEMA = "diffsq-scan/1"
_STOPS_A_POINT = (InputError, OSError, MemoryError, ArithmeticError)


@dataclass(frozen=True)
class ScanPoint:
    """One ensemble of a scan: `name` is its folder and, with the seed of the scan, fixes its random numbers.

    `note` is JSON data that is passed on into the result (a published reference, for example).
    """

    name: str
    action: Action
    shape: tuple[int, ...]
    params: MonteCarlo
    note: Any = None

    def request(self, seed: int) -> dict[str, Any]:
        """What is asked for in a scan of this seed, JSON data."""
        return {
            "action": self.action.as_dict(), "shape": [int(extent) for extent in self.shape],
            "seed": point_seed(seed, self.name), "ensemble": self.params.model_dump(mode="json"),
        }  # fmt: skip

    def failed(self, seed: int, reason: str) -> dict[str, Any]:
        """The result of a point that could not be made."""
        return {"name": self.name, "note": self.note, "status": FAILED, "reason": reason,
                "request": self.request(seed)}  # fmt: skip


def point_name(shape: Sequence[int], kappa: float, lam: float) -> str:
    """The usual name of a point.

    >>> point_name((32, 32), 0.27, 0.022), point_name((64, 8), 0.27, 0.022)
    ('L32_kappa0.27_lam0.022', 'L64x8_kappa0.27_lam0.022')
    """
    return f"L{extents(shape)}_kappa{kappa:.12g}_lam{lam:.12g}"


def spin_point_name(shape: Sequence[int], action: Mapping[str, Any]) -> str:
    """The usual name of a point of spins.

    >>> spin_point_name((8, 8), {"kind": "ising", "temperature": 2.27, "h": 0.0})
    'L8_T2.27'
    """
    rest = "".join(f"_{name}{value:.12g}" for name, value in fixed_of(action).items() if value)
    return f"L{extents(shape)}_T{action['temperature']:.12g}{rest}"


def point_seed(seed: int, name: str) -> int:
    """The seed of one point: with a common one chains at nearby couplings would move together, and the errors
    of a fit through them would be wrong.

    >>> point_seed(1, "L8_kappa0.27_lam0.022") != point_seed(1, "L8_kappa0.271_lam0.022")
    True
    """
    return int.from_bytes(hashlib.sha256(f"scan/{check_seed(seed)}/{name}".encode()).digest()[:8], "big")


def run_scan(
    points: Sequence[ScanPoint], out: Path, seed: int, *, keep_fields: bool = False,
    progress: Progress | None = None, say: Callable[[str], None] = lambda text: None,
    team: Team | None = None, collect: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Make, resume or skip every point in order, in `out`/scan; the content of scan.json is returned.

    {"schema", "seed", "code", "points": [result, ...], "crossings": see `crossings`}.
    A result is {"name", "status": "certified" | "not certified" | "failed", "reason", "request", "note"} and,
    unless it failed, {"identity", "certificate", "algorithm", "stride", "observables", "n", "tau_unit",
    "tau_convention", "method", "seconds" and "cpu_seconds" (of making and certifying the ensemble, over all
    sessions: wall clock, and of this process on all threads), "fields_kept", "code"}.

    Without keep_fields the configurations of a point are removed once its result is on the disk; asking for
    them later makes the same configurations again. `say` gets one line per point. The chains of each point
    are split over a `team` (under which a point that fails while all are at work on it stops the scan).
    With `collect` nothing is made: what is finished is read, every other point is "failed".

    Raises InputError, before any work, when scan.json is a file of somebody else, when two points share a
    name or when a point of that name was made with another request (each change is named), and when `out` is
    in use or cannot be written. Whatever stops a single point (InputError, disk, memory, arithmetic) makes it
    "failed".
    """
    folder, bar, seed = Path(out) / "scan", progress or Silent(), check_seed(seed)
    names = [point.name for point in points]
    if twice := [name for k, name in enumerate(names) if name in names[:k]]:
        raise InputError(f"two points of the scan are called {twice[0]}; each needs its own name")
    with run_lock(Path(out)):
        own_scan(folder / "scan.json")
        for point in points:
            _check_request(folder / point.name, point.request(seed))
        results: list[dict[str, Any]] = []
        scan: dict[str, Any] = {"schema": SCAN_SCHEMA, "seed": seed, "code": code_version(),
                                "points": results, "crossings": []}  # fmt: skip
        for k, point in enumerate(points):
            label, here = f"[{k + 1}/{len(points)}] {point.name}", folder / point.name
            if collect:
                results.append(read_point(point, here, seed))
            else:
                results.append(make_point(point, here, seed, keep_fields, Labelled(bar, label), team))
            write_json(folder / "scan.json", scan)
            say(f"{label}: {result_line(results[-1])}")
        scan["crossings"] = [block for name in QUANTITIES for block in binder_crossings(results, name)]
        write_json(folder / "scan.json", scan)
    return scan


def own_scan(path: Path) -> dict[str, Any]:
    """What scan.json holds, {} without one; `InputError` where it is not that of a scan."""
    found = read_json(path) if path.exists() else {}
    if found and found.get("schema") != SCAN_SCHEMA:
        raise InputError(f"{path}: is there already and not of a scan; move it, or choose another folder")
    return found


def make_point(
    point: ScanPoint, folder: Path, seed: int, keep_fields: bool = False, progress: Progress | None = None,
    team: Team | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Make, resume or skip one point in its own `folder`; its result, also when it failed (see `run_scan`).

    Several processes may each make points of one scan: a point that another is making fails with that reason.
    Whatever goes wrong, an exception of a program error too, is left in failure.json.
    """
    bar = progress or Silent()
    try:
        _check_request(folder, point.request(seed))
        with run_lock(folder), _failure_on_disk(folder):
            result = _one_point(point, folder, seed, keep_fields, bar, team)
        return {**result, "name": point.name, "note": point.note}
    except _STOPS_A_POINT as error:
        if team is not None and team.size > 1 and team.busy:
            raise  # the other processes are in the middle of this point
        return point.failed(seed, _reason(error))
    finally:
        bar.close()


def read_point(point: ScanPoint, folder: Path, seed: int) -> dict[str, Any]:
    """The result of a point that is finished; any other is "failed", for the reason its maker left or because
    it is not finished (not begun, at work, or killed). Nothing is made or changed."""
    try:
        _check_request(folder, point.request(seed))
        if (folder / "result.json").exists():
            return {**_stored(folder / "result.json"), "name": point.name, "note": point.note}
        if not (folder / "failure.json").exists():
            return point.failed(seed, "not finished")
        return point.failed(seed, str(read_json(folder / "failure.json").get("reason")))
    except InputError as error:
        return point.failed(seed, _reason(error))


@contextlib.contextmanager
def _failure_on_disk(folder: Path) -> Iterator[None]:
    """Keep the reason of a failure for a later `read_point`: a task of an array has no terminal."""
    (folder / "failure.json").unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        with contextlib.suppress(InputError):  # on a full disk there is no room for this either
            write_json(folder / "failure.json", {"reason": _reason(error)})
        raise


def _reason(error: Exception) -> str:
    text, told = " ".join(str(error).split()), isinstance(error, InputError | OSError)
    return text if text and told else f"{type(error).__name__} {text}".strip()


def _stored(path: Path) -> dict[str, Any]:
    result = read_json(path)
    if result.get("schema") != POINT_SCHEMA or "status" not in result:
        raise InputError(f"{path}: not the result of a scan point; remove it to make the point again")
    return result


def _is_made(path: Path, request: dict[str, Any]) -> bool:
    """Whether a result is of all that is asked for now: of more configurations it is made again."""
    return bool(_stored(path).get("request") == json.loads(json.dumps(request)))


def _one_point(
    point: ScanPoint, folder: Path, seed: int, keep_fields: bool, bar: Progress, team: Team | None
) -> dict[str, Any]:
    fields, path, request = folder / "ensemble", folder / "result.json", point.request(seed)
    if path.exists() and (not keep_fields or (fields / "manifest.json").exists()) and _is_made(path, request):
        result = _stored(path)
    else:
        remove_leftovers(folder)
        write_json(folder / "request.json", request)
        kept = folder / "seconds.json"
        spent = {"seconds": 0.0, "cpu_seconds": 0.0, **(read_json(kept) if kept.exists() else {})}
        clock = Clock(bar, spent, lambda: write_json(kept, spent))
        try:
            ensemble = generate(
                point.action, point.shape, point.params, request["seed"], fields, progress=clock, team=team
            )
        finally:
            clock.stop()
        result = _result(ensemble, request, spent, keep_fields)
        write_json(path, result)
    if fields.exists() and not keep_fields:
        remove_ensemble(fields)
    return result


def _result(
    ensemble: Ensemble, request: dict[str, Any], spent: dict[str, float], keep_fields: bool
) -> dict[str, Any]:
    table, certificate = measure(ensemble, two_point=False), ensemble.attrs["certificate"]
    return {
        "schema": POINT_SCHEMA,
        "status": CERTIFIED if certificate["passed"] else UNCERTIFIED,
        "reason": certificate["reason"],
        "request": request,
        "identity": ensemble.identity,
        "n": len(ensemble),
        **{key: table[key] for key in ("observables", "tau_unit", "tau_convention", "method")},
        "stride": int(ensemble.attrs["stride"]),
        "algorithm": ensemble.attrs["algorithm"],
        "certificate": certificate,
        **spent,
        "fields_kept": keep_fields,
        "code": code_version(),
    }


def _check_request(folder: Path, request: dict[str, Any]) -> None:
    refuse_changes(folder, stored_request(folder), request, "this point was", grows=GROWS)

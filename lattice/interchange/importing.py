"""Import of foreign ensembles: read, check against the declared action and a run of our own, write.

A file from elsewhere has neither couplings nor history in it. The user declares the action; the checks are
identities of exp(-S) (lattice.interchange.identities) and the comparison with a short certified run at the
same point (lattice.interchange.comparison). What fails is refused, with the observed and the expected
numbers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from lattice.actions.protocol import Action, no_action
from lattice.actions.spins import Spins
from lattice.actions.u1 import U1
from lattice.arrays import Floats
from lattice.certificates.check import GATE, Check, failed_check, make_check
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.writer import write_ensemble
from lattice.errors import InputError
from lattice.files import replacing, write_json
from lattice.interchange import comparison, identities
from lattice.interchange.identities import Rows
from lattice.interchange.links import check_foreign_links, link_checks, link_hints, wrapped
from lattice.interchange.misread import layout_hints
from lattice.interchange.reading import ForeignFields, read_foreign
from lattice.progress import Progress
from lattice.seeds import check_seed
from lattice.statistics.notation import aligned, printed


def import_file(
    path: Path, action: Action, shape: tuple[int, ...] | None = None, *, dataset: str | None = None,
    n_chains: int | None = None, stride: int | None = None, out: Path | None = None,
    layout: str | None = None, accept_uncertified: bool = False, seed: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Check the fields in `path` (.npy, .npz, HDF5: see lattice.interchange.reading) as draws from exp(-S) of
    the declared `action` in the kappa-lambda convention, and write them to the folder `out` if they pass.

    layout: the order of the array's axes in words, such as "lattice,n" (lattice.interchange.layouts); None:
    the usual (n, *shape), or what else fits `shape`, with a note.
    n_chains: the file holds that many chains of equal length, one after the other, configurations evenly
    spaced, `stride` trajectories apart; None: every configuration is taken as independent, which is checked.
    seed: of our own short run, made in a temporary folder (seconds to a minute).
    U(1) links (n, 2, L0, L1) are wrapped to (-pi, pi], and judged by the exact numbers of their torus
    (lattice.interchange.links), without a run of our own; `shape` is (L0, L1), and in `layout` the directions
    are an axis of the lattice, its first.

    Returns JSON data: passed, reason, file {name, sha256, dataset, dtype, array_shape}, action, shape, n,
    n_chains, notes, hints, checks (records of lattice.certificates.check), guard (our own run: n,
    n_independent, passed, and per quantity value, error, own_value, own_error, sigmas; None where the checks
    of the file alone have failed, or decide because the lattice is too large for a run of our own), written
    (bool), identity (of what was written) and certificate. A file that fails is not an error: it is not
    written, unless `accept_uncertified`, and then its certificate says that it failed.

    Raises InputError for what cannot be read at all, for spins, for an action that has no normalisable
    distribution, and when `out` is not a new or empty folder.
    """
    target, seed = None if out is None else Path(out), check_seed(seed)
    if target is not None and os.path.lexists(target) and (target.is_symlink() or not target.is_dir()):
        raise InputError(f"{target}: is a file; choose a new folder")
    if target is not None and target.is_dir() and any(target.iterdir()):
        raise InputError(f"{target}: is not empty; choose a new folder")
    if stride is not None and stride < 1:
        raise InputError(f"stride must be at least 1 trajectory, got {stride}")
    if not action.has_action:
        raise InputError(no_action(action, "fields from elsewhere are judged by identities of exp(-S)"))
    if isinstance(action, Spins):
        raise InputError(
            "fields from elsewhere are judged by Schwinger-Dyson, with a gradient that spins have not. "
            "From Python, lattice.Ensemble.from_fields(phi, action) is measured as any other, and of "
            "lattice.certificates.identities.callen(phi, action) the mean is 0"
        )
    whole = (*action.components, *shape) if isinstance(action, U1) and shape is not None else shape
    found = read_foreign(Path(path), whole, dataset, n_chains, layout)
    if isinstance(action, U1):
        check_foreign_links(action, found.phi.shape[1:])
    else:
        action.check_normalisable(found.phi.shape[1:])
    ensemble = _ensemble(found, action, stride)
    certificate, advice = _certificate(ensemble, found, seed, progress)
    ensemble.attrs["certificate"] = certificate
    identity = None
    if target is not None and (certificate["passed"] or accept_uncertified):
        with replacing(target) as beside:  # a kill leaves no folder that looks like an ensemble
            write_json(beside / "certificate.json", certificate)
            identity = str(write_ensemble(ensemble, beside)["identity"])
    return {
        **{key: certificate[key] for key in ("passed", "reason", "checks", "guard")},
        "file": found.file, "action": action.as_dict(), "shape": list(ensemble.shape), "n": len(ensemble),
        "n_chains": _known_chains(found), "notes": found.notes, "hints": advice,
        "written": identity is not None, "identity": identity, "certificate": certificate,
    }  # fmt: skip


def format_import(result: dict[str, Any]) -> str:
    """The result of `import_file` for a terminal: what was read, observed beside expected, the verdict."""
    file, guard, action = result["file"], result["guard"], result["action"]
    lattice = "x".join(map(str, result["shape"]))
    chains = f"in {result['n_chains']} chains" if result["n_chains"] else "taken as independent"
    name = file["name"] + (f":{file['dataset']}" if file["dataset"] else "")
    numbers = {name: x for name, x in action.items() if name not in ("kind", "convention", "field")}
    couplings = [f", {name} = {f'{x:g}' if isinstance(x, float) else x}" for name, x in numbers.items()]
    convention = f" ({action['convention']} convention)" if "convention" in action else ""
    lines = [
        f"{name}: {result['n']} configurations on {lattice}, {chains}, {file['dtype']}",
        f"declared: {action['kind']}{''.join(couplings)}{convention}",
        *(f"note: {note}" for note in result["notes"]),
    ]
    if guard is not None:
        independent = guard["n_independent"]
        known = f", {independent:.0f} of them independent" if independent is not None else ""
        lines.append(f"our own run: {guard['n']} configurations{known}")
    rows = [["", "check", "file", "expected", ""]]
    for check in result["checks"]:
        verdict = "passed" if check["passed"] else "FAILED"
        rows.append([verdict, check["name"], _observed(check), check["expected"], check["detail"]])
    hints = [f"hint: {hint}" for hint in result["hints"]]
    return "\n".join([*lines, *aligned(rows), *hints, _verdict(result)])


def _verdict(result: dict[str, Any]) -> str:
    if result["passed"]:
        return "ACCEPTED"
    failed = [check for check in result["checks"] if not check["passed"]]
    numbers = [f"{c['name']} {_observed(c) or c['detail']}, expected {c['expected']}" for c in failed[:3]]
    more = [f"{len(failed) - 3} more above"] if len(failed) > 3 else []
    written = " WRITTEN ALL THE SAME, as uncertified" if result["written"] else ""
    return f"REFUSED: {'; '.join(numbers + more)}{written}"


def _observed(check: Check) -> str:
    return printed(check["value"], check["error"], nothing="")


def _known_chains(found: ForeignFields) -> int | None:
    """The number of chains if there are chains: as many chains as configurations are independent draws."""
    return None if found.n_chains == len(found.phi) else found.n_chains


def _ensemble(found: ForeignFields, action: Action, stride: int | None) -> Ensemble:
    n, n_chains = len(found.phi), _known_chains(found)
    if n_chains is None:
        chain, trajectory = np.arange(n), np.zeros(n, dtype=np.int64)
    else:
        per_chain = n // n_chains
        chain = np.repeat(np.arange(n_chains), per_chain)
        trajectory = np.tile((stride or 1) * np.arange(1, per_chain + 1), n_chains)
    origin = {key: found.file[key] for key in ("name", "sha256", "dataset")}
    known = {} if stride is None else {"stride": stride}
    attrs = {"algorithm": {"name": "imported", "file": origin}, **known}
    phi = wrapped(found.phi, found.notes) if isinstance(action, U1) else found.phi
    return Ensemble.from_fields(phi, action, chain, trajectory, attrs=attrs)


def _certificate(
    ensemble: Ensemble, found: ForeignFields, seed: int, progress: Progress | None
) -> tuple[dict[str, Any], list[str]]:
    """(certificate, hints)."""
    rows = None if _known_chains(found) is None else ensemble.replicas()
    checks = identities.content_checks(ensemble.phi, rows)
    parts: dict[str, Any] = {}
    guard: dict[str, Any] | None = None
    advice: list[str] = []
    if isinstance(ensemble.action, U1):
        more, parts = link_checks(ensemble, rows)
        checks += more
        if any(check["name"] in ("plaquette", "Schwinger-Dyson") and not check["passed"] for check in more):
            advice = link_hints(found.phi, ensemble.action, rows)
    elif len(ensemble) < 2:
        checks.append(failed_check("own run", "certified", "one configuration cannot be compared"))
    else:
        series = identities.series_of(ensemble.phi, ensemble.action)
        if rows is None:
            checks.append(identities.independence_check(series))
        else:
            parts = identities.chain_checks(ensemble, series)
            checks += parts["checks"]
        checks += identities.identity_checks(series, rows)
        if any(not check["passed"] for check in checks):
            found.notes.append("the checks of the file alone have failed: no run of our own was made")
        else:
            compared, guard = _compared(ensemble, series, rows, seed, progress, found.notes)
            checks += compared
        failed = {check["name"] for check in checks if not check["passed"]}
        advice = comparison.hints(ensemble.phi, ensemble.action, series, rows, failed)
    failing = {check["name"] for check in checks if not check["passed"]}
    if not isinstance(ensemble.action, U1) and failing & {"Schwinger-Dyson", "configurations"}:
        advice = layout_hints(found, ensemble.action) or advice
    failures = [check["name"] for check in checks if not check["passed"]]
    identity = next((check for check in checks if check["name"] == "Schwinger-Dyson"), None)
    certificate = {
        "passed": not failures,
        "reason": f"failed: {', '.join(failures)}" if failures else "",
        "checks": checks,
        "tau_int": parts.get("tau_int", {"unit": "saved configurations"}),
        "n": len(ensemble),
        "n_chains": len(np.unique(ensemble.chain)),
        "n_independent": parts.get("n_independent") if rows is not None else float(len(ensemble)),
        "acceptance": None,
        "exp_minus_dH": None,
        "schwinger_dyson": identity and {"value": identity["value"], "error": identity["error"]},
        "gate": GATE,
        "origin": {key: found.file[key] for key in ("sha256", "dataset")} | {"file": found.file["name"]},
        "guard": guard,
    }
    return certificate, advice


def _compared(
    ensemble: Ensemble,
    series: dict[str, Floats],
    rows: Rows,
    seed: int,
    progress: Progress | None,
    notes: list[str],
) -> tuple[list[Check], dict[str, Any] | None]:
    """The checks against our own run, and what is kept of it; a lattice too large for one is judged by the
    identities of the file alone, which a note says."""
    if reason := comparison.too_large(ensemble.shape):
        notes.append(
            f"judged by the identities of the file alone: {reason}; slow modes that had not arrived (domain "
            "walls) are not seen by them"
        )
        return [make_check("own run", None, None, "identities alone", True, reason)], None
    own = comparison.own_run(ensemble.action, ensemble.shape, seed, progress)
    checks, table = comparison.guard_checks(series, rows, own)
    kept = {key: own.attrs["certificate"][key] for key in ("n_independent", "passed", "reason")}
    kept |= {key: own.attrs[key] for key in ("algorithm", "seed")}
    return checks, {"n": len(own), **kept, "quantities": table}

"""Ensembles of a grid of theories: each a folder ensemble/NAME, certified, with random numbers of its own."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

from diffsq.config.families import FamilyRun
from diffsq.config.spins import FlowRun
from lattice.actions.protocol import Action
from lattice.actions.spins import Spins
from lattice.certificates.check import GATE, Check, make_check
from lattice.ensembles.ensemble import Ensemble
from lattice.exact.spins import known
from lattice.files import canonical_json, sha256_text, write_json
from lattice.observables.measure import measure
from lattice.progress import Labelled, Progress
from lattice.simulation.simulate import simulate

MISSED = 40.0  # energy of the excitations that frozen spins may miss: ten, the smallest of energy 4


def points_of(config: FlowRun | FamilyRun) -> dict[str, tuple[Action, tuple[int, ...]]]:
    """Action and lattice of each ensemble by the name of its folder."""
    if isinstance(config, FamilyRun):
        return dict(config.ensemble.points())
    return {name: (action, config.lattice.shape) for name, action in config.ensemble.points().items()}


def make_grid(config: FlowRun | FamilyRun, out: Path, progress: Progress) -> str:
    """Make the ensembles that are not there, and certificate.json; the hash of all."""
    out.mkdir(parents=True, exist_ok=True)
    checks, identities = list[Check](), dict[str, str]()
    points = points_of(config)
    for i, (name, (action, shape)) in enumerate(points.items()):
        ensemble = simulate(
            action, shape, config.ensemble.monte_carlo, seed=_seed(config.seed, name),
            out=out / name, progress=Labelled(progress, f"[{i + 1}/{len(points)}] {name}"),
        )  # fmt: skip
        identities[name] = ensemble.identity
        checks.append(_checked(name, action, ensemble))
    failed = [check for check in checks if not check["passed"]]
    write_json(out / "certificate.json", {
        "passed": not failed, "reason": _reason(failed), "checks": checks, "verdict": None,
        "n": len(points) * config.ensemble.monte_carlo.n_saved,
        "n_chains": config.ensemble.n_chains * len(points),
    })  # fmt: skip
    return sha256_text(canonical_json(identities))


def _reason(failed: list[Check]) -> str:
    """Every ensemble that failed, and what is wrong with the first: its neighbours often fail alike."""
    if not failed:
        return ""
    others = "".join(f", {check['name']}" for check in failed[1:])
    return f"failed: {failed[0]['name']} ({failed[0]['detail']}){others}"


def _seed(seed: int, name: str) -> int:
    """Of one ensemble: with a common one, chains at neighbouring temperatures would move together."""
    return int.from_bytes(hashlib.sha256(f"spins/{seed}/{name}".encode()).digest()[:8], "big")


def _checked(name: str, action: Action, ensemble: Ensemble) -> Check:
    """One line for one ensemble: its certificate, and its energy against the exact one, where known."""
    own = ensemble.attrs["certificate"]
    if not isinstance(action, Spins):
        return make_check(name, None, None, "certified", bool(own["passed"]), own["reason"] or "certified")
    exact = known(action, ensemble.shape).get("energy")
    entry = measure(ensemble, two_point=False)["observables"]["energy"]
    value, error = entry["value"], entry["error"] or 0.0
    words = own["reason"] or "certified"
    frozen = 0.0 if error else MISSED / (len(ensemble) * math.prod(ensemble.shape))
    near = exact is None or abs(value - exact) <= GATE * error + frozen + 1e-9
    if exact is not None and error:
        words += f"; e {(value - exact) / error:+.1f} sigma"
    expected = "certified" if exact is None else f"e = {exact:.6g}"
    return make_check(name, value, error or None, expected, bool(own["passed"]) and near, words)

"""The spins that machines learn from: an ensemble at every temperature and field of a grid, each certified.

Every ensemble is a folder ensemble/T..., as `lattice.simulate` makes it, with random numbers of its own. A
machine learns from chains of its own, so that the scatter of machines is that of data, too.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffsq.config.spins import FlowRow, FlowRun
from lattice.actions.spins import Spins
from lattice.arrays import Floats
from lattice.certificates.check import GATE, Check, make_check
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.exact.spins import known
from lattice.files import canonical_json, sha256_text, write_json
from lattice.observables.measure import measure
from lattice.progress import Labelled, Progress
from lattice.rng import uniforms
from lattice.simulation.simulate import simulate

Int8 = NDArray[np.int8]
MISSED = 40.0  # energy of the excitations that frozen spins may miss: ten, the smallest of energy 4


@dataclass(frozen=True)
class Grid:
    """spins (n_points, n_chains, n_times, V), int8 values of phi, and the temperature of each point."""

    spins: Int8
    temperatures: Floats

    def of_machine(self, k: int, n: int, part: tuple[float, float] | None = None) -> Int8:
        """The rows (m, V) of machine k of n: every n-th chain, of temperatures in `part`, ends included."""
        low, high = part or (-np.inf, np.inf)
        chosen = self.spins[(self.temperatures >= low) & (self.temperatures <= high), k::n]
        return chosen.reshape(-1, chosen.shape[-1])

    def labelled(self, chains: slice) -> tuple[Int8, Floats]:
        """All rows of some chains, and the temperature of each."""
        rows = self.spins[:, chains]
        return rows.reshape(-1, rows.shape[-1]), np.repeat(self.temperatures, rows[0].size // rows.shape[-1])


def make_grid(config: FlowRun, out: Path, progress: Progress) -> str:
    """Make the ensembles that are not there, and certificate.json; the hash of all."""
    out.mkdir(parents=True, exist_ok=True)
    checks, identities = list[Check](), dict[str, str]()
    points = config.ensemble.points()
    for i, (name, action) in enumerate(points.items()):
        ensemble = simulate(
            action, config.lattice.shape, config.ensemble.monte_carlo, seed=_seed(config.seed, name),
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


def _checked(name: str, action: Spins, ensemble: Ensemble) -> Check:
    """One line for one ensemble: its certificate, and its energy against the exact one, where known."""
    own, exact = ensemble.attrs["certificate"], known(action, ensemble.shape).get("energy")
    entry = measure(ensemble, two_point=False)["observables"]["energy"]
    value, error = entry["value"], entry["error"] or 0.0
    words = own["reason"] or "certified"
    frozen = 0.0 if error else MISSED / (len(ensemble) * math.prod(ensemble.shape))
    near = exact is None or abs(value - exact) <= GATE * error + frozen + 1e-9
    if exact is not None and error:
        words += f"; e {(value - exact) / error:+.1f} sigma"
    expected = "certified" if exact is None else f"e = {exact:.6g}"
    return make_check(name, value, error or None, expected, bool(own["passed"]) and near, words)


def read_grid(config: FlowRun, out: Path) -> Grid:
    """The spins of a finished ensemble stage."""
    section, found, t = config.ensemble, list[Int8](), list[float]()
    for name, action in section.points().items():
        ensemble = read_ensemble(out / name, action)
        rows = np.stack(ensemble.replicas())
        phi = ensemble.phi.reshape(len(ensemble), -1).astype(np.int8)
        found.append(phi[rows])
        t.append(action.temperature)
    if section.ground_state:
        states = np.array([-1, 1] if section.q == 2 else range(section.q), dtype=np.int8)
        n_chains, n_times, sites = found[0].shape
        order = np.add.outer(np.arange(n_chains), np.arange(n_times)) % len(states)
        found.insert(0, np.repeat(states[order][..., None], sites, axis=-1))
        t.insert(0, 0.0)
    return Grid(np.stack(found), np.array(t))


def data_of(grid: Grid, row: FlowRow, n_seeds: int, seed: int) -> Int8:
    """What the machines of a row learn from, (n_seeds, n, V)."""
    data = np.stack([grid.of_machine(k, n_seeds, row.part) for k in range(n_seeds)])
    if row.shuffled:
        machines, n, sites = data.shape
        keys = uniforms(seed, "flow/shuffle", np.arange(machines * n), 0, sites)
        order = keys.reshape(machines, n, sites).argsort(-1)
        data = np.take_along_axis(data, order, -1)
    return data

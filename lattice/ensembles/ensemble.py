"""Ensembles: fields with their chain, trajectory and per-configuration series, and the folder they live in.

Monte Carlo and sampled ensembles are the same type; a sampled one has a `log_weight` per configuration. On
disk an ensemble is a folder of immutable HDF5 shards (lattice.ensembles.shards) and a manifest.json written
last (lattice.ensembles.manifest).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lattice.actions.protocol import Action
from lattice.arrays import Floats, Integers, real_array, row_numbers
from lattice.ensembles.columns import floats, integers, order_in_chain
from lattice.ensembles.manifest import action_of, read_manifest, shards_identity
from lattice.ensembles.rows import disjoint_parts, spread_rows
from lattice.ensembles.shards import (
    MAX_AXES,
    Shard,
    check_finite,
    check_shard,
    columns_at,
    field_series,
    gathered,
    read_shard,
)
from lattice.errors import InputError
from lattice.files import canonical_json, json_data, sha256_file, sha256_text
from lattice.memory import require_memory

OWN_ATTRS = {"schema", "shape", "boundary", "series", "action", "key", "code", "created"}


@dataclass(eq=False)
class Ensemble:
    """Configurations of one action on one periodic lattice.

    phi (n, *components, *shape) float64, components those of the action; chain, trajectory (n,) int64;
    series name -> (n,) float64 with at least action (S), magnetization (M) and phi2; log_weight (n,) or None;
    attrs: JSON data (algorithm, seed, n_therm, stride, certificate, ...); identity: sha256 in hexadecimal.
    """

    phi: Floats
    chain: Integers
    trajectory: Integers
    series: dict[str, Floats]
    action: Action
    log_weight: Floats | None = None
    attrs: dict[str, Any] = field(default_factory=dict)
    identity: str = ""

    def __post_init__(self) -> None:
        self.phi = real_array(self.phi, "phi")
        n, weights = len(self.phi), self.log_weight
        self.chain = integers("chain", self.chain, n)
        self.trajectory = integers("trajectory", self.trajectory, n)
        self.log_weight = None if weights is None else floats("log_weight", weights, n, finite=False)
        self.series = {name: floats(name, x, n, finite=False) for name, x in self.series.items()}

    def __len__(self) -> int:
        return len(self.phi)

    @property
    def shape(self) -> tuple[int, ...]:
        """The lattice, (L_1, ..., L_d), without the components of the field."""
        return self.action.lattice_of(self.phi.shape[1:])

    @classmethod
    def from_fields(
        cls, phi: npt.ArrayLike, action: Action, chain: npt.ArrayLike | None = None,
        trajectory: npt.ArrayLike | None = None, log_weight: npt.ArrayLike | None = None,
        attrs: dict[str, Any] | None = None, series: dict[str, npt.ArrayLike] | None = None,
    ) -> Ensemble:  # fmt: skip
        """An ensemble in memory from fields phi (n, *components, *shape).

        Without `chain` all fields belong to chain 0, without `trajectory` they are numbered in order within
        their chain. `series` adds per-configuration series (dH, accepted, ...) to the three computed here.
        `attrs` is kept as JSON data. Raises InputError on NaN or infinity, on arrays that do not fit each
        other, and on what is no real number (complex fields are stored as components (x, y), see
        `lattice.actions.complexified`) or, in `attrs`, has no JSON.

        >>> from lattice.actions.phi4 import ScalarPhi4
        >>> e = Ensemble.from_fields(np.ones((4, 2, 2)), ScalarPhi4(0.27, 0.022), chain=[0, 1, 0, 1])
        >>> len(e), e.shape, e.trajectory.tolist(), e.series["magnetization"].tolist()
        (4, (2, 2), [0, 0, 1, 1], [1.0, 1.0, 1.0, 1.0])
        """
        fields = real_array(phi, "phi")
        if not 2 <= fields.ndim <= MAX_AXES + 1 or fields.size == 0:
            raise InputError(
                f"fields must have shape (n, *components, *lattice) with 1 to {MAX_AXES} axes beside the "
                f"first, got {fields.shape}"
            )
        action.lattice_of(fields.shape[1:])
        check_finite(fields)
        n = len(fields)
        chains = integers("chain", chain if chain is not None else np.zeros(n), n)
        times = integers("trajectory", trajectory if trajectory is not None else order_in_chain(chains), n)
        weights = None if log_weight is None else floats("log_weight", log_weight, n)
        extra = {name: floats(name, values, n) for name, values in (series or {}).items()}
        identity = _fields_identity(fields, chains, times, weights, action)
        full = {**extra, **field_series(fields, action)}
        return cls(fields, chains, times, full, action, weights, _attrs(attrs or {}), identity)

    def select(self, indices: npt.ArrayLike) -> Ensemble:
        """The configurations `indices` (integers or a mask (n,)), in that order; repeats are allowed."""
        chosen = row_numbers(indices, len(self))
        if chosen.size == 0:
            raise InputError("a selection of no configuration is not an ensemble")
        mark = hashlib.sha256(np.ascontiguousarray(chosen, dtype="<i8").tobytes()).hexdigest()
        identity = sha256_text(f"{self.identity}/{mark}")
        return Ensemble(
            **columns_at(self, chosen), action=self.action, attrs=dict(self.attrs), identity=identity
        )

    def split_rows(self, fraction: float) -> tuple[Integers, Integers]:
        """The rows of the two parts of `split_chains`, which copies them; raises as that does."""
        chains = np.unique(self.chain)
        if not 0.0 < fraction < 1.0:
            raise InputError(f"the held-out fraction must be between 0 and 1, got {fraction}")
        if len(chains) < 2:
            raise InputError("an ensemble of one chain cannot be split by chains; make it with two or more")
        n_held = min(max(1, round(fraction * len(chains))), len(chains) - 1)
        held = np.isin(self.chain, chains[-n_held:])
        return np.flatnonzero(~held), np.flatnonzero(held)

    def split_chains(self, fraction: float) -> tuple[Ensemble, Ensemble]:
        """(train, held-out): about `fraction` of the chains, at least one, held out with all they have.

        Splitting by whole chains keeps autocorrelated neighbours of a training field out of the held-out set.
        Raises InputError when there is only one chain or when fraction is not in (0, 1).
        """
        train, held = self.split_rows(fraction)
        return self.select(train), self.select(held)

    def spread(self, n: int, *, seed: int, stream: str, among: Integers | None = None) -> Integers:
        """At most n rows stratified by chain, far apart in time (`lattice.ensembles.rows.spread_rows`);
        `among` these rows, or all."""
        rows = np.arange(len(self)) if among is None else among
        return rows[spread_rows(self.chain[rows], self.trajectory[rows], n, seed=seed, stream=stream)]

    def in_time(self, rows: Integers | None = None) -> Integers:
        """These rows, or all, time by time, as jackknife blocks of few chains want them, however stored."""
        rows = np.arange(len(self)) if rows is None else rows
        return rows[np.lexsort((self.chain[rows], self.trajectory[rows]))]

    def parts(self, n: int) -> list[Integers]:
        """The rows of n disjoint, independent parts (`lattice.ensembles.rows.disjoint_parts`)."""
        return disjoint_parts(self.chain, self.trajectory, n)

    def replicas(self) -> list[Integers]:
        """The indices of each chain's configurations in trajectory order, chains by their numbers."""
        order = np.lexsort((self.trajectory, self.chain))
        cuts = np.flatnonzero(np.diff(self.chain[order])) + 1
        return [part.astype(np.int64) for part in np.split(order, cuts)]


def read_ensemble(path: Path, expect_action: Action | None = None) -> Ensemble:
    """Read an ensemble folder (with manifest.json) or a single shard, and check all that can be checked.

    An action that is not one of lattice's own must be given: a file knows its couplings only. Checked:
    schema, types, shapes and sizes before allocating, hashes against the manifest, finite fields, stored
    series against the fields, and the action against `expect_action`. Raises InputError naming the file, and
    the configuration where it applies.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, expect_action)
    shard, action = _checked(path, expect_action)
    identity = shards_identity([sha256_file(path)])
    return assemble([shard], len(shard.phi), action, {"certificate": None}, identity)


def _checked(path: Path, expect_action: Action | None) -> tuple[Shard, Action]:
    shard = read_shard(path)
    action = action_of(shard.attrs.get("action"), path, expect_action)
    check_shard(shard, action, str(path))
    return shard, action


def _read_folder(folder: Path, expect_action: Action | None) -> Ensemble:
    manifest = read_manifest(folder)
    action = action_of(manifest.get("action"), folder / "manifest.json", expect_action)
    records = manifest["shards"]
    paths = [path for record in records if (path := folder / record["name"]).is_file()]
    require_memory(
        sum(path.stat().st_size for path in paths), f"{folder}: this ensemble of {len(records)} shards",
        "read its shards one at a time, or on a machine that holds it",
    )  # fmt: skip
    n, identity = sum(record["n"] for record in records), shards_identity([r["sha256"] for r in records])
    extra = {"certificate": manifest.get("certificate"), "created": manifest.get("created")}
    extra |= manifest.get("attrs") or {}
    return assemble(_listed(folder, manifest, action), n, action, extra, identity)


def _listed(folder: Path, manifest: dict[str, Any], action: Action) -> Iterator[Shard]:
    """The shards of a manifest, each checked against it."""
    shape = manifest.get("shape")
    for record in manifest["shards"]:
        path = folder / record["name"]
        if not path.is_file():
            raise InputError(
                f"{path}: listed in the manifest but missing; remove manifest.json and run again to remake it"
            )
        if sha256_file(path) != record["sha256"]:
            raise InputError(
                f"{path}: changed since it was written (sha256 is not the manifest's); "
                "remove it and manifest.json, and run again to remake it"
            )
        shard, _ = _checked(path, action)
        if list(shard.phi.shape[1:]) != shape:
            raise InputError(f"{path}: lattice {shard.phi.shape[1:]}, the manifest says {shape}")
        if len(shard.phi) != record["n"]:
            raise InputError(f"{path}: {len(shard.phi)} configurations, the manifest says {record['n']}")
        yield shard


def assemble(
    shards: Iterable[Shard], n: int, action: Action, extra: dict[str, Any], identity: str
) -> Ensemble:
    """The ensemble of these shards, n configurations in all; extra: attrs beside those of the shards."""
    columns, attrs = gathered(shards, n)
    return Ensemble(**columns, action=action, attrs={**attrs, **extra}, identity=identity)


def _attrs(given: dict[str, Any]) -> dict[str, Any]:
    """attrs as JSON data; InputError for names that the file has for itself."""
    for name in OWN_ATTRS & given.keys():
        raise InputError(f"attrs.{name} is written by the file itself: choose another name, my_{name}")
    if not isinstance(given.get("stream", ""), str):
        raise InputError(f"attrs.stream names random numbers, a text: got {given['stream']!r}")
    return dict(json_data(given, "attrs"))


def _fields_identity(
    phi: Floats, chain: Integers, trajectory: Integers, weights: Floats | None, action: Action
) -> str:
    digest = hashlib.sha256(canonical_json(action.as_dict()).encode())
    for array in (phi, chain, trajectory, weights):
        if array is not None:
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()

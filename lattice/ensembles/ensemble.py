"""Ensembles: fields with their chain, trajectory and per-configuration series, and the folder they live in.

Monte Carlo and sampled ensembles are the same type; a sampled one has a `log_weight` per configuration. On
disk an ensemble is a folder of immutable HDF5 shards (lattice.ensembles.shards) and a manifest.json written
last (lattice.ensembles.manifest).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lattice.actions.protocol import Action
from lattice.arrays import Floats, Integers, real_array, row_numbers
from lattice.ensembles.columns import floats, integers, order_in_chain
from lattice.ensembles.manifest import action_of, new_manifest, read_manifest, shards_identity
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
    write_shard,
)
from lattice.errors import InputError
from lattice.files import canonical_json, code_version, json_data, sha256_file, sha256_text, write_json
from lattice.memory import require_memory

_SHARD_BYTES = 2**25
OWN_ATTRS = {"schema", "shape", "boundary", "series", "action", "key", "code", "created"}
_OWN = ("manifest.json", "request.json")
_ELSEWHERE = "choose another folder, or remove this one"


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

    def parts(self, n: int) -> list[Integers]:
        """The rows of n disjoint, independent parts (`lattice.ensembles.rows.disjoint_parts`)."""
        return disjoint_parts(self.chain, self.trajectory, n)

    def replicas(self) -> list[Integers]:
        """The indices of each chain's configurations in trajectory order, chains by their numbers."""
        order = np.lexsort((self.trajectory, self.chain))
        cuts = np.flatnonzero(np.diff(self.chain[order])) + 1
        return [part.astype(np.int64) for part in np.split(order, cuts)]


class EnsembleWriter:
    """Writes an ensemble shard by shard into a folder; a shard already there and sound is kept.

    `key` identifies the computation (action, lattice, parameters, seed; not how many configurations): a
    folder of another key is refused. `attrs` is JSON data stored in every shard (algorithm, seed, stream,
    n_therm, ...). Shards are never changed: a longer ensemble is the same shards and further ones, and the
    old manifest holds until the new one takes its place.
    """

    def __init__(
        self, folder: Path, action: Action, shape: tuple[int, ...], key: str, attrs: dict[str, Any]
    ) -> None:
        self.folder, self.action, self.shape, self.key = Path(folder), action, tuple(shape), key
        own = {"action": action.as_dict(), "key": key, "code": code_version()}
        self.attrs = {**json_data(attrs, "attrs"), **own}
        self._records: dict[int, dict[str, Any]] = {}
        self._lengths: dict[str, int] = {}
        if (self.folder / "manifest.json").exists():
            manifest = read_manifest(self.folder)
            if manifest.get("stage_key") != key:
                raise InputError(f"{self.folder}: holds an ensemble made with other parameters; {_ELSEWHERE}")
            self._lengths = {record["name"]: int(record["n"]) for record in manifest["shards"]}

    def path(self, k: int) -> Path:
        """The file of shard k."""
        return self.folder / f"shard-{k:04d}.h5"

    def verified(self, k: int, number: int | None = None) -> Shard | None:
        """Shard k if it is there and sound; None (it will be made again) if it is missing, damaged, or does
        not begin with the trajectory `number`.

        Raises InputError when it belongs to another computation.
        """
        path = self.path(k)
        try:
            shard = read_shard(path)
            ours = shard.attrs.get("key") == self.key
            if ours:
                check_shard(shard, self.action, str(path))
        except InputError:
            return None
        if not ours:
            raise InputError(f"{path}: made with other parameters; {_ELSEWHERE}")
        if number is not None and number != int(shard.trajectory[0]):
            self._records.pop(k, None)
            return None
        self._record(k, len(shard.phi))
        return shard

    def spans(
        self, n: int, size: int, number: Callable[[int], int] = int, unit: int = 1
    ) -> Iterator[tuple[int, range, Shard | None]]:
        """All n units of an ensemble: shard k, its units, and the shard if it is there; if not, append it.

        A unit is `unit` rows, such as one time of all chains; number(u) is the trajectory number of unit u.
        What is there keeps its length, what is new has `size` units: a longer ensemble goes on after the last
        shard of a shorter one. Raises InputError where there is more than asked for.
        """
        first = k = 0
        while first < n:
            kept = self.verified(k, number(first))
            length = (
                self._lengths.get(self.path(k).name, (size - first % size) * unit)
                if kept is None
                else len(kept.phi)
            )
            stop = first + length // unit
            if kept is not None and stop > n:
                raise InputError(
                    f"{self.folder}: holds more configurations than the {n * unit} asked for; ask for more, "
                    "or choose another folder"
                )
            yield k, range(first, min(stop, n)), kept
            first, k = min(stop, n), k + 1

    def _record(self, k: int, n: int) -> None:
        path = self.path(k)
        self._records[k] = {"name": path.name, "n": n, "sha256": sha256_file(path)}

    def append(
        self, k: int, *, phi: Floats, chain: Integers, trajectory: Integers,
        series: dict[str, Floats] | None = None, log_weight: Floats | None = None,
        state: dict[str, Any] | None = None,
    ) -> bool:  # fmt: skip
        """Write shard k: phi (n, *shape), the rest (n,). False if a sound one was there and was kept.

        The series action, magnetization and phi2 are computed here. Raises InputError on fields that are not
        finite or do not fit the lattice, and when the folder is full or not writable.
        """
        if k in self._records or self.verified(k, int(trajectory[0])) is not None:
            return False
        path, phi = self.path(k), real_array(phi, "phi")
        if path.exists() and not self._is_ours():
            raise InputError(f"{path}: is there already and no shard of this ensemble; {_ELSEWHERE}")
        if phi.shape[1:] != self.shape:
            raise InputError(f"{path}: fields of shape {phi.shape[1:]} on a lattice {self.shape}")
        n = len(phi)
        chain, trajectory = integers("chain", chain, n), integers("trajectory", trajectory, n)
        log_weight = None if log_weight is None else floats("log_weight", log_weight, n, finite=False)
        # dH of a trajectory that ran off, and was rejected, is not finite
        series = {name: floats(name, x, n, finite=False) for name, x in (series or {}).items()}
        full = {**(series or {}), **field_series(phi, self.action)}
        shard = Shard(phi, chain, trajectory, full, log_weight, self.attrs, state or {})
        check_shard(shard, self.action, str(path))
        write_shard(path, shard)
        self._record(k, len(phi))
        return True

    def write(self, ensemble: Ensemble) -> None:
        """An ensemble in memory as shards of about 32 MB, those that are not there yet."""
        size = max(1, _SHARD_BYTES // ensemble.phi[0].nbytes)
        for k, rows, kept in self.spans(len(ensemble), size, lambda row: int(ensemble.trajectory[row])):
            if kept is None:
                self.append(k, **columns_at(ensemble, slice(rows.start, rows.stop)))

    def _is_ours(self) -> bool:
        """Whether the folder is known to hold this ensemble, so that a damaged shard in it is one of ours."""
        return bool(self._records) or any((self.folder / name).exists() for name in _OWN)

    def read(self) -> Ensemble:
        """The ensemble of the shards written or verified so far, read back from the disk and checked."""
        numbers = sorted(self._records)

        def sound() -> Iterator[Shard]:
            for k in numbers:
                if (shard := self.verified(k)) is None:
                    raise InputError(
                        f"{self.folder}: a shard was damaged after it was written; run the command again"
                    )
                yield shard

        if not numbers:
            raise InputError(f"{self.folder}: no shard was written; run the command again")
        n, hashes = sum(self._records[k]["n"] for k in numbers), [self._records[k]["sha256"] for k in numbers]
        return _assemble(sound(), n, self.action, {"certificate": None}, shards_identity(hashes))

    def finish(self, extras: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write manifest.json, last of all, and return it. `extras` are further entries (the certificate;
        attrs, those of the whole ensemble)."""
        shards = [self._records[k] for k in sorted(self._records)]
        if sorted(self._records) != list(range(len(shards))) or not shards:
            raise InputError(f"{self.folder}: shards {sorted(self._records)} are no complete sequence from 0")
        manifest = new_manifest(self.action, self.shape, self.key, shards, extras or {})
        write_json(self.folder / "manifest.json", manifest)
        return manifest


def write_ensemble(ensemble: Ensemble, folder: Path, extras: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write an in-memory ensemble as shards of about 32 MB and a manifest (returned) with `extras`. Raises
    `InputError` where the folder holds another one."""
    given = json_data(ensemble.attrs, "attrs")
    attrs = {name: value for name, value in given.items() if name not in ("certificate", "created")}
    key = sha256_text(f"fields/{ensemble.identity}")
    writer = EnsembleWriter(folder, ensemble.action, ensemble.phi.shape[1:], key, attrs)
    writer.write(ensemble)
    return writer.finish({"certificate": given.get("certificate"), **json_data(extras or {}, "extras")})


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
    return _assemble([shard], len(shard.phi), action, {"certificate": None}, identity)


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
    return _assemble(_listed(folder, manifest, action), n, action, extra, identity)


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


def _assemble(
    shards: Iterable[Shard], n: int, action: Action, extra: dict[str, Any], identity: str
) -> Ensemble:
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

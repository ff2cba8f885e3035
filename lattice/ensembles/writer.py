"""Ensembles on their way to the disk: shard by shard, a manifest last, longer ones after shorter ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lattice.actions.protocol import Action
from lattice.arrays import Floats, Integers, real_array
from lattice.ensembles.columns import floats, integers
from lattice.ensembles.ensemble import Ensemble, assemble
from lattice.ensembles.manifest import new_manifest, read_manifest, shards_identity
from lattice.ensembles.shards import Shard, check_shard, columns_at, field_series, read_shard, write_shard
from lattice.errors import InputError
from lattice.files import json_data, sha256_file, sha256_text, write_json
from lattice.provenance import code_version

_SHARD_BYTES = 2**25
_OWN = ("manifest.json", "request.json")
_ELSEWHERE = "choose another folder, or remove this one"


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
                    f"{self.folder}: holds more configurations than the {n * unit} asked for; ask for "
                    f"{stop * unit} or more, or choose another folder"
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
        return assemble(sound(), n, self.action, {"certificate": None}, shards_identity(hashes))

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

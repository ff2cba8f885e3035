"""What is asked for, and the folder that holds what was made of it: refused, read, written, finished."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from einops import rearrange

from lattice.actions.protocol import Action, Law, as_phi4, check_one_variable, check_shape, no_action
from lattice.actions.spins import Spins, spins_of
from lattice.actions.u1 import U1, as_links, refuse_complex
from lattice.arrays import Floats, Integers
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.ensembles.manifest import read_manifest, refuse_foreign
from lattice.ensembles.shards import Shard, read_shard
from lattice.ensembles.writer import EnsembleWriter
from lattice.errors import InputError
from lattice.files import canonical_json, read_json, remove_leftovers, sha256_text, write_json
from lattice.memory import require_memory
from lattice.requests import refuse_changes, stored_request, without
from lattice.seeds import check_seed
from lattice.simulation.parameters import N_CLUSTERS, Chains, MonteCarlo
from lattice.simulation.starts import start_fields
from lattice.updates.gibbs import as_machine

GROWS = ("ensemble.n_configs",)  # what a request may ask more of than the folder holds
RNG = "philox4x32-10, counter (position, trajectory, chain, crc32(stream name))"
Finder = Callable[[Path], dict[str, Any] | None]
Params = TypeVar("Params", bound=Chains)


@dataclass(frozen=True)
class Recipe(Generic[Params]):
    """An ensemble as it is asked for: fields (n, *components, *shape) of `action`, by Markov chains."""

    action: Action
    shape: tuple[int, ...]
    params: Params
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", check_seed(self.seed))

    @property
    def fields(self) -> tuple[int, ...]:
        """The shape of one configuration."""
        return (*self.action.components, *self.shape)

    @property
    def chains(self) -> Integers:
        """The numbers of all chains, (n_chains,)."""
        return np.arange(self.params.n_chains, dtype=np.int64)

    def request(self) -> dict[str, Any]:
        """The same as JSON data."""
        return {
            "action": self.action.as_dict(), "shape": list(self.shape), "seed": self.seed,
            "ensemble": self.params.model_dump(mode="json"),
        }  # fmt: skip

    def made(self, out: Path, unfinished: Finder = stored_request) -> Ensemble | None:
        """The finished ensemble in `out`, or None where it is to be made or made longer.

        unfinished: finds the request of a folder without a manifest. Raises `InputError` when the folder
        holds an ensemble made with other settings, a longer one, or files that are not ours.
        """
        found = stored_request(out) or unfinished(out)
        if found is not None and not any(map(_was_made, out.iterdir())):  # a request alone may still change
            (out / "request.json").unlink()
            found = None
        refuse_changes(out, found, self.request(), grows=GROWS)
        if (out / "manifest.json").exists() and read_manifest(out)["n"] >= self.params.n_saved:
            return read_ensemble(out, self.action)
        if found is None and not any(map(_is_shard, out.glob("shard-*.h5"))):  # these know whose they are
            refuse_foreign(out)
        return None

    def begin(self, out: Path) -> None:
        """Claim the folder, before anything is made in it (leftovers of a kill are removed)."""
        remove_leftovers(out)
        if not (out / "request.json").exists():
            write_json(out / "request.json", self.request())

    def writer(self, out: Path, algorithm: dict[str, Any], n_therm: int, stride: int) -> EnsembleWriter:
        """The writer of its shards; algorithm: name and parameters (without n_configs, which may grow)."""
        key = sha256_text(canonical_json(without(self.request(), GROWS)))
        about = {
            "algorithm": without(algorithm, ["parameters.n_configs"]), "seed": self.seed, "stream": RNG,
            "n_therm": n_therm, "stride": stride,
        }  # fmt: skip
        return EnsembleWriter(out, self.action, self.fields, key, about)

    def spans(self, writer: EnsembleWriter) -> Iterator[tuple[int, range, Shard | None]]:
        """Its saved times shard by shard, as `EnsembleWriter.spans` gives them."""
        params, about = self.params, writer.attrs
        size = params.times_per_shard(math.prod(self.fields))
        first, stride = int(about["n_therm"]), int(about["stride"])
        return writer.spans(params.n_times, size, lambda t: first + (t + 1) * stride, params.n_chains)

    def write(
        self, writer: EnsembleWriter, k: int, fields: Floats, numbers: Integers, series: dict[str, Floats],
        **state: Any,
    ) -> None:  # fmt: skip
        """Shard k: fields (n_times, n_chains, *fields), their trajectory numbers (n_times,), the series
        (n_times, n_chains), and what else the chains need to go on from here."""
        n = self.params.n_chains
        state |= {"trajectory": int(numbers[-1]), "seed": self.seed, "rng": RNG}
        writer.append(
            k, phi=rearrange(fields, "time chain ... -> (time chain) ..."),
            chain=np.tile(self.chains, len(numbers)), trajectory=np.repeat(numbers, n),
            series={name: x.reshape(-1) for name, x in series.items()},
            state={**state, "fields": "the last configuration of every chain in /phi"},
        )  # fmt: skip

    def finish(self, writer: EnsembleWriter, ensemble: Ensemble, certificate: dict[str, Any]) -> Ensemble:
        """Write certificate.json and, last, the manifest; the ensemble, with both in its attrs."""
        path = writer.folder / "certificate.json"
        write_json(path, certificate)
        manifest = writer.finish({"request": self.request(), "certificate": read_json(path)})
        ensemble.attrs.update(certificate=manifest["certificate"], created=manifest["created"])
        return ensemble


def _was_made(path: Path) -> bool:
    return path.suffix == ".h5" or path.name == "manifest.json"


def _is_shard(path: Path) -> bool:
    try:
        read_shard(path)
    except InputError:
        return False
    return True


def clusters_of(action: Action, params: MonteCarlo) -> int:
    """Cluster updates of one trajectory of this action: of links none by default, which is written out as
    `cluster: wolff` where a config is kept."""
    default = params.cluster == "wolff" and params.n_clusters == N_CLUSTERS
    return 0 if default and isinstance(action, U1) else params.clusters


def check_recipe(recipe: Recipe[MonteCarlo]) -> None:
    """`InputError` unless the updates know this action and exp(-S) is a law on this lattice."""
    check_shape(recipe.shape)
    action, p = recipe.action, recipe.params
    if isinstance(action, Law) and not action.has_action:
        raise InputError(
            no_action(action, "no Markov chain of exp(-S); lattice.RandomNetworks draws its fields")
        )
    if not isinstance(action, Action):
        raise InputError(f"an action is a lattice.Action, got {type(action).__name__}")
    if action.one_variable:
        check_one_variable(recipe.shape, f"{type(action).__name__} is a model")
    if isinstance(action, Spins):
        _check_spins(p)
    elif isinstance(action, U1):
        _check_links(action, p)
    elif p.update == "heat-bath":
        spins_of(action, "ensemble.update: heat-bath is for")
    if p.n_winding and not isinstance(action, U1):
        raise InputError(
            f"ensemble.n_winding: {p.n_winding} changes the charge of U(1) links, which "
            f"{type(action).__name__} has not; use ensemble.n_winding: 0"
        )
    for asked, key, instead in (
        (p.update == "local", "update", "hmc"),
        (p.n_overrelax > 0, "n_overrelax", "0"),
        (clusters_of(action, p) > 0, "cluster", "none"),
        (p.acceleration != "none", "acceleration", "none"),
    ):
        if asked and not isinstance(action, Spins):
            as_phi4(action, f"ensemble.{key}: {getattr(p, key)} knows", f"use ensemble.{key}: {instead}")
    if p.update == "gibbs":
        as_machine(action)
    action.check_normalisable(recipe.shape)
    fields = 8.0 * p.n_saved * math.prod(recipe.fields)
    require_memory(fields, f"an ensemble of {p.n_saved} fields", "take a smaller ensemble.n_configs")
    if action.phi4 is None and not isinstance(action, Spins):
        _try_out(action, start_fields(action, recipe.shape, 2, recipe.seed))


def _check_links(action: U1, p: MonteCarlo) -> None:
    """`InputError` where S is complex, and for what an S of its own has not."""
    refuse_complex(action)
    for asked, key, instead in (
        (p.update == "heat-bath", "update", "hmc"),
        (p.n_winding > 0, "n_winding", "0"),
    ):
        if asked and as_links(action) is None:
            raise InputError(
                f"ensemble.{key}: {getattr(p, key)} knows the S of U1 itself, not that of "
                f"{type(action).__name__}; use ensemble.{key}: {instead}"
            )


def _check_spins(p: MonteCarlo) -> None:
    """`InputError` for what spins have not."""
    for asked, key, instead in (
        (p.update in ("hmc", "gibbs"), "update", "heat-bath (or local)"),
        (p.n_overrelax > 0, "n_overrelax", "0"),
        (p.acceleration != "none", "acceleration", "none"),
    ):
        if asked:
            raise InputError(
                f"ensemble.{key}: {getattr(p, key)} is not for spins; use ensemble.{key}: {instead}"
            )


def _try_out(action: Action, fields: Floats) -> None:
    """S and its gradient of some fields have the shapes they should, and S the parity it claims."""
    name, phi = type(action).__name__, torch.from_numpy(fields)
    made = (("action", action.action(phi), phi.shape[:1]), ("grad", action.grad(phi), phi.shape))
    for what, found, shape in made:
        if found.shape != shape or found.dtype != torch.float64 or not torch.isfinite(found).all():
            raise InputError(
                f"{name}.{what} of fields {tuple(phi.shape)} must be finite float64 {tuple(shape)}, got "
                f"{found.dtype} {tuple(found.shape)}"
            )
    if action.even and not torch.allclose(action.action(-phi), action.action(phi)):
        raise InputError(f"{name} says that it is even, but S(-phi) is not S(phi)")

"""Several weighted samples of one law as a single one: more configurations without drawing any again.

Weights of the path sampler satisfy E[w] = Z whatever the seed, so samples of one model, with the same levels
and process, may be pooled: sum w O / sum w over all of them estimates <O>, and the block jackknife over the
pool its error. The seed enters the law of the proposals all the same: it decides the lattice frame of each
step. Independence Metropolis needs proposals of one law
(Tierney, Ann. Stat. 22 (1994) 1701), hence samples of one seed: shards of one folder, for example.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.shards import joined
from lattice.errors import InputError
from lattice.files import sha256_text

LAW = ("sampler", "law", "process", "model", "training_ensemble", "levels")  # must agree
KERNEL = ("seed",)  # must agree too where proposals have to come from one law
WORDS = {"law": "version of the law", "model": "checkpoint", "training_ensemble": "training ensemble"}


def combine(
    ensembles: Sequence[Ensemble], names: Sequence[str] | None = None, *, one_law: bool = False
) -> Ensemble:
    """The weighted samples `ensembles` one after the other, with chains numbered apart.

    A single ensemble, weighted or not, is returned as it is. `names` are those in messages (files); with
    one_law=True all samples must be proposals of one law, as Metropolis needs them. The attribute
    generated["seed"] of the result lists the seeds where there are several.

    Raises InputError, naming what differs: ensembles without log-weights; another action, lattice, sampler,
    law, process, checkpoint, training ensemble or levels; the same samples twice; for one_law other seeds.

    >>> from lattice.actions.phi4 import ScalarPhi4
    >>> made = dict.fromkeys(LAW, "the same")
    >>> parts = [Ensemble.from_fields(np.ones((4, 2, 2)), ScalarPhi4(0.25, 0.1), log_weight=np.zeros(4),
    ...                               attrs={"generated": {**made, "seed": seed}}) for seed in (1, 2)]
    >>> pool = combine(parts)
    >>> len(pool), pool.chain.tolist(), pool.attrs["generated"]["seed"]
    (8, [0, 0, 0, 0, 1, 1, 1, 1], [1, 2])
    """
    if not ensembles:
        raise InputError("nothing to combine: no ensemble was given")
    if len(ensembles) == 1:
        return ensembles[0]
    labels = list(names) if names is not None else [f"sample {i}" for i in range(1, len(ensembles) + 1)]
    _check_weighted(ensembles, labels)
    records = [_record(ensemble, label) for ensemble, label in zip(ensembles, labels, strict=True)]
    for record, label in zip(records, labels):
        _check_same_law(records[0], record, labels[0], label, (*LAW, *KERNEL) if one_law else LAW)
    for (a, one), (b, other) in combinations(zip(ensembles, labels), 2):
        _check_distinct(a, b, one, other)
    return _joined(ensembles)


def _check_weighted(ensembles: Sequence[Ensemble], labels: Sequence[str]) -> None:
    bare = [label for e, label in zip(ensembles, labels, strict=True) if e.log_weight is None]
    if len(bare) == len(labels):
        raise InputError(f"only weighted samples are combined; {bare[0]} has no log-weights")
    if bare:
        weighted = next(label for label in labels if label not in bare)
        raise InputError(f"{weighted} has log-weights and {bare[0]} has none; measure them separately")


def _record(ensemble: Ensemble, label: str) -> dict[str, Any]:
    """What a sample was made with; without it, or combined already, it cannot be told from another."""
    made = ensemble.attrs.get("generated") or {}
    for name in (*LAW, "seed"):
        if name not in made and name != "process":
            lacks = WORDS.get(name, name)
            raise InputError(f"{label}: does not record its {lacks}; cannot be combined with others")
    if isinstance(made["seed"], list):
        raise InputError(f"{label}: is combined already, of seeds {made['seed']}; name its parts instead")
    return {**made, "action": ensemble.action.as_dict(), "lattice": list(ensemble.shape)}


def _check_same_law(a: dict[str, Any], b: dict[str, Any], one: str, other: str, keys: Sequence[str]) -> None:
    for name in ("action", "lattice", *keys):
        if a.get(name) != b.get(name):
            values = _difference(a.get(name), b.get(name))
            what = f"{other} differs from {one} in the {WORDS.get(name, name)}: {values}"
            if name in KERNEL:
                what += "; the proposals of a Metropolis chain must come from one law, leave out --metropolis"
            raise InputError(what)


def _check_distinct(a: Ensemble, b: Ensemble, one: str, other: str) -> None:
    """The samples of a seed are numbered: the same number is the same noise."""
    seed = a.attrs["generated"]["seed"]
    again = np.intersect1d(a.trajectory, b.trajectory)
    if seed == b.attrs["generated"]["seed"] and len(again):
        raise InputError(
            f"{other} holds {len(again)} samples of {one} again (seed {seed}, from number {again[0]} on); "
            "draw with another seed"
        )


def _difference(a: Any, b: Any) -> str:
    """Both values, hashes shortened; of lists their lengths or the first entry that differs."""
    if isinstance(a, list) and isinstance(b, list) and max(len(a), len(b)) > 4:
        if len(a) != len(b):
            return f"{len(b)} numbers, not {len(a)}"
        at = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
        return f"number {at} is {b[at]:g}, not {a[at]:g}"
    shown = [x[:12] if isinstance(x, str) and len(x) == 64 else x for x in (b, a)]
    return f"{shown[0]}, not {shown[1]}"


def _joined(ensembles: Sequence[Ensemble]) -> Ensemble:
    chains, n_chains = [], 0
    for ensemble in ensembles:
        numbers, own = np.unique(ensemble.chain, return_inverse=True)
        chains.append(own.astype(np.int64) + n_chains)
        n_chains += len(numbers)
    made = [e.attrs["generated"] for e in ensembles]
    seeds = list(dict.fromkeys(m["seed"] for m in made))
    generated = {**made[0], "seed": seeds[0] if len(seeds) == 1 else seeds}
    return Ensemble(
        **{**joined(ensembles), "chain": np.concatenate(chains)}, action=ensembles[0].action,
        attrs={"generated": generated, "combined": [e.identity for e in ensembles]},
        identity=sha256_text("combined/" + "/".join(e.identity for e in ensembles)),
    )  # fmt: skip

"""What the axes of a foreign array mean: configurations, chains, lattice, and in which order.

The order is words, one an axis (`lattice`: as many as the lattice has): n, chain, channel (of extent 1),
lattice, or of flat fields sites (last lattice axis fastest, as C and NumPy count) or sites_f (first one
fastest, as Fortran and Julia do). What is not said is taken from the shapes, with a note of what was assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from einops import rearrange

from lattice.actions.protocol import MAX_DIM
from lattice.errors import InputError

WORDS = ("n", "chain", "channel", "lattice", "sites", "sites_f")
USUAL = ("n", "lattice")


@dataclass(frozen=True)
class Layout:
    """What the axes of an array mean: lattice, number of chains if they have an axis, configurations in all,
    what had to be assumed ("" if nothing), and the order of the axes in words."""

    shape: tuple[int, ...]
    n_chains: int | None
    n: int
    note: str = ""
    order: tuple[str, ...] = USUAL

    def axis_of(self, word: str, ndim: int) -> int:
        """The axis of an array of ndim axes that is `n` or `chain`."""
        at, fields = self.order.index(word), next(i for i, w in enumerate(self.order) if w in WORDS[3:])
        return at if at < fields else at + ndim - len(self.order)

    def arranged(self, raw: Any) -> Any:
        """The array as (n, *shape), chains one after the other; a view where the file's order allows it."""
        axes = {"lattice": " ".join(f"x{i}" for i in range(len(self.shape)))}
        axes["sites"], axes["sites_f"] = (f"({names})" for names in (
            axes["lattice"], " ".join(reversed(axes["lattice"].split()))
        ))  # fmt: skip
        left = " ".join("1" if word == "channel" else axes.get(word, word) for word in self.order)
        right = f"({'chain ' if 'chain' in self.order else ''}n) {axes['lattice']}"
        return rearrange(raw, f"{left} -> {right}", **{f"x{i}": x for i, x in enumerate(self.shape)})


def parse_order(text: str) -> tuple[str, ...]:
    """The words of an order; InputError for what is none.

    >>> parse_order("lattice,n")
    ('lattice', 'n')
    """
    words = tuple(word.strip() for word in text.split(","))
    fields = [word for word in words if word in WORDS[3:]]
    if set(words) - set(WORDS) or len(set(words)) < len(words) or len(fields) != 1 or "n" not in words:
        raise InputError(
            f"layout is the order of the axes, such as n,lattice or lattice,n or n,sites, of the words "
            f"{', '.join(WORDS)}, each once, with n and one of the last three; got {text!r}"
        )
    return words


def layout(
    found: tuple[int, ...], shape: tuple[int, ...] | None, n_chains: int | None = None,
    order: tuple[str, ...] | None = None,
) -> Layout | None:  # fmt: skip
    """What an array of shape `found` means on the lattice `shape`, or None if it does not fit.

    >>> layout((100, 1, 8, 8), (8, 8)).n, layout((8, 8, 100), (8, 8)).order
    (100, ('lattice', 'n'))
    >>> layout((4, 25, 8, 8), (8, 8)).n_chains, layout((100, 8, 8), (16, 16))
    (4, None)
    """
    if 0 in found or len(found) < 2:
        return None
    if order is not None:
        return _ordered(found, shape, order)
    if shape is None:
        return _assumed(found, n_chains)
    for lead in (("n",), ("chain", "n")):  # (n, ...) before (n_chains, n, ...)
        for rest in (("lattice",), ("channel", "lattice"), ("lattice", "channel")):
            if (fit := _ordered(found, shape, (*lead, *rest))) is not None:
                note = f"assumed: {_two_axes(found[0])}; swap the two axes if they are (time, chain)"
                return fit if fit.n_chains is None else _noted(fit, note)
    if len(shape) > 1:
        for words, said in ((("lattice", "n"), "the last axis as the configurations"),
                            (("n", "sites"), "the second axis as the sites, last lattice axis fastest"),
                            (("sites", "n"), "the first axis as the sites, last lattice axis fastest"),
                           ):  # fmt: skip
            if (fit := _ordered(found, shape, words)) is not None:
                return _noted(
                    fit, f"assumed: {said} (layout {','.join(words)}); give the layout to say otherwise"
                )
    return None


def _noted(fit: Layout, note: str) -> Layout:
    return Layout(fit.shape, fit.n_chains, fit.n, note, fit.order)


def _ordered(found: tuple[int, ...], shape: tuple[int, ...] | None, order: tuple[str, ...]) -> Layout | None:
    """The array in this order; None where it does not fit, or flat sites have no lattice shape."""
    at = next(i for i, word in enumerate(order) if word in WORDS[3:])
    width = len(found) - len(order) + 1  # axes that are lattice or sites
    own = found[at : at + width]
    single = dict(zip((*order[:at], *order[at + 1 :]), (*found[:at], *found[at + width :])))
    if width < 1 or single.get("channel", 1) != 1:
        return None
    if order[at] == "lattice":
        fits = len(own) <= MAX_DIM and shape in (None, own)
    else:
        fits = shape is not None and own == (math.prod(shape),)
    if not fits:
        return None
    lattice = own if shape is None else shape
    return Layout(lattice, single.get("chain"), single["n"] * single.get("chain", 1), "", order)


def _two_axes(n_chains: int) -> str:
    return f"the first axis as {n_chains} chains, the second as the configurations of each in order"


def _assumed(found: tuple[int, ...], n_chains: int | None) -> Layout | None:
    # read flat, such a file would be n_chains chains of one configuration: never what is meant
    lead = 2 if n_chains is not None and n_chains == found[0] and len(found) > 2 else 1
    axes, said, order = found[lead:], [], ["chain", "n", "lattice"][2 - lead :]
    if lead == 2:
        said.append(_two_axes(found[0]))
    if len(axes) > 1 and 1 in (axes[0], axes[-1]):
        first = axes[0] == 1
        said.append(f"the {'first' if first else 'last'} axis of extent 1 as a channel")
        axes = axes[1:] if first else axes[:-1]
        order.insert(lead if first else lead + 1, "channel")
    if len(axes) > MAX_DIM:
        return None
    if said or len(axes) > 2:
        said.append(f"the lattice as {'x'.join(map(str, axes))}")
    note = f"assumed: {', '.join(said)}; give the lattice shape to say otherwise" if said else ""
    return Layout(axes, found[0] if lead == 2 else None, math.prod(found[:lead]), note, tuple(order))


def no_fit(
    found: tuple[int, ...], shape: tuple[int, ...] | None, order: tuple[str, ...] | None = None
) -> str:
    """Why an array of shape `found` is refused, and what would be right."""
    flat = order is not None and ("sites" in order or "sites_f" in order)
    if flat and shape is None:
        return f"array of shape {found}: flat sites need the lattice, --set lattice.shape=[...]"
    wanted = "n, L_1, ..., L_d" if shape is None else f"n, {', '.join(map(str, shape))}"
    if order is not None:
        return f"array of shape {found} is not {','.join(order)} on {shape or f'1 to {MAX_DIM} lattice axes'}"
    if shape is not None and found == shape:
        return f"array of shape {found} is one field; stack several to ({wanted})"
    if shape is None:
        return f"array of shape {found}, expected ({wanted}) with 1 to {MAX_DIM} lattice axes"
    lattice = wanted.removeprefix("n, ")
    return f"array of shape {found}, expected ({wanted}) or (n_chains, n, {lattice})"


def other_layouts(found: tuple[int, ...], fit: Layout) -> list[Layout]:
    """How else an array that was read as `fit` may be meant, the most likely first: configurations on the
    last axis, flat sites of a lattice of equal extents, time before chain."""
    out = []
    lattices = [fit.shape]
    if len(found) == 2:
        lattices += [(length,) * d for total in found for d in (2, 3, 4) if (length := _root(total, d))]
        lattices += [found[:1]]
    elif len(found) > 2:
        lattices += [found[:-1], found[1:]]
    for shape in dict.fromkeys(lattices):
        for order in (("lattice", "n"), ("n", "sites"), ("sites", "n"), ("n", "chain", "lattice")):
            other = _ordered(found, shape, order)
            if other is not None and other.order != fit.order and other not in out:
                out.append(other)
    # of two axes alone, a lattice of one dimension says nothing new but which is which
    transposed = ("lattice", "n") if found[0] != found[1] else ()
    out = [other for other in out if len(other.shape) > 1 or other.order == transposed]
    return sorted(out, key=lambda other: len(other.shape) == 1)


def _root(total: int, d: int) -> int | None:
    """The extent of a lattice of so many sites with d equal extents, if there is one of at least 3."""
    length = round(total ** (1 / d))
    return length if length > 2 and length**d == total else None


def words_of(fit: Layout) -> str:
    """What to say on the command line for an array to be read so."""
    return f"--layout {','.join(fit.order)} --set lattice.shape=[{','.join(map(str, fit.shape))}]"

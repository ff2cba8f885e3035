"""Was the array read in another order than it was written?  Then its identity fails at any kappa."""

from __future__ import annotations

from typing import Any

import numpy as np

from lattice.actions.protocol import Action
from lattice.certificates.check import GATE
from lattice.certificates.identities import schwinger_dyson
from lattice.errors import InputError
from lattice.interchange.layouts import Layout, other_layouts, words_of
from lattice.interchange.reading import ForeignFields
from lattice.statistics.pulls import mean_and_error, sigmas_of

_MAX_BYTES = 2**28  # of fields that are looked at again
_MAX_ERROR = 0.1  # of <phi dS/dphi> = 1; a larger one tells nothing


def layout_hints(found: ForeignFields, action: Action) -> list[str]:
    """The order of the axes in which <phi dS/dphi> = 1 does hold, or which the shape suggests; [] if none."""
    shape = tuple(found.file["array_shape"])
    if found.declared or found.layout.order[0] not in ("n", "chain"):
        return []
    candidates = other_layouts(shape, found.layout)
    if found.phi.nbytes <= _MAX_BYTES:
        raw = found.phi.reshape(shape)  # what was read in the usual order is the array as it was
        for other in candidates:
            if "chain" not in other.order and _holds(raw, other, action):
                return [f"read as {_said(other)}, <phi dS/dphi> is 1 within its error: {words_of(other)}"]
    likely = [other for other in candidates if not found.known_shape and _likely(shape, other)]
    return [f"if the array {shape} holds {_said(other)}: {words_of(other)}" for other in likely[:1]]


def _holds(raw: Any, other: Layout, action: Action) -> bool:
    try:
        action.check_normalisable(other.shape)
        values = schwinger_dyson(np.ascontiguousarray(other.arranged(raw)), action)
    except InputError:
        return False
    if len(values) < 8:
        return False
    mean, error = mean_and_error(values)
    return 0 < error < _MAX_ERROR and sigmas_of(mean - 1, error, len(values) - 1) <= GATE


def _likely(shape: tuple[int, ...], other: Layout) -> bool:
    """Equal extents, of which the first axis is one and the last is none; or a square number of sites."""
    if other.order == ("lattice", "n"):
        return len(other.shape) > 1 and len(set(other.shape)) == 1 and shape[-1] != shape[0]
    return other.order == ("n", "sites") and shape[1] >= 16


def _said(other: Layout) -> str:
    lattice = "x".join(map(str, other.shape))
    if "lattice" in other.order:
        return f"{other.n} configurations on {lattice}, on the last axis"
    return f"{other.n} configurations on {lattice}, their sites on one axis"

"""From an action to a certified ensemble, by whichever method the parameters name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.processes import Team
from lattice.progress import Progress
from lattice.simulation.parameters import ComplexLangevin, ExactDraws, MonteCarlo, RandomNetworks


def simulate(
    action: Any, shape: tuple[int, ...],
    parameters: MonteCarlo | ComplexLangevin | ExactDraws | RandomNetworks, *, seed: int, out: str | Path,
    progress: Progress | None = None, team: Team | None = None,
) -> Ensemble:  # fmt: skip
    """The ensemble of `action` on a periodic lattice of `shape` in the folder `out`; () is one variable.

    `MonteCarlo`: HMC and its kin for a real action; `ComplexLangevin`: z = x + iy of a holomorphic one, with
    its verdict; `ExactDraws`: independent draws of a real one-variable law or of U(1) links;
    `RandomNetworks`: of a law without an action, held against its exact cumulants. The same call again
    resumes, or reads what is there; with more `n_configs` it goes on from there, to the ensemble of a single
    call. The certificate, of the whole, is in ensemble.attrs["certificate"]; a bad one is not an error here.
    `team`: processes that share a Monte Carlo ensemble. Raises `InputError` when `out` holds an ensemble made
    with other settings (each is named), a longer one, or files that are not of an ensemble, when it cannot be
    written or the disk is full, when the updates do not know the action, and when it has no normalisable
    distribution.

    >>> import tempfile
    >>> from lattice.actions.one_variable import TwoPeak
    >>> with tempfile.TemporaryDirectory() as out:
    ...     len(simulate(TwoPeak(1.0, 0.25), (), ExactDraws(n_configs=1000), seed=1, out=out))
    1000
    """
    if np.ndim(shape) != 1:
        raise InputError(f"shape is a tuple of extents, such as (8, 8), got {shape!r}")
    if isinstance(parameters, MonteCarlo):
        from lattice.simulation.monte_carlo import generate

        return generate(action, shape, parameters, seed, Path(out), progress=progress, team=team)
    if isinstance(parameters, ComplexLangevin):
        from lattice.simulation.complex_langevin import generate_complex

        return generate_complex(action, shape, parameters, seed, Path(out), progress=progress)
    if isinstance(parameters, RandomNetworks):
        from lattice.simulation.random_networks import generate_networks

        return generate_networks(action, shape, parameters, seed, Path(out), progress=progress)
    from lattice.simulation.exact_draws import generate_draws

    return generate_draws(action, shape, parameters, seed, Path(out), progress)

"""One trajectory of a recipe: the updates it names in their order, the global sign, what cannot be asked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from lattice.actions.one_variable import RealQuartic
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.rng import normals, uniforms
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import Recipe, check_recipe
from lattice.simulation.trajectory import Settings, one_trajectory
from lattice.updates.cluster import wolff_update
from lattice.updates.hmc import hmc_trajectory

ACTION, SHAPE, SEED, N = ScalarPhi4(0.25, 0.05), (4, 6), 9, 400
CHAINS = np.arange(N)
SETTINGS = Settings(1.0, 5)


def recipe(**params: Any) -> Recipe:
    return Recipe(ACTION, SHAPE, MonteCarlo(**params), SEED)


def fields() -> np.ndarray:
    return normals(SEED, "test/fields", CHAINS, 0, math.prod(SHAPE)).reshape(N, *SHAPE)


def test_it_is_hmc_then_clusters_then_a_sign() -> None:
    """Rebuilt from its parts; the sign is that of the stream ensemble/flip, minus in half of the chains."""
    keys: dict[str, Any] = {"seed": SEED, "chains": CHAINS, "trajectory": 7}
    params = recipe(n_clusters=3, length_jitter=0.0).params
    phi, dH, accepted = one_trajectory(recipe(n_clusters=3, length_jitter=0.0), SETTINGS, fields(), CHAINS, 7)
    moved, info = hmc_trajectory(
        ACTION, fields(), length=1.0, n_steps=5, integrator=params.integrator, **keys
    )
    moved, _ = wolff_update(ACTION, moved, n_clusters=3, **keys)
    flip = uniforms(SEED, "ensemble/flip", CHAINS, 7, 1)[:, 0] < 0.5
    np.testing.assert_array_equal(phi, np.where(flip[:, None, None], -moved, moved))
    np.testing.assert_array_equal(dH, info.dH)
    np.testing.assert_array_equal(accepted, info.accepted)
    assert abs(flip.mean() - 0.5) < 4 * 0.5 / math.sqrt(N)


def test_the_length_is_jittered_alike_in_all_chains() -> None:
    """Within +-60 % of the length, other in every trajectory, the same for any company of chains."""
    jittered = recipe(n_clusters=0, length_jitter=0.6)
    phi, _, _ = one_trajectory(jittered, SETTINGS, fields(), CHAINS, 3)
    few, _, _ = one_trajectory(jittered, SETTINGS, fields()[5:8], CHAINS[5:8], 3)
    np.testing.assert_array_equal(few, phi[5:8])
    u = float(uniforms(SEED, "hmc/length", np.zeros(1, dtype=np.int64), 3, 1)[0, 0])
    right, _ = hmc_trajectory(
        ACTION, fields(), seed=SEED, chains=CHAINS, trajectory=3, length=1 + 0.6 * (2 * u - 1), n_steps=5,
        integrator=jittered.params.integrator,
    )  # fmt: skip
    np.testing.assert_array_equal(phi, right)


def test_local_updates_conserve_no_energy_and_tell_their_acceptance() -> None:
    local = recipe(update="local", n_overrelax=1, n_clusters=0)
    phi, dH, accepted = one_trajectory(local, SETTINGS, fields(), CHAINS, 0)
    assert (dH == 0).all()
    assert ((accepted > 0) & (accepted < 1)).all()
    assert (phi != fields()).any(axis=(1, 2)).all()


def test_requests_tell_everything() -> None:
    asked = recipe(n_chains=8).request()
    assert asked["action"] == ACTION.as_dict()
    assert (asked["shape"], asked["seed"], asked["ensemble"]["n_chains"]) == ([4, 6], SEED, 8)
    assert recipe().fields == SHAPE


def test_what_has_no_law_is_refused() -> None:
    check_recipe(recipe())
    with pytest.raises(InputError, match="normalisable"):
        check_recipe(Recipe(FreeScalar(0.3), SHAPE, MonteCarlo(), SEED))
    with pytest.raises(InputError, match="lattice shape"):
        check_recipe(Recipe(ACTION, (0, 4), MonteCarlo(), SEED))
    alone = RealQuartic(1.0, 1.0)
    check_recipe(Recipe(alone, (1,), MonteCarlo(cluster="none"), SEED))
    with pytest.raises(InputError, match=r"RealQuartic is a model of one variable: .* got \[4, 4\]"):
        check_recipe(Recipe(alone, (4, 4), MonteCarlo(cluster="none"), SEED))

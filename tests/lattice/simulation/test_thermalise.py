"""From a start to equilibrium: what is kept of it, on disk and off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import Recipe
from lattice.simulation.starts import start_names
from lattice.simulation.thermalise import (
    Thermalisation,
    first_inverse_mass,
    read_thermalisation,
    thermalise,
    write_thermalisation,
)
from lattice.simulation.trajectory import one_trajectory

ACTION, SHAPE = ScalarPhi4(0.27, 0.022), (6, 4)
PARAMS = MonteCarlo(n_configs=64, n_chains=16, n_therm=60, acceleration="measured")
RECIPE = Recipe(ACTION, SHAPE, PARAMS, 5)


@pytest.fixture(scope="module")
def therm() -> Thermalisation:
    return thermalise(RECIPE)


def test_the_history_begins_with_the_starts_and_ends_where_they_met(therm: Thermalisation) -> None:
    history = therm.history
    assert history["start"] == start_names(16, walls=True)
    assert history["abs_magnetization"].shape == (60, 16)
    np.testing.assert_array_equal(history["abs_magnetization"], np.abs(history["magnetization"]))
    hot, cold = (np.array([start == kind for start in history["start"]]) for kind in ("hot", "cold"))
    early, late = (history["action_density"][rows] for rows in (slice(0, 1), slice(20, None)))
    apart = [rows[:, hot].mean() - rows[:, cold].mean() for rows in (early, late)]
    spread = late.mean(axis=0).std(ddof=1)
    assert abs(apart[0]) > 4 * spread
    assert abs(apart[1]) < 4 * spread * np.sqrt(1 / hot.sum() + 1 / cold.sum())


def test_it_goes_on_from_what_it_left(therm: Thermalisation) -> None:
    """The settings are frozen, and the next trajectory of a part is part of the next trajectory."""
    assert therm.settings.inverse_mass is not None
    assert therm.settings.inverse_mass.shape == SHAPE
    whole, _, _ = one_trajectory(RECIPE, therm.settings, therm.phi, np.arange(16), 60)
    part, _, _ = one_trajectory(RECIPE, therm.settings, therm.phi[3:5], np.arange(3, 5), 60)
    np.testing.assert_array_equal(part, whole[3:5])


def test_written_and_read_back(therm: Thermalisation, tmp_path: Path) -> None:
    path = tmp_path / "therm.h5"
    write_thermalisation(path, therm, RECIPE.request())
    back, request = read_thermalisation(path)
    assert request == RECIPE.request()
    np.testing.assert_array_equal(back.phi, therm.phi)
    assert (back.settings.length, back.settings.n_steps) == (therm.settings.length, therm.settings.n_steps)
    np.testing.assert_array_equal(back.settings.inverse_mass, therm.settings.inverse_mass)
    assert back.history.keys() == therm.history.keys()
    with h5py.File(path, "a") as file:
        file.attrs["schema"] = "other/1"
    with pytest.raises(InputError, match=r"therm\.h5"):
        read_thermalisation(path)


def test_the_first_mass_of_a_free_field_is_its_own() -> None:
    """Exact where the theory is free; near criticality the mass is held at pi/L."""
    mass = first_inverse_mass(FreeScalar(0.2), (6, 6), MonteCarlo(acceleration="free"))
    np.testing.assert_allclose(mass, free_propagator(0.2, (6, 6)), rtol=1e-12)
    near = first_inverse_mass(ScalarPhi4(0.3, 0.022), (6, 6), MonteCarlo(acceleration="free"))
    assert near is not None
    assert near[0, 0] / near[3, 3] == pytest.approx((8 + (np.pi / 6) ** 2) / (np.pi / 6) ** 2)
    assert first_inverse_mass(ACTION, SHAPE, MonteCarlo()) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("length", 1.25),
        ("n_steps", 77),
        ("start", '["hot"]'),
        ("start", "3"),
        ("request", "{}"),
        ("request", '{"seed": NaN}'),
        ("length", np.nan),
        ("length", "x"),
    ],
)
def test_a_changed_setting_is_noticed(therm: Thermalisation, tmp_path: Path, name: str, value: Any) -> None:
    path = tmp_path / "therm.h5"
    write_thermalisation(path, therm, RECIPE.request())
    with h5py.File(path, "a") as file:
        file.attrs[name] = value
    with pytest.raises(InputError, match=r"therm\.h5"):
        read_thermalisation(path)


def test_a_file_from_before_the_checksum_is_read(therm: Thermalisation, tmp_path: Path) -> None:
    write_thermalisation(tmp_path / "therm.h5", therm, RECIPE.request())
    with h5py.File(tmp_path / "therm.h5", "a") as file:
        del file.attrs["sha256"]
    assert len(read_thermalisation(tmp_path / "therm.h5")[0].phi) == 16

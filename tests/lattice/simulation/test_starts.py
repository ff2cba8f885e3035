"""Start configurations: names, walls, and that each kind is what it says."""

from __future__ import annotations

import numpy as np

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.certificates.identities import wall_density
from lattice.simulation.starts import has_walls, start_fields, start_names


def test_each_kind_is_what_it_says() -> None:
    action, shape = ScalarPhi4(0.3, 0.022), (4, 8)
    phi = start_fields(action, shape, 8, seed=3)
    names, v = start_names(8, walls=True), action.classical_field(2)
    assert names == ["hot", "cold", "hot", "wall"] * 2
    density = wall_density(phi)
    for name, field, d in zip(names, phi, density, strict=True):
        if name == "hot":
            assert 0.7 < field.std() < 1.3
            assert d > 0.3
        else:
            np.testing.assert_array_equal(np.abs(field), v)
            assert d == (0.0 if name == "cold" else 2 / 8 / 2)  # two walls across the long axis
            assert abs(field.mean()) == (v if name == "cold" else 0.0)
    assert not np.array_equal(phi[0], phi[2])


def test_no_walls_where_they_mean_nothing() -> None:
    assert not has_walls(FreeScalar(0.2), (8, 8), 8)
    assert not has_walls(ScalarPhi4(0.3, 0.1), (3, 3), 8)
    assert not has_walls(ScalarPhi4(0.3, 0.1), (8, 8), 2)
    phi = start_fields(FreeScalar(0.2), (8,), 4, seed=1)
    np.testing.assert_array_equal(phi[1::2], 1.0)


def test_a_chain_starts_the_same_in_any_company() -> None:
    few, many = (start_fields(ScalarPhi4(0.3, 0.1), (6,), n, seed=2) for n in (4, 16))
    np.testing.assert_array_equal(few, many[:4])

"""Schwinger-Dyson per site and the density of walls."""

from __future__ import annotations

import numpy as np

from lattice.actions.phi4 import ScalarPhi4
from lattice.certificates.monte_carlo import schwinger_dyson, wall_density


def test_the_two_field_functions() -> None:
    rng = np.random.default_rng(2)
    action, phi = ScalarPhi4(0.2, 0.1), rng.normal(size=(3, 4, 6))
    hop = sum(np.roll(phi, s, a) for s in (1, -1) for a in (1, 2))
    want = (phi * (2 * 0.8 * phi + 0.4 * phi**3 - 0.4 * hop)).mean(axis=(1, 2))
    np.testing.assert_allclose(schwinger_dyson(phi, action), want, rtol=1e-12)
    stripes = np.ones((1, 8, 8))
    stripes[:, :4] = -1
    assert wall_density(stripes).tolist() == [16 / 128]

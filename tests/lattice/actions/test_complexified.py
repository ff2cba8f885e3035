"""Complex fields stored as pairs of real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lattice.actions.complexified import Complexified
from lattice.actions.one_variable import ComplexQuartic
from lattice.actions.u1 import U1, OneLink
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.ensembles.writer import write_ensemble
from lattice.errors import InputError
from lattice.observables.measure import measure


def test_complex_fields_as_pairs_of_real_ones(tmp_path: Any) -> None:
    action = Complexified(ComplexQuartic(1 + 1j, 1.0))
    phi = np.random.default_rng(1).normal(size=(40, 2))
    z = torch.complex(torch.from_numpy(phi[:, 0]), torch.from_numpy(phi[:, 1]))
    assert torch.equal(action.action(torch.from_numpy(phi)), action.inner.action(z).real)
    assert torch.equal(action.action_im(torch.from_numpy(phi)), action.inner.action(z).imag)
    drift = action.grad(torch.from_numpy(phi))
    assert torch.equal(torch.complex(drift[:, 0], drift[:, 1]), action.inner.grad(z))
    write_ensemble(Ensemble.from_fields(phi, action), tmp_path)
    back = read_ensemble(tmp_path)
    assert back.action == action
    assert np.array_equal(back.phi, phi)
    assert list(measure(back)["observables"])[:2] == ["Re m2", "Im m2"]


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"are \(n, 2, \*shape\)"):
        Complexified(OneLink(1.0)).action(torch.zeros(2, 3))


def test_links_keep_their_direction_behind_x_and_y() -> None:
    """(n, 2, 2, L0, L1): S, its drift and the charge of Re z; other axes are refused."""
    inner = U1(1.5 + 0.5j, 0.7)
    action, phi = Complexified(inner), torch.randn(3, 2, 2, 4, 5, dtype=torch.float64)
    z = torch.complex(phi[:, 0], phi[:, 1])
    assert action.components == (2, 2)
    assert action.lattice_of((2, 2, 4, 5)) == (4, 5)
    assert torch.equal(action.action(phi), inner.action(z).real)
    drift = action.grad(phi)
    assert torch.equal(torch.complex(drift[:, 0], drift[:, 1]), inner.grad(z))
    assert torch.equal(action.order(phi), inner.order(phi[:, 0]))
    with pytest.raises(InputError, match=r"are \(n, 2, 2, \*shape\), got \(n, 2, 4, 4\)"):
        action.action(torch.zeros(3, 2, 4, 4))


def test_the_drift_of_links_is_the_derivative_of_the_complex_action() -> None:
    """Along the real and the imaginary direction alike: S is holomorphic."""
    action, h = U1(1.5 + 0.5j, 0.7), 1e-5
    torch.manual_seed(1)
    z = torch.randn(1, 2, 2, 3, dtype=torch.complex128)
    drift, wrong = action.grad(z), U1(1.5 + 0.5j, -0.7).grad(z)
    for index in np.ndindex(2, 2, 3):
        for direction in (h, 1j * h):
            step = torch.zeros_like(z)
            step[0][index] = direction
            slope = (action.action(z + step) - action.action(z - step)) / (2 * direction)
            assert torch.allclose(slope, drift[0][index], atol=1e-8)
    assert (drift - wrong).abs().min() > 1e-3  # negative control: the sign of theta

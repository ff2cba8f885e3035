"""Complex fields stored as pairs of real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lattice.actions.complexified import Complexified
from lattice.actions.one_variable import ComplexQuartic
from lattice.actions.u1 import OneLink
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

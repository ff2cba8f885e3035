"""The machine's visible action against its matrix, and its ensembles, which are read with the action only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lattice.actions.gaussian_rbm import GaussianMachine
from lattice.actions.phi4 import FreeScalar
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.ensembles.writer import write_ensemble
from lattice.errors import InputError
from lattice.rng import normals

SHAPE, N_HIDDEN, MU2, S = (3, 4), 5, 2.5, 1.3
W = 0.2 * normals(1, "test/machine", np.arange(12), 0, N_HIDDEN)
SOURCE = np.linspace(-1, 0.7, 12)
PHI = torch.from_numpy(normals(1, "test/fields", np.arange(7), 0, 12).reshape(7, *SHAPE))


def machine(source: Any = None, **changes: Any) -> GaussianMachine:
    return GaussianMachine(**{"w": W, "mu2": MU2, "s": S, "source": source, **changes})


@pytest.mark.parametrize("source", [None, SOURCE])
def test_the_action_is_that_of_the_matrix(source: Any) -> None:
    """K = mu^2 - s^2 W W^T written out, sites in row order; without s it would be another."""
    action, flat = machine(source), PHI.numpy().reshape(7, 12)
    k = np.array(
        [
            [MU2 * (i == j) - S**2 * sum(W[i, a] * W[j, a] for a in range(N_HIDDEN)) for j in range(12)]
            for i in range(12)
        ]
    )
    np.testing.assert_allclose(action.kernel, k, atol=1e-14)
    j = np.zeros(12) if source is None else source
    known = np.array([0.5 * x @ k @ x - j @ x for x in flat])
    np.testing.assert_allclose(action.action(PHI).numpy(), known, rtol=1e-12)
    np.testing.assert_allclose(action.grad(PHI).numpy().reshape(7, 12), flat @ k - j, atol=1e-12)
    assert np.abs(machine(source, s=1.0).action(PHI).numpy() - known).max() > 0.1


@pytest.mark.parametrize("source", [None, SOURCE])
def test_the_gradient_is_the_derivative(source: Any) -> None:
    action, phi = machine(source), PHI.clone().requires_grad_()
    (known,) = torch.autograd.grad(action.action(phi).sum(), phi)
    assert action.grad(PHI).shape == PHI.shape
    assert (action.grad(PHI) - known).abs().max() < 1e-12


def test_only_a_source_breaks_the_symmetry() -> None:
    for source in (None, SOURCE):
        action = machine(source)
        off = float((action.action(-PHI) - action.action(PHI)).abs().max())
        assert action.even is (source is None)
        assert (off < 1e-12) is (source is None)
    known = 2 * PHI.numpy().reshape(7, 12) @ SOURCE
    odd = (machine(SOURCE).action(-PHI) - machine(SOURCE).action(PHI)).numpy()
    np.testing.assert_allclose(odd, known, rtol=1e-12)


def test_a_machine_with_the_kernel_of_the_free_field_is_the_free_field() -> None:
    """W W^T = mu^2 - K of the lattice: the same S and force, of another field by another kappa."""
    free = FreeScalar(0.15)
    unit = torch.eye(12, dtype=torch.float64).reshape(12, *SHAPE)
    values, modes = np.linalg.eigh(free.grad(unit).reshape(12, 12).numpy())
    found = GaussianMachine(modes * np.sqrt(4 - values), 4.0)
    np.testing.assert_allclose(found.action(PHI).numpy(), free.action(PHI).numpy(), rtol=1e-12)
    np.testing.assert_allclose(found.grad(PHI).numpy(), free.grad(PHI).numpy(), atol=1e-12)
    assert (found.action(PHI) - FreeScalar(0.16).action(PHI)).abs().max() > 0.01


def test_files_know_all_couplings_by_hash() -> None:
    """One unit in the last place of one weight, or of the source, is another action."""
    near, bent = W.copy(), SOURCE.copy()
    near[3, 2] = np.nextafter(near[3, 2], 1)
    bent[5] = np.nextafter(bent[5], 1)
    others = (
        machine(), machine(SOURCE), machine(w=near), machine(bent), machine(mu2=2.6), machine(s=1.2),
        machine(w=W[:, :4]), machine(w=-W),
    )  # fmt: skip
    seen = [str(action.as_dict()) for action in others]
    assert len(set(seen)) == len(seen)
    assert machine(w=W.copy()).as_dict() == machine().as_dict()
    assert machine(w=np.asfortranarray(W)).as_dict() == machine().as_dict()
    assert {key: value for key, value in machine().as_dict().items() if key != "weights"} == {
        "kind": "gaussian_rbm", "n_visible": 12, "n_hidden": N_HIDDEN, "mu2": MU2, "s": S,
    }  # fmt: skip


def test_an_ensemble_is_read_with_its_action_only(tmp_path: Path) -> None:
    action = machine(SOURCE)
    ensemble = Ensemble.from_fields(PHI.numpy(), action)
    write_ensemble(ensemble, tmp_path / "e")
    again = read_ensemble(tmp_path / "e", machine(SOURCE))
    assert np.array_equal(again.phi, PHI.numpy())
    assert np.array_equal(again.series["action"], action.action(PHI).numpy())
    with pytest.raises(InputError, match="'gaussian_rbm', is none of lattice's own.*read it with its action"):
        read_ensemble(tmp_path / "e")
    for other in (machine(), machine(SOURCE, s=1.2), FreeScalar(0.1)):
        with pytest.raises(InputError, match="action is .*gaussian_rbm.*, expected"):
            read_ensemble(tmp_path / "e", other)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"w": np.ones(3)}, r"w must be a finite matrix .*got shape \[3\]"),
     ({"w": np.ones((3, 0))}, "w must be a finite matrix"),
     ({"w": np.full((12, 2), np.nan)}, "w must be a finite matrix"),
     ({"source": np.ones(11)}, r"source must be finite \(12,\), got shape \[11\]"),
     ({"source": np.full(12, np.inf)}, "source must be finite"),
     ({"mu2": -1.0}, "mu2 and action.s must be positive, got -1 and 1.3"),
     ({"s": 0.0}, "mu2 and action.s must be positive"), ({"mu2": np.nan}, "mu2"),
     ({"w": np.eye(12), "s": 1.6}, "not positive: its lowest eigenvalue is -0.06"),
     ({"w": np.eye(12), "mu2": 1.0, "s": 1.0}, "not positive: its lowest eigenvalue is 0")],
)  # fmt: skip
def test_what_is_no_machine_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        machine(**changes)


def test_a_lattice_of_another_size_is_refused() -> None:
    machine().check_normalisable((12,))
    machine().check_normalisable((2, 6))
    with pytest.raises(InputError, match=r"has 12 visible nodes, a lattice \[4, 4\] has 16 sites"):
        machine().check_normalisable((4, 4))

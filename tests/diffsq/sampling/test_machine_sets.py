"""Sample sets of machines: the law of the draws, their weights, ln Z from them; longer sets to the bit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from longer import same_numbers
from scipy.stats import multivariate_normal

from diffsq.analysis.gaussian_machines import most_likely
from diffsq.config.config import config_from_dict
from diffsq.config.machines import MachineRun
from diffsq.exactness.weights import forward_ess
from diffsq.models.rbm import GaussianRBM
from diffsq.models.second_moments import circulant, exact_power
from diffsq.sampling.machine_sets import BLOCK, drawn, log_weights, sample_machine
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.errors import InputError
from lattice.exact.gaussian_rbm import lattice_kernel
from lattice.exact.scalar import small_lattice
from lattice.rng import normals

SHAPE, V, FREE = (2, 4), 8, FreeScalar(0.12)
KAPPA = lattice_kernel(SHAPE, 0.12)
LN_Z = float(0.5 * (V * math.log(2 * math.pi) - np.log(KAPPA).sum()))
SECOND = circulant(exact_power(FREE, SHAPE))
EXACT, CUT = most_likely(SECOND, 4.0, V), most_likely(SECOND, 1.8, V)


def config(action: str = "free", **changes: Any) -> MachineRun:
    couplings = {"kind": "free", "kappa": 0.12} if action == "free" else {"kappa": 0.12, "lam": 0.1}
    sampling = {"n_samples": 20000, "n_forward": 100, **changes.pop("sampling", {})}
    found = config_from_dict(
        {"name": "m", "action": couplings, "lattice": {"shape": SHAPE}, "models": ["rbm"],
         "sampling": sampling, **changes}
    )  # fmt: skip
    assert isinstance(found, MachineRun)
    return found


def ensemble_of(action: Any = FREE) -> Ensemble:
    """Data of the free field in 8 chains; their weights are asked for, not their law."""
    root = torch.linalg.cholesky(SECOND).numpy()
    phi = (normals(1, "test/data", np.arange(800), 0, V) @ root.T).reshape(-1, *SHAPE)
    return Ensemble.from_fields(phi, action, chain=np.arange(800) % 8)


ENSEMBLE = ensemble_of()


def ln_z(samples: Ensemble) -> tuple[float, float]:
    """ln of the mean weight, and its error."""
    assert samples.log_weight is not None
    top = samples.log_weight.max()
    w = np.exp(samples.log_weight - top)
    return float(top + np.log(w.mean())), float(w.std() / w.mean() / len(w) ** 0.5)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    return sample_machine(config(), CUT, ENSEMBLE, tmp_path_factory.mktemp("cut") / "e")


def test_draws_have_the_covariance_of_the_machine(cut: Ensemble) -> None:
    """K^-1 of the machine, not that of the field it has learned; independent of each other."""
    flat = cut.phi.reshape(len(cut), V)
    products = flat[:, :, None] * flat[:, None]
    found, error = products.mean(0), products.std(0) / len(cut) ** 0.5
    assert (np.abs(found - np.linalg.inv(CUT.kernel.numpy())) < 4.5 * error).all()
    assert (np.abs(found - SECOND.numpy()) > 10 * error).any()
    assert (np.abs(flat.mean(0)) < 4.5 * flat.std(0) / len(cut) ** 0.5).all()
    assert abs(np.mean(flat[1:, 0] * flat[:-1, 0])) < 4.5 * flat[:, 0].var() / len(cut) ** 0.5
    assert len(np.unique(flat[:, 0])) == len(cut)


def test_a_source_moves_the_draws() -> None:
    sourced = GaussianRBM(CUT.w, CUT.mu2, torch.linspace(-1, 1, V).double())
    phi = np.concatenate([drawn(sourced, 1, first) for first in range(0, 40 * BLOCK, BLOCK)])
    off = phi.mean(0) - torch.linalg.solve(CUT.kernel, sourced.source).numpy()
    assert (np.abs(off) < 4.5 * phi.std(0) / len(phi) ** 0.5).all()
    assert (np.abs(phi.mean(0)) > 10 * phi.std(0) / len(phi) ** 0.5).any()


@pytest.mark.parametrize("action", [FREE, ScalarPhi4(0.12, 0.1)])
def test_weights_are_those_of_another_formula(action: Any) -> None:
    """-S, site by site, minus scipy's normal density."""
    ensemble = ensemble_of(action)
    phi = ensemble.phi
    hop = sum((phi * np.roll(phi, 1, axis)).sum((1, 2)) for axis in (1, 2))
    lam = getattr(action, "lam", 0.0)
    s = ((1 - 2 * lam) * phi**2 + lam * phi**4).sum((1, 2)) - 2 * 0.12 * hop
    density = multivariate_normal(np.zeros(V), np.linalg.inv(CUT.kernel.numpy())).logpdf(phi.reshape(-1, V))
    found = log_weights(CUT, ensemble, phi)
    np.testing.assert_allclose(found, -s - density, rtol=1e-11)
    for rows in (slice(0, 1), slice(130, 470)):
        assert np.array_equal(log_weights(CUT, ensemble, phi[rows]), found[rows])


def test_ln_z_of_the_free_field_by_a_machine_that_is_cut(cut: Ensemble) -> None:
    """Exactly known, and no other field's; <phi^2> by the weights, not without them."""
    value, error = ln_z(cut)
    assert abs(value - LN_Z) < 4.5 * error
    assert error < 0.01
    other = 0.5 * float(V * math.log(2 * math.pi) - np.log(lattice_kernel(SHAPE, 0.16)).sum())
    assert abs(value - other) > 10 * error
    assert cut.log_weight is not None
    weights, phi2 = np.exp(cut.log_weight - value), cut.series["phi2"]
    for target, series in (
        ((1 / KAPPA).mean(), weights * phi2 / weights.mean()),
        ((1 / CUT.spectrum).mean(), phi2),
    ):
        assert abs(series.mean() - float(target)) < 4.5 * series.std() / len(cut) ** 0.5
    assert abs(phi2.mean() - (1 / KAPPA).mean()) > 10 * phi2.std() / len(cut) ** 0.5


def test_averages_of_an_interacting_field() -> None:
    """phi^4 on 2 x 2 by quadrature, and by weights from the machine of the free field of the same kappa."""
    action, shape = ScalarPhi4(0.12, 0.1), (2, 2)
    machine = most_likely(circulant(exact_power(FREE, shape)), 4.0, 4)
    phi = np.concatenate([drawn(machine, 1, first) for first in range(0, 300 * BLOCK, BLOCK)])
    ensemble = Ensemble.from_fields(phi.reshape(-1, *shape), action)
    log_w = log_weights(machine, ensemble, ensemble.phi)
    w = np.exp(log_w - log_w.max())
    exact = small_lattice(action, shape)
    abs_m = np.abs(ensemble.series["magnetization"])
    for series, known in ((ensemble.series["phi2"], exact.phi2), (abs_m, exact.abs_m)):
        found = (w * series).sum() / w.sum()
        error = np.std(w * (series - found)) / w.mean() / len(w) ** 0.5
        assert abs(found - known) < 4.5 * error
        assert abs(series.mean() - known) > 10 * error


def test_an_exact_machine_has_one_weight(tmp_path: Path) -> None:
    """ESS 1 and ln Z without an error; a machine that is cut has neither."""
    found = sample_machine(config(sampling={"n_samples": 200}), EXACT, ENSEMBLE, tmp_path / "e")
    assert found.log_weight is not None
    assert np.abs(found.log_weight - LN_Z).max() < 1e-11
    forward = json.loads((tmp_path / "e/forward.json").read_text())
    assert np.abs(np.array(forward["model"]) - LN_Z).max() < 1e-11
    assert forward_ess(np.array(forward["model"]))[0] == pytest.approx(1, abs=1e-12)
    assert forward_ess(log_weights(CUT, ENSEMBLE, ENSEMBLE.phi))[0] < 0.95


def test_held_out_fields_are_weighed(tmp_path: Path) -> None:
    run = config(sampling={"n_samples": 20, "n_forward": 60})
    sample_machine(run, CUT, ENSEMBLE, tmp_path / "e")
    forward = json.loads((tmp_path / "e/forward.json").read_text())
    held_out = set(ENSEMBLE.chain[ENSEMBLE.split_rows(run.training.validation_fraction)[1]].tolist())
    assert held_out == set(forward["chain"]) == {7}
    assert len(forward["model"]) == 60
    known = {
        (c, t): x for c, t, x in zip(
            ENSEMBLE.chain.tolist(), ENSEMBLE.trajectory.tolist(),
            log_weights(CUT, ENSEMBLE, ENSEMBLE.phi), strict=True,
        )
    }  # fmt: skip
    at = zip(forward["chain"], forward["trajectory"], strict=True)
    np.testing.assert_allclose(forward["model"], [known[place] for place in at], rtol=1e-12)


def test_more_samples_go_on_from_fewer_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over blocks and shards, neither a multiple of the numbers asked for."""
    monkeypatch.setattr("diffsq.sampling.machine_sets.SHARD", 150)
    whole = sample_machine(config(sampling={"n_samples": 700}), CUT, ENSEMBLE, tmp_path / "whole")
    for n in (20, 130, 333, 700):
        part = sample_machine(config(sampling={"n_samples": n}), CUT, ENSEMBLE, tmp_path / "part")
        assert len(part) == n
        assert np.array_equal(part.phi, whole.phi[:n])
    assert same_numbers(part, whole)
    assert same_numbers(read_ensemble(tmp_path / "part"), whole)
    again = sample_machine(config(sampling={"n_samples": 700}), CUT, ENSEMBLE, tmp_path / "part")
    assert same_numbers(again, whole)
    with pytest.raises(InputError, match="holds samples.*n_samples"):
        sample_machine(config(sampling={"n_samples": 500}), CUT, ENSEMBLE, tmp_path / "part")


def test_other_samples_in_the_folder_are_refused(tmp_path: Path) -> None:
    sample_machine(config(sampling={"n_samples": 50}), CUT, ENSEMBLE, tmp_path / "e")
    moved = Ensemble.from_fields(ENSEMBLE.phi + 0.1, FREE, chain=ENSEMBLE.chain)
    for run, machine, ensemble in (
        (config(seed=2), CUT, ENSEMBLE), (config(), EXACT, ENSEMBLE), (config(), CUT, moved),
    ):  # fmt: skip
        with pytest.raises(InputError, match="holds samples made with other parameters"):
            sample_machine(run, machine, ensemble, tmp_path / "e")
    heavier = GaussianRBM(CUT.w, CUT.mu2 * 1.01)
    with pytest.raises(InputError, match="other parameters"):
        sample_machine(config(), heavier, ENSEMBLE, tmp_path / "e")
    (tmp_path / "f").mkdir()
    (tmp_path / "f/forward.json").write_text("{}")
    with pytest.raises(InputError, match="forward.json: is there already and not of this ensemble"):
        sample_machine(config(), CUT, ENSEMBLE, tmp_path / "f")


def test_the_spring_and_the_source_are_part_of_the_machine(tmp_path: Path) -> None:
    """s and J change the law of the samples: they are other samples."""
    run = config(sampling={"n_samples": 50})
    sample_machine(run, CUT, ENSEMBLE, tmp_path / "e")
    others = (GaussianRBM(CUT.w, CUT.mu2, None, 0.5), GaussianRBM(CUT.w, CUT.mu2, torch.ones(V).double()))
    for other in others:
        with pytest.raises(InputError, match="other parameters"):
            sample_machine(run, other, ENSEMBLE, tmp_path / "e")


def test_weights_that_are_no_numbers_are_refused() -> None:
    phi = ENSEMBLE.phi.copy()
    phi[5] = 1e200
    with pytest.raises(InputError, match="log-weights of the machine.*train it again"):
        log_weights(CUT, ENSEMBLE, phi)

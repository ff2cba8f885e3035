"""No public function changes the numbers it is given: complex, masked and other arrays are refused in one
line that says what to pass, and what is harmless is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from diffsq.analysis.learned_action import compare_action, learned_curve, noised_action
from diffsq.analysis.polish import polish
from diffsq.exactness import free_energy, noisy_metropolis, weights
from diffsq.exactness.moves import State
from diffsq.models.two_peak import TwoPeakScore
from diffsq.process import cumulants as flow
from diffsq.training.posterior_means import check_points
from lattice.actions.complexified import Complexified
from lattice.actions.conventions import to_kappa_lambda
from lattice.actions.one_variable import ComplexGaussian, RealQuartic, TwoPeak
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.actions.protocol import check_shape
from lattice.actions.u1 import OneLink
from lattice.arrays import (
    complex_array,
    integer_array,
    number_array,
    real_array,
    real_number,
    row_numbers,
    wrapped,
)
from lattice.certificates import drift
from lattice.certificates.identities import schwinger_dyson, wall_density
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.shards import field_series
from lattice.ensembles.writer import EnsembleWriter
from lattice.errors import InputError
from lattice.exact.one_variable import toy_cumulants, toy_moments
from lattice.exact.scalar import one_site_moments
from lattice.interchange.identities import zero_mode
from lattice.observables import holomorphic, scalar
from lattice.rng import normals
from lattice.scans import scaling
from lattice.statistics import blocks, cumulants, gamma, jackknife, pulls, uniformity
from lattice.statistics import weights as importance
from lattice.statistics.extrapolation import extrapolate_step
from lattice.statistics.notation import format_value
from lattice.updates.cluster import swendsen_wang_update, wolff_update
from lattice.updates.complex_langevin import complex_langevin_update
from lattice.updates.fourier import measured_inverse_mass
from lattice.updates.hmc import hmc_trajectory, hmc_trajectory_torch
from lattice.updates.langevin import langevin_update
from lattice.updates.local import metropolis_sweep, overrelaxation_sweep

Given = Callable[[Any], Any]
N = 60
ACTION, QUARTIC = ScalarPhi4(0.2, 0.02), RealQuartic(1.0, 0.4)
RNG = np.random.default_rng(5)
X, PHI = RNG.normal(size=N), RNG.normal(size=(N, 4, 4))
CHAIN, INTEGERS = np.arange(N) % 4, np.arange(N)
KEYS = {"seed": 1, "chains": INTEGERS, "trajectory": 0}
ENSEMBLE = Ensemble.from_fields(PHI, ACTION)


def one(name: str, f: Callable[..., Any], good: Any, **others: Any) -> Any:
    """The call of f with the array `good` spoilt, the others as they should be."""
    return pytest.param(f, good, others, id=name)


def real_functions() -> Iterator[Any]:
    """Everything that takes real numbers."""
    for name, f in (
        ("gamma_method", gamma.gamma_method), ("jackknife", jackknife.jackknife),
        ("jackknife_error", blocks.jackknife_error), ("jackknife_errors", blocks.jackknife_errors),
        ("as_replicas", lambda x: gamma.as_replicas([x, x])),
        ("effective_sample_size", importance.effective_sample_size),
        ("normalised_weights", importance.normalised_weights), ("mean_and_error", pulls.mean_and_error),
        ("mean_of_chains", lambda x: pulls.mean_of_chains([x, x])),
        ("jackknife_weighted", lambda x: jackknife.jackknife_weighted(x, np.zeros(N))),
        ("jackknife_weighted log_weight", lambda x: jackknife.jackknife_weighted(X, x)),
        ("cumulant", cumulants.cumulant), ("cumulant_ratio", cumulants.cumulant_ratio),
        ("cumulant_ratio_z2", cumulants.cumulant_ratio_z2), ("holm", uniformity.holm),
        ("weighted_rank", lambda x: uniformity.weighted_rank(x, PHI[:, 0], np.ones((N, 5)), np.ones(N))),
        ("log_mean_exp", weights.log_mean_exp), ("ln_z", weights.ln_z), ("forward_ess", weights.forward_ess),
        ("ln_z_forward", weights.ln_z_forward),
        ("independence_metropolis", lambda x: weights.independence_metropolis(x, 1)),
        ("difference", lambda x: free_energy.difference(x, X)),
        ("bennett", lambda x: free_energy.bennett(x, X)),
        ("path_bennett", lambda x: free_energy.path_bennett(X, x)),
        ("noisy_acceptance", lambda x: noisy_metropolis.noisy_acceptance(x, 1.0)),
        ("noisy_odds", lambda x: noisy_metropolis.noisy_odds(x, 1.0)),
        ("kept_noise_bias", lambda x: noisy_metropolis.kept_noise_bias(x, X, X[None])),
        ("kept_noise_bias noisy", lambda x: noisy_metropolis.kept_noise_bias(X, X, x[None])),
        ("estimate", flow.estimate), ("flow", lambda x: flow.flow(x, np.ones(1), np.ones(1))),
        ("estimate weight", lambda x: flow.estimate(X, weight=x)),
        ("check_points", lambda x: check_points(x[:, None])),
        ("noised_action", lambda x: noised_action(QUARTIC, x, 1.0)),
        ("compare_action", lambda x: compare_action([x, x], QUARTIC, X, 1.0)),
        ("from_fields log_weight", lambda x: Ensemble.from_fields(PHI, ACTION, log_weight=x)),
        ("from_fields series", lambda x: Ensemble.from_fields(PHI, ACTION, series={"dH": x})),
        ("fit_curve", lambda x: scaling.fit_curve(8, np.arange(N), x, np.ones(N))),
        ("extrapolate_step", lambda x: extrapolate_step(np.arange(1, N + 1), x, np.ones(N))),
        ("extrapolate", lambda x: scaling.extrapolate(range(1, N + 1), x, np.eye(N), 1.0)),
        ("without_blocks weight", lambda x: holomorphic.without_blocks(X[:, None], np.abs, CHAIN, x)),
    ):  # fmt: skip
        yield one(name, f, X)
    yield one("learned_curve", lambda x: learned_curve(TwoPeakScore(1.0, 0.5), x, 1.0), np.linspace(-1, 1, N))
    yield one("reweighted log_weight", lambda x: free_energy.reweighted(ACTION, ACTION, PHI, x), 0.01 * X)
    for name, f in (
        ("from_fields", lambda x: Ensemble.from_fields(x, ACTION)),
        ("primaries", lambda x: scalar.primaries(x, ACTION)),
        ("Ensemble", lambda x: Ensemble(x, CHAIN, INTEGERS, {}, ACTION)),
        ("two_point_series", scalar.two_point_series), ("field_series", lambda x: field_series(x, ACTION)),
        ("schwinger_dyson", lambda x: schwinger_dyson(x, ACTION)), ("wall_density", wall_density),
        ("zero_mode", lambda x: zero_mode(x, ACTION)), ("State.of", State.of),
        ("action_values", lambda x: free_energy.action_values(ACTION, x)),
        ("reweighted", lambda x: free_energy.reweighted(ACTION, ACTION, x)),
        ("measured_inverse_mass", measured_inverse_mass),
        ("hmc", lambda x: hmc_trajectory(ACTION, x, length=1.0, n_steps=5, **KEYS)),
        ("langevin", lambda x: langevin_update(ACTION, x, step=0.01, **KEYS)),
        ("metropolis", lambda x: metropolis_sweep(ACTION, x, width=1.0, **KEYS)),
        ("overrelaxation", lambda x: overrelaxation_sweep(ACTION, x, **KEYS)),
        ("wolff", lambda x: wolff_update(ACTION, x, **KEYS)),
        ("swendsen-wang", lambda x: swendsen_wang_update(ACTION, x, **KEYS)),
        ("polish", lambda x: polish(ACTION, x, 1, 1, length=1.0, n_steps=5)),
        ("cut_off", lambda x: drift.cut_off(np.ones((N, 4), complex), x[:, 0])),
    ):  # fmt: skip
        yield one(name, f, PHI)


def integer_functions() -> Iterator[Any]:
    """Everything that takes integers: chains, trajectories, rows, ranks, orders."""
    for name, f in (
        ("from_fields chain", lambda x: Ensemble.from_fields(PHI, ACTION, chain=x)),
        ("from_fields trajectory", lambda x: Ensemble.from_fields(PHI, ACTION, trajectory=x)),
        ("select", ENSEMBLE.select), ("normals", lambda x: normals(1, "test", x, 0, 2)),
        ("uniformity", lambda x: uniformity.uniformity(x, N - 1)),
        ("jackknife_of chain", lambda x: blocks.jackknife_of(np.mean, X, chain=x)),
        ("ln_z_forward chain", lambda x: weights.ln_z_forward(X, x)),
        ("forward_ess chain", lambda x: weights.forward_ess(X, x)),
        ("reweighted chain", lambda x: free_energy.reweighted(ACTION, ACTION, PHI, chain=x)),
        ("estimate block", lambda x: flow.estimate(X, block=x)),
        ("without_blocks", lambda x: holomorphic.without_blocks(X[:, None], lambda m: m, x)),
        ("hmc chains", lambda x: hmc_trajectory(ACTION, PHI, **{**KEYS, "chains": x}, length=1.0, n_steps=5)),
        ("toy_moments", lambda x: toy_moments(ComplexGaussian(1.0), x[:3])),
        ("one_site_moments", lambda x: one_site_moments(FreeScalar(0.0), x[:3])),
    ):  # fmt: skip
        yield one(name, f, INTEGERS)


def spoilt(good: Any) -> dict[str, Any]:
    """The same numbers as no function takes them."""
    masked = np.ma.array(good, mask=np.arange(good.size).reshape(good.shape) == 1)
    return {
        "complex": good + 1j, "masked": masked, "object": good.astype(object), "text": good.astype(str),
        "longdouble": good.astype(np.longdouble) if good.dtype.kind == "f" else good + 0.5,
        "records": np.array([(x,) for x in good.ravel()], dtype=[("a", float)]).reshape(good.shape),
    }  # fmt: skip


@pytest.mark.parametrize(("f", "good", "others"), [*real_functions(), *integer_functions()])
def test_nothing_is_dropped(f: Given, good: Any, others: dict[str, Any]) -> None:
    f(good, **others)  # negative control
    for kind, bad in spoilt(good).items():
        with pytest.raises(InputError) as refused:
            f(bad, **others)
        said = str(refused.value)
        assert "pass " in said, kind
        assert "\n" not in said
        if kind == "complex" and good.dtype.kind == "f":
            assert said.endswith(".imag separately")


def test_complex_numbers_are_taken_where_they_are_meant() -> None:
    z = X + 1j * np.roll(X, 1)
    moments = cumulants.cumulants_from_moments([z.mean(), (z**2).mean()])
    assert moments[1] == pytest.approx((z**2).mean() - z.mean() ** 2)
    found = complex(*holomorphic.estimates(z, np.arange(N) // 3)["m2"]["value"])
    assert found == pytest.approx((z**2).mean())
    moved, _ = complex_langevin_update(ComplexGaussian(1 + 1j), z, **KEYS, tau=0.1, step=0.1)
    assert np.abs(moved.imag).max() > 0
    stored = Ensemble.from_fields(np.stack([z.real, z.imag], 1), Complexified(ComplexGaussian(1 + 1j)))
    assert stored.phi.shape == (N, 2)


def test_harmless_arrays_are_taken_as_they_are() -> None:
    x = np.round(X * 8) / 8
    wanted = gamma.gamma_method(x).value
    for same in (np.float32(x), list(x), torch.tensor(x)):
        assert gamma.gamma_method(same).value == wanted
    assert gamma.gamma_method(X > 0).value == (X > 0).mean()  # a series of yes and no
    unmasked = np.ma.array(X, mask=np.zeros(N, bool))
    assert gamma.gamma_method(unmasked).value == gamma.gamma_method(X).value
    # uint8 and int8 do not wrap around: the action is that of the numbers
    small = np.full((1, 4, 4), 100)
    for dtype in (np.uint8, np.int8, np.int32):
        assert field_series(small.astype(dtype), ACTION)["phi2"].tolist() == [1e4]
    assert integer_array(np.array([1.0, 2.0]), "chain").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.array([2**53 + 1]), r"beyond 2\^53"), ([1.0, None], "objects"), ([1.0, np.ma.masked], "masked"),
        ([[1.0], [1.0, 2.0]], "equal rows"), (torch.ones(2, requires_grad=True), r"detach\(\)"),
        ({"x": 1.0}, "objects"), (np.array(["2026"], dtype="M8"), "dates"), (np.array([True]), "boolean"),
        ([np.ma.array([1.0, 2.0], mask=[0, 1])], "masked"),
    ],
)  # fmt: skip
def test_other_things_that_are_no_real_numbers(bad: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        real_array(bad, "phi")


@pytest.mark.parametrize("bad", [[0.5], [True], [1j], [np.nan], [1e300], np.array([2**63], dtype=np.uint64)])
def test_other_things_that_are_no_integers(bad: Any) -> None:
    with pytest.raises(InputError, match="integer"):
        integer_array(bad, "chain")


def test_a_derived_quantity_is_one_real_number() -> None:
    for f in (lambda m: m[0] + 1j, lambda m: np.complex128(m[0]), lambda m: m[[0, 0]]):
        for method in (gamma.gamma_method, jackknife.jackknife):
            with pytest.raises(InputError, match="the derived quantity"):
                method(np.stack([X], axis=1)[None], f)
    assert real_number(np.array([2.0]), "x") == 2.0


def test_arrays_that_do_not_fit_each_other_are_refused() -> None:
    """Nothing is cut to the shorter one, nor repeated."""
    for call in (
        lambda: ENSEMBLE.select(np.ones(N - 1, bool)), lambda: ENSEMBLE.select([N]),
        lambda: ENSEMBLE.select(np.zeros((2, 2), int)), lambda: Ensemble.from_fields(PHI, ACTION, chain=[0]),
        lambda: blocks.jackknife_of(np.mean, X, chain=CHAIN[:-1]), lambda: weights.ln_z_forward(X, CHAIN[1:]),
        lambda: flow.estimate(X, block=CHAIN[1:]), lambda: flow.flow(X, np.ones(2), np.ones(1)),
        lambda: noisy_metropolis.kept_noise_bias(X[1:], X, X[None]),
        lambda: scaling.extrapolate([8, 16], [1.0], np.eye(1), 1.0),
        lambda: holomorphic.without_blocks(X[:, None], np.abs, CHAIN[1:]),
        lambda: Ensemble(PHI, CHAIN[1:], INTEGERS, {}, ACTION),
    ):  # fmt: skip
        with pytest.raises(InputError):
            call()
    assert row_numbers([True, False], 2).tolist() == [0]
    with pytest.raises(InputError, match="mask"):
        row_numbers([True, False], 3)


def test_a_tensor_that_is_not_double_is_refused() -> None:
    with pytest.raises(InputError, match="float64"):
        hmc_trajectory_torch(ACTION, torch.from_numpy(PHI) + 0j, **KEYS, length=1.0, n_steps=5)


def test_an_action_that_is_complex_is_not_cut_to_its_real_part() -> None:
    with pytest.raises(InputError, match="is complex"):
        Ensemble.from_fields(X[:, None], ComplexGaussian(1 + 1j))


@pytest.mark.parametrize(
    "action", [ACTION, QUARTIC, ComplexGaussian(1 + 1j), TwoPeak(1.0, 0.3), OneLink(1.0)]
)
def test_powers_of_small_integers_do_not_wrap_around(action: Any) -> None:
    for dtype in (torch.uint8, torch.int8, torch.int32, torch.bool):
        phi = torch.full((1, 2, 2), 100).to(dtype)
        for function in (action.action, action.grad):
            with pytest.raises(InputError, match=r"powers overflow: pass phi\.double\(\)"):
                function(phi)
    assert torch.isfinite(action.action(torch.full((1, 2, 2), 100).double()).real).all()


def test_scalars_are_not_cut_either() -> None:
    for call in (
        lambda: format_value(np.complex128(1j), 0.1), lambda: pulls.pull(np.complex128(1j), 0.1, 0.0, 0.1),
        lambda: to_kappa_lambda("flow", np.complex128(-4 + 1j), 4.0, 2),
        lambda: toy_cumulants(ComplexGaussian(1.0), 2.5), lambda: check_shape((4.5, 4)),
    ):  # fmt: skip
        with pytest.raises(InputError):
            call()
    assert ScalarPhi4(np.float32(0.25), np.int64(1)) == ScalarPhi4(0.25, 1.0)
    assert ComplexGaussian(np.complex64(1 + 1j)) == ComplexGaussian(1 + 1j)


def test_what_a_writer_appends(tmp_path: Any) -> None:
    writer = EnsembleWriter(tmp_path, ACTION, (4, 4), "key", {})
    with pytest.raises(InputError, match=r"pass phi\.real"):
        writer.append(0, phi=PHI + 1j, chain=CHAIN, trajectory=INTEGERS)
    assert writer.append(0, phi=PHI, chain=CHAIN, trajectory=INTEGERS)


def test_conversions_copy_no_more_than_they_must() -> None:
    assert real_array(X, "x") is X
    assert complex_array([1], "z").dtype == np.complex128
    assert number_array([1j], "z").dtype == np.complex128
    assert number_array([1], "z").dtype == np.float64


def test_an_infinity_of_half_precision_is_no_integer() -> None:
    with pytest.raises(InputError, match="must be integers, got inf"):
        integer_array(np.array([np.inf], np.float16), "chain")


def test_fields_of_an_action_are_tensors() -> None:
    for call in (ACTION.action, ACTION.grad):
        with pytest.raises(InputError, match=r"not ndarray: pass torch.from_numpy\(phi\)"):
            call(PHI)  # type: ignore[arg-type]


def test_angles_come_back_as_what_they_were() -> None:
    angle = np.random.default_rng(1).uniform(-30, 30, (5, 7))
    found, tensor = wrapped(angle), wrapped(torch.from_numpy(angle))
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, tensor.numpy())
    assert (np.abs(found) <= np.pi).all()
    np.testing.assert_allclose(np.exp(1j * found), np.exp(1j * angle), atol=1e-12)
    assert np.abs(found - angle).max() > 6

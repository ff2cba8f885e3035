"""The complex Langevin process: stationary laws, adaptive steps, kernels against tensors, runaways."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from lattice.actions.one_variable import ComplexGaussian, ComplexQuartic, RealQuartic, TwoPeak
from lattice.actions.phi4 import ComplexPhi4, ScalarPhi4
from lattice.actions.u1 import U1, OneLink
from lattice.errors import InputError
from lattice.exact.one_variable import gaussian_covariance, toy_moments
from lattice.updates.complex_langevin import (
    complex_langevin_update,
    largest_drift,
)

QUARTIC = ComplexQuartic(1 + 1j, 1.0)
N = 2000


def run(
    action: Any, n_times: int = 40, n_therm: int = 8, *, n: int = N, seed: int = 11, tau: float = 1.0,
    step: float = 0.02, **options: Any,
) -> np.ndarray:  # fmt: skip
    """z (n_times, n) after thermalisation from 0."""
    z, rows = np.zeros(n, dtype=np.complex128), []
    for t in range(n_therm + n_times):
        z, _ = complex_langevin_update(
            action, z, seed=seed, chains=np.arange(n), trajectory=t, tau=tau, step=step, **options
        )
        rows.append(z)
    return np.array(rows[n_therm:])


def pull(x: np.ndarray, expected: float) -> float:
    """Sigmas between the mean of x (n_times, n) and `expected`, chains independent."""
    means = x.mean(axis=0)
    return abs(means.mean() - expected) / (means.std(ddof=1) / math.sqrt(means.size))


def covariance_pulls(z: np.ndarray, c: np.ndarray) -> list[float]:
    x, y = z.real, z.imag
    return [pull(x * x, c[0, 0]), pull(y * y, c[1, 1]), pull(x * y, c[0, 1])]


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("sigma0", [1 + 1j, 1 + 0.5j])
def test_the_complex_gaussian_has_its_exact_stationary_covariance(sigma0: complex, noise: float) -> None:
    action = ComplexGaussian(sigma0)
    z = run(action, imaginary_noise=noise)
    assert max(covariance_pulls(z, gaussian_covariance(action, noise))) < 4
    # negative controls: noise sqrt(dt) instead of sqrt(2 dt) halves the covariance; no imaginary noise
    half = max(covariance_pulls(z / math.sqrt(2), gaussian_covariance(action, noise)))
    other = max(covariance_pulls(z, gaussian_covariance(action, noise + 0.2)))
    assert min(half, other) > 10


def euler_covariance(sigma0: complex, h: float, heun: bool) -> np.ndarray:
    """The stationary covariance of the discrete process: z' = r z + s w, w real of variance 2h."""
    a = -sigma0 * h
    r, s = (1 + a + a * a / 2, 1 + a / 2) if heun else (1 + a, 1.0 + 0j)
    m = np.array([[r.real, -r.imag], [r.imag, r.real]])
    b = np.array([s.real, s.imag])
    q = 2 * h * np.outer(b, b)
    return np.linalg.solve(np.eye(4) - np.kron(m, m), q.reshape(-1)).reshape(2, 2)


@pytest.mark.parametrize("scheme", ["heun", "euler"])
def test_both_schemes_have_their_discrete_stationary_law(scheme: Any) -> None:
    """At a large step the law is known too, and is not the other scheme's or the limit's."""
    sigma0, h = 1 + 1j, 0.25
    z = run(ComplexGaussian(sigma0), step=h, scheme=scheme)
    known = {name: euler_covariance(sigma0, h, name == "heun") for name in ("heun", "euler")}
    assert max(covariance_pulls(z, known.pop(scheme))) < 4
    assert max(covariance_pulls(z, known.popitem()[1])) > 10


def test_the_error_of_heun_is_of_second_order() -> None:
    exact = gaussian_covariance(ComplexGaussian(1 + 1j))
    gaps = [np.abs(euler_covariance(1 + 1j, h, True) - exact).max() for h in (0.1, 0.05, 0.025)]
    assert gaps[0] / gaps[1] == pytest.approx(4, abs=0.6)
    assert gaps[1] / gaps[2] == pytest.approx(4, abs=0.3)
    first = [np.abs(euler_covariance(1 + 1j, h, False) - exact).max() for h in (0.1, 0.05)]
    assert first[0] / first[1] == pytest.approx(2, abs=0.3)


@pytest.fixture(scope="module")
def quartic() -> np.ndarray:
    return run(QUARTIC, n_times=80, step=0.01, drift_scale=3.0)


def test_the_quartic_against_quadrature(quartic: np.ndarray) -> None:
    for n in (2, 4, 6, 8):
        exact, power = toy_moments(QUARTIC, [n])[0], quartic**n
        assert max(pull(power.real, exact.real), pull(power.imag, exact.imag)) < 4
    wrong = toy_moments(ComplexQuartic(1 + 1.1j, 1.0), [2])[0]
    assert pull((quartic**2).imag, wrong.imag) > 10  # negative control


def test_schwinger_dyson_and_the_strip(quartic: np.ndarray) -> None:
    sd = QUARTIC.sigma0 * quartic**2 + QUARTIC.lam * quartic**4
    assert max(pull(sd.real, 1.0), pull(sd.imag, 0.0)) < 4
    flipped = QUARTIC.sigma0.conjugate() * quartic**2 + QUARTIC.lam * quartic**4
    assert pull(flipped.imag, 0.0) > 10  # negative control
    strip = QUARTIC.strip
    assert strip is not None
    assert np.abs(quartic.imag).max() < strip


def test_the_adaptive_step_reproduces_a_small_fixed_one(quartic: np.ndarray) -> None:
    """Steps that shrink often, against a fixed step of a fifth; both against each other, not the truth."""
    fixed = run(QUARTIC, step=0.004, seed=12)
    adaptive = run(QUARTIC, step=0.04, drift_scale=0.3, seed=13)
    coarse = run(QUARTIC, step=0.2, seed=14)
    for n in (2, 4):
        a, b, c = ((z**n).mean(axis=0) for z in (fixed, adaptive, coarse))
        for part in ("real", "imag"):
            x, y = getattr(a, part), getattr(b, part)
            assert abs(x.mean() - y.mean()) < 4 * math.hypot(x.std(), y.std()) / math.sqrt(N)
        assert abs(a.real.mean() - c.real.mean()) > 10 * math.hypot(a.real.std(), c.real.std()) / math.sqrt(N)


def test_a_trajectory_lasts_exactly_tau() -> None:
    """Without noise worth the name (a huge coupling), z decays as exp(-sigma0 tau) whatever the steps."""
    action, z = ComplexGaussian(1 + 1j), np.array([1e6 + 0j, 1e6j])
    for options in ({}, {"drift_scale": 1e5}, {"drift_scale": 3.3e4}):
        end, info = complex_langevin_update(
            action, z, seed=1, chains=np.arange(2), trajectory=0, tau=0.77, step=0.001, **options
        )
        assert np.allclose(end / z, np.exp(-action.sigma0 * 0.77), rtol=3e-5)
        assert info.substeps.min() >= 770
        assert (info.shrunken > 0).all() == bool(options)
    assert np.allclose(info.drift, 1e6 * abs(action.sigma0))


CASES = [
    (QUARTIC, ()), (OneLink(0.5 + 0.2j), ()), (ComplexPhi4(0.1, 0.3, 1 + 0.5j), (2, 3)),
    (ComplexGaussian(1 + 1j), (3,)), (RealQuartic(-1.0, 0.4), ()), (ScalarPhi4(0.1, 0.3), (2, 3)),
    (TwoPeak(1.0, 0.5), ()), (U1(1.5 + 0.3j, 0.7), (2, 2, 2)), (U1(5.0, 0.5), (2, 2, 3)),
]  # fmt: skip
OPTIONS: list[dict[str, Any]] = [
    {},
    {"drift_scale": 0.5},
    {"scheme": "euler", "drift_scale": 1.0, "imaginary_noise": 0.3, "escape": 0.5},
]


@pytest.mark.parametrize(("action", "shape"), CASES, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("options", OPTIONS, ids=["fixed", "adaptive", "euler"])
def test_the_kernel_is_the_tensor_version(
    action: Any, shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(5, *shape)) + 0.2j * rng.normal(size=(5, *shape))
    common: dict[str, Any] = {"seed": 1, "chains": np.arange(5) + 3, "trajectory": 2}
    common |= {"tau": 1.0, "step": 0.03}
    fast, one = complex_langevin_update(action, z, **common, **options)
    slow, two = complex_langevin_update(action, z, **common, **options, compiled=False)
    assert np.allclose(fast, slow, atol=1e-11)
    assert np.allclose(one.drift, two.drift)
    for name in ("substeps", "shrunken", "escapes"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert (one.escapes > 0).any() == ("escape" in options)


@pytest.mark.parametrize(
    ("action", "shape"), [(ComplexPhi4(0.1, 0.3, 1 + 0.5j), (2, 2)), (U1(2.0, 1.0), (2, 3, 5))]
)
def test_results_do_not_depend_on_the_batch_or_the_threads(action: Any, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    z = rng.normal(size=(9, *shape)) + 0.1j
    common: dict[str, Any] = {
        "seed": 1, "trajectory": 7, "tau": 0.5, "step": 0.02, "drift_scale": 2.0, "imaginary_noise": 0.1
    }  # fmt: skip
    chains = np.arange(9) + 40
    whole, info = complex_langevin_update(action, z, chains=chains, n_threads=1, **common)
    two, _ = complex_langevin_update(action, z, chains=chains, n_threads=2, **common)
    part, few = complex_langevin_update(action, z[4:6], chains=chains[4:6], **common)
    assert np.array_equal(whole, two)
    assert np.array_equal(whole[4:6], part)
    assert np.array_equal(info.substeps[4:6], few.substeps)
    other, _ = complex_langevin_update(action, z, chains=chains + 1, **common)
    assert not np.isclose(whole, other).any()


def test_a_runaway_is_named() -> None:
    z = np.zeros(6, dtype=np.complex128)
    z[4] = 30.0 + 1j
    common: dict[str, Any] = {"seed": 1, "chains": np.arange(6) + 100, "trajectory": 8}
    common |= {"tau": 1.0, "step": 0.05}
    line = r"1 of 6 chains: chain 104 .* beyond 1e\+08 after substep \d+ of trajectory 8; use a step below"
    with pytest.raises(InputError, match=line):
        complex_langevin_update(QUARTIC, z, **common)
    with pytest.raises(InputError, match=line):
        complex_langevin_update(QUARTIC, z, **common, compiled=False)
    end, info = complex_langevin_update(QUARTIC, z, drift_scale=3.0, **common)  # the adaptive step saves it
    assert np.abs(end).max() < 10
    assert info.escapes.tolist() == [0, 0, 0, 0, 1, 0]


def test_nan_is_a_runaway() -> None:
    z = np.array([0.0, complex(math.nan, 0.0)])
    for options in ({}, {"drift_scale": 3.0}):
        with pytest.raises(InputError, match="chain 1 is not finite .* after substep 0 of trajectory 3"):
            complex_langevin_update(
                QUARTIC, z, seed=1, chains=np.arange(2), trajectory=3, tau=1.0, step=0.1, **options
            )


def test_the_angle_of_one_link_stays_in_its_period() -> None:
    z = run(OneLink(0.3), n_times=20, n=200)
    assert np.abs(z.real).max() <= math.pi
    assert z.real.std() > 1  # it does go around
    assert np.array_equal(z.imag, np.zeros_like(z.imag))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"step": 0.0}, "step of complex Langevin"),
        ({"tau": math.inf}, "tau of complex Langevin"),
        ({"drift_scale": -1.0}, "drift_scale of complex Langevin"),
        ({"imaginary_noise": -0.1}, "imaginary_noise"),
        ({"scheme": "milstein"}, "scheme"),
        ({"chains": np.arange(3)}, "2 fields, 3 chains"),
        ({"z": np.zeros(2)}, "complex128"),
    ],
)
def test_refusals(options: dict[str, Any], match: str) -> None:
    arguments: dict[str, Any] = {
        "action": QUARTIC, "z": np.zeros(2, dtype=np.complex128), "seed": 1, "chains": np.arange(2),
        "trajectory": 0, "tau": 1.0, "step": 0.1,
    } | options  # fmt: skip
    with pytest.raises(InputError, match=match):
        complex_langevin_update(arguments.pop("action"), arguments.pop("z"), **arguments)


def test_the_largest_drift_is_over_the_sites() -> None:
    z = np.array([[1.0 + 0j, 2.0], [0.5, 0.1]])
    assert np.allclose(largest_drift(ComplexGaussian(1 + 1j), z), math.sqrt(2) * np.array([2.0, 0.5]))


def test_a_gradient_of_ones_own_is_not_moved_by_the_compiled_drift_of_another() -> None:
    class Shifted(ComplexQuartic):
        def grad(self, z: torch.Tensor) -> torch.Tensor:
            return super().grad(z) + 3

    short = {"n_times": 2, "n_therm": 0, "n": 5}
    moved, parent = (run(action, **short) for action in (Shifted(1 + 1j, 1.0), QUARTIC))
    np.testing.assert_array_equal(moved, run(Shifted(1 + 1j, 1.0), **short, compiled=False))
    assert np.abs(moved - parent).min() > 0.1


@pytest.mark.parametrize("compiled", [True, False])
def test_links_that_are_stuck_are_a_runaway(compiled: bool) -> None:
    """A drift so large that its substeps hardly add up: the run ends, and says where, instead of waiting."""
    z = np.zeros((2, 2, 2, 2), dtype=np.complex128)
    common: dict[str, Any] = {"seed": 1, "chains": np.arange(2) + 7, "trajectory": 3, "compiled": compiled}
    with pytest.raises(
        InputError, match=r"2 of 2 chains: chain 7 is stuck at a large drift after substep 2000"
    ):
        complex_langevin_update(U1(1.0, 1.0), z, **common, tau=0.2, step=0.1, drift_scale=1e-4)
    _, info = complex_langevin_update(U1(1.0, 1.0), z, **common, tau=0.2, step=0.1, drift_scale=0.1)
    assert info.substeps.max() < 100

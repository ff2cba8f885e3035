"""The calibrated kernel: smooth fits with shrinkage, the coupling of the sublattices, fresh fields."""

from __future__ import annotations

import copy
import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from fields import white
from small_models import IDENTITY, equilibrium, free_model, geometric, noise_of, phi4_model, still
from small_paths import TWO, good_path
from small_paths import calibrated as calibrated_path
from torch import Tensor

from diffsq.models.blocks import KeyedNoise
from diffsq.models.lattice import LatticeScore
from diffsq.models.symmetry import Symmetry
from diffsq.sampling.lattice_kernel import Coupling, Kernel, calibrated, shrink, smooth_fit
from diffsq.sampling.lattice_path import ReversePath
from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError
from lattice.rng import normals
from lattice.updates.cluster import wolff_update
from lattice.updates.hmc import hmc_trajectory

STRONG, SHAPE, N = ScalarPhi4(0.33, 0.5), (8, 8), 2048
LEVELS = torch.tensor([0.0, 0.2, 0.35, 0.6, 1.0], dtype=torch.float64)


@lru_cache(maxsize=2)
def strong_fields(seed: int) -> Tensor:
    """Equilibrium fields of independent chains; steps short enough for every chain to leave its start."""
    chains = np.arange(N)
    phi = 0.5 * normals(seed, "test/start", chains, 0, 64).reshape(N, *SHAPE)
    phi[::2] = np.abs(phi[::2])
    for t in range(20):
        phi, _ = hmc_trajectory(STRONG, phi, seed=seed, chains=chains, trajectory=t, length=1.5, n_steps=12)
        phi, _ = wolff_update(STRONG, phi, seed=seed, chains=chains, trajectory=t)
    sign = np.where(normals(seed, "test/sign", chains, 0, 1)[:, :1] > 0, 1.0, -1.0)
    return torch.from_numpy(phi * sign.reshape(N, 1, 1))


@lru_cache(maxsize=1)
def strong_path() -> ReversePath:
    phi = strong_fields(5)
    model = phi4_model(STRONG, phi, n_sigma=16)
    path = ReversePath.predicted(model, LEVELS)
    path.calibrate(phi, noise_of("test/calibrate", N, SHAPE), still, chunk=2048)
    return path


# smooth fits -----------------------------------------------------------------------------------------------


def chebyshev(n: int, order: int) -> list[Tensor]:
    t = torch.linspace(-1, 1, n, dtype=torch.float64)
    return [torch.cos(q * torch.arccos(t.clamp(-1, 1))) for q in range(order)]


def test_a_function_in_the_span_is_recovered() -> None:
    basis = chebyshev(40, 5)
    y = sum(a * q for a, q in zip((3.0, -2.0, 1.0, 0.5, -4.0), basis, strict=True))
    weight = 1e12 * (0.1 + torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    assert isinstance(y, Tensor)
    torch.testing.assert_close(smooth_fit(y, weight, basis), y, rtol=0, atol=1e-9)
    # what has no weight has no say, and a function given twice changes nothing
    spoiled, holes = y.clone(), weight.clone()
    spoiled[::3], holes[::3] = torch.nan, 0
    torch.testing.assert_close(smooth_fit(spoiled, holes, [*basis, basis[1]]), y, rtol=0, atol=1e-9)
    assert (smooth_fit(y, weight, basis[:4]) - y).abs().max() > 1


def test_noise_is_shrunk_and_signal_is_not() -> None:
    """Positive-part James-Stein, one coefficient at a time: of pure noise 0.42 of 1 in the mean square."""
    n_draw, basis = 2000, chebyshev(24, 4)
    eps = torch.from_numpy(normals(7, "test/smooth", np.arange(n_draw), 0, 24))
    weight = torch.linspace(0.5, 2, 24, dtype=torch.float64)
    noise = eps / weight.sqrt()
    fits = torch.stack([smooth_fit(y, weight, basis) for y in noise])
    chi2 = (weight * fits**2).sum(1)  # 4 for plain least squares
    z = torch.from_numpy(normals(8, "test/shrink", np.arange(1), 0, 400_000)[0])
    expected = 4 * float((shrink(z, torch.ones_like(z)) ** 2).mean())
    assert abs(float(chi2.mean()) - expected) < 4 * float(chi2.std()) / math.sqrt(n_draw)
    assert abs(float(chi2.mean()) - 4) > 10 * float(chi2.std()) / math.sqrt(n_draw)
    signal = 20 * basis[2]
    kept = torch.stack([smooth_fit(signal + y, weight, basis) for y in noise[:200]]).mean(0)
    assert (kept / signal - 1).abs().median() < 0.01


def test_shrink() -> None:
    x = torch.linspace(-5, 5, 101, dtype=torch.float64)
    y = shrink(x, torch.full_like(x, 4.0))
    assert (y[x.abs() < 2] == 0).all()
    large = x.abs() > 2.01
    torch.testing.assert_close(y[large], (x - 4 / x)[large])
    torch.testing.assert_close(y, -shrink(-x, torch.full_like(x, 4.0)))
    torch.testing.assert_close(shrink(x, torch.zeros_like(x))[x != 0], x[x != 0])
    # the risk of the estimate is below that of the raw number where there is nothing, bounded elsewhere
    z = torch.from_numpy(normals(9, "test/shrink", np.arange(1), 0, 100_000)[0])
    for truth, bound in ((0.0, 0.5), (1.0, 1.1), (2.0, 1.6), (10.0, 1.05)):
        assert ((shrink(truth + z, torch.ones_like(z)) - truth) ** 2).mean() < bound


# coupling --------------------------------------------------------------------------------------------------


FRAMES = [IDENTITY, Symmetry((1, 0)), Symmetry((1, 2), (-1,), False), Symmetry((0, 3), (-2, -1), False)]


def matrix(coupling: Coupling, shape: tuple[int, int]) -> Tensor:
    """L as a dense matrix, column by column."""
    v = shape[0] * shape[1]
    return coupling(torch.eye(v, dtype=torch.float64).reshape(v, *shape)).reshape(v, v).T


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("shape", [(4, 4), (4, 6), (2, 2)])
def test_coupling_has_determinant_one_and_subtracts_to_invert(
    shape: tuple[int, int], frame: Symmetry
) -> None:
    model, h = free_model(shape, 0.2), 2 * white(shape, 1, 1)
    coupling = Coupling.of(model, torch.tensor(0.5).double(), h, frame)
    dense = matrix(coupling, shape)
    v = len(dense)
    one = torch.eye(v, dtype=torch.float64)
    assert float(torch.linalg.det(one + dense)) == pytest.approx(1, abs=1e-10)
    assert (dense @ dense).abs().max() == 0  # from even to odd and no further
    torch.testing.assert_close(torch.linalg.inv(one + dense), one - dense, rtol=0, atol=1e-10)
    eps = white(shape, 1, 2)
    there = eps + coupling(eps)
    torch.testing.assert_close(there - coupling(there), eps, rtol=0, atol=1e-12)
    assert (there - eps).abs().max() > 0.05
    even = coupling.even.flatten() == 1
    assert int(even.sum()) == v // 2
    assert dense[even].abs().max() == 0
    assert dense[:, ~even].abs().max() == 0
    # the block that is left is that of the symmetric matrix Q diag(h) Q
    p = model.momenta
    _, c = model.base.wiener(torch.tensor([0.5]).double())
    q = p.colour(one.reshape(v, *shape), c[0] / ((p.multiplicity * c[0]).sum() / p.volume)).reshape(v, v)
    full = q @ torch.diag(h.flatten()) @ q
    torch.testing.assert_close(dense[~even][:, even], full[~even][:, even], rtol=0, atol=1e-12)
    assert float((q @ q).diagonal().mean()) == pytest.approx(1)


@pytest.mark.parametrize("g", [Symmetry((1, 0)), Symmetry((1, 1), (-1,)), Symmetry((2, 1), (-2,), True)])
def test_coupling_moves_with_its_frame(g: Symmetry) -> None:
    """L of a transformed field in the transformed frame is the transformed L."""
    model, h, eps = free_model((4, 4), 0.2), white((4, 4), 3, 3), white((4, 4), 3, 4)
    sigma = torch.tensor(0.5).double()
    here = Coupling.of(model, sigma, h, g)(eps)
    there = Coupling.of(model, sigma, g(h), IDENTITY)(g(eps))
    torch.testing.assert_close(there, g(here), rtol=0, atol=1e-12)
    if (sum(g.shift) + len(g.flip)) % 2:  # an odd number of steps exchanges the sublattices
        assert (Coupling.of(model, sigma, g(h), g)(g(eps)) - g(here)).abs().max() > 0.05


# calibration -----------------------------------------------------------------------------------------------


def likelihood(path: ReversePath, phi: Tensor) -> tuple[Tensor, Tensor]:
    """Per step: power of the whitened residual over its expectation (N, n_class), and log R (N, n)."""
    noise, x, powers, found = noise_of("test/fresh", len(phi), path.model.shape, 9), phi, [], []
    p = path.momenta
    for step in range(path.kernel.n_levels):
        delta = path.kernel.levels[step + 1] ** 2 - path.kernel.levels[step] ** 2
        high = x + delta.sqrt() * noise(step)
        law = path.reverse(high, step, IDENTITY)
        residual = (x - p.fields(law.mean)) * torch.exp(-0.5 * law.tilt)
        powers.append(p.power(residual).mean(0) / path.kernel.variance[step])
        found.append(law.log_density(x))
        x = high
    return torch.stack(powers), torch.stack(found)


def without(path: ReversePath, name: str, fresh: Tensor) -> ReversePath:
    """The path with `name` zero and with the variances that then suit the fields best."""
    other = ReversePath(path.model, copy.deepcopy(path.kernel))
    getattr(other.kernel, name).zero_()
    other.kernel.variance[:, 1:] *= likelihood(other, fresh)[0][:, 1:]
    return other


def test_the_last_step_follows_the_site_posterior() -> None:
    """Its variance is that of phi at a site given its noisy neighbourhood: tilt 1, no free parameter."""
    kernel = strong_path().kernel
    assert float(kernel.tilt[0]) == pytest.approx(1, abs=0.1)
    assert (kernel.tilt > 0.1).all()


def test_variances_match_fresh_residuals() -> None:
    path, p = strong_path(), strong_path().momenta
    power = likelihood(path, strong_fields(6))[0][:, 1:]
    error = (2 / (N * p.multiplicity[1:])).sqrt()
    assert ((power - 1).abs() < 0.05 + 4 * error).all()
    assert ((((power - 1) * p.multiplicity[1:]).sum(1) / p.volume).abs() < 0.02).all()
    wide = ReversePath(path.model, copy.deepcopy(path.kernel))
    wide.kernel.variance *= 1.05  # negative control
    power = likelihood(wide, strong_fields(6))[0][:, 1:]
    assert ((((power - 1) * p.multiplicity[1:]).sum(1) / p.volume).abs() > 0.025).all()


@pytest.mark.parametrize("name", ["tilt", "coupling"])
def test_fresh_fields_are_likelier_with(name: str) -> None:
    path, fresh = strong_path(), strong_fields(6)
    best = ReversePath(path.model, copy.deepcopy(path.kernel))
    best.kernel.variance[:, 1:] *= likelihood(best, fresh)[0][:, 1:]
    gain = (likelihood(best, fresh)[1] - likelihood(without(path, name, fresh), fresh)[1]).sum(0)
    assert gain.mean() > 4 * gain.std() / math.sqrt(N)
    # negative control: of the wrong sign it is a loss
    wrong = ReversePath(path.model, copy.deepcopy(path.kernel))
    getattr(wrong.kernel, name).mul_(-1)
    wrong.kernel.variance[:, 1:] *= likelihood(wrong, fresh)[0][:, 1:]
    loss = (likelihood(wrong, fresh)[1] - likelihood(best, fresh)[1]).sum(0)
    assert loss.mean() < -4 * loss.std() / math.sqrt(N)


def test_calibration_is_bitwise_a_function_of_its_arguments() -> None:
    phi, model = strong_fields(5)[:512], strong_path().model
    noise = noise_of("test/again", 512, SHAPE)
    first, again, other = (
        calibrated(model, LEVELS, phi, n, still, chunk=256)
        for n in (noise, noise, noise_of("test/other", 512, SHAPE))
    )
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in vars(first))
    assert not torch.equal(first.variance, other.variance)


def test_blocks_do_not_change_the_kernel() -> None:
    """Calibrated in blocks of 37 fields with keyed noise, and all at once; the fields stay as they are."""
    phi, model = strong_fields(5)[:300], strong_path().model
    keyed, before = KeyedNoise(1, "test/blocks", np.arange(300), SHAPE), phi.clone()
    streamed = calibrated(model, LEVELS, phi, keyed, still, chunk=37)
    whole = calibrated(model, LEVELS, phi, lambda step: keyed(step), still, chunk=10**6)
    assert torch.equal(phi, before)
    for name, value in vars(whole).items():
        assert torch.allclose(getattr(streamed, name), value, rtol=1e-7, atol=1e-10), name


def test_free_field_keeps_the_prediction() -> None:
    """Nothing to measure: no tilt, no coupling, c_n(k) the prediction to its statistical error."""
    model, n, shape = free_model((4, 4), 0.2), 2048, (4, 4)
    phi = model.momenta.colour(white(shape, n, 20), model.base.g)
    model.base.zero_mode.fit(model.momenta.modes(phi)[..., 0, 0].real)
    levels = geometric(6, 0.05, 8.0)
    kernel = calibrated(model, levels, phi, noise_of("test/free", n, shape), still)
    plain = Kernel.predicted(model, levels)
    assert kernel.tilt.abs().max() == 0
    assert kernel.coupling.abs().max() == 0
    assert ((kernel.variance / plain.variance)[:, 1:].log().abs() < 4 * math.sqrt(2 / n)).all()


class Broken(LatticeScore):
    """A denoiser that overflows at small sigma."""

    def denoise(self, xk: Tensor, sigma: Tensor, frame: Symmetry = IDENTITY) -> tuple[Tensor, Tensor]:
        d, log_variance = super().denoise(xk, sigma, frame)
        return torch.where((sigma < 0.1)[:, None, None], torch.nan, 1.0) * d, log_variance


def test_a_model_that_is_not_finite_is_refused() -> None:
    base, shape = free_model((4, 4), 0.2).base, (4, 4)
    base.zero_mode.fit(white((), 1000, 21))
    phi, levels = white(shape, 64, 22), geometric(6, 0.05, 8.0)
    noise = noise_of("test/nan", 64, shape)
    with pytest.raises(InputError, match=r"denoiser is not finite at sigma = 0\.05"):
        calibrated(Broken(base, None), levels, phi, noise, still)
    calibrated(LatticeScore(base, None), levels, phi, noise, still)


def test_calibration_on_fresh_fields() -> None:
    action, shape = ScalarPhi4(0.25, 0.2), (8, 8)
    phi, fresh = equilibrium(action, shape, 4096), equilibrium(action, shape, 4096, 6)
    path = calibrated_path(phi4_model(action, phi), 6, phi)
    power = likelihood(path, fresh)[0][:, 1:]  # the zero mode has a law of its own
    multiplicity = path.momenta.multiplicity[1:]
    error = (2 / (4096 * multiplicity)).sqrt()
    # never narrower, one or two percent wider, up to the smoothness of the fit in k
    assert ((power - 1).abs() < 0.05 + 4 * error).all()
    weight = multiplicity / path.momenta.volume
    assert (((power - 1) * weight).sum(1).abs() < 0.015).all()
    flat = ReversePath(path.model, path.kernel.__class__(**vars(path.kernel)))
    flat.kernel.tilt = torch.zeros_like(path.kernel.tilt)
    flat.kernel.variance = path.kernel.variance.clone()
    for each in (flat, path):  # both with the variances that suit these fields best
        each.kernel.variance[:, 1:] *= likelihood(each, fresh)[0][:, 1:]
    gain = (likelihood(path, fresh)[1] - likelihood(flat, fresh)[1]).sum(0)
    assert (path.kernel.tilt > 0).sum() > 3, "narrow where the site posterior is narrow"
    assert gain.mean() > 4 * gain.std() / math.sqrt(len(gain))


def test_calibration_is_a_function_of_its_arguments() -> None:
    phi = equilibrium(TWO, (2, 2), 4096)
    again = calibrated_path(phi4_model(TWO, phi), 8, phi).kernel
    first = good_path().kernel
    assert all(torch.equal(getattr(again, name), getattr(first, name)) for name in vars(first))

"""Learning of the Gaussian machine against closed forms: gradients, spectra, times, limits; what fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from small_models import noise_of
from torch import Tensor

from diffsq.models.rbm import GaussianRBM
from diffsq.training.contrastive import (
    Learning,
    exact_gap,
    from_gaussian,
    from_rows,
    kernel_of,
    learn,
    second_moments,
)
from lattice.errors import InputError
from lattice.exact import gaussian_rbm as exact

N, MU2 = 10, 9.0
KAPPA = exact.chain_kernel(N, 2.0)


def waves() -> Tensor:
    """Orthonormal modes (N, N) of the ring, columns in the order of KAPPA."""
    kernel = 6 * torch.eye(N, dtype=torch.float64)
    ring = torch.arange(N)
    kernel[ring, (ring + 1) % N] = kernel[(ring + 1) % N, ring] = -1.0
    return torch.linalg.eigh(kernel)[1]


MODES = waves()
SECOND = MODES @ torch.diag(1 / torch.from_numpy(KAPPA)) @ MODES.T
ROOT = MODES @ torch.diag(torch.from_numpy(KAPPA) ** -0.5)


def start(n_hidden: int = N, mu2: float = MU2, width: float = 0.1, n: int | None = None) -> GaussianRBM:
    noise = noise_of("learn/w", n or 1, (N, n_hidden))(0)
    return GaussianRBM.initial(N, n_hidden, mu2, width, noise if n else noise[0])


def last(steps: Iterator[tuple[int, GaussianRBM]]) -> GaussianRBM:
    for _, machine in steps:  # noqa: B007
        pass
    return machine


def test_the_exact_gradient_is_that_of_the_likelihood() -> None:
    """Of W and mu^2, by automatic differentiation of ln p of data."""
    machine, phi = start(4, width=0.5), noise_of("learn/phi", 50, (N,))(0)
    machine.w.requires_grad_()
    machine.mu2.requires_grad_()
    known = torch.autograd.grad(machine.log_prob(phi).mean(), [machine.w, machine.mu2])
    gap = exact_gap(machine, second_moments(phi))
    for one, other in zip((gap @ machine.w, -0.5 * gap.diagonal().sum()), known, strict=True):
        assert (one - other).abs().max() < 1e-12
        assert other.abs().max() > 1e-2


@pytest.mark.parametrize(("mu2", "n_hidden"), [(9.0, 10), (6.0, 10), (5.0, 10), (9.0, 1), (9.0, 3), (6.0, 7)])
def test_the_learned_spectrum(mu2: float, n_hidden: int) -> None:
    """Cut in the ultraviolet by the mass, and by the number of hidden nodes, infrared first."""
    machine = last(learn(start(n_hidden, mu2), SECOND, Learning(3.0), 1500))
    known = np.sort(exact.learned(KAPPA, mu2, n_hidden))
    found = machine.spectrum.numpy()
    assert np.abs(found - known).max() < 1e-6
    kl = float(machine.divergence(SECOND))
    assert kl == pytest.approx(exact.divergence(KAPPA, exact.learned(KAPPA, mu2, n_hidden)), abs=1e-9)
    if n_hidden < N or mu2 < 8:
        assert kl > 1e-3, "a cut machine cannot be the target"


def test_below_every_kappa_nothing_is_learned() -> None:
    with pytest.raises(InputError, match="learns nothing"):
        last(learn(start(mu2=3.5), SECOND, Learning(0.1), 1))
    machine = last(learn(start(mu2=3.5), SECOND, Learning(3.0), 1000, allow_any_rate=True))
    assert (machine.spectrum - 3.5).abs().max() < 1e-3


@pytest.mark.parametrize("mode", [0, 5, 9])
def test_aligned_modes_follow_the_closed_form(mode: int) -> None:
    """y(t) of small steps; with half of the rate they would be far off."""
    w = 0.1 * MODES
    machine = GaussianRBM(w.clone(), torch.tensor(MU2).double())
    t, rate = [], 0.01
    y = []
    for step, found in learn(machine, SECOND, Learning(rate), 6000):
        if step % 1500 == 0:
            t.append(rate * step)
            y.append(MU2 - float(MODES[:, mode] @ found.kernel @ MODES[:, mode]))
    known = exact.trajectory(np.array(t), 0.01, float(KAPPA[mode]), MU2)
    late = exact.trajectory(np.array(t) / 2, 0.01, float(KAPPA[mode]), MU2)
    assert np.abs(np.array(y) - known).max() < 1e-2 * (MU2 - KAPPA[mode])
    assert np.abs(np.array(y) - late).max() > 0.1 * known.max()


def test_the_span_of_the_weights() -> None:
    """span W(t) = exp(C t) span W(0): the hidden nodes turn to the infrared, whatever they have learned."""
    first, t, rate = start(3), 20.0, 5e-3
    machine = last(learn(first, SECOND, Learning(rate), round(t / rate)))
    turned = torch.linalg.matrix_exp(SECOND * t) @ first.w
    one, other, infrared = (torch.linalg.qr(w)[0] for w in (machine.w, turned, MODES[:, :3]))
    angle = lambda a, b: float(torch.arccos(torch.linalg.svdvals(a.T @ b).clamp(max=1)).max())  # noqa: E731
    assert angle(one, other) < 1e-3
    assert angle(one, infrared) > 0.3


def test_two_modes_turn_at_the_known_rate() -> None:
    kappa, t = torch.tensor([1.0, 3.0]).double(), 4.0
    machine = GaussianRBM(0.1 * torch.tensor([[np.cos(1.0)], [np.sin(1.0)]]), torch.tensor(4.0).double())
    found = last(learn(machine, torch.diag(1 / kappa), Learning(1e-3), round(t / 1e-3))).w[:, 0]
    assert float(torch.atan2(found[1], found[0])) == pytest.approx(0.107795, abs=3e-4)


@pytest.mark.parametrize("k", [1, 3])
def test_contrastive_divergence_in_expectation(k: int) -> None:
    """D - R^k D R^k is the mean of sampled gradients; aligned, the known fraction of the exact one."""
    machine = start(4, width=0.6)
    n = 100_000 if k == 1 else 400_000
    expected = exact_gap(machine, SECOND, k)
    phi = noise_of("learn/cd", n, (N,))(0) @ ROOT.T
    chain = phi
    for sweep in range(k):
        chain = machine.gibbs(chain, noise_of("learn/h", n, (4,))(sweep), noise_of("learn/v", n, (N,))(sweep))
    products = phi[:, :, None] * phi[:, None] - chain[:, :, None] * chain[:, None]
    mean, error = products.mean(0), products.std(0) / n**0.5
    assert ((mean - expected).abs() < 4.5 * error).all()
    unlike = exact_gap(machine, SECOND)
    assert ((mean - unlike).abs() > 10 * error).any()
    aligned = GaussianRBM(1.2 * MODES, torch.tensor(MU2).double())
    gaps = [MODES.T @ exact_gap(aligned, SECOND, how) @ MODES for how in (k, None)]
    factor = (gaps[0].diagonal() / gaps[1].diagonal()).numpy()
    np.testing.assert_allclose(factor, exact.cd_factor(np.full(N, 1.44), MU2, k), rtol=1e-9)


@pytest.mark.parametrize(("method", "k"), [("cd", 1), ("cd", 3)])
def test_contrastive_divergence_has_the_same_fixed_points(method: str, k: int) -> None:
    machine = last(learn(start(), SECOND, Learning(3.0, method, k), 3000))
    assert np.abs(machine.spectrum.numpy() - KAPPA).max() < 1e-4


def test_rates_above_the_limit_are_refused_with_the_mode() -> None:
    """3.0 converges at kappa = 4, 3.4 does not: the limit is 3.2, for CD-1 over 0.691."""
    with pytest.raises(
        InputError, match="rate of 3.4 is unstable.*mode 0 with kappa = 4 allows less than 3.2$"
    ):
        last(learn(start(), SECOND, Learning(3.4), 1))
    with pytest.raises(InputError, match="less than 4.62857"):
        last(learn(start(), SECOND, Learning(4.7, "cd"), 1))
    last(learn(start(), SECOND, Learning(4.5, "cd"), 1))
    near = GaussianRBM(0.95 * MODES * (MU2 - torch.from_numpy(KAPPA)).sqrt(), torch.tensor(MU2).double())
    stable = last(learn(near, SECOND, Learning(3.1), 3000))
    assert np.abs(stable.spectrum.numpy() - KAPPA).max() < 1e-3
    unstable = last(learn(near, SECOND, Learning(3.4), 3000, allow_any_rate=True))
    assert abs(float(unstable.spectrum[0]) - 4) > 0.1
    with pytest.raises(InputError, match="K = mu.2 - s.2 W W.T is not positive"):
        last(learn(near, SECOND, Learning(20.0), 100, allow_any_rate=True))


def test_the_natural_gradient_relaxes_all_modes_alike() -> None:
    """1/(relaxation rate) of every mode is 2 y*, where the plain gradient has kappa^2 between them."""
    kappa = torch.logspace(-2, 0, N).double()
    second = torch.diag(1 / kappa)
    star = 4.0 - kappa
    near = GaussianRBM(torch.diag((star * 0.99).sqrt()), torch.tensor(4.0).double())
    rate = 1e-3
    closer = GaussianRBM(torch.diag((star - 1e-6).sqrt()), torch.tensor(4.0).double())
    moved = last(learn(closer, second, Learning(rate, natural=True), 1))
    change = (moved.kernel - closer.kernel).diagonal() / 1e-6 / rate
    assert (change / (-2 * star) - 1).abs().max() < 0.01
    plain = last(learn(closer, second, Learning(1e-5), 1))
    change = (plain.kernel - closer.kernel).diagonal() / 1e-6 / 1e-5
    assert float(change.max() / change.min()) < 1e-2
    with pytest.raises(InputError, match="allows less than 0.2506"):
        last(learn(near, second, Learning(0.26, natural=True), 1))
    flat = second.clone()
    flat[9, 9] = 0
    with pytest.raises(InputError, match="1 of 10 modes have no variance"):
        last(learn(near, flat, Learning(0.1, natural=True), 1))
    with pytest.raises(InputError, match="1 of 10 modes have no variance"):
        last(learn(near, flat, Learning(0.1, natural=True), 1, allow_any_rate=True))


@pytest.mark.parametrize("n_hidden", [0, 3, 7])
def test_a_trainable_mass_ends_at_the_harmonic_mean(n_hidden: int) -> None:
    machine = start(max(n_hidden, 1))
    if n_hidden == 0:
        machine = GaussianRBM(torch.zeros(N, 1).double(), machine.mu2)
    machine = last(learn(machine, SECOND, Learning(1.0, mass=True), 8000))
    assert float(machine.mu2) == pytest.approx(exact.best_mass(KAPPA, n_hidden), abs=1e-4)


def test_a_source_learns_the_mean() -> None:
    """Nothing raises the likelihood further, neither of J nor of W."""
    mean = torch.linspace(-1, 1, N).double()
    second = SECOND + torch.outer(mean, mean)
    machine = last(learn(start(), second, Learning(3.0), 1500, mean=mean))
    assert (machine.mean - mean).abs().max() < 1e-9
    assert np.abs(machine.spectrum.numpy() - KAPPA).max() < 1e-6
    phi = noise_of("learn/mean", 4000, (N,))(0) @ ROOT.T + mean
    draw = from_rows(phi, 500, 2)
    noisy = last(
        learn(start(), second_moments(phi), Learning(0.5, "cd", 3), 800, draw=draw, mean=phi.mean(0))
    )
    assert (noisy.mean - mean).abs().max() < 0.05
    assert abs(float((MODES.T @ noisy.kernel @ MODES)[0, 0]) - 4) < 0.5


def test_persistent_chains_are_not_those_of_the_data() -> None:
    """The same first step; from then on PCD's chains remember, and CD's do not."""
    draw = from_gaussian(ROOT, 16, 3)
    ends = {}
    for method in ("cd", "pcd"):
        ends[method] = [m.w for _, m in learn(start(width=0.3), SECOND, Learning(0.1, method), 2, draw=draw)]
    assert torch.equal(ends["cd"][1], ends["pcd"][1])
    assert (ends["cd"][2] - ends["pcd"][2]).abs().max() > 1e-4


def test_minibatches_by_sampling_end_near_the_target() -> None:
    """CD-3 and PCD-3 with fresh data: the mean over machines and time within its error and O(rate/n)."""
    for method in ("cd", "pcd"):
        n, taken = 32, []
        draw = from_gaussian(ROOT, 64, 3, n)
        for step, machine in learn(start(n=n, width=0.3), SECOND, Learning(0.5, method, 3), 600, draw=draw):
            if step >= 300 and step % 20 == 0:
                values = (MODES.T @ machine.kernel @ MODES).diagonal(dim1=-2, dim2=-1)
                taken.append(values[:, 0])
        found = torch.stack(taken).mean(0)
        error = float(found.std()) / n**0.5
        assert abs(float(found.mean()) - 4) < 4 * error + 0.15
        assert error < 0.05


@pytest.mark.parametrize("natural", [False, True])
def test_a_cut_machine_has_the_limit_of_turning_modes(natural: bool) -> None:
    """mu^2 = 4.5 cuts seven modes; below the limit it is learned, above it is refused and would run away."""
    most, mode = Learning(0.1, natural=natural).limit(SECOND, start(mu2=4.5))
    assert (most, mode) == (pytest.approx(0.28125 if natural else 16.0), "mode 9 with kappa = 8")
    machine = last(learn(start(mu2=4.5), SECOND, Learning(0.9 * most, natural=natural), 3000))
    assert np.abs(machine.spectrum.numpy() - np.minimum(KAPPA, 4.5)).max() < 1e-6
    with pytest.raises(InputError, match="unstable.*mode 9"):
        last(learn(start(mu2=4.5), SECOND, Learning(1.1 * most, natural=natural), 1))


def test_a_mass_that_starts_too_small_grows_and_one_that_runs_away_is_stopped() -> None:
    machine = last(learn(start(3, mu2=3.5), SECOND, Learning(0.5, mass=True), 8000))
    assert float(machine.mu2) == pytest.approx(exact.best_mass(KAPPA, 3), abs=1e-3)
    many = torch.diag(torch.cat([torch.ones(1), torch.full((200,), 1 / 1.2)])).double()
    wide = GaussianRBM(torch.full((201, 1), 1e-3).double(), torch.tensor(1.2).double())
    with pytest.raises(InputError, match="the mass with its modes allows less than 0.02859"):
        last(learn(wide, many, Learning(0.03, mass=True), 1))
    assert float(last(learn(wide, many, Learning(0.02, mass=True), 20)).mu2) == pytest.approx(1.2, abs=0.01)
    draw = from_gaussian(ROOT, 4, 3)
    wild = Learning(50.0, "cd", mass=True)
    with pytest.raises(InputError, match="not positive .* after step|NaN or infinite after step"):
        last(learn(start(), SECOND, wild, 50, draw=draw, allow_any_rate=True))


def test_momentum_makes_the_limit_larger_by_as_much_as_is_said() -> None:
    """1 + b, of a heavy ball in a parabola (Polyak, USSR Comput. Math. Math. Phys. 4 (1964) 1)."""
    near = GaussianRBM((MODES * (MU2 - torch.from_numpy(KAPPA) - 1e-6).sqrt()), torch.tensor(MU2).double())
    most, whole = 1.5 * 3.2, Learning(0.1, momentum=0.5).limit(SECOND, near)
    assert whole[0] < most  # on the way momentum allows less, which this machine has behind it
    assert "on its way" in whole[1]
    off = []
    for rate in (0.95 * most, 1.05 * most):
        how = Learning(rate, momentum=0.5)
        off.append(abs(float(last(learn(near, SECOND, how, 400, allow_any_rate=True)).spectrum[0]) - 4))
    assert off[0] < 1e-8
    assert off[1] > 1e-2


def test_momentum_and_cooling() -> None:
    """A heavy ball is 1/(1 - b) faster on a slow mode; a rate that cools to nothing stops."""
    plain = last(learn(start(), SECOND, Learning(0.5), 400))
    heavy = last(learn(start(), SECOND, Learning(0.5, momentum=0.8), 400))
    most = [float(machine.spectrum[-1]) for machine in (plain, heavy)]
    assert most[1] < most[0] - 0.3
    frozen = [
        last(learn(start(), SECOND, Learning(0.5, cooling=0.5, period=10), n)).spectrum for n in (400, 800)
    ]
    assert (frozen[0] - frozen[1]).abs().max() < 1e-8
    still = last(learn(start(), SECOND, Learning(0.0), 5))
    assert torch.equal(still.w, start().w)


def test_epochs_hold_every_row_once() -> None:
    rows = torch.arange(12.0).double()[:, None].expand(12, 2)
    draw = from_rows(rows, 4, seed=5, n_machines=3)
    for epoch in range(2):
        seen = torch.cat([draw(3 * epoch + part)[..., 0] for part in range(3)], 1)
        assert torch.equal(seen.sort(1).values, rows[:, 0].expand(3, 12))
        assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(draw(0), draw(3))
    assert from_rows(rows, 4, seed=5)(0).shape == (4, 2)


def test_kernel_of_flat_modes() -> None:
    second = torch.diag(torch.tensor([2.0, 0.0, 0.5, 1e-15])).double()
    np.testing.assert_array_equal(kernel_of(second), [0.5, 2, np.inf, np.inf])


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"rate": -1.0}, "need rate >= 0"), ({"rate": 0.1, "method": "sgd"}, "no method 'sgd'.*exact, cd, pcd"),
     ({"rate": 0.1, "k": 0}, "at least 1"), ({"rate": 0.1, "momentum": 1.0}, "momentum < 1")],
)  # fmt: skip
def test_bad_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Learning(**settings)


def test_bad_data() -> None:
    rows = torch.zeros(8, 2).double()
    with pytest.raises(InputError, match="batch of 9 fields needs as many, the data has 8"):
        from_rows(rows, 9, 1)
    rows[3, 1] = torch.nan
    with pytest.raises(InputError, match="1 of 8 fields are NaN"):
        from_rows(rows, 4, 1)
    skew = SECOND.clone()
    skew[0, 1] += 1
    for wrong in (skew, SECOND * torch.nan):
        with pytest.raises(InputError, match="finite, symmetric matrix"):
            last(learn(start(), wrong, Learning(0.1), 1))
    sourced = start()
    sourced.source = torch.ones(N).double()
    with pytest.raises(InputError, match="give mean"):
        last(learn(sourced, SECOND, Learning(0.1), 1))
    with pytest.raises(InputError, match="pcd needs mini-batches"):
        last(learn(start(), SECOND, Learning(0.1, "pcd"), 1))

"""Mini-batches make the weights of a Gaussian machine a random matrix: pairs of levels repel as Wigner's."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.stats import kstest
from torch import Tensor

from diffsq.models.rbm import GaussianRBM
from diffsq.training.contrastive import Learning, from_gaussian, learn
from lattice.exact.gaussian_rbm import chain_kernel
from lattice.exact.random_matrix import SPREAD_GOE, wigner_cdf

MU2, RATE, N = 9.0, 0.1, 1500
CHAIN = chain_kernel(10, 2.0)
WIGNER_WIDTH = math.sqrt(SPREAD_GOE - 1)  # standard deviation of S over its mean


def trained(
    kappa: list[float], batch: int, rate: float = RATE, times: tuple[int, ...] = (160, 320), n: int = N
) -> Tensor:
    """K (len(times) n, modes, modes) in the modes of the target, trained from the optimum with fresh data."""
    target = torch.tensor(kappa).double()
    w = torch.diag((MU2 - target).sqrt()).expand(n, len(kappa), len(kappa)).clone()
    machine = GaussianRBM(w, torch.full((n,), MU2).double())
    draw = from_gaussian(torch.diag(target**-0.5), batch, 11, n)
    steps = learn(machine, torch.diag(1 / target), Learning(rate), max(times), draw=draw)
    return torch.cat([found.kernel for step, found in steps if step in times])


def levels(kappa: list[float], batch: int, rate: float = RATE, times: tuple[int, ...] = (160, 320)) -> Tensor:
    """Eigenvalues of these K."""
    found: Tensor = torch.linalg.eigvalsh(trained(kappa, batch, rate, times))
    return found


def spacing(levels: Tensor) -> np.ndarray:
    found: np.ndarray = levels.diff(dim=1)[:, 0].numpy()
    return found


def amplitude(kappa: float, rate: float, batch: int) -> float:
    """<S> at leading order in rate/batch: sqrt(2 pi rate x/batch) (1 - rate x/kappa^2)^(-1/2)."""
    x = MU2 - kappa
    return math.sqrt(2 * math.pi * rate * x / batch / (1 - rate * x / kappa**2))


def test_a_pair_repels_with_the_known_amplitude() -> None:
    kappa = 4.381966
    s = spacing(levels([kappa, kappa], 256))
    error = WIGNER_WIDTH / math.sqrt(len(s))
    assert abs(s.mean() / amplitude(kappa, RATE, 256) - 1) < 4 * error + 0.01
    assert abs((s**2).mean() / s.mean() ** 2 - SPREAD_GOE) < 0.03
    assert kstest(s / s.mean(), wigner_cdf).pvalue > 1e-3
    assert abs(s.mean() / math.sqrt(math.pi * RATE * (MU2 - kappa) / 256) - 1) > 20 * error  # without the 2


def test_the_square_root_fails_where_the_noise_is_large_but_only_the_ratio_counts() -> None:
    """At rate/batch = 1/40 neighbours of the whole spectrum are a fifth and more closer than the square root
    says, the same for both (rate, batch): levels of other modes come between. The pair's own block is nearer.
    """
    n, sorted_, own = 500, [], []
    for rate, batch, times in ((0.1, 4, (120, 240)), (0.4, 16, (30, 60))):
        kernels = trained(CHAIN.tolist(), batch, rate, times, n)
        known = amplitude(float(CHAIN[1]), rate, batch)
        sorted_.append(spacing(torch.linalg.eigvalsh(kernels)[:, 1:3]) / known)
        own.append(spacing(torch.linalg.eigvalsh(kernels[:, 1:3, 1:3])) / known)
    error = WIGNER_WIDTH / math.sqrt(2 * n)
    assert all(s.mean() < 1 - 10 * error for s in sorted_)
    assert abs(sorted_[0].mean() - sorted_[1].mean()) < 4 * math.sqrt(2) * error
    assert all(0.85 < s.mean() < 1 + 4 * error for s in own)
    for one, other in zip(own, sorted_, strict=True):  # of the same matrices
        gap = one - other
        assert gap.mean() > 10 * gap.std() / math.sqrt(2 * n)
    assert all(kstest(s / s.mean(), wigner_cdf).pvalue > 1e-4 for s in own)


def test_levels_apart_are_not_a_pair() -> None:
    """kappa = 4 and 8: the lower has the variance 2 rate x/batch (1 - rate x/kappa^2)^(-1); no surmise."""
    found = levels([4.0, 8.0], 256, times=(160, 320, 480))
    s = spacing(found)
    assert kstest(s / s.mean(), wigner_cdf).pvalue < 1e-20
    x = MU2 - 4.0
    known = 2 * RATE * x / 256 / (1 - RATE * x / 16)
    variance = float(found[:, 0].var())
    assert abs(variance / known - 1) < 4 * math.sqrt(2 / len(found)) + 0.02


def test_without_a_rate_nothing_moves() -> None:
    kappa = 4.381966
    assert torch.equal(levels([kappa, kappa], 8, 0.0, (3,)), levels([kappa, kappa], 8, 0.0, (1,)))

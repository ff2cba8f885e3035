"""The Gaussian machine: its marginal, exact samples, Gibbs chain and divergence against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_models import noise_of
from torch import Tensor

from diffsq.models.rbm import GaussianRBM
from lattice.errors import InputError
from lattice.exact.gaussian_rbm import divergence, gibbs_rho

N, HIDDEN, MU2, S = 5, 3, 4.0, 0.8


def white(name: str, *shape: int) -> Tensor:
    return noise_of(f"rbm/{name}", shape[0], shape[1:])(0)


def machine(source: bool = False) -> GaussianRBM:
    found = GaussianRBM.initial(N, HIDDEN, MU2, 0.6, white("w", N, HIDDEN), S)
    if source:
        found.source = white("source", 1, N)[0]
    return found


@pytest.mark.parametrize("source", [False, True])
def test_the_marginal_of_the_energy(source: bool) -> None:
    """ln p(phi) up to a constant is -E with h integrated out, and its norm that of a Gaussian."""
    one = machine(source)
    phi = white("phi", 7, N)
    h = torch.linspace(-25, 25, 401, dtype=torch.float64)
    single = GaussianRBM(one.w[:, :1], one.mu2, one.source, S)
    j = torch.zeros(N, dtype=torch.float64) if one.source is None else one.source
    energy = (
        (0.5 * MU2 * (phi**2).sum(1) - phi @ j)[:, None]
        + h**2 / (2 * S**2)
        - (phi @ single.w[:, 0])[:, None] * h
    )
    known = torch.logsumexp(-energy, 1)
    difference = single.log_prob(phi) - known
    assert (difference - difference[0]).abs().max() < 1e-9
    normal = torch.distributions.MultivariateNormal(one.mean, precision_matrix=one.kernel)
    assert (one.log_prob(phi) - normal.log_prob(phi)).abs().max() < 1e-10


@pytest.mark.parametrize("source", [False, True])
def test_exact_samples_and_gibbs_sweeps_have_its_moments(source: bool) -> None:
    one, n = machine(source), 40_000
    phi = one.sample(white("sample", n, N))
    swept = one.gibbs(phi, white("h", n, HIDDEN), white("v", n, N))
    covariance = torch.linalg.inv(one.kernel)
    error = torch.sqrt((covariance**2 + covariance.diagonal()[:, None] * covariance.diagonal()) / n)
    for fields in (phi, swept):
        apart = fields - one.mean
        assert ((apart.T @ apart / n - covariance).abs() < 4.5 * error).all()
        assert (apart.mean(0).abs() < 4.5 * (covariance.diagonal() / n).sqrt()).all()
    wrong = one.gibbs(phi, 1.3 * white("h", n, HIDDEN), white("v", n, N)) - one.mean
    assert ((wrong.T @ wrong / n - covariance).abs() > 10 * error).any()


def test_gibbs_forgets_as_slowly_as_is_known() -> None:
    one, n = machine(), 200_000
    values, modes = torch.linalg.eigh(one.kernel)
    phi = one.sample(white("sample", n, N))
    swept = one.gibbs(phi, white("h", n, HIDDEN), white("v", n, N))
    rho = ((phi @ modes) * (swept @ modes)).mean(0) * values
    known = gibbs_rho(values.numpy(), MU2)
    assert (np.abs(rho.numpy() - known) < 4.5 * np.sqrt((1 + known**2) / n)).all()
    assert known.max() > 0.5


def test_divergence_and_likelihood() -> None:
    one = machine()
    kappa, modes = torch.linspace(0.5, 6, N, dtype=torch.float64), torch.linalg.eigh(one.kernel)[1]
    second = modes @ torch.diag(1 / kappa) @ modes.T
    known = divergence(kappa.numpy(), one.spectrum.numpy())
    assert float(one.divergence(second)) == pytest.approx(known, rel=1e-12)
    root = torch.linalg.cholesky(second)
    target = torch.distributions.MultivariateNormal(torch.zeros(N).double(), second)
    phi = white("kl", 100_000, N) @ root.T
    gap = target.log_prob(phi) - one.log_prob(phi)
    assert abs(float(gap.mean()) - known) < 4 * float(gap.std()) / math.sqrt(len(phi))


def test_many_machines_at_once_are_those_alone() -> None:
    noise = noise_of("rbm/many", 3, (N, HIDDEN))(0)
    many = GaussianRBM.initial(N, HIDDEN, MU2, 0.5, noise, S)
    phi = noise_of("rbm/fields", 3, (7, N))(0)
    many.source = noise_of("rbm/sources", 3, (N,))(0)
    for i in range(3):
        alone = GaussianRBM(many.w[i], many.mu2[i], many.source[i], S)
        assert (many.log_prob(phi)[i] - alone.log_prob(phi[i])).abs().max() < 1e-12
        assert (many.spectrum[i] - alone.spectrum).abs().max() < 1e-12
        assert (many.sample(phi)[i] - alone.sample(phi[i])).abs().max() < 1e-12


def test_bad_input() -> None:
    with pytest.raises(InputError, match="not positive .lowest -.* take a smaller width"):
        GaussianRBM.initial(N, HIDDEN, MU2, 3.0, white("w", N, HIDDEN))
    w = torch.stack([white("w", N, HIDDEN) * 0.1, white("w", N, HIDDEN) * 5])
    two = GaussianRBM(w, torch.full((2,), MU2).double())
    with pytest.raises(InputError, match="not positive in 1 of 2 machines"):
        two.sample(torch.zeros(2, 1, N).double())
    with pytest.raises(InputError, match="noise for weights"):
        GaussianRBM.initial(N, HIDDEN, MU2, 0.1, white("w", HIDDEN, N))
    with pytest.raises(InputError, match="must be positive"):
        GaussianRBM.initial(N, HIDDEN, -1.0, 0.1, white("w", N, HIDDEN))
    rows = white("few", 3, N)
    for flat in (torch.diag(torch.tensor([1.0, 1, 1, 1, 0])).double(), rows.T @ rows / 3):
        with pytest.raises(InputError, match="without variance"):
            machine().divergence(flat)
    with pytest.raises(InputError, match="visible and hidden nodes"):
        GaussianRBM.initial(N, 0, MU2, 0.1, torch.zeros(N, 0))
    lost = machine()
    lost.w[0, 0] = torch.nan
    with pytest.raises(InputError, match="weights or mu.2 are NaN"):
        lost.sample(torch.zeros(2, N).double())
    with pytest.raises(InputError, match="without source"):
        machine(True).divergence(torch.eye(N).double())

r"""The effective action of a law without an action, on local terms: learned, exact, and to first order in
1/N.

At noise sigma the law p of x = f + sigma eps has an action S = -ln p, whatever f has (fewer neurons than
sites have no density). Its least-squares projection on terms O_j with g_j = dO_j/dx solves

    sum_j <g_i . g_j> c_j = <g_i . dS/dx> = <div g_i>                  (integrate by parts, for every p)

so that averages of polynomials say what it is: phi^2, phi^4 and the hopping need <x^2>, <x^4>, <x^6>, G_r and
<x_0^3 x_r> at neighbours, all known of nets of the lattice. A learned score s gives <g_i . (-s)> in place of
the right-hand side. To first order in kappa_4 ~ 1/N, K = (G + sigma^2)^-1,

    S = 1/2 x K x - (1/4!) sum kappa_4(1,2,3,4) [y_1 y_2 y_3 y_4 - 6 K_12 y_3 y_4 + 3 K_12 K_34],   y = K x

(Edgeworth), and the same projection of it is c = A_0^-1 b - A_0^-1 A_1 A_0^-1 b, A_0 of the free field, A_1
linear in kappa_4. kappa_4(0,0,0,r) = [(3/2) <a^4> - 3] G0 G_r/N of plane waves; <a^4> rho^-1 sum_c g(c)^3
g(r-c) of neurons with places, less 3 G0 G_r/N where their number is fixed.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from diffsq.analysis.effective_action import BARE, CHUNK, gradients
from diffsq.models.lattice import LatticeScore
from diffsq.models.symmetry import IDENTITY, Symmetry
from lattice.actions.networks import FreeNet, LocalNet, Network
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.exact.network_fields import correlations, profile, site_cumulants
from lattice.statistics.blocks import jackknife_of


def as_free_net(law: Network) -> FreeNet:
    """The law as a net of the lattice, or `InputError`."""
    if not isinstance(law, FreeNet):
        raise InputError(f"kappa_4 of neighbours is known for cos_net and local_net, not {law.kind}")
    return law


def three_and_one(law: Network, shape: tuple[int, ...]) -> Floats:
    """kappa_4(0, 0, 0, r), (*shape); at r = 0 that of a site. Raises `InputError` for nets of inputs."""
    net = as_free_net(law)
    g, own, n = correlations(net, shape), net.own_moment(4), net.neurons(shape)
    disconnected = 3 * g.flat[0] * g
    if isinstance(net, LocalNet):
        here = profile(net, shape)
        waves = np.conj(np.fft.fftn(here**3)) * np.fft.fftn(here)
        found = own * np.fft.ifftn(waves).real / net.rho
        if not net.poisson:
            found = found - disconnected / n
    else:
        found = (1.5 * own * g.flat[0] * g - disconnected) / n
    return np.asarray(net.factor_moment(4) * (found + disconnected) - disconnected)


def known_couplings(law: Network, shape: tuple[int, ...], sigma: float) -> dict[str, dict[str, float]]:
    """Projection of S at noise sigma on kappa, mass (1 - 2 lam) and lam: {"exact", "first", "free"}, each by
    term; two dimensions. "first" is to first order in kappa_4, "free" without it."""
    if len(shape) != 2:
        raise InputError(f"the terms are those of two dimensions, got {list(shape)}")
    net = as_free_net(law)
    g, kappa, noisy = correlations(net, shape), site_cumulants(net, shape, 6), sigma**2
    steps = ((1, 0), (-1, 0), (0, 1), (0, -1))
    p2, near = kappa[2] + noisy, sum(float(g[step]) for step in steps)
    g = g.copy()
    g[0, 0] += noisy
    both = sum(float(g[a[0] - b[0], a[1] - b[1]]) for a in steps for b in steps)
    cubic = sum(float(three_and_one(net, shape)[step]) for step in steps)

    def matrix(k4: float, k6: float, three: float) -> Floats:
        x4, x6 = k4 + 3 * p2**2, k6 + 15 * k4 * p2 + 15 * p2**3
        mixed = three + 3 * p2 * near
        return np.array([
            [4 * both, -4 * near, -8 * mixed], [-4 * near, 4 * p2, 8 * x4], [-8 * mixed, 8 * x4, 16 * x6],
        ])  # fmt: skip

    side, free = np.array([0.0, 2.0, 12 * p2]), matrix(0.0, 0.0, 0.0)
    change = matrix(kappa[4], 0.0, cubic) - free
    start = np.linalg.solve(free, side)
    whole = np.linalg.solve(matrix(kappa[4], kappa[6], cubic), side)
    first = start - np.linalg.solve(free, change @ start)
    names = {"exact": whole, "first": first, "free": start}
    return {name: dict(zip(BARE, map(float, c), strict=True)) for name, c in names.items()}


@torch.no_grad()
def learned_couplings(
    model: LatticeScore, x: Tensor, sigma: float, chain: Integers | None = None, frame: Symmetry = IDENTITY
) -> dict[str, tuple[float, float]]:
    """The same projection of the model's score at noised fields x (n, L0, L1), with jackknife errors.

    chain (n,): of each field. x must be fields that the model was not trained on, with noise sigma. Raises
    `InputError` for a score that is not finite.
    """
    parts = torch.split(x, CHUNK)
    score = torch.cat([model.score(part, part.new_full((len(part),), sigma), frame) for part in parts])
    if not torch.isfinite(score).all():
        raise InputError(f"the score at sigma = {sigma:.4g} is not finite")
    return projected(x, score, chain)


def projected(x: Tensor, score: Tensor, chain: Integers | None = None) -> dict[str, tuple[float, float]]:
    """Least squares of -score on g_j(x), by term: value and error."""
    g = gradients(x, BARE)
    size = len(BARE)
    a = torch.einsum("nixy,njxy->nij", g, g).cpu().numpy()
    b = -torch.einsum("nixy,nxy->ni", g, score).cpu().numpy()
    scale = np.sqrt(np.einsum("nii->ni", a).mean(0))
    rows = np.concatenate([rearrange(a / np.outer(scale, scale), "n i j -> n (i j)"), b / scale], 1)

    def coefficient(data: Floats, i: int) -> float:
        m = data.mean(0)
        return float(np.linalg.solve(m[:-size].reshape(size, size), m[-size:])[i] / scale[i])

    found = (jackknife_of(partial(coefficient, i=i), rows, chain=chain) for i in range(size))
    return dict(zip(BARE, found, strict=True))


def compared(law: Any, shape: tuple[int, ...], sigma: float, learned: dict[str, Any]) -> dict[str, Any]:
    """Learned couplings beside the known ones, with `pull` against the exact."""
    known = known_couplings(law, shape, sigma)
    return {
        name: {
            "value": value, "error": error, **{kind: known[kind][name] for kind in known},
            "pull": (value - known["exact"][name]) / error,
        }
        for name, (value, error) in learned.items()
    }  # fmt: skip

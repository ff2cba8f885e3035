r"""A plaquette action learned from links: score matching of S = -sum_p sum_n b_n cos n theta_p.

Least squares of the score (Hyvaerinen, JMLR 6 (2005) 695) is linear in b and knows no normalisation: with
C_n = sum_p cos n theta_p its minimum is the Schwinger-Dyson equation

    sum_m M_nm b_m = r_n,    M_nm = <sum_l d_l C_n d_l C_m>,    r_n = -<sum_l d_l^2 C_n> = 4 n^2 <C_n>,

sums over links l, d_l C_n = -+ n (sin n theta - sin n theta') of the plaquettes on its sides: gauge-invariant
features only. The number of harmonics is that which is best on links held out; errors are the jackknife's,
over blocks of chains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lattice.actions.u1 import circulation
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.statistics.blocks import jackknife_errors

VERSION = 1  # raise it with any change
CHUNK = 2**20  # plaquettes at a time
N_BLOCKS = 50
WIDE = 9.0  # standard deviations of the law of charges, beyond which there is nothing
LEAST_Q = 1e-3  # <Q^2> of the data below which their charges say nothing of a law


@dataclass(frozen=True)
class Harmonics:
    """b (n,) with errors, of `tried` harmonics; loss (tried,): on held-out links, lower is better."""

    b: Floats
    error: Floats
    loss: Floats


def moments(links: Floats, n_harmonics: int) -> Floats:
    """M and r of each configuration, per plaquette: links (n, 2, L0, L1) -> (n, n_harmonics, n_harmonics +
    1)."""
    size = max(1, CHUNK // math.prod(links.shape[-2:]))
    return np.concatenate(
        [_moments(torch.from_numpy(links[i : i + size]), n_harmonics) for i in range(0, len(links), size)]
    )


def _moments(links: Tensor, n_harmonics: int) -> Floats:
    theta, volume = circulation(links), math.prod(links.shape[-2:])
    orders = range(1, n_harmonics + 1)
    slopes = []
    for n in orders:
        s = n * (n * theta).sin()
        slopes.append(torch.stack([s - s.roll(1, -1), s.roll(1, -2) - s], 1).flatten(1))
    d = torch.stack(slopes, 1)
    r = torch.stack([4 * n**2 * (n * theta).cos().sum((-1, -2)) for n in orders], 1)
    found: Floats = (torch.cat([d @ d.mT, r[:, :, None]], 2) / volume).numpy()
    return found


def fit_harmonics(train: Floats, held_out: Floats, chain: Integers, most: int) -> Harmonics:
    """b of training links, the number of harmonics chosen by held-out ones, at most `most`.

    chain (n,) of the training links, for errors. Raises `InputError` where they are all alike.
    """
    own, other = moments(train, most), moments(held_out, most).mean(0)

    def solved(sums: Floats, n: int) -> Floats:
        return np.asarray(np.linalg.solve(sums[:n, :n], sums[:n, -1]))

    mean = own.mean(0)
    if not np.isfinite(mean).all() or np.linalg.matrix_rank(mean[:, :-1]) < most:
        raise InputError(
            f"the links do not tell {most} harmonics of a plaquette action apart; take a smaller "
            "training.n_harmonics"
        )
    loss = []
    for n in range(1, most + 1):
        b = solved(mean, n)
        loss.append(float(0.5 * b @ other[:n, :n] @ b - b @ other[:n, -1]))
    best = int(np.argmin(loss)) + 1
    block = np.unique(chain, return_inverse=True)[1] % N_BLOCKS  # of whole chains
    labels = np.unique(block)
    left_out = np.array([solved(own[block != label].mean(0), best) for label in labels])
    error = jackknife_errors(left_out) if len(labels) > 1 else np.full(best, math.nan)
    return Harmonics(solved(mean, best), error, np.array(loss))


def smooth_charges(charge: Floats) -> tuple[Tensor, Tensor]:
    """A law of charges from those of data: ln P(Q) = -Q^2/(2 t) with their variance, charges that were never
    seen included.

    Raises `InputError` for data that never change their charge: they know nothing of the others.
    """
    square = float((charge**2).mean())
    if square < LEAST_Q:
        raise InputError(
            f"the training links have hardly any charge, <Q^2> = {square:.2g}: they know no P(Q); take "
            "training.sectors: exact, or an ensemble that moves between sectors"
        )
    top = math.ceil(WIDE * math.sqrt(square)) + 3
    q = np.arange(-top, top + 1)
    low, high = 1e-3, 4 * square + 1
    for _ in range(200):
        t = math.sqrt(low * high)
        p = np.exp(-(q**2) / (2 * t))
        low, high = (t, high) if float(p @ q**2 / p.sum()) < square else (low, t)
    log_p = -(q**2) / (2 * t) - math.log(float(np.exp(-(q**2) / (2 * t)).sum()))
    kept = log_p > math.log(1e-13)
    return torch.from_numpy(q[kept].astype(np.float64)), torch.from_numpy(log_p[kept])

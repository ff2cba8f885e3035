"""Where the efficiency of a path sampler is lost: by noise level, and by momentum shell.

By level. From an equilibrium field x_0 noised to x_n, its own path below n and a fresh reverse draw from the
same x_n have log-weights whose unknown part, ln p_n(x_n), is common to both. Their mean difference

    J_n = E[log w_{<n}(forward path) - log w_{<n}(reverse draw)],
    log w_{<n} = -S(x_0) + sum_{m<n} (log F - log R),

is the symmetrised divergence of the two laws of the path below n given x_n, J_n/2 its path KL (mean of both
directions; for Gaussian log-weights a quarter of the difference's variance, which is less noisy). It vanishes
for exact steps, and its growth with n says which levels lose what.

By shell. log w is a sum of terms a over levels and shells (log F and log R are sums over modes, minus the
same for the Gaussian process with propagator G, which is exact) and of a rest with the action. For exact
steps all of it adds up to a constant, so Cov(a, log w) is a fair share of Var(log w): the shares add up to
the whole. Single shares can be negative: what one shell gets wrong another may compensate.
"""

import itertools
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from diffsq.models.blocks import drawn, slices
from diffsq.models.protocol import ActionFunction, Frames, Noise
from diffsq.sampling.lattice_path import ReversePath, ReverseStep
from diffsq.sampling.reverse_chain import end_of, rise

BLOCK = 64  # fields at a time


@torch.no_grad()
def divergence_below(
    path: ReversePath, phi: Tensor, action: ActionFunction, up: Noise, down: Noise, frames: Frames,
    marks: list[int],
) -> Tensor:  # fmt: skip
    """Log-weight differences whose mean is J_n, at levels n in `marks`: (n_fields, len(marks)).

    phi (n_fields, *shape) from equilibrium; up(step) the noise of the forward paths, down(i) of the i-th
    reverse step drawn.
    """
    own, count, found = -action(phi), itertools.count(), []
    for level, x, increment in path.up(phi, up, frames, max(marks)):
        own = own + increment
        if level in marks:
            y, fresh = end_of(path.down(x, lambda _: down(next(count)), frames, level))
            found.append(own - (fresh - action(y)))
    return torch.stack(found, 1)


@dataclass
class Shares:
    """Cov(a, log w) by level and shell (N, n_shells), of the action's rest, and their sum Var(log w)."""

    table: Tensor
    rest: float
    variance: float


@torch.no_grad()
def shares(
    path: ReversePath, phi: Tensor, action: ActionFunction, noise: Noise, frames: Frames, shell: Tensor
) -> Shares:
    """Shares of Var(log w) over forward paths of equilibrium fields phi (n, *shape), `BLOCK` at a time.

    `shell` (n_class,) is the shell of each momentum class.
    """
    parts = []
    for rows in slices(len(phi), BLOCK):
        own = partial(_part, noise, rows)
        parts.append(_terms(path, phi[rows], action, own, frames, shell))
    log_w, a = (torch.cat(column) for column in zip(*parts, strict=True))
    centred = log_w - log_w.mean()
    table = torch.einsum("n,nls->ls", centred, a - a.mean(0)) / (len(phi) - 1)
    variance = float(log_w.var())
    return Shares(table, variance - float(table.sum()), variance)


def _part(noise: Noise, rows: slice, step: int) -> Tensor:
    return drawn(noise, step)[rows]


def _terms(
    path: ReversePath, phi: Tensor, action: ActionFunction, noise: Noise, frames: Frames, shell: Tensor
) -> tuple[Tensor, Tensor]:
    """log w (n,) of forward paths, and what each step and shell puts into it (n, N, n_shells)."""
    log_w, terms = -action(phi), []
    for step, low, high in rise(path.levels, phi, noise, range(path.n_levels)):
        law = path.reverse(high, step, frames(step))
        log_w = log_w + path.log_forward(low, high, step) - law.log_density(low)
        terms.append(_by_shell(path, low, high, law, step, shell))
    return log_w - path.start().log_density(high), torch.stack(terms, 1)


def _by_shell(
    path: ReversePath, x: Tensor, x_high: Tensor, law: ReverseStep, step: int, shell: Tensor
) -> Tensor:
    """log F - log R of a step less that of the Gaussian process, but for constants: (n, n_shells)."""
    p, levels = path.momenta, path.levels
    (residual, log_det), c = law.residual(x), law.variance
    jump, low, high = p.modes(x_high - x), p.modes(x), p.modes(x_high)
    g = path.model.base.g
    chi2 = (
        -(jump.abs() ** 2) / (levels[step + 1] ** 2 - levels[step] ** 2)
        + residual.abs() ** 2 / p.expand(c)
        - low.abs() ** 2 / p.expand(g + levels[step] ** 2)
        + high.abs() ** 2 / p.expand(g + levels[step + 1] ** 2)
    )
    classes = 0.5 * p.class_sum(p.weight * chi2)
    classes[:, 0] -= law.own(residual[..., 0, 0].real)
    classes[:, 1:] += log_det[:, None] * p.multiplicity[1:] / (p.volume - 1)
    out = classes.new_zeros(len(x), int(shell.max()) + 1)
    return out.index_add(1, shell, classes)

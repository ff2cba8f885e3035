r"""The law of the zero mode of a family of theories: its shape is a function of rho = <|M|>^2/<M^2> alone.

In units of its size, s = z/sqrt(<z^2>), of both signs, or of one sign, s = (|z| - <|z|>)/std(|z|),

    ln P(s; rho) = sum_jq theta_jq b_q(rho) T_j(s/s_max) - ln Z(rho),

an exponential family whose likelihood over all ensembles is concave: rho is 2/pi for a Gaussian and 1 for two
sharp peaks. b_q: 1, rho, ln(1 - rho), 1/(1 - rho), as ln P is -(s^2 - 1)^2/(8 (1 - rho)) near the peaks; of
one sign powers of sqrt(1 - rho), the relative width, by which its skewness goes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffsq.models.zero_mode import ZeroModeDenoiser

N_BINS = 400
REACH = {True: 5.0, False: 8.0}  # largest |s|, of both signs and of one
N_SHAPE = {True: 5, False: 6}  # polynomials in s^2, in s
N_RHO = {True: 4, False: 3}
NEWTON = 100
RIDGE = 1e-9
PEAKS = 2.0  # |s| of any peak, at most
DEEP = 6.0  # below the largest ln P, from where on it falls as it has fallen to there
TAIL = 27.0  # -ln of the part of the largest density beyond which nothing is tabulated
MARGIN = 1.02


class ZeroModeLaw(nn.Module):
    """theta (n_shape, n_rho, n_line); `symmetric`: of both signs."""

    def __init__(self, symmetric: bool, n_line: int) -> None:
        super().__init__()
        self.symmetric = symmetric
        self.theta = nn.Buffer(torch.zeros(N_SHAPE[symmetric], N_RHO[symmetric], n_line, dtype=torch.float64))

    @property
    def s(self) -> Tensor:
        """The bins."""
        top = REACH[self.symmetric]
        return (torch.arange(N_BINS, dtype=torch.float64) + 0.5) * (2 * top / N_BINS) - top

    def _shapes(self, s: Tensor) -> Tensor:
        """T_j at s (n,), (n_shape, n)."""
        step, angle = (2 if self.symmetric else 1), torch.arccos(s / REACH[self.symmetric])
        return torch.stack([torch.cos(step * j * angle) for j in range(1, len(self.theta) + 1)])

    def _exponent(self, s: Tensor, rho: float, waves: Tensor) -> Tensor:
        a: Tensor = self.theta.flatten(1) @ self._of_rho(rho, waves)
        return a @ self._shapes(s)

    def _of_rho(self, rho: float, waves: Tensor) -> Tensor:
        """b_q times the polynomials in ln lam, (n_rho n_line,)."""
        rest = torch.tensor(max(1 - rho, 1e-6), dtype=torch.float64)
        if self.symmetric:
            b = torch.stack([rest**0, rest, rest.log(), 1 / rest])
        else:
            b = torch.stack([rest ** (q / 2) for q in range(N_RHO[False])])
        return torch.outer(b, waves).flatten()

    def log_p(self, rho: float, waves: Tensor) -> Tensor:
        """ln P of the bins, (N_BINS,)."""
        return torch.log_softmax(self._exponent(self.s, rho, waves), 0)

    def fit(self, counts: list[Tensor], rho: list[float], waves: list[Tensor]) -> None:
        """The largest likelihood of `counts`, (N_BINS,) of each ensemble, all of the same weight."""
        t = self._shapes(self.s)
        if self.symmetric:
            counts = [(c + c.flip(0)) / 2 for c in counts]
        seen = torch.stack([c / c.sum() for c in counts])
        b = torch.stack([self._of_rho(r, w) for r, w in zip(rho, waves, strict=True)])
        theta = t.new_zeros(len(t), b.shape[1])
        scale = b.abs().amax(0)
        b = b / scale
        theta[0 if self.symmetric else 1, 0] = -0.25 * REACH[self.symmetric] ** 2 / b[0, 0]  # a Gaussian

        def law(theta: Tensor) -> tuple[Tensor, float]:
            log_p = torch.log_softmax(b @ theta.T @ t, 1)
            return log_p.exp(), float((seen * log_p).sum())

        p, likelihood = law(theta)
        for _ in range(NEWTON):
            away = t[None] - (p @ t.T)[:, :, None]
            slope = torch.einsum("ej,eq->jq", (seen - p) @ t.T, b).flatten()
            inner = torch.einsum("ejs,es,eis->eji", away, p, away)
            curve = torch.einsum("eji,eq,er->jqir", inner, b, b).reshape(len(slope), -1)
            ridge = RIDGE * curve.diagonal().mean() * torch.eye(len(slope), dtype=t.dtype)
            move, part = torch.linalg.solve(curve + ridge, slope).reshape(theta.shape), 1.0
            while not (found := law(theta + part * move))[1] >= likelihood and part > 1e-4:
                part /= 2
            if not found[1] > likelihood:
                break
            theta, (p, likelihood) = theta + part * move, found
        self.theta.copy_((theta / scale).reshape(self.theta.shape))

    def counts(self, s: Tensor) -> Tensor:
        """How many of s (n,) are in each bin."""
        top = REACH[self.symmetric]
        return torch.histc(s.clamp(-top * 0.999, top * 0.999), N_BINS, -top, top)

    def denoiser(self, rho: float, waves: Tensor, size: float, floor: float) -> ZeroModeDenoiser:
        """That of z = size s, tabulated to where P is next to nothing. floor: of a bin, beside the law."""
        s = self.s
        log_p = torch.log_softmax(falling(self._exponent(s, rho, waves), s, self.symmetric), 0)
        held = s[log_p > log_p.max() - TAIL]
        found = ZeroModeDenoiser(symmetric=self.symmetric)
        n = len(found.centre)
        top = min(MARGIN * float(held.abs().max()), REACH[self.symmetric])
        centre = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 * top / n) - top
        p = torch.softmax(falling(self._exponent(centre, rho, waves), centre, self.symmetric), 0) + floor
        found.centre.copy_(size * centre)
        found.log_p.copy_((p / p.sum()).log())
        found.width2.fill_((2 * top * size / n) ** 2)
        return found


def falling(log_p: Tensor, s: Tensor, symmetric: bool) -> Tensor:
    """ln P at s (n,), rising, with tails that do not come back: beyond the outer peaks, from the first point
    that is `DEEP` below, no higher than the straight line through it and the one before; where it turns
    before that, from where it fell most steeply. Where no field was, a polynomial says nothing.

    >>> s = torch.linspace(-5, 5, 101, dtype=torch.float64)
    >>> rising = -(s**2) / 2 + (s / 4) ** 16
    >>> bool(rising[-1] > 0), bool(falling(rising, s, True)[-1] < -10)
    (True, True)
    >>> early = -(s**2) / 2 + (s / 2.5) ** 10  # turns 4.1 below the peak
    >>> bool(early[-1] > 0), bool(falling(early, s, True)[-1] < -5)
    (True, True)
    >>> wells = -9 * (s**2 - 1) ** 2
    >>> bool(falling(wells, s, True).equal(wells)), bool(falling(-(s**2), s, False).equal(-(s**2)))
    (True, True)
    """
    found, index = log_p.clone(), torch.arange(len(s))
    for step in (1, -1):
        inside = index[(s.abs() < PEAKS) & ((step * s >= 0) | (not symmetric))]
        top = int(inside[log_p[inside].argmax()])
        side = torch.arange(top, len(s) if step > 0 else -1, step)
        rises = ((log_p[side].diff() > 0) & (s[side[1:]].abs() > PEAKS)).nonzero().flatten()
        fall = side[: int(rises[0]) + 1] if len(rises) else side
        low = fall[log_p[fall] < log_p[top] - DEEP]
        if len(low):
            first = int(low[0])
        elif len(rises) and len(fall) > 1:
            first = int(fall[1 + log_p[fall].diff().argmin()])
        else:
            continue
        slope = (log_p[first] - log_p[first - step]) / (s[first] - s[first - step])
        rest = side[(side - first) * step > 0]
        found[rest] = torch.minimum(found[rest], log_p[first] + slope * (s[rest] - s[first]))
    return found

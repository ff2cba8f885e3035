r"""The probability flow of lifted flux: links and their exact density, sector by sector.

With y(k) = F(k)/sqrt(s + sigma^2 k^2), theta_k = arctan(sigma |k|/sqrt(s)) the flow of diffsq.models.gauge is

    dy(k)/dtheta_k = -c(k),   c = (sqrt(C)/v) * delta(mu + T * delta(mu)),
    log q(F|Q) = log N(y; 0, 1) - sum_k (1/2) ln s - int sum_k dtheta_k dc(k)/dy(k)       over k != 0,

the zero mode at 2 pi Q/sqrt(V). The trace is closed-form, delta being a function of each site: with B the
filter from y to mu and M the kernel of R B, R = sqrt(C)/v dtheta/dt,

    M(0) sum_p delta'(mu_2) + sum_pq delta'(mu_2)_p T(p-q) M(q-p) delta'(mu)_q.

Below sigma_min c goes to zero like sigma, as diffsq.models.lattice_flow says; Runge and Kutta's method of
order 4 in ln sigma.

Links are drawn on every gauge orbit alike: those of the plaquettes, two holonomies uniform on the circle and
a gauge transformation uniform at every site. The map from links to (plaquettes, holonomies, gauge) has a
constant Jacobian, so that with Haar measure normalised to one

    ln w = sum_p ln w(F_p) - ln P(Q) - ln q(F|Q) - (V-1) ln 2 pi - (1/2) ln V,    <w> = Z,

where ln w(F_p) has S(0) in it: `PlaquetteLaw.log_w` leaves sum_n b_n out, `log_weight` puts it back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from diffsq.models.gauge import GaugeScore
from diffsq.models.lattice_flow import Leg, transport
from diffsq.models.protocol import Watch, unseen
from diffsq.process.sde import VESDE
from lattice.actions.u1 import circulation
from lattice.arrays import wrapped
from lattice.errors import InputError

VERSION = 1  # of the law q: raise it with any change
N_STEPS = 16  # Runge-Kutta steps above sigma_min
MIN_STEPS = 2


class FluxVelocity:
    """R delta(mu + T delta(mu)) at one noise level, with its trace; rate (n_class,) is dtheta_k/dt."""

    def __init__(self, score: GaugeScore, sigma: float, rate: Tensor) -> None:
        p = self.momenta = score.momenta
        level = self.level = score.level(sigma)
        open_ = p.expand((p.khat2 > 1e-9).double())
        noise = p.expand(p.khat2).sqrt() * sigma
        # sqrt(C)/v = (C/v)/sqrt(C), sqrt(C) = sqrt(s) sigma |k|/root
        inverse = level.root / (math.sqrt(score.s) * noise).clamp_min(1e-300)
        self.r = level.kernel * inverse * p.expand(rate) * open_
        kernel = p.fields(self.r * level.wiener * level.root + 0j) / math.sqrt(p.volume)
        self.own = float(kernel[0, 0])
        away = p.fields(level.others + 0j) / math.sqrt(p.volume)
        self.pair = p.modes(away * kernel).real * math.sqrt(p.volume)
        self.into = torch.where(open_ > 0, level.root, torch.ones_like(level.root))

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """(n, *half) complex128, the zero mode F itself: the velocity and its trace (n,)."""
        shift, steep, slope = self.level.shifts(y * self.into)
        trace = (steep * (self.own + self.level.filtered(slope, self.pair))).sum((-1, -2))
        return self.r * self.momenta.modes(shift), trace


class GaugeFlow:
    """The flow of a score in `n_steps` Runge-Kutta steps above sigma_min; float64.

    Raises `InputError` for fewer than MIN_STEPS steps.
    """

    def __init__(self, score: GaugeScore, n_steps: int = N_STEPS) -> None:
        if n_steps < MIN_STEPS:
            raise InputError(f"the flow takes at least {MIN_STEPS} steps, got {n_steps}")
        self.score, self.momenta, self.n_steps = score, score.momenta, n_steps
        low, high = score.span
        self.levels = VESDE(low, high).levels(n_steps + 1)
        self.below = Leg(1, 1.0, self._below, several=False, still=True)
        self.above = Leg(n_steps, math.log(high / low), self._above, several=False)

    def in_steps(self, n_steps: int) -> GaugeFlow:
        """The same flow in another number of steps."""
        return GaugeFlow(self.score, n_steps)

    def _rate(self, sigma: float) -> Tensor:
        """d theta_k/d sigma per class."""
        s, k2 = self.score.s, self.momenta.khat2
        return math.sqrt(s) * k2.sqrt() / (s + sigma**2 * k2)

    def _above(self, time: float) -> FluxVelocity:
        sigma = self.score.span[0] * math.exp(time)
        return FluxVelocity(self.score, sigma, self._rate(sigma) * sigma)

    def _below(self, part: float) -> FluxVelocity:
        low = self.score.span[0]
        return FluxVelocity(self.score, low, self._rate(part * low) * low * part)

    def _carried(self, y: Tensor, way: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        """Level, and y and the trace there, way = 1 up from level 0 or -1 down from the last."""
        state = y, torch.zeros(len(y), dtype=torch.float64, device=y.device)
        yield (0 if way > 0 else self.n_steps + 1), state
        for leg in (self.below, self.above)[::way]:
            for step, reached in transport(leg, way, state):
                state = reached
                yield (step + 1 if leg is self.above else step), state

    def _log_base(self, y: Tensor) -> Tensor:
        """log N(y; 0, 1) of all modes but the zero mode, in units of sqrt(s): (n,)."""
        p = self.momenta
        square = p.total(y.abs() ** 2) - y[..., 0, 0].real ** 2
        return -0.5 * (square + (p.volume - 1) * math.log(2 * math.pi * self.score.s))

    @torch.no_grad()
    def down(self, noise: Tensor, charge: Tensor, watch: Watch = unseen) -> tuple[Tensor, Tensor]:
        """Lifted flux (n, L0, L1) of the charges Q (n,) and log q(F|Q) (n,), from white noise (n, L0, L1)."""
        p = self.momenta
        start = p.modes(noise)
        zero = 2 * math.pi * charge.to(start.dtype) / math.sqrt(p.volume)
        start[..., 0, 0] = zero
        for step, end in self._carried(start, -1):
            y, change = end
            if watch is not unseen:
                sigma = float(self.levels[step])
                root = p.expand((self.score.s + sigma**2 * p.khat2).sqrt())
                watch(step, self._flux(y * root, zero))
        log_q = self._log_base(start) + change
        _require_finite(log_q)
        return self._flux(y * math.sqrt(self.score.s), zero), log_q

    def _flux(self, fk: Tensor, zero: Tensor) -> Tensor:
        fk[..., 0, 0] = zero
        return self.momenta.fields(fk)

    @torch.no_grad()
    def up(self, flux: Tensor) -> tuple[Tensor, Tensor]:
        """White noise (n, L0, L1), its zero mode that of the flux, and log q(F|Q) of flux (n, L0, L1)."""
        start = self.momenta.modes(flux)
        zero = start[..., 0, 0].clone()
        start = start / math.sqrt(self.score.s)
        start[..., 0, 0] = zero
        y, change = deque(self._carried(start, 1), 1)[0][1]
        log_q = self._log_base(y) - change
        _require_finite(log_q)
        return self.momenta.fields(y), log_q

    def sample(
        self, target: GaugeScore, noise: Tensor, u: Tensor, watch: Watch = unseen
    ) -> tuple[Tensor, Tensor]:
        """Flux (n, L0, L1) and ln w (n,), from white noise and u (n,) uniform, which draws the charge."""
        flux, log_q = self.down(noise, self.score.drawn_charges(u), watch)
        return flux, log_weight(self.score, target, flux, log_q)

    def latent(self, target: GaugeScore, links: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """White noise and ln w (n,) of given links (n, 2, L0, L1); u (n, L0, L1) uniform, which draws the
        lifts of their plaquettes. Over lifts <1/w> = 1/Z."""
        flux = target.law.lifted(wrapped(circulation(links)), u)
        noise, log_q = self.up(flux)
        return noise, log_weight(self.score, target, flux, log_q)


def log_weight(score: GaugeScore, target: GaugeScore, flux: Tensor, log_q: Tensor) -> Tensor:
    """ln w (n,) of lifted flux (n, L0, L1), the lifts of `target`'s law, for its action; log_q (n,) the
    density within a sector, sectors as `score` draws them."""
    law, volume = target.law, score.momenta.volume
    charge = (flux.sum((-1, -2)) / (2 * math.pi)).round()
    place = torch.searchsorted(score.charges, charge).clamp_max(len(score.charges) - 1)
    log_p = torch.where(score.charges[place] == charge, score.log_charge[place], -math.inf)
    constant = volume * float(law.harmonics.sum()) - (volume - 1) * math.log(2 * math.pi)
    return law.log_w(flux).sum((-1, -2)) + constant - 0.5 * math.log(volume) - log_p - log_q


def _require_finite(log_q: Tensor) -> None:
    if not bool(torch.isfinite(log_q).all()):
        raise InputError(
            f"log q of {int((~torch.isfinite(log_q)).sum())} of {len(log_q)} samples is NaN or infinite"
        )

r"""The probability flow of a closed-form score: fields and their density by one differential equation.

Between sigma = 0 and sigma_max (Song et al. 2011.13456, eq. 13; Chen et al. 1806.07366 for the density), with
D = W x + sqrt(C) c and one angle per momentum,

    y(k) = x(k)/sqrt(G + sigma^2),    theta_k = arctan(sigma/sqrt(G)),    dy(k)/dtheta_k = -c(k),
    log q(phi) = log N(y_N; 0, 1) - sum_k (1/2) ln G - int sum_k dtheta_k dc(k)/dy(k),      y_N ~ N(0, 1),

exact for a Gaussian theory in a single step; the trace is closed-form (diffsq.models.features). Below the
smallest sigma that the model knows, sigma_1, the true correction vanishes like sigma (the score has a limit
there), so the flow is *defined* by c(y, sigma) = (sigma/sigma_1) c(y, sigma_1) down to sigma = 0.

Integrated by the method of Adams and Bashforth of order 4 in the time of the process (ln sigma for VE), one
evaluation a step, its first steps by Kutta's of order 3; where the steps are too large for that to be stable,
and below sigma_1, by Runge and Kutta's; Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I,
sections II.1 and III.1. y, log q and their sums are float64.

Where P(M) has two sharp peaks the flow is that of one sector: fluctuations about <|M|>, then a random sign,
so that w = e^{-S}/(q_+/2). The few that end on the other side, M < 0, are reflected. A field is then reached
on two paths, of which each counts for a fixed share of e^{-S}, so that weights are exact: 1 - 10^-6, 10^-6.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsq.config.sections import FLOW_LEVELS, MIN_FLOW_LEVELS
from diffsq.models.protocol import ActionFunction, Watch, unseen
from diffsq.models.regression import RegressionBase
from diffsq.models.velocity import Velocity
from diffsq.process.sde import SDES
from lattice.errors import InputError

VERSION = 3  # of the law q: raise it with any change, so that no folder mixes samples of two laws
STEP = 0.22  # in ln sigma, where nobody says how many steps
STABLE = 0.25  # largest step in ln sigma for Adams and Bashforth: modes relax like sigma, their bound is 0.3
KEPT_STEPS = 128  # of a leg whose velocities are kept: tables of so many levels fit into any memory
STEPS_ABOVE = 40  # of them, to each Runge-Kutta step below sigma_1
ADAMS = {3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}  # of so many slopes
START = 2  # steps by Kutta's method, before three slopes are known
ASTRAY = 1e-6  # share of a field that belongs to paths which ended on the other side

State = tuple[Tensor, Tensor]
"""y (n, *half) complex128 and the integral of the trace so far, (n,)."""


@dataclass
class Leg:
    """A stretch of the flow in equal steps: velocities at its 2 N + 1 half steps, made when asked for.

    several: whether a step uses the slopes of those before it; still: whether nothing moves at its lower end.
    """

    n_steps: int
    length: float
    at: Callable[[float], Callable[[Tensor], State]]
    several: bool
    still: bool = False

    def __post_init__(self) -> None:
        self.made: dict[int, Callable[[Tensor], State]] = {}

    def slope(self, half: int, y: Tensor) -> State:
        """d(y, trace) upwards at a half step."""
        if half == 0 and self.still:
            return torch.zeros_like(y), torch.zeros(len(y), dtype=torch.float64, device=y.device)
        velocity = self.made.get(half) or self.at(half * self.length / (2 * self.n_steps))
        if self.n_steps <= KEPT_STEPS:
            self.made[half] = velocity
        c, trace = velocity(y)
        return -c, trace


def moved(state: State, h: float, slopes: list[tuple[float, State]]) -> State:
    """state + h sum of weight slope."""
    move, change = (torch.zeros_like(q) for q in slopes[0][1])
    for weight, (dy, dtrace) in slopes:
        move.add_(dy, alpha=weight)  # in the precision of the velocities, less than the state's
        change.add_(dtrace, alpha=weight)
    return state[0].add(move, alpha=h), state[1].add(change, alpha=h)


def runge_kutta(leg: Leg, half: int, way: int, state: State, first: State) -> State:
    """One step of order 4 from a half step in direction `way`, its first slope given."""
    h = way * leg.length / leg.n_steps
    k2 = leg.slope(half + way, moved(state, h, [(0.5, first)])[0])
    k3 = leg.slope(half + way, moved(state, h, [(0.5, k2)])[0])
    k4 = leg.slope(half + 2 * way, moved(state, h, [(1.0, k3)])[0])
    return moved(state, h, [(1 / 6, first), (1 / 3, k2), (1 / 3, k3), (1 / 6, k4)])


def kutta(leg: Leg, half: int, way: int, state: State, first: State) -> State:
    """One step of order 3, whose error over one step is as that of Adams and Bashforth over a leg."""
    h = way * leg.length / leg.n_steps
    k2 = leg.slope(half + way, moved(state, h, [(0.5, first)])[0])
    k3 = leg.slope(half + 2 * way, moved(state, h, [(-1.0, first), (2.0, k2)])[0])
    return moved(state, h, [(1 / 6, first), (2 / 3, k2), (1 / 6, k3)])


def transport(leg: Leg, way: int, state: State) -> Iterator[tuple[int, State]]:
    """The states after each step through a leg, way = 1 up or -1 down, and its number from the lower end."""
    n, slopes = leg.n_steps, list[State]()
    h = way * leg.length / n
    for step in range(n):
        place = step if way > 0 else n - step
        slopes = [leg.slope(2 * place, state[0]), *slopes[:3]]
        if not leg.several:
            state = runge_kutta(leg, 2 * place, way, state, slopes[0])
        elif step < START:
            state = kutta(leg, 2 * place, way, state, slopes[0])
        else:
            state = moved(state, h, list(zip(ADAMS[len(slopes)], slopes, strict=True)))
        yield place + way, state


def steps_of(base: RegressionBase) -> int:
    """Steps where the config says nothing: of STEP in ln sigma, FLOW_LEVELS at least."""
    return max(FLOW_LEVELS, math.ceil(float(base.log_sigma[-1] - base.log_sigma[0]) / STEP))


class LatticeFlow:
    """The flow of a closed-form base through `n_steps` steps of a process above sigma_1; fields float64.

    A base with `sector` makes fields of one sign, then draws the sign; features are made in `dtype`. Raises
    `InputError` for fewer than MIN_FLOW_LEVELS steps.
    """

    def __init__(
        self, base: RegressionBase, n_steps: int, process: str = "ve", dtype: torch.dtype = torch.float32
    ) -> None:
        if n_steps < MIN_FLOW_LEVELS:
            raise InputError(
                f"the flow's integrator of order 4 needs at least {MIN_FLOW_LEVELS} levels, got {n_steps}"
            )
        self.base, self.momenta, self.dtype, self.n_steps = base, base.momenta, dtype, n_steps
        low, high = (float(base.log_sigma[i].exp()) for i in (0, -1))
        self.process, self.sde = process, SDES[process](low, high)
        self.first = float(self.sde.time(torch.tensor(low, dtype=torch.float64)))
        self.below, self.above = (
            Leg(-(-n_steps // STEPS_ABOVE), 1.0, self._below, several=False, still=True),
            Leg(n_steps, 1 - self.first, self._above, several=self._growth <= STABLE),
        )

    @property
    def _growth(self) -> float:
        """The largest step in ln sigma."""
        return float(self.levels[1:].log().diff().max())

    def in_steps(self, n_steps: int) -> "LatticeFlow":
        """The same flow in another number of steps: what its own number is judged by."""
        return LatticeFlow(self.base, n_steps, self.process, self.dtype)

    @property
    def levels(self) -> Tensor:
        """0, and sigma at the ends of the steps above it, (n_steps + 2,)."""
        times = self.first + torch.linspace(0, 1, self.n_steps + 1, dtype=torch.float64) * (1 - self.first)
        return torch.cat([times.new_zeros(1), self.sde.sigma(times)])

    def _rate(self, sigma: Tensor) -> Tensor:
        """d theta_k / d sigma per class."""
        return self.base.g.sqrt() / (self.base.g + sigma**2)

    def _above(self, time: float) -> Velocity:
        t = torch.full((), self.first + time, dtype=torch.float64, device=self.base.g.device)
        sigma = self.sde.sigma(t)
        return Velocity(self.base, sigma, self._rate(sigma) * self.sde.speed(t), self.dtype)

    def _below(self, part: float) -> Velocity:
        low = self.base.log_sigma[0].exp()
        return Velocity(self.base, low, self._rate(part * low) * low * part, self.dtype)

    def log_base(self, y: Tensor) -> Tensor:
        """log N(y; 0, 1) less that of the volume that x = sqrt(G) y makes, y (n, *half): (n,)."""
        p = self.momenta
        log_det = (p.multiplicity * self.base.g.log()).sum() + p.volume * math.log(2 * math.pi)
        return -0.5 * (p.total(y.abs() ** 2) + log_det)

    @torch.no_grad()
    def down(self, noise: Tensor, watch: Watch = unseen) -> tuple[Tensor, Tensor]:
        """x_0 (n, *shape), centred and before any sign, and log q of it (n,), from white noise (n, *shape).

        Raises `InputError` for densities that are not finite.
        """
        p, base, start = self.momenta, self.base, self.momenta.modes(noise)
        for step, end in self._carried(start, -1):
            if watch is not unseen:
                y, sigma = end[0], self.levels[step]
                watch(step, p.fields(y * p.expand((base.g + sigma**2).sqrt())) + base.centre)
        y, change = end
        log_q = self.log_base(start) + change
        self._require_finite(log_q, start, -1)
        return p.fields(y * p.expand(base.g.sqrt())), log_q

    @torch.no_grad()
    def up(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """White noise (n, *shape), and log q (n,) of centred fields x_0 (n, *shape).

        Raises `InputError` for densities that are not finite.
        """
        start, y, log_q = self._risen(x)
        self._require_finite(log_q, start, 1)
        return self.momenta.fields(y), log_q

    def log_density(self, x: Tensor) -> Tensor:
        """log q (n,) of centred fields x_0 (n, *shape), with a gradient by whatever the velocities know."""
        return self._risen(x)[2]

    def draw(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """As `down`, with a gradient, and not looked at."""
        start = self.momenta.modes(noise)
        y, change = deque(self._carried(start, -1), 1)[0][1]
        x = self.momenta.fields(y * self.momenta.expand(self.base.g.sqrt()))
        return x, self.log_base(start) + change

    def _risen(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """y at level 0 and at the last, and log q."""
        p = self.momenta
        start = p.modes(x) / p.expand(self.base.g.sqrt())
        y, change = deque(self._carried(start, 1), 1)[0][1]
        return start, y, self.log_base(y) - change

    def _carried(self, y: Tensor, way: int) -> Iterator[tuple[int, State]]:
        """Level and state there, way = 1 up from level 0 or -1 down from the last."""
        state = y, torch.zeros(len(y), dtype=torch.float64, device=y.device)
        yield (0 if way > 0 else self.n_steps + 1), state
        for leg in (self.below, self.above)[::way]:
            for step, reached in transport(leg, way, state):
                state = reached
                if leg is self.above:
                    yield step + 1, state
                elif step in (0, leg.n_steps):
                    yield (0 if step == 0 else 1), state

    def _require_finite(self, log_q: Tensor, start: Tensor, way: int) -> None:
        """One look at the end of a flow; the level is found by going through it again."""
        bad = ~torch.isfinite(log_q)
        if not bool(bad.any()):
            return
        first = int(bad.nonzero()[0])
        found = (
            level
            for level, (y, change) in self._carried(start[first : first + 1], way)
            if not (torch.isfinite(torch.view_as_real(y)).all() and torch.isfinite(change).all())
        )
        level = next(found, self.n_steps + 1)
        raise InputError(
            f"log q of {int(bad.sum())} of {len(bad)} samples is NaN or infinite, first of number {first} at "
            f"level {level}, sigma = {float(self.levels[level]):.4g}; retrain the model"
        )

    def sample(
        self, action: ActionFunction, noise: Tensor, sign: Tensor, watch: Watch = unseen
    ) -> tuple[Tensor, Tensor]:
        """Fields (n, *shape) and log w = -S - log q (n,), from white noise (n, *shape).

        sign (n,), +1 or -1, is used by a sector alone.
        """
        x, log_q = self.down(noise, watch)
        if not self.base.sector:
            return x, -action(x) - log_q
        phi = x + self.base.centre
        astray = phi.mean((-1, -2)) < 0
        phi = torch.where(astray[:, None, None], -phi, phi)
        log_w = -action(phi) - log_q + math.log(2) + self._astray(astray)
        return phi * sign[:, None, None], log_w

    def latent(self, phi: Tensor, action: ActionFunction) -> tuple[Tensor, Tensor]:
        """White noise (n, *shape) and log w (n,) of given fields (n, *shape), which a sector takes as coming
        from their own sign."""
        z, log_q = self.up(self.base.of_sector(phi))
        log_w = -action(phi) - log_q
        if self.base.sector:
            log_w = log_w + math.log(2) + self._astray(torch.zeros_like(log_w) > 0)
        return z, log_w

    @staticmethod
    def _astray(astray: Tensor) -> Tensor:
        """log of the share of e^{-S} that a path counts for: fields are reached on two, from both signs."""
        return torch.where(astray, math.log(ASTRAY), math.log1p(-ASTRAY)).double()

"""The network with a closed trace: its formula against products, symmetries, what it adds to a base."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fields import white
from small_flows import NEAR, flow_base
from torch import Tensor

from diffsq.exactness.weights import ln_z
from diffsq.models.files import load_model, save_model
from diffsq.models.lattice import LatticeScore
from diffsq.models.lattice_flow import LatticeFlow
from diffsq.models.momentum import Momenta
from diffsq.models.regression import RegressionBase
from diffsq.models.site_network import SiteNetwork, SiteTerm
from diffsq.models.velocity import Velocity

SHAPES = [(4, 6), (3, 5), (8, 8), (2, 4), (1, 4), (2, 1)]
SIGMA = torch.tensor([0.7], dtype=torch.float64)


def network(channels: int = 5, seed: int = 1, last: float = 1.0) -> SiteNetwork:
    """Fresh weights, those of the last layer too."""
    made, generator = SiteNetwork(channels), torch.Generator().manual_seed(seed)
    made.initialise(generator)
    with torch.no_grad():
        made.last.copy_(last * torch.randn(made.last.shape, generator=generator))
        made.bias.copy_(0.5 * torch.randn(made.bias.shape, generator=generator))
    return made


def term(shape: tuple[int, int], made: SiteNetwork | None = None, sigma: Tensor = SIGMA) -> SiteTerm:
    """On a lattice with a propagator that falls."""
    p = Momenta(shape)
    span = torch.tensor([0.05, 10.0], dtype=torch.float64).log()
    coupling = torch.tensor(0.6, dtype=torch.float64)
    return SiteTerm(made or network(), p, 1 / (0.2 + p.khat2), sigma, coupling, span)


def pieces(own: SiteTerm) -> tuple[Tensor, Tensor]:
    """A rate and the width sqrt(G + sigma^2), per mode."""
    p = own.momenta
    return p.expand(1 / (1 + p.khat2)), p.expand((1 / (0.2 + p.khat2) + SIGMA**2).sqrt())


@pytest.mark.parametrize("shape", SHAPES)
def test_trace_is_that_of_the_jacobian(shape: tuple[int, int]) -> None:
    """Of the map from y to rate c, column by column; a network with other weights has another."""
    own = term(shape)
    p, (rate, root) = own.momenta, pieces(own)

    def c(y: Tensor) -> Tensor:
        return p.fields(own.with_trace(p.modes(y) * root, rate, root)[0])

    y = white(shape, 1, 3)
    jacobian = torch.autograd.functional.jacobian(c, y).reshape(p.volume, p.volume)
    expected, size = float(jacobian.diagonal().sum()), float(jacobian.norm())
    assert float(own.with_trace(p.modes(y) * root, rate, root)[1].detach()) == pytest.approx(
        expected, abs=2e-6 * size
    )
    other = term(shape, network(seed=2)).with_trace(p.modes(y) * root, rate, root)[1]
    assert abs(float(other.detach()) - expected) > 1e-3 * size


def test_odd_and_alike_under_every_symmetry() -> None:
    """c(-x) = -c(x); shifts, reflections, and on a square the exchange of axes, go through it."""
    own = term((6, 6))
    p, x = own.momenta, white((6, 6), 3, 4)

    def c(x: Tensor) -> Tensor:
        return p.fields(own(p.modes(x))).detach()

    moves = [
        lambda q: q.roll((1, 3), (-2, -1)), lambda q: q.flip(-1), lambda q: q.flip(-2), lambda q: q.mT,
    ]  # fmt: skip
    assert torch.equal(c(-x), -c(x)) or float((c(-x) + c(x)).abs().max()) < 1e-6
    for move in moves:
        assert float((c(move(x)) - move(c(x))).abs().max()) < 2e-5
    assert float((c(x.roll(1, -1)) - c(x)).abs().max()) > 1e-2  # a control: fields do differ


def test_a_field_has_its_numbers_whatever_the_other_levels() -> None:
    """Of levels together what each has alone, and the same c with the trace and without."""
    sigma = torch.tensor([0.1, 0.7, 5.0], dtype=torch.float64)
    own, x = term((4, 6), sigma=sigma), white((4, 6), 3, 5)
    xk = own.momenta.modes(x)
    for i, one in enumerate(sigma):
        alone = term((4, 6), sigma=one[None])
        assert torch.allclose(own(xk)[i], alone(xk[i : i + 1])[0], atol=1e-5)
    rate, root = pieces(own)
    ones = torch.ones_like(rate)
    single = term((4, 6))
    assert torch.allclose(single.with_trace(xk, ones, root)[0], single(xk), atol=1e-6)


@pytest.fixture(scope="module")
def base() -> RegressionBase:
    """Fitted to 4 x 4 fields, with a network of small weights."""
    own = copy.deepcopy(flow_base((4, 4)))
    own.network = network(last=0.05)
    return own


def test_fresh_weights_change_nothing(base: RegressionBase) -> None:
    """R = 0: the base with the network is the base, bit for bit."""
    bare, fresh = copy.deepcopy(base), copy.deepcopy(base)
    bare.network, fresh.network = None, SiteNetwork(4)
    fresh.network.initialise(torch.Generator().manual_seed(5))
    xk = base.momenta.modes(white((4, 4), 5, 6))
    assert torch.equal(bare(xk, SIGMA), fresh(xk, SIGMA))
    assert not torch.equal(bare(xk, SIGMA), base(xk, SIGMA))


def test_velocity_is_the_score_and_its_trace(base: RegressionBase) -> None:
    """What the network adds to the flow's velocity is rate times what it adds to c, and so is the trace."""
    p, sigma, bare, base = base.momenta, SIGMA[0], copy.deepcopy(base), copy.deepcopy(base)
    bare.network, base.network = None, network(last=0.5)
    rate = torch.linspace(0.5, 1.5, p.n_class, dtype=torch.float64)
    root = p.expand((base.g + sigma**2).sqrt())
    y = white((4, 4), 1, 7)

    def added(y: Tensor) -> Tensor:
        xk = p.modes(y) * root
        return p.fields(p.expand(rate) * (base(xk, SIGMA) - bare(xk, SIGMA))).detach()

    with_it, without = (Velocity(q, sigma, rate)(p.modes(y)) for q in (base, bare))
    assert torch.allclose(p.fields(with_it[0] - without[0]).double(), added(y), atol=1e-5)
    h, units = 1e-2, torch.eye(p.volume, dtype=torch.float64).reshape(-1, 4, 4)
    columns = (8 * (added(y + h * units) - added(y - h * units))
               - added(y + 2 * h * units) + added(y - 2 * h * units)) / (12 * h)  # fmt: skip
    expected = float(columns.reshape(p.volume, -1).diagonal().sum())
    assert float((with_it[1] - without[1]).detach()) == pytest.approx(expected, abs=1e-3)
    assert abs(expected) > 0.02


def test_weights_stay_exact_whatever_the_network(base: RegressionBase) -> None:
    """ln Z by a base with a network of random weights is that without; it fails without its trace."""
    bare, action = copy.deepcopy(base), NEAR.action
    bare.network = None
    noise, sign = white((4, 4), 4096, 8), torch.ones(4096)
    flow, plain = LatticeFlow(base, 48), LatticeFlow(bare, 48)
    weights = [made.sample(action, noise, sign)[1].numpy() for made in (flow, plain)]
    (z, error), (known, own) = (ln_z(w) for w in weights)
    assert abs(z - known) < 4 * math.hypot(error, own)
    assert weights[0].var() > 4 * weights[1].var()  # it is a bad network

    for leg in (flow.below, flow.above):
        for velocity in leg.made.values():
            assert velocity.term is not None
            velocity.term.with_trace = _without_trace(velocity.term)  # type: ignore[method-assign]
    blind, error = ln_z(flow.sample(action, noise, sign)[1].numpy())
    assert abs(blind - known) > 10 * math.hypot(error, own)


def _without_trace(term: SiteTerm) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    whole = term.with_trace

    def found(xk: Tensor, rate: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
        c, trace = whole(xk, rate, root)
        return c, torch.zeros_like(trace)

    return found


def test_gradient_of_log_q_is_that_of_differences(base: RegressionBase) -> None:
    """By every weight, through the flow and its trace."""
    own = copy.deepcopy(base)
    assert own.network is not None
    x = white((4, 4), 4, 9)

    def total() -> Tensor:
        return LatticeFlow(own, 8).log_density(x).sum()

    total().backward()  # type: ignore[no-untyped-call]
    for weight in own.network.parameters():
        direction = torch.sign(weight.grad)
        slope, h = float((weight.grad * direction).sum()), 2e-3
        with torch.no_grad():
            weight += h * direction
            high = float(total())
            weight -= 2 * h * direction
            low = float(total())
            weight += h * direction
        assert (high - low) / (2 * h) == pytest.approx(slope, rel=0.03, abs=2e-3)


def test_files_keep_it(tmp_path: Path, base: RegressionBase) -> None:
    """Saved and read back it is the same function."""
    model = LatticeScore(copy.deepcopy(base), None)
    save_model(model, tmp_path, {})
    again = load_model(tmp_path, LatticeScore)
    assert again.sizes == model.sizes
    assert again.sizes["network"] == 5
    xk = base.momenta.modes(white((4, 4), 2, 10))
    assert torch.equal(again.base(xk, SIGMA), model.base(xk, SIGMA))
    assert math.isfinite(float(again.base(xk, SIGMA).abs().sum()))

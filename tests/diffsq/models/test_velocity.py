"""The velocity of the flow and the trace of its Jacobian, against Jacobians by automatic differentiation."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from fields import white
from small_models import equilibrium, free_model, noise_of, phi4_model
from torch import Tensor

from diffsq.models.blocks import Mapped
from diffsq.models.features import Features, times
from diffsq.models.momentum import Momenta, propagator
from diffsq.models.regression import RegressionBase
from diffsq.models.velocity import Velocity
from lattice.actions.phi4 import ScalarPhi4

ACTION = ScalarPhi4(0.3, 0.4)
KINDS = [((8, 8), False), ((6, 4), False), ((8, 8), True), ((6, 4), True)]
SIGMAS = (0.2, 0.7, 4.0)  # the smallest is a node, the others lie between two
EXACT = 1e-10


@lru_cache(maxsize=8)
def blank(shape: tuple[int, int], sector: bool) -> RegressionBase:
    """All tables but the coefficients, which are random for each class and level."""
    base = RegressionBase(Momenta(shape), 4, sector)
    p = base.momenta
    base.set_gaussian(1 / (0.3 + p.khat2), 0.2, 6.0)
    base.set_action(ACTION, 3.0)
    base.centre.fill_(0.7 if sector else 0.0)
    base.zero_mode.fit(1.5 * white((), 1000, 1) + (0.4 if sector else 0.0))
    base.coefficients.copy_(white((p.n_class, base.n_feature), 4, 2))
    return base


@lru_cache(maxsize=4)
def fitted(shape: tuple[int, int], sector: bool) -> RegressionBase:
    phi = equilibrium(ACTION, shape, 512)
    if not sector:
        return phi4_model(ACTION, phi, n_sigma=4).base
    base = RegressionBase(Momenta(shape), 4, sector=True)
    base.set_centre(phi, 64)
    base.set_gaussian(propagator(base.momenta, Mapped(phi, base.of_sector)), 0.2, 6.0)
    base.set_action(ACTION, 1.2 * float(phi.abs().max()))
    base.fit(phi, ACTION.grad, noise_of("test/fit", len(phi), shape))
    return base


def velocity(base: RegressionBase, sigma: float, dtype: torch.dtype = torch.float64) -> Velocity:
    rate = 1 / (1 + base.momenta.khat2)
    return Velocity(base, torch.tensor(sigma, dtype=torch.float64), rate, dtype)


def only(base: RegressionBase, *kept: int) -> RegressionBase:
    """The base with the coefficients of some features alone."""
    other = RegressionBase(base.momenta, len(base.log_sigma), base.sector)
    other.load_state_dict(base.state_dict())
    chosen = torch.zeros(base.n_feature, dtype=torch.bool)
    chosen[list(kept)] = True
    other.coefficients[..., ~chosen] = 0
    return other


def normal(base: RegressionBase, n: int = 2, size: float = 1.3) -> Tensor:
    """Normal coordinates in position space: white noise, a little wide so that what saturates does."""
    return size * white(base.momenta.shape, n, 3)


def by_jacobian(v: Velocity, y: Tensor) -> Tensor:
    """sum_k d/dy(k) as the trace in position space, from V vector-Jacobian products: (n,).

    Copy x of a sample gives row x of its Jacobian.
    """
    p = v.base.momenta
    copies = y.repeat_interleave(p.volume, 0).requires_grad_()
    c, _ = v(p.modes(copies))
    own = torch.eye(p.volume, dtype=torch.float64).repeat(len(y), 1)
    (rows,) = torch.autograd.grad((p.fields(c).flatten(1) * own).sum(), copies)
    return (rows.flatten(1) * own).sum(1).reshape(len(y), -1).sum(1).detach()


def closed_form(v: Velocity, y: Tensor) -> Tensor:
    """The trace, by compiled loops."""
    with torch.no_grad():
        found: Tensor = v(v.base.momenta.modes(y))[1]
    return found


def close(found: Tensor, known: Tensor, tolerance: float = EXACT) -> bool:
    return bool(((found - known).abs() < tolerance * known.abs().max()).all())


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize(("shape", "sector"), KINDS)
def test_trace_of_each_feature_alone(shape: tuple[int, int], sector: bool, sigma: float) -> None:
    base = blank(shape, sector)
    y = normal(base)
    for feature in range(base.n_feature):
        v = velocity(only(base, feature), sigma)
        known = by_jacobian(v, y)
        assert known.abs().max() > 1e-6, feature
        assert close(closed_form(v, y), known), feature


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("made", [blank, fitted])
@pytest.mark.parametrize(("shape", "sector"), KINDS)
def test_trace_of_all_together(shape: tuple[int, int], sector: bool, made: type, sigma: float) -> None:
    base = made(shape, sector)
    y, v = normal(base), velocity(base, sigma)
    known, found = by_jacobian(v, y), closed_form(v, y)
    assert close(found, known)
    # what a wrong trace would be: not nearly within the tolerance
    assert not close(-found, known, 0.1)
    assert not close(closed_form(velocity(base, 1.05 * sigma), y), known, 1e-3)
    used = base.at(base.coefficients, torch.tensor([sigma], dtype=torch.float64))[0].abs().amax(0) > 1e-9
    assert used.sum() > base.n_feature - 2  # a fit may leave out the last step of the site posterior
    for left_out in used.nonzero().flatten().tolist():
        rest = [feature for feature in range(base.n_feature) if feature != left_out]
        assert not close(closed_form(velocity(only(base, *rest), sigma), y), known, 100 * EXACT), left_out


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize(("shape", "sector"), KINDS)
def test_compiled_loops_are_the_tensor_code(shape: tuple[int, int], sector: bool, sigma: float) -> None:
    base = blank(shape, sector)
    yk = base.momenta.modes(normal(base, 8))
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 3e-6)):
        v = velocity(base, sigma, dtype)
        with torch.no_grad():
            c, trace = v(yk)
        slow_c, slow_trace = (q.detach() for q in v(yk.clone().requires_grad_()))
        assert close(torch.view_as_real(c), torch.view_as_real(slow_c), tolerance)
        assert close(trace, slow_trace, tolerance)
        assert c.dtype == (torch.complex128 if dtype == torch.float64 else torch.complex64)
        assert trace.dtype == torch.float64


@pytest.mark.parametrize(("shape", "sector"), KINDS)
def test_single_precision_of_the_features(shape: tuple[int, int], sector: bool) -> None:
    """Of all but the site posterior, whose last steps are small and have coefficients of some hundreds at the
    smallest sigma, where the whole is less exact than its parts."""
    base = fitted(shape, sector)
    yk = base.momenta.modes(normal(base, 64, 1.0))
    terms = only(base, *range(len(base.terms)), base.n_feature - 1)
    for sigma in SIGMAS:
        for part, tolerance, of_trace in ((terms, 3e-5, 1e-3), (base, 3e-5 if sigma > 1 else 5e-3, 3e-3)):
            made = (velocity(part, sigma, dtype)(yk) for dtype in (torch.float32, torch.float64))
            (c, trace), (known_c, known) = made
            assert (trace - known).abs().max() < of_trace
            assert 0 < (c - known_c).abs().max() < tolerance * known_c.abs().max()


@pytest.mark.parametrize("sector", [False, True])
def test_nan_stays_nan_and_with_its_sample(sector: bool) -> None:
    base = blank((6, 4), sector)
    y = normal(base, 4)
    good_c, good = velocity(base, 0.7)(base.momenta.modes(y))
    y[2, 1, 1] = torch.nan
    for grad in (False, True):
        c, trace = velocity(base, 0.7)(base.momenta.modes(y).requires_grad_(grad))
        assert torch.isnan(trace[2])
        assert torch.isnan(torch.view_as_real(c[2])).all()
        assert close(trace.detach()[[0, 1, 3]], good[[0, 1, 3]], 1e-13)
        assert (c[[0, 1, 3]] - good_c[[0, 1, 3]]).abs().max() < 1e-12 * good_c.abs().max()


@pytest.mark.parametrize("size", [1e2, 1e6, 1e150])
def test_huge_fields_have_a_finite_velocity(size: float) -> None:
    """Bounded, but for the Wiener filter in mu_3 - mu and the zero mode, whose slopes are."""
    for sector in (False, True):
        base = blank((6, 4), sector)
        y, linear = base.momenta.modes(normal(base, 4, size)), (len(base.terms), base.n_feature - 1)
        rest = only(base, *(feature for feature in range(base.n_feature) if feature not in linear))
        c, trace = velocity(rest, 0.7)(y)
        assert c.abs().max() < 1e5
        assert trace.abs().max() < 1e5
        c, trace = velocity(base, 0.7)(y)
        assert c.abs().max() < 1e5 * size
        assert trace.abs().max() < 1e5 or size > 1e100  # beyond, differences of zero modes are rounding


def test_velocity_is_rate_times_the_correction() -> None:
    """Of the denoiser, and odd to rounding where there is no sector."""
    for shape, sector in KINDS:
        base = blank(shape, sector)
        p = base.momenta
        y = normal(base, 8)
        for sigma in SIGMAS:
            s = torch.tensor([sigma], dtype=torch.float64)
            xk = p.modes(y) * p.expand((base.g + s**2).sqrt())
            known = p.expand(1 / (1 + p.khat2)) * base(xk, s)
            c, trace = velocity(base, sigma)(p.modes(y))
            assert (c - known).abs().max() < 1e-5 * known.abs().max()
            minus, same = velocity(base, sigma)(-p.modes(y))
            if sector:
                assert (c + minus).abs().max() > 0.01 * c.abs().max()
                assert not close(same, trace, 0.01)
            else:
                assert (c + minus).abs().max() < 1e-13 * c.abs().max()
                assert close(same, trace, 1e-13)


def test_free_field_has_no_velocity() -> None:
    base = free_model((6, 4), 0.2).base
    for dtype in (torch.float32, torch.float64):
        c, trace = velocity(base, 0.7, dtype)(base.momenta.modes(normal(base, 8)))
        assert not c.any()
        assert not trace.any()
    base.coefficients.fill_(1e-3)
    c, trace = velocity(base, 0.7)(base.momenta.modes(normal(base, 8)))
    assert c.abs().max() > 1e-3
    assert trace.abs().min() > 1e-3


@pytest.mark.parametrize(("shape", "sector"), KINDS)
def test_lattice_symmetries(shape: tuple[int, int], sector: bool) -> None:
    base = blank(shape, sector)
    p, y, v = base.momenta, normal(base, 8), velocity(base, 0.7)
    c, trace = v(p.modes(y))
    moves = [lambda q: q.roll((3, 1), (1, 2)), lambda q: q.flip(1), lambda q: q.flip(2)]
    if shape[0] == shape[1]:
        moves.append(lambda q: q.transpose(1, 2))
    for move in moves:
        there, same = v(p.modes(move(y)))
        assert (p.fields(there) - move(p.fields(c))).abs().max() < 1e-12 * c.abs().max()
        assert (p.fields(there) - p.fields(c)).abs().max() > 0.1 * p.fields(c).abs().max()
        assert close(same, trace, 1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 4), (2, 3)])
def test_trace_on_the_smallest_lattices(shape: tuple[int, int]) -> None:
    """Where a site is its own neighbour, or meets it twice."""
    for sector in (False, True):
        base = blank(shape, sector)
        y, v = normal(base), velocity(base, 0.7)
        assert close(closed_form(v, y), by_jacobian(v, y))


def test_the_sum_of_features_is_that_of_one_by_one() -> None:
    for shape, sector in KINDS:
        base = blank(shape, sector)
        v = velocity(base, 0.7)
        f = Features(v.filters, times(base.momenta.modes(normal(base)), v.root))
        known = (v.sums.r * f.stack()).sum(1)
        found, _ = v.sums(f)
        assert (f.combine(v.sums.r[None]) - known).abs().max() < 1e-13 * known.abs().max()
        assert (found - known).abs().max() < 1e-13 * known.abs().max()

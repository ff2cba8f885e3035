"""The probability flow: order, inverse, density against Jacobian and quadrature, exact weights, devices."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from places import ROOT
from small_flows import NEAR, fine, flow_base, ln_z_of, log_det, smooth_base, spoilt
from small_models import equilibrium, free_model, noise_of
from small_paths import SHAPE, TWO, truth
from torch import Tensor

from diffsq.exactness.weights import ln_z
from diffsq.models import lattice_flow, velocity
from diffsq.models.combination import Combination
from diffsq.models.features import Features, Filters
from diffsq.models.lattice_flow import LatticeFlow
from diffsq.process.sde import SDES
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator, ln_z_site, small_lattice
from lattice.statistics.blocks import jackknife_of
from lattice.statistics.weights import effective_sample_size

BROKEN = ScalarPhi4(0.28, 0.022)


def weighted(log_w: Tensor, observable: Tensor) -> tuple[float, float]:
    w = (log_w - log_w.max()).exp()
    rows = torch.stack([w, observable], 1).numpy()
    return jackknife_of(lambda d: float((d[:, 0] * d[:, 1]).sum() / d[:, 0].sum()), rows)


# --- the integrator ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", ["ve", "vp"])
def test_order_of_convergence_up_and_down(process: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """y and log q converge like N^-4; past 72 steps, with four and more below sigma_1, too."""
    monkeypatch.setattr(lattice_flow, "KEPT_STEPS", 480)  # one making of velocities for both ways
    base, shape = smooth_base((6, 4), low=0.8), (6, 4)
    noise, x, found = noise_of("order", 4, shape)(0), equilibrium(NEAR, shape, 2048)[:4], []
    for n in (120, 240, 480):  # 3, 6 and 12 steps below sigma_1
        flow = fine(base, n, process)
        found.append([*flow.down(noise), *flow.up(x)])
    for coarse, half, quarter in zip(*found, strict=True):
        first, second = float((coarse - half).abs().max()), float((half - quarter).abs().max())
        assert math.log2(first / second) > 3.7
        assert second < 1e-5


def test_up_undoes_down() -> None:
    flow, noise = fine(smooth_base((6, 4)), 512), noise_of("inverse", 4, (6, 4))(0)
    x, log_q = flow.down(noise)
    back, same = flow.up(x)
    assert (back - noise).abs().max() < 1e-8
    assert (same - log_q).abs().max() < 1e-6
    rough = fine(flow.base, 16).up(x)[0]  # the control: steps matter
    assert (rough - noise).abs().max() > 1e-5


@pytest.mark.parametrize("n_steps", [4, 5, 24, 80])
@pytest.mark.parametrize("process", ["ve", "vp"])
def test_free_field_is_exact_in_any_number_of_steps(n_steps: int, process: str) -> None:
    action, shape = FreeScalar(0.2), (4, 6)
    flow = LatticeFlow(free_model(shape, 0.2).base, n_steps, process)
    exact = 0.5 * np.log(2 * np.pi * free_propagator(0.2, shape)).sum()
    noise = noise_of("free", 64, shape)(0)
    x, log_w = flow.sample(action.action, noise, torch.ones(64))
    assert log_w.numpy() == pytest.approx(exact, abs=1e-10)
    back, same = flow.latent(x, action.action)
    assert (back - noise).abs().max() < 1e-12
    assert same.numpy() == pytest.approx(exact, abs=1e-10)
    flow.base.g.mul_(1.1)
    assert flow.sample(action.action, noise, torch.ones(64))[1].std() > 0.1


def test_single_precision_does_not_shift_the_weights() -> None:
    """It would shift all alike: the mean was off by 1.9e-5 where mu_3 and mu were transformed apart."""
    noise, sign = noise_of("single", 32, (16, 16))(0), torch.ones(32, dtype=torch.float64)
    single, double = (
        LatticeFlow(flow_base((16, 16), low=0.15), 20, "ve", dtype).sample(NEAR.action, noise, sign)[1]
        for dtype in (torch.float32, torch.float64)
    )
    change = single - double
    assert abs(float(change.mean())) < 5e-6
    assert 1e-7 < float(change.std()) < 1e-5


def test_number_of_steps() -> None:
    flow = LatticeFlow(flow_base(SHAPE, TWO), 4)
    for n in (-1, 0, 3):
        for made in (flow.in_steps, lambda n: LatticeFlow(flow.base, n)):
            with pytest.raises(InputError, match=f"integrator of order 4 needs at least 4 levels, got {n}"):
                made(n)
    for n in (4, 5, 41):  # by Runge and Kutta, and by Adams and Bashforth
        other = flow.in_steps(n)
        assert len(other.levels) == n + 2
        assert torch.isfinite(other.down(noise_of("few", 4, SHAPE)(0))[1]).all()
    assert (other.n_steps, other.process, other.dtype) == (41, flow.process, flow.dtype)


# --- the density ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sector", [False, True])
def test_density_is_the_jacobian_of_the_steps(sector: bool) -> None:
    """By reverse mode through every step, to the integrator's error, which falls with its order once the
    steps are well below the distance of the few levels of this base."""
    base = spoilt(flow_base((4, 4), BROKEN if sector else NEAR, sector), 0.02)
    noise, errors = noise_of("jacobian", 2, (4, 4))(0), []
    for n in (6, 24, 144):  # by Runge and Kutta, and twice by Adams and Bashforth
        stated, found = log_det(fine(base, n), noise)
        errors.append(float((stated - found).abs().max()))
    assert max(errors) < 2e-3
    assert errors[2] < errors[1] / 20


@pytest.mark.parametrize("process", ["ve", "vp"])
def test_density_integrates_to_one_on_a_site(process: str) -> None:
    action = ScalarPhi4(0.0, 0.05)
    flow = fine(flow_base((1, 1), action), 96, process)
    grid = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    total = float(flow.up(grid[:, None, None])[1].exp().sum() * (grid[1] - grid[0]))
    assert total == pytest.approx(1, abs=1e-4)
    assert ln_z_of(flow, action, 40) == pytest.approx(ln_z_site(action), abs=1e-3)


def test_integral_of_the_weight_over_the_noise_is_z() -> None:
    """On 2 x 2, of a score that is off."""
    base = spoilt(flow_base(SHAPE, TWO), 0.02)
    assert ln_z_of(fine(base, 24), TWO, 7) == pytest.approx(truth().ln_z, abs=3e-3)


class Reversed(Combination):
    """The trace with the wrong sign."""

    def __call__(self, f: Features) -> tuple[Tensor, Tensor]:
        c, trace = super().__call__(f)
        return c, -trace


class Without:
    """A trace that leaves one feature out; the velocity has it."""

    def __init__(self, feature: int) -> None:
        self.feature = feature

    def of(self, filters: Filters, root: Tensor, r: Tensor) -> Callable[[Features], tuple[Tensor, Tensor]]:
        left = r.clone()
        left[self.feature] = 0
        right, wrong = (Combination.of(filters, root, q) for q in (r, left))
        return lambda f: (right(f)[0], wrong(f)[1])


@pytest.mark.parametrize("sector", [False, True])
def test_a_wrong_trace_is_found(sector: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the wrong sign, or with any one feature left out: 100 times the error of the right one."""
    action = BROKEN if sector else NEAR
    base = spoilt(flow_base((4, 4), action, sector), 0.02)
    flow, noise = fine(base, 24), noise_of("jacobian", 2, (4, 4))(0)
    stated, found = log_det(flow, noise)
    right = float((stated - found).abs().max())
    missed = []
    for wrong in (Reversed, *(Without(j) for j in range(base.n_feature - 1))):
        monkeypatch.setattr(velocity, "Combination", wrong)
        wrongly = fine(base, 24).down(noise)[1]
        missed.append(float((wrongly - found).abs().max()))
    assert right < 5e-3
    assert min(missed) > 10 * right


def test_a_trace_of_the_wrong_sign_gives_a_wrong_z(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(velocity, "Combination", Reversed)
    assert abs(ln_z_of(fine(flow_base(SHAPE, TWO), 24), TWO, 7) - truth().ln_z) > 0.01


# --- exact weights ----------------------------------------------------------------------------------------


def drawn(flow: LatticeFlow, action: ScalarPhi4, n: int, stream: str = "draw") -> tuple[Tensor, Tensor]:
    sign = torch.where(noise_of(f"{stream}/sign", n, (1, 1))(0)[:, 0, 0] > 0, 1.0, -1.0).double()
    return flow.sample(action.action, noise_of(stream, n, flow.momenta.shape)(0), sign)


def test_a_bad_score_costs_efficiency_never_correctness() -> None:
    flow = LatticeFlow(spoilt(flow_base(SHAPE, TWO), 0.15), 24)
    phi, log_w = drawn(flow, TWO, 4000)
    exact, (value, error), pulls = truth(), ln_z(log_w.numpy()), []
    assert abs(value - exact.ln_z) < 4 * error
    m = phi.mean((1, 2))
    for observable, known in (
        (m.abs(), exact.abs_m), (m**4, exact.m4), ((phi**2).mean((1, 2)), exact.phi2),
        (TWO.action(phi) / 4, exact.action_density),
    ):  # fmt: skip
        value, error = weighted(log_w, observable)
        assert abs(value - known) < 4 * error
        pulls.append(float(abs(observable.mean() - known) / observable.std()) * math.sqrt(len(phi)))
    assert max(pulls) > 10, "the proposal must be wrong"
    bad, bad_error = effective_sample_size(log_w.numpy())
    good, _ = effective_sample_size(drawn(LatticeFlow(flow_base(SHAPE, TWO), 24), TWO, 4000)[1].numpy())
    assert bad < good - 4 * bad_error


@pytest.mark.parametrize("seed", [2, 3, 5])
def test_density_of_any_bad_score_is_normalised(seed: int) -> None:
    """E_p[Z/w] = int q = 1 over fields in equilibrium, also where samples of the flow cannot tell: of seed 5
    a fifth of p is where w/Z > 20, so that thousands of its samples miss it."""
    flow = LatticeFlow(spoilt(flow_base(SHAPE, TWO), 0.15, seed), 48)
    phi = equilibrium(TWO, SHAPE, 16384, 99)
    z, log_w = flow.latent(phi, TWO.action)
    without = -TWO.action(phi) - flow.log_base(flow.momenta.modes(z))  # the control: no trace
    sigmas = []
    for found in (log_w, without):
        ratio = (truth().ln_z - found).exp()
        sigmas.append(float((ratio.mean() - 1) / ratio.std()) * math.sqrt(len(phi)))
    assert abs(sigmas[0]) < 4
    assert abs(sigmas[1]) > 10


def test_both_processes_give_one_z() -> None:
    base = flow_base((4, 4))
    values = []
    for process in ("ve", "vp"):
        _, log_w = drawn(LatticeFlow(base, 48, process), NEAR, 2048, process)
        values.append(ln_z(log_w.numpy()))
    (a, ea), (b, eb) = values
    assert abs(a - b) < 4 * math.hypot(ea, eb)
    assert math.hypot(ea, eb) < 0.02


def test_both_start_laws_give_one_z() -> None:
    """Where P(M) has two peaks that still touch, and from fields in equilibrium too."""
    phi, values = equilibrium(BROKEN, (6, 6), 1024, 31), []
    for sector in (False, True):
        flow = LatticeFlow(flow_base((6, 6), BROKEN, sector), 24)
        values.append(ln_z(drawn(flow, BROKEN, 4096)[1].numpy()))
    (a, ea), (b, eb) = values
    assert abs(a - b) < 4 * math.hypot(ea, eb)
    assert math.hypot(ea, eb) < 0.02
    back, error = ln_z(-flow.latent(phi, BROKEN.action)[1].numpy())
    assert abs(b + back) < 4 * math.hypot(eb, error)


def test_a_sector_whose_fields_go_astray_is_exact() -> None:
    """A centre too near to zero: some fields end on the other side."""
    action, n = ScalarPhi4(0.35, 0.05), 2000
    base = deepcopy(flow_base(SHAPE, action, sector=True))
    base.centre.mul_(0.7)
    exact, flow = small_lattice(action, SHAPE), LatticeFlow(base, 24)
    phi, log_w = drawn(flow, action, n)
    x, log_q = flow.down(noise_of("draw", n, SHAPE)(0))
    astray = (x + base.centre).mean((1, 2)) < 0
    assert astray.double().mean() > 0.01
    value, error = ln_z(log_w.numpy())
    assert abs(value - exact.ln_z) < 4 * error
    wrong, its_error = ln_z((-action.action(phi) - log_q).numpy())  # the control: no sign drawn
    assert abs(wrong - exact.ln_z) > 8 * its_error
    m = phi.mean((1, 2))
    assert abs(m.sign().mean()) < 4 / math.sqrt(n)
    for observable, known in ((m.abs(), exact.abs_m), (m**2, exact.m2), (m**4, exact.m4)):
        value, error = weighted(log_w, observable)
        assert abs(value - known) < 4 * error


def test_not_a_number_names_level_and_sample() -> None:
    base = deepcopy(flow_base(SHAPE, TWO))
    noise = noise_of("nan", 5, SHAPE)(0)
    flow = LatticeFlow(base, 8)
    noise[3] = torch.nan
    with pytest.raises(
        InputError, match=r"log q of 1 of 5 samples is NaN or infinite, first of number 3 at l"
    ):
        flow.down(noise)
    base.coefficients[0] = torch.nan  # the lowest node, which a spline brings to every level
    noise = noise_of("nan", 5, SHAPE)(0)
    flow = LatticeFlow(base, 8)
    for way, level in ((flow.down, 8), (flow.up, 1)):
        with pytest.raises(
            InputError, match=rf"log q of 5 of 5 .* first of number 0 at level {level}, sigma = "
        ):
            way(noise)


# --- devices and threads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sector", [False, True])
def test_no_tensor_is_on_another_device(sector: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device that is not the CPU; its tensors have no numbers: whoever asks for one is given 1."""
    for name, number in (("__float__", 1.0), ("__bool__", True), ("item", 1.0)):
        monkeypatch.setattr(torch.Tensor, name, lambda self, number=number: number)
    monkeypatch.setattr(LatticeFlow, "_require_finite", lambda *args: None)
    known = {name: lambda *ends, kind=kind: kind(0.2, 2.0) for name, kind in SDES.items()}
    monkeypatch.setattr(lattice_flow, "SDES", known)
    base = deepcopy(flow_base((4, 4), BROKEN if sector else NEAR, sector)).to("meta")
    noise = torch.empty(3, 4, 4, dtype=torch.float64, device="meta")
    for process, stable in (("ve", 0.25), ("vp", 2.0)):  # by Runge and Kutta, by Adams and Bashforth
        monkeypatch.setattr(lattice_flow, "STABLE", stable)
        flow = LatticeFlow(base, 4, process)
        assert flow.above.several == (stable > 1)
        for made in (
            *flow.sample(BROKEN.action, noise, noise[:, 0, 0], lambda level, x: None),
            *flow.latent(noise, BROKEN.action),
        ):  # fmt: skip
            assert made.device.type == "meta"
    with pytest.raises(RuntimeError, match="device"):  # the control
        flow.down(torch.empty(3, 4, 4, dtype=torch.float64))


CODE = """
import sys, numba, torch
from diffsq.models.momentum import Momenta
from diffsq.models.regression import RegressionBase
from diffsq.sampling.flow_sets import in_groups
from diffsq.models.lattice_flow import LatticeFlow
tables, noise = torch.load(sys.argv[1], weights_only=True)
base = RegressionBase(Momenta((4, 4)), len(tables["log_sigma"]))
base.load_state_dict(tables)
for threads in (1, 2):
    torch.set_num_threads(threads)
    numba.set_num_threads(threads)
    parts = in_groups(LatticeFlow(base, 6).down, noise)
    print(threads, *(q.numpy().tobytes().hex() for q in parts))
"""


def test_same_bits_with_one_thread_and_with_two(tmp_path: Path) -> None:
    tables = dict(flow_base((4, 4)).state_dict())
    torch.save((tables, noise_of("threads", 70, (4, 4))(0)), tmp_path / "base")
    said = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "base")], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_NUM_THREADS": "2"},
    ).stdout.splitlines()  # fmt: skip
    assert len(said[0]) > 70 * 17 * 16
    assert [line[0] for line in said] == ["1", "2"]
    assert said[0][1:] == said[1][1:]

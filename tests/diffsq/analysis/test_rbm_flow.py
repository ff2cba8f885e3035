"""The flow of a binary machine against sums over its states, and where starts are not forgotten."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_spins import enumerated

from diffsq.analysis.rbm_flow import (
    Flow,
    autocorrelation,
    end_point,
    flow,
    measured,
    mixing_time,
    nearest,
)
from diffsq.models.binary_rbm import BinaryRBM
from lattice.errors import InputError
from lattice.rng import normals, uniforms


def machine(
    units: str = "spin", sites: int = 9, n_hidden: int = 5, width: float = 0.5, q: int = 2
) -> BinaryRBM:
    n = sites * q if units == "potts" else sites
    noise = torch.from_numpy(normals(3, "test/flow", np.arange(1), 0, n * n_hidden)).reshape(n, n_hidden)
    made = BinaryRBM.initial(sites, n_hidden, width, noise, units, True, q)
    made.w += 0.3
    return made


@pytest.mark.parametrize("shape", [(4, 4), (3, 5)])
def test_what_is_measured_of_spins(shape: tuple[int, int]) -> None:
    """Bond by bond; potts spins of two states are Ising's: e_P = e/2 - 1, |m|, G and m^2 the same."""
    n, (rows, columns) = math.prod(shape), shape
    s = np.where(uniforms(1, "test/measured", np.arange(6), 0, n) < 0.4, -1, 1)
    for units in ("spin", "bit"):
        m = machine(units, n)
        found = measured(m, m.encode(s), shape)
        for one, (e, mean, far, m2) in zip(s.reshape(-1, *shape), found):
            sites = [(x, y) for x in range(rows) for y in range(columns)]
            bonds = sum(one[x, y] * (one[(x + 1) % rows, y] + one[x, (y + 1) % columns]) for x, y in sites)
            half = sum(one[x, y] * (one[(x + rows // 2) % rows, y] + one[x, (y + columns // 2) % columns])
                       for x, y in sites)  # fmt: skip
            known = (-bonds / n, one.mean(), half / (2 * n), one.mean() ** 2)
            assert (e, mean, far, m2) == pytest.approx(known, abs=1e-14)
    potts = machine("potts", n)
    other = measured(potts, potts.encode((s + 1) // 2), shape)
    np.testing.assert_allclose(other[:, 0], found[:, 0] / 2 - 1, atol=1e-14)
    np.testing.assert_allclose(other[:, 1], np.abs(found[:, 1]), atol=1e-14)
    np.testing.assert_allclose(other[:, 2:], found[:, 2:], atol=1e-14)
    np.testing.assert_allclose(
        Flow(other[None], 2).recorded[..., 1:], Flow(found[None]).recorded[..., 1:], atol=1e-14
    )


def test_potts_observables_of_three_states() -> None:
    m = machine("potts", 16, q=3)
    same, thirds = np.zeros((1, 16), dtype=int), np.array([[0, 1, 2, 0] * 4])
    assert measured(m, m.encode(same), (4, 4))[0] == pytest.approx([-2, 1, 1, 1])
    e, mean, _, m2 = measured(m, m.encode(thirds), (4, 4))[0]
    assert e == pytest.approx(-1 - 1 / 4)  # all bonds one way, 0 0 across the edge the other
    assert mean == pytest.approx((3 * 0.5 - 1) / 2)
    assert m2 == pytest.approx((3 * (1 / 4 + 1 / 16 + 1 / 16) - 1) / 2), "no square of it"
    free = m.mean_visible(torch.zeros(1, 5, dtype=torch.float64))
    assert measured(m, free, (4, 4))[0] == pytest.approx([-2 / 3, 0, 0, 0], abs=1e-12)
    shifts = [(np.roll(thirds.reshape(4, 4), k, axis) == thirds.reshape(4, 4)).mean()
              for axis in (0, 1) for k in range(4)]  # fmt: skip
    assert nearest(e, 3) == pytest.approx((3 * (shifts[1] + shifts[5]) / 2 - 1) / 2)


@pytest.mark.parametrize(
    ("units", "q", "kept"), [("spin", 2, 0), ("bit", 2, 0), ("potts", 2, 2), ("potts", 3, 3)]
)
def test_correlations_are_of_the_units(units: str, q: int, kept: int) -> None:
    """All alike are 1, of potts units of two states too; m^2 is that of all pairs, a site with itself too."""
    n = 12
    m = machine(units, n, q=q)
    states = (uniforms(4, "test/pairs", np.arange(30), 0, n) * q).astype(int)
    found = flow(m, states if units == "potts" else 2 * states - 1, 0, 1, shape=(3, 4))
    assert found.q == kept
    alike = (states[:, :, None] == states[:, None]).mean((1, 2))
    np.testing.assert_allclose(found.recorded[0, :, 2], (q * alike - 1) / (q - 1), atol=1e-14)
    cold = flow(m, np.ones((2, n)), 0, 1, shape=(3, 4))
    np.testing.assert_allclose(cold.recorded[0], [[-2, 1, 1, 0]] * 2, atol=1e-14)


@pytest.mark.parametrize("units", ["spin", "bit"])
def test_the_end_is_the_machines_own_law(units: str) -> None:
    """From cold and hot starts, within 4.5 sigma of the sum over all states; another machine's is not."""
    states, _ = enumerated(4, 1.0)
    hot = np.where(uniforms(2, "test/hot", np.arange(400), 0, 16) < 0.5, -1, 1)
    starts, known = (np.ones((400, 16)), hot), []
    for m in (machine(units, 16, width=0.4), machine(units, 16, width=0.8)):
        v = m.encode(states)
        p = m.log_likelihood(v, m.ln_z()).exp().numpy()
        of_states = Flow(measured(m, v, (4, 4))[None]).recorded[0]
        known.append(p @ of_states)
    m = machine(units, 16, width=0.4)
    flows = [flow(m, start, 120, seed) for seed, start in enumerate(starts)]
    for one in flows:
        end = end_point(one, 40)
        assert np.abs((end.values - known[0]) / end.errors).max() < 4.5
        assert np.abs((end.values - known[1]) / end.errors).max() > 10
    time = mixing_time(*flows)
    assert time is not None
    assert time < 40
    begin = flows[0].means[0]
    np.testing.assert_allclose(begin, [-2, 1, 1, 0], atol=1e-12)  # cold: all up


def test_starts_that_are_not_forgotten() -> None:
    """All up and all down agree in |m| while m does not; frozen starts have no mixing time at all."""
    m = BinaryRBM(torch.full((9, 1), 2.5, dtype=torch.float64))
    m.b = torch.full((9,), 0.2, dtype=torch.float64)
    cold, other = flow(m, np.ones((50, 9)), 60, 1), flow(m, -np.ones((50, 9)), 60, 1)
    assert abs(end_point(cold).values[1] - end_point(other).values[1]) < 0.2
    assert cold.series[-1, :, 1].mean() - other.series[-1, :, 1].mean() > 1.5
    half = np.ones((50, 9))
    half[:, :4] = -1
    frozen = BinaryRBM(torch.eye(9, dtype=torch.float64) * 6)
    stuck = flow(frozen, np.ones((50, 9)), 60, 1), flow(frozen, half, 60, 1)
    assert mixing_time(*stuck) is None


def test_autocorrelation_against_the_transition_matrix() -> None:
    """tau_int of m and e of a machine of 2 x 2 spins, exact from all states, within 4.5 sigma."""
    m = BinaryRBM(torch.full((4, 2), 0.55, dtype=torch.float64))
    states, _ = enumerated(2, 1.0)
    v = m.encode(states)
    p = m.log_likelihood(v, m.ln_z()).exp().numpy()
    h = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)], dtype=torch.float64)
    up, across = m.mean_hidden(v)[:, None], m.mean_visible(h)[:, None]
    step = (((1 + h * up) / 2).prod(-1) @ ((1 + v * across) / 2).prod(-1)).numpy()
    found = autocorrelation(flow(m, np.ones((100, 4)), 450, 5), 50)
    for name, column in (("m", 1), ("e", 0)):
        x = measured(m, v, (2, 2))[:, column]
        x = x - p @ x
        rho, tau, y = 1.0, 0.5, x
        for _ in range(2000):
            y = step @ y
            rho = float(p @ (x * y) / (p @ x**2))
            tau += rho
        assert abs(found[name].tau_int - tau) < 4.5 * found[name].tau_int_error
        assert found[name].tau_int - 0.5 > 4.5 * found[name].tau_int_error


def test_the_flow_of_means_runs_into_a_fixed_point() -> None:
    """v = <v|<h|v>> at its end; below the threshold, W W^T < 1, that is 0, above it is not."""
    for width, ordered in ((0.3, False), (0.45, True)):
        m = BinaryRBM(torch.full((9, 1), width, dtype=torch.float64))
        one = flow(m, np.ones((3, 9)), 400, 1, "mean")
        end = one.series[-1, 0, 1]
        assert end == pytest.approx(math.tanh(width * math.tanh(9 * width * end)), abs=1e-6)
        assert bool(end > 0.2) is ordered
        assert one.series[-1, 0, 0] == pytest.approx(-2 * end**2, abs=1e-12)


def test_a_chain_has_its_own_numbers() -> None:
    m = machine()
    start = np.where(uniforms(2, "test/hot", np.arange(7), 0, 9) < 0.5, -1, 1)
    many, few = flow(m, start, 20, 9), flow(m, start[:3], 20, 9)
    np.testing.assert_array_equal(many.series[:, :3], few.series)
    assert (flow(m, start, 20, 8).series[1:] != many.series[1:]).any()


def test_what_is_no_flow() -> None:
    m, start = machine(), np.ones((4, 9))
    for arguments, words in (
        ((m, start, 5, 1, "median"), "no flow by 'median'"), ((m, start, -1, 1), "and steps"),
        ((m, start[:, :4], 5, 1), "of 9 sites"), ((m, start, 5, 1, "sample", (2, 4)), "no torus of the 9"),
        ((machine(sites=8), np.ones((4, 8)), 5, 1), "no torus of the 8"),
        ((BinaryRBM(torch.zeros(2, 9, 3)), start, 5, 1), "one machine, got a batch"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            flow(*arguments)  # type: ignore[arg-type]
    one = flow(m, start, 5, 1)
    with pytest.raises(InputError, match="cannot be compared"):
        mixing_time(one, flow(m, start, 6, 1))
    with pytest.raises(InputError, match="steps after 6"):
        end_point(one, 6)
    with pytest.raises(InputError, match="two chains"):
        end_point(flow(m, start[:1], 5, 1))

"""Learning of binary machines: gradients against enumeration, laws that are learned, exchanges, same bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from small_spins import drawn, enumerated
from torch import Tensor

from diffsq.models.binary_rbm import BinaryRBM, all_states
from diffsq.training.binary import BinaryLearning, State, exchanged, fill_coarse, learn_binary
from lattice.errors import InputError
from lattice.rng import check_counters, normals, stream_id, uniforms

METHODS = ("cd", "pcd", "tempered")


def machine(n: int, n_hidden: int, width: float, units: str = "spin", copies: int = 1, seed: int = 1,
            biases: bool = True, q: int = 2) -> BinaryRBM:  # fmt: skip
    n_units = n * q if units == "potts" else n
    noise = normals(seed, "test/binary", np.arange(copies), 0, n_units * n_hidden)
    shaped = torch.from_numpy(noise).reshape(copies, n_units, n_hidden)
    return BinaryRBM.initial(n, n_hidden, width, shaped, units, biases, q)


def last(*args: Any, **options: Any) -> BinaryRBM:
    *_, (_, found) = learn_binary(*args, every=10**9, **options)
    return found


def law(m: BinaryRBM, spins: Tensor) -> Tensor:
    exact = m.to(torch.float64)
    return exact.log_likelihood(exact.encode(spins), exact.ln_z()).exp()


def expected(m: BinaryRBM, p: Tensor, k: int | None) -> Tensor:
    """<v h>_p - <v h> after k sweeps from p, or of the machine: (n, n_hidden), by all v and h."""
    states = 2 * next(iter(all_states(m.n_sites, 2))) - 1
    v, h = m.encode(states), next(iter(all_states(m.w.shape[1], 2))).double()
    h = 2 * h - 1 if m.units == "spin" else h

    def of(mean: Tensor, x: Tensor) -> Tensor:
        up = (1 + mean) / 2 if m.units == "spin" else mean
        return torch.where(x > 0, up[:, None], 1 - up[:, None]).prod(-1)

    step = of(m.mean_hidden(v), h[None]) @ of(m.mean_visible(h), v[None])
    end = law(m, states) if k is None else p @ torch.linalg.matrix_power(step, k)
    return torch.einsum("s,si,sj->ij", p - end, v, m.mean_hidden(v))


@pytest.mark.parametrize("units", ["spin", "bit"])
@pytest.mark.parametrize("k", [1, 3, 60])
def test_gradients_by_all_states(units: str, k: int) -> None:
    """The step of 60 machines with noises of their own is the expected one of k sweeps, within 4.5 sigma;
    for k = 60 that is the gradient of the likelihood, for k = 1 it is far from it and has its sign."""
    states, p = enumerated(2, 2.5)
    m = machine(4, 3, 0.9, units)
    m.w[0] += 0.3
    one, rows = m.one(0), drawn(states, p, 1000)
    counts = torch.from_numpy(np.bincount((rows + 1) // 2 @ 2 ** np.arange(4), minlength=16) / len(rows))
    many = BinaryRBM(*(x.expand(60, *x.shape) for x in (one.w, one.b, one.c) if x is not None), units)
    found = last(many, rows, BinaryLearning(1.0, "cd", k, batch=1000), 1, 5)
    steps = found.w.double() - one.w
    mean, error = steps.mean(0), steps.std(0) / math.sqrt(60) + 1e-7
    known, exact = expected(one, counts, k), expected(one, counts, None)
    assert float(((mean - known) / error).abs().max()) < 4.5
    if k == 60:
        assert float((known - exact).abs().max()) < 1e-4
    if k == 1:
        assert float(((mean - exact) / error).abs().max()) > 10
        assert float((mean * exact).sum()) > 0


def test_persistent_chains_have_the_machines_gradient() -> None:
    """At rate 0 chains of pcd and tempered come to the machine's law: <v> <h> of 60 x 200 chains after 100
    sweeps, within 4.5 sigma of all states."""
    m = machine(4, 3, 0.9)
    one = m.one(0)
    states = 2 * next(iter(all_states(4, 2))) - 1
    p = law(one, states)
    v = one.encode(states)
    known = (p[:, None] * v).T @ v
    many = BinaryRBM(one.w.expand(60, 4, 3), one.b.expand(60, 4), one.c.expand(60, 3))  # type: ignore[union-attr]
    for method in ("pcd", "tempered"):
        state = State()
        learning = BinaryLearning(0.0, method, n_chains=200, batch=10, n_temperatures=3)
        found = last(many, states.numpy(), learning, 100, 3, state)
        assert found.w.equal(many.w.float())
        assert state.chains is not None
        end = state.chains[:, -1].double()
        each = end.mT @ end / 200
        error = each.std(0) / math.sqrt(60) + 1e-7
        assert float(((each.mean(0) - known) / error).abs().max()) < 4.5
        low = state.chains[:, 0].double()
        hot = low.mT @ low / 200
        if method == "tempered":  # the lowest scale is another law
            assert float(((hot.mean(0) - known) / error).abs().max()) > 10


@pytest.mark.parametrize(
    ("method", "units"), [("cd", "spin"), ("pcd", "spin"), ("tempered", "spin"), ("pcd", "bit")]
)
def test_the_law_of_a_torus_is_learned(method: str, units: str) -> None:
    """KL from all 512 states of 3 x 3 falls by a factor of 20 and more; with sites shuffled in each row spins
    learn another law, and stay many times as far away."""
    states, p = enumerated(3, 2.6)
    rows = drawn(states, p, 20_000)
    spins, target = torch.from_numpy(states), torch.from_numpy(p)
    start = machine(9, 9, 0.1, units)
    rate = 0.1 if units == "spin" else 0.4
    learning = BinaryLearning(rate, method, n_temperatures=4, cooling=0.5, period=600)

    def kl(m: BinaryRBM) -> float:
        return float((target * (target / law(m.one(0), spins)).log()).sum())

    end = last(start, rows, learning, 2500, 1)
    assert kl(end) < kl(start) / 20
    if units == "spin" and method != "tempered":
        order = uniforms(3, "test/shuffle", np.arange(len(rows)), 0, 9).argsort(1)
        mixed = last(start, np.take_along_axis(rows, order, 1), learning, 2500, 1)
        assert kl(mixed) > 5 * kl(end)


def test_exchanges_keep_the_joint_law() -> None:
    """Exact draws at three scales of W, exchanged: the law at each scale stays, chi^2 of 15 within 4.5 sigma;
    with the scales in the wrong order it does not."""
    m, n, scales = machine(4, 3, 1.2), 40_000, torch.tensor([0.1, 0.5, 1.0])
    m = BinaryRBM(m.w, torch.full((1, 4), 0.3).double(), torch.full((1, 3), -0.2).double())
    states = 2 * next(iter(all_states(4, 2))) - 1
    laws = [(-m.free_energy(m.encode(states), float(x))[0]).softmax(-1).numpy() for x in scales]
    picked = [drawn(states.numpy(), p, n, seed) for seed, p in enumerate(laws)]
    chains = m.encode(torch.from_numpy(np.stack(picked)))[None]
    for parity in (0, 1):
        u = torch.from_numpy(uniforms(parity, "test/exchange", np.arange(1), 0, 2 * n)).view(1, 2, n)
        for order, gate in ((scales, 1), (scales.flip(0), -1)):
            found, accepted = exchanged(m, chains, order.double(), u, parity)
            assert 0.2 < float(accepted[:, parity].double().mean()) < 1
            assert not bool(accepted[:, 1 - parity].any())
            chi2 = []
            for at in (parity, parity + 1):
                index = (m.decode(found[0, at]).numpy() + 1) // 2 @ 2 ** np.arange(4)
                counts = np.bincount(index, minlength=16)
                chi2.append(((counts - n * laws[at]) ** 2 / (n * laws[at])).sum())
            assert max(chi2) < 15 + 4.5 * math.sqrt(30) if gate > 0 else max(chi2) > 500


def test_tempering_crosses_what_sweeps_do_not() -> None:
    """A machine with two states, all up and all down: chains that begin up stay up; tempered, <m> = 0."""
    w = torch.full((1, 8, 1), 2.0)
    m, ends = BinaryRBM(w), {}
    for method in ("pcd", "tempered"):
        learning = BinaryLearning(0.0, method, n_chains=300, batch=2, n_temperatures=8, lowest=0.0)
        scales = len(learning.scales)
        state = State(chains=torch.ones(1, scales, 300, 8))
        last(m, np.ones((2, 8)), learning, 300, 1, state)
        assert state.chains is not None
        ends[method] = float(state.chains[0, -1].mean())
        if method == "tempered":
            assert state.accepted is not None
            assert state.tried is not None
            assert float((state.accepted / state.tried).min()) > 0.2
    assert ends["pcd"] > 0.9
    assert abs(ends["tempered"]) < 4.5 / math.sqrt(300)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("units", "biases", "q"), [("spin", True, 2), ("bit", False, 2), ("potts", True, 3)])
def test_same_bits_alone_and_after_a_resume(method: str, units: str, biases: bool, q: int) -> None:
    rows = (uniforms(1, "test/rows", np.arange(50), 0, 7) * q).astype(int)
    rows = rows if units == "potts" else 2 * rows - 1
    many = machine(7, 5, 0.4, units, 3, biases=biases, q=q)
    learning = BinaryLearning(0.05, method, 2, batch=9, n_chains=11, n_temperatures=3, cooling=0.9, period=3)
    through = last(many, rows, learning, 23, 4)
    assert float((through.w - many.w.float()).abs().min(-1).values.max()) > 0
    alone = last(many.one(2), rows, learning, 23, 4, numbers=[2])
    assert alone.w.equal(through.w[2])
    assert (alone.b is None) is not biases
    if alone.b is not None and through.b is not None:
        assert alone.b.equal(through.b[2])
    own = last(many, np.stack([rows[::-1], rows, rows]), learning, 23, 4)  # data of its own
    assert own.w[2].equal(through.w[2])
    assert not own.w[0].equal(through.w[0])
    state = State()
    path = learn_binary(many, rows, learning, 23, 4, state)
    middle = next(m for step, m in path if step == 10)
    assert (state.step, middle.w.dtype) == (10, torch.float32)
    resumed = last(middle, rows, learning, 23, 4, state)
    assert resumed.w.equal(through.w)
    fresh = last(middle, rows, learning, 23, 4, State(step=10))
    assert fresh.w.equal(through.w) is (method == "cd")  # without its chains it is another learning


def test_steps_that_are_shown() -> None:
    m, rows = machine(4, 2, 0.1), np.ones((5, 4))
    learning = BinaryLearning(0.1, batch=5)
    assert [s for s, _ in learn_binary(m, rows, learning, 7, 1, every=3)] == [0, 3, 6, 7]
    first, second = (x for _, x in learn_binary(m, rows, learning, 1, 1))
    assert not first.w.equal(second.w)


def test_coarse_numbers() -> None:
    """The first numbers of a stream whatever the length of the row; uniform to 4.5 sigma; never 1."""
    keys, found = check_counters(1, np.arange(2), 0), []
    for size in (8, 40_000):
        rows = np.empty((2, size), dtype=np.float32)
        fill_coarse(rows, np.uint64(1), np.uint64(stream_id("a")), keys, np.uint64(3))
        found.append(rows)
    np.testing.assert_array_equal(found[0], found[1][:, :8])
    x = found[1].astype(np.float64)
    assert x.max() < 1
    assert x.min() >= 0
    assert not (x[0] == x[1]).any()
    counts = np.histogram(x, 50, (0, 1))[0]
    assert ((counts - 1600) ** 2 / 1600).sum() < 49 + 4.5 * math.sqrt(98)
    assert abs(np.corrcoef(x[0, :-1], x[0, 1:])[0, 1]) < 4.5 / 200


def test_what_is_no_learning() -> None:
    for options, words in (
        ({"rate": -1.0}, "0 <= rate"), ({"rate": math.nan}, "0 <= rate"), ({"rate": math.inf}, "0 <= rate"),
        ({"rate": 0.1, "method": "sgd"}, "no method 'sgd'"), ({"rate": 0.1, "k": 0}, "at least 1"),
        ({"rate": 0.1, "n_chains": 0}, "at least 1"), ({"rate": 0.1, "cooling": 0.0}, "0 < cooling"),
        ({"rate": 0.1, "method": "tempered", "n_temperatures": 1}, "two scales"),
        ({"rate": 0.1, "method": "tempered", "lowest": 1.0}, "two scales"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            BinaryLearning(**options)  # type: ignore[arg-type]
    m, fine = machine(4, 2, 0.1, copies=2), BinaryLearning(0.1, batch=5)
    for data, words in (
        (np.ones((4, 4)), "needs as many, the data has 4"), (np.zeros((5, 4)), r"\+1 or -1"),
        (np.full((5, 4), math.nan), r"\+1 or -1"), (np.ones((3, 5, 4)), "one set each"),
        (np.ones((5, 3)), "of 4 sites"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            last(m, data, fine, 1, 1)
    with pytest.raises(InputError, match="2 machines have as many numbers"):
        last(m, np.ones((5, 4)), fine, 1, 1, numbers=[1])
    with pytest.raises(InputError, match="every >= 1"):
        next(learn_binary(m, np.ones((5, 4)), fine, 1, 1, every=0))
    with pytest.raises(InputError, match=r"NaN or infinite after step \d+; take a smaller rate than 1e\+38"):
        last(m, drawn(*enumerated(2, 9.0), 50), BinaryLearning(1e38, batch=5), 50, 1)
    m.w[0, 0, 0] = math.nan
    with pytest.raises(InputError, match="NaN or infinite at the start"):
        last(m, np.ones((5, 4)), fine, 1, 1)

"""Training of a machine in a folder: resumed to the bit, its rate and its lines; on the way of cd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import noise_of

from diffsq.analysis.gaussian_machines import most_likely
from diffsq.config.config import config_from_dict
from diffsq.config.machines import MachineRun
from diffsq.models.machine_files import load_machine
from diffsq.models.rbm import GaussianRBM
from diffsq.models.second_moments import circulant, exact_power, power_of
from diffsq.training.contrastive import Learning, State, from_gaussian, learn
from diffsq.training.machines import learning_of, log_likelihood, records, second_of, start_of, train_machine
from lattice.actions.phi4 import FreeScalar
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact import gaussian_rbm as exact
from lattice.exact.gaussian_rbm import largest_step, reachable_step
from lattice.rng import normals

SHAPE, FREE = (2, 4), FreeScalar(0.12)
SECOND, KAPPA = circulant(exact_power(FREE, SHAPE)), exact.lattice_kernel(SHAPE, 0.12)
FILES = ("metrics.jsonl", "model.json", "weights.safetensors")


def data(n: int = 512) -> Floats:
    root = torch.linalg.cholesky(SECOND).numpy()
    found: Floats = (normals(1, "test/data", np.arange(n), 0, 8) @ root.T).reshape(n, *SHAPE)
    return found


DATA = data()


def config(machine: dict[str, Any] | None = None, seed: int = 1, **training: Any) -> MachineRun:
    found = config_from_dict(
        {
            "name": "m", "seed": seed, "action": {"kind": "free", "kappa": 0.12},
            "lattice": {"shape": SHAPE}, "models": ["rbm"], "machine": {"mu2": 4.0, **(machine or {})},
            "training": {"n_steps": 60, "checkpoint_every": 10, "n_records": 12, **training},
        }
    )  # fmt: skip
    assert isinstance(found, MachineRun)
    return found


class Stop(Exception):
    pass


class Stopping:
    """A progress that ends everything after so many steps."""

    def __init__(self, after: int) -> None:
        self.left, self.done = after, 0

    def start(self, total: int, label: str, done: int = 0) -> None:
        self.done = done

    def update(self, n: int = 1, **info: object) -> None:
        self.left -= n
        if self.left < 0:
            raise Stop

    def close(self) -> None: ...


def images(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "training",
    [{}, {"method": "cd", "k": 2, "batch": 32, "rate": 0.05}, {"method": "pcd", "batch": 16, "rate": 0.05},
     {"method": "cd", "k": 3, "momentum": 0.5, "rate": 0.05, "cooling": 0.9, "period": 7},
     {"batch": 64, "rate": 0.02, "mass": True, "momentum": 0.5}, {"natural": True, "second": "symmetric"}],
)  # fmt: skip
def test_an_interrupted_training_goes_on_to_the_bit(training: dict[str, Any], tmp_path: Path) -> None:
    """Killed between checkpoints, before the first one too; another seed, and no chains, are other bits."""
    run = config({"n_hidden": 5}, **training)
    whole = train_machine(run, DATA, "d", tmp_path / "whole")
    for after in (4, 27, 3):
        with pytest.raises(Stop):
            train_machine(run, DATA, "d", tmp_path / "part", Stopping(after))
        assert not (tmp_path / "part/model.json").exists()
    progress = Stopping(1000)
    assert torch.equal(train_machine(run, DATA, "d", tmp_path / "part", progress).w, whole.w)
    assert progress.done == 20
    assert images(tmp_path / "part") == images(tmp_path / "whole")
    assert torch.equal(train_machine(run, DATA, "d", tmp_path / "part", Stopping(-1)).w, whole.w)  # no step
    other = train_machine(config({"n_hidden": 5}, seed=2, **training), DATA, "d", tmp_path / "other")
    assert not torch.equal(other.w, whole.w)


def test_another_training_in_the_same_folder_leaves_no_line_of_the_first(tmp_path: Path) -> None:
    train_machine(config(), DATA, "d", tmp_path / "e")
    second = config({"mu2": 5.0}, seed=2)
    for name in "ef":
        train_machine(second, DATA, "d", tmp_path / name)
    assert images(tmp_path / "e") == images(tmp_path / "f")


def test_the_free_field_is_learned(tmp_path: Path) -> None:
    """To the spectrum, from the exact moments; the rate is half the limit, and written down."""
    run = config(second="exact", n_steps=2500, checkpoint_every=1000)
    machine = train_machine(run, DATA, "d", tmp_path)
    np.testing.assert_allclose(machine.spectrum, KAPPA, rtol=1e-6)
    assert float(machine.divergence(SECOND)) < 1e-9
    about = load_machine(tmp_path)[1]
    assert about["rate"] == pytest.approx(0.5 * largest_step(KAPPA, 4.0)[0])
    assert (about["n_data"], about["data"], about["config"]["machine"]["mu2"]) == (512, "d", 4.0)
    cut = train_machine(config({"n_hidden": 2}, second="exact", n_steps=2500), DATA, "d", tmp_path / "cut")
    kl = exact.divergence(KAPPA, exact.learned(KAPPA, 4.0, 2))
    assert float(cut.divergence(SECOND)) == pytest.approx(kl, abs=1e-6)
    assert kl > 0.1


def test_the_momentum_of_the_published_runs_at_the_automatic_rate(tmp_path: Path) -> None:
    """0.8: the rate chosen for it leads to the same machine."""
    run = config(second="exact", n_steps=2500, momentum=0.8)
    np.testing.assert_allclose(train_machine(run, DATA, "d", tmp_path).spectrum, KAPPA, rtol=1e-6)


def test_the_moments_that_are_asked_for() -> None:
    flat = torch.from_numpy(DATA.reshape(512, 8))
    known = {"data": flat.T @ flat / 512, "symmetric": circulant(power_of(DATA)), "exact": SECOND}
    for name, second in known.items():
        assert (second_of(config(second=name), DATA) - second).abs().max() < 1e-14
    assert (known["data"] - known["symmetric"]).abs().max() > 1e-3


def test_what_a_config_leaves_open() -> None:
    """mu^2 = 1.05 times the largest kappa that is finite, as many hidden nodes as sites, half the limit."""
    machine = start_of(config({"mu2": None}), SECOND)
    assert float(machine.mu2) == pytest.approx(1.05 * KAPPA[-1])
    assert machine.w.shape == (8, 8)
    flat = SECOND.clone()
    flat[:, 7] = flat[7] = 0
    kappa = 1 / np.linalg.eigvalsh(flat[:7, :7].numpy())[0]
    assert float(start_of(config({"mu2": None}), flat).mu2) == pytest.approx(1.05 * kappa)
    for seed in (1, 2):
        w = start_of(config({"width": 0.3, "n_hidden": 400, "mu2": 99.0}, seed=seed), SECOND).w
        assert float(w.std()) == pytest.approx(0.3, rel=4.5 / (2 * 3200) ** 0.5)
    for training in ({"method": "cd", "k": 2}, {"natural": True}, {"mass": True}):
        chosen = config({"n_hidden": 5}, **training)
        start = start_of(chosen, SECOND)
        how = learning_of(chosen.training, SECOND, start)
        assert how.rate == pytest.approx(0.5 * how.limit(SECOND, start)[0])
        assert {name: getattr(how, name) for name in training} == training
        given = config(**training, rate=0.01).training
        assert learning_of(given, SECOND, start).rate == 0.01


def test_the_lines_say_how_far_it_is(tmp_path: Path) -> None:
    run = config({"n_hidden": 5}, rate=0.1)
    machine = train_machine(run, DATA, "d", tmp_path)
    found, second = lines(tmp_path), second_of(run, DATA)
    assert [line["step"] for line in found] == records(60, 12)
    assert found[0]["spectrum"] == start_of(run, second).spectrum.tolist()
    assert found[-1]["spectrum"] == machine.spectrum.tolist()
    assert found[-1]["kl"] == float(machine.divergence(second))
    likely = float(machine.log_prob(torch.from_numpy(DATA.reshape(512, 8))).mean())
    assert found[-1]["log_likelihood"] == pytest.approx(likely, rel=1e-12)
    assert log_likelihood(machine, second) == pytest.approx(likely, rel=1e-12)
    assert (np.diff([line["kl"] for line in found]) < 0).all()
    np.testing.assert_allclose(  # KL and likelihood differ by the entropy of the data's Gaussian
        np.diff([line["kl"] + line["log_likelihood"] for line in found]), 0, atol=1e-10
    )
    assert {line["mu2"] for line in found} == {4.0}
    train_machine(config(n_steps=0), DATA, "d", tmp_path / "none")
    assert [line["step"] for line in lines(tmp_path / "none")] == records(0, 12) == [0]


def test_what_cannot_be_learned_is_refused_before_the_first_step(tmp_path: Path) -> None:
    holes = DATA.copy()
    holes[3, 1, 2] = np.nan
    bad: list[tuple[MachineRun, Floats, str]] = [
        (config(batch=513, rate=0.01), DATA, "batch of 513 fields needs as many, the data has 512"),
        (config({"mu2": 0.8, "width": 0.01}), DATA, "below every kappa"),
        (config({"mu2": 0.8, "width": 0.01}, rate=0.1), DATA, "below every kappa"),
        (config(rate=1.01 * largest_step(KAPPA, 4.0)[0], second="exact"), DATA, "unstable, K would not stay"),
        (config(), holes, "NaN or infinite fields"),
        (config({"width": 3.0}), DATA, "not positive .*at the start; take a smaller width"),
        (config({"mu2": 50.0}), DATA[:5], "3 of 8 modes have no variance in the 5 fields"),
    ]
    for i, (run, phi, words) in enumerate(bad):
        with pytest.raises(InputError, match=words) as error:
            train_machine(run, phi, "d", tmp_path / str(i))
        assert "\n" not in str(error.value)
        assert not [*(tmp_path / str(i)).glob("checkpoint*"), *(tmp_path / str(i)).glob("model.json")]


def learned_from(begin: GaussianRBM, second: torch.Tensor, how: Learning, n: int, **more: Any) -> GaussianRBM:
    *_, (_, end) = learn(begin, second, how, n, **more)
    return end


@pytest.mark.parametrize("how", [Learning(0.05, "pcd", 2, n_chains=30), Learning(0.05, "cd", momentum=0.7)])
def test_learning_goes_on_from_its_state(how: Learning) -> None:
    """In memory too: machine and state of a step are all there is; without the velocity or chains not."""
    begin = start_of(config(), SECOND)
    draw = None if how.n_chains else from_gaussian(torch.linalg.cholesky(SECOND), 20, 3)
    whole = learned_from(begin, SECOND, how, 40, draw=draw)
    state = State()
    part = learned_from(begin, SECOND, how, 23, draw=draw, state=state)
    assert state.step == 23
    lost = learned_from(part, SECOND, how, 40, draw=draw, state=State(23))
    assert not torch.equal(lost.w, whole.w)
    steps = learn(part, SECOND, how, 30, draw=draw, state=State(**vars(state)))
    assert [step for step, _ in steps] == list(range(23, 31))
    assert torch.equal(learned_from(part, SECOND, how, 40, draw=draw, state=state).w, whole.w)
    assert state.step == 40


def test_persistent_chains_beside_exact_moments() -> None:
    """They start in the machine's own law, and end at the target with a noise of rate/n_chains."""
    machines = 8
    begin = GaussianRBM.initial(8, 8, 4.0, 0.3, noise_of("pcd/w", machines, (8, 8))(0))
    state = State()
    learned_from(begin, SECOND, Learning(0.0, "pcd", n_chains=500), 1, state=state)
    assert state.chains is not None
    assert state.chains.shape == (machines, 500, 8)
    spread = (state.chains @ begin.kernel * state.chains).sum(-1).mean()  # chi^2 of 8 in equilibrium
    n = machines * 500
    assert abs(float(spread) - 8) < 4.5 * (16 / n) ** 0.5
    target = torch.linalg.inv(SECOND)
    assert abs(float((state.chains @ target * state.chains).sum(-1).mean()) - 8) > 10 * (16 / n) ** 0.5
    best, off = most_likely(SECOND, 4.0, 8), {}
    near = GaussianRBM(best.w.expand(machines, 8, 8).clone(), torch.full((machines,), 4.0).double())
    for n_chains in (40, 640):
        end = learned_from(near, SECOND, Learning(0.05, "pcd", n_chains=n_chains), 400)
        off[n_chains] = end.kernel - target
        assert float(off[n_chains].mean(0).abs().max()) < 4.5 * float(off[n_chains].std()) / machines**0.5
    assert float(off[40].std() / off[640].std()) == pytest.approx(4, rel=0.25)
    with pytest.raises(InputError, match="give draw, or n_chains"):
        learned_from(begin, SECOND, Learning(0.1, "pcd"), 1)


@pytest.mark.parametrize("n_chains", [0, -1])
def test_there_is_at_least_one_chain(n_chains: int) -> None:
    with pytest.raises(InputError, match="n_chains must be at least 1"):
        Learning(0.1, "pcd", n_chains=n_chains)


def test_steps_out_of_positive_k_are_not_taken_where_that_is_asked() -> None:
    """Batches of few fields: noise leads out; refused and counted, all other machines move on."""
    draw = from_gaussian(torch.linalg.cholesky(SECOND), 12, 5, 40)
    begin = GaussianRBM.initial(8, 8, 4.0, 0.3, noise_of("refuse/w", 40, (8, 8))(0))
    how = Learning(0.15, "cd")
    with pytest.raises(InputError, match="is not positive in .* of 40 machines .*after step"):
        learned_from(begin, SECOND, how, 300, draw=draw)
    state, before, stayed = State(), begin, 0
    for step, machine in learn(begin, SECOND, how, 300, draw=draw, state=state, refuse_steps=True):
        if step:
            assert float(machine.spectrum.min()) > 0
            stayed += int((machine.w == before.w).all(-1).all(-1).sum())
        before = machine
    assert state.refused == stayed > 10
    assert state.refused < 0.1 * 300 * 40
    calm, quiet = State(), Learning(0.01, "cd")
    one = learned_from(begin, SECOND, quiet, 50, draw=draw, state=calm, refuse_steps=True)
    assert calm.refused == 0
    assert torch.equal(one.w, learned_from(begin, SECOND, quiet, 50, draw=draw).w)


DEEP, MASS, ONE = 0.0956, 36.0, torch.tensor([[1 / 0.0956]]).double()
STAR = MASS - DEEP


def deep(n: int = 300) -> GaussianRBM:
    """One mode of digits, from many starts below y*."""
    y = STAR * np.geomspace(1e-6, 0.9999, n)
    return GaussianRBM(torch.from_numpy(y**0.5).reshape(n, 1, 1), torch.full((n,), MASS).double())


def test_contrastive_divergence_can_leave_positive_k_on_its_way() -> None:
    """Stable at its end until 0.0480, but only until 0.0269 on the way there: refused in between."""
    most, words = Learning(0.01, "cd").limit(ONE, deep())
    assert most == pytest.approx(0.0269, abs=1e-4)
    assert words == "mode 0 with kappa = 0.0956, on its way,"
    with pytest.raises(InputError, match="0.04 is unstable.* 0.0956, on its way, allows less than 0.0268"):
        learned_from(deep(), ONE, Learning(0.04, "cd"), 1)
    end = learned_from(deep(), ONE, Learning(0.026, "cd"), 3000)
    assert (end.spectrum - DEEP).abs().max() < 1e-6
    with pytest.raises(InputError, match="is not positive"):
        learned_from(deep(), ONE, Learning(1.1 * most, "cd"), 3000, allow_any_rate=True)
    near = GaussianRBM(torch.tensor([[(0.9999 * STAR) ** 0.5]]).double(), torch.tensor(MASS).double())
    still = learned_from(near, ONE, Learning(0.04, "cd"), 3000, allow_any_rate=True)
    assert abs(float(still.kernel) - DEEP) < 1e-6


@pytest.mark.parametrize("momentum", [0.3, 0.5, 0.8])
def test_momentum_makes_the_way_no_safer(momentum: float) -> None:
    """A heavy ball comes faster to where steps are too long: a rate that is allowed must arrive."""
    how = Learning(0.01, "cd", momentum=momentum)
    most, _ = how.limit(ONE, deep())
    assert most <= reachable_step(DEEP, MASS, k=1)[0]
    end = learned_from(deep(), ONE, Learning(0.95 * most, "cd", momentum=momentum), 4000)
    assert (end.spectrum - DEEP).abs().max() < 1e-6


def test_the_reachable_step() -> None:
    """The end limits exact learning and shallow modes, the way a deep one of cd; never above the end's."""
    for k in (None, 1):
        found, on_the_way = reachable_step(4.0, 9.0, k=k)
        assert (found, on_the_way) == (largest_step(np.array([4.0]), 9.0, k=k)[0], False)
    end, (most, on_the_way) = largest_step(np.array([DEEP]), MASS, k=1)[0], reachable_step(DEEP, MASS, k=1)
    assert on_the_way
    assert [most, end] == pytest.approx([0.0269, 0.0480], abs=1e-4)
    assert reachable_step(DEEP, MASS, s=0.5, k=1)[0] == pytest.approx(4 * most, rel=1e-6)
    assert reachable_step(DEEP, MASS)[0] == largest_step(np.array([DEEP]), MASS)[0]
    for kappa in (0.03, 0.3, 1.0):
        for k in (1, 3, 10):
            assert reachable_step(kappa, MASS, k=k)[0] <= largest_step(np.array([kappa]), MASS, k=k)[0]


def test_a_mass_is_learned_and_resumed(tmp_path: Path) -> None:
    run = config({"n_hidden": 3}, second="exact", mass=True, n_steps=6000, checkpoint_every=900)
    with pytest.raises(Stop):
        train_machine(run, DATA, "d", tmp_path, Stopping(2500))
    machine = train_machine(run, DATA, "d", tmp_path)
    assert float(machine.mu2) == pytest.approx(exact.best_mass(KAPPA, 3), abs=1e-4)
    assert [lines(tmp_path)[i]["mu2"] for i in (0, -1)] == [4.0, float(machine.mu2)]


def test_a_learned_mass_shares_the_limit_with_the_modes() -> None:
    """W and mu^2 move together: 2 over the largest curvature of both, below the limit of either alone."""
    mu2, kept = exact.best_mass(KAPPA, 3), KAPPA[:3]
    curvature = np.diag([*(2 * (mu2 - kept) / kept**2), 0.5 * ((kept**-2.0).sum() + 5 / mu2**2)])
    curvature[:3, 3] = curvature[3, :3] = -np.sqrt(mu2 - kept) / kept**2
    known, best = 2 / np.linalg.eigvalsh(curvature)[-1], most_likely(SECOND, mu2, 3)
    near = GaussianRBM(1.001 * best.w, 1.001 * best.mu2)
    for rate, stays in ((0.97 * known, True), (1.03 * known, False)):
        end = learned_from(near, SECOND, Learning(rate, mass=True), 3000, allow_any_rate=True)
        assert (abs(float(end.mu2) - mu2) < 1e-6) is stays
    assert Learning(0.0, mass=True).limit(SECOND, best)[0] <= 1.001 * known

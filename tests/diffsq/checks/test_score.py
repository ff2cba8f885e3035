"""The error of a score in nats: none where there is none, known ones as large as they are, and a verdict on
the averages that measure it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benches import make_bench
from fields import free_fields, white
from figures import drawn
from places import ROOT
from posteriors import excess, site_draws, site_posterior
from small_models import free_model, levels_of
from torch import Tensor

from diffsq.checks import score
from diffsq.config.config import load_config
from diffsq.models.lattice import N_CHANNEL, N_CONDITION, LatticeScore
from diffsq.models.momentum import Momenta, shells
from diffsq.models.regression import RegressionBase
from diffsq.models.spread import Spread
from diffsq.models.symmetry import Symmetry
from diffsq.models.unet import UNet
from diffsq.run_folder.finished import Workbench
from diffsq.sampling.lattice_path import ReversePath
from diffsq.training import posterior_fields
from diffsq.training.posterior_fields import posterior_means
from diffsq.training.validation import spread_levels
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.actions.protocol import WithoutAction
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.scalar import one_site_moments
from lattice.progress import Silent

SHAPE, FREE, SITES = (4, 4), FreeScalar(0.15), ScalarPhi4(0.0, 0.5)
Result = dict[str, Any]


class Stretched(LatticeScore):
    """D = (1 + excess) W x: wrong by a known amount where the theory is free."""

    excess = 0.05

    def network(
        self, x: Tensor, u: Tensor, base: Tensor, sigma: Tensor, symmetry: Symmetry
    ) -> tuple[Tensor, Spread | None]:
        w, c = (self.momenta.expand(q) for q in self.base.wiener(sigma))
        return self.momenta.fields(self.excess * w / c.sqrt() * self.momenta.modes(x)), None


class SiteTruth(LatticeScore):
    """The exact denoiser of independent sites of phi^4."""

    def network(
        self, x: Tensor, u: Tensor, base: Tensor, sigma: Tensor, symmetry: Symmetry
    ) -> tuple[Tensor, Spread | None]:
        w, c = (q[:, 0, None, None] for q in self.base.wiener(sigma))  # G is the same in every class
        return (site_posterior(SITES, x, sigma[:, None, None])[0] - w * x) / c.sqrt(), None


@dataclass(frozen=True)
class Known(WithoutAction):
    """A law of which nobody has written down S."""

    kind = "known"


@pytest.fixture(autouse=True)
def _together(monkeypatch: pytest.MonkeyPatch) -> None:
    """More fields in one step of small lattices, which changes no number (tested below)."""
    monkeypatch.setattr(score, "BATCH", 512)


def bench_of(action: ScalarPhi4, phi: Tensor, model: LatticeScore) -> Workbench:
    """A run in memory: exact fields in 64 chains, half of them held out."""
    config = load_config(ROOT / "configs" / "tiny.yaml", ["training.validation_fraction=0.5"])
    ensemble = Ensemble.from_fields(phi.numpy(), action, chain=np.arange(len(phi)) % 64)
    path = ReversePath(model, levels_of(model, 4))
    return Workbench(Path(), config, action, ensemble, torch.device("cpu"), model, path, None, ensemble)


def unet() -> UNet:
    """To stand where a network is; its weights are not used."""
    return UNet(N_CHANNEL, N_CONDITION, 4, 2)


def free_bench(kind: type[LatticeScore] | None = None, n: int = 1024) -> Workbench:
    model = free_model(SHAPE, FREE.kappa, 5.0)
    model = model if kind is None else kind(model.base, unet())
    return bench_of(FREE, free_fields(FREE, SHAPE, n, 1), model)


def sites_bench(low: float = 0.2, high: float = 5.0) -> Workbench:
    """Independent sites: the base is the Wiener filter, base and network the truth."""
    base = RegressionBase(Momenta(SHAPE), 8)
    g = float(one_site_moments(SITES, (2,))[0])
    base.set_gaussian(torch.full((base.momenta.n_class,), g, dtype=torch.float64), low, high)
    return bench_of(SITES, site_draws(SITES, SHAPE, 1024, 3), SiteTruth(base, unet()))


@lru_cache(maxsize=1)
def fitted() -> Workbench:
    """An interacting theory and the base fitted to it."""
    return make_bench(ScalarPhi4(0.25, 0.022), SHAPE, 1024)


def run(bench: Workbench, n_traj: int = 7, n_gap: int = 8, n_fields: int = 128, n_levels: int = 4) -> Result:
    return score.run(bench, Silent(), n_fields, n_levels, n_traj, n_gap)


def pulls(row: Result, name: str, truth: Any) -> Any:
    return (np.array(row[name]) - truth) / np.array(row[f"{name}_error"])


def apart(value: float, error: float, samples: Tensor) -> float:
    """Distance of a value and the mean of independent samples (n,) in units of their error."""
    own = float(samples.std()) / len(samples) ** 0.5
    return (value - float(samples.mean())) / math.hypot(error, own)


def everywhere(result: Result, name: str) -> list[float]:
    """Value over error per level, per shell and of the total."""
    rows = [*result["levels"], result["shell"], result["total"]]
    return np.concatenate([np.atleast_1d(pulls(row, name, 0.0)) for row in rows]).tolist()


# what is known ---------------------------------------------------------------------------------------------


def test_a_free_score_has_no_error() -> None:
    """Wiener filter and base are exact; one draw in place of an average would cost sum W/2 nats."""
    bench = free_bench()
    result = run(bench)
    assert result["passed"]
    assert result["names"] == ["wiener", "base"]
    for name in ("wiener", "base"):
        assert np.abs(everywhere(result, name)).max() < 4.5
        assert result["total"][f"{name}_error"] < 0.01
    p, sigma = bench.model.momenta, torch.tensor([q["sigma"] for q in result["levels"]]).double()
    torch.testing.assert_close(sigma, spread_levels(bench.model, 4))
    w, _ = bench.model.base.wiener(sigma)
    one_draw, error = 0.5 * (p.multiplicity * w).sum(1), (0.5 * (p.multiplicity * w**2).sum(1) / 128).sqrt()
    found = torch.tensor([q["one_draw"] for q in result["levels"]]).double()
    assert ((found - one_draw) / error).abs().max() < 4.5
    assert all(q["noise"] < 0.2 * q["one_draw"] for q in result["levels"])


@pytest.mark.parametrize("excess_of", [0.05, -0.1])
def test_a_known_error_of_a_free_field(excess_of: float) -> None:
    """D = (1 + e) W x costs e^2 W G/(2 sigma^2) per mode, and that is what is found, by level and shell."""
    bench = free_bench(Stretched, 4096)
    bench.model.excess = excess_of
    result = run(bench, n_traj=3, n_gap=4, n_fields=512)
    p, base = bench.model.momenta, bench.model.base
    sigma = spread_levels(bench.model, 4)
    rate = excess_of**2 * p.multiplicity * base.wiener(sigma)[0] * base.g / (2 * sigma[:, None] ** 2)
    index, labels = shells(p)
    width = bench.model.log_range / 4
    shell = torch.zeros(len(labels), dtype=torch.float64).index_add(0, index, width * rate.sum(0)).numpy()
    assert [q["label"] for q in result["shells"]] == [q["label"] for q in labels]
    for name, sign in (("network", 1), ("gain", -1)):
        for level, truth in zip(result["levels"], rate.sum(1).tolist(), strict=True):
            assert abs(pulls(level, name, sign * truth)) < 4.5
        assert np.abs(pulls(result["shell"], name, sign * shell)).max() < 4.5
        assert abs(pulls(result["total"], name, sign * shell.sum())) < 4.5
        for wrong in (0.0, 0.5, 2.0):  # controls: nothing, and a factor of two
            assert abs(pulls(result["total"], name, sign * wrong * shell.sum())) > 10
    assert np.abs(everywhere(result, "base")).max() < 4.5


def test_a_shifted_coefficient_costs_what_it_adds() -> None:
    """The Wiener filter of a free field is exact: the base errs by sqrt(C) c(k), here measured at other x."""
    bench = free_bench()
    bench.model.base.coefficients[:, :, 0] += 0.05
    result = run(bench)
    p, base = bench.model.momenta, bench.model.base
    phi, (index, labels) = free_fields(FREE, SHAPE, 2048, 11), shells(p)
    total = torch.zeros(len(phi), len(labels), dtype=torch.float64)
    for level in result["levels"]:
        sigma = torch.tensor([level["sigma"]], dtype=torch.float64)
        xk = p.modes(phi + sigma * white(SHAPE, len(phi), 12))
        added = p.expand(base.wiener(sigma)[1]) * base(xk, sigma).abs() ** 2 / (2 * sigma**2)
        rate = torch.zeros_like(total).index_add(1, index, p.class_sum(p.weight * added))
        assert abs(apart(level["base"], level["base_error"], rate.sum(1))) < 4.5
        total += bench.model.log_range / 4 * rate
    for i in range(len(labels)):
        shell = result["shell"]
        assert abs(apart(shell["base"][i], shell["base_error"][i], total[:, i])) < 4.5
    value, error = result["total"]["base"], result["total"]["base_error"]
    assert abs(apart(value, error, total.sum(1))) < 4.5
    for wrong in (0.5, 2.0):
        assert abs(apart(value, error, wrong * total.sum(1))) > 10
    assert np.abs(everywhere(result, "wiener")).max() < 4.5


def noise_apart(bench: Workbench, level: Result) -> float:
    """Distance of the noise of an average from that of other averages about the true mean, in errors."""
    phi, sigma = site_draws(SITES, SHAPE, 512, 21), level["sigma"]
    x, s = phi + sigma * white(SHAPE, 512, 22), torch.full((512,), sigma, dtype=torch.float64)
    base, chains = bench.model.base, np.arange(512)
    found = posterior_means(base, SITES, phi, x, s, 3, seed=23, chains=chains).phi
    own = (found - site_posterior(SITES, x, s[:, None, None])[0]).square().sum((1, 2)) / (2 * sigma**2)
    return apart(level["noise"], float(own.std()) / 128**0.5, own)


def test_independent_sites_by_quadrature() -> None:
    """The exact denoiser has no error, the Wiener filter that of an integral; what the network gains is the
    difference, field by field, without what both owe to the noise of the averages."""
    bench = sites_bench()
    result = run(bench, n_traj=3)
    assert result["passed"]
    assert result["names"] == ["wiener", "base", "network"]
    assert np.abs(everywhere(result, "network")).max() < 4.5
    truth = np.array([16 * excess(SITES, level["sigma"]) for level in result["levels"]])
    width = bench.model.log_range / 4
    for name in ("wiener", "base", "gain"):
        found = [pulls(level, name, t) for level, t in zip(result["levels"], truth, strict=True)]
        assert np.abs(found).max() < 4.5
        assert abs(pulls(result["total"], name, width * truth.sum())) < 4.5
        assert pulls(result["total"], name, 0.0) > 10
    for row in (*result["levels"], result["total"]):
        assert row["gain"] == pytest.approx(row["base"] - row["network"], abs=1e-9)
        assert row["gain_error"] < 1.2 * row["base_error"]
        if "noise" in row:
            assert abs(noise_apart(bench, row)) < 4.5
    noisiest = result["levels"][-1]
    assert noisiest["gain_error"] < 0.1 * min(noisiest["base_error"], noisiest["network_error"])


def test_a_fitted_base_against_the_wiener_filter() -> None:
    """At the critical point the regression leaves a hundredth of what the Wiener filter misses."""
    result = run(fitted())
    assert result["passed"]
    total = result["total"]
    assert total["wiener"] > 5 * total["wiener_error"]
    assert abs(total["base"]) < 0.1 * total["wiener"]
    assert total["base"] < 4.5 * total["base_error"]
    assert sum(result["shell"]["wiener"]) == pytest.approx(total["wiener"])
    width = fitted().model.log_range / 4
    assert width * sum(q["base"] for q in result["levels"]) == pytest.approx(total["base"])


# the verdict -----------------------------------------------------------------------------------------------


def test_averages_that_know_of_each_other_do_not_pass() -> None:
    """Control: without a gap the second average begins where the first ended, and the fitted base seems
    wrong by far more than its error. What is gained needs one average, and stays right."""
    short, long = run(fitted(), 1, 0, n_fields=512), run(fitted(), 7, 8)
    assert long["passed"]
    assert not short["passed"]
    assert max(abs(q["memory"]) for q in short["levels"]) > 0.9
    assert max(abs(q["memory"]) for q in long["levels"]) < 0.365
    off = short["total"]["base"] - long["total"]["base"]
    assert off > 4 * math.hypot(short["total"]["base_error"], long["total"]["base_error"])
    told = score.text(short)
    assert told.endswith("NOT passed")
    assert "raise n_gap" in told
    bench = sites_bench()
    result = run(bench, n_traj=1, n_gap=0)
    truth = bench.model.log_range / 4 * sum(16 * excess(SITES, q["sigma"]) for q in result["levels"])
    assert not result["passed"]
    assert pulls(result["total"], "network", 0.0) > 4
    assert abs(pulls(result["total"], "gain", truth)) < 4.5
    assert pulls(result["total"], "gain", 0.0) > 10


def test_trajectories_that_are_refused_do_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posterior_fields, "STEP", 1.5)
    result = run(sites_bench(), n_fields=32)
    assert min(q["acceptance"] for q in result["levels"]) < score.LEAST
    assert not result["passed"]


def test_the_same_numbers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the run's seed: all but the time that it took; and whatever moves together, up to rounding."""
    bench = free_bench(n=256)
    one, two = (run(bench, n_traj=1, n_gap=1, n_fields=48, n_levels=2) for _ in range(2))
    assert one | {"seconds_per_trajectory": 0} == two | {"seconds_per_trajectory": 0}
    assert one["n_fields"] == 48
    assert one["n_traj"] == 1
    monkeypatch.setattr(score, "BATCH", 32)
    parted = run(bench, n_traj=1, n_gap=1, n_fields=48, n_levels=2)
    for name in ("levels", "total", "shell"):
        for a, b in zip(*(np.atleast_1d(np.array(q[name])) for q in (one, parted)), strict=True):
            assert a.keys() == b.keys()
            for key in a:
                assert a[key] == pytest.approx(b[key], rel=1e-6, abs=1e-9)
    assert run(bench, n_traj=1, n_gap=1, n_fields=10**6, n_levels=2)["n_fields"] == 128  # all held out


# words, figure, refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, Stretched])
def test_words_and_figure(kind: type[LatticeScore] | None) -> None:
    result = run(free_bench(kind), n_traj=3, n_gap=3, n_fields=32)
    again = json.loads(json.dumps(result, allow_nan=False))
    told = score.text(again)
    assert told.isascii()
    assert told.endswith("passed")
    words = ["wiener", "base", "one draw", "memory", "acceptance", "k = 0", "all", "32 held-out fields"]
    for word in [*words, "averages over 4 fields"]:
        assert word in told
    for word in (" network ", " gain"):
        assert (word in told.partition("\n")[0] + " ") == (kind is not None)
    assert all(label["label"] in told for label in result["shells"])
    figure = drawn(score.figure, again, 2, render=True)
    lines = figure.axes[0].get_legend_handles_labels()[1]
    assert lines == result["names"]


@pytest.mark.parametrize(
    "wrong", [{"n_fields": 15}, {"n_levels": 1}, {"n_traj": 0}, {"n_gap": -1}], ids=lambda q: next(iter(q))
)
def test_numbers_that_measure_nothing_are_refused(wrong: dict[str, int]) -> None:
    score.refuse()
    score.refuse(16, 2, 1, 0)
    with pytest.raises(InputError, match=r"n_gap >= 0, got .*" + str(next(iter(wrong.values())))):
        score.refuse(**wrong)
    with pytest.raises(InputError, match="the check score needs n_fields >= 16"):
        score.run(free_bench(n=64), Silent(), **wrong)  # type: ignore[arg-type]


def test_laws_and_flows_that_have_another_posterior_are_refused() -> None:
    bench = free_bench(n=128)
    bench.flow = SimpleNamespace(base=SimpleNamespace(sector=True))  # type: ignore[assignment]
    with pytest.raises(InputError, match="the flow of this run is that of one sector"):
        run(bench)
    bench.flow = SimpleNamespace(base=SimpleNamespace(sector=False))  # type: ignore[assignment]
    assert run(bench, n_traj=1, n_gap=1, n_fields=16, n_levels=2)["n_fields"] == 16
    bench.action = Known()
    with pytest.raises(InputError, match="law without an action cannot be sampled: see `validation.json`"):
        run(bench)

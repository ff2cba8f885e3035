"""Sample sets of the flow: a start law that fits the data, same bits in any order, half steps beside it."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killer import killed
from longer import same_numbers
from small_config import SETTINGS
from small_flows import NEAR, flow_base
from small_models import equilibrium, noise_of

from diffsq.config.config import LatticeRun, config_from_dict
from diffsq.config.sections import FLOW_LEVELS
from diffsq.exactness.weights import forward_ess
from diffsq.models.lattice import LatticeScore
from diffsq.models.lattice_flow import LatticeFlow, steps_of
from diffsq.sampling import flow_sets
from diffsq.sampling.draws import Sampling
from diffsq.sampling.flow_sets import HALF, N_HALF, flow_from, flow_of, in_groups, log_weights
from diffsq.sampling.lattice_sets import sample
from diffsq.training.lattice import train
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.errors import InputError
from lattice.observables.measure import MIN_ESS
from lattice.progress import Silent

SYMMETRIC, BROKEN = 0.25, 0.40


def config(kappa: float, **sampling: Any) -> LatticeRun:
    shape = (6, 6) if kappa == BROKEN else (4, 4)
    found = config_from_dict(
        {
            **SETTINGS, "action": {"kind": "phi4", "kappa": kappa, "lam": 0.05}, "lattice": {"shape": shape},
            "model": {"channels": 0, "n_levels": 1, "n_sigma": 20, "n_fit": 512}, "training": {"n_steps": 0},
            "sampling": {"n_samples": 100, "n_levels": 6, "n_forward": 64, **sampling},
        }
    )  # fmt: skip
    assert isinstance(found, LatticeRun)
    return found


Made = tuple[Ensemble, LatticeScore]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@pytest.fixture(scope="module")
def near(folder: Path) -> Made:
    return made(SYMMETRIC, folder)


@pytest.fixture(scope="module")
def broken(folder: Path) -> Made:
    return made(BROKEN, folder)


@lru_cache
def made(kappa: float, folder: Path) -> Made:
    """An ensemble and the closed form fitted to it."""
    settings, action = config(kappa), ScalarPhi4(kappa, 0.05)
    phi = equilibrium(action, settings.lattice.shape, 1024).numpy()
    ensemble = Ensemble.from_fields(phi, action, chain=np.arange(1024) % 8)
    return ensemble, train(settings, ensemble, folder / str(kappa))


def work_of(made: Made, kappa: float, **sampling: Any) -> Sampling:
    ensemble, model = made
    return Sampling(config(kappa, **sampling), model, ensemble, Path(), "", "ve", torch.zeros(2), Silent())


def draw(made: Made, out: Path, **sampling: Any) -> Ensemble:
    ensemble, model = made
    return sample(config(SYMMETRIC, **sampling), model, ensemble, out)


# --- which flow -------------------------------------------------------------------------------------------


def test_two_sharp_peaks_start_in_one_of_them(broken: Made) -> None:
    """The flow of both signs is flagged by its forward ESS."""
    work = work_of(broken, BROKEN)
    phi = work.fields(work.rows(256))
    ess = {}
    for start in ("symmetric", "sector"):
        flow = flow_of(work_of(broken, BROKEN, start=start))
        assert flow.base.sector == (start == "sector")
        ess[start] = forward_ess(log_weights(work, flow, phi).numpy())[0]
    assert ess["symmetric"] < MIN_ESS  # what the flag is raised by
    assert ess["sector"] > 0.5
    assert flow_of(work).base.sector


@pytest.mark.parametrize(("spread", "sector"), [(10.0, False), (0.8, False), (0.6, True), (0.1, True)])
def test_a_sector_is_taken_where_it_is_clearly_better(
    broken: Made, monkeypatch: pytest.MonkeyPatch, spread: float, sector: bool
) -> None:
    """Where fields have been between the peaks: -ln ESS, like spread^2, half of the other's or less."""

    def weights(work: Sampling, flow: LatticeFlow, phi: torch.Tensor) -> torch.Tensor:
        return phi.mean((1, 2)) * 0.05 * (spread if flow.base.sector else 1)

    monkeypatch.setattr(flow_sets, "log_weights", weights)
    monkeypatch.setattr(flow_sets, "UNSEEN", 0.0)
    assert flow_of(work_of(broken, BROKEN)).base.sector == sector


def test_where_no_field_was_between_the_peaks_weights_decide_nothing(
    broken: Made, near: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few samples between them would have any weight, and held-out fields never say so."""
    monkeypatch.setattr(flow_sets, "log_weights", None)  # it is not asked
    assert flow_of(work_of(broken, BROKEN)).base.sector
    between = [q[1].base.zero_mode.between() for q in (broken, near)]
    m = np.abs(broken[0].phi.mean((1, 2)))
    assert (m < 0.3 * m.mean()).mean() < 1e-3
    assert between[0] < flow_sets.UNSEEN < 0.1 < between[1]


def test_one_peak_has_no_sector(near: Made) -> None:
    assert near[1].sector is None
    assert not flow_of(work_of(near, SYMMETRIC)).base.sector
    with pytest.raises(
        InputError, match=r"^sampling.start sector: P\(M\) .* no two separate peaks"
    ) as caught:
        flow_of(work_of(near, SYMMETRIC, start="sector"))
    assert "\n" not in str(caught.value)


def test_a_network_is_refused_in_one_line(near: Made) -> None:
    other = near[0], LatticeScore.unfitted((4, 4), 4, 2)
    with pytest.raises(InputError, match="with a U-Net is not closed-form.* sampling.method path$") as caught:
        flow_of(work_of(other, SYMMETRIC))
    assert "\n" not in str(caught.value)


def test_steps_where_the_config_says_nothing(near: Made) -> None:
    assert flow_of(work_of(near, SYMMETRIC, n_levels=9)).n_steps == 9
    flow = flow_of(work_of(near, SYMMETRIC, n_levels=None))
    assert flow.n_steps == steps_of(near[1].base) == FLOW_LEVELS
    far = LatticeScore.unfitted((4, 4), 4).base
    far.log_sigma.copy_(torch.linspace(-2, 9, 4))
    assert steps_of(far) == 50


# --- the files --------------------------------------------------------------------------------------------


def test_weights_and_samples_are_those_of_the_flow(near: Made, tmp_path: Path) -> None:
    samples, work = draw(near, tmp_path, n_levels=96), work_of(near, SYMMETRIC)
    flow = flow_from(samples, near[1])
    assert flow is not None
    assert (flow.n_steps, flow.base, flow.process) == (96, near[1].base, "ve")
    assert samples.attrs["generated"]["start"] == flow_sets.START[False]
    assert samples.log_weight is not None
    back = log_weights(work, flow, torch.from_numpy(samples.phi)).numpy()  # upwards
    assert np.abs(back - samples.log_weight).max() < 0.01 * np.ptp(samples.log_weight)
    forward = json.loads((tmp_path / "forward.json").read_text())
    assert forward["model"] == log_weights(work, flow, work.fields(work.rows(64))).tolist()
    samples.attrs["generated"]["law"] = 0
    with pytest.raises(InputError, match="samples of version 0 of the flow"):
        flow_from(samples, near[1])
    samples.attrs["generated"]["sampler"] = "path"
    assert flow_from(samples, near[1]) is None


def test_half_steps_are_of_the_first_samples(near: Made, tmp_path: Path) -> None:
    """From the same noise, in twice the number of steps."""
    samples = draw(near, tmp_path, n_samples=N_HALF + 30, n_forward=20)
    half = read_ensemble(tmp_path / HALF)
    assert (len(samples), len(half)) == (N_HALF + 30, N_HALF)
    assert half.attrs["generated"]["n_steps"] == 12
    assert len(half.attrs["generated"]["levels"]) == 14
    index = np.arange(64)
    noise = work_of(near, SYMMETRIC).noise("sample/flow", index)(0)
    for n_steps, found in ((6, samples), (12, half)):
        flow = LatticeFlow(near[1].base, n_steps)
        phi, log_w = in_groups(
            lambda z, flow=flow: flow.sample(near[0].action.action, z, torch.ones(len(z))), noise
        )
        assert found.log_weight is not None
        assert np.array_equal(found.phi[:64], phi.numpy())
        assert np.array_equal(found.log_weight[:64], log_w.numpy())
    assert 0 < np.abs(samples.phi[:N_HALF] - half.phi).max() < 0.1


@pytest.mark.parametrize("label", ["samples", "half steps"])
def test_killed_or_made_longer_it_is_the_same(near: Made, tmp_path: Path, label: str) -> None:
    more = {"n_samples": 1100, "n_forward": 100}
    short = draw(near, tmp_path / "a")
    assert len(read_ensemble(tmp_path / "a" / HALF)) == 100
    killed(label, 1, sample, config(SYMMETRIC, **more), near[1], near[0], tmp_path / "a")
    longer, whole = draw(near, tmp_path / "a", **more), draw(near, tmp_path / "b", **more)
    assert same_numbers(longer, whole)
    assert not same_numbers(longer, short)
    assert same_numbers(read_ensemble(tmp_path / "a" / HALF), read_ensemble(tmp_path / "b" / HALF))
    forward = [json.loads((tmp_path / name / "forward.json").read_text()) for name in "ab"]
    assert forward[0] == forward[1]
    assert len(forward[0]["model"]) == 100


@pytest.mark.parametrize("n", [1, 5, 64, 70, 130])
def test_groups_of_any_number_are_the_same_bits(n: int) -> None:
    flow, noise = LatticeFlow(flow_base((4, 4)), 5), noise_of("groups", 130, (4, 4))(0)

    def both(white: torch.Tensor, sign: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return flow.sample(NEAR.action, white, sign)

    sign = torch.ones(130)
    for some, every in zip(in_groups(both, noise[:n], sign[:n]), in_groups(both, noise, sign), strict=True):
        assert len(some) == n
        assert torch.equal(some, every[:n])

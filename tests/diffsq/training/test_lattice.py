"""Training: bitwise resume after an exception and after SIGKILL, divergence, held-out chains, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killer import killed
from own_actions import O2, Own, Tilted
from safetensors.torch import load_file
from small_config import ACTION, SETTINGS, SHAPE, make_ensemble

from diffsq.config.config import Config, config_from_dict
from diffsq.models.lattice import LatticeScore
from diffsq.models.symmetry import Symmetry
from diffsq.training.lattice import describe, in_halves, train
from diffsq.training.loss import Batch, path_kl_rate
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.ensembles.writer import write_ensemble
from lattice.errors import InputError
from lattice.progress import Silent
from lattice.rng import normals


def config(**training: Any) -> Config:
    return config_from_dict({**SETTINGS, "training": {**SETTINGS["training"], **training}})


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    return make_ensemble()


@pytest.fixture(scope="module")
def straight(ensemble: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("straight")
    train(config(), ensemble, out)
    return out


class Interrupt(Silent):
    """Stops a loop at its n-th update."""

    def __init__(self, wanted: str, n: int) -> None:
        self.wanted, self.n, self.label = wanted, n, ""

    def start(self, total: int, label: str, done: int = 0) -> None:
        self.label = label

    def update(self, n: int = 1, **info: object) -> None:
        self.n -= n * (self.label == self.wanted)
        if self.n <= 0:
            raise KeyboardInterrupt


def same_model(a: Path, b: Path) -> bool:
    files = ("weights.safetensors", "model.json", "validation.json")
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in files)


def without_seconds(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_a_finished_training_is_whole(straight: Path) -> None:
    assert sorted(p.name for p in straight.iterdir()) == [
        "checkpoint-00000008.safetensors", "checkpoint-00000012.safetensors", "metrics.jsonl",
        "model.json", "validation.json", "weights.safetensors",
    ]  # fmt: skip
    table = json.loads((straight / "validation.json").read_text())
    assert [h["step"] for h in table["history"]] == [6, 12]
    assert np.shape(table["gain_unet"]) == (len(table["sigma"]), len(table["shells"]))
    assert sum(s["multiplicity"] for s in table["shells"]) == 16
    assert table["total"]["base"] == pytest.approx(np.sum(table["gain_base"]))


@pytest.mark.parametrize(
    ("label", "n"), [("regression base", 2), ("score matching", 2), ("score matching", 9)]
)
def test_interrupted_and_continued_is_bitwise_the_same(
    label: str, n: int, ensemble: Ensemble, straight: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config(), ensemble, tmp_path, progress=Interrupt(label, n))
    assert not (tmp_path / "model.json").exists()
    torch.manual_seed(n)  # no global stream may matter
    train(config(), ensemble, tmp_path)
    assert same_model(tmp_path, straight)
    assert without_seconds(tmp_path) == without_seconds(straight)
    a, b = (load_file(path / "weights.safetensors") for path in (tmp_path, straight))
    assert all(torch.equal(a[name], b[name]) for name in b)


def test_another_seed_gives_other_weights(ensemble: Ensemble, straight: Path, tmp_path: Path) -> None:
    train(config_from_dict({**SETTINGS, "seed": 4}), ensemble, tmp_path)
    a, b = (load_file(path / "weights.safetensors") for path in (tmp_path, straight))
    assert not torch.equal(a["unet.stem.conv.weight"], b["unet.stem.conv.weight"])


def test_finished_is_not_done_again(straight: Path, ensemble: Ensemble) -> None:
    before = {p: p.stat().st_mtime_ns for p in straight.rglob("*")}
    model = train(config(), ensemble, straight, progress=Interrupt("score matching", 0))
    assert {p: p.stat().st_mtime_ns for p in straight.rglob("*")} == before
    assert not model.training
    assert model.about == json.loads((straight / "model.json").read_text())


@pytest.mark.parametrize(
    "where", ["models.lattice.VERSION", "models.regression.VERSION", "training.lattice.LAW"]
)
def test_another_version_of_the_law_is_another_model(
    where: str, ensemble: Ensemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = describe(config(), ensemble)
    monkeypatch.setattr(f"diffsq.{where}", 99)
    assert describe(config(), ensemble) != before


def test_sigkill_in_training_and_the_same_again(ensemble: Ensemble, tmp_path: Path) -> None:
    write_ensemble(ensemble, tmp_path / "ensemble")
    train(config(), read_ensemble(tmp_path / "ensemble"), tmp_path / "straight")
    killed("score matching", 10, train, config(), read_ensemble(tmp_path / "ensemble"), tmp_path / "train")
    assert sorted(p.name for p in (tmp_path / "train").glob("check*")) == [
        "checkpoint-00000004.safetensors", "checkpoint-00000008.safetensors",
    ]  # fmt: skip
    train(config(), read_ensemble(tmp_path / "ensemble"), tmp_path / "train")
    assert same_model(tmp_path / "train", tmp_path / "straight")


def test_a_loss_that_is_not_finite_names_sigma_and_keeps_the_checkpoint(
    ensemble: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def poisoned(model: LatticeScore, batch: Batch, frame: Symmetry) -> torch.Tensor:
        rate = path_kl_rate(model, batch, frame)
        seen.append(float(batch.sigma[5]))
        return rate if len(seen) < 7 else torch.where(torch.arange(len(rate)) == 5, torch.nan, rate)

    monkeypatch.setattr("diffsq.training.shared.path_kl_rate", poisoned)
    with pytest.raises(InputError, match="loss is not finite at step 6") as caught:
        train(config(), ensemble, tmp_path)
    assert f"sigma = {seen[-1]:.4g};" in str(caught.value)
    assert "learning_rate" in str(caught.value)
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000004.safetensors"]
    assert not (tmp_path / "model.json").exists()


def test_a_wild_learning_rate_leaves_a_finite_checkpoint(ensemble: Ensemble, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not finite (at|after) step \d.*is kept.*learning_rate"):
        train(config(learning_rate=1e30, warmup=0, checkpoint_every=1), ensemble, tmp_path)
    for path in tmp_path.glob("checkpoint-*"):
        weights = [t for name, t in load_file(path).items() if name.startswith("model/unet")]
        assert all(torch.isfinite(t).all() for t in weights)


def test_no_steps_at_all_is_the_regression_base(ensemble: Ensemble, tmp_path: Path) -> None:
    for k in range(2):
        torch.manual_seed(k)
        model = train(config(n_steps=0), ensemble, tmp_path / str(k))
    assert same_model(tmp_path / "0", tmp_path / "1")
    phi = torch.from_numpy(ensemble.phi[:8])
    sigma = torch.full((8,), 0.5, dtype=torch.float64)
    with torch.no_grad():
        full = model.score(phi, sigma)
        model.unet = None
        assert torch.equal(model.score(phi, sigma), full)


def test_held_out_chains_never_enter_training(ensemble: Ensemble, straight: Path, tmp_path: Path) -> None:
    phi = ensemble.phi.copy()
    held = ensemble.chain == 7
    phi[held] = 2 * normals(1, "test/held", np.arange(int(held.sum())), 0, 16).reshape(-1, *SHAPE)
    other = Ensemble.from_fields(phi, ACTION, chain=ensemble.chain)
    train(config(), other, tmp_path)
    a, b = (path / "weights.safetensors" for path in (tmp_path, straight))
    assert a.read_bytes() == b.read_bytes()
    assert without_seconds(tmp_path)[-1]["val_gain"] != without_seconds(straight)[-1]["val_gain"]
    # and a training chain does
    phi = ensemble.phi.copy()
    phi[0] *= 1.01
    train(config(), Ensemble.from_fields(phi, ACTION, chain=ensemble.chain), tmp_path / "other")
    assert (tmp_path / "other/weights.safetensors").read_bytes() != b.read_bytes()


def test_another_action_or_lattice_is_refused(ensemble: Ensemble, tmp_path: Path) -> None:
    elsewhere = Ensemble.from_fields(ensemble.phi, ScalarPhi4(0.23, 0.05), chain=ensemble.chain)
    with pytest.raises(InputError, match="action"):
        train(config(), elsewhere, tmp_path)
    wide = Ensemble.from_fields(ensemble.phi.reshape(-1, 4, 8), ACTION, chain=ensemble.chain[::2])
    with pytest.raises(InputError, match=r"\(4, 8\), the config says \(4, 4\)"):
        train(config(), wide, tmp_path)
    assert not list(tmp_path.glob("**/*.safetensors"))


def test_an_action_of_the_users_own_is_that_of_the_ensemble(ensemble: Ensemble, tmp_path: Path) -> None:
    """Without phi^4 there are no site features; the gradient is used all the same."""
    own = Ensemble.from_fields(ensemble.phi, Own(0.22, 0.05), chain=ensemble.chain)
    with pytest.raises(InputError, match="the ensemble's action is .*'kind': 'Own'"):
        train(config(), own, tmp_path)
    settings = config_from_dict({**SETTINGS, "action": None, "training": {"n_steps": 0}})
    base, known = (train(settings, e, tmp_path / str(i)).base for i, e in enumerate((own, ensemble)))
    assert not base.site.known
    assert not base.coefficients[..., -2].any()
    assert known.site.known
    assert known.coefficients[..., -2].any()
    torch.testing.assert_close(base.beta, known.beta, atol=0.1, rtol=0)
    assert float(base.beta.mean()) > 0.5


@pytest.mark.parametrize(
    ("action", "shape"), [(Tilted(1.0), SHAPE), (O2(0.2, 0.1), (2, *SHAPE)), (ACTION, (4,))]
)
def test_fields_the_score_cannot_learn_are_refused(action: Any, shape: Any, tmp_path: Path) -> None:
    fields = Ensemble.from_fields(np.ones((8, *shape)), action, chain=np.arange(8))
    with pytest.raises(InputError, match="needs an even action"):
        train(config_from_dict({**SETTINGS, "action": None}), fields, tmp_path)


def test_sigma_min_above_the_data_is_refused(ensemble: Ensemble, tmp_path: Path) -> None:
    high = config_from_dict({**SETTINGS, "sde": {"sigma_min": 50.0}})
    with pytest.raises(InputError, match=r"sigma_min = 50.0 is not below sigma_max"):
        train(high, ensemble, tmp_path)


def test_an_old_folder_with_other_settings_starts_from_nothing(
    ensemble: Ensemble, straight: Path, tmp_path: Path
) -> None:
    train(config(n_steps=5), ensemble, tmp_path)
    train(config(), ensemble, tmp_path)
    assert same_model(tmp_path, straight)


def test_halves_share_no_chain() -> None:
    """Neighbours in time would make the noise of a half look like something to learn."""
    chain = np.repeat(np.arange(5), 4)
    rows = np.random.default_rng(1).permutation(20)[:15]
    one, other = in_halves(rows, chain)
    assert set(chain[one]) | set(chain[other]) == set(chain[rows])
    assert not set(chain[one]) & set(chain[other])
    assert sorted([*one, *other]) == sorted(rows)
    early, late = in_halves(rows, np.zeros(20, dtype=np.int64))
    assert early.max() < late.min()
    assert sorted([*early, *late]) == sorted(rows)

"""`diffsq check cumulants` on a small run of the free field, where every kappa_{n>2} vanishes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fields import free_fields
from matplotlib.figure import Figure

from diffsq.checks import cumulants
from diffsq.commands.main import main
from diffsq.config.config import config_from_dict, resolved_yaml
from diffsq.process.cumulants import flow
from diffsq.run_folder.finished import Workbench, open_run
from diffsq.sampling.lattice_sets import sample
from diffsq.training.lattice import train
from lattice.actions.phi4 import FreeScalar
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.ensembles.writer import write_ensemble
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator
from lattice.observables.scalar import primaries
from lattice.progress import Silent

SHAPE, KAPPA, N_CHAINS = (4, 4), 0.2, 64


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cumulants") / "run"
    folder.mkdir()
    config = config_from_dict({
        "name": "cumulants", "seed": 3, "action": {"kind": "free", "kappa": KAPPA, "lam": 0.0},
        "lattice": {"shape": list(SHAPE)}, "ensemble": {"n_configs": 4096, "n_chains": N_CHAINS},
        "model": {"channels": 0, "n_levels": 2, "n_sigma": 6, "n_fit": 1024}, "sde": {"sigma_min": 0.4},
        "training": {
            "n_steps": 4, "batch_size": 64, "validate_every": 4, "checkpoint_every": 4, "warmup": 1,
            "validation_fraction": 0.25,
        },
        "sampling": {"n_samples": 1024, "n_levels": 6, "n_forward": 64},
    })  # fmt: skip
    (folder / "config.yaml").write_text(resolved_yaml(config), encoding="utf-8")
    phi = free_fields(FreeScalar(KAPPA), SHAPE, 4096, 5).numpy()
    chain = np.arange(4096) * N_CHAINS // 4096
    write_ensemble(Ensemble.from_fields(phi, FreeScalar(KAPPA), chain=chain), folder / "ensemble")
    ensemble = read_ensemble(folder / "ensemble")
    model = train(config, ensemble, folder / "train/score")
    sample(config, model, ensemble, folder / "samples/score-ve")
    return folder


def bench(finished: Path) -> Workbench:
    return open_run(finished, "cpu")


def test_projections_are_orthonormal_and_those_of_the_observables() -> None:
    """Columns of unit length, orthogonal across classes; moments as in lattice.observables."""
    for shape in ((4, 4), (6, 4), (5, 3)):
        seen = cumulants.observables(shape)
        columns = torch.cat([o.basis for o in seen.values() if o.basis is not None and o.label != "M"], 1)
        assert torch.allclose(columns.T @ columns, torch.eye(columns.shape[1]).double(), atol=1e-12)
        assert torch.allclose(columns.sum(0), torch.zeros(columns.shape[1]).double(), atol=1e-12)  # not k = 0
    phi = free_fields(FreeScalar(KAPPA), SHAPE, 50, 1)
    p, seen = primaries(phi.numpy(), FreeScalar(KAPPA)), cumulants.observables(SHAPE)
    for name, key in (("M", "m"), ("k1", "k1_"), ("k2", "k2_")):
        x = phi.flatten(1) @ seen[name].basis
        scale = 2.0 if name != "M" else 1.0  # theirs are shorter by sqrt(2)
        assert np.allclose((x**2).mean(1).numpy(), scale * p[f"{key}2"], rtol=1e-10)
        assert np.allclose((x**4).mean(1).numpy(), scale**2 * p[f"{key}4"], rtol=1e-10)
    staggered = seen["uv"].basis
    assert torch.allclose(staggered.abs(), torch.full_like(staggered, 0.25))


@pytest.mark.parametrize("sde", ["ve", "vp"])
def test_free_field(finished: Path, sde: str) -> None:
    result = cumulants.run(bench(finished), Silent(), n_fields=1024, n_samples=512, sde=sde)
    assert result["passed"], cumulants.text(result)
    g = free_propagator(KAPPA, SHAPE)
    exact = {"phi": g.mean(), "M": g[0, 0] / 16, "k1": g[1, 0], "k2": g[1, 1], "uv": g[2, 2]}
    sigma, f = np.array(result["sigma"]), np.array(result["signal"])
    if sde == "vp":
        assert np.allclose(f, 1 / np.sqrt(1 + sigma**2))
    for name, variance in exact.items():
        entry = result["observables"][name]
        kappa = np.array([0.0, variance, *[0.0] * 6])
        curve = flow(kappa, f, sigma, 1 / 16 if name == "M" else 1.0)[:, 1::2]
        for side in ("forward", "average", "analytic", "backward"):
            value, error = (np.array(entry[side][key]) for key in ("value", "error"))
            assert (np.abs(value - curve)[:, 0] < 5 * error[:, 0]).all(), (name, side)
        for side in ("ensemble", "raw", "corrected"):
            start = entry["start"][side]
            assert abs(start["value"][0] - variance) < 4.5 * start["error"][0], (name, side)
    assert isinstance(cumulants.figure(result), Figure)
    assert "cumulants: passed" in cumulants.text(result)


def test_command_writes_numbers_and_figure(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--set", "n_fields=256", "n_samples=256", "orders=[2, 3, 4]", "--quiet", "--device", "cpu"]
    assert main(["check", "cumulants", str(finished), *options]) == 0
    assert "cumulants: passed" in capsys.readouterr().out
    content = json.loads((finished / "checks" / "cumulants.json").read_text())
    assert content["passed"] is True
    assert content["result"]["estimator"] == "all moments"
    assert (finished / "checks" / "cumulants.png").read_bytes().startswith(b"\x89PNG")


def test_samples_of_another_law_fail(finished: Path) -> None:
    """Fields 20 % too wide: raw and corrected differ from the ensemble, the forward process does not care."""
    work = bench(finished)
    work.samples.phi = 1.2 * work.samples.phi
    result = cumulants.run(work, Silent(), n_fields=256, n_samples=256)
    assert not result["passed"]
    passed = {name: gate["passed"] for name, gate in result["gates"].items()}
    assert passed == {"forward": True, "raw": False, "corrected": False}
    assert "FAILED" in cumulants.text(result)


def test_weights_correct_a_biased_sample(finished: Path) -> None:
    """Exact draws of a field 3 % too wide with their exact weights: raw fails, corrected does not."""
    work = bench(finished)
    n, scale = 40_000, 1.03
    phi = free_fields(FreeScalar(KAPPA), SHAPE, n, 11)
    action = FreeScalar(KAPPA).action(phi)
    wide = Ensemble.from_fields((scale * phi).numpy(), FreeScalar(KAPPA))
    wide.log_weight = ((1 - scale**2) * action).numpy()
    work.samples = wide
    work.ensemble = Ensemble.from_fields(
        free_fields(FreeScalar(KAPPA), SHAPE, n, 12).numpy(), FreeScalar(KAPPA), chain=np.arange(n) // 400
    )
    result = cumulants.run(work, Silent(), n_fields=256, n_samples=256)
    assert not result["gates"]["raw"]["passed"]
    assert result["gates"]["corrected"]["passed"]


def test_a_wrong_power_of_the_signal_fails(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(kappa, f, sigma, noise=1.0):  # type: ignore[no-untyped-def]
        return flow(kappa, f, sigma, noise) / f[:, None]

    monkeypatch.setattr("diffsq.process.cumulants.flow", wrong)
    result = cumulants.run(bench(finished), Silent(), n_fields=512, n_samples=256, sde="vp")
    assert not result["gates"]["forward"]["passed"]
    assert result["gates"]["forward"]["worst"] > 8


def test_bad_options(finished: Path) -> None:
    for options, words in (
        ({"sde": "xx"}, "sde must be one of"),
        ({"n_fields": 20}, "at least 200"),
        ({"orders": (2, 9)}, "orders must be among"),
        ({"orders": ()}, "orders must be among"),
    ):
        with pytest.raises(InputError, match=words):
            cumulants.run(bench(finished), Silent(), **options)  # type: ignore[arg-type]

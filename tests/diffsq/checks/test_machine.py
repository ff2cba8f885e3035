"""`check machine`: a free field passes; phi^4, a cut by mass or nodes, and too little training do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import equilibrium

from diffsq.checks import machine
from diffsq.checks.perform import serves
from diffsq.config.config import config_from_dict
from diffsq.config.machines import MachineRun
from diffsq.models.machine_files import load_machine
from diffsq.run_folder.finished import MachineBench
from diffsq.sampling.machine_sets import sample_machine
from diffsq.training.machines import train_machine
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.gaussian_rbm import lattice_kernel
from lattice.progress import Silent

FREE: dict[str, Any] = {
    "action": {"kind": "free", "kappa": 0.2}, "lattice": {"shape": [4, 4]}, "machine": {"width": 0.1},
    "training": {"second": "exact", "natural": True, "n_steps": 600},
}  # fmt: skip
PHI4: dict[str, Any] = {
    "action": {"kind": "phi4", "kappa": 0.27, "lam": 0.022}, "lattice": {"shape": [8, 8]},
    "training": {"second": "symmetric", "natural": True, "n_steps": 2000},
}  # fmt: skip


def make_bench(folder: Path, settings: dict[str, Any], n: int = 8192, **more: dict[str, Any]) -> MachineBench:
    """A run in memory: 64 chains of independent fields, its machine, its samples. `more` goes into
    sections."""
    sections = {name: {**settings.get(name, {}), **value} for name, value in more.items()}
    config = config_from_dict({
        "name": "machine", "seed": 3, "models": ["rbm"], "sampling": {"n_samples": n, "n_forward": 128},
        **settings, **sections,
    })  # fmt: skip
    assert isinstance(config, MachineRun)
    phi = equilibrium(config.action, config.shape, n).numpy()
    ensemble = Ensemble.from_fields(phi, config.action, chain=np.arange(n) % 64)
    rows = ensemble.split_rows(config.training.validation_fraction)[0]
    train_machine(config, ensemble.phi[rows], ensemble.identity, folder / "train" / "rbm")
    made, about = load_machine(folder / "train" / "rbm")
    samples = sample_machine(config, made, ensemble, folder / "samples" / "rbm-exact")
    return MachineBench(folder, config, config.action, made, about, ensemble, samples)


def run(bench: MachineBench, **options: Any) -> dict[str, Any]:
    found = machine.run(bench, Silent(), **{"n_draws": 512, **options})
    json.dumps(found, allow_nan=False)
    return found


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> MachineBench:
    return make_bench(tmp_path_factory.mktemp("free"), FREE)


def test_a_machine_of_the_free_field_passes(free: MachineBench) -> None:
    """Its spectrum is K(p), its propagator 1/K(p), its KL zero, its fields obey Schwinger and Dyson."""
    found = run(free)
    assert found["passed"] is True
    assert found["reasons"] == []
    np.testing.assert_allclose(found["lambda"], lattice_kernel((4, 4), 0.2), rtol=1e-3)
    np.testing.assert_allclose(found["kappa"], lattice_kernel((4, 4), 0.2), rtol=1e-9)
    assert (found["off"], found["cut_by_mass"], found["cut_by_nodes"]) == (0, 0, 0)
    assert abs(found["kl"]) < 1e-6
    assert found["kl_predicted"] == pytest.approx(0, abs=1e-12)
    p = found["propagator"]
    zero = p["khat2"].index(0.0)
    assert p["G"][zero] == pytest.approx(2.5)
    np.testing.assert_allclose(p["machine"], p["G"], rtol=1e-3)
    assert sum(p["multiplicity"]) == 16
    value, error = found["schwinger_dyson"]["machine"]
    assert abs(value - 1) < 4.5 * error
    for name, pair in found["observables"].items():
        (a, a_error), (b, b_error) = pair["data"], pair["machine"]
        assert abs(a - b) < 4.5 * np.hypot(a_error, b_error), name


def test_cuts_are_those_of_the_closed_form(tmp_path: Path) -> None:
    """The published table in our convention, 8 x 8 at kappa = 0.2: the action density rises with a cut by the
    mass and falls with one by nodes, in closed form and in drawn fields."""
    settings = {**FREE, "lattice": {"shape": [8, 8]}}
    found = run(make_bench(tmp_path, settings, n=512), masses=[2.5, 2.0, 1.5], nodes=[1, 5, 9], n_draws=2048)
    known = {  # phi^2, <S>/V, modes
        2.5: (0.652774, 0.527543, 43), 2.0: (0.688864, 0.579105, 25), 1.5: (0.796696, 0.712571, 21),
    }  # fmt: skip
    for row, (mu2, numbers) in zip(found["cuts"], known.items(), strict=False):
        assert row["mu2"] == mu2
        assert (row["phi2"], row["action_density"]) == pytest.approx(numbers[:2], abs=1e-6)
        assert row["n_modes"] == numbers[2]
    assert [row["n_modes"] for row in found["cuts"][3:]] == [1, 5, 9]
    densities = [row["action_density"] for row in found["cuts"]]
    assert densities[:3] == sorted(densities[:3])
    assert min(densities[:3]) > 0.5 > max(densities[3:])
    assert densities[3:] == sorted(densities[3:])
    assert [row["kl"] for row in found["cuts"][:3]] == pytest.approx([0.170617, 0.702886, 2.317755], abs=1e-6)
    for row in found["cuts"]:
        for name in ("phi2", "action_density"):
            value, error = row[f"{name}_drawn"]
            assert abs(value - row[name]) < 4.5 * error
    nodes = found["nodes"]
    assert len(nodes["kl"]) == 65
    assert nodes["kl"][-1] == pytest.approx(0, abs=1e-12)
    assert all(best <= kl + 1e-12 for best, kl in zip(nodes["kl_best"], nodes["kl"], strict=True))


def test_finite_data_cost_and_averages_over_the_lattice_help(free: MachineBench) -> None:
    found = run(free, sizes=[64, 512, 4096, 10**6])["finite"]
    assert [row["n"] for row in found] == [64, 512, 4096], "no more than there are"
    assert [row["data"] for row in found] == sorted((row["data"] for row in found), reverse=True)
    assert all(row["symmetric"] < 0.5 * row["data"] for row in found)
    assert found[0]["data_kappa"] > 1.2 * 3.6
    v = 16  # KL of the Gaussian of n draws: V (V + 1)/(4 n) at leading order, scatter 1/V of that
    assert found[2]["data"] == pytest.approx(v * (v + 1) / 4 / 4096, rel=0.5)


def test_phi4_fails_by_its_schwinger_dyson_equation_alone(tmp_path: Path) -> None:
    """Every mode is learned, nothing cut, the susceptibility right: the law is not Gaussian."""
    found = run(make_bench(tmp_path, PHI4))
    assert found["passed"] is False
    assert found["off"] == found["cut_by_mass"] == found["cut_by_nodes"] == 0
    assert len(found["reasons"]) == 1
    assert "phi dS/dphi of its fields is 1.1" in found["reasons"][0]
    value, error = found["schwinger_dyson"]["machine"]
    assert value - 1 > 10 * error
    data, data_error = found["schwinger_dyson"]["data"]
    assert abs(data - 1) < 4.5 * data_error
    (u, _), (made, made_error) = (found["observables"]["binder"][of] for of in ("data", "machine"))
    assert u > 0.4
    assert abs(made) < 4.5 * made_error
    a, b = (found["observables"]["susceptibility_full"][of] for of in ("data", "machine"))
    assert abs(a[0] - b[0]) < 4.5 * np.hypot(a[1], b[1])
    assert "NOT passed: phi dS/dphi" in machine.text(found)


@pytest.mark.parametrize(
    ("more", "words", "cuts"),
    [
        ({"machine": {"mu2": 2.4}}, "cuts 5 modes, kappa up to 3.6", (5, 0)),
        ({"machine": {"n_hidden": 5}}, "5 hidden nodes leave out 11 modes", (0, 11)),
    ],
)
def test_a_cut_machine_fails_though_it_is_what_it_should_be(
    tmp_path: Path, more: dict[str, Any], words: str, cuts: tuple[int, int]
) -> None:
    """All modes as predicted: not the training fails, the machine is too small or too light."""
    settings = {**FREE, "training": {"second": "exact", "n_steps": 3000}}
    found = run(make_bench(tmp_path, settings, n=4096, **more))
    assert found["passed"] is False
    assert found["off"] == 0
    assert (found["cut_by_mass"], found["cut_by_nodes"]) == cuts
    assert any(words in reason for reason in found["reasons"])
    assert found["kl"] == pytest.approx(found["kl_predicted"], rel=1e-2)
    assert found["kl_predicted"] > 0.01
    assert words in machine.text(found)
    value, error = found["schwinger_dyson"]["machine"]
    assert (value - 1) / error > 10 if cuts[0] else (value - 1) / error < -10


def test_an_untrained_machine_fails(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, FREE, n=1024, training={"n_steps": 0})
    found = run(bench)
    assert found["passed"] is False
    assert found["off"] > 8
    assert any("modes are more than 1 % from what is predicted: train longer" in r for r in found["reasons"])
    assert machine.figure(found).axes


def test_words_figure_and_kind(free: MachineBench) -> None:
    found = run(free)
    told = machine.text(found)
    assert told.isascii()
    assert told.endswith("passed")
    assert "NOT" not in told
    for word in ("16 modes, kappa from 0.4 to 3.6", "phi dS/dphi", "0 cut by the mass", "closed form"):
        assert word in told
    assert max(len(line) for line in told.splitlines()) <= 120
    assert len(machine.figure(found).axes) == 5
    assert serves("machine", free)
    assert not serves("pictures", free)
    assert not serves("pairs", free)


def test_data_without_some_modes_are_refused_in_words(tmp_path: Path) -> None:
    """Fewer fields than sites: no Gaussian of full rank, no KL."""
    settings = {**FREE, "training": {"second": "data", "n_steps": 3, "rate": 1e-4}, "machine": {"mu2": 4.0}}
    bench = make_bench(tmp_path, settings, n=128)
    bench.__dict__["trained_on"] = bench.ensemble.phi[:8]
    bench.__dict__.pop("second", None)
    with pytest.raises(InputError, match="modes without variance"):
        run(bench)

"""Training of point models: what it learns, what the closed form adds, resume, and refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_points import KAPPA, TwoPeak, random_points, two_peak_points, with_errors

from diffsq.config.sections import PointTraining
from diffsq.models.points import gaussian_energy
from diffsq.process.sde import VESDE
from diffsq.sampling.flow import sample_points
from diffsq.sampling.streams import POINT_BLOCK
from diffsq.training import last_layer, points
from diffsq.training.checkpoint import read_lines
from diffsq.training.points import train_points
from lattice.errors import InputError
from lattice.progress import Silent

TINY = PointTraining(
    kind="score", width=24, depth=2, sigma_min=0.02, sigma_max=12.0, n_sigma=24, n_nodes=2048, n_steps=200,
    batch_size=1024, learning_rate=5e-3, checkpoint_every=80,
)  # fmt: skip
POINTS = two_peak_points(2**17)


def with_(**changes: object) -> PointTraining:
    return TINY.model_copy(update=changes)


def score_error(model) -> float:  # type: ignore[no-untyped-def]
    """rms of (D - D*)/width of the posterior over the noise levels, against the law itself."""
    total = []
    for sigma in np.geomspace(0.03, 8.0, 12):
        level = torch.tensor([sigma])
        x = POINTS[:4000] + sigma * torch.randn(4000, 1, generator=torch.Generator().manual_seed(2)).double()
        width = sigma / np.sqrt(1 + sigma**2)
        total.append(float((((model.denoise(x, level) - TwoPeak().denoise(x, level)) / width) ** 2).mean()))
    return float(np.sqrt(np.mean(total)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp
    return {kind: train_points(POINTS, with_(kind=kind), 1, folder(kind)) for kind in ("score", "energy")}


@pytest.mark.parametrize("kind", ["score", "energy"])
def test_a_tiny_model_learns_two_peaks(kind: str, trained, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    untrained = train_points(POINTS, with_(kind=kind, n_steps=0, solve=False), 1, tmp_path)
    assert score_error(untrained) > 0.3
    assert score_error(trained[kind]) < 0.04
    if kind == "energy":
        x, level = POINTS[:4000], torch.tensor([0.1])
        shifted = trained[kind].energy(x, level) + TwoPeak().log_density(x, 0.1)
        assert float(shifted.abs().mean()) < 0.03  # normalised too


def lowest_outside(model) -> float:  # type: ignore[no-untyped-def]
    """Smallest energy between 1.1 and twice the reach of the data, at small noise."""
    x = float(POINTS.abs().max()) * torch.linspace(1.1, 2, 400, dtype=torch.float64)[:, None]
    return min(float(model.energy(x, torch.tensor([sigma])).min()) for sigma in (0.02, 0.05, 0.1))


def test_no_density_where_there_are_no_data(trained, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A chain that finds a well of the energy outside the data would never leave it; guards fill them."""
    assert lowest_outside(trained["energy"]) > 5
    with pytest.MonkeyPatch.context() as patch:
        for module in (last_layer, points):
            patch.setattr(module, "GUARD", 0.0)
        assert lowest_outside(train_points(POINTS, with_(kind="energy"), 1, tmp_path)) < 0


def test_guards_ask_for_the_law_itself_where_there_are_data(tmp_path: Path) -> None:
    """Elsewhere for a smoother one; inside the data that would widen the learned law."""
    off = []
    for few in (points.FEW, 1e30):  # 1e30: as if no data were within reach anywhere
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(points, "FEW", few)
            trainer = points.PointTrainer(POINTS.numpy(), TINY, 1, tmp_path, "key", Silent())
            targets, model = trainer.targets(), trainer.model
        level = targets.sigma[5:6]
        u = targets.guard_u[5].double()
        root = torch.sqrt(model.variance + level**2)[None]
        energy = gaussian_energy(u, root) + model.rho(level) * targets.guard_g[5].double()
        x = u * root
        inside = ((x.abs() > 0.6) & (x.abs() < 1.6))[:, 0]
        off.append(float((energy + TwoPeak().log_density(x, float(level)))[inside].abs().mean()))
    assert off[0] < 0.15
    assert off[1] > 3 * off[0]


def test_guards_leave_the_tails_of_a_gaussian_alone(tmp_path: Path) -> None:
    """There rho is small: guards that count in its units pull the learned law in from four widths on."""
    normal, off = random_points(2**17, 1, 1.0), []
    for name in ("nats", "rho"):
        with pytest.MonkeyPatch.context() as patch:
            if name == "rho":
                plain = points.prepared
                ones = torch.ones(TINY.n_sigma)
                patch.setattr(points, "prepared", lambda *a: replace(plain(*a), guard_weight=ones))  # noqa: B023
            model = train_points(normal, with_(kind="energy", n_steps=100), 1, tmp_path / name)
        errors = []
        for sigma in (0.3, 1.0, 3.0):
            root = torch.sqrt(model.variance + sigma**2)
            u = torch.tensor([[3.0], [4.0], [4.5]], dtype=torch.float64)
            score = model.score(u * root, torch.tensor([sigma], dtype=torch.float64))
            errors.append((score * root / u + 1).abs().mean())
        off.append(float(torch.stack(errors).mean()))
    assert off[0] < 0.02
    assert off[1] > 2.5 * off[0]


@pytest.mark.parametrize("kind", ["score", "energy"])
def test_moments_of_its_samples(kind: str, trained) -> None:  # type: ignore[no-untyped-def]
    x = sample_points(trained[kind], VESDE(0.02, 11.9).levels(24), 4 * POINT_BLOCK, 1, "flow")[:, 0]
    value, error = with_errors(x)
    allowed = np.array([0.01, 0.04, 0.6, 14.0])  # one per cent for a network this small; four sigma on top
    assert (np.abs(value - KAPPA) < 4 * error + allowed).all()


def test_the_closed_form_is_better_than_the_optimiser_alone(trained, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plain = train_points(POINTS, with_(solve=False), 1, tmp_path)
    assert score_error(trained["score"]) < 0.5 * score_error(plain)


def test_noise_in_the_target_costs_accuracy(trained, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    noisy = train_points(POINTS, with_(target="noisy"), 1, tmp_path)
    assert 1.5 * score_error(trained["score"]) < score_error(noisy) < 0.3


def test_no_gap_between_the_nodes_of_all_levels(tmp_path: Path) -> None:
    """Nodes that every level shares would leave the network free between them: it used that freedom.

    kappa_8 of the two-peak law, width 64 and 2000 steps, was 0.6 % off for it.
    """
    gaps = []
    for moved in (True, False):
        trainer = points.PointTrainer(
            POINTS.numpy(), with_(n_sigma=48, n_nodes=8192), 1, tmp_path, "key", Silent()
        )
        drawn = trainer._uniforms
        if not moved:
            trainer._uniforms = lambda s, t, n: np.full(n, 0.5) if s == "shifts" else drawn(s, t, n)  # type: ignore[method-assign] # noqa: B023
        targets = trainer.targets()
        u = targets.u[(targets.sigma > 1) & (targets.sigma < 4)].abs().unique()
        gaps.append(float(u[u < 0.5].diff().max()))
    assert gaps[0] < 0.06
    assert gaps[1] > 2 * gaps[0]


def test_resumed_is_bitwise_the_same(trained, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    class Killed(Exception):
        pass

    settings = with_(n_nodes=512, batch_size=256, n_sigma=12)
    whole = train_points(POINTS[:5000], settings, 3, tmp_path / "whole")
    loss = points.PointTrainer.loss

    def dies(self, step, targets):  # type: ignore[no-untyped-def]
        if step == 130:
            raise Killed
        return loss(self, step, targets)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(points.PointTrainer, "loss", dies)
        with pytest.raises(Killed):
            train_points(POINTS[:5000], settings, 3, tmp_path / "cut")
    again = train_points(POINTS[:5000], settings, 3, tmp_path / "cut")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    steps = [line["step"] for line in read_lines(tmp_path / "cut/metrics.jsonl")]
    assert steps == [50, 100, 150, 200]


def test_same_call_returns_the_finished_model_other_seeds_do_not(tmp_path: Path) -> None:
    settings = with_(n_steps=10, n_nodes=256, n_sigma=8)
    first = train_points(POINTS[:1000], settings, 1, tmp_path)
    written = (tmp_path / "weights.safetensors").stat().st_mtime_ns
    second = train_points(POINTS[:1000], settings, 1, tmp_path)
    assert second.about == first.about
    assert (tmp_path / "weights.safetensors").stat().st_mtime_ns == written
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    other = train_points(POINTS[:1000], settings, 2, tmp_path)
    assert not torch.equal(first.network.first.weight, other.network.first.weight)


@pytest.mark.parametrize("n_nodes", [71, 100])
def test_any_number_of_nodes(n_nodes: int, tmp_path: Path) -> None:
    """Guards are shared by eight nodes, the last of them by what is left."""
    settings = with_(kind="energy", n_steps=60, n_sigma=8, n_nodes=n_nodes, batch_size=512)
    assert torch.isfinite(train_points(POINTS[:1000], settings, 1, tmp_path).log_rho).all()


def test_bad_data_and_settings_are_refused(tmp_path: Path) -> None:
    points = POINTS[:1000].clone()
    points[7] = float("nan")
    with pytest.raises(InputError, match="row 7"):
        train_points(points, TINY, 1, tmp_path)
    with pytest.raises(InputError, match="not below"):
        train_points(POINTS[:1000], with_(sigma_min=20.0), 1, tmp_path)
    with pytest.raises(InputError, match="not finite"):
        train_points(POINTS[:1000], with_(learning_rate=1e30, n_nodes=256, n_sigma=8), 1, tmp_path)


def test_a_network_without_steps_is_a_function_of_the_seed(tmp_path: Path) -> None:
    found = []
    for k, seed in enumerate((1, 1, 2)):
        torch.manual_seed(k)  # no global stream may matter
        model = train_points(POINTS[:1000], with_(n_steps=0, n_nodes=256, n_sigma=8), seed, tmp_path / str(k))
        found.append(model.network.first.weight)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_heavy_tails_do_not_break_the_energy(tmp_path: Path) -> None:
    """Guards far outside a law with outliers lie where even the Gaussian of the covariance is zero."""
    tail = torch.cat([POINTS, torch.tensor([[60.0], [-60.0]], dtype=torch.float64)])
    settings = with_(kind="energy", sigma_min=0.5, n_steps=2)
    model = train_points(tail, settings, 1, tmp_path)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    assert torch.isfinite(model.energy(x, torch.tensor([0.5]))).all()

"""Complex Langevin ensembles: files, resume bit by bit after a kill, refusals, the adaptive step's state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killer import killed
from longer import same_numbers

from lattice.actions.complexified import Complexified
from lattice.actions.one_variable import ComplexGaussian, ComplexQuartic
from lattice.actions.phi4 import ComplexPhi4
from lattice.actions.u1 import U1
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.errors import InputError
from lattice.files import read_json
from lattice.progress import Silent
from lattice.simulation.complex_langevin import generate_complex, start_fields
from lattice.simulation.parameters import ComplexLangevin
from lattice.updates.gauge_cooling import cooled

QUARTIC = ComplexQuartic(1 + 1j, 1.0)
SMALL: dict[str, Any] = {
    "n_configs": 1600, "n_chains": 40, "n_therm": 8, "tau": 0.5, "step": 0.02, "step_sizes": (0.05, 0.1),
    "shard_configs": 400, "step_fraction": 0.25,
}  # fmt: skip


def make(folder: Path, progress: Any = None, seed: int = 5, **changes: Any) -> Ensemble:
    parameters = ComplexLangevin(**(SMALL | changes))
    return generate_complex(QUARTIC, (), parameters, seed, folder, progress)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ensemble]:
    folder = tmp_path_factory.mktemp("complex") / "ensemble"
    return folder, make(folder)


class Stop(Exception):
    """Where a kill would strike."""


class Stopper(Silent):
    """A progress that stops the run at the count-th update under a label."""

    def __init__(self, label: str, count: int) -> None:
        self.wanted, self.count, self.label = label, count, ""

    def start(self, total: int, label: str, done: int = 0) -> None:
        self.label = label

    def update(self, n: int = 1, **info: object) -> None:
        self.count -= self.label == self.wanted
        if self.count <= 0:
            raise Stop


def same_files(one: Path, two: Path) -> None:
    names = sorted(p.name for p in one.glob("*") if p.name != "manifest.json")
    assert names == sorted(p.name for p in two.glob("*") if p.name != "manifest.json")
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_what_is_in_the_ensemble(made: tuple[Path, Ensemble]) -> None:
    folder, ensemble = made
    assert ensemble.phi.shape == (1600, 2)
    assert ensemble.action == Complexified(QUARTIC)
    assert len(list(folder.glob("shard-*.h5"))) == 4
    z = ensemble.phi[:, 0] + 1j * ensemble.phi[:, 1]
    s = ensemble.series["action"] + 1j * ensemble.series["action_im"]
    assert np.allclose(s, z**2 * (0.5 + 0.5j) + z**4 / 4)
    assert np.allclose(ensemble.series["drift"], np.abs((1 + 1j) * z + z**3))
    assert [len(part) for part in ensemble.replicas()] == [40] * 40
    assert ensemble.trajectory.min() == 9
    certificate = ensemble.attrs["certificate"]
    assert certificate == read_json(folder / "certificate.json")
    assert certificate["verdict"] in ("trusted", "doubtful")
    assert certificate["run"]["substeps"] >= 1600 * 25
    assert [size["step"] for size in read_json(folder / "steps.json")["sizes"]] == [0.05, 0.1]


def test_the_same_call_again_reads(made: tuple[Path, Ensemble]) -> None:
    folder, ensemble = made
    stamp = (folder / "manifest.json").read_bytes()
    again = make(folder, Stopper("configurations", 0))
    assert again.identity == ensemble.identity == read_ensemble(folder).identity
    assert (folder / "manifest.json").read_bytes() == stamp


@pytest.mark.parametrize(("label", "count"), [("thermalisation", 3), ("configurations", 25), ("step 0.1", 2)])
def test_resume_is_bitwise(made: tuple[Path, Ensemble], tmp_path: Path, label: str, count: int) -> None:
    folder, ensemble = made
    with pytest.raises(Stop):
        make(tmp_path / "e", Stopper(label, count))
    assert not (tmp_path / "e" / "manifest.json").exists()
    again = make(tmp_path / "e")
    assert np.array_equal(again.phi, ensemble.phi)
    same_files(folder, tmp_path / "e")


def test_a_damaged_shard_is_made_again(made: tuple[Path, Ensemble], tmp_path: Path) -> None:
    folder, _ = made
    with pytest.raises(Stop):
        make(tmp_path / "e", Stopper("step 0.05", 1))
    (tmp_path / "e" / "shard-0002.h5").write_bytes(b"\0" * 100)
    (tmp_path / "e" / ".shard-0003.h5.99999999.diffsq.tmp").write_bytes(b"torn")
    make(tmp_path / "e")
    same_files(folder, tmp_path / "e")


def test_resume_after_kill_9(made: tuple[Path, Ensemble], tmp_path: Path) -> None:
    folder, _ = made
    killed("configurations", 17, generate_complex, QUARTIC, (), ComplexLangevin(**SMALL), 5, tmp_path / "e")
    assert len(list((tmp_path / "e").glob("shard-*.h5"))) == 1
    make(tmp_path / "e")
    same_files(folder, tmp_path / "e")


def test_other_parameters_are_named(made: tuple[Path, Ensemble]) -> None:
    with pytest.raises(InputError, match="ensemble.step was 0.02, now 0.01") as caught:
        make(made[0], step=0.01)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="seed was 5, now 6"):
        make(made[0], seed=6)


def test_a_runaway_leaves_nothing_behind(tmp_path: Path) -> None:
    """A fixed step that is too large: the chain, trajectory and substep, and no shard."""
    with pytest.raises(InputError, match=r"chain \d+ is not finite .* substep \d+ of trajectory \d+"):
        make(tmp_path / "e", adaptive=False, tau=2.0, step=0.45, step_sizes=())
    assert list((tmp_path / "e").iterdir()) == []
    make(tmp_path / "e", step_sizes=())  # other settings are not refused: nothing was made with those


def test_a_runaway_at_a_larger_step_only_is_doubtful(tmp_path: Path) -> None:
    ensemble = make(tmp_path / "e", adaptive=False, tau=4.0, step_sizes=(0.1, 0.9))
    certificate = ensemble.attrs["certificate"]
    check = next(check for check in certificate["checks"] if check["name"] == "step size")
    assert certificate["verdict"] == "doubtful"
    assert "ran away" in check["detail"]
    assert not check["passed"]


def test_a_lattice(tmp_path: Path) -> None:
    action = ComplexPhi4(0.1, 0.3, 1 + 0.5j)
    parameters = ComplexLangevin(**(SMALL | {"n_configs": 400, "shard_configs": None}))
    ensemble = generate_complex(action, (2, 3), parameters, 1, tmp_path / "e")
    assert ensemble.phi.shape == (400, 2, 2, 3)
    assert read_ensemble(tmp_path / "e").action == Complexified(action)
    assert "Re z^2" in ensemble.attrs["certificate"]["boundary"]


def test_starts_scale_and_noise_reach_the_process(tmp_path: Path) -> None:
    plain = make(tmp_path / "a", step_sizes=())
    noisy = make(tmp_path / "b", step_sizes=(), imaginary_noise=0.2)
    assert noisy.phi[:, 1].std() > 1.5 * plain.phi[:, 1].std()
    run = plain.attrs["certificate"]["run"]
    drift = np.median(plain.series["drift"])
    assert run["drift_scale"] == pytest.approx(3 * drift, rel=0.2)
    assert 0 < run["shrunken"] < 0.5 * run["substeps"]
    fixed = make(tmp_path / "c", step_sizes=(), adaptive=False)
    assert fixed.attrs["certificate"]["run"]["shrunken"] == 0


@pytest.mark.parametrize(
    ("action", "shape", "match"),
    [
        (QUARTIC, (4,), "one variable"),
        (ComplexPhi4(0.1, 0.3, 1.0), (), "1 to 4 positive extents"),
        (ComplexPhi4(0.6, 0.0, 1.0), (4, 4), "no normalisable distribution"),
    ],
)
def test_shapes_that_do_not_fit(action: Any, shape: tuple[int, ...], match: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=match):
        generate_complex(action, shape, ComplexLangevin(**SMALL), 1, tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_the_gaussian_ensemble_is_trusted(tmp_path: Path) -> None:
    parameters = ComplexLangevin(
        n_configs=40_000, n_chains=400, n_therm=12, step=0.02, step_sizes=(0.06, 0.1), step_fraction=0.2
    )
    ensemble = generate_complex(ComplexGaussian(1 + 0.5j), (1,), parameters, 2, tmp_path / "e")
    assert ensemble.attrs["certificate"]["verdict"] == "trusted"
    assert ensemble.attrs["certificate"]["passed"] is True


def test_more_configurations_go_on_from_what_is_there(made: tuple[Path, Ensemble], tmp_path: Path) -> None:
    """The same verdict too: the runs at larger steps are as long as those of one go."""
    short = make(tmp_path, n_configs=600)
    with pytest.raises(Stop):
        make(tmp_path, progress=Stopper("configurations", 12))
    assert same_numbers(read_ensemble(tmp_path), short)
    longer, (_, fresh) = make(tmp_path), made
    assert same_numbers(longer, fresh)
    assert longer.attrs["certificate"] == fresh.attrs["certificate"] != short.attrs["certificate"]
    assert same_numbers(read_ensemble(tmp_path), longer)
    with pytest.raises(InputError, match="it holds more than that"):
        make(tmp_path, n_configs=600)


LINKS = ComplexLangevin(
    n_configs=640, n_chains=32, n_therm=8, tau=0.5, step=0.02, step_sizes=(0.05, 0.1), step_fraction=0.25,
    shard_configs=320,
)  # fmt: skip


def test_links(tmp_path: Path) -> None:
    """Complexified links: their series, the verdict's names, and the same bytes after a stop."""
    action = U1(1.0, 0.7)
    ensemble = generate_complex(action, (2, 3), LINKS, 1, tmp_path / "e")
    assert ensemble.phi.shape == (640, 2, 2, 2, 3)
    assert read_ensemble(tmp_path / "e").action == Complexified(action)
    assert {"action_im", "drift", "peak_drift"} <= set(ensemble.series)
    assert np.abs(ensemble.phi[:, 0]).max() <= np.pi
    z = ensemble.phi[:, 0] + 1j * ensemble.phi[:, 1]
    assert np.allclose(cooled(z).imag, z.imag, atol=1e-12)  # the gauge nearest to real links
    found = ensemble.attrs["certificate"]
    assert [check["name"] for check in found["checks"]][-4:] == [
        "hot, cold",
        "topology",
        "escapes",
        "cut-offs",
    ]
    assert set(found["boundary"]) == {
        f"{p} {o}" for p in ("Re", "Im") for o in ("U_p", "1/U_p", "U_p^2", "1/U_p^2")
    }
    with pytest.raises(Stop):
        generate_complex(action, (2, 3), LINKS, 1, tmp_path / "f", Stopper("configurations", 12))
    again = generate_complex(action, (2, 3), LINKS, 1, tmp_path / "f")
    assert np.array_equal(again.phi, ensemble.phi)
    same_files(tmp_path / "e", tmp_path / "f")


def test_peaks_are_the_largest_drifts_on_the_way(tmp_path: Path) -> None:
    ensemble = generate_complex(U1(1.0, 3.0), (2, 2), LINKS, 2, tmp_path)
    peak, end = ensemble.series["peak_drift"], ensemble.series["drift"]
    before = np.concatenate([np.zeros(32), end[:-32]])  # the drift that a trajectory begins with
    assert (peak >= before * (1 - 1e-9)).all()
    assert np.mean(peak > 2 * end) > 0.2
    assert ensemble.attrs["certificate"]["run"]["largest_drift"] == peak.max()


def test_links_start_hot_and_cold_real_and_complex() -> None:
    z = start_fields(U1(2.0, 1.0), (4, 4), np.arange(400), 3, 1.0)
    assert z.shape == (400, 2, 4, 4)
    assert not z[0::4].imag.any()
    assert z[1::4].imag.std() == pytest.approx(0.25 * np.sqrt(17 / 32), rel=0.05)  # 15 of 32 are pure gauge
    assert not z[2::4].any()
    assert not z[3::4].real.any()
    assert np.abs(np.exp(1j * z[0::4].real).mean()) < 0.05
    assert np.array_equal(start_fields(U1(2.0, 1.0), (4, 4), np.arange(8, 12), 3, 1.0), z[8:12])


@pytest.mark.parametrize("shape", [(), (4,), (1, 4), (4, 4, 4), (0, 4)])
def test_links_live_on_two_extents(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"two periodic extents of at least 2|1 to 4 positive extents"
    ) as caught:
        generate_complex(U1(1.0, 0.5), shape, LINKS, 1, tmp_path / "e")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "e").exists()


def test_steps_that_cannot_follow_stiff_links_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"use ensemble.step"):
        generate_complex(U1(100.0, 0.5), (2, 2), LINKS, 1, tmp_path / "e")
    with pytest.raises(InputError, match="theta must be a finite number"):
        U1(1.0, float("nan"))

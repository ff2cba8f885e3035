"""Foreign ensembles: good ones are taken, and every way of being wrong is refused with its numbers."""

from __future__ import annotations

import json
import math
import os
import pickle
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.signal

import lattice.interchange.comparison as foreign_guard
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.certificates.check import format_certificate
from lattice.certificates.monte_carlo import MIN_THERM_OVER_TAU
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.errors import InputError
from lattice.interchange.comparison import guard_checks, own_run, too_large, wanted_independent
from lattice.interchange.identities import independence_check, order_check, series_of
from lattice.interchange.importing import format_import, import_file
from lattice.interchange.reading import layout, read_foreign
from lattice.observables.measure import measure
from lattice.simulation.monte_carlo import MonteCarlo, generate
from lattice.simulation.starts import start_fields
from lattice.statistics.pulls import mean_of_chains
from lattice.updates.hmc import hmc_trajectory

Array = np.ndarray[Any, np.dtype[np.float64]]
ACTION, SHAPE = ScalarPhi4(0.27, 0.022), (16, 16)
SLOW = ScalarPhi4(0.26, 0.022)
FREE, SMALL = FreeScalar(0.2), (4, 4)
own = cache(own_run)  # one run of our own for each point, whatever the number of files compared with it


@pytest.fixture(autouse=True)
def _one_guard_per_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(action: ScalarPhi4, shape: tuple[int, ...], seed: int, progress: Any) -> Ensemble:
        return own(action, shape, seed, None)

    monkeypatch.setattr(foreign_guard, "own_run", kept)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Array:
    """A good ensemble, 32 chains one after the other, nearly independent: (2048, 16, 16)."""
    params = MonteCarlo(n_configs=2048, n_chains=32, n_therm=200, stride=4, length_jitter=0.6)
    e = generate(ACTION, SHAPE, params, 5, tmp_path_factory.mktemp("theirs"))
    return e.phi[np.concatenate(e.replicas())]


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Array:
    """64 chains of 64 configurations, HMC without clusters, tau_int(M^2) = 3.3: (64, 64, 8, 8)."""
    params = MonteCarlo(
        n_configs=4096, n_chains=64, n_therm=600, stride=3, n_clusters=0, trajectory_length=1.0
    )
    e = generate(SLOW, (8, 8), params, 3, tmp_path_factory.mktemp("slow"))
    return e.phi[np.concatenate(e.replicas())].reshape(64, 64, 8, 8)


def free_draws(n: int, seed: int) -> Array:
    """Exact independent draws of FREE on SMALL."""
    cos = np.cos(2 * np.pi * np.arange(4) / 4)
    width = np.sqrt(0.5 / (1 - 2 * FREE.kappa * (cos[:, None] + cos[None, :])))
    noise = np.random.default_rng(seed).normal(size=(n, *SMALL))
    fields: Array = np.fft.ifft2(width * np.fft.fft2(noise)).real
    return fields


def saved(folder: Path, phi: Any, name: str = "fields.npy") -> Path:
    np.save(folder / name, phi)
    return folder / name


def failed(result: dict[str, Any]) -> set[str]:
    return {check["name"] for check in result["checks"] if not check["passed"]}


def find(result: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(check for check in result["checks"] if check["name"] == name)
    return found


class TestGoodEnsembles:
    def test_written_and_read_back(self, tmp_path: Path, theirs: Array) -> None:
        path = saved(tmp_path, theirs)
        out = tmp_path / "deep" / "out"
        result = import_file(path, ACTION, n_chains=32, stride=4, out=out)
        text = format_import(result)
        assert result["passed"], text
        assert text.endswith("ACCEPTED")
        for words in ("2048 configurations on 16x16, in 32 chains", "kappa = 0.27, lam = 0.022", "|M| drift",
                      "Schwinger-Dyson", "|M| of own run", "s between chains"):  # fmt: skip
            assert words in text
        json.dumps(result, allow_nan=False)
        e = read_ensemble(out, ACTION)
        assert e.identity == result["identity"]
        np.testing.assert_array_equal(e.phi, theirs)
        assert len(e.replicas()) == 32
        assert e.trajectory[:3].tolist() == [4, 8, 12]
        assert e.attrs["stride"] == 4
        assert e.attrs["algorithm"]["name"] == "imported"
        certificate = e.attrs["certificate"]
        assert certificate["passed"]
        assert certificate["origin"]["file"] == "fields.npy"
        assert certificate["n_independent"] > 1000
        assert format_certificate(certificate).startswith("Certificate: PASSED")
        assert json.loads((out / "certificate.json").read_text()) == certificate
        written = b"".join(p.read_bytes() for p in out.iterdir())
        assert str(tmp_path).encode() not in written, "only the name of the file is kept"
        assert abs(measure(e)["observables"]["abs_magnetization"]["value"] - 0.7617) < 0.03
        assert sorted(p.name for p in out.parent.iterdir()) == ["out"], "nothing is left beside it"

    def test_independent_configurations(self, tmp_path: Path, theirs: Array) -> None:
        path = tmp_path / "a.npz"
        np.savez(path, fields=theirs[::2])
        result = import_file(path, ACTION, out=tmp_path / "out")
        assert result["passed"], format_import(result)
        assert result["n_chains"] is None
        e = read_ensemble(tmp_path / "out", ACTION)
        assert len(np.unique(e.chain)) == 1024
        assert measure(e)["observables"]["phi2"]["error"] > 0

    def test_false_alarms_are_rare(self, tmp_path: Path) -> None:
        """Exact draws of a free field, read as independent and as chains: none of 60 files may fail."""
        sigmas = []
        for seed in range(60):
            path = saved(tmp_path, free_draws(400, seed))
            result = import_file(path, FREE, n_chains=None if seed % 2 else 16)
            assert result["passed"], format_import(result)
            names = ("Schwinger-Dyson", "Schwinger-Dyson of M", "M (Z2)")
            identities = [find(result, name) for name in names]
            sigmas.append([float(check["detail"].split(" sigma")[0]) for check in identities])
        near = float((np.array(sigmas) < 1).mean())
        assert abs(near - 0.683) < 4.5 * math.sqrt(0.683 * 0.317 / 120)  # the three are a little correlated

    def test_the_guard_sees_equal_ensembles_as_equal(self) -> None:
        """Against closed forms: G(0) and s of the free field from our own run, and from exact draws."""
        guard = own(FREE, SMALL, 1, None)
        assert guard.attrs["certificate"]["passed"]
        g0 = 0.5 / (1 - 4 * FREE.kappa)
        series = series_of(guard.phi, FREE)
        for key, exact in (("vm2", g0), ("s", 0.5), ("schwinger_dyson", 1.0), ("zero_mode", 0.0)):
            value, error, _ = mean_of_chains([series[key][rows] for rows in guard.replicas()])
            assert abs(value - exact) < 4.5 * error < 0.4
        _, table = guard_checks(series_of(free_draws(4000, 1), FREE), None, guard)
        assert max(row["sigmas"] for row in table.values()) < 4.5
        assert set(table) == {"abs_m", "vm2", "binder", "s", "phi2", "phi4", "walls"}

    def test_float32_and_big_endian(self, tmp_path: Path, theirs: Array) -> None:
        path = saved(tmp_path, theirs.astype(">f4"))
        result = import_file(path, ACTION, n_chains=32)
        assert result["passed"]
        assert result["file"]["dtype"] == "float32"
        assert "7 digits" in format_import(result)


class TestWrongEnsembles:
    @pytest.mark.parametrize("action", [ScalarPhi4(0.26, 0.022), ScalarPhi4(0.27, 0.025)])
    def test_wrong_couplings(self, tmp_path: Path, theirs: Array, action: ScalarPhi4) -> None:
        """kappa = 0.27 declared as 0.26, and a wrong lam: observed beside expected, and a hint."""
        result = import_file(saved(tmp_path, theirs), action, out=tmp_path / "out")
        assert "Schwinger-Dyson" in failed(result)
        text = format_import(result)
        assert not result["written"]
        assert not (tmp_path / "out").exists()
        assert "REFUSED: Schwinger-Dyson" in text
        assert find(result, "Schwinger-Dyson")["expected"] == "1"
        assert result["guard"] is None
        assert "note: the checks of the file alone have failed: no run of our own was made" in text
        compared, _ = guard_checks(series_of(theirs, action), None, own(action, SHAPE, 1, None))
        wrong = {check["name"]: check for check in compared if not check["passed"]}
        assert {"|M| of own run", "V M^2 of own run", "phi^2 of own run"} <= set(wrong)
        assert abs(wrong["|M| of own run"]["value"] - 0.7617) < 0.03
        (hint,) = [hint for hint in result["hints"] if "asks for kappa" in hint]
        if action.kappa == 0.26:
            assert abs(float(hint.split("kappa = ")[1].split("(")[0]) - 0.27) < 0.002

    def test_another_convention(self, tmp_path: Path, theirs: Array) -> None:
        scale = math.sqrt(2 * 0.27)
        result = import_file(saved(tmp_path, scale * theirs), ACTION)
        assert not result["passed"]
        assert len(result["hints"]) == 1
        assert "'bare'" in result["hints"][0]
        assert f"divide them by {scale:.6f}"[:-1] in result["hints"][0]

    def test_the_public_protocol(self, tmp_path: Path) -> None:
        """Hot start, 128 unit trajectories, one configuration per chain: only |M| and its like are wrong."""
        result = import_file(saved(tmp_path, protocol(ACTION, 16, 512)), ACTION)
        assert {"|M| of own run", "V M^2 of own run"} <= failed(result)
        assert "Schwinger-Dyson" not in failed(result)
        assert any("had not reached equilibrium" in hint for hint in result["hints"])
        row = result["guard"]["quantities"]["abs_m"]
        assert abs(row["value"] - 0.6593) < 4.5 * math.hypot(row["error"], 0.0033)
        assert abs(row["own_value"] - 0.7617) < 4.5 * math.hypot(row["own_error"], 0.0007)

    def test_the_public_protocol_in_the_broken_phase(self, tmp_path: Path) -> None:
        action = ScalarPhi4(0.40, 0.022)
        result = import_file(saved(tmp_path, protocol(action, 32, 128)), action)
        assert result["guard"]["passed"], result["guard"]["reason"]
        assert {"|M| of own run", "s of own run", "walls of own run"} <= failed(result)
        row = result["guard"]["quantities"]["abs_m"]
        assert abs(row["value"] - 2.10) < 5 * row["error"]
        assert abs(row["own_value"] - 3.74824) < 4.5 * row["own_error"] < 0.005

    def test_correlated_configurations_called_independent(self, tmp_path: Path) -> None:
        """One chain with rho = 0.5 between neighbours, and two chains stored side by side."""
        noise = free_draws(2000, 3)
        phi = noise.copy()
        for t in range(1, len(phi)):
            phi[t] = 0.5 * phi[t - 1] + math.sqrt(0.75) * noise[t]
        result = import_file(saved(tmp_path, phi), FREE)
        assert "independence" in failed(result)
        assert "1 apart" in find(result, "independence")["detail"]
        assert any("n_chains" in hint for hint in result["hints"])
        assert import_file(saved(tmp_path, phi), FREE, n_chains=1)["passed"]
        side_by_side = phi.reshape(2, 1000, 4, 4).transpose(1, 0, 2, 3).reshape(2000, 4, 4)
        again = import_file(saved(tmp_path, side_by_side), FREE)
        assert "2 apart" in find(again, "independence")["detail"]
        assert independence_check(series_of(noise, FREE))["passed"]

    def test_time_before_chain(self, tmp_path: Path, slow: Array) -> None:
        """HMC at tau_int(M^2) = 3.3: (chain, time) is taken, (time, chain) refused, and its n_independent
        shows what it would have been certified with."""
        action, shape = SLOW, (8, 8)
        right = import_file(saved(tmp_path, slow), action, shape)
        assert right["passed"], format_import(right)
        assert right["certificate"]["n_independent"] < 1000
        assert "the first axis as 64 chains" in right["notes"][0]
        assert "(time, chain)" in right["notes"][0]
        wrong = import_file(saved(tmp_path, slow.swapaxes(0, 1)), action, shape)
        assert failed(wrong) == {"order of chains"}
        assert wrong["certificate"]["n_independent"] > 3000
        assert "equal positions of chains 1 apart" in find(wrong, "order of chains")["detail"]
        assert sigmas_found(wrong) > 20
        assert any("look like (time, chain)" in hint and "n_chains" in hint for hint in wrong["hints"])

    @pytest.mark.parametrize("n_chains", [128, 64, 32, 16, 8, 4, 2, 1])
    def test_wrong_number_of_chains(self, tmp_path: Path, slow: Array, n_chains: int) -> None:
        """64 chains side by side in a flat file, cut into any number of pieces."""
        flat = slow.swapaxes(0, 1).reshape(-1, 8, 8)
        result = import_file(saved(tmp_path, flat), SLOW, n_chains=n_chains)
        assert "order of chains" in failed(result)
        assert sigmas_found(result) > 10
        assert any("n_chains is wrong" in hint for hint in result["hints"])

    @pytest.mark.parametrize("n_chains", [16, 64, 256, 512])
    def test_chains_cut_at_the_wrong_places(self, tmp_path: Path, slow: Array, n_chains: int) -> None:
        """Chains one after the other: joined ones keep their tau_int, too short pieces are refused."""
        result = import_file(saved(tmp_path, slow.reshape(-1, 8, 8)), SLOW, n_chains=n_chains)
        assert result["passed"] == (n_chains <= 64), format_import(result)
        assert ("order of chains" in failed(result)) == (n_chains >= 256)

    @pytest.mark.parametrize(("n_chains", "length"), [(2, 200), (8, 100), (64, 60)])
    @pytest.mark.parametrize("frozen", [False, True])
    def test_order_of_true_chains(self, n_chains: int, length: int, frozen: bool) -> None:
        """AR(1) chains of tau_int = 4.5, also with a sign of M that never changes: no alarm in 200 files."""
        rng, a = np.random.default_rng(n_chains), 0.8
        rows = [np.arange(length) + length * c for c in range(n_chains)]
        for _ in range(200):
            noise = rng.normal(size=(2, n_chains, length + 60)) * math.sqrt(1 - a * a)
            m, s = scipy.signal.lfilter([1.0], [1.0, -a], noise, axis=2)[:, :, 60:]
            if frozen:
                m = rng.choice([-1.0, 1.0], size=(n_chains, 1)) * (5 + m)
            series = {"m": m.reshape(-1), "abs_m": np.abs(m).reshape(-1), "s": s.reshape(-1)}
            check = order_check(series, rows, 4.5)
            assert check["passed"], check["detail"]

    def test_copies(self, tmp_path: Path) -> None:
        """Augmented data are no new draws; copies of the predecessor in a chain are rejections."""
        phi = free_draws(400, 4)
        moved = np.roll(-phi[17], (1, 2), axis=(0, 1))
        result = import_file(saved(tmp_path, np.concatenate([phi, moved[None]])), FREE)
        assert failed(result) == {"copies"}
        assert "400 is a copy of 17" in find(result, "copies")["detail"]
        rejected = phi.copy()
        rejected[1::2] = rejected[::2]
        assert "copies" in failed(import_file(saved(tmp_path, rejected), FREE))
        chain = import_file(saved(tmp_path, rejected), FREE, n_chains=8)
        assert find(chain, "copies")["passed"]
        assert find(chain, "repeats in chains")["value"] == 0.5
        rejected[:] = rejected[::4].repeat(4, axis=0)
        frozen = import_file(saved(tmp_path, rejected), FREE, n_chains=8)
        assert "repeats in chains" in failed(frozen)

    def test_constant_fields_and_one_sign(self, tmp_path: Path) -> None:
        phi = free_draws(400, 5)
        phi[7] = 0.3
        result = import_file(saved(tmp_path, phi), FREE)
        assert "constant fields" in failed(result)
        assert "configuration 7" in find(result, "constant fields")["detail"]
        one_sign = free_draws(400, 6)
        one_sign *= np.sign(one_sign.mean(axis=(1, 2)))[:, None, None]
        result = import_file(saved(tmp_path, one_sign), FREE)
        assert failed(result) == {"M (Z2)"}
        assert "random sign" in result["hints"][0]

    def test_too_few(self, tmp_path: Path) -> None:
        assert "configurations" in failed(import_file(saved(tmp_path, free_draws(99, 7)), FREE))
        assert "own run" in failed(import_file(saved(tmp_path, free_draws(1, 7)), FREE))

    def test_drifting_chains(self, tmp_path: Path) -> None:
        phi = free_draws(1600, 8).reshape(16, 100, 4, 4)
        phi *= np.linspace(0.8, 1.18, 100)[None, :, None, None]  # the average is about right
        result = import_file(saved(tmp_path, phi), FREE, SMALL)
        assert {"phi^2 drift", "phi^2 trend", "s trend"} <= failed(result)

    def test_accepted_all_the_same(self, tmp_path: Path) -> None:
        path = saved(tmp_path, 1.2 * free_draws(400, 9))
        result = import_file(path, FREE, out=tmp_path / "out", accept_uncertified=True)
        assert not result["passed"]
        assert result["written"]
        assert format_import(result).endswith("WRITTEN ALL THE SAME, as uncertified")
        certificate = read_ensemble(tmp_path / "out").attrs["certificate"]
        assert certificate["passed"] is False
        assert "Schwinger-Dyson" in certificate["reason"]

    def test_a_guard_that_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run of our own that could not be certified judges nobody."""

        def bad(*args: Any) -> Ensemble:
            e = own(FREE, SMALL, 1, None)
            e = e.select(np.arange(len(e)))
            e.attrs["certificate"] = {**e.attrs["certificate"], "passed": False, "reason": "failed: s drift"}
            return e

        monkeypatch.setattr(foreign_guard, "own_run", bad)
        result = import_file(saved(tmp_path, free_draws(400, 10)), FREE)
        assert failed(result) == {"own run"}
        assert "could not be certified: failed: s drift" in format_import(result)


class TestSizeOfTheGuard:
    def test_a_lattice_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert too_large((512, 512)) == ""
        assert too_large((24, 24, 24, 24)) == (
            "a run of 512 configurations on 24x24x24x24 takes 1.36e+09 bytes, more than the 1.07e+09 it may"
        )
        with pytest.raises(InputError, match=r"512 configurations on 513x512 takes 1\.08e\+09 bytes"):
            own_run(FREE, (513, 512), 1, None)
        monkeypatch.setattr(foreign_guard, "MAX_BYTES", 50_000)
        monkeypatch.setattr(foreign_guard, "own_run", lambda *args: pytest.fail("our own run was started"))
        result = import_file(saved(tmp_path, free_draws(400, 10)), FREE)
        assert failed(result) == {"own run"}
        assert "a run of 512 configurations on 4x4 takes 6.55e+04 bytes" in format_import(result)
        assert result["guard"] is None

    @pytest.mark.parametrize(("n_bytes", "n"), [(2**30, 4096), (128 * 3000, 2976), (128 * 512, 512)])
    def test_the_run_fits(self, monkeypatch: pytest.MonkeyPatch, n_bytes: int, n: int) -> None:
        """As large as allowed; the wanted number of independent configurations comes down with it."""
        monkeypatch.setattr(foreign_guard, "MAX_BYTES", n_bytes)
        guard = own_run(FREE, SMALL, 3, None)
        assert len(guard) == n
        assert guard.phi.nbytes <= n_bytes
        assert wanted_independent(guard) == min(500, n / 4)
        assert guard.attrs["certificate"]["passed"]
        assert guard.attrs["certificate"]["n_independent"] >= wanted_independent(guard)

    def test_too_few_independent_after_all_attempts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs: list[tuple[int, int]] = []

        def poor(action: Any, shape: Any, params: Any, *args: Any, **kwargs: Any) -> Ensemble:
            runs.append((params.n_therm, params.stride))
            e = own(FREE, SMALL, 1, None)
            e = e.select(np.arange(len(e)))
            tau = {"m2": {"value": 5.0, "error": 0.1}, "unit": ""}
            e.attrs["certificate"] = {**e.attrs["certificate"], "n_independent": 409.6, "tau_int": tau}
            return e

        own(FREE, SMALL, 1, None)
        monkeypatch.setattr(foreign_guard, "generate", poor)
        monkeypatch.setattr(foreign_guard, "own_run", own_run)
        result = import_file(saved(tmp_path, free_draws(400, 10)), FREE)
        assert failed(result) == {"own run"}
        assert "410 independent configurations judge nobody" in format_import(result)
        # tau_int = 5 saved configurations = 10, 50, ... trajectories: the stride follows it, and n_therm is
        # always more than what a certificate asks for
        assert [stride for _, stride in runs] == [2, 10, 50]
        assert all(n_therm >= MIN_THERM_OVER_TAU * stride for n_therm, stride in runs)


def sigmas_found(result: dict[str, Any]) -> float:
    return float(find(result, "order of chains")["detail"].split(" sigma")[0])


def protocol(action: ScalarPhi4, length: int, n: int) -> Array:
    phi: Array = start_fields(action, (length, length), 2 * n, seed=7)[::2]
    for t in range(128):
        phi, _ = hmc_trajectory(
            action, phi, seed=7, chains=np.arange(n), trajectory=t, length=1.0, n_steps=5, n_threads=1
        )
    return phi


class TestReading:
    @pytest.mark.parametrize(
        ("found", "shape", "n_chains", "want"),
        [
            ((50, 8), None, None, ((8,), None, 50)),
            ((50, 8, 4), None, None, ((8, 4), None, 50)),
            ((50, 8, 4), (8, 4), None, ((8, 4), None, 50)),
            ((5, 10, 8, 4), (8, 4), None, ((8, 4), 5, 50)),
            ((5, 10, 8, 4), (10, 8, 4), None, ((10, 8, 4), None, 5)),  # no assumption either
            ((50, 1, 8, 4), (8, 4), None, ((8, 4), None, 50)),
            ((50, 8, 4, 1), (8, 4), None, ((8, 4), None, 50)),
            ((50, 1, 8), (1, 8), None, ((1, 8), None, 50)),  # an extent of 1 is a lattice like any other
            ((5, 10, 1, 8, 4), (8, 4), None, ((8, 4), 5, 50)),
            ((50, 8, 4), (4, 8), None, None),
            ((8, 4), (8, 4), None, None),
            ((0, 8, 4), None, None, None),
            ((2, 2, 2, 2, 2, 2, 2), None, None, None),
        ],
    )
    def test_layout(self, found: Any, shape: Any, n_chains: Any, want: Any) -> None:
        fit = layout(found, shape, n_chains)
        assert (None if fit is None else (fit.shape, fit.n_chains, fit.n)) == want
        assert fit is None or bool(fit.note) == (fit.n_chains is not None)

    def test_what_was_assumed_is_said(self) -> None:
        channel, three = layout((50, 1, 8, 8), None), layout((50, 4, 8, 8), None)
        axis = layout((4, 9, 8, 8), None, 4)
        assert channel is not None
        assert channel.shape == (8, 8)
        assert "first axis of extent 1 as a channel" in channel.note
        assert three is not None
        assert "lattice as 4x8x8" in three.note
        assert axis is not None
        assert (axis.shape, axis.n_chains) == ((8, 8), 4)
        assert "the first axis as 4 chains, the second as the configurations of each in order" in axis.note
        two = layout((4, 9, 8, 8), (8, 8))
        assert two is not None
        assert two.note == (
            "assumed: the first axis as 4 chains, the second as the configurations of each in order; "
            "swap the two axes if they are (time, chain)"
        )

    def test_formats_agree(self, tmp_path: Path) -> None:
        phi = free_draws(12, 1)
        saved(tmp_path, np.asfortranarray(phi), "a.npy")
        np.savez_compressed(tmp_path / "b.npz", beta=np.ones(12), cfg=phi)
        with h5py.File(tmp_path / "c.h5", "w") as file:
            file["runs/a/cfg"] = phi
            file["runs/a/beta"] = np.arange(12.0)
            file.create_dataset("runs/ints", data=np.zeros((12, 4, 4), dtype=int))
        with h5py.File(tmp_path / "d.hdf5", "w") as file:
            file.create_dataset("cfg", data=phi, compression="gzip", shuffle=True, chunks=(3, 4, 4))
        for name, dataset in (("a.npy", None), ("b.npz", "cfg"), ("c.h5", "runs/a/cfg"), ("d.hdf5", "cfg")):
            got = read_foreign(tmp_path / name, SMALL)
            np.testing.assert_array_equal(got.phi, phi)
            assert got.file["dataset"] == dataset
            assert got.phi.flags.writeable
            assert got.phi.flags.c_contiguous

    def test_chains(self, tmp_path: Path) -> None:
        path = saved(tmp_path, free_draws(12, 1).reshape(3, 4, 4, 4))
        assert read_foreign(path, SMALL).n_chains == 3
        assert read_foreign(path, SMALL, n_chains=3).n_chains == 3
        with pytest.raises(InputError, match="an axis of 3 chains, but n_chains = 4"):
            read_foreign(path, SMALL, n_chains=4)
        with pytest.raises(InputError, match="12 configurations are not 5 chains"):
            read_foreign(saved(tmp_path, free_draws(12, 1)), SMALL, n_chains=5)

    def test_which_dataset(self, tmp_path: Path) -> None:
        path = tmp_path / "two.h5"
        with h5py.File(path, "w") as file:
            file["a"], file["b"], file["beta"] = free_draws(3, 1), free_draws(4, 2), np.ones(3)
        with pytest.raises(InputError, match=r"2 arrays could be the fields.*a \(3, 4, 4\), b \(4, 4, 4\)$"):
            read_foreign(path, SMALL)
        assert len(read_foreign(path, SMALL, "/b").phi) == 4
        with pytest.raises(InputError, match="no array 'c'; it has a, b, beta"):
            read_foreign(path, SMALL, "c")
        with pytest.raises(InputError, match=r"shape \(3,\), expected \(n, 4, 4\)"):
            read_foreign(path, SMALL, "beta")
        with pytest.raises(InputError, match="no array of a fitting shape"):
            read_foreign(path, (8, 8))
        with pytest.raises(InputError, match="leave dataset out"):
            read_foreign(saved(tmp_path, free_draws(3, 1)), SMALL, "a")

    @pytest.mark.parametrize("dtype", ["f2", "i4", "c16", "S3", "?"])
    def test_types(self, tmp_path: Path, dtype: str) -> None:
        data = np.ones((5, 4, 4)).astype(dtype)
        np.savez(tmp_path / "a.npz", a=data)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["a"] = data
        for path in (saved(tmp_path, data), tmp_path / "a.npz", tmp_path / "a.h5"):
            with pytest.raises(InputError, match=r"has type .*must be float32 or float64"):
                read_foreign(path, SMALL)

    def test_not_finite(self, tmp_path: Path) -> None:
        phi = free_draws(9, 1)
        phi[4, 2, 1], phi[6, 0, 0] = np.nan, np.inf
        with pytest.raises(InputError, match=r"2 of 9 configurations, first in configuration 4"):
            read_foreign(saved(tmp_path, phi))

    def test_pickles_are_never_opened(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> Any:
                return os.mkdir, (str(tmp_path / "trapped"),)

        traps = np.array([Trap(), Trap()], dtype=object)
        np.save(tmp_path / "a.npy", traps, allow_pickle=True)
        np.savez(tmp_path / "b.npz", a=traps)
        (tmp_path / "c.npy").write_bytes(pickle.dumps(traps))
        for name in ("a.npy", "b.npz", "c.npy"):
            with pytest.raises(InputError, match=name):
                read_foreign(tmp_path / name, SMALL)
        assert not (tmp_path / "trapped").exists()

    def test_sizes_that_lie(self, tmp_path: Path) -> None:
        """Headers that claim more than the file holds are refused before memory is asked for."""
        header = str({"descr": "<f8", "fortran_order": False, "shape": (10**12, 4, 4)}).ljust(117) + "\n"
        liar = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + b"\0" * 64
        (tmp_path / "a.npy").write_bytes(liar)
        with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
            archive.writestr("a.npy", liar)
        np.savez_compressed(tmp_path / "c.npz", a=np.zeros((10**5, 4, 4)))
        with h5py.File(tmp_path / "d.h5", "w") as file:
            file.create_dataset("a", shape=(10**9, 4, 4), dtype="f8", chunks=(1, 4, 4))
        with h5py.File(tmp_path / "e.h5", "w") as file:
            file.create_dataset("a", data=np.zeros((10**5, 4, 4)), compression="gzip", chunks=(1000, 4, 4))
        (tmp_path / "f.npy").write_bytes(saved(tmp_path, free_draws(9, 1)).read_bytes()[:-8])
        (tmp_path / "g.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 50)
        (tmp_path / "h.npz").write_bytes(b"PK" + b"\0" * 50)
        for path in sorted(tmp_path.glob("?.*")):
            with pytest.raises(InputError, match=rf"{path.name}: .*(claims|truncated|damaged)"):
                read_foreign(path, SMALL)

    def test_links_and_virtual_data(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "secret.h5", "w") as file:
            file["a"] = free_draws(5, 1)
        with h5py.File(tmp_path / "b.h5", "w") as file:
            file["external"] = h5py.ExternalLink("secret.h5", "/a")
            file["soft"] = h5py.SoftLink("/external")
            virtual = h5py.VirtualLayout(shape=(5, 4, 4), dtype="f8")
            virtual[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "a", shape=(5, 4, 4))
            file.create_virtual_dataset("virtual", virtual)
            file.create_dataset("raw", (5, 4, 4), "f8", external=[(str(tmp_path / "secret.h5"), 0, 640)])
            file["circle/again"] = file["/"]
        for name in ("external", "soft", "virtual", "raw"):
            with pytest.raises(InputError, match=r"no array|too deeply"):
                read_foreign(tmp_path / "b.h5", SMALL, name)

    def test_other_files(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("1,2")
        with pytest.raises(InputError, match=r"unknown kind of file '\.csv'; known: \.npy, \.npz, \.h5"):
            read_foreign(tmp_path / "a.csv")
        with pytest.raises(InputError, match="no such file"):
            read_foreign(tmp_path / "b.npy")


class TestBadRequests:
    def test_refused_before_any_work(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(foreign_guard, "own_run", lambda *args: pytest.fail("our own run was started"))
        path = saved(tmp_path, free_draws(200, 1))
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.tex").write_text("")
        with pytest.raises(InputError, match="full: is not empty"):
            import_file(path, FREE, out=tmp_path / "full")
        with pytest.raises(InputError, match="is a file"):
            import_file(path, FREE, out=path)
        with pytest.raises(InputError, match="stride"):
            import_file(path, FREE, stride=0)
        with pytest.raises(InputError, match="n_chains"):
            import_file(path, FREE, n_chains=0)
        with pytest.raises(InputError, match=r"expected \(n, 8, 8\)"):
            import_file(path, FREE, (8, 8))

    def test_an_action_without_a_distribution(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no normalisable distribution"):
            import_file(saved(tmp_path, free_draws(200, 1)), FreeScalar(0.3))

    def test_nothing_half_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*args: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("lattice.interchange.importing.write_ensemble", interrupted)
        path = saved(tmp_path, free_draws(400, 1))
        with pytest.raises(KeyboardInterrupt):
            import_file(path, FREE, out=tmp_path / "out")
        assert [p.name for p in tmp_path.iterdir()] == ["fields.npy"]


def test_the_seed_of_our_own_run_is_not_the_users() -> None:
    """A file made here with seed 1 must not be compared with itself."""
    guard = own(FREE, SMALL, 1, None)
    assert guard.attrs["seed"] not in range(1000)
    assert own(FREE, SMALL, 2, None).attrs["seed"] != guard.attrs["seed"]

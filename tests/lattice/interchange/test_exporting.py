"""Exports are read back by the programs they are for, and those find the numbers that we find."""

from __future__ import annotations

import gzip
import json
import socket
import sys
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lattice.actions.complexified import Complexified
from lattice.actions.one_variable import ComplexGaussian, TwoPeak
from lattice.actions.phi4 import FreeScalar
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.interchange.exporting import export_ensemble, export_series
from lattice.observables.measure import measure
from lattice.simulation.exact_draws import draw_toy
from lattice.statistics.gamma import gamma_method
from lattice.statistics.jackknife import jackknife_weighted

ACTION, SHAPE, STRIDE = FreeScalar(0.2), (8, 4), 3


def propagator() -> np.ndarray[Any, np.dtype[np.float64]]:
    cos = [np.cos(2 * np.pi * np.arange(extent) / extent) for extent in SHAPE]
    return 0.5 / (1 - 2 * ACTION.kappa * (cos[0][:, None] + cos[1][None, :]))


def chains(n: int, n_chains: int, rho: float = 0.8, seed: int = 4) -> Ensemble:
    """AR(1) in Monte Carlo time, exact free fields in space: tau_int(M) = (1 + rho)/(1 - rho)/2."""
    rng = np.random.default_rng(seed)
    white = rng.normal(size=(n, n_chains, *SHAPE))
    noise = np.fft.ifftn(np.sqrt(propagator()) * np.fft.fftn(white, axes=(2, 3)), axes=(2, 3)).real
    phi = noise.copy()
    for t in range(1, n):
        phi[t] = rho * phi[t - 1] + np.sqrt(1 - rho**2) * noise[t]
    times = STRIDE * np.repeat(np.arange(1, n + 1), n_chains)
    return Ensemble.from_fields(
        phi.reshape(-1, *SHAPE), ACTION, np.tile(np.arange(n_chains), n), times, attrs={"stride": STRIDE}
    )


@cache
def ensemble() -> Ensemble:
    return chains(500, 4)


def weighted(n: int = 4000) -> Ensemble:
    """Independent fields with a log-weight that depends on them."""
    e = chains(n, 1, rho=0.0)
    return Ensemble.from_fields(e.phi, ACTION, log_weight=e.series["phi2"])


def read_obs(path: str) -> dict[str, Any]:
    pyerrors_json = pytest.importorskip("pyerrors.input.json")
    result: dict[str, Any] = pyerrors_json.load_json_dict(path, verbose=False, full_output=True)
    return result


class TestPyerrors:
    def test_values_and_errors(self, tmp_path: Path) -> None:
        """Values as `measure` has them; errors and tau_int of the Gamma method with each replica's mean."""
        e = ensemble()
        (path,) = export_ensemble(e, "pyerrors", tmp_path / "free")
        assert path.endswith("free.json.gz")
        obs = read_obs(path)["obsdata"]
        table = measure(e)["observables"]
        series, parts, volume = export_series(e), e.replicas(), 32
        derived = {
            "susceptibility": (("m2", "abs_magnetization"), lambda x: volume * (x[0] - x[1] ** 2)),
            "susceptibility_full": (("m2",), lambda x: volume * x[0]),
            "binder": (("m2", "m4"), lambda x: 1 - x[1] / (3 * x[0] ** 2)),
            "xi_2nd": (
                ("G_k0", "G_longest"),
                lambda x: np.sqrt(x[0] / x[1] - 1) / (2 * np.sin(np.pi / 8)),
            ),
        }
        names = set(obs) & set(table)
        assert names == {
            "abs_magnetization", "magnetization", "action_density", "phi2", "phi4",
            "susceptibility", "susceptibility_full", "binder", "xi_2nd",
        }  # fmt: skip
        for name in obs:
            columns, f = derived.get(name, ((name,), None))
            x = np.stack([series[column] for column in columns], axis=1)
            want = gamma_method([x[part] for part in parts], f, centre="replica")
            obs[name].gamma_method(S=2.0)
            assert obs[name].value == pytest.approx(want.value, rel=1e-12, abs=1e-14)
            assert obs[name].dvalue == pytest.approx(want.error, rel=1e-9)
            assert obs[name].e_tauint[next(iter(obs[name].e_tauint))] == pytest.approx(want.tau_int, rel=1e-9)
            if name in table:
                assert obs[name].value == pytest.approx(table[name]["value"], rel=1e-12, abs=1e-14)
                assert obs[name].dvalue == pytest.approx(table[name]["error"], rel=0.1)

    def test_free_propagator(self, tmp_path: Path) -> None:
        """G(k) against its closed form, with the momenta named in the file."""
        data = read_obs(export_ensemble(ensemble(), "pyerrors", tmp_path / "g")[0])
        g = propagator()
        momenta = data["description"]["momenta"]
        assert momenta["G_k0"] == [0, 0]
        assert len(momenta) == 8
        for name, n in momenta.items():
            obs = data["obsdata"][name]
            obs.gamma_method()
            assert abs(obs.value - g[tuple(n)]) < 4.5 * obs.dvalue

    def test_replicas_and_configuration_numbers(self, tmp_path: Path) -> None:
        e = ensemble()
        obs = read_obs(export_ensemble(e, "pyerrors", tmp_path / "e")[0])["obsdata"]["phi2"]
        stem = f"diffsq-{e.identity[:12]}"
        assert obs.names == [f"{stem}|r{i:03d}" for i in range(4)]
        assert list(obs.idl[f"{stem}|r001"]) == list(range(STRIDE, 500 * STRIDE + 1, STRIDE))
        rows = e.replicas()[1]
        fluctuations = e.series["phi2"][rows] - e.series["phi2"].mean()
        np.testing.assert_allclose(obs.deltas[f"{stem}|r001"] + obs.r_values[f"{stem}|r001"] - obs.value,
                                   fluctuations, atol=1e-13)  # fmt: skip

    def test_description_without_names_of_people_or_machines(self, tmp_path: Path) -> None:
        path = export_ensemble(ensemble(), "pyerrors", tmp_path / "d.json.gz")[0]
        content = json.loads(gzip.decompress(Path(path).read_bytes()))
        assert "who" not in content
        assert socket.gethostname() not in json.dumps({**content, "obsdata": None})
        about = read_obs(path)["description"]
        assert about["action"] == ACTION.as_dict()
        assert about["convention"] == "kappa-lambda"
        assert about["shape"] == [8, 4]
        assert about["identity"] == ensemble().identity
        assert "1/2 + sum" in about["tau"]

    def test_weights(self, tmp_path: Path) -> None:
        """Self-normalised averages: equal values; errors within the noise of the jackknife's 100 blocks."""
        e = weighted()
        data = read_obs(export_ensemble(e, "pyerrors", tmp_path / "w")[0])
        assert data["description"]["weighted"] is True
        obs, table = data["obsdata"], measure(e)["observables"]
        plain = measure(e, ignore_weights=True)["observables"]
        for name in ("abs_magnetization", "susceptibility", "binder", "phi2", "phi4", "xi_2nd"):
            obs[name].gamma_method(S=0)  # independent draws
            assert obs[name].value == pytest.approx(table[name]["value"], rel=1e-12)
            assert obs[name].dvalue == pytest.approx(table[name]["error"], rel=0.35)
        assert abs(obs["phi2"].value - plain["phi2"]["value"]) > 6 * obs["phi2"].dvalue
        w = np.exp(e.log_weight - e.log_weight.max()) if e.log_weight is not None else None
        assert w is not None
        assert obs["weight"].value == pytest.approx(w.mean(), rel=1e-12)
        assert e.log_weight is not None
        many = jackknife_weighted(e.series["phi2"][:, None], e.log_weight, None, n_blocks=2000)
        assert obs["phi2"].dvalue == pytest.approx(many.error, rel=0.1)

    def test_independent_configurations(self, tmp_path: Path) -> None:
        e = Ensemble.from_fields(ensemble().phi, ACTION, np.arange(2000), np.zeros(2000))
        obs = read_obs(export_ensemble(e, "pyerrors", tmp_path / "i")[0])["obsdata"]["m2"]
        assert len(obs.names) == 1
        assert list(next(iter(obs.idl.values()))) == list(range(1, 2001))

    def test_short_chains(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="4 configurations: pyerrors needs at least 5"):
            export_ensemble(chains(4, 8), "pyerrors", tmp_path / "short")
        assert list(tmp_path.iterdir()) == []


class TestArviz:
    def test_read_back(self, tmp_path: Path) -> None:
        arviz = pytest.importorskip("arviz")
        e = ensemble()
        (path,) = export_ensemble(e, "arviz", tmp_path / "free", fields=True)
        assert path.endswith("free.nc")
        posterior = arviz.from_netcdf(path).posterior
        assert dict(posterior.sizes) == {"chain": 4, "draw": 500, "x0": 8, "x1": 4}
        assert posterior.draw.values.tolist() == list(range(STRIDE, 500 * STRIDE + 1, STRIDE))
        for chain, rows in enumerate(e.replicas()):
            np.testing.assert_array_equal(posterior["phi"].values[chain], e.phi[rows])
            np.testing.assert_allclose(posterior["phi2"].values[chain], e.series["phi2"][rows], rtol=1e-13)
        assert json.loads(posterior.attrs["action"]) == ACTION.as_dict()
        assert posterior.attrs["convention"] == "kappa-lambda"
        assert posterior.attrs["identity"] == e.identity

    def test_effective_sample_size(self, tmp_path: Path) -> None:
        """arviz.ess (Geyer's window) against N/(2 tau_int) (Wolff's): two estimates of one number."""
        arviz = pytest.importorskip("arviz")
        e = chains(2000, 4)
        posterior = arviz.from_netcdf(export_ensemble(e, "arviz", tmp_path / "ess")[0]).posterior
        assert "phi" not in posterior
        series = {"magnetization": "magnetization", "phi2": "phi2", "action_density": "action"}
        for name, own in series.items():
            tau = gamma_method([e.series[own][rows] for rows in e.replicas()]).tau_int
            ess = float(arviz.ess(posterior, var_names=[name], method="mean")[name])
            assert ess == pytest.approx(len(e) / (2 * tau), rel=0.2)
        known = float(arviz.ess(posterior, var_names=["magnetization"], method="mean").magnetization)
        assert known == pytest.approx(len(e) / (2 * 4.5), rel=0.4)  # AR(1); another convention is off by 2

    def test_refusals(self, tmp_path: Path) -> None:
        e = ensemble()
        with pytest.raises(InputError, match="chains of 499 to 500 configurations"):
            export_ensemble(e.select(np.arange(1, len(e))), "arviz", tmp_path / "unequal")
        with pytest.raises(InputError, match="no importance weights"):
            export_ensemble(weighted(50), "arviz", tmp_path / "weights")
        assert list(tmp_path.iterdir()) == []

    def test_no_leftovers_when_the_folder_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="file"):
            export_ensemble(ensemble(), "arviz", tmp_path / "file" / "a.nc")
        assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("kind", "module"), [("pyerrors", "pyerrors"), ("arviz", "xarray")])
def test_a_missing_library_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"pip install 'diffsq\[interop\]'"):
        export_ensemble(ensemble(), kind, tmp_path / "x")


@pytest.mark.parametrize("kind", ["pyerrors", "arviz"])
def test_a_configuration_stored_twice_is_refused_with_no_numbers_made_up(tmp_path: Path, kind: str) -> None:
    twice = chains(50, 4)
    twice.trajectory[11] = twice.trajectory[3]  # chain 3: rows 3, 7, 11, ...
    with pytest.raises(InputError, match="trajectory 3 of chain 3 is stored twice, rows 3 and 11"):
        export_ensemble(twice, kind, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="trajectory 3 of chain 3 is stored twice"):
        measure(twice)


def test_chains_with_gaps_keep_their_numbers(tmp_path: Path) -> None:
    whole = chains(50, 2)
    part = whole.select(np.delete(np.arange(100), [20, 33]))
    obs = read_obs(export_ensemble(part, "pyerrors", tmp_path / "gap")[0])["obsdata"]["phi2"]
    assert [len(numbers) for numbers in obs.idl.values()] == [49, 49]
    assert STRIDE * 11 not in next(iter(obs.idl.values()))
    assert obs.value == pytest.approx(measure(part)["observables"]["phi2"]["value"])


def test_bad_requests(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown kind of export 'root'; known: pyerrors, arviz"):
        export_ensemble(ensemble(), "root", tmp_path / "x")
    with pytest.raises(InputError, match="arviz only"):
        export_ensemble(ensemble(), "pyerrors", tmp_path / "x", fields=True)
    (tmp_path / "x.nc").write_text("mine")
    with pytest.raises(InputError, match=r"x\.nc: is there already"):
        export_ensemble(ensemble(), "arviz", tmp_path / "x")
    assert (tmp_path / "x.nc").read_text() == "mine"


def test_the_netcdf_file_is_plain_hdf5(tmp_path: Path) -> None:
    pytest.importorskip("h5netcdf")
    with h5py.File(export_ensemble(ensemble(), "arviz", tmp_path / "h")[0]) as file:
        assert file["posterior/phi2"].shape == (4, 500)


def complex_chains(n: int = 400, n_chains: int = 20) -> Ensemble:
    """Exact draws of the stationary law of complex Langevin at sigma0 = 1 + i: <z^2> = (1 - i)/2."""
    root = np.linalg.cholesky(np.array([[0.75, -0.25], [-0.25, 0.25]]))
    phi = np.random.default_rng(3).normal(size=(n * n_chains, 2)) @ root.T
    times = np.repeat(np.arange(n), n_chains)
    action = Complexified(ComplexGaussian(1 + 1j))
    return Ensemble.from_fields(phi, action, np.tile(np.arange(n_chains), n), times)


class TestOneVariable:
    def test_pyerrors_finds_the_rows_of_measure(self, tmp_path: Path) -> None:
        e = complex_chains()
        data = read_obs(export_ensemble(e, "pyerrors", tmp_path / "z")[0])
        obs, table = data["obsdata"], measure(e, method="gamma")["observables"]
        assert set(obs) == set(table)
        assert data["description"]["action"] == e.action.as_dict()
        for name, row in table.items():
            obs[name].gamma_method(S=2.0)
            assert obs[name].value == pytest.approx(row["value"], rel=1e-9, abs=1e-12)
            assert obs[name].dvalue == pytest.approx(row["error"], rel=0.1)
        assert abs(obs["Im m2"].value + 0.5) < 4.5 * obs["Im m2"].dvalue

    def test_noise_is_taken_off_a_real_variable(self, tmp_path: Path) -> None:
        noise = 0.3 * np.random.default_rng(2).normal(size=(4000, 1))
        attrs = {"about": {"noise2": 0.09}}
        e = Ensemble.from_fields(
            draw_toy(TwoPeak(1.0, 0.25), 4000, 1) + noise, TwoPeak(1.0, 0.25), attrs=attrs
        )
        obs = read_obs(export_ensemble(e, "pyerrors", tmp_path / "x")[0])["obsdata"]
        for name, row in measure(e)["observables"].items():
            assert obs[name].value == pytest.approx(row["value"], rel=1e-9)
        assert export_series(e)["m2"].mean() - obs["m2"].value == pytest.approx(0.09)

    def test_arviz_keeps_the_series_and_both_parts_of_the_fields(self, tmp_path: Path) -> None:
        arviz = pytest.importorskip("arviz")
        e = complex_chains(50)
        posterior = arviz.from_netcdf(export_ensemble(e, "arviz", tmp_path / "z", fields=True)[0]).posterior
        assert posterior["phi"].dims == ("chain", "draw", "part")
        z = posterior["phi"].values @ np.array([1, 1j])
        np.testing.assert_allclose(posterior["Im m4"].values, (z**4).imag, rtol=1e-12)
        assert "kappa4" not in posterior

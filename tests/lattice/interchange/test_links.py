"""Links from elsewhere: wrapped and accepted, refused where stuck, misread or of another beta, with hints;
and links for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lattice.actions.u1 import U1
from lattice.arrays import Floats
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.errors import InputError
from lattice.interchange.exporting import export_ensemble, export_series
from lattice.interchange.importing import format_import, import_file
from lattice.interchange.links import check_foreign_links, link_hints, wrapped
from lattice.observables.measure import measure
from lattice.simulation.gauge_draws import draw_links

LINKS, SHAPE = U1(2.0), (6, 4)


@pytest.fixture(scope="module")
def theirs() -> Floats:
    return draw_links(2.0, SHAPE, 2000, seed=1)


def of(path: Path, phi: Floats, action: U1 = LINKS, **options: Any) -> dict[str, Any]:
    np.save(path / "links.npy", phi)
    return import_file(path / "links.npy", action, **options)


def failed(result: dict[str, Any]) -> set[str]:
    return {check["name"] for check in result["checks"] if not check["passed"]}


@pytest.mark.parametrize("n_chains", [None, 20])
def test_accepted_wrapped_and_measured(n_chains: int | None, tmp_path: Path, theirs: Floats) -> None:
    turns = np.random.default_rng(2).integers(-2, 3, theirs.shape)
    outside = theirs + 2 * np.pi * turns
    result = of(tmp_path, outside, shape=SHAPE, n_chains=n_chains, out=tmp_path / "out")
    assert result["passed"], format_import(result)
    text = format_import(result)
    assert f"{np.count_nonzero(turns)} of {theirs.size} links were outside (-pi, pi] and are wrapped" in text
    assert text.endswith("ACCEPTED")
    assert {"plaquette", "Q^2", "Q (C)", "P(Q)", "Re P0", "Re P1^2", "Schwinger-Dyson"} <= {
        check["name"] for check in result["checks"]
    }
    ensemble = read_ensemble(tmp_path / "out")
    assert ensemble.action == LINKS
    assert ensemble.shape == SHAPE
    np.testing.assert_allclose(ensemble.phi, theirs, atol=1e-13)
    table = measure(ensemble)["observables"]
    assert all(abs(e["value"] - e["exact"]) < 4.5 * e["error"] for e in table.values() if e["error"])


def test_inside_nothing_is_said(tmp_path: Path, theirs: Floats) -> None:
    said: list[str] = []
    assert wrapped(theirs, said) is theirs
    assert said == []
    result = of(tmp_path, theirs.astype(np.float32))
    assert result["passed"], format_import(result)
    assert not any("wrapped" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda phi: phi[:, ::-1], "the directions are exchanged: pass phi[:, ::-1]"),
        (lambda phi: phi / (2 * np.pi), "angles are in units of 2 pi: multiply them by 2 pi"),
        (lambda phi: phi / np.pi, "angles are in units of pi: multiply them by pi"),
        (lambda phi: phi * 180 / np.pi, "angles are in degrees: multiply them by pi/180"),
        (lambda phi: phi.swapaxes(-1, -2), "the directions are exchanged: pass phi[:, ::-1]"),
    ],
)
def test_what_was_misread_is_hinted_at(change: Any, hint: str, tmp_path: Path, theirs: Floats) -> None:
    result = of(tmp_path, np.ascontiguousarray(change(theirs)), out=tmp_path / "out")
    assert not result["passed"]
    assert "plaquette" in failed(result)
    assert not (tmp_path / "out").exists()
    assert [text for text in result["hints"] if text.startswith(hint)]


def test_the_beta_of_the_file_is_hinted_at(tmp_path: Path, theirs: Floats) -> None:
    result = of(tmp_path, theirs, U1(2.3))
    assert {"plaquette", "Schwinger-Dyson"} <= failed(result)
    (hint,) = result["hints"]
    assert hint.startswith("the plaquette is that of beta = ")
    assert abs(float(hint.split("= ")[1].split(",")[0]) - 2.0) < 0.05
    assert link_hints(theirs, LINKS, None) != [hint]


def test_chains_that_are_stuck_are_refused(tmp_path: Path, theirs: Floats) -> None:
    order = np.argsort(LINKS.order(torch.from_numpy(theirs)).numpy(), kind="stable")
    result = of(tmp_path, theirs[order], n_chains=10)
    assert "topology" in failed(result)
    text = format_import(result)
    assert "of 10 chains never left their sector in 200 configurations; a longer run, or moves" in text
    one_by_one = of(tmp_path, theirs[order])  # called independent
    assert "independence" in failed(one_by_one)


def test_bad_input(tmp_path: Path, theirs: Floats) -> None:
    with pytest.raises(
        InputError, match=r"the axis of directions comes first; save numpy.moveaxis\(phi, -1, 1\)"
    ):
        of(tmp_path, np.moveaxis(theirs, 1, -1))
    assert of(tmp_path, np.moveaxis(np.moveaxis(theirs, 1, -1), -1, 1))["passed"], "the advice works"
    with pytest.raises(InputError, match="NaN or infinity in the fields of 1 of 2000 configurations"):
        of(tmp_path, np.where(theirs == theirs[7, 0, 0, 0], np.nan, theirs))
    with pytest.raises(InputError, match="S is complex"):
        of(tmp_path, theirs, U1(2.0, theta=1.0))
    with pytest.raises(InputError, match="two periodic extents"):
        check_foreign_links(LINKS, (2, 4))
    with pytest.raises(InputError, match="fields of U1 are"):
        check_foreign_links(LINKS, (4, 4))
    few = of(tmp_path, theirs[:40])
    assert failed(few) == {"configurations"}


def test_exported_series_are_those_that_are_measured(tmp_path: Path, theirs: Floats) -> None:
    ensemble = Ensemble.from_fields(theirs, LINKS, np.arange(2000) % 8)
    table = measure(ensemble)["observables"]
    for name, series in export_series(ensemble).items():
        assert series.shape == (2000,)
        assert series.mean() == pytest.approx(table[name]["value"], abs=1e-12)
    assert {"plaquette", "wilson_2x3", "polyakov2_0", "charge2"} <= export_series(ensemble).keys()
    (path,) = export_ensemble(ensemble, "arviz", tmp_path / "a", fields=True)
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(path, group="posterior", engine="h5netcdf") as posterior:
        np.testing.assert_array_equal(posterior["phi"].values[3, 5], theirs[5 * 8 + 3])


def test_pyerrors_finds_the_same_ratios(tmp_path: Path, theirs: Floats) -> None:
    pe_json = pytest.importorskip("pyerrors.input.json")
    ensemble = Ensemble.from_fields(theirs, LINKS, np.arange(2000) % 8)
    (path,) = export_ensemble(ensemble, "pyerrors", tmp_path / "p")
    table = measure(ensemble)["observables"]
    found = pe_json.load_json_dict(path, verbose=False)
    assert found.keys() >= {"chi_top", "creutz_2x2", "creutz_3x3"}
    for name, obs in found.items():
        obs.gamma_method()
        assert obs.value == pytest.approx(table[name]["value"], rel=1e-3, abs=1e-9), name
        assert obs.dvalue == pytest.approx(table[name]["error"], rel=0.25), name

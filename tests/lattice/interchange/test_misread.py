"""Arrays in another order of axes: read where they say so or nothing else fits, and recognised where not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import FREE, SMALL, failed, free_draws, saved

from lattice.actions.phi4 import FreeScalar
from lattice.errors import InputError
from lattice.interchange import reading
from lattice.interchange.importing import format_import, import_file
from lattice.interchange.layouts import layout, parse_order
from lattice.interchange.reading import read_foreign

PHI = free_draws(400, 21)
LAST, FLAT = np.moveaxis(PHI, 0, -1), PHI.reshape(400, 16)
OBLONG = np.arange(5 * 3 * 2.0).reshape(5, 3, 2)


@pytest.mark.parametrize(
    ("array", "order"),
    [
        (np.moveaxis(OBLONG, 0, -1), "lattice,n"),
        (OBLONG.reshape(5, 6), "n,sites"),
        (OBLONG.reshape(5, 6).T, "sites,n"),
        (OBLONG.transpose(0, 2, 1).reshape(5, 6), "n,sites_f"),
        (OBLONG.reshape(5, 3, 2, 1), "n,lattice,channel"),
        (OBLONG, "n,lattice"),
    ],
)
def test_every_order_that_is_said(
    tmp_path: Path, array: Any, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, array)
    np.testing.assert_array_equal(read_foreign(path, (3, 2), order=order).phi, OBLONG)
    monkeypatch.setattr(reading, "_PART", 2 * 8 * 6)  # two configurations at a time, in a temporary file
    monkeypatch.setattr(reading, "_IN_MEMORY", 0)
    found = read_foreign(path, (3, 2), order=order)
    np.testing.assert_array_equal(found.phi, OBLONG)
    assert found.phi.flags.writeable


def test_chains_in_either_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chains = np.arange(4 * 5 * 6.0).reshape(4, 5, 3, 2)
    time_first = saved(tmp_path, chains.transpose(1, 0, 2, 3))
    monkeypatch.setattr(reading, "_PART", 2 * 8 * 6)
    found = read_foreign(time_first, (3, 2), order="n,chain,lattice")
    assert found.n_chains == 4
    np.testing.assert_array_equal(found.phi, chains.reshape(20, 3, 2))
    assert read_foreign(time_first, (3, 2)).n_chains == 5  # the control: assumed is (chain, time)


def test_what_else_fits_the_lattice_is_read_with_a_note(tmp_path: Path) -> None:
    for array, words in ((LAST, "layout lattice,n"), (FLAT, "layout n,sites"), (FLAT.T, "layout sites,n")):
        found = read_foreign(saved(tmp_path, array), SMALL)
        np.testing.assert_array_equal(found.phi, PHI)
        assert words in found.notes[0]
    assert layout((50, 8, 4), (4, 8)) is None


def test_orders_that_are_none(tmp_path: Path) -> None:
    for text in ("n", "lattice", "n,lattice,sites", "n,n,lattice", "n,latice", ""):
        with pytest.raises(InputError, match="layout is the order of the axes, such as n,lattice"):
            parse_order(text)
    path = saved(tmp_path, FLAT)
    with pytest.raises(InputError, match=r"flat sites need the lattice, --set lattice\.shape"):
        read_foreign(path, order="n,sites")
    with pytest.raises(InputError, match=r"array of shape \(400, 16\) is not n,sites on \(5, 5\)"):
        read_foreign(path, (5, 5), order="n,sites")
    with pytest.raises(InputError, match=r"array of shape \(4, 4\) is one field; stack several"):
        read_foreign(saved(tmp_path, PHI[0]), SMALL)


@pytest.mark.parametrize(
    ("array", "shape", "words"),
    [
        (LAST, None, "--layout lattice,n --set lattice.shape=[4,4]"),
        (FLAT, None, "--layout n,sites --set lattice.shape=[4,4]"),
        (FLAT.T, None, "--layout sites,n --set lattice.shape=[4,4]"),
        (LAST[..., :4], SMALL, None),  # four configurations: too few for either
    ],
)
def test_a_misread_array_is_told_its_order_and_no_kappa(
    tmp_path: Path, array: Any, shape: Any, words: str | None
) -> None:
    path = saved(tmp_path, array)
    result = import_file(path, FREE, shape)
    assert not result["passed"]
    if words is None:
        assert not any("layout" in hint for hint in result["hints"])
        return
    assert f"<phi dS/dphi> is 1 within its error: {words}" in format_import(result)
    assert "asks for kappa" not in format_import(result)
    again = import_file(path, FREE, SMALL, layout=words.split()[1])  # the advice works
    assert again["passed"]


def test_the_shape_alone_where_no_order_has_the_identity(tmp_path: Path) -> None:
    wrong = FreeScalar(0.1)
    hints = import_file(saved(tmp_path, LAST), wrong)["hints"]
    assert hints == [
        "if the array (4, 4, 400) holds 400 configurations on 4x4, on the last axis: "
        "--layout lattice,n --set lattice.shape=[4,4]"
    ]
    flat = import_file(saved(tmp_path, FLAT), wrong)["hints"]
    assert flat == [
        "if the array (400, 16) holds 400 configurations on 4x4, their sites on one axis: "
        "--layout n,sites --set lattice.shape=[4,4]"
    ]
    known = import_file(saved(tmp_path, FLAT), wrong, (16,))  # of one dimension, as was said: its kappa
    assert not any("layout" in hint for hint in known["hints"])
    usual = import_file(saved(tmp_path, PHI), wrong)  # the control: a usual array is told its kappa
    assert "Schwinger-Dyson" in failed(usual)
    assert not any("layout" in hint for hint in usual["hints"])
    assert any("asks for kappa" in hint for hint in usual["hints"])

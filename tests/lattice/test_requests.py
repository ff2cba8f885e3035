"""What a folder was asked to hold: stored, compared value by value, refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from lattice.errors import InputError
from lattice.files import write_json
from lattice.requests import changed_values, refuse_changes, stored_request

ASKED = {"seed": 3, "ensemble": {"n_configs": 64, "stride": 2}}


def test_a_finished_folder_speaks_through_its_manifest(tmp_path: Path) -> None:
    assert stored_request(tmp_path) is None
    write_json(tmp_path / "request.json", {"seed": 1})
    assert stored_request(tmp_path) == {"seed": 1}
    write_json(tmp_path / "manifest.json", {"request": ASKED})
    assert stored_request(tmp_path) == ASKED
    write_json(tmp_path / "manifest.json", {"complete": True})
    with pytest.raises(InputError, match="was not made by this command"):
        stored_request(tmp_path)


def test_changes_are_named_old_and_new(tmp_path: Path) -> None:
    refuse_changes(tmp_path, None, ASKED)
    refuse_changes(tmp_path, ASKED, {"ensemble": {"stride": 2, "n_configs": 64}, "seed": 3})
    assert changed_values({"action": {"c": [1.0, 0.5]}}, {"action": {"c": (1.0, 0.5)}}) == []
    other = {"seed": 4, "ensemble": {"n_configs": 64, "n_chains": 8}}
    assert changed_values(ASKED, other) == [
        "ensemble.n_chains was absent, now 8", "ensemble.stride was 2, now absent", "seed was 3, now 4",
    ]  # fmt: skip
    with pytest.raises(InputError, match="seed was 3, now 4; choose another run folder") as caught:
        refuse_changes(tmp_path, ASKED, other)
    assert str(caught.value).startswith(f"{tmp_path}: holds an ensemble made with other settings: ")
    assert "\n" not in str(caught.value)

"""Shared fixtures.  Importing this file imports nothing of the package but `torch`, to fix its threads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

if TYPE_CHECKING:
    from diffsq.config.config import Config

# One thread per worker: workers with many threads each only slow one another down.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long runs first: what the workers steal from each other at the end is short."""
    items.sort(key=lambda item: "physics" not in item.path.parts and item.get_closest_marker("slow") is None)


@pytest.fixture
def settings() -> dict[str, Any]:
    """A small valid configuration as a nested dict; each test gets its own."""
    return {
        "name": "small",
        "seed": 3,
        "action": {"kind": "phi4", "kappa": 0.25, "lam": 0.1},
        "lattice": {"shape": [8, 8]},
        "ensemble": {"n_configs": 64, "n_chains": 8},
        "training": {"n_steps": 10},
        "sampling": {"n_samples": 24, "n_levels": 4},
    }


@pytest.fixture
def config(settings: dict[str, Any]) -> Config:
    """The same, validated."""
    from diffsq.config.config import config_from_dict

    return config_from_dict(settings)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages of a run replaced by fakes (`fake_run.fake_stages`), which note here that they ran."""
    from fake_run import fake_stages

    from diffsq import stages

    ran: list[str] = []
    monkeypatch.setattr(stages, "STAGE", fake_stages(ran))
    return ran


@pytest.fixture
def config_file(tmp_path: Path, settings: dict[str, Any]) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="session")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A scan of eight points (`scan_points.eight_points`) and its folder; points may be added to it."""
    from scan_points import eight_points

    folder = tmp_path_factory.mktemp("scanned")
    return folder, eight_points(folder)

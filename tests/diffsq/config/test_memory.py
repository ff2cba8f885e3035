"""A run that cannot fit is refused before it starts, with a setting that would do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from places import ROOT

import lattice.memory
from diffsq import pipeline
from diffsq.config.config import Config, load_config
from diffsq.config.memory import BASE, check_memory, terms
from lattice.errors import InputError

GB = 1e9


def demo(*settings: str) -> Config:
    return load_config(ROOT / "configs" / "demo.yaml", settings)


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that says how many bytes this machine has."""
    monkeypatch.setattr(lattice.memory, "_CGROUP", (tmp_path / "memory.max",))
    return tmp_path / "memory.max"


def test_the_demo_needs_little(memory: Path) -> None:
    memory.write_text(str(int(2 * GB)))
    check_memory(demo(), pipeline.STAGES)


def test_the_larger_sample_of_two_models_counts() -> None:
    each = ("models=[closed, score]", "sampling.n_samples={closed: 9000, score: 100}")
    found = [terms(demo(*each), stage)["sampling.n_samples"] for stage in ("sample", "measure")]
    assert [n for n, _ in found] == [9000, 9000]
    alone = terms(demo("models=[score]"), "measure")["sampling.n_samples"]
    assert found[1][1] == 2 * alone[1], "both are measured"
    assert "training.batch_size" not in terms(demo("models=[closed]"), "train")


def test_points_need_memory_for_their_powers(memory: Path) -> None:
    config = load_config(ROOT / "configs/one_variable/toy_two_peak.yaml", ["sampling.n_samples=30000000"])
    memory.write_text(str(int(16 * GB)))
    check_memory(config, pipeline.STAGES)
    memory.write_text(str(int(4 * GB)))
    with pytest.raises(InputError, match="at sampling.n_samples = 30000000 needs"):
        check_memory(config, ["measure"])


@pytest.mark.parametrize(
    ("settings", "stage", "key"),
    [
        (["lattice.shape=[128,128]"], "ensemble", "ensemble.n_configs"),
        (["ensemble.n_configs=1024", "sampling.n_samples=65536", "lattice.shape=[64,64]"], "sample",
         "sampling.n_samples"),
        (["ensemble.n_configs=1024", "training.batch_size=2048", "lattice.shape=[64,64]"], "train",
         "training.batch_size"),
    ],
)  # fmt: skip
def test_the_line_names_a_setting_that_works(settings: list[str], stage: str, key: str, memory: Path) -> None:
    memory.write_text(str(int(3 * GB)))
    with pytest.raises(InputError, match=rf"^the stage {stage} at {key} = ") as caught:
        check_memory(demo(*settings), [stage])
    line = str(caught.value)
    needed, fits = re.findall(r"needs about ([\d.]+) GB.* has 3 GB: take \S+ at most (\d+)$", line)[0]
    assert float(needed) > 3
    check_memory(demo(*settings, f"{key}={int(fits) // 128 * 128}"), [stage])
    with pytest.raises(InputError):
        check_memory(demo(*settings, f"{key}={int(fits) + 128}"), [stage])


def test_a_run_is_refused_before_it_starts(memory: Path, tmp_path: Path) -> None:
    memory.write_text(str(int(BASE)))
    with pytest.raises(InputError, match="the stage ensemble at"):
        pipeline.run(demo(), tmp_path / "run")
    assert not (tmp_path / "run" / "stages.json").exists()
    planned = pipeline.plan(demo(), tmp_path / "run")
    assert planned["ensemble"].startswith("refuse: the stage ensemble at ensemble.n_configs = 65536 needs")

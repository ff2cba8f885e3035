"""The wheel, installed into a fresh environment, works in a folder that knows nothing of the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from places import ROOT

from diffsq.config.presets import presets

SMALL = (
    "ensemble.n_configs=512", "ensemble.n_therm=60", "ensemble.n_clusters=0", "model.channels=0",
    "model.n_levels=1", "model.n_fit=256", "sampling.n_samples=128", "sampling.n_levels=8",
    "sampling.n_forward=64",
)  # fmt: skip


def run(*command: str | Path, cwd: Path) -> str:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, cwd=cwd, timeout=500, check=False,
        env=variables | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (path,) = folder.glob("diffsq-*.whl")
    return path


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel, and the packages it needs borrowed from this one.

    A .pth file adds the folder of those packages, but does not read the .pth files in it: an editable
    install of this repository stays invisible.
    """
    home = tmp_path_factory.mktemp("fresh") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home.parent)
    python = home / "bin" / "python"
    site = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=home).strip())
    borrowed = [path for path in sys.path if path.endswith("-packages")]
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=home)
    return python.parent


def test_the_wheel_holds_code_and_presets_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"diffsq", "lattice"}
    shipped = {Path(name).stem for name in names if name.startswith("diffsq/presets/")}
    assert shipped == set(presets())
    assert not [name for name in names if name.endswith((".png", ".pyc"))]
    assert "diffsq/report/templates/report.html.j2" in names


@pytest.mark.slow
def test_it_runs_in_another_folder(fresh: Path, tmp_path: Path) -> None:
    where = "import diffsq, lattice; print(diffsq.__file__, lattice.__file__)"
    for path in run(fresh / "python", "-c", where, cwd=tmp_path).split():
        assert Path(path).is_relative_to(fresh.parent)
    listed = run(fresh / "diffsq", "configs", cwd=tmp_path)
    assert [line.split()[0] for line in listed.splitlines()] == list(presets())
    (tmp_path / "mine.yaml").write_text(run(fresh / "diffsq", "configs", "demo", cwd=tmp_path))
    assert "name: demo" in run(fresh / "diffsq", "run", "mine.yaml", "--dry-run", cwd=tmp_path)
    printed = run(fresh / "diffsq", "run", "tiny", "--quiet", "--set", *SMALL, cwd=tmp_path)
    assert "abs_magnetization" in printed
    assert "verdict:" in printed
    assert (tmp_path / "runs/tiny/report.html").stat().st_size > 10_000

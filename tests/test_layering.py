"""Who may import whom: lattice never diffsq; nothing below the pipeline imports it, cli or plots."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = (
    "arguments", "chain_command", "check_command", "checks", "cli", "measure_command", "pipeline", "plots",
    "records", "scan_command", "stages", "summary", "toy_stages", "toy_summary",
)  # fmt: skip
TOP = {f"diffsq.{room}" for room in ROOMS}
ABOVE = {"__main__", "report", *ROOMS}  # report draws with plots; all others are below
DRAWS_NOTHING = "diffsq.checks.workbench"  # a run opened: for everyone


def imported(path: Path) -> set[str]:
    """Absolute names of all modules a file imports, at its top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def reaches(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def violations(root: Path) -> list[str]:
    """Forbidden imports under root/lattice and root/diffsq, one line each."""
    found = []
    for path in sorted((root / "lattice").rglob("*.py")):
        found += [f"{path.relative_to(root)}: {name}" for name in imported(path) if reaches(name, "diffsq")]
    for path in sorted((root / "diffsq").rglob("*.py")):
        room = path.relative_to(root / "diffsq").parts[0].removesuffix(".py")
        if room in ABOVE:
            continue
        names = {name for name in imported(path) if not reaches(name, DRAWS_NOTHING)}
        found += [f"{path.relative_to(root)}: {n}" for n in names if any(reaches(n, top) for top in TOP)]
    for path in sorted([*(root / "lattice").rglob("*.py"), *(root / "diffsq").rglob("*.py")]):
        if any(name.startswith(".") for name in imported(path)):  # it would escape the two checks above
            found.append(f"{path.relative_to(root)}: relative import")
    return found


def test_the_layers_hold() -> None:
    assert violations(ROOT) == []


def test_a_planted_import_is_found(tmp_path: Path) -> None:
    for package in ("lattice", "diffsq"):
        (tmp_path / package).mkdir()
    (tmp_path / "lattice" / "bad.py").write_text(
        "def f():\n    from diffsq.config import Config\n    return Config\n"
    )
    (tmp_path / "lattice" / "good.py").write_text("import diffsquare  # another package\n")
    (tmp_path / "diffsq" / "train.py").write_text("from diffsq import plots\n")
    (tmp_path / "diffsq" / "cli.py").write_text("from diffsq import pipeline\n")
    found = violations(tmp_path)
    assert any(line.startswith("lattice/bad.py: diffsq.config") for line in found)
    assert any(line == "diffsq/train.py: diffsq.plots" for line in found)
    assert not [line for line in found if "good.py" in line or "cli.py" in line]


def test_the_version_is_written_once_more_only() -> None:
    import tomllib

    from diffsq import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text()

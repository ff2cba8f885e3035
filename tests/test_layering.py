"""Who may import whom: the floors of the house, lowest first. Wings on one floor are strangers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from places import ROOT

FLOORS = {
    "lattice": (
        ("errors", "lazy"), ("arrays", "seeds"), ("rng", "provenance"), ("files",),
        ("progress", "processes", "requests", "memory"),
        ("statistics", "actions"), ("exact", "ensembles"), ("observables", "updates", "certificates"),
        ("simulation",), ("scans", "interchange"), ("__init__",),
    ),
    "diffsq": (
        ("config", "process"), ("models",), ("training", "sampling"), ("exactness", "analysis"),
        ("plots", "run_folder"), ("checks",), ("report",), ("stages",), ("pipeline",),
        ("commands",), ("__main__", "__init__"),
    ),
}  # fmt: skip
Import = tuple[str, str | None]
"""A module, and the name taken from it."""


def files(root: Path, package: str) -> list[Path]:
    return sorted((root / package).rglob("*.py"))


def module_of(root: Path, path: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> list[Import]:
    """Everything a file imports, at its top or inside functions; `from a import b` also as the module a.b."""
    found: list[Import] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found += [(base, alias.name) for alias in node.names]
    return found


def wing_of(module: str) -> tuple[str, str] | None:
    """(package, wing) of a module of ours; the top of a package counts as its wing `__init__`."""
    package, _, rest = module.partition(".")
    return (package, rest.partition(".")[0] or "__init__") if package in FLOORS else None


def floor_of(package: str, wing: str) -> int | None:
    return next((n for n, wings in enumerate(FLOORS[package]) if wing in wings), None)


def upward(root: Path) -> list[str]:
    """Imports that do not run downwards, wings without a floor, relative imports: one line each."""
    found = []
    for package in FLOORS:
        for path in files(root, package):
            where, own = str(path.relative_to(root)), wing_of(module_of(root, path))
            assert own is not None
            floor = floor_of(*own)
            if floor is None:
                found.append(f"{where}: the wing {own[1]} has no floor")
                continue
            for base, name in imports(path):
                if base.startswith("."):
                    found.append(f"{where}: relative import")
                full = f"{base}.{name}" if name and is_module(root, f"{base}.{name}") else base
                target = wing_of(full)
                if target is None or target == own or full == "diffsq" and name == "__version__":
                    continue
                other = floor_of(*target)
                if package == "lattice" and target[0] == "diffsq":
                    found.append(f"{where}: lattice imports {full}")
                elif target[0] == package and (other is None or other >= floor):
                    found.append(f"{where}: {full}")
    return found


def is_module(root: Path, name: str) -> bool:
    path = root / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def private(root: Path) -> list[str]:
    """Private names of our own that one file takes from another."""
    return [
        f"{path.relative_to(root)}: {base}.{name}"
        for package in FLOORS
        for path in files(root, package)
        for base, name in imports(path)
        if wing_of(base) and name and name.startswith("_") and not name.startswith("__")
    ]


def circles(root: Path) -> list[list[str]]:
    """Groups of files of more than one that import each other, over all imports (Tarjan's components)."""
    modules = {module_of(root, path): path for package in FLOORS for path in files(root, package)}
    graph = {
        module: {
            f"{base}.{name}" if f"{base}.{name}" in modules else base
            for base, name in imports(path)
            if f"{base}.{name}" in modules or base in modules
        } - {module}
        for module, path in modules.items()
    }  # fmt: skip
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in graph[module]:
            if other not in order:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in order:
            visit(module)
    return found


def test_imports_run_downwards() -> None:
    assert upward(ROOT) == []


def test_no_file_imports_in_a_circle() -> None:
    assert circles(ROOT) == []


def test_no_private_name_leaves_its_file() -> None:
    assert private(ROOT) == []


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A small house with one of each fault."""
    texts = {
        "lattice/rng.py": "def f():\n    from diffsq.models import unet\n",
        "lattice/actions/phi4.py": "from lattice.updates.hmc import step\n",
        "lattice/updates/hmc.py": "from lattice.actions.phi4 import _hidden\nimport diffsquare\n",
        "lattice/exact/scalar.py": "from lattice.ensembles import ensemble\n",
        "lattice/ensembles/ensemble.py": "from lattice.rng import normals\n",
        "lattice/attic.py": "",
        "diffsq/stages.py": "from . import pipeline\n",
        "diffsq/pipeline.py": "from diffsq.stages import run\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_planted_faults_are_found(planted: Path) -> None:
    assert upward(planted) == [
        "lattice/actions/phi4.py: lattice.updates.hmc",
        "lattice/attic.py: the wing attic has no floor",
        "lattice/exact/scalar.py: lattice.ensembles.ensemble",
        "lattice/rng.py: lattice imports diffsq.models",
        "diffsq/stages.py: relative import",
    ]
    assert private(planted) == ["lattice/updates/hmc.py: lattice.actions.phi4._hidden"]
    assert circles(planted) == [["lattice.actions.phi4", "lattice.updates.hmc"]]


def test_the_version_is_written_once_more_only() -> None:
    import tomllib

    from diffsq import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text()

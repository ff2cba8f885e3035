"""The documents: dotted names exist, links lead somewhere, results say where they come from."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from places import ROOT

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "configs").rglob("*.md")),
    ROOT / "scripts/site/how_it_works.md",
]
SOURCES = sorted(path for package in ("lattice", "diffsq") for path in (ROOT / package).rglob("*.py"))
DOTTED = re.compile(r"`((?:lattice|diffsq)(?:\.\w+)+)`")


@cache
def names_in(path: Path) -> frozenset[str]:
    """What a file defines or imports, members of its classes as Class.member."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            parts = [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AnnAssign)]
            targets = [part.name if isinstance(part, ast.FunctionDef) else part.target.id for part in parts]  # type: ignore[union-attr]
            found.update(f"{node.name}.{target}" for target in targets)
        elif isinstance(node, ast.Assign):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update(alias.asname or alias.name for alias in node.names)
    return frozenset(found)


def exists(name: str) -> bool:
    """Whether a dotted name is a folder, a file or something in a file; `lattice.shape` is a config's key."""
    if name == "lattice.shape":
        return True
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:n])
        path = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
        if path.is_file():
            rest = ".".join(parts[n:])
            return not rest or rest in names_in(path)
    return False


def docstrings() -> Iterator[tuple[str, str]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield str(path.relative_to(ROOT)), ast.get_docstring(node) or ""


def test_dotted_names_exist() -> None:
    texts = [(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in DOCUMENTS]
    # the first column of the changelog's tables names what is gone
    texts = [(name, re.sub(r"^\|[^|]*\|", "|", text, flags=re.M) if name == "CHANGELOG.md" else text)
             for name, text in texts]  # fmt: skip
    wrong = [f"{where}: {name}" for where, text in [*texts, *docstrings()]
             for name in DOTTED.findall(text) if not exists(name)]  # fmt: skip
    assert wrong == []
    assert exists("lattice.rng.normals")
    assert not exists("lattice.rng.abnormals")
    assert not exists("lattice.hmc")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*/README.md")), ids=lambda p: p.parent.name)
def test_results_begin_with_the_answer_and_name_their_commits(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.splitlines()[2].startswith("**")
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert tables
    for table in tables:
        head, _, *rows = table.splitlines()
        assert head.endswith("| commit |")
        assert [row for row in rows if not re.search(r"\| ([0-9a-f]{7}|arXiv:[\d.]+) \|$", row)] == []
    for preset in path.parent.glob("*.yaml"):
        assert preset.stem in text


def test_the_citation_has_the_papers() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert len(citation["references"]) >= 16
    for paper in citation["references"]:
        assert {"type", "title", "authors", "year"} <= set(paper)
        assert "journal" in paper or "identifiers" in paper


@pytest.mark.parametrize("name", ["tutorials", "docstrings"])
def test_doctests_of_the_site(name: str) -> None:
    if name == "docstrings":
        pytest.importorskip("griffe", reason="the docs extra is not installed")
    script = ROOT / "scripts/site" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, "-m", "doctest", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")

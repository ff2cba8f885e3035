"""Builds the site into build/docs/site: the README, results, tutorials with their output, the reference.

    python scripts/site/build.py          (scripts/docs sets up what it needs)

The pages lie as their sources do in the repository, so that links lead to the same places in both. The
reference is read off the sources without importing them: a page for each wing, the sentence of its
`__init__`, then its files in the order of their names. A warning of mkdocs or a broken link is an error.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from tutorials import ROOT, SCRIPTS, page

HERE = Path(__file__).resolve().parent
PAGES = ROOT / "build" / "docs" / "pages"
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
COPIED = ("CITATION.cff", "LICENSE", "constraints.txt", "scripts/site/wide.css", "scripts/train.sbatch")
HOW = Path("scripts/site/how_it_works.md")
PACKAGES = ("lattice", "diffsq")


def copy_documents() -> None:
    """README and its companions, presets with results and figures; links to scripts lead to their pages."""
    for name in (*TOP, *COPIED, HOW):
        (PAGES / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, PAGES / name)
    shutil.copytree(ROOT / "configs", PAGES / "configs")
    for path in PAGES.rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"\((scripts/tutorials/\w+)\.py\)", r"(\1.md)", text), encoding="utf-8")


def write_tutorials() -> list[dict[str, str]]:
    """The pages of all tutorials; their entries in the navigation."""
    folder, entries = PAGES / "scripts" / "tutorials", []
    folder.mkdir(parents=True)
    for script in sorted(SCRIPTS.glob("*.py")):
        text = page(script, folder)
        shutil.copy(script, folder)
        (folder / f"{script.stem}.md").write_text(text, encoding="utf-8")
        title = text.partition("\n")[0].lstrip("# ")
        entries.append({title: f"scripts/tutorials/{script.stem}.md"})
    return entries


def modules_of(folder: Path) -> list[str]:
    """The dotted names of the files in a folder, deeper ones after it."""
    paths = [path for path in sorted(folder.rglob("*.py")) if path.name not in ("__init__.py", "__main__.py")]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]


def sentence(package: Path) -> str:
    """The first paragraph of the docstring of a package's `__init__`."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def public_names(package: str) -> dict[str, str]:
    """The public names of a package and where they are defined, read off the imports for type checkers."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}


def block(name: str, level: int, **options: object) -> str:
    """The reference of a module, its heading at this level."""
    return f"::: {name}\n    options: {json.dumps({'heading_level': level, **options})}"


def write_reference(package: str) -> list[object]:
    """A page for the package's face and ground floor, one for each wing; their entries in the navigation."""
    folder = PAGES / "reference" / package
    folder.mkdir(parents=True)
    wings = sorted(p for p in (ROOT / package).iterdir() if (p / "__init__.py").is_file())
    names = " · ".join(f"[`{name}`][{full}]" for name, full in sorted(public_names(package).items()))
    listed = "\n".join(f"- [{wing.name}]({wing.name}.md): {sentence(wing)}" for wing in wings)
    ground = [f"{package}.{path.stem}" for path in sorted((ROOT / package).glob("[a-z]*.py"))]
    texts = {"index": [block(package, 1, members=False), "## Public names", names, "## Wings", listed,
                       "## Ground floor", *(block(module, 3) for module in ground)]}  # fmt: skip
    for wing in wings:
        head = block(f"{package}.{wing.name}", 1, members=False)
        texts[wing.name] = [head, *(block(module, 2) for module in modules_of(wing))]
    for name, blocks in texts.items():
        (folder / f"{name}.md").write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    pages = [{wing.name: f"reference/{package}/{wing.name}.md"} for wing in wings]
    return [f"reference/{package}/index.md", *pages]


def navigation(tutorials: list[dict[str, str]]) -> list[object]:
    """The tabs of the site."""
    results = ["configs/README.md"]
    results += [str(path.relative_to(PAGES)) for path in sorted(PAGES.glob("configs/*/README.md"))]
    reference = [{package: write_reference(package)} for package in PACKAGES]
    more = [{"Contributing": "CONTRIBUTING.md"}, {"Changelog": "CHANGELOG.md"}]
    return [
        {"diffsq": "README.md"},
        {"How it works": str(HOW)},
        {"Tutorials": tutorials},
        {"Results": results},
        {"Reference": reference},
        {"More": more},
    ]


def main() -> int:
    shutil.rmtree(PAGES, ignore_errors=True)
    PAGES.mkdir(parents=True)
    copy_documents()
    settings = {"INHERIT": str(HERE / "mkdocs.yml"), "nav": navigation(write_tutorials())}
    config = HERE / "mkdocs.nav.yml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--clean", "-f", str(config)]
    try:
        return subprocess.run(command, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}).returncode
    finally:
        config.unlink()


if __name__ == "__main__":
    code = main()
    print("site: build/docs/site/index.html" if code == 0 else "site: broken, see above")
    sys.exit(code)

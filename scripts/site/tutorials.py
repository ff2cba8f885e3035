"""Tutorials as pages: a script with cells is run once, and becomes Markdown with its output and figures.

    python scripts/site/tutorials.py SCRIPT [FOLDER]     runs it in FOLDER (default: here)

A cell starts with `# %%`, a cell of text with `# %% [markdown]`. What a run gave is kept in build/tutorials
under the hash of the script and of everything it may import, so the site does not run it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts" / "tutorials"
Cell = tuple[str, str]
"""("text" or "code", its lines)."""


def cells_of(text: str) -> list[Cell]:
    """The cells of a script, text without its comment marks.

    >>> cells_of("# %% [markdown]\\n# # Title\\n\\n# %%\\nprint(1)\\n")
    [('text', '# Title'), ('code', 'print(1)')]
    """
    cells = []
    for part in ("\n" + text).split("\n# %%")[1:]:
        head, _, body = part.partition("\n")
        if "markdown" in head:
            cells.append(("text", "\n".join(line[2:] for line in body.strip().splitlines())))
        else:
            cells.append(("code", body.strip("\n")))
    return cells


def run(script: Path) -> list[dict[str, object]]:
    """Run the cells in this process and the working directory: of each its kind, text, output and figures."""
    space: dict[str, object] = {"__name__": "__main__", "__file__": str(script)}
    done = []
    for kind, text in cells_of(script.read_text(encoding="utf-8")):
        before, said = set(Path().glob("*.png")), io.StringIO()
        if kind == "code":
            with contextlib.redirect_stdout(said):
                exec(compile(text, str(script), "exec", dont_inherit=True), space)
        print(said.getvalue(), end="", flush=True)
        figures = sorted(path.name for path in set(Path().glob("*.png")) - before)
        done.append({"kind": kind, "text": text, "output": said.getvalue(), "figures": figures})
    return done


def kept(script: Path) -> Path:
    """Where the results of this script with this code are kept, whether or not they are there yet."""
    digest = hashlib.sha256(script.read_bytes())
    code = [path for part in ("lattice", "diffsq", "configs") for path in (ROOT / part).rglob("*.*")]
    for path in sorted(path for path in code if path.suffix in (".py", ".yaml")):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return ROOT / "build" / "tutorials" / f"{script.stem}-{digest.hexdigest()[:16]}"


def keep(script: Path, done: list[dict[str, object]]) -> None:
    """Keep a run's results, made in the working directory; other runs of the script are forgotten."""
    target = kept(script)
    for old in target.parent.glob(f"{script.stem}-*"):
        shutil.rmtree(old, ignore_errors=True)
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    fresh.mkdir(parents=True)
    for cell in done:
        for name in cell["figures"]:  # type: ignore[attr-defined]
            shutil.copy(name, fresh)
    (fresh / "cells.json").write_text(json.dumps(done, ensure_ascii=False), encoding="utf-8")
    with contextlib.suppress(OSError):  # another process was here first
        fresh.rename(target)


def page(script: Path, folder: Path) -> str:
    """The page of a script in Markdown, its figures copied to `folder`; the script is run if need be."""
    source = kept(script)
    if not (source / "cells.json").exists():
        work = ROOT / "build" / "tutorials" / "work" / script.stem
        shutil.rmtree(work, ignore_errors=True)
        command = [sys.executable, __file__, str(script), str(work)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        shutil.rmtree(work)
    lines = []
    for cell in json.loads((source / "cells.json").read_text(encoding="utf-8")):
        lines.append(cell["text"] if cell["kind"] == "text" else f"```python\n{cell['text']}\n```")
        if cell["output"]:
            lines.append(f"```text\n{cell['output'].rstrip()}\n```")
        for name in cell["figures"]:
            shutil.copy(source / name, folder)
            lines.append(f"![{script.stem}]({name})")
    return "\n\n".join(lines) + f"\n\nThe script: [{script.name}]({script.name}).\n"


if __name__ == "__main__":
    given = Path(sys.argv[1]).resolve()
    if len(sys.argv) > 2:
        Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
        os.chdir(sys.argv[2])
    keep(given, run(given))

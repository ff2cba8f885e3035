"""The house's docstrings as Markdown, for mkdocstrings: doctests fenced, dotted names linked, the rest plain.

A docstring is plain text with `code`, indented formulas and `>>>` examples. Markdown agrees but for three
things: `>>>` would be a quotation, `a < b` may begin a tag, and `lattice.rng.normals` should be a link. A
link to something that has no place in the reference is an error of the build.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).resolve().parents[2]
SPAN = re.compile(r"(``.+?``|`[^`]+`)", flags=re.DOTALL)
DOTTED = re.compile(r"`((?:lattice|diffsq)(?:\.\w+)+)`")


def is_ours(name: str) -> bool:
    """Whether a dotted name begins with a module of the packages (`lattice.shape` is a key of a config)."""
    place = ROOT.joinpath(*name.split(".")[:2])
    return place.is_dir() or place.with_suffix(".py").is_file()


def prose(text: str) -> str:
    r"""Plain text with code spans: what Markdown would read as markup is escaped, our dotted names are links.

    >>> prose("`lattice.rng.normals`: a < b, `lattice.shape`")
    '[`lattice.rng.normals`][lattice.rng.normals]: a &lt; b, `lattice.shape`'
    """
    parts = SPAN.split(text)
    for n, part in enumerate(parts):
        if n % 2 == 0:
            parts[n] = re.sub(r"([\\*_\[\]|])", r"\\\1", part).replace("<", "&lt;")
        elif (dotted := DOTTED.fullmatch(part)) and is_ours(dotted.group(1)):
            parts[n] = f"[{part}][{dotted.group(1)}]"
    return "".join(parts)


def markdown(docstring: str) -> str:
    """A docstring, paragraph by paragraph: examples fenced, indented formulas as they are, prose escaped.

    >>> markdown("Adds.\\n\\n>>> 1 + 1\\n2").splitlines()
    ['Adds.', '', '```pycon', '>>> 1 + 1', '2', '```']
    """
    blocks = []
    for block in re.split(r"\n\s*\n", docstring.strip("\n")):
        if block.lstrip().startswith(">>>"):
            blocks.append(f"```pycon\n{block}\n```")
        elif block.startswith("    "):
            blocks.append(block)
        else:
            blocks.append(prose(block))
    return "\n\n".join(blocks)


class Plain(griffe.Extension):
    """Rewrites every docstring of a package when it has been read."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        self._rewrite(pkg)

    def _rewrite(self, item: griffe.Object) -> None:
        if item.docstring is not None:
            item.docstring.value = markdown(item.docstring.value)
        for member in item.members.values():
            if not member.is_alias:
                self._rewrite(member)  # type: ignore[arg-type]

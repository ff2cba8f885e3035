"""The configs that come with diffsq, by name: `demo` is configs/demo.yaml, `exact_64x8` lies a folder deeper.

A wheel carries them beside its code, in diffsq/presets; in a checkout they are the repository's configs/.
"""

from __future__ import annotations

from pathlib import Path

from lattice.errors import InputError, nearest

_PACKAGE = Path(__file__).resolve().parents[1]


def presets() -> dict[str, Path]:
    """The file of every preset, those of the top folder first.

    >>> list(presets())[:3]
    ['demo', 'tiny', 'exact_64x8']
    """
    shipped, checkout = _PACKAGE / "presets", _PACKAGE.parent / "configs"
    folder = shipped if shipped.is_dir() else checkout
    paths = sorted(folder.rglob("*.yaml"), key=lambda path: (len(path.parts), path))
    return {path.stem: path for path in paths}


def preset(name: str) -> Path:
    """The file of one preset; `InputError` with the nearest name when there is none.

    >>> preset("demoo")
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: no such preset: demoo (did you mean 'demo'?); `diffsq configs` lists them
    """
    known = presets()
    if name not in known:
        raise InputError(f"no such preset: {name}{nearest(name, known)}; `diffsq configs` lists them")
    return known[name]


def found(path: Path) -> Path:
    """`path` itself, or the preset of that name when it is a bare name and no such file exists."""
    bare = str(path) == path.name and not path.is_file()
    return presets().get(path.name, path) if bare else path


def summary(path: Path) -> str:
    """What a preset is, in one line: the first of its comments.

    >>> summary(preset("tiny"))
    'Two-dimensional phi^4 at L=8, a run of seconds: for the tests, and to try a setting.'
    """
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")

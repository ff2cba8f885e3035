"""The public faces of both packages: every name of them, and nothing heavy before it is asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from places import ROOT

from lattice.lazy import lazy

PACKAGES = ("lattice", "diffsq")


def table_of(package: str) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """The names by module in the table of `lazy`, and in the imports under TYPE_CHECKING."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    checked = {
        str(node.module): {alias.name for alias in node.names}
        for guard in tree.body if isinstance(guard, ast.If)
        for node in guard.body if isinstance(node, ast.ImportFrom)
    }  # fmt: skip
    call = next(
        node for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "lazy"
    )  # fmt: skip
    homes = ast.literal_eval(call.args[1])
    return {module: set(names.split()) for module, names in homes.items()}, checked


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there(package: str) -> None:
    module = import_module(package)
    homes, _ = table_of(package)
    assert sorted(module.__all__) == sorted(set(module.__all__)) == sorted(set().union(*homes.values()))
    for home, names in homes.items():
        for name in names:
            assert getattr(module, name) is getattr(import_module(home), name)


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_are_told_the_same(package: str) -> None:
    homes, checked = table_of(package)
    assert homes == checked


def test_nothing_heavy_is_loaded_before_it_is_asked_for() -> None:
    code = (
        "import sys, lattice, diffsq\n"
        "assert not {'torch', 'numba', 'numpy', 'h5py', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "assert lattice.InputError and lattice.format_value\n"
        "assert not {'torch', 'numba'} & set(sys.modules)\n"
        "assert lattice.updates.__name__ == 'lattice.updates'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


@pytest.mark.parametrize("package", PACKAGES)
def test_other_names_are_not_there(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'simulat'"):
        import_module(package).simulat  # noqa: B018


def test_a_name_is_loaded_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "attic").mkdir()
    (tmp_path / "attic/__init__.py").write_text("")
    (tmp_path / "attic/box.py").write_text("first = object()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    attic = import_module("attic")
    load = lazy("attic", {"attic.box": "first"}, ("box",))
    assert "first" not in vars(attic)
    assert load("first") is vars(attic)["first"]
    assert load("box") is sys.modules["attic.box"]
    for name in ("attic", "attic.box"):
        monkeypatch.delitem(sys.modules, name)

"""Every command and option that a message names exists, for the command that prints it."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

from diffsq.commands.arguments import build_parser
from lattice.errors import InputError

STAGES = ("run", "ensemble", "train", "sample")
PRINTED_BY = {  # who prints the messages of a file in which an option stands alone
    "lattice/ensembles/combine.py": ("measure",),
    "lattice/interchange/identities.py": ("import",),
    "lattice/interchange/layouts.py": ("import",),
    "lattice/interchange/misread.py": ("import",),
    "lattice/interchange/importing.py": ("import",),
    "lattice/interchange/reading.py": ("import",),
    "diffsq/commands/chain.py": ("chain",),
    "diffsq/commands/family.py": ("sample",),
    "diffsq/commands/measure.py": ("measure",),
    "diffsq/commands/run.py": ("ensemble",),  # options of a scan, and --restart
    "diffsq/commands/scan.py": ("ensemble",),
    "diffsq/commands/session.py": (*STAGES, "chain"),
    "diffsq/commands/slurm.py": ("ensemble",),
    "diffsq/commands/spectrum.py": ("spectrum",),
    "diffsq/checks/perform.py": ("check",),
    "diffsq/config/action_section.py": ("import",),
    "diffsq/config/scan_file.py": ("ensemble",),
    "diffsq/config/yaml_file.py": (*STAGES, "chain", "import"),
    "diffsq/run_folder/own_files.py": STAGES,  # it was given
    "diffsq/stages.py": ("run", "ensemble", "train"),
}
SAMPLES = {"stage": "train", "name": "train", "restart": "train"}  # where a word is one of few
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def messages(text: str) -> Iterator[str]:
    """Every string of a source that is no docstring, with samples for what is put into it."""
    tree = ast.parse(text)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(map(_piece, node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts | docs:
            yield node.value


def _piece(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    return SAMPLES.get(ast.unparse(part.value), "X")


def commands() -> dict[str, argparse.ArgumentParser]:
    [action] = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(action.choices)


def faults(name: str, text: str) -> Iterator[str]:
    """What a file's messages advise that does not exist."""
    known = commands()
    for message in messages(text):
        for command in re.findall(r"`diffsq( [^`]*)`", message):
            words = shlex.split(command)
            if words[0] not in known:
                yield f"{name}: no command diffsq{command}"
            elif len(words) > 1 and words != ["check", "NAME", "RUN"]:
                try:
                    build_parser().parse_args(words)
                except InputError as error:
                    yield f"{name}: diffsq{command}: {error}"
        alone = re.sub(r"`diffsq [^`]*`", "", message)
        for option in OPTION.findall(alone):
            for command in PRINTED_BY.get(name, tuple(known)):
                if option not in known[command]._option_string_actions:
                    yield f"{name}: {command} has no {option}: {message!r}"


SOURCES = [path for package in ("lattice", "diffsq") for path in sorted((ROOT / package).rglob("*.py"))]
ELSEWHERE = {  # no messages: the words of the command line itself, colours, and words for git
    "diffsq/commands/arguments.py", "diffsq/plots/style.py", "lattice/provenance.py",
}  # fmt: skip


def test_every_advice_exists() -> None:
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in SOURCES}
    found = [fault for name, text in texts.items() if name not in ELSEWHERE for fault in faults(name, text)]
    assert found == []
    assert PRINTED_BY.keys() <= texts.keys()
    assert sum(text.count("`diffsq ") for text in texts.values()) > 20


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("make it again with --restart report", "report has no --restart"),
        ("`diffsq report RUN --restart report` makes it again", "diffsq report RUN --restart report"),
        ("`diffsq resume` goes on", "no command diffsq resume"),
        ("`diffsq run CONFIG --restart smaple`", "smaple"),
    ],
)
def test_advice_that_does_not_exist_is_found(message: str, fault: str) -> None:
    text = f'raise InputError(f"{{folder}}: is gone; "\n    "{message}")\n'
    assert any(fault in found for found in faults("diffsq/planted.py", text))
    docstring = f'"""{message}"""\n'
    assert not list(faults("diffsq/planted.py", docstring))


def test_the_sources_are_where_they_should_be() -> None:
    assert {Path("diffsq/pipeline.py"), Path("lattice/files.py")} <= {p.relative_to(ROOT) for p in SOURCES}

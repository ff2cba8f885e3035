"""Names that the command line, configs and reports share, known without importing what they stand for."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
STAGE_NAMES = ("ensemble", "train", "sample", "measure", "report")  # of pipeline.STAGES
CHECK_NAMES = tuple(  # the files of diffsq/checks that have a `run`
    path.stem.replace("_", "-")
    for path in sorted((PACKAGE / "checks").glob("*.py"))
    if "\ndef run(" in path.read_text(encoding="utf-8")
)


def _keys(path: Path, table: str) -> tuple[str, ...]:
    """The keys of the dictionary `table` written out in the file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.AnnAssign)
            and ast.unparse(node.target) == table
            and isinstance(node.value, ast.Dict)
        ):
            return tuple(ast.literal_eval(key) for key in node.value.keys if key)
    raise LookupError(f"{path} has no table {table}")


STEP_NAMES = _keys(PACKAGE / "sampling/steps.py", "STEPS")  # the samplers without weights

"""Names that the command line, configs and reports share, known without importing what they stand for."""

from pathlib import Path

STAGE_NAMES = ("ensemble", "train", "sample", "measure", "report")  # of pipeline.STAGES
CHECKS = Path(__file__).resolve().parents[1] / "checks"
CHECK_NAMES = tuple(  # the files of diffsq/checks that have a `run`
    path.stem.replace("_", "-")
    for path in sorted(CHECKS.glob("*.py"))
    if "\ndef run(" in path.read_text(encoding="utf-8")
)

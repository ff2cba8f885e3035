"""Names that the command line, configs and reports share, known without importing what they stand for."""

STAGE_NAMES = ("ensemble", "train", "sample", "measure", "report")  # of pipeline.STAGES
CHECK_NAMES = (  # of diffsq/checks
    "calibration", "learned", "likelihood", "free-energy", "polish", "levels", "cumulants",
)  # fmt: skip

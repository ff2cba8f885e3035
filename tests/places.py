"""Where things are, for tests that run the commands or read the repository's own files."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent

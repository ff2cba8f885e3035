"""``python -m diffsq`` is the same as the ``diffsq`` command."""

from diffsq.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

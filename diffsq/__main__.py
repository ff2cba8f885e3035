"""``python -m diffsq`` is the same as the ``diffsq`` command."""

from diffsq.commands.main import main

if __name__ == "__main__":
    raise SystemExit(main())

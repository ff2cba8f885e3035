"""`diffsq configs`: the presets, one line each, or the text of one."""

from __future__ import annotations

import argparse

from diffsq.config.presets import preset, presets, summary


def configs_command(args: argparse.Namespace) -> int:
    """configs [NAME]."""
    if args.name is not None:
        print(preset(args.name).read_text(encoding="utf-8"), end="")
        return 0
    known = presets()
    width = max(map(len, known))
    for name, path in known.items():
        print(f"{name:<{width}}  {summary(path)}")
    return 0

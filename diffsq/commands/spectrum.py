"""`diffsq spectrum FILE`: the singular values of a model's weights beside those of random matrices."""

from __future__ import annotations

import argparse
import json
from typing import Any

from lattice.errors import InputError


def spectrum_command(args: argparse.Namespace) -> int:
    """spectrum FILE."""
    from diffsq.models.spectra import all_spectra, table, table_text
    from diffsq.models.state_files import read_weights
    from lattice.progress import make_progress

    if args.figure is not None and args.figure.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--figure {args.figure}: give a name that ends in .png, .svg or .pdf")
    if args.figure is not None and args.figure.exists():
        raise InputError(f"{args.figure}: there is a file already; give another name")
    weights, unreal = read_weights(args.file, args.only)
    spectra, left = all_spectra(weights, make_progress(args.quiet))
    result = table(spectra, {**left, **unreal})
    print(json.dumps(result, indent=1) if args.json else table_text(result))
    if args.figure is not None:
        from diffsq.plots.spectra import spectra_figure
        from lattice.files import write_atomic

        write_atomic(args.figure, _bytes(spectra_figure(result), args.figure.suffix[1:]))
        if not args.json:
            print(args.figure)
    return 0


def _bytes(figure: Any, kind: str) -> bytes:
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind)
    return buffer.getvalue()

"""Data that come with a package instead of an ensemble: scikit-learn's handwritten digits (extra `digits`).

1797 pictures of 8 x 8, grey levels 0 to 16 as 0 to 1. Nothing is centred. Some pixels are 0 in all of them:
modes without variance, kappa = infinity, which a machine leaves at mu^2.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from lattice.arrays import Floats, sha256_array
from lattice.certificates.check import make_check
from lattice.errors import InputError
from lattice.files import read_json, write_atomic, write_json

SIDE = 8


def digits() -> Floats:
    """(1797, 8, 8) float64. Raises `InputError` without scikit-learn, which has them in its own files."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError(
            "the digits come with scikit-learn, which is not installed: pip install 'diffsq[digits]'"
        ) from None
    return np.asarray(load_digits().data, dtype=np.float64).reshape(-1, SIDE, SIDE) / 16


def make_pictures(name: str, out: Path) -> str:
    """Write data.npy and certificate.json into `out`; the hash of the data."""
    phi = {"digits": digits}[name]()
    image = io.BytesIO()
    np.save(image, phi, allow_pickle=False)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "data.npy", image.getvalue())
    identity = sha256_array(phi)
    write_json(out / "certificate.json", certificate(phi) | {"sha256": identity})
    return identity


def certificate(phi: Floats) -> dict[str, Any]:
    """What a data set can be asked: finite numbers, more pictures than pixels, and which pixels never
    change."""
    flat = phi.reshape(len(phi), -1)
    dead = np.flatnonzero(np.ptp(flat, axis=0) == 0).tolist()
    finite = bool(np.isfinite(flat).all())
    words = f"pixels {', '.join(map(str, dead))} never change: kappa = inf" if dead else ""
    checks = [
        make_check("finite", float(np.isfinite(flat).mean()), None, "1", finite, "share of the numbers"),
        make_check(
            "pictures", len(flat), None, f"> {flat.shape[1]}", len(flat) > flat.shape[1], "more than pixels"
        ),
        make_check(
            "pixels that change", flat.shape[1] - len(dead), None, "> 0", len(dead) < flat.shape[1], words
        ),
    ]
    failed = ", ".join(check["name"] for check in checks if not check["passed"])
    return {
        "passed": not failed, "reason": f"failed: {failed}" if failed else "", "checks": checks,
        "n": len(flat), "dead": dead, "verdict": None,
    }  # fmt: skip


def read_pictures(folder: Path) -> tuple[Floats, str]:
    """The data of a run's ensemble folder (n, 8, 8), and their hash. Raises `InputError` if they changed."""
    path = folder / "data.npy"
    if not path.is_file():
        raise InputError(f"{path}: no such file; `diffsq ensemble` makes it")
    try:
        phi = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(
            f"{path}: not an array of NumPy ({error}); `diffsq run CONFIG --run DIR --restart ensemble` "
            "makes it"
        ) from None
    identity = sha256_array(phi)
    if identity != read_json(folder / "certificate.json").get("sha256"):
        raise InputError(f"{path}: changed since it was written (its sha256 is not that of the certificate)")
    return phi, identity

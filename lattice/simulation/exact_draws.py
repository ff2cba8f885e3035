"""Independent exact draws of real one-variable models: by inverse CDF, or a peak and a normal number; of U(1)
links they are in `lattice.simulation.link_draws`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lattice.actions.one_variable import TwoPeak
from lattice.actions.protocol import Action, check_one_variable, says_itself
from lattice.actions.u1 import U1
from lattice.arrays import Floats
from lattice.certificates.check import make_check
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.ensembles.manifest import read_manifest, refuse_foreign
from lattice.ensembles.writer import EnsembleWriter
from lattice.errors import InputError
from lattice.exact.quadrature import real_grid
from lattice.files import canonical_json, sha256_text, write_json
from lattice.observables.holomorphic import ORDERS, blocks_of, estimates, exact_numbers
from lattice.progress import Progress
from lattice.requests import refuse_changes, stored_request, without
from lattice.rng import normals, uniforms
from lattice.seeds import check_seed
from lattice.simulation.link_draws import generate_link_draws
from lattice.simulation.parameters import ExactDraws
from lattice.simulation.recipe import GROWS

DRAW, PEAK = "toy/draw", "toy/peak"
_BLOCK = 4096  # draws per stream: draw i is the same number however many are asked for


def generate_draws(
    action: Action, shape: tuple[int, ...], params: ExactDraws, seed: int, out: Path,
    progress: Progress | None = None,
) -> Ensemble:  # fmt: skip
    """Exact draws in the folder `out`, with the certificate that their moments are those of quadrature, of
    links their loops and charges the exact ones.

    Raises `InputError` for a shape other than () or (1,), or of links other than a torus, and when `out`
    holds others (each change is named).
    """
    if isinstance(action, U1):
        return generate_link_draws(action, shape, params, seed, out, progress=progress)
    check_one_variable(shape, "exact draws are")
    seed = check_seed(seed)
    request = {
        "action": action.as_dict(), "shape": [1], "seed": seed, "ensemble": params.model_dump(mode="json"),
    }  # fmt: skip
    found = stored_request(out)
    refuse_changes(out, found, request, grows=GROWS)
    if (out / "manifest.json").exists() and read_manifest(out)["n"] >= params.n_configs:
        return read_ensemble(out, action)
    if found is None:
        refuse_foreign(out)
    phi = draw_toy(action, params.n_configs, seed)
    ensemble = Ensemble.from_fields(phi, action, attrs={"algorithm": "exact draws", "seed": seed})
    moments, exact = estimates(phi[:, 0], blocks_of(ensemble)), exact_numbers(action)
    checks = []
    for name in (f"m{order}" for order in ORDERS):
        value, error = moments[name]["value"][0], moments[name]["error"][0]
        passed = abs(value - exact[name][0]) <= 5 * error
        checks.append(make_check(name, value, error, f"{exact[name][0]:g}", passed, "against quadrature"))
    passed = all(check["passed"] for check in checks)
    reason = "" if passed else "moments differ from quadrature"
    certificate = {"passed": passed, "reason": reason, "checks": checks}
    if found is None:
        write_json(out / "request.json", request)
    key = sha256_text(canonical_json(without(request, GROWS)))
    writer = EnsembleWriter(out, action, (1,), key, dict(ensemble.attrs))
    writer.write(ensemble)
    write_json(out / "certificate.json", certificate)
    writer.finish({"request": request, "certificate": certificate})
    return read_ensemble(out, action)


def draw_toy(action: Action, n: int, seed: int) -> Floats:
    """n independent exact draws of a real model, phi (n, 1): by inverse CDF, or a peak and a normal number.

    Draw i depends on (seed, i) only. Raises InputError for a complex model (it has no density to draw from).
    """
    if action.field != "real" or action.components:
        raise InputError(f"{type(action).__name__} is complex: nothing to draw from; use complex Langevin")
    if isinstance(action, TwoPeak) and says_itself(action, "kind"):  # for the numbers it has always drawn
        side = np.where(_stream(uniforms, seed, PEAK, n) < 0.5, -action.mu0, action.mu0)
        return (side + action.sigma0 * _stream(normals, seed, DRAW, n))[:, None]
    return _inverse_cdf(action, _stream(uniforms, seed, DRAW, n))[:, None]


def _stream(numbers: Any, seed: int, name: str, n: int) -> Floats:
    rows: Floats = numbers(seed, name, np.arange(-(-n // _BLOCK)), 0, _BLOCK)
    return rows.reshape(-1)[:n]


def _inverse_cdf(action: Action, u: Floats) -> Floats:
    """phi with CDF(phi) = u: the cell by bisection, then Newton on the cubic with the cell's end values and
    densities (an error of h^4, 1e-10)."""
    phi = real_grid(action, 8001)
    h = phi[1] - phi[0]
    s = action.action(torch.from_numpy(phi)).numpy()
    middle = action.action(torch.from_numpy(phi[:-1] + 0.5 * h)).numpy()
    p, p_middle = np.exp(s.min() - s), np.exp(s.min() - middle)
    cdf = np.concatenate([[0.0], np.cumsum((p[:-1] + 4.0 * p_middle + p[1:]) * h / 6.0)])
    p, cdf = p / cdf[-1], cdf / cdf[-1]
    i = np.clip(np.searchsorted(cdf, u, side="right") - 1, 0, len(phi) - 2)
    rise, d0, d1 = cdf[i + 1] - cdf[i], h * p[i], h * p[i + 1]
    square, cube = 3 * rise - 2 * d0 - d1, d0 + d1 - 2 * rise
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(rise > 0, (u - cdf[i]) / rise, 0.5)
        for _ in range(4):
            excess = cdf[i] + t * (d0 + t * (square + t * cube)) - u
            t = np.clip(t - excess / (d0 + t * (2 * square + 3 * t * cube)), 0.0, 1.0)
    return np.asarray(phi[i] + h * np.nan_to_num(t, nan=0.5))

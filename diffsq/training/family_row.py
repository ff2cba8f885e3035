"""The model of a run that learns a family of theories: fitted, and written as a model folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from diffsq.config.families import FamilyRun
from diffsq.models import family as family_module
from diffsq.models import regression
from diffsq.models.family_files import save_family
from diffsq.models.kept import forget, kept
from diffsq.training.family import fit_family
from diffsq.training.grid import points_of
from lattice.ensembles.ensemble import read_ensemble
from lattice.files import canonical_json, read_json, sha256_text
from lattice.progress import Progress


def family_row(config: FamilyRun, data: Path, folder: Path, seed: int, progress: Progress) -> dict[str, Any]:
    """Fit the ensembles in `data`; what is said of the model, its weights in `folder`.

    The equations of each theory are kept until the model is there, so that a fit goes on where it was killed.
    """
    settings, points = config.training, points_of(config)
    reads = [partial(read_ensemble, data / name, action) for name, (action, _) in points.items()]
    certificate = read_json(data / "certificate.json")
    about = {
        "grid": config.ensemble.model_dump(mode="json"), "training": settings.model_dump(mode="json"),
        "seed": config.seed,
        "certificate": {key: certificate[key] for key in ("passed", "reason", "n", "n_chains")},
        "identities": {name: read_json(data / name / "manifest.json").get("identity") for name in points},
    }  # fmt: skip
    versions = {"family": family_module.VERSION, "base": regression.VERSION, "seed": seed}
    parts, key = folder / "parts", sha256_text(canonical_json({**about, **versions}))
    parts.mkdir(exist_ok=True)
    family = fit_family(
        reads, sigma_min=settings.sigma_min, n_sigma=settings.n_sigma, n_fit=settings.n_fit, seed=seed,
        progress=progress, keep=lambda name, make: kept(parts, name, key, make),
    )  # fmt: skip
    save_family(family, folder, about)
    forget(parts)
    return {"sha256": family.about["sha256"], "n_theories": len(points), "largest": family.couplings.largest}

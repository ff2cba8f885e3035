"""Points drawn by the models of a run: which random numbers belong to which sampler, and the sets on disk.

Every combination of model, process, method and number of levels has blocks of random numbers of its own, so
that no two samplers of a run share their fluctuations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsq.config.sections import PointSampling
from diffsq.models.points import PointModel
from diffsq.models.protocol import PointScore
from diffsq.models.tabulated import fast
from diffsq.models.two_peak import TwoPeakScore
from diffsq.process.sde import SDES
from diffsq.sampling.flow import sample_points
from diffsq.sampling.kept import Tensors, kept
from diffsq.sampling.point_path import PointKernel, calibrated
from diffsq.sampling.reverse_chain import Watch, unseen
from diffsq.sampling.streams import POINT_BLOCK
from lattice.actions.one_variable import TwoPeak
from lattice.arrays import Integers, sha256_array
from lattice.ensembles.ensemble import Ensemble, read_ensemble, write_ensemble
from lattice.files import canonical_json, read_json, sha256_text
from lattice.progress import Progress, Silent
from lattice.rng import stream_id

EXACT = "exact score"
LAW = 5  # raise with any change of what these samplers draw
SETS = 2**12  # blocks of random numbers reserved for each sampler: 3.4e7 points


@dataclass
class PointDraws:
    """Models by kind, the data they learned from, how they are sampled; measured `kernels` are kept there."""

    settings: PointSampling
    seed: int
    data: Ensemble
    models: dict[str, PointModel]
    progress: Progress = field(default_factory=Silent)
    kernels: Path | None = None

    @property
    def exact(self) -> dict[str, TwoPeakScore]:
        """The exact score, of a law where it is known."""
        law = self.data.action
        return {EXACT: TwoPeakScore(law.mu0, law.sigma0)} if isinstance(law, TwoPeak) else {}

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest noise level learned."""
        first = next(iter(self.models.values()))
        return first.sigma_min, first.sigma_max

    def levels(self, sde: str, n_levels: int) -> Tensor:
        """Noise levels (n_levels + 1,) of a process over the range that the models learned."""
        return SDES[sde](*self.range).levels(n_levels)

    def points(
        self, kind: str, sde: str, method: str, n_levels: int, n: int, *,
        watch: Watch = unseen, purpose: str = "", clamped: list[int] | None = None,
    ) -> Tensor:  # fmt: skip
        """n points (n, d), of other random numbers than those of any other sampler."""
        model: PointScore = self.exact[EXACT] if kind == EXACT else fast(self.models[kind], n)
        levels, kernel = self.levels(sde, n_levels), None
        if method == "path":
            kernel = self.kernel(kind, model, levels)
        first = SETS * (stream_id(f"{purpose}{kind}/{sde}/{method}/{n_levels}") % 2**18)
        return sample_points(
            model, levels, first * POINT_BLOCK + n, self.seed, method, self.progress, kernel=kernel,
            blocks=range(first, first - (-n // POINT_BLOCK)), watch=watch, clamped=clamped,
        )  # fmt: skip

    def kernel(self, kind: str, model: PointScore, levels: Tensor, wider: float = 0.0) -> PointKernel:
        """The kernel of the steps of a model (kind: its name), measured on training points, or kept.

        wider: see `diffsq.sampling.point_path.calibrated`.
        """
        rows = self.rows(self.settings.n_calibration)
        name = sha256_text(canonical_json([kind, levels.tolist(), wider]))[:16]

        def made() -> Tensors:
            points = torch.from_numpy(self.data.phi[rows])
            return vars(calibrated(model, levels, points, self.seed, name, wider))

        if self.kernels is None:
            return PointKernel(**made())
        weights = self.models[kind].about["sha256"] if kind in self.models else kind
        about = [
            LAW,
            weights,
            type(model).__name__,
            levels.tolist(),
            self.data.identity,
            sha256_array(rows),
            self.seed,
            wider,
        ]
        key = sha256_text(canonical_json(about))
        return PointKernel(**kept(self.kernels, f"kernel-{key[:16]}", key, made))

    def rows(self, n: int) -> Integers:
        """n rows of the data, spread over chains and time; more go on from these."""
        return self.data.spread(n, seed=self.seed, stream="points")

    def sample(self, kind: str, sde: str, out: Path) -> Ensemble:
        """The run's own sample set of a model through a process; kept if `out` holds it."""
        about = {
            "model": kind,
            "sde": sde,
            "method": self.settings.method,
            "n_levels": self.settings.n_levels[sde],
        }
        if self.is_there(about, out):
            return read_ensemble(out)
        self.kernels = out
        settings, clamped = self.settings, list[int]()
        x = self.points(
            kind, sde, settings.method, settings.n_levels[sde], settings.n_samples, clamped=clamped
        )
        return self.write(about, x, out, {"clamped": sum(clamped)})

    def is_there(self, about: dict[str, Any], out: Path) -> bool:
        """Whether `out` holds the finished set that `about` names, made as it would be made now."""
        path = out / "manifest.json"
        return path.is_file() and read_json(path).get("made_with") == self._made_with(about)

    def write(self, about: dict[str, Any], x: Tensor, out: Path, found: dict[str, Any]) -> Ensemble:
        """Points (n, d) as an ensemble in the folder `out`.

        about: which set it is; found: what its making showed.
        """
        attrs = {"algorithm": "diffusion", "seed": self.seed, "about": {**about, **found}}
        ensemble = Ensemble.from_fields(x.numpy(), self.data.action, attrs=attrs)
        write_ensemble(ensemble, out, {"made_with": self._made_with(about)})
        return read_ensemble(out)

    def _made_with(self, about: dict[str, Any]) -> str:
        """Hash of all that a set depends on."""
        settings, model = self.settings.model_dump(mode="json"), self.models[about["model"]].about["sha256"]
        return sha256_text(canonical_json([LAW, about, settings, self.seed, self.data.identity, model]))

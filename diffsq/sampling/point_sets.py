"""Points drawn by the models of a run: which random numbers belong to which sampler, and the sets on disk.

Every combination of model, process, method and number of levels has random numbers of its own, so
that no two samplers of a run share their fluctuations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsq.config.sections import PointSampling
from diffsq.models.kept import Tensors, kept
from diffsq.models.points import PointModel
from diffsq.models.protocol import PointScore, Watch, unseen
from diffsq.models.tabulated import WORTH, fast
from diffsq.models.two_peak import TwoPeakScore
from diffsq.process.sde import SDES
from diffsq.sampling.flow import sample_points
from diffsq.sampling.folder import claim
from diffsq.sampling.point_path import PointKernel, calibrated
from diffsq.sampling.streams import POINT_BLOCK
from lattice.actions.one_variable import TwoPeak
from lattice.arrays import Integers, sha256_array
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.ensembles.writer import EnsembleWriter
from lattice.files import canonical_json, sha256_text
from lattice.progress import Progress, Silent
from lattice.requests import stored_request

EXACT = "exact score"
LAW = 5  # raise with any change of what these samplers draw
SHARD = 2**22  # points of one file


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
        self, kind: str, sde: str, method: str, n_levels: int, n: int, *, start: int = 0,
        watch: Watch = unseen, purpose: str = "", clamped: list[Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """Points start ... n - 1, (n - start, d), of other random numbers than those of any other sampler.

        clamped collects, by blocks from that of `start` on, which were brought back into the data's box.
        """
        worth = n if purpose else WORTH  # the run's own sets may grow: one function, whatever their number
        model: PointScore = self.exact[EXACT] if kind == EXACT else fast(self.models[kind], worth)
        levels, kernel = self.levels(sde, n_levels), None
        if method == "path":
            kernel = self.kernel(kind, model, levels)
        return sample_points(
            model, levels, n, self.seed, method, self.progress, kernel=kernel,
            blocks=range(start // POINT_BLOCK, -(-n // POINT_BLOCK)), watch=watch, clamped=clamped,
            name=f"/{purpose}{kind}/{sde}/{method}/{n_levels}",
        )[start % POINT_BLOCK :]  # fmt: skip

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
        """The run's own sample set of a model through a process, those that `out` holds and the rest."""
        settings, n = self.settings, self.settings.n_samples
        n_levels = settings.n_levels[sde]
        about = {"model": kind, "sde": sde, "method": settings.method, "n_levels": n_levels}
        writer, request, made = self.open(about, out, {"n_samples": n})
        if made is not None:
            return made
        self.kernels, total = out, 0
        for k, rows, there in writer.spans(n, SHARD):
            if there is None:
                back = list[Tensor]()
                x = self.points(
                    kind, sde, settings.method, n_levels, rows.stop, start=rows.start, clamped=back
                )
                clamped = int(torch.cat(back)[rows.start % POINT_BLOCK :].sum())
                index = np.arange(rows.start, rows.stop)
                writer.append(
                    k, phi=x.numpy(), chain=np.zeros_like(index), trajectory=index, state={"clamped": clamped}
                )
            else:
                clamped = int(there.state["clamped"])
            total += clamped
        writer.finish({"request": request, "attrs": {"about": {**about, "clamped": total}}})
        return read_ensemble(out, self.data.action)

    def open(
        self, about: dict[str, Any], out: Path, numbers: dict[str, int]
    ) -> tuple[EnsembleWriter, dict[str, Any], Ensemble | None]:
        """The writer of the set that `about` names, the request for its manifest, and the set if it is there.

        Raises `InputError` where `out` holds another one, or a larger one.
        """
        key = self._made_with(about)
        request = claim(out, key, numbers)
        attrs = {"algorithm": "diffusion", "seed": self.seed}
        writer = EnsembleWriter(out, self.data.action, self.data.phi.shape[1:], key, attrs)
        there = (out / "manifest.json").exists() and stored_request(out) == request
        return writer, request, read_ensemble(out, self.data.action) if there else None

    def _made_with(self, about: dict[str, Any]) -> str:
        """Hash of all that a set depends on, but for its size."""
        settings = self.settings.model_dump(mode="json", exclude={"n_samples", "n_metropolis"})
        model = self.models[about["model"]].about["sha256"]
        return sha256_text(canonical_json([LAW, about, settings, self.seed, self.data.identity, model]))

"""Weight beyond the strip |y| <= y_- that complex Langevin with real noise cannot leave (Aarts et al.
1306.3075).

Passed unless a sample set has more configurations beyond it than the data with that set's noise, by over
three errors. Both counts fluctuate; a Metropolis chain repeats samples: variance (2 - a)/a at acceptance a.
Without noise nothing can be seen: samples are clamped to the data's box, and that is counted instead.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import ndtr

from diffsq.run_folder.finished import PointBench
from lattice.ensembles.ensemble import Ensemble
from lattice.progress import Progress


def run(bench: PointBench, progress: Progress) -> dict[str, Any]:
    """No verdict where no strip is known."""
    edge = bench.strip
    if edge is None:
        return {"passed": None, "y_minus": None, "sets": {}}
    sets = {name: _beyond(samples, bench.ensemble, edge) for name, samples in bench.sample_sets().items()}
    return {"passed": not any(found["leaks"] for found in sets.values()), "y_minus": edge, "sets": sets}


def _beyond(samples: Ensemble, data: Ensemble, edge: float) -> dict[str, Any]:
    y, about = np.abs(samples.phi[:, 1]), samples.attrs.get("about") or {}
    n, count = len(samples), int((np.abs(samples.phi[:, 1]) > edge).sum())
    expected = expected_beyond(data, edge, float(about.get("noise2", 0.0))) * n / len(data)
    a = about.get("acceptance", 1.0)
    variance = max(expected, 1) * (1 + n / len(data)) * (2 - a) / a
    leaks = count > expected + 3 * math.sqrt(variance)
    return {"n": n, "count": count, "largest": float(y.max()), "expected": expected, "leaks": bool(leaks)}


def expected_beyond(data: Ensemble, edge: float, noise2: float) -> float:
    """How many of the data would lie beyond the strip with Gaussian noise of this variance added."""
    y = data.phi[:, 1]
    if noise2 == 0:
        return float((np.abs(y) > edge).sum())
    return float(sum(ndtr((sign * y - edge) / math.sqrt(noise2)).sum() for sign in (1, -1)))


def text(result: dict[str, Any]) -> str:
    """A line per sample set."""
    if result["y_minus"] is None:
        return "no strip is known for this action and noise"
    return "\n".join(
        f"{name}: {found['count']} of {found['n']} beyond |y| = {result['y_minus']:.5f} "
        f"(data: {found['expected']:.1f}; largest {found['largest']:.5f})"
        + (" LEAKS" if found["leaks"] else "")
        for name, found in result["sets"].items()
    )

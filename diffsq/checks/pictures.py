"""A Gaussian machine of pictures: modes, dead pixels, log-likelihood by hidden nodes, regenerated pictures.

The second moments are not centred. Modes without variance, kappa = infinity, stay at mu^2: the data have
nothing to say about them, and their log-likelihood counts all the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from diffsq.analysis.gaussian_machines import most_likely
from diffsq.plots.machines import pictures_figure
from diffsq.run_folder.finished import PicturesBench
from diffsq.training.contrastive import kernel_of
from diffsq.training.machines import log_likelihood
from lattice.arrays import Floats
from lattice.exact.gaussian_rbm import best_mass, largest_step, learned, reachable_step
from lattice.exact.gaussian_rbm import log_likelihood as exact_log_likelihood
from lattice.progress import Progress
from lattice.rng import normals
from lattice.statistics.notation import aligned

CLOSE = 0.01
STIFF = 1e3  # kappa from which on a mode of the data counts as one without variance, if not infinite


def run(
    bench: PicturesBench, progress: Progress, nodes: list[int] | None = None,
    masses: list[float] | None = None, n_shown: int = 8,
) -> dict[str, Any]:  # fmt: skip
    """nodes: hidden nodes of the regenerated pictures; masses: mu of the table. n_shown pictures of each.

    The verdict: the likelihood of the run's machine is at most that of the best one of its size, and every
    mode of that one is learned to 1 %. The machines of other sizes are those of the largest likelihood.
    """
    kappa, second = kernel_of(bench.second), bench.second
    mu2, n_hidden, volume = float(bench.machine.mu2), bench.machine.w.shape[-1], len(second)
    known = np.sort(learned(kappa, mu2, n_hidden))
    lam = bench.machine.spectrum.numpy()
    kept = known < mu2
    learnt = int((np.abs(lam[kept] / known[kept] - 1) < CLOSE).sum())
    own, best = (
        log_likelihood(bench.machine, second),
        exact_log_likelihood(kappa, learned(kappa, mu2, n_hidden)),
    )
    counts = sorted({0, 1, 4, 9, 16, 25, 36, 49, volume})
    table = [
        {
            "n_hidden": n,
            "log_likelihood": {
                f"{mu:g}": exact_log_likelihood(kappa, learned(kappa, mu**2, n))
                for mu in masses or [6.0, 12.0]
            },
            "best_mass": _best_mass(kappa, n),
        }
        for n in counts
    ]  # fmt: skip
    images = bench.phi[np.linspace(0, len(bench.phi) - 1, n_shown).round().astype(int)]
    flat = torch.from_numpy(np.ascontiguousarray(images)).flatten(1)
    white = torch.from_numpy(normals(bench.seed, "pictures/draw", np.arange(n_shown), 0, volume))
    regenerated = []
    for n in nodes or [64, 25, 16, 9, 4]:
        machine = most_likely(second, mu2, n)
        mean = machine.visible(machine.hidden(flat, torch.zeros(())), torch.zeros(()))
        regenerated.append({
            "n_hidden": n, "rebuilt": _images(mean.numpy(), images.shape[1:]),
            "drawn": _images(_upright(machine.sample(white).numpy()), images.shape[1:]),
            "error": float(((mean - flat) ** 2).mean()),
        })  # fmt: skip
    return {
        "passed": bool(own <= best + 1e-9 and learnt == int(kept.sum())),
        "dead": np.flatnonzero(np.ptp(bench.phi.reshape(len(bench.phi), -1), axis=0) == 0).tolist(),
        "stiff": int((kappa > STIFF).sum()), "largest": (1 / kappa[:6]).tolist(),
        "trace": float(second.trace()),
        "mu2": mu2, "n_hidden": n_hidden, "n_below": int((kappa < mu2).sum()), "n_kept": int(kept.sum()),
        "n_learnt": learnt, "log_likelihood": own, "best_log_likelihood": best, "table": table,
        "shown": _images(images, images.shape[1:]), "regenerated": regenerated,
        "limits": {
            "exact": largest_step(kappa, mu2)[0], "cd": largest_step(kappa, mu2, k=1)[0],
            "way": reachable_step(float(kappa[0]), mu2, k=1)[0],
        },
        "history": [_at(line, known, kept) for line in bench.history],
    }  # fmt: skip


def _best_mass(kappa: Floats, n: int) -> float | None:
    """mu^2 of the largest likelihood; none where only modes without variance are left: no largest one."""
    return best_mass(kappa, n) if n < int(np.isfinite(kappa).sum()) else None


def _at(line: dict[str, Any], known: Floats, kept: Any) -> dict[str, Any]:
    lam = np.array(line["spectrum"])
    near = int((np.abs(lam[kept] / known[kept] - 1) < CLOSE).sum())
    return {"step": line["step"], "n_learnt": near, "log_likelihood": line["log_likelihood"]}


def _upright(rows: Floats) -> Floats:
    """Fields with the sign that makes their mean positive: without a source phi and -phi are as likely."""
    found: Floats = rows * np.where(rows.mean(1) < 0, -1.0, 1.0)[:, None]
    return found


def _images(rows: Floats, shape: tuple[int, ...]) -> list[Any]:
    found: list[Any] = rows.reshape(-1, *shape).round(4).tolist()
    return found


def text(result: dict[str, Any]) -> str:
    """Modes, the training, the table by hidden nodes."""
    dead, masses = result["dead"], list(result["table"][0]["log_likelihood"])
    rows = [["hidden nodes", *(f"log-likelihood, mu = {mu}" for mu in masses), "best mu^2"]]
    for row in result["table"]:
        best = row["best_mass"]
        cells = [f"{row['log_likelihood'][mu]:.4f}" for mu in masses]
        rows.append([str(row["n_hidden"]), *cells, "-" if best is None else f"{best:.4g}"])
    history = [h for h in result["history"] if h["step"] > 0] or result["history"]
    shown = [history[i] for i in sorted({len(history) // 3, 2 * len(history) // 3, len(history) - 1})]
    return "\n".join([
        f"second moments, not centred: trace {result['trace']:.6f}, largest "
        + " ".join(f"{value:.5g}" for value in result["largest"]),
        f"pixels {', '.join(map(str, dead))} never change: kappa = inf there; {result['n_below']} of "
        f"{len(result['shown'][0]) ** 2} modes are below mu^2 = {result['mu2']:g}",
        f"largest stable rate: exact gradient {result['limits']['exact']:.4g}, CD-1 "
        f"{result['limits']['cd']:.4g} at the end and {result['limits']['way']:.4g} on the way there",
        *(f"step {h['step']}: {h['n_learnt']} of {result['n_kept']} modes to 1 %, log-likelihood "
          f"{h['log_likelihood']:.4f}" for h in shown),
        f"log-likelihood {result['log_likelihood']:.5f}, of the best machine "
        f"{result['best_log_likelihood']:.5f}",
        "", *aligned(rows), "passed" if result["passed"] else "NOT passed: train longer",
    ])  # fmt: skip


def figure(result: dict[str, Any]) -> Figure:
    """Pictures, rebuilt and drawn, by hidden nodes."""
    return pictures_figure(result)

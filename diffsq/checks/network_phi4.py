"""phi^4 by networks whose neurons are moved by Metropolis: means over N for three laws, and their limits.

The run's law is a cos_net with lam > 0, whose propagator is that of the quadratic part of S; its ensemble is
the undeformed free field. The limits of <phi^2>, <phi^4> and <phi_0 phi_1> are held against the transfer
matrix on a ring, or a Monte Carlo of our own.

Verdict: each limit within 4.5 sigma of the exact value, no fit refuted (p > 0.001 each), and the free value
of <phi^2>, to which N = infinity without deformation leads, excluded.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffsq.analysis.network_phi4 import QUANTITIES, deformed, fourth_cumulant, limit
from diffsq.analysis.network_tables import moments
from diffsq.plots.networks import phi4_figure
from diffsq.run_folder.fields import NetworkBench
from lattice.actions.networks import CosNet
from lattice.actions.phi4 import ScalarPhi4
from lattice.certificates.networks import even_cumulants
from lattice.errors import InputError
from lattice.exact.chain_phi4 import ring
from lattice.exact.network_fields import site_cumulants
from lattice.progress import Progress
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.simulate import simulate
from lattice.statistics.notation import aligned, format_value, with_pull
from lattice.statistics.pulls import mean_of_chains, pull_of

OF = {"action": CosNet}
LAWS = ("normal", "rayleigh", "signs")
SIGMAS, WORST = 4.5, 1e-3
LABELS = {"phi2": "phi^2", "phi4": "phi^4", "next": "phi_0 phi_1", "kappa4": "kappa_4"}


def run(
    bench: NetworkBench, progress: Progress, widths: list[int] | None = None, n_chains: int = 512,
    n_sweeps: int = 400,
) -> dict[str, Any]:  # fmt: skip
    """widths: numbers of neurons (default 4, 8, 16, 32, 64), n_sweeps of n_chains fields each, for normal,
    Rayleigh and +-1 weights. Raises `InputError` for another law, for lam = 0, and for widths below 1."""
    law, shape, widths = bench.action, bench.ensemble.shape, widths or [4, 8, 16, 32, 64]
    if not isinstance(law, CosNet):
        raise InputError(f"neurons that are moved towards phi^4 are those of a cos_net, not of {law.kind}")
    if law.lam <= 0:
        raise InputError("action.lam = 0 is a free field at N = infinity: phi^4 has lam > 0")
    if any(width < 1 for width in widths):
        raise InputError(f"widths must be >= 1, got {widths}")
    progress.start(len(widths) * len(LAWS) * n_sweeps, "neurons")
    nets = [CosNet(width, law.kappa, output, law.lam) for output in LAWS for width in widths]
    sweeps = (deformed(net, shape, bench.seed, n_chains, n_sweeps, progress.update) for net in nets)
    table = [
        {"law": net.output, "width": net.width, **found} for net, found in zip(nets, sweeps, strict=True)
    ]
    progress.close()
    exact, how = _exact(ScalarPhi4(law.kappa, law.lam), shape, bench.seed)
    limits = {name: limit(table, True, name) for name in QUANTITIES}
    found = {name: fit["value"] for name, fit in limits.items()}
    found["kappa4"] = fourth_cumulant(table, limits)
    free = site_cumulants(law, shape)[2]
    pulls = {name: pull_of(found[name], exact[name]) for name in LABELS}
    reasons = [
        f"the limit of {LABELS[name]} is {pulls[name]:+.1f} sigma off"
        for name in QUANTITIES
        if abs(pulls[name]) > SIGMAS
    ]
    reasons += [
        f"the fit of {LABELS[name]} has p = {fit['p']:.2g}"
        for name, fit in limits.items()
        if fit["p"] < WORST
    ]
    reasons += ["the free field is not excluded"] * (abs(pull_of(found["phi2"], [free, 0.0])) < 10)
    return {
        "passed": not reasons, "reasons": reasons, "law": law.as_dict(), "shape": list(shape), "table": table,
        "exact": exact, "how": how, "free": free, "limits": limits, "found": found, "pulls": pulls,
        "n_chains": n_chains, "n_sweeps": n_sweeps,
    }  # fmt: skip


def _exact(action: ScalarPhi4, shape: tuple[int, ...], seed: int) -> tuple[dict[str, list[float]], str]:
    """<phi^2>, <phi^4>, <phi_0 phi_1> and kappa_4 as [value, error], and where they come from."""
    if len(shape) == 1:
        known = ring(action, shape[0])
        numbers = {
            "phi2": known.phi2, "phi4": known.phi4, "next": float(known.correlations[1 % shape[0]]),
            "kappa4": known.phi4 - 3 * known.phi2**2,
        }  # fmt: skip
        return {name: [value, 0.0] for name, value in numbers.items()}, "transfer matrix"
    with tempfile.TemporaryDirectory() as out:
        made = simulate(action, shape, MonteCarlo(n_configs=65536, n_therm=300), seed=seed, out=out)
        if not made.attrs["certificate"]["passed"]:
            raise InputError(
                f"the Monte Carlo of phi^4 is not certified: {made.attrs['certificate']['reason']}"
            )
        groups, powers = made.replicas(), moments(made.phi, 4)
        near = (made.phi * np.roll(made.phi, 1, axis=1)).reshape(len(made), -1).mean(1)
        value, error = even_cumulants([powers[rows] for rows in groups])
        means = [mean_of_chains([x[rows] for rows in groups]) for x in (*powers.T, near)]
    exact = {name: list(mean[:2]) for name, mean in zip(QUANTITIES, means, strict=True)}
    return {**exact, "kappa4": [float(value[1]), float(error[1])]}, "Monte Carlo"


def text(result: dict[str, Any]) -> str:
    """The table over N, the limit, and what is out of reach."""
    exact, rows = result["exact"], [["a", "N", "phi^2", "N (phi^2 - exact)", "phi^4", "acceptance"]]
    for x in result["table"]:
        off = [x["width"] * (x["phi2"][0] - exact["phi2"][0]), x["width"] * x["phi2"][1]]
        rows.append([
            x["law"], str(x["width"]), format_value(*x["phi2"]), format_value(*off), format_value(*x["phi4"]),
            f"{x['acceptance']:.2f}",
        ])  # fmt: skip
    limits = [["limit of", "one for all laws", result["how"], "chi^2/dof", "slopes in 1/N"]]
    for name, label in LABELS.items():
        fit, (value, error) = result["limits"].get(name), result["found"][name]
        end = ["", ""]
        if fit:
            slopes = ", ".join(f"{law} {slope:+.2f}" for law, slope in fit["slopes"].items())
            end = [f"{fit['chi2']:.1f}/{fit['dof']}", slopes]
        limits.append([
            label, with_pull(value, error, result["pulls"][name]), _number(exact[name]), *end,
        ])  # fmt: skip
    lines = [
        *aligned(rows),
        f"{result['n_chains']} fields of {result['n_sweeps']} sweeps each; phi^2 of the free field "
        f"{result['free']:.8g}",
        "",
        *aligned(limits),
        "K(p) > 0 is needed: no broken phase at tree level",
        "network-phi4: passed"
        if result["passed"]
        else f"network-phi4: NOT passed: {'; '.join(result['reasons'])}",
    ]
    return "\n".join(lines)


def _number(pair: list[float]) -> str:
    return format_value(*pair) if pair[1] else f"{pair[0]:.8f}"


def figure(result: dict[str, Any]) -> Figure:
    """<phi^2> against 1/N."""
    return phi4_figure(result)

"""phi^4 by networks whose neurons are moved by Metropolis: <phi^2> over N for three laws, and its limit.

The run's law is a cos_net with lam > 0, whose propagator is that of the quadratic part of S; its ensemble is
the undeformed free field. The limit is held against the transfer matrix on a ring, or a Monte Carlo of our
own.

Verdict: the limit within 3 sigma of the exact value, the fit not refuted (p > 0.001), and the free value, to
which N = infinity without deformation leads, excluded.
"""

from __future__ import annotations

import tempfile
from typing import Any

from matplotlib.figure import Figure

from diffsq.analysis.network_phi4 import deformed, limit
from diffsq.plots.networks import phi4_figure
from diffsq.run_folder.fields import NetworkBench
from lattice.actions.networks import CosNet
from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError
from lattice.exact.chain_phi4 import ring
from lattice.exact.network_fields import site_cumulants
from lattice.observables.measure import measure
from lattice.progress import Progress
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.simulate import simulate
from lattice.statistics.notation import aligned, format_value, with_pull
from lattice.statistics.pulls import pull_of

LAWS = ("normal", "rayleigh", "signs")
SIGMAS, WORST = 3.0, 1e-3
QUANTITIES = ("phi2", "phi4", "next")


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
    found = limit(table, quadratic=True)
    free = site_cumulants(law, shape)[2]
    pull = pull_of(found["value"], exact["phi2"])
    reasons = [f"the limit is {pull:+.1f} sigma off"] * (abs(pull) > SIGMAS)
    reasons += [f"the fit has p = {found['p']:.2g}"] * (found["p"] < WORST)
    reasons += ["the free field is not excluded"] * (abs(pull_of(found["value"], [free, 0.0])) < 10)
    return {
        "passed": not reasons, "reasons": reasons, "law": law.as_dict(), "shape": list(shape), "table": table,
        "exact": exact, "how": how, "free": free, "limit": found, "pull": pull, "n_chains": n_chains,
        "n_sweeps": n_sweeps,
    }  # fmt: skip


def _exact(action: ScalarPhi4, shape: tuple[int, ...], seed: int) -> tuple[dict[str, list[float]], str]:
    """<phi^2>, <phi^4> and <phi_0 phi_1> as [value, error], and where they come from."""
    if len(shape) == 1:
        known = ring(action, shape[0])
        next_site = float(known.correlations[1 % shape[0]])
        return {
            "phi2": [known.phi2, 0.0],
            "phi4": [known.phi4, 0.0],
            "next": [next_site, 0.0],
        }, "transfer matrix"
    with tempfile.TemporaryDirectory() as out:
        made = simulate(action, shape, MonteCarlo(n_configs=65536, n_therm=300), seed=seed, out=out)
        if not made.attrs["certificate"]["passed"]:
            raise InputError(
                f"the Monte Carlo of phi^4 is not certified: {made.attrs['certificate']['reason']}"
            )
        entries = measure(made, two_point=False)["observables"]
    return {
        name: [entries[name]["value"], entries[name]["error"]] for name in ("phi2", "phi4")
    }, "Monte Carlo"


def text(result: dict[str, Any]) -> str:
    """The table over N, the limit, and what is out of reach."""
    exact, rows = result["exact"], [["a", "N", "phi^2", "N (phi^2 - exact)", "phi^4", "acceptance"]]
    for x in result["table"]:
        off = [x["width"] * (x["phi2"][0] - exact["phi2"][0]), x["width"] * x["phi2"][1]]
        rows.append([
            x["law"], str(x["width"]), format_value(*x["phi2"]), format_value(*off), format_value(*x["phi4"]),
            f"{x['acceptance']:.2f}",
        ])  # fmt: skip
    fit = result["limit"]
    value, error = fit["value"]
    slopes = ", ".join(f"{law} {slope:+.2f}" for law, slope in fit["slopes"].items())
    known = ", ".join(f"{name} {_number(exact[name])}" for name in QUANTITIES if name in exact)
    lines = [
        *aligned(rows),
        f"{result['n_chains']} fields of {result['n_sweeps']} sweeps each; {result['how']}: {known}; "
        f"free {result['free']:.8g}",
        f"limit of phi^2, one for all laws: {with_pull(value, error, result['pull'])}; slopes in 1/N: "
        f"{slopes}; chi^2/dof = {fit['chi2']:.1f}/{fit['dof']}",
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

r"""What a certificate asks of U(1) links beside the usual: sectors, exact numbers, an identity of angles.

Local updates change the charge Q through dislocations only, which die out as beta grows: a chain is then
stuck in the sector of its start, and whatever depends on Q is that of the starts (Schaefer, Sommer, Virotta,
Nucl. Phys. B845 (2011) 93). A chain that never left its sector is refused, unless exact draws, as many as the
chain has independent ones, would have stayed there too. <cos theta>, <Q^2> and P(Q) are known for this torus,
and its holonomies, the angles of the lines around it, are uniform whatever the plaquettes: Re of each line
along axis mu, and Re of its square, have the mean 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.stats

from lattice.actions.u1 import U1, as_links
from lattice.arrays import Floats
from lattice.certificates.check import GATE, Check, failed_check, make_check, mean_is
from lattice.certificates.identities import force_identity
from lattice.ensembles.ensemble import Ensemble
from lattice.exact.u1 import ChargeLaw, charge_law, wilson_loop
from lattice.statistics.frequencies import frequencies
from lattice.statistics.gamma import Estimate, EstimatorError, gamma_method

FEWEST = 5.0  # independent charges of a chain that is long enough: below, its length is refused
CHANCE = 1e-6  # that so many chains are stuck
MOST_MISSED = 10.0  # charges expected where none was seen: P(0) = e^-10
RENAMED = {"magnetization": "charge", "abs_magnetization": "abs_charge"}
Series = dict[str, list[Floats]]


def law_of(ensemble: Ensemble) -> ChargeLaw | None:
    """P(Q), where S is that of U1 itself."""
    links = as_links(ensemble.action)
    return None if links is None else charge_law(links.beta.real, math.prod(ensemble.shape))


def link_quantities(ensemble: Ensemble) -> dict[str, Floats]:
    """Per-configuration series (n,) of links."""
    q, action = ensemble.series["magnetization"], ensemble.series["action"]
    return {
        "charge": q,
        "abs_charge": np.abs(q),
        "charge2": q**2,
        "action": action,
        "action_density": action / math.prod(ensemble.shape),
        "schwinger_dyson": force_identity(ensemble.phi, ensemble.action),
        **holonomies(ensemble.phi),
    }


def holonomies(phi: Floats) -> dict[str, Floats]:
    """Re of the lines of links phi (n, 2, L0, L1) around each axis, and of their squares, averaged over
    parallel lines: (n,) each.

    >>> {name: float(x[0]) for name, x in holonomies(np.full((1, 2, 2, 2), math.pi / 2)).items()}
    {'polyakov_0': -1.0, 'polyakov_sq_0': 1.0, 'polyakov_1': -1.0, 'polyakov_sq_1': 1.0}
    """
    found = {}
    for axis in (0, 1):
        angle = phi[:, axis].sum(axis - 2)
        found[f"polyakov_{axis}"] = np.cos(angle).mean(1)
        found[f"polyakov_sq_{axis}"] = np.cos(2 * angle).mean(1)
    return found


def link_history(history: dict[str, Any] | None) -> dict[str, Any] | None:
    """The history of a thermalisation, whose order parameter is Q, by that name."""
    return history and {RENAMED.get(name, name): values for name, values in history.items()}


def may_stay(ensemble: Ensemble) -> bool:
    """Whether charges other than 0 are too rare for one to be expected in this ensemble."""
    law = law_of(ensemble)
    return law is not None and _others(law) * len(ensemble) < MOST_MISSED


def _others(law: ChargeLaw) -> float:
    """1 - P(0)."""
    return float(law.probability[law.charge != 0].sum())


def topology_check(ensemble: Ensemble, charges: list[Floats], tau: Estimate | None) -> Check:
    """The fraction of chains that went from one charge to another; charges: a series per chain."""
    everything = np.concatenate(charges)
    stuck, n = sum(np.ptp(q) == 0 for q in charges), min(len(q) for q in charges)
    law = law_of(ensemble)
    independent = n if tau is None else min(n, max(FEWEST, n / (2 * tau.tau_int)))
    alone = 0.0 if law is None else float((law.probability**independent).sum())
    passed = not stuck or scipy.stats.binom.sf(stuck - 1, len(charges), alone) > CHANCE
    moved = len(charges) - stuck
    if passed:
        steps = sum(np.count_nonzero(np.diff(q)) for q in charges) / max(1, len(everything) - len(charges))
        sectors = len(np.unique(everything))
        words = f"{sectors} sector{'s' * (sectors > 1)}, Q changes in {100 * steps:.2g} % of steps"
        words += f"; {stuck} chains stayed in theirs, no more than of exact draws" if stuck else ""
        return make_check("topology", moved / len(charges), None, "1", True, words)
    words = f"{stuck} of {len(charges)} chains never left their sector in {n} configurations"
    return make_check("topology", moved / len(charges), None, "1", False, f"{words}; {advice(ensemble)}")


def advice(ensemble: Ensemble) -> str:
    """What makes the charge move."""
    algorithm = ensemble.attrs.get("algorithm")
    given = algorithm.get("parameters", {}) if isinstance(algorithm, dict) else {}
    if isinstance(algorithm, dict) and algorithm.get("name") == "imported":
        return "a longer run, or moves between charges, are needed"
    moves = int(given.get("n_winding", 0))
    if moves:
        return f"use ensemble.n_winding: {8 * moves} or more n_configs, or exact draws"
    return "use ensemble.n_winding: 1, or exact draws"


def exact_checks(ensemble: Ensemble, data: Series) -> list[Check]:
    """Plaquette, holonomies and <Q^2> against what this torus has."""
    links, law = as_links(ensemble.action), law_of(ensemble)
    if links is None or law is None:
        return []
    beta, volume = links.beta.real, math.prod(ensemble.shape)
    plaquettes = [-s / beta for s in data["action_density"]]
    checks = [mean_is("plaquette", plaquettes, wilson_loop(beta, volume, 1), "against the exact number")]
    for axis in (0, 1):
        for key, name in ((f"polyakov_{axis}", f"Re P{axis}"), (f"polyakov_sq_{axis}", f"Re P{axis}^2")):
            checks.append(mean_is(name, data[key], 0.0, f"lines along axis {axis}, uniform on the circle"))
    if np.any(np.concatenate(data["charge"])):
        return [*checks, mean_is("Q^2", data["charge2"], law.moment(2), "against the exact number")]
    missed = _others(law) * len(ensemble)
    words, expected = f"no charge seen, {missed:.2g} expected", f"{law.moment(2):g}"
    if missed < MOST_MISSED:
        return [*checks, make_check("Q^2", 0.0, None, expected, True, words)]
    return [*checks, failed_check("Q^2", expected, words)]


def charge_check(charge: Floats, law: ChargeLaw, n: float | None = None) -> Check:
    """chi^2 of charges (m,) against P(Q), as good as n independent ones (None: m), rare ones on either side
    taken together."""
    found = frequencies(charge, law.charge, law.probability, n=n)
    words = f"chi^2, charges {found.low} to {found.high}, p = {found.p:.2g}"
    passed = found.p >= scipy.stats.norm.sf(GATE)
    return make_check("P(Q)", found.chi2, None, f"about {found.dof}", passed, words)


def chain_charges_check(ensemble: Ensemble, data: Series) -> list[Check]:
    """The same of chains, with n = N/(2 tau_int), tau_int the largest of Q, |Q| and Q^2; none where S is not
    that of U1. Fails where there is no tau_int and more than one charge is common."""
    if (law := law_of(ensemble)) is None:
        return []
    charge, longest = np.concatenate(data["charge"]), 0.5
    dof = frequencies(charge, law.charge, law.probability).dof
    for parts in (data["charge"], data["abs_charge"], data["charge2"]) if dof else ():
        if np.ptp(np.concatenate(parts)) > 0:
            try:
                longest = max(longest, gamma_method([part[:, None] for part in parts]).tau_int)
            except EstimatorError as error:
                return [failed_check("P(Q)", f"about {dof}", f"tau_int of the charge: {error}")]
    return [charge_check(charge, law, len(charge) / (2 * longest))]


def is_links(action: Any) -> bool:
    """Whether the fields are U(1) links, with a charge."""
    return isinstance(action, U1)

"""The table of observables of any ensemble, Monte Carlo or generated, each with its error.

Real fields on a lattice (`lattice.observables.scalar`): Gamma method, chains as replicas, or as a second
opinion the blocked jackknife. With log_weight: self-normalised weights and the block jackknife. Derived
quantities (susceptibility, Binder, xi, cumulant ratios) are propagated in full. One variable and complex
fields (`lattice.observables.holomorphic`): the jackknife over blocks of whole chains, or the Gamma method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from einops import rearrange

from lattice.actions.spins import Ising, Spins
from lattice.actions.u1 import U1, as_links
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.spins import known as exactly_known
from lattice.exact.u1 import known as links_known
from lattice.observables import holomorphic, scalar
from lattice.observables.averages import Averages, Method, averages, entry_of, usual_method
from lattice.observables.gauge import gauge_definitions, gauge_primaries
from lattice.observables.names import in_short_table
from lattice.observables.networks import network_values
from lattice.observables.spins import entries_with, spin_definitions, spin_primaries
from lattice.statistics.gamma import Derived, EstimatorError
from lattice.statistics.irregular import grid_of
from lattice.statistics.notation import aligned, printed
from lattice.statistics.pulls import pull
from lattice.statistics.rounding import rounding_of
from lattice.statistics.weights import distrusted, effective_sample_size, ess_words, spread_of

if TYPE_CHECKING:
    from lattice.ensembles.ensemble import Ensemble


Measurement = dict[str, Any]
TAU_CONVENTION = "tau_int = 1/2 + sum_t rho(t)"
SYMMETRY = "odd moments at their exact value 0 (z -> -z)"
MIN_ESS = 0.1  # ESS/N below which weighted averages, and their errors, are not to be trusted


def measure(
    ensemble: Ensemble, *, s_tau: float = 2.0, n_blocks: int = 100, ignore_weights: bool = False,
    method: Method | None = None, two_point: bool = True,
) -> Measurement:  # fmt: skip
    """All observables of an ensemble, as a JSON-safe dict (undefined numbers are None, never NaN).

    {"ensemble": {identity, action, shape, n, n_replicas, weighted, ess, ess_error[, exp_minus_var,
                  exp_minus_var_error, largest_weight, warnings]},
     "observables": {name: {"value", "error", "tau_int", "tau_int_error", "bias"[, "exact"][, "reason"]}},
     "two_point": {t, C, C_error, momenta, khat2, multiplicity, G, G_error},   see `two_point`
     "modes": {"k1": n, "k2": n}, "tau_unit", "tau_convention", "method"}

    Real fields on a lattice: M = (1/V) sum phi; susceptibility V(<M^2> - <|M|>^2), susceptibility_full
    V<M^2>, binder 1 - <M^4>/(3<M^2>^2), action_density <S>/V, phi2, phi4 per site, xi_2nd along the longest
    axis. kappa1..kappa8 of a single site, with _m of M, with _k1 and _k2 of Re, Im phi~(k)/sqrt(V) in the two
    lowest classes of momenta ("modes", k = 2 pi n/L), odd moments included. _ratio: kappa_n/kappa_2^(n/2),
    n = 3..8; _ratio_z2, n = 4, 6, 8: the same number with the odd moments at their exact value 0, with far
    smaller errors in the broken phase, right only for a symmetric law, given only where S(-phi) = S(phi).

    Spins: what lattice.observables.spins says, with "exact" where it is known, U(1) links: what
    lattice.observables.gauge says, with all exact values and no two-point function. A law without an action
    has no action_density, and "exact" what `lattice.observables.networks` knows.

    One variable, shape (1,) or complex: m2..m8 and kappa2..kappa8, and for other complex fields what
    lattice.observables.holomorphic says; of complex numbers "Re m2" and "Im m2", with "exact" where it is
    known. Noise that samples carry (about["noise2"]) is taken off. No two-point function, no modes.

    method: "gamma" or "jackknife" without weights, each a second opinion on the other. None is "gamma" on a
    real lattice and for fewer than 16 Markov chains, otherwise "jackknife" over blocks of whole chains or of
    independent draws, which knows no tau_int; many chains too short for the Gamma method have it too.
    two_point=False leaves G(k) and C(t) out ("two_point" is then None). ess is (sum w)^2/(N sum w^2), and
    with it what `lattice.statistics.weights` says beside it and warns of. bias is
    the O(1/N) bias of the value, which is not corrected for it. What an estimator refuses keeps its value,
    error None and a "reason".

    ignore_weights=True measures a weighted ensemble as drawn: independent configurations, one series.
    Chains with gaps, of several spacings or with few configurations keep their values; their errors are those
    of pairs at equal distance, which "method" says. Raises InputError for NaN fields or weights, fields of
    several real components that are no links, an empty ensemble, an unknown method, or a configuration stored
    twice.
    """
    curves = None
    if len(ensemble.phi) and holomorphic.is_holomorphic(ensemble):
        usual: Method = "gamma" if holomorphic.few_chains(ensemble) else "jackknife"
        sample = averages(ensemble, s_tau, n_blocks, ignore_weights, method or usual)
        observables, how = _holomorphic(ensemble, sample)
        modes: dict[str, list[int]] = {}
    else:
        sample = averages(ensemble, s_tau, n_blocks, ignore_weights, method or usual_method(ensemble))
        observables, modes = _real(ensemble, sample)
        curves, how = None, sample.how
        if two_point and (isinstance(ensemble.action, Ising) or not isinstance(ensemble.action, Spins | U1)):
            curves = {k: _json_list(x) for k, x in _two_point(ensemble, sample).items()}
    return {
        "ensemble": _ensemble_block(ensemble, sample, ignore_weights), "observables": observables,
        "two_point": curves, "modes": modes, "tau_unit": _tau_unit(ensemble, sample),
        "tau_convention": TAU_CONVENTION, "method": how,
    }  # fmt: skip


def _real(ensemble: Ensemble, sample: Averages) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """The observables of real fields on a lattice, or of spins and links, these with the exact values that
    are known; and the classes of modes."""
    action = ensemble.action
    shape = action.lattice_of(ensemble.phi.shape[1:])
    if isinstance(action, Spins):
        table, known = spin_primaries(ensemble.phi, action), spin_definitions(shape, action)
    elif isinstance(action, U1):
        table, known = gauge_primaries(ensemble.phi, action), gauge_definitions(shape)
    else:
        table, known = scalar.primaries(ensemble.phi, action), scalar.definitions(shape, action.even)
        known = {name: definition for name, definition in known.items() if set(definition[0]) <= table.keys()}
    observables = {
        name: sample.entry(np.stack([table[c] for c in columns], axis=1), f, why)
        for name, (columns, f, why) in known.items()
    }
    if isinstance(action, Spins):
        return entries_with(exactly_known(action, shape), observables), {}
    if isinstance(action, U1):
        exact = {} if as_links(action) is None else links_known(action.beta.real, shape)
        return entries_with(exact, observables), {}
    if not action.has_action:
        observables = entries_with(network_values(action, shape), observables)
    return observables, {k: list(members[0]) for k, members in scalar.mode_classes(shape).items()}


def _holomorphic(ensemble: Ensemble, sample: Averages) -> tuple[dict[str, dict[str, Any]], str]:
    """The observables of one variable or of complex fields, and the error method in words."""
    rows = holomorphic.rows_of(ensemble)
    if not np.isfinite(rows.series).all():
        raise InputError("NaN or infinite field values, or powers of them: nothing to average")
    how = sample.how
    if sample.method == "jackknife":
        entries, how = _by_blocks(ensemble, rows, sample)
    else:
        entries = _by_chains(rows, sample)
    found = {}
    for name, pair in zip(rows.names, entries):
        for label, part in holomorphic.parts(name, rows.is_complex):
            exact = complex(rows.exact[name]) if name in rows.exact else None
            known = {} if exact is None else {"exact": exact.imag if part else exact.real}
            found[label] = {**pair[part], **known}
    return found, f"{how}; {SYMMETRY}" if holomorphic.NAMES[0] in rows.names else how


def _by_blocks(ensemble: Ensemble, rows: holomorphic.Rows, sample: Averages) -> tuple[list[Any], str]:
    """(real, imaginary) entry of each row with jackknife errors, and what the blocks are."""
    block = holomorphic.blocks_of(ensemble)
    values, errors = holomorphic.without_blocks(rows.series, rows.of_means, block, sample.weights)
    still = {"reason": "constant: no fluctuations"}
    entries = [
        [
            entry_of(v, error=e) if e else entry_of(v) | still
            for v, e in ((z.real, dz.real), (z.imag, dz.imag))
        ]
        for z, dz in zip(values.tolist(), errors.tolist())
    ]
    chains = len(np.unique(ensemble.chain)) >= holomorphic.MIN_BLOCKS
    how = f"jackknife over {block.max() + 1} blocks of {'whole chains' if chains else 'configurations'}"
    return entries, how if sample.log_weight is None else f"self-normalised weights, {how}"


def _by_chains(rows: holomorphic.Rows, sample: Averages) -> list[Any]:
    """(real, imaginary) entry of each row by the estimator of real series."""
    series, is_complex = rows.series, rows.is_complex
    reals = np.stack([series.real, series.imag], axis=-1) if is_complex else series[..., None]

    def part_of(row: int, part: int) -> Derived:
        def number(means: Floats) -> float:
            z = complex(rows.of_means(means[0::2] + 1j * means[1::2] if is_complex else means)[row])
            return z.imag if part else z.real

        return number

    x = rearrange(reals, "n primary part -> n (primary part)")
    labels, floor = range(1 + is_complex), rounding_of(rows.of_means, sample.mean(series), series)
    entries = [[sample.entry(x, part_of(row, part)) for part in labels] for row in range(len(rows.names))]
    for pair, least in zip(entries, floor.tolist(), strict=True):
        for entry in pair:
            entry["error"] = entry["error"] and max(entry["error"], least)
    return entries


def two_point(
    ensemble: Ensemble, *, s_tau: float = 2.0, n_blocks: int = 100, ignore_weights: bool = False,
    n_momenta: int = 64, method: Method = "gamma",
) -> dict[str, Floats]:  # fmt: skip
    """Two-point function with errors (nan where refused), in momentum space and in time.

    t (n_t,), C, C_error: C(t) = sum_x <phi(t,x) phi(0)> along the longest axis, t = 0..L/2; sums to G(0).
    momenta (c, d) integers n of k = 2 pi n/L, khat2 (c,), multiplicity (c,), G, G_error (c,):
    G(k) = <|phi~(k)|^2>/V of the n_momenta lowest classes under the lattice's symmetry.
    Raises like `measure`, and where the fields are not real ones on a lattice.
    """
    if holomorphic.is_holomorphic(ensemble) or isinstance(ensemble.action, U1):
        raise InputError("two_point needs real fields on a lattice; measure() takes others too")
    return _two_point(ensemble, averages(ensemble, s_tau, n_blocks, ignore_weights, method), n_momenta)


def _two_point(ensemble: Ensemble, sample: Averages, n_momenta: int = 64) -> dict[str, Floats]:
    g, c, classes = scalar.two_point_series(ensemble.phi, n_momenta)
    shape = ensemble.phi.shape[1:]
    return {
        "t": np.arange(c.shape[1], dtype=np.float64),
        "C": sample.mean(c),
        "C_error": sample.errors(c),
        "momenta": np.array([members[0] for members in classes], dtype=np.float64),
        "khat2": np.array([scalar.lattice_momentum_squared(members[0], shape) for members in classes]),
        "multiplicity": np.array([len(members) for members in classes], dtype=np.float64),
        "G": sample.mean(g),
        "G_error": sample.errors(g),
    }


def _ensemble_block(ensemble: Ensemble, sample: Averages, ignore_weights: bool) -> dict[str, Any]:
    block: dict[str, Any] = {
        "identity": ensemble.identity,
        "action": ensemble.action.as_dict(),
        "shape": list(ensemble.action.lattice_of(ensemble.phi.shape[1:])),
        "n": len(ensemble.phi),
        "n_replicas": len(sample.replicas),
        "weighted": sample.log_weight is not None,
        "ess": None,
        "ess_error": None,
    }
    if ignore_weights and ensemble.log_weight is not None:
        block["note"] = "log weights ignored: the configurations as drawn"
    if sample.log_weight is not None:
        try:
            block["ess"], block["ess_error"] = effective_sample_size(sample.log_weight, sample.n_blocks)
            block |= {**spread_of(sample.log_weight), "warnings": distrusted(sample.log_weight)}
        except EstimatorError as error:
            block["note"] = f"no ESS: {error}"
    return block


def _tau_unit(ensemble: Ensemble, sample: Averages) -> str:
    if sample.log_weight is not None:
        return "none (weighted configurations, jackknife errors)"
    if sample.times is not None:
        unit = grid_of(sample.times).unit
        return (
            f"the smallest common spacing of the chains (1 = {unit} trajector{'y' if unit == 1 else 'ies'})"
        )
    stride = ensemble.attrs.get("stride")
    if stride is None or ensemble.log_weight is not None:
        return "saved configurations"
    return f"saved configurations (1 = {int(stride)} trajector{'y' if int(stride) == 1 else 'ies'})"


def _json_list(x: Floats) -> list[Any]:
    if x.ndim > 1:
        return [_json_list(row) for row in x]
    return [None if not math.isfinite(v) else int(v) if v == int(v) else float(v) for v in x]


def format_table(measurements: Measurement | Mapping[str, Measurement], *, everything: bool = False) -> str:
    """Aligned text: one measurement -> value(error), tau_int(error), where exact numbers are known these and
    the pull against them; {label: measurement} -> a column each.

    Of the cumulants only those of `lattice.observables.names.in_short_table`, all of them with
    everything=True. Footnotes: the error method, the tau_int convention with its unit, the reason for every
    missing error.
    """
    single = "observables" in measurements
    columns: dict[str, Measurement] = {"value": dict(measurements)} if single else dict(measurements)
    tables = {label: m["observables"] for label, m in columns.items()}
    names = dict.fromkeys(n for t in tables.values() for n in t if everything or in_short_table(n))
    extra = _extra_columns(tables["value"]) if single else {}
    rows, notes = [["observable", *columns, *extra]], []
    for name in names:
        entries = [table.get(name, _ABSENT) for table in tables.values()]
        cells = [printed(e["value"], e["error"]) for e in entries]
        rows.append([name, *cells, *(show(entries[0]) for show in extra.values())])
        for label, e in zip(columns, entries):
            notes += [f"{name}{'' if single else f' ({label})'}: {e['reason']}"] if "reason" in e else []
    for label, m in columns.items():
        text, block = f"n = {m['ensemble']['n']}, {m['method']}", m["ensemble"]
        if block.get("ess") is not None:
            text += f", ESS/N = {ess_words(block['ess'], block['ess_error'], block)}"
        elif any(e["tau_int"] is not None for e in m["observables"].values()):
            text += f"; {m['tau_convention']}, in {m['tau_unit']}"
        notes.append(text if single else f"{label}: {text}")
    return "\n".join([*aligned(rows), *notes])


_ABSENT: dict[str, Any] = {"value": None, "error": None}


def _extra_columns(table: Mapping[str, Any]) -> dict[str, Callable[[Any], str]]:
    """What is shown beside the values of a single measurement: header -> cell of an entry."""
    columns: dict[str, Callable[[Any], str]] = {}
    if any("exact" in e for e in table.values()):
        columns["exact"] = lambda e: printed(e.get("exact"))
        columns["pull"] = lambda e: (
            f"{pull(e['value'], e['error'], e['exact'], 0.0):+.1f}" if e["error"] and "exact" in e else "-"
        )
    if not columns or any(e["tau_int"] is not None for e in table.values()):
        columns["tau_int"] = lambda e: printed(e["tau_int"], e["tau_int_error"])
    return columns

"""How efficient a sampler with weights is: ESS both ways, acceptance, ln Z, absolute KL, variance by level.

Below MIN_ESS the weights are still exact, but their averages and errors hang on few configurations;
`warnings` then says what to change. For Gaussian log-weights of variance v: ESS/N = e^-v and path KL = v/2,
and KL = c V is extensive: at a fixed c per site every global sampler fails at some volume V. Errors of ESS,
ln Z and path KL are those of `lattice.statistics.weights`, which also says from which v on N samples are too
few to believe them.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from diffsq.exactness.discretisation import discretisation, warning
from diffsq.exactness.weights import (
    acceptance,
    forward_ess,
    forward_kl,
    forward_spread,
    ln_z,
    ln_z_forward,
    reverse_kl,
)
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.files import read_json, write_json
from lattice.observables.measure import MIN_ESS
from lattice.statistics.blocks import jackknife_of
from lattice.statistics.notation import format_value
from lattice.statistics.weights import distrusted, effective_sample_size, spread_of

FIRST_LEVEL = 0.25  # share of the variance of log w above which the first level is the one to blame
SMALL_KL = 2e-3  # nats per site: good scores reach about 1e-3 at criticality, so volume is then the cause


def diagnose(folder: Path, seed: int) -> dict[str, Any]:
    """The efficiency of the samples in `folder`, written to its diagnostics.json."""
    samples = read_ensemble(folder)
    generated = samples.attrs["generated"]
    found: dict[str, Any] = {"levels": generated["levels"], "method": generated["sampler"]}
    if samples.log_weight is not None:
        found |= path_diagnostics(samples, read_json(folder / "forward.json"), seed)
    if (steps := discretisation(folder, samples)) is not None:
        found |= {"discretisation": steps, "warnings": found["warnings"] + warning(steps)}
    write_json(folder / "diagnostics.json", found)
    return found


def reverse_efficiency(folder: Path, samples: Ensemble, seed: int) -> dict[str, Any]:
    """ESS/N, acceptance and ln Z of samples that no data are held against, NAME_error beside each, and what
    the finite steps change."""
    assert samples.log_weight is not None
    log_w = samples.log_weight
    z, z_error = ln_z(log_w)
    return {
        **_numbers("ess", effective_sample_size(log_w)), **_numbers("acceptance", acceptance(log_w, seed)),
        "ln_z": z, "ln_z_error": z_error, "discretisation": discretisation(folder, samples),
    }  # fmt: skip


def path_diagnostics(samples: Ensemble, forward: dict[str, Any], seed: int) -> dict[str, Any]:
    """Efficiency of the samples, reverse and forward; absolute (path) KL of model, base and Wiener.

    forward: lists "model", "chain", of the path sampler "increments" by level too, with rivals "base" and
    "wiener" of the same fields, the
    second alone where it is the base; "gain" is over the base. Every number NAME has NAME_error beside it;
    reverse and forward have what `spread_of` says beside their ESS.
    """
    assert samples.log_weight is not None
    times = forward.get("trajectory", np.arange(len(forward["model"])))
    in_time = np.argsort(times, kind="stable")  # the jackknife over few chains cuts them in stretches
    down, up, chain = (
        samples.log_weight, np.array(forward["model"])[in_time], np.array(forward["chain"])[in_time]
    )  # fmt: skip
    (z, z_error), (z_up, z_up_error) = ln_z(down), ln_z_forward(up, chain)
    kl: dict[str, Any] = {}
    for name in ("wiener", "base", "model"):
        if name in forward:
            kl |= _numbers(name, forward_kl(np.array(forward[name])[in_time], (z, z_error), chain))
    if rival := next((name for name in ("base", "wiener") if name in forward), None):
        difference = np.array(forward[rival])[in_time] - up
        kl["gain"], kl["gain_error"] = jackknife_of(lambda d: float(d.mean()), difference, chain=chain)
    about, by_level = samples.attrs["generated"], dict[str, Any]()
    if "increments" in forward:
        variance = np.array(forward["increments"]).var(0).tolist()
        by_level["per_level"] = {"sigma": about["levels"][1:], "variance": variance}
    found = {
        "reverse": {
            **_numbers("ess", effective_sample_size(down)), **spread_of(down),
            **_numbers("kl", reverse_kl(down)), "log_weight": down.tolist(),
        },
        "forward": {
            **_numbers("ess", forward_ess(up, chain)), **forward_spread(up, chain),
            **_numbers("kl", (kl["model"], kl["model_error"])), "ln_z": z_up, "ln_z_error": z_up_error,
            "log_weight": up.tolist(),
        },
        **_numbers("acceptance", acceptance(down, seed)), "ln_z": z, "ln_z_error": z_error, "kl": kl,
        **by_level, "method": about.get("sampler"), "links": "links" in about,
    }  # fmt: skip
    lines = warnings(found, len(samples), math.prod(samples.shape))
    lines += [*distrusted(down), *(f"forward, of 1/w: {line}" for line in distrusted(-up))]
    return {**found, "warnings": lines}


def _numbers(name: str, pair: tuple[float, float]) -> dict[str, float]:
    return {name: pair[0], f"{name}_error": pair[1]}


def warnings(diagnostics: dict[str, Any], n: int, volume: int) -> list[str]:
    """One line per warning, empty when both ESS/N, reverse and forward, are at least MIN_ESS.

    diagnostics: as `path_diagnostics` returns them, of `n` samples on `volume` sites. The first line states
    the ESS, the others the advice that fits: thin tails, the first level, or the number of levels.
    """
    reverse, forward = (
        (diagnostics[way]["ess"], diagnostics[way]["ess_error"]) for way in ("reverse", "forward")
    )
    if min(reverse[0], forward[0]) >= MIN_ESS:
        return []
    lines = [
        f"ESS/N: reverse {_shown(*reverse)}, forward {_shown(*forward)}, below {MIN_ESS:g}: exact still, but "
        f"averages and their errors rest on few of the {n} configurations"
    ]
    if reverse[0] / 2 - forward[0] > 3 * math.hypot(reverse[1] / 2, forward[1]):
        lines.append(
            "the forward ESS is far below the reverse one: the proposal has thin tails, and the reverse ESS "
            "flatters; raise ensemble.n_configs"
        )
    if diagnostics.get("links"):
        return lines + [_of_links(diagnostics["method"])]
    if diagnostics.get("method") == "gaussian":
        return lines + [_of_machine(diagnostics["kl"]["model"], volume)]
    if "per_level" not in diagnostics:
        return lines + _of_flow(diagnostics["kl"]["model"], volume)
    sigma, variance = (diagnostics["per_level"][name] for name in ("sigma", "variance"))
    if variance[0] > FIRST_LEVEL * sum(variance):
        lines.append(
            f"the first level carries {variance[0] / sum(variance):.0%} of the variance of log w; lower "
            f"sde.sigma_min (now {sigma[0]:.3g})"
        )
    if len(lines) == 1:
        lines += _levels_or_volume(len(sigma), diagnostics["kl"]["model"], volume)
    return lines


def _of_machine(kl: float, volume: int) -> str:
    return (
        f"a Gaussian machine knows two-point functions: what is beyond them, and modes that its mass or its "
        f"nodes cut, cost c = {kl / volume:.2g} nats per site; `diffsq check machine RUN` says which"
    )


def _of_links(method: str) -> str:
    if method == "angles":
        return (
            "paths on the circle must find the charge by themselves: more training.n_steps, model.channels "
            "and sampling.n_levels help; the model `score` draws it from its own law"
        )
    more = " and more sampling.n_levels" if method == "path" else ""
    return f"the plaquette action is another one, as where it was learned: training.use_action: true{more}"


def _of_flow(kl: float, volume: int) -> list[str]:
    return [
        f"the KL of the flow is c = {kl / volume:.2g} per site, and extensive: larger model.n_fit and "
        "ensemble.n_configs lower what the fit of the score costs, a smaller sde.sigma_min what is lost "
        "below it; `diffsq chain` with latent moves or chain.block keeps its acceptance"
    ]


def _levels_or_volume(n_levels: int, kl: float, volume: int) -> list[str]:
    lines = [
        f"raise sampling.n_levels (now {n_levels}): the path KL falls like 1/N until the score's own error "
        "is left; `diffsq check levels RUN` shows which of the two it is"
    ]
    if kl < SMALL_KL * volume:
        lines.append(
            f"the path KL is small, c = {kl / volume:.2g} per site, but extensive: c V = {kl:.2g} on "
            f"{volume} sites; block moves (`diffsq chain` with chain.block) keep their acceptance"
        )
    return lines


def warnings_of(samples: Path) -> list[str]:
    """The warnings in the diagnostics.json of a samples folder; none for a sampler without log-weights."""
    if not (samples / "diagnostics.json").is_file():  # a run on one variable
        return []
    found: list[str] = read_json(samples / "diagnostics.json").get("warnings", [])
    return found


def _shown(value: float, error: float) -> str:
    return format_value(value, error) if error > 0 else f"{value:.3g}"

"""Ensembles for other people's analysis programs: pyerrors and arviz, both optional (diffsq[interop]).

pyerrors: primary averages as Obs, one replica per chain, configuration numbers = trajectory numbers, and
derived quantities, in one .json.gz. The ensemble is named after its identity, so that pyerrors knows which
exports share configurations. Its gamma_method subtracts the mean of each replica, as
gamma_method(..., centre="replica") of lattice.statistics does, and not the common one.

arviz: the same series per chain and draw as the posterior group of an InferenceData file (.nc), written with
xarray and so readable by every version of arviz.
"""

from __future__ import annotations

import gzip
import importlib
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lattice.actions.u1 import U1
from lattice.arrays import Floats, Integers
from lattice.ensembles.columns import check_distinct
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.files import canonical_json, scratch_folder, write_atomic
from lattice.observables import holomorphic
from lattice.observables.gauge import gauge_definitions, gauge_primaries
from lattice.observables.scalar import definitions, primaries, two_point_series

N_MOMENTA = 8
MIN_PER_REPLICA = 5  # pyerrors takes no fewer
TAU = "tau_int = 1/2 + sum_t rho(t), in the spacing of the configuration numbers"
# name of a series -> the primary that it is (lattice.observables.scalar)
_COLUMNS = {"abs_magnetization": "abs_m", "magnetization": "m1", "m2": "m2", "m4": "m4",
            "action_density": "s", "phi2": "phi2", "phi4": "phi4", "G_longest": "g1"}  # fmt: skip
_DERIVED = ("susceptibility", "susceptibility_full", "binder", "xi_2nd")


def export_ensemble(ensemble: Ensemble, kind: str, out: Path, *, fields: bool = False) -> list[str]:
    """Write an ensemble for another program and return the paths of the files written.

    kind "pyerrors": `out`.json.gz, a dict of Obs for pyerrors.input.json.load_json_dict: the series of
    `export_series`, and susceptibility V(<M^2> - <|M|>^2), susceptibility_full V<M^2>, binder, xi_2nd (left
    out where G(0) <= G(k1)), of links chi_top and Creutz ratios, or of one variable the cumulants, and
    moments without the noise that samples carry. With log_weight, every average is <w O>/<w>
    (pyerrors.reweight: the errors of the weights are in it), and the Obs "weight" is w divided by its largest
    value.

    kind "arviz": `out`.nc, the series of `export_series` with dimensions chain and draw, the draws named by
    their trajectory numbers; fields=True adds phi (chain, draw, x0, x1, ...), of complex fields with the axis
    part = (x, y) before the lattice. Refused for weighted ensembles: arviz has no weights.

    Configurations that are one per chain are independent and become one chain. Both files carry action,
    convention, shape and identity, and no name of a user or machine. Raises InputError when the optional
    library is missing, `out` exists or cannot be written, chains are too short (pyerrors) or of unequal
    length (arviz), or a configuration is stored twice.
    """
    if kind not in KINDS:
        raise InputError(f"unknown kind of export {kind!r}; known: {', '.join(KINDS)}")
    suffix, write = KINDS[kind]
    if fields and kind != "arviz":
        raise InputError("fields are exported to arviz only")
    out = Path(out)
    if not out.name.endswith(suffix):
        out = out.with_name(out.name + suffix)
    if os.path.lexists(out):
        raise InputError(f"{out}: is there already; choose another name, or remove it")
    check_distinct(ensemble.chain, ensemble.trajectory)
    write(ensemble, out, fields)
    return [str(out)]


def export_series(ensemble: Ensemble) -> dict[str, Floats]:
    """Per-configuration series (n,) by name.

    abs_magnetization |M|, magnetization M, m2, m4, action_density S/V, phi2, phi4; G_k0, G_k1, ...:
    |phi~(k)|^2/V averaged over each of the lowest classes of momenta; G_longest: at the smallest momentum
    along the longest axis, which xi_2nd is made of. Of one variable and of complex fields the series that
    `lattice.observables.measure` averages, z^2 as m2, or "Re m2" and "Im m2". Of U(1) links those of
    `lattice.observables.gauge`: plaquette, wilson_2x2, charge, charge2, ...

    >>> from lattice.actions.phi4 import ScalarPhi4
    >>> e = Ensemble.from_fields(np.ones((3, 4, 4)), ScalarPhi4(0.2, 0.1))
    >>> export_series(e)["G_k0"].tolist()
    [16.0, 16.0, 16.0]
    """
    if holomorphic.is_holomorphic(ensemble):
        rows = holomorphic.rows_of(ensemble)
        return {
            label: np.ascontiguousarray(rows.series.imag[:, i] if part else rows.series.real[:, i])
            for i, name in enumerate(rows.columns)
            for label, part in holomorphic.parts(name, rows.is_complex)
        }
    if isinstance(ensemble.action, U1):
        found = gauge_primaries(ensemble.phi, ensemble.action)
        own = {
            name: columns for name, (columns, f, _) in gauge_definitions(ensemble.shape).items() if f is None
        }
        return {name: found[column] for name, (column,) in own.items()}
    table = primaries(ensemble.phi, ensemble.action)
    g, _, classes = two_point_series(ensemble.phi, N_MOMENTA)
    modes = {f"G_k{i}": np.ascontiguousarray(g[:, i]) for i in range(len(classes))}
    return {name: table[column] for name, column in _COLUMNS.items()} | modes


def _replicas(ensemble: Ensemble) -> list[Integers]:
    """Index arrays per chain; configurations that are one per chain are one series of independent draws."""
    everything = [np.arange(len(ensemble), dtype=np.int64)]
    if ensemble.log_weight is not None:
        return everything
    replicas = ensemble.replicas()
    return everything if all(len(part) == 1 for part in replicas) else replicas


def _numbers(ensemble: Ensemble, part: Integers) -> Integers:
    """Trajectory numbers of a replica, or 1, 2, 3, ... where they do not increase: draws of many chains."""
    times = ensemble.trajectory[part]
    return times if (np.diff(times) > 0).all() else np.arange(1, len(part) + 1)


def _about(ensemble: Ensemble) -> dict[str, Any]:
    action, stride = ensemble.action.as_dict(), ensemble.attrs.get("stride")
    about = {
        "action": action, "convention": action.get("convention"), "shape": list(ensemble.shape),
        "boundary": "periodic", "identity": ensemble.identity, "stride": stride, "tau": TAU,
    }  # fmt: skip
    if isinstance(ensemble.action, U1):
        return about
    if holomorphic.is_holomorphic(ensemble):
        return {**about, "noise2": holomorphic.noise_of(ensemble)}
    _, _, classes = two_point_series(ensemble.phi[:1], N_MOMENTA)
    return {
        **about,
        "momenta": {f"G_k{i}": [int(n) for n in members[0]] for i, members in enumerate(classes)},
    }


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"this export needs {error.name or name}: pip install 'diffsq[interop]'") from error


def _pyerrors(ensemble: Ensemble, out: Path, fields: bool) -> None:
    pe, pe_json = _library("pyerrors"), _library("pyerrors.input.json")
    obs, undefined = _observables(pe, ensemble)
    about = {**_about(ensemble), "weighted": ensemble.log_weight is not None, "undefined": undefined}
    with scratch_folder() as folder:
        path = folder / "obs.json.gz"
        pe_json.dump_dict_to_json(obs, str(path), description=about, indent=0)
        content = json.loads(gzip.decompress(path.read_bytes()))
    for private in ("who", "host"):  # pyerrors adds the names of the user and the machine
        content.pop(private, None)
    write_atomic(out, gzip.compress(json.dumps(content).encode(), mtime=0))


def _observables(pe: Any, ensemble: Ensemble) -> tuple[dict[str, Any], dict[str, str]]:
    """(name -> Obs, name of a derived quantity -> why it is undefined)."""
    parts = _replicas(ensemble)
    shortest = min(len(part) for part in parts)
    if shortest < MIN_PER_REPLICA:
        raise InputError(
            f"a chain of {shortest} configurations: pyerrors needs at least {MIN_PER_REPLICA} in every chain"
        )
    digits = max(3, len(str(len(parts) - 1)))
    names = [f"diffsq-{ensemble.identity[:12]}|r{i:0{digits}d}" for i in range(len(parts))]
    numbers = [[int(t) for t in _numbers(ensemble, part)] for part in parts]

    def primary(values: Floats) -> Any:
        return pe.Obs([values[part] for part in parts], names, idl=numbers)

    obs = {name: primary(values) for name, values in export_series(ensemble).items()}
    if ensemble.log_weight is not None:
        weight = primary(np.exp(ensemble.log_weight - ensemble.log_weight.max()))
        obs = dict(zip(obs, pe.reweight(weight, list(obs.values())), strict=True)) | {"weight": weight}
    if holomorphic.is_holomorphic(ensemble):
        return obs | _holomorphic(pe, ensemble, obs), {}
    if isinstance(ensemble.action, U1):
        made, undefined = _of_links(obs, math.prod(ensemble.shape))
        return obs | made, undefined
    means = {column: obs[name] for name, column in _COLUMNS.items()} | {"g0": obs["G_k0"]}
    known = definitions(ensemble.shape, ensemble.action.even)
    undefined = dict[str, str]()
    for name in _DERIVED:
        columns, f, why = known[name]
        x = [means[column] for column in columns]
        value = f(x) if f is not None else x[0]
        if isinstance(value, float):  # nan
            undefined[name] = why.format(*(mean.value for mean in x))
        else:
            obs[name] = value
    return obs, undefined


def _of_links(obs: dict[str, Any], volume: int) -> tuple[dict[str, Any], dict[str, str]]:
    """chi_top and the Creutz ratios of links, made of the Obs of the series; and those that are undefined."""
    made, undefined = {"chi_top": obs["charge2"] / volume}, dict[str, str]()
    loops = {"1x1": obs["plaquette"]} | {k.removeprefix("wilson_"): v for k, v in obs.items() if "x" in k}
    for r in (2, 3):
        if f"{r}x{r}" not in loops:
            continue
        ratio = loops[f"{r}x{r}"] * loops[f"{r - 1}x{r - 1}"] / loops[f"{r - 1}x{r}"] ** 2
        if ratio.value > 0:
            made[f"creutz_{r}x{r}"] = -np.log(ratio)
        else:
            undefined[f"creutz_{r}x{r}"] = "undefined: loops are not all of one sign"
    return made, undefined


def _holomorphic(pe: Any, ensemble: Ensemble, obs: dict[str, Any]) -> dict[str, Any]:
    """The rows of `measure`, made of the Obs of the series."""
    rows = holomorphic.rows_of(ensemble)
    means = np.empty(len(rows.columns), dtype=object)
    for i, name in enumerate(rows.columns):
        both = [obs[label] for label, _ in holomorphic.parts(name, rows.is_complex)]
        means[i] = pe.CObs(*both) if rows.is_complex else both[0]
    return {
        label: (value.imag if part else value.real) if rows.is_complex else value
        for name, value in zip(rows.names, rows.of_means(means))
        for label, part in holomorphic.parts(name, rows.is_complex)
    }


def _arviz(ensemble: Ensemble, out: Path, fields: bool) -> None:
    if ensemble.log_weight is not None:
        raise InputError(
            "arviz has no importance weights: export this ensemble to pyerrors, or resample it first "
            "(diffsq.exactness.weights.independence_metropolis)"
        )
    parts = _replicas(ensemble)
    lengths = {len(part) for part in parts}
    if len(lengths) > 1:
        raise InputError(
            f"chains of {min(lengths)} to {max(lengths)} configurations: arviz needs chains of equal length"
        )
    xarray = _library("xarray")
    _library("h5netcdf")
    rows = np.stack(parts)
    data = {name: (("chain", "draw"), values[rows]) for name, values in export_series(ensemble).items()}
    if fields:
        parts_of = ["part"] * len(ensemble.action.components)  # (x, y), or the components of a vector
        axes = [*parts_of, *(f"x{i}" for i in range(len(ensemble.shape)))]
        data["phi"] = (("chain", "draw", *axes), ensemble.phi[rows])  # type: ignore[assignment]
    times = np.stack([_numbers(ensemble, part) for part in parts])
    common = bool((times == times[0]).all())
    coords = {"chain": np.arange(len(parts)), "draw": times[0] if common else np.arange(times.shape[1])}
    about = {k: x if isinstance(x, str) else canonical_json(x) for k, x in _about(ensemble).items()}
    dataset = xarray.Dataset(data, coords, {**about, "inference_library": "diffsq"})
    with scratch_folder() as folder:  # h5netcdf locks its file, which not every file system can
        made = folder / "posterior.nc"
        dataset.to_netcdf(made, group="posterior", engine="h5netcdf")
        with open(made, "rb") as file:
            write_atomic(out, lambda there: shutil.copyfileobj(file, there))


KINDS: dict[str, tuple[str, Callable[[Ensemble, Path, bool], None]]] = {
    "pyerrors": (".json.gz", _pyerrors),
    "arviz": (".nc", _arviz),
}

"""`diffsq sample --model FAMILY`: exact samples at one theory of a family, without any training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lattice.errors import InputError


def sample_model(args: argparse.Namespace) -> int:
    """sample --model FAMILY [CONFIG] --set action.kappa=... lattice.shape=[...]."""
    from diffsq.commands.session import pick_device, to_stderr
    from diffsq.config.config import LatticeRun, config_from_dict, resolved_yaml
    from diffsq.config.yaml_file import apply_override, read_yaml
    from diffsq.exactness.discretisation import warning, words
    from diffsq.exactness.efficiency import reverse_efficiency
    from diffsq.models.family_files import load_family
    from diffsq.sampling.family_sets import sample_family, theory_of
    from lattice.files import run_lock
    from lattice.observables.measure import format_table, measure
    from lattice.progress import make_progress
    from lattice.scans.scan import point_name
    from lattice.statistics.notation import format_entry
    from lattice.statistics.weights import distrusted

    if args.restart is not None or args.accept_uncertified:
        raise InputError("--restart and --accept-uncertified are for a run; --model has no stages")
    family = load_family(args.model)
    data = read_yaml(args.config) if args.config else _default(family.couplings.lam.tolist())
    for override in args.set:
        apply_override(data, override)
    action = data.get("action")
    if not args.config and isinstance(action, dict) and not {"kappa", "mass2"} & set(action):
        raise InputError(f"which theory? --set action.kappa=... lattice.shape=[L,L]; {range_of(family)}")
    config = config_from_dict(data)
    if not isinstance(config, LatticeRun):
        raise InputError("the model is of real fields on a lattice; the config is of another kind")
    kappa, lam, _ = theory_of(config, family)  # refused before there is a folder
    name = f"{Path(args.model).name}_{point_name(config.shape, kappa, lam)}"
    out = args.run or Path("runs") / name
    if args.dry_run:
        print(
            f"{resolved_yaml(config)}\n# would draw {config.n_samples} fields into {out}; {range_of(family)}"
        )
        return 0
    with run_lock(out):
        samples = sample_family(
            config, family, out, progress=make_progress(args.quiet), device=pick_device(args.device)
        )
        found = reverse_efficiency(out, samples, config.seed)
    print(format_table(measure(samples)))
    print(
        f"ESS/N {format_entry(found, 'ess')}, acceptance {format_entry(found, 'acceptance')}, "
        f"ln Z {format_entry(found, 'ln_z')}"
    )
    assert samples.log_weight is not None
    lines = distrusted(samples.log_weight)
    if (steps := found["discretisation"]) is not None:
        print(words(steps))
        lines += warning(steps)
    for line in lines:
        to_stderr(f"diffsq: warning: {line}")
    print(f"samples: {out}")
    return 0


def range_of(family: Any) -> str:
    """What a family knows, in words."""
    table = family.couplings
    parts = []
    for lam in table.lam.tolist():
        low, high = table.range(lam)
        parts.append(f"kappa = {low:g} to {high:g} at lam = {lam:g}")
    sizes = f"L = {int(table.sizes[0])} to {table.largest}"
    return f"the model knows {sizes}, {', '.join(parts)}" + (", and between" if len(parts) > 1 else "")


def _default(lams: list[float]) -> dict[str, Any]:
    action: dict[str, Any] = {"kind": "phi4"}
    if len(lams) == 1:
        action["lam"] = lams[0]
    return {
        "name": "family", "action": action, "lattice": {"shape": [16, 16]}, "ensemble": {},
        "model": {"channels": 0, "n_levels": 1}, "sampling": {"n_samples": 4096},
    }  # fmt: skip

"""How efficient the path sampler is: ESS both ways, acceptance, ln Z, absolute path KL, variance by level."""

from typing import Any

import numpy as np

from diffsq.exactness import acceptance, forward_ess, jackknife, ln_z, ln_z_forward
from lattice.ensemble import Ensemble
from lattice.statistics import effective_sample_size


def path_diagnostics(samples: Ensemble, forward: dict[str, Any], seed: int) -> dict[str, Any]:
    """Efficiency of the path sampler, reverse and forward; absolute path KL of model, base and Wiener."""
    assert samples.log_weight is not None
    reverse = samples.log_weight
    z, z_error = ln_z(reverse)
    ess, ess_error = effective_sample_size(reverse)
    held_out = np.array(forward["model"])
    chain = forward["chain"]
    ess_forward, ess_forward_error = forward_ess(held_out, chain)
    z_forward, z_forward_error = ln_z_forward(held_out, chain)
    kl: dict[str, Any] = {
        name: float(np.mean(forward[name])) - z for name in ("wiener", "base", "model") if name in forward
    }
    if "base" in forward:
        difference = np.array(forward["base"]) - held_out
        kl["gain"], kl["gain_error"] = jackknife(lambda d: float(d.mean()), difference, chain=chain)
    increments = np.array(forward["increments"])
    return {
        "reverse": {
            "ess": ess,
            "ess_error": ess_error,
            "kl": z - float(reverse.mean()),
            "log_weight": reverse.tolist(),
        },
        "forward": {
            "ess": ess_forward,
            "ess_error": ess_forward_error,
            "kl": float(held_out.mean()) - z,
            "ln_z": z_forward,
            "ln_z_error": z_forward_error,
            "log_weight": held_out.tolist(),
        },
        "acceptance": acceptance(reverse, seed),
        "ln_z": z,
        "ln_z_error": z_error,
        "kl": kl,
        "per_level": {
            "sigma": samples.attrs["generated"]["levels"][1:],
            "variance": increments.var(0).tolist(),
        },
    }

"""A complete run folder of the free field on 8 x 8, where everything is known.

Monte Carlo fields are exact draws, the "sampler" draws from a propagator a few percent off, and its
log-weight is the exact ratio; the training curves and path KL are invented.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from diffsq.run_folder.pulls import rows_of
from lattice.actions.phi4 import FreeScalar
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.writer import write_ensemble
from lattice.files import write_json
from lattice.observables.measure import measure
from lattice.statistics.weights import spread_of

SHAPE, KAPPA, N = (8, 8), 0.22, 1024
VOLUME = 64
CONFIG = """name: layout
seed: 1
action:
  kind: free
  kappa: 0.22
  lam: 0.0
lattice:
  shape: [8, 8]
ensemble: {n_chains: 16}
sde: {sigma_min: 0.15}
"""


def khat2() -> np.ndarray:
    k = 4 * np.sin(np.pi * np.arange(8) / 8) ** 2
    return k[:, None] + k[None, :]


def propagator() -> np.ndarray:
    """G(k) = 1/[2(1 - 2 kappa sum cos k)] of the free action."""
    return 1 / (2 * (1 - 4 * KAPPA + KAPPA * khat2()))


def draw(rng: np.random.Generator, g: np.ndarray, n: int) -> np.ndarray:
    noise = np.fft.fftn(rng.normal(size=(n, *SHAPE)), axes=(1, 2))
    return np.fft.ifftn(noise * np.sqrt(g), axes=(1, 2)).real


def log_density(phi: np.ndarray, g: np.ndarray) -> np.ndarray:
    power = np.abs(np.fft.fftn(phi, axes=(1, 2))) ** 2 / VOLUME
    return -0.5 * (power / g + np.log(2 * np.pi * g)).sum((1, 2))


def write_therm(folder: Path, rng: np.random.Generator) -> None:
    t = np.arange(300)[:, None]
    start = ["hot", "cold"] * 4
    side = np.array([-0.2 if name == "hot" else 2.0 for name in start])
    abs_m = np.abs(0.25 + side * np.exp(-t / 25) + 0.12 * rng.normal(size=(300, 8)))
    with h5py.File(folder / "therm.h5", "w") as file:
        file["abs_magnetization"] = abs_m
        file["magnetization"] = abs_m
        file["action_density"] = 0.5 - 0.4 * side * np.exp(-t / 10) + 0.08 * rng.normal(size=(300, 8))
        file["dH"] = 0.1 * rng.normal(size=(300, 8))
        file.attrs["start"] = json.dumps(start)


def write_train(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    lines = [
        {
            "step": s,
            "loss": 1 + np.exp(-s / 300) + 0.1 * rng.random(),
            "lr": 1e-3,
            "seconds": 0.1 * s,
            "extra": 1,
        }
        for s in range(0, 2000, 10)
    ]
    lines += [
        {
            "step": s,
            "val_gain": 0.11 - 0.13 * np.exp(-s / 300) + 0.004 * rng.normal(),
            "val_gain_error": 0.004,
        }
        for s in range(0, 2001, 250)
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "metrics.jsonl").write_text(
        text + '\n{"step": 2000, "lo', encoding="utf-8"
    )  # cut short by a kill
    sigma = np.geomspace(0.15, 20, 16)
    base = 0.2 * np.exp(-(np.log(sigma / 1.5)[:, None] ** 2) / 2) * np.exp(-np.arange(6) / 2)
    unet = 0.05 * base * (1 - 0.8 * np.arange(6) / 2) + 2e-4 * rng.normal(size=base.shape)  # of both signs
    shells = [
        {"label": f"k^2={value}", "multiplicity": size}
        for value, size in (("0", 1), ("0.59", 4), ("1.17", 4), ("2.00", 4), ("2.59", 8), ("3.41", 4))
    ]
    write_json(
        folder / "validation.json",
        {
            "sigma": sigma,
            "shells": shells,
            "gain_base": base,
            "gain_unet": unet,
            "gain_unet_level_error": np.full(len(sigma), 5e-4),
            "total": {"base": base.sum(), "base_error": 0.03, "unet": unet.sum(), "unet_error": 0.002},
            "history": [{"step": 2000, "gain": unet.sum(), "gain_error": 0.002}],
        },
    )
    write_json(folder / "manifest.json", {"complete": True})


def write_samples(folder: Path, samples: Ensemble, forward: np.ndarray, rng: np.random.Generator) -> dict:
    reverse = samples.log_weight
    ln_z = float(np.log(np.mean(np.exp(reverse))))
    u, v = reverse - ln_z, forward - ln_z
    levels = np.concatenate([[0.0], np.geomspace(0.15, 20, 20)])
    diagnostics = {
        "levels": levels,
        "reverse": {
            "ess": 1 / np.mean(np.exp(2 * u)),
            "ess_error": 0.01,
            **spread_of(reverse),
            "kl": -u.mean(),
            "kl_error": 0.01,
            "log_weight": reverse,
        },
        "forward": {
            "ess": 1 / np.mean(np.exp(v)),
            "ess_error": 0.02,
            **spread_of(forward),
            "kl": v.mean(),
            "kl_error": 0.01,
            "log_weight": forward,
        },
        "acceptance": 0.71,
        "acceptance_error": 0.006,
        "ln_z": ln_z,
        "ln_z_error": float(np.exp(u).std() / np.sqrt(len(u))),
        "kl": {
            "wiener": 3.1,
            "wiener_error": 0.1,
            "base": 0.36,
            "base_error": 0.02,
            "model": 0.25,
            "model_error": 0.02,
            "gain": 0.11,
            "gain_error": 0.004,
        },
        "per_level": {
            "sigma": levels[1:],
            "variance": 0.05 * np.exp(-(np.log(levels[1:]) ** 2)),
        },
    }
    write_ensemble(samples, folder)
    write_json(folder / "diagnostics.json", diagnostics)
    noise = levels[::-1]
    with h5py.File(folder / "sequence.h5", "w") as file:
        file["phi"] = samples.phi[0] + noise[:, None, None] * rng.normal(size=(len(noise), *SHAPE))
        file["sigma"] = noise
    return diagnostics


def certificate() -> dict:
    checks = [
        {
            "name": "Schwinger-Dyson",
            "value": 1.0012,
            "error": 0.0014,
            "expected": "1",
            "passed": True,
            "detail": "0.9 sigma",
        },
        {
            "name": "origin",
            "value": None,
            "error": None,
            "expected": "known history",
            "passed": True,
            "detail": "hot & cold",
        },
    ]
    tau = {
        "abs_magnetization": {"value": 0.52, "error": 0.02},
        "m2": {"tau_int": 0.5, "tau_int_error": 0.02},
        "unit": "saved",
    }
    return {
        "passed": True,
        "reason": "",
        "checks": checks,
        "tau_int": tau,
        "n_independent": 1969.2,
        "acceptance": {"value": 0.91, "error": 0.002},
    }


def synthetic_run(folder: Path) -> Path:
    """Write a complete run folder in the format of the stages."""
    rng = np.random.default_rng(7)
    action, g = FreeScalar(KAPPA), propagator()
    q = g * (1 + 0.12 * np.exp(-khat2()))
    chain = np.arange(N) % 16
    monte_carlo = Ensemble.from_fields(
        draw(rng, g, N), action, chain=chain, attrs={"stride": 4, "n_therm": 300}
    )
    phi = draw(rng, q, N)
    offset = 0.5 * np.log(2 * np.pi * g).sum()  # S = -log p + ln Z, so w = e^-S/q
    samples = Ensemble.from_fields(phi, action, log_weight=log_density(phi, g) - log_density(phi, q) + offset)
    forward = log_density(monte_carlo.phi, g) - log_density(monte_carlo.phi, q) + offset
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    write_ensemble(monte_carlo, folder / "ensemble")
    write_json(folder / "ensemble" / "certificate.json", certificate())
    write_therm(folder / "ensemble", rng)
    write_train(folder / "train" / "score", rng)
    diagnostics = write_samples(folder / "samples" / "score-ve", samples, forward, rng)
    resampled = samples.select(
        rng.choice(N, N, p=np.exp(samples.log_weight) / np.exp(samples.log_weight).sum())
    )
    resampled.trajectory = np.arange(N, dtype=np.int64)
    columns = {
        "training": measure(monte_carlo),
        "raw": measure(samples, ignore_weights=True),
        "weighted": measure(samples),
        "metropolis": measure(resampled, ignore_weights=True),
    }
    exact = {
        "phi2": f"{g.mean():.5f}(1)", "susceptibility_full": f"{g[0, 0]:.4f}(1)", "ln_z": f"{offset:.4f}(1)",
    }  # fmt: skip
    write_json(folder / "summary.json", summary_of(columns, exact, diagnostics))
    return folder


def summary_of(columns: dict[str, Any], exact: dict[str, str], diagnostics: dict[str, Any]) -> dict[str, Any]:
    """summary.json: the columns of the final table against exact numbers, and how well the sampler did."""
    ways = diagnostics["reverse"]["ess"], diagnostics["forward"]["ess"]
    sampling = {
        "n": N, "acceptance": 0.71, "acceptance_error": 0.006, "kl": diagnostics["kl"], "warnings": [],
        "clamped": None,
        "ess": {"reverse": ways[0], "reverse_error": 0.01, "forward": ways[1], "forward_error": 0.02},
        "ln_z": {"value": diagnostics["ln_z"], "error": diagnostics["ln_z_error"]},
        "spread": {way: spread_of(diagnostics[way]["log_weight"]) for way in ("reverse", "forward")},
    }  # fmt: skip
    return {
        "name": "layout", "config": {"ensemble": {"n_chains": 16}}, "columns": columns,
        "reference": {"kappa": KAPPA, "lam": 0.0, "shape": SHAPE, "values": exact},
        "rows": rows_of(columns["training"]), "gated": ["weighted", "metropolis"], "notes": {}, "exact": None,
        "against": "reference", "ensemble_verdict": None, "checks": {}, "sampling": {"score-ve": sampling},
        "seconds": {"ensemble": 31.5, "train": 254.0, "sample": 61.2, "measure": 8.0},
        "verdict": {
            "passed": True, "certified": True, "missing": [], "failed_checks": [], "max_pull": {},
            "against": "reference",
        },
        "versions": {"diffsq": "0.1.0", "packages": {"numpy": "2.4.1"}},
    }  # fmt: skip


GENERATED: dict[str, Any] = {
    "sampler": "path", "law": 1, "process": "ve", "model": "a" * 64, "training_ensemble": "b" * 64,
    "levels": [0.0, 0.2, 0.5, 1.0, 2.0, 4.0], "stream": "sample",
}  # fmt: skip


def weighted_sample(seed: int, first: int = 0, n: int = 400, kappa: float = KAPPA, **other: Any) -> Ensemble:
    """Samples number first, first + 1, ... of a seed: proposals somewhat off, and their exact log-weights."""
    g = propagator()
    q = g * (1 + (0.1 + 0.05 * (seed % 2)) * np.exp(-khat2()))  # the seed is part of the law
    phi = draw(np.random.default_rng([seed, first]), q, n)
    log_w = log_density(phi, g) - log_density(phi, q) + 0.5 * np.log(2 * np.pi * g).sum()
    return Ensemble.from_fields(
        phi, FreeScalar(kappa), trajectory=first + np.arange(n), log_weight=log_w,
        attrs={"generated": {**GENERATED, "seed": seed, **other}},
    )  # fmt: skip

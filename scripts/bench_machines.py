#!/usr/bin/env python
"""Updates of Gaussian machines per second: many replicas in one tensor against a plain NumPy loop over them.

    python scripts/bench_machines.py [--replicas 256] [--sites 10] [--batch 16] [--steps 200] [--repeat 5]

One update draws a mini-batch of fresh fields for a machine and moves its weights by the exact gradient: the
inner loop of `diffsq run dyson_rbm`. Rates are per core, both on one thread, turn by turn on one clock.
"""

# ruff: noqa: E402 - the number of threads must be set before numba and torch start
from __future__ import annotations

import argparse
import os
import sys

if __name__ == "__main__":  # rates are per core
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"

import numpy as np
import torch
from bench_common import machine_line, race, rates

from diffsq.models.rbm import GaussianRBM
from diffsq.training.contrastive import Learning, from_gaussian, learn
from lattice.exact.gaussian_rbm import chain_kernel

MASS, MU2, RATE = 2.0, 9.0, 0.1


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    for name, default in (("replicas", 256), ("sites", 10), ("batch", 16), ("steps", 200), ("repeat", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args(argv)


def batched(args: argparse.Namespace) -> float:
    """All replicas at once; the number of updates."""
    kappa = torch.from_numpy(chain_kernel(args.sites, MASS))
    w = torch.diag((MU2 - kappa).sqrt()).repeat(args.replicas, 1, 1)
    machine = GaussianRBM(w, torch.full((args.replicas,), MU2, dtype=torch.float64))
    draw = from_gaussian(torch.diag(kappa**-0.5), args.batch, 1, args.replicas)
    for _ in learn(machine, torch.diag(1 / kappa), Learning(RATE), args.steps, draw=draw):
        pass
    return float(args.replicas * args.steps)


def looped(args: argparse.Namespace) -> float:
    """One replica after another, as published loops do, but with vectorised NumPy inside a step."""
    kappa, rng = chain_kernel(args.sites, MASS), np.random.default_rng(1)
    eye, few = np.eye(args.sites), max(1, args.replicas // 32)
    for _ in range(few):
        w = np.diag(np.sqrt(MU2 - kappa))
        for _ in range(args.steps):
            phi = rng.standard_normal((args.batch, args.sites)) * kappa**-0.5
            gap = phi.T @ phi / args.batch - np.linalg.inv(MU2 * eye - w @ w.T)
            w = w + RATE * gap @ w
    return float(few * args.steps)


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    found = race({"batched": lambda: batched(args), "looped": lambda: looped(args)}, args.repeat)
    fast, slow = (float(np.median(rates(found[name]))) for name in ("batched", "looped"))
    print(machine_line())
    print(f"{args.replicas} machines of {args.sites} sites, batch {args.batch}: replica-updates per second")
    print(f"  one tensor   {fast:12.0f}")
    print(f"  NumPy loop   {slow:12.0f}")
    print(f"  ratio        {fast / slow:12.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

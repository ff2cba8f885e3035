"""`diffsq doctor`: what a bug report needs, and a self-test of a few seconds.

The self-test is physics, not stored output: the published known answer of the random number generator, the
force against central differences, and the Schwinger-Dyson identity <phi dS/dphi> = 1 per site on a small run.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lattice.errors import InputError
from lattice.provenance import code_version

MIN_FREE_GB = 1.0


def examine(folder: Path, say: Callable[[str], None] = print) -> bool:
    """Print versions, device, threads, disk and the self-test; True when nothing is wrong.

    folder: where runs would go.  Raises `InputError` when it does not exist.
    """
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}")
    for line in describe():
        say(line)
    passed, place = True, (partial(disk, folder), partial(writable, folder))
    for check in (*place, philox_known_answer, force, schwinger_dyson):
        try:
            good, text = check()
        except Exception as error:  # a broken installation can fail in any way; the doctor must report it
            good, text = False, f"{type(error).__name__}: {error}"
        say(f"{'ok    ' if good else 'FAILED'}  {text}")
        passed &= good
    say("all well" if passed else "something is wrong: see FAILED above")
    return passed


def describe() -> list[str]:
    """Versions, device and threads, one line each."""
    code = code_version()
    git = f", git {code['git'][:12]}{' (changed)' if code['dirty'] else ''}" if code["git"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in code["packages"].items())
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cpu = f"cpu ({'no GPU seen' if torch.version.cuda else 'CPU build of PyTorch'})"
    device = ", ".join(cuda) or cpu
    names = [name for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS") if name in os.environ]
    environment = "".join(f"{mark} {name}={os.environ[name]}" for mark, name in zip(";,", names))
    return [
        f"diffsq   {code['diffsq']}{git}",
        f"versions {versions}",
        f"machine  {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        f"device   {device}",
        f"threads  torch {torch.get_num_threads()}{environment}",
    ]


def disk(folder: Path) -> tuple[bool, str]:
    """Free space where runs would go."""
    free = shutil.disk_usage(folder).free / 1e9
    words = f"{free:.1f} GB free in {folder.resolve()} (a demo run needs {MIN_FREE_GB:.0f})"
    return free >= MIN_FREE_GB, words


def writable(folder: Path) -> tuple[bool, str]:
    """Whether a file can be made there."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True, f"can write in {folder.resolve()}"
    except OSError as error:
        return False, f"cannot write in {folder.resolve()}: {error.strerror}"


def philox_known_answer() -> tuple[bool, str]:
    """Philox4x32-10 with key and counter zero (Salmon et al., SC'11, known-answer vectors)."""
    from lattice.rng import philox

    zero = np.uint64(0)
    words = [int(w) for w in philox(zero, zero, zero, zero, zero, zero)]
    return words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8], "random numbers: Philox known answer"


def force() -> tuple[bool, str]:
    """dS/dphi against central differences at one site."""
    from lattice.actions.phi4 import ScalarPhi4

    action, step = ScalarPhi4(kappa=0.27, lam=0.022), 1e-4
    phi = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64).reshape(1, 4, 4)
    shift = torch.zeros_like(phi)
    shift[0, 1, 2] = step
    numeric = float((action.action(phi + shift) - action.action(phi - shift)).item()) / (2 * step)
    error = abs(numeric - float(action.grad(phi)[0, 1, 2].item()))
    return error < 1e-7, f"force against differences of S: off by {error:.1e}"


def schwinger_dyson(n_chains: int = 256, n_trajectories: int = 60) -> tuple[bool, str]:
    """<phi dS/dphi> = 1 per site over independent HMC chains on 4x4, within 5 of its own errors."""
    from lattice.actions.phi4 import ScalarPhi4
    from lattice.statistics.pulls import mean_and_error
    from lattice.updates.hmc import hmc_trajectory

    action, chains = ScalarPhi4(kappa=0.2, lam=0.1), np.arange(n_chains, dtype=np.int64)
    phi, total = np.zeros((n_chains, 4, 4)), np.zeros(n_chains)
    burn = n_trajectories // 3
    for t in range(n_trajectories):
        phi, _ = hmc_trajectory(action, phi, seed=1, chains=chains, trajectory=t, length=1.5, n_steps=8)
        if t >= burn:
            total += (phi * action.grad(torch.from_numpy(phi)).numpy()).mean(axis=(1, 2))
    value, error = mean_and_error(total / (n_trajectories - burn))
    return abs(value - 1) < 5 * error, f"HMC: <phi dS/dphi> = {value:.4f} +- {error:.4f}, exactly 1 expected"

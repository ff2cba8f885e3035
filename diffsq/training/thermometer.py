r"""A network that reads the temperature off spins, and how far it can be trusted.

tanh layers and a softmax over the temperatures it was trained at, by cross entropy; what it reads is the mean
<T> of that law (Iso, Shiba, Yokoo 1801.07172). Unlike exact curves it gives an answer for any configuration
whatever, of one temperature or of none: `calibrate` gives its bias and spread at true temperatures, and
`shuffled`, with the same m and no correlation left, what it takes for one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.nn.functional import cross_entropy

from lattice.arrays import Floats, real_array
from lattice.errors import InputError
from lattice.files import write_atomic
from lattice.rng import uniforms

WIDTHS = (256, 64)
PART = 4096  # configurations at a time


@dataclass(frozen=True)
class Thermometer:
    """temperatures (n_t,), rising; layers: weights (n_in, n_out) and biases (n_out,), float32."""

    temperatures: Floats
    layers: tuple[tuple[Tensor, Tensor], ...]

    def probabilities(self, spins: Any) -> Floats:
        """Of the temperatures (n, n_t), for spins (n, n_sites). Raises `InputError` for other sites."""
        x = self._checked(spins)
        with torch.no_grad():
            parts = (x[first : first + PART] for first in range(0, len(x), PART))
            found = [torch.softmax(scores(self.layers, part), -1) for part in parts]
        whole: Floats = torch.cat(found).double().numpy()
        return whole

    def read(self, spins: Any) -> Floats:
        """<T> (n,) of every configuration. It is inside the range of training whatever the spins are: compare
        with `Calibration.temperature`, which refuses."""
        p = self.probabilities(spins)
        found: Floats = p @ self.temperatures / p.sum(1)
        return found

    def _checked(self, spins: Any) -> Tensor:
        x = torch.from_numpy(real_array(spins, "spins")).float()
        n = self.layers[0][0].shape[0]
        if x.ndim != 2 or x.shape[1] != n or not len(x):
            raise InputError(f"the thermometer reads spins (n, {n}), got {list(x.shape)}")
        if not bool(torch.isfinite(x).all()):
            raise InputError("spins are NaN or infinite")
        return x


@dataclass(frozen=True)
class Calibration:
    """What is read at true temperatures t (n_t,): mean, its error, and sd, that of one configuration."""

    t: Floats
    mean: Floats
    error: Floats
    sd: Floats

    @property
    def bias(self) -> Floats:
        return self.mean - self.t

    def temperature(self, reading: float, error: float = 0.0) -> tuple[float, float]:
        """The true T, with error, at which the mean reading is this one.

        Raises `InputError` outside the range of the calibration, where it knows nothing, and where the means
        do not rise.
        """
        if not (np.diff(self.mean) > 0).all():
            raise InputError("the mean readings do not rise with T: more steps, data or a coarser grid")
        low, high = float(self.mean[0]), float(self.mean[-1])
        if not low <= reading <= high:
            raise InputError(
                f"a reading of {reading:.4g} is outside those in the range of training, {low:.4g} to "
                f"{high:.4g}"
            )
        place = min(int(np.searchsorted(self.mean, reading, side="right")), len(self.t) - 1)
        slope = (self.mean[place] - self.mean[place - 1]) / (self.t[place] - self.t[place - 1])
        own = float(np.interp(reading, self.mean, self.error))
        return float(np.interp(reading, self.mean, self.t)), math.hypot(error, own) / float(slope)


def as_units(spins: Any, q: int = 0) -> Floats:
    """What the network sees of spins (n, n_sites): +-1 themselves, of Potts one number for each state."""
    x = real_array(spins, "spins")
    if not q:
        return x
    return np.asarray(x[..., None] == np.arange(q), dtype=np.float64).reshape(len(x), -1)


def scores(layers: tuple[tuple[Tensor, Tensor], ...], x: Tensor) -> Tensor:
    """What the softmax is of (n, n_t), for x (n, n_sites)."""
    for w, b in layers[:-1]:
        x = torch.tanh(x @ w + b)
    w, b = layers[-1]
    return x @ w + b


def train_thermometer(
    spins: Any, t: Any, seed: int, *, widths: tuple[int, ...] = WIDTHS, n_steps: int = 4000,
    rate: float = 1e-3, batch: int = 100,
) -> Thermometer:  # fmt: skip
    """A thermometer of spins (n, n_sites) at temperatures t (n,), by Adam; a function of seed and data.

    Raises `InputError` for numbers that are not finite, fewer than two temperatures, and numbers of steps,
    rows and nodes that are none.
    """
    x, t = torch.from_numpy(real_array(spins, "spins")).float(), real_array(t, "t")
    if x.ndim != 2 or t.shape != (len(x),) or not (bool(torch.isfinite(x).all()) and np.isfinite(t).all()):
        raise InputError(
            f"need finite spins (n, n_sites) and a temperature each, got {list(x.shape)}, {t.shape}"
        )
    grid, labels = np.unique(t, return_inverse=True)
    if len(grid) < 2:
        raise InputError("a thermometer is trained at two temperatures or more")
    if min(n_steps, batch, *widths, 1) < 1 or not 0 < rate <= 1:
        raise InputError(
            f"need steps, rows, nodes and a rate in (0, 1], got {n_steps}, {batch}, {widths} and {rate:g}"
        )
    generator = torch.Generator().manual_seed(seed)
    sizes = (x.shape[1], *widths, len(grid))
    noise = [torch.randn(n, m, generator=generator) / math.sqrt(n) for n, m in zip(sizes[:-1], sizes[1:])]
    layers = tuple((w.requires_grad_(), torch.zeros(w.shape[1], requires_grad=True)) for w in noise)
    classes = torch.from_numpy(labels.reshape(-1))
    adam = torch.optim.Adam([p for layer in layers for p in layer], lr=rate)
    for _ in range(n_steps):
        rows = torch.randint(len(x), (batch,), generator=generator)
        adam.zero_grad()
        loss = cross_entropy(scores(layers, x[rows]), classes[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return Thermometer(grid, tuple((w.detach(), b.detach()) for w, b in layers))


def calibrate(thermometer: Thermometer, spins: Any, t: Any) -> Calibration:
    """The calibration from spins (n, n_sites), not those of the training, at true temperatures t (n,).

    Raises `InputError` outside the range of the training, and for one configuration at a temperature.
    """
    t, read = real_array(t, "t"), thermometer.read(spins)
    if t.shape != read.shape:
        raise InputError(f"{len(read)} configurations have as many temperatures, got {t.shape}")
    low, high = thermometer.temperatures[[0, -1]]
    if not ((t >= low) & (t <= high)).all():
        raise InputError(f"the thermometer was trained from T = {low:g} to {high:g}, and knows no other")
    grid, counts = np.unique(t, return_counts=True)
    if counts.min() < 2:
        raise InputError("the spread needs two configurations or more at every temperature")
    parts = [read[t == x] for x in grid]
    mean, sd = (np.array(x) for x in zip(*[(part.mean(), part.std(ddof=1)) for part in parts]))
    return Calibration(grid, mean, sd / np.sqrt(counts), sd)


def shuffled(spins: Any, seed: int) -> Floats:
    """Spins (n, n_sites) with the sites of each configuration in another order of its own."""
    x = real_array(spins, "spins")
    order = uniforms(seed, "thermometer/shuffle", np.arange(len(x)), 0, x.shape[1]).argsort(1)
    return np.take_along_axis(x, order, 1)


def save_thermometer(thermometer: Thermometer, path: str | Path) -> None:
    """Write one safetensors file: temperatures, and w and b of every layer."""
    tensors = {"temperatures": torch.from_numpy(thermometer.temperatures)}
    for i, (w, b) in enumerate(thermometer.layers):
        tensors |= {f"w{i}": w.contiguous(), f"b{i}": b.contiguous()}
    write_atomic(Path(path), save(tensors))


def load_thermometer(path: str | Path) -> Thermometer:
    """The thermometer of a file. Raises `InputError` when missing, damaged or of another kind."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no thermometer here")
    try:
        tensors = load(path.read_bytes())
        n = (len(tensors) - 1) // 2
        layers = tuple((tensors[f"w{i}"], tensors[f"b{i}"]) for i in range(n))
        found = Thermometer(tensors["temperatures"].double().numpy(), layers)
        sizes = [w.shape[1] for w, _ in layers]
        fits = all(w.shape[0] == m for (w, _), m in zip(layers[1:], sizes[:-1]))
        sound = n > 0 and fits and len(found.temperatures) == sizes[-1] and all(
            b.shape == (m,) and bool(torch.isfinite(w).all() and torch.isfinite(b).all())
            for (w, b), m in zip(layers, sizes)
        )  # fmt: skip
    except (SafetensorError, KeyError, IndexError) as error:
        raise InputError(f"{path}: not the file of a thermometer: {error}") from None
    if not sound:
        raise InputError(f"{path}: not the layers of a thermometer")
    return found

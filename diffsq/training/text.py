r"""Spectra of a transformer of characters while it learns a text, and while it learns the text shuffled.

The weights begin as random matrices and leave the law of Marchenko and Pastur as they learn, as in the
nano-GPT of 2411.13512; the spacing ratio stays that of the GOE. The text is `pydoc_data.topics`, which comes
with Python and differs by its version: its hash is kept. The control is the same text with its characters in
random order: what can be learned of it is their frequencies alone, so the loss, nats a character, ends at

    H = - sum_c p_c ln p_c.

Training: AdamW without decay, betas (0.9, 0.95) (Loshchilov, Hutter 1711.05101), gradients clipped at norm 1.
The mini-batch of a step is a function of seed and step, so a stopped run goes on to the same bits.
"""

from __future__ import annotations

import json
import math
import platform
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from diffsq.models.spectra import SMALLEST, pooled_ratio, spectrum
from diffsq.models.transformer import KINDS, CharTransformer, check_sizes
from diffsq.training.checkpoint import load_checkpoint, pack_optimizer, save_checkpoint, unpack_optimizer
from lattice.errors import InputError
from lattice.files import canonical_json, json_data, read_json, sha256_text, write_json
from lattice.progress import Progress
from lattice.rng import uniforms

VERSION = 1  # of the training: raise it with any change
BETAS, CLIP = (0.9, 0.95), 1.0
WINDOWS = 256  # of the text held out, at most: some tenths of a second


@dataclass(frozen=True)
class TextTraining:
    """Model and training. at: steps at which spectra are taken, rising from 0; val_fraction: of the text, its
    end, held out. Raises `InputError` for what makes no sense."""

    n_layers: int = 2
    n_heads: int = 4
    width: int = 64
    block: int = 64
    batch: int = 16
    learning_rate: float = 1e-3
    n_steps: int = 1500
    at: tuple[int, ...] = (0, 30, 100, 300, 1000, 1500)
    val_fraction: float = 0.1
    checkpoint_every: int = 250

    def __post_init__(self) -> None:
        check_sizes(self.n_layers, self.n_heads, self.width, self.block)
        if self.width < SMALLEST:
            raise InputError(f"a width of {self.width} has no spectra; take at least {SMALLEST}")
        if min(self.batch, self.checkpoint_every) < 1 or self.n_steps < 0:
            got = f"{self.batch}, {self.checkpoint_every} and {self.n_steps}"
            raise InputError(f"need batch and checkpoint_every >= 1 and n_steps >= 0, got {got}")
        if not 0 <= self.learning_rate < math.inf or not 0 < self.val_fraction < 1:
            got = f"{self.learning_rate} and {self.val_fraction}"
            raise InputError(f"need learning_rate >= 0 and 0 < val_fraction < 1, got {got}")
        at = list(self.at)
        if not at or at[0] != 0 or at != sorted(set(at)) or at[-1] > self.n_steps:
            raise InputError(
                f"spectra are taken at steps that rise from 0 to at most {self.n_steps}, got {at}; "
                "begin with 0"
            )

    def held_out(self, n: int) -> int:
        """Characters held out of n. Raises `InputError` where a batch or a block is larger than the text."""
        held = round(self.val_fraction * n)
        if min(held, n - held) <= self.block:
            raise InputError(
                f"a text of {n} characters, {held} of them held out, has not {self.block + 1} in both parts; "
                "take a smaller block or a longer text"
            )
        if self.batch > n - held - self.block:
            raise InputError(
                f"a batch of {self.batch} pieces, the text has {n - held - self.block}; take a smaller batch"
            )
        return held


def corpus() -> tuple[str, str]:
    """The help texts of Python's own documentation in the order of their keys, one after the other, and the
    sha256 of them."""
    text = "".join(topics[key] for key in sorted(topics))
    return text, sha256_text(text)


def shuffled(text: str, seed: int) -> str:
    """The same characters in random order."""
    order = uniforms(seed, "text/shuffle", np.arange(1), 0, len(text))[0].argsort(kind="stable")
    return "".join(np.array(list(text))[order])


def unigram_entropy(text: str) -> float:
    """H = - sum p ln p of its characters, in nats."""
    counts = np.array(list(Counter(text).values())) / max(len(text), 1)
    return float(-(counts * np.log(counts)).sum())


def batch_at(text: Tensor, settings: TextTraining, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Characters (batch, block) of a step, and those that follow each."""
    u = uniforms(seed, "text/batch", np.arange(1), step, settings.batch)[0]
    starts = torch.from_numpy((u * (len(text) - settings.block)).astype(np.int64))
    pieces = text[starts[:, None] + torch.arange(settings.block + 1)]
    return pieces[:, :-1], pieces[:, 1:]


def _windows(text: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """At most WINDOWS pieces (n, block), evenly spread, not overlapping, and what follows each character."""
    n = (len(text) - 1) // block
    starts = block * torch.from_numpy(np.linspace(0, n - 1, min(n, WINDOWS)).round().astype(np.int64))
    pieces = text[starts[:, None] + torch.arange(block + 1)]
    return pieces[:, :-1], pieces[:, 1:]


def _loss(model: CharTransformer, pieces: tuple[Tensor, Tensor]) -> Tensor:
    return functional.cross_entropy(model(pieces[0]).flatten(0, 1), pieces[1].flatten())


def record(model: CharTransformer, step: int, held_out: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """What is kept of a step: loss, means of the spectra over layers by kind, the pooled ratio, all x."""
    with torch.no_grad():
        loss = float(_loss(model, held_out))
    found = {name: spectrum(w.double().numpy(), name) for name, w in model.matrices().items()}
    kinds = {}
    for kind in KINDS:
        of_kind = [s for name, s in found.items() if name.split(".")[1] == kind]
        kinds[kind] = {
            "ks": float(np.mean([s.ks for s in of_kind])),
            "outliers": float(np.mean([s.outliers for s in of_kind])),
            "largest_over_edge": float(np.mean([s.over_edge for s in of_kind])),
            "stable_rank": float(np.mean([s.stable_rank for s in of_kind])),
        }
    ratio, error, null = pooled_ratio(list(found.values()))
    return {
        "step": step, "val_loss": loss, "kinds": kinds, "ratio": ratio, "ratio_error": error,
        "ratio_null": null, "x": {name: s.x.tolist() for name, s in found.items()},
    }  # fmt: skip


def train_text(
    settings: TextTraining, seed: int, out: Path, *, is_shuffled: bool, progress: Progress,
    text: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train one model and return `out`/row.json, which is written at the end, and read if it is there.

    text: instead of `corpus`. A checkpoint of `out` with the same settings, seed and text is gone on from.
    Keys: seed, shuffled, settings, text_sha256 (of the text as it is learned), n_symbols, n_parameters,
    unigram_entropy, python, at [{step, val_loss, kinds {q ... out: {ks, outliers, largest_over_edge,
    stable_rank}}, ratio, ratio_error, ratio_null}], eigenvalues {step: {matrix: x}} at the first and the last
    of `at`. Raises `InputError` for a row of other settings, a text too short, and a loss that is not finite.
    """
    text = corpus()[0] if text is None else text
    text = shuffled(text, seed) if is_shuffled else text
    about = {
        "version": VERSION, "seed": seed, "shuffled": is_shuffled,
        "settings": json_data(asdict(settings), "settings"), "text_sha256": sha256_text(text),
    }  # fmt: skip
    if (out / "row.json").exists():
        return _known(out / "row.json", about)
    n_held, alphabet = settings.held_out(len(text)), sorted(set(text))
    code = {character: i for i, character in enumerate(alphabet)}
    numbers = torch.tensor([code[character] for character in text])
    model = CharTransformer(
        len(alphabet), settings.n_layers, settings.n_heads, settings.width, settings.block,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    records = _train(model, numbers[:-n_held], numbers[-n_held:], settings, about, out, progress)
    row = about | {
        "n_symbols": len(alphabet), "n_parameters": model.n_parameters(),
        "unigram_entropy": unigram_entropy(text), "python": platform.python_version(),
        "at": [{key: value for key, value in one.items() if key != "x"} for one in records],
        "eigenvalues": {str(one["step"]): one["x"] for one in (records[0], records[-1])},
    }  # fmt: skip
    write_json(out / "row.json", row)
    return read_json(out / "row.json")


def _known(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    row = read_json(path)
    other = [key for key, value in about.items() if row.get(key) != value]
    if other:
        raise InputError(
            f"{path}: there already, of another {' and '.join(other)}; choose another folder, or move it"
        )
    return row


def _train(
    model: CharTransformer, text: Tensor, held_out: Tensor, settings: TextTraining, about: dict[str, Any],
    out: Path, progress: Progress,
) -> list[dict[str, Any]]:  # fmt: skip
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=BETAS, weight_decay=0.0
    )
    key, windows = sha256_text(canonical_json(about)), _windows(held_out, settings.block)
    done, records = _resumed(model, optimizer, out, key)
    if done == 0:
        records = [record(model, 0, windows)]
    progress.start(settings.n_steps, "shuffled text" if about["shuffled"] else "text", done)
    for step in range(done, settings.n_steps):
        loss = _loss(model, batch_at(text, settings, about["seed"], step))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        if not math.isfinite(float(norm)):
            raise InputError(
                f"the gradient is not finite at step {step + 1}; take a learning_rate below "
                f"{settings.learning_rate:g}"
            )
        optimizer.step()
        if step + 1 in settings.at:
            records.append(record(model, step + 1, windows))
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.n_steps:
            _save(model, optimizer, out, key, step + 1, records)
        progress.update(loss=float(loss.detach()))
    progress.close()
    return records


def _save(
    model: CharTransformer, optimizer: torch.optim.Optimizer, out: Path, key: str, step: int,
    records: list[dict[str, Any]],
) -> None:  # fmt: skip
    # records go into the same file: they cannot fall behind the weights, whenever a run is killed
    image = torch.frombuffer(bytearray(json.dumps(records).encode()), dtype=torch.uint8)
    adam = pack_optimizer(optimizer.state_dict())
    parts = {"model": model.state_dict(), "adam": adam, "records": {"json": image}}
    save_checkpoint(out, step, key, parts)


def _resumed(
    model: CharTransformer, optimizer: torch.optim.Optimizer, out: Path, key: str
) -> tuple[int, list[dict[str, Any]]]:
    found = load_checkpoint(out, key)
    if found is None:
        return 0, []
    step, parts = found
    model.load_state_dict(parts["model"])
    optimizer.load_state_dict(unpack_optimizer(optimizer.state_dict(), parts["adam"]))
    records: list[dict[str, Any]] = json.loads(parts["records"]["json"].numpy().tobytes())
    return step, records

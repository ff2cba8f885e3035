"""The transformer of characters: its size, its causality, its first weights, against plain formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffsq.models.spectra import null_of, spectrum
from diffsq.models.transformer import CharTransformer
from lattice.errors import InputError

N_SYMBOLS = 103


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(seed: int = 1, **sizes: Any) -> CharTransformer:
    return CharTransformer(N_SYMBOLS, **sizes, generator=seeded(seed))


def symbols(n: int = 4, places: int = 64) -> Tensor:
    return torch.randint(N_SYMBOLS, (n, places), generator=seeded(7))


def test_the_size_is_that_of_the_published_arrangement() -> None:
    """Biases in all six maps, and the embedding of symbols again at the end."""
    assert model().n_parameters() == 110_784
    shapes = {name: tuple(w.shape) for name, w in model().matrices().items()}
    assert len(shapes) == 12
    assert {shapes[f"1.{kind}"] for kind in ("q", "k", "v", "proj")} == {(64, 64)}
    assert shapes["0.fc"] == (256, 64)
    assert shapes["0.out"] == (64, 256)


@pytest.mark.parametrize("place", [1, 20, 63])
def test_a_later_character_changes_no_earlier_logit(place: int) -> None:
    one = symbols()
    other = one.clone()
    other[:, place] = (other[:, place] + 1) % N_SYMBOLS
    with torch.no_grad():
        before, after = model()(one), model()(other)
    assert torch.equal(before[:, :place], after[:, :place])
    assert (before[:, place:] - after[:, place:]).abs().amax((0, 2)).min() > 1e-6, "later places all see it"


def test_attention_is_the_written_formula() -> None:
    """One layer, head by head, with loops over the places."""
    net = model(n_layers=1, n_heads=2, width=8, block=5).double()
    layer: Any = net.layers[0]
    x = torch.randn(1, 5, 8, generator=seeded(3), dtype=torch.float64)
    for parameter in layer.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=seeded(4), dtype=torch.float64)
    normed = layer.before_attention(x)[0]
    q, k, v = (normed @ one.weight.T + one.bias for one in (layer.q, layer.k, layer.v))
    mixed = torch.zeros(5, 8, dtype=torch.float64)
    for head in (slice(0, 4), slice(4, 8)):
        for i in range(5):
            weights = torch.softmax(k[: i + 1, head] @ q[i, head] / 2.0, 0)
            mixed[i, head] = weights @ v[: i + 1, head]
    y = x[0] + mixed @ layer.proj.weight.T + layer.proj.bias
    up = layer.before_mlp(y) @ layer.fc.weight.T + layer.fc.bias
    known = y + 0.5 * up * (1 + torch.erf(up / 2**0.5)) @ layer.out.weight.T + layer.out.bias
    assert (layer(x)[0] - known).abs().max() < 1e-12


def test_the_first_weights_are_random_matrices() -> None:
    """Standard deviations 0.02 and 0.02/sqrt(2 layers) within 5 sigma; spectra of Marchenko and Pastur."""
    inside = 0
    for name, w in model().matrices().items():
        deviation = 0.01 if name.endswith(("proj", "out")) else 0.02
        assert abs(float(w.std()) / deviation - 1) < 5 / math.sqrt(2 * w.numel())
        found = spectrum(w.double().numpy(), name)
        inside += found.ks < null_of(found.shape).ks_95
        assert found.outliers <= 1
    assert inside >= 9, "of 12, at 95 % each"


def test_a_matrix_with_something_in_it_is_told_from_a_random_one() -> None:
    w = model().matrices()["0.out"].double().numpy()
    rank_one = 0.5 * np.outer(np.ones(64), np.ones(256)) / 128
    assert spectrum(w + 4 * rank_one).outliers == 1
    heavy = w * np.exp(np.linspace(-1, 1, 64))[:, None]
    assert spectrum(heavy).ks > 2 * null_of((64, 256)).ks_95


def test_the_first_loss_is_that_of_guessing() -> None:
    """ln 103 for unrelated symbols; the tied embedding only makes the symbol before likelier."""
    one = symbols(64)
    with torch.no_grad():
        logits = model()(one)
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), one[:, 1:].flatten())
    assert float(loss) == pytest.approx(math.log(N_SYMBOLS), abs=0.1)
    same = logits.gather(2, one[..., None]).mean()
    assert float(same - logits.mean()) > 0.5


def test_weights_depend_on_the_generator_alone() -> None:
    torch.manual_seed(1)
    one = model(1).state_dict()
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    again, other = model(1).state_dict(), model(2).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["symbols"], other["symbols"])
    assert torch.equal(state, torch.random.get_rng_state()), "the global stream is not touched"


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"n_heads": 3}, "cannot be shared by 3 heads; take a multiple, 66"),
        ({"n_layers": 0}, "at least 1, got 0"),
        ({"block": -1}, "at least 1"),
    ],
)
def test_sizes_that_make_no_model(sizes: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        model(**sizes)


def test_inputs_that_fit_no_model() -> None:
    with pytest.raises(InputError, match="places for 64: cut the text"):
        model()(symbols(1, 65))
    with pytest.raises(InputError, match="nothing to predict"):
        CharTransformer(1, generator=seeded())

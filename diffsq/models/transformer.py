r"""A small transformer of characters, its queries, keys and values apart: each matrix has its own spectrum.

With x (block, width) the sum of the embeddings of a symbol and of its place, each layer adds

    x += softmax(Q K^T/sqrt(d), places up to one's own) V proj,    Q, K, V = LN(x) W_q, LN(x) W_k, LN(x) W_v
    x += GELU(LN(x) fc) out,                                       fc: width -> 4 width

d = width/n_heads (Vaswani et al. 1706.03762; the norms before: Radford et al., GPT-2, 2019). The symbol to
come has the logits LN(x) E^T, E the embedding of symbols itself. All six maps of a layer have a bias. Weights
start as N(0, 0.02^2), those back into x, proj and out, as N(0, 0.02^2/(2 n_layers)): by the law of Marchenko
and Pastur. 2 layers of width 64, 64 places and 103 symbols are 110 784 parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lattice.errors import InputError

KINDS = ("q", "k", "v", "proj", "fc", "out")
DEVIATION = 0.02
MLP = 4


class Map(nn.Module):
    """x (..., n_in) -> x weight^T + bias (..., n_out): weights N(0, deviation^2) of `generator`, bias 0."""

    def __init__(self, n_in: int, n_out: int, deviation: float, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(deviation * torch.randn(n_out, n_in, generator=generator))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


class Layer(nn.Module):
    """Attention and perceptron, (batch, places, width) to the same."""

    def __init__(self, n_heads: int, width: int, back: float, generator: torch.Generator) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v = (Map(width, width, DEVIATION, generator) for _ in range(3))
        self.proj = Map(width, width, back, generator)
        self.fc = Map(width, MLP * width, DEVIATION, generator)
        self.out = Map(MLP * width, width, back, generator)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.before_attention(x)
        q, k, v = (self._heads(one(normed)) for one in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        added: Tensor = self.out(functional.gelu(self.fc(self.before_mlp(x))))
        return x + added

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.n_heads, -1).transpose(1, 2)


class CharTransformer(nn.Module):
    """Symbols (batch, places <= block) of 0 ... n_symbols - 1 to logits (batch, places, n_symbols), those of
    the symbol after each.

    generator: of the first weights, which depend on it alone. Raises `InputError` for sizes below one, for a
    width that the heads do not divide, and where there are more places than `block`.
    """

    def __init__(
        self, n_symbols: int, n_layers: int = 2, n_heads: int = 4, width: int = 64, block: int = 64, *,
        generator: torch.Generator,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(n_layers, n_heads, width, block)
        if n_symbols < 2:
            raise InputError(f"a text of {n_symbols} symbols has nothing to predict; at least 2 are needed")
        self.block = block
        self.symbols = nn.Parameter(DEVIATION * torch.randn(n_symbols, width, generator=generator))
        self.places = nn.Parameter(DEVIATION * torch.randn(block, width, generator=generator))
        back = DEVIATION / (2 * n_layers) ** 0.5
        self.layers = nn.ModuleList(Layer(n_heads, width, back, generator) for _ in range(n_layers))
        self.last_norm = nn.LayerNorm(width)

    def forward(self, symbols: Tensor) -> Tensor:
        n = symbols.shape[1]
        if n > self.block:
            raise InputError(f"{n} characters at a time, the model has places for {self.block}: cut the text")
        x = functional.embedding(symbols, self.symbols) + self.places[:n]
        for layer in self.layers:
            x = layer(x)
        return functional.linear(self.last_norm(x), self.symbols)

    def matrices(self) -> dict[str, Tensor]:
        """The weights (n_out, n_in) as LAYER.KIND: 0.q, 0.k, 0.v, 0.proj, 0.fc, 0.out, 1.q, ..."""
        return {
            f"{i}.{kind}": getattr(layer, kind).weight.detach()
            for i, layer in enumerate(self.layers)
            for kind in KINDS
        }

    def n_parameters(self) -> int:
        """Numbers that are learned."""
        return sum(p.numel() for p in self.parameters())


def check_sizes(n_layers: int, n_heads: int, width: int, block: int) -> None:
    """Raises `InputError` for sizes of which no transformer can be made."""
    if min(n_layers, n_heads, width, block) < 1:
        got = f"{n_layers}, {n_heads}, {width} and {block}"
        raise InputError(f"n_layers, n_heads, width and block must be at least 1, got {got}")
    if width % n_heads:
        raise InputError(
            f"a width of {width} cannot be shared by {n_heads} heads; take a multiple, "
            f"{width - width % n_heads + n_heads} for one"
        )

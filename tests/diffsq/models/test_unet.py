"""The U-Net: odd, periodic, bounded, and silent until trained."""

from __future__ import annotations

import pytest
import torch
from fields import generator, white
from torch import Tensor, nn
from torch.nn import functional

from diffsq.models.unet import PeriodicConv, UNet

C_IN, N_CONDITION = 3, 5


def network(n_levels: int, seed: int = 1, scale: float = 1.0, channels: int = 8) -> UNet:
    """Random weights everywhere, also in the heads and gains that start at zero."""
    net = UNet(C_IN, N_CONDITION, channels, n_levels)
    gen = generator(seed)
    for weight in net.parameters():
        fan_in = weight[0].numel() if weight.dim() > 1 else 8
        weight.data = scale * torch.randn(weight.shape, generator=gen) / fan_in**0.5
    return net


def inputs(shape: tuple[int, int], n: int = 4, seed: int = 2) -> tuple[Tensor, Tensor]:
    return white((C_IN, *shape), n, seed).float(), white((N_CONDITION,), n, seed + 1).float()


@pytest.mark.parametrize("n_levels", [1, 2, 3])
def test_odd_to_rounding(n_levels: int) -> None:
    net, (h, c) = network(n_levels), inputs((8, 8))
    out = net(h, c)
    assert out.abs().max() > 0.1
    assert (out + net(-h, c)).abs().max() < 1e-5
    # an even input channel would spoil it
    even = torch.cat([h[:, :1], h[:, 1:].abs()], 1)
    flipped = torch.cat([-h[:, :1], h[:, 1:].abs()], 1)
    assert (net(even, c) + net(flipped, c)).abs().max() > 0.1


def test_no_bias_where_the_field_passes() -> None:
    net = network(3)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) > 10
    assert all(m.bias is None for m in convolutions)
    assert net.zero_mode.bias is None
    h, c = inputs((8, 8))
    assert net(torch.zeros_like(h), c).abs().max() == 0
    net.stem.conv.bias = nn.Parameter(torch.full((8,), 0.3))
    assert net(torch.zeros_like(h), c).abs().max() > 0.01


@pytest.mark.parametrize(("n_levels", "shape"), [(1, (5, 7)), (2, (8, 8)), (3, (8, 16)), (3, (12, 8))])
def test_rolling_the_input_rolls_the_output(n_levels: int, shape: tuple[int, int]) -> None:
    net, (h, c) = network(n_levels), inputs(shape)
    out, stride = net(h, c), 2 ** (n_levels - 1)
    for shift in ((stride, 0), (0, stride), (-stride, 2 * stride)):
        torch.testing.assert_close(net(h.roll(shift, (2, 3)), c), out.roll(shift, (1, 2)), rtol=0, atol=1e-5)
        assert (out.roll(shift, (1, 2)) - out).abs().max() > 0.1
    if stride > 1:  # the other shifts are left to `Symmetry`
        assert (net(h.roll(1, 2), c) - out.roll(1, 1)).abs().max() > 1e-3


def test_zero_padding_would_break_the_torus(monkeypatch: pytest.MonkeyPatch) -> None:
    net, (h, c) = network(2), inputs((8, 8))
    monkeypatch.setattr(PeriodicConv, "forward", lambda self, q: self.conv(functional.pad(q, (1, 1, 1, 1))))
    assert (net(h.roll(2, 2), c) - net(h, c).roll(2, 1)).abs().max() > 0.1


def test_convolution_is_the_sum_over_the_periodic_neighbourhood() -> None:
    conv, x = PeriodicConv(1, 1), white((1, 4, 6), 2, 3).float()
    kernel = conv.conv.weight[0, 0]
    expected = sum(kernel[1 + a, 1 + b] * x.roll((-a, -b), (2, 3)) for a in (-1, 0, 1) for b in (-1, 0, 1))
    torch.testing.assert_close(conv(x), expected, rtol=1e-5, atol=1e-6)


def test_output_is_bounded() -> None:
    h, c = inputs((8, 8))
    for bound in (3.0, 0.5):
        net = network(3, scale=3.0)
        net.bound = bound
        out = net(1e4 * h, c)
        assert torch.isfinite(out).all()
        assert out.abs().max() <= bound
        assert out.abs().max() > 0.9 * bound


@pytest.mark.parametrize(
    ("n_levels", "shape"),
    [
        (1, (2, 2)),
        (1, (3, 5)),
        (2, (2, 2)),
        (2, (6, 10)),
        (2, (14, 4)),
        (3, (4, 4)),
        (3, (12, 20)),
        (4, (8, 24)),
    ],
)
def test_any_extent_that_can_be_halved(n_levels: int, shape: tuple[int, int]) -> None:
    h, c = inputs(shape, n=2)
    assert network(n_levels)(h, c).shape == (2, *shape)


@pytest.mark.parametrize("n_levels", [1, 3])
def test_untrained_output_is_exactly_zero_and_can_leave_it(n_levels: int) -> None:
    net, (h, c) = UNet(C_IN, N_CONDITION, 8, n_levels), inputs((8, 8))
    assert net(h, c).abs().max() == 0
    # at the start the gradient reaches the heads, which let it pass to all other weights one step later
    target = h[:, 0] + h[:, 0].mean((1, 2), keepdim=True)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for step in range(2):
        optimizer.zero_grad()
        loss = ((net(h, c) - target) ** 2).sum()
        loss.backward()
        silent = {name for name, p in net.named_parameters() if p.grad is None or p.grad.abs().max() == 0}
        if step == 0:
            assert net.head.conv.weight.grad is not None
            assert not {"head.conv.weight", "zero_mode.weight"} & silent
            optimizer.step()
        # the last blocks' own embedding of the condition needs gains that have left zero: third step
    assert {name for name in silent if not name.startswith("embed")} == set()


def test_gradient_reaches_every_weight() -> None:
    net, (h, c) = network(3), inputs((8, 8))
    (net(h, c) ** 2).sum().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().max() > 1e-8, name


def test_condition_rescales_and_fields_do_not_mix() -> None:
    net, (h, c) = network(2), inputs((8, 8), n=6)
    out = net(h, c)
    assert (net(h, c.flip(0)) - out).abs().max() > 0.01
    alone = torch.cat([net(h[i : i + 1], c[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(alone, out, rtol=0, atol=1e-5)


def test_zero_mode_head_moves_the_mean_by_one_mode() -> None:
    """With the local head off the output is constant over the lattice, V^(-1/2) times the head's number."""
    net = network(2)
    nn.init.zeros_(net.head.conv.weight)
    net.bound = 1e6
    h, c = inputs((8, 16))
    out = net(h, c)
    assert (out - out[:, :1, :1]).abs().max() < 1e-5
    assert out.abs().min() > 1e-4
    tiled = net(h.repeat(1, 1, 2, 2), c)  # the same pooled features on four times the volume
    torch.testing.assert_close(2 * tiled[:, 0, 0], out[:, 0, 0], rtol=1e-4, atol=1e-6)

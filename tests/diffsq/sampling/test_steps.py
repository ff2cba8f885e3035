"""Samplers without weights on the free field, where their output law is known: orders, noise, corrector.

The score is linear, so the field is a sum over the draws; giving each draw its own batch entry with all other
noise zero yields the exact output propagator G_N(k), without statistical error.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import free_model, noise_of, still
from torch import Tensor

from diffsq.config.config import load_config
from diffsq.config.names import STEP_NAMES
from diffsq.models.protocol import Noise
from diffsq.sampling import steps
from diffsq.sampling.steps import SIGNAL_TO_NOISE, STEPS, Step
from lattice.errors import InputError

SHAPE, KAPPA, SIGMA_MAX = (4, 4), 0.18, 4.0
MODEL = free_model(SHAPE, KAPPA, SIGMA_MAX)
G = MODEL.base.g


def smooth_levels(n: int) -> Tensor:
    """sigma = sigma_max (i/n)^1.5: refined everywhere, the last step too."""
    return SIGMA_MAX * (torch.arange(n + 1, dtype=torch.float64) / n) ** 1.5


def output_propagator(step: Step, levels: Tensor, scale: float = 1.0) -> Tensor:
    """Exact propagator (n_class,) of the sampler's output; `scale` multiplies all noise but the start's."""
    n_draws = 2 * (len(levels) - 1) + 1
    delta = torch.zeros(n_draws, *SHAPE, dtype=torch.float64)

    def noise(draw: int) -> Tensor:
        out = torch.zeros_like(delta)
        out[draw, 0, 0] = (
            scale if draw < n_draws - 1 else 1.0
        ) * MODEL.momenta.volume**0.5  # flat in k, height 1
        return out

    x = steps.run(step, MODEL, start_of(noise, levels), levels, noise, still)
    return MODEL.momenta.power(x).sum(0)


def start_of(noise: Noise, levels: Tensor) -> Tensor:
    """The start law N(0, G(k) + sigma_N^2), from the draw kept for it."""
    return MODEL.momenta.colour(noise(2 * len(levels) - 2), G + levels[-1] ** 2)


def errors(name: str, sizes: tuple[int, ...]) -> Tensor:
    return torch.stack([output_propagator(STEPS[name], smooth_levels(n)) / G - 1 for n in sizes])


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2)])
def test_order_in_the_number_of_levels(name: str, order: int) -> None:
    found = errors(name, (32, 64, 128, 256)).abs()
    slopes = torch.log2(found[:-1] / found[1:])
    assert ((slopes[-1] - order).abs() < 0.2).all(), slopes
    assert (found[-1] < found[0]).all()
    assert found[-1].max() < (0.02 if name == "euler" else 5e-3)


def test_orders_differ() -> None:
    """The gate on the slope tells first order from second."""
    e, h = errors("euler", (128, 256)).abs(), errors("heun", (128, 256)).abs()
    assert (torch.log2(h[0] / h[1]) - torch.log2(e[0] / e[1]) > 0.5).all()
    assert (h[1] < e[1]).all()


def test_heun_without_its_second_stage_is_first_order() -> None:
    def half(model, x, high, low, noise, frame):  # type: ignore[no-untyped-def]
        delta = high**2 - low**2
        return x + 0.5 * delta * model.score(x, high.expand(len(x)), frame)

    a, b = ((output_propagator(half, smooth_levels(n)) / G - 1).abs() for n in (128, 256))
    assert (torch.log2(a / b) < 1.3).all()


def sampled_propagator(step: Step, levels: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    power = MODEL.momenta.power(steps.run(step, MODEL, start_of(noise, levels), levels, noise, still))
    return power.mean(0), power.std(0) / len(power) ** 0.5


@pytest.mark.parametrize("name", sorted(STEPS))
def test_samples_have_the_predicted_propagator(name: str) -> None:
    levels, noise = smooth_levels(12), noise_of("test/sampler", 8000, SHAPE)
    value, error = sampled_propagator(STEPS[name], levels, noise)
    assert ((value - output_propagator(STEPS[name], levels)).abs() < 4 * error).all()


@pytest.mark.parametrize("name", ["euler", "pc"])
def test_noise_short_by_root_two_is_caught(name: str) -> None:
    levels, noise = smooth_levels(24), noise_of("test/sampler", 4000, SHAPE)

    def short(draw: int) -> Tensor:
        return noise(draw) * (1.0 if draw == 48 else 0.5**0.5)

    value, error = sampled_propagator(STEPS[name], levels, short)
    assert ((value - output_propagator(STEPS[name], levels)).abs() > 10 * error).all()
    assert torch.allclose(output_propagator(STEPS[name], levels, 0.5**0.5), value, rtol=0.15)


def test_the_flow_needs_no_noise() -> None:
    calls: list[int] = []

    def noise(draw: int) -> Tensor:
        calls.append(draw)
        return noise_of("test/flow", 2, SHAPE)(draw)

    levels = smooth_levels(5)
    steps.run(steps.heun, MODEL, start_of(noise, levels), levels, noise, still)
    assert calls == [10]


def test_every_draw_is_used_once() -> None:
    calls: list[int] = []

    def noise(draw: int) -> Tensor:
        calls.append(draw)
        return noise_of("test/pc", 2, SHAPE)(draw)

    levels = smooth_levels(5)
    steps.run(steps.predictor_corrector, MODEL, start_of(noise, levels), levels, noise, still)
    assert len(calls) == len(set(calls)) == 1 + 5 + 4


def test_corrector_leaves_the_propagator_to_second_order() -> None:
    """A Langevin step maps the variance v to v (1 - eps/A)^2 + 2 eps, A = G + sigma^2: A to A + eps^2/A."""
    high, low = torch.tensor(1.31, dtype=torch.float64), torch.tensor(1.3, dtype=torch.float64)
    n = 3
    delta = high**2 - low**2

    def noise(draw: int) -> Tensor:
        out = torch.zeros(n, *SHAPE, dtype=torch.float64)
        out[draw, 0, 0] = MODEL.momenta.volume**0.5
        return out

    above = G + high**2
    x = MODEL.momenta.colour(noise(2), above)
    v = MODEL.momenta.power(STEPS["pc"](MODEL, x, high, low, noise, still(0))).sum(0)
    euler = above * (1 - delta / above) ** 2 + delta
    eps = 2 * (SIGNAL_TO_NOISE * low) ** 2
    here = G + low**2
    assert torch.allclose(v, euler * (1 - eps / here) ** 2 + 2 * eps, rtol=1e-10)
    assert ((v / here - 1).abs() < 1.1 * (eps / here) ** 2 + 1e-3).all()
    # twice the noise variance, or none of the drift, would move it by eps/A itself
    assert (eps / here > 10 * ((v / here - 1).abs())).all()


def test_corrector_pulls_towards_the_right_law() -> None:
    levels = smooth_levels(8)
    euler = (output_propagator(STEPS["euler"], levels) / G - 1).abs()
    corrected = (output_propagator(STEPS["pc"], levels) / G - 1).abs()
    assert (corrected < euler).all()


def test_watch_sees_every_level_and_the_start_law() -> None:
    seen: dict[int, Tensor] = {}
    levels = smooth_levels(6)
    noise = noise_of("w", 4000, SHAPE)
    x = steps.run(
        steps.euler_maruyama,
        MODEL,
        start_of(noise, levels),
        levels,
        noise,
        still,
        lambda n, y: seen.update({n: y}),
    )
    assert list(seen) == [6, 5, 4, 3, 2, 1, 0]
    assert torch.equal(seen[0], x)
    power = MODEL.momenta.power(seen[6])
    error = power.std(0) / np.sqrt(4000)
    assert ((power.mean(0) - G - levels[-1] ** 2).abs() < 4 * error).all()


@pytest.mark.parametrize("name", STEPS)
def test_a_config_may_name_every_step(name: str) -> None:
    """The choices of a config are the keys of the table, read without importing it: one file to touch."""
    assert tuple(STEPS) == STEP_NAMES
    for preset in ("tiny", "cl_quartic"):
        assert load_config(preset, [f"sampling.method={name}"]).sampling.method == name
        with pytest.raises(InputError, match=f"sampling.method: must be one of .*{name}.*, got 'no_{name}'"):
            load_config(preset, [f"sampling.method=no_{name}"])

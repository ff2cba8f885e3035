"""What draws and trains runs on a device without mixing it with the CPU, and seldom waits for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fake_device import fake_device
from small_models import equilibrium, phi4_model
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException

from diffsq.models.blocks import KeyedNoise
from diffsq.models.lattice_flow import LatticeFlow
from diffsq.models.momentum import Momenta, propagator
from diffsq.models.regression import RegressionBase
from diffsq.models.site_network import SiteNetwork
from diffsq.models.velocity import Velocity
from diffsq.models.zero_mode import ZeroModeDenoiser
from diffsq.sampling.lattice_path import ReversePath
from diffsq.sampling.streams import frames_of
from diffsq.training.flow_loss import flow_loss
from diffsq.training.loss import gain_rate, path_kl_rate, prepare
from lattice.actions.phi4 import ScalarPhi4

SHAPE, ACTION = (4, 6), ScalarPhi4(0.25, 0.05)


def fitted(sector: bool) -> RegressionBase:
    phi, base = equilibrium(ACTION, SHAPE, 128), RegressionBase(Momenta(SHAPE), 5, sector)
    if sector:
        base.set_centre(phi, 64)
    seen = base.of_sector(phi)
    base.set_gaussian(propagator(base.momenta, seen, 64), 0.2, 4.0)
    base.set_action(ACTION, 5.0)
    base.fit(phi, ACTION.grad, KeyedNoise(2, "test/fit", np.arange(64), SHAPE))
    return base


def moved(module: nn.Module, device: torch.device) -> nn.Module:
    """A copy on the device, its numbers forgotten: within `fake_device` alone."""
    for part in module.modules():
        for name, tensor in {**part._buffers, **part._parameters}.items():
            if tensor is not None:
                gone = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                if name in part._buffers:
                    part._buffers[name] = gone
                else:
                    part._parameters[name] = nn.Parameter(gone)
    return module


@pytest.fixture
def constants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are known where a velocity is made, once for its level, and nowhere else."""
    made, known = Velocity.__init__, []

    def make(self: Velocity, *args: Any, **options: Any) -> None:
        known.append(True)
        made(self, *args, **options)
        known.pop()

    def number(x: Tensor) -> float:
        return 1.0 if known else float(x.item())

    monkeypatch.setattr(Velocity, "__init__", make)
    monkeypatch.setattr(Tensor, "__float__", number)
    monkeypatch.setattr(LatticeFlow, "_require_finite", lambda *args: None)  # one look, at the end


@pytest.mark.usefixtures("constants")
@pytest.mark.parametrize("sector", [False, True])
def test_the_flow_stays_on_its_device(sector: bool) -> None:
    flow = LatticeFlow(fitted(sector), 12)
    with fake_device() as place:
        moved(flow.base, place)
        noise = KeyedNoise(1, "test", np.arange(8), SHAPE, place)(0)
        sign = torch.ones(8, dtype=torch.float64, device=place)
        phi, log_w = flow.sample(ACTION.action, noise, sign)
        assert (phi.device.type, log_w.device.type) == (place.type, place.type)
        z, log_w = flow.latent(phi, ACTION.action)
        assert (z.shape, log_w.device.type) == (phi.shape, place.type)


@pytest.mark.usefixtures("constants")
def test_a_network_through_the_flow_stays_on_its_device() -> None:
    """Fresh weights, densities and the gradient by every weight."""
    base = fitted(False)
    base.network = SiteNetwork(3)
    flow = LatticeFlow(base, 12)
    with fake_device() as place:
        moved(base, place)
        base.network.initialise(torch.Generator().manual_seed(1))
        phi = torch.ones(4, *SHAPE, dtype=torch.float64, device=place)
        loss = flow_loss("variance", flow, phi, phi, ACTION.action)
        assert loss.value.device.type == place.type
        loss.value.backward()  # type: ignore[no-untyped-call]
        assert all(w.grad is not None and w.grad.device.type == place.type for w in base.network.parameters())


def test_what_waits_or_mixes_is_found() -> None:
    """The control: a number asked for, and a tensor left on the CPU."""
    with fake_device() as place:
        x = torch.ones(8, *SHAPE, dtype=torch.float64, device=place)
        with pytest.raises(DataDependentOutputException):
            float(x.sum())
        with pytest.raises(RuntimeError, match="same device"):
            print(x + torch.ones(SHAPE))


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number may be asked for, and is 1."""
    monkeypatch.setattr(Tensor, "__float__", lambda x: 1.0)


@pytest.mark.usefixtures("numbers")
@pytest.mark.parametrize(("channels", "covariance"), [(0, 0), (2, 0), (2, 1)])
def test_the_path_stays_on_its_device(
    channels: int, covariance: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = phi4_model(ACTION, equilibrium(ACTION, SHAPE, 128), channels, 5, covariance)
    monkeypatch.setattr(ZeroModeDenoiser, "two_peaks", lambda self: True)
    with fake_device() as place:
        moved(model, place)
        levels = torch.linspace(0, 4, 5, dtype=torch.float64).to(place)
        noise, path = KeyedNoise(1, "test", np.arange(8), SHAPE, place), ReversePath(model, levels)
        phi, log_w = path.sample(ACTION.action, noise, frames_of(1, SHAPE))
        assert (phi.device.type, log_w.device.type) == (place.type, place.type)
        log_w, steps = path.weigh(phi, ACTION.action, noise, frames_of(1, SHAPE))
        assert (log_w.device.type, steps.shape) == (place.type, (8, 4))


@pytest.mark.usefixtures("numbers")
def test_training_stays_on_its_device() -> None:
    """The fit of the closed form, the loss of the U-Net and its gradient."""
    model = phi4_model(ACTION, equilibrium(ACTION, SHAPE, 128), 2, n_sigma=5, covariance=1)
    with fake_device() as place:
        moved(model, place).train()
        noise = KeyedNoise(1, "test", np.arange(8), SHAPE, place)
        phi = torch.ones(8, *SHAPE, dtype=torch.float64, device=place)
        model.base.fit(phi, ACTION.grad, noise)
        sigma = torch.linspace(0.2, 4, 8, dtype=torch.float64).to(place)
        batch = prepare(model, phi, ACTION.grad, sigma, noise(0), bridge=noise(1))
        frame = frames_of(1, SHAPE)(0)
        path_kl_rate(model, batch, frame).mean().backward()
        assert model.unet is not None
        assert {p.grad.device.type for p in model.unet.parameters() if p.grad is not None} == {place.type}
        gain, error = gain_rate(model, batch, frame)
        assert (gain.device.type, error.device.type) == (place.type, place.type)

"""Effective action of networks: moments by sampling, the free field, and scores that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffsq.analysis.effective_action import BARE, gradients
from diffsq.analysis.network_action import known_couplings, projected, three_and_one
from lattice.actions.networks import CosNet, ErfNet, LocalNet, Network
from lattice.errors import InputError
from lattice.exact.network_fields import correlations, propagator, site_cumulants
from lattice.rng import normals
from lattice.simulation.network_fields import draw_fields

SHAPE, N = (8, 8), 2**15
LAWS: list[Network] = [
    CosNet(4, 0.2, "signs"), CosNet(4, 0.2, "correlated"), LocalNet(0.5, 0.2),
    LocalNet(0.25, 0.2, "signs", poisson=False),
]  # fmt: skip


@pytest.mark.parametrize("law", LAWS, ids=lambda law: f"{law.kind}-{law.output}")
def test_three_and_one_by_sampling_and_at_a_site(law: Network) -> None:
    found = three_and_one(law, SHAPE)
    assert found[0, 0] == pytest.approx(site_cumulants(law, SHAPE)[4], rel=1e-10)
    f = draw_fields(law, SHAPE, np.arange(N), 3)
    for r in ((1, 0), (2, 1)):
        moved, g = np.roll(f, (-r[0], -r[1]), axis=(1, 2)), correlations(law, SHAPE)
        each = (f**3 * moved).mean((1, 2)) - 3 * g[0, 0] * (f * moved).mean((1, 2))  # unbiased: exact G0
        error = each.std() / N**0.5
        assert abs(each.mean() - found[r]) < 4.5 * error, r
        assert error < 0.1 * site_cumulants(law, SHAPE)[2] ** 2 * (10 if law.output == "correlated" else 2)


@pytest.mark.parametrize("law", LAWS[:3], ids=lambda law: f"{law.kind}-{law.output}")
@pytest.mark.parametrize("sigma", [0.4, 1.0])
def test_exact_projection_by_integration_by_parts(law: Network, sigma: float) -> None:
    """<g_i . g_j> c = <div g_i>, all averages sampled."""
    x = torch.from_numpy(
        draw_fields(law, SHAPE, np.arange(N), 5)
        + sigma * normals(5, "test/noise", np.arange(N), 0, 64).reshape(-1, 8, 8)
    )
    g = gradients(x, BARE)
    a = torch.einsum("nixy,njxy->ij", g, g).numpy() / N
    b = np.array([0.0, 128.0, 12 * float((x**2).sum() / N)])
    found, known = np.linalg.solve(a, b), known_couplings(law, SHAPE, sigma)["exact"]
    tolerance = {"correlated": 0.1}.get(law.output, 0.03)
    for value, (name, exact) in zip(found, known.items(), strict=True):
        assert value == pytest.approx(exact, rel=tolerance, abs=1e-3), name


def test_a_free_field_at_many_neurons_and_the_rate_of_the_first_order() -> None:
    """Exact - free falls as 1/N, exact - first order as 1/N^2."""
    off: dict[int, list[float]] = {}
    for n in (100, 200):
        known = known_couplings(CosNet(n, 0.2, "signs"), SHAPE, 0.3)
        off[n] = [abs(known["exact"]["lam"] - known[kind]["lam"]) for kind in ("free", "first")]
    assert off[100][0] / off[200][0] == pytest.approx(2, rel=0.05)
    assert off[100][1] / off[200][1] == pytest.approx(4, rel=0.1)
    free = known_couplings(CosNet(10**7, 0.2), SHAPE, 1e-6)["exact"]
    assert free["mass"] == pytest.approx(1.0, abs=1e-5)
    assert free["kappa"] == pytest.approx(0.2, abs=1e-5)
    assert free["lam"] == pytest.approx(0.0, abs=1e-5)


def test_a_known_score_is_read_back() -> None:
    """Of a free field at noise sigma the score is -x/(G + sigma^2)."""
    sigma, law = 0.5, CosNet(10**4, 0.2)
    k = 1 / (propagator(law, SHAPE) + sigma**2)
    z = normals(9, "test/free", np.arange(4096), 0, 64).reshape(-1, 8, 8)
    x = np.fft.ifftn(np.fft.fftn(z, axes=(1, 2)) / np.sqrt(k), axes=(1, 2)).real
    score = -np.fft.ifftn(k * np.fft.fftn(x, axes=(1, 2)), axes=(1, 2)).real
    found, known = projected(torch.from_numpy(x), torch.from_numpy(score)), known_couplings(law, SHAPE, sigma)
    for name, (value, error) in found.items():
        assert abs(value - known["free"][name]) < 4.5 * error + 1e-9, name
        assert error < 0.02
    wrong = projected(torch.from_numpy(x), torch.from_numpy(0.9 * score))
    assert abs(wrong["mass"][0] - known["free"]["mass"]) > 10 * wrong["mass"][1]


def test_refusals() -> None:
    with pytest.raises(InputError, match="known for cos_net and local_net, not erf_net"):
        three_and_one(ErfNet(4), SHAPE)
    with pytest.raises(InputError, match="two dimensions"):
        known_couplings(CosNet(4, 0.2), (8,), 0.5)

"""Binary and Potts machines: every law against the sum over all joint states, written out from E(v, h)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from diffsq.models.binary_rbm import BinaryRBM
from lattice.errors import InputError
from lattice.rng import normals, uniforms

KINDS = (("spin", True, 2), ("spin", False, 2), ("bit", True, 2), ("bit", False, 2), ("potts", True, 3))
SITES, HIDDEN = 3, 4


def machine(units: str = "spin", biases: bool = True, q: int = 2, sites: int = SITES) -> BinaryRBM:
    n = sites * q if units == "potts" else sites
    noise = torch.from_numpy(normals(1, "test/binary", np.arange(1), 0, n * HIDDEN)).reshape(n, HIDDEN)
    made = BinaryRBM.initial(sites, HIDDEN, 0.8, noise, units, biases, q)
    if biases:
        drawn = torch.from_numpy(normals(2, "test/binary", np.arange(1), 0, n + HIDDEN))[0]
        made.b, made.c = 0.5 * drawn[:n], 0.5 * drawn[n:]
    return made


def joint(m: BinaryRBM, scale: float = 1.0) -> tuple[list[tuple[int, ...]], Tensor, Tensor, Tensor]:
    """All spins, their units v, all h, and e^-E (n_v, n_h), from the definition of the energy."""
    states = list(itertools.product(range(m.q) if m.units == "potts" else (-1, 1), repeat=m.n_sites))
    if m.units == "potts":
        rows = [[float(s == a) for s in state for a in range(m.q)] for state in states]
    else:
        rows = [[float(s) if m.units == "spin" else (1.0 + s) / 2 for s in state] for state in states]
    two = (-1.0, 1.0) if m.units == "spin" else (0.0, 1.0)
    v = torch.tensor(rows, dtype=torch.float64)
    h = torch.tensor(list(itertools.product(two, repeat=m.w.shape[1])), dtype=torch.float64)
    energy = -scale * v @ m.w @ h.T
    if m.b is not None and m.c is not None:
        energy = energy - (v @ m.b)[:, None] - (h @ m.c)[None]
    return states, v, h, torch.exp(-energy)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_laws_by_all_joint_states(kind: tuple[str, bool, int], scale: float) -> None:
    """ln Z, p(v), <h|v> and <v|h>; a machine with another weight has others."""
    m = machine(*kind)
    states, v, h, weight = joint(m, scale)
    z = weight.sum()
    assert float(m.ln_z(scale)) == pytest.approx(float(z.log()), abs=1e-12)
    torch.testing.assert_close(-m.free_energy(v, scale), weight.sum(1).log(), rtol=0, atol=1e-12)
    torch.testing.assert_close(m.mean_hidden(v, scale), weight @ h / weight.sum(1, keepdim=True))
    torch.testing.assert_close(m.mean_visible(h, scale), weight.T @ v / weight.T.sum(1, keepdim=True))
    torch.testing.assert_close(m.encode(np.array(states)), v)
    assert m.decode(v).tolist() == [list(s) for s in states]
    if scale == 1:
        found = m.log_likelihood(v, m.ln_z())
        torch.testing.assert_close(found.exp(), weight.sum(1) / z)
        m.w[0, 0] += 0.1
        assert float((m.log_likelihood(v, m.ln_z()) - found).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_both_sides_give_one_ln_z(kind: tuple[str, bool, int]) -> None:
    """More sites than hidden nodes and fewer; a batch is its machines."""
    for sites in (2, 7):
        m = machine(*kind, sites=sites)
        assert float(m.ln_z()) == pytest.approx(float(joint(m)[3].sum().log()), abs=1e-11)
        both = BinaryRBM(*(None if x is None else torch.stack([x, 2 * x]) for x in (m.w, m.b, m.c)),
                         m.units, m.q)  # fmt: skip
        assert float(both.ln_z()[0]) == pytest.approx(float(m.ln_z()), abs=1e-12)
        assert float(both.ln_z()[1]) == pytest.approx(float(both.one(1).ln_z()), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_draws_have_the_conditional_laws(kind: tuple[str, bool, int]) -> None:
    """Frequencies of 40000 draws from one v, and one h, within 4.5 sigma; not those of another scale."""
    m, n = machine(*kind), 40_000
    _, v, h, weight = joint(m)
    u = torch.from_numpy(uniforms(1, "test/draws", np.arange(2), 0, n * 4)).reshape(2, n, 4)
    for drawn, known, other in (
        (m.hidden(v[3].expand(n, -1), u[0]), m.mean_hidden(v[3:4])[0], m.mean_hidden(v[3:4], 0.5)[0]),
        (m.visible(h[5].expand(n, -1), u[1, :, :SITES]), m.mean_visible(h[5:6])[0],
         m.mean_visible(h[5:6], 0.5)[0]),
    ):  # fmt: skip
        error = (drawn.std(0) / math.sqrt(n)).clamp(min=1e-9)
        assert float(((drawn.mean(0) - known) / error).abs().max()) < 4.5
        assert float(((drawn.mean(0) - other) / error).abs().max()) > 10
        assert set(drawn.unique().tolist()) == ({-1.0, 1.0} if m.units == "spin" else {0.0, 1.0})


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_block_gibbs_is_in_detailed_balance(kind: tuple[str, bool, int]) -> None:
    """K(v, v') = sum_h p(v'|h) p(h|v) from the machine's own conditional means: p(v) K(v, v') is symmetric,
    and K leaves p; with W of another scale in one half it is neither."""
    m = machine(*kind)
    _, v, h, weight = joint(m)
    p = weight.sum(1) / weight.sum()

    def kernel(half: float) -> Tensor:
        up = m.mean_hidden(v)[:, None]  # (v, 1, hidden)
        of_h = (
            torch.where(h > 0, (1 + up) / 2, (1 - up) / 2)
            if m.units == "spin"
            else h * up + (1 - h) * (1 - up)
        )
        mean = m.mean_visible(h, half)[:, None]
        if m.units == "spin":
            of_v = torch.where(v > 0, (1 + mean) / 2, (1 - mean) / 2).prod(-1)
        elif m.units == "bit":
            of_v = (v * mean + (1 - v) * (1 - mean)).prod(-1)
        else:
            of_v = (v * mean + (1 - v)).prod(-1)
        return of_h.prod(-1) @ of_v

    flow = p[:, None] * kernel(1.0)
    torch.testing.assert_close(flow, flow.T, rtol=0, atol=1e-14)
    torch.testing.assert_close(flow.sum(0), p, rtol=0, atol=1e-13)
    wrong = p[:, None] * kernel(0.9)
    assert float((wrong - wrong.T).abs().max()) > 1e-4


def test_gibbs_goes_to_the_law_of_all_states() -> None:
    """A chi^2 of 20000 chains after 40 sweeps, 4.5 sigma; before the first it is far off."""
    m, n = machine(), 20_000
    _, v, _, weight = joint(m)
    p = (weight.sum(1) / weight.sum()).numpy()
    x = torch.ones(n, SITES, dtype=torch.float64)
    powers, found = 2 ** np.arange(SITES)[::-1], []
    for sweep in range(40):
        index = ((m.decode(x).numpy() + 1) // 2) @ powers
        counts = np.bincount(index, minlength=2**SITES)
        found.append((((counts - n * p) ** 2) / (n * p)).sum())
        u = torch.from_numpy(uniforms(1, "test/gibbs", np.arange(n), sweep, SITES + HIDDEN))
        x = m.gibbs(x, u[:, :HIDDEN], u[:, HIDDEN:])
    dof = 2**SITES - 1
    assert found[-1] < dof + 4.5 * math.sqrt(2 * dof)
    assert found[0] > 1000


def test_spins_and_bits_are_one_family() -> None:
    """v = (1 + s)/2 and h likewise: W_s = W_b/4 and biases that absorb the shifts give the same law."""
    bit = machine("bit")
    assert bit.b is not None
    assert bit.c is not None
    spin = BinaryRBM(bit.w / 4, bit.b / 2 + bit.w.sum(1) / 4, bit.c / 2 + bit.w.sum(0) / 4, "spin")
    s = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=SITES)), dtype=torch.float64)
    one, other = (m.log_likelihood(m.encode(s), m.ln_z()) for m in (bit, spin))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_a_field_far_out_is_no_overflow() -> None:
    m = BinaryRBM(torch.full((2, 1), 400.0, dtype=torch.float64))
    assert float(m.ln_z()) == pytest.approx(800 + math.log(2), abs=1e-12)  # all up, all down
    assert m.free_energy(torch.ones(1, 2, dtype=torch.float64)).item() == pytest.approx(-800)


def test_what_is_no_machine() -> None:
    noise = torch.zeros(3, 2)
    for arguments, words in (
        ((3, 0, 0.1, torch.zeros(3, 0)), "need a site, a hidden node"), ((0, 2, 0.1, noise), "need a site"),
        ((3, 2, math.nan, noise), "width of the weights"), ((3, 2, -1.0, noise), "width of the weights"),
        ((4, 2, 0.1, noise), "has shape"), ((3, 2, 0.1, noise, "spins"), "no units 'spins'"),
        ((3, 2, 0.1, noise, "bit", True, 3), "two states"),
        ((3, 2, 0.1, noise, "potts", True, 3), "has shape"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            BinaryRBM.initial(*arguments)  # type: ignore[arg-type]
    m, potts = machine(), machine("potts", True, 3)
    for spins, words in (([[0, 1, 1]], r"\+1 or -1"), ([[1, 1]], "of 3 sites"), (1, "of 3 sites")):
        with pytest.raises(InputError, match=words):
            m.encode(spins)
    for state in (3, -1, 0.5):
        with pytest.raises(InputError, match="whole numbers from 0 to 2"):
            potts.encode([[0, 1, state]])
    with pytest.raises(InputError, match="take diffsq.exactness.annealed"):
        BinaryRBM(torch.zeros(21, 21)).ln_z()
    with pytest.raises(InputError, match="NaN or infinite after step 3"):
        BinaryRBM(torch.tensor([[math.nan]])).require_finite("after step 3")

"""Laws of networks: moments of the output weights by their densities, inputs of a lattice, refusals."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad

from lattice.actions.networks import (
    NETWORKS,
    CosNet,
    ErfNet,
    GaussNet,
    LocalNet,
    Network,
    ReluNet,
    lattice_inputs,
)
from lattice.actions.protocol import Action, Law
from lattice.errors import InputError

LAWS: tuple[Network, ...] = (
    ErfNet(3, "signs", 0.5), ReluNet(4), GaussNet(10, "correlated"), CosNet(4, 0.2, "rayleigh", 0.1),
    LocalNet(0.25, 0.2, "signs", poisson=False),
)  # fmt: skip
DENSITIES: dict[str, Callable[[float], float]] = {
    "normal": lambda a: math.exp(-a * a / 2) / math.sqrt(2 * math.pi),
    "rayleigh": lambda a: 2 * a * math.exp(-a * a) if a > 0 else 0.0,
    "correlated": lambda a: math.exp(-math.sqrt(2) * abs(a)) / math.sqrt(2),  # c z, c^2 exponential
}


@pytest.mark.parametrize("output", DENSITIES)
def test_moments_are_those_of_the_density(output: str) -> None:
    """Unit variance, and orders to 8; of another law they differ."""
    law, density = CosNet(4, 0.2, output), DENSITIES[output]
    for n in range(9):
        low, high = (quad(lambda a, n=n: a**n * density(a), *ends)[0] for ends in ((-60, 0), (0, 60)))
        assert law.moment(n) == pytest.approx(low + high, abs=1e-9)
    assert law.moment(2) == 1
    assert len({CosNet(4, 0.2, other).moment(4) for other in CosNet.outputs}) == 4


def test_signs_and_the_common_factor() -> None:
    signs, correlated = CosNet(4, 0.2, "signs"), CosNet(4, 0.2, "correlated")
    assert [signs.moment(n) for n in range(6)] == [1, 0, 1, 0, 1, 0]
    for n in (2, 4, 6):
        assert correlated.own_moment(n) == CosNet(4, 0.2).moment(n)
        assert correlated.factor_moment(n) == pytest.approx(
            quad(lambda x, n=n: x ** (n / 2) * math.exp(-x), 0, 80)[0]
        )
        assert signs.factor_moment(n) == 1
    assert signs.independent
    assert not correlated.independent


@pytest.mark.parametrize("n", [-1, 1.0, 2.5, True, "2", None])
def test_moments_that_there_are_not(n: Any) -> None:
    with pytest.raises(InputError, match="has no moment .*ask for a whole n >= 0"):
        CosNet(4, 0.2).moment(n)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.kind)
def test_a_law_without_action_comes_back_from_its_dictionary(law: Network) -> None:
    d = law.as_dict()
    assert d.pop("kind") == law.kind
    assert type(law) is NETWORKS[law.kind]
    assert NETWORKS[law.kind](**d) == law
    assert isinstance(law, Law)
    assert not isinstance(law, Action)
    assert law.even
    assert (law.field, law.components) == ("real", ())
    assert law.rotations is (law.kind in ("erf_net", "relu_net", "gauss_net"))


def test_sites_are_inputs_that_keep_translations() -> None:
    """x_n . x_m depends on n - m only, |x|^2 = D; bare coordinates would not do."""
    shape = (4, 6)
    x = lattice_inputs(shape)
    assert x.shape == (24, 4)
    product = (x @ x.T).reshape(*shape, *shape)
    for move in ((1, 0), (0, 1), (3, 2)):
        moved = np.roll(product, (*move, *move), axis=(0, 1, 2, 3))
        np.testing.assert_allclose(moved, product, atol=1e-14)
    np.testing.assert_allclose((x**2).sum(1), 2)
    known = math.cos(2 * math.pi * 2 / 4) + math.cos(2 * math.pi * 5 / 6)
    assert product[0, 0, 2, 5] == pytest.approx(known)
    bare = np.stack(np.meshgrid(np.arange(4.0), np.arange(6.0), indexing="ij"), -1).reshape(24, 2)
    bare_product = (bare @ bare.T).reshape(*shape, *shape)
    assert np.abs(np.roll(bare_product, (1, 1), axis=(0, 2)) - bare_product).max() > 1


def test_the_number_of_neurons() -> None:
    assert CosNet(7, 0.2).neurons((8, 8)) == 7
    assert LocalNet(0.3, 0.2).neurons((8,)) == pytest.approx(2.4)
    assert LocalNet(0.25, 0.2, poisson=False).neurons((8, 8)) == 16
    for rho in (0.3, 0.01):
        with pytest.raises(InputError, match="a fixed number must be whole"):
            LocalNet(rho, 0.2, poisson=False).neurons((8,))
    with pytest.raises(InputError, match="lattice shape"):
        LocalNet(0.3, 0.2).neurons(())


@pytest.mark.parametrize(
    ("make", "words"),
    [(lambda: ErfNet(0), "action.width must be a whole number of neurons >= 1, got 0"),
     (lambda: CosNet(2.0, 0.2), "action.width must be"), (lambda: ReluNet(True), "action.width must be"),  # type: ignore[arg-type]
     (lambda: ErfNet(3, "rayleigh"), "'rayleigh' is positive and gives a erf_net a mean"),
     (lambda: LocalNet(0.2, 0.2, "rayleigh"), "it is for cos_net only"),
     (lambda: CosNet(3, 0.2, "normals"), r"must be one of .*got 'normals' \(did you mean 'normal'"),
     (lambda: CosNet(3, 0.2, 1), "action.output must be one of"),  # type: ignore[arg-type]
     (lambda: GaussNet(3, sigma_b=-1.0), "action.sigma_b must be >= 0"),
     (lambda: ErfNet(3, sigma_hidden=math.nan), "action.sigma_hidden must be a finite number"),
     (lambda: LocalNet(0.0, 0.2), "action.rho must be a density > 0"),
     (lambda: LocalNet(0.2, 0.2, poisson=1), "action.poisson must be true or false"),  # type: ignore[arg-type]
     (lambda: CosNet(3, math.inf), "action.kappa must be a finite number")],
)  # fmt: skip
def test_what_is_no_network_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


def test_laws_load_no_torch() -> None:
    code = "import sys, lattice.actions.networks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Ensembles of networks: resumed and made longer with the same bits; what needs exp(-S) is refused in a
line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lattice.actions.kinds import action_from_dict
from lattice.actions.networks import NETWORKS, CosNet, ErfNet, LocalNet, Network
from lattice.actions.phi4 import ScalarPhi4
from lattice.certificates.identities import schwinger_dyson
from lattice.ensembles.ensemble import read_ensemble
from lattice.errors import InputError
from lattice.interchange.importing import import_file
from lattice.simulation.network_fields import draw_fields
from lattice.simulation.parameters import MonteCarlo, RandomNetworks
from lattice.simulation.random_networks import generate_networks
from lattice.simulation.simulate import simulate

SHAPE = (4, 4)
LAW = CosNet(4, 0.2, "signs")


def made(out: Path, n: int, law: Network = LAW, **more: Any) -> Any:
    return generate_networks(law, SHAPE, RandomNetworks(n_configs=n, **more), 3, out)


def test_an_ensemble_is_read_back_and_grows_with_the_same_bits(tmp_path: Path) -> None:
    short = made(tmp_path / "a", 2048, shard_configs=512)
    assert made(tmp_path / "a", 2048, shard_configs=512).identity == short.identity
    longer = made(tmp_path / "a", 5000, shard_configs=512)
    at_once = made(tmp_path / "b", 5000, shard_configs=512)
    assert len(longer) == 5056  # of 64 groups
    assert longer.identity == at_once.identity
    assert np.array_equal(longer.phi[:2048], short.phi)
    assert np.array_equal(longer.phi[[7, 4000]], draw_fields(LAW, SHAPE, [7, 4000], 3))
    assert (longer.chain == np.arange(5056) % 64).all()
    read = read_ensemble(tmp_path / "a")
    assert read.action == LAW
    assert read.attrs["certificate"]["passed"]


def test_a_killed_one_resumes(tmp_path: Path) -> None:
    whole = made(tmp_path / "a", 2048, shard_configs=512)
    (tmp_path / "a/manifest.json").unlink()
    (tmp_path / "a/shard-0002.h5").unlink()
    assert made(tmp_path / "a", 2048, shard_configs=512).identity == whole.identity


def test_another_request_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "a", 2048)
    for n, law, words in ((1024, LAW, "holds more"), (2048, CosNet(5, 0.2, "signs"), "action.width was 4")):
        with pytest.raises(InputError, match=words):
            made(tmp_path / "a", n, law)


@pytest.mark.parametrize(
    ("law", "words"),
    [
        (ScalarPhi4(0.2, 0.1), "is no random network"),
        (CosNet(4, 0.26), "least value is -0.08: no broken phase"),
        (CosNet(4, 0.1, lam=0.5), "no broken phase"),
        (LocalNet(0.3, 0.2, poisson=False), "is 4.8 neurons: a fixed number must be whole"),
    ],
)
def test_laws_that_are_not_there(law: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        simulate(law, SHAPE, RandomNetworks(n_configs=512), seed=1, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_asks_for_an_action_is_told_in_one_line(kind: str, tmp_path: Path) -> None:
    couplings = {"local_net": {"rho": 1.0, "kappa": 0.2}, "cos_net": {"width": 4, "kappa": 0.2}}
    law = action_from_dict({"kind": kind, **couplings.get(kind, {"width": 4})})
    assert type(law) is NETWORKS[kind]
    assert not law.has_action
    phi = draw_fields(law, SHAPE, np.arange(64), 1)  # type: ignore[arg-type]
    np.save(tmp_path / "fields.npy", phi)
    line = f"^{kind} is a law without an action: "
    with pytest.raises(InputError, match=line + "no Markov chain"):
        simulate(law, SHAPE, MonteCarlo(n_configs=512, cluster="none"), seed=1, out=tmp_path / "x")
    with pytest.raises(InputError, match=line + "dS/dphi is not known"):
        schwinger_dyson(phi, law)
    with pytest.raises(InputError, match=line + "fields from elsewhere are judged by identities"):
        import_file(tmp_path / "fields.npy", law, SHAPE, out=tmp_path / "y")
    with pytest.raises(InputError, match=line + "action.field is for complex"):
        action_from_dict({"kind": kind, **couplings.get(kind, {"width": 4}), "field": "x+iy"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fields.npy"]


def test_one_dimension_and_bad_numbers(tmp_path: Path) -> None:
    ensemble = generate_networks(ErfNet(1), (6,), RandomNetworks(n_configs=1024), 1, tmp_path / "a")
    assert ensemble.shape == (6,)
    for bad in ({"n_chains": 7}, {"n_chains": 4}, {"n_configs": 0}):
        with pytest.raises(ValueError, match="n_"):
            RandomNetworks(**bad)

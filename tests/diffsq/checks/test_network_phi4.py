"""The check of phi^4 by networks: on a ring, in two dimensions, and where it must not pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_networks import made

from diffsq.checks import network_phi4
from diffsq.run_folder.fields import NetworkBench
from lattice.actions.networks import CosNet, LocalNet
from lattice.errors import InputError
from lattice.progress import Silent


@pytest.fixture(scope="module")
def ring_bench(tmp_path_factory: pytest.TempPathFactory) -> NetworkBench:
    action = {"kind": "cos_net", "width": 32, "kappa": 0.2, "lam": 0.1}
    return made(tmp_path_factory.mktemp("phi4") / "run", action, [6])


def test_the_limit_is_that_of_the_transfer_matrix(ring_bench: NetworkBench) -> None:
    result = network_phi4.run(ring_bench, Silent(), [4, 8, 16, 32], 256, 100)
    assert result["how"] == "transfer matrix"
    assert result["passed"], result["reasons"]
    said = network_phi4.text(result)
    assert "no broken phase at tree level" in said
    assert "network-phi4: passed" in said
    assert len(network_phi4.figure(result).axes) == 1


def test_another_theory_does_not_pass(ring_bench: NetworkBench, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = network_phi4.ring
    monkeypatch.setattr(network_phi4, "ring", lambda action, n: exact(type(action)(0.2, 0.0), n))
    result = network_phi4.run(ring_bench, Silent(), [4, 8, 16, 32], 256, 60)
    assert not result["passed"]
    assert abs(result["pull"]) > 10
    assert "sigma off" in network_phi4.text(result)


def test_refusals(ring_bench: NetworkBench, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="widths must be >= 1"):
        network_phi4.run(ring_bench, Silent(), [0, 4])
    for law, words in (
        (LocalNet(1.0, 0.2, lam=0.1), "those of a cos_net, not of local_net"),
        (CosNet(4, 0.2), "lam = 0 is a free field"),
    ):
        other = NetworkBench(
            tmp_path, ring_bench.config, law, ring_bench.ensemble, ring_bench.device, None, None
        )
        with pytest.raises(InputError, match=words):
            network_phi4.run(other, Silent())
    with pytest.raises(InputError, match="no broken phase"):
        made(tmp_path / "x", {"kind": "cos_net", "width": 4, "kappa": 0.3, "lam": 0.3}, [6])

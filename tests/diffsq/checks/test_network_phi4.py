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
from lattice.simulation.parameters import MonteCarlo


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
    assert set(result["pulls"]) == {"phi2", "phi4", "next", "kappa4"}
    value, error = result["found"]["kappa4"]
    assert abs(value - result["exact"]["kappa4"][0]) < 4.5 * error
    assert value < -10 * error  # 0 of a free field
    assert len(network_phi4.figure(result).axes) == 1


def test_another_theory_does_not_pass(ring_bench: NetworkBench, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = network_phi4.ring
    monkeypatch.setattr(network_phi4, "ring", lambda action, n: exact(type(action)(0.2, 0.0), n))
    result = network_phi4.run(ring_bench, Silent(), [4, 8, 16, 32], 256, 60)
    assert not result["passed"]
    assert min(abs(result["pulls"][name]) for name in ("phi2", "phi4")) > 10
    assert min(abs(result["pulls"][name]) for name in ("next", "kappa4")) > 4.5
    assert {f"the limit of {name}" for name in ("phi^2", "phi^4", "phi_0 phi_1")} <= {
        reason.split(" is ")[0] for reason in result["reasons"]
    }
    assert "sigma off" in network_phi4.text(result)


def test_in_two_dimensions_against_a_monte_carlo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(n_configs: int, n_therm: int) -> MonteCarlo:
        return MonteCarlo(n_configs=n_configs // 4, n_therm=n_therm)

    monkeypatch.setattr(network_phi4, "MonteCarlo", short)
    bench = made(tmp_path / "run", {"kind": "cos_net", "width": 32, "kappa": 0.15, "lam": 0.1}, [4, 4])
    result = network_phi4.run(bench, Silent(), [8, 16, 32, 64], 128, 60)
    assert result["how"] == "Monte Carlo"
    assert result["passed"], result["reasons"]
    exact = result["exact"]
    for name, number in exact.items():
        assert 0 < number[1] < 0.05 * abs(number[0]), name
    by_hand = exact["phi4"][0] - 3 * exact["phi2"][0] ** 2
    assert exact["kappa4"][0] == pytest.approx(by_hand, rel=1e-9)


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

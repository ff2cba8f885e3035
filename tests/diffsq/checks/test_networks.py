"""The check of networks on small runs: what is said, what is refused, what it is not for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_networks import COS, made

from diffsq.checks import networks
from diffsq.checks.perform import check
from diffsq.run_folder.fields import NetworkBench
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.progress import Silent
from lattice.simulation.network_fields import draw_fields


@pytest.fixture(scope="module")
def cos(tmp_path_factory: pytest.TempPathFactory) -> NetworkBench:
    return made(tmp_path_factory.mktemp("cos") / "run", COS, [4, 4])


def test_a_net_passes_and_does_not_cluster(cos: NetworkBench) -> None:
    result = networks.run(cos, Silent(), [1, 2, 4], 8192)
    assert result["passed"], result["reasons"]
    assert (result["one_site_says"], result["verdict"]) == ("not free", "not free")
    assert result["clustering"]["verdict"] == "violated"
    assert [c["verdict"] for c in result["widths"][0]["claims"]][0] == "holds"
    said = networks.text(result)
    for words in ("cluster decomposition: VIOLATED", "kappa4 ~ N^-1: holds", "networks: passed"):
        assert words in said
    assert len(networks.figure(result).axes) == 2


def test_rayleigh_is_undecided_by_one_site(tmp_path: Path) -> None:
    bench = made(tmp_path / "run", {**COS, "output": "rayleigh"}, [4, 4])
    result = networks.run(bench, Silent())
    assert (result["one_site_says"], result["verdict"], result["passed"]) == ("undecided", "not free", True)
    assert "one site alone: undecided; with pairs of sites: not free" in networks.text(result)


def test_another_law_than_claimed_does_not_pass(cos: NetworkBench) -> None:
    law = cos.action
    phi = draw_fields(type(law)(2, 0.2, "signs"), (4, 4), np.arange(8192), 1)
    wrong = Ensemble.from_fields(phi, law, chain=np.arange(8192) % 64)
    result = networks.run(NetworkBench(cos.folder, cos.config, law, wrong, cos.device, None, None), Silent())
    assert not result["passed"]
    assert result["largest"] > 10
    assert "NOT passed: largest of" in networks.text(result)


def test_nets_of_inputs_with_others_beside(tmp_path: Path) -> None:
    bench = made(tmp_path / "run", {"kind": "erf_net", "width": 2}, [4, 4])
    others = ["gauss_net", "erf_net-correlated"]
    result = networks.run(bench, Silent(), [1, 3, 10, 30], 2**14, [1.0], others)
    assert result["passed"], result["reasons"]
    by_name = {each["name"]: [c["verdict"] for c in each["claims"]] for each in result["widths"]}
    assert by_name["gauss_net"] == ["refused"] * 3
    assert by_name["erf_net-correlated"] == ["refuted"]
    said = networks.text(result)
    assert "claim refused, needs" in said
    assert "networks of each width at this input" in said
    assert "networks at one site" in said


def test_two_widths_have_no_slope(cos: NetworkBench) -> None:
    """Enough networks do not help: what is missing is a width."""
    said = networks.text(networks.run(cos, Silent(), [1, 2, 2], 8192))
    assert "kappa4 ~ N^-1: claim refused, a slope takes 3 widths, got 2" in said
    assert "claim refused, needs" not in said


def test_a_wide_net_is_not_called_free(tmp_path: Path) -> None:
    result = networks.run(made(tmp_path / "run", {"kind": "erf_net", "width": 100}, [4, 4]), Silent())
    assert (result["verdict"], result["clustering"]["verdict"]) == ("undecided", "undecided")
    assert "cluster decomposition: undecided" in networks.text(result)


def test_refusals(cos: NetworkBench, tmp_path: Path) -> None:
    for arguments, words in (
        (([1, 0],), "option widths of the check networks must be >= 1, got 0"),
        (([1], 64), "option n_networks of the check networks must be >= 1280, got 64"),
        ((None, 8192, [1.0]), "points and others are for nets of inputs, this run's is a cos_net"),
    ):
        with pytest.raises(InputError, match=words):
            networks.run(cos, Silent(), *arguments)  # type: ignore[arg-type]
    for name in ("levels", "flow", "learned"):
        with pytest.raises(InputError, match="is for another kind of run"):
            check(name, cos.folder)
    with pytest.raises(InputError, match="needs a model; this run has models: \\[\\]"):
        check("network-score", cos.folder)
    with pytest.raises(InputError, match="lam = 0 is a free field"):
        check("network-phi4", cos.folder)

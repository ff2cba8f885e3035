"""The diffusion without an action on a small run: curves, samples, couplings, and a score that must fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_networks import COS, made

from diffsq.checks import network_score
from diffsq.run_folder.fields import NetworkBench
from diffsq.run_folder.summary_text import table_text
from lattice.errors import InputError
from lattice.files import read_json
from lattice.progress import Silent


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> NetworkBench:
    return made(tmp_path_factory.mktemp("score") / "run", COS, [4, 4], models=True, report=True)


def test_curves_and_couplings(bench: NetworkBench) -> None:
    result = network_score.run(bench, Silent(), 1024, 512, 3)
    site = result["curves"]["site"]
    assert site["orders"] == [2, 4, 6, 8]
    exact = np.array(site["exact"])
    sigma = np.array(result["sigma"])
    assert exact[:, 0] == pytest.approx(exact[0, 0] + sigma**2)
    assert np.ptp(exact[:, 1:], axis=0) == pytest.approx(0.0, abs=1e-12)
    assert np.abs(site["forward_pulls"]).max() < 4.5
    assert result["passed"], result["reasons"]
    assert result["reasons"] == []
    own = result["couplings"][0]["lam"]
    assert own["value"] > 10 * own["error"]
    assert max(result["largest"].values()) < 4.5
    far = result["couplings"][-1]["mass"]
    assert abs(far["value"] - far["exact"]) < abs(far["value"] - far["free"])
    said = network_score.text(result)
    assert "fewer neurons than sites: the fields fill no volume" in said
    assert len(network_score.figure(result).axes) == 8


def test_a_bare_linear_score_has_no_quartic_coupling(bench: NetworkBench) -> None:
    """The Wiener filter as a model: samples are Gaussian, kappa_4 is off, and the check says so."""
    model, _ = bench.learned("x")
    kept = model.base.coefficients.clone()
    model.base.coefficients.zero_()
    result = network_score.run(bench, Silent(), 1024, 512, 2)
    model.base.coefficients.copy_(kept)
    smallest = result["couplings"][0]["lam"]
    assert abs(smallest["value"]) < 0.2 * abs(smallest["exact"])
    assert abs(smallest["value"] - smallest["exact"]) > 10 * smallest["error"]
    back = result["curves"]["site"]["backward"]
    off = back["value"][0][1] - result["curves"]["site"]["exact"][0][1]
    assert off > 4.5 * back["error"][0][1]
    assert not result["passed"]
    reasons = " ".join(result["reasons"])
    for words in ("backward: largest of", "coupling of phi^2", "coupling of phi^4 at sigma = 0.2 is"):
        assert words in reasons
    assert "coupling of phi^4 at sigma = 0.2 does not exclude 0" in result["reasons"]
    assert "forward" not in reasons
    assert result["largest"]["backward"] > 4.5
    assert "NOT passed: backward" in network_score.text(result)


def test_the_run_is_held_against_exact_values(bench: NetworkBench) -> None:
    summary = read_json(bench.folder / "summary.json")
    assert summary["against"] == "exact"
    assert summary["gated"] == ["raw"]
    assert summary["verdict"]["missing"] == []
    said = table_text(summary)
    assert "kappa4_m_ratio" in said
    assert "action_density" not in said
    page = (bench.folder / "report.html").read_text(encoding="utf-8")
    assert "Certificate of the networks" in page
    assert "Networks of plane waves" in page
    assert "Thermalisation" not in page


def test_refusals(bench: NetworkBench, tmp_path: Path) -> None:
    for arguments in ((10, 512), (1024, 10), (1024, 512, 0)):
        with pytest.raises(InputError, match="must be at least 200"):
            network_score.run(bench, Silent(), *arguments)

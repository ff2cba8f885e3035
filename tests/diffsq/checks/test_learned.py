"""The verdict on what a score has learned: right models pass, wrong ones fail, by their own errors."""

from __future__ import annotations

import json

import pytest
from benches import make_bench
from small_models import Scaled
from torch import Tensor

from diffsq.analysis.effective_action import GRADIENTS
from diffsq.checks import learned
from diffsq.models.lattice import LatticeScore
from diffsq.models.symmetry import IDENTITY, Symmetry
from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError
from lattice.progress import Silent

SHAPE = (6, 6)


class Biased(LatticeScore):
    """A score with `excess` in kappa at every sigma: E[g(phi) | x] = g(D(x)) for the hopping term, linear."""

    excess = 0.0

    def score(self, x: Tensor, sigma: Tensor, frame: Symmetry = IDENTITY) -> Tensor:
        own = super().score(x, sigma, frame)
        mean = x + sigma[:, None, None] ** 2 * own
        return own - self.excess * GRADIENTS["kappa"](mean)


def test_check_of_a_run_reads_its_couplings_and_a_scaled_score_fails() -> None:
    """The command's check in memory: passes with the fitted base, fails when the score is 1.1 times it."""
    bench = make_bench(ScalarPhi4(0.25, 0.022), SHAPE)
    result = learned.run(bench, Silent(), n_fields=1024, n_levels=3)
    json.dumps(result, allow_nan=False)
    assert result["passed"] is not False
    told = learned.text(result)
    assert told.isascii()
    for word in ("verdict", "kappa_diagonal", "cosine, target", "2%"):
        assert word in told
    assert len(learned.figure(result).axes) == 3
    bench.model = Scaled(bench.model.base, None)
    assert learned.run(bench, Silent(), n_fields=1024, n_levels=1)["passed"] is False
    for wrong in ({"n_levels": 0}, {"n_fields": 3}, {"sigma_max": 1e3}):
        with pytest.raises(InputError):
            learned.run(bench, Silent(), **wrong)


def test_a_bias_of_two_per_cent_in_kappa_fails() -> None:
    """Negative control; the check of the right model would have seen a quarter of that."""
    bench = make_bench(ScalarPhi4(0.25, 0.022), SHAPE)
    right = learned.run(bench, Silent(), n_fields=1024, n_levels=1)
    assert right["passed"] is True
    allowed = learned.sensitivity(right["levels"][0]["couplings"], bench.action)
    assert allowed["kappa"] < 0.005
    for excess in (0.02, -0.02):
        bench.model = Biased(bench.model.base, None)
        bench.model.excess = excess * bench.action.kappa
        result = learned.run(bench, Silent(), n_fields=1024, n_levels=1)
        found = result["levels"][0]["couplings"]["kappa"]
        assert result["passed"] is False
        assert found["value"] - bench.action.kappa == pytest.approx(bench.model.excess, rel=0.1)
        assert "kappa: off by " in learned.text(result)
        assert "verdict: FAILED" in learned.text(result)


def test_the_systematic_error_is_what_the_extrapolation_moves() -> None:
    """v = c + s sigma^2: the distance to c is s sigma^2, whatever the second sigma."""
    for second in (0.3, 0.5):
        first, other = ({"kappa": {"value": 0.25 + 0.1 * s**2}} for s in (0.2, second))
        learned.add_systematic(first, 0.2, other, second)
        assert first["kappa"]["systematic"] == pytest.approx(0.1 * 0.2**2)
    learned.add_systematic(first, 0.2, None, 0.3)
    assert first["kappa"]["systematic"] == float("inf")


def test_the_verdict_is_by_its_own_errors() -> None:
    """Three answers: agreement, disagreement, and errors too large to tell."""
    action = ScalarPhi4(0.25, 0.022)

    def judge(shift: float, error: float, systematic: float = 0.0) -> bool | None:
        true = {"kappa": 0.25, "mass": 0.956, "lam": 0.022}
        found = {
            n: {"value": t * (1 + shift), "error": t * error, "systematic": t * systematic, "true": t}
            for n, t in true.items()
        }
        return learned.verdict(found, action)

    assert judge(0.003, 0.001) is True
    assert judge(0.01, 0.001) is False  # ten errors
    assert judge(0.01, 0.001, 0.008) is True  # not more than it moves with sigma
    assert judge(0.02, 0.001, 0.008) is False
    assert judge(0.0, 0.006) is None  # would not have seen 2 %
    assert judge(0.0, 0.001, 0.03) is None
    assert judge(0.0, 0.001, float("inf")) is None

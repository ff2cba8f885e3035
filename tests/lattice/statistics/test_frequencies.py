"""chi^2 of frequencies: uniform p for the right law, whatever the weights; rare values count."""

from __future__ import annotations

import numpy as np

from lattice.exact.u1 import charge_law
from lattice.statistics.frequencies import frequencies

LAW = charge_law(4.0, 256)


def mean_p(t: float | None, n: int = 4000, repeats: int = 60, wrong: bool = False) -> float:
    """Mean p of charges proposed from e^{-Q^2/2t}, with their exact weights (None: from the law itself)."""
    rng, found = np.random.default_rng(3), []
    proposal = LAW.probability if t is None else np.exp(-(LAW.charge**2) / (2 * t))
    proposal = proposal / proposal.sum()
    for _ in range(repeats):
        i = rng.choice(len(proposal), size=n, p=proposal)
        weight = None if t is None else (LAW.probability / proposal)[i] ** (0.4 if wrong else 1.0)
        found.append(frequencies(LAW.charge[i].astype(float), *LAW, weight=weight).p)
    return float(np.mean(found))


def test_p_is_uniform_for_the_right_law_with_and_without_weights() -> None:
    """A mean of 60 uniform numbers is 0.5 within 4 * 0.037."""
    for t in (None, 1.5, 3.0, 20.0):
        assert abs(mean_p(t) - 0.5) < 4 * np.sqrt(1 / 12 / 60)
    assert mean_p(1.5, wrong=True) < 0.01


def test_charges_that_the_law_hardly_has_count() -> None:
    rng = np.random.default_rng(5)
    q = rng.choice(LAW.charge, size=8000, p=LAW.probability).astype(float)
    assert frequencies(q, *LAW).p > 1e-3
    q[:80] = 30.0
    assert frequencies(q, *LAW).p < 1e-6
    assert frequencies(q, *LAW, weight=np.ones(8000)).p < 1e-6


def test_correlated_data_count_less_and_one_common_value_says_nothing() -> None:
    rng = np.random.default_rng(6)
    q = np.repeat(rng.choice(LAW.charge, size=200, p=LAW.probability), 40).astype(float)
    assert frequencies(q, *LAW).p < 1e-6
    assert frequencies(q, *LAW, n=200.0).p > 1e-3
    cold = charge_law(30.0, 16)
    assert frequencies(np.zeros(100), *cold) == (0.0, 0, 1.0, 0, 0)

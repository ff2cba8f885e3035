"""Samples of one law pooled: what the pool is, and everything that must not be pooled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from synthetic import KAPPA, SHAPE, propagator
from synthetic import weighted_sample as sample

from diffsq.exactness.weights import ln_z
from lattice.actions.phi4 import FreeScalar
from lattice.ensembles.combine import combine
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.observables.measure import measure


def test_the_pool_is_the_weighted_average_over_all() -> None:
    parts = [sample(1), sample(2, n=900), sample(1, first=400)]
    pool = combine(parts)
    w = np.exp(np.concatenate([e.log_weight for e in parts if e.log_weight is not None]) - 40)
    phi2 = np.concatenate([e.series["phi2"] for e in parts])
    found = measure(pool, two_point=False)
    assert found["observables"]["phi2"]["value"] == pytest.approx((w @ phi2) / w.sum(), rel=1e-12)
    assert found["ensemble"]["ess"] == pytest.approx(w.sum() ** 2 / (len(w) * (w**2).sum()), rel=1e-12)
    assert pool.shape == SHAPE
    assert [len(r) for r in pool.replicas()] == [400, 900, 400]
    assert pool.attrs["generated"]["seed"] == [1, 2]
    assert len({pool.identity, *(e.identity for e in parts)}) == 4


def test_samples_of_different_seeds_estimate_one_z_with_smaller_errors() -> None:
    truth = 0.5 * np.log(2 * np.pi * propagator()).sum()
    parts = [sample(seed, n=4000) for seed in (1, 2, 3, 4)]
    one = measure(parts[0], two_point=False)["observables"]
    pool = combine(parts)
    all_four = measure(pool, two_point=False)["observables"]
    assert pool.log_weight is not None
    z, error = ln_z(pool.log_weight)
    assert abs(z - truth) < 4 * error
    g = propagator()
    for name, exact in (("phi2", g.mean()), ("susceptibility_full", g[0, 0])):
        assert abs(all_four[name]["value"] - exact) < 4 * all_four[name]["error"]
        assert all_four[name]["error"] / one[name]["error"] == pytest.approx(0.5, rel=0.25)


def test_a_single_ensemble_is_returned_as_it_is() -> None:
    bare = Ensemble.from_fields(np.ones((3, 4, 4)), FreeScalar(KAPPA))
    assert combine([bare]) is bare


OTHER_LEVELS = [0.0, 0.2, 0.5, 1.1, 2.0, 4.0]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"kappa": 0.21}, "in the action"),
        ({"sampler": "other"}, "in the sampler: other, not path"),
        ({"law": 2}, "in the version of the law: 2, not 1"),
        ({"process": "vp"}, "in the process: vp, not ve"),
        ({"model": "c" * 64}, "in the checkpoint: cccccccccccc, not aaaaaaaaaaaa"),
        ({"training_ensemble": "c" * 64}, "in the training ensemble"),
        ({"levels": OTHER_LEVELS}, "in the levels: number 3 is 1.1, not 1"),
        ({"levels": OTHER_LEVELS[:-1]}, "in the levels: 5 numbers, not 6"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_what_differs_is_named(other: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as refused:
        combine([sample(1), sample(2), sample(3, **other)], ["a", "b", "c"])
    assert str(refused.value).startswith(f"c differs from a {words}")
    assert "\n" not in str(refused.value)


def test_another_lattice_is_refused() -> None:
    wide = Ensemble.from_fields(
        np.ones((9, 4, 16)), FreeScalar(KAPPA), log_weight=np.zeros(9), attrs=sample(2).attrs
    )
    with pytest.raises(InputError, match=r"in the lattice: \[4, 16\], not \[8, 8\]"):
        combine([sample(1), wide])


def test_the_same_samples_twice_are_refused() -> None:
    with pytest.raises(InputError, match="b holds 100 samples of a again"):
        combine([sample(1), sample(1, first=300)], ["a", "b"])
    assert len(combine([sample(1), sample(1, first=400)])) == 800


def test_weighted_and_unweighted_do_not_mix() -> None:
    bare = Ensemble.from_fields(np.ones((9, *SHAPE)), FreeScalar(KAPPA))
    with pytest.raises(InputError, match="b has log-weights and a has none"):
        combine([bare, sample(1)], ["a", "b"])
    with pytest.raises(InputError, match="only weighted samples are combined"):
        combine([bare, bare])
    with pytest.raises(InputError, match="nothing to combine"):
        combine([])


def test_a_sample_without_record_or_combined_before_is_refused() -> None:
    unknown = sample(2)
    unknown.attrs = {}
    with pytest.raises(InputError, match="sample 2: does not record its sampler"):
        combine([sample(1), unknown])
    with pytest.raises(InputError, match="name its parts instead"):
        combine([combine([sample(1), sample(2)]), sample(3)])


def test_metropolis_wants_one_law() -> None:
    with pytest.raises(InputError, match=r"in the seed: 2, not 1; .* leave out --metropolis"):
        combine([sample(1), sample(2)], one_law=True)
    assert len(combine([sample(1), sample(2)])) == 800  # weights need no common law
    assert len(combine([sample(1), sample(1, first=400)], one_law=True)) == 800

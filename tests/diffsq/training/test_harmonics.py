"""A plaquette action from links alone: beta comes back, more harmonics are not found where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from diffsq.training.harmonics import fit_harmonics, moments, smooth_charges
from lattice.errors import InputError
from lattice.simulation.gauge_draws import draw_links


@pytest.mark.parametrize("beta", [0.7, 4.0])
def test_beta_comes_back_within_its_error(beta: float) -> None:
    links = draw_links(beta, (8, 8), 4000, seed=3)
    found = fit_harmonics(links[:3500], links[3500:], np.arange(3500), 1)
    assert found.error[0] < 0.02 * beta
    assert abs(found.b[0] - beta) < 4 * found.error[0]
    assert abs(found.b[0] - 1.2 * beta) > 8 * found.error[0]
    more = fit_harmonics(links[:3500], links[3500:], np.arange(3500), 3)
    assert len(more.loss) == 3
    assert (np.abs(more.b[1:]) < 4 * more.error[1:]).all()


def test_the_equation_is_schwinger_and_dyson_s() -> None:
    """<M> beta = <r> at the true beta, each entry within its error: 4 beta <(sin - sin')^2> ..."""
    beta, links = 2.0, draw_links(2.0, (6, 4), 6000, seed=5)
    own = moments(links, 2)
    rest = own[:, :, 0] * beta - own[:, :, 2]
    error = rest.std(axis=0) / np.sqrt(len(rest))
    assert (np.abs(rest.mean(axis=0)) < 4 * error).all()
    assert (np.abs((own[:, :, 0] * 1.1 * beta - own[:, :, 2]).mean(axis=0)) > 8 * error).all()


def test_charges_of_data_give_a_law_for_those_never_seen() -> None:
    rng = np.random.default_rng(2)
    q, log_p = smooth_charges(np.round(rng.normal(0, 1.2, 20000)))
    p = log_p.exp()
    assert abs(float(p.sum()) - 1) < 1e-9
    assert abs(float(p @ q**2) - 1.2**2 - 1 / 12) < 0.05
    assert float(q.max()) > 6
    with pytest.raises(InputError, match=r"hardly any charge, <Q\^2> = 0: .* training.sectors: exact"):
        smooth_charges(np.zeros(100))


def test_links_that_are_all_alike_are_refused() -> None:
    with pytest.raises(InputError, match="a smaller training.n_harmonics"):
        fit_harmonics(np.zeros((20, 2, 4, 4)), np.zeros((20, 2, 4, 4)), np.arange(20), 2)

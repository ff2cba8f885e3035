"""Clean fields given noisy ones: Gaussian laws, sites by quadrature, identities, and controls."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fields import significance, white
from own_actions import O2, Own
from posteriors import free_posterior, half, site_posterior
from small_models import equilibrium

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator
from lattice.updates.posterior import HALF, QUARTER, posterior_sign, posterior_trajectory

ACTION = ScalarPhi4(0.25, 0.1)


def numbers(*values, n=None):
    return torch.tensor(values, dtype=torch.float64).repeat(-(-(n or len(values)) // len(values)))[:n]


def flat(shape, value=0.3):
    return torch.full((1, *shape[:-1], shape[-1] // 2 + 1), value, dtype=torch.float64)


def run(action, phi, x, sigma, covariance, n_therm, n_meas, seed=1, sign=False):
    """(n, n_meas, *shape) and infos: trajectories of about a quarter of a period, lengths at random."""
    chains, lengths, kept = np.arange(len(phi)), np.random.default_rng(seed), []
    for t in range(n_therm + n_meas):
        length = QUARTER * lengths.uniform(0.5, 1.5)
        phi, info = posterior_trajectory(
            action, phi, x, sigma, covariance, seed=seed, chains=chains, trajectory=t, length=length,
            n_steps=math.ceil(length / 0.4),
        )  # fmt: skip
        if sign:
            phi, _ = posterior_sign(phi, x, sigma, seed=seed, chains=chains, trajectory=t)
        kept.append((phi, info))
    return torch.stack([phi for phi, _ in kept[n_therm:]], 1), [info for _, info in kept[n_therm:]]


# the law ---------------------------------------------------------------------------------------------------


def mode_pulls(fields, mean, c):
    """Mean and variance of every mode of fields (n, n_meas, *shape), normalised to be 0 and 1, in errors."""
    axes = tuple(range(2, fields.dim()))
    u = torch.fft.fftn(fields - mean[:, None], dim=axes, norm="ortho") / c[:, None].sqrt()
    parts = [u.real, u.imag, u.abs() ** 2 - 1]
    q = torch.stack([part.mean(1).flatten(1) for part in parts], 1)
    return significance(q)[q.std(0) > 1e-9]  # real modes have no imaginary part


@pytest.mark.parametrize("shape", [(8,), (4, 6), (3, 5), (2, 3, 4)])
@pytest.mark.parametrize("kind", ["exact", "flat", "rough"])
def test_free_field_is_gaussian_mode_by_mode(shape, kind):
    """Around W x with variance C whatever the covariance in the kinetic term, from a start far off; each half
    of the chains has a sigma of its own, all have the same x."""
    action, n = FreeScalar(0.12), 400
    x = white(shape, 1, 2).expand(n, *shape).contiguous()
    sigma = numbers(0.6, 1.5, n=n)
    mean, c = free_posterior(action, x, sigma)
    rough = c[:1] * (0.7 + torch.from_numpy(free_propagator(0.15, shape)))
    covariance = {"exact": half(c), "flat": flat(shape), "rough": half(rough)}[kind]
    start = torch.full_like(x, 3.0)
    fields, infos = run(action, start, x, sigma, covariance, n_therm=12, n_meas=16)
    pulls = mode_pulls(fields, mean, c)
    assert pulls.abs().max() < 4.5
    assert np.mean([i.accepted.mean() for i in infos]) > 0.9


def test_a_wrong_quadratic_term_is_seen():
    """Controls: sigma off by 10 %, and next to no |x - phi|^2; the same test sees more than 10 errors."""
    shape, action, n = (4, 6), FreeScalar(0.12), 400
    x, sigma = white(shape, 1, 2).expand(n, *shape).contiguous(), numbers(0.6, 1.5, n=n)
    mean, c = free_posterior(action, x, sigma)
    for factor in (1.1, 1 / 1.1, 1e6):
        fields, _ = run(action, torch.zeros_like(x), x, factor * sigma, half(c), n_therm=6, n_meas=40)
        assert mode_pulls(fields, mean, c).abs().max() > 10


@pytest.mark.parametrize("lam", [0.3, 1.0])
def test_decoupled_sites(lam):
    """kappa = 0: E[phi|x] and E[phi^2|x] of every site are one-dimensional integrals, and sites are
    independent of each other."""
    shape, action, n = (3, 4), ScalarPhi4(0.0, lam), 600
    x = torch.linspace(-2.5, 2.5, 12, dtype=torch.float64).reshape(1, *shape).expand(n, *shape).contiguous()
    sigma = numbers(0.5, 1.0, 2.0, n=n)
    mean, second, _ = site_posterior(action, x, sigma.reshape(-1, 1, 1))
    fields, _ = run(action, torch.zeros_like(x), x, sigma, flat(shape, 0.25), n_therm=12, n_meas=16)
    first, square = (fields - mean[:, None]).mean(1), (fields**2 - second[:, None]).mean(1)
    off = fields - mean[:, None]
    both = (off * off.roll(1, -1)).mean(1)
    for start in range(3):  # sigma by sigma
        for q in (first, square, both):
            assert significance(q[start::3]).abs().max() < 4.5
    wrong = (fields - (x / (1 + 2 * sigma.reshape(-1, 1, 1) ** 2))[:, None]).mean(1)  # of lam = 0
    assert significance(wrong).abs().max() > 10


def test_another_action_with_a_term_that_hmc_kernels_do_not_know():
    """phi^6: kappa = 0 sites against a sum over a grid."""
    shape, action, n = (2, 3), Own(0.0, 0.1, g6=0.4), 600
    x = torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(1, *shape).expand(n, *shape).contiguous()
    sigma = numbers(0.8, n=n)
    grid = torch.linspace(-5, 5, 2001, dtype=torch.float64)

    def mean(of):
        s = of.action(grid[:, None, None])
        return torch.softmax(-s - (x[0, ..., None] - grid) ** 2 / (2 * 0.8**2), -1) @ grid

    fields, _ = run(action, torch.zeros_like(x), x, sigma, flat(shape, 0.2), n_therm=12, n_meas=16)
    assert significance((fields - mean(action)).mean(1)).abs().max() < 4.5
    assert significance((fields - mean(Own(0.0, 0.1))).mean(1)).abs().max() > 10


# half a period and a quarter -------------------------------------------------------------------------------


def moved(length, n_steps, covariance=None, phi=None, integrator="omelyan2"):
    """Free fields before and after, W x, and which were accepted."""
    shape, action, n = (4, 6), FreeScalar(0.15), 64
    x, sigma = white(shape, n, 1), numbers(0.4, 1.0, 3.0, n=n)
    mean, c = free_posterior(action, x, sigma)
    phi = white(shape, n, 3) if phi is None else phi
    new, info = posterior_trajectory(
        action, phi, x, sigma, half(c) if covariance is None else covariance, seed=4, chains=np.arange(n),
        trajectory=0, length=length, n_steps=n_steps, integrator=integrator,
    )  # fmt: skip
    return phi, new, mean, torch.from_numpy(info.accepted)


@pytest.mark.parametrize(("integrator", "order"), [("leapfrog", 2), ("omelyan2", 2), ("omelyan4", 4)])
def test_half_a_period_is_a_reflection(integrator, order):
    """(phi + phi')/2 = W x up to the integrator's error."""
    steps, errors = np.array([8, 12, 16, 24]), []
    for n_steps in steps.tolist():
        phi, new, mean, accepted = moved(HALF, n_steps, integrator=integrator)
        assert accepted.double().mean() > 0.9
        errors.append(float((0.5 * (phi + new) - mean)[accepted].square().mean().sqrt()))
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(order, abs=0.1)
    assert errors[-1] < 0.01
    phi, new, mean, accepted = moved(HALF, 24, flat((4, 6)), integrator=integrator)
    assert (0.5 * (phi + new) - mean)[accepted].square().mean().sqrt() > 0.1  # modes of many periods


def test_a_quarter_forgets_the_start():
    """phi' of two starts with the same momenta differs by the integrator's error alone."""
    steps, errors = np.array([4, 6, 8, 12]), []
    for n_steps in steps.tolist():
        phi, one, _, yes = moved(QUARTER, n_steps)
        _, two, _, too = moved(QUARTER, n_steps, phi=-phi)
        assert (yes & too).double().mean() > 0.9
        errors.append(float((one - two)[yes & too].square().mean().sqrt()))
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(2, abs=0.1)
    assert errors[-1] < 0.01
    _, one, _, yes = moved(QUARTER, 12, flat((4, 6)))
    _, two, _, too = moved(QUARTER, 12, flat((4, 6)), -phi)
    assert (one - two)[yes & too].square().mean().sqrt() > 0.1


# in equilibrium from the first step ------------------------------------------------------------------------


def pairs(n=4096):
    """Fields of an interacting theory and what noise makes of them, at three noise levels."""
    shape = (4, 4)
    phi, sigma = equilibrium(ACTION, shape, n), numbers(0.5, 1.5, 5.0, n=n)
    return phi, phi + sigma.reshape(-1, 1, 1) * white(shape, n, 6), sigma


def first_trajectory(phi, x, sigma):
    """With steps so large that one in ten is refused: the field, dH, accepted."""
    new, info = posterior_trajectory(
        ACTION, phi, x, sigma, flat((4, 4), 0.4), seed=7, chains=np.arange(len(phi)), trajectory=0,
        length=HALF, n_steps=3,
    )  # fmt: skip
    return new, torch.from_numpy(info.dH), torch.from_numpy(info.accepted)


def averages(q, x):
    return torch.stack([(q - x).square().mean((1, 2)), q.pow(4).mean((1, 2)), (q * x).mean((1, 2))], 1)


def test_creutz_equality_acceptance_and_detailed_balance():
    """A field that x was made from is a draw given x: <exp(-dH)> = 1 in the first trajectory, which leaves
    averages alone; f(phi) g(phi') = g(phi) f(phi') on average."""
    phi, x, sigma = pairs()
    new, dh, accepted = first_trajectory(phi, x, sigma)
    assert 0.05 < dh.mean() < 1.5
    assert 0.5 < accepted.double().mean() < 0.95
    assert abs(significance(torch.exp(-dh) - 1)) < 4.5
    assert abs(significance(accepted.double() - torch.exp(-dh).clamp(max=1))) < 4.5
    assert torch.equal(new[~accepted], phi[~accepted])

    before, after = averages(phi, x), averages(new, x)
    assert significance(after - before).abs().max() < 4.5
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert abs(significance(before[:, i] * after[:, j] - before[:, j] * after[:, i])) < 4.5


@pytest.mark.parametrize("wrong", ["larger", "another"])
def test_fields_that_are_no_draws_given_x_are_seen(wrong):
    """Controls: fields 20 % too large, and fields that x was not made from."""
    phi, x, sigma = pairs()
    start = 1.2 * phi if wrong == "larger" else phi.roll(3, 0)  # of the same sigma
    new, dh, _ = first_trajectory(start, x, sigma)
    assert significance(averages(new, x) - averages(start, x)).abs().max() > 10
    if wrong == "larger":
        assert significance(torch.exp(-dh) - 1) < -10


# the sign --------------------------------------------------------------------------------------------------


def test_the_sign_has_its_law_given_the_field():
    shape, n = (2, 3), 5000
    some, sigma = white(shape, 4, 8), numbers(0.7, 1.5, 1.5, 4.0)
    x = white(shape, 4, 9) * numbers(1.0, 0.0, 1.0, 1.0).reshape(-1, 1, 1)
    phi, noisy, s = (q.repeat_interleave(n, 0) for q in (some, x, sigma))
    new, mean = posterior_sign(phi, noisy, s, seed=3, chains=np.arange(4 * n), trajectory=5)
    ratio = torch.exp(-(((x - some) ** 2 - (x + some) ** 2).sum((1, 2))) / (2 * sigma**2))  # of both weights
    torch.testing.assert_close(mean.reshape(4, n)[:, 0], (ratio - 1) / (ratio + 1))
    sign = new[:, 0, 0] / phi[:, 0, 0]
    assert torch.equal(new, phi * sign.reshape(-1, 1, 1))
    assert sorted(set(sign.tolist())) == [-1.0, 1.0]
    assert significance((sign - mean).reshape(4, n).T).abs().max() < 4.5
    assert significance(sign.reshape(4, n).T - mean.reshape(4, n).T.roll(1, 1)).abs().max() > 10


def test_the_sign_is_drawn_where_no_trajectory_changes_it():
    """Two sites in a double well: <phi> and <phi phi'> given x by quadrature, chains begun in one well."""
    action, n, shape = ScalarPhi4(0.5, 1.5), 1000, (2,)
    x = numbers(0.5, -0.2).expand(n, 2).contiguous()
    sigma = numbers(1.2, n=n)
    axis = torch.linspace(-3, 3, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    weight = torch.softmax(-action.action(grid) - ((x[0] - grid) ** 2).sum(1) / (2 * 1.2**2), 0)
    truth = torch.cat([weight @ grid, (weight @ grid.prod(1))[None]])

    def found(sign):
        phi, _ = run(
            action, torch.ones_like(x), x, sigma, flat(shape, 0.1), n_therm=6, n_meas=12, seed=11, sign=sign
        )
        return significance(torch.cat([phi, phi.prod(2, keepdim=True)], 2).mean(1) - truth)

    assert 0.1 < abs(truth[0]) < 0.5
    assert found(True).abs().max() < 4.5
    assert found(False)[:2].abs().max() > 10  # control: the chain alone stays where it began


# streams ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8,), (4, 6), (3, 5)])
def test_a_chain_has_the_same_field_whatever_its_company(shape):
    """Up to the last bits of a Fourier transform of another batch; the signs are the same bits."""
    n = 12
    phi, x, sigma = white(shape, n, 1), white(shape, n, 2), numbers(0.3, 1.0, 4.0, n=n)
    c, chains = half(free_posterior(FreeScalar(0.12), x, sigma)[1]), np.arange(n) + 2**31

    def move(rows, seed=2**63 + 1, trajectory=5, **change):
        part = {"phi": phi[rows], "x": x[rows], "sigma": sigma[rows], "covariance": c[rows]}
        args = {**part, "chains": chains[rows], **change}
        return posterior_trajectory(
            replace(ACTION, kappa=0.1), **args, seed=seed, trajectory=trajectory, length=HALF, n_steps=6
        )

    def turn(rows, trajectory=5):
        return posterior_sign(
            phi[rows], x[rows], sigma[rows], seed=3, chains=chains[rows], trajectory=trajectory
        )

    before = [q.clone() for q in (phi, x, sigma, c)]
    whole, info = move(np.arange(n))
    signs, mean = turn(np.arange(n))
    assert info.accepted.any()
    for rows in ([3], [0, 7], [5, 2, 11, 1], np.arange(n)[::-1].copy()):
        alone, i = move(rows)
        torch.testing.assert_close(alone, whole[rows], rtol=0, atol=1e-12)
        np.testing.assert_allclose(i.dH, info.dH[rows], rtol=0, atol=1e-11)
        np.testing.assert_array_equal(i.accepted, info.accepted[rows])
        torch.testing.assert_close(turn(rows)[0], signs[rows], rtol=0, atol=0)
        torch.testing.assert_close(turn(rows)[1], mean[rows], rtol=0, atol=1e-14)
    for q, kept in zip((phi, x, sigma, c), before, strict=True):
        assert torch.equal(q, kept)
    assert torch.equal(move(np.arange(n))[0], whole)
    for change in ({"seed": 1}, {"trajectory": 6}, {"chains": chains + 1}):
        assert (move(np.arange(n), **change)[0] - whole)[info.accepted].abs().max() > 0.1
    assert not torch.equal(turn(np.arange(n), 6)[0], signs)


def test_runaway_trajectories_are_refused_and_leave_the_others_alone():
    phi, x, sigma = (white((4, 4), 6, seed) for seed in (1, 2, 3))
    sigma = sigma[:, 0, 0].abs() + 1
    args = {"seed": 1, "chains": np.arange(6), "trajectory": 0}
    new, info = posterior_trajectory(
        ScalarPhi4(0.2, 0.5), phi, x, sigma, flat((4, 4)), length=400.0, n_steps=20, **args
    )
    assert not (info.finite | info.accepted).any()
    assert torch.equal(new, phi)
    broken = phi.clone()
    broken[2, 1, 1] = torch.nan
    whole, _ = posterior_trajectory(ACTION, phi, x, sigma, flat((4, 4)), length=1.0, n_steps=6, **args)
    new, info = posterior_trajectory(ACTION, broken, x, sigma, flat((4, 4)), length=1.0, n_steps=6, **args)
    assert info.finite.tolist() == [True, True, False, True, True, True]
    whole[2] = broken[2]
    torch.testing.assert_close(new, whole, rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": object()}, "a lattice.Action, got object"),
        ({"phi": torch.zeros(2, 2, 2, 2, 2, 2).double()}, "lattice shape"),
        ({"phi": torch.zeros(2, 4, 4)}, "float64 fields .* got torch.float32"),
        ({"x": torch.zeros(2, 4, 4)}, "float64 fields .* and torch.float32"),
        ({"x": torch.zeros(1, 4, 4).double()}, r"\[2, 4, 4\] and torch.float64 \[1, 4, 4\]"),
        ({"action": O2(0.1, 0.1), "phi": torch.zeros(2, 2, 4, 4).double(),
          "x": torch.zeros(2, 2, 4, 4).double()}, "of one component"),
        ({"sigma": torch.ones(1).double()}, "sigma must be 2 numbers > 0"),
        ({"sigma": torch.tensor(1.0).double()}, "sigma must be 2 numbers > 0"),
        ({"sigma": torch.tensor([1.0, 0.0])}, "sigma must be 2 numbers > 0"),
        ({"sigma": torch.tensor([math.nan, 1.0])}, "sigma must be 2 numbers > 0"),
        ({"covariance": torch.ones(1, 4, 4)}, r"covariance must be \[1, 4, 3\] .* got \[1, 4, 4\]"),
        ({"covariance": torch.ones(4, 3)}, r"covariance must be \[1, 4, 3\]"),
        ({"covariance": torch.ones(3, 4, 3)}, r"covariance must be \[1, 4, 3\]"),
        ({"covariance": torch.zeros(1, 4, 3)}, "covariance must be .* > 0"),
        ({"covariance": torch.full((1, 4, 3), math.nan)}, "covariance must be .* > 0"),
        ({"chains": np.arange(3)}, "2 fields, 3 chains"),
        ({"seed": -1}, "seed must be"),
        ({"trajectory": -1}, "trajectory or step number"),
        ({"length": 0.0}, "length must be"),
        ({"n_steps": 0}, "n_steps must be"),
        ({"integrator": "omelian2"}, "did you mean 'omelyan2'"),
    ],
)  # fmt: skip
def test_bad_input(change, message):
    zero = torch.zeros(2, 4, 4, dtype=torch.float64)
    args = {
        "action": ACTION, "phi": zero, "x": zero, "sigma": torch.ones(2, dtype=torch.float64),
        "covariance": torch.ones(1, 4, 3), "seed": 1, "chains": np.arange(2), "trajectory": 0, "length": 1.0,
        "n_steps": 3,
    }  # fmt: skip
    posterior_trajectory(**args)
    with pytest.raises(InputError, match=message):
        posterior_trajectory(**{**args, **change})

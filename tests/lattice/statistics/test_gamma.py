"""Errors that a referee would believe: known autocorrelation times, coverage, pyerrors and emcee."""

import math

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import kstest
from series import ar1, assert_coverage, binder, coverage

from lattice.errors import InputError
from lattice.statistics.cumulants import cumulant
from lattice.statistics.gamma import EstimatorError, gamma_method


@pytest.mark.parametrize("a", [0.0, 0.5, 0.9])
def test_ar1_pulls_are_standard_normal(a):
    tau = 0.5 * (1 + a) / (1 - a)
    estimates = [gamma_method(ar1(np.random.default_rng([11, seed]), 20000, a)) for seed in range(200)]
    pulls = np.array([e.value / e.error for e in estimates])
    assert abs(pulls.mean()) < 4 / math.sqrt(200)
    assert abs(pulls.std() - 1) < 4 / math.sqrt(400)
    assert kstest(pulls, "norm").pvalue > 1e-4
    assert_coverage(pulls)
    taus = np.array([e.tau_int for e in estimates])
    # the window cuts a tail of relative size about exp(-W/tau) off tau_int: 2 % at S = 2
    assert abs(taus.mean() / tau - 1) < 0.02 + 4 * taus.std() / math.sqrt(200) / tau
    if a > 0:  # the intervals of tau_int cover as well
        assert_coverage((taus - tau) / [e.tau_int_error for e in estimates])


def test_tau_of_two_time_scales():
    """A fast and a slow AR(1) added: tau_int is the mean of theirs, weighted with their variances."""
    share, fast, slow = 0.7, 0.3, 0.9
    tau = share * 0.5 * (1 + fast) / (1 - fast) + (1 - share) * 0.5 * (1 + slow) / (1 - slow)
    pulls, taus = [], []
    for seed in range(200):
        rng = np.random.default_rng([14, seed])
        x = math.sqrt(share) * ar1(rng, 20000, fast) + math.sqrt(1 - share) * ar1(rng, 20000, slow)
        estimate = gamma_method(x, s_tau=4.0)  # Wolff's S: the slow scale is 2.7 times tau_int
        pulls.append(estimate.value / estimate.error)
        taus.append((estimate.tau_int - tau) / estimate.tau_int_error)
    assert_coverage(np.array(pulls))
    assert abs(np.mean(taus)) < 0.25
    assert_coverage(np.array(taus))


def test_error_of_error():
    estimates = [gamma_method(ar1(np.random.default_rng([12, seed]), 5000, 0.8)) for seed in range(200)]
    errors = np.array([e.error for e in estimates])
    predicted = np.mean([e.error_of_error for e in estimates])
    assert 0.6 < errors.std() / predicted < 1.4


def test_naive_error_fails_on_a_correlated_series():
    """Negative control: the error without autocorrelation does not cover."""
    series = [ar1(np.random.default_rng([13, seed]), 4000, 0.8) for seed in range(200)]
    naive = np.array([x.mean() / (x.std() / math.sqrt(len(x))) for x in series])
    assert coverage(naive) < 0.5


class TestPyerrors:
    """1e-10 agreement where the formulas coincide."""

    @staticmethod
    def obs(replicas):
        pe = pytest.importorskip("pyerrors")
        return [
            pe.Obs([r[:, i] for r in replicas], [f"ens|r{k}" for k in range(len(replicas))])
            for i in range(replicas[0].shape[1])
        ]

    @staticmethod
    def assert_equal(estimate, obs, s_tau):
        obs.gamma_method(S=s_tau)
        tau, dtau, window = (x["ens"] for x in (obs.e_tauint, obs.e_dtauint, obs.e_windowsize))
        assert estimate.value == pytest.approx(obs.value, rel=1e-10)
        assert estimate.error == pytest.approx(obs.dvalue, rel=1e-10)
        assert estimate.error_of_error == pytest.approx(obs.ddvalue, rel=1e-10)
        assert estimate.tau_int == pytest.approx(tau, rel=1e-10)
        assert estimate.tau_int_error == pytest.approx(dtau, rel=1e-10)
        assert estimate.window == window

    @pytest.mark.parametrize("s_tau", [1.0, 2.0, 3.0])
    @pytest.mark.parametrize("lengths", [(3000,), (2001,), (1000, 701, 1500)])
    def test_primary(self, lengths, s_tau):
        rng = np.random.default_rng(1)
        replicas = [1.5 + ar1(rng, n, 0.8, (1,)) for n in lengths]
        self.assert_equal(gamma_method(replicas, s_tau=s_tau, centre="replica"), self.obs(replicas)[0], s_tau)

    @pytest.mark.parametrize("lengths", [(3000,), (1000, 701, 1500)])
    def test_binder_cumulant(self, lengths):
        rng = np.random.default_rng(2)
        fields = [1.0 + ar1(rng, n, 0.8) for n in lengths]
        replicas = [np.stack([m**2, m**4], axis=1) for m in fields]
        m2, m4 = self.obs(replicas)
        self.assert_equal(gamma_method(replicas, binder, centre="replica"), 1 - m4 / (3 * m2**2), 2.0)

    def test_one_replica_needs_no_option(self):
        x = ar1(np.random.default_rng(3), 2000, 0.7, (1,))
        self.assert_equal(gamma_method([x]), self.obs([x])[0], 2.0)


def test_emcee_tau_is_twice_ours():
    emcee = pytest.importorskip("emcee")
    x = ar1(np.random.default_rng(4), 100000, 0.8)
    ours = gamma_method(x)
    assert emcee.autocorr.integrated_time(x)[0] / 2 == pytest.approx(ours.tau_int, abs=4 * ours.tau_int_error)
    assert ours.tau_int == pytest.approx(4.5, abs=4 * ours.tau_int_error)


def test_common_centre_covers_with_many_short_replicas():
    """64 replicas of 22 tau_int: subtracting each replica's own mean loses a tenth of the variance."""
    pulls, own = [], []
    for seed in range(300):
        data = ar1(np.random.default_rng([5, seed]), 100, 0.8, (64,)).T[:, :, None]
        pulls.append(data.mean() / gamma_method(data).error)
        own.append(gamma_method(data, centre="replica").error / gamma_method(data).error)
    assert_coverage(np.array(pulls))
    assert np.mean(own) < 0.97


def test_replicas_that_disagree_enlarge_the_error():
    rng = np.random.default_rng(6)
    data = rng.normal(size=(4, 4000, 1))
    shifted = data + np.array([-0.02, 0.02, -0.02, 0.02])[:, None, None]
    assert gamma_method(shifted).error > gamma_method(data).error


def test_array_and_list_of_replicas_are_the_same():
    data = ar1(np.random.default_rng(7), 500, 0.5, (3, 2)).transpose(1, 0, 2)
    f = lambda x: x[0] - x[1] ** 2  # noqa: E731
    assert gamma_method(data, f) == gamma_method(list(data), f)


def binder_pull(seed, *, frozen):
    """Binder of a Gaussian M (exact value 0) on an AR(1) chain; frozen: only <M^4> fluctuates."""
    m = ar1(np.random.default_rng([8, seed]), 4000, 0.5)
    data = np.stack([m**2, m**4], axis=1)
    value = binder(data.mean(axis=0))
    if frozen:
        return value / gamma_method(data[:, 1] / (3 * data[:, 0].mean() ** 2)).error
    return value / gamma_method([data], binder).error


def test_binder_coverage_needs_the_full_propagation():
    full = np.array([binder_pull(seed, frozen=False) for seed in range(300)])
    assert_coverage(full)
    frozen = np.array([binder_pull(seed, frozen=True) for seed in range(300)])
    assert coverage(frozen) > 0.68 + 4 * math.sqrt(0.68 * 0.32 / 300)  # negative control: twice too large
    with pytest.raises(AssertionError):
        assert_coverage(frozen)


def susceptibility_pull(seed, *, frozen):
    """<M^2> - <M>^2 = 0.01 of a peak at 3; frozen: only <M^2> fluctuates."""
    m = 3.0 + 0.1 * ar1(np.random.default_rng([9, seed]), 4000, 0.5)
    full = gamma_method([np.stack([m**2, m], axis=1)], lambda x: x[0] - x[1] ** 2)
    return (full.value - 0.01) / (gamma_method(m**2).error if frozen else full.error)


def test_susceptibility_coverage_needs_the_full_propagation():
    full = np.array([susceptibility_pull(seed, frozen=False) for seed in range(300)])
    assert_coverage(full)
    frozen = np.array([susceptibility_pull(seed, frozen=True) for seed in range(300)])
    assert np.max(np.abs(frozen)) < 1  # negative control: the error is far too large
    with pytest.raises(AssertionError):
        assert_coverage(frozen)


def test_bias_of_a_derived_quantity_from_its_replicas():
    """<mean^2> = 1 + 2 tau_int var/N: the bias is known, and the replicas see it; the value keeps it."""
    estimates = []
    for seed in range(300):
        data = 1.0 + ar1(np.random.default_rng([15, seed]), 400, 0.8, (8,)).T[:, :, None]
        estimates.append(gamma_method(data, lambda x: x[0] ** 2))
    values, biases = (np.array([getattr(e, name) for e in estimates]) for name in ("value", "bias"))
    exact = 2 * 4.5 / 3200
    ends = 0.02 * exact  # the replicas' own means fluctuate a little less, by 1 - tau_int/n
    assert abs(biases.mean() - exact) < 4 * biases.std() / math.sqrt(300) + ends
    assert biases.mean() > 10 * biases.std() / math.sqrt(300)
    assert abs((values - biases).mean() - 1) < 4 * values.std() / math.sqrt(300)
    one = gamma_method([data.reshape(-1, 1)], lambda x: x[0] ** 2)
    assert math.isnan(one.bias)
    assert gamma_method(data).bias == 0.0


def test_exponential_cumulants_within_their_errors():
    """kappa_n of Exp(1) = (n-1)! from a correlated sample: odd moments included, errors cover."""
    pulls = []
    for seed in range(200):
        x = -np.log(ndtr(ar1(np.random.default_rng([16, seed]), 10000, 0.5)))
        powers = np.stack([x, x * x, x**3, x**4], axis=1)
        estimates = [gamma_method([powers[:, :n]], cumulant) for n in (1, 2, 3, 4)]
        pulls.append([(e.value - math.factorial(n)) / e.error for n, e in enumerate(estimates)])
    for column in np.array(pulls).T[:3]:
        assert_coverage(column)
    assert np.mean(np.abs(pulls) < 3) > 0.9


def test_gradient_step_is_harmless_for_large_powers():
    """The eighth moment's cube root, whose derivative is known in closed form."""
    x = np.random.default_rng(10).normal(size=5000) ** 8
    cube = gamma_method([x[:, None]], lambda means: means[0] ** (1 / 3))
    plain = gamma_method(x)
    assert cube.error == pytest.approx(plain.error * plain.value ** (-2 / 3) / 3, rel=1e-9)


class TestRefusals:
    def test_nan(self):
        x = np.ones(100)
        x[3:5] = [math.nan, math.inf]
        with pytest.raises(EstimatorError, match="2 of 100 numbers are NaN or infinite"):
            gamma_method(x)

    @pytest.mark.parametrize("value", [0.0, 0.1, 1e20])
    def test_constant(self, value):
        with pytest.raises(EstimatorError, match="constant series"):
            gamma_method(np.full(1000, value))

    def test_a_constant_of_its_own_value(self):
        with pytest.raises(EstimatorError, match="constant series: every value is -10$"):
            gamma_method(np.full(1000, -10.0))
        with pytest.raises(EstimatorError, match="constant series: no primary fluctuates$"):
            gamma_method([np.full((1000, 1), -10.0)], lambda x: 0.2 * x[0])

    def test_replicas_frozen_at_different_values(self):
        data = np.ones((4, 100, 1)) * np.arange(4)[:, None, None]
        with pytest.raises(EstimatorError, match="series too short"):
            gamma_method(data)
        with pytest.raises(EstimatorError, match="constant series within each replica"):
            gamma_method(data, centre="replica")

    def test_short_replica(self):
        rng = np.random.default_rng(1)
        with pytest.raises(EstimatorError, match="a replica has 9 configurations, at least 10"):
            gamma_method([rng.normal(size=1000), rng.normal(size=9)])

    @pytest.mark.parametrize("seed", range(5))
    def test_fewer_than_twenty_tau(self, seed):
        with pytest.raises(EstimatorError, match="series too short"):
            gamma_method(ar1(np.random.default_rng(seed), 1000, 0.999))

    def test_unthermalised_drift(self):
        with pytest.raises(EstimatorError, match="series too short"):
            gamma_method(np.linspace(0, 1, 500))

    def test_derived_quantity_without_fluctuations(self):
        x = 3 + np.random.default_rng(2).normal(size=(1000, 1))
        with pytest.raises(EstimatorError, match="vanish identically"):
            gamma_method([np.hstack([x, 2 * x])], lambda m: m[1] / m[0])
        with pytest.raises(EstimatorError, match="vanish identically"):
            gamma_method([x], lambda m: 1.0)

    def test_derived_quantity_undefined(self):
        x = np.random.default_rng(3).normal(size=(1000, 1)) - 5
        with pytest.raises(EstimatorError, match="not finite at the measured means"):
            gamma_method([x], lambda m: np.sqrt(m[0]))

    def test_ambiguous_or_wrong_input(self):
        x = np.random.default_rng(4).normal(size=(100, 2))
        with pytest.raises(InputError, match=r"shape \(100, 2\)"):
            gamma_method(x)
        with pytest.raises(InputError, match="2 primaries but no function"):
            gamma_method([x])
        with pytest.raises(InputError, match="s_tau"):
            gamma_method([x], lambda m: m[0], s_tau=0.0)
        with pytest.raises(InputError, match="same n_obs"):
            gamma_method([x, x[:, :1]], lambda m: m[0])

    def test_anticorrelated_series_is_conservative(self):
        x = ar1(np.random.default_rng(5), 5000, -0.5)
        estimate = gamma_method(x)
        assert estimate.tau_int == pytest.approx(0.5, abs=0.01)
        assert estimate.error >= 0.99 * x.std() / math.sqrt(len(x))


@pytest.mark.parametrize("data", [[[]], [[1.0] * 20, []]])
def test_a_replica_without_configurations_is_refused(data):
    with pytest.raises(InputError, match="no configurations; leave it out"):
        gamma_method(data)

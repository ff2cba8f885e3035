"""The certificate of links: exact draws pass, chains that never left their sector do not, nor other laws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lattice.actions.protocol import Action
from lattice.actions.u1 import U1
from lattice.arrays import Floats
from lattice.certificates.check import format_certificate
from lattice.certificates.identities import angle_identity, force_identity
from lattice.certificates.links import (
    advice,
    chain_charges_check,
    charge_check,
    exact_checks,
    link_quantities,
    may_stay,
    topology_check,
)
from lattice.certificates.monte_carlo import certify
from lattice.ensembles.ensemble import Ensemble
from lattice.exact.u1 import charge_law
from lattice.simulation.gauge_draws import draw_links
from lattice.simulation.starts import start_names

BETA, SHAPE, N_CHAINS, N_TIMES = 2.0, (4, 4), 16, 60
Certificate = dict[str, Any]


def ensemble_of(phi: Floats, action: U1, **attrs: Any) -> Ensemble:
    """Links (n_times, n_chains, 2, L0, L1) as chains."""
    times, chains = phi.shape[:2]
    return Ensemble.from_fields(
        phi.reshape(-1, *phi.shape[2:]), action, np.tile(np.arange(chains), times),
        np.repeat(np.arange(times), chains), attrs={"algorithm": {"name": "test", "parameters": attrs}},
    )  # fmt: skip


def history_of(phi: Floats, action: U1) -> dict[str, Any]:
    e = ensemble_of(phi, action)
    q, s = (e.series[name].reshape(phi.shape[:2]) for name in ("magnetization", "action"))
    return {
        "magnetization": q, "abs_magnetization": np.abs(q), "action_density": s / math.prod(e.shape),
        "dH": np.zeros_like(s), "start": start_names(phi.shape[1]),
    }  # fmt: skip


def drawn(beta: float = BETA, shape: tuple[int, int] = SHAPE, seed: int = 1, first: int = 0) -> Floats:
    phi = draw_links(beta, shape, N_CHAINS * N_TIMES, seed, first * N_CHAINS * N_TIMES)
    return phi.reshape(N_TIMES, N_CHAINS, *phi.shape[1:])


def certified(phi: Floats, action: U1, before: int = 99, **attrs: Any) -> Certificate:
    beta, shape = action.beta.real, (phi.shape[-2], phi.shape[-1])
    return certify(ensemble_of(phi, action, **attrs), history_of(drawn(beta, shape, before), action))


def failed(certificate: Certificate) -> set[str]:
    return {check["name"] for check in certificate["checks"] if not check["passed"]}


def with_lines(phi: Floats, angle: Floats) -> Floats:
    """Links (n, 2, L0, L1) turned so that the first line along each axis has these angles, (n, 2); plaquettes
    stay."""
    out = phi.copy()
    for mu in (0, 1):
        off = angle[:, mu] - phi[:, mu].sum(mu + 1)[:, 0]
        out[:, mu] += (off / phi.shape[mu + 2])[:, None, None]
    return out


def angles_of(kind: str, n: int) -> Floats:
    rng = np.random.default_rng(4)
    two = rng.integers(0, 2, (n, 2)) * math.pi
    return {"frozen": np.full((n, 2), 0.3), "+-pi/2": two - math.pi / 2, "0, pi": two}[kind]


def charges(phi: Floats) -> Floats:
    flat = torch.from_numpy(phi.reshape(-1, *phi.shape[2:]))
    return U1(1.0).order(flat).numpy().reshape(phi.shape[:2])


def test_exact_draws_pass_and_deviations_are_normal() -> None:
    deviations = []
    for seed in range(20):
        certificate = certified(drawn(seed=seed), U1(BETA), 100 + seed)
        assert certificate["passed"], format_certificate(certificate)
        details = [check["detail"] for check in certificate["checks"]]
        deviations.append([float(text.split(" sigma")[0]) for text in details if " sigma" in text])
    assert abs(float((np.array(deviations) < 1.0).mean()) - 0.683) < 0.1  # correlated checks
    assert set(certificate["tau_int"]) == {"charge", "charge2", "action", "unit"}
    text = format_certificate(certificate)
    for words in (
        "topology",
        "|Q| hot-cold",
        "Q^2 drift",
        "Q of cold starts",
        "Q (C)",
        "plaquette",
        "tau_int",
    ):
        assert words in text
    for words in ("|M|", "walls", "phi^2", "acceptance"):
        assert words not in text


def test_chains_that_never_left_their_sector_are_refused() -> None:
    """Each chain keeps what has the charge of its first: also where charges are right over all chains."""
    pool = drawn().reshape(-1, 2, *SHAPE)
    q = charges(pool[None])[0]
    rng, chains = np.random.default_rng(3), []
    for start in rng.choice(q, N_CHAINS):
        chains.append(pool[rng.choice(np.flatnonzero(q == start), N_TIMES)])
    frozen = np.stack(chains, axis=1)
    certificate = certified(frozen, U1(BETA))
    assert certificate["reason"] == (
        "failed: topology: 16 of 16 chains never left their sector in 60 configurations; "
        "use ensemble.n_winding: 1, or exact draws"
    )
    one = drawn()
    one[:, 5] = frozen[:, 5]
    found = certified(one, U1(BETA), n_winding=2)
    assert failed(found) == {"topology"}
    assert found["reason"].startswith("failed: topology: 1 of 16 chains never left")
    assert found["reason"].endswith("use ensemble.n_winding: 16 or more n_configs, or exact draws")


def test_only_one_sector_is_seen_by_its_charges_too() -> None:
    pool = drawn().reshape(-1, 2, *SHAPE)
    still = pool[np.resize(np.flatnonzero(charges(pool[None])[0] == 0), N_TIMES * N_CHAINS)]
    certificate = certified(still.reshape(N_TIMES, N_CHAINS, 2, *SHAPE), U1(BETA))
    assert {"topology", "Q^2", "chain length"} <= failed(certificate)
    assert certificate["reason"].startswith("failed: topology: 16 of 16 chains")
    row = next(check for check in certificate["checks"] if check["name"] == "Q^2")
    assert row["detail"].startswith("no charge seen, ")


def test_another_law_is_seen_by_plaquette_and_identity() -> None:
    found = failed(certified(drawn(1.8), U1(BETA)))
    assert {"plaquette", "Schwinger-Dyson"} <= found
    # charges of one sign only: the law of plaquettes is right, that of Q is not
    phi = drawn()
    mirrored = np.where((charges(phi) < 0)[..., None, None, None], -phi, phi)
    assert failed(certified(mirrored, U1(BETA))) == {"Q of cold starts", "Q (C)", "P(Q)"}


def test_another_law_of_charges_is_seen_where_all_else_is_right() -> None:
    phi = drawn(shape=(8, 8))
    assert certified(phi, U1(BETA))["passed"]
    pool = draw_links(BETA, (8, 8), 4000, 11)
    q, rng = charges(pool[None])[0], np.random.default_rng(5)
    # |Q| >= 2 moved to 0
    large = np.abs(charges(phi)) >= 2
    small = phi.copy()
    small[large] = pool[rng.choice(np.flatnonzero(q == 0), large.sum())]
    assert "P(Q)" in failed(certified(small, U1(BETA)))
    # <Q> and <Q^2> are right: four of |Q| = 1 are one of |Q| = 2 and three of 0
    law = charge_law(BETA, 64)
    change = {-2: 0.03, -1: -0.12, 0: 0.18, 1: -0.12, 2: 0.03}
    other = law.probability + np.array([change.get(int(k), 0.0) for k in law.charge])
    assert float(other @ law.charge**2) == pytest.approx(law.moment(2))
    p = np.array([other[law.charge == k][0] / np.mean(q == k) for k in q])
    phi = pool[rng.choice(len(pool), N_TIMES * N_CHAINS, p=p / p.sum())].reshape(phi.shape)
    found = failed(certified(phi, U1(BETA)))
    assert "P(Q)" in found
    assert "Q^2" not in found


def test_charges_of_chains_are_as_good_as_the_slowest_of_them() -> None:
    """Each charge ten times in a row: right with tau_int, wrong where all are taken as independent."""
    few = draw_links(BETA, (4, 4), 1600, 12).reshape(100, 16, 2, 4, 4)
    phi = np.repeat(few, 10, axis=0)
    ensemble, law = ensemble_of(phi, U1(BETA)), charge_law(BETA, 16)
    data = {name: [x[rows] for rows in ensemble.replicas()] for name, x in link_quantities(ensemble).items()}
    (row,) = chain_charges_check(ensemble, data)
    assert row["passed"]
    naive = charge_check(np.concatenate(data["charge"]), law)
    assert naive["value"] / row["value"] == pytest.approx(10, rel=0.4)
    (row,) = chain_charges_check(ensemble, {name: [x[:8] for x in parts] for name, parts in data.items()})
    assert not row["passed"]  # too short for a tau_int
    assert row["detail"].startswith("tau_int of the charge: ")


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [("frozen", {"Re P0", "Re P0^2", "Re P1", "Re P1^2"}), ("+-pi/2", {"Re P0^2", "Re P1^2"}),
     ("0, pi", {"Re P0^2", "Re P1^2"})],
)  # fmt: skip
def test_holonomies_that_are_not_uniform_are_refused(kind: str, wrong: set[str]) -> None:
    phi = drawn()
    flat = with_lines(phi.reshape(-1, 2, *SHAPE), angles_of(kind, N_TIMES * N_CHAINS))
    np.testing.assert_array_equal(charges(flat[None])[0], charges(phi).reshape(-1))
    assert failed(certified(flat.reshape(phi.shape), U1(BETA))) == wrong
    flat = with_lines(phi.reshape(-1, 2, *SHAPE), np.random.default_rng(5).uniform(-3.2, 3.2, (960, 2)))
    assert certified(flat.reshape(phi.shape), U1(BETA))["passed"]


@pytest.mark.parametrize(("n_chains", "n_times"), [(16, 200), (4, 2000)])
def test_holonomies_that_move_slowly_have_larger_errors(n_chains: int, n_times: int) -> None:
    """Random walks of tau_int 22: errors of independent numbers would refuse them."""
    rng, beyond = np.random.default_rng(6), []
    for seed in range(8):
        start = rng.uniform(-math.pi, math.pi, (1, n_chains, 2))
        walk = start + np.cumsum(0.3 * rng.normal(size=(n_times, n_chains, 2)), axis=0)
        phi = with_lines(draw_links(BETA, SHAPE, n_chains * n_times, 20 + seed), walk.reshape(-1, 2))
        ensemble = ensemble_of(phi.reshape(n_times, n_chains, 2, *SHAPE), U1(BETA))
        series = link_quantities(ensemble)
        data = {name: [x[rows] for rows in ensemble.replicas()] for name, x in series.items()}
        checks = [check for check in exact_checks(ensemble, data) if check["name"].startswith("Re P")]
        assert len(checks) == 4
        assert all(check["passed"] for check in checks), checks
        x = series["polyakov_0"]
        beyond.append(float(np.abs(x.mean()) / x.std() * math.sqrt(len(x))))
    assert float(np.mean(np.square(beyond))) > 4


def test_hot_chains_that_remember() -> None:
    phi = drawn()
    phi[:, ::2] = drawn(1.2, seed=5)[:, ::2]
    assert {"s hot-cold"} <= failed(certified(phi, U1(BETA)))


def test_no_charge_is_right_where_none_is_expected() -> None:
    phi = drawn(96.0)
    assert not charges(phi).any()
    ensemble = ensemble_of(phi, U1(96.0))
    assert may_stay(ensemble)
    assert not may_stay(ensemble_of(drawn(), U1(BETA)))
    certificate = certified(phi, U1(96.0))
    assert certificate["passed"], format_certificate(certificate)
    row = next(check for check in certificate["checks"] if check["name"] == "topology")
    assert "no more than of exact draws" in row["detail"]


def test_few_long_chains() -> None:
    """Errors of the Gamma method: four chains."""
    phi = draw_links(BETA, SHAPE, 2000, 7).reshape(500, 4, 2, *SHAPE)
    certificate = certify(ensemble_of(phi, U1(BETA)), history_of(phi[:50], U1(BETA)))
    assert certificate["passed"], format_certificate(certificate)


def test_an_s_of_its_own_has_no_exact_numbers_and_another_identity() -> None:
    @dataclass(frozen=True)
    class Weaker(U1):
        def action(self, phi: Tensor) -> Tensor:
            return 0.5 * super().action(phi)

        def grad(self, phi: Tensor) -> Tensor:
            return 0.5 * super().grad(phi)

    right = certify(ensemble_of(drawn(2.0), Weaker(4.0)), history_of(drawn(2.0, seed=9), Weaker(4.0)))
    assert right["passed"], format_certificate(right)
    assert not {"plaquette", "Q^2", "P(Q)", "Re P0"} & {check["name"] for check in right["checks"]}
    wrong = certify(ensemble_of(drawn(3.0), Weaker(4.0)), history_of(drawn(3.0, seed=9), Weaker(4.0)))
    assert "Schwinger-Dyson" in failed(wrong)
    still = ensemble_of(drawn(96.0), Weaker(192.0))
    row = topology_check(still, [still.series["magnetization"][rows] for rows in still.replicas()], None)
    assert not row["passed"]
    assert advice(still) == "use ensemble.n_winding: 1, or exact draws"


@dataclass(frozen=True)
class Rotors(Action):
    """A ring of rotors, of any period."""

    j: float
    period: float = 2 * math.pi
    field = "angle"

    def action(self, phi: Tensor) -> Tensor:
        return -self.j * (2 * math.pi / self.period * (phi - phi.roll(1, -1))).cos().sum(-1)

    def grad(self, phi: Tensor) -> Tensor:
        slope = (2 * math.pi / self.period * (phi - phi.roll(1, -1))).sin()
        return 2 * math.pi / self.period * self.j * (slope - slope.roll(-1, -1))


def test_identities_of_angles() -> None:
    phi = draw_links(2.0, (4, 6), 6000, 2)
    for beta, right in ((2.0, True), (2.2, False)):
        x = force_identity(phi, U1(beta))
        assert (abs(x.mean()) < 4 * x.std() / math.sqrt(len(x))) == right
        direct = (U1(beta).grad(torch.from_numpy(phi)) ** 2).mean((1, 2, 3)).numpy() / (2 * beta)
        cosine = -U1(beta).action(torch.from_numpy(phi)).numpy() / (24 * beta)
        np.testing.assert_allclose(x, direct - cosine, atol=1e-12)
    # an open chain of rotors closed by rejection: exact draws of a ring
    rng = np.random.default_rng(4)
    steps = rng.vonmises(0, 1.0, (60_000, 3))
    kept = steps[rng.random(len(steps)) < np.exp(np.cos(steps.sum(1)) - 1)]
    ring = np.cumsum(np.concatenate([rng.uniform(-3.2, 3.2, (len(kept), 1)), kept], axis=1), axis=1)
    for period in (2 * math.pi, 3.0):
        for j, right in ((1.0, True), (1.2, False)):
            x = angle_identity(ring * period / (2 * math.pi), Rotors(j, period))
            assert (abs(x.mean()) < 4 * x.std() / math.sqrt(len(x))) == right

"""The certificate of links: exact draws pass, chains that never left their sector do not, nor other laws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lattice.actions.protocol import Action
from lattice.actions.u1 import U1
from lattice.arrays import Floats
from lattice.certificates.check import format_certificate
from lattice.certificates.identities import angle_identity, force_identity
from lattice.certificates.links import advice, may_stay, topology_check
from lattice.certificates.monte_carlo import certify
from lattice.ensembles.ensemble import Ensemble
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
    assert failed(certified(mirrored, U1(BETA))) == {"Q of cold starts", "Q (C)"}


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
    assert not {"plaquette", "Q^2"} & {check["name"] for check in right["checks"]}
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

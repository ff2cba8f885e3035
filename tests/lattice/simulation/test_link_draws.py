"""Exact draws of links: certified, resumed after kill -9, made longer, refused; other laws fail."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killer import killed, killed_before
from longer import same_numbers

from lattice.actions.kinds import action_from_dict
from lattice.actions.phi4 import ScalarPhi4
from lattice.actions.u1 import U1
from lattice.certificates.check import format_certificate
from lattice.certificates.links import charge_check
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.errors import InputError
from lattice.exact.u1 import charge_law
from lattice.files import sha256_file
from lattice.observables.measure import measure
from lattice.simulation.exact_draws import generate_draws
from lattice.simulation.gauge_draws import draw_links
from lattice.simulation.link_draws import certify_draws, generate_link_draws
from lattice.simulation.parameters import ExactDraws
from lattice.simulation.simulate import simulate

LINKS, SHAPE = U1(2.0), (4, 6)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.glob("*.h5"))}


@pytest.mark.parametrize(("beta", "shape"), [(2.0, (4, 6)), (0.5, (2, 2)), (96.0, (4, 4)), (7.0, (8, 8))])
def test_certified_and_measured(beta: float, shape: tuple[int, int], tmp_path: Path) -> None:
    ensemble = simulate(U1(beta), shape, ExactDraws(n_configs=3000), seed=3, out=tmp_path)
    certificate = ensemble.attrs["certificate"]
    assert certificate["passed"], format_certificate(certificate)
    assert (len(ensemble), certificate["n_chains"]) == (3008, 64)
    names = [check["name"] for check in certificate["checks"]]
    assert ("2x2 loop" in names) == (shape != (2, 2))
    assert {"plaquette", "Q^2", "Q (C)", "P(Q)", "Schwinger-Dyson"} <= set(names)
    assert {"Re P0", "Re P0^2", "Re P1", "Re P1^2"} <= set(names)
    again = read_ensemble(tmp_path)
    assert again.action == U1(beta)
    assert again.shape == shape
    assert same_numbers(again, ensemble)
    table = measure(again)["observables"]
    assert all(abs(e["value"] - e["exact"]) < 4.5 * e["error"] for e in table.values() if e["error"])
    train, held = again.split_chains(0.1)
    assert len(train) + len(held) == 3008


def test_number_by_number_what_is_drawn(tmp_path: Path) -> None:
    ensemble = simulate(LINKS, SHAPE, ExactDraws(n_configs=1000), seed=3, out=tmp_path)
    np.testing.assert_array_equal(ensemble.phi, draw_links(2.0, SHAPE, 1024, 3))
    assert ensemble.chain.tolist() == [i % 64 for i in range(1024)]
    assert ensemble.attrs["algorithm"]["name"] == "exact draws"


def test_kill_9_then_the_same_call(tmp_path: Path) -> None:
    work = (LINKS, SHAPE, ExactDraws(n_configs=2000), 3)
    made = generate_link_draws(*work, tmp_path / "whole")
    killed("exact draws", 1, generate_link_draws, *work, tmp_path / "after a shard")
    killed_before("shard-0000.h5", generate_link_draws, *work, tmp_path / "before one")
    for name in ("after a shard", "before one"):
        assert not (tmp_path / name / "manifest.json").exists()
        assert same_numbers(generate_link_draws(*work, tmp_path / name), made)
        assert hashes(tmp_path / name) == hashes(tmp_path / "whole")


def test_shards_are_made_again_and_longer_ones_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lattice.simulation.parameters._SHARD_BYTES", 8 * 48 * 64 * 8)
    whole, longer = tmp_path / "whole", tmp_path / "longer"
    params = ExactDraws(n_configs=2000)
    made = generate_link_draws(LINKS, SHAPE, params, 3, whole)
    before = {path.name: path.stat().st_mtime_ns for path in whole.iterdir()}
    generate_link_draws(LINKS, SHAPE, params, 3, whole)
    assert before == {path.name: path.stat().st_mtime_ns for path in whole.iterdir()}
    found = hashes(whole)
    assert len(found) == 4
    (whole / "manifest.json").unlink()
    (whole / "shard-0002.h5").unlink()
    assert same_numbers(generate_link_draws(LINKS, SHAPE, params, 3, whole), made)
    assert hashes(whole) == found
    generate_link_draws(LINKS, SHAPE, ExactDraws(n_configs=1000), 3, longer)
    assert same_numbers(generate_link_draws(LINKS, SHAPE, params, 3, longer), made)
    assert hashes(longer) == found


def certificate_of(phi: Any, beta: float) -> set[str]:
    ensemble = Ensemble.from_fields(phi, U1(beta), np.arange(len(phi)) % 64)
    return {check["name"] for check in certify_draws(ensemble)["checks"] if not check["passed"]}


def test_other_laws_fail() -> None:
    phi = draw_links(2.0, SHAPE, 6400, 1)
    assert certificate_of(phi, 2.0) == set()
    assert {"plaquette", "2x2 loop", "Schwinger-Dyson"} <= certificate_of(phi, 2.2)
    q = LINKS.order(torch.from_numpy(phi)).numpy()
    still = phi[np.resize(np.flatnonzero(q == 0), 6400)]
    assert {"Q^2", "P(Q)"} <= certificate_of(still, 2.0)
    positive = np.where((q < 0)[:, None, None, None], -phi, phi)
    assert certificate_of(positive, 2.0) == {"Q (C)", "P(Q)"}


def test_holonomies_are_uniform() -> None:
    phi, rng = draw_links(2.0, SHAPE, 3200, 1), np.random.default_rng(2)
    two = np.pi * rng.integers(0, 2, (3200, 2))
    cases = (
        (np.full((3200, 2), 0.3), {"Re P0", "Re P0^2", "Re P1", "Re P1^2"}),
        (two, {"Re P0^2", "Re P1^2"}),
        (two - np.pi / 2, {"Re P0^2", "Re P1^2"}),
        (rng.uniform(0, 2 * np.pi, (3200, 2)), set()),
    )
    for angle, wrong in cases:
        turned = phi.copy()
        for mu in (0, 1):  # the first line along axis mu gets this angle; plaquettes stay
            off = angle[:, mu] - phi[:, mu].sum(mu + 1)[:, 0]
            turned[:, mu] += (off / SHAPE[mu])[:, None, None]
        assert certificate_of(turned, 2.0) == wrong


def test_charges_by_chi_squared() -> None:
    law, rng = charge_law(4.0, 256), np.random.default_rng(5)
    p = []
    for _ in range(200):
        check = charge_check(rng.choice(law.charge, 1000, p=law.probability), law)
        assert check["passed"]
        p.append(float(check["detail"].split("p = ")[1]))
    assert abs(np.mean(p) - 0.5) < 4 / np.sqrt(12 * 200)
    assert not charge_check(rng.choice(law.charge, 1000, p=law.probability) // 2 * 2, law)["passed"]
    assert not charge_check(rng.choice(law.charge, 1000, p=law.probability) * 1.5 // 1, law)["passed"]


@dataclass(frozen=True)
class Own(U1):
    """An S of its own."""

    def action(self, phi: Any) -> Any:
        return 2.0 * super().action(phi)


@pytest.mark.parametrize(
    ("action", "shape", "text"),
    [
        (
            U1(2.0, theta=1.0),
            SHAPE,
            r"S is complex: action.beta = 2, action.theta = 1; .* action.field: x\+iy",
        ),
        (U1(1.0 + 0.5j), SHAPE, "S is complex"),
        (Own(1.0), SHAPE, r"exact draws of a lattice are of U\(1\) links only, not Own"),
        (LINKS, (4,), r"two periodic extents of at least 2, got lattice.shape \[4\]"),
        (LINKS, (4, 1), "two periodic extents"),
        (LINKS, (4, 4, 4), "two periodic extents"),
        (LINKS, (), "two periodic extents"),
        (ScalarPhi4(0.2, 0.02), SHAPE, "exact draws are of one variable"),
        (
            action_from_dict({"kind": "u1", "beta": 1.0, "field": "x+iy"}),
            SHAPE,
            "exact draws are of one variable",
        ),
    ],
)
def test_refusals(action: Any, shape: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=text) as refused:
        generate_draws(action, shape, ExactDraws(n_configs=1000), 1, tmp_path / "e")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "e").exists()


def test_other_settings_and_too_many(tmp_path: Path) -> None:
    generate_draws(LINKS, SHAPE, ExactDraws(n_configs=1000), 1, tmp_path)
    with pytest.raises(InputError, match=r"action\.beta was 2\.0, now 3\.0.*choose another"):
        generate_draws(U1(3.0), SHAPE, ExactDraws(n_configs=1000), 1, tmp_path)
    with pytest.raises(InputError, match="seed was 1, now 2"):
        generate_draws(LINKS, SHAPE, ExactDraws(n_configs=1000), 2, tmp_path)
    with pytest.raises(InputError, match="needs about .* GB of memory.*take a smaller ensemble.n_configs"):
        generate_draws(LINKS, (256, 256), ExactDraws(n_configs=10**8), 1, tmp_path / "f")

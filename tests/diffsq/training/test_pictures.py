"""The digits: what is known of them exactly, the machine's likelihood of them, and their files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from diffsq.config.config import config_from_dict
from diffsq.config.machines import PicturesRun
from diffsq.models.second_moments import data_second
from diffsq.training.contrastive import kernel_of
from diffsq.training.machines import train_machine
from diffsq.training.pictures import certificate, digits, make_pictures, read_pictures
from lattice.arrays import sha256_array
from lattice.errors import InputError
from lattice.exact.gaussian_rbm import best_mass, learned, log_likelihood

needs_digits = pytest.mark.usefixtures("_with_sklearn")
LIKELIHOODS = {  # per picture, by independent code
    6.0: {0: -214.395, 1: -29.665, 4: -1.8216, 9: 12.8965, 16: 17.6301, 25: 18.3235, 26: 18.3235},
    12.0: {0: -980.8004, 1: -232.1773, 4: -104.3577, 9: -25.2655, 16: 12.3665, 25: 28.3574, 36: 32.8706,
           49: 33.1193},
}  # fmt: skip


@pytest.fixture
def _with_sklearn() -> None:
    pytest.importorskip("sklearn")


@needs_digits
def test_the_digits_are_those_of_the_tables() -> None:
    """Dead pixels, trace and the largest eigenvalues of <phi phi^T>, not centred."""
    phi = digits()
    assert phi.shape == (1797, 8, 8)
    assert (phi.min(), phi.max()) == (0, 1)
    assert np.array_equal(phi * 16, np.round(phi * 16))
    second = data_second(phi)
    values = torch.linalg.eigvalsh(second).flip(0).numpy()
    assert float(second.trace()) == pytest.approx(15.014199, abs=1e-6)
    np.testing.assert_allclose(values[:5], (10.4553, 0.69883, 0.63858, 0.5525, 0.39373), atol=5e-5)
    assert np.flatnonzero(second.diagonal() == 0).tolist() == [0, 32, 39]
    kappa = kernel_of(second)
    assert np.isinf(kappa).sum() == 3
    assert [(kappa < mu**2).sum() for mu in (2, 3, 4, 6, 12, 20, 50)] == [6, 11, 17, 26, 43, 49, 51]
    centred = np.linalg.eigvalsh(np.cov(phi.reshape(1797, 64).T, bias=True))[::-1]
    np.testing.assert_allclose(centred[:4], (0.69886, 0.63917, 0.55355, 0.3947), atol=5e-5)
    assert centred.sum() == pytest.approx(4.693276, abs=1e-6)


@needs_digits
@pytest.mark.parametrize("mu", [6.0, 12.0])
def test_the_likelihood_of_the_digits(mu: float) -> None:
    """By the closed form, as in the table and as the mean of the Gaussian's own density over pictures."""
    phi = digits()
    kappa = kernel_of(data_second(phi))
    found = {n: log_likelihood(kappa, learned(kappa, mu**2, n)) for n in LIKELIHOODS[mu]}
    for n, known in LIKELIHOODS[mu].items():
        assert found[n] == pytest.approx(known, abs=6e-5 if n < 25 and abs(known) < 200 else 6e-4)
    values, basis = np.linalg.eigh(data_second(phi).numpy())
    along = phi.reshape(1797, 64) @ basis[:, ::-1]
    for n in (0, 4, 25):
        lam = learned(kappa, mu**2, n)
        direct = 0.5 * (np.log(lam / (2 * np.pi)) - lam * along**2).sum(1).mean()
        assert found[n] == pytest.approx(direct, rel=1e-10)


@needs_digits
def test_the_best_masses_of_the_digits() -> None:
    kappa = kernel_of(data_second(digits()))
    known = {4: 22.48, 9: 38.93, 16: 67.26, 25: 123.89, 36: 284.15, 49: 3726}
    for n, mass in known.items():
        assert best_mass(kappa, n) == pytest.approx(mass, rel=2e-4)


@needs_digits
def test_a_folder_of_digits(tmp_path: Path) -> None:
    identity = make_pictures("digits", tmp_path / "e")
    phi, again = read_pictures(tmp_path / "e")
    assert np.array_equal(phi, digits())
    assert again == identity == sha256_array(phi)
    found = json.loads((tmp_path / "e/certificate.json").read_text())
    assert found["passed"]
    assert (found["n"], found["dead"], found["sha256"]) == (1797, [0, 32, 39], identity)
    assert "pixels 0, 32, 39 never change: kappa = inf" in str(found["checks"])
    first = [path.read_bytes() for path in sorted((tmp_path / "e").iterdir())]
    assert make_pictures("digits", tmp_path / "e") == identity
    assert [path.read_bytes() for path in sorted((tmp_path / "e").iterdir())] == first


def test_changed_data_are_refused(tmp_path: Path) -> None:
    phi = np.random.default_rng(1).random((100, 8, 8))
    with pytest.raises(InputError, match="data.npy: no such file; .diffsq ensemble. makes it"):
        read_pictures(tmp_path)
    np.save(tmp_path / "data.npy", phi)
    (tmp_path / "certificate.json").write_text(json.dumps({"sha256": sha256_array(phi)}))
    assert read_pictures(tmp_path)[1] == sha256_array(phi)
    phi[5, 3, 3] = np.nextafter(phi[5, 3, 3], 2)
    np.save(tmp_path / "data.npy", phi)
    with pytest.raises(InputError, match="changed since it was written"):
        read_pictures(tmp_path)


def test_a_torn_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "certificate.json").write_text(json.dumps({"sha256": "0"}))
    for image in (b"", b"no array", b"\x93NUMPY\x01\x00v\x00{'descr': "):
        (tmp_path / "data.npy").write_bytes(image)
        with pytest.raises(InputError, match="data.npy") as error:
            read_pictures(tmp_path)
        assert "\n" not in str(error.value)


def test_what_a_data_set_can_be_asked() -> None:
    """Each check fails on data made for it, and only there."""
    good = np.random.default_rng(2).random((100, 8, 8))
    holes, still, few = good.copy(), np.full_like(good, 0.5), good[:64]
    holes[3, 2, 1] = np.nan
    assert certificate(good)["passed"]
    assert certificate(good)["reason"] == ""
    for phi, name in ((holes, "finite"), (still, "pixels that change"), (few, "pictures")):
        found = certificate(phi)
        assert not found["passed"]
        assert found["reason"]
        assert [check["name"] for check in found["checks"] if not check["passed"]] == [name]
    assert certificate(still)["dead"] == list(range(64))


def test_pictures_are_learned_and_dead_pixels_stay_at_the_mass(tmp_path: Path) -> None:
    """The KL from a singular Gaussian is null; fixed points are the closed form's, of CD-1 too."""
    scale = np.where(np.arange(64) < 44, np.linspace(0, 0.6, 64), 2.0).reshape(8, 8)
    phi = np.random.default_rng(3).normal(size=(200, 8, 8)) * scale
    run = config_from_dict(
        {"name": "p", "models": ["rbm"], "ensemble": {"data": "digits"},
         "machine": {"mu2": 1.0, "n_hidden": 20}, "training": {"n_steps": 1500, "n_records": 6}}
    )  # fmt: skip
    assert isinstance(run, PicturesRun)
    machine = train_machine(run, phi, "d", tmp_path / "e")
    kappa = kernel_of(data_second(phi))
    known = np.sort(learned(kappa, 1.0, 20))
    np.testing.assert_allclose(machine.spectrum, known, atol=2e-3)
    assert (known < 0.8).sum() == 20
    assert float(machine.kernel[0, 0]) == pytest.approx(1, abs=1e-3)  # the pixel that is always 0
    found = [json.loads(line) for line in (tmp_path / "e/metrics.jsonl").read_text().splitlines()]
    assert {line["kl"] for line in found} == {None}
    likely = [line["log_likelihood"] for line in found]
    assert (np.diff(likely) > 0).all()
    assert likely[-1] == pytest.approx(log_likelihood(kappa, known), abs=1e-3)
    natural = run.model_copy(update={"training": run.training.model_copy(update={"natural": True})})
    with pytest.raises(InputError, match="1 of 64 modes have no variance"):
        train_machine(natural, phi, "d", tmp_path / "f")


def test_without_scikit_learn_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"not installed: pip install 'diffsq\[digits\]'") as error:
        digits()
    assert "\n" not in str(error.value)

"""Foreign ensembles: good ones are taken, and every way of being wrong is refused with its numbers."""

from __future__ import annotations

import errno
import json
import math
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import ACTION, FREE, SHAPE, Array, failed, find, free_draws, own, saved

import lattice.interchange.comparison as foreign_guard
from lattice.actions.one_variable import RealQuartic
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.actions.spins import Ising
from lattice.certificates.check import format_certificate
from lattice.ensembles.ensemble import read_ensemble
from lattice.errors import InputError
from lattice.interchange.comparison import guard_checks
from lattice.interchange.identities import series_of
from lattice.interchange.importing import format_import, import_file
from lattice.observables.measure import measure
from lattice.simulation.exact_draws import draw_toy
from lattice.simulation.monte_carlo import MonteCarlo, generate


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Array:
    """A good ensemble, 32 chains one after the other, nearly independent: (2048, 16, 16)."""
    params = MonteCarlo(n_configs=2048, n_chains=32, n_therm=200, stride=4, length_jitter=0.6)
    e = generate(ACTION, SHAPE, params, 5, tmp_path_factory.mktemp("theirs"))
    return e.phi[np.concatenate(e.replicas())]


def test_written_and_read_back(tmp_path: Path, theirs: Array) -> None:
    path = saved(tmp_path, theirs)
    out = tmp_path / "deep" / "out"
    result = import_file(path, ACTION, n_chains=32, stride=4, out=out)
    text = format_import(result)
    assert result["passed"], text
    assert text.endswith("ACCEPTED")
    for words in ("2048 configurations on 16x16, in 32 chains", "kappa = 0.27, lam = 0.022", "|M| drift",
                  "Schwinger-Dyson", "|M| of own run", "s between chains"):  # fmt: skip
        assert words in text
    json.dumps(result, allow_nan=False)
    e = read_ensemble(out, ACTION)
    assert e.identity == result["identity"]
    np.testing.assert_array_equal(e.phi, theirs)
    assert len(e.replicas()) == 32
    assert e.trajectory[:3].tolist() == [4, 8, 12]
    assert e.attrs["stride"] == 4
    assert e.attrs["algorithm"]["name"] == "imported"
    certificate = e.attrs["certificate"]
    assert certificate["passed"]
    assert certificate["origin"]["file"] == "fields.npy"
    assert certificate["n_independent"] > 1000
    assert format_certificate(certificate).startswith("Certificate: PASSED")
    assert json.loads((out / "certificate.json").read_text()) == certificate
    written = b"".join(p.read_bytes() for p in out.iterdir())
    assert str(tmp_path).encode() not in written, "only the name of the file is kept"
    assert abs(measure(e)["observables"]["abs_magnetization"]["value"] - 0.7617) < 0.03
    assert sorted(p.name for p in out.parent.iterdir()) == ["out"], "nothing is left beside it"


def test_an_action_that_is_not_phi4(tmp_path: Path) -> None:
    """Our own run needs no clusters of it, and its couplings are printed whatever they are called."""
    law = RealQuartic(1.0, 0.5)
    path = saved(tmp_path, draw_toy(law, 2000, 1))
    good = import_file(path, law)
    assert good["passed"], format_import(good)
    assert "declared: real_quartic, mu2 = 1, g = 0.5\n" in format_import(good)
    bad = import_file(path, RealQuartic(2.0, 0.5))
    assert "Schwinger-Dyson" in failed(bad)
    assert "declared: real_quartic, mu2 = 2, g = 0.5\n" in format_import(bad)


def test_independent_configurations(tmp_path: Path, theirs: Array) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, fields=theirs[::2])
    result = import_file(path, ACTION, out=tmp_path / "out")
    assert result["passed"], format_import(result)
    assert result["n_chains"] is None
    e = read_ensemble(tmp_path / "out", ACTION)
    assert len(np.unique(e.chain)) == 1024
    assert measure(e)["observables"]["phi2"]["error"] > 0


def test_float32_and_big_endian(tmp_path: Path, theirs: Array) -> None:
    path = saved(tmp_path, theirs.astype(">f4"))
    result = import_file(path, ACTION, n_chains=32)
    assert result["passed"]
    assert result["file"]["dtype"] == "float32"
    assert "7 digits" in format_import(result)


@pytest.mark.parametrize("action", [ScalarPhi4(0.26, 0.022), ScalarPhi4(0.27, 0.025)])
def test_wrong_couplings(tmp_path: Path, theirs: Array, action: ScalarPhi4) -> None:
    """kappa = 0.27 declared as 0.26, and a wrong lam: observed beside expected, and a hint."""
    result = import_file(saved(tmp_path, theirs), action, out=tmp_path / "out")
    assert "Schwinger-Dyson" in failed(result)
    text = format_import(result)
    assert not result["written"]
    assert not (tmp_path / "out").exists()
    assert "REFUSED: Schwinger-Dyson" in text
    assert find(result, "Schwinger-Dyson")["expected"] == "1"
    assert result["guard"] is None
    assert "note: the checks of the file alone have failed: no run of our own was made" in text
    compared, _ = guard_checks(series_of(theirs, action), None, own(action, SHAPE, 1, None))
    wrong = {check["name"]: check for check in compared if not check["passed"]}
    assert {"|M| of own run", "V M^2 of own run", "phi^2 of own run"} <= set(wrong)
    assert abs(wrong["|M| of own run"]["value"] - 0.7617) < 0.03
    (hint,) = [hint for hint in result["hints"] if "asks for kappa" in hint]
    if action.kappa == 0.26:
        assert abs(float(hint.split("kappa = ")[1].split("(")[0]) - 0.27) < 0.002


def test_another_convention(tmp_path: Path, theirs: Array) -> None:
    scale = math.sqrt(2 * 0.27)
    result = import_file(saved(tmp_path, scale * theirs), ACTION)
    assert not result["passed"]
    assert len(result["hints"]) == 1
    assert "'bare'" in result["hints"][0]
    assert f"divide them by {scale:.6f}"[:-1] in result["hints"][0]


def test_accepted_all_the_same(tmp_path: Path) -> None:
    path = saved(tmp_path, 1.2 * free_draws(400, 9))
    result = import_file(path, FREE, out=tmp_path / "out", accept_uncertified=True)
    assert not result["passed"]
    assert result["written"]
    assert format_import(result).endswith("WRITTEN ALL THE SAME, as uncertified")
    certificate = read_ensemble(tmp_path / "out").attrs["certificate"]
    assert certificate["passed"] is False
    assert "Schwinger-Dyson" in certificate["reason"]


def test_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_guard, "own_run", lambda *args: pytest.fail("our own run was started"))
    path = saved(tmp_path, free_draws(200, 1))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="full: is not empty"):
        import_file(path, FREE, out=tmp_path / "full")
    with pytest.raises(InputError, match="is a file"):
        import_file(path, FREE, out=path)
    with pytest.raises(InputError, match="stride"):
        import_file(path, FREE, stride=0)
    with pytest.raises(InputError, match="n_chains"):
        import_file(path, FREE, n_chains=0)
    with pytest.raises(InputError, match=r"expected \(n, 8, 8\)"):
        import_file(path, FREE, (8, 8))
    with pytest.raises(InputError, match="a gradient that spins have not. .*from_fields.*callen"):
        import_file(path, Ising(2.5))


def test_an_action_without_a_distribution(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no normalisable distribution"):
        import_file(saved(tmp_path, free_draws(200, 1)), FreeScalar(0.3))


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lattice.interchange.importing.write_ensemble", interrupted)
    path = saved(tmp_path, free_draws(400, 1))
    with pytest.raises(KeyboardInterrupt):
        import_file(path, FREE, out=tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["fields.npy"]


@pytest.mark.parametrize("bounded", [True, False])
def test_a_large_lattice_is_judged_and_written_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bounded: bool
) -> None:
    """A file of 3.7 MB in small parts: NumPy holds far less than the file. The control holds it all."""
    rng, cos = np.random.default_rng(5), np.cos(2 * np.pi * np.arange(48) / 48)
    width = np.sqrt(0.5 / (1 - 2 * FREE.kappa * (cos[:, None] + cos[None, :])))
    phi = np.fft.ifft2(width * np.fft.fft2(rng.normal(size=(200, 48, 48)))).real
    path = saved(tmp_path, phi)
    for name, size in (("comparison.MAX_BYTES", 10**6), ("reading._PART", 2**16)):
        monkeypatch.setattr(f"lattice.interchange.{name}", size)
    monkeypatch.setattr("lattice.ensembles.shards._BATCH_SITES", 2**13)
    monkeypatch.setattr("lattice.observables.scalar._CHUNK_SITES", 2**13)
    monkeypatch.setattr("lattice.ensembles.writer._SHARD_BYTES", 2**18)
    if bounded:
        monkeypatch.setattr("lattice.interchange.reading._IN_MEMORY", 2**16)
    tracemalloc.start()
    result = import_file(path, FREE, (48, 48), out=tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result["passed"], format_import(result)
    assert any("identities of the file alone" in note for note in result["notes"])
    assert (peak < phi.nbytes / 2) == bounded
    np.testing.assert_array_equal(read_ensemble(tmp_path / "out").phi, phi)


def test_a_full_folder_for_temporary_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lattice.interchange.reading._IN_MEMORY", 0)
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(InputError, match=rf"^{tempfile.gettempdir()}: disk full.*set TMPDIR"):
        import_file(saved(tmp_path, free_draws(400, 10).astype("f4")), FREE)

"""Shards: series by their definition, equal bytes, and every way of being damaged refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from stored import ensemble, fields, refused

from lattice.ensembles.ensemble import read_ensemble
from lattice.ensembles.writer import write_ensemble
from lattice.errors import InputError
from lattice.files import sha256_file


def test_series_by_their_definition() -> None:
    e, phi = ensemble(), fields()
    site_sum = np.zeros(12)
    for x in range(4):
        for y in range(6):
            here = phi[:, x, y]
            hop = phi[:, (x + 1) % 4, y] + phi[:, x, (y + 1) % 6]
            site_sum += -2 * 0.27 * here * hop + (1 - 2 * 0.022) * here**2 + 0.022 * here**4
    np.testing.assert_allclose(e.series["action"], site_sum, rtol=1e-12)
    np.testing.assert_allclose(e.series["magnetization"], phi.mean(axis=(1, 2)), atol=1e-15)
    np.testing.assert_allclose(e.series["phi2"], (phi**2).mean(axis=(1, 2)), rtol=1e-13)


def test_equal_content_equal_bytes_and_schema(tmp_path: Path, shard: Path) -> None:
    again = tmp_path / "again"
    write_ensemble(ensemble(series={"dH": np.linspace(-1, 1, 12)}), again)
    assert sha256_file(again / "shard-0000.h5") == sha256_file(shard)
    with h5py.File(shard) as file:
        assert file["phi"].chunks == (1, 4, 6)
        assert file["phi"].fletcher32
        assert file["phi"].compression is None
        assert file["phi"].dtype == np.float64
        assert file["chain"].dtype == np.int64
        assert file["trajectory"].dtype == np.int64
        assert set(file["series"]) == {"action", "magnetization", "phi2", "dH"}
        assert file.attrs["schema"] == "diffsq-ensemble/1"
        assert json.loads(file.attrs["action"]) == {
            "kind": "phi4",
            "convention": "kappa-lambda",
            "kappa": 0.27,
            "lam": 0.022,
        }


def set_attr(name: str, value: Any) -> Any:
    return lambda file: file.attrs.__setitem__(name, value)


def replace(name: str, data: Any, **more: Any) -> Any:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, data=data, **more)

    return change


def soft_link(file: h5py.File) -> None:
    file.move("phi", "elsewhere")
    file["phi"] = h5py.SoftLink("/elsewhere")


def external_link(file: h5py.File) -> None:
    del file["phi"]
    file["phi"] = h5py.ExternalLink("other.h5", "/phi")


def linked_group(file: h5py.File) -> None:
    file.move("series", "elsewhere")
    file["series"] = h5py.SoftLink("/elsewhere")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((12, 4, 6), dtype="<f8")
    layout[:] = h5py.VirtualSource("other.h5", "phi", (12, 4, 6))
    del file["phi"]
    file.create_virtual_dataset("phi", layout)


def external_data(file: h5py.File) -> None:
    del file["phi"]
    file.create_dataset("phi", (12, 4, 6), "<f8", external=[("/etc/hostname", 0, 2304)])


def objects(file: h5py.File) -> None:
    del file["chain"]
    file.create_dataset("chain", (12,), dtype=h5py.string_dtype())


def huge(file: h5py.File) -> None:
    del file["phi"]
    file.create_dataset("phi", (2**36, 4, 6), "<f8", chunks=(1, 4, 6))


def with_nan(file: h5py.File) -> None:
    file["phi"][4, 2, 2] = np.inf


def edit(name: str) -> Any:
    def change(file: h5py.File) -> None:
        file[name][5] *= 1 + 1e-7

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_attr("schema", "other/1"), "schema"),
        (set_attr("shape", "[4,7]"), "shape"),
        (set_attr("shape", '"x"'), "shape"),
        (set_attr("action", "{"), "JSON"),
        (set_attr("series", '["../phi"]'), "series"),
        (set_attr("series", '["action"]'), "series/magnetization"),
        (replace("phi", fields().astype("f4")), "type"),
        (replace("phi", fields().astype(">f8")), "type"),
        (replace("phi", fields(), compression="gzip"), "compressed"),
        (replace("chain", np.arange(11)), "shape"),
        (replace("phi", fields()[:0]), "no configuration"),
        (lambda file: file.pop("trajectory"), "missing"),
        (soft_link, "link"),
        (external_link, "link"),
        (linked_group, "link"),
        (virtual, "plain dataset"),
        (external_data, "plain dataset"),
        (objects, "type"),
        (huge, "claims"),
        (with_nan, "configuration 4"),
        (edit("series/action"), "stored action of configuration 5"),
        (edit("series/magnetization"), "stored magnetization of configuration 5"),
        (edit("series/phi2"), "stored phi2 of configuration 5"),
        (
            set_attr("action", '{"kind":"phi4","convention":"kappa-lambda","kappa":0.26,"lam":0.022}'),
            "expected",
        ),
    ],
)
def test_bad_shards_are_refused_in_one_line(shard: Path, change: Any, words: str) -> None:
    with h5py.File(shard, "a") as file:
        change(file)
    refused(shard, words)


def test_a_file_that_lies_about_its_action(shard: Path) -> None:
    """Without an expected action the series still give it away."""
    with h5py.File(shard, "a") as file:
        file.attrs["action"] = '{"kind":"phi4","convention":"kappa-lambda","kappa":0.26,"lam":0.022}'
    with pytest.raises(InputError, match="stored action"):
        read_ensemble(shard)


def test_truncated_and_foreign_files(shard: Path) -> None:
    content = shard.read_bytes()
    for size in (0, 100, len(content) // 2, len(content) - 1):
        shard.write_bytes(content[:size])
        refused(shard, "truncated")
    shard.write_bytes(b"not HDF5 at all" * 100)
    refused(shard, "truncated, damaged or not HDF5")


def test_flipped_bit_in_a_field(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    at = content.find(fields()[6].tobytes())
    content[at + 40] ^= 1
    shard.write_bytes(bytes(content))
    refused(shard, "damaged")

"""The dialect of YAML that configs are written in: what YAML 1.1 reads otherwise than its writer means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from diffsq.checks.perform import read_options
from diffsq.commands.slurm import submit_scan
from diffsq.config.config import load_config
from diffsq.config.scan_file import load_scan, scan_ranges
from diffsq.config.yaml_file import Dumper, read_value, read_yaml
from lattice.errors import InputError

POINTS = """
name: two
points:
  - {name: A, shape: [4, 4], action: &a {kappa: 0.2, lam: 0.1}}
  - {name: B, shape: [4, 4], action: {<<: *a, kappa: 0.22}}
"""


def refusal(text: str) -> str:
    with pytest.raises(InputError) as caught:
        read_value(text, "--set seed")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e5", 100000), ("-2e3", -2000), ("1E+3", 1000), ("1e-3", 1e-3), ("1.5e3", 1500.0), (".5", 0.5),
     ("-.5", -0.5), ("+.25", 0.25), ("5.", 5.0), ("8", 8), ("-0", 0), ("0x10", 16),
     ("2026-01-01", "2026-01-01"),
     ("'010'", "010"), ("~", None), ("yes", True), ("1e400", float("inf"))],
)  # fmt: skip
def test_what_a_value_plainly_is(text: str, value: Any) -> None:
    found = read_value(text, "x")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "write"),
    [("010", "write 10 or 8,"), ("-010", "write -10 or -8,"), ("08", "write 8,"), ("00", "write 0,"),
     ("0o10", "write 8,"), ("1_000", "write 1000,"), ("1_0.5", "write 10.5,"), ("1:00", "write 60,"),
     ("1:30.5", "write 90.5,"), ("[4, 010]", "write 10 or 8,")],
)  # fmt: skip
def test_numbers_of_yaml_1_1_alone_are_refused_with_what_to_write(text: str, write: str) -> None:
    said = refusal(text)
    assert said.startswith("--set seed: ")
    assert write in said
    assert "in quotes if it is text" in said


def test_every_reader_of_yaml_refuses_them(tmp_path: Path, config_file: Path) -> None:
    """A config, `--set` of it, a points file, `--scan`, the options of a check and of Slurm."""
    config_file.write_text(config_file.read_text().replace("seed: 3", "seed: 010"))
    with pytest.raises(InputError, match=r"small\.yaml line \d+: 010 is octal.* write 10 or 8"):
        load_config(config_file)
    config_file.write_text(config_file.read_text().replace("seed: 010", "seed: 10"))
    with pytest.raises(InputError, match=r"--set seed: 1:00 .*write 60"):
        load_config(config_file, ["seed=1:00"])
    (tmp_path / "points.yaml").write_text(POINTS.replace("0.22", "0.2_2"))
    with pytest.raises(InputError, match=r"points\.yaml line 5: 0\.2_2 .*write 0\.22"):
        load_scan(tmp_path / "points.yaml", [])

    with pytest.raises(InputError, match=r"--scan L: 010 is octal.* write 10 or 8"):
        scan_ranges(["L=8,010"])
    assert scan_ranges(["kappa=.25,2.6e-1"]) == {"kappa": [0.25, 0.26]}

    def run(bench: Any, progress: Any, n_fields: int = 256) -> None: ...

    with pytest.raises(InputError, match=r"--set n_fields: 1_000 .*write 1000"):
        read_options(["n_fields=1_000"], run, "levels")
    assert read_options(["n_fields=1e3"], run, "levels") == {"n_fields": 1000}
    pytest.importorskip("submitit")
    with pytest.raises(InputError, match=r"--submit slurm_time: 12:00:00 .*'12:00:00' in quotes"):
        submit_scan([], tmp_path, 1, ["slurm_time=12:00:00"])


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("seed=yes", ["seed must be a number, got True", "write the number"]),
        ("ensemble.n_chains=on", ["ensemble.n_chains must be a number"]),
        ("lattice.shape=[16, yes]", ["lattice.shape must be a number, got [16, True]"]),
        ("action.kappa=off", ["action.kappa must be a finite number, got False"]),
        ("name=no", ["name must be text, got False", "in quotes"]),
        ("name=12", ["name", "write '12' in quotes"]),
        ("seed=~", ["seed", "empty value", "leave the key out"]),
        ("training.n_steps=", ["training.n_steps", "leave the key out"]),
        ("training=", ["training", "leave the key out"]),
        ("seed=2026-01-01", ["seed", "integer", "2026-01-01"]),
    ],
)
def test_a_value_of_another_type_is_refused(config_file: Path, override: str, fragments: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_config(config_file, [override])
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_truth_values_where_they_belong_and_text_that_looks_like_a_date(config_file: Path) -> None:
    config = load_config(config_file, ["checks={levels: off}", "name=2026-01-01", "seed=1e5"])
    assert "levels" not in config.checks
    assert (config.name, config.seed) == ("2026-01-01", 100000)
    assert load_config("toy_two_peak", ["training.solve=no"]).training.solve is False


def test_only_a_key_written_twice_in_one_mapping_is_twice(tmp_path: Path) -> None:
    path = tmp_path / "points.yaml"
    path.write_text(POINTS)
    assert [point.action.kappa for point in load_scan(path, []).points] == [0.2, 0.22]
    # the second base is flattened for `c` before it is itself constructed
    path.write_text(
        "a: &a {k: 1, l: 0}\nx: {inner: &b {<<: *a, k: 2}}\nc: {<<: *b, l: 3}\nd: {<<: [*b, *a]}\n"
    )
    found = read_yaml(path)
    assert found["x"] == {"inner": {"k": 2, "l": 0}}
    assert (found["c"], found["d"]) == ({"k": 2, "l": 3}, {"k": 2, "l": 0})
    for text, line in (
        ("a: &a {k: 1}\nb: {<<: *a, k: 2, k: 3}\n", "line 2: not valid YAML (key 'k' twice)"),
        ("a: &a {k: 1}\nb: {<<: *a,\n <<: *a}\n", "line 3: not valid YAML (key '<<' twice; merge several as"),
        ("a: {k: 1, k: 1}\n", "line 1: not valid YAML (key 'k' twice)"),
    ):
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            read_yaml(path)
        assert line in str(caught.value)


def test_what_is_written_reads_back_as_what_it_was() -> None:
    for value in (
        "010",
        "0o10",
        "1e5",
        "-.5",
        "1_000",
        "1:00",
        "yes",
        "2026-01-01",
        1e-5,
        1e20,
        7,
        None,
        True,
    ):
        assert read_value(yaml.dump({"x": value}, Dumper=Dumper), "") == {"x": value}


def test_what_is_merged_may_stand_under_a_key_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("x-base: &a {kappa: 0.2, lam: 0.02}\naction: {<<: *a, kappa: 0.22}\n")
    assert read_yaml(path) == {"action": {"kappa": 0.22, "lam": 0.02}}

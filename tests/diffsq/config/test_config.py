"""Configuration: what is accepted, and the one line that each mistake gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffsq.config.config import Config, LatticeRun, config_from_dict, load_config, resolved_yaml
from diffsq.config.scan_file import is_points_file, load_scan
from lattice.errors import InputError

DEMO = Path(__file__).resolve().parents[3] / "configs" / "demo.yaml"


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_config(path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_demo_is_the_point_of_the_reference() -> None:
    config = load_config(DEMO)
    assert (config.action.kappa, config.action.lam, config.lattice.shape) == (0.27, 0.022, (16, 16))
    assert config.active_reference() is not None
    assert config.training.learning_rate == 1e-2  # "1e-2" is text in YAML 1.1


def test_reference_of_another_point_is_not_used() -> None:
    for change in ("action.kappa=0.26", "action.lam=0.03", "lattice.shape=[32,16]"):
        assert load_config(DEMO, [change]).active_reference() is None


def test_resolved_yaml_reads_back_to_the_same_config(tmp_path: Path) -> None:
    config = load_config(DEMO, ["training.learning_rate=1e-3", "sde.sigma_max=40"])
    path = tmp_path / "again.yaml"
    path.write_text(resolved_yaml(config))
    assert load_config(path) == config
    assert resolved_yaml(load_config(path)) == resolved_yaml(config)


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "'1e-3'", "0.001", ".1e-2", "1.0e-03"])
def test_floats_in_every_spelling(config_file: Path, text: str) -> None:
    assert load_config(config_file, [f"training.learning_rate={text}"]).training.learning_rate == 1e-3


def test_a_whole_number_may_be_written_as_a_power_of_ten(config_file: Path) -> None:
    assert load_config(config_file, ["sampling.n_samples=1e4"]).sampling.n_samples == 10000


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("action.kapa=0.2", "unknown key action.kapa; did you mean action.kappa?"),
        ("lattice.shap=[8,8]", "did you mean lattice.shape?"),
        ("trainig.n_steps=5", "unknown key trainig; did you mean training?"),
        ("kappa=0.2", "unknown key kappa; did you mean action.kappa?"),
        ("ensemble.n_config=5", "did you mean ensemble.n_configs?"),
        ("model.zzz=1", "unknown key model.zzz; known in model: channels"),
    ],
)
def test_unknown_keys_name_the_nearest(config_file: Path, override: str, expected: str) -> None:
    assert expected in refusal(config_file, override)


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("action.lam=-0.1", ["action.lam", ">= 0", "-0.1"]),
        ("action.kappa=.nan", ["action.kappa", "finite"]),
        ("action.kappa=abc", ["action.kappa", "abc"]),
        ("action.kappa=20", ["action.kappa", ">= -10 and <= 10 (the range of a config), got 20"]),
        ("action.lam=2000", ["action.lam", "<= 1000 (the range of a config), got 2000"]),
        (
            "action={convention: flow, mass2: -4, coupling: 0.001}",
            ["action.kappa", "<= 10 (the range of a config), got 22.36"],
        ),
        ("action.kind=phi6", ["action.kind", "phi4", "phi6"]),
        ("lattice.shape=[7,8]", ["lattice.shape", "even", "[7, 8]"]),
        ("lattice.shape=[0,8]", ["lattice.shape", "4 to", "[0, 8]"]),
        ("lattice.shape=[8]", ["lattice.shape", "two extents"]),
        ("lattice.shape=[18,16]", ["extent 18", "divisible by 4", "16 or 20", "n_levels"]),
        ("lattice.shape=8", ["lattice.shape", "8"]),
        ("training.batch_size=0", ["training.batch_size", "greater", "0"]),
        ("training.ema_decay=1", ["training.ema_decay", "less than 1"]),
        ("sampling.method=euleer", ["sampling.method", "euler, pc", "euleer"]),
        ("sampling.n_samples=1.5", ["sampling.n_samples", "1.5"]),
        ("sde.sigma_max=0.1", ["sde.sigma_max", "sde.sigma_min", "0.1"]),
        ("seed=-1", ["seed", "-1"]),
        ("sde.kind=vp", ["sde.kind is called sampling.sde since version 0.2"]),
        (
            "sampling.placement=adapted",
            ["sampling.placement is gone since version 0.3: the levels"],
        ),
        ("sampling.n_calibration=64", ["sampling.n_calibration is gone", "remove it"]),
        ("chain.n_calibration=64", ["chain.n_calibration is gone", "remove it"]),
        ("name=../up", ["name", "../up"]),
        ("name.x=1", ["name", "not a section"]),
        ("kappa", ["key.path=value"]),
        ("lattice.shape=[8", ["lattice.shape", "YAML"]),
    ],
)
def test_each_bad_value_gets_one_line(config_file: Path, override: str, fragments: list[str]) -> None:
    text = refusal(config_file, override)
    for fragment in fragments:
        assert fragment in text


def test_free_theory_is_bounded_and_interacting_one_is_not(config_file: Path) -> None:
    assert "no normalisable distribution" in refusal(config_file, "action.lam=0", "action.kappa=0.25")
    assert load_config(config_file, ["action.lam=0", "action.kappa=0.2499"]).action.lam == 0
    assert load_config(config_file, ["action.kappa=2.0"]).action.kappa == 2.0
    assert "kind free" in refusal(config_file, "action.kind=free")


def test_missing_keys_are_named(settings: dict[str, Any]) -> None:
    del settings["action"]["kappa"]
    with pytest.raises(InputError, match=r"^action\.kappa is missing"):
        config_from_dict(settings)


def test_interacting_action_needs_its_lam(settings: dict[str, Any]) -> None:
    del settings["action"]["lam"]
    with pytest.raises(InputError, match=r"action\.lam is missing"):
        config_from_dict(settings)


def test_reference_values_must_carry_errors_as_the_field_writes_them(settings: dict[str, Any]) -> None:
    settings["reference"] = {"kappa": 0.25, "lam": 0.1, "shape": [8, 8], "values": {"binder": "nonsense"}}
    with pytest.raises(InputError, match=r"reference\.values\.binder .* 0\.7617\(7\)"):
        config_from_dict(settings)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("name: [", "line"),
        ("- a\n- b\n", "mapping"),
        ("", "mapping"),
        ("name: a\nname: b\n", "twice"),
    ],
)
def test_files_that_are_not_a_config(tmp_path: Path, text: str, fragment: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert fragment in refusal(path)


def test_missing_and_unreadable_files(tmp_path: Path, config_file: Path) -> None:
    assert "did you mean" in refusal(tmp_path / "smal.yaml")
    assert "no such config file" in refusal(tmp_path / "nowhere" / "x.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not a text file" in refusal(tmp_path / "binary.yaml")


def test_reading_a_config_needs_nothing_heavy() -> None:
    code = "import sys, diffsq.config; sys.exit(bool({'torch', 'numba', 'h5py', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=DEMO.parents[1], check=False).returncode == 0


def test_configs_are_immutable(settings: dict[str, Any]) -> None:
    config: Config = config_from_dict(settings)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 4  # type: ignore[misc]


@pytest.mark.parametrize("path", sorted(DEMO.parent.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_of_the_project_loads_and_says_what_was_seen(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if is_points_file(path):
        assert load_scan(path, []).name == path.stem
    else:
        config = load_config(path)
        assert config.name == path.stem
        assert config.reference is None or config.active_reference() is not None
    assert path.stem == "tiny" or "# Last seen: 2 cores" in text


LAUGHS = "\n".join(
    ["a0: &a0 [x, x]", *(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 30))]
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "too many values"),
        (LAUGHS + "\nchecks: *a29", "too many values"),
        ("name: &a [*a]", "too many values"),
        ("name: &a {b: *a}", "too many values"),
        ("x: " + "[" * 100_000, "nested too deeply"),
        ("x: " + "{a: " * 100_000, "nested too deeply"),
        ("seed: !!int x", "not valid YAML"),
        ("seed: " + "9" * 5000, "not valid YAML"),
        ("seed: !!python/object/apply:os.system ['touch OWNED']", "not valid YAML"),
        ("1: 2", "keys of a config are words, not 1"),
        ("? [a]\n: 2", "not valid YAML"),
    ],
)
def test_yaml_that_is_none_or_a_bomb_gets_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    found = refusal(tmp_path / "x.yaml")
    assert words in found
    assert len(found) < 1100
    assert not Path("OWNED").exists()


def test_aliases_are_fine_while_they_stand_for_little(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "name: x\naction: {kappa: &k 0.2, lam: *k}\nlattice: {shape: [4, 4]}\nensemble: {}\n"
    )
    assert load_config(tmp_path / "x.yaml").action.lam == 0.2


@pytest.mark.parametrize("value", ["10" * 300, "[" + "0, " * 999 + "0]"])
def test_a_value_beyond_all_bounds_is_shown_in_short(tmp_path: Path, config_file: Path, value: str) -> None:
    for key in ("action.kappa", "name", "action.kind"):
        assert len(refusal(config_file, f"{key}={value}")) < 600


@pytest.mark.parametrize("name", [1, True, None])
def test_a_check_that_is_no_word_is_refused(name: Any) -> None:
    with pytest.raises(InputError, match="no such check"):
        config_from_dict(
            {"name": "x", "action": {"kind": "phi4", "kappa": 0.25, "lam": 0.022},
             "lattice": {"shape": [8, 8]}, "checks": {name: {}}}
        )  # fmt: skip


BOTH = ("models=[closed, score]", "model.base=wiener")


def test_each_model_of_a_lattice_run_has_settings_of_its_own(config_file: Path) -> None:
    each = ("sampling.method={closed: path, score: euler}", "sampling.n_samples={closed: 64, score: 20}")
    config = load_config(config_file, [*BOTH, *each])
    assert isinstance(config, LatticeRun)
    closed, score = config.of("closed"), config.of("score")
    assert (closed.method, closed.n_samples, closed.sampling.n_samples) == ("path", 64, 64)
    assert (score.method, score.n_samples, score.sampling.method) == ("euler", 20, "euler")
    assert (config.method, config.n_samples) == ("path", 64), "of the first model"
    assert (closed.model.channels, closed.model.base) == (0, "regression")
    assert (closed.model.n_sigma, closed.model.n_fit) == (config.model.n_sigma, config.model.n_fit)
    assert score.model == config.model
    again = config_from_dict(yaml.safe_load(resolved_yaml(config)))
    assert again == config
    with pytest.raises(InputError, match="no model scor; did you mean score"):
        config.of("scor")
    load_config(config_file, [*each, "models=[score]"])  # an entry more is for another day


def test_a_single_model_is_as_it_was(config_file: Path) -> None:
    config = load_config(config_file)
    assert isinstance(config, LatticeRun)
    assert config.models == ("score",)
    assert config.of("score") == config
    assert config.model.base == "regression"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("sampling.method={scor: path}", "sampling.method.scor: no such model; did you mean score?"),
        ("sampling.method={closed: path}", "sampling.method has no entry for score"),
        ("sampling.n_samples={}", "sampling.n_samples has no entry for closed, score"),
        (
            "sampling.method={closed: pth, score: path}",
            "sampling.method.closed: must be one of auto, flow, path",
        ),
        ("sampling.n_samples={closed: 64, score: 3}", "sampling.n_samples.score: must be greater than"),
        ("sampling.n_samples={closed: 64, score: yes}", "sampling.n_samples must be a number"),
        ("sampling.n_samples=3", "sampling.n_samples: must be greater than or equal to 20, got 3"),
        ("model.base=winer", "model.base: must be 'regression' or 'wiener'"),
        ("models=[closed, closed]", "models must be distinct"),
        ("models=[energy]", "models.0: must be 'closed' or 'score'"),
    ],
)
def test_one_line_for_what_is_wrong_with_a_model(config_file: Path, override: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config(config_file, [*BOTH, override])
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_checks_need_the_path_of_the_first_model(config_file: Path) -> None:
    for first, fine in (("path", True), ("flow", True), ("auto", True), ("euler", False)):
        settings = [*BOTH, "checks={calibration: {}}", f"sampling.method={{closed: {first}, score: pc}}"]
        if fine:
            load_config(config_file, settings)
        else:
            with pytest.raises(InputError, match="checks need sampling.method flow or path, got euler"):
                load_config(config_file, settings)


@pytest.mark.parametrize(
    ("models", "channels", "given", "methods", "steps"),
    [
        ("[score]", 0, "auto", ["flow"], [24]),
        ("[score]", 8, "auto", ["path"], [40]),
        ("[closed, score]", 8, "auto", ["flow", "path"], [24, 40]),
        ("[closed, score]", 8, "path", ["path", "path"], [40, 40]),
        ("[closed, score]", 8, "{closed: heun, score: auto}", ["heun", "path"], [40, 40]),
    ],
)
def test_sampler_and_steps_are_those_of_the_model(
    config_file: Path, models: str, channels: int, given: str, methods: list[str], steps: list[int]
) -> None:
    settings = [f"models={models}", f"model.channels={channels}", f"sampling.method={given}"]
    config = load_config(config_file, [*settings, "sampling.n_levels=null"])
    assert isinstance(config, LatticeRun)
    alone = [config.of(name) for name in config.models]
    assert [one.method for one in alone] == methods
    assert [one.n_levels for one in alone] == steps
    more = load_config(config_file, [*settings, "sampling.n_levels=7"])
    assert isinstance(more, LatticeRun)
    assert [more.of(name).n_levels for name in more.models] == [7] * len(steps)


@pytest.mark.parametrize(
    ("overrides", "words", "advice"),
    [
        (
            ["model.channels=8", "sampling.method=flow"],
            "sampling.method flow needs a score whose divergence is closed-form, which a U-Net has not",
            [["model.channels=8", "sampling.method=path"], ["model.channels=0", "sampling.method=flow"]],
        ),
        (
            ["model.channels=0", "sampling.n_levels=3"],
            "sampling.n_levels: the flow's integrator of order 4 needs at least 4, got 3",
            [["model.channels=0", "sampling.n_levels=4"]],
        ),
        (["sampling.start=sectr"], "sampling.start: must be", [["sampling.start=sector"]]),
        (["model.covariance=true", "model.channels=0"], "model.covariance is", [["model.channels=8"]]),
        (["model.covariance=true", "sampling.method=euler"], "model.covariance is for sampling.method", []),
    ],
)
def test_what_the_flow_cannot_do_gets_one_line(
    config_file: Path, overrides: list[str], words: str, advice: list[list[str]]
) -> None:
    with pytest.raises(InputError) as caught:
        load_config(config_file, overrides)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)
    for settings in advice:
        load_config(config_file, settings)

"""Configuration mistakes name the key and the rule, and the file when there is one, and show nothing else."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from builders import tiny_config, tiny_plan, write_site
from flwr.app import Context, RecordDict

from client.site import SIMULATED_SITES, load_site, resolve_site, simulated_sites
from shared_model.config import RunConfig
from shared_model.errors import ConfigError
from shared_model.model import ModelConfig
from shared_model.study import EARLY

SECRET = "correct horse battery"  # noqa: S105 - stands for whatever else a file holds


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("rounds", 0, "greater than or equal to 1"),
        ("rounds", "many", "valid integer"),
        ("rounds", 1.5, "valid integer"),
        ("learning-rate", 0.0, "greater than 0"),
        ("learning-rate", float("nan"), "input should be"),
        ("learning-rate", 2.0, "less than or equal to 1"),
        ("dropout", 1.0, "less than 1"),
        ("focal-alpha", 1.0, "less than 1"),
        ("validation-fraction", -0.1, "greater than or equal to 0"),
        ("strategy", "fedsgd", "'fedavg'"),
        ("seed", -1, "greater than or equal to 0"),
    ],
)
def test_a_bad_value_is_told_with_its_key_and_rule(key: str, value: object, rule: str) -> None:
    with pytest.raises(ConfigError) as error:
        RunConfig.from_flat({key: value})
    text = str(error.value)
    assert text.startswith(f"run-config: {key} = {value!r}: ") and rule in text
    assert "\n" not in text and "pydantic" not in text


@pytest.mark.parametrize("key", ["admission-timeout", "round-timeout", "weight-decay", "focal-gamma"])
def test_no_value_is_infinite(key: str) -> None:
    """An infinite time limit waits for ever; TOML can write one."""
    with pytest.raises(ConfigError, match=key):
        RunConfig.from_flat({key: float("inf")})


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^run-config: lerning-rate = 0\.1: .*not permitted"):
        RunConfig.from_flat({"lerning-rate": 0.1})


def test_the_flat_form_is_kebab_case_and_round_trips() -> None:
    flat = tiny_config(rounds=7, heldout="stores/heldout").to_flat()
    assert flat["local-epochs"] == 1 and flat["heldout"] == "stores/heldout"
    assert not any("_" in key for key in flat)
    assert RunConfig.from_flat(flat).to_flat() == flat
    assert RunConfig.from_flat({}) == RunConfig()


def test_a_run_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().rounds = 3  # type: ignore[misc]


def test_the_models_sizes_come_from_the_run_config() -> None:
    fixed = {"dropout", "static_features", "series_channels"}
    sizes = {name: 3 + n for n, name in enumerate(ModelConfig.__dataclass_fields__) if name not in fixed}
    assert RunConfig(**sizes, dropout=0.4).model_for(tiny_plan()) == ModelConfig(**sizes, dropout=0.4)
    assert RunConfig().model_for(tiny_plan()) == ModelConfig()
    paper = RunConfig(profile="paper", window_hours=24, window_step_hours=24, window_statistics="max,min,mean,sd")
    assert len(paper.static) == len(EARLY.static) + 2
    assert len(paper.series) == 4 * len(EARLY.series)


def test_a_rule_of_two_keys_is_told_without_all_the_others() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_flat(RunConfig().to_flat() | {"window-step-hours": 5.0})
    assert str(caught.value).startswith("run-config: window_step_hours is longer than window_hours")
    assert "learning-rate" not in str(caught.value)


@pytest.mark.parametrize("rounds", [1, 2, 12, 50])
def test_the_learning_rate_falls_from_its_first_value_towards_zero(rounds: int) -> None:
    config = tiny_config(rounds=rounds, learning_rate=0.01)
    rates = [config.learning_rate_at(number) for number in range(1, rounds + 1)]
    assert rates[0] == 0.01
    assert all(later < earlier for earlier, later in pairwise(rates))
    assert all(rate > 0 for rate in rates)
    assert config.learning_rate_at(rounds + 1) == pytest.approx(0, abs=1e-12)
    if rounds % 2 == 0:
        assert config.learning_rate_at(rounds // 2 + 1) == pytest.approx(0.005)


# A site's YAML.


def _refused(path: Path) -> str:
    """The error's text, which is one line and shows nothing of the file but the key."""
    with pytest.raises(ConfigError) as error:
        load_site(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert SECRET not in text and "\n" not in text and "pydantic" not in text
    return text.removeprefix(f"{path}: ")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    assert _refused(tmp_path / "mercy.yaml") == "no such site config"


@pytest.mark.parametrize(
    "content",
    [f"site: [{SECRET}".encode(), f"a: b: {SECRET}".encode(), f"\tsite: {SECRET}".encode(), b"\xff\xfe\x00site: 1"],
    ids=["open bracket", "two colons", "tab", "not UTF-8"],
)
def test_broken_yaml_is_named_and_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mercy.yaml"
    path.write_bytes(content)
    assert _refused(path).startswith("not readable as YAML")


def test_a_folder_is_not_a_site(tmp_path: Path) -> None:
    assert _refused(tmp_path).startswith("not readable as YAML")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", f"{SECRET}\n", "7\n"])
def test_yaml_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mercy.yaml"
    path.write_text(text, encoding="utf-8")
    assert _refused(path).startswith("the file: ")


@pytest.mark.parametrize(
    ("keys", "key", "rule"),
    [
        ({"password": SECRET}, "password", "environment variable"),
        ({"release": {"smalest_cell": SECRET}}, "release.smalest_cell", "unknown key"),
        ({"release": {"smallest_cell": SECRET}}, "release.smallest_cell", "valid integer"),
        ({"release": {"smallest_cell": 0}}, "release.smallest_cell", "greater than or equal to 1"),
        ({"release": {"largest_megabytes": 0}}, "release.largest_megabytes", "greater than 0"),
        ({"release": SECRET}, "release", "valid dictionary"),
        ({"cohort": SECRET}, "cohort", "'sepsis3', 'icd', 'flag' or 'all_icu'"),
        ({"source": {"format": SECRET, "path": "x"}}, "source.format", "'mimic-iv'"),
        ({"source": {"format": "mimic-iv"}}, "source.path", "required"),
        ({"site": "   "}, "site", "at least 1"),
        ({"site": 5}, "site", "valid string"),
        ({"site": "M" * 81}, "site", "at most 80"),
        ({"store": 5}, "store", "path"),
        ({"prediction_hours": SECRET}, "prediction_hours", "valid number"),
        ({"prediction_hours": 24 * 15}, "prediction_hours", "less than or equal to 336"),
    ],
)
def test_a_mistake_in_a_site_names_key_and_rule_only(
    tmp_path: Path, keys: dict[str, object], key: str, rule: str
) -> None:
    path = write_site(tmp_path, **{"encoder": SECRET, **keys})
    found, _, said = _refused(path).partition(": ")
    assert found == key and rule in said


@pytest.mark.parametrize("key", ["site", "store"])
def test_a_required_key_that_is_absent_is_named(tmp_path: Path, key: str) -> None:
    path = tmp_path / "mercy.yaml"
    path.write_text(json.dumps({k: v for k, v in {"site": "Mercy", "store": "s"}.items() if k != key}))
    assert _refused(path) == f"{key}: field required"


def test_relative_paths_are_relative_to_the_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sites").mkdir()
    (tmp_path / "far" / "away").mkdir(parents=True)
    write_site(tmp_path / "sites", store="../stores/a", source={"path": "extract"})
    monkeypatch.chdir(tmp_path)
    site = load_site(Path("sites/site.yaml"))
    monkeypatch.chdir(tmp_path / "far" / "away")
    assert site.store.resolve() == tmp_path / "stores/a"
    assert site.source is not None and site.source.path == tmp_path / "sites/extract"


def test_absolute_paths_and_defaults_stay_as_they_are(tmp_path: Path) -> None:
    site = load_site(write_site(tmp_path, store="/data/store", site="  Mercy  "))
    assert (site.site, site.store, site.source) == ("Mercy", Path("/data/store"), None)
    assert site.release.smallest_cell == 10


def _context(**node: str | int) -> Context:
    return Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config={})


def test_a_node_plays_the_site_it_was_started_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIMULATED_SITES, str(tmp_path / "other"))
    node = _context(**{"site-config": str(write_site(tmp_path)), "partition-id": 0})
    assert resolve_site(node).site == "Mercy"


def test_a_simulated_node_plays_the_site_of_its_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b", "a"):
        write_site(tmp_path, site=name).rename(tmp_path / f"{name}.yaml")
    monkeypatch.setenv(SIMULATED_SITES, str(tmp_path))
    assert [path.stem for path in simulated_sites(tmp_path)] == ["a", "b"]
    assert [resolve_site(_context(**{"partition-id": n})).site for n in (0, 1)] == ["a", "b"]


def test_a_node_that_was_not_told_its_site_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SIMULATED_SITES, raising=False)
    with pytest.raises(ConfigError, match="--node-config"):
        resolve_site(_context(**{"partition-id": 0}))
    monkeypatch.setenv(SIMULATED_SITES, "/nowhere")
    with pytest.raises(ConfigError, match="--node-config"):
        resolve_site(_context())

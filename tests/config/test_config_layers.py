"""Which layer wins, from where relative paths count, and what the environment may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ourvidz.config import ConfigError, Settings, check, load, load_with_origins


def problems(path: Path, environ: dict[str, str], flags: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ, flags)
    return [str(problem) for problem in caught.value.problems]


def test_a_later_layer_wins_and_the_others_stay(write: Any) -> None:
    path = write()
    environ = {"OURVIDZ__DEVICE__KIND": "cuda", "OURVIDZ__DEVICE__INDEX": "3"}
    assert load(path, {}).device.kind == "cpu"
    assert load(path, environ).device.index == 3
    loaded = load_with_origins(path, environ, {"device.kind": "cpu"})
    device = loaded.settings.device
    assert (device.kind, device.index, device.threads) == ("cpu", 3, 2)
    assert loaded.file == path
    assert {key: loaded.origins[f"device.{key}"] for key in ("kind", "index", "threads")} == {
        "kind": "command line",
        "index": "environment variable OURVIDZ__DEVICE__INDEX",
        "threads": "default",
    }
    assert loaded.origins["http.port"] == str(path)


def test_what_is_loaded_is_the_plain_settings_class(write: Any) -> None:
    assert type(load(write(), {})) is Settings


def test_the_process_environment_is_the_default(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURVIDZ__DEVICE__INDEX", "5")
    assert load(write()).device.index == 5
    assert load(write(), {}).device.index == 0


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("OURVIDZ__HTTP__PORT", "1_000", lambda s: s.http.port == 1000),
        ("ourvidz__http__port", "81", lambda s: s.http.port == 81),
        ("OURVIDZ__HTTP__ENABLED", "false", lambda s: s.http.enabled is False),
        ("OURVIDZ__LIMITS__STEPS__MAX", "20", lambda s: s.limits.steps.max == 20),
        ("OURVIDZ__LIMITS__STEPS", '{"max": 9}', lambda s: s.limits.steps.min == 1),
        ("OURVIDZ__DEVICE", '{"index": 4}', lambda s: s.device.index == 4),
        ("OURVIDZ__REFERENCES__HOSTS", '["a.b"]', lambda s: s.references.hosts == ("a.b",)),
        ("OURVIDZ__MODELS__SDXL__PATH", "/m", lambda s: s.models["sdxl"].path == Path("/m")),
        ("OURVIDZ__MODELS__SDXL", '{"label": "x"}', lambda s: s.models["sdxl"].label == "x"),
        ("OURVIDZ__MODELS__SDXL__CONFIG_PATH", "", lambda s: s.models["sdxl"].config_path is None),
        ("OURVIDZ__MODELS__WAN", '{"family": "wan", "path": "/w"}', lambda s: len(s.models) == 2),
        ("OURVIDZ__QUEUES__SDXL_QUEUE__POP_SIDE", "right",
         lambda s: s.queues["sdxl_queue"].pop_side == "right"),
        ("OURVIDZ__LEGACY_TYPES__SDXL_IMAGE_FAST__STEPS", "4",
         lambda s: s.legacy_types["sdxl_image_fast"].steps == 4),
        ("OURVIDZ__SCHEDULER__CLASS_WEIGHTS__FAST", "3",
         lambda s: s.scheduler.class_weights == {"fast": 3.0}),
    ],
)  # fmt: skip
def test_any_key_can_be_set_by_the_environment(
    write: Any, variable: str, value: str, read: Any
) -> None:
    name = "OURVIDZ__LEGACY_TYPES__SDXL_IMAGE_FAST__JOB_CLASS"
    assert read(load(write(), {variable: value, name: "fast"}))


def test_a_key_refines_the_table_that_another_variable_gave(write: Any) -> None:
    environ = {
        "OURVIDZ__MODELS__SDXL__LABEL": "from the key",
        "OURVIDZ__MODELS__SDXL": '{"label": "from the table", "dtype": "float16"}',
        "OURVIDZ__MODELS": '{"sdxl": {"dtype": "bfloat16", "step_seconds": 3}}',
    }
    model = load(write(), environ).models["sdxl"]
    assert (model.label, model.dtype, model.step_seconds) == ("from the key", "float16", 3.0)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("OURVIDZ__DEVCE__KIND", "x", "did you mean OURVIDZ__DEVICE__KIND?"),
        ("OURVIDZ__DEVICE__KND", "x", "did you mean OURVIDZ__DEVICE__KIND?"),
        ("OURVIDZ__PORT", "1", "did you mean OURVIDZ__HTTP__PORT?"),
        ("OURVIDZ__MODELS__SDXL__PTH", "1", "did you mean OURVIDZ__MODELS__SDXL__PATH?"),
        ("OURVIDZ__", "1", "unknown key"),
        ("OURVIDZ__DEVICE__", "1", "unknown key"),
        ("OURVIDZ__DEVICE__KIND__X", "1", "unknown key"),
        ("OURVIDZ__DEVICE__KIND", "gpu", 'device.kind = "gpu": must be one of "cpu", "cuda"'),
        ("OURVIDZ__HTTP__PORT", "", "must be an integer from 0 to 65535"),
        ("OURVIDZ__DEVICE", "cuda", "must be a table, as JSON"),
        ("OURVIDZ__DEVICE", "[1]", "must be a table, as JSON"),
        ("OURVIDZ__DEVICE", '{"knd": 1}', "device.knd = 1: unknown key"),
        ("OURVIDZ__REFERENCES__HOSTS", "a,b", "must be a list of"),
        ("OURVIDZ__REFERENCES__HOSTS", "[" * 90_000, "must be a list of"),
        ("OURVIDZ__REFERENCES__HOSTS", '["a b"]', "references.hosts[0]"),
        ("OURVIDZ__MODELS__SDLX__PATH", "/m", "models.sdlx.family: is required"),
        ("OURVIDZ__MODELS__SDXL", "null", "must be a table, as JSON"),
        ("OURVIDZ__DEVICE__RESERVE_BYTES", "9999999999", "less than budget_bytes (640000000)"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named(write: Any, variable: str, value: str, says: str) -> None:
    found = problems(write(), {variable: value})
    assert len(found) == 1
    assert found[0].startswith(f"environment variable {variable}:")
    assert says in found[0]


def test_other_variables_are_not_ours(write: Any) -> None:
    load(write(), {"OURVIDZ_HOME": "x", "OURVIDZ": "x", "DEVICE__KIND": "x", "PATH": "x"})


def test_flags_take_dotted_keys_values_of_any_type_and_json(write: Any) -> None:
    flags = {
        "http.port": 99,
        "device.index": "2",
        "references.hosts": '["a"]',
        "store.dir": Path("/s"),
        "limits.steps": {"max": 7},
        "limits.steps.min": 2,
        "device.kind": None,
    }
    settings = load(write(), {"OURVIDZ__HTTP__PORT": "1"}, flags)
    assert (settings.http.port, settings.device.index, settings.device.kind) == (99, 2, "cpu")
    assert (settings.references.hosts, settings.store.dir) == (("a",), Path("/s"))
    assert (settings.limits.steps.min, settings.limits.steps.max) == (2, 7)
    assert flags["limits.steps"] == {"max": 7}


def test_a_wrong_flag_is_named(write: Any) -> None:
    found = problems(write(), {}, {"device.knd": 1, "device": 5, "http.port": "x"})
    assert len(found) == 3
    assert all(text.startswith("command line: ") for text in found)
    assert "did you mean device.kind?" in found[1] + found[0]


def test_relative_paths_count_from_the_file_or_from_where_one_stands(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    settings = load(
        Path("../config.toml"),
        {"OURVIDZ__MODELS__SDXL__CONFIG_PATH": "conf"},
        {"models.sdxl.path": "flag"},
    )
    given = path.parent / "elsewhere" / ".."
    assert settings.service.data_dir == given / "state"
    assert settings.store.dir == given / "data/store", "a default, which nobody wrote"
    assert settings.models["sdxl"].config_path == elsewhere / "conf"
    assert settings.models["sdxl"].path == elsewhere / "flag"


def test_the_file_is_searched_in_order(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = write()
    other = tmp_path / "other.toml"
    other.write_text(here.read_text().replace("port = 7860", "port = 1"))
    monkeypatch.chdir(tmp_path)
    assert load(None, {}).http.port == 7860
    assert load(None, {"OURVIDZ_CONFIG": str(other)}).http.port == 1
    assert load(here, {"OURVIDZ_CONFIG": str(other)}).http.port == 7860
    monkeypatch.setenv("OURVIDZ_CONFIG", str(tmp_path / "gone.toml"))
    assert "cannot be read" in check()[0].message


def test_without_any_file_the_error_says_how_to_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no config\.toml in .*: name one with .*OURVIDZ_CONFIG"):
        load(None, {})
    monkeypatch.delenv("OURVIDZ_CONFIG", raising=False)
    assert "there is no config.toml" in check()[0].message


def test_a_mistake_of_the_file_is_reported_even_if_it_is_overridden(write: Any) -> None:
    path = write(('kind = "cpu"', 'kind = "gpu"'))
    assert problems(path, {"OURVIDZ__DEVICE__KIND": "cuda"}) == [
        f'{path}:5: device.kind = "gpu": must be one of "cpu", "cuda"'
    ]


def test_two_keys_are_compared_as_they_hold_in_the_end(write: Any) -> None:
    path = write(("index = 0", "reserve_bytes = 700_000_000"))
    assert len(check(path)) == 1
    assert load(path, {"OURVIDZ__DEVICE__BUDGET_BYTES": "800_000_000"}).device.budget_bytes == 8e8
    required = write(('path = "models/sdxl"\n', ""))
    assert load(required, {"OURVIDZ__MODELS__SDXL__PATH": "/m"}).models["sdxl"].path == Path("/m")


def test_with_an_environment_the_check_covers_it_too(write: Any) -> None:
    environ = {"OURVIDZ__HTTP__PORT": "x", "OURVIDZ__HTTP__HOST": "0.0.0.0"}
    assert check(write()) == []
    assert [p.key_path for p in check(write(), environ)] == ["http.port"]
    assert [p.key_path for p in check(write(), {"OURVIDZ__HTTP__HOST": "0.0.0.0"})] == ["http.host"]


PARTS = st.sampled_from(
    ["device", "kind", "models", "sdxl", "path", "references", "hosts", "legacy_types", "x", ""]
)
TEXTS = st.sampled_from(
    ["", "x", "{}", "[]", "null", "-1", "nan", "1e400", '{"path": null}', "[[[", "\0", "9" * 5000]
)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.dictionaries(st.lists(PARTS, min_size=1, max_size=4).map("__".join), TEXTS, max_size=3),
    st.dictionaries(
        st.lists(PARTS, min_size=1, max_size=4).map(".".join),
        TEXTS | st.none() | st.integers() | st.builds(object) | st.just({"kind": []}),
        max_size=2,
    ),
)
def test_no_variable_or_flag_however_odd_is_more_than_a_problem(
    write: Any, variables: dict[str, str], flags: dict[str, Any]
) -> None:
    environ = {f"OURVIDZ__{name.upper()}": value for name, value in variables.items()}
    for problem in check(write(), environ, flags):
        assert problem.file.startswith(("environment", "command"))
        assert problem.message

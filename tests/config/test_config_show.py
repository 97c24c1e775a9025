"""The effective configuration, printed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from ourvidz.config import check, load, load_with_origins, show

EXAMPLE = Path(__file__).parents[2] / "config.toml"
ODD = 'tab\t quote " back\\slash \x7f \u2028 \U0001f600 \u00e9'


def test_what_is_shown_loads_to_the_same_settings(tmp_path: Path) -> None:
    settings = load(EXAMPLE, {"OURVIDZ__ENHANCEMENT__SDXL": ODD, "OURVIDZ__DEVICE__INDEX": "3"})
    again = tmp_path / "shown.toml"
    again.write_text(show(settings), encoding="utf-8")
    assert check(again) == []
    assert load(again, {}) == settings
    assert settings.enhancement.sdxl == ODD


def test_every_line_says_where_its_value_came_from(write: Any) -> None:
    path = write()
    loaded = load_with_origins(
        path, {"OURVIDZ__DEVICE__INDEX": "3", "OURVIDZ_TOKEN": "t"}, {"device.kind": "cuda"}
    )
    lines = show(loaded.settings, loaded.origins).splitlines()
    for line in (
        'kind = "cuda"  # command line',
        "index = 3  # environment variable OURVIDZ__DEVICE__INDEX",
        f"port = 7860  # {path}",
        "threads = 2  # default",
        'ourvidz_token = "**redacted**"  # environment variable OURVIDZ_TOKEN',
    ):
        assert line in lines
    tomllib.loads("\n".join(lines))


def test_without_origins_there_are_no_comments(write: Any) -> None:
    assert "#" not in show(load(write(), {}))


def test_settings_cannot_be_changed(write: Any) -> None:
    settings = load(write(), {})
    with pytest.raises(ValueError, match="frozen"):
        settings.device.index = 1  # type: ignore[misc]

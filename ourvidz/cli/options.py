"""Options that many verbs have, and the layers of the configuration that they make up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ourvidz.config import Loaded, Settings

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The configuration file; else $OURVIDZ_CONFIG, else ./config.toml.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set one key of the configuration, e.g. http.port=8000. May be repeated.",
    ),
]
ApiUrl = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="OURVIDZ_URL",
        help="The service to talk to; else the one that the configuration describes.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, slots=True)
class Layers:
    """What the command line says of the configuration."""

    file: Path | None = None
    flags: Mapping[str, str] = field(default_factory=dict)

    def over(self, config: Path | None, overrides: list[str] | None) -> Layers:
        """These layers with those of a verb on top. Raises ``typer.BadParameter``."""
        return Layers(config or self.file, {**self.flags, **dict(map(_flag, overrides or ()))})

    def settings(self, *, require_secrets: bool) -> Settings:
        """Raises ``ConfigError``."""
        from ourvidz import config  # noqa: PLC0415 - pydantic, which no --help needs

        return config.load(self.file, flags=self.flags, require_secrets=require_secrets)

    def loaded(self) -> Loaded:
        """As ``settings`` without its secrets, and where each value came from."""
        from ourvidz import config  # noqa: PLC0415 - as above

        return config.load_with_origins(self.file, flags=self.flags, require_secrets=False)


def layers(
    ctx: typer.Context, config: Path | None = None, overrides: list[str] | None = None
) -> Layers:
    """The layers before the verb (``ourvidz --config FILE serve``) and those behind it."""
    before = ctx.obj if isinstance(ctx.obj, Layers) else Layers()
    return before.over(config, overrides)


def _flag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key.strip() or not equals:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
    return key.strip(), value

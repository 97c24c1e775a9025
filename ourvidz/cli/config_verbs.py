"""``ourvidz config``: whether a configuration can be used, and what holds in the end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ourvidz.cli.options import ConfigFile, Overrides, layers
from ourvidz.errors import EX_CONFIG

app = typer.Typer(no_args_is_help=True, help="Check and show the configuration.")


@app.command()
def check(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", show_default=False, help="Check it alone.")
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Print every problem of FILE, one a line, and exit with 78; or "ok".

    Without FILE it is the file that `serve` would use, together with the environment and the
    secrets.
    """
    from ourvidz import config as configuration  # noqa: PLC0415 - pydantic, which no --help needs

    chosen = layers(ctx, config, overrides)
    if file is not None:
        problems = configuration.check(file, flags=chosen.flags)
    else:
        problems = configuration.check(chosen.file, os.environ, chosen.flags)
    for problem in problems:
        typer.echo(str(problem))
    if problems:
        raise typer.Exit(EX_CONFIG)
    typer.echo("ok")


@app.command()
def show(ctx: typer.Context, config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Print what holds in the end, as TOML, with where each value came from; secrets are hidden."""
    from ourvidz import config as configuration  # noqa: PLC0415 - as above

    loaded = layers(ctx, config, overrides).loaded()
    typer.echo(configuration.show(loaded.settings, loaded.origins), nl=False)

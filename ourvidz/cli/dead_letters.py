"""``ourvidz dead-letters``: what lies beside the queues of a running service."""

from __future__ import annotations

from typing import Annotated

import typer

from ourvidz.cli.options import ApiUrl, AsJson, ConfigFile, Overrides, layers


def dead_letters(
    ctx: typer.Context,
    limit: Annotated[
        int, typer.Option(min=1, max=200, help="At most so many, the newest first.")
    ] = 50,
    url: ApiUrl = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Show what no worker is to take any more, with the reasons."""
    from ourvidz.cli import client, show  # noqa: PLC0415 - what --help needs not

    service = client.target(layers(ctx, config, overrides), url)
    found = client.call(service, "GET", "/dead-letters", params={"limit": limit})
    if as_json:
        show.as_json(found)
    else:
        show.dead_letters(found["dead_letters"])

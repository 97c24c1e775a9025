"""``ourvidz ps``."""

from __future__ import annotations

import typer

from ourvidz.cli.options import ApiUrl, AsJson, ConfigFile, Overrides, layers


def ps(
    ctx: typer.Context,
    url: ApiUrl = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Show what runs, what waits and what is resident.

    Also how far each job is, when it should end, and the bytes that the ledger has given out.
    """
    from ourvidz.cli import client, show  # noqa: PLC0415 - what --help needs not

    state = client.call(client.target(layers(ctx, config, overrides), url), "GET", "/ps")
    if as_json:
        show.as_json(state)
    else:
        show.processes(state)

"""``ourvidz callbacks``: those that a running service has given up, and sending them once more."""

from __future__ import annotations

from typing import Annotated

import typer

from ourvidz.cli.exits import FAILED
from ourvidz.cli.options import ApiUrl, AsJson, ConfigFile, Overrides, layers

app = typer.Typer(no_args_is_help=True, help="Look at callbacks that were given up, and retry.")

Limit = Annotated[int, typer.Option(min=1, max=1000, help="At most so many, the oldest first.")]


@app.command("list")
def list_(
    ctx: typer.Context,
    limit: Limit = 50,
    url: ApiUrl = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """List the callbacks that the receiver refused for good, or did not take for too long."""
    from ourvidz.cli import client, show  # noqa: PLC0415 - what --help needs not

    service = client.target(layers(ctx, config, overrides), url)
    found = client.call(service, "GET", "/callbacks/parked", params={"limit": limit})
    if as_json:
        show.as_json(found)
    else:
        show.callbacks(found["callbacks"])


@app.command()
def retry(
    ctx: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Only these.", show_default=False)
    ] = None,
    limit: Limit = 1000,
    url: ApiUrl = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Send them once more, under the same ids, once what they were refused for is put right."""
    from ourvidz.cli import client, show  # noqa: PLC0415 - as above

    service = client.target(layers(ctx, config, overrides), url)
    params = {"limit": limit, "event_id": ids or None}
    done = client.call(service, "POST", "/callbacks/parked/retry", params=params)
    if as_json:
        show.as_json(done)
    else:
        typer.echo(f"{done['retried']} on their way")
    if ids and done["retried"] < len(set(ids)):
        typer.echo("ourvidz: the others are not parked", err=True)
        raise typer.Exit(FAILED)

"""``ourvidz serve``."""

from __future__ import annotations

import typer

from ourvidz.cli.options import ConfigFile, Overrides, layers


def serve(ctx: typer.Context, config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then drain.

    Running work may finish within service.drain_seconds; the rest goes back to its queue. A second
    SIGTERM or SIGINT exits at once, as does a drain that outlasts its deadline by far; nothing is
    lost, for every job is in the journal. The configuration is read once, at the start.

    Exits with 0 after a drain, 70 if the service failed, 75 if the device failed, if it could not
    start now or did not end in time, 78 if the configuration is wrong.
    """
    from ourvidz.cli.serving import run  # noqa: PLC0415 - the whole service

    raise typer.Exit(run(layers(ctx, config, overrides).settings(require_secrets=True)))

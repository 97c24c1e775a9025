"""``ourvidz jobs``: look at the jobs of a running service, and cancel them."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ourvidz.cli.options import ApiUrl, AsJson, ConfigFile, Overrides, layers

app = typer.Typer(no_args_is_help=True, help="Look at jobs and cancel them.")

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.", show_default=False)]
Status = Literal["queued", "processing", "completed", "failed", "cancelled"]


@app.command("list")
def list_(
    ctx: typer.Context,
    status: Annotated[Status | None, typer.Option(help="Only jobs of this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 50,
    before: Annotated[
        str | None, typer.Option(metavar="ID", help="Only jobs that are older than this one.")
    ] = None,
    url: ApiUrl = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """List jobs, the newest first."""
    from ourvidz.cli import client, show  # noqa: PLC0415 - what --help needs not

    params = {"limit": limit, "status": status, "before": before}
    service = client.target(layers(ctx, config, overrides), url)
    page = client.call(service, "GET", "/jobs", params=params)
    if as_json:
        show.as_json(page)
        return
    show.jobs(page["jobs"])
    if page["next_before"] is not None:
        typer.echo(f"there are older ones: --before {page['next_before']}", err=True)


@app.command("show")
def show_(
    ctx: typer.Context,
    job_id: JobId,
    url: ApiUrl = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Show one job and what it has made."""
    from ourvidz.cli import client, show  # noqa: PLC0415 - as above

    service = client.target(layers(ctx, config, overrides), url)
    resource = client.call(service, "GET", client.job_path(job_id))
    if as_json:
        show.as_json(resource)
    else:
        show.job(resource, service.files)


@app.command()
def cancel(
    ctx: typer.Context,
    job_id: JobId,
    url: ApiUrl = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Cancel a job. One that runs is asked to stop, and does so within a step."""
    from ourvidz.cli import client, show  # noqa: PLC0415 - as above

    service = client.target(layers(ctx, config, overrides), url)
    resource = client.call(service, "POST", f"{client.job_path(job_id)}/cancel")
    if as_json:
        show.as_json(resource)
    else:
        stopped = resource["status"] == "cancelled"
        typer.echo(f"{job_id}: {'cancelled' if stopped else 'asked to stop'}")

"""The command line as a whole: its verbs and what stands before them."""

from __future__ import annotations

import typer

from ourvidz import __version__
from ourvidz.cli import callbacks, config_verbs, jobs, models
from ourvidz.cli.dead_letters import dead_letters
from ourvidz.cli.options import AsJson, ConfigFile, Overrides, layers
from ourvidz.cli.ps import ps
from ourvidz.cli.replay import replay
from ourvidz.cli.serve import serve
from ourvidz.cli.simulate import simulate
from ourvidz.cli.submit import submit

app = typer.Typer(
    name="ourvidz",
    help="A server for generative media on one GPU.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def root(ctx: typer.Context, config: ConfigFile = None, overrides: Overrides = None) -> None:
    ctx.obj = layers(ctx, config, overrides)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"ourvidz {__version__}")


@app.command()
def demo(
    ctx: typer.Context,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Run eleven jobs end to end on tiny models.

    Exits with 0 only if each of them ended as it should.
    """
    from ourvidz.cli.demo import demo as run_demo  # noqa: PLC0415 - the whole service

    chosen = layers(ctx, config)
    if chosen.flags:
        raise typer.BadParameter("the demo sets its own keys", param_hint="--set")
    raise typer.Exit(run_demo(chosen.file, as_json))


app.command()(serve)
app.command()(submit)
app.command()(ps)
app.command("dead-letters")(dead_letters)
app.command()(simulate)
app.command()(replay)
app.add_typer(jobs.app, name="jobs")
app.add_typer(callbacks.app, name="callbacks")
app.add_typer(models.app, name="models")
app.add_typer(config_verbs.app, name="config")

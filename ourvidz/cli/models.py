"""``ourvidz models``: what the configured checkpoints hold, whether they are whole; tiny ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ourvidz.cli.exits import FAILED
from ourvidz.cli.options import AsJson, ConfigFile, Layers, Overrides, layers
from ourvidz.errors import ConfigError, OurVidzError

if TYPE_CHECKING:
    from ourvidz.config import Settings
    from ourvidz.config.settings import Model

app = typer.Typer(no_args_is_help=True, help="List, verify and make checkpoints.")

# What `pipelines.tiny` makes under a folder of this name.
TINY_FOLDER = "tiny"
TINY_NAMES = frozenset(
    {"sdxl", "sdxl.safetensors", "wan-t2v", "wan-vace", "qwen-base", "qwen-instruct"}
)


class TinyFailed(OurVidzError):
    """The tiny checkpoints cannot be made."""


def ensure_tiny(settings: Settings) -> None:
    """Make the tiny checkpoints that the configuration names (``.../tiny/<name>``) and that are
    not there yet. Imports torch only then. Raises ``TinyFailed``."""
    for root in tiny_roots(settings, missing=True):
        make(root)


def tiny_roots(settings: Settings, *, missing: bool = False) -> Sequence[Path]:
    """The folders in which the configuration expects tiny checkpoints, in its order; with
    ``missing`` those where one of them is not there."""
    paths = [p for m in settings.models.values() for p in (m.path, m.config_path) if p is not None]
    tiny = (p for p in paths if p.parent.name == TINY_FOLDER and p.name in TINY_NAMES)
    return list(dict.fromkeys(p.parent for p in tiny if not (missing and p.exists())))


def make(root: Path) -> None:
    """Make what is missing of the tiny checkpoints under ``root``. Raises ``TinyFailed``."""
    from pipelines.setup import prepare  # noqa: PLC0415 - seconds of imports
    from pipelines.tiny import make_tiny  # noqa: PLC0415 - as above

    prepare()
    try:
        make_tiny(root)
    except OSError as error:
        raise TinyFailed(f"the tiny checkpoints cannot be made under {root}: {error}") from error


@app.command("list")
def list_(
    ctx: typer.Context,
    as_json: AsJson = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """List the configured models with the exact bytes of their components."""
    settings = layers(ctx, config, overrides).settings(require_secrets=False)
    from ourvidz.cli import show  # noqa: PLC0415 - what --help needs not
    from ourvidz.cli.checkpoints import model_report  # noqa: PLC0415 - seconds of imports

    reports = [model_report(name, model) for name, model in settings.models.items()]
    if as_json:
        show.as_json(reports)
    else:
        show.models(reports)


@app.command()
def verify(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|PATH",
            show_default=False,
            help="A configured model's name, or a folder or safetensors file; else all models.",
        ),
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Read headers and weights as a run would, and exit with 1 if anything is wrong with them.

    The error names the file and the tensor. Each component needs its bytes in host memory while it
    is read; the device is left alone.
    """
    chosen = layers(ctx, config, overrides)
    from ourvidz.cli.checkpoints import Broken, verified  # noqa: PLC0415 - seconds of imports

    broken = False
    for name, path, settings in _targets(chosen, model):
        typer.echo(f"{name}: {path}")
        try:
            for line in verified(name, path, settings):
                typer.echo(f"  {line}")
        except Broken as error:
            broken = True
            typer.echo(f"{name}: {error}", err=True)
    if broken:
        raise typer.Exit(FAILED)


@app.command("make-tiny")
def make_tiny(
    ctx: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR",
            show_default=False,
            help="Where to; else where the configuration expects tiny checkpoints.",
        ),
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Make tiny checkpoints of the real architectures, with random weights from fixed seeds.

    What exists is left as it is.
    """
    roots: Sequence[Path] = [folder] if folder is not None else []
    if folder is None:
        roots = tiny_roots(layers(ctx, config, overrides).settings(require_secrets=False))
    if not roots:
        raise typer.BadParameter(
            f"no configured model lies in a folder named {TINY_FOLDER}: name a folder",
            param_hint="DIR",
        )
    for root in roots:
        make(root)
        typer.echo(str(root))


def _targets(chosen: Layers, model: str | None) -> Sequence[tuple[str, Path, Model | None]]:
    """Name, path and configuration of what is to be verified. Raises ``ConfigError``."""
    path = Path(model) if model is not None else None
    try:
        models = chosen.settings(require_secrets=False).models
    except ConfigError:
        # What lies on a disk can be looked at before there is a configuration for it.
        if path is None or not path.exists():
            raise
        models = {}
    if model is None or path is None:
        return [(name, one.path, one) for name, one in models.items()]
    if model in models:
        return [(model, models[model].path, models[model])]
    if not path.exists():
        known = ", ".join(models)
        problem = f"{model!r} is neither a configured model ({known}) nor a file or folder"
        raise typer.BadParameter(problem, param_hint="NAME|PATH")
    same = [(n, m) for n, m in models.items() if m.path.resolve() == path.resolve()]
    name, configured = same[0] if same else (path.name, None)
    return [(name, path, configured)]

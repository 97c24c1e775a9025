"""``ourvidz submit``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from ourvidz.cli.exits import FAILED, INTERRUPTED
from ourvidz.cli.options import ApiUrl, AsJson, ConfigFile, Overrides, layers

if TYPE_CHECKING:
    from ourvidz.cli.client import Target

JobType = Annotated[
    str,
    typer.Argument(
        metavar="TYPE",
        show_default=False,
        help="sdxl_generate, wan_generate, enhance_base, enhance_instruct, chat, or one of the "
        "configuration's legacy types.",
    ),
]
Messages = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[ROLE:]TEXT",
        help="chat: one message, the user's unless it begins with system:, user: or assistant:. "
        "May be repeated.",
    ),
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=JSON",
        help="Any other field of the payload; what is no JSON is text. May be repeated.",
    ),
]
Text = Annotated[str | None, typer.Option()]
Whole = Annotated[int | None, typer.Option()]
Number = Annotated[float | None, typer.Option()]
Image = Annotated[str | None, typer.Option(metavar="KEY|URL", help="A storage key or https URL.")]
Frames = Annotated[int | None, typer.Option(help="wan_generate: 4k+1; 1 makes an image.")]
Images = Annotated[int | None, typer.Option(help="sdxl_generate: how many images.")]
Mode = Annotated[
    str | None, typer.Option(help="none, single, start, end or both; for an image modify or copy.")
]
Enhance = Annotated[str | None, typer.Option(help="Rewrite the prompt first: base or instruct.")]
NewId = Annotated[
    str | None, typer.Option("--id", metavar="UUID", help="The job's id; else a new one.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the job has ended.")]


def submit(
    ctx: typer.Context,
    job_type: JobType,
    prompt: Text = None,
    negative_prompt: Text = None,
    system_prompt: Text = None,
    message: Messages = None,
    seed: Whole = None,
    steps: Whole = None,
    guidance_scale: Number = None,
    width: Whole = None,
    height: Whole = None,
    frames: Frames = None,
    batch_size: Images = None,
    reference_image: Image = None,
    first_frame: Image = None,
    last_frame: Image = None,
    reference_mode: Mode = None,
    enhance: Enhance = None,
    max_tokens: Whole = None,
    field: Fields = None,
    job_id: NewId = None,
    wait: Wait = False,
    url: ApiUrl = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Submit a job to a running service and print its id.

    With --wait print what it has made, and exit with 1 unless it completed. Interrupting the wait
    does not stop the job.
    """
    from ourvidz.cli import client, payload  # noqa: PLC0415 - what --help needs not

    texts = {"prompt": prompt, "negative_prompt": negative_prompt, "system_prompt": system_prompt}
    sampling = {"seed": seed, "steps": steps, "guidance_scale": guidance_scale}
    shape = {"width": width, "height": height, "frames": frames, "batch_size": batch_size}
    images = {"first_frame": first_frame, "last_frame": last_frame}
    images |= {"reference_image": reference_image, "reference_mode": reference_mode}
    others = {"type": job_type, "enhance": enhance, "max_tokens": max_tokens}
    options = {**others, **texts, **sampling, **shape, **images}
    body = payload.encoded(payload.payload(options, message or (), field or ()))
    service = client.target(layers(ctx, config, overrides), url)
    # Named here, so that a repeat after a lost answer is the same job.
    path = client.job_path(job_id or str(uuid4()))
    resource = client.call(service, "PUT", path, content=body)
    if wait:
        resource = _awaited(service, str(resource["id"]))
    _report(resource, service, waited=wait, as_json=as_json)


def _awaited(service: Target, job_id: str) -> Mapping[str, Any]:
    from ourvidz.cli.follow import wait  # noqa: PLC0415 - as above

    try:
        return wait(service, job_id)
    except KeyboardInterrupt:
        typer.echo(
            f"no longer waiting, the job goes on: `ourvidz jobs show {job_id}` looks at it, "
            f"`ourvidz jobs cancel {job_id}` stops it",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None


def _report(resource: Mapping[str, Any], service: Target, *, waited: bool, as_json: bool) -> None:
    from ourvidz.cli import show  # noqa: PLC0415 - as above

    completed = resource["status"] == "completed"
    if as_json:
        show.as_json(resource)
    elif not waited:
        typer.echo(resource["id"])
    elif completed:
        show.result(resource, service.files)
    if waited and not completed:
        if not as_json:
            reason = show.plain(show.failure(resource))
            typer.echo(f"{resource['id']} {resource['status']}: {reason}", err=True)
        raise typer.Exit(FAILED)

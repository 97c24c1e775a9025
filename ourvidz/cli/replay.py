"""``ourvidz replay``: does the scheduler decide once more as it did in a recording?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ourvidz.cli.exits import FAILED
from ourvidz.cli.options import AsJson

if TYPE_CHECKING:
    from ourvidz.adapters.recording_reader import RecordingReader
    from scheduler.replay import Difference, Replay


def replay(
    recording: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            show_default=False,
            help="A folder of recordings, of which the newest is read, or any file of one.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Give a recording's events to a new scheduler and compare what it decides.

    A recording that is still being written is read as far as it goes, and so is one whose last
    line was cut off.

    Exits with 1 at the first turn that ends otherwise.
    """
    from ourvidz.adapters.recording_lines import (  # noqa: PLC0415 - what --help needs not
        RecordingUnusable,
    )
    from ourvidz.adapters.recording_reader import RecordingReader  # noqa: PLC0415 - as above
    from scheduler.errors import InputError  # noqa: PLC0415 - as above
    from scheduler.replay import Replay, scheduler_of  # noqa: PLC0415 - as above

    reader = RecordingReader(recording)
    path, number = reader.first
    if number != 1:
        raise RecordingUnusable(
            f"{path} is file {number} of its recording and the earlier ones are gone: there is no "
            "state to begin with (`ourvidz simulate --from-events` needs none)"
        )
    try:
        again = Replay(scheduler_of(reader.header))
    except InputError as error:
        raise RecordingUnusable(f"{path}: {error}") from error
    difference = next(filter(None, map(again.feed, reader.turns())), None)
    if as_json:
        _print_json(reader, again, difference)
    else:
        _print(reader, again, difference)
    if difference is not None:
        raise typer.Exit(FAILED)


def _print(reader: RecordingReader, again: Replay, difference: Difference | None) -> None:
    typer.echo(
        f"{reader.first[0]}: {again.turns} turns, {again.events} events, "
        f"{again.commands} commands compared"
    )
    if difference is None:
        typer.echo(f"no difference; {reader.ending}")
        if again.broke:
            typer.echo(f"the scheduler broke in the last turn, then as now: {again.broke}")
        return
    turn = difference.turn
    typer.echo(f"turn {difference.number} at {turn.at} s ends otherwise")
    for event in turn.events:
        typer.echo(f"  event     {event}")
    where = f"command {difference.place + 1}: "
    typer.echo(f"  expected  {where}{difference.expected}")
    typer.echo(f"  got       {where}{difference.got}")


def _print_json(reader: RecordingReader, again: Replay, difference: Difference | None) -> None:
    from ourvidz.cli import show  # noqa: PLC0415 - as above

    report: dict[str, Any] = {
        "file": str(reader.first[0]),
        "turns": again.turns,
        "events": again.events,
        "commands": again.commands,
        "ending": reader.ending if difference is None else None,
        "broke": again.broke or None,
        "difference": None,
    }
    if difference is not None:
        report["difference"] = {
            "turn": difference.number,
            "at": difference.turn.at,
            "events": [str(event) for event in difference.turn.events],
            "command": difference.place + 1,
            "expected": difference.expected,
            "got": difference.got,
        }
    show.as_json(report)

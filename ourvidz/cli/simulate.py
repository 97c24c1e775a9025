"""``ourvidz simulate``: serve a workload on a card that is a table of costs, in virtual time."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ourvidz.cli.options import AsJson, ConfigFile, Overrides, layers
from ourvidz.errors import OurVidzError

if TYPE_CHECKING:
    from ourvidz.cli.options import Layers
    from scheduler.profile import Costs, Profile
    from scheduler.types import SchedulerSettings
    from scheduler.workload import Workload

ALL = "all"
# A month of the busiest service that is known takes a few megabytes.
FILE_BYTES_MAX = 1_000_000_000


class SimulationInput(OurVidzError):
    """The workload, the recording or the profile cannot be used."""


Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="[WORKLOAD.jsonl] PROFILE.toml",
        help="One request a line, unless --from-events says where they are; and what they cost.",
        show_default=False,
    ),
]
FromEvents = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Serve the jobs of a recording: a folder of recordings, of which the newest is read, "
        "or any file of one.",
    ),
]


def simulate(
    ctx: typer.Context,
    files: Files,
    from_events: FromEvents = None,
    policy: Annotated[
        str, typer.Option(metavar="NAME|all", help="The policy to run, or all of them.")
    ] = "default",
    as_json: AsJson = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Serve a workload in virtual time and print how each policy fared, one JSON object a line.

    With --from-events the jobs are those of a recording but the cancelled and the refused, and what
    the profile does not say of the card, the links, the components or running together is as it was
    recorded; so are the scheduler's settings, but for the keys of --set, unless --config names a
    file with others.

    On a terminal it is a table unless --json is given.
    """
    from scheduler.contest import CONTESTANTS, contest  # noqa: PLC0415 - what --help needs not
    from scheduler.errors import InputError  # noqa: PLC0415 - as above

    names = list(CONTESTANTS) if policy == ALL else [policy]
    if names[0] not in CONTESTANTS:
        allowed = ", ".join([*CONTESTANTS, ALL])
        raise typer.BadParameter(f"{policy!r}, allowed: {allowed}", param_hint="--policy")
    case = _case(files, from_events, layers(ctx, config, overrides))
    rows = []
    for name in names:
        try:
            rows.append(contest(name, case.workload, case.costs, case.settings))
        except InputError as error:
            raise SimulationInput(f"{case.source}: {error}") from error
        if as_json or not sys.stdout.isatty():
            _print_line(rows[-1])
    if not as_json and sys.stdout.isatty():
        _print_table(rows)


@dataclass(frozen=True, slots=True)
class _Case:
    """What is served; ``source`` says where it stands."""

    source: str
    workload: Workload
    costs: Costs
    settings: SchedulerSettings


def _case(files: Sequence[Path], from_events: Path | None, chosen: Layers) -> _Case:
    if len(files) != (2 if from_events is None else 1):
        allowed = "WORKLOAD.jsonl PROFILE.toml" if from_events is None else "PROFILE.toml"
        raise typer.BadParameter(f"{len(files)} files, allowed: {allowed}")
    if from_events is not None:
        return _recorded(from_events, files[0], chosen)
    workload, profile = files
    requests, costs = read_workload(workload), read_profile(profile)
    return _Case(f"{workload}, {profile}", requests, costs, _settings(chosen))


def _recorded(recording: Path, profile: Path, chosen: Layers) -> _Case:
    from ourvidz.adapters.recording_reader import RecordingReader  # noqa: PLC0415 - as below
    from scheduler.errors import InputError  # noqa: PLC0415 - as below
    from scheduler.recorded import Recorded  # noqa: PLC0415 - what --help needs not

    reader, recorded = RecordingReader(recording), Recorded()
    source = str(reader.first[0])
    try:
        for turn in reader.turns():
            recorded.feed(turn)
        workload = recorded.workload()
        source = f"{source}, {profile}"
        costs = recorded.costs(_read_toml(profile), reader.header)
    except InputError as error:
        raise SimulationInput(f"{source}: {error}") from error
    for outcome, jobs in recorded.left_out.items():
        typer.echo(f"left out: {jobs} {outcome}", err=True)
    estimated, phases = recorded.estimated
    if estimated:
        typer.echo(f"at their estimates: {estimated} of {phases} phases", err=True)
    return _Case(source, workload, costs, _what_if(reader.header.settings, chosen))


def _what_if(recorded: SchedulerSettings, chosen: Layers) -> SchedulerSettings:
    """The recorded settings, unless a file gives others, with the keys of --set in their place."""
    from ourvidz.config.policy import overlaid  # noqa: PLC0415 - pydantic

    if chosen.file is not None:
        return _settings(chosen)
    if not chosen.flags:
        return recorded
    return overlaid(recorded, chosen.settings(require_secrets=False).scheduler, chosen.flags)


def _print_line(row: Mapping[str, Any]) -> None:
    import orjson  # noqa: PLC0415 - what --help needs not

    typer.echo(orjson.dumps(row).decode())


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    from ourvidz.cli import show  # noqa: PLC0415 - what --help needs not

    show.table(
        ["policy", "mean flow", "ratio", "slo", "p95 chat", "image", "video", "loads", "starved"],
        [
            [
                row["policy"],
                f"{row['mean_flow_s']:.2f} s",
                f"{row['ratio']:.3f}",
                f"{row['slo']:.1%}",
                *("" if p is None else f"{p:.1f} s" for p in row["p95"].values()),
                row["loads"],
                row["starved"],
            ]
            for row in rows
        ],
    )


def read_workload(path: Path) -> Workload:
    """Raises ``SimulationInput``, which names the file, the line and what is wrong."""
    import orjson  # noqa: PLC0415 - what --help needs not

    from scheduler.errors import InputError  # noqa: PLC0415 - as above
    from scheduler.workload import parse_all  # noqa: PLC0415 - as above

    def lines() -> Iterator[tuple[Any, str]]:
        for number, line in enumerate(_read(path).splitlines(), start=1):
            if not line.strip():
                continue
            try:
                yield orjson.loads(line), f"line {number}"
            except orjson.JSONDecodeError as error:
                raise SimulationInput(f"{path}: line {number} is not JSON: {error}") from error

    try:
        return parse_all(lines())
    except InputError as error:
        raise SimulationInput(f"{path}: {error}") from error


def read_profile(path: Path) -> Profile:
    """Raises ``SimulationInput``, which names the file and what is wrong."""
    from scheduler.errors import InputError  # noqa: PLC0415 - what --help needs not
    from scheduler.profile import parse  # noqa: PLC0415 - as above

    try:
        return parse(_read_toml(path))
    except InputError as error:
        raise SimulationInput(f"{path}: {error}") from error


def _read_toml(path: Path) -> object:
    try:
        return tomllib.loads(_read(path).decode())
    except RecursionError:
        raise SimulationInput(f"{path} nests too deeply") from None
    except ValueError as error:  # TOML, UTF-8, or a number with too many digits
        raise SimulationInput(f"{path} is not TOML: {error}") from error


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise SimulationInput(f"{path} has {size} bytes, allowed: up to {FILE_BYTES_MAX}")
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise SimulationInput(f"{path} cannot be read: {error.strerror}") from error


def _settings(chosen: Layers) -> SchedulerSettings:
    """What the configuration says of the scheduler, or its defaults where there is none."""
    from ourvidz.config.load import FILE_NAME, FILE_VARIABLE  # noqa: PLC0415 - pydantic
    from ourvidz.config.policy import scheduler_settings  # noqa: PLC0415 - as above
    from ourvidz.config.settings import Scheduler  # noqa: PLC0415 - as above

    named = chosen.file is not None or chosen.flags or os.environ.get(FILE_VARIABLE)
    if named or Path(FILE_NAME).is_file():
        return scheduler_settings(chosen.settings(require_secrets=False).scheduler)
    return scheduler_settings(Scheduler())

"""A sample of the crash matrix, and the proof that the matrix leaves nothing out: ``make crash``
plays every point."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import orjson
import pytest
from support.history import Call, History, Push, Put, results

from ourvidz.service.build import Ports
from tests.crash.matrix import Summary, open_matrix
from tests.crash.points import Point, points
from tests.crash.scenes import SCENES, Kind, Mode
from tests.crash.trap import PORTS, Site, When, methods_of
from tests.crash.world import Outcome

# Ports that no job passes through.
ASIDE = {"clock", "measurements", "versions", "recorder"}
# One of each sort of death: in a transaction, between two files, with the other side knowing more
# than we do, between two parts, while stopping.
SAMPLE: tuple[tuple[str, str, str, int, When, Kind, Mode], ...] = (
    ("images", "JobSource.claim", "sdxl_queue", 1, "after", "redis", "other"),
    ("images", "Journal.accept", "", 1, "inside", "embedded", "same"),
    ("images", "rename", "spool .png", 2, "after", "embedded", "same"),
    ("images", "AssetStore.put", "image/webp", 1, "after", "redis", "other"),
    ("chain", "Executor.execute", "start 0/0", 1, "after", "embedded", "same"),
    ("text", "Notifier.notify", "completed", 1, "after", "redis", "other"),
    ("drain", "Journal.requeue", "", 1, "after", "embedded", "same"),
    ("images", "Journal.uploaded", "", 1, "inside", "embedded", "same"),
)


def sampled() -> list[Point]:
    return [
        Point(scene, Site(call, of, nth, when), kind, mode)
        for scene, call, of, nth, when, kind, mode in SAMPLE
    ]


def calls() -> set[str]:
    return {point.site.call for point in points()}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.anyio
async def test_what_is_killed_is_put_right() -> None:
    async with open_matrix(1) as (matrix, (lane,)):
        wrong = {str(point): await matrix.play(lane, point) for point in sampled()}
    assert {point: words for point, words in wrong.items() if words} == {}
    assert matrix.summary.good


def test_the_sample_is_of_the_matrix() -> None:
    assert set(sampled()) <= set(points())


@pytest.mark.parametrize("port", PORTS.values(), ids=lambda port: port.__name__)
def test_every_method_of_every_port_has_a_point(port: type) -> None:
    asked = {f"{port.__name__}.{name}" for name in methods_of(port)}
    assert asked
    assert asked - calls() == set()


def test_every_port_that_a_job_passes_through_is_trapped() -> None:
    assert {each.name for each in fields(Ports)} - ASIDE == set(PORTS)


def test_no_point_stands_there_twice() -> None:
    every = list(points())
    assert len(every) == len(set(every))


def test_every_scene_is_played() -> None:
    assert {point.scene for point in points()} == set(SCENES)


JOB, KEY = "a-job", "user/a-job/0.png"
GOOD_PUT = Put(KEY, "a sha", 7, 1.0)


def end(status: str = "completed", at: float = 2.0, **metadata: Any) -> Call:
    asset = {"url": KEY, "metadata": {"file_size_bytes": 7}}
    body = {"job_id": JOB, "status": status, "assets": [asset], "metadata": metadata}
    return Call(f"{JOB}.{status}", orjson.dumps(body), at, 200)


def outcome(*calls: Call, put: Put = GOOD_PUT, killed: bool = True, **more: Any) -> Outcome:
    history = History([Push(JOB)], [put], calls)
    return Outcome(history, results(history), killed, more.get("troubles", []))


EXPECTED = outcome(end()).results


def test_a_scene_that_fails_by_itself_proves_nothing() -> None:
    summary = Summary()
    assert summary.skip(["1 elements are left"]) == ["undisturbed, 1 elements are left"]
    assert not summary.good
    assert orjson.loads(summary.line())["other"] == 1


@pytest.mark.parametrize(
    ("found", "counted"),
    [
        (outcome(), "lost"),
        (outcome(end(), end("failed", 3.0)), "duplicate_effects"),
        (outcome(end(), put=Put(KEY, "another sha", 7, 1.0)), "different_bytes"),
        (outcome(end(seed=4)), "different_bytes"),
        (outcome(end(), killed=False, troubles=["the point was never reached"]), "other"),
        (outcome(end(), troubles=["1 elements are left"]), "other"),
    ],
)
def test_what_is_wrong_is_told_and_counted(found: Outcome, counted: str) -> None:
    summary = Summary()
    assert summary.add(outcome(end()), EXPECTED) == []
    assert summary.good
    assert summary.add(found, EXPECTED) != []
    assert not summary.good
    counts = orjson.loads(summary.line())
    assert counts["points"] == 2
    assert counts["killed"] == 1 + found.killed
    wrong = {kind: n for kind, n in counts.items() if kind not in ("points", "killed") and n}
    assert wrong == {counted: 1}

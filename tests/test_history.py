"""The checker of histories finds every violation that is planted, and nothing in a good history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from support.history import Call, History, Kind, Push, Put, results, violations

IMAGE, TEXT, BAD = "image-job", "text-job", "bad-job"
FILES = ("u/image-job/0.png", "u/image-job/0.thumb.webp", "u/image-job/1.png")
SIZE = 7
Edit = Callable[[History], History]


def call(job: str, status: str, at: float, **more: Any) -> Call:
    event = more.pop("event", status)
    answered, skipped = more.pop("answered", 200), more.pop("skipped", False)
    metadata = {"seed": 3, **more.pop("metadata", {})}
    body = {"job_id": job, "status": status, "assets": [], "metadata": metadata, **more}
    return Call(f"{job}.{event}", orjson.dumps(body), at, answered, skipped)


def report(job: str, at: float, event: str, **more: Any) -> Call:
    return call(job, "processing", at, event=f"processing.{event}", **more)


def asset(key: str, thumbnail: str | None = None) -> dict[str, Any]:
    named = {"url": key, "metadata": {"file_size_bytes": SIZE}}
    return named if thumbnail is None else {**named, "thumbnail_url": thumbnail}


ASSETS = [asset(FILES[0], FILES[1]), asset(FILES[2])]
PUTS = [Put(key, f"sha of {key}", SIZE, 2.0) for key in FILES]
IMAGE_DONE = call(IMAGE, "completed", 3.0, assets=ASSETS, metadata={"generation_time": 0.5})
TEXT_DONE = call(TEXT, "completed", 4.0, metadata={"text": "a word"})
BAD_DONE = call(BAD, "failed", 5.0, metadata={"timestamp": 5.0})


def good() -> History:
    """Two jobs that were completed, a malformed one that was refused, one that names no job."""
    return History(
        pushed=[Push(IMAGE), Push(TEXT), Push(BAD, malformed=True), Push(None, malformed=True)],
        puts=PUTS,
        calls=[report(IMAGE, 1.0, "run1.1"), IMAGE_DONE, TEXT_DONE, BAD_DONE],
    )


def kinds(history: History) -> set[Kind]:
    return {violation.kind for violation in violations(history)}


def without(taken: Call) -> Edit:
    return lambda h: replace(h, calls=[c for c in h.calls if c is not taken])


def besides(*more: Call) -> Edit:
    return lambda h: replace(h, calls=[*h.calls, *more])


def instead(taken: Call, given: Call) -> Edit:
    return lambda h: besides(given)(without(taken)(h))


def puts(*stored: Put) -> Edit:
    return lambda h: replace(h, puts=stored)


def at(moved: Call, time: float) -> Call:
    return replace_call(moved, at=time)


def replace_call(old: Call, **changes: Any) -> Call:
    kept = {n: getattr(old, n) for n in ("event_id", "raw", "at", "answered", "skipped")}
    return Call(**{**kept, **changes})


def other_metadata(old: Call, at: float, **metadata: Any) -> Call:
    body = {**old.body, "metadata": {**old.body["metadata"], **metadata}}
    return replace_call(old, raw=orjson.dumps(body), at=at)


PLANTED: dict[str, tuple[Kind, Edit]] = {
    "a job that was never answered": (Kind.LOST, without(TEXT_DONE)),
    "a malformed one that was never answered": (Kind.LOST, without(BAD_DONE)),
    "an answer that was never acknowledged": (
        Kind.LOST,
        instead(TEXT_DONE, replace_call(TEXT_DONE, answered=503)),
    ),
    "an answer that was refused": (
        Kind.LOST,
        instead(TEXT_DONE, replace_call(TEXT_DONE, answered=401)),
    ),
    "completed with nothing": (
        Kind.LOST,
        instead(TEXT_DONE, call(TEXT, "completed", 4.0)),
    ),
    "a malformed one that was completed": (
        Kind.DUPLICATE_EFFECT,
        instead(BAD_DONE, call(BAD, "completed", 5.0, metadata={"text": "a word"})),
    ),
    "two ends": (Kind.DUPLICATE_EFFECT, besides(call(TEXT, "failed", 6.0))),
    "one end under two ids": (
        Kind.DUPLICATE_EFFECT,
        besides(replace_call(TEXT_DONE, event_id=f"{TEXT}.completed.2", at=6.0)),
    ),
    "one end with two results": (
        Kind.DUPLICATE_EFFECT,
        besides(other_metadata(TEXT_DONE, 6.0, text="another word")),
    ),
    "a repeat with another time": (
        Kind.DIFFERENT_BYTES,
        besides(other_metadata(IMAGE_DONE, 6.0, generation_time=0.6)),
    ),
    "a key that held other bytes": (
        Kind.DIFFERENT_BYTES,
        puts(*PUTS, Put(FILES[0], "another sha", SIZE, 2.5)),
    ),
    "a file that was never stored": (Kind.NOT_STORED, puts(PUTS[0], PUTS[1])),
    "a thumbnail that was never stored": (Kind.NOT_STORED, puts(PUTS[0], PUTS[2])),
    "a file that was stored too late": (
        Kind.NOT_STORED,
        puts(replace(PUTS[0], at=3.5), *PUTS[1:]),
    ),
    "a file of another size": (
        Kind.NOT_STORED,
        puts(replace(PUTS[0], size_bytes=SIZE - 1), *PUTS[1:]),
    ),
    "progress after the end": (Kind.AFTER_THE_END, besides(report(TEXT, 6.0, "run1.2"))),
    "progress after it was told that the job has ended": (
        Kind.AFTER_THE_END,
        besides(
            report(TEXT, 6.0, "run2.1", skipped=True), report(TEXT, 7.0, "run2.2", skipped=True)
        ),
    ),
    "an answer for a job that nobody pushed": (
        Kind.UNKNOWN_JOB,
        besides(call("another", "failed", 6.0)),
    ),
}


@pytest.mark.parametrize(("kind", "plant"), PLANTED.values(), ids=PLANTED)
def test_what_is_planted_is_found(kind: Kind, plant: Edit) -> None:
    assert violations(good()) == []
    assert kinds(plant(good())) == {kind}


def test_every_kind_of_violation_is_planted() -> None:
    assert {kind for kind, _ in PLANTED.values()} == set(Kind)


ALLOWED: dict[str, Edit] = {
    "an answer that is repeated": besides(at(IMAGE_DONE, 6.0)),
    "an answer that was first not acknowledged": besides(
        replace_call(TEXT_DONE, answered=503, at=3.5)
    ),
    "a run that could not know that the job has ended": besides(
        report(TEXT, 6.0, "run2.1", skipped=True), report(TEXT, 7.0, "run3.1", skipped=True)
    ),
    "a run that could not know, and whose first report was refused": besides(
        replace_call(report(TEXT, 6.0, "run2.1"), answered=503),
        report(TEXT, 7.0, "run2.2", skipped=True),
    ),
    "files that are stored once more": puts(*PUTS, *(replace(put, at=9.0) for put in PUTS)),
    "a job that the receiver does not want any more": instead(
        TEXT_DONE, report(TEXT, 4.0, "run1.1", skipped=True)
    ),
}


@pytest.mark.parametrize("edit", ALLOWED.values(), ids=ALLOWED)
def test_what_is_allowed_is_no_violation(edit: Edit) -> None:
    assert violations(edit(good())) == []


def test_another_worker_may_take_another_time_over_it() -> None:
    again = besides(other_metadata(IMAGE_DONE, 6.0, generation_time=0.6))
    assert violations(replace(again(good()), rerun=True)) == []
    other = besides(other_metadata(TEXT_DONE, 6.0, text="another word"))
    assert kinds(replace(other(good()), rerun=True)) == {Kind.DUPLICATE_EFFECT}


def test_results_differ_where_a_byte_does() -> None:
    same = besides(other_metadata(IMAGE_DONE, 6.0, generation_time=0.6))
    assert results(same(good())) == results(good())
    for edit in (
        puts(replace(PUTS[0], sha256="another sha"), *PUTS[1:]),
        puts(*PUTS[1:]),
        instead(TEXT_DONE, other_metadata(TEXT_DONE, 4.0, text="another word")),
    ):
        assert results(edit(good())) != results(good())

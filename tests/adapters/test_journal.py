"""The journal: what it records, what it refuses, what it owes."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from support.journals import (
    CANCELLED,
    COMPLETED,
    ERROR,
    FAILED,
    QUEUE,
    S,
    asset_of,
    bring_to,
    opened,
    spec_of,
    state_of,
)
from support.queues import MovedClock

from ourvidz.adapters import journal as journal_module
from ourvidz.adapters.database import Database
from ourvidz.adapters.journal import JOURNAL_SCHEMA, SqliteJournal
from ourvidz.jobs import (
    TRANSITIONS,
    IllegalTransition,
    InvalidJob,
    JobResult,
    JobState,
    TextResult,
)
from ourvidz.ports import Known

pytestmark = pytest.mark.anyio


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[SqliteJournal]:
    async with opened(tmp_path) as journal:
        yield journal


async def test_every_move_is_checked_against_the_table(journal: SqliteJournal) -> None:
    for old, new in itertools.product(S, S):
        spec = await bring_to(journal, old)
        if new in TRANSITIONS[old]:
            await journal.move(spec.id, new)
            assert await state_of(journal, spec) is new
        else:
            with pytest.raises(IllegalTransition, match=f"{old.value} -> {new.value}"):
                await journal.move(spec.id, new)
            assert await state_of(journal, spec) is old


async def test_an_unknown_job(journal: SqliteJournal) -> None:
    nobody = uuid4()
    assert await journal.get(nobody) is None
    assert await journal.assets(nobody) == []
    assert await journal.answers(str(nobody)) == []
    assert await journal.rejected(str(nobody)) is None
    assert await journal.adopt(nobody, "mine") == "mine"
    for call in (
        journal.move(nobody, S.WAITING),
        journal.finish(nobody, FAILED, answer=True),
        journal.uploaded(nobody, COMPLETED),
        journal.requeue(nobody),
        journal.cancel_queued(nobody, CANCELLED),
    ):
        with pytest.raises(KeyError, match=str(nobody)):
            await call


async def test_what_accept_says_and_does(journal: SqliteJournal) -> None:
    expected = {
        S.QUEUED: Known.QUEUED,
        S.CLAIMED: Known.ACTIVE,
        S.WAITING: Known.ACTIVE,
        S.RUNNING: Known.ACTIVE,
        S.RENDERED: Known.ACTIVE,
        S.COMPLETED: Known.ENDED,
        S.FAILED: Known.ENDED,
        S.CANCELLED: Known.ENDED,
    }
    for state, known in expected.items():
        spec = await bring_to(journal, state)
        before = await journal.get(spec.id)
        assert await journal.known(spec) is known
        assert await journal.accept(spec, QUEUE, None) is known
        other = replace(spec, digest="another body")
        assert await journal.known(other) is Known.CONFLICT
        assert await journal.accept(other, QUEUE, "claim2") is Known.CONFLICT
        assert await journal.get(spec.id) == before, "nothing has changed"
        assert await journal.accept(spec, QUEUE, "claim2") is known
        after = await journal.get(spec.id)
        assert after is not None
        claimed = state is S.QUEUED
        assert (after.state, after.claim_id == "claim2") == (
            S.CLAIMED if claimed else state,
            claimed,
        )


async def test_a_new_job_may_come_with_or_without_a_claim(journal: SqliteJournal) -> None:
    for claim_id, state in ((None, S.QUEUED), ("mine", S.CLAIMED)):
        spec = spec_of()
        assert await journal.accept(spec, QUEUE, claim_id) is Known.NEW
        record = await journal.get(spec.id)
        assert record is not None
        assert (record.state, record.claim_id, record.queue) == (state, claim_id, QUEUE)
        assert (record.attempts, record.started_at, record.result) == (0, None, None)


async def test_the_newest_claim_holds_a_job_that_needs_one(journal: SqliteJournal) -> None:
    for state in S:
        spec = await bring_to(journal, state)
        before = await journal.get(spec.id)
        assert before is not None
        assert await journal.adopt(spec.id, "newer") == before.claim_id
        assert await journal.adopt(spec.id, "newer") is None, "it holds it already"
        record = await journal.get(spec.id)
        assert record is not None
        assert (record.claim_id, record.state) == ("newer", state)
        for answer in await journal.answers(str(spec.id)):
            await journal.answered(answer.event_id)
        expected = "newest" if state.terminal else "newer"
        assert await journal.adopt(spec.id, "newest") == expected


async def test_a_parked_answer_needs_no_claim(journal: SqliteJournal) -> None:
    spec = await bring_to(journal, S.FAILED)
    await journal.answer_failed(f"{spec.id}.failed", "401", park=True)
    assert await journal.adopt(spec.id, "newer") == "newer"


async def test_runs_are_counted_and_the_first_start_is_kept(tmp_path: Path) -> None:
    clock = MovedClock()
    database = Database(tmp_path / "journal.db")
    await database.open(JOURNAL_SCHEMA)
    journal = SqliteJournal(database, clock)
    spec = await bring_to(journal, S.RUNNING)
    first = clock.now
    clock.now += 5
    await journal.requeue(spec.id)
    record = await journal.get(spec.id)
    assert record is not None
    assert (record.state, record.claim_id, record.started_at) == (S.QUEUED, None, None)
    assert record.attempts == 1
    await journal.accept(spec, QUEUE, "again")
    await journal.move(spec.id, S.WAITING)
    await journal.move(spec.id, S.RUNNING)
    await journal.finish(spec.id, COMPLETED, answer=True)
    record = await journal.get(spec.id)
    assert record is not None
    assert (record.attempts, record.started_at, record.created_at) == (2, first + 5, first)
    assert record.completed_at is None, "not before its files are stored"
    clock.now += 5
    await journal.uploaded(spec.id, COMPLETED)
    record = await journal.get(spec.id)
    assert record is not None
    assert record.completed_at == first + 10
    await database.aclose()


async def test_assets_come_by_index_and_outlive_their_run(journal: SqliteJournal) -> None:
    spec = await bring_to(journal, S.RUNNING)
    for asset in (asset_of(2), asset_of(0), asset_of(1, "old"), asset_of(1, "new")):
        await journal.add_asset(spec.id, asset)
    assert await journal.assets(spec.id) == [asset_of(0), asset_of(1, "new"), asset_of(2)]
    await journal.requeue(spec.id)
    assert len(await journal.assets(spec.id)) == 3


async def test_texts_come_by_part_and_outlive_their_run(journal: SqliteJournal) -> None:
    spec, other = await bring_to(journal, S.RUNNING), await bring_to(journal, S.RUNNING)
    for part, text in ((1, "second"), (0, "old"), (0, "new")):
        await journal.add_text(spec.id, part, TextResult(text, 3, 4, "stop"))
    await journal.requeue(spec.id)
    assert await journal.texts(spec.id) == {
        0: TextResult("new", 3, 4, "stop"),
        1: TextResult("second", 3, 4, "stop"),
    }
    assert await journal.texts(other.id) == {}


@pytest.mark.parametrize(
    ("result", "answer", "state", "events"),
    [
        (COMPLETED, True, S.RENDERED, []),
        (FAILED, True, S.FAILED, ["failed"]),
        (CANCELLED, True, S.CANCELLED, ["failed"]),
        (CANCELLED, False, S.CANCELLED, []),
    ],
)
async def test_the_end_and_what_it_owes(
    journal: SqliteJournal, result: JobResult, answer: bool, state: JobState, events: list[str]
) -> None:
    spec = await bring_to(journal, S.RUNNING)
    await journal.finish(spec.id, result, answer)
    record = await journal.get(spec.id)
    assert record is not None
    assert (record.state, record.result) == (state, result)
    owed = await journal.answers(str(spec.id))
    assert [a.event_id for a in owed] == [f"{spec.id}.{event}" for event in events]
    assert [a.body for a in owed] == [None] * len(events)
    with pytest.raises(IllegalTransition):
        await journal.finish(spec.id, result, answer)
    assert await journal.answers(str(spec.id)) == owed


@pytest.mark.parametrize(
    ("result", "state", "event"),
    [(COMPLETED, S.COMPLETED, "completed"), (FAILED, S.FAILED, "failed")],
)
async def test_after_the_upload_the_answer_is_owed(
    journal: SqliteJournal, result: JobResult, state: JobState, event: str
) -> None:
    spec = await bring_to(journal, S.RENDERED)
    await journal.uploaded(spec.id, result)
    assert await state_of(journal, spec) is state
    (answer,) = await journal.answers(str(spec.id))
    assert answer.event_id == f"{spec.id}.{event}"


async def test_only_a_queued_job_is_cancelled_unclaimed(journal: SqliteJournal) -> None:
    for state in S:
        spec = await bring_to(journal, state)
        before = await journal.get(spec.id)
        assert await journal.cancel_queued(spec.id, CANCELLED) is (state is S.QUEUED)
        if state is not S.QUEUED:
            assert await journal.get(spec.id) == before


async def test_answers_fail_are_parked_and_are_done_with(journal: SqliteJournal) -> None:
    first, second = await bring_to(journal, S.FAILED), await bring_to(journal, S.FAILED)
    events = [f"{spec.id}.failed" for spec in (first, second)]
    assert await journal.parked() == 0
    for attempt in (1, 2):
        assert await journal.answer_failed(events[0], "503", park=False) == attempt
    assert {a.event_id for a in await journal.answers()} == set(events)
    assert await journal.answer_failed(events[0], "401", park=True) == 3
    assert [a.event_id for a in await journal.answers()] == [events[1]]
    assert await journal.parked() == 1
    assert await journal.answers(str(first.id)) == []
    for _ in range(2):
        await journal.answered(events[1])
    assert await journal.answers() == []
    assert await journal.answer_failed("unknown", "503", park=False) == 0


async def test_parked_answers_are_owed_again(journal: SqliteJournal) -> None:
    specs = [await bring_to(journal, S.FAILED) for _ in range(4)]
    events = [f"{spec.id}.failed" for spec in specs]
    for event in events[:3]:
        await journal.answer_failed(event, "503", park=False)
        await journal.answer_failed(event, "401", park=True)
    found = await journal.parked_answers(10)
    assert {(p.event_id, p.job_id, p.attempts, p.error) for p in found} == {
        (event, str(spec.id), 2, "401") for event, spec in zip(events[:3], specs, strict=False)
    }
    assert found == sorted(found, key=lambda parked: (parked.created_at, parked.event_id))
    assert await journal.parked_answers(2) == found[:2]
    named = [events[0], events[3], "unknown"]
    assert await journal.unpark(named, 10) == [str(specs[0].id)], "the others are not parked"
    assert await journal.unpark(named, 10) == []
    assert [a.event_id for a in await journal.answers(str(specs[0].id))] == events[:1]
    assert await journal.answer_failed(events[0], "503", park=False) == 1, "counted anew"
    oldest = next(p.job_id for p in found if p.event_id != events[0])
    assert await journal.unpark(None, 1) == [oldest]
    assert await journal.parked() == 1
    assert len(await journal.unpark(None, 10)) == 1
    assert {a.event_id for a in await journal.answers()} == set(events)
    assert await journal.parked_answers(10) == []


def invalid_of(job_id: str) -> InvalidJob:
    return InvalidJob(job_id, "sdxl_generate", None, "digest", ERROR)


async def test_a_refused_payload_is_answered_once(journal: SqliteJournal) -> None:
    invalid = invalid_of("job #1")
    assert await journal.reject(invalid, b"body")
    assert not await journal.reject(invalid, b"other")
    assert await journal.rejected("job #1") == invalid
    (answer,) = await journal.answers("job #1")
    assert (answer.event_id, answer.body) == ("job #1.failed", b"body")


async def test_no_spelling_of_a_known_id_is_refused(journal: SqliteJournal) -> None:
    spec = await bring_to(journal, S.RUNNING)
    text = str(spec.id)
    for spelt in (text, text.upper(), spec.id.hex, f"{{{text}}}", spec.id.urn):
        assert not await journal.reject(invalid_of(spelt), b"body")
    assert await journal.answers() == []


async def test_a_refused_id_is_taken_in_every_spelling(journal: SqliteJournal) -> None:
    spec = spec_of()
    assert await journal.reject(invalid_of(spec.id.hex), b"body")
    assert not await journal.reject(invalid_of(str(spec.id)), b"body")
    assert await journal.known(spec) is Known.CONFLICT
    assert await journal.accept(spec, QUEUE, "claim") is Known.CONFLICT
    assert await journal.get(spec.id) is None
    assert await journal.rejected(str(spec.id)) == invalid_of(spec.id.hex)
    assert [a.event_id for a in await journal.answers(spec.id.hex)] == [f"{spec.id}.failed"]


async def test_jobs_by_state_come_oldest_first(journal: SqliteJournal) -> None:
    specs = {state: await bring_to(journal, state) for state in S}
    found = await journal.in_states(S.RUNNING, S.CLAIMED)
    assert {record.spec.id for record in found} == {specs[S.RUNNING].id, specs[S.CLAIMED].id}
    assert [r.spec.id for r in found] == sorted((r.spec.id for r in found), key=str)
    assert await journal.in_states() == []


async def test_two_at_once_are_told_one_after_the_other(journal: SqliteJournal) -> None:
    spec, told = spec_of(), list[Known]()

    async def accept(claim_id: str) -> None:
        told.append(await journal.accept(spec, QUEUE, claim_id))

    async with anyio.create_task_group() as tasks:
        for claim_id in ("one", "two", "three"):
            tasks.start_soon(accept, claim_id)
    assert told == [Known.NEW, Known.ACTIVE, Known.ACTIVE]


async def test_what_ended_long_ago_is_forgotten(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "ENDED_JOBS_MAX", 2)
    monkeypatch.setattr(journal_module, "_FORGET_EVERY", 1)
    owed, parked = await bring_to(journal, S.FAILED), await bring_to(journal, S.FAILED)
    await journal.answer_failed(f"{parked.id}.failed", "401", park=True)
    present = await bring_to(journal, S.RUNNING)
    ended = [await bring_to(journal, S.COMPLETED) for _ in range(4)]
    await journal.reject(invalid_of("bad and owed"), b"")
    for number in range(4):
        await journal.reject(invalid_of(f"bad {number}"), b"")
        await journal.answered(f"bad {number}.failed")
    for spec in ended:
        await journal.answered(f"{spec.id}.completed")
    await journal.accept(spec_of(), QUEUE, None)
    kept = [spec for spec in ended if await journal.get(spec.id) is not None]
    assert len(kept) == 2
    refused = [n for n in range(4) if await journal.rejected(f"bad {n}") is not None]
    assert len(refused) == 2
    assert await journal.rejected("bad and owed") is not None
    for spec in (owed, parked, present):
        assert await journal.get(spec.id) is not None

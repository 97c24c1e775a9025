"""What the journal is given as JSON comes back as it was, whatever the job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from support import domain
from support.journals import QUEUE, bring_to, opened

from ourvidz.adapters.journal import SqliteJournal
from ourvidz.adapters.journal_rows import SPEC
from ourvidz.config import load
from ourvidz.jobs import Asset, InvalidJob, JobResult, JobSpec, JobState
from ourvidz.wire import Rules, parse

pytestmark = pytest.mark.anyio

RULES = Rules.from_settings(load(Path(__file__).parents[2] / "config.toml", environ={}))


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[SqliteJournal]:
    async with opened(tmp_path) as journal:
        yield journal


MANY = settings(
    max_examples=60,
    deadline=None,
    # One journal serves all examples: every one of them has an id of its own.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@MANY
@given(spec=domain.specs)
async def test_a_spec_comes_back_as_it_was(journal: SqliteJournal, spec: JobSpec) -> None:
    spec = replace(spec, id=uuid4())
    await journal.accept(spec, QUEUE, None)
    record = await journal.get(spec.id)
    assert record is not None
    assert record.spec == spec
    assert [type(work) for work in record.spec.works] == [type(work) for work in spec.works]


@MANY
@given(
    result=domain.results("completed"),
    stored=domain.results("completed", "failed"),
    asset=domain.assets,
    invalid=domain.invalid_jobs,
)
async def test_a_result_comes_back_as_it_was(
    journal: SqliteJournal, result: JobResult, stored: JobResult, asset: Asset, invalid: InvalidJob
) -> None:
    spec = await bring_to(journal, JobState.RUNNING)
    await journal.add_asset(spec.id, asset)
    assert await journal.assets(spec.id) == [asset]
    await journal.finish(spec.id, result, answer=True)
    record = await journal.get(spec.id)
    assert record is not None
    assert record.result == result
    await journal.uploaded(spec.id, stored)
    record = await journal.get(spec.id)
    assert record is not None
    assert record.result == stored
    invalid = replace(invalid, id=f"{uuid4()} {invalid.id}")
    assert await journal.reject(invalid, b"")
    assert await journal.rejected(str(invalid.id)) == invalid


@pytest.mark.parametrize("depth", [1, 150, 199, 250])
async def test_what_the_border_lets_through_can_be_read_again(
    journal: SqliteJournal, depth: int
) -> None:
    """A row that cannot be read would stop every start of the service."""
    raw = b'{"id":"%s","type":"chat","prompt":"hi","user_id":"%s","unknown":%s1%s}' % (
        str(uuid4()).encode(),
        str(uuid4()).encode(),
        b"[" * depth,
        b"]" * depth,
    )
    spec = parse(raw, RULES)
    assert isinstance(spec, JobSpec)
    await journal.accept(spec, QUEUE, None)
    record = await journal.get(spec.id)
    assert record is not None
    assert record.spec == spec
    assert await journal.in_states(JobState.QUEUED)


@MANY
@given(spec=domain.specs)
async def test_a_row_that_does_not_say_whose_the_seed_is_counts_as_seeded(
    journal: SqliteJournal, spec: JobSpec
) -> None:
    """As rows were written before the works had these fields."""
    spec = replace(spec, id=uuid4())
    await journal.accept(spec, QUEUE, None)
    row = SPEC.dump_python(spec, mode="json")
    for work in row["works"]:
        del work["seeded"], work["reproducible"]
    older = (orjson.dumps(row), str(spec.id))
    await journal._database.run(
        lambda connection: connection.execute("UPDATE jobs SET spec = ? WHERE id = ?", older)
    )
    record = await journal.get(spec.id)
    assert record is not None
    expected = tuple(replace(work, seeded=True, reproducible=False) for work in spec.works)
    assert record.spec == replace(spec, works=expected)

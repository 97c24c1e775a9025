"""Which failures of a reference are tried again, and how often."""

from __future__ import annotations

from pathlib import Path

import pytest

from ourvidz.adapters.references_repeated import RepeatedReferences
from ourvidz.jobs import ErrorCode, JobError, Reference
from ourvidz.ports import ReferenceFailed

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_retries")]

REFERENCE = Reference("image", "workspace-temp/a.png")
PATH = Path("reference-image")


class Failing:
    def __init__(self, *retryable: bool) -> None:
        self._failures = list(retryable)
        self.asked: list[tuple[Reference, Path]] = []

    async def fetch(self, reference: Reference, path: Path) -> None:
        self.asked.append((reference, path))
        if self._failures:
            error = JobError(ErrorCode.REFERENCE_FRAME, "planted", self._failures.pop(0))
            raise ReferenceFailed(error)


async def test_what_may_pass_is_tried_again() -> None:
    failing = Failing(True, True)
    await RepeatedReferences(failing, 3).fetch(REFERENCE, PATH)
    assert failing.asked == [(REFERENCE, PATH)] * 3


async def test_what_lasts_is_not() -> None:
    failing = Failing(False)
    with pytest.raises(ReferenceFailed, match="planted"):
        await RepeatedReferences(failing, 3).fetch(REFERENCE, PATH)
    assert len(failing.asked) == 1


async def test_it_is_given_up_some_day() -> None:
    failing = Failing(*[True] * 9)
    with pytest.raises(ReferenceFailed, match="planted"):
        await RepeatedReferences(failing, 3).fetch(REFERENCE, PATH)
    assert len(failing.asked) == 3

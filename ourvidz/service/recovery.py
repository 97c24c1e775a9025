"""What an earlier process of this worker has left, put right before anything new is begun."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from anyio.abc import TaskGroup

from ourvidz.jobs import JobState
from ourvidz.ports import Journal, QueueError
from ourvidz.service.delivery import Delivery
from ourvidz.service.health import Alarms, queue_failed
from ourvidz.service.intake import RECOVER, Intake

log = structlog.get_logger()


async def recover(
    intake: Intake, journal: Journal, delivery: Delivery, alarms: Alarms, tasks: TaskGroup
) -> None:
    """Claims and jobs of an earlier process go back to their queues; deliveries go on."""
    intake.aside = await _claims_aside(journal)
    try:
        await intake.recover()
    except QueueError as error:
        # The intake goes on asking, and claims nothing before; answers need no queue to go out.
        queue_failed(alarms, RECOVER, error)
    left = (JobState.CLAIMED, JobState.WAITING, JobState.RUNNING)
    for record in await journal.in_states(*left):
        await journal.requeue(record.spec.id)
        log.warning("job_recovered", job=str(record.spec.id), state=record.state.value)
    await delivery.recover(tasks)


async def _claims_aside(journal: Journal) -> Sequence[str]:
    """The claims of jobs that only stood aside when the earlier process died, newest first."""
    aside = await journal.aside()
    begun = reversed(await journal.in_states(JobState.RUNNING))
    return [r.claim_id for r in begun if r.claim_id is not None and r.spec.id in aside]

"""The alarms, and the loop's heartbeat: what health and metrics show of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
import structlog

from ourvidz.ports import Clock, QueueRefused
from ourvidz.service.metrics import Metrics
from ourvidz.service.samples import quantile

log = structlog.get_logger()

# One minute of beats at the default period: enough for a p99.
_BEATS = 600

# The alarms. A job met a defect of ours and was answered as failed.
JOB_DEFECT: Final = "job_defect"
# Another worker may have one of our jobs.
LEASE_LOST: Final = "lease_lost"
# Claims, renewals and the like fail for now; silenced when what failed succeeds.
QUEUE_UNAVAILABLE: Final = "queue_unavailable"
# The queues' server refuses us: a wrong token or URL, a command that it does not know. Somebody has
# to put that right; until then it is asked again all the same. Silenced as above.
QUEUE_REFUSED: Final = "queue_refused"
# A delivery met what nobody foresaw and is tried again; silenced when one succeeds.
DELIVERY_BROKE: Final = "delivery_broke"
# The store does not answer or is busy: finished jobs wait for it; silenced when it takes a file.
STORE_UNAVAILABLE: Final = "store_unavailable"
# The store refuses everything (a wrong key, a bucket that is gone): finished jobs wait until
# somebody has mended it; silenced when it takes a file.
STORE_DENIED: Final = "store_denied"
# The store refuses a file for good: that image has failed. Silenced when it takes another.
STORE_REFUSED: Final = "store_refused"
# Callbacks fail for now and are tried again; silenced when none does any more.
CALLBACK_UNAVAILABLE: Final = "callback_unavailable"
# The spool holds as many bytes as it may: no more jobs are claimed until deliveries have made room.
SPOOL_FULL: Final = "spool_full"
# The disk has too little room: no more jobs are claimed until it has; files that it does not take
# wait in memory.
DISK_FULL: Final = "disk_full"
# The spool's disk is read-only, gone or failing: as above, for as long as it is.
DISK_FAILED: Final = "disk_failed"
# Rendered files are gone or damaged: they are rendered again. Silenced when a job's are whole.
SPOOL_LOST: Final = "spool_lost"
# The journal's disk does not take what is to be written down: everything waits for it.
JOURNAL_UNAVAILABLE: Final = "journal_unavailable"
# A component could not be staged or loaded, by its name behind a colon; silenced when it is.
COMPONENT_FAILED: Final = "component_failed"
# A model cannot be opened, by its name behind a colon: its jobs fail, or are left to other workers.
MODEL_BROKEN: Final = "model_broken"
# The state of what is being denoised could not be written down: a restart begins it anew. Silenced
# when one is.
STATE_NOT_SAVED: Final = "state_not_saved"
# The device is stuck or lost; the service ends, for a supervisor to start it anew.
DEVICE_FAILED: Final = "device_failed"
# The scheduler's turns are not recorded any more, as the disk is full or too slow.
RECORDING_STOPPED: Final = "recording_stopped"
# Callbacks were given up and are kept as dead.
PARKED_CALLBACKS: Final = "parked_callbacks"


class Alarms:
    """What a person should look at, by name. An alarm rings until all of its ``causes`` are gone:
    that one call succeeds says nothing of another."""

    def __init__(self) -> None:
        self._ringing: dict[str, set[str]] = {}

    def ring(self, name: str, cause: str = "") -> None:
        self._ringing.setdefault(name, set()).add(cause)

    def silence(self, name: str, cause: str = "") -> None:
        causes = self._ringing.get(name, set())
        causes.discard(cause)
        if not causes:
            self._ringing.pop(name, None)

    @property
    def ringing(self) -> Sequence[str]:
        return sorted(self._ringing)


def queue_failed(alarms: Alarms, what: str, error: Exception) -> None:
    """The queues did not do ``what`` was asked: say so in log and health."""
    name = QUEUE_REFUSED if isinstance(error, QueueRefused) else QUEUE_UNAVAILABLE
    log.error(name, what=what, reason=f"{type(error).__name__}: {error}")
    queue_answered(alarms, what)
    alarms.ring(name, what)


def queue_answered(alarms: Alarms, what: str) -> None:
    """They did it, or nobody wants it any more."""
    alarms.silence(QUEUE_UNAVAILABLE, what)
    alarms.silence(QUEUE_REFUSED, what)


@dataclass(slots=True)
class Heartbeat:
    """Sleeps a fixed period and measures how much later than asked it woke: the loop's lag."""

    clock: Clock
    period_seconds: float
    metrics: Metrics
    _lags: deque[float] = field(default_factory=lambda: deque(maxlen=_BEATS))

    async def beat(self) -> None:
        """For ever."""
        while True:
            before = self.clock.monotonic()
            await anyio.sleep(self.period_seconds)
            lag = max(0.0, self.clock.monotonic() - before - self.period_seconds)
            self._lags.append(lag)
            self.metrics.loop_lag.observe(lag)

    def lag_seconds(self) -> dict[str, float]:
        """p50, p99 and the worst of the last beats."""
        lags = self._lags or (0.0,)
        shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
        return {name: round(quantile(lags, share), 6) for name, share in shares.items()}

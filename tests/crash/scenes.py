"""What the workers of the matrix are given to do, so that every point is come by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import anyio
import httpx
import orjson
from support.history import Push
from support.house import USER, job_id, payload

from tests.crash.trap import STEP, Site
from tests.crash.worker import LOOK_SECONDS

Kind = Literal["embedded", "redis"]
# The worker that died comes back; or another takes over, and then the first comes back.
Mode = Literal["same", "other"]
BOTH: tuple[tuple[Kind, Mode], ...] = (("embedded", "same"), ("redis", "other"))
ALONE: tuple[tuple[Kind, Mode], ...] = (("embedded", "same"), ("redis", "same"))
EMBEDDED: tuple[tuple[Kind, Mode], ...] = (("embedded", "same"),)

REFERENCE = f"{USER}/reference/0.png"
# Those who look for leases that have run out do so every half of one.
SHORT_LEASE = {"intake.lease_seconds": 1.0, "intake.renew_seconds": 0.2}


class Stage(Protocol):
    """One worker's life, as what happens outside of it can be seen and done."""

    trapped: bool
    url: str

    async def ready(self) -> None:
        """Return once it serves."""

    async def reported(self) -> None:
        """Return once it has reported progress."""

    async def idle(self) -> None:
        """Return once every job is answered and no element is left."""

    def let_go(self) -> None:
        """The device holds no longer."""

    def terminate(self) -> None: ...


Script = Callable[[Stage], Awaitable[None]]


async def deliver(stage: Stage) -> None:
    await stage.ready()
    await stage.idle()
    stage.terminate()


async def drain(stage: Stage) -> None:
    """Told to stop while a run goes on that will not end in time."""
    await stage.reported()
    stage.terminate()


async def hold(stage: Stage) -> None:
    """A run goes on until the point is reached, whatever time that takes."""
    await stage.reported()
    if not stage.trapped:
        stage.let_go()
        await deliver(stage)


async def call(stage: Stage) -> None:
    """A caller submits two jobs, looks, and cancels both: one runs, and one was not even claimed.
    It repeats everything when the service is back."""
    await stage.ready()
    async with httpx.AsyncClient(base_url=stage.url, trust_env=False, timeout=None) as http:
        await http.post("/jobs", json=payload("a"))
        await _begun(http, "a")
        await http.post("/jobs", json=payload("b"))
        await http.get("/jobs")
        await http.get("/health")
        await http.get("/dead-letters")
        await http.get(f"/jobs/{job_id('unheard of')}")
        for name in "ba":
            await http.post(f"/jobs/{job_id(name)}/cancel")
    await deliver(stage)


async def retry(stage: Stage) -> None:
    """Somebody sends what was given up once more, whenever there is any."""
    await stage.ready()
    async with (
        httpx.AsyncClient(base_url=stage.url, trust_env=False, timeout=None) as http,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(_retry_parked, http)
        await stage.idle()
        tasks.cancel_scope.cancel()
    stage.terminate()


async def _retry_parked(http: httpx.AsyncClient) -> None:
    while True:
        if (await http.get("/callbacks/parked")).json()["callbacks"]:
            await http.post("/callbacks/parked/retry")
        await anyio.sleep(LOOK_SECONDS)


async def _begun(http: httpx.AsyncClient, name: str) -> None:
    while True:
        if (await http.get(f"/jobs/{job_id(name)}")).json()["status"] != "queued":
            return
        await anyio.sleep(LOOK_SECONDS)


@dataclass(frozen=True, slots=True)
class Scene:
    """``elements`` lie in their queues at the start, those with ``malformed`` ids among them;
    ``submitted`` jobs come by the API. ``script``
    is what happens to the worker that is to die, ``after`` to those that come later. ``first`` is
    where a worker has died before. ``refusals`` answer the first terminal callbacks. ``dead`` are
    the dead letters that there must be in the end."""

    elements: Sequence[tuple[str, Mapping[str, Any]]] = ()
    submitted: Sequence[str] = ()
    malformed: frozenset[str] = frozenset()
    script: Script = deliver
    after: Script = deliver
    first: Site | None = None
    held: bool = False
    refusals: Sequence[int] = ()
    dead: int = 0
    flags: Mapping[str, Any] = field(default_factory=dict)
    ways: tuple[tuple[Kind, Mode], ...] = BOTH

    @property
    def pushed(self) -> list[Push]:
        ids = [*(element.get("id") for _, element in self.elements), *map(job_id, self.submitted)]
        return [Push(each, each is None or each in self.malformed) for each in ids]

    @property
    def jobs(self) -> frozenset[str]:
        return frozenset(push.job_id for push in self.pushed if push.job_id)

    def raw(self) -> list[tuple[str, bytes]]:
        return [(queue, orjson.dumps(element)) for queue, element in self.elements]


IMAGES, VIDEOS, TEXTS = "sdxl_queue", "wan_queue", "chat_queue"
THREE = payload("a", batch_size=3, reference_image=f"workspace-temp/{REFERENCE}")
ONE = payload("a")
SEEDED = payload("a", "wan_generate", seed=7)

SCENES: Mapping[str, Scene] = {
    # Three images with thumbnails, from a reference out of the store.
    "images": Scene([(IMAGES, THREE)]),
    # On a device that holds either model, not both.
    "chain": Scene(
        [(IMAGES, payload("a", batch_size=2, enhance="base"))], flags={"device.budget_bytes": 20000}
    ),
    "text": Scene([(TEXTS, payload("a", "chat"))]),
    "video": Scene([(VIDEOS, payload("a", "wan_generate"))]),
    "malformed": Scene(
        [(IMAGES, payload("a", steps=9999)), (IMAGES, {"prompt": "a pear"})],
        malformed=frozenset({job_id("a")}),
        dead=2,
    ),
    # Jobs of every kind at once.
    "crowd": Scene(
        [
            *((IMAGES, payload(name, batch_size=2)) for name in "abc"),
            (IMAGES, payload("d", enhance="base")),
            (IMAGES, payload("a", batch_size=2)),
            (IMAGES, payload("bad", steps=9999)),
            *((TEXTS, payload(name, "chat")) for name in "efg"),
            (VIDEOS, payload("h", "wan_generate")),
        ],
        malformed=frozenset({job_id("bad")}),
        dead=1,
        flags={"device.budget_bytes": 20000},
    ),
    "twice": Scene([(IMAGES, ONE), (IMAGES, ONE)], flags={"callback.progress": False}),
    "conflict": Scene([(IMAGES, ONE), (IMAGES, payload("a", prompt="two"))], dead=1, ways=ALONE),
    "away": Scene([(TEXTS, payload("a", "chat"))], refusals=[503]),
    "parked": Scene(
        [(TEXTS, payload("a", "chat"))],
        script=retry,
        after=retry,
        refusals=[400],
        flags={"http.enabled": True},
        ways=EMBEDDED,
    ),
    "drain": Scene([(IMAGES, ONE)], script=drain, held=True, flags={"service.drain_seconds": 0.05}),
    "held": Scene(
        [(IMAGES, ONE)],
        script=hold,
        held=True,
        flags={
            "intake.lease_seconds": 1.0,
            "intake.renew_seconds": 0.2,
            "intake.poll_seconds": 0.3,
        },
    ),
    "api": Scene(
        submitted=["a", "b"],
        script=call,
        after=call,
        held=True,
        flags={"scheduler.waiting_jobs_max": 1, "http.enabled": True},
        ways=ALONE,
    ),
    # A second death: while the first one is put right.
    "again": Scene([(IMAGES, ONE)], first=Site("Executor.execute", "start 0/1", when="after")),
    "halfway": Scene(
        [(IMAGES, payload("a", batch_size=2, enhance="base"))], first=Site("Renderer.image", "1")
    ),
    # States are saved of what has a seed: a video goes on where it was.
    "saved": Scene([(VIDEOS, SEEDED)]),
    "resumed": Scene([(VIDEOS, SEEDED)], first=Site(STEP, "denoise", 3)),
    "rendered": Scene([(IMAGES, THREE)], first=Site("Journal.uploaded")),
    "answered": Scene([(IMAGES, ONE)], first=Site("Notifier.notify", "completed", when="after")),
    "exhausted": Scene(
        [(IMAGES, ONE)],
        first=Site("Executor.execute", "start 0/1", when="after"),
        dead=1,
        flags={"intake.attempts_max": 1},
    ),
}

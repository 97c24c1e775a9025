"""Where workers live and die: a nursery, a backend, a Redis server, and folders for each point."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import orjson
from anyio.abc import ByteReceiveStream, ByteSendStream
from anyio.streams.buffered import BufferedByteReceiveStream
from PIL import Image
from support.history import Call, History, results
from support.house import REPOSITORY, SECRET
from support.redis_process import DEAD, HELD, RedisProcess, free_port, redis_process

from ourvidz.adapters.clock import SystemClock
from ourvidz.adapters.database import Database
from ourvidz.adapters.queue_embedded import QUEUE_SCHEMA, EmbeddedQueues
from ourvidz.adapters.receiver import Answer, Receiver
from tests.crash.points import Point
from tests.crash.scenes import (
    IMAGES,
    REFERENCE,
    SCENES,
    SHORT_LEASE,
    TEXTS,
    VIDEOS,
    Kind,
    Scene,
    Script,
)
from tests.crash.trap import Site
from tests.crash.worker import Order, read_puts, until

# Nothing here takes so long; it turns a point that is never reached into a failure.
LIMIT_SECONDS = 60
QUEUES = (IMAGES, VIDEOS, TEXTS)
LEASE_SECONDS = 60


class Backend(Receiver):
    """Answers as the backend does: ``skipped`` to what comes for a job that is completed. The first
    terminal callbacks are answered with ``refusals``."""

    def __init__(self) -> None:
        super().__init__(SECRET)
        self.refusals: list[int] = []
        self._completed: set[str] = set()

    def begin(self, refusals: list[int]) -> None:
        self.reset()
        self.refusals = refusals
        self._completed = set()

    def _answer(self, body: Any) -> Answer:
        if body["status"] != "processing" and self.refusals:
            return Answer(self.refusals.pop(0))
        skipped = body["job_id"] in self._completed
        if body["status"] == "completed":
            self._completed.add(body["job_id"])
        return Answer(skipped=skipped)


def elements(redis: RedisProcess, queues: Sequence[str]) -> int:
    """Those that the queues hold, claimed or not."""
    # At one moment: what is being claimed or put back is in one of the two places.
    with redis.client.pipeline(transaction=True) as pipeline:
        pipeline.hlen(HELD)
        for queue in queues:
            pipeline.llen(queue)
        return sum(map(int, pipeline.execute()))


class Nursery:
    """The process that workers are forked from."""

    def __init__(self, into: ByteSendStream, out_of: ByteReceiveStream) -> None:
        self._into = into
        self._out_of = BufferedByteReceiveStream(out_of)
        self._began: dict[str, int] = {}
        self._ended: dict[int, int] = {}
        self._told = anyio.Condition()
        self._bearing = anyio.Lock()

    async def listen(self) -> None:
        while True:
            try:
                line = orjson.loads(await self._out_of.receive_until(b"\n", 1000))
            except (anyio.IncompleteRead, anyio.EndOfStream):
                return
            async with self._told:
                if "began" in line:
                    self._began["pid"] = line["began"]
                else:
                    self._ended[line["ended"]] = line["status"]
                self._told.notify_all()

    async def bear(self, order: Any) -> int:
        """Returns the worker's process id."""
        async with self._bearing:
            await self._into.send(orjson.dumps(asdict(order), default=str) + b"\n")
            async with self._told:
                while "pid" not in self._began:
                    await self._told.wait()
                return self._began.pop("pid")

    async def ended(self, pid: int) -> int:
        """Its exit status, once it has one."""
        async with self._told:
            while pid not in self._ended:
                await self._told.wait()
            return self._ended.pop(pid)


@dataclass(slots=True)
class Outcome:
    history: History
    results: Mapping[str, Any]
    killed: bool
    troubles: list[str]


@dataclass(slots=True)
class Play:
    """One point, or one scene undisturbed, in a folder of its own."""

    lane: Lane
    root: Path
    scene: Scene
    kind: Kind
    workers: int = 0
    troubles: list[str] = field(default_factory=list)

    @property
    def hold(self) -> Path:
        return self.root / "hold"

    def order(self, worker: str, site: Site | None, flags: Mapping[str, Any]) -> Order:
        self.workers += 1
        environ = {}
        if self.kind == "redis":
            environ = {"OURVIDZ__QUEUE_SERVER__KIND": "redis", "REDIS_URL": self.lane.redis.url}
        return Order(
            data=self.root / worker,
            store=self.root / "store",
            log=self.root / f"{self.workers}-{worker}.log",
            puts=self.root / "puts",
            hold=self.hold,
            url=self.lane.backend.url,
            site=site,
            flags={"http.port": self.lane.port, **self.scene.flags, **flags},
            environ=environ,
        )

    def elements(self) -> int:
        if self.kind == "redis":
            return elements(self.lane.redis, QUEUES)
        return int(self.ask("a", "SELECT count(*) FROM queue_items"))

    def dead_letters(self) -> int:
        if self.kind == "redis":
            return int(self.lane.redis.client.llen(DEAD))
        return int(self.ask("a", "SELECT count(*) FROM dead_letters"))

    def ask(self, worker: str, select: str) -> Any:
        """The one value that it selects."""
        return self.column(worker, select)[0]

    def column(self, worker: str, select: str) -> list[Any]:
        """Of a worker's database, whether it lives or not."""
        path = self.root / worker / "ourvidz.db"
        with closing(sqlite3.connect(path, timeout=LIMIT_SECONDS)) as connection:
            return [row[0] for row in connection.execute(select)]

    async def live(
        self, worker: str, script: Script, site: Site | None = None, **flags: Any
    ) -> int | None:
        """One worker's life, from its start to its end; returns the exit status."""
        order = self.order(worker, site, flags)
        stage = LiveStage(self, order.log, site is not None, self.lane.api, len(self.calls()))
        stage.pid = await self.lane.nursery.bear(order)
        status = None
        with anyio.move_on_after(LIMIT_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stage.follow, script)
                status = await self.lane.nursery.ended(stage.pid)
                tasks.cancel_scope.cancel()
        if status is None:
            os.kill(stage.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await self.lane.nursery.ended(stage.pid)
        return status

    def calls(self) -> list[Call]:
        return [Call.of(callback) for callback in self.lane.backend.callbacks]

    def trouble(self, good: bool, what: str) -> None:
        if not good:
            self.troubles.append(what)

    def leftovers(self, workers: str) -> None:
        """Nothing may be left behind, but the records of jobs that another worker has finished."""
        self.trouble(self.elements() == 0, f"{self.elements()} elements are left")
        dead = self.dead_letters()
        self.trouble(dead == self.scene.dead, f"{dead} dead letters, {self.scene.dead} expected")
        for worker in workers:
            if not (self.root / worker).exists():
                continue
            spool = self.root / worker / "spool"
            left = {path.name for path in spool.iterdir()} if spool.exists() else set()
            # They may come here again: that another worker has finished them nobody tells.
            waiting = self.column(worker, "SELECT id FROM jobs WHERE state = 'queued'")
            left -= set(waiting) if len(workers) > 1 else set()
            self.trouble(not left, f"worker {worker} left folders in its spool: {left}")
            owed = self.ask(worker, "SELECT count(*) FROM answers")
            self.trouble(owed == 0, f"worker {worker} owes {owed} answers")
        if workers == "a":
            ended = "'completed', 'failed', 'cancelled'"
            select = f"SELECT count(*) FROM jobs WHERE state NOT IN ({ended})"
            self.trouble(self.ask("a", select) == 0, "a job's record has no end")

    def outcome(self, *, killed: bool, rerun: bool) -> Outcome:
        history = History(
            self.scene.pushed, read_puts(self.root / "puts"), self.calls(), rerun=rerun
        )
        return Outcome(history, results(history), killed, self.troubles)


@dataclass(slots=True)
class LiveStage:
    """``scenes.Stage`` of a process."""

    play: Play
    log: Path
    trapped: bool
    url: str
    before: int
    pid: int = 0

    async def follow(self, script: Script) -> None:
        try:
            await script(self)
        except anyio.get_cancelled_exc_class():
            raise
        except Exception as error:  # noqa: BLE001 - the worker may die under a request's feet
            self.log.with_suffix(".script").write_text(repr(error))

    async def ready(self) -> None:
        await until(lambda: self.log.exists() and b'"service_ready"' in self.log.read_bytes())

    async def reported(self) -> None:
        backend = self.play.lane.backend
        await backend.until(lambda seen: any(c.status == "processing" for c in seen[self.before :]))

    async def idle(self) -> None:
        jobs = self.play.scene.jobs
        await self.play.lane.backend.until(
            lambda _: jobs <= {c.job_id for c in self.play.calls() if c.terminal and c.accepted}
        )
        await until(lambda: self.play.elements() == 0)

    def let_go(self) -> None:
        self.play.hold.unlink(missing_ok=True)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)


@dataclass(slots=True)
class Lane:
    """What one point after another is played on."""

    nursery: Nursery
    backend: Backend
    redis: RedisProcess
    folder: Path
    port: int

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def undisturbed(self, root: Path, scene: str) -> Outcome:
        """The scene without its point; where it tells of an earlier death, without that either, but
        for what only comes of it."""
        play = await self._prepared(root, SCENES[scene], "embedded")
        if play.scene.dead and play.scene.first:
            await self._die(play, play.scene.first)
        status = await play.live("a", play.scene.script)
        play.trouble(status == 0, f"the worker ended with {status}")
        if play.elements():
            play.hold.unlink(missing_ok=True)
            status = await play.live("a", play.scene.after)
            play.trouble(status == 0, f"the second worker ended with {status}")
        play.leftovers("a")
        return play.outcome(killed=False, rerun=False)

    async def play(self, root: Path, point: Point) -> Outcome:
        scene = SCENES[point.scene]
        play = await self._prepared(root, scene, point.kind)
        if scene.first is not None:
            await self._die(play, scene.first)
        killed = await self._die(play, point.site)
        if scene.after is not scene.script:
            play.hold.unlink(missing_ok=True)
        workers = "a"
        if point.mode == "other":
            self.redis.advance(LEASE_SECONDS + 1)
            status = await play.live("b", scene.after, **SHORT_LEASE)
            play.trouble(status == 0, f"the other worker ended with {status}")
            workers = "ab"
        status = await play.live("a", scene.after)
        play.trouble(status == 0, f"the next worker ended with {status}")
        play.leftovers(workers)
        return play.outcome(killed=killed, rerun=point.mode == "other")

    async def _die(self, play: Play, site: Site) -> bool:
        status = await play.live("a", play.scene.script, site)
        killed = status == -signal.SIGKILL
        play.trouble(killed, f"the point was never reached: {site}; the worker ended with {status}")
        return killed

    async def _prepared(self, root: Path, scene: Scene, kind: Kind) -> Play:
        self.backend.begin(list(scene.refusals))
        if kind == "redis":
            self.redis.empty()
            for queue, raw in scene.raw():
                self.redis.client.rpush(queue, raw)
        else:
            (root / "a").mkdir()
            await self._push(root / "a" / "ourvidz.db", scene)
        if scene.held:
            (root / "hold").touch()
        reference = root / "store" / "workspace-temp" / REFERENCE
        reference.parent.mkdir(parents=True)
        shutil.copyfile(self.folder / "reference.png", reference)
        return Play(self, root, scene, kind)

    async def _push(self, path: Path, scene: Scene) -> None:
        database = Database(path)
        await database.open(QUEUE_SCHEMA)
        queues = EmbeddedQueues(database, SystemClock(), dict.fromkeys(QUEUES, "left"))
        for queue, raw in scene.raw():
            await queues.push(queue, raw)
        await database.aclose()


@asynccontextmanager
async def open_nursery(worker: str) -> AsyncIterator[Nursery]:
    """Of workers that the module named ``worker`` tells of."""
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    # One arena: else memory grows with each thread that comes to have one of its own.
    single = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    environ = {**os.environ, "PYTHONPATH": paths, **single}
    command = [sys.executable, "-m", "tests.crash.nursery", worker]
    async with await anyio.open_process(command, env=environ, cwd=REPOSITORY, stderr=None) as it:
        assert it.stdin is not None
        assert it.stdout is not None
        nursery = Nursery(it.stdin, it.stdout)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(nursery.listen)
            yield nursery
            await it.stdin.aclose()
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_lane(folder: Path) -> AsyncIterator[Lane]:
    noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "reference.png")
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(redis_process())
        backend = await stack.enter_async_context(Backend())
        nursery = await stack.enter_async_context(open_nursery("tests.crash.worker"))
        yield Lane(nursery, backend, redis, folder, free_port())

"""Services whose every way out, to queues, storage and backend, leads through a fault proxy."""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import orjson
from support.fault_proxy import Fault, FaultProxy, Rule, fault_proxy
from support.house import LIMIT_SECONDS, House, OpenHouse, job_id, payload
from support.proxy_wires import (
    HttpWire,
    RedisWire,
    callback_kind,
    s3_kind,
    signer_kind,
    upstash_kind,
)
from support.queues import SharedServer, shared_server
from support.raw_http import raw_http
from support.rclone import BUCKET, ENVIRON, Rclone
from support.redis_process import RedisProcess
from support.stage import SteppedDevice
from support.turns import turns
from support.upstash import UpstashFront
from support.url_signer import UrlSigner

from ourvidz.adapters.receiver import Receiver
from ourvidz.ports import QueueUnavailable

# What a run really asks for, in which set-up, of which server.
KINDS: Mapping[str, Mapping[str, frozenset[str]]] = {
    "redis": {
        "queues": frozenset(
            {
                *("CLIENT SETINFO", "CLIENT SETNAME", "PING", "BLMOVE"),
                *("OWNED", "CLAIM", "COUNT", "RENEW", "ACKNOWLEDGE", "DEAD_LETTER"),
                *("MARK", "PUT_BACK", "PUSH", "EXPIRED"),
            }
        ),
        "store": frozenset(
            {
                *("PUT png", "PUT webp", "PUT mp4", "GET png"),
                *("POST begin", "PUT part", "POST complete"),
            }
        ),
        "callback": frozenset({"processing", "completed", "failed"}),
    },
    "upstash": {
        "queues": frozenset(
            {
                *("CONFIG GET", "CONFIG SET", "SUBSCRIBE probe", "EVAL probe", "SUBSCRIBE"),
                *("OWNED", "CLAIM", "COUNT", "RENEW", "ACKNOWLEDGE", "DEAD_LETTER"),
                *("MARK", "PUT_BACK", "PUSH", "EXPIRED", "DEPTHS"),
            }
        ),
        "store": frozenset({"PUT png", "PUT webp", "PUT mp4", "GET png"}),
        "signer": frozenset({"sign PUT", "sign GET"}),
        "callback": frozenset({"processing", "completed", "failed"}),
    },
}
# Of the queues: what is asked by the clock, and so has to be waited for.
_BY_THE_CLOCK = {"redis": {"RENEW", "BLMOVE"}, "upstash": {"RENEW", "DEPTHS"}}


@dataclass(frozen=True, slots=True)
class Roads:
    """``proxies`` by what is behind them; ``flags`` lead a house through them."""

    name: str
    proxies: Mapping[str, FaultProxy]
    queues: SharedServer
    flags: Mapping[str, Any]

    def plan(self, place: str, fault: Fault, kind: str | None = None, **which: Any) -> Rule:
        return self.proxies[place].plan(fault, kind, **which)

    def push(self, queue: str, name: str, type_: str = "sdxl_generate", **fields: Any) -> None:
        """As a producer does, whose way to the server is its own."""
        self.queues.redis.client.rpush(queue, orjson.dumps(payload(name, type_, **fields)))

    def stored(self) -> Mapping[str, set[str]]:
        """The digests of what was sent to the storage, by the file it was for."""
        found = defaultdict(set)
        for kind, request in self.proxies["store"].seen:
            if kind.startswith("PUT"):
                place = f"{request.path} {request.query.get('partNumber', '')}"
                found[place].add(hashlib.sha256(request.body).hexdigest())
        return found


@asynccontextmanager
async def redis_and_s3(
    redis: RedisProcess, server: Rclone, receiver: Receiver
) -> AsyncIterator[Roads]:
    redis.empty()
    async with (
        fault_proxy(redis.url, RedisWire()) as queues,
        fault_proxy(server.url, HttpWire(s3_kind)) as store,
        fault_proxy(receiver.url, HttpWire(callback_kind)) as callback,
    ):
        shared = shared_server("redis", redis)
        flags = {
            "store.kind": "s3",
            "store.endpoint": store.url,
            "store.multipart_bytes": 5 * 1024 * 1024,
            "store.part_bytes": 5 * 1024 * 1024,
            "environ": ENVIRON,
            "url": callback.url,
        }
        yield Roads(
            "redis",
            {"queues": queues, "store": store, "callback": callback},
            SharedServer({**shared.environ, "REDIS_URL": queues.url}, redis),
            flags,
        )


@asynccontextmanager
async def upstash_and_presigned(
    redis: RedisProcess, server: Rclone, receiver: Receiver
) -> AsyncIterator[Roads]:
    redis.empty()
    async with (
        UpstashFront(redis) as front,
        fault_proxy(front.url, HttpWire(upstash_kind)) as queues,
        fault_proxy(server.url, HttpWire(s3_kind)) as store,
        raw_http(UrlSigner(store.url).answer) as signer_url,
        fault_proxy(f"{signer_url}/functions/v1/presign", HttpWire(signer_kind)) as signer,
        fault_proxy(receiver.url, HttpWire(callback_kind)) as callback,
    ):
        shared = shared_server("upstash", redis, front)
        flags = {
            "store.kind": "presigned",
            "store.presign_url": signer.url,
            "intake.poll_seconds": 0.05,  # so often it is looked whether an announcement was missed
            "url": callback.url,
        }
        yield Roads(
            "upstash",
            {"queues": queues, "store": store, "signer": signer, "callback": callback},
            SharedServer({**shared.environ, "UPSTASH_REDIS_REST_URL": queues.url}, redis, front),
            flags,
        )


@dataclass(slots=True)
class Lives:
    """Three processes of one worker that ask for everything a run can ask for: the first is
    drained, the second killed, the third serves to the end."""

    open_house: OpenHouse
    roads: Roads

    async def run(self, **flags: Any) -> None:
        """Raises unless each job has exactly one end, whatever went wrong on its way."""
        await self._drained(flags)
        await self._killed(flags)
        await self._whole(flags)

    def _open(self, device: SteppedDevice | None, flags: Mapping[str, Any]) -> Any:
        base = {"intake.renew_seconds": 0.05, "service.drain_seconds": 0.05}
        given = {**self.roads.flags, **base, **flags}
        return self.open_house(device, queues=self.roads.queues, **given)

    async def _drained(self, flags: Mapping[str, Any]) -> None:
        device = SteppedDevice()
        hold = device.hold("drained", "denoise")
        async with self._open(device, flags) as house:
            self.roads.push("sdxl_queue", "drained")
            await hold.reached()
            self.roads.push("sdxl_queue", "broken", steps="many")
            assert (await house.ended("broken"))["status"] == "failed"
            queues = self.roads.proxies["queues"]
            with anyio.fail_after(LIMIT_SECONDS):
                await queues.until(lambda: queues.kinds >= _BY_THE_CLOCK[self.roads.name])

    async def _killed(self, flags: Mapping[str, Any]) -> None:
        device = SteppedDevice()
        hold = device.hold("killed", "denoise")
        async with self._open(device, flags) as house:
            self.roads.push("sdxl_queue", "killed")
            await hold.reached()
            house.kill()

    async def _whole(self, flags: Mapping[str, Any]) -> None:
        async with self._open(None, flags) as house:
            self.roads.push("sdxl_queue", "batch", batch_size=2)
            await _submitted(house, "api")
            body = await self._completed(house, "batch")
            reference = f"{BUCKET}/{body['assets'][0]['url']}"
            self.roads.push(
                "wan_queue",
                "video",
                "wan_generate",
                reference_mode="start",
                start_reference_url=reference,
            )
            self.roads.push("sdxl_queue", "large", width=1400, height=1400)
            for name in ("drained", "killed", "api", "video", "large"):
                await self._completed(house, name)
            await _repeated(house.service.source.reap)
            await house.quiet()
            await self._healthy(house)
            assert await house.dead_letters() != []
            assert {len(found) for found in self.roads.stored().values()} == {1}

    async def _completed(self, house: House, name: str) -> dict[str, Any]:
        body = await house.ended(name)
        assert body["status"] == "completed", body
        return body

    async def _healthy(self, house: House) -> None:
        for name in ("broken", "drained", "killed", "batch", "api", "video", "large"):
            ends = house.terminal(job_id(name))
            assert len({end.headers["webhook-id"] for end in ends}) == 1, name
            assert len({end.raw for end in ends}) == 1, name
        with anyio.fail_after(LIMIT_SECONDS):  # a queue rings until its next consumer has claimed
            while house.service.health()["alarms"]:
                await turns()


async def _submitted(house: House, name: str) -> None:
    await _repeated(lambda: house.service.submit(payload(name, "enhance_base")))


async def _repeated(call: Callable[[], Awaitable[Any]]) -> None:
    """As whoever is told to come back does."""
    while True:
        with contextlib.suppress(QueueUnavailable):
            await call()
            return

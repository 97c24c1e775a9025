"""Redis commands over HTTP, as Upstash's REST API takes them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final
from urllib.parse import quote

import anyio
import httpx
import orjson

from ourvidz import __version__
from ourvidz.adapters.command_meter import CommandMeter
from ourvidz.adapters.http_answers import may_pass
from ourvidz.adapters.queue_errors import passes, shown
from ourvidz.adapters.queue_scripts import ELEMENT_MARK
from ourvidz.ports import Clock, QueueRefused, QueueUnavailable

# The service's own limit is 10 MB a request; encoded, and with what stands round it, a third more.
_ANSWER_BYTES_MAX: Final = 16_000_000
_LINE_CHARACTERS_MAX: Final = 65_536
_ENCODED_MARK: Final = base64.b64encode(ELEMENT_MARK).decode()


class UpstashRest:
    """One database. ``client`` is closed by who made it. Raises ``QueueError``."""

    def __init__(
        self, url: str, token: str, timeout_seconds: float, client: httpx.AsyncClient, clock: Clock
    ) -> None:
        self._url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._client = client
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "User-Agent": f"ourvidz/{__version__}",
        }
        self.meter = CommandMeter(clock)

    async def command(self, *parts: str | int, element: bool = False) -> Any:
        """The result of one command. Strings come as bytes; ``element`` as in
        ``queue_shared.ScriptServer``."""
        self.meter.count()
        extra = {"Upstash-Encoding": "base64"} if element else {}
        with self._in_time():
            status, body = await self._post(orjson.dumps(parts), extra)
        result = _judged(status, body)
        return _element(result) if element else _as_bytes(result)

    @asynccontextmanager
    async def subscribed(self, channel: str) -> AsyncIterator[AsyncIterator[tuple[str, str]]]:
        """The events of a channel, each with its kind ("subscribe", "message") and its payload.
        They end when the server ends them."""
        self.meter.count()
        with self._in_time():
            response = await self._subscribe(channel)
        try:
            yield _events(response)
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def _subscribe(self, channel: str) -> httpx.Response:
        request = self._client.build_request(
            "POST",
            f"{self._url}/subscribe/{quote(channel, safe='@:')}",
            headers={**self._headers, "Accept": "text/event-stream"},
            timeout=httpx.Timeout(self._timeout_seconds, read=None),
        )
        response = await self._client.send(request, stream=True)
        try:
            await _check_stream(response)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await response.aclose()
            raise
        return response

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """What is done inside has the time of one answer."""
        try:
            with anyio.fail_after(self._timeout_seconds):
                yield
        except TimeoutError as error:
            message = f"Upstash gave no answer within {self._timeout_seconds:g} s"
            raise QueueUnavailable(message) from error
        except httpx.HTTPError as error:
            raise QueueUnavailable(f"Upstash does not answer: {shown(error)}") from error

    async def _post(self, content: bytes, extra: dict[str, str]) -> tuple[int, bytes]:
        request = self._client.build_request(
            "POST",
            f"{self._url}/",
            content=content,
            headers={**self._headers, **extra},
            timeout=self._timeout_seconds,
        )
        response = await self._client.send(request, stream=True)
        try:
            return response.status_code, await _body(response)
        finally:
            await response.aclose()


async def _check_stream(response: httpx.Response) -> None:
    """Raises ``QueueError`` for an answer that is no stream of events, and ``httpx.HTTPError``."""
    if not response.is_success:
        _judged(response.status_code, await _body(response))
    kind = response.headers.get("Content-Type", "")
    if not kind.startswith("text/event-stream"):
        raise QueueRefused(f"Upstash streams no events, but {kind!r}")


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _ANSWER_BYTES_MAX:
            raise QueueRefused(f"Upstash's answer has more than {_ANSWER_BYTES_MAX} bytes")
    return bytes(body)


async def _events(response: httpx.Response) -> AsyncIterator[tuple[str, str]]:
    """Lines ``data: KIND,CHANNEL,PAYLOAD``; whatever else comes is not for us."""
    line = ""
    try:
        async for text in response.aiter_text():
            *whole, line = (line + text).split("\n")
            if len(line) > _LINE_CHARACTERS_MAX:
                raise QueueRefused("Upstash's stream of events has no lines")
            for each in whole:
                kind, _, rest = each.removeprefix("data:").strip().partition(",")
                if each.startswith("data:") and rest:
                    yield kind, rest.rpartition(",")[2]
    except httpx.HTTPError as error:
        raise QueueUnavailable(f"Upstash's stream of events broke: {shown(error)}") from error


def _judged(status: int, body: bytes) -> Any:
    """The result in an answer. Raises ``QueueError``."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    said = answer.get("error") if isinstance(answer, dict) else None
    said = shown(said) if said else shown(body.decode(errors="replace"))
    if status in (401, 403):
        message = f"Upstash does not accept UPSTASH_REDIS_REST_TOKEN ({status}): {said}"
        raise QueueRefused(message)
    if may_pass(status) or (status >= 400 and passes(said)):
        raise QueueUnavailable(f"Upstash answered {status}: {said}")
    if status != 200:
        raise QueueRefused(f"Upstash answered {status}: {said}")
    if isinstance(answer, dict) and answer.get("error"):
        raise (QueueUnavailable if passes(said) else QueueRefused)(f"Upstash answered: {said}")
    if not isinstance(answer, dict) or "result" not in answer:
        message = f"what answers at UPSTASH_REDIS_REST_URL does not speak as Upstash does: {said}"
        raise QueueUnavailable(message)
    return answer["result"]


def _as_bytes(result: Any) -> Any:
    if isinstance(result, list):
        return [_as_bytes(each) for each in result]
    return result.encode() if isinstance(result, str) else result


def _element(result: Any) -> Any:
    """A reply with an element: encoded, unless the server did not do as it was asked."""
    if not isinstance(result, list) or not result or result[0] != _ENCODED_MARK:
        return _as_bytes(result)
    try:
        return [base64.b64decode(each) if isinstance(each, str) else each for each in result]
    except ValueError as error:
        raise QueueUnavailable("Upstash's answer is encoded in part only") from error

"""Joining structlog and the standard library's logging behind one renderer and one handler."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterator
from typing import Literal, TextIO

import orjson
import structlog
from structlog.processors import (
    EventRenamer,
    StackInfoRenderer,
    TimeStamper,
    add_log_level,
    format_exc_info,
)
from structlog.typing import EventDict, Processor, WrappedLogger

from ourvidz.logs.guard import choice, guard

LIBRARY_ACTION = "library_log"
# They report every request and some of its headers; the adapters log what matters about one.
_CHATTY = ("httpx", "httpcore", "botocore", "boto3", "aiobotocore", "urllib3", "asyncio")
# They bring handlers of their own, some only when they are first imported.
_WITH_HANDLERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "transformers", "diffusers")
# Their warnings quote the words of a prompt that were cut off.
_QUOTING = ("transformers", "diffusers")
_QUOTED = re.compile(r"[\[\"'].*", re.DOTALL)
_FIRST_KEYS = ("timestamp", "level", "action", "job")


def configure(
    format: Literal["auto", "json", "console"],  # noqa: A002 - the word of the configuration
    level: Literal["debug", "info", "warning", "error"],
    log_prompts: bool,
    stream: TextIO | None = None,
) -> None:
    """Set up the process' logging; a second call replaces the first.

    ``stream`` is standard error by default, looked up at every line. Nothing that goes wrong in
    writing a line is raised: the line is replaced by one with the action ``log_failed``, or lost.
    """
    choice.log_prompts = log_prompts
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = _Handler(stream)
    handler.setFormatter(_formatter(format, handler.stream))
    root = logging.getLogger()
    # A plain handler would write what the guard has not seen; others (a test's) are left alone.
    for old in root.handlers[:]:
        if type(old) in (_Handler, logging.StreamHandler):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    logging.captureWarnings(True)
    route_libraries()


def route_libraries() -> None:
    """Take the handlers from libraries that bring their own. Call it again after importing one."""
    for name in _WITH_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


@contextlib.contextmanager
def bind_job(job_id: object) -> Iterator[None]:
    """Every line logged inside, in this task or the threads it calls, names the job."""
    with structlog.contextvars.bound_contextvars(job=str(job_id)):
        yield


class _Handler(logging.Handler):
    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream

    @property
    def stream(self) -> TextIO:
        return self._stream or sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self.format(record))
        except Exception as error:  # noqa: BLE001 - a log line must never fail the work it is about
            with contextlib.suppress(Exception):
                failed = {"level": "error", "action": "log_failed", "logger": record.name}
                failed["error"] = type(error).__name__
                self._write(orjson.dumps(failed).decode())

    def _write(self, line: str) -> None:
        self.stream.write(line + "\n")
        self.stream.flush()


def _formatter(format_: str, stream: TextIO) -> logging.Formatter:
    render: list[Processor] = [_json]
    terminal = stream.isatty()
    if format_ == "console" or (format_ == "auto" and terminal):
        console = structlog.dev.ConsoleRenderer(
            colors=terminal,
            event_key="action",
            exception_formatter=structlog.dev.plain_traceback,
            repr_native_str=True,
        )
        render = [_escape_controls, console]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.contextvars.merge_contextvars, _library_record],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            add_log_level,
            StackInfoRenderer(),
            # Plain tracebacks: one with local variables would show prompts and keys.
            format_exc_info,
            guard,
            TimeStamper(fmt="iso", utc=True),
            EventRenamer("action"),
            *render,
        ],
    )


def _library_record(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    message = str(event["event"])
    if not choice.log_prompts and record.name.split(".")[0] in _QUOTING:
        message = _QUOTED.sub("<hidden>", message)
    return {**event, "event": LIBRARY_ACTION, "logger": record.name, "message": message}


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    ordered = {key: event[key] for key in _FIRST_KEYS if key in event}
    return orjson.dumps({**ordered, **event}).decode()


def _escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Text must not move a terminal's cursor; only a traceback keeps its line ends."""
    return {key: _escaped(value) for key, value in event.items()}


def _escaped(value: object) -> object:
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in value)

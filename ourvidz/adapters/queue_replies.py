"""What the scripts of ``queue_scripts`` reply, as forms that a reply is held against: a server that
is broken, or something before it, may say anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, PositiveInt, TypeAdapter, ValidationError

from ourvidz.ports import LETTER_BYTES_SHOWN, DeadLetter, QueueUnavailable

T = TypeVar("T")

# Of each dead letter: its facts, and what is shown of the element.
LETTER_BYTES: Final = 4 * LETTER_BYTES_SHOWN


@dataclass(frozen=True, slots=True)
class _Facts:
    """What stands before a dead letter's element."""

    queue: str
    reason: str
    at: float


def _of_three(found: list[bytes]) -> list[bytes]:
    """Claims, each with its number and its queue."""
    if len(found) % 3 or not all(number.isdigit() for number in found[1::3]):
        raise ValueError("no list of claims")
    return found


def _of_letters(found: list[bytes | int]) -> list[bytes | int]:
    """A mark; then each letter's beginning, and how many bytes were left out."""
    kinds = [type(each) for each in found]
    if kinds != [bytes, *([bytes, int] * (len(found) // 2))]:
        raise ValueError("no list of dead letters")
    return found


COUNT: Final = TypeAdapter(int)
PLACES: Final = TypeAdapter(list[PositiveInt])
TEXTS: Final = TypeAdapter(list[bytes])
FOUND: Final = TypeAdapter(Annotated[list[bytes], AfterValidator(_of_three)])
CLAIMED: Final = TypeAdapter(tuple[bytes, bytes, int, bytes] | tuple[()])
STANDING: Final = TypeAdapter(Literal[b"free", b"held", b"ended", b"other body"])
LETTERS: Final = TypeAdapter(Annotated[list[bytes | int], AfterValidator(_of_letters)])
_FACTS: Final = TypeAdapter(_Facts)


def read(form: TypeAdapter[T], reply: object) -> T:
    """The reply in its script's form. Raises ``QueueUnavailable`` for one that was made up on its
    way."""
    try:
        return form.validate_python(reply)
    except ValidationError as error:
        message = "the queues' server gave a reply that its script does not give"
        raise QueueUnavailable(message) from error


def dead_letters(reply: list[Any]) -> list[DeadLetter]:
    """Those of a reply of the form ``LETTERS``, the newest first."""
    letters = zip(reply[1::2], reply[2::2], strict=True)
    return [_dead_letter(beginning, left_out) for beginning, left_out in letters][::-1]


def _dead_letter(beginning: bytes, left_out: int) -> DeadLetter:
    head, _, raw = beginning.partition(b"\n")
    try:
        facts = _FACTS.validate_json(head)
    except ValidationError:
        facts, raw = _Facts(queue="", reason="not put here by a worker", at=0), beginning
    shown, size = raw[:LETTER_BYTES_SHOWN], len(raw) + left_out
    return DeadLetter(facts.queue, shown, size, facts.reason, facts.at)

"""States on disk: when they are written, how few there are, and which of them are gone on with."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.states import wait

from ourvidz.adapters import saved_states
from ourvidz.adapters.saved_states import SavedStates, Saving, remaining
from pipelines.base import PhasePlan
from pipelines.request import ImageRequest, Request, VideoRequest
from pipelines.state import State

BUILD = {"torch": "1", "device": "cpu"}
VIDEO = VideoRequest("a", "", 32, 32, 5, 3, 5.0, 5.0, 7)
IMAGES = ImageRequest("a", "", 64, 64, 3, 4, 5.0, 7)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def states(clock: Clock) -> SavedStates:
    return SavedStates(60.0, clock)


@pytest.fixture
def told() -> list[str | None]:
    return []


@pytest.fixture
def saving(tmp_path: Path, states: SavedStates, told: list[str | None]) -> Saving:
    given = Saving(tmp_path / "state", BUILD, told.append)
    states.begin(given)
    return given


def state_of(step: int, request: Request = VIDEO) -> State:
    return State(request, "denoise", step, {"step": step}, {"latents": torch.full((2, 3), step)})


def found(
    states: SavedStates,
    folder: Path,
    request: Request = VIDEO,
    build: Mapping[str, str] = BUILD,
) -> int | None:
    """The step of the state that is gone on with."""
    state = states.find(folder / "state", request, build)
    if state is None:
        return None
    assert state.tensors["latents"].tolist() == [[state.step] * 3] * 2
    assert (state.values, state.request) == ({"step": state.step}, request)
    return state.step


def test_a_state_is_written_when_it_is_due(
    states: SavedStates, saving: Saving, clock: Clock, tmp_path: Path, told: list[str | None]
) -> None:
    written = []
    for step, now in ((1, 59.0), (2, 60.0), (3, 119.0), (4, 121.0)):
        clock.now = now
        states.begin(saving)
        states.offer(state_of(step), saving)
        wait(states)
        written.append(found(states, tmp_path))
    assert written == [None, 2, 2, 4]
    assert told == [None, None]
    assert len(list((tmp_path / "state").iterdir())) == 1, "the newest takes the last one's place"


def test_one_can_be_due_at_once(states: SavedStates, saving: Saving, tmp_path: Path) -> None:
    states.offer(state_of(1), saving, at_once=True)
    wait(states)
    assert found(states, tmp_path) == 1


def test_0_writes_and_finds_none(saving: Saving, states: SavedStates, tmp_path: Path) -> None:
    states.offer(state_of(1), saving, at_once=True)
    wait(states)
    off = SavedStates(0.0, Clock())
    assert found(off, tmp_path) is None
    off.offer(state_of(2), saving, at_once=True)
    wait(off)
    assert found(states, tmp_path) == 1


def test_the_run_does_not_wait_for_the_disk(
    states: SavedStates,
    saving: Saving,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is due while one is written is due at the next step; one copy at a time is kept."""
    slow, usual = threading.Event(), saved_states.write_atomically

    def write(path: Path, fill: Callable[[Path], object]) -> Any:
        slow.wait(20)
        return usual(path, fill)

    monkeypatch.setattr(saved_states, "write_atomically", write)
    state = state_of(1)
    clock.now = 60.0
    states.offer(state, saving)
    state.tensors["latents"].fill_(9)  # what is done to the state does not reach the copy
    clock.now = 120.0
    states.offer(state_of(2), saving)
    slow.set()
    wait(states)
    assert found(states, tmp_path) == 1
    states.offer(state_of(3), saving)
    wait(states)
    assert found(states, tmp_path) == 3


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(errno.ENOSPC, "full"), "ENOSPC"), (RuntimeError("odd"), "RuntimeError")],
)
def test_a_disk_that_is_full_is_told_and_the_last_one_stays(
    states: SavedStates,
    saving: Saving,
    clock: Clock,
    tmp_path: Path,
    told: list[str | None],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    states.offer(state_of(1), saving, at_once=True)
    wait(states)

    def fail(*_: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(saved_states, "write_atomically", fail)
        states.offer(state_of(2), saving, at_once=True)
        wait(states)
    assert told == [None, reason]
    assert found(states, tmp_path) == 1
    states.offer(state_of(3), saving, at_once=True)
    wait(states)
    assert (told[2:], found(states, tmp_path)) == ([None], 3)


def test_no_room_for_the_copy_is_told(
    states: SavedStates, saving: Saving, told: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: State) -> State:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(State, "snapshot", fail)
        states.offer(state_of(1), saving, at_once=True)
    assert told == ["MemoryError"]
    states.offer(state_of(1), saving, at_once=True)
    wait(states)
    assert told == ["MemoryError", None]


def test_of_a_job_that_is_gone_nothing_is_written(
    states: SavedStates, told: list[str | None], tmp_path: Path
) -> None:
    gone = Saving(tmp_path / "no such job" / "state", BUILD, told.append)
    states.offer(state_of(1), gone, at_once=True)
    wait(states)
    assert (told, list(tmp_path.iterdir())) == ([], [])


@pytest.mark.parametrize("build", [{**BUILD, "torch": "2"}, {"torch": "1"}, {**BUILD, "new": "x"}])
def test_another_build_begins_anew(
    states: SavedStates, saving: Saving, tmp_path: Path, build: dict[str, str]
) -> None:
    states.offer(state_of(1), saving, at_once=True)
    wait(states)
    assert found(states, tmp_path, build=build) is None
    assert found(states, tmp_path) == 1


def test_another_request_begins_anew(states: SavedStates, saving: Saving, tmp_path: Path) -> None:
    states.offer(state_of(1), saving, at_once=True)
    wait(states)
    assert found(states, tmp_path, replace(VIDEO, seed=8)) is None
    assert found(states, tmp_path, IMAGES) is None


def test_which_images_are_decoded_makes_no_difference_where_the_same_are_denoised(
    states: SavedStates, saving: Saving, tmp_path: Path
) -> None:
    states.offer(state_of(1, IMAGES), saving, at_once=True)
    wait(states)
    assert found(states, tmp_path, replace(IMAGES, only=(1,))) == 1
    assert found(states, tmp_path, replace(IMAGES, only=(1,), bitwise=True)) is None
    states.offer(state_of(2, replace(IMAGES, bitwise=True)), saving, at_once=True)
    wait(states)
    assert found(states, tmp_path, replace(IMAGES, bitwise=True)) == 2
    assert found(states, tmp_path, replace(IMAGES, only=(1,), bitwise=True)) is None


@pytest.mark.parametrize("place", [0, 9, 200, -1])
def test_a_damaged_one_is_ignored(
    states: SavedStates, saving: Saving, tmp_path: Path, place: int
) -> None:
    states.offer(state_of(1), saving, at_once=True)
    wait(states)
    (file,) = (tmp_path / "state").iterdir()
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    assert found(states, tmp_path) is None
    file.write_bytes(content[:100])
    assert found(states, tmp_path) is None
    states.offer(state_of(2), saving, at_once=True)
    wait(states)
    assert found(states, tmp_path) == 2
    assert len(list((tmp_path / "state").iterdir())) == 1


def test_an_older_one_is_better_than_none(
    states: SavedStates, saving: Saving, tmp_path: Path
) -> None:
    """The process ended between the newer one's coming and the older one's going."""
    states.offer(state_of(1), saving, at_once=True)
    wait(states)
    (older,) = (tmp_path / "state").iterdir()
    content = older.read_bytes()
    states.offer(state_of(2), saving, at_once=True)
    wait(states)
    (newer,) = (tmp_path / "state").iterdir()
    older.write_bytes(content)
    newer.touch()
    assert found(states, tmp_path) == 2
    newer.write_bytes(b"")
    assert found(states, tmp_path) == 1


def test_what_remains_of_a_plan() -> None:
    plans = tuple(PhasePlan(name, (), 1, steps, 1) for name, steps in (("a", 1), ("b", 3)))

    def steps(phase: str, step: int) -> list[tuple[str, int]]:
        left = remaining(plans, State(VIDEO, phase, step))
        return [(plan.name, plan.steps) for plan in left]

    assert steps("a", 0) == [("a", 1), ("b", 3)]
    assert steps("b", 2) == [("b", 1)]
    assert steps("b", 3) == steps("c", 0) == steps("done", 0) == []

"""Nobody waits for ever: who has waited for ``wait_seconds_max`` goes as soon as that is possible,
and the device does not idle while a job can go on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scheduler import PolicySettings
from scheduler.types import Phase, Sharing
from tests.scheduler.shell import DEFAULTS, Shell, phase

LONGEST = 100.0
TEXT = Sharing("text", 1, 4, 0.1, mid_phase=True)


def shell(device: int = 100, **changes: Any) -> Shell:
    policy = replace(PolicySettings(), wait_seconds_max=LONGEST, **changes)
    s = Shell({"a": 40, "b": 40}, device=device, settings=replace(DEFAULTS, policy=policy))
    s.warm("a", *(["b"] if device > 100 else []))
    return s


def text(seconds: float = 1.0, *, work: int = 1, steps: int = 1, units: int = 1) -> Phase:
    sharing = replace(TEXT, units=units)
    return phase("a", seconds=seconds, work=work, steps=steps, sharing=sharing, state_max=0)


def test_a_begun_job_goes_on_though_many_stand_before_it_that_it_keeps_out() -> None:
    """Nine of its group would go first, and find no room beside its state."""
    s = shell()
    s.arrive("begun", phase("a", work=10, seconds=60.0, steps=9))
    for number in range(9):
        s.arrive(f"fresh{number}", phase("a", work=55, seconds=1.0))
    assert s.pause(step=1, state=10) == ["Resume begun:0"]
    assert s.finish()[:2] == ["Settle begun finished", "Start fresh0:0"]


class Crowd:
    """Videos of which one is always begun, each a little shorter than the one before it, and short
    jobs that keep them from ending before their time."""

    def __init__(self, s: Shell) -> None:
        self.s = s
        self.count = 0

    def video(self, number: int) -> None:
        seconds = 60.0 - 6 * number
        self.s.arrive(f"v{number}", phase("a", work=10, seconds=seconds, steps=60, state_max=10))

    def last(self, seconds: int) -> None:
        s = self.s
        end = s.now + seconds
        while s.now < end:
            self.count += 1
            s.arrive(f"s{self.count}", phase("a", work=1, seconds=0.9))
            if s.books.members and s.books.pausing(s.lease):
                s.pause(self._next_step(), state=10)
            else:
                s.now += 1.0
                self._go_on()

    def _go_on(self) -> None:
        s = self.s
        if s.running().startswith("s") or self._next_step() == s.books.phase(s.lease).steps:
            s.finish()
        else:
            s.step(self._next_step())

    def _next_step(self) -> int:
        (member,) = self.s.books.members.values()
        return member.step + 1


def test_new_jobs_do_not_take_the_room_that_the_oldest_lacks() -> None:
    """It fits beside no video; without the bound it would wait for as long as these come."""
    s = shell(device=100, ageing_seconds=1e9, share_floor=0.0)
    crowd = Crowd(s)
    crowd.video(0)
    s.step(1)
    s.arrive("big", phase("a", work=55, seconds=1.0))
    crowd.last(80)
    for number in range(1, 6):
        while s.running().startswith("s"):
            s.finish()
        crowd.video(number)
        crowd.last(88)
    # Those that were begun when its time had come are two.
    assert s.started_at["big"] < LONGEST + 2 * 60.0 + 10.0


def test_texts_that_keep_joining_do_not_keep_the_run_alive_for_who_has_waited_too_long() -> None:
    """Somebody is at the last step at any time, so that no pause can be asked for."""
    s = shell(device=200)
    s.arrive("t0", text())
    s.arrive("image", phase("b", seconds=30.0))
    number = 0
    while "image" not in s.started_at:
        number += 1
        s.now += 0.9
        s.arrive(f"t{number}", text())
        s.now += 0.1
        s.finish(s.books.running()[0])
        assert s.now < 2 * LONGEST
    assert s.now <= LONGEST + 2.0


def join_until_started(s: Shell, late: str) -> None:
    """Two of a run's four places at a time are taken by texts that keep coming."""
    number = 0
    while late not in s.started_at:
        number += 1
        s.now += 0.5
        s.arrive(f"t{number}", text(steps=10, units=2))
        s.now += 0.5
        s.finish(s.books.running()[0])
        s.set_up()
        assert s.now < 1e5 + 2 * LONGEST
    assert s.now <= 1e5 + LONGEST + 3.0


def full(late: Phase, **changes: Any) -> Shell:
    s = shell(**changes)
    # Clocks do not begin at 0: who came at 100,000 has not waited for that long.
    s.now = 1e5
    s.arrive("x", text(steps=10, units=2))
    s.arrive("y", text(steps=10, units=2))
    s.arrive("late", late)
    return s


def test_of_texts_that_find_no_place_the_one_that_has_waited_too_long_is_next() -> None:
    join_until_started(full(text(300.0, steps=10)), "late")


def test_a_text_that_needs_more_places_than_come_free_at_a_time_gets_them() -> None:
    join_until_started(full(text(300.0, steps=10, units=4)), "late")


def test_a_text_that_needs_more_memory_than_comes_free_at_a_time_gets_it() -> None:
    join_until_started(full(text(300.0, steps=10, work=60)), "late")


def test_for_a_text_that_cannot_join_the_run_is_paused_or_comes_to_its_end() -> None:
    alone = replace(text(300.0, steps=10), sharing=None)
    join_until_started(full(alone), "late")
    join_until_started(full(alone, preempt=False), "late")


def test_those_that_have_waited_too_long_still_share_runs() -> None:
    s = shell(device=200)
    s.arrive("busy", phase("b", seconds=1.0))
    s.now = LONGEST / 2
    for name in "xyz":
        s.arrive(name, text(30.0, steps=10))
    s.now = 2 * LONGEST
    s.finish()
    assert s.running() == "x,y,z"

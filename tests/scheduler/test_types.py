"""Nouns refuse values that would make no sense later, and say which."""

import math

import pytest

from scheduler import PolicySettings, SchedulerSettings
from scheduler.messages import Paused, PhaseFinished
from scheduler.types import Budget, Component, Demand, Lease, Links, Phase, Sharing

SETTINGS = {
    "waiting_jobs_max": 64,
    "load_attempts_max": 3,
    "load_retry_seconds": 5.0,
}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Component("", 1), "component.name is ''"),
        (lambda: Component("a", -1), "component a: weight_bytes is -1, allowed: a finite number"),
        (lambda: Phase("p", (), -1, 1.0, 1), "phase p: working_bytes is -1"),
        (lambda: Phase("p", (), 1, math.nan, 1), "phase p: seconds is nan"),
        (lambda: Phase("p", (), 1, math.inf, 1), "phase p: seconds is inf"),
        (lambda: Phase("p", (), 1, 1.0, -1), "phase p: steps is -1"),
        (lambda: Phase("p", (), 1, 1.0, 1, -1), "phase p: state_bytes_max is -1"),
        (lambda: Phase("p", (), 1, 1.0, 1, seconds_p90=-0.1), "phase p: seconds_p90 is -0.1"),
        (lambda: Sharing("", 1, 1, 1.0, True), "sharing.key is ''"),
        (lambda: Sharing("k", 0, 1, 1.0, True), "sharing k: units is 0, allowed: a finite number"),
        (lambda: Sharing("k", 1, 0, 1.0, True), "sharing k: units_max is 0"),
        (lambda: Sharing("k", 1, 1, -0.1, True), "sharing k: exponent is -0.1"),
        (lambda: Demand("", (), "c", "u", 0.0), "demand.job is ''"),
        (lambda: Demand("j", (), "c", "u", math.nan), "job j: arrival is nan"),
        (lambda: Demand("j", (), "c", "u", 0.0, math.nan), "job j: deadline is nan"),
        (lambda: Budget(-1, 0), "budget.device_bytes is -1"),
        (lambda: Budget(0, -1), "budget.host_bytes is -1"),
        (lambda: Links(0.0, 1.0, 0.0), "links.disk_to_host is 0.0, allowed: above 0"),
        (lambda: Links(1.0, -1.0, 0.0), "links.host_to_device is -1.0"),
        (lambda: Links(1.0, 1.0, -0.1), "links.fixed_seconds is -0.1"),
        (lambda: PhaseFinished(Lease(1, "j", 0), -1), "state_bytes is -1"),
        (lambda: Paused(Lease(1, "j", 0), 1, -1), "state_bytes is -1"),
        *(
            (lambda n=name: SchedulerSettings(**{**SETTINGS, n: 0}), f"settings.{name} is 0")
            for name in SETTINGS
        ),
        *(
            (lambda n=name: PolicySettings(**{n: 0}), f"policy.{name} is 0, allowed: a finite")
            for name in ("ageing_seconds", "wait_seconds_max", "share_seconds")
        ),
        *(
            (lambda n=name: PolicySettings(**{n: -0.1}), f"policy.{name} is -0.1, allowed: a")
            for name in ("late_ageing", "margin_seconds", "discount_seconds_max", "turn_seconds")
        ),
        (lambda: PolicySettings(hysteresis_seconds=math.nan), "policy.hysteresis_seconds is nan"),
        (lambda: PolicySettings(discount=1.1), "policy.discount is 1.1, allowed: 0 to 1"),
        (lambda: PolicySettings(share_floor=-0.1), "policy.share_floor is -0.1, allowed: 0 to 1"),
        (lambda: SchedulerSettings(**SETTINGS, follow_seconds=-1), "settings.follow_seconds is -1"),
        (
            lambda: SchedulerSettings(**SETTINGS, class_weights={"x": 0.0}),
            "settings.class_weights.x is 0.0, allowed: above 0",
        ),
    ],
)
def test_a_senseless_value_is_named(make, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.").replace("'", ".")):
        make()


def test_a_step_of_more_units_takes_longer_by_the_exponent() -> None:
    sharing = Sharing("k", 2, 8, 0.5, mid_phase=True)
    assert [sharing.factor(units) for units in (2, 8)] == [1.0, 2.0]


def test_transfer_seconds() -> None:
    links = Links(disk_to_host=10.0, host_to_device=100.0, fixed_seconds=0.5)
    assert links.stage_seconds(20) == pytest.approx(2.5)
    assert links.load_seconds(20) == pytest.approx(0.7)

"""What the scheduler says of itself: one line, a snapshot; and that check() sees."""

import json
from typing import Any

import pytest

from scheduler import InvariantBroken
from scheduler.types import Tier
from tests.scheduler.shell import LINKS, Shell, phase

SIZES = {"unet": 50, "vae": 10, "llm": 70}


def shell() -> Shell:
    """x runs its first phase at step 2 of 8, y and z wait, and gone's load is under way."""
    s = Shell(SIZES, device=200, host=300)
    s.warm("unet")
    s.arrive("gone", phase("llm"))
    s.arrive(
        "x",
        phase("unet", work=20, seconds=8.0, steps=8),
        phase("vae", work=5, seconds=2.0, name="decode"),
        job_class="fast",
    )
    s.cancel("gone")
    s.arrive("y", phase("vae", seconds=1.0))
    s.arrive("z", phase("unet", work=1, seconds=4.0), phase("vae", seconds=1.0))
    s.step(2)
    return s


def test_one_line() -> None:
    assert repr(Shell(SIZES, device=200, host=300).scheduler) == (
        "<Scheduler running=- target=- waiting=0 device=0/200 host=0/300>"
    )
    s = shell()
    assert repr(s.scheduler) == (
        "<Scheduler running=x:denoise@2/8 target=- waiting=2 device=70/200 host=120/300>"
    )
    s.finish(state=3)
    assert repr(s.scheduler) == (
        "<Scheduler running=- target=x waiting=3 device=53/200 host=130/300>"
    )


def waiting(job: str, position: int, start: float, finish: float, late: float) -> dict[str, Any]:
    return {
        "job": job,
        "class": "normal",
        "standing": "waiting",
        "phase": "denoise",
        "step": 0,
        "carried_bytes": 0,
        "position": position,
        "start_seconds": pytest.approx(start),
        "finish_seconds": pytest.approx(finish),
        "finish_p90_seconds": pytest.approx(finish + late),
    }


def test_snapshot() -> None:
    s = shell()
    snapshot = s.scheduler.snapshot()
    assert json.loads(json.dumps(snapshot)) == snapshot
    vae = LINKS.stage_seconds(10) + LINKS.load_seconds(10)
    # A quarter of what each takes: x's ten seconds, y's one, z's five.
    late, later = (2.5**2 + 0.25**2) ** 0.5, (2.5**2 + 0.25**2 + 1.25**2) ** 0.5
    # y's decode comes after x's, which brings the VAE in.
    assert snapshot == {
        "components": {
            "unet": {"tier": "resident", "bytes": 50, "host": True, "device": True, "error": None},
            "vae": {"tier": "absent", "bytes": 10, "host": False, "device": False, "error": None},
            "llm": {"tier": "staging", "bytes": 70, "host": True, "device": False, "error": None},
        },
        "ledger": {
            "device": {
                "budget": 200,
                "reserved": 70,
                "by": {"run": 20, "state": 0, "weights": 50},
            },
            "host": {"budget": 300, "reserved": 120, "by": {"weights": 120}},
        },
        "running": [
            {
                "lease": 2,
                "run": 2,
                "job": "x",
                "class": "fast",
                "phase": "denoise",
                "step": 2,
                "steps": 8,
                "pausing": False,
                "cancelling": False,
            }
        ],
        "waiting": [
            waiting("y", 1, 8.0 + vae, 9.0 + vae, late),
            waiting("z", 2, 9.0 + vae, 14.0 + vae, later),
        ],
        "target": None,
        "ignored_events": 0,
    }


def _scheduler_index(s: Shell):
    return s.scheduler._index


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda i: i.ledger.device.release(("weights", "unet")), "device: expected"),
        (lambda i: i.ledger.host.reserve(("weights", "vae"), 10), "host: expected"),
        (lambda i: i.ledger.device.grow(("state", "x"), 1), "device: expected"),
        (lambda i: setattr(i.ledger.host, "_reserved", 301), "the sum is wrong"),
        (lambda i: setattr(i.residencies["llm"], "owner", ""), "llm is staging, its owner is ''"),
        (lambda i: setattr(i.residencies["unet"], "master", False), "unet is resident without"),
        (lambda i: setattr(i.residencies["unet"], "tier", Tier.EVICTING), "unet is evicting, its"),
        (lambda i: i.move(i.residencies["unet"], Tier.EVICTING, "x"), "which is evicting"),
        (lambda i: i.jobs.pop("x"), "lives, its job is running"),
        (lambda i: i.runs.clear(), "job x is running without its lease"),
        (lambda i: i.begun.clear(), "job x: begun True"),
        (lambda i: setattr(i.jobs["y"], "carried", 5), "y carries 5 bytes and was never started"),
        (lambda i: setattr(i.jobs["x"], "owed", 1), "carries 0, owes 1"),
        (lambda i: i.ledger.device.release(("run", "2")), "has -1 bytes to work in"),
    ],
)
def test_check_tells_the_story(harm, words: str) -> None:
    s = shell()
    s.scheduler.check()
    harm(_scheduler_index(s))
    with pytest.raises(InvariantBroken) as caught:
        s.scheduler.check()
    assert words in str(caught.value)
    assert str(caught.value).endswith(repr(s.scheduler))


def test_check_looks_at_the_target() -> None:
    s = Shell(SIZES, device=200)
    s.arrive("x", phase("unet"))
    _scheduler_index(s).remove(_scheduler_index(s).jobs["x"])
    with pytest.raises(InvariantBroken, match="target x is settled"):
        s.scheduler.check()

"""What could be had at most: the ideal device, by hand and against the bound."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from bench import traffic
from bench.sched_limits import Ideal, serve
from bench.sched_runs import PROFILE
from ourvidz.cli.simulate import read_profile
from scheduler.bound import mean_flow_bound, service_seconds
from scheduler.workload import Workload, parse_all

COSTS = read_profile(PROFILE)
# What the shipped profile says of these: 4 s of text, a video of 50 steps of 3.6 s.
TEXT_SECONDS, VIDEO_SECONDS, STEP_SECONDS, ENCODE_SECONDS = 4.0, 186.3, 3.6, 0.3
TOGETHER = 2**0.15

Line = Mapping[str, Any]


def text(name: str, arrival: float) -> Line:
    return {"id": name, "arrival_s": arrival, "type": "chat", "tokens": 160}


def video(name: str, arrival: float) -> Line:
    return {"id": name, "arrival_s": arrival, "type": "wan_generate", "frames": 81, "steps": 50}


def workload(*lines: Line) -> Workload:
    return parse_all((line, json.dumps(line)) for line in lines)


def ends(ideal: Ideal, *lines: Line) -> dict[str, float]:
    return serve(workload(*lines), COSTS, ideal).ends


def test_the_plainest_is_the_bound() -> None:
    requests = parse_all((line, "traffic") for line in traffic.workload(3)[:1500])
    services = {r.id: service_seconds(COSTS.demand(r)) for r in requests.requests}
    found = serve(requests, COSTS, Ideal()).ends
    flows = [found[r.id] - r.arrival for r in requests.requests]
    bound = mean_flow_bound(requests, services)
    assert len(found) == 1500
    # A child is released when its parent ends; for the bound, when it could have ended at best.
    assert bound <= sum(flows) / len(flows) + 1e-9 < bound * 1.001


def test_pauses_anywhere_or_at_steps() -> None:
    lines = video("v", 0.0), text("t", 1.0)
    assert ends(Ideal(), *lines)["t"] == pytest.approx(1.0 + TEXT_SECONDS)
    begins = ENCODE_SECONDS + STEP_SECONDS
    at_steps = ends(Ideal(steps=True), *lines)
    assert at_steps["t"] == pytest.approx(begins + TEXT_SECONDS)
    assert at_steps["v"] == pytest.approx(VIDEO_SECONDS + TEXT_SECONDS)


def test_texts_together() -> None:
    lines = text("a", 0.0), text("b", 1.0)
    apart, together = ends(Ideal(), *lines), ends(Ideal(shared=True), *lines)
    assert (apart["a"], apart["b"]) == pytest.approx((4.0, 8.0))
    first = 1.0 + 3.0 * TOGETHER
    assert (together["a"], together["b"]) == pytest.approx((first, first + 1.0))


def test_a_text_is_held_back_for_one_that_will_come_where_enough_wait_behind() -> None:
    ideal = Ideal(shared=True, foresight=True)
    texts = text("a", 1.0), text("b", 4.8)
    few = ends(ideal, video("v", 0.0), *texts)
    assert few["a"] == pytest.approx(1.0 + 3.8 + 0.2 * TOGETHER)
    many = ends(ideal, *(video(f"v{n}", 0.0) for n in range(3)), *texts)
    assert many["a"] == many["b"] == pytest.approx(4.8 + 4.0 * TOGETHER)


def test_videos_that_cannot_be_in_time_go_last() -> None:
    lines = *(video(f"v{n}", 0.0) for n in range(4)), video("late", 400.0)
    in_turn, given_up = ends(Ideal(), *lines), ends(Ideal(given_up=1.0), *lines)
    assert in_turn["v3"] == pytest.approx(4 * VIDEO_SECONDS)
    assert given_up["late"] == pytest.approx(4 * VIDEO_SECONDS)
    assert given_up["v3"] == pytest.approx(5 * VIDEO_SECONDS)

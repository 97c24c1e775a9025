"""What is made of a workload that was served: shares, percentiles, who starved."""

from __future__ import annotations

import pytest

from scheduler.contest import Served, percentile, summary
from scheduler.machine import Counts
from scheduler.simulate import Record
from scheduler.workload import Request
from tests.scheduler.traffic import line, profile, workload


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    ten = [float(n) for n in range(1, 11)]
    assert [percentile(ten, p) for p in (1, 10, 11, 50, 90, 91, 95, 99, 100)] == [
        *(1.0, 1.0, 2.0, 5.0, 9.0, 10.0, 10.0, 10.0, 10.0)
    ]
    assert percentile([7.0], 50) == 7.0
    assert percentile([], 50) is None


def request() -> Request:
    return workload(line("chat", "a", 0.0, tokens=32)).requests[0]


@pytest.mark.parametrize(
    ("flow", "service", "slowdown", "starved"),
    [
        (15.0, 1.0, 15.0, False),
        (15.1, 1.0, 15.1, True),
        (4000.0, 400.0, 10.0, False),
        (4000.1, 400.0, 10.00025, True),
        (100.0, 0.0, 1.0, False),
        (3600.1, 0.0, 1.0, True),
    ],
)
def test_who_starves(flow: float, service: float, slowdown: float, starved: bool) -> None:
    served = Served(request(), flow, service)
    assert served.slowdown == pytest.approx(slowdown)
    assert served.starved is starved


def test_a_row_of_several_requests_by_hand() -> None:
    """Chats of a second each, whose SLO is 15 seconds."""
    work = workload(*(line("chat", name, at, tokens=32) for at, name in enumerate("abcd")))
    counts = Counts(loads=3, load_seconds=2.5, run_seconds=8.5, preemptions=2)
    ends = {"a": 15.0, "b": 17.0, "c": 4.0, "d": 3.0 + 15.5}
    row = summary(work, profile(), Record(ends, counts, []))
    flows = [15.0, 16.0, 2.0, 15.5]
    assert row["jobs"] == 4
    assert row["mean_flow_s"] == sum(flows) / 4
    assert row["bound_mean_flow_s"] == 1.0
    assert row["ratio"] == sum(flows) / 4
    assert row["slo"] == row["slo_by_class"]["chat"] == 0.5
    assert [row[p]["chat"] for p in ("p50", "p95", "p99")] == [15.0, 16.0, 16.0]
    assert (row["max_slowdown"], row["starved"]) == (16.0, 2)
    assert (row["loads"], row["load_s"], row["preemptions"]) == (3, 2.5, 2)
    assert row["gpu_busy"] == 8.5 / 18.5
    assert row["busy_bound_s"] == 4.0 + 0.25 + 40 / 64

"""The generated traffic: repeatable, readable by the simulator, and like the trace behind it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bench import traffic
from bench.described import (
    TRACE,
    TRACE_WHOLE,
    Facts,
    busy_periods,
    describe,
    describe_files,
    strain_facts,
    traffic_facts,
)
from bench.sched_runs import PROFILE
from ourvidz.cli.simulate import read_profile
from scheduler.workload import parse_all

SEEDS = range(5)
ENHANCEMENTS = ("enhance_base", "enhance_instruct")
# Between the trace's figure and the median over the seeds. The longest of a few hundred busy
# periods is a matter of luck.
TOLERANCE, TOLERANCES = 0.25, {"longest busy period, s": 0.6}


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    return traffic.workload(0)


def medians(described: Sequence[Facts]) -> Facts:
    return {name: statistics.median(facts[name] for facts in described) for name in described[0]}


def assert_close(found: Mapping[str, float], wanted: Mapping[str, float]) -> None:
    off = {
        name: (found[name], value)
        for name, value in wanted.items()
        if abs(found[name] / value - 1) > TOLERANCES.get(name, TOLERANCE)
    }
    assert not off


def test_a_seed_gives_the_same_lines_again_and_another_seed_gives_others(
    lines: list[dict[str, Any]],
) -> None:
    assert traffic.workload(0) == lines
    assert traffic.workload(1) != lines


def test_the_simulator_reads_every_line(lines: list[dict[str, Any]]) -> None:
    read = parse_all((json.loads(json.dumps(line)), "here") for line in lines)
    assert [request.id for request in read.requests] == [line["id"] for line in lines]
    assert {line["type"] for line in lines} == {*traffic.SIZE_OF, "chat", *ENHANCEMENTS}


def test_an_enhancement_comes_with_the_request_that_waits_for_it(
    lines: list[dict[str, Any]],
) -> None:
    by_id = {line["id"]: line for line in lines}
    chained = [line for line in lines if "after" in line]
    assert len(chained) == sum(line["type"] in ENHANCEMENTS for line in lines)
    for line in chained:
        parent = by_id[line["after"]]
        assert parent["type"] in ENHANCEMENTS
        assert (parent["arrival_s"], parent["user"]) == (line["arrival_s"], line["user"])


def test_load_makes_the_same_requests_come_closer(lines: list[dict[str, Any]]) -> None:
    dense = {line["id"]: line for line in traffic.workload(0, load=2.0)}
    assert len(dense) == len(lines)
    for line in lines:
        at = dense[line["id"]].pop("arrival_s")
        assert at == pytest.approx(line["arrival_s"] / 2, abs=0.001)
        assert dense[line["id"]] == {k: v for k, v in line.items() if k != "arrival_s"}


def test_what_a_card_gets_is_a_share_of_all() -> None:
    assert not traffic.workload(0, days=3, images=0.0, videos=0.0)
    films = traffic.workload(0, days=3, images=0.0, videos=1.0)
    assert {line["type"] for line in films} <= {"wan_generate", "chat", *ENHANCEMENTS}


def test_days_beyond_the_twelve_repeat_the_last_week() -> None:
    daily = [traffic.PICTURES.requests_on(day) for day in range(19)]
    assert daily[:12] == list(traffic.PICTURES.daily)
    assert daily[12:] == list(traffic.PICTURES.daily[5:])
    last = traffic.workload(0, days=14)[-1]["arrival_s"]
    assert 13 < (last + traffic.BEGINNING) / traffic.DAY < 14.1


@pytest.mark.slow
def test_all_requests_of_the_service_are_like_the_traces() -> None:
    whole = [traffic_facts(traffic.workload(seed, images=1.0, videos=1.0)) for seed in SEEDS]
    assert_close(medians(whole), TRACE_WHOLE)


@pytest.mark.slow
def test_what_one_card_gets_strains_it_like_the_trace() -> None:
    profile = read_profile(PROFILE)
    assert_close(medians([describe(traffic.workload(seed), profile) for seed in SEEDS]), TRACE)


def image(at: float, user: str = "a", **more: Any) -> dict[str, Any]:
    line = {"id": f"{user}{at}", "arrival_s": at, "user": user, "type": "sdxl_generate"}
    return {**line, "images": 1, "steps": 30, **more}


def text(at: float, tokens: int) -> dict[str, Any]:
    return {"id": f"t{at}", "arrival_s": at, "user": "t", "type": "chat", "tokens": tokens}


def test_facts_are_counted_over_generations() -> None:
    facts = traffic_facts(
        [
            image(0.0, model=1),
            image(10.0, model=1, images=6),
            image(20.0, user="b", model=2, steps=40),
            text(30.0, 100),
            {**image(7200.0, user="b", model=2), "type": "wan_generate", "frames": 81},
        ]
    )
    assert facts["requests"] == 4
    assert facts["mean gap, s"] == 2400
    assert facts["median gap, s"] == 10
    assert facts["requests in the busiest minute"] == 3
    assert facts["share of hours without a request"] == pytest.approx(1 / 3)
    assert (facts["users"], facts["share of the first user"]) == (2, 0.5)
    assert facts["share followed by the same user"] == pytest.approx(2 / 3)
    assert facts["share followed by the same model"] == pytest.approx(2 / 3)
    assert facts["share of videos"] == 0.25
    assert facts["share of six images"] == pytest.approx(1 / 3)
    assert facts["tokens a text"] == 100


def test_lines_without_models_have_no_figure_for_them() -> None:
    assert "share followed by the same model" not in traffic_facts(
        [image(0.0), image(1.0), text(2.0, 60)]
    )


def test_a_busy_period_lasts_until_all_that_came_is_done() -> None:
    work = parse_all((line, "here") for line in [text(0.0, 1), text(4.0, 1), text(20.0, 1)])
    assert busy_periods(work, {r.id: 5.0 for r in work.requests}) == [10.0, 5.0]


def test_strain_is_work_over_time() -> None:
    work = parse_all((line, "here") for line in [text(0.0, 400), text(100.0, 400)])
    facts = strain_facts(work, read_profile(PROFILE))
    assert facts["utilisation"] == pytest.approx(0.2)
    assert facts["share of the work that is chat"] == 1
    assert facts["busy periods"] == 2


def test_a_description_has_a_column_for_the_trace_and_one_for_each_file(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.jsonl"
    path.write_text("\n".join(json.dumps(x) for x in [image(0.0), image(8.0), text(9.0, 60)]))
    describe_files([path, path])
    table = {row[:-32].strip(): row[-32:].split() for row in capsys.readouterr().out.splitlines()}
    assert table["requests"] == ["4,734", "2", "2"]
    assert table["mean gap, s"] == ["205", "8.00", "8.00"]

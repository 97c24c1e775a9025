"""The simulator: the same decisions with and without the boundaries it skips, and the results of a
second simulator that shares no code with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler import messages as m
from scheduler.contest import CONTESTANTS, contest, summary
from scheduler.errors import InputError
from scheduler.simulate import Record, masters, simulate
from scheduler.types import Component
from scheduler.workload import Workload
from tests.scheduler import reference
from tests.scheduler.traffic import BATCHING, SETTINGS, bursts, line, profile, workload


def run(work: Workload, policy: str, **options: bool) -> Record:
    return simulate(work, profile(), CONTESTANTS[policy](SETTINGS), SETTINGS, **options)


@pytest.mark.parametrize("policy", CONTESTANTS)
@pytest.mark.parametrize("seed", range(3))
def test_the_boundaries_that_are_skipped_change_no_decision(policy: str, seed: int) -> None:
    work = bursts(seed, 40)
    skipped = run(work, policy, record=True)
    stepped = run(work, policy, record=True, every_step=True)
    assert [c for _, c in skipped.decisions] == [c for _, c in stepped.decisions]
    times = [at for at, _ in stepped.decisions]
    assert [at for at, _ in skipped.decisions] == pytest.approx(times, abs=1e-6)
    assert skipped.ends == pytest.approx(stepped.ends, abs=1e-6)
    pauses = sum(isinstance(c, m.Pause) for _, c in skipped.decisions)
    assert (pauses > 0) == (policy in {"default", "srpt-setup-preempt"})


@pytest.mark.parametrize("policy", ["fifo-exclusive", "fifo-lru-naive", "fifo-lru", "edf"])
@pytest.mark.parametrize("seed", range(5))
def test_a_second_simulator_comes_to_the_same(policy: str, seed: int) -> None:
    work = bursts(seed, 60)
    record = run(work, policy)
    ends, loads = reference.serve(work, profile(), policy)
    assert record.ends == pytest.approx(ends, abs=1e-6)
    assert record.counts.loads == loads


def test_preemption_takes_effect_at_the_next_boundary_and_the_way_back_is_free() -> None:
    work = workload(
        line("wan_generate", "video", 0.0),
        line("chat", "first", 0.0, tokens=32, after="enhance"),
        line("enhance_instruct", "enhance", 0.0, tokens=32),
        line("sdxl_generate", "image", 11.0),
    )
    record = run(work, "srpt-setup-preempt", record=True)
    # 0.875 to load Qwen, a second each for two texts; 0.625 to load WAN: steps from 3.5 on.
    assert record.ends["enhance"] == 1.875
    assert record.ends["first"] == 2.875
    paused = [at for at, c in record.decisions if isinstance(c, m.Pause)]
    resumed = [at for at, c in record.decisions if isinstance(c, m.Resume)]
    assert paused == [11.0]
    # The boundary at 11.5 is 11.6: while the encoder comes in, the step takes a quarter longer.
    assert record.ends["image"] == pytest.approx(11.575 + 0.0625 + 0.5 + 1.0)
    assert resumed == pytest.approx([13.1375])
    assert record.counts.preemptions == 1


def test_a_chained_request_waits_for_its_parent_and_its_flow_counts_from_its_arrival() -> None:
    work = workload(
        line("sdxl_generate", "child", 3.0, after="parent"),
        line("chat", "parent", 1.0, tokens=32),
        line("chat", "late", 100.0, tokens=32, after="parent"),
    )
    record = run(work, "fifo-lru")
    assert record.ends["parent"] == 2.875
    assert record.ends["child"] == 3.0 + 0.375 + 0.0625 + 0.5 + 1.0
    assert record.ends["late"] == 101.0
    row = summary(work, profile(), record)
    assert row["p99"]["image"] == record.ends["child"] - 3.0


def test_children_whose_parents_end_together_come_in_as_they_were_asked_for() -> None:
    chained = [("j2", 0.0), ("j9", 0.01), ("j12", 0.02)]
    lines = []
    for name, at in chained:
        lines.append(line("enhance_base", f"{name}-e", at))
        lines.append(line("sdxl_generate", name, at, after=f"{name}-e"))
    costs = profile(batching=BATCHING)
    contestant = CONTESTANTS["default"](SETTINGS)
    record = simulate(workload(*lines), costs, contestant, SETTINGS)
    assert len({record.ends[f"{name}-e"] for name, _ in chained}) == 1
    assert sorted(record.ends, key=record.ends.__getitem__)[3:] == ["j2", "j9", "j12"]


def test_the_bound_is_below_every_policy_and_is_preemptive_srpt() -> None:
    work = bursts(7, 25)
    card = profile(links={"fixed_seconds": 0.0})
    services = {r.id: sum(p.seconds for p in card.demand(r).phases) for r in work.requests}
    rows = [contest(name, work, card, SETTINGS) for name in CONTESTANTS]
    bound = reference.srpt(work, services, tick=0.01)
    assert {row["bound_mean_flow_s"] for row in rows} == {rows[0]["bound_mean_flow_s"]}
    assert rows[0]["bound_mean_flow_s"] == pytest.approx(bound, abs=0.05)
    assert all(row["ratio"] >= 1.0 for row in rows)


def test_a_row_has_the_keys_of_the_report_in_their_order() -> None:
    row = contest("default", bursts(1, 20), profile(), SETTINGS)
    assert list(row) == [
        *("policy", "jobs", "mean_flow_s", "bound_mean_flow_s", "ratio", "slo", "slo_by_class"),
        *("p50", "p95", "p99", "max_slowdown", "loads", "load_s", "gpu_busy", "preemptions"),
        *("starved", "belady_misses", "busy_bound_s"),
    ]
    for key in ("slo_by_class", "p50", "p95", "p99"):
        assert list(row[key]) == ["chat", "image", "video"]


def test_a_row_of_one_request_by_hand() -> None:
    row = contest("fifo-lru", workload(line("sdxl_generate", "a", 5.0)), profile(), SETTINGS)
    assert row["mean_flow_s"] == 0.375 + 0.0625 + 0.5 + 1.0
    assert row["bound_mean_flow_s"] == 1.0625
    assert row["max_slowdown"] == pytest.approx(1.9375 / 1.0625)
    assert (row["loads"], row["load_s"], row["starved"]) == (2, 0.875, 0)
    assert row["gpu_busy"] == pytest.approx(1.0625 / 1.9375)
    assert row["slo_by_class"] == {"chat": None, "image": 1.0, "video": None}
    assert row["p50"]["chat"] is None


def test_a_row_of_one_request_whose_next_component_comes_in_ahead() -> None:
    row = contest("default", workload(line("sdxl_generate", "a", 5.0)), profile(), SETTINGS)
    # The U-Net's half second begins with the encoding, which takes a quarter longer beside it.
    assert row["mean_flow_s"] == 0.375 + 0.5 + 1.0
    assert row["gpu_busy"] == pytest.approx((1.25 * 0.0625 + 1.0) / 1.875)
    assert (row["loads"], row["load_s"]) == (2, 0.875)


def test_what_the_card_cannot_hold_is_named() -> None:
    work = workload(line("chat", "a", 0.0))
    small = profile(device={"vram_bytes": 50})
    with pytest.raises(InputError, match=r"request a: phase generate needs 44 bytes .* 40"):
        simulate(work, small, CONTESTANTS["default"](SETTINGS), SETTINGS)


def test_a_phase_that_never_ends_is_named() -> None:
    costs = profile()
    endless = replace(
        costs,
        phases={
            kind: tuple(replace(cost, token_seconds=1e12) for cost in found)
            for kind, found in costs.phases.items()
        },
    )
    with pytest.raises(InputError, match=r"request a: phase generate takes 2e\+12 s, .* 1e\+06"):
        contest("default", workload(line("chat", "a", 0.0, tokens=2)), endless, SETTINGS)


def test_masters_that_do_not_fit_are_read_from_disk() -> None:
    parts = [Component("a", 6), Component("b", 7), Component("c", 4)]
    assert masters(parts, 10) == ("a", "c")
    work = workload(line("chat", "a", 0.0, tokens=32))
    disk = profile(device={"host_pinned_bytes": 90})
    record = simulate(work, disk, CONTESTANTS["default"](SETTINGS), SETTINGS)
    # 48 bytes of sdxl and wan leave room for qwen.base, which makes room for qwen.instruct.
    assert record.ends["a"] == (0.25 + 40 / 16) + (0.25 + 40 / 64) + 1.0

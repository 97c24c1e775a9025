"""Every policy over random workloads and cards: each request is served once, whatever steps are
told changes nothing, and what the default's ingredients do is what they are for."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from scheduler import PolicySettings, PricedWork
from scheduler import messages as m
from scheduler.contest import CONTESTANTS, summary
from scheduler.profile import Profile
from scheduler.simulate import Contestant, Record, simulate
from scheduler.workload import Workload
from tests.scheduler.traffic import BATCHING, SETTINGS, bursts, profile

pytestmark = pytest.mark.slow

FEW, MANY = 3, 12
OFF: dict[str, Any] = dict.fromkeys(
    ("price_set_ups", "preempt", "prefetch", "share_texts", "share_images"), False
)
NEUTRAL = {"discount": 0.0, "hysteresis_seconds": 0.0, "turn_seconds": 0.0, "share_floor": 0.0}


def seeds() -> list[Any]:
    return [*range(FEW), *(pytest.param(n, marks=pytest.mark.slow) for n in range(FEW, MANY))]


def card(seed: int) -> Profile:
    """From one that holds one family to one that holds all, some with most masters on disk."""
    rng = random.Random(f"card {seed}")
    device = {"vram_bytes": rng.randint(70, 180), "host_pinned_bytes": rng.choice([1000, 60])}
    return profile(device=device, batching=BATCHING)


def check_record(work: Workload, costs: Profile, record: Record) -> None:
    assert sorted(record.ends) == sorted(request.id for request in work.requests)
    for request in work.requests:
        assert record.ends[request.id] > request.arrival
        if request.after is not None:
            assert record.ends[request.id] > record.ends[request.after]
    first = min(request.arrival for request in work.requests)
    busy = record.counts.run_seconds
    assert 0.0 < busy <= max(record.ends.values()) - first + 1e-6


@pytest.mark.parametrize("policy", CONTESTANTS)
@pytest.mark.parametrize("seed", seeds())
def test_every_request_is_served(policy: str, seed: int) -> None:
    work, costs = bursts(seed, 60), card(seed)
    record = simulate(work, costs, CONTESTANTS[policy](SETTINGS), SETTINGS)
    check_record(work, costs, record)
    if policy != "default":
        # Without company the device is busy for no less than all work.
        assert (
            record.counts.run_seconds
            >= sum(phase.seconds for r in work.requests for phase in costs.demand(r).phases) - 1e-6
        )


def any_policy(seed: int) -> PolicySettings:
    rng = random.Random(f"policy {seed}")
    return PolicySettings(
        ageing_seconds=rng.choice([5.0, 300.0]),
        late_ageing=rng.choice([0.0, 1.0]),
        wait_seconds_max=rng.choice([30.0, 10_800.0]),
        share_floor=rng.choice([0.02, 0.3]),
        **{name: rng.random() < 0.8 for name in OFF},
    )


@pytest.mark.parametrize("seed", seeds())
def test_the_boundaries_that_are_skipped_change_no_decision_of_any_settings(seed: int) -> None:
    work, costs, policy = bursts(seed + 100, 50), card(seed), any_policy(seed)
    settings = replace(SETTINGS, policy=policy)
    skipped, stepped = (
        simulate(
            work, costs, Contestant(PricedWork(policy)), settings, every_step=every, record=True
        )
        for every in (False, True)
    )
    check_record(work, costs, skipped)
    assert [c for _, c in skipped.decisions] == [c for _, c in stepped.decisions]
    times = [at for at, _ in stepped.decisions]
    assert [at for at, _ in skipped.decisions] == pytest.approx(times, abs=1e-6)
    assert skipped.ends == pytest.approx(stepped.ends, abs=1e-6)


def mean_flow(seed: int, **changes: Any) -> float:
    """Of work and set-ups alone: lateness and age have other aims."""
    work, costs = bursts(seed, 120), profile(batching=BATCHING)
    policy = replace(PolicySettings(ageing_seconds=1e9), **(NEUTRAL | changes))
    settings = replace(SETTINGS, policy=policy)
    record = simulate(work, costs, Contestant(PricedWork(policy)), settings)
    return float(summary(work, costs, record)["mean_flow_s"])


def contestant(name: str, seed: int) -> float:
    work, costs = bursts(seed, 120), profile(batching=BATCHING)
    record = simulate(work, costs, CONTESTANTS[name](SETTINGS), SETTINGS)
    return float(summary(work, costs, record)["mean_flow_s"])


def test_with_all_switched_off_it_is_shortest_work_first() -> None:
    for seed in range(3):
        plain = mean_flow(seed, **(OFF | {"price_set_ups": True}))
        assert plain == pytest.approx(contestant("srpt-setup", seed), rel=0.15)
        assert plain < contestant("fifo-lru", seed)


@pytest.mark.parametrize("ingredient", ["prefetch", "share_texts"])
def test_an_ingredient_is_worth_its_while(ingredient: str) -> None:
    with_it = sum(mean_flow(seed) for seed in range(5))
    without = sum(mean_flow(seed, **{ingredient: False}) for seed in range(5))
    assert with_it < without


def test_what_is_switched_off_does_not_happen() -> None:
    work, costs = bursts(1, 80), profile(batching=BATCHING)
    policy = replace(PolicySettings(), **OFF)
    settings = replace(SETTINGS, policy=policy)
    record = simulate(work, costs, Contestant(PricedWork(policy)), settings, record=True)
    commands = [command for _, command in record.decisions]
    assert not any(isinstance(command, m.Pause | m.Resume | m.Abort) for command in commands)
    starts = [command for command in commands if isinstance(command, m.Start)]
    assert all(start.starters == 1 and start.run == start.lease.id for start in starts)

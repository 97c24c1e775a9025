"""One workload through the simulator and through the engine, live in virtual time: the same
decisions.

Live every step is told, terminal events and arrivals come one after another, commands are carried
out by tasks, and the second part of a chain arrives after the first one was settled. None of that
may make a difference.
"""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest
from support.machine_device import MachineDevice
from support.virtual import LoopClock, run_virtually

from ourvidz.service.engine import Engine
from ourvidz.service.signal import Signal
from scheduler import Scheduler
from scheduler import messages as m
from scheduler.contest import CONTESTANTS
from scheduler.machine import Machine
from scheduler.profile import Profile, parse
from scheduler.recording import Turn
from scheduler.simulate import masters, simulate
from scheduler.types import Demand, Lease
from scheduler.workload import Request, Workload, chain
from tests.scheduler.traffic import PROFILE, SETTINGS, bursts

BATCHING = {"text_exponent": 0.15, "text_max": 4, "image_exponent": 0.5, "image_max": 6}
CARD = parse({**PROFILE, "batching": BATCHING})
Decisions = list[tuple[float, m.Command]]


class Live:
    """An engine over the simulator's device, fed with a workload; watches its runs itself."""

    def __init__(self, workload: Workload, card: Profile, policy: str) -> None:
        contestant = CONTESTANTS[policy](SETTINGS)
        scheduler = Scheduler(
            card.components,
            card.budget,
            card.links,
            SETTINGS,
            contestant.policy,
            staged=masters(card.components, card.budget.host_bytes),
            eviction=contestant.eviction,
        )
        clock = LoopClock()
        machine = Machine(card.components, card.links, card.copy_slowdown, card.paused_bytes)
        self.device = MachineDevice(machine, clock)
        self.engine = Engine(scheduler, self.device, clock, 1000, self, Signal(), recorder=self)
        self.decisions: Decisions = []
        self.workload = workload
        self.card = card
        self.settled: list[str] = []
        self._released: list[Request] = []
        self._tasks: anyio.abc.TaskGroup | None = None
        self._over = anyio.Event()

    async def serve(self) -> None:
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self.engine.run)
            tasks.start_soon(self.device.drive, self.engine.step_reached)
            for request in self.workload.requests:
                if request.after is None:
                    tasks.start_soon(self._arrive, request)
            await self._over.wait()
            tasks.cancel_scope.cancel()

    async def _release(self) -> None:
        """Those whose parents ended in one moment, in the simulator's order."""
        released, self._released = sorted(self._released, key=lambda r: (r.arrival, r.id)), []
        for request in released:
            await self._arrive(request)

    async def _arrive(self, request: Request) -> None:
        await anyio.sleep(max(0.0, request.arrival - LoopClock().monotonic()))
        demand = self._demand(request)
        self.device.arrived(demand)
        await self.engine.put(m.JobArrived(demand))

    def _demand(self, request: Request) -> Demand:
        followed = request.id in self.workload.children
        return replace(self.card.demand(request), follows=request.after, followed=followed)

    def turn(self, turn: Turn) -> None:
        """The engine's recorder."""
        for command in turn.commands or ():
            if not isinstance(command, m.Settle):
                self.decisions.append((turn.at, command))

    # The engine's watcher

    async def before_run(self, lease: Lease) -> None:
        pass

    def after_run(self, lease: Lease, event: m.Event, seconds: float) -> None:
        pass

    def before_move(self, command: m.Command) -> None:
        pass

    def after_move(self, event: m.Event, seconds: float) -> None:
        pass

    def on_settle(self, settle: m.Settle) -> None:
        self.device.machine.forget(settle.job)
        self.settled.append(settle.job)
        if not self._released:
            assert self._tasks is not None
            self._tasks.start_soon(self._release)
        self._released += self.workload.children.get(settle.job, ())
        if len(self.settled) == len(self.workload.requests):
            self._over.set()


def apart(seed: int) -> Workload:
    """Requests in bursts, no two in one moment: live, one would be decided on before the other."""
    requests = bursts(seed, 60).requests
    moved = {r.id: r.arrival + 0.001 * n for n, r in enumerate(requests) if r.after is None}
    return chain(replace(r, arrival=moved[r.after or r.id]) for r in requests)


def live(workload: Workload, policy: str) -> Decisions:
    async def main() -> Decisions:
        service = Live(workload, CARD, policy)
        await service.serve()
        return service.decisions

    return run_virtually(main)


@pytest.mark.parametrize(
    ("policy", "seed"),
    [
        ("default", 0),
        ("fifo-lru", 0),
        *(pytest.param("default", seed, marks=pytest.mark.slow) for seed in range(1, 12)),
        *(pytest.param("srpt-setup-preempt", seed, marks=pytest.mark.slow) for seed in range(2)),
    ],
)
def test_the_same_decisions_live_and_simulated(policy: str, seed: int) -> None:
    workload = apart(seed)
    record = simulate(workload, CARD, CONTESTANTS[policy](SETTINGS), SETTINGS, record=True)
    lived = live(workload, policy)
    expected = [command for _, command in record.decisions]
    assert [command for _, command in lived] == expected
    times = [at for at, _ in record.decisions]
    assert [at for at, _ in lived] == pytest.approx(times, abs=1e-3)


def test_the_workloads_have_what_is_compared() -> None:
    """Pauses, shared runs, chains and transfers ahead of time all occur."""
    kinds: set[str] = set()
    for seed in range(4):
        workload = apart(seed)
        contestant = CONTESTANTS["default"](SETTINGS)
        record = simulate(workload, CARD, contestant, SETTINGS, record=True)
        kinds.update(type(command).__name__ for _, command in record.decisions)
        starts = [c for _, c in record.decisions if isinstance(c, m.Start | m.Resume)]
        runs = [command.run for command in starts]
        kinds.add("joined" if len(set(runs)) < len(runs) else "")
        kinds.add("together" if any(command.starters > 1 for command in starts) else "")
        kinds.add("chained" if workload.children else "")
    assert kinds >= {"Pause", "Resume", "Load", "Evict", "joined", "together", "chained"}

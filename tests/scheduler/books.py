"""What a device would know: where weights, state and runs are, from commands and events alone. It
shares no code with the scheduler and asserts at every command that it can be carried out."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler import messages as m
from scheduler.types import Budget, Demand, Fault, Lease, Phase


class Books:
    def __init__(self, sizes: Mapping[str, int], budget: Budget) -> None:
        self.sizes = dict(sizes)
        self.budget = budget
        self.demands: dict[str, Demand] = {}
        self.settled: dict[str, m.Settle] = {}
        self.masters: dict[str, str] = {}
        self.copies: dict[str, str] = {}
        self.state: dict[str, int] = {}
        self.entry: dict[str, int] = {}
        self.next_phase: dict[str, int] = {}
        self.paused: dict[str, int] = {}
        self.runs: dict[int, Lease] = {}
        self.asked: list[tuple[str, int]] = []

    def arrived(self, demand: Demand) -> None:
        self.demands[demand.job] = demand
        self.next_phase[demand.job] = 0
        self.state[demand.job] = self.entry[demand.job] = 0

    def unsettled(self) -> list[str]:
        return [job for job in self.demands if job not in self.settled]

    def needs(self, job: str) -> list[str]:
        left = self.demands[job].phases[self.next_phase[job] :]
        return [name for phase in left for name in phase.components]

    def phase(self, lease: Lease) -> Phase:
        return self.demands[lease.job].phases[lease.phase]

    def state_bound(self, lease: Lease) -> int:
        """What a job whose estimates are right may carry at a boundary of this run."""
        phase = self.phase(lease)
        bound = self.entry[lease.job] + phase.working_bytes
        return bound if phase.state_bytes_max is None else min(bound, phase.state_bytes_max)

    # Terminal events ------------------------------------------------------------------------------

    def ended(self, command: m.Command, event: m.Event) -> None:
        if isinstance(command, m.Start | m.Resume):
            self._run_ended(command, event)
            return
        match event:
            case m.StageSucceeded(name):
                self.masters[name] = "ready"
            case m.StageFailed(name) | m.Unstaged(name):
                del self.masters[name]
            case m.LoadSucceeded(name):
                self.copies[name] = "ready"
            case m.LoadFailed(name) | m.Evicted(name):
                del self.copies[name]

    def _run_ended(self, command: m.Start | m.Resume, event: m.Event) -> None:
        job = command.lease.job
        del self.runs[command.lease.id]
        match event:
            case m.PhaseFinished(_, size):
                self.next_phase[job] += 1
                self.state[job] = self.entry[job] = size
            case m.Paused(lease, _, size):
                self.paused[job] = lease.phase
                self.state[job] = size
            case m.RunFailed(lease, fault):
                if fault is Fault.OUT_OF_MEMORY and isinstance(command, m.Resume):
                    self.paused[job] = lease.phase

    # Commands -------------------------------------------------------------------------------------

    def issued(self, command: m.Command) -> None:
        match command:
            case m.Stage(name):
                assert name not in self.masters, f"{name} has a master already"
                self.masters[name] = "coming"
            case m.Load(name):
                assert self.masters.get(name) == "ready", f"{name} has no master"
                assert name not in self.copies, f"{name} is on the device already"
                self.copies[name] = "coming"
            case m.Evict(name):
                assert self.copies.get(name) == "ready", f"{name} is not resident"
                assert name not in self._in_use(), f"{name} is in use"
                self.copies[name] = "going"
            case m.Unstage(name):
                assert self.masters.get(name) == "ready", f"{name} has no master"
                assert name not in self.copies, f"{name} is on the device"
                self.masters[name] = "going"
            case m.Start(lease) | m.Resume(lease):
                self._start(command, lease)
            case m.Pause(lease) | m.Cancel(lease):
                assert self.runs.get(lease.id) == lease, f"{command} of no run"
                request = (type(command).__name__, lease.id)
                assert request not in self.asked, f"{command} twice"
                self.asked.append(request)
            case m.Settle(job):
                self._settle(job, command)

    def _start(self, command: m.Start | m.Resume, lease: Lease) -> None:
        job = lease.job
        assert job in self.demands, f"{job} is unknown"
        assert job not in self.settled, f"{job} is settled"
        assert not self.runs, f"{lease} beside {self.runs}"
        assert lease.phase == self.next_phase[job], f"{lease}: next is {self.next_phase[job]}"
        paused = self.paused.pop(job, None)
        assert isinstance(command, m.Resume) == (paused == lease.phase), f"{command}, {paused}"
        for name in self.phase(lease).components:
            assert self.copies.get(name) == "ready", f"{lease} lacks {name}"
        self.runs[lease.id] = lease

    def _settle(self, job: str, command: m.Settle) -> None:
        assert job in self.demands, f"{job} never arrived"
        assert job not in self.settled, f"{job} is settled twice"
        assert all(lease.job != job for lease in self.runs.values()), f"{job} runs"
        self.settled[job] = command
        del self.state[job]

    def _in_use(self) -> list[str]:
        return [name for lease in self.runs.values() for name in self.phase(lease).components]

    # Bytes ----------------------------------------------------------------------------------------

    def device_bytes(self) -> int:
        working = sum(self.phase(lease).working_bytes for lease in self.runs.values())
        return sum(self.sizes[n] for n in self.copies) + sum(self.state.values()) + working

    def host_bytes(self) -> int:
        return sum(self.sizes[n] for n in self.masters)

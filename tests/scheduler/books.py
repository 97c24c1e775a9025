"""What a device would know: where weights, state and runs are, from commands and events alone. It
shares no code with the scheduler and asserts at every command that it can be carried out, and that
it keeps what the scheduler promises of runs that jobs share and of what is evicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scheduler import messages as m
from scheduler.types import Budget, Demand, Fault, Lease, Phase


@dataclass
class Member:
    """A lease that lives, in the run ``number``. ``first``: the step at which it began."""

    lease: Lease
    number: int
    first: int
    step: int
    resumed: bool


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
        self.steps: dict[str, int] = {}
        self.paused: dict[str, int] = {}
        self.members: dict[int, Member] = {}
        self.solo: list[str] = []
        self.asked: list[tuple[str, int]] = []
        self.aborting: list[str] = []
        self.runs_seen = 0

    def arrived(self, demand: Demand) -> None:
        self.demands[demand.job] = demand
        self.next_phase[demand.job] = self.steps[demand.job] = 0
        self.state[demand.job] = self.entry[demand.job] = 0

    def unsettled(self) -> list[str]:
        return [job for job in self.demands if job not in self.settled]

    def needs(self, job: str) -> list[str]:
        left = self.demands[job].phases[self.next_phase[job] :]
        return [name for phase in left for name in phase.components]

    def next_components(self, job: str) -> tuple[str, ...]:
        return self.demands[job].phases[self.next_phase[job]].components

    def running(self) -> list[str]:
        return [member.lease.job for member in self.members.values()]

    def phase(self, lease: Lease) -> Phase:
        return self.demands[lease.job].phases[lease.phase]

    def is_followed(self, lease: Lease) -> bool:
        """It was the last phase of a job that another one follows."""
        demand = self.demands[lease.job]
        return demand.followed and lease.phase == len(demand.phases) - 1

    def pausing(self, lease: Lease) -> bool:
        return ("Pause", lease.id) in self.asked

    def state_bound(self, lease: Lease) -> int:
        """What a job whose estimates are right may carry at a boundary of this run: no more than it
        brought to the phase or to this run of it, and worked in."""
        phase = self.phase(lease)
        bound = min(self.entry[lease.job], self.state[lease.job]) + phase.working_bytes
        return bound if phase.state_bytes_max is None else min(bound, phase.state_bytes_max)

    def stepped(self, lease: Lease, step: int) -> None:
        member = self.members.get(lease.id)
        if member is not None and member.lease == lease:
            member.step = max(member.step, min(step, self.phase(lease).steps))

    def ended(self, command: m.Command, event: m.Event) -> None:
        """The terminal event of a command that flies."""
        if isinstance(command, m.Start | m.Resume):
            self._run_ended(self.members.pop(command.lease.id), event)
            return
        name = getattr(event, "component", "")
        if name in self.aborting and isinstance(command, m.Stage | m.Load):
            self.aborting.remove(name)
        match event:
            case m.StageSucceeded():
                self.masters[name] = "ready"
            case m.StageFailed() | m.Unstaged():
                del self.masters[name]
            case m.LoadSucceeded():
                self.copies[name] = "ready"
            case m.LoadFailed() | m.Evicted():
                del self.copies[name]
            case m.Aborted():
                del (self.copies if isinstance(command, m.Load) else self.masters)[name]

    def _run_ended(self, member: Member, event: m.Event) -> None:
        job, phase = member.lease.job, member.lease.phase
        match event:
            case m.PhaseFinished(_, size):
                self.next_phase[job] += 1
                self.steps[job] = 0
                self.state[job] = self.entry[job] = size
            case m.Paused(lease, step, size):
                self.steps[job] = max(member.step, min(step, self.phase(lease).steps))
                self.paused[job] = phase
                self.state[job] = size
            case m.RunFailed(_, Fault.OUT_OF_MEMORY | Fault.SHARED):
                self.solo.append(job)
                self.steps[job] = member.first
                if member.resumed:
                    self.paused[job] = phase

    def issued(self, commands: Sequence[m.Command]) -> None:
        """All that one ``handle`` said, in order."""
        runs: dict[int, list[m.Start | m.Resume]] = {}
        alive = [member.number for member in self.members.values()]
        for command in commands:
            self._issue(command)
            if isinstance(command, m.Start | m.Resume):
                runs.setdefault(command.run, []).append(command)
        for number, starts in runs.items():
            self._check_run(number, starts, joins=number in alive)

    def _issue(self, command: m.Command) -> None:
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
                self._check_unwanted(name)
                self.copies[name] = "going"
            case m.Unstage(name):
                assert self.masters.get(name) == "ready", f"{name} has no master"
                assert name not in self.copies, f"{name} is on the device"
                self._check_unwanted(name)
                self.masters[name] = "going"
            case m.Abort(name):
                coming = "coming" in (self.masters.get(name), self.copies.get(name))
                assert coming, f"{name} is not on its way"
                assert name not in self.aborting, f"{name} is called off twice"
                self.aborting.append(name)
            case m.Start(lease) | m.Resume(lease):
                self._start(command, lease)
            case m.Pause(lease) | m.Cancel(lease):
                member = self.members.get(lease.id)
                assert member is not None, f"{command} of no run"
                assert member.lease == lease, f"{command} of another's run"
                request = (type(command).__name__, lease.id)
                assert request not in self.asked, f"{command} twice"
                self.asked.append(request)
            case m.Settle(job):
                self._settle(job, command)

    def _check_unwanted(self, name: str) -> None:
        """While a run lasts, nothing goes that anyone needs who runs or waits."""
        if self.members:
            wanted = [job for job in self.unsettled() if name in self.needs(job)]
            assert not wanted, f"{name} goes, {wanted} need it"

    def _start(self, command: m.Start | m.Resume, lease: Lease) -> None:
        job = lease.job
        assert job in self.demands, f"{job} is unknown"
        assert job not in self.settled, f"{job} is settled"
        assert job not in self.running(), f"{job} runs already"
        assert lease.phase == self.next_phase[job], f"{lease}: next is {self.next_phase[job]}"
        paused = self.paused.pop(job, None)
        assert isinstance(command, m.Resume) == (paused == lease.phase), f"{command}, {paused}"
        for name in self.phase(lease).components:
            assert self.copies.get(name) == "ready", f"{lease} lacks {name}"
        step = self.steps[job]
        self.members[lease.id] = Member(lease, command.run, step, step, paused is not None)

    def _check_run(self, number: int, starts: Sequence[m.Start | m.Resume], joins: bool) -> None:
        """One run lives, and all in it may share it."""
        numbers = [member.number for member in self.members.values()]
        assert numbers == [number] * len(numbers), f"runs {numbers} live"
        assert joins or number > self.runs_seen, f"run {number} comes again"
        self.runs_seen = max(self.runs_seen, number)
        for start in starts:
            assert start.starters == (1 if joins else len(starts)), f"{start} of {len(starts)}"
        members = list(self.members.values())
        if len(members) == 1:
            return
        sharings = [self.phase(member.lease).sharing for member in members]
        for member, sharing in zip(members, sharings, strict=True):
            assert sharing is not None, f"{member.lease} shares a run"
            assert member.lease.job not in self.solo, f"{member.lease} is to run by itself"
            assert sum(s.units for s in sharings if s) <= sharing.units_max, "too many units"
        assert len({s.key for s in sharings if s}) == 1, f"{sharings} share a run"
        if not all(s.mid_phase for s in sharings if s):
            assert not joins, f"{starts} join where none may"
            assert len({member.first for member in members}) == 1, f"{members} are not in step"
        if joins:
            pausing = [member for member in members if self.pausing(member.lease)]
            assert not pausing, f"{starts} join {pausing}"

    def _settle(self, job: str, command: m.Settle) -> None:
        assert job in self.demands, f"{job} never arrived"
        assert job not in self.settled, f"{job} is settled twice"
        assert job not in self.running(), f"{job} runs"
        self.settled[job] = command
        del self.state[job]

    def device_bytes(self) -> int:
        working = sum(self.phase(each.lease).working_bytes for each in self.members.values())
        return sum(self.sizes[n] for n in self.copies) + sum(self.state.values()) + working

    def host_bytes(self) -> int:
        return sum(self.sizes[n] for n in self.masters)

"""A shell for tests: carries out commands in virtual time, by hand or at random, keeps books of its
own, and holds the scheduler to its promises after every event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scheduler import Policy, PolicySettings, PricedWork, Scheduler, SchedulerSettings
from scheduler import messages as m
from scheduler.types import Budget, Component, Demand, Fault, Lease, Links, Outcome, Phase, Sharing
from tests.scheduler.books import Books
from tests.support.outcomes import success

# Shortest work first, with ageing and the bound on waiting: the machinery's tests decide the rest.
PLAIN = PolicySettings(
    ageing_seconds=30.0,
    wait_seconds_max=600.0,
    discount=0.0,
    hysteresis_seconds=0.0,
    turn_seconds=0.0,
    share_floor=0.0,
    preempt=False,
    prefetch=False,
)
DEFAULTS = SchedulerSettings(
    waiting_jobs_max=64,
    load_attempts_max=3,
    load_retry_seconds=5.0,
    class_weights={"fast": 2.0, "normal": 1.0},
    policy=PLAIN,
)


class Steadfast(PricedWork):
    """As ``PricedWork``, but a job that was chosen keeps its turn."""

    steadfast = True


LINKS = Links(disk_to_host=10.0, host_to_device=100.0, fixed_seconds=0.01)


def phase(
    *components: str,
    work: int = 1,
    seconds: float = 1.0,
    steps: int = 1,
    name: str = "denoise",
    state_max: int | None = None,
    sharing: Sharing | None = None,
) -> Phase:
    return Phase(name, components, work, seconds, steps, state_max, sharing)


def demand(
    job: str,
    *phases: Phase,
    arrival: float = 0.0,
    job_class: str = "normal",
    user: str = "user",
    kind: str = "",
    deadline: float | None = None,
) -> Demand:
    return Demand(job, phases, job_class, user, arrival, deadline, kind)


def brief(command: m.Command) -> str:
    """``Stage a``, ``Start x:0``, ``Settle x finished``."""
    name = type(command).__name__
    if isinstance(command, m.Move | m.Abort):
        return f"{name} {command.component}"
    if isinstance(command, m.Settle):
        return f"{name} {command.job} {command.outcome.value}"
    return f"{name} {command.lease.job}:{command.lease.phase}"


class Shell:
    """``flying`` are the commands that await their terminal event, in the order of issue.

    ``honest``: no job carries more than was estimated, so that the books must keep the budget.
    ``busy``: while nothing runs or is on its way to, every job must wait for one that is about to
    follow another, or for a failed component, its own or that of a begun job whose room it needs.
    """

    def __init__(
        self,
        components: Mapping[str, int],
        *,
        device: int,
        host: int = 1000,
        links: Links = LINKS,
        settings: SchedulerSettings = DEFAULTS,
        policy: Policy | None = None,
        honest: bool = True,
        busy: bool = True,
    ) -> None:
        parts = [Component(name, size) for name, size in components.items()]
        budget = Budget(device, host)
        self.scheduler = Scheduler(parts, budget, links, settings, policy)
        self.books = Books(components, budget)
        self.links = links
        self.settings = settings
        self.honest = honest
        self.busy = busy
        self.now = 0.0
        self.log: list[tuple[m.Event, float, list[m.Command]]] = []
        self.flying: list[m.Command] = []
        self.ahead: list[str] = []
        self.started_at: dict[str, float] = {}
        self.awaited: dict[str, float] = {}

    def feed(self, event: m.Event, now: float | None = None) -> list[str]:
        if now is not None:
            self.now = now
        self._note(event)
        commands = self.scheduler.handle(event, self.now)
        self.log.append((event, self.now, commands))
        self.books.issued(commands)
        for command in commands:
            if not isinstance(command, m.Pause | m.Cancel | m.Abort | m.Settle):
                self.flying.append(command)
            if isinstance(command, m.Start):
                self.started_at.setdefault(command.lease.job, self.now)
        self.scheduler.check()
        self._check_ahead(commands)
        self._check()
        return [brief(command) for command in commands]

    def arrive(self, job: str, *phases: Phase, at: float | None = None, **more: Any) -> list[str]:
        self.now = self.now if at is None else at
        wanted = demand(job, *phases, **{"arrival": self.now, **more})
        self.books.arrived(wanted)
        return self.feed(m.JobArrived(wanted))

    def cancel(self, job: str) -> list[str]:
        return self.feed(m.CancelRequested(job))

    def wake(self) -> list[str]:
        """Send the ``TimeReached`` that is due."""
        deadline = self.scheduler.deadline()
        assert deadline is not None
        return self.feed(m.TimeReached(), max(self.now, deadline))

    def end(self, command: m.Command, event: m.Event) -> list[str]:
        """Send a flying command's terminal event."""
        self.flying.remove(command)
        self.books.ended(command, event)
        if isinstance(event, m.PhaseFinished) and self.books.is_followed(event.lease):
            self.awaited[event.lease.job] = self.now + self.settings.follow_seconds
        return self.feed(event)

    def _note(self, event: m.Event) -> None:
        """Steps that are done, and who is about to follow whom."""
        match event:
            case m.StepReached(lease, step):
                self.books.stepped(lease, step)
            case m.JobArrived(Demand(follows=str(job))):
                self.awaited.pop(job, None)
        self.awaited = {job: until for job, until in self.awaited.items() if until > self.now}

    def flight(self, text: str) -> m.Command:
        found = [command for command in self.flying if brief(command) == text]
        assert len(found) == 1, (text, [brief(c) for c in self.flying])
        return found[0]

    def ok(self, *texts: str) -> list[str]:
        """Succeed with these flying commands in turn; returns what the last one brought."""
        said: list[str] = []
        for text in texts:
            command = self.flight(text)
            said = self.end(command, success(command))
        return said

    def set_up(self) -> list[str]:
        """Succeed with every component command until none flies; returns all that was said."""
        said: list[str] = []
        while waiting := [c for c in self.flying if not isinstance(c, m.Start | m.Resume)]:
            said += self.end(waiting[0], success(waiting[0]))
        return said

    def warm(self, *components: str) -> None:
        """Bring components onto the device by running a job on each."""
        for name in components:
            self.arrive(f"warm-{name}", phase(name, work=0), kind="warm", user="warm")
            self.set_up()
            self.finish()

    @property
    def target(self) -> str | None:
        return self.scheduler.target

    @property
    def lease(self) -> Lease:
        return self._run().lease

    def running(self) -> str:
        return ",".join(self.books.running()) or "-"

    def finish(self, job: str = "", state: int = 0) -> list[str]:
        """Ends the run of a job; of the only one that runs, if none is named."""
        run = self._run(job)
        return self.end(run, m.PhaseFinished(run.lease, state))

    def pause(self, step: int, state: int = 0, job: str = "") -> list[str]:
        run = self._run(job)
        return self.end(run, m.Paused(run.lease, step, state))

    def fail(self, fault: Fault, detail: str = "why", job: str = "") -> list[str]:
        run = self._run(job)
        return self.end(run, m.RunFailed(run.lease, fault, detail))

    def step(self, step: int, job: str = "") -> list[str]:
        return self.feed(m.StepReached(self._run(job).lease, step))

    def abort(self, name: str) -> list[str]:
        """Call a transfer off that was to be called off."""
        (command,) = (c for c in self.flying if getattr(c, "component", "") == name)
        return self.end(command, m.Aborted(name))

    def _run(self, job: str = "") -> m.Start | m.Resume:
        runs = (c for c in self.flying if isinstance(c, m.Start | m.Resume))
        (run,) = (run for run in runs if job in ("", run.lease.job))
        return run

    def play_out(self, patience: int = 5_000) -> list[str]:
        """Succeed with everything until nothing is left to do; returns the jobs in the order in
        which their phases ran."""
        ran: list[str] = []
        for _ in range(patience):
            if self.flying:
                command = self.flying[0]
                if isinstance(command, m.Start | m.Resume):
                    ran.append(command.lease.job)
                self.end(command, success(command))
            elif self.scheduler.deadline() is not None:
                self.wake()
            else:
                return ran
        raise AssertionError(f"no end in sight: {self.scheduler!r}")

    def ending(
        self, command: m.Command, pick: Callable[[int], int], *, well: bool = False
    ) -> m.Event:
        """One of the terminal events that a command may have; ``pick(n)`` draws from 0..n-1. If all
        goes ``well``, only the size of the state is drawn."""
        match command:
            case m.Start(lease) | m.Resume(lease) if well:
                return m.PhaseFinished(lease, self._state(lease, pick))
            case m.Stage(name) | m.Load(name):
                return self._transfer_ending(command, name, pick, well)
            case m.Start(lease) | m.Resume(lease):
                state = self._state(lease, pick)
                step = pick(self.books.phase(lease).steps + 1)
                return [
                    m.PhaseFinished(lease, state),
                    m.PhaseFinished(lease, state),
                    m.Paused(lease, step, state),
                    m.RunCancelled(lease),
                    m.RunFailed(lease, Fault.RUN, "why"),
                    m.RunFailed(lease, Fault.OUT_OF_MEMORY, "too much"),
                    m.RunFailed(lease, Fault.SHARED, "who knows"),
                ][pick(7)]
        return success(command)

    def _transfer_ending(
        self, command: m.Stage | m.Load, name: str, pick: Callable[[int], int], well: bool
    ) -> m.Event:
        if name in self.books.aborting and pick(3):
            return m.Aborted(name)
        if well:
            return success(command)
        if isinstance(command, m.Stage):
            failures = [m.StageFailed(name, "read", False), m.StageFailed(name, "gone", True)]
        else:
            faults = (Fault.LOAD, Fault.OUT_OF_MEMORY)
            failures = [m.LoadFailed(name, "torn", fault) for fault in faults]
        return [success(command), success(command), *failures][pick(4)]

    def _state(self, lease: Lease, pick: Callable[[int], int]) -> int:
        return pick((1 if self.honest else 3) * self.books.state_bound(lease) + 1)

    def _check(self) -> None:
        books = self.books
        assert books.host_bytes() <= books.budget.host_bytes
        assert books.device_bytes() <= books.budget.device_bytes or not self.honest
        if not self.busy or books.members or (self.target and self.flying):
            return
        if self.awaited:
            assert self.scheduler.deadline() is not None
            return
        failed = [
            name
            for name, component in self.scheduler.snapshot()["components"].items()
            if component["error"] is not None
        ]
        assert not failed or self.scheduler.deadline() is not None
        held_up = [j for j in books.unsettled() if any(n in failed for n in books.needs(j))]
        begun = [j for j in books.unsettled() if j in self.started_at]
        for job in books.unsettled():
            # A new job may also wait for the room of a begun one that is held up; and so may one
            # that begun jobs have crowded out, which needs more state than was claimed.
            crowded = (job not in begun or not self.honest) and any(j in held_up for j in begun)
            excused = job in held_up or crowded
            assert excused, f"{job} waits for nothing"

    def _check_ahead(self, commands: list[m.Command]) -> None:
        """What is brought in without anyone's turn is for later. It is called off only for the
        target, and only while that waits for something that moves."""
        books, target = self.books, self.target
        coming = [c.component for c in self.flying if isinstance(c, m.Stage | m.Load)]
        wanted = [] if target is None else books.next_components(target)
        self.ahead = [name for name in self.ahead if name in coming and name not in wanted]
        for command in commands:
            if isinstance(command, m.Abort):
                assert command.component in self.ahead, f"{command} of what was not ahead"
                moving = [c for c in self.flying if getattr(c, "component", "") in wanted]
                goes = [c for c in commands if isinstance(c, m.Evict | m.Unstage)]
                assert moving or goes, f"{command} for {target}, which needs no link"
            elif isinstance(command, m.Stage | m.Load) and target is None:
                self.ahead.append(command.component)
                assert books.members, f"{command} for later while nothing runs"

    def assert_settled(self) -> None:
        """Every job has left, and the ledger holds weights alone."""
        assert self.books.unsettled() == []
        ledger = self.scheduler.snapshot()["ledger"]
        for side, held in (("device", self.books.copies), ("host", self.books.masters)):
            expected = sum(self.books.sizes[name] for name in held)
            assert ledger[side]["reserved"] == ledger[side]["by"].get("weights", 0) == expected

    def outcomes(self) -> dict[str, Outcome]:
        return {job: settle.outcome for job, settle in self.books.settled.items()}

"""The event with which a command ends that goes well."""

from __future__ import annotations

from scheduler import messages as m


def success(command: m.Command, state: int = 0) -> m.Event:
    """``state`` is what a phase leaves, in bytes."""
    match command:
        case m.Stage(name):
            return m.StageSucceeded(name)
        case m.Load(name):
            return m.LoadSucceeded(name)
        case m.Evict(name):
            return m.Evicted(name)
        case m.Unstage(name):
            return m.Unstaged(name)
        case m.Start(lease) | m.Resume(lease):
            return m.PhaseFinished(lease, state)
    raise AssertionError(f"{command} has no end of its own")

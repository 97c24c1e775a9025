"""What goes wrong inside the scheduler: always a defect of somebody's, named in the message.

``InputError`` alone is no defect: a workload, a profile or a recording that was given is wrong.
What goes wrong outside (a load that fails, a job that is too large) is no exception: it comes in
as an event and goes out as a ``Settle``.
"""


class SchedulerError(RuntimeError):
    """The root of this package's errors."""


class ProtocolError(SchedulerError):
    """The shell broke the protocol of events and commands."""


class BadDecision(SchedulerError):
    """A policy chose what cannot be done."""


class IllegalMove(SchedulerError):
    """A component or a job was moved in a way its table does not know."""


class LedgerError(SchedulerError):
    """Bytes were given out twice, returned twice, or beyond the budget."""


class InvariantBroken(SchedulerError):
    """``check()`` found the books and the world at odds."""


class InputError(SchedulerError):
    """A file that was given says what cannot be: which part, its value, what is allowed."""

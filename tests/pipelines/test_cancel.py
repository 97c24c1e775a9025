"""A token is asked inside a module's forward, in its own thread only."""

import threading
import weakref

import pytest
import torch
from torch import nn

from pipelines import cancel
from pipelines.base import CancelToken, RunCancelled


class Block(nn.Module):
    def __init__(self, trace: list[str], name: str) -> None:
        super().__init__()
        self.trace, self.name = trace, name

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.trace.append(self.name)
        return values + 1


class Stack(nn.Module):
    """Blocks in a list and a sequence, and a convolution outside of both."""

    def __init__(self) -> None:
        super().__init__()
        self.trace: list[str] = []
        self.listed = nn.ModuleList([Block(self.trace, f"listed.{i}") for i in range(3)])
        self.sequence = nn.Sequential(Block(self.trace, "sequence.0"))
        self.conv = nn.Conv1d(1, 1, 1)
        self.conv.register_forward_hook(lambda *_: self.trace.append("conv"))
        cancel.watch(self)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        for block in self.listed:
            values = block(values)
        return self.sequence(self.conv(values))


ORDER = ["listed.0", "listed.1", "listed.2", "conv", "sequence.0"]


@pytest.mark.parametrize("at", range(len(ORDER)))
def test_a_cancel_takes_effect_before_the_next_block(at: int) -> None:
    stack, token = Stack(), CancelToken()
    modules = [*stack.listed, stack.conv, stack.sequence[0]]
    modules[at].register_forward_hook(lambda *_: token.cancel())
    with pytest.raises(RunCancelled), cancel.active(token):
        stack(torch.zeros(1, 1))
    assert stack.trace == ORDER[: at + 1]


def test_a_cancelled_token_starts_nothing() -> None:
    stack, token = Stack(), CancelToken()
    token.cancel()
    with pytest.raises(RunCancelled), cancel.active(token):
        stack(torch.zeros(1, 1))
    assert stack.trace == []


def test_without_an_active_token_nothing_is_asked() -> None:
    stack, token = Stack(), CancelToken()
    with cancel.active(token):
        pass
    token.cancel()
    stack(torch.zeros(1, 1))
    assert stack.trace == ORDER


def test_the_token_is_the_threads_own() -> None:
    stack, token = Stack(), CancelToken()
    failures: list[BaseException] = []

    def elsewhere() -> None:
        try:
            stack(torch.zeros(1, 1))
        except RunCancelled as error:
            failures.append(error)

    def on_first(*_: object) -> None:
        if not token.cancelled:
            token.cancel()
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()

    stack.listed[0].register_forward_hook(on_first)
    with pytest.raises(RunCancelled), cancel.active(token):
        stack(torch.zeros(1, 1))
    assert failures == []
    assert stack.trace == ["listed.0", *ORDER]


def test_the_outer_token_is_active_again_afterwards() -> None:
    outer, inner = CancelToken(), CancelToken()
    stack = Stack()

    def nested() -> None:
        with cancel.active(inner):
            inner.cancel()

    with cancel.active(outer):
        with pytest.raises(RunCancelled):
            nested()
        stack(torch.zeros(1, 1))
    assert stack.trace == ORDER


@pytest.mark.parametrize("kind", [RunCancelled, torch.OutOfMemoryError, ValueError])
def test_a_kept_exception_keeps_no_tensor_alive(kind: type[Exception]) -> None:
    kept: list[weakref.ref[torch.Tensor]] = []

    def deep(_values: torch.Tensor) -> None:
        activations = torch.zeros(1000)
        kept.append(weakref.ref(activations))
        raise kind

    def step() -> None:
        with cancel.active(CancelToken()):
            deep(torch.zeros(10))

    with pytest.raises(kind) as caught:
        step()
    assert caught.value.__traceback__ is not None
    assert kept[0]() is None


def test_a_step_of_several_runs_stops_when_all_of_them_are_to() -> None:
    stack, tokens = Stack(), [CancelToken(), CancelToken()]
    for block, token in zip(stack.listed, tokens, strict=False):
        block.register_forward_hook(lambda *_, token=token: token.cancel())
    with pytest.raises(RunCancelled), cancel.active(cancel.AllOf(tokens)):
        stack(torch.zeros(1, 1))
    assert stack.trace == ORDER[:2]

"""What an exception from the device becomes: one line of text that holds nothing alive."""

from __future__ import annotations

import traceback


def describe(error: BaseException) -> str:
    """One line for the job's error."""
    text = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def described(error: BaseException) -> str:
    """``describe``, and let go what the exception holds: it may live on in reference cycles, and
    its frames hold latents and weights."""
    met = [error]
    for one in met:
        traceback.clear_frames(one.__traceback__)
        one.__traceback__ = None
        met += [e for e in (one.__cause__, one.__context__) if e is not None and e not in met]
    return describe(error)

"""What an exception from the device becomes: one line of text that holds nothing alive, and the end
of the service where it cost the device."""

from __future__ import annotations

import traceback

from ourvidz.errors import DeviceFailed
from pipelines.faults import is_device_lost


def describe(error: BaseException) -> str:
    """One line for the job's error."""
    text = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def describe_and_release(error: BaseException) -> str:
    """``describe``, and let go what the exception holds: it may live on in reference cycles, and
    its frames hold latents and weights."""
    met = [error]
    for one in met:
        traceback.clear_frames(one.__traceback__)
        one.__traceback__ = None
        met += [e for e in (one.__cause__, one.__context__) if e is not None and e not in met]
    return describe(error)


def device_failure(error: BaseException) -> DeviceFailed | None:
    """The end of the service, if the error means that the device is lost to this process. Asks the
    device: not for the event loop."""
    if not is_device_lost(error):
        return None
    return DeviceFailed(f"the device is lost to this process: {describe_and_release(error)}")


def raise_if_lost(error: BaseException) -> None:
    """Raises ``device_failure``, if it is one."""
    failure = device_failure(error)
    if failure is not None:
        raise failure from None

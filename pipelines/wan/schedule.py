"""The UniPC scheduler of one run, rebuilt from the state at each step and stored back after it.

The library's object carries its history in attributes. Keeping it only for the length of one step
is what lets two runs interleave on one pipeline and a run survive ``dump`` and ``restore``.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UniPCMultistepScheduler

from pipelines.state import State

_COUNTERS = "unipc"
_OUTPUTS = "unipc.model_outputs"
_LAST = "unipc.last_sample"


def scheduler_at(
    config: dict[str, Any], flow_shift: float, steps: int, state: State, device: torch.device
) -> UniPCMultistepScheduler:
    """The scheduler as it stood after ``state.step`` steps of ``steps``."""
    scheduler = UniPCMultistepScheduler.from_config(config, flow_shift=flow_shift)
    scheduler.set_timesteps(steps, device=device)
    # by index, not by time: a large flow_shift makes the first timesteps equal after rounding
    scheduler.set_begin_index(0)
    if state.step == 0:
        return scheduler
    counters = state.values[_COUNTERS]
    scheduler._step_index = counters["step_index"]
    scheduler.lower_order_nums = counters["lower_order_nums"]
    scheduler.this_order = counters["this_order"]
    scheduler.timestep_list = [
        None if index is None else scheduler.timesteps[index] for index in counters["timesteps"]
    ]
    scheduler.model_outputs = [
        state.tensors.get(f"{_OUTPUTS}.{i}") for i in range(len(scheduler.model_outputs))
    ]
    scheduler.last_sample = state.tensors[_LAST]
    return scheduler


def store_scheduler(scheduler: UniPCMultistepScheduler, state: State) -> None:
    """Write the scheduler's history after the step that followed ``state.step`` steps."""
    order = len(scheduler.model_outputs)
    steps_done = state.step + 1
    state.values[_COUNTERS] = {
        "step_index": scheduler.step_index,
        "lower_order_nums": scheduler.lower_order_nums,
        "this_order": scheduler.this_order,
        "timesteps": [i if i >= 0 else None for i in range(steps_done - order, steps_done)],
    }
    for i, output in enumerate(scheduler.model_outputs):
        if output is not None:
            state.tensors[f"{_OUTPUTS}.{i}"] = output
    state.tensors[_LAST] = scheduler.last_sample

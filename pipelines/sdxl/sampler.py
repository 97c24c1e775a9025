"""The library's noise schedulers, with their history kept in the run's state between two steps."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import diffusers
import torch

from pipelines.state import State
from pipelines.weights import CheckpointError, read_config

_PREFIX = "scheduler."

# What a step changes in each; all else follows from the configuration and the number of steps.
_HISTORY: Mapping[str, tuple[str, ...]] = {
    "DDIMScheduler": (),
    "DPMSolverMultistepScheduler": ("_step_index", "model_outputs", "lower_order_nums"),
    "EulerAncestralDiscreteScheduler": ("_step_index", "is_scale_input_called"),
    "EulerDiscreteScheduler": ("_step_index", "is_scale_input_called"),
    "HeunDiscreteScheduler": ("_step_index", "prev_derivative", "dt", "sample"),
    "UniPCMultistepScheduler": (
        "_step_index",
        "model_outputs",
        "timestep_list",
        "lower_order_nums",
        "this_order",
        "last_sample",
    ),
}


class Sampler:
    """Makes scheduler objects of one configuration; holds none of a run's state.

    ``folder`` holds ``scheduler_config.json``. Raises ``CheckpointError``.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        path = folder / "scheduler_config.json"
        config = read_config(path)
        name = str(config.get("_class_name"))
        if name not in _HISTORY:
            raise CheckpointError(
                path, f"_class_name is {name!r}; supported are {', '.join(sorted(_HISTORY))}"
            )
        self._class = getattr(diffusers, name)
        self._config = config
        self._device = device
        self._history = _HISTORY[name]
        parameters = inspect.signature(self._class.step).parameters
        self._takes_generator = "generator" in parameters
        self._extra: dict[str, Any] = {"eta": 0.0} if "eta" in parameters else {}
        self._template = lru_cache(maxsize=8)(self._build)
        try:
            self._template(1)
        # The configuration is foreign input to the library's constructor.
        except (ImportError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(path, f"does not make a {name}: {error}") from error

    @property
    def steps_max(self) -> int:
        """More steps than training timesteps cannot be told apart."""
        return int(self._template(1).config.num_train_timesteps)

    def timesteps(self, steps: int, strength: float | None) -> torch.Tensor:
        """The timesteps to run: all of ``steps`` schedule, or img2img's last part of it, at least
        one."""
        scheduler = self._template(steps)
        timesteps: torch.Tensor = scheduler.timesteps[self._begin(steps, strength) :]
        return timesteps

    def initial_scale(self, steps: int) -> torch.Tensor | float:
        """What txt2img's unit noise is multiplied by."""
        scale: torch.Tensor | float = self._template(steps).init_noise_sigma
        return scale

    def fresh(self, steps: int, strength: float | None) -> Any:
        """A scheduler before its first step."""
        scheduler = copy.deepcopy(self._template(steps))
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(self._begin(steps, strength))
        return scheduler

    def restored(self, state: State, steps: int, strength: float | None) -> Any:
        """A scheduler as ``keep`` left it, or a fresh one."""
        scheduler = self.fresh(steps, strength)
        for name, value in state.values.get("scheduler", {}).items():
            setattr(scheduler, name, _unpacked(value, state.tensors))
        return scheduler

    def keep(self, scheduler: Any, state: State) -> None:
        """Move the scheduler's history into the state."""
        self.forget(state)
        state.values["scheduler"] = {
            name: _packed(getattr(scheduler, name), f"{_PREFIX}{name}", state.tensors)
            for name in self._history
            if hasattr(scheduler, name)
        }

    @staticmethod
    def forget(state: State) -> None:
        """Drop the history: the next step starts a schedule."""
        state.values.pop("scheduler", None)
        for name in [name for name in state.tensors if name.startswith(_PREFIX)]:
            del state.tensors[name]

    def arguments(self, generators: list[torch.Generator]) -> dict[str, Any]:
        """What else this class's ``step`` takes."""
        return {"generator": generators, **self._extra} if self._takes_generator else self._extra

    def _build(self, steps: int) -> Any:
        scheduler = self._class.from_config(self._config)
        scheduler.set_timesteps(steps, device=self._device)
        return scheduler

    def _begin(self, steps: int, strength: float | None) -> int:
        if strength is None:
            return 0
        run = min(max(int(steps * strength), 1), steps)
        return (steps - run) * int(self._class.order)


def _packed(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, list):
        return [_packed(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    return value


def _unpacked(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        return tensors[value["tensor"]]
    if isinstance(value, list):
        return [_unpacked(item, tensors) for item in value]
    return value

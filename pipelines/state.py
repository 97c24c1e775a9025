"""A run's whole state, explicit and serialisable: nothing of a run lives in a Python frame.

Source of the format: safetensors for the tensors, with the rest as JSON in its metadata.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save_file

from pipelines.request import Request, request_from_json, request_to_json

_META = "ourvidz"
_GENERATOR = "rng."


@dataclass(slots=True)
class State:
    """What ``Pipeline.step`` reads and writes.

    ``phase`` is the phase being run, ``step`` the steps done in it. ``values`` holds JSON values
    (scheduler counters, token ids, text), ``tensors`` everything else (latents, scheduler history,
    embeddings, conditioning, KV cache, generator states). A list of tensors is kept as
    ``name.0``, ``name.1``... ``phase`` is ``"done"`` when nothing is left to run.
    """

    request: Request
    phase: str
    step: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def copy(self) -> State:
        """The state as it is now, to go back to: steps make new tensors, so these are shared."""
        return State(
            self.request, self.phase, self.step, copy.deepcopy(self.values), dict(self.tensors)
        )

    def to(self, device: torch.device) -> State:
        """The state on another device. CPU generator states (``rng.*``) stay on the CPU."""
        tensors = {
            name: t if name.startswith(_GENERATOR) else t.to(device)
            for name, t in self.tensors.items()
        }
        return State(self.request, self.phase, self.step, copy.deepcopy(self.values), tensors)

    def snapshot(self) -> State:
        """A copy in host memory, layouts kept, that nothing which is done to the state reaches."""
        tensors = {
            name: torch.empty_like(t, device="cpu").copy_(t) for name, t in self.tensors.items()
        }
        return State(self.request, self.phase, self.step, copy.deepcopy(self.values), tensors)

    @property
    def device_bytes(self) -> int:
        """Bytes of the distinct storages the tensors keep alive off the CPU or on it."""
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage() for t in self.tensors.values()
        }
        return sum(storage.nbytes() for storage in storages.values())


def dump(snapshot: State, path: Path, build: Mapping[str, str]) -> None:
    """Write a snapshot to a file, while other threads go on; ``restore`` gives back the same bits
    on the same ``build``, which is written beside it."""
    tensors = {name: t.detach().contiguous() for name, t in snapshot.tensors.items()}
    save_file(tensors, path, _metadata(snapshot, build))


def _metadata(state: State, build: Mapping[str, str]) -> dict[str, str]:
    meta = {
        "request": request_to_json(state.request),
        "phase": state.phase,
        "step": state.step,
        "values": state.values,
        "build": dict(build),
        # The file knows no memory layout, but kernels choose by it, and their last bits differ.
        "strides": {
            name: torch.empty_like(t, device="meta").stride()
            for name, t in state.tensors.items()
            if not t.is_contiguous()
        },
    }
    return {_META: json.dumps(meta)}


def build_of(data: bytes) -> Mapping[str, str]:
    """The build that ``dump`` was told of."""
    found: Mapping[str, str] = _meta(data)["build"]
    return found


def restore(data: bytes, device: torch.device | None = None) -> State:
    """Read a state that ``dump`` wrote, into host memory if no device is named.

    Each tensor gets memory of its own: inside the file's bytes they lie at odd addresses, for which
    the kernels of some CPUs give other last bits.
    """
    meta = _meta(data)
    tensors: dict[str, torch.Tensor] = {}
    for name, flat in load(data).items():
        stride = meta["strides"].get(name, flat.stride())
        tensors[name] = torch.empty_strided(flat.shape, stride, dtype=flat.dtype).copy_(flat)
    request = request_from_json(meta["request"])
    state = State(request, meta["phase"], meta["step"], meta["values"], tensors)
    return state if device is None else state.to(device)


def _meta(data: bytes) -> dict[str, Any]:
    size = int.from_bytes(data[:8], "little")
    meta: dict[str, Any] = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_META])
    return meta

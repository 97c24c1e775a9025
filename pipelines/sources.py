"""Where a component's module comes from: its files, its exact bytes, and how to read it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from pipelines.arena import module_tensors, pack
from pipelines.integrity import check_missing, check_shapes
from pipelines.weights import CheckpointError, choose_files, read_header

# Both libraries patch torch process-wide while they build a module (default dtype, parameter
# registration): two loads at once leave modules on meta and nn.Linear broken for good.
LOAD_LOCK = threading.RLock()


class Source(Protocol):
    """A module on disk. ``read`` is called under ``LOAD_LOCK`` and may be called again later."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every weight file that ``read`` will read, and no other."""

    @property
    def weight_bytes(self) -> int:
        """Exact bytes of the module that ``read`` returns: parameters and buffers, each once."""

    def read(self) -> nn.Module:
        """The module on the CPU, whole. Raises ``CheckpointError``."""


@contextlib.contextmanager
def building_on_meta(dtype: torch.dtype) -> Iterator[None]:
    """Build modules without data, as the libraries do while they load for ``dtype``."""
    with LOAD_LOCK:
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with torch.device("meta"):
                yield
        finally:
            torch.set_default_dtype(default)


def packed_bytes(module: nn.Module) -> int:
    """What an arena for this module will take. Meta tensors will do."""
    return pack([tensor for _, tensor in module_tensors(module)])[1]


class FolderSource:
    """One component folder in the layout of diffusers or transformers: ``config.json`` and
    safetensors. Opening reads the configuration and the headers.

    ``model_class`` is a ``diffusers.ModelMixin`` or ``transformers.PreTrainedModel`` subclass.
    Raises ``CheckpointError``.
    """

    def __init__(self, folder: Path, model_class: type[Any], dtype: torch.dtype) -> None:
        self._folder = folder
        self._class = model_class
        self._dtype = dtype
        self._diffusers = hasattr(model_class, "load_config")
        stem = "diffusion_pytorch_model" if self._diffusers else "model"
        if not (folder / "config.json").is_file():
            raise CheckpointError(folder, "has no config.json")
        self._chosen = choose_files(folder, stem, dtype)
        skeleton = self.skeleton()
        headers = map(read_header, self._chosen.files)
        held = {name: info.shape for header in headers for name, info in header.tensors.items()}
        check_shapes(folder, held, skeleton)
        self.weight_bytes = packed_bytes(skeleton)

    @property
    def files(self) -> tuple[Path, ...]:
        return self._chosen.files

    def skeleton(self) -> nn.Module:
        """The module on meta, with the dtypes that ``read`` gives it."""
        module = build_skeleton(self._folder, self._class, self._dtype)
        keep = _kept_in_fp32(module, self._dtype, self._diffusers)
        persistent = module.state_dict(keep_vars=True)
        for name, tensor in persistent.items():
            if tensor.is_floating_point() and keep(name):
                tensor.data = tensor.data.to(torch.float32)
        return module

    def read(self) -> nn.Module:
        for file in self.files:
            read_header(file)
        extra: dict[str, Any] = {} if self._diffusers else {"ignore_mismatched_sizes": True}
        module, info = self._class.from_pretrained(
            str(self._folder),
            variant=self._chosen.variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            dtype=self._dtype,
            **extra,
        )
        for name, found, expected in sorted(info["mismatched_keys"]):
            raise CheckpointError(
                self._folder,
                f"tensor {name} has shape {list(found)}, where the configuration expects"
                f" {list(expected)}",
            )
        check_missing(self._folder, info["missing_keys"])
        assert isinstance(module, nn.Module)
        return module


class GroupSource:
    """Several sources that are resident together, read as one ``nn.ModuleDict``."""

    def __init__(self, parts: Mapping[str, Source]) -> None:
        self._parts = dict(parts)

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(f for part in self._parts.values() for f in part.files))

    @property
    def weight_bytes(self) -> int:
        return sum(part.weight_bytes for part in self._parts.values())

    def read(self) -> nn.Module:
        return nn.ModuleDict({name: part.read() for name, part in self._parts.items()})


def build_skeleton(folder: Path, model_class: type[Any], dtype: torch.dtype) -> nn.Module:
    """The module of ``folder``'s ``config.json`` on meta. Raises ``CheckpointError``."""
    try:
        with building_on_meta(dtype):
            if hasattr(model_class, "load_config"):
                config = model_class.load_config(str(folder), local_files_only=True)
                module = model_class.from_config(config)
            else:
                config = model_class.config_class.from_pretrained(
                    str(folder), local_files_only=True
                )
                config.dtype = dtype  # nested models are built in the configuration's own
                module = model_class(config)
                module.tie_weights()
    # A configuration is foreign input to the library's constructors, which answer a wrong one
    # with whatever they stumble over, up to exception types of their own validators.
    except Exception as error:
        raise CheckpointError(
            folder / "config.json", f"does not describe a {model_class.__name__}: {error}"
        ) from error
    assert isinstance(module, nn.Module)
    return module


def _kept_in_fp32(module: nn.Module, dtype: torch.dtype, diffusers: bool) -> Any:
    """A predicate over state-dict names, by each library's own rule."""
    listed = getattr(module, "_keep_in_fp32_modules", None) or ()
    if diffusers:
        tokens = frozenset([listed] if isinstance(listed, str) else listed)
        return lambda name: not tokens.isdisjoint(name.split("."))
    plan = tuple(listed) if dtype is torch.float16 else ()
    if dtype in (torch.float16, torch.bfloat16):
        plan += tuple(getattr(module, "_keep_in_fp32_modules_strict", None) or ())
    return lambda name: any(part in name for part in plan)

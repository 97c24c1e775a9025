"""What a WAN folder holds and what it can do, read from its configuration files alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.request import ReferenceMode
from pipelines.wan.vae import SPATIAL, TEMPORAL
from pipelines.weights import CheckpointError, read_config

_PLAIN = "WanTransformer3DModel"
_VACE = "WanVACETransformer3DModel"
_LATENT_CHANNELS = 16
_IMAGE_CHANNELS = 36
_CONTROL_CHANNELS = 96
_PATCH = [1, 2, 2]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Configurations of one checkpoint, and the reference modes that its transformer serves.

    ``image_encoder`` is set where the transformer also attends to the given images themselves.
    """

    path: Path
    transformer: dict[str, Any]
    vae: dict[str, Any]
    text_encoder: dict[str, Any]
    scheduler: dict[str, Any]
    image_encoder: dict[str, Any] | None
    modes: tuple[ReferenceMode, ...]

    @property
    def vace(self) -> bool:
        return bool(self.transformer["_class_name"] == _VACE)

    @property
    def ability(self) -> str:
        """For messages: what the checkpoint is and serves."""
        kind = "VACE" if self.vace else "image-to-video"
        if self.modes == ("none",):
            kind = "text-to-video"
        return f"this {kind} checkpoint serves {', '.join(self.modes)}"


def read_checkpoint(path: Path) -> Checkpoint:
    """Raises ``CheckpointError`` for another layout, and for what these loops do not run."""
    if not (path / "model_index.json").is_file():
        raise CheckpointError(path, _no_index(path))
    index = read_config(path / "model_index.json")
    _require_single_stage(path, index)
    transformer = read_config(path / "transformer" / "config.json")
    vae = read_config(path / "vae" / "config.json")
    text_encoder = read_config(path / "text_encoder" / "config.json")
    scheduler = read_config(path / "scheduler" / "scheduler_config.json")
    _require_vae(path / "vae", vae, transformer)
    _require_flow(path / "scheduler", scheduler)
    _require_width(path / "text_encoder", text_encoder, transformer)
    return Checkpoint(
        path,
        transformer,
        vae,
        text_encoder,
        scheduler,
        None
        if transformer.get("image_dim") is None
        else read_config(path / "image_encoder" / "config.json"),
        _modes(path / "transformer", transformer),
    )


def _no_index(path: Path) -> str:
    if not path.is_dir():
        return "no such folder"
    layout = (
        "the layout of diffusers is needed: model_index.json beside transformer/, vae/,"
        " text_encoder/, tokenizer/ and scheduler/"
    )
    original = any(path.glob("Wan*_VAE.pth")) or any(path.glob("models_t5_*.pth"))
    if original or (path / "config.json").is_file():
        return f"this is the original layout of WAN; {layout} (published as *-Diffusers)"
    return f"has no model_index.json; {layout}"


def _require_single_stage(path: Path, index: dict[str, Any]) -> None:
    second = index.get("transformer_2") or [None]
    if second[0] is not None or index.get("boundary_ratio") is not None:
        raise CheckpointError(path, "has two transformers (WAN 2.2); only WAN 2.1 is supported")
    if index.get("expand_timesteps"):
        raise CheckpointError(path, "gives each token a time (WAN 2.2); only WAN 2.1 is supported")


def _require_vae(path: Path, vae: dict[str, Any], transformer: dict[str, Any]) -> None:
    if vae.get("is_residual") or vae.get("patch_size") is not None:
        raise CheckpointError(path, "is a WAN 2.2 VAE; only that of WAN 2.1 is supported")
    ratios = vae.get("scale_factor_spatial", SPATIAL), vae.get("scale_factor_temporal", TEMPORAL)
    if ratios != (SPATIAL, TEMPORAL):
        raise CheckpointError(
            path, f"compresses {ratios[0]}x in space, {ratios[1]}x in time, not 8x and 4x"
        )
    latents = vae.get("z_dim", _LATENT_CHANNELS)
    made = transformer.get("out_channels", _LATENT_CHANNELS)
    if latents != made:
        raise CheckpointError(path, f"has {latents} latent channels, the transformer makes {made}")


def _require_flow(path: Path, scheduler: dict[str, Any]) -> None:
    wanted = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    for key, value in wanted.items():
        if scheduler.get(key) != value:
            raise CheckpointError(
                path, f"scheduler_config.json: {key} is {scheduler.get(key)!r}, not {value!r}"
            )
    if scheduler.get("use_dynamic_shifting") or scheduler.get("solver_p") is not None:
        raise CheckpointError(path, "use_dynamic_shifting and solver_p are not supported")


def _require_width(path: Path, text_encoder: dict[str, Any], transformer: dict[str, Any]) -> None:
    made, wanted = text_encoder.get("d_model"), transformer.get("text_dim", 4096)
    if made != wanted:
        raise CheckpointError(path, f"d_model is {made!r}, the transformer reads {wanted!r}")


def _modes(path: Path, config: dict[str, Any]) -> tuple[ReferenceMode, ...]:
    name, channels = config.get("_class_name"), config.get("in_channels", _LATENT_CHANNELS)
    if config.get("patch_size", _PATCH) != _PATCH:
        raise CheckpointError(path, f"patch_size is {config['patch_size']}, not {_PATCH}")
    control = config.get("vace_in_channels", _CONTROL_CHANNELS)
    if name == _VACE and control != _CONTROL_CHANNELS:
        raise CheckpointError(path, f"vace_in_channels is {control}, not {_CONTROL_CHANNELS}")
    if name == _VACE and channels == _LATENT_CHANNELS and config.get("image_dim") is None:
        return ("none", "single", "start", "end", "both")
    if name == _PLAIN and channels == _LATENT_CHANNELS and config.get("image_dim") is None:
        return ("none",)
    if name == _PLAIN and channels == _IMAGE_CHANNELS:
        if config.get("image_dim") is None:
            return ("start", "both")
        # with position embeddings over two images' tokens, it takes two images and never one
        return ("start",) if config.get("pos_embed_seq_len") is None else ("both",)
    raise CheckpointError(
        path,
        f"{name} with {channels} input channels is neither {_PLAIN} with {_LATENT_CHANNELS} or"
        f" {_IMAGE_CHANNELS} nor {_VACE} with {_LATENT_CHANNELS}",
    )

"""Tiny 36-channel WAN checkpoints: the text-to-video one with other transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

# Width of the image embeddings, and the tokens that two images give: 2 * ((32 / 8)**2 + 1)
IMAGE_DIM, TWO_IMAGES = 16, 34
KINDS: dict[str, dict[str, Any]] = {
    "inpainting": {},
    "first frame": {"image_dim": IMAGE_DIM, "added_kv_proj_dim": 24},
    "first and last frame": {
        "image_dim": IMAGE_DIM,
        "added_kv_proj_dim": 24,
        "pos_embed_seq_len": TWO_IMAGES,
    },
}


def make_image_to_video(text_to_video: Path, root: Path) -> None:
    """One folder for each kind."""
    base = WanTransformer3DModel.load_config(text_to_video / "transformer")
    for seed, (kind, extra) in enumerate(KINDS.items()):
        folder = root / kind
        shutil.copytree(text_to_video, folder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = {**base, "in_channels": 36, **extra}
            transformer = WanTransformer3DModel.from_config(config)
            with torch.no_grad():
                for parameter in transformer.parameters():
                    parameter.mul_(2.0 if parameter.ndim > 1 else 1.0)
            vision = CLIPVisionConfig(
                hidden_size=IMAGE_DIM,
                intermediate_size=24,
                num_hidden_layers=3,
                num_attention_heads=2,
                image_size=32,
                patch_size=8,
                projection_dim=IMAGE_DIM,
            )
            encoder = CLIPVisionModel(vision)
        transformer.save_pretrained(folder / "transformer")
        if "image_dim" in extra:
            encoder.save_pretrained(folder / "image_encoder")
            processor = CLIPImageProcessorPil(
                size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
            )
            processor.save_pretrained(folder / "image_processor")
        index = json.loads((folder / "model_index.json").read_text())
        index["_class_name"] = "WanImageToVideoPipeline"
        (folder / "model_index.json").write_text(json.dumps(index))

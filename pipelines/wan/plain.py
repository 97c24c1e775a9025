"""The text-to-video transformer inside a VACE one, on the same storages.

VACE leaves those weights as they were trained and adds its own blocks beside them, so without a
control video they are the whole model: mode ``none`` costs neither weights nor conditioning.
"""

from __future__ import annotations

import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from torch import nn

from pipelines.sources import FolderSource

# What the two classes have in common, under the same names.
_MODULES = ("rope", "patch_embedding", "condition_embedder", "blocks", "norm_out", "proj_out")
_CONFIG = (
    "patch_size",
    "num_attention_heads",
    "attention_head_dim",
    "in_channels",
    "out_channels",
    "text_dim",
    "freq_dim",
    "ffn_dim",
    "cross_attn_norm",
    "qk_norm",
    "eps",
)
_VIEW = "_plain"


class VaceSource(FolderSource):
    """A VACE transformer's folder, read with the view beside it.

    The view is made here, under the load lock, because a module built in a step could meet the
    patches that a loading library has put on ``torch.nn`` for the whole process.
    """

    def read(self) -> nn.Module:
        vace = super().read()
        # past nn.Module's own setter: as a submodule its weights would be counted twice
        object.__setattr__(vace, _VIEW, _view(vace))
        return vace


def plain_view(vace: WanVACETransformer3DModel) -> WanTransformer3DModel:
    """The view on a module that ``VaceSource`` read. It shares the parameters themselves, so it
    follows them to the device and back."""
    return getattr(vace, _VIEW)


def _view(vace: WanVACETransformer3DModel) -> WanTransformer3DModel:
    config = {name: vace.config[name] for name in _CONFIG}
    with torch.device("meta"):
        plain = WanTransformer3DModel(**config, num_layers=0)
    for name in _MODULES:
        setattr(plain, name, getattr(vace, name))
    plain.scale_shift_table = vace.scale_shift_table
    return plain.eval()

"""Estimates of working bytes against what the modules really keep alive."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipelines.base import CancelToken
from pipelines.registry import ModelConfig, open_pipeline
from pipelines.request import VideoRequest
from pipelines.wan import memory

pytestmark = pytest.mark.slow

GIB = 2**30
TRANSFORMER = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960}
VACE = {**TRANSFORMER, "vace_layers": list(range(0, 30, 2)), "vace_in_channels": 96}
UMT5 = {"d_model": 4096, "d_ff": 10240, "num_heads": 64}


class Meter(TorchDispatchMode):
    """Sums the storages that operations make, while they live; ``known`` ones count nothing."""

    def __init__(self, known):
        super().__init__()
        self.known = [tensor.untyped_storage() for tensor in known]
        self.sizes = {storage._cdata: 0 for storage in self.known}
        self.alive = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.count(leaf.untyped_storage())
        return result

    def count(self, storage):
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.alive += self.sizes[key]
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self.forget, key)

    def forget(self, key):
        self.alive -= self.sizes.pop(key)


@pytest.mark.parametrize(
    ("mode", "frames", "size"),
    [
        ("none", 17, (64, 64)),
        ("none", 1, (64, 32)),
        ("single", 9, (64, 32)),
        ("both", 9, (64, 64)),
        ("start", 1, (64, 64)),
    ],
)
def test_a_phase_stays_within_its_estimate(vace, ask, device, mode, frames, size):
    """Between once and twice the measured peak, so that it neither fails nor wastes the card."""
    request = ask(mode=mode, frames=frames, width=size[0], height=size[1], steps=2)
    weights = [
        tensor
        for component in vace.components.values()
        for tensor in (*component.module.parameters(), *component.module.buffers())
    ]
    state = vace.begin(request)
    for plan in vace.plan(request):
        meter = Meter(weights)
        for tensor in state.tensors.values():
            meter.count(tensor.untyped_storage())
        with meter:
            while state.phase == plan.name:
                vace.step(state, CancelToken())
        assert meter.peak <= plan.working_bytes <= 2 * meter.peak, plan.name


def wan_480p(frames, mode="none"):
    return VideoRequest("", "", 832, 480, frames, 20, 5.0, 3.0, 1, mode)


@pytest.mark.parametrize(
    ("frames", "gib"),
    [(17, 0.36), (81, 1.49)],
)
def test_the_published_transformer_takes_what_was_measured(frames, gib):
    """Live storages of the 1.3B transformer, bf16 at 832x480; the estimate adds UniPC's history."""
    made = memory.denoise_bytes(TRANSFORMER, 2, wan_480p(frames), 0, 2) / GIB
    assert gib <= made <= 1.15 * gib


def test_a_control_video_keeps_a_hidden_state_for_each_vace_layer():
    plain = memory.denoise_bytes(VACE, 2, wan_480p(81), 0, 2)
    assert plain == memory.denoise_bytes(TRANSFORMER, 2, wan_480p(81), 0, 2)
    controlled = memory.denoise_bytes(VACE, 2, wan_480p(81, "both"), 0, 2) / GIB
    assert 3.0 <= controlled <= 1.15 * 3.0
    assert memory.denoise_bytes(VACE, 2, wan_480p(81, "single"), 1, 2) / GIB > controlled


@pytest.mark.parametrize(("frames", "gib"), [(1, 2.58), (17, 7.24), (81, 7.24)])
def test_the_published_vae_decodes_in_what_was_measured(frames, gib):
    """One chunk at 832x480 in fp32 beside the feature cache; the frames made come on top."""
    assert gib <= memory.decode_bytes({}, wan_480p(frames)) / GIB <= 1.1 * gib


@pytest.mark.parametrize(("frames", "gib"), [(1, 1.44), (17, 5.26), (81, 5.26)])
def test_the_published_vae_encodes_in_what_was_measured(frames, gib):
    assert gib <= memory.condition_bytes({}, wan_480p(frames)) / GIB <= 1.4 * gib


def test_the_published_text_encoder_takes_what_was_measured():
    """512 tokens of umT5-XXL in bf16."""
    assert 120.3 <= memory.encode_bytes(UMT5, 2, 2) / 2**20 <= 1.15 * 120.3


def test_an_image_encoder_keeps_every_hidden_state():
    """ViT-H/14 in fp32: 58.3 MiB an image."""
    vit = {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "image_size": 224,
        "patch_size": 14,
    }
    one = memory.image_bytes(vit, 1)
    assert 58.3 <= one / 2**20 <= 1.3 * 58.3
    assert memory.image_bytes(vit, 2) == 2 * one


def test_the_safety_factor_multiplies_every_phase(wan_root, device, ask):
    config = ModelConfig("wan", "wan", wan_root / "wan-vace", None, "float32")
    request = ask(mode="both")
    once = open_pipeline(config, device, 1.0).plan(request)
    twice = open_pipeline(config, device, 2.0).plan(request)
    assert [2 * plan.working_bytes for plan in once] == pytest.approx(
        [plan.working_bytes for plan in twice], abs=1
    )

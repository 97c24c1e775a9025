"""What SDXL says it will take and do, before it touches a weight."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from support.states import dump
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pipelines.base import CancelToken, UnsupportedRequest
from pipelines.component import NotResident
from pipelines.request import ImageRequest, TextRequest, VideoRequest
from pipelines.sdxl import SdxlPipeline, estimate
from pipelines.state import State, restore

pytestmark = pytest.mark.slow

Build = Callable[..., ImageRequest]


@pytest.fixture(scope="module")
def opened(sdxl_root: Path, open_folder: Callable[..., SdxlPipeline]) -> SdxlPipeline:
    """With every component absent: planning needs none of them."""
    return open_folder(sdxl_root / "sdxl")


def steps(pipeline: SdxlPipeline, request: ImageRequest) -> dict[str, int]:
    return {plan.name: plan.steps for plan in pipeline.plan(request)}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"steps": 9}, {"encode": 1, "denoise": 9, "decode": 1}),
        ({"steps": 9, "images": 6}, {"encode": 1, "denoise": 9, "decode": 6}),
        ({"steps": 9, "images": 6, "bitwise": True}, {"encode": 1, "denoise": 54, "decode": 6}),
        ({"steps": 20, "strength": 0.5}, {"encode": 1, "condition": 1, "denoise": 10, "decode": 1}),
        ({"steps": 20, "strength": 0.0}, {"encode": 1, "condition": 1, "denoise": 1, "decode": 1}),
        ({"steps": 20, "strength": 1.0}, {"encode": 1, "condition": 1, "denoise": 20, "decode": 1}),
        ({"steps": 1, "strength": 0.05}, {"encode": 1, "condition": 1, "denoise": 1, "decode": 1}),
    ],
    ids=str,
)
def test_phases_and_steps(
    opened: SdxlPipeline,
    request_for: Build,
    reference_path: Path,
    fields: dict[str, Any],
    expected: dict[str, int],
) -> None:
    if "strength" in fields:
        fields = {**fields, "image_path": str(reference_path)}
    assert steps(opened, request_for(**fields)) == expected


def test_each_phase_names_its_one_component(
    opened: SdxlPipeline, request_for: Build, reference_path: Path
) -> None:
    request = request_for(strength=0.5, image_path=str(reference_path))
    assert {plan.name: plan.components for plan in opened.plan(request)} == {
        "encode": ("sdxl.text_encoders",),
        "condition": ("sdxl.vae",),
        "denoise": ("sdxl.unet",),
        "decode": ("sdxl.vae",),
    }
    assert {c.tier for c in opened.components.values()} == {"absent"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"width": 60}, "width"),
        ({"height": 0}, "height"),
        ({"height": -64}, "height"),
        ({"images": 0}, "images"),
        ({"steps": 0}, "steps"),
        ({"steps": 1001}, "steps"),
        ({"guidance_scale": -1.0}, "guidance_scale"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"guidance_scale": float("inf")}, "guidance_scale"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63 - 1}, "seed"),
        ({"strength": 1.1, "image_path": "x.png"}, "strength"),
        ({"strength": float("nan"), "image_path": "x.png"}, "strength"),
        ({"strength": 0.5}, "image_path"),
        ({"image_path": "x.png"}, "strength"),
        ({"prompt": "half \ud83d"}, "prompt"),
        ({"negative_prompt": "\udc00"}, "negative_prompt"),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", ["plan", "warnings", "begin"])
def test_what_cannot_be_done_is_refused_by_field(
    opened: SdxlPipeline, request_for: Build, call: str, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(UnsupportedRequest, match=f"^{field}: ") as caught:
        getattr(opened, call)(request_for(**fields))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "request_of_another",
    [
        TextRequest((), 1, 0.0, 1.0, 1),
        VideoRequest("a", "", 64, 64, 5, 2, 1.0, 3.0, 1),
    ],
)
def test_another_kind_of_request_is_refused(opened: SdxlPipeline, request_of_another: Any) -> None:
    with pytest.raises(UnsupportedRequest, match="sdxl makes images only"):
        opened.plan(request_of_another)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_reference_that_is_no_image_is_refused(
    sdxl: SdxlPipeline, request_for: Build, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "reference.png"
    path.write_bytes(content)
    state = sdxl.begin(request_for(strength=0.5, image_path=str(path)))
    sdxl.step(state, CancelToken())
    with pytest.raises(UnsupportedRequest, match=r"image_path: reference\.png cannot be"):
        sdxl.step(state, CancelToken())


def test_an_unknown_phase_is_refused(sdxl: SdxlPipeline, request_for: Build) -> None:
    for phase in ("condition", "done", "nonsense"):
        with pytest.raises(ValueError, match=f"phase '{phase}' is none of this request's"):
            sdxl.step(State(request_for(), phase), CancelToken())


def test_a_step_without_its_component_says_which(opened: SdxlPipeline, request_for: Build) -> None:
    with pytest.raises(NotResident, match=r"sdxl\.text_encoders is absent, not resident"):
        opened.step(opened.begin(request_for()), CancelToken())


def test_a_prompt_that_fits_is_not_warned_about(opened: SdxlPipeline, request_for: Build) -> None:
    assert opened.warnings(request_for(prompt="x" * 75, negative_prompt="y" * 75)) == ()


def test_a_cut_prompt_is_counted(opened: SdxlPipeline, request_for: Build) -> None:
    request = request_for(prompt="x" * 76, negative_prompt="y" * 100)
    assert opened.warnings(request) == (
        "prompt: has 78 tokens with its two marks, of which 77 are read; the last 1 are cut",
        "negative_prompt: has 102 tokens with its two marks, of which 77 are read;"
        " the last 25 are cut",
    )
    unguided = request_for(negative_prompt="y" * 100, guidance_scale=1.0)
    assert opened.warnings(unguided) == ()


def test_less_than_a_step_is_said_to_be_one(
    opened: SdxlPipeline, request_for: Build, reference_path: Path
) -> None:
    request = request_for(steps=4, strength=0.05, image_path=str(reference_path))
    assert opened.warnings(request) == ("strength: 0.05 of 4 steps is less than one; one is run",)


def test_the_state_carries_only_what_is_needed_next(
    sdxl: SdxlPipeline, request_for: Build, device: Any
) -> None:
    state = sdxl.begin(request_for(images=2))
    assert set(state.tensors) == {"rng.0", "rng.1"}
    sdxl.step(state, CancelToken())
    assert set(state.tensors) == {"rng.0", "rng.1", "embeds", "pooled", "time_ids", "latents"}
    while state.phase == "denoise":
        sdxl.step(state, CancelToken())
    assert set(state.tensors) == {"latents"}
    assert state.values == {}
    while state.phase == "decode":
        sdxl.step(state, CancelToken())
    assert (state.phase, state.step, state.tensors) == ("done", 0, {})
    assert restore(dump(state), device.torch) == state


REAL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
REAL_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
REAL_TEXT = [
    CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    ),
    CLIPTextConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=20,
        projection_dim=1280,
    ),
]


class LiveBytes(TorchDispatchMode):
    """The peak of the bytes that the operations inside have made and that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.sizes: dict[int, int] = {}
        self.inputs: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.sizes:
                    self.sizes[storage._cdata] = 0
                    self.inputs.append(storage)
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                self._born(tensor.untyped_storage())
        return output

    def _born(self, storage: Any) -> None:
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.now += self.sizes[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._died, key)

    def _died(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveBytes]:
    """Count on meta tensors, with attention computed blockwise as the fused kernels do."""
    with monkeypatch.context() as patch:
        patch.setattr(
            torch.nn.functional,
            "scaled_dot_product_attention",
            lambda query, *_args, **_kwargs: torch.empty_like(query),
        )
        counter = LiveBytes()
        with torch.device("meta"), torch.no_grad(), counter:
            yield counter


def unet_peak(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, batch: int, size: tuple[int, int]
) -> int:
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(REAL_UNET).to(dtype)
        inputs = torch.empty(batch, 4, size[1] // 8, size[0] // 8, dtype=dtype)
        embeds = torch.empty(batch, 77, 2048, dtype=dtype)
        conditions = {
            "text_embeds": torch.empty(batch, 1280, dtype=dtype),
            "time_ids": torch.empty(batch, 6, dtype=dtype),
        }
        timestep = torch.empty(())
    with counting(monkeypatch) as counter:
        unet(inputs, timestep, encoder_hidden_states=embeds, added_cond_kwargs=conditions)
    return counter.peak


@pytest.mark.parametrize(
    ("images", "guided", "size"),
    [(1, True, (1024, 1024)), (3, False, (1216, 832))],
)
def test_real_denoise_bytes_are_just_above_the_live_tensors(
    monkeypatch: pytest.MonkeyPatch, images: int, guided: bool, size: tuple[int, int]
) -> None:
    positions = size[0] * size[1] // 64
    promised = estimate.denoise_bytes(REAL_UNET, positions, images, guided, 2)
    counted = unet_peak(monkeypatch, torch.bfloat16, images * (2 if guided else 1), size)
    assert counted <= promised <= 1.1 * counted


@pytest.mark.parametrize("side", [256, 1024])
def test_real_vae_bytes_are_just_above_the_live_tensors(
    monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(REAL_VAE)
        latents, pixels = torch.empty(1, 4, side // 8, side // 8), torch.empty(1, 3, side, side)
    with counting(monkeypatch) as counter:
        vae.decode(latents)
    promised = estimate.vae_decode_bytes(REAL_VAE, side * side)
    assert counter.peak <= promised <= 1.1 * counter.peak
    with counting(monkeypatch) as counter:
        vae.encode(pixels)
    promised = estimate.vae_encode_bytes(REAL_VAE, side * side)
    assert counter.peak <= promised <= 1.1 * counter.peak


def test_real_encode_bytes_are_just_above_the_live_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = []
    classes = (CLIPTextModel, CLIPTextModelWithProjection)
    for config, model_class in zip(REAL_TEXT, classes, strict=True):
        with torch.device("meta"):
            encoder = model_class(config)
            ids = torch.empty(1, 77, dtype=torch.int64)
        with counting(monkeypatch) as counter:
            encoder(ids, output_hidden_states=True)
        peaks.append(counter.peak)
    promised = estimate.encode_bytes([config.to_dict() for config in REAL_TEXT], 4)
    assert max(peaks) <= promised <= 1.1 * max(peaks)


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 64, "height": 64, "images": 3},
        {"width": 256, "height": 128, "images": 6},
        {"width": 128, "height": 192, "images": 2, "guidance_scale": 1.0},
        {"width": 128, "height": 128, "images": 3, "bitwise": True},
    ],
    ids=str,
)
def test_tiny_steps_take_what_was_planned(
    sdxl: SdxlPipeline, request_for: Build, reference_path: Path, fields: dict[str, Any]
) -> None:
    request = request_for(steps=2, strength=1.0, image_path=str(reference_path), **fields)
    state, peaks = sdxl.begin(request), dict[str, int]()
    while state.phase != "done":
        phase = state.phase
        with LiveBytes() as counter:
            sdxl.step(state, CancelToken())
        peaks[phase] = max(peaks.get(phase, 0), counter.peak)
    for plan in sdxl.plan(request):
        assert peaks[plan.name] <= plan.working_bytes <= 2.5 * peaks[plan.name], plan.name


@pytest.mark.parametrize("images", [(1, 2, 3), (1, 1, 1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("side", [64, 128])
def test_steps_taken_together_take_no_more_than_was_planned_for_each(
    sdxl: SdxlPipeline, request_for: Build, images: tuple[int, ...], side: int
) -> None:
    alike = {"width": side, "height": side, "steps": 2, "shareable": True}
    requests = [request_for(images=n, seed=n, **alike) for n in images]
    states = [sdxl.begin(request) for request in requests]
    for state in states:
        sdxl.step(state, CancelToken())
    planned = sum(sdxl.plan(request)[1].working_bytes for request in requests)
    for _ in range(2):
        with LiveBytes() as counter:
            sdxl.step_together(states, [CancelToken()] * len(states))
        assert counter.peak <= planned <= 2.5 * counter.peak


def test_working_bytes_grow_with_the_factor_images_and_guidance(
    sdxl_root: Path, device: Any, opened: SdxlPipeline, request_for: Build
) -> None:
    from pipelines.registry import ModelConfig
    from pipelines.sdxl import open_sdxl

    config = ModelConfig("sdxl", "sdxl", sdxl_root / "sdxl", None, "float32")
    doubled = open_sdxl(config, device, 2.0)
    plain = [plan.working_bytes for plan in opened.plan(request_for(images=3))]
    assert [plan.working_bytes for plan in doubled.plan(request_for(images=3))] == [
        2 * size for size in plain
    ]
    alone = [plan.working_bytes for plan in opened.plan(request_for(images=1))]
    assert 2.5 * alone[1] < plain[1] < 3 * alone[1]
    assert (plain[0], plain[2]) == (alone[0], alone[2])
    bitwise = opened.plan(request_for(images=3, bitwise=True))
    assert bitwise[1].working_bytes == alone[1]
    unguided = opened.plan(request_for(guidance_scale=1.0))
    assert unguided[1].working_bytes < alone[1]


def test_real_figures_at_full_size() -> None:
    gib = 2**30
    positions, pixels = 128 * 128, 1024 * 1024
    for images, expected in ((1, 0.31), (3, 0.93), (6, 1.85)):
        denoise = estimate.denoise_bytes(REAL_UNET, positions, images, True, 2)
        assert denoise / gib == pytest.approx(expected, rel=0.03)
    assert estimate.vae_decode_bytes(REAL_VAE, pixels) / gib == pytest.approx(3.0, rel=0.01)

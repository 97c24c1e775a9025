"""Every mode against the library's own pipeline call, to the bit."""

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
)
from diffusers.video_processor import VideoProcessor
from PIL import Image
from support.wan_library import library_frames

pytestmark = pytest.mark.slow


def assert_same(made, expected, device):
    """Equal to the bit on the CPU; on a card a kernel chosen by alignment may round otherwise."""
    tolerance = 0 if device.kind == "cpu" else 2
    assert made.dtype == np.uint8
    assert made.shape == expected.shape
    assert np.abs(made.astype(int) - expected.astype(int)).max() <= tolerance


def load(cls, path, device, dtype=torch.float32):
    vae = AutoencoderKLWan.from_pretrained(
        path, subfolder="vae", dtype=torch.float32, local_files_only=True
    )
    pipe = cls.from_pretrained(path, vae=vae, dtype=dtype, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device.torch)


@pytest.fixture(scope="module")
def library_t2v(wan_root, device, aligned):
    return aligned(load(WanPipeline, wan_root / "wan-t2v", device))


@pytest.fixture(scope="module")
def library_vace(wan_root, device, aligned):
    return aligned(load(WanVACEPipeline, wan_root / "wan-vace", device))


@pytest.fixture(scope="module")
def library_plain(library_vace, device):
    """The text-to-video pipeline around the weights that a VACE transformer keeps from it."""
    config = {k: v for k, v in library_vace.transformer.config.items() if "vace" not in k}
    transformer = WanTransformer3DModel.from_config(config)
    missing, _ = transformer.load_state_dict(library_vace.transformer.state_dict(), strict=False)
    assert missing == []
    parts = {**library_vace.components, "transformer": transformer.eval(), "transformer_2": None}
    pipe = WanPipeline(**parts).to(device.torch)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def conditioning(request):
    """The request's references as the library's documentation prepares them."""
    if request.mode == "single":
        return {"reference_images": [Image.open(request.start_path)]}
    size = (request.width, request.height)
    resize = VideoProcessor(vae_scale_factor=8).resize
    video = [Image.new("RGB", size, (128, 128, 128))] * request.frames
    mask = [Image.new("L", size, 255)] * request.frames
    if request.mode in ("start", "both"):
        video[0] = resize(Image.open(request.start_path), request.height, request.width)
        mask[0] = Image.new("L", size, 0)
    if request.mode in ("end", "both"):
        video[-1] = resize(Image.open(request.end_path), request.height, request.width)
        mask[-1] = Image.new("L", size, 0)
    return {"video": video, "mask": mask}


@pytest.mark.parametrize("frames", [1, 17])
def test_text_to_video_is_the_librarys(t2v, library_t2v, ask, play, device, frames):
    request = ask(frames=frames)
    assert_same(play(t2v, request), library_frames(library_t2v, request), device)


SETTINGS = {
    "no negative prompt": {"negative_prompt": "", "seed": 0},
    "no guidance": {"guidance_scale": 1.0, "negative_prompt": "watermark"},
    "one step, no prompt": {"steps": 1, "prompt": ""},
    "more steps than the solver's order": {"steps": 7, "frames": 1, "seed": 2**63},
    "times that round to the same": {"flow_shift": 100.0, "steps": 12, "frames": 1},
    "a prompt to clean and to cut": {"prompt": "caf\u00e9 &amp;amp;  \u201cHi\u201d \n\t" * 60},
    "another shape": {"width": 16, "height": 80},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_text_to_video_with_other_settings(t2v, library_t2v, ask, play, device, name):
    request = ask(**{"frames": 5, **SETTINGS[name]})
    assert_same(play(t2v, request), library_frames(library_t2v, request), device)


@pytest.mark.parametrize("frames", [1, 9])
def test_a_vace_checkpoint_without_references_is_the_plain_one(
    vace, library_plain, ask, play, device, frames
):
    request = ask(frames=frames)
    assert_same(play(vace, request), library_frames(library_plain, request), device)


@pytest.mark.parametrize(
    ("mode", "frames", "guidance_scale"),
    [
        ("single", 1, 5.0),
        ("single", 9, 5.0),
        ("single", 5, 1.0),
        ("start", 1, 5.0),
        ("start", 9, 5.0),
        ("end", 1, 5.0),
        ("end", 13, 1.0),
        ("both", 5, 5.0),
        ("both", 9, 5.0),
    ],
)
def test_references_are_the_librarys(
    vace, library_vace, ask, play, device, mode, frames, guidance_scale
):
    request = ask(mode=mode, frames=frames, guidance_scale=guidance_scale)
    expected = library_frames(library_vace, request, **conditioning(request))
    assert_same(play(vace, request), expected, device)


@pytest.mark.parametrize("mode", ["none", "start"])
def test_bfloat16_keeps_what_the_library_keeps_in_fp32(
    wan_root, open_resident, ask, play, device, mode, aligned
):
    name, cls = ("wan-t2v", WanPipeline) if mode == "none" else ("wan-vace", WanVACEPipeline)
    pipeline = open_resident(wan_root / name, "bfloat16")
    library = aligned(load(cls, wan_root / name, device, torch.bfloat16))
    request = ask(mode=mode, frames=5)
    extra = {} if mode == "none" else conditioning(request)
    assert_same(play(pipeline, request), library_frames(library, request, **extra), device)
    dtypes = {
        part: {p.dtype for p in pipeline.components[f"wan.{part}"].module.parameters()}
        for part in ("transformer", "vae", "text_encoder")
    }
    assert dtypes == {
        "transformer": {torch.float32, torch.bfloat16},
        "vae": {torch.float32},
        "text_encoder": {torch.bfloat16},
    }


def test_components_hold_the_files_weights_to_the_byte(t2v, vace, library_t2v, library_vace):
    for pipeline, library in ((t2v, library_t2v), (vace, library_vace)):
        for part in ("transformer", "vae", "text_encoder"):
            component = pipeline.components[f"wan.{part}"]
            theirs = getattr(library, part)
            tensors = [*theirs.parameters(), *theirs.buffers()]
            assert component.weight_bytes == sum(t.numel() * t.element_size() for t in tensors)
            ours = component.module.state_dict()
            for name, tensor in theirs.state_dict().items():
                assert torch.equal(ours[name], tensor), name


def test_what_is_asked_moves_the_pixels(t2v, vace, ask, play, end_path):
    """The comparisons above would be blind if prompts or references hardly mattered."""
    base = play(t2v, ask(frames=1)).astype(int)
    for change in ({"prompt": "a ship"}, {"negative_prompt": "a ship"}, {"flow_shift": 9.0}):
        assert np.abs(play(t2v, ask(frames=1, **change)) - base).mean() > 1, change
    for mode in ("single", "start"):
        one, other = ask(mode=mode, frames=1), ask(mode=mode, frames=1, start_path=str(end_path))
        assert np.abs(play(vace, one).astype(int) - play(vace, other)).mean() > 1, mode

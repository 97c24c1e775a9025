"""Plans, warnings and refusals: what a request is answered before anything runs."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.base import CancelToken, UnsupportedRequest
from pipelines.request import TextRequest
from pipelines.wan.prompt import Tokenizer
from pipelines.wan.references import as_frame, read_image

VIDEO_PHASES = {"encode": 1, "denoise": 3, "decode": 3}


@pytest.mark.parametrize(
    ("mode", "frames", "condition"),
    [
        ("single", 9, 3 + 1),
        ("start", 9, 2 * 3),
        ("end", 9, 2 * 3),
        ("both", 9, 2 * 3),
        ("single", 1, 1 + 1),
        ("start", 1, 2),
    ],
)
def test_references_have_a_phase_of_their_own(vace, ask, mode, frames, condition):
    plan = vace.plan(ask(mode=mode, frames=frames))
    assert [phase.name for phase in plan] == ["encode", "condition", "denoise", "decode"]
    assert plan[1].steps == condition
    assert plan[1].components == ("wan.vae",)


@pytest.mark.parametrize("name", ["t2v", "vace"])
def test_without_references_nothing_is_conditioned(request, ask, name):
    plan = request.getfixturevalue(name).plan(ask())
    assert {phase.name: phase.steps for phase in plan} == VIDEO_PHASES
    assert [phase.components for phase in plan] == [
        ("wan.text_encoder",),
        ("wan.transformer",),
        ("wan.vae",),
    ]
    assert all(phase.working_bytes > 0 for phase in plan)


@pytest.mark.parametrize("mode", ["single", "start", "end", "both"])
def test_a_text_to_video_checkpoint_refuses_references(t2v, ask, mode):
    message = f"reference_mode '{mode}': this text-to-video checkpoint serves none"
    for entry in (t2v.plan, t2v.warnings, t2v.begin):
        with pytest.raises(UnsupportedRequest, match=message) as refused:
            entry(ask(mode=mode))
        assert refused.value.field == "reference_mode"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0),
        ("width", 24),
        ("width", -16),
        ("height", 8),
        ("height", 100),
        ("frames", 0),
        ("frames", -3),
        ("frames", 4),
        ("frames", 83),
        ("steps", 0),
        ("flow_shift", 0.0),
        ("flow_shift", float("nan")),
    ],
)
def test_a_shape_that_cannot_be_made_is_refused_by_field(t2v, ask, field, value):
    with pytest.raises(UnsupportedRequest, match=f"{field} {value}") as refused:
        t2v.plan(ask(**{field: value}))
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("mode", "field"),
    [
        ("single", "start_path"),
        ("start", "start_path"),
        ("end", "end_path"),
        ("both", "start_path"),
        ("both", "end_path"),
    ],
)
def test_a_mode_without_its_image_is_refused(vace, ask, mode, field):
    with pytest.raises(UnsupportedRequest) as refused:
        vace.plan(ask(mode=mode, **{field: None}))
    assert refused.value.field == field


def test_one_frame_cannot_be_both_ends(vace, ask):
    with pytest.raises(UnsupportedRequest) as refused:
        vace.plan(ask(mode="both", frames=1))
    assert refused.value.field == "frames"


def test_another_familys_request_is_refused(t2v):
    with pytest.raises(UnsupportedRequest, match="TextRequest"):
        t2v.plan(TextRequest((), 1, 0.0, 1.0, 0))


def test_a_prompt_that_is_cut_is_counted(t2v, ask):
    """The tiny vocabulary has one token for a character and one before each word."""
    assert t2v.warnings(ask()) == ()
    fits = "a" * 510  # with the word's mark and the end token: 512
    assert t2v.warnings(ask(prompt=fits)) == ()
    over = ask(prompt=fits + "bc", negative_prompt=fits + "d")
    assert t2v.warnings(over) == (
        "prompt: has 514 tokens with its end mark, of which 512 are read; the last 2 are cut",
        "negative_prompt: has 513 tokens with its end mark, of which 512 are read;"
        " the last 1 are cut",
    )
    unguided = dataclasses.replace(over, guidance_scale=1.0)
    assert t2v.warnings(unguided) == t2v.warnings(over)[:1]


def test_prompts_are_counted_as_they_will_be_cleaned(t2v, ask):
    assert t2v.warnings(ask(prompt="  &amp;lt;  " * 100 + "a" * 208)) == ()


def test_one_thread_at_a_time_asks_the_tokenizer():
    """The library's keeps truncation and padding in shared state, which each call sets."""

    class Library:
        def __call__(self, prompts, **options):
            assert tokenizer._lock.locked()
            return SimpleNamespace(input_ids=[[0] * 600], attention_mask=[[1] * 600])

    tokenizer = Tokenizer(Library())
    assert tokenizer("a cat") == ([[0] * 600], [[1] * 600])
    assert tokenizer.count("a cat") == 1
    assert not tokenizer._lock.locked()


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
@pytest.mark.parametrize(("mode", "field"), [("single", "start_path"), ("end", "end_path")])
def test_a_file_that_is_no_image_is_named(vace, ask, tmp_path, mode, field, content):
    path = tmp_path / "reference"
    path.write_bytes(content)
    state = vace.begin(ask(mode=mode, **{field: str(path)}))
    vace.step(state, CancelToken())
    with pytest.raises(UnsupportedRequest, match=f"{field}: the image cannot be read") as refused:
        vace.step(state, CancelToken())
    assert refused.value.field == field
    assert str(path) not in str(refused.value)


@pytest.mark.parametrize("size", [(4, 100), (100, 4), (8, 9000)])
def test_a_reference_too_narrow_to_fit_is_named(vace, ask, tmp_path, size):
    path = tmp_path / "narrow.png"
    Image.new("RGB", size).save(path)
    state = vace.begin(ask(mode="single", start_path=str(path)))
    vace.step(state, CancelToken())
    with pytest.raises(UnsupportedRequest) as refused:
        vace.step(state, CancelToken())
    assert refused.value.field == "start_path"


def test_a_reference_is_turned_upright_and_flattened(ask, tmp_path, device):
    """As its EXIF orientation says, and any colour mode becomes RGB."""
    pixels = np.zeros((32, 48, 3), dtype=np.uint8)
    pixels[0, 0] = 255
    upright = Image.fromarray(pixels)
    turned = upright.rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    upright.convert("L").save(tmp_path / "grey.png")
    for name in ("turned.png", "grey.png"):
        request = ask(mode="start", start_path=str(tmp_path / name))
        frame = as_frame(read_image(request, "start_path"), request, device.torch)
        assert frame.shape == (3, 32, 48)
        expected = torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1
        assert torch.allclose(frame.cpu(), expected, atol=1e-6), name

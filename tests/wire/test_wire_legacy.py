"""Legacy types: one table, and payloads as the existing producer writes them."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from ourvidz.config.jobs import LegacyType
from ourvidz.jobs import ImageWork, JobType, TextWork, VideoWork
from ourvidz.wire import parse

ROOT = Path(__file__).parents[2]
SDXL = {
    "sdxl_image_fast": (15, 6.0, "fast"),
    "sdxl_image_high": (25, 7.5, "normal"),
}
WAN = {
    "image_fast": (25, 6.5, 1, "fast"),
    "image_high": (50, 7.5, 1, "normal"),
    "video_fast": (25, 6.5, 81, "fast"),
    "video_high": (50, 7.5, 81, "normal"),
    "wan_video_fast": (25, 6.5, 81, "fast"),
    "wan_video_high": (50, 7.5, 81, "normal"),
    "image7b_fast_enhanced": (25, 6.5, 1, "fast"),
    "image7b_high_enhanced": (50, 7.5, 1, "normal"),
    "video7b_fast_enhanced": (25, 6.5, 81, "fast"),
    "video7b_high_enhanced": (50, 7.5, 81, "normal"),
}


@pytest.mark.parametrize("name", SDXL)
def test_sdxl_rows(name, read):
    steps, guidance, job_class = SDXL[name]
    spec = read(name, prompt="x", config={"num_images": 1, "resolution": "1024x1024"})
    work = spec.final
    assert isinstance(work, ImageWork)
    assert (spec.type, spec.requested_type) == (JobType.SDXL_GENERATE, name)
    assert (work.steps, work.guidance_scale, spec.job_class) == (steps, guidance, job_class)
    assert (work.width, work.height, work.images) == (1024, 1024, 1)
    assert spec.warnings == ()


@pytest.mark.parametrize("name", WAN)
def test_wan_rows(name, read):
    steps, guidance, frames, job_class = WAN[name]
    spec = read(name, prompt="x", config={"num_images": 1, "pipeline": "video"})
    work = spec.final
    assert isinstance(work, VideoWork)
    assert (spec.type, spec.requested_type) == (JobType.WAN_GENERATE, name)
    assert (work.steps, work.guidance_scale, spec.job_class) == (steps, guidance, job_class)
    assert (work.width, work.height, work.frames) == (480, 832, frames)
    assert (work.fps, work.flow_shift) == (16, 5.0)
    assert spec.chained == name.endswith("_enhanced")
    if spec.chained:
        assert isinstance(spec.works[0], TextWork)
        assert spec.works[0].model == "base"
        assert spec.works[0].messages[0].content == "Describe a scene that moves."
    assert spec.warnings == ()


def test_the_shipped_table_is_this_one(rules):
    shipped = tomllib.loads((ROOT / "config.toml").read_text())["legacy_types"]
    assert {name: LegacyType(**row) for name, row in shipped.items()} == rules.legacy_types


def test_a_row_is_all_that_a_type_is(rules, body):
    row = LegacyType(
        type="sdxl_generate",
        job_class="fast",
        enhance="instruct",
        steps=2,
        guidance_scale=3.0,
        width=64,
        height=128,
    )
    spec = parse(
        json.dumps(body("painted", prompt="x")), replace(rules, legacy_types={"painted": row})
    )
    work = spec.final
    assert (work.steps, work.guidance_scale, work.width, work.height) == (2, 3.0, 64, 128)
    assert (spec.works[0].model, spec.job_class) == ("instruct", "fast")


def test_the_payload_counts_over_the_row(read):
    config = {"num_inference_steps": 9, "guidance_scale": 3, "resolution": "512x768"}
    work = read("sdxl_image_high", prompt="x", config=config).final
    assert (work.steps, work.guidance_scale, work.width, work.height) == (9, 3.0, 512, 768)


class TestImages:
    @pytest.mark.parametrize("images", [1, 3, 6, "3"])
    def test_batches(self, images, read):
        spec = read("sdxl_image_fast", prompt="x", config={"num_images": images})
        assert spec.final.images == int(images)
        assert spec.warnings == ()

    @pytest.mark.parametrize("images", [0, 2, 4, 5, 7, 100, -1])
    def test_any_other_number_is_one_with_a_warning(self, images, read):
        spec = read("sdxl_image_fast", prompt="x", config={"num_images": images})
        assert spec.final.images == 1
        assert spec.warnings == (
            f"config.num_images={images} is ignored: "
            "sdxl_image_fast makes 1, 3 or 6 images, 1 is made",
        )

    def test_what_is_no_number_is_refused(self, refuse):
        error = refuse("sdxl_image_fast", prompt="x", config={"num_images": "many"})
        assert error.field == "config.num_images"


def test_image_types_of_wan_make_one_frame(read):
    spec = read("image_fast", prompt="x", config={"frames": 17})
    assert spec.final.frames == 1
    assert spec.warnings == ("config.frames=17 is ignored: image_fast makes one frame",)
    assert read("video_fast", prompt="x", config={"frames": 17}).final.frames == 17


def test_skip_enhancement(read):
    spec = read("video7b_fast_enhanced", prompt="x", metadata={"skip_enhancement": True})
    assert len(spec.works) == 1
    assert spec.warnings == ("metadata.skip_enhancement: the prompt is not enhanced",)
    spec = read("video7b_fast_enhanced", prompt="x", metadata={"skip_enhancement": False})
    assert spec.chained


def test_the_table_says_whether_to_enhance(read):
    spec = read("video_fast", prompt="x", enhance="base")
    assert not spec.chained
    assert spec.warnings == ('enhance="base" is ignored: video_fast says it',)


def producer(job_type, **changes):
    """A queue element as the existing producer writes it: an array with one JSON string."""
    job = {
        "id": "11111111-2222-4333-8444-555555555555",
        "type": job_type,
        "job_id": "11111111-2222-4333-8444-555555555555",
        "job_type": job_type,
        "prompt": "a cat on a roof",
        "user_id": "99999999-8888-4777-8666-555555555555",
        "negative_prompt": "blurry",
        "quality": "fast",
        "format": "image" if "image" in job_type else "video",
        "content_type": "image" if "image" in job_type else "video",
        "image_id": "33333333-2222-4333-8444-555555555555",
        "compel_enabled": False,
        "config": {
            "pipeline": "txt2img" if "image" in job_type else "video",
            "num_images": 6 if "sdxl" in job_type else 1,
            "resolution": "1024x1024",
        },
        "metadata": {
            "contentType": "image" if "image" in job_type else "video",
            "model_variant": "lustify_sdxl",
            "aspect_ratio": "1:1" if "sdxl" in job_type else "16:9",
            "source": "workspace",
        },
    }
    return json.dumps([json.dumps(job | changes)])


def test_the_producers_image_job(rules):
    spec = parse(producer("sdxl_image_fast"), rules)
    work = spec.final
    assert (work.images, work.width, work.height, work.steps) == (6, 1024, 1024, 15)
    assert spec.warnings == ()
    assert spec.extras == {
        "image_id": "33333333-2222-4333-8444-555555555555",
        "metadata": {"model_variant": "lustify_sdxl", "source": "workspace"},
    }


def test_the_producers_video_job(rules):
    spec = parse(producer("video_fast"), rules)
    work = spec.final
    assert (work.width, work.height, work.frames, work.steps) == (832, 480, 81, 25)
    assert spec.warnings == (
        'config.resolution="1024x1024" is ignored: '
        "for WAN width and height count, or aspect_ratio 16:9",
    )

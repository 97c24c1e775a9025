"""WAN jobs: frames, sizes, and which references a mode needs."""

from dataclasses import replace

import pytest

from ourvidz.config.jobs import Defaults, WanDefaults
from ourvidz.jobs import ErrorCode, Reference, VideoWork
from ourvidz.wire import parse_object

KEY = "workspace-temp/a/0.png"
END = "workspace-temp/a/1.png"
IMAGE = "user-library/a/2.png"


def work(read, **fields):
    return read("wan_generate", **{"prompt": "a cat", **fields}).final


def test_the_current_schema_whole(read):
    spec = read(
        "wan_generate",
        prompt="a cat runs",
        negative_prompt="blurry",
        frames=17,
        resolution="832x480",
        fps=24,
        steps=30,
        guidance_scale=6,
        flow_shift=3,
        seed=7,
        reference_mode="start",
        reference_image=KEY,
    )
    assert spec.works == (
        VideoWork(
            prompt="a cat runs",
            negative_prompt="blurry",
            width=832,
            height=480,
            frames=17,
            fps=24,
            steps=30,
            guidance_scale=6.0,
            flow_shift=3.0,
            seed=7,
            mode="start",
            references=(Reference("start", KEY),),
        ),
    )
    assert spec.warnings == ()


def test_defaults(read):
    made = work(read)
    assert (made.frames, made.fps, made.steps) == (81, 16, 50)
    assert (made.guidance_scale, made.flow_shift) == (7.5, 5.0)
    assert (made.width, made.height) == (480, 832)
    assert (made.mode, made.references) == ("none", ())


def test_defaults_come_from_the_configuration(rules, body):
    tiny = Defaults(wan=WanDefaults(steps=3, frames=5, fps=8, width=32, height=64, flow_shift=3.0))
    made = parse_object(
        body("wan_generate", prompt="x", aspect_ratio="16:9"), replace(rules, defaults=tiny)
    ).final
    assert (made.steps, made.frames, made.fps, made.flow_shift) == (3, 5, 8, 3.0)
    assert (made.width, made.height) == (64, 32)


@pytest.mark.parametrize("frames", range(1, 84))
def test_frames_are_rounded_down_to_4k_plus_1(frames, read):
    spec = read("wan_generate", prompt="x", frames=frames)
    made = spec.final.frames
    assert made % 4 == 1
    assert 0 <= frames - made < 4
    assert bool(spec.warnings) == (made != frames)


def test_the_rounding_is_named(read):
    spec = read("wan_generate", prompt="x", config={"frames": "83"})
    assert spec.warnings == ("config.frames: 83 was rounded down to 81, which is 4k+1",)


@pytest.mark.parametrize(
    ("field", "allowed", "bad"),
    [
        ("frames", "1 to 83", [0, 84, -4]),
        ("fps", "1 to 120", [0, 121]),
        ("flow_shift", "0.1 to 100", [0, 101]),
        ("steps", "1 to 150", [0, 151]),
        ("guidance_scale", "0 to 30", [-1, 31]),
        ("width", "16 to 2048", [15, 2049]),
        ("reference_strength", "0 to 1", [2]),
    ],
)
def test_ranges_are_named(field, allowed, bad, refuse):
    for value in bad:
        error = refuse("wan_generate", prompt="x", **{field: value})
        assert (error.code, error.field) == (ErrorCode.INVALID_PARAMETER, field)
        assert f"allowed {allowed}" in error.message


@pytest.mark.parametrize("field", ["frames", "fps", "flow_shift", "num_images"])
@pytest.mark.parametrize("value", [True, [], {}, "", "abc"])
def test_wrong_types_are_named(field, value, refuse):
    assert refuse("wan_generate", prompt="x", **{field: value}).field == field


def test_an_empty_prompt_is_refused(refuse):
    error = refuse("wan_generate", prompt=" ", exact_copy_mode=True, reference_image=KEY)
    assert error.code is ErrorCode.INVALID_PROMPT


class TestSize:
    @pytest.mark.parametrize(
        ("fields", "size"),
        [
            ({"width": 832, "height": 480}, (832, 480)),
            ({"config": {"width": 320, "height": 320}}, (320, 320)),
            ({"resolution": "480x832"}, (480, 832)),
            ({"aspect_ratio": "16:9"}, (832, 480)),
            ({"metadata": {"aspect_ratio": "16:9"}}, (832, 480)),
            ({"metadata": {"aspect_ratio": "9:16"}}, (480, 832)),
            ({"metadata": {"aspect_ratio": "1:1"}}, (480, 832)),
            ({"resolution": "1024x1024"}, (480, 832)),
            ({"config": {"resolution": "1024x1024"}}, (480, 832)),
            ({"resolution": "1024x1024", "aspect_ratio": "16:9"}, (832, 480)),
            ({"resolution": "1024x1024", "width": 640, "height": 480}, (640, 480)),
        ],
    )
    def test_sources(self, fields, size, read):
        made = work(read, **fields)
        assert (made.width, made.height) == size

    def test_the_image_size_of_the_producers_is_ignored_with_a_warning(self, read):
        spec = read("wan_generate", prompt="x", config={"resolution": "1024x1024"})
        assert spec.warnings == (
            'config.resolution="1024x1024" is ignored: '
            "for WAN width and height count, or aspect_ratio 16:9",
        )

    @pytest.mark.parametrize("value", ["1024x576", "1216x832", "high", 1024])
    def test_so_is_any_that_is_too_large_on_a_legacy_type(self, value, read):
        spec = read("video_fast", prompt="x", config={"resolution": value})
        assert (spec.final.width, spec.final.height) == (480, 832)
        assert len(spec.warnings) == 1
        assert spec.warnings[0].startswith("config.resolution=")

    def test_rounding_down_to_16_is_named(self, read):
        spec = read("wan_generate", prompt="x", width=500, height=479)
        assert (spec.final.width, spec.final.height) == (496, 464)
        assert spec.warnings == (
            "width: 500 was rounded down to 496, a multiple of 16",
            "height: 479 was rounded down to 464, a multiple of 16",
        )

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"resolution": "1280x720"}, "resolution"),
            ({"width": 1024, "height": 1024}, "width"),
            ({"config": {"height": 848}}, "config.height"),
        ],
    )
    def test_the_area_is_limited(self, fields, field, refuse):
        error = refuse("wan_generate", prompt="x", **fields)
        assert error.field == field
        assert "allowed at most 399360" in error.message

    def test_a_shape_that_wan_has_not_is_named(self, read):
        spec = read("wan_generate", prompt="x", aspect_ratio="1:1")
        assert spec.warnings == ('aspect_ratio="1:1" is ignored: the size is 480x832',)


START_URLS = {"metadata": {"start_reference_url": KEY}}
BOTH_URLS = {"metadata": {"start_reference_url": KEY, "end_reference_url": END}}


class TestMode:
    @pytest.mark.parametrize(
        ("fields", "mode", "references"),
        [
            ({}, "none", []),
            ({"reference_mode": "none"}, "none", []),
            ({"reference_image": IMAGE}, "single", [("image", IMAGE)]),
            (START_URLS, "start", [("start", KEY)]),
            ({"config": {"first_frame": KEY}}, "start", [("start", KEY)]),
            ({"config": {"last_frame": END}}, "end", [("end", END)]),
            ({"first_frame": KEY, "last_frame": END}, "both", [("start", KEY), ("end", END)]),
            (BOTH_URLS, "both", [("start", KEY), ("end", END)]),
            ({"reference_mode": "single", "first_frame": KEY}, "single", [("image", KEY)]),
            ({"reference_mode": "start", "reference_image": IMAGE}, "start", [("start", IMAGE)]),
            ({"reference_mode": "end", "reference_image": IMAGE}, "end", [("end", IMAGE)]),
            (
                {"reference_mode": "both", "reference_image": IMAGE, "last_frame": END},
                "both",
                [("start", IMAGE), ("end", END)],
            ),
            ({"metadata": {"video_reference_mode": "none"}}, "none", []),
            (
                {"metadata": {"video_reference_mode": "end", "end_reference_url": END}},
                "end",
                [("end", END)],
            ),
            (
                {"metadata": {"reference_mode": "single", "reference_image_url": IMAGE}},
                "single",
                [("image", IMAGE)],
            ),
        ],
    )
    def test_modes(self, fields, mode, references, read):
        spec = read("wan_generate", prompt="x", **fields)
        assert spec.final.mode == mode
        assert spec.final.references == tuple(Reference(*each) for each in references)
        assert spec.warnings == ()

    @pytest.mark.parametrize(
        ("fields", "field", "needed_by"),
        [
            ({"reference_mode": "single"}, "reference_image", 'reference_mode="single"'),
            ({"reference_mode": "start"}, "first_frame", 'reference_mode="start"'),
            ({"reference_mode": "end"}, "last_frame", 'reference_mode="end"'),
            ({"reference_mode": "end", **START_URLS}, "last_frame", 'reference_mode="end"'),
            ({"reference_mode": "both", **START_URLS}, "last_frame", 'reference_mode="both"'),
            (
                {"reference_mode": "both", "reference_image": IMAGE},
                "last_frame",
                'reference_mode="both"',
            ),
            (
                {"metadata": {"video_reference_mode": "both", "end_reference_url": END}},
                "first_frame",
                'metadata.video_reference_mode="both"',
            ),
            ({"config": {"pipeline": "img2img"}}, "reference_image", "pipeline img2img"),
        ],
    )
    def test_an_absent_image_is_never_text_to_video(self, fields, field, needed_by, refuse):
        error = refuse("wan_generate", prompt="x", **fields)
        assert (error.code, error.field) == (ErrorCode.REFERENCE_FRAME, field)
        assert error.message == f"{field}: missing, but {needed_by} needs it"

    def test_images_that_the_mode_does_not_use_are_named(self, read):
        spec = read("wan_generate", prompt="x", reference_mode="start", **BOTH_URLS)
        assert spec.final.references == (Reference("start", KEY),)
        assert spec.warnings == (
            "metadata.end_reference_url is ignored: the reference mode is start",
        )
        spec = read("wan_generate", prompt="x", reference_mode="none", **START_URLS)
        assert spec.final.references == ()
        assert spec.warnings == (
            "metadata.start_reference_url is ignored: the reference mode is none",
        )

    def test_modes_that_disagree_are_named(self, read):
        metadata = {
            "video_reference_mode": "end",
            "reference_mode": "start",
            **BOTH_URLS["metadata"],
        }
        spec = read("wan_generate", prompt="x", metadata=metadata)
        assert spec.final.mode == "end"
        assert spec.warnings[0] == (
            'metadata.reference_mode="start" is ignored: metadata.video_reference_mode="end" counts'
        )

    def test_a_mode_for_images_says_nothing(self, read):
        metadata = {"reference_mode": "modify", **START_URLS["metadata"]}
        spec = read("wan_generate", prompt="x", metadata=metadata)
        assert spec.final.mode == "start"
        assert spec.warnings == ('metadata.reference_mode="modify" is ignored: it is for images',)

    @pytest.mark.parametrize("value", ["middle", 1, True, ["start"], {}])
    def test_unknown_modes(self, value, refuse):
        error = refuse("wan_generate", prompt="x", video_reference_mode=value)
        assert error.field == "video_reference_mode"
        assert "allowed none, single, start, end, both" in error.message

    @pytest.mark.parametrize("field", ["reference_image", "first_frame", "last_frame"])
    @pytest.mark.parametrize("value", ["data:image/png;base64,AAAA", 5, ["a"]])
    def test_unusable_locations(self, field, value, refuse):
        error = refuse("wan_generate", prompt="x", **{field: value})
        assert (error.code, error.field) == (ErrorCode.REFERENCE_FRAME, field)

    def test_one_frame_cannot_join_two_images(self, refuse):
        error = refuse("wan_generate", prompt="x", frames=2, **BOTH_URLS)
        assert (error.code, error.field) == (ErrorCode.INVALID_PARAMETER, "frames")


def test_fields_of_image_jobs_are_named(read):
    spec = read(
        "wan_generate",
        prompt="x",
        compel_enabled=True,
        format="image",
        config={"num_images": 3, "sample_solver": "unipc", "denoise_strength": 0.5},
        metadata={"exact_copy_mode": True, "contentType": "video", "reference_strength": 0.5},
    )
    assert spec.warnings == (
        "config.num_images=3 is ignored: WAN makes one video or image",
        "config.denoise_strength=0.5 is ignored: WAN takes its references whole",
        "metadata.reference_strength=0.5 is ignored: WAN takes its references whole",
        "metadata.exact_copy_mode=true is ignored: it is for images",
        "compel_enabled=true is ignored: prompt weighting is not offered",
        'config.sample_solver="unipc" is ignored: the checkpoint\'s own scheduler is used',
        'format="image" is ignored: videos are MP4',
    )
    quiet = {"num_images": 1, "pipeline": "video"}
    assert read("wan_generate", prompt="x", format="video", config=quiet).warnings == ()
    assert read("wan_generate", prompt="x", format="image", frames=1).warnings == ()

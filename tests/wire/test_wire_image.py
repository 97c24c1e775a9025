"""SDXL jobs: every field's names, range, rounding and default."""

from dataclasses import replace

import pytest

from ourvidz.config.jobs import Defaults, Limits, Range, SdxlDefaults
from ourvidz.jobs import ErrorCode, ImageWork, Reference
from ourvidz.wire import parse_object

URL = "https://project.supabase.co/storage/v1/object/sign/workspace-temp/a.png?token=abc"


def work(read, **fields):
    return read("sdxl_generate", **{"prompt": "a cat", **fields}).final


def test_the_current_schema_whole(read):
    spec = read(
        "sdxl_generate",
        prompt="a cat",
        negative_prompt="blurry",
        steps=20,
        guidance_scale=5,
        batch_size=3,
        resolution="832x1216",
        seed=7,
        reference_image=URL,
        denoise_strength=0.7,
        reproducible=True,
    )
    assert spec.works == (
        ImageWork(
            prompt="a cat",
            negative_prompt="blurry",
            width=832,
            height=1216,
            images=3,
            steps=20,
            guidance_scale=5.0,
            seed=7,
            strength=0.7,
            references=(Reference("image", URL),),
            reproducible=True,
        ),
    )
    assert spec.warnings == ()
    assert spec.extras == {}
    assert not spec.chained


def test_defaults(read):
    made = work(read)
    assert (made.steps, made.guidance_scale, made.images) == (25, 7.5, 1)
    assert (made.width, made.height, made.negative_prompt) == (1024, 1024, "")
    assert (made.strength, made.references, made.reproducible) == (None, (), False)


@pytest.mark.parametrize(
    ("fields", "attribute", "value"),
    [
        ({"num_inference_steps": 11}, "steps", 11),
        ({"config": {"num_inference_steps": 11}}, "steps", 11),
        ({"config": {"steps": 11}}, "steps", 11),
        ({"input": {"steps": 11}}, "steps", 11),
        ({"config": {"guidance_scale": 0}}, "guidance_scale", 0.0),
        ({"num_images": 2}, "images", 2),
        ({"config": {"num_images": 5}}, "images", 5),
        ({"config": {"batch_size": 4}}, "images", 4),
        ({"config": {"seed": 9}}, "seed", 9),
        ({"metadata": {"negative_prompt": "n"}}, "negative_prompt", "n"),
        ({"config": {"prompt": "a dog"}, "prompt": None}, "prompt", "a dog"),
        ({"config": {"reproducible": "true"}}, "reproducible", True),
        ({"steps": "25"}, "steps", 25),
        ({"steps": 25.0}, "steps", 25),
        ({"steps": " 25.0 "}, "steps", 25),
        ({"guidance_scale": "7.25"}, "guidance_scale", 7.25),
        ({"guidance_scale": "1e1"}, "guidance_scale", 10.0),
        ({"steps": 1}, "steps", 1),
        ({"steps": 150}, "steps", 150),
        ({"guidance_scale": 30}, "guidance_scale", 30.0),
        ({"batch_size": 6}, "images", 6),
    ],
)
def test_names_and_spellings(fields, attribute, value, read):
    assert getattr(work(read, **fields), attribute) == value


@pytest.mark.parametrize(
    ("field", "allowed", "bad"),
    [
        ("steps", "1 to 150", [0, -1, 151, 10**18, 1e300]),
        ("guidance_scale", "0 to 30", [-0.1, 30.1, -1e300]),
        ("batch_size", "1 to 6", [0, 7, -3]),
        ("denoise_strength", "0 to 1", [-0.01, 1.01]),
        ("reference_strength", "0 to 1", [-0.01, 2]),
        ("width", "16 to 2048", [0, 15, 2049, -8]),
        ("height", "16 to 2048", [0, 15, 2049, -8]),
    ],
)
def test_ranges_are_named(field, allowed, bad, refuse):
    for value in bad:
        error = refuse("sdxl_generate", prompt="x", **{field: value})
        assert (error.code, error.field) == (ErrorCode.INVALID_PARAMETER, field)
        assert f"allowed {allowed}" in error.message


@pytest.mark.parametrize(
    "field", ["steps", "guidance_scale", "batch_size", "seed", "width", "height", "resolution"]
)
@pytest.mark.parametrize(
    "value", [True, False, [], {}, [5], "", "abc", "0x10", "5 5", "NaN", "--5"]
)
def test_wrong_types_are_named(field, value, refuse):
    error = refuse("sdxl_generate", prompt="x", config={field: value})
    assert error.code is ErrorCode.INVALID_PARAMETER
    assert error.field == f"config.{field}"


def test_whole_numbers_only(refuse):
    assert refuse("sdxl_generate", prompt="x", steps=25.5).message == (
        "steps: must be a whole number, got 25.5"
    )


def test_limits_come_from_the_configuration(rules, body):
    tight = replace(rules, limits=Limits(steps=Range(min=10, max=20), prompt_characters=3))
    error = parse_object(body("sdxl_generate", prompt="abc", steps=21), tight).error
    assert error.message == "steps: 21 is out of range, allowed 10 to 20"
    error = parse_object(body("sdxl_generate", prompt="abcd", steps=15), tight).error
    assert error.code is ErrorCode.INVALID_PROMPT
    assert "4 characters are too many, allowed at most 3" in error.message


class TestPrompt:
    @pytest.mark.parametrize("value", [None, "", "  \n", 5, [], {}, True])
    def test_refused(self, value, refuse):
        error = refuse("sdxl_generate", prompt=value)
        assert (error.code, error.field) == (ErrorCode.INVALID_PROMPT, "prompt")

    def test_the_length_limit_is_exact(self, read, refuse):
        assert len(work(read, prompt="\u4e16" * 20_000).prompt) == 20_000
        error = refuse("sdxl_generate", prompt="x" * 20_001)
        assert error.message == "prompt: 20001 characters are too many, allowed at most 20000"

    def test_the_negative_prompt_too(self, refuse):
        error = refuse("sdxl_generate", prompt="x", negative_prompt="x" * 20_001)
        assert (error.code, error.field) == (ErrorCode.INVALID_PROMPT, "negative_prompt")

    def test_nul_is_taken_out(self, read):
        spec = read("sdxl_generate", prompt="a\0 cat")
        assert spec.original_prompt == spec.final.prompt == "a cat"
        assert spec.warnings == ("prompt: NUL characters were taken out",)

    def test_a_negative_prompt_without_guidance_is_named(self, read):
        spec = read("sdxl_generate", prompt="x", negative_prompt="y", guidance_scale=1)
        assert "negative_prompt has no effect" in spec.warnings[0]


class TestSize:
    @pytest.mark.parametrize(
        ("fields", "size"),
        [
            ({"resolution": "768x512"}, (768, 512)),
            ({"resolution": " 768 X 512 "}, (768, 512)),
            ({"resolution": "768\u00d7512"}, (768, 512)),
            ({"config": {"resolution": "768x512"}}, (768, 512)),
            ({"config": {"width": 640, "height": "320"}}, (640, 320)),
            ({"width": 640}, (640, 1024)),
            ({"height": 640, "resolution": "768x512"}, (768, 640)),
            ({"width": 640, "height": 640, "config": {"resolution": "1024x1024"}}, (640, 640)),
            ({"resolution": "768x512", "config": {"width": 640, "height": 640}}, (768, 512)),
            ({"config": {"width": 640, "height": 640, "resolution": "768x512"}}, (640, 640)),
            ({"aspect_ratio": "16:9"}, (1360, 768)),
            ({"metadata": {"aspect_ratio": "9:16"}}, (768, 1360)),
            ({"metadata": {"aspect_ratio": "1:1"}}, (1024, 1024)),
            ({"resolution": "2048x1024"}, (2048, 1024)),
            ({"resolution": "1448x1448"}, (1448, 1448)),
        ],
    )
    def test_sources(self, fields, size, read):
        made = work(read, **fields)
        assert (made.width, made.height) == size

    def test_rounding_down_is_named(self, read):
        spec = read("sdxl_generate", prompt="x", width=1023, config={"height": 519})
        assert (spec.final.width, spec.final.height) == (1016, 512)
        assert spec.warnings == (
            "width: 1023 was rounded down to 1016, a multiple of 8",
            "config.height: 519 was rounded down to 512, a multiple of 8",
        )

    def test_overruled_sources_are_named(self, read):
        spec = read("sdxl_generate", prompt="x", width=640, height=640, resolution="768x512")
        assert spec.warnings == ('resolution="768x512" is ignored: width and height count',)
        spec = read("sdxl_generate", prompt="x", resolution="768x512", config={"width": 640})
        assert spec.warnings == ('config.width=640 is ignored: resolution="768x512" counts',)
        spec = read("sdxl_generate", prompt="x", resolution="1024x1024", aspect_ratio="16:9")
        assert spec.warnings == ('aspect_ratio="16:9" is ignored: the size is 1024x1024',)
        assert not read(
            "sdxl_generate", prompt="x", resolution="1344x768", aspect_ratio="16:9"
        ).warnings

    @pytest.mark.parametrize(
        ("fields", "field", "says"),
        [
            ({"resolution": "2048x2048"}, "resolution", "allowed at most 2097152"),
            ({"width": 2048, "height": 1032}, "width", "2048x1032 is 2113536 pixels"),
            ({"resolution": "1024"}, "resolution", 'must be "WIDTHxHEIGHT"'),
            ({"resolution": "0x0"}, "resolution", "0 is out of range"),
            ({"resolution": "9999999x8"}, "resolution", "must be"),
            ({"resolution": "99999x16"}, "resolution", "allowed 16 to 2048"),
            ({"resolution": "-8x1024"}, "resolution", "must be"),
            ({"resolution": [1024, 1024]}, "resolution", "got an array"),
            ({"aspect_ratio": "1:9999"}, "aspect_ratio", "is out of range"),
        ],
    )
    def test_refused(self, fields, field, says, refuse):
        error = refuse("sdxl_generate", prompt="x", **fields)
        assert error.field == field
        assert says in error.message

    @pytest.mark.parametrize("value", ["square", "0:1", "16/9", 1.78, [], True])
    def test_an_odd_ratio_is_ignored_with_a_warning(self, value, read):
        spec = read("sdxl_generate", prompt="x", metadata={"aspect_ratio": value})
        assert (spec.final.width, spec.final.height) == (1024, 1024)
        assert spec.warnings[0].endswith("is ignored: it is not a ratio such as 16:9")


def test_nothing_that_is_not_honoured_goes_unnamed(read):
    spec = read(
        "sdxl_generate",
        prompt="x",
        compel_enabled=True,
        compel_weights={"a": 1.2},
        quality="high",
        format="jpg",
        content_type="video",
        config={"sample_solver": "unipc"},
        metadata={"contentType": "image", "frames": 3},
    )
    assert spec.warnings == (
        "compel_enabled=true is ignored: prompt weighting is not offered",
        "compel_weights (an object) is ignored: no prompt weighting",
        'config.sample_solver="unipc" is ignored: the checkpoint\'s own scheduler is used',
        'quality="high" is ignored: no setting follows from it',
        'format="jpg" is ignored: images are PNG',
        'content_type="video" is ignored: images are PNG',
    )
    assert read("sdxl_generate", prompt="x", compel_enabled=False, format="image").warnings == ()


@pytest.mark.parametrize("rating", ["sfw", "nsfw"])
def test_a_rating_is_not_taken_for_a_kind_of_file(read, rating):
    spec = read("sdxl_generate", prompt="x", metadata={"contentType": rating})
    assert spec.warnings == (
        f'metadata.contentType="{rating}" is ignored: there is no content policy here',
    )


def test_defaults_come_from_the_configuration(rules, body):
    tiny = Defaults(sdxl=SdxlDefaults(steps=4, guidance_scale=2.0, images=2, width=64, height=72))
    made = parse_object(body("sdxl_generate", prompt="x"), replace(rules, defaults=tiny)).final
    assert (made.steps, made.guidance_scale, made.images) == (4, 2.0, 2)
    assert (made.width, made.height) == (64, 72)

"""SDXL jobs from a reference image: where it is named, how much of it stays, exact copies."""

import math
from dataclasses import replace

import pytest

from ourvidz.config.jobs import Limits, Range
from ourvidz.jobs import ErrorCode, Reference
from ourvidz.wire import parse_object

URL = "https://project.supabase.co/storage/v1/object/sign/workspace-temp/a.png?token=abc"
KEY = "workspace-temp/11111111-2222-4333-8444-555555555555/0.png"


def work(read, **fields):
    return read("sdxl_generate", **{"prompt": "a cat", **fields}).final


class TestReference:
    @pytest.mark.parametrize(
        "fields",
        [
            {"reference_image": URL},
            {"reference_image_url": URL},
            {"config": {"image": URL}},
            {"metadata": {"reference_image_url": URL}},
            {"metadata": {"reference_image_url": f" {URL} "}},
            {"reference_image": "", "metadata": {"reference_image_url": URL}},
            {"metadata": {"reference_image_url": URL, "reference_mode": "modify"}},
            {"metadata": {"reference_image_url": URL}, "config": {"pipeline": "img2img"}},
            {"reference_mode": "single", "reference_image": URL},
        ],
    )
    def test_names(self, fields, read):
        spec = read("sdxl_generate", prompt="x", **fields)
        assert spec.final.references == (Reference("image", URL),)
        assert spec.final.strength == 0.5
        assert spec.warnings == ()

    @pytest.mark.parametrize("empty", ["", " "])
    def test_an_empty_name_alone_is_no_image_and_is_told(self, empty, read):
        fields = {"reference_image": empty, "metadata": {"reference_image_url": empty}}
        spec = read("sdxl_generate", prompt="x", **fields)
        assert spec.final.references == ()
        assert spec.warnings == (
            "reference_image is ignored: it is empty",
            "metadata.reference_image_url is ignored: it is empty",
        )

    def test_a_bare_storage_key(self, read):
        assert work(read, reference_image=KEY).references == (Reference("image", KEY),)

    @pytest.mark.parametrize(
        ("fields", "needed_by"),
        [
            ({"config": {"pipeline": "img2img"}}, "pipeline img2img"),
            ({"metadata": {"reference_mode": "modify"}}, 'metadata.reference_mode="modify"'),
            ({"reference_mode": "single"}, 'reference_mode="single"'),
            ({"metadata": {"reference_mode": "copy"}}, "exact copy"),
            ({"metadata": {"exact_copy_mode": True}}, "exact copy"),
            ({"config": {"pipeline": "img2img"}, "reference_image": " "}, "pipeline img2img"),
        ],
    )
    def test_missing_is_never_text_to_image(self, fields, needed_by, refuse):
        error = refuse("sdxl_generate", prompt="x", **fields)
        assert (error.code, error.field) == (ErrorCode.REFERENCE_FRAME, "reference_image")
        assert error.message == f"reference_image: missing, but {needed_by} needs it"
        assert "metadata.reference_image_url" in error.hint

    @pytest.mark.parametrize(
        "value",
        [
            "data:image/png;base64,iVBORw0KGgo=",
            " DATA:image/png,x",
            17,
            True,
            [],
            {},
            [URL],
            "https://host/\nHost: evil",
            "https://host/" + "a" * 4096,
        ],
    )
    def test_unusable_locations(self, value, refuse):
        error = refuse("sdxl_generate", prompt="x", metadata={"reference_image_url": value})
        assert error.code is ErrorCode.REFERENCE_FRAME
        assert error.field == "metadata.reference_image_url"
        assert "base64" not in error.message

    def test_what_contradicts_a_reference_is_named(self, read):
        spec = read("sdxl_generate", prompt="x", reference_image=KEY, reference_mode="none")
        assert spec.final.references == ()
        assert spec.warnings == ("reference_image is ignored: reference_mode is none",)
        spec = read(
            "sdxl_generate", prompt="x", reference_image=KEY, config={"pipeline": "txt2img"}
        )
        assert spec.final.references == (Reference("image", KEY),)
        assert spec.warnings == ("pipeline txt2img is ignored: reference_image is given",)

    @pytest.mark.parametrize("field", ["reference_mode", "pipeline"])
    def test_unknown_modes(self, field, refuse):
        error = refuse("sdxl_generate", prompt="x", reference_image=KEY, **{field: "inpaint"})
        assert error.field == field
        assert '"inpaint", allowed ' in error.message


class TestStrength:
    def test_reference_strength_is_what_is_kept(self, read):
        assert work(read, reference_image=KEY, reference_strength=0.9).strength == 0.1
        made = work(read, metadata={"reference_image_url": KEY, "reference_strength": "0.25"})
        assert made.strength == 0.75

    def test_denoise_strength_counts(self, read):
        fields = {"reference_image": KEY, "denoise_strength": 0.6}
        assert read("sdxl_generate", prompt="x", reference_strength=0.4, **fields).warnings == ()
        spec = read("sdxl_generate", prompt="x", reference_strength=0.5, **fields)
        assert spec.final.strength == 0.6
        assert spec.warnings == ("reference_strength=0.5 is ignored: denoise_strength=0.6 counts",)

    def test_without_a_reference_it_is_named(self, read):
        spec = read("sdxl_generate", prompt="x", config={"denoise_strength": 0.6})
        assert spec.final.strength is None
        assert spec.warnings == (
            "config.denoise_strength=0.6 is ignored: there is no reference image",
        )

    @pytest.mark.parametrize("steps", [1, 2, 7, 15, 20, 30, 149, 150])
    @pytest.mark.parametrize("strength", [0, 0.001, 0.006, 0.01, 0.03, 0.05, 0.07, 0.3, 1])
    def test_at_least_one_step_is_run(self, steps, strength, read):
        fields = {"prompt": "x", "reference_image": KEY}
        spec = read("sdxl_generate", steps=steps, denoise_strength=strength, **fields)
        made = spec.final
        assert int(made.steps * made.strength) >= 1
        assert steps <= made.steps <= 150
        changed = (made.steps, made.strength) != (steps, strength)
        assert changed == (int(steps * strength) < 1) == bool(spec.warnings)

    def test_rounding_does_not_cost_the_step(self, read):
        strength = math.nextafter(1 / 20, 0)
        assert (1 / strength, int(20 * strength)) == (20, 0)
        made = work(read, steps=10, reference_image=KEY, denoise_strength=strength)
        assert (made.steps, made.strength) == (21, strength)

    def test_the_limit_of_steps_holds(self, rules, body):
        few = replace(rules, limits=Limits(steps=Range(min=1, max=10)))
        fields = {"steps": 4, "reference_image": KEY, "denoise_strength": 0.05}
        made = parse_object(body("sdxl_generate", prompt="x", **fields), few).final
        assert (made.steps, made.strength) == (10, 0.1)


class TestExactCopy:
    @pytest.mark.parametrize(
        "metadata", [{"exact_copy_mode": True}, {"reference_mode": "copy"}, {"exact_copy_mode": 1}]
    )
    def test_copies(self, metadata, read):
        spec = read("sdxl_generate", metadata={"reference_image_url": KEY, **metadata})
        made = spec.final
        assert (made.prompt, made.strength, made.guidance_scale) == ("", 0.05, 1.0)
        assert int(made.steps * made.strength) == 1
        assert spec.original_prompt == ""

    def test_lowered_settings_are_named(self, read):
        spec = read(
            "sdxl_generate",
            prompt="x",
            steps=40,
            guidance_scale=7.5,
            denoise_strength=0.5,
            reference_image=KEY,
            exact_copy_mode=True,
        )
        assert (spec.final.steps, spec.final.strength) == (40, 0.05)
        assert spec.warnings == (
            "denoise_strength: 0.5 was lowered to 0.05 for the exact copy",
            "guidance_scale=7.5 is ignored: an exact copy runs at 1",
        )

    def test_a_weaker_strength_stays(self, read):
        made = work(read, steps=100, reference_image=KEY, exact_copy_mode=1, denoise_strength=0.02)
        assert (made.steps, made.strength) == (100, 0.02)

    def test_the_originals_seed(self, read, refuse):
        copied = {"reference_image_url": KEY, "exact_copy_mode": True, "originalSeed": 77}
        assert work(read, metadata=copied).seed == 77
        assert work(read, metadata=copied, seed=5).seed == 5
        assert refuse("sdxl_generate", metadata=copied | {"originalSeed": -1}).field == (
            "metadata.originalSeed"
        )
        spec = read("sdxl_generate", prompt="x", metadata={"originalSeed": 77})
        assert spec.final.seed != 77
        assert spec.warnings[0].startswith("metadata.originalSeed=77 is ignored")
        error = refuse("sdxl_generate", metadata=copied | {"originalSeed": 2**31 - 1}, batch_size=3)
        assert "allowed 0 to 2147483645" in error.message

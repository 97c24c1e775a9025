"""Callbacks byte for byte: ``golden/NAME.json`` is the body as it is signed and posted."""

import json
from pathlib import Path
from uuid import UUID

import pytest

from ourvidz.jobs import (
    Asset,
    ErrorCode,
    InvalidJob,
    JobError,
    JobResult,
    TextResult,
    TextWork,
)
from ourvidz.wire import (
    asset_key,
    asset_metadata,
    callback_completed,
    callback_failed,
    callback_invalid,
    callback_processing,
    parse,
    thumbnail_key,
)

GOLDEN = Path(__file__).parent / "golden"
OUT_OF_MEMORY = JobError(ErrorCode.OUT_OF_MEMORY, "sdxl decode: no memory left", retryable=True)
CANCELLED = JobError(ErrorCode.CANCELLED, "the job was cancelled")
STAMP = 1_790_000_000.25


def asset(spec, index, size_bytes=1000, thumbnail=True):
    """A file of the job, as the media writers and the spool would report it."""
    work = spec.final
    frames = getattr(work, "frames", 1)
    video = frames > 1
    measured = {"width": work.width, "height": work.height, "frames": frames}
    return Asset(
        index=index,
        kind="video" if video else "image",
        key=asset_key(spec.user_id, spec.id, index, "mp4" if video else "png"),
        path=f"/spool/{index}",
        mime="video/mp4" if video else "image/png",
        sha256="0" * 64,
        size_bytes=size_bytes + index,
        metadata=asset_metadata(work, index, size_bytes=size_bytes + index, **measured),
        thumbnail_key=thumbnail_key(spec.user_id, spec.id, index) if thumbnail else None,
        thumbnail_path=f"/spool/{index}.thumb" if thumbnail else None,
        **measured,
    )


def images(read):
    spec = read(
        "sdxl_generate", prompt="a cat", negative_prompt="blurry", steps=20, batch_size=3, seed=7
    )
    files = tuple(asset(spec, i) for i in (2, 0, 1))
    return callback_completed(spec, JobResult("completed", files, generation_seconds=1.23456))


def images_complete(read):
    spec = read("sdxl_generate", prompt="a cat", batch_size=3, seed=7)
    files = (asset(spec, 2), asset(spec, 1, thumbnail=False))
    result = JobResult("completed", files, failed={0: OUT_OF_MEMORY})
    return callback_completed(spec, result, "generation-complete")


def video_complete(read):
    spec = read("wan_generate", prompt="a cat", frames=17, seed=7)
    result = JobResult("completed", (asset(spec, 0),))
    return callback_completed(spec, result, "generation-complete")


def img2img(read):
    spec = read("sdxl_generate", prompt="a cat", seed=7, reference_image="k", width=1023)
    run_warnings = ("prompt: 90 tokens were cut to 77", spec.warnings[0])
    result = JobResult("completed", (asset(spec, 0, thumbnail=False),), warnings=run_warnings)
    return callback_completed(spec, result)


def legacy_images(read):
    spec = read("sdxl_image_fast", prompt="a cat", config={"num_images": 6, "seed": 100})
    files = tuple(asset(spec, i) for i in range(6))
    return callback_completed(spec, JobResult("completed", files, generation_seconds=12))


def partial_failure(read):
    spec = read("sdxl_generate", prompt="a cat", batch_size=4, seed=7)
    failed = {3: OUT_OF_MEMORY, 0: OUT_OF_MEMORY}
    files = (asset(spec, 1), asset(spec, 2))
    return callback_completed(spec, JobResult("completed", files, failed=failed))


def video(read):
    spec = read("wan_generate", prompt="a cat", frames=83, seed=7, resolution="1024x1024")
    return callback_completed(spec, JobResult("completed", (asset(spec, 0),)))


def wan_image(read):
    spec = read("image_high", prompt="a cat", seed=7)
    return callback_completed(spec, JobResult("completed", (asset(spec, 0),)))


def enhanced(read):
    spec = read("enhance_instruct", prompt="a cat", target_model="sdxl", seed=7)
    text = TextResult("A grey cat on a roof\0 at dusk", 40, 9, "stop")
    return callback_completed(spec, JobResult("completed", text=text, generation_seconds=0.5))


def chat(read):
    spec = read("chat", messages=[{"role": "user", "content": "Hello \u4e16"}], seed=7)
    text = TextResult('A "quoted" answer \U0001f408', 12, 6, "length")
    return callback_completed(spec, JobResult("completed", text=text))


def chain(read):
    spec = read("video7b_fast_enhanced", prompt="a cat", config={"seed": 7})
    result = JobResult("completed", (asset(spec, 0),), final_prompt="A grey cat runs")
    return callback_completed(spec, result)


def failed(read):
    spec = read("sdxl_image_high", prompt="a cat", config={"num_images": 2, "seed": 7})
    errors = {0: OUT_OF_MEMORY}
    result = JobResult("failed", error=OUT_OF_MEMORY, failed=errors, generation_seconds=3.5)
    return callback_failed(spec, result, STAMP)


def failed_chain(read):
    spec = read("wan_generate", prompt="a cat", enhance="base", seed=7)
    error = JobError(ErrorCode.TIMEOUT, "enhance: no token for 30 s", retryable=True)
    return callback_failed(spec, JobResult("failed", error=error), "2026-11-21T00:00:00Z")


def cancelled(read):
    spec = read("wan_generate", prompt="a cat", seed=7)
    return callback_failed(spec, JobResult("cancelled", error=CANCELLED), STAMP)


def processing(read):
    spec = read("wan_generate", prompt="a cat")
    return callback_processing(spec, {"progress": 41.97, "phase": "denoise", "steps_done": 21})


RENDERED = {
    case.__name__: case
    for case in (
        images,
        images_complete,
        video_complete,
        img2img,
        legacy_images,
        partial_failure,
        video,
        wan_image,
        enhanced,
        chat,
        chain,
        failed,
        failed_chain,
        cancelled,
        processing,
    )
}
INVALID = {
    "invalid_field": {"type": "sdxl_generate", "prompt": "x", "steps": 500},
    "invalid_type": {"type": "sdxl_imag_fast", "prompt": "x"},
    "invalid_no_type": {"prompt": "x"},
    "invalid_id": {"id": "job-17", "type": "chat", "prompt": "x"},
    "invalid_reference": {"type": "wan_generate", "prompt": "x", "reference_mode": "both"},
}


@pytest.mark.parametrize("name", RENDERED)
def test_golden(name, read):
    assert RENDERED[name](read) == (GOLDEN / f"{name}.json").read_bytes().rstrip()


@pytest.mark.parametrize("name", INVALID)
def test_golden_invalid(name, rules, body):
    fields = body("chat") | INVALID[name]
    fields = {
        key: value for key, value in fields.items() if key in {"id", "user_id", *INVALID[name]}
    }
    job = parse(json.dumps(fields), rules)
    assert isinstance(job, InvalidJob)
    assert callback_invalid(job, STAMP) == (GOLDEN / f"{name}.json").read_bytes().rstrip()


def test_every_golden_file_belongs_to_a_case():
    assert {path.stem for path in GOLDEN.glob("*.json")} == {*RENDERED, *INVALID}


def test_assets_are_in_order_and_without_gaps(read):
    sent = json.loads(partial_failure(read))
    assert [each["metadata"]["asset_index"] for each in sent["assets"]] == [0, 1]
    assert [each["url"].rsplit("/", 1)[1] for each in sent["assets"]] == ["1.png", "2.png"]
    assert [each["metadata"]["seed"] for each in sent["assets"]] == [8, 9]
    assert sent["metadata"]["failed_indices"] == [0, 3]


@pytest.mark.parametrize("kind", ["sdxl_generate", "wan_generate"])
def test_the_second_shape_says_all_that_the_first_does(kind, read):
    spec = read(kind, prompt="x", seed=3)
    result = JobResult("completed", (asset(spec, 0),))
    first = json.loads(callback_completed(spec, result))
    second = json.loads(callback_completed(spec, result, "generation-complete"))
    (plain,), (flat,) = first.pop("assets"), second.pop("assets")
    assert first == second
    assert {name: flat[name] for name in plain} == plain
    assert flat.keys() - plain.keys() >= {"asset_type", "temp_storage_path", "generation_seed"}


def test_frames_are_those_of_the_file(read):
    spec = read("wan_generate", prompt="x", frames=17)
    file = asset(spec, 0)
    assert file.metadata["duration_seconds"] == 1.0625
    assert (
        json.loads(callback_completed(spec, JobResult("completed", (file,))))["metadata"][
            "frame_num"
        ]
        == 17
    )


@pytest.mark.parametrize(
    ("given", "sent"),
    [(0, 0), (99.99, 99), (100, 100), (250, 100), (-3, 0), (float("nan"), 0), (float("inf"), 100)],
)
def test_progress_is_a_whole_number_of_per_cent(given, sent, read):
    body = json.loads(callback_processing(read("chat", prompt="x"), {"progress": given}))
    assert body["metadata"] == {"job_type": "chat", "progress": sent}
    assert body["status"] == "processing"


def test_only_what_fits_is_rendered(read):
    spec = read("chat", prompt="x")
    with pytest.raises(ValueError, match=r"result\.status: failed"):
        callback_completed(spec, JobResult("failed", error=OUT_OF_MEMORY))
    with pytest.raises(ValueError, match=r"result\.status: completed"):
        callback_failed(spec, JobResult("completed"), STAMP)
    unknown = InvalidJob(None, "chat", None, "0" * 64, OUT_OF_MEMORY)
    with pytest.raises(ValueError, match=r"job\.id: unknown"):
        callback_invalid(unknown, STAMP)


def test_a_text_job_says_nothing_of_files(read):
    assert isinstance(read("chat", prompt="x").final, TextWork)
    metadata = json.loads(chat(read))["metadata"]
    assert "frame_num" not in metadata
    assert "enhanced_prompt" not in metadata
    assert metadata["num_images"] == 0


def test_the_users_key_is_where_the_file_goes(read):
    spec = read("sdxl_generate", prompt="x")
    assert asset(spec, 4).key == f"{UUID(int=spec.user_id.int)}/{spec.id}/4.png"

"""The rules as the service ships them, written out here so that a changed default is noticed."""

import json
from uuid import UUID

import pytest

from ourvidz.config.jobs import Defaults, Enhancement, LegacyType, Limits
from ourvidz.jobs import InvalidJob, JobSpec
from ourvidz.wire import Rules, parse

JOB = "11111111-2222-4333-8444-555555555555"
USER = "99999999-8888-4777-8666-555555555555"
SDXL_FAST = {"type": "sdxl_generate", "steps": 15, "guidance_scale": 6.0}
SDXL_HIGH = {"type": "sdxl_generate", "steps": 25, "guidance_scale": 7.5}
WAN_FAST = {"type": "wan_generate", "steps": 25, "guidance_scale": 6.5}
WAN_HIGH = {"type": "wan_generate", "steps": 50, "guidance_scale": 7.5}
SQUARE = {"width": 1024, "height": 1024}
TALL = {"width": 480, "height": 832}
IMAGE, VIDEO = {"frames": 1}, {"frames": 81}
ROWS = {
    "sdxl_image_fast": SDXL_FAST | SQUARE | {"job_class": "fast"},
    "sdxl_image_high": SDXL_HIGH | SQUARE,
    "image_fast": WAN_FAST | TALL | IMAGE | {"job_class": "fast"},
    "image_high": WAN_HIGH | TALL | IMAGE,
    "video_fast": WAN_FAST | TALL | VIDEO | {"job_class": "fast"},
    "video_high": WAN_HIGH | TALL | VIDEO,
    "wan_video_fast": WAN_FAST | TALL | VIDEO | {"job_class": "fast"},
    "wan_video_high": WAN_HIGH | TALL | VIDEO,
    "image7b_fast_enhanced": WAN_FAST | TALL | IMAGE | {"job_class": "fast", "enhance": "base"},
    "image7b_high_enhanced": WAN_HIGH | TALL | IMAGE | {"enhance": "base"},
    "video7b_fast_enhanced": WAN_FAST | TALL | VIDEO | {"job_class": "fast", "enhance": "base"},
    "video7b_high_enhanced": WAN_HIGH | TALL | VIDEO | {"enhance": "base"},
}


@pytest.fixture(scope="session")
def rules():
    return Rules(
        limits=Limits(),
        defaults=Defaults(),
        legacy_types={name: LegacyType(**row) for name, row in ROWS.items()},
        enhancement=Enhancement(sdxl="Describe an image.", wan="Describe a scene that moves."),
        default_user_id=UUID(int=0),
        job_classes=frozenset({"normal", "fast"}),
    )


@pytest.fixture(scope="session")
def body():
    """``body(type, **fields)``: a payload that lacks nothing but what its type needs."""

    def make(job_type, **fields):
        return {"id": JOB, "user_id": USER, "type": job_type, **fields}

    return make


@pytest.fixture(scope="session")
def read(rules, body):
    """``read(type, **fields)``: the job, which must be a runnable one."""

    def make(job_type, **fields):
        job = parse(json.dumps(body(job_type, **fields)), rules)
        assert isinstance(job, JobSpec), job
        return job

    return make


@pytest.fixture(scope="session")
def refuse(rules, body):
    """``refuse(type, **fields)``: the error, which must leave the job answerable."""

    def make(job_type, **fields):
        job = parse(json.dumps(body(job_type, **fields)), rules)
        assert isinstance(job, InvalidJob), job
        assert (job.id, job.user_id, job.requested_type) == (JOB, USER, job_type)
        assert not job.error.retryable
        return job.error

    return make

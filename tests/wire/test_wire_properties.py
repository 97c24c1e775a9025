"""No payload, however odd, crashes the parser; unknown keys survive; the same body, one job."""

import json
import math
from dataclasses import fields as fields_of
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ourvidz.jobs import ImageWork, InvalidJob, JobResult, JobSpec, TextResult, TextWork, VideoWork
from ourvidz.wire import (
    callback_completed,
    callback_invalid,
    parse,
    parse_object,
)
from ourvidz.wire.names import GROUPS, PATHS
from ourvidz.wire.presets import known_types

pytestmark = pytest.mark.slow

JOB = "11111111-2222-4333-8444-555555555555"
USER = "99999999-8888-4777-8666-555555555555"
QUICK = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    # The fixture holds immutable rules.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

TEXT = st.text(max_size=20) | st.sampled_from(
    ["", " ", "\0", "25", "1e5", "-1", "1024x1024", "16:9", "base", "start", "copy", "..", JOB]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**310)
    | st.floats()
    | TEXT
    | st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from(sorted({key for paths in PATHS.values() for _, key in paths}))
GROUP = st.dictionaries(KEYS | TEXT, JSON, max_size=5)


@st.composite
def bodies(draw, types):
    """A payload whose envelope is mostly right and whose fields are anything."""
    body = draw(GROUP)
    for group in GROUPS:
        if draw(st.booleans()):
            body[group] = draw(GROUP | JSON)
    body |= {"type": draw(st.sampled_from(types)), "prompt": draw(st.just("x") | JSON)}
    return body | {"id": draw(st.just(JOB) | JSON), "user_id": draw(st.just(USER) | JSON)}


def check(job):
    """What holds for every outcome."""
    assert isinstance(job, JobSpec | InvalidJob)
    assert len(job.digest) == 64
    if isinstance(job, InvalidJob):
        assert job.error.field
        assert job.error.message.startswith(("payload", job.error.field))
        assert len(job.error.message) < 1000
        if job.id is not None:
            json.loads(callback_invalid(job, 0.0))
        return
    for work in job.works:
        check_work(work)
    assert all(isinstance(each, str) and len(each) < 1200 for each in job.warnings)
    text = isinstance(job.final, TextWork)
    result = JobResult("completed", text=TextResult("t", 1, 1, "stop") if text else None)
    json.loads(callback_completed(job, result))


def check_work(work):
    """What the pipelines are promised."""
    for each in fields_of(work):
        value = getattr(work, each.name)
        assert not isinstance(value, bool) or each.name in {"seeded", "reproducible"}
        assert not isinstance(value, float) or math.isfinite(value)
    assert 0 < work.seed <= 2_147_483_647
    if isinstance(work, ImageWork):
        assert work.width % 8 == work.height % 8 == 0
        assert 0 < work.width * work.height <= 2_097_152
        assert 1 <= work.images <= 6
        assert (work.strength is None) == (work.references == ())
        assert work.strength is None or int(work.steps * work.strength) >= 1
    elif isinstance(work, VideoWork):
        assert work.width % 16 == work.height % 16 == 0
        assert 0 < work.width * work.height <= 399_360
        assert work.frames % 4 == 1
        roles = {"none": "", "single": "image", "start": "start", "end": "end", "both": "start end"}
        assert " ".join(reference.role for reference in work.references) == roles[work.mode]
    else:
        assert any(m.role == "user" and m.content.strip() for m in work.messages)


@QUICK
@given(raw=st.binary(max_size=200) | st.text(max_size=200))
@example(raw=b"\x00")
@example(raw="\ud800")
@example(raw='"\\ud800"')
@example(raw=b'{"id":1e400}')
@example(raw=b"-")
def test_any_bytes(raw, rules):
    check(parse(raw, rules))


@QUICK
@given(value=JSON)
def test_any_json(value, rules):
    text = json.dumps(value)
    check(parse(text, rules))
    check(parse(text.encode(), rules))
    check(parse(json.dumps([text]), rules))
    check(parse(json.dumps({"data": text}), rules))


@pytest.mark.parametrize("family", ["sdxl", "wan", "text"])
def test_any_fields(family, rules):
    names = known_types(rules)
    types = [
        name
        for name in names
        if {
            "sdxl": "sdxl" in name,
            "text": name in {"chat", "enhance_base", "enhance_instruct"},
        }.get(
            family, name not in {"chat", "enhance_base", "enhance_instruct"} and "sdxl" not in name
        )
    ]

    @QUICK
    @given(body=bodies(types))
    def run(body):
        job = parse_object(body, rules)
        check(job)
        assert job == parse_object(body, rules)

    run()


@pytest.mark.parametrize("name", sorted(set(PATHS) - {"id", "type", "user_id"}))
def test_any_value_in_each_field(name, rules, body):
    """One field of an otherwise good job at a time, so that no earlier error hides it."""

    @settings(QUICK, max_examples=8)
    @given(value=JSON, job_type=st.sampled_from(["sdxl_generate", "wan_generate", "chat"]))
    def run(value, job_type):
        for group, key in PATHS[name]:
            fields = {"prompt": "x", "reference_image": "k"}
            fields |= {group: {key: value}} if group else {key: value}
            check(parse_object(body(job_type, **fields), rules))

    run()


@QUICK
@given(
    unknown=st.dictionaries(TEXT.map("z".__add__), JSON, max_size=4),
    group=st.sampled_from(["", *GROUPS]),
)
def test_unknown_keys_survive(unknown, group, rules, body):
    fields = {group: unknown} if group else unknown
    job = parse_object(body("chat", prompt="x", **fields), rules)
    assert isinstance(job, JobSpec)
    kept = job.extras.get(group, {}) if group else job.extras
    assert len(kept) == len({text_of(key) for key in unknown})
    assert kept == {text_of(key): settled(value) for key, value in unknown.items()}


def text_of(text):
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def settled(value):
    """The value as JSON without NaN, oversized numbers and lone surrogates has it."""
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, list):
        return [settled(each) for each in value]
    if isinstance(value, dict):
        return {text_of(key): settled(each) for key, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        try:
            return float(value)
        except OverflowError:
            return str(value)[:18]
    return value


@QUICK
@given(body=bodies(["sdxl_generate", "wan_generate", "chat"]))
def test_key_order_and_form_do_not_matter(body, rules):
    turned = dict(reversed(body.items()))
    if isinstance(turned.get("config"), dict):
        turned["config"] = dict(reversed(turned["config"].items()))
    assert parse_object(body, rules) == parse(json.dumps([json.dumps(turned)]), rules)


@QUICK
@given(job_id=st.uuids(), user_id=st.uuids())
def test_ids_are_echoed(job_id, user_id, rules):
    fields = {"id": str(job_id), "user_id": str(user_id).upper(), "type": "chat", "prompt": "x"}
    job = parse_object(fields, rules)
    assert (job.id, job.user_id) == (UUID(str(job_id)), user_id)

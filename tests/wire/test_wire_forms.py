"""Every form of a queue element, and what is refused before there is a job."""

import hashlib
import json
import sys
from dataclasses import replace
from types import MappingProxyType

import pytest

from ourvidz.config.jobs import Limits
from ourvidz.jobs import ErrorCode, InvalidJob, JobSpec
from ourvidz.wire import parse, parse_object

JOB = "11111111-2222-4333-8444-555555555555"
FORMS = {
    "object": lambda text: text,
    "array of one string": lambda text: json.dumps([text]),
    "array of one object": lambda text: json.dumps([json.loads(text)]),
    "string": json.dumps,
    "data string": lambda text: json.dumps({"data": text}),
    "data object": lambda text: json.dumps({"data": json.loads(text)}),
    "data beside other keys": lambda text: json.dumps({"data": text, "source": "producer"}),
    "string in an array in data": lambda text: json.dumps({"data": json.dumps([text])}),
    "data in a string in an array": lambda text: json.dumps([json.dumps({"data": text})]),
    "byte order mark": lambda text: "\ufeff" + text,
    "white space": lambda text: f" \r\n\t{text}\n",
    "escaped twice": lambda text: json.dumps(json.dumps(text)),
}


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("encode", [str, str.encode], ids=["text", "bytes"])
def test_every_form_is_the_same_job(form, encode, rules, body):
    text = json.dumps(body("sdxl_generate", prompt="a cat \U0001f408", steps=20), indent=1)
    plain = parse(text, rules)
    assert isinstance(plain, JobSpec)
    assert parse(encode(FORMS[form](text)), rules) == plain


def test_the_digest_is_the_bodys_not_the_forms(rules, body):
    fields = body("sdxl_generate", prompt="a cat", config={"b": 1, "a": {"y": 1, "x": 2}})
    turned = dict(reversed(fields.items())) | {"config": {"a": {"x": 2, "y": 1}, "b": 1}}
    first, second = (parse(json.dumps(each), rules) for each in (fields, turned))
    other = parse(json.dumps(fields | {"prompt": "a dog"}), rules)
    assert first.digest == second.digest
    assert first.digest != other.digest
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    assert first.digest == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "payload: not JSON"),
        (b"not json", "payload: not JSON"),
        (b'{"id": ', "payload: not JSON"),
        (b"\xff\xfe{}", "payload: not UTF-8, byte 0"),
        (b'{"prompt": "\xed\xa0\x80"}', "payload: not UTF-8, byte 12"),
        (b"null", "payload: must be a JSON object, got null"),
        (b"17", "payload: must be a JSON object, got a number"),
        (b"true", "payload: must be a JSON object, got a boolean"),
        (b"[]", "payload: an array must hold exactly one job, got 0"),
        (b"[{}, {}]", "payload: an array must hold exactly one job, got 2"),
        (b'"free text"', "payload: not JSON"),
        (b"[" * 12 + b"]" * 12, "payload: wrapped more than 8 times"),
        (b"[" * 200_000, "payload: not JSON"),
        (b'{"data":' * 50_000, "payload: not JSON"),
        (b"9" * 10_000, "payload: must be a JSON object, got a number"),
    ],
)
def test_what_holds_no_job_is_named(raw, says, rules):
    job = parse(raw, rules)
    assert isinstance(job, InvalidJob)
    assert (job.id, job.requested_type, job.user_id) == (None, None, None)
    assert job.error.code is ErrorCode.INVALID_PARAMETER
    assert job.error.field == "payload"
    assert job.error.message.startswith(says)
    assert len(job.digest) == 64


@pytest.mark.parametrize("form", ["bytes", "text", "wide text"])
def test_a_large_payload_is_refused_undecoded(form, rules, body, monkeypatch):
    monkeypatch.setattr("ourvidz.wire.unwrap._decode", None)
    text = json.dumps(body("chat", prompt="x" * 50_000_000))
    wide = json.dumps(body("chat", prompt="\u4e16" * 1_400_000), ensure_ascii=False)
    job = parse({"bytes": text.encode(), "text": text, "wide text": wide}[form], rules)
    assert job.id is None
    assert "allowed at most 1000000" in job.error.message


@pytest.mark.parametrize("form", ["too large", "no UTF-8", "both"])
def test_what_is_refused_as_a_whole_still_names_its_job(form, rules, body):
    prompt = "x" * (10 if form == "no UTF-8" else 2_000_000)
    raw = json.dumps(body("chat", prompt=prompt)).encode()
    raw = raw if form == "too large" else raw.replace(b"xx", b"x\xff", 1)
    job = parse(raw, rules)
    assert isinstance(job, InvalidJob)
    known = body("chat")
    assert (job.id, job.requested_type, job.user_id) == (known["id"], "chat", known["user_id"])
    said = "not UTF-8" if form == "no UTF-8" else "too large"
    assert said in job.error.message
    assert job.digest == parse(raw, rules).digest


def test_the_payload_limit_is_exact(rules, body):
    raw = json.dumps(body("chat", prompt="hi")).encode()
    at_limit = replace(rules, limits=Limits(payload_bytes=len(raw)))
    below = replace(rules, limits=Limits(payload_bytes=len(raw) - 1))
    assert isinstance(parse(raw, at_limit), JobSpec)
    assert isinstance(parse(raw, below), InvalidJob)


@pytest.mark.parametrize("depth", [300, 900])
def test_a_body_nested_too_deeply_is_still_answered(depth, rules, body):
    text = json.dumps(body("chat", prompt="hi", deep=0))
    job = parse(text.replace('"deep": 0', '"deep": ' + "[" * depth + "]" * depth), rules)
    assert job.id == JOB
    assert job.error.message.startswith("payload: nested too deeply")


def test_a_generous_recursion_limit_changes_nothing(rules):
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        job = parse(b'{"half": "\\ud83d", "deep": ' + b"[" * 2000 + b"]" * 2000 + b"}", rules)
    finally:
        sys.setrecursionlimit(limit)
    assert job.error.message.startswith("payload: not JSON, depth limit exceeded")


def test_nesting_within_reason_survives(read):
    deep = 0
    for _ in range(200):
        deep = [deep]
    assert read("chat", prompt="hi", deep=deep).extras == {"deep": deep}


def test_half_a_surrogate_pair_does_not_cost_the_job(rules, body):
    text = json.dumps(body("chat", prompt="cut here \ud83d", note="\ude00"))
    job = parse(text, rules)
    assert job.original_prompt == "cut here \ufffd"
    assert job.extras == {"note": "\ufffd"}
    assert job.warnings[0] == "payload: lone surrogates were replaced by U+FFFD"
    assert parse(json.dumps([text]), rules) == job
    assert parse(json.loads(json.dumps(text)), rules) == job


@pytest.mark.parametrize(
    ("number", "shown"),
    [("NaN", "NaN"), ("Infinity", "Infinity"), ("-Infinity", "-Infinity"), ("1e999", "1e999")],
)
def test_numbers_that_are_none_name_their_field(number, shown, rules, body):
    text = json.dumps(body("sdxl_generate", prompt="x", guidance_scale=0))
    job = parse(text.replace('"guidance_scale": 0', f'"guidance_scale": {number}'), rules)
    assert job.id == JOB
    assert job.error.message == f'guidance_scale: must be a number, got "{shown}"'


@pytest.mark.parametrize("digits", [20, 400, 6000])
def test_numbers_of_any_length_name_their_field(digits, rules, body):
    text = json.dumps(body("sdxl_generate", prompt="x", seed=0))
    job = parse(text.replace('"seed": 0', f'"seed": {"9" * digits}'), rules)
    assert job.id == JOB
    assert job.error.field == "seed"


def test_of_a_key_that_occurs_twice_the_last_counts(rules, body):
    text = json.dumps(body("sdxl_generate", prompt="x"))
    job = parse(text[:-1] + ', "steps": 11, "steps": 12}', rules)
    assert job.final.steps == 12


class TestDecodedBodies:
    def test_the_same_job_as_its_text(self, rules, body):
        fields = body("wan_generate", prompt="a cat", frames=17, extra={"a": [1, None]})
        assert parse_object(fields, rules) == parse(json.dumps(fields), rules)
        assert parse_object(MappingProxyType(fields), rules) == parse_object(fields, rules)

    def test_numbers_that_are_none(self, rules, body):
        job = parse_object(body("sdxl_generate", prompt="x", steps=float("inf")), rules)
        assert job.error.message == 'steps: must be a number, got "Infinity"'

    def test_what_is_no_json_is_refused(self, rules, body):
        loop = body("chat", prompt="hi")
        loop["self"] = loop
        deep = None
        for _ in range(sys.getrecursionlimit() + 10):
            deep = [deep]
        for bad in (loop, body("chat", deep=deep), body("chat", prompt=object()), {("a",): 1}):
            job = parse_object(bad, rules)
            assert isinstance(job, InvalidJob)
            assert job.error.field == "payload"

    def test_the_size_limit_holds(self, rules, body):
        job = parse_object(body("chat", prompt="x" * 1_000_001), rules)
        assert "too large" in job.error.message

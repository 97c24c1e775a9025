"""Who asked for what: id, user, type, class, deadline; and the keys that nobody reads."""

import json
import re
from uuid import UUID

import pytest

from ourvidz.config.jobs import Enhancement
from ourvidz.config.settings import Model, Queue, Settings
from ourvidz.jobs import ErrorCode, InvalidJob, JobSpec, JobType
from ourvidz.wire import Rules, parse
from ourvidz.wire.common import derived_seed
from ourvidz.wire.presets import known_types

JOB = "11111111-2222-4333-8444-555555555555"
USER = "99999999-8888-4777-8666-555555555555"


def job(rules, **fields):
    return parse(json.dumps({"type": "chat", "prompt": "hi", **fields}), rules)


class TestId:
    @pytest.mark.parametrize("key", ["id", "job_id"])
    def test_under_both_names(self, key, rules):
        assert job(rules, **{key: JOB, "user_id": USER}).id == UUID(JOB)

    def test_upper_case_is_the_same_job(self, rules):
        assert job(rules, id=JOB.upper(), user_id=USER).id == UUID(JOB)
        assert job(rules, id=JOB.upper(), user_id="?").id == JOB

    @pytest.mark.parametrize(
        "value",
        [
            "job-17",
            "../../etc/passwd",
            "x" * 128,
            JOB.replace("-", ""),
            f"{{{JOB}}}",
            f"urn:uuid:{JOB}",
            JOB + " ",
            JOB[:-1] + "g",
            JOB.replace("1", "\u0661"),
        ],
    )
    def test_text_that_is_no_uuid_can_be_answered(self, value, rules):
        refused = job(rules, id=value, user_id=USER)
        assert isinstance(refused, InvalidJob)
        assert (refused.id, refused.user_id, refused.requested_type) == (value, USER, "chat")
        assert refused.error.field == "id"
        assert refused.error.message.endswith("is not a UUID")

    @pytest.mark.parametrize(
        "value", [17, 1.5, True, [JOB], {"id": JOB}, "", " ", "a\nb", "x" * 129]
    )
    def test_what_no_callback_could_name_is_unknown(self, value, rules):
        refused = job(rules, id=value, user_id=USER)
        assert isinstance(refused, InvalidJob)
        assert refused.id is None
        assert refused.error.field == "id"

    def test_missing(self, rules):
        refused = job(rules, user_id=USER, id=None)
        assert refused.id is None
        assert refused.error.message == "id: missing, a UUID is needed"

    def test_two_different_ids(self, rules):
        spec = job(rules, id=JOB, job_id=USER, user_id=USER)
        assert spec.id == UUID(JOB)
        assert spec.warnings == (f'job_id="{USER}" is ignored: id="{JOB}" counts',)


class TestUser:
    def test_missing_is_the_default_with_a_warning(self, rules):
        spec = job(rules, id=JOB)
        assert spec.user_id == UUID(int=0)
        assert spec.warnings == (f"user_id: missing, {UUID(int=0)} is taken",)

    @pytest.mark.parametrize("value", ["..", "me", 7, False, [], {}, "", JOB.replace("-", "")])
    def test_what_is_no_uuid_is_refused(self, value, rules):
        refused = job(rules, id=JOB, user_id=value)
        assert (refused.id, refused.user_id) == (JOB, None)
        assert refused.error.field == "user_id"


class TestType:
    @pytest.mark.parametrize("key", ["type", "job_type"])
    def test_under_both_names(self, key, rules):
        raw = json.dumps({"id": JOB, "user_id": USER, key: "chat", "prompt": "hi"})
        assert parse(raw, rules).type is JobType.CHAT

    def test_every_name_is_known(self, rules):
        assert len(known_types(rules)) == 5 + 12
        for name in known_types(rules):
            spec = job(rules, id=JOB, user_id=USER, type=name)
            assert isinstance(spec, JobSpec)
            assert spec.requested_type == name

    @pytest.mark.parametrize(
        ("name", "near"),
        [("sdxl_generat", "sdxl_generate"), ("wan_vide_fast", "wan_video_fast"), ("qqqq", None)],
    )
    def test_unknown_names_the_allowed_and_the_nearest(self, name, near, rules):
        refused = job(rules, id=JOB, user_id=USER, type=name)
        assert refused.requested_type == name
        assert refused.error.code is ErrorCode.INVALID_PARAMETER
        assert refused.error.field == "type"
        assert refused.error.message.startswith(f'type: "{name}" is unknown, allowed sdxl_gen')
        assert all(known in refused.error.message for known in known_types(rules))
        assert refused.error.hint == (f"did you mean {near}?" if near else None)

    @pytest.mark.parametrize("value", [None, 1, True, ["chat"], {}, "", "x" * 500, "a\0b"])
    def test_odd_values(self, value, rules):
        refused = job(rules, id=JOB, user_id=USER, type=value)
        assert refused.id == JOB
        assert refused.requested_type is None
        assert refused.error.field == "type"
        assert len(refused.error.message) < 500


class TestClass:
    def test_the_table_decides_for_legacy_types(self, read):
        assert read("sdxl_image_fast", prompt="x").job_class == "fast"
        high = read("sdxl_image_high", prompt="x", job_class="fast")
        assert high.job_class == "normal"
        assert high.warnings == (
            'job_class="fast" is ignored: the class of sdxl_image_high is normal',
        )

    @pytest.mark.parametrize("key", ["job_class", "priority"])
    def test_a_current_type_may_name_one(self, key, read):
        assert read("chat", prompt="x").job_class == "normal"
        assert read("chat", prompt="x", **{key: "fast"}).job_class == "fast"

    @pytest.mark.parametrize("value", ["urgent", 5, [], True])
    def test_an_unknown_one_is_named(self, value, read):
        spec = read("chat", prompt="x", job_class=value)
        assert spec.job_class == "normal"
        assert spec.warnings[0].endswith("is ignored: the classes are fast, normal")


class TestDeadline:
    def test_seconds(self, read):
        assert read("chat", prompt="x").deadline_seconds is None
        assert read("chat", prompt="x", deadline_seconds="90").deadline_seconds == 90.0

    @pytest.mark.parametrize("value", [0, -1, 604_801, "soon", True])
    def test_out_of_range(self, value, refuse):
        assert refuse("chat", prompt="x", deadline_seconds=value).field == "deadline_seconds"


class TestUnknownKeys:
    def test_they_survive_apart(self, read):
        spec = read(
            "sdxl_generate",
            prompt="x",
            stepz=3,
            image_id="row",
            nothing=None,
            config={"steps": 20, "a": [1]},
            metadata={"a": {"b": None}, "ui": True},
            input={"a": 2},
        )
        assert spec.extras == {
            "stepz": 3,
            "image_id": "row",
            "nothing": None,
            "config": {"a": [1]},
            "metadata": {"a": {"b": None}, "ui": True},
            "input": {"a": 2},
        }
        assert spec.warnings == ("not used by sdxl_generate, kept: stepz, input.a, config.a",)

    def test_many_of_them_make_one_bounded_warning(self, read):
        spec = read("chat", prompt="x", **{f"key{i:04}{'y' * 500}": i for i in range(500)})
        assert len(spec.extras) == 500
        assert len(spec.warnings) == 1
        assert spec.warnings[0].endswith(" and 488 more")
        assert len(spec.warnings[0]) < 1000

    def test_a_field_of_another_type_is_named_even_in_metadata(self, read):
        spec = read("sdxl_generate", prompt="x", metadata={"start_reference_url": "k", "ui": 1})
        assert spec.warnings == ("not used by sdxl_generate, kept: metadata.start_reference_url",)

    @pytest.mark.parametrize("key", ["config", "metadata"])
    @pytest.mark.parametrize("value", [[], "text", 1, True])
    def test_a_group_must_be_an_object(self, key, value, refuse):
        error = refuse("sdxl_generate", prompt="x", **{key: value})
        assert error.field == key
        assert "must be an object" in error.message

    def test_an_input_that_is_no_object_is_an_unknown_key(self, read):
        assert read("chat", prompt="x", input="text").extras == {"input": "text"}

    def test_dotted_keys_are_not_paths(self, read):
        spec = read("sdxl_generate", prompt="x", **{"config.steps": 99})
        assert spec.final.steps == 25
        assert spec.extras == {"config.steps": 99}


def test_precedence_is_top_then_input_then_config_then_metadata(read):
    layers = {"seed": 1, "input": {"seed": 2}, "config": {"seed": 3}, "metadata": {"seed": 4}}
    for expected, key in enumerate(list(layers), start=1):
        spec = read("sdxl_generate", prompt="x", **layers)
        assert spec.final.seed == expected
        assert len(spec.warnings) == 4 - expected
        del layers[key]


def test_a_value_that_is_overruled_is_named_unless_it_is_the_same(read):
    spec = read("sdxl_generate", prompt="x", steps=20, config={"steps": 30})
    assert spec.warnings == ("config.steps=30 is ignored: steps=20 counts",)
    assert read("sdxl_generate", prompt="x", steps=20, config={"steps": 20}).warnings == ()


def test_prompts_and_urls_never_appear_in_warnings(read):
    spec = read(
        "sdxl_generate",
        prompt="secret one",
        reference_image="https://host/a?token=secret",
        config={"prompt": "secret two", "image": "https://host/b?token=secret"},
    )
    assert spec.warnings == (
        "config.image is ignored: reference_image counts",
        "config.prompt is ignored: prompt counts",
    )


class TestSeed:
    def test_none_and_zero_are_derived_from_the_id(self, read):
        seeds = {read("sdxl_generate", prompt="x", seed=seed).final.seed for seed in (None, 0, "0")}
        assert seeds == {derived_seed(UUID(JOB))} == {1399289071}

    def test_derived_seeds_leave_room_for_a_batch(self):
        seeds = [derived_seed(UUID(int=i)) for i in range(2000)]
        assert len(set(seeds)) > 1990
        assert min(seeds) >= 1
        assert max(seeds) + 5 <= 2_147_483_647

    @pytest.mark.parametrize("value", [-1, 2_147_483_648, 1.5, "abc", True, [], "1_0", "\u0661"])
    def test_out_of_range(self, value, refuse):
        error = refuse("sdxl_generate", prompt="x", seed=value)
        assert (error.code, error.field) == (ErrorCode.INVALID_PARAMETER, "seed")

    def test_the_last_image_has_a_seed_too(self, read, refuse):
        top = 2_147_483_647
        assert read("sdxl_generate", prompt="x", seed=top).final.seed == top
        assert read("sdxl_generate", prompt="x", seed=top - 2, batch_size=3).final.images == 3
        error = refuse("sdxl_generate", prompt="x", seed=top - 1, batch_size=3)
        assert "3 images, allowed 0 to 2147483645" in error.message


def test_rules_come_from_the_settings():
    settings = Settings(
        enhancement=Enhancement(sdxl="S", wan="W"),
        models={"sdxl": Model(family="sdxl", path="models/sdxl")},
        queues={"sdxl_queue": Queue()},
        legacy_types={},
    )
    rules = Rules.from_settings(settings)
    assert rules.limits is settings.limits
    assert rules.default_user_id == UUID(int=0)
    assert rules.job_classes == {"fast", "normal"}
    assert known_types(rules) == tuple(job_type.value for job_type in JobType)


def test_messages_of_errors_are_short_and_on_one_line(refuse):
    error = refuse("sdxl_generate", prompt="x", steps="9\n" + "z" * 10_000)
    assert re.fullmatch(r'steps: must be a number, got "9 z{55}\.\.\."', error.message)

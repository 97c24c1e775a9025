"""Enhancement, chat, and enhancement ahead of a generation."""

import pytest

from ourvidz.jobs import ChatMessage, ErrorCode, ImageWork, TextWork, VideoWork

TEMPLATES = {"sdxl": "Describe an image.", "wan": "Describe a scene that moves."}
KEY = "workspace-temp/a/0.png"


class TestEnhance:
    @pytest.mark.parametrize("model", ["base", "instruct"])
    @pytest.mark.parametrize("target", ["sdxl", "wan"])
    def test_defaults(self, model, target, read):
        spec = read(f"enhance_{model}", prompt="a cat", target_model=target, seed=3)
        assert spec.works == (
            TextWork(
                purpose="enhance",
                model=model,
                messages=(
                    ChatMessage("system", TEMPLATES[target]),
                    ChatMessage("user", "a cat"),
                ),
                max_tokens=2048,
                temperature=0.7,
                top_p=0.9,
                seed=3,
            ),
        )
        assert spec.original_prompt == "a cat"
        assert spec.warnings == ()

    def test_the_callers_own_settings(self, read):
        spec = read(
            "enhance_instruct",
            prompt="a cat",
            target_model="wan",
            system_prompt="Be brief.",
            enhancement_type="instruct",
            max_tokens="100",
            config={"temperature": 0, "top_p": 1},
        )
        work = spec.final
        assert work.messages[0] == ChatMessage("system", "Be brief.")
        assert (work.max_tokens, work.temperature, work.top_p) == (100, 0.0, 1.0)
        assert spec.warnings == ()

    def test_no_target_is_sdxl_with_a_warning(self, read):
        spec = read("enhance_base", prompt="a cat", system_prompt="  ")
        assert spec.final.messages[0].content == TEMPLATES["sdxl"]
        assert spec.warnings == ("target_model: missing, sdxl is taken",)

    def test_a_contradicting_kind_is_named(self, read):
        spec = read("enhance_base", prompt="x", target_model="wan", enhancement_type="instruct")
        assert spec.final.model == "base"
        assert spec.warnings == ('enhancement_type="instruct" is ignored: the type says base',)

    @pytest.mark.parametrize(
        ("field", "value", "code"),
        [
            ("target_model", "flux", ErrorCode.INVALID_PARAMETER),
            ("target_model", ["sdxl"], ErrorCode.INVALID_PARAMETER),
            ("enhancement_type", "chat", ErrorCode.INVALID_PARAMETER),
            ("max_tokens", 0, ErrorCode.INVALID_PARAMETER),
            ("max_tokens", 8193, ErrorCode.INVALID_PARAMETER),
            ("max_tokens", 1.5, ErrorCode.INVALID_PARAMETER),
            ("temperature", 2.1, ErrorCode.INVALID_PARAMETER),
            ("temperature", -0.1, ErrorCode.INVALID_PARAMETER),
            ("top_p", 0, ErrorCode.INVALID_PARAMETER),
            ("top_p", 1.01, ErrorCode.INVALID_PARAMETER),
            ("seed", -1, ErrorCode.INVALID_PARAMETER),
            ("prompt", "", ErrorCode.INVALID_PROMPT),
            ("prompt", "x" * 20_001, ErrorCode.INVALID_PROMPT),
            ("system_prompt", 5, ErrorCode.INVALID_PROMPT),
            ("system_prompt", "x" * 20_001, ErrorCode.INVALID_PROMPT),
        ],
    )
    def test_refused(self, field, value, code, refuse):
        fields = {"prompt": "x", "target_model": "sdxl", field: value}
        error = refuse("enhance_base", **fields)
        assert (error.code, error.field) == (code, field)


class TestChat:
    def test_messages(self, read):
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": "What now?"},
        ]
        spec = read("chat", messages=messages, seed=3, max_tokens=9, temperature=1, top_p=0.5)
        assert spec.works == (
            TextWork(
                purpose="chat",
                model="instruct",
                messages=tuple(ChatMessage(m["role"], m["content"]) for m in messages),
                max_tokens=9,
                temperature=1.0,
                top_p=0.5,
                seed=3,
            ),
        )
        assert spec.original_prompt == "What now?"
        assert spec.warnings == ()

    def test_a_prompt_is_one_message(self, read):
        spec = read("chat", prompt="Hello", system_prompt="Be brief.")
        assert spec.final.messages == (
            ChatMessage("system", "Be brief."),
            ChatMessage("user", "Hello"),
        )
        assert spec.final.max_tokens == 512

    @pytest.mark.parametrize(
        ("name", "model"),
        [("qwen_base", "base"), ("qwen_instruct", "instruct"), ("base", "base")],
    )
    def test_models(self, name, model, read):
        assert read("chat", prompt="x", model=name).final.model == model

    def test_an_unknown_model(self, refuse):
        error = refuse("chat", prompt="x", model="gpt")
        assert error.message.startswith('model: "gpt", allowed qwen_instruct, qwen_base')

    def test_what_is_overruled_is_named(self, read):
        messages = [
            {"role": "system", "content": "A"},
            {"role": "user", "content": "B", "name": "c"},
        ]
        spec = read("chat", messages=messages, prompt="other", system_prompt="D")
        assert [m.content for m in spec.final.messages] == ["A", "B"]
        assert spec.warnings == (
            "messages: name is ignored",
            "prompt is ignored: messages counts",
            "system_prompt is ignored: messages has a system message",
        )

    @pytest.mark.parametrize(
        ("messages", "field", "code"),
        [
            ([], "messages", ErrorCode.INVALID_PARAMETER),
            ({}, "messages", ErrorCode.INVALID_PARAMETER),
            ("hello", "messages", ErrorCode.INVALID_PARAMETER),
            ([{"role": "user", "content": "x"}] * 201, "messages", ErrorCode.INVALID_PARAMETER),
            (["hello"], "messages[0]", ErrorCode.INVALID_PARAMETER),
            ([{"content": "x"}], "messages[0].role", ErrorCode.INVALID_PARAMETER),
            ([{"role": "tool", "content": "x"}], "messages[0].role", ErrorCode.INVALID_PARAMETER),
            ([{"role": ["user"], "content": "x"}], "messages[0].role", ErrorCode.INVALID_PARAMETER),
            ([{"role": "user"}], "messages[0].content", ErrorCode.INVALID_PROMPT),
            (
                [{"role": "user", "content": [{"text": "x"}]}],
                "messages[0].content",
                ErrorCode.INVALID_PROMPT,
            ),
            (
                [{"role": "user", "content": "x" * 20_001}],
                "messages[0].content",
                ErrorCode.INVALID_PROMPT,
            ),
            ([{"role": "user", "content": " "}], "messages", ErrorCode.INVALID_PROMPT),
            ([{"role": "assistant", "content": "x"}], "messages", ErrorCode.INVALID_PROMPT),
        ],
    )
    def test_refused(self, messages, field, code, refuse):
        error = refuse("chat", messages=messages)
        assert (error.code, error.field) == (code, field)

    def test_neither_messages_nor_prompt(self, refuse):
        error = refuse("chat")
        assert (error.code, error.field) == (ErrorCode.INVALID_PROMPT, "prompt")

    def test_two_hundred_messages_pass(self, read):
        messages = [{"role": "user", "content": "x"}] * 200
        assert len(read("chat", messages=messages).final.messages) == 200


class TestChain:
    @pytest.mark.parametrize(
        ("value", "model"), [("base", "base"), ("instruct", "instruct"), (True, "instruct")]
    )
    def test_the_field_enhance(self, value, model, read):
        spec = read("sdxl_generate", prompt="a cat", enhance=value, seed=5, max_tokens=64)
        first, second = spec.works
        assert spec.chained
        assert first == TextWork(
            purpose="enhance",
            model=model,
            messages=(ChatMessage("system", TEMPLATES["sdxl"]), ChatMessage("user", "a cat")),
            max_tokens=64,
            temperature=0.7,
            top_p=0.9,
            seed=5,
        )
        assert isinstance(second, ImageWork)
        assert (second.prompt, second.seed) == ("a cat", 5)
        assert spec.original_prompt == "a cat"
        assert spec.warnings == ()

    def test_for_wan(self, read):
        first, second = read("wan_generate", prompt="x", enhance="base", system_prompt="S").works
        assert first.messages[0].content == "S"
        assert first.max_tokens == 2048
        assert isinstance(second, VideoWork)
        other = read("wan_generate", prompt="x", enhance="base").works[0]
        assert other.messages[0].content == TEMPLATES["wan"]

    @pytest.mark.parametrize("value", [None, False, "none"])
    def test_none(self, value, read):
        assert not read("sdxl_generate", prompt="x", enhance=value).chained

    @pytest.mark.parametrize("value", ["yes", 1, [], {}])
    def test_refused(self, value, refuse):
        error = refuse("sdxl_generate", prompt="x", enhance=value)
        assert error.field == "enhance"
        assert "allowed base, instruct, none" in error.message

    def test_skipped(self, read, refuse):
        skip = {"metadata": {"skip_enhancement": True}}
        spec = read("sdxl_generate", prompt="x", enhance="base", **skip)
        assert not spec.chained
        assert spec.warnings == ("metadata.skip_enhancement: the prompt is not enhanced",)
        assert read("sdxl_generate", prompt="x", **skip).warnings == ()
        error = refuse("sdxl_generate", prompt="x", metadata={"skip_enhancement": "perhaps"})
        assert error.field == "metadata.skip_enhancement"

    def test_an_exact_copy_is_not_enhanced(self, read):
        spec = read("sdxl_generate", enhance="base", exact_copy_mode=True, reference_image=KEY)
        assert not spec.chained
        assert "the prompt is not enhanced: an exact copy does not follow it" in spec.warnings

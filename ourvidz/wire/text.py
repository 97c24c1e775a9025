"""Qwen work from a payload: enhancement, alone or ahead of a generation, and chat."""

from __future__ import annotations

from typing import Any, Literal, cast
from uuid import UUID

from ourvidz.config.jobs import Limits
from ourvidz.jobs import ChatMessage, ErrorCode, TextModel, TextWork
from ourvidz.jobs.spec import TargetModel
from ourvidz.wire.common import read_prompt, read_seed
from ourvidz.wire.fields import Fields
from ourvidz.wire.presets import Preset
from ourvidz.wire.rules import Rules
from ourvidz.wire.unwrap import describe
from ourvidz.wire.values import FieldError, Found, choose, cut, shown

Role = Literal["system", "user", "assistant"]
_ROLES = {"system": "system", "user": "user", "assistant": "assistant"}
_TARGETS = {"sdxl": "sdxl", "wan": "wan"}
_CHAT_MODELS = {
    "qwen_instruct": "instruct",
    "qwen_base": "base",
    "instruct": "instruct",
    "base": "base",
}
_ENHANCERS = {"base": "base", "instruct": "instruct", "none": ""}
_MESSAGE_KEYS = frozenset({"role", "content"})


def enhance_work(fields: Fields, model: TextModel, rules: Rules, job_id: UUID) -> TextWork:
    """An enhancement job's work. Raises ``FieldError``."""
    found = fields.find("enhancement_type")
    if found is not None and choose(found, {"base": "base", "instruct": "instruct"}) != model:
        fields.ignore(found, f"the type says {model}")
    target = fields.choice("target_model", _TARGETS)
    if target is None:
        fields.warn("target_model: missing, sdxl is taken")
    return enhance_part(fields, model, cast("TargetModel", target or "sdxl"), rules, job_id)


def enhance_part(
    fields: Fields, model: TextModel, target: TargetModel, rules: Rules, job_id: UUID
) -> TextWork:
    """The first part of a chain, which rewrites the prompt for ``target``."""
    template = rules.enhancement.sdxl if target == "sdxl" else rules.enhancement.wan
    system = fields.text("system_prompt", rules.limits.prompt_characters)
    messages = (
        ChatMessage("system", system if system and system.strip() else template),
        ChatMessage("user", read_prompt(fields, rules.limits)),
    )
    return _text_work(fields, rules, job_id, purpose="enhance", model=model, messages=messages)


def chain_model(fields: Fields, preset: Preset) -> TextModel | None:
    """The text model that runs first, by the legacy type or by the field ``enhance``."""
    found = fields.find("enhance")
    asked: str | None = preset.enhance
    if preset.legacy:
        if found is not None:
            fields.ignore(found, f"{preset.requested} says it")
    elif found is not None and isinstance(found.value, bool):
        asked = "instruct" if found.value else None
    elif found is not None:
        asked = choose(found, _ENHANCERS) or None
    skip = fields.find("skip_enhancement")
    if fields.flag("skip_enhancement") and asked is not None and skip is not None:
        fields.warn(f"{skip.field}: the prompt is not enhanced")
        return None
    return cast("TextModel | None", asked)


def chat_work(fields: Fields, rules: Rules, job_id: UUID) -> tuple[TextWork, str]:
    """A chat job's work and the text of its last user message. Raises ``FieldError``."""
    limits = rules.limits
    found = fields.find("messages")
    if found is None:
        messages = [ChatMessage("user", read_prompt(fields, limits))]
    else:
        messages = _messages(fields, found, limits)
        if fields.find("prompt") is not None:
            fields.warn(f"prompt is ignored: {found.field} counts")
    users = [m.content for m in messages if m.role == "user" and m.content.strip()]
    if not users:
        problem = "no user message with a text"
        raise FieldError("messages", problem, ErrorCode.INVALID_PROMPT)
    system = fields.text("system_prompt", limits.prompt_characters)
    if system and system.strip():
        if any(m.role == "system" for m in messages):
            fields.warn("system_prompt is ignored: messages has a system message")
        else:
            messages.insert(0, ChatMessage("system", system))
    model = cast("TextModel", fields.choice("model", _CHAT_MODELS) or "instruct")
    work = _text_work(fields, rules, job_id, purpose="chat", model=model, messages=tuple(messages))
    return work, users[-1]


def _text_work(
    fields: Fields,
    rules: Rules,
    job_id: UUID,
    *,
    purpose: Literal["enhance", "chat"],
    model: TextModel,
    messages: tuple[ChatMessage, ...],
) -> TextWork:
    limits, defaults = rules.limits, rules.defaults.text
    tokens = fields.integer("max_tokens", limits.max_tokens)
    temperature = fields.number("temperature", limits.temperature)
    top_p = fields.number("top_p", limits.top_p)
    seed, seeded = read_seed(fields, limits, job_id)
    own = defaults.enhance_max_tokens if purpose == "enhance" else defaults.max_tokens
    return TextWork(
        purpose=purpose,
        model=model,
        messages=messages,
        max_tokens=own if tokens is None else tokens,
        temperature=defaults.temperature if temperature is None else temperature,
        top_p=defaults.top_p if top_p is None else top_p,
        seed=seed,
        seeded=seeded,
        reproducible=fields.flag("reproducible"),
    )


def _messages(fields: Fields, found: Found, limits: Limits) -> list[ChatMessage]:
    value = found.value
    if not isinstance(value, list):
        raise FieldError(found.field, f"must be an array of messages, got {describe(value)}")
    if not 1 <= len(value) <= limits.messages:
        problem = f"{len(value)} messages are out of range, allowed 1 to {limits.messages}"
        raise FieldError(found.field, problem)
    return [_message(fields, f"{found.field}[{i}]", m, limits) for i, m in enumerate(value)]


def _message(fields: Fields, field: str, value: Any, limits: Limits) -> ChatMessage:
    if not isinstance(value, dict):
        raise FieldError(field, f"must be an object, got {describe(value)}")
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        problem = f"{shown(role)}, allowed {', '.join(_ROLES)}"
        raise FieldError(f"{field}.role", problem)
    content = Found(field, "content", value.get("content"))
    ignored = sorted(value.keys() - _MESSAGE_KEYS)
    if ignored:
        fields.warn(f"messages: {', '.join(cut(key) for key in ignored[:5])} is ignored")
    text = fields.clean_text(content, limits.prompt_characters)
    return ChatMessage(cast("Role", role), text)

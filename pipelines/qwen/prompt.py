"""Messages as token ids, in which nobody but the chat template can write a control token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jinja2

from pipelines.base import UnsupportedRequest
from pipelines.request import Message

_FIELD = "messages"
_ROLES = ("system", "user", "assistant")


class ChatEncoder:
    """Encodes chats by the tokenizer's own template; may be called from several threads.

    Text that spells a control token is encoded as the letters it is made of. That holds for every
    added token, also those that the tokenizer does not call special, such as ``<tool_call>``. The
    private letters U+F0000 and U+F0001, which the library marks such text with, are left out.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        tokenizer.chat_control_tokens = sorted(tokenizer.get_added_vocab())

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The ids up to where the assistant's answer begins.

        For text without control tokens they are ``apply_chat_template``'s own. Raises
        ``UnsupportedRequest`` for no messages, an unknown role, or text that is no Unicode.
        """
        if not messages:
            raise UnsupportedRequest(_FIELD, "messages is empty; at least one is needed")
        chat = [_plain(index, message) for index, message in enumerate(messages)]
        try:
            encoded = self._tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=True
            )
        except jinja2.TemplateError as error:
            raise UnsupportedRequest(
                _FIELD, f"the checkpoint's chat template refuses these messages: {error}"
            ) from error
        return [int(i) for i in encoded["input_ids"]]


def _plain(index: int, message: Message) -> dict[str, str]:
    if message.role not in _ROLES:
        raise UnsupportedRequest(
            _FIELD, f"messages[{index}].role is {message.role!r}; allowed: {', '.join(_ROLES)}"
        )
    try:
        message.content.encode()
    except UnicodeEncodeError as error:
        raise UnsupportedRequest(
            _FIELD,
            f"messages[{index}].content holds U+{ord(message.content[error.start]):04X} at position"
            f" {error.start}, half of a surrogate pair, which is no character",
        ) from None
    return {"role": message.role, "content": message.content}

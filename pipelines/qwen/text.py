"""Token ids back into text, one at a time, without ever giving out half a character.

Source: byte-level BPE as in GPT-2: each letter of a token's spelling stands for one byte of UTF-8.
"""

from __future__ import annotations

import codecs
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode


class Detokenizer:
    """Concatenated, what it gives out is the tokenizer's own ``decode`` without special tokens.

    It keeps nothing between two calls: the bytes held back (at most three, an unfinished
    character) are the caller's.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._bytes = {letter: byte for byte, letter in bytes_to_unicode().items()}
        self._pieces: dict[int, bytes] = {
            i: b"" for i, added in tokenizer.added_tokens_decoder.items() if added.special
        }

    def push(self, held: bytes, token: int) -> tuple[str, bytes]:
        """The text that ``token`` completes, and the bytes to hold back until the next."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        text = decoder.decode(held + self._piece(token))
        return text, decoder.getstate()[0]

    def flush(self, held: bytes) -> str:
        """The text of what is held back when no token follows: U+FFFD, or nothing."""
        return held.decode("utf-8", errors="replace")

    def _piece(self, token: int) -> bytes:
        piece = self._pieces.get(token)
        if piece is None:
            # a model's vocabulary is padded: its last ids have no spelling
            spelled: str = self._tokenizer.convert_ids_to_tokens(token) or ""
            try:
                piece = bytes(self._bytes[letter] for letter in spelled)
            except KeyError:
                piece = spelled.encode()
            self._pieces[token] = piece
        return piece

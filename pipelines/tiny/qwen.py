"""Qwen 2.5 checkpoints small enough for tests: the real architecture, random weights, fixed seeds.

Their words mean nothing; the tokenizer, the chat template and every module are of the same classes
as the published checkpoints'. Base and instruct differ in their seed, their end-of-text ids and,
as the published sizes do, in whether the embedding is tied to the output head.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from transformers import AddedToken, GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from pipelines.tiny.publish import publish

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
# not special to the tokenizer, yet single tokens when parsed from text, as in Qwen 2.5
TOOL_TOKENS = ("<tool_call>", "</tool_call>")
_CONTROL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)

_WORDS = (
    "a an and are as at bright by camera city close colour dark deep detail fine for from gentle "
    "golden green hair hand high image in is it light long misty morning mountain of old on open "
    "over photo portrait quiet red river sea sharp sky slow small soft stone street sun that the "
    "through to tree under water white wide wind window with woman you"
)
# the published vocabularies are padded beyond the tokenizer's ids, too
_VOCABULARY_MULTIPLE = 64
_LETTERS = 256
# at the usual initial scale the next token hardly depends on what was said before it
_SCALE = 0.25
_DEFAULT_SYSTEM = "You are a helpful assistant."
_TEMPLATE = (
    "{% if messages[0].role != 'system' %}"
    f"{{{{ '{TURN_START}system\\n{_DEFAULT_SYSTEM}{TURN_END}\\n' }}}}"
    "{% endif %}"
    "{% for message in messages %}"
    f"{{{{ '{TURN_START}' + message.role + '\\n' + message.content + '{TURN_END}\\n' }}}}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{TURN_START}assistant\\n' }}}}{{% endif %}}"
)


def make_qwen(root: Path) -> None:
    """Make what is missing of ``root/qwen-base`` and ``root/qwen-instruct``."""
    base = partial(_write, seed=21, ends=(END_OF_TEXT,), tied=True)
    instruct = partial(_write, seed=22, ends=(TURN_END, END_OF_TEXT), tied=False)
    publish(root / "qwen-base", base)
    publish(root / "qwen-instruct", instruct)


def _write(folder: Path, seed: int, ends: tuple[str, ...], tied: bool) -> None:
    tokenizer = _tokenizer(ends[0])
    end_ids = tokenizer.convert_tokens_to_ids(list(ends))
    pad_id = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    config = Qwen2Config(
        vocab_size=-(-len(tokenizer) // _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=tied,
        bos_token_id=pad_id,
        eos_token_id=end_ids[0],
        dtype=torch.float32,
    )
    # the constructor draws from the global generator, which is the caller's
    with torch.random.fork_rng(devices=[]):
        model = Qwen2ForCausalLM(config)
    _randomise(model, seed)
    model.generation_config = GenerationConfig(
        bos_token_id=pad_id, eos_token_id=end_ids, pad_token_id=pad_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _randomise(model: Any, seed: int) -> None:
    """Draw every parameter, the biases too, which the library would leave at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if "norm" in name else 0.0
            parameter.normal_(mean, _SCALE, generator=generator)
            if "embed" in name or "lm_head" in name:
                # fewer stray bytes, so that what a person sees looks like words
                parameter[:_LETTERS] *= 0.5


def _tokenizer(end: str) -> Any:
    alphabet = sorted(bytes_to_unicode().values())
    merges = _merges()
    joined = (left + right for left, right in merges)
    tokens = dict.fromkeys(chain(alphabet, joined, _CONTROL_TOKENS, TOOL_TOKENS))
    tokenizer = Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        eos_token=end,
        pad_token=END_OF_TEXT,
        unk_token=None,
        model_max_length=32768,
        clean_up_tokenization_spaces=False,
    )
    for special, contents in ((True, _CONTROL_TOKENS), (False, TOOL_TOKENS)):
        tokenizer.add_tokens([AddedToken(t, special=special, normalized=False) for t in contents])
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def _merges() -> list[tuple[str, str]]:
    """Pairs that build each word letter by letter, and then put a space before it."""
    words = _WORDS.split()
    letters = [(word[:end], word[end]) for word in words for end in range(1, len(word))]
    space = bytes_to_unicode()[ord(" ")]
    return list(dict.fromkeys([*letters, *((space, word) for word in words)]))

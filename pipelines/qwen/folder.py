"""Where a language model's files lie, and whether this code can run what they describe.

Source of the cache layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache:
``models--<owner>--<name>`` holds ``refs/<branch>`` (a text file with a commit) and
``snapshots/<commit>/``, whose files link into ``blobs/``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, Qwen2Config
from transformers.convert_slow_tokenizer import bytes_to_unicode

from pipelines.weights import CheckpointError, read_config

_MODEL_TYPE = "qwen2"
_TURN_END = "<|im_end|>"
# these recompute the frequencies from the longest text seen so far: state that no job owns
_ROPE_WITH_MEMORY = ("dynamic", "longrope")


def resolve_snapshot(folder: Path) -> Path:
    """The folder that holds the files: ``folder`` itself, or the snapshot that a hub cache names.

    Without ``refs/main`` (a copied cache often lacks it) the only snapshot is taken. Raises
    ``CheckpointError`` where the cache names none.
    """
    snapshots = folder / "snapshots"
    if (folder / "config.json").is_file() or not snapshots.is_dir():
        return folder
    reference = folder / "refs" / "main"
    if reference.is_file():
        commit = reference.read_text(encoding="utf-8", errors="replace").strip()
        if not commit.isalnum():
            raise CheckpointError(reference, f"holds {commit[:80]!r}, where a commit is expected")
        snapshot = snapshots / commit
        if not snapshot.is_dir():
            raise CheckpointError(reference, f"names snapshot {commit}, which is not downloaded")
        return snapshot
    found = sorted(p for p in snapshots.iterdir() if p.is_dir())
    if len(found) != 1:
        raise CheckpointError(
            folder, f"a hub cache without refs/main and with {len(found)} snapshots, not one"
        )
    return found[0]


def load_config(folder: Path) -> Any:
    """The model's configuration. Raises ``CheckpointError`` for what this code cannot run."""
    path = folder / "config.json"
    model_type = read_config(path).get("model_type")
    if model_type != _MODEL_TYPE:
        raise CheckpointError(path, f"model_type is {model_type!r}; {_MODEL_TYPE!r} is needed")
    try:
        config = Qwen2Config.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise CheckpointError(path, f"not a valid configuration: {error}") from error
    if "sliding_attention" in config.layer_types:
        raise CheckpointError(path, "use_sliding_window is on; only full attention is supported")
    rope = config.rope_parameters.get("rope_type")
    if rope in _ROPE_WITH_MEMORY:
        raise CheckpointError(path, f"rope_type {rope!r} is not supported: it depends on past jobs")
    return config


def load_tokenizer(folder: Path, vocabulary: int) -> Any:
    """The tokenizer, checked to be whole, byte-level, with one chat template, and to fit a model of
    ``vocabulary`` rows. Raises ``CheckpointError``."""
    try:
        # the parser in Rust answers a damaged file with a bare Exception
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise CheckpointError(folder, f"its tokenizer cannot be read: {error}") from error
    # from a folder without its vocabulary the library makes an empty tokenizer
    if not tokenizer.get_vocab().keys() >= set(bytes_to_unicode().values()):
        raise CheckpointError(
            folder, "its tokenizer does not spell every byte; is tokenizer.json missing?"
        )
    if len(tokenizer) > vocabulary:
        raise CheckpointError(
            folder, f"its tokenizer has {len(tokenizer)} ids, its model only {vocabulary}"
        )
    if not isinstance(tokenizer.chat_template, str):
        raise CheckpointError(folder, "its tokenizer has no chat template, or more than one")
    _try_template(folder, tokenizer)
    return tokenizer


def _try_template(folder: Path, tokenizer: Any) -> None:
    # the first call also settles options inside the shared parser; later ones, which come from
    # several threads, only read it
    chat = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    try:
        tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, sanitize_control_tokens=True
        )
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise CheckpointError(folder, f"its chat template fails: {error}") from error


def stop_ids(folder: Path, config: Any, tokenizer: Any) -> frozenset[int]:
    """The ids that end a text: the checkpoint's own, and the end of a turn.

    A base checkpoint names only the end of its documents, yet it is prompted in turns like the
    other; without the turn's end it would go on and invent the next speaker's words. Raises
    ``CheckpointError``.
    """
    path = folder / "generation_config.json"
    ends = read_config(path).get("eos_token_id") if path.is_file() else config.eos_token_id
    found = list(ends) if isinstance(ends, list) else [ends]
    found += [tokenizer.eos_token_id, tokenizer.get_added_vocab().get(_TURN_END)]
    ids = [i for i in found if i is not None]
    if not all(isinstance(i, int) for i in ids):
        raise CheckpointError(path, f"eos_token_id is {ends!r}, where ids are expected")
    return frozenset(ids)

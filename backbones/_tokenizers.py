"""Tokenizers: whether they are whole and fit their text encoders, and what of them reaches a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from torch import nn
from transformers import PreTrainedTokenizerBase

from diffsift.common.files import digest
from diffsift.errors import ModelError, first_line

from .folders import refuse_pointer

_WORDS = [
    "The",
    "quick",
    "brown",
    "jumped",
    "over",
    "13",
    "lazier",
    "dogs:",
    "naïve",
    "Größe",
    "0.5",
    "don't!",
    "東京",
    "привет",
    "🙂",
]
"""Words that a tokenizer with other merges or rules splits in another way."""

_SETTINGS = ("model_max_length", "padding_side", "truncation_side", "pad_token_id", "chat_template")

_TOKENS = ("token_embedding", "embed_tokens", "word_embeddings")
"""What text encoders call the table of their tokens."""


def check_tokenizer_files(folder: Path, kind: Any) -> None:
    """Refuse a tokenizer without its vocabulary: transformers would make one of two words of it.

    Args:
        folder: of the tokenizer.
        kind: its class, of transformers.

    Raises:
        ModelError: a vocabulary file is missing, or a pointer of git-lfs.
    """
    wanted: dict[str, str] = dict(kind.vocab_files_names)
    single = wanted.pop("tokenizer_file", None)
    alternatives = [list(wanted.values())] if wanted else []
    alternatives += [[single]] if single else []
    for names in alternatives:
        if all((folder / name).is_file() for name in names):
            for name in names:
                refuse_pointer(folder / name)
            return
    if alternatives and not any(entry.suffix in (".model", ".tiktoken") for entry in folder.iterdir()):
        choices = " or ".join(" and ".join(names) for names in reversed(alternatives))
        raise ModelError(
            f"{folder.name} of {folder.parent} must hold its vocabulary ({choices}), but does not: download the folder "
            "again."
        )


def check_tokenizers(pipeline: DiffusionPipeline, source: str) -> None:
    """Refuse tokenizers that do not fit their text encoders.

    Args:
        pipeline: loaded.
        source: the user's name for it, for messages.

    Raises:
        ModelError: a vocabulary is far smaller than the encoder's, or the longest text is longer than it can take.
    """
    for name, tokenizer in _tokenizers(pipeline):
        encoder_name = "text_encoder" + name.removeprefix("tokenizer")
        encoder: Any = pipeline.components.get(encoder_name)
        if not isinstance(encoder, nn.Module):
            continue
        tables = {path: part.num_embeddings for path, part in encoder.named_modules() if isinstance(part, nn.Embedding)}
        words = max((size for path, size in tables.items() if path.endswith(_TOKENS)), default=0)
        if 2 * len(tokenizer) < words:
            raise ModelError(
                f"{name} of {source} must know about as many tokens as {encoder_name} ({words}), but knows "
                f"{len(tokenizer)}: its vocabulary is damaged or another model's; download {name} again."
            )
        positions = next((size for path, size in tables.items() if path.endswith("position_embedding")), None)
        given = tokenizer.model_max_length
        if positions is not None and not (isinstance(given, int | float) and 0 < given <= positions):
            says = "has none" if isinstance(given, int) and given > 10**9 else f"says {str(given)[:40]}"
            raise ModelError(
                f"{name} of {source} must have a maximal length of at most {positions} tokens, which {encoder_name} "
                f"takes, but {says}: set model_max_length: {positions} in {name}/tokenizer_config.json, or download "
                "that file again."
            )


def tokens_of(pipeline: DiffusionPipeline, prompt: str) -> dict[str, str]:
    """What a pipeline's tokenizers make of text, as digests: equal exactly when text encoders are given the same.

    Args:
        pipeline: loaded.
        prompt: text.

    Returns:
        By the name of the tokenizer: over its vocabulary, the ids of the prompt and of some words, and how it pads,
        truncates and frames a prompt. Empty for a pipeline without tokenizers.
    """
    found = {}
    for name, tokenizer in _tokenizers(pipeline):
        settings = [str(getattr(tokenizer, setting, None)) for setting in _SETTINGS]
        try:
            prompt_ids = tokenizer(prompt, verbose=False)["input_ids"]
            word_ids = tokenizer(_WORDS, add_special_tokens=False, verbose=False)["input_ids"]
        except Exception as error:  # whatever a tokenizer says of files that others wrote
            raise ModelError(f"{name} must turn text into tokens, but fails: {first_line(error)}") from error
        found[name] = digest([prompt_ids, word_ids, sorted(tokenizer.get_vocab().items()), settings], 32)
    return found


def _tokenizers(pipeline: DiffusionPipeline) -> Iterator[tuple[str, Any]]:
    """Tokenizers of a pipeline by the names of their parts; a processor has one inside."""
    for name, part in sorted(pipeline.components.items()):
        tokenizer = getattr(part, "tokenizer", part)
        if isinstance(tokenizer, PreTrainedTokenizerBase):
            yield name, tokenizer

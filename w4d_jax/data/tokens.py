"""Prompts as token ids, the way Wan2.1 hands them to umT5. Needs the extra `text`.

The vocabulary is a file that travels with the weights: `tokenizer.json` or `spiece.model`.
"""

import html
import importlib
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from w4d_jax.types import InputError

LENGTH = 512  # tokens of a prompt, the end and the padding included


class Tokenizer(NamedTuple):
    """One vocabulary; call it with texts."""

    split: Callable[[str], list[int]]  # without an end
    pad: int
    end: int

    def __call__(self, texts: list[str], length: int = LENGTH):
        """(ids i32[B,S], mask i32[B,S]): cleaned, ended, cut or padded to `length`; mask is
        1 up to the end of the text."""
        ids = np.full((len(texts), length), self.pad, np.int32)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            tokens = [*self.split(clean(text))[: length - 1], self.end]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return ids, mask


def clean(text: str) -> str:
    """Broken encodings mended, HTML entities (also doubly escaped) read, blanks single."""
    text = _import("ftfy").fix_text(text)
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text))).strip()


def load_tokenizer(path) -> Tokenizer:
    """From a `tokenizer.json` (tokenizers) or a `.model` (sentencepiece)."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"tokenizer {path}: no such file")
    read = {".json": _from_json, ".model": _from_sentencepiece}.get(path.suffix)
    if read is None:
        raise InputError(f"tokenizer {path}: need a tokenizer.json or a spiece.model")
    return read(path)


def _from_json(path: Path) -> Tokenizer:
    library = _import("tokenizers")
    try:
        vocabulary = library.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"tokenizer {path}: cannot read it ({_line(error)})") from error
    vocabulary.no_truncation()
    vocabulary.no_padding()
    pad, end = (vocabulary.token_to_id(token) for token in ("<pad>", "</s>"))
    if pad is None or end is None:
        raise InputError(f"tokenizer {path}: has no <pad> or no </s>, umT5's has both")
    return Tokenizer(
        lambda text: vocabulary.encode(text, add_special_tokens=False).ids, pad, end
    )


def _from_sentencepiece(path: Path) -> Tokenizer:
    library = _import("sentencepiece")
    try:
        vocabulary = library.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise InputError(f"tokenizer {path}: cannot read it ({_line(error)})") from error
    pad, end = vocabulary.pad_id(), vocabulary.eos_id()
    if min(pad, end) < 0:
        raise InputError(f"tokenizer {path}: has no <pad> or no </s>, umT5's has both")
    return Tokenizer(vocabulary.encode, pad, end)


def _import(name: str):
    if importlib.util.find_spec(name) is None:
        raise InputError(f"{name} is not installed: pip install 'w4d-jax[text]'")
    return importlib.import_module(name)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

"""Which word each word piece of a language model belongs to, and so when it was said. torch by way of the tokenizer.

Prepared sequences keep one token per word of a text, in its order, and ``word_times``. The pieces here are exactly
those of ``language.token_ids``: piece, word, audio and vision of that word stay together whatever the tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks import language
from benchmarks.errors import InputError

NO_WORD = -1  # start, end and padding


def word_of_piece(texts: Sequence[str], model: str, max_tokens: int = 64) -> np.ndarray:
    """(n, T) int64: position in ``text.split()`` of the word that each piece is of; NO_WORD where it is of none.

    A text is cut after ``max_tokens`` pieces, so its last words may have none. InputError where the model's tokenizer
    does not tell which characters a piece covers.
    """
    clean = language.normalise(texts)
    tokenizer = language._read(model, "AutoTokenizer")
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(f"language.model={model}: its tokenizer does not tell where pieces lie; take a fast tokenizer")
    encoded = tokenizer(clean, truncation=True, max_length=max_tokens, padding=False, return_offsets_mapping=True)
    rows = [_words(text, spans) for text, spans in zip(clean, encoded["offset_mapping"], strict=True)]
    found = np.full((len(rows), max(map(len, rows), default=0)), NO_WORD, dtype=np.int64)
    for row, words in enumerate(rows):
        found[row, : len(words)] = words
    return found


def _words(text: str, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """The word of each span of characters; words are separated by single spaces, and some spans begin with theirs."""
    spaces = np.cumsum([letter == " " for letter in text + "."])
    return np.array([spaces[end - 1] if end > start else NO_WORD for start, end in spans], dtype=np.int64)


def piece_times(word_of: np.ndarray, word_times: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """When each piece was said: (n, T, 2) seconds and (n, T) bool, False (and zeros) for pieces without a known word.

    word_of: (n, T) of word_of_piece; word_times: (n, W, 2) and words: (n,), its real length per row.
    """
    known = (word_of >= 0) & (word_of < words[:, None])
    rows = np.arange(len(word_of))[:, None]
    times = word_times[rows, np.where(known, word_of, 0)]
    return np.where(known[..., None], times, 0.0), known

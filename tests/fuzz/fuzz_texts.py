"""Targets: texts that people and programs write: records, curves, configuration, lists, submissions, commands."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from borrowed import RESULTS, borrow, committed
from fuzz_files import put, seeded
from fuzz_material import Choices, spoiled
from fuzz_oracle import Target

from benchmarks import analysed, archive, cli, curves, lists, methods, published, word_pieces
from benchmarks.console import Console
from benchmarks.errors import InputError
from benchmarks.record import RunKey, RunRecord, canonical, digest_of
from benchmarks.report import accepted
from benchmarks.report import published as numbers
from benchmarks.report.collect import collect
from benchmarks.runner import bench, config, launch, names, store, teams
from benchmarks.submission import command, reading
from benchmarks.tasks import cmu_mosi, sentiment

KEY = RunKey("crema_d", "paper", "twin", "tiny", "late_fusion", "full", 0)
PARTS = (RESULTS / "records" / "crema_d.jsonl", RESULTS / "curves" / "crema_d.jsonl")


@cache
def record_line() -> str:
    """A committed record, as a submission would hold it."""
    record = next(r for r in committed("crema_d") if r.key.method == "late_fusion" and r.status == "done")
    return canonical(borrow(record, "borrowed").to_json())


@cache
def curve_line() -> str:
    """Its curve."""
    lines = PARTS[1].read_text(encoding="utf-8").splitlines()
    raw = next(line for line in map(json.loads, lines) if line["key"]["method"] == "late_fusion")
    raw["folds"] = [{name: values[:3] for name, values in fold.items()} for fold in raw["folds"]]
    return canonical(raw)


def _record(data: bytes) -> dict[str, Any]:
    """A record with replaced fields whose digest fits all the same: its author has made it so."""
    raw = spoiled(json.loads(record_line()), Choices(data))
    if isinstance(raw, dict) and "what" in raw:
        with contextlib.suppress(ValueError, RecursionError, OverflowError):
            raw["digest"] = digest_of(raw["what"])
    return raw  # type: ignore[no-any-return]


def _run_folder(folder: Path, text: bytes | str) -> Path:
    place = folder / "runs" / KEY.folder
    place.mkdir(parents=True)
    put(place / store.RECORD, text)
    return place


def feed_record_bytes(data: bytes, folder: Path) -> object:
    """Any bytes as record.json."""
    return store.read_record(_run_folder(folder, data))


def feed_record(data: bytes, folder: Path) -> object:
    """A record with replaced fields, as record.json and as a line of the committed records."""
    raw = _record(data)
    if isinstance(raw, dict) and isinstance(raw.get("key"), dict):
        raw["key"] = {**raw["key"], **asdict(KEY)} if data[:1] < b"\x80" else raw["key"]
    text = json.dumps(raw)
    found = store.read_record(_run_folder(folder, text))
    assert found is None or found.to_json()
    return found


def feed_collected(data: bytes, folder: Path) -> object:
    """Committed records with one whose fields are replaced, up to the frame that tables are made from."""
    (folder / "records").mkdir()
    good = record_line().replace('"borrowed"', '"misa"')
    put(folder / "records" / "crema_d.jsonl", f"{good}\n{json.dumps(_record(data))}\n")
    return collect(folder / "records").frame


def feed_record_lines(data: bytes, folder: Path) -> object:
    """Any bytes as a file of committed records."""
    (folder / "records").mkdir()
    put(folder / "records" / "crema_d.jsonl", data)
    store.committed(folder, "crema_d")
    return collect(folder / "records").frame


def feed_curves(data: bytes, folder: Path) -> object:
    """Any bytes as committed curves."""
    found = curves.read(put(folder / "crema_d.jsonl", data))
    return curves.text(found, found)


def feed_curve_fields(data: bytes, folder: Path) -> object:
    """A committed curve with replaced fields, and a run's own."""
    choices = Choices(data)
    found = curves.read(put(folder / "crema_d.jsonl", json.dumps(spoiled(json.loads(curve_line()), choices))))
    curves.text(found, found)
    return found


@cache
def analysis_line() -> str:
    """A line of an analysis."""
    values = {"zero": {"audio+vision": {"accuracy": 0.5}, "": {"accuracy": 0.25}}, "points": [[0.5, 1], [2, "text"]]}
    return analysed.Line("missing", KEY, "ab" * 32, "cd" * 32, values).text()


def feed_analysis(data: bytes, folder: Path) -> object:
    """Any bytes as the lines of an analysis."""
    return analysed.text(analysed.read(put(folder / "missing.jsonl", data)).values())


def feed_analysis_fields(data: bytes, folder: Path) -> object:
    """A line of an analysis with replaced fields."""
    return feed_analysis(json.dumps(spoiled(json.loads(analysis_line()), Choices(data))).encode(), folder)


def feed_run_curves(data: bytes, folder: Path) -> object:
    """The curves that a run leaves, with replaced fields."""
    choices = Choices(data)
    rows: Any = [{"fold": 0, "epoch": n, "loss": {"total": 1.0}, "valid": {"accuracy": 0.5}} for n in (1, 2)]
    rows = spoiled(rows, choices)
    put(folder / curves.FILE, "".join(json.dumps(row) + "\n" for row in (rows if isinstance(rows, list) else [rows])))
    record = RunRecord(KEY, {}, "done", {"metric": "accuracy", "epoch": 1, "value": 0.5})
    return curves.of_run(folder, record)


# ------------------------------------------------------------------------------------------------------ configuration


PUBLISHED = b"""schema: 1
margins: {accuracy: 1.0}
profiles: [paper]
labels: {x: X}
sources: {clcr: {title: T, selection: unknown, seeds: unknown}}
numbers:
  - {benchmark: crema_d, protocols: [paper], method: clcr, metric: accuracy, value: 70.1, source: clcr}
"""
TUNED = b"tuned:\n  crema_d.paper:\n    clcr: {training.lr: 0.01, method.shared_rank: 8}\n"
ACCEPTED = (
    b"schema: 1\nreproduced:\n  - {benchmark: a, protocol: b, profile: c, method: d, variant: e, metric: f, source: g, "
    b"published: 1.0, margin: 1.0}\n"
)
BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b", ".join([b"*%c" % (97 + n)] * 9)) for n in range(9)
)
YAML_SEEDS = [
    PUBLISHED,
    TUNED,
    ACCEPTED,
    BOMB,
    b"a: 2001-99-99",
    b"&a [*a]",
    b"? [a]\n: b",
    b"!!binary x",
    b"!!int 0x",
    b"[" * 200,
]


def feed_published_yaml(data: bytes, folder: Path) -> object:
    """Any bytes as the published numbers."""
    return numbers.load(put(folder / "published.yaml", data))


def feed_yaml_tree(data: bytes, folder: Path) -> object:
    """The published numbers and the accepted cells with replaced fields (JSON is YAML, too)."""
    import yaml

    choices = Choices(data)
    which, load = choices.pick(((PUBLISHED, numbers.load), (ACCEPTED, accepted.load), (TUNED, config.read_tuned)))
    tree = spoiled(yaml.safe_load(which), choices)
    try:
        text = yaml.safe_dump(tree, allow_unicode=True)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return load(put(folder / "input.yaml", text))  # type: ignore[operator]


def feed_other_yaml(data: bytes, folder: Path) -> object:
    """Any bytes as accepted cells and as what a search found."""
    accepted.load(put(folder / "accepted.yaml", data))
    return config.read_tuned(put(folder / "x.tuned.yaml", data))


def feed_profile(data: bytes, folder: Path) -> object:
    """Any bytes as a profile."""
    return config._load_profile.__wrapped__(put(folder / "mine.yaml", data))


def _fields() -> list[str]:
    return [
        "training.lr",
        "training.epochs",
        "training.batch_size",
        "training.optimizer",
        "training.bf16",
        "encoder.width",
        "encoder.checkpoint",
        "language.model",
        "method.shared_rank",
        "training.clip_norm",
        "language.max_tokens",
    ]


def feed_set(data: bytes, folder: Path) -> object:
    """A value given with --set."""
    del folder
    choices = Choices(data)
    name = choices.pick(_fields()) if choices.number(8) else choices.text()
    key = RunKey("crema_d", "paper", "twin", "tiny", choices.pick(("clcr", "late_fusion", "linear")), "full", 0)
    value = (
        choices.text()
        if choices.number(2)
        else choices.pick(
            (
                ".inf",
                "-.inf",
                ".nan",
                "1e400",
                "9" * 400,
                "-1",
                "0",
                "[1]",
                "{a: b}",
                "1_0",
                "0o7",
                "2001-01-01",
                "2001-99-99",
                "&a [*a]",
                "!!int x",
                "=",
                "1:30",
                "~",
                "'",
                "|",
                "- a",
                "? x",
                "%",
                "@",
                "`",
            )
        )
    )
    return config.resolve(key, (f"{name}={value}",)).canonical()


# -------------------------------------------------------------------------------------------------------- command line

WORDS = (
    "list",
    "plan",
    "run",
    "status",
    "report",
    "submit",
    "search",
    "check",
    "bench",
    "fetch",
    "prepare",
    "--seeds",
    "--method",
    "--benchmark",
    "--variant",
    "--profile",
    "--data",
    "--protocol",
    "--set",
    "--out",
    "--workers",
    "--device",
    "--json",
    "--only",
    "--trials",
    "--folds",
    "--budget",
    "--steps",
    "--measure",
    "--max-loss",
    "all",
    "crema_d",
    "clcr",
    "0-4",
    "0,3",
    "0-",
    "-",
    "4-0",
    "0-999999999999",
    "9" * 5000,
    "0,0,0",
    "1--2",
    ",",
    "\u0663-\u0664",
    "cpu",
    "cuda:99",
    "cuda:x",
    "auto",
    "-1",
    "nan",
    "1e9",
    "--seeds-together",
    "1,8",
    "0",
    "x",
)


def feed_words(data: bytes, folder: Path) -> object:
    """A command line, parsed, and its selections and numbers read as the commands read them; nothing is run."""
    choices, words = Choices(data), []
    while choices.more() and len(words) < 12:
        words.append(choices.pick(WORDS) if choices.number(4) else choices.text().replace("\0", ""))
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        try:
            args = cli._parser().parse_args(words)
        except SystemExit:  # --help
            return None
    readers: list[Callable[[], object]] = []
    if hasattr(args, "seeds"):
        readers += [lambda: cli._selection(args), lambda: cli._place(args)]
    if hasattr(args, "workers") and hasattr(args, "device"):
        readers.append(lambda: cli._crew(args))
    if getattr(args, "seeds_together", None) is not None:
        together = bench.parse_together if args.command == "bench" else teams.parse_together
        readers.append(lambda: together(args.seeds_together))
    if hasattr(args, "launcher"):
        readers.append(lambda: launch.launcher(args.launcher))
    for read in readers:
        read()
    return args


def feed_terminal(data: bytes, folder: Path) -> object:
    """What a console prints of hostile texts reaches a terminal without anything that it would obey."""
    del folder
    choices, out, err = Choices(data), io.StringIO(), io.StringIO()
    texts = [choices.text() for _ in range(4)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        console = Console()
        console.table("runs", ("run", "why"), [(texts[0], texts[1]), (texts[2], texts[3])])
        console.note(texts[0])
        console.error(texts[1])
        console.fault(texts[2])
        console.notes(texts)
        console.say(texts[3])
    for stream in (out, err):
        shown = stream.getvalue()
        assert all(line.isprintable() for line in shown.split("\n")), ascii(shown)
        shown.encode("utf-8")
    assert len(err.getvalue().split("\n")) == 8
    return out


# --------------------------------------------------------------------------------------------------------------- lists

CREMA = b"1001_IEO_NEU_XX,NEU\n1002_IEO_HAP_XX,HAP\n"
KINETICS = b"".join(b"abcdefghi%02d_000010_000020,10,%d\n" % (n, n) for n in range(31))
AVE = b"Church bell&RUhOCu3LNXM&good&0&10\nMale speech, man speaking&abcdefghijk&good&1&9\n"
UCF = b"ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\nArchery/v_Archery_g01_c02.avi 2\n"
CLASSES = b"1 ApplyEyeMakeup\n2 Archery\n"
LIST_SEEDS = [
    b"\0" + CREMA,
    b"\1" + KINETICS,
    b"\2" + AVE,
    b"\3" + UCF,
    b"\4" + CLASSES,
    b"\5" + CREMA,
    b"\6actor,age,Sex\n1001,51,Male\n",
    b"\7id,label\na,1\nb,2\n",
]


def feed_list(data: bytes, folder: Path) -> object:
    """Any bytes as one of the owners' lists; the first byte says which."""
    which, body = data[:1] or b"\0", data[1:]
    path, other = put(folder / "input.txt", body), put(folder / "other.txt", b"1003_IEO_SAD_XX,SAD\n")
    kind = which[0] % 8
    if kind == 0:
        return lists.read_crema_d(path, other, ("NEU", "HAP", "SAD"))
    if kind == 1:
        return lists.read_kinetics_sounds(path, put(folder / "other.txt", b"abcdefghzzz_1,10,0\n"), 31)
    if kind == 2:
        parts = dict.fromkeys(lists.PARTS, path)
        return lists.read_ave(path, parts, ("Church bell", "Male speech, man speaking"))
    if kind in (3, 4):
        place = folder / "ucf"
        place.mkdir()
        put(place / "classInd.txt", body if kind == 4 else CLASSES)
        for number in (1, 2, 3):
            put(place / f"trainlist{number:02d}.txt", body if kind == 3 else UCF)
            put(place / f"testlist{number:02d}.txt", b"Archery/v_Archery_g09_c02.avi\n")
        return lists.read_ucf101(place, 2)
    if kind == 5:
        return lists.read_crema_d(other, path, ("NEU", "HAP", "SAD"), path)
    if kind == 6:
        return lists.read_women(path)
    return published.read_table(path, ("id", "label"), 2)


FOLDS = [
    b"standard_train_fold = ['a', 'b']\nstandard_valid_fold = ['c']\nstandard_test_fold = ['d']\n",
    b'{"CMU_MOSI": {"train": ["a"], "valid": ["b"], "test": ["c"]}}',
]


def feed_folds(data: bytes, folder: Path) -> object:
    """Any bytes as the SDK's lists of folds, a Python file or JSON."""
    name = "mosi_mosei_std_folds.json" if data[:1] == b"{" else "cmu_mosi_std_folds.py"
    put(folder / name, data)
    return sentiment.std_folds(folder, cmu_mosi.CORPUS)


def feed_row(data: bytes, folder: Path) -> object:
    """Any bytes as the module of another package's method, whose ROW is read from its text."""
    path = put(folder / "input.py", data)
    found = methods._literal(path)
    methods._check(found, f"{path}: ROW")
    return found


ROW = b'ROW = {"label": "X", "citation": "Nobody, 2026", "year": 2026, "variants": ["full"]}\n'


# ---------------------------------------------------------------------------------------------------------- submissions


def _submission(folder: Path, record: bytes | str, curve: bytes | str) -> Path:
    place = folder / "mine"
    for part in reading.PARTS:
        (place / part).mkdir(parents=True)
    put(place / "records" / "crema_d.jsonl", record)
    put(place / "curves" / "crema_d.jsonl", curve)
    put(place / "predictions" / "crema_d.npz", archive.npz_bytes({"a": np.zeros(2)}))
    return place


def _refuse(found: reading.Submission) -> reading.Submission:
    """The first fault as the error that a single reader would raise."""
    if found.faults:
        raise InputError(found.faults[0])
    return found


def feed_submission_bytes(data: bytes, folder: Path) -> object:
    """Any bytes as a submission's records and curves."""
    return _refuse(reading.read(_submission(folder, data, data)))


def feed_submission(data: bytes, folder: Path) -> object:
    """A submission whose record and curve have replaced fields, through the whole of `clcr submit --check`."""
    cut = len(data) // 2
    curve = spoiled(json.loads(curve_line()), Choices(data[cut:])) if cut else json.loads(curve_line())
    place = _submission(folder, json.dumps(_record(data[:cut] if cut else data)), json.dumps(curve))
    _refuse(reading.read(place))
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        code = command.run(place, RESULTS, folder / "cache", True, Console())
    assert all(line.isprintable() for line in quiet.getvalue().split("\n"))
    return code


# ---------------------------------------------------------------------------------------------------------- word pieces


def feed_words_of_pieces(data: bytes, folder: Path) -> object:
    """The word of each piece, for any text and spans as a tokenizer may give them."""
    del folder
    choices = Choices(data)
    text = " ".join((choices.text() + choices.text()).lower().split())
    spans = []
    at = 0
    while choices.more() and at < len(text):
        end = min(len(text), at + choices.number(6))
        spans.append((at, end))
        at = end + choices.number(2)
    found = word_pieces._words(text, spans)
    words = text.split()
    for (start, end), word in zip(spans, found.tolist(), strict=True):
        if end > start and text[start:end].strip() and " " not in text[start:end]:
            assert text[start:end] in words[word], (text, start, end, word)
    return word_pieces.piece_times(found[None], np.zeros((1, max(1, len(words)), 2)), np.array([len(words)]))


DEEP = b"[" * 5000
YAML_PROFILES = [*YAML_SEEDS, (names.PROFILES / "tiny.yaml").read_bytes()]
TARGETS = (
    Target("record_bytes", feed_record_bytes, lambda: [record_line().encode(), DEEP, b"{}"]),
    Target("record", feed_record, seeded()),
    Target("record_lines", feed_record_lines, lambda: [record_line().encode(), DEEP, b"\xff\xfe"], named=False),
    Target("collected", feed_collected, seeded(), named=False),
    Target("curves", feed_curves, lambda: [curve_line().encode(), DEEP]),
    Target("curve_fields", feed_curve_fields, seeded()),
    Target("analysis", feed_analysis, lambda: [analysis_line().encode(), DEEP]),
    Target("analysis_fields", feed_analysis_fields, seeded()),
    Target("run_curves", feed_run_curves, seeded()),
    Target("published_yaml", feed_published_yaml, lambda: YAML_SEEDS),
    Target("yaml_tree", feed_yaml_tree, seeded(), named=False),
    Target("other_yaml", feed_other_yaml, lambda: YAML_SEEDS, named=False),
    Target("profile", feed_profile, lambda: YAML_PROFILES, named=False),
    Target("set", feed_set, seeded(), named=False),
    Target("words", feed_words, seeded(), named=False),
    Target("terminal", feed_terminal, seeded(), named=False),
    Target("list", feed_list, lambda: LIST_SEEDS),
    Target("folds", feed_folds, lambda: FOLDS),
    Target("row", feed_row, lambda: [ROW, b"ROW = " + b"[" * 300]),
    Target("submission_bytes", feed_submission_bytes, lambda: [record_line().encode(), curve_line().encode(), DEEP]),
    Target("submission", feed_submission, seeded(), named=False),
    Target("word_pieces", feed_words_of_pieces, seeded(), named=False),
)

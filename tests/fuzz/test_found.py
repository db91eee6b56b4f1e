"""What the fuzz targets have found, each as a small input that shows it: an InputError now, once something else."""

from __future__ import annotations

import io
import json
import lzma
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fuzz_files
import fuzz_shown
import fuzz_texts
import numpy as np
import pytest
import yaml
from fuzz_files import csd_file, put
from fuzz_targets import TARGETS
from synthetic_records import Sweep, write_records

from benchmarks import archive, cli, console, csd, curves, plain_yaml, prepared, published, report, unpack
from benchmarks.errors import LONGEST, InputError, one_line, plain
from benchmarks.record import RunRecord, digest_of, parsed
from benchmarks.report import accepted, render
from benchmarks.report import published as numbers
from benchmarks.report.collect import collect
from benchmarks.runner import config, plan
from benchmarks.tasks import cmu_mosi, sentiment_pickles

ROOT = Path(__file__).resolve().parents[2]


def refused(read: Callable[[], object]) -> str:
    """The line that something is refused with."""
    with pytest.raises(InputError) as caught:
        read()
    return one_line(str(caught.value))


# ------------------------------------------------------------------------------------------------------------ sequences


def declared(shape: tuple[int, ...]) -> bytes:
    def change(group: Any, _: Any) -> None:
        del group["features"]
        group.create_dataset("features", shape, "f4", chunks=(64, 1))

    return csd_file(change)


@pytest.mark.parametrize("shape", [(10**12, 1), (10**6, 1000)])
def test_a_sequence_that_declares_terabytes_is_refused_before_it_is_read(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    path = put(tmp_path / "x.csd", declared(shape))
    assert path.stat().st_size < 1 << 15
    with csd.open_csd(path) as file:
        told = refused(lambda: file.entry("video"))
    assert str(path) in told
    assert "are declared, 0 are there" in told


def test_a_packed_sequence_of_the_strongest_ratio_is_read(tmp_path: Path) -> None:
    def change(group: Any, _: Any) -> None:
        for name, width in (("features", 100), ("intervals", 2)):
            del group[name]
            group.create_dataset(name, data=np.zeros((30_000, width)), compression="gzip", compression_opts=9)

    with csd.open_csd(put(tmp_path / "x.csd", csd_file(change))) as file:
        assert file.entry("video").features.shape == (30_000, 100)


def text_of_one_piece(change: Callable[[bytearray, int], None]) -> bytes:
    """A sequence whose text of variable length lies in a heap that is changed: the heap's place is given."""
    body = bytearray(csd_file())
    change(body, body.index(b"GCOL"))
    return bytes(body)


def free_piece_of_no_length(body: bytearray, heap: int) -> None:
    free = heap + 16 + 16 + 8  # behind the heap's head and the one text of at most eight bytes
    assert body[free : free + 2] == b"\0\0"
    body[free + 8 : free + 16] = bytes(8)


def heap_beyond_the_file(body: bytearray, heap: int) -> None:
    body[heap + 8 : heap + 16] = struct.pack("<Q", 1 << 40)


def heap_of_another_name(body: bytearray, heap: int) -> None:
    body[heap : heap + 4] = b"XXXX"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("change", [free_piece_of_no_length, heap_beyond_the_file, heap_of_another_name])
def test_a_heap_that_libhdf5_walks_for_ever_is_refused(
    change: Callable[[bytearray, int], None], tmp_path: Path
) -> None:
    path = put(tmp_path / "x.csd", text_of_one_piece(change))
    assert str(path) in refused(lambda: csd.open_csd(path))


def test_texts_of_any_length_are_read(tmp_path: Path) -> None:
    def change(group: Any, h5py: Any) -> None:
        del group["features"]
        group.create_dataset("features", (2, 1), h5py.string_dtype())[:, 0] = ["a", "b" * 5000]

    with csd.open_csd(put(tmp_path / "x.csd", csd_file(change))) as file:
        assert [len(word) for word in csd.words(file.texts("video").features)] == [1, 5000]


def test_metadata_is_bounded_like_values(tmp_path: Path) -> None:
    def change(group: Any, _: Any) -> None:
        group.file["root/metadata"].create_dataset("huge", (10**12,), "f8", chunks=(64,))

    assert "are declared" in refused(lambda: csd.open_csd(put(tmp_path / "x.csd", csd_file(change))))


# --------------------------------------------------------------------------------------------------------------- arrays


def member(header: str, body: bytes = bytes(12), kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    text = header.encode()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name in ("index", "target", "prediction"):
            content = b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + body
            bundle.writestr(zipfile.ZipInfo(f"{name}.npy"), content, kind)
    return buffer.getvalue()


def spoilt(kind: int, at: int) -> bytes:
    """A packed member, broken inside."""
    body = bytearray(member("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", bytes(400), kind))
    body[at : at + 12] = b"\xff" * 12
    return bytes(body)


def numbered(version: int = 20, method: int = 0) -> bytes:
    """An .npz that says it needs another version of zip, or another way of packing."""
    body = bytearray(archive.npz_bytes({"index": np.arange(3)}))
    for signature, shift in ((b"PK\3\4", 0), (b"PK\1\2", 2)):
        at = body.index(signature) + 4 + shift
        body[at] = version
        body[at + 4] = method
    return bytes(body)


NPZ = {
    "broken deflate": spoilt(zipfile.ZIP_DEFLATED, 50),
    "broken lzma": spoilt(zipfile.ZIP_LZMA, 60),
    "another version of zip": numbered(version=149),
    "another way of packing": numbered(method=97),
    "a shape of 10^12": member("{'descr': '|b1', 'fortran_order': False, 'shape': (1000000000000,), }"),
    "a header that does not end": member("{'descr': ("),
    "bytes that are no array": archive.npz_bytes({"index": np.arange(3)}).replace(b"\x93NUMPY", b"\x93NUMPX"),
}


@pytest.mark.parametrize("name", NPZ)
def test_arrays_that_are_none_are_refused(name: str, tmp_path: Path) -> None:
    path = put(tmp_path / "x.npz", NPZ[name])
    for read in (lambda: archive.read_npz(path), lambda: published.read_npz(path, {"index": (3,)})):
        assert str(path) in refused(read)


def test_a_directory_that_cannot_be_read_is_refused_by_the_quick_look_too(tmp_path: Path) -> None:
    path = put(tmp_path / "x.npz", numbered(version=149))
    assert str(path) in refused(lambda: archive.check_npz(path, ("index",), "run again"))


# ------------------------------------------------------------------------------------------------------------- archives


@pytest.mark.parametrize("names", [("",), ("a", ""), ("a", "a\0b")])
def test_a_member_without_a_name_is_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name in names:
            bundle.writestr(zipfile.ZipInfo(name.replace("\0", "_")), b"x")
    body = buffer.getvalue().replace(b"a_b", b"a\0b")
    assert "input.zip" in refused(lambda: unpack.unpack(put(tmp_path / "input.zip", body), tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input.zip"]


def test_a_broken_lzma_member_is_refused(tmp_path: Path) -> None:
    body = spoilt(zipfile.ZIP_LZMA, 60)
    with pytest.raises((lzma.LZMAError, zipfile.BadZipFile, EOFError)):
        zipfile.ZipFile(io.BytesIO(body)).read("index.npy")
    assert "input.zip" in refused(lambda: unpack.unpack(put(tmp_path / "input.zip", body), tmp_path / "out"))


# ------------------------------------------------------------------------------------------------------------- the rest


def test_an_id_without_parts_is_refused(tmp_path: Path) -> None:
    content = fuzz_files._mmsa()
    content["test"]["id"] = [[], []]
    path = put(tmp_path / "aligned_50.pkl", fuzz_files.pickle.dumps(content))
    assert str(path) in refused(lambda: sentiment_pickles.read_mmsa(cmu_mosi.CORPUS, {"aligned": path}, tmp_path))


@pytest.mark.parametrize("shape", [["a"], "x", None, [-1], [True], [10**30], {"a": 1}])
def test_a_manifest_with_a_shape_that_is_none_is_refused(shape: object, tmp_path: Path) -> None:
    manifest = fuzz_files._prepared_manifest(tmp_path / "toy")
    manifest["arrays"]["audio"]["shape"] = shape
    put(tmp_path / "toy" / prepared.MANIFEST, json.dumps(manifest))
    assert prepared.MANIFEST in refused(lambda: prepared.load(tmp_path / "toy"))


MANIFESTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "parameters of a number": lambda m: m.update(parameters=3),
    "a column of no type": lambda m: m["samples"]["columns"]["id"].update(dtype=""),
    "a column of objects": lambda m: m["samples"]["columns"]["id"].update(dtype="O"),
    "a column of a type with many digits": lambda m: m["samples"]["columns"]["id"].update(dtype="<U" + "9" * 5000),
    "a digest of a number": lambda m: m["arrays"]["audio"].update(digest=3),
    "units that are a list": lambda m: m["arrays"]["audio"].update(meta=[]),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_of_other_kinds_is_refused(name: str, tmp_path: Path) -> None:
    manifest = fuzz_files._prepared_manifest(tmp_path / "toy")
    MANIFESTS[name](manifest)
    put(tmp_path / "toy" / prepared.MANIFEST, json.dumps(manifest))
    for read in (prepared.load, prepared.verify, prepared.parameters):
        assert prepared.MANIFEST in refused(lambda read=read: read(tmp_path / "toy"))  # type: ignore[misc]


def test_an_array_whose_header_does_not_end_is_refused(tmp_path: Path) -> None:
    fuzz_files._prepared_manifest(tmp_path / "toy")
    path = tmp_path / "toy" / "audio.npy"
    path.write_bytes(path.read_bytes().replace(b"'shape': (", b"'shape': {"))
    assert "audio.npy" in refused(lambda: prepared.load(tmp_path / "toy"))


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e400", "9" * 400, "9" * 5000])
def test_a_number_that_is_none_is_refused_with_its_field(value: str) -> None:
    key = fuzz_texts.KEY
    assert "training.epochs" in refused(lambda: config.resolve(key, (f"training.epochs={value}",)))


def test_a_number_that_no_float_holds_is_refused() -> None:
    assert "training.lr" in refused(lambda: config.resolve(fuzz_texts.KEY, (f"training.lr={'9' * 400}",)))


def test_a_seed_of_thousands_of_digits_is_refused() -> None:
    assert "--seeds" in refused(lambda: plan.parse_seeds("9" * 5000))


# ----------------------------------------------------------------------------------------------------------------- yaml


@pytest.mark.parametrize("field", ["benchmark", "method", "metric", "source", "variant", "note", "protocols", "value"])
@pytest.mark.parametrize("value", [["a"], {"a": 1}, 10**400, float("nan"), None])
def test_a_published_number_of_other_kinds_is_refused(field: str, value: object, tmp_path: Path) -> None:
    raw = plain_yaml.parse(fuzz_texts.PUBLISHED.decode())
    raw["numbers"][0][field] = value if field != "protocols" else [value]
    path = put(tmp_path / "published.yaml", yaml.safe_dump(raw))
    assert f"numbers[0].{field}" in refused(lambda: numbers.load(path))


@pytest.mark.parametrize(
    "text", [b"a: 2001-99-99", b"!!int 0x", b"!!bool x", b"&a [*a]", fuzz_texts.BOMB, b"[" * 300, b"a: 1\na: 2"]
)
def test_yaml_that_breaks_or_grows_is_refused(text: bytes, tmp_path: Path) -> None:
    path = put(tmp_path / "published.yaml", text)
    for load in (numbers.load, accepted.load, config.read_tuned):
        told = refused(lambda load=load: load(path))  # type: ignore[misc]
        assert "published.yaml" in told
        assert len(told) < 1000


def test_yaml_keeps_its_plain_values(tmp_path: Path) -> None:
    path = put(tmp_path / "x.yaml", "a: 1\nb: [1.5, x, ~, true]\nc: {d: 2001-01-02}\n1: e\n'1': f\n")
    found = plain_yaml.read(path)
    assert found["b"] == [1.5, "x", None, True]
    assert (found["a"], found[1], found["1"]) == (1, "e", "f")
    assert found["c"]["d"].year == 2001
    assert plain_yaml.parse("") is None
    assert plain_yaml.parse("[1:30:00, 90, 1.5, 190:20:30.15]") == ["1:30:00", 90, 1.5, "190:20:30.15"]


@pytest.mark.parametrize("field", ["margins", "sources", "labels", "profiles", "numbers"])
def test_a_section_of_published_numbers_of_another_kind_is_refused(field: str, tmp_path: Path) -> None:
    raw = plain_yaml.parse(fuzz_texts.PUBLISHED.decode())
    path = put(tmp_path / "published.yaml", json.dumps({**raw, field: 3}))
    assert field in refused(lambda: numbers.load(path))


# -------------------------------------------------------------------------------------------------- records and curves


def raw_record(**changes: Any) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(fuzz_texts.record_line())
    raw |= changes
    return raw


RECORDS = {
    "metrics of text": raw_record(metrics="x"),
    "a split of text": raw_record(metrics={"test": "x"}),
    "folds of numbers": raw_record(folds=[1]),
    "folds that are one number": raw_record(folds=3),
    "an error that is a number": raw_record(error=1),
    "provenance of nothing": raw_record(provenance=None),
    "a ceiling that is a number": raw_record(provenance={"ceiling": 3}),
    "a key with a number for a name": raw_record(key={**raw_record()["key"], "method": 3}),
    "a key that leads elsewhere": raw_record(key={**raw_record()["key"], "profile": "../../x"}),
    "a seed that is text": raw_record(key={**raw_record()["key"], "seed": "0"}),
    "a metric beyond floats": raw_record(metrics={"test": {"accuracy": 10**400}}),
    "what is a number": raw_record(what=3.5),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_of_other_kinds_is_refused(name: str, tmp_path: Path) -> None:
    raw = RECORDS[name]
    raw["digest"] = digest_of(raw["what"])
    assert "here:1" in refused(lambda: RunRecord.from_json(raw, "here:1"))
    (tmp_path / "records").mkdir()
    put(tmp_path / "records" / "crema_d.jsonl", json.dumps(raw) + "\n")
    assert "crema_d.jsonl:1" in refused(lambda: collect(tmp_path / "records"))


def test_a_field_of_what_that_no_encoding_holds_is_read(tmp_path: Path) -> None:
    raw = raw_record(what={**raw_record()["what"], "\ud800": 1})
    raw["digest"] = digest_of(raw["what"])
    (tmp_path / "records").mkdir()
    put(tmp_path / "records" / "crema_d.jsonl", json.dumps(raw) + "\n")
    assert len(collect(tmp_path / "records").groups) == 1


@pytest.mark.parametrize("place", ["loss", "valid"])
def test_a_number_of_a_runs_curve_that_no_float_holds_is_refused(place: str, tmp_path: Path) -> None:
    row: dict[str, Any] = {"fold": 0, "epoch": 1, "loss": {"total": 1}, "valid": {"accuracy": 1}}
    row[place] = dict.fromkeys(row[place], 10**400)
    put(tmp_path / curves.FILE, json.dumps(row))
    record = RunRecord(fuzz_texts.KEY, {}, "done", {"metric": "accuracy", "epoch": 1, "value": 0.5})
    assert curves.FILE in refused(lambda: curves.of_run(tmp_path, record))


def test_what_holds_an_infinite_number_is_refused() -> None:
    assert "'what'" in refused(lambda: RunRecord.from_json(raw_record(what={"a": float("inf")}), "here:1"))


@pytest.mark.parametrize("body", [b"[" * 100_000, b"\xff\xfe\x00", b'{"a":' * 3000])
def test_lines_that_are_no_records_are_refused(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    path = put(tmp_path / "records" / "crema_d.jsonl", body + b"\n")
    assert f"{path}:1" in refused(lambda: collect(tmp_path / "records"))
    assert f"{path}:1" in refused(lambda: curves.read(path))
    with pytest.raises(ValueError, match=r"."):
        parsed(body)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "x", None, [1], True])
def test_a_curve_of_what_is_no_number_is_refused(value: object, tmp_path: Path) -> None:
    raw = json.loads(fuzz_texts.curve_line())
    raw["folds"][0]["loss"][0] = value
    path = put(tmp_path / "crema_d.jsonl", json.dumps(raw))
    assert f"{path}:1" in refused(lambda: curves.read(path))


def test_a_fold_of_a_great_number_is_refused_at_once(tmp_path: Path) -> None:
    put(
        tmp_path / curves.FILE, json.dumps({"fold": 10**12, "epoch": 1, "loss": {"total": 1}, "valid": {"accuracy": 1}})
    )
    record = RunRecord(fuzz_texts.KEY, {}, "done", {"metric": "accuracy", "epoch": 1, "value": 0.5})
    assert "more folds than rows" in refused(lambda: curves.of_run(tmp_path, record))


# ------------------------------------------------------------------------------------------------------- what is shown

ESCAPES = "\x1b[2J\x1b]0;mine\x07\u202e\udcff\x9b"


def test_a_line_is_one_line_that_can_be_printed() -> None:
    assert one_line("a\nb\tc  d") == "a b c d"
    assert one_line(ESCAPES) == "?[2J?]0;mine????"
    assert len(one_line("x" * 10 * LONGEST)) == LONGEST
    assert plain("a  b") == "a  b"
    assert plain("Ångström — 中 🙂") == "Ångström — 中 🙂"


def test_an_error_of_a_stranger_does_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["submit", f"/nowhere/{ESCAPES}", "--check"]) == 2
    assert cli.main(["plan", "--seeds", ESCAPES]) == 2
    console.Console().table("t", ("why",), [(ESCAPES,)])
    console.Console().say(ESCAPES)
    found = capsys.readouterr()
    assert all(line.isprintable() for line in (found.out + found.err).split("\n"))


def test_markdown_csv_and_terminal_show_escapes_as_question_marks() -> None:
    hostile = fuzz_shown.tables(fuzz_texts.Choices(b"\1\3" * 60))[0]
    assert "\x1b" in hostile.parts["real"][0].title
    for text in (render.markdown(hostile), render.csv(hostile)):
        assert "\x1b" not in text
        assert "?[2J" in text or "?\\[2J" in text


def test_a_cell_that_a_spreadsheet_would_compute_is_quoted() -> None:
    table = fuzz_shown.tables(fuzz_texts.Choices(b""))[1]
    frame = fuzz_shown.pd.DataFrame({"a": ["=1+1", "@x", "+x", "-x", "x=1"], "b": [-1.5, 2.0, 0.1, 3.0, 4.0]})
    lines = render.csv(replace(table, frame=frame)).splitlines()
    assert lines[1:] == ["'=1+1,-1.5", "'@x,2", "'+x,0.1", "'-x,3", "x=1,4"]


def test_names_that_no_encoding_holds_are_reported(tmp_path: Path) -> None:
    records = Sweep(levels={"clcr": 0.7, "misa": 0.6}).records()
    odd = [replace(r, key=replace(r.key, method="\ud800\x1b[2J")) if r.key.method == "misa" else r for r in records]
    out = write_records(tmp_path, odd)
    for path in report.build(out, partial=True).files:
        assert b"\x1b" not in path.read_bytes() or path.suffix == ".png"


@pytest.mark.parametrize("path", sorted((ROOT / "results" / "figures").glob("*.svg")), ids=lambda p: p.name)
def test_committed_figures_are_pictures_alone(path: Path) -> None:
    fuzz_shown.check_svg(path.read_bytes())


@pytest.mark.parametrize(
    "body",
    ["<script/>", '<path onclick="x"/>', '<a href="javascript:x"/>', '<use href="https://x"/>', '<g style="fill:url(https://x)"/>',
     "<foreignObject/>", '<image href="x.png"/>', "<animate/>"],
)  # fmt: skip
def test_a_figure_that_is_more_than_a_picture_is_seen(body: str) -> None:
    with pytest.raises(AssertionError):
        fuzz_shown.check_svg(f'<svg xmlns="http://www.w3.org/2000/svg">{body}</svg>'.encode())
    with pytest.raises(AssertionError):
        fuzz_shown.check_svg(b'<!DOCTYPE svg [<!ENTITY a "b">]><svg xmlns="x"/>')


@pytest.mark.parametrize(
    "text", [r"\input{/etc/passwd}", "a % b", "^^5cinput", "{", r"\write18{x}", "a#b", r"\def\x{}"]
)
def test_latex_that_would_be_obeyed_is_seen(text: str) -> None:
    with pytest.raises(AssertionError):
        fuzz_shown.check_latex(text)


READERS = (
    *(
        "pickle",
        "csd",
        "record",
        "npz",
        "yaml",
        "set",
        "safetensors",
        "torch",
        "archive",
        "prepared",
        "submission",
        "list",
    ),
    *("word_pieces", "words", "curves", "page", "latex", "markdown", "figure", "terminal"),
)


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_has_a_target(reader: str) -> None:
    assert any(reader in name for name in TARGETS)

"""Targets: files that strangers publish or send: pickles, sequences, arrays, weights, archives, prepared data."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_material import TEXTS, Choices, spoiled
from fuzz_oracle import Target

from benchmarks import archive, checkpoint, csd, prepared, published, safe_pickle, unpack
from benchmarks.errors import InputError
from benchmarks.submission import reading
from benchmarks.tasks import cmu_mosi, sentiment_pickles

DTYPES = ("<f4", "<f8", "<i8", "|u1", "<U5", "|S3", "O", ">f4", "<c8", "|b1", "<M8[s]", "|V4", "<f2")


def put(path: Path, content: bytes | str) -> Path:
    """A file with this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


def walk(value: Any) -> None:
    """Look at every part of what a reader gave."""
    if isinstance(value, dict):
        for key, child in value.items():
            walk(key)
            walk(child)
    elif isinstance(value, list | tuple | set | frozenset):
        for child in value:
            walk(child)
    elif isinstance(value, np.ndarray) and value.size:
        value.reshape(-1)[-1].tolist() if value.dtype != object else walk(value.reshape(-1)[-1])


# ------------------------------------------------------------------------------------------------------------ pickles


def pickles() -> list[bytes]:
    """Small pickles of every protocol."""
    content = {
        "train": {
            "id": ["a$_$1"],
            "audio": np.ones((1, 2, 3), np.float32),
            "text": np.array([b"x", b"yy"]),
            "n": np.float64(1.5),
            "o": np.array(["a", None], dtype=object),
            "b": bytearray(b"q"),
            "s": {1, 2},
        },
        "c": (1 + 2j, True, None, -(1 << 70), "\N{SNOWMAN}"),
    }
    return [pickle.dumps(content, protocol) for protocol in range(6)]


def feed_pickle(data: bytes, folder: Path) -> object:
    """Any bytes as a pickle."""
    found = safe_pickle.read(put(folder / "input.pkl", data))
    walk(found)
    return found


OPCODES = [
    value for name, value in vars(pickle).items() if name.isupper() and isinstance(value, bytes) and len(value) == 1
]
GLOBALS = (
    b"numpy\ndtype\n",
    b"numpy.core.multiarray\n_reconstruct\n",
    b"numpy\nndarray\n",
    b"builtins\nset\n",
    b"os\nsystem\n",
    b"numpy.core.multiarray\nscalar\n",
    b"_codecs\nencode\n",
    b"builtins\ncomplex\n",
    b"builtins\nbytes\n",
    b"numpy.core.numeric\n_frombuffer\n",
)


def feed_opcodes(data: bytes, folder: Path) -> object:
    """A pickle made of opcodes with plausible operands: it gets deeper than random bytes."""
    choices, body = Choices(data), bytearray()
    while choices.more() and len(body) < 20_000:
        kind = choices.number(6)
        if kind == 0:
            body += b"c" + choices.pick(GLOBALS)
        elif kind == 1:
            text = choices.pick((*DTYPES, *TEXTS)).encode("utf-8", "surrogatepass")[:200]
            body += b"X" + len(text).to_bytes(4, "little") + text
        elif kind == 2:
            body += b"J" + choices.pick((0, 1, 2, 3, 1 << 30, -1)).to_bytes(4, "little", signed=True)
        elif kind == 3:
            body += choices.pick(
                (
                    b"(",
                    b"t",
                    b")",
                    b"R",
                    b"b",
                    b"0",
                    b"2",
                    b"]",
                    b"}",
                    b"a",
                    b"s",
                    b"u",
                    b"\x85",
                    b"\x86",
                    b"\x87",
                    b"N",
                )
            )
        elif kind == 4:
            body += b"C" + bytes([size := choices.number(32)]) + bytes(size)
        else:
            body += choices.pick(OPCODES) + choices.pick(
                (b"", b"\0", b"\1\0\0\0", b"\xff\xff\xff\xff", b"1\n", b"\0" * 8)
            )
    return feed_pickle(b"\x80\x02" + bytes(body) + b".", folder)


def _mmsa() -> dict[str, Any]:
    def part(first: int) -> dict[str, Any]:
        ids = [f"v{first}$_${k}" for k in range(2)]
        return {
            "id": ids,
            "raw_text": ["one", "two"],
            "regression_labels": np.array([0.5, -1.0]),
            "audio": np.ones((2, 4, 5), np.float32),
            "vision": np.ones((2, 4, 20), np.float32),
            "audio_lengths": [4, 2],
            "vision_lengths": [4, 3],
        }

    return {"train": part(0), "valid": part(1), "test": part(2)}


def feed_mmsa(data: bytes, folder: Path) -> object:
    """A feature file of the field with some fields replaced: other types, shapes, lengths."""
    choices = Choices(data)
    content = spoiled(_mmsa(), choices)
    for split in list(content) if isinstance(content, dict) else ():
        if isinstance(content[split], dict) and choices.number(3) == 0:
            shape = tuple(choices.pick((0, 1, 2, 4, 5, 20)) for _ in range(choices.number(4)))
            dtype = np.dtype(choices.pick(DTYPES))
            content[split][choices.pick(sorted(map(str, content[split])) or ("x",))] = np.zeros(shape, dtype)
    kind = choices.pick(("aligned", "unaligned"))
    path = put(folder / f"{kind}_50.pkl", pickle.dumps(content))
    found = sentiment_pickles.read_mmsa(cmu_mosi.CORPUS, {kind: path}, folder)
    for array, _ in found.arrays.values():
        assert callable(array)
        array()
    return found


# ---------------------------------------------------------------------------------------------------------- sequences


def csd_file(change: Callable[[Any, Any], object] = lambda group, h5py: None) -> bytes:
    """A small sequence, edited."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        group = file.create_group("root/data/video")
        group["intervals"] = np.array([[0.0, 1.0], [1.0, 2.0]])
        group["features"] = np.ones((2, 3), np.float32)
        other = file.create_group("root/data/words")
        other["intervals"] = np.array([[0.0, 1.0]])
        other["features"] = np.array([[b"hello"]])
        file.create_group("root/metadata").create_dataset("root name", (1,), dtype=h5py.string_dtype())[0] = '"x"'
        change(file["root/data/video"], h5py)
    return buffer.getvalue()


def feed_csd(data: bytes, folder: Path) -> object:
    """Any bytes as a computational sequence, all of it read."""
    with csd.open_csd(put(folder / "input.csd", data)) as file:
        for video in file.ids[:50]:
            for read in (file.numbers, file.texts):
                try:
                    entry = read(video)
                except InputError as error:
                    told = error
                else:
                    csd.Ordered(entry)
                    told = None
                    if read == file.texts:
                        csd.words(entry.features)
        if told is not None:
            raise told
        return file.metadata


def _declared(group: Any, name: str, choices: Choices, h5py: Any) -> None:
    """Values that are declared and were never written."""
    del h5py
    shape = tuple(choices.pick((0, 1, 2, 3, 1 << 20, 10**6, 10**12)) for _ in range(1 + choices.number(3)))
    chunks = tuple(min(n or 1, 64) for n in shape)
    group.create_dataset(name, shape, choices.pick(("f4", "i8", "u1")), chunks=chunks, maxshape=(None,) * len(shape))


def _packed(group: Any, name: str, choices: Choices, h5py: Any) -> None:
    """Values of which one chunk was written, packed."""
    del choices, h5py
    group.create_dataset(name, (3_000_000, 50), "f8", compression="gzip", chunks=(3000, 50))[:3000] = 1.0


def _typed(group: Any, name: str, choices: Choices, h5py: Any) -> None:
    """Values of another kind."""
    plain = [np.dtype(code) for code in ("S0", "V3", "c8", "?")] + [np.dtype([("a", "f4")])]
    others = [h5py.string_dtype(), h5py.vlen_dtype(np.float32), h5py.ref_dtype, h5py.enum_dtype({"a": 1})]
    group.create_dataset(name, (2, 3), choices.pick([*plain, *others]))


def _linked(group: Any, name: str, choices: Choices, h5py: Any) -> None:
    """A link instead of values."""
    links = h5py.SoftLink("/root"), h5py.SoftLink("nowhere"), h5py.ExternalLink("../x.h5", "/")
    group[name] = choices.pick(links)


def _elsewhere(group: Any, name: str, choices: Choices, h5py: Any) -> None:
    """Values in another file."""
    del h5py
    group.create_dataset(name, (2, 3), "f4", external=[(choices.pick(("/etc/passwd", "../x")), 0, 24)])


def _odd(group: Any, name: str, choices: Choices, h5py: Any) -> None:
    """A group, nothing, other widths and numbers that are none, or the whole data in another place."""
    act = choices.number(4)
    if act == 0:
        group.create_group(name)
    elif act == 1:
        group[name] = h5py.Empty("f4")
    elif act == 2:
        group[name] = np.full((2, choices.number(4)), choices.pick((np.nan, np.inf, 0.0, 1e308)))
    else:
        group.file["root"].move("data", choices.pick(("data2", "metadata/data")))


CSD_ACTS = (_declared, _packed, _typed, _linked, _elsewhere, _odd)


def feed_csd_structure(data: bytes, folder: Path) -> object:
    """A well-formed HDF5 file whose parts are not what they should be: types, shapes, links, declared sizes."""
    choices = Choices(data)

    def change(group: Any, h5py: Any) -> None:
        name = choices.pick(("features", "intervals"))
        act = choices.pick(CSD_ACTS)
        del group[name]
        act(group, name, choices, h5py)

    try:
        content = csd_file(change)
    except (ValueError, TypeError, OSError, KeyError, OverflowError, NotImplementedError):
        return None  # h5py writes no such file
    return feed_csd(content, folder)


# ------------------------------------------------------------------------------------------------------------- arrays

NPZ = {"index": np.arange(3), "target": np.zeros(3, np.float32), "prediction": np.ones(3, np.float32)}


def npz_files() -> list[bytes]:
    """Arrays, stored and compressed."""
    packed = io.BytesIO()
    np.savez_compressed(packed, **NPZ)
    return [archive.npz_bytes(NPZ), packed.getvalue(), archive.npz_bytes({"group": np.array(["a", "bb"])})]


def feed_npz(data: bytes, folder: Path) -> object:
    """Any bytes as predictions."""
    path = put(folder / "predictions.npz", data)
    archive.check_npz(path, NPZ, "run again")
    return archive.read_npz(path)


def feed_published_npz(data: bytes, folder: Path) -> object:
    """Any bytes as an open set's arrays."""
    return published.read_npz(put(folder / "input.npz", data), {"index": (3,), "target": (3,)})


SHAPES = ("(3,)", "()", "(10**12,)", "(1000000000000,)", "(-1,)", "(3,3)", "(2,)*40", "3", "(3.0,)", "(True,)")


def feed_npz_headers(data: bytes, folder: Path) -> object:
    """An .npz whose members describe themselves in hostile ways, packed in any of zip's ways."""
    choices = Choices(data)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name in ("index", "target", "prediction"):
            header = choices.pick(
                (
                    f"{{'descr': {choices.pick(DTYPES)!r}, 'fortran_order': False, 'shape': {choices.pick(SHAPES)}, }}",
                    "{'descr': [('a','O')], 'fortran_order': False, 'shape': (3,), }",
                    choices.text(),
                    "__import__('os').system('x')",
                    f"{{'descr': {choices.value()!a}, 'fortran_order': 0, 'shape': (3,)}}",
                    "(" * 300 + ")" * 300,
                )
            )
            body = header.encode("utf-8", "surrogatepass")[:60_000]
            version = choices.pick((b"\1\0", b"\2\0", b"\3\0", b"\7\0"))
            size = len(body).to_bytes(2 if version == b"\1\0" else 4, "little")
            content = b"\x93NUMPY" + version + size + body + bytes(choices.pick((12, 0, 24, 100)))
            kind = choices.pick((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
            bundle.writestr(
                zipfile.ZipInfo(choices.pick((f"{name}.npy", f"{name}.npy", name, "../x.npy"))), content, kind
            )
    body = bytearray(buffer.getvalue())
    for _ in range(choices.number(3)):
        body[choices.number(len(body))] = choices.number(256)
    feed_submitted_npz(bytes(body), folder) if choices.number(2) else feed_npz(bytes(body), folder)
    return body


def feed_submitted_npz(data: bytes, folder: Path) -> object:
    """Any bytes as a submission's predictions."""
    return reading._arrays(data, folder / "predictions.npz")


# ------------------------------------------------------------------------------------------------------------ weights


def safetensors_files() -> list[bytes]:
    """Weights with a header."""
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "I64", "shape": [], "data_offsets": [16, 24]},
    }
    text = json.dumps(header).encode()
    return [len(text).to_bytes(8, "little") + text + bytes(24)]


def feed_safetensors(data: bytes, folder: Path) -> object:
    """Any bytes as .safetensors."""
    return checkpoint.read_checkpoint(put(folder / "input.safetensors", data))


def feed_safetensors_header(data: bytes, folder: Path) -> object:
    """A header whose fields are replaced, over a body of any length."""
    choices = Choices(data)
    seed = safetensors_files()[0]
    header = spoiled(json.loads(seed[8:-24]), choices)
    text = json.dumps(header).encode()
    return feed_safetensors(len(text).to_bytes(8, "little") + text + bytes(choices.pick((24, 16, 0, 8))), folder)


def torch_files() -> list[bytes]:
    """Checkpoints in both of torch's formats."""
    import torch

    found = []
    for new in (True, False):
        buffer = io.BytesIO()
        state = {"a": torch.ones(2, 2), "b": torch.zeros(3, dtype=torch.int64)}
        torch.save(state, buffer, _use_new_zipfile_serialization=new)
        found.append(buffer.getvalue())
    return found


def feed_torch(data: bytes, folder: Path) -> object:
    """Any bytes as a torch checkpoint; what is accepted is read to its end."""
    found = checkpoint.read_checkpoint(put(folder / "input.pth", data))
    for tensor in found.values():
        if tensor.numel() < 1 << 20:
            tensor.double().sum()
    return found


def feed_torch_pickle(data: bytes, folder: Path) -> object:
    """A checkpoint whose zip is whole and whose pickle is bent."""
    choices = Choices(data)
    source, target = zipfile.ZipFile(io.BytesIO(torch_files()[0])), io.BytesIO()
    with zipfile.ZipFile(target, "w") as bundle:
        for info in source.infolist():
            body = bytearray(source.read(info))
            if info.filename.endswith("data.pkl"):
                for _ in range(1 + choices.number(6)):
                    at = choices.number(len(body))
                    if choices.number(2):
                        body[at] = choices.number(256)
                    else:
                        body[at : at + choices.number(4)] = choices.pick(
                            (b"K\xff", b"J\xff\xff\xff\x7f", b"M\xff\xff", b"N", b")", b"")
                        )
            bundle.writestr(info.filename, bytes(body))
    return feed_torch(target.getvalue(), folder)


# ----------------------------------------------------------------------------------------------------------- archives


def archives() -> list[bytes]:
    """A zip, a tar, and tars in each packing."""
    found = []
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("AVE/a.mp4", b"x" * 50)
        bundle.writestr("AVE/b/", b"")
    found.append(buffer.getvalue())
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as bundle:  # type: ignore[call-overload]
            info = tarfile.TarInfo("AVE/a.mp4")
            info.size = 50
            bundle.addfile(info, io.BytesIO(b"x" * 50))
        found.append(buffer.getvalue())
    return found


def feed_archive(data: bytes, folder: Path) -> object:
    """Any bytes as an archive. What was refused leaves nothing; what was unpacked is files and folders alone."""
    path = put(folder / "input.bin", data)
    target = folder / "unpacked"
    try:
        unpack.unpack(path, target)
    except InputError:
        left = [each.name for each in folder.iterdir() if each != path]
        assert not left, f"left behind: {left}"
        raise
    for each in target.rglob("*"):
        assert not each.is_symlink()
        assert each.is_dir() or each.is_file()
        assert each.is_dir() or not each.stat().st_mode & 0o111
    return target


NAMES = (
    "a",
    "a/b",
    "../x",
    "/etc/x",
    "a/../../x",
    "",
    ".",
    "a/",
    "a\0b",
    "C:\\x",
    "..\\x",
    "a" * 300,
    "a/" * 200 + "a",
    "\udcff",
    "unpacked",
    "input.bin",
    "A",
    "a ",
    "\x1b[2J",
    "//x",
    "./a",
    "a//b",
    "a/./b",
)


def feed_archive_names(data: bytes, folder: Path) -> object:
    """Archives with hostile names, kinds and sizes."""
    choices, buffer = Choices(data), io.BytesIO()
    zipped = choices.number(2) == 0
    try:
        bundle: Any = zipfile.ZipFile(buffer, "w") if zipped else tarfile.open(fileobj=buffer, mode="w")  # noqa: SIM115
        with bundle:
            for _ in range(1 + choices.number(4)):
                name, body = choices.pick(NAMES), bytes(choices.number(40))
                if zipped:
                    info = zipfile.ZipInfo(name)
                    info.external_attr = (
                        choices.pick((0, 0o100644, 0o120777, 0o40755, 0o20644, 0o104755, 0o100000)) << 16
                    )
                    bundle.writestr(
                        info, body, choices.pick((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
                    )
                else:
                    entry = tarfile.TarInfo(name)
                    entry.type = choices.pick(
                        (
                            tarfile.REGTYPE,
                            tarfile.DIRTYPE,
                            tarfile.SYMTYPE,
                            tarfile.LNKTYPE,
                            tarfile.FIFOTYPE,
                            tarfile.CHRTYPE,
                            tarfile.GNUTYPE_SPARSE,
                            tarfile.AREGTYPE,
                        )
                    )
                    entry.linkname, entry.size = choices.pick(NAMES), len(body)
                    entry.mode = choices.pick((0o644, 0o4755, 0, 0o777))
                    if choices.number(4) == 0:
                        entry.pax_headers = {
                            choices.pick(("path", "size", "GNU.sparse.map", "GNU.sparse.major")): choices.pick(
                                ("../x", "99999999999", "0,99999999999", "1", "x")
                            )
                        }
                    bundle.addfile(entry, io.BytesIO(body))
    except (ValueError, UnicodeError, OSError, TypeError):
        return None  # the library writes no such archive
    return feed_archive(buffer.getvalue(), folder)


# ------------------------------------------------------------------------------------------------------ prepared data


def _prepared_manifest(folder: Path) -> dict[str, Any]:
    with prepared.Writer(folder, "toy") as writer:
        writer.add("audio", np.ones((3, 4, 2), np.float32), lengths=np.array([4, 2, 1]), meta={"scale": 1.0})
        writer.samples({"id": ["a", "b", "c"], "label": [0, 1, 1], "x": [0.5, 1.0, 2.0], "flag": [True, False, True]})
    found: dict[str, Any] = json.loads((folder / prepared.MANIFEST).read_text())
    return found


def feed_prepared(data: bytes, folder: Path) -> object:
    """A prepared folder whose manifest has replaced fields, or whose files are bent."""
    choices, place = Choices(data), folder / "toy"
    manifest = _prepared_manifest(place)
    act = choices.number(4)
    if act < 2:
        put(place / prepared.MANIFEST, json.dumps(spoiled(manifest, choices)))
    elif act == 2:
        put(place / prepared.MANIFEST, choices.rest())
    else:
        path = place / choices.pick(("audio.npy", "audio.lengths.npy", prepared.SAMPLES))
        body = bytearray(path.read_bytes())
        for _ in range(1 + choices.number(4)):
            body[choices.number(len(body))] = choices.number(256)
        path.write_bytes(body)
        _reseal(manifest, place)
    return _opened(place, choices)


def _reseal(manifest: dict[str, Any], place: Path) -> None:
    """Let the manifest state the digests of the files as they are: its author is who bent them."""
    files = {
        "audio.npy": manifest["arrays"]["audio"],
        "audio.lengths.npy": manifest["arrays"]["audio"]["lengths"],
        prepared.SAMPLES: manifest["samples"],
    }
    for name, entry in files.items():
        entry["sha256"] = hashlib.sha256((place / name).read_bytes()).hexdigest()
    put(place / prepared.MANIFEST, json.dumps(manifest))


def _opened(place: Path, choices: Choices) -> object:
    prepared.contents(place)
    prepared.parameters(place)
    return prepared.verify(place) if choices.number(2) else prepared.load(place)


def seeded(*seeds: bytes) -> Callable[[], list[bytes]]:
    """Decisions to start from, for inputs that are made of decisions."""
    return lambda: [*seeds, bytes(range(32)), b"\1" * 24, b"\7\3\5" * 10]


CSD_SEEDS = [bytes([which, act, more]) for which in range(2) for act in range(len(CSD_ACTS)) for more in range(4)]
TARGETS = (
    Target("pickle", feed_pickle, pickles),
    Target("pickle_opcodes", feed_opcodes, seeded()),
    Target("mmsa", feed_mmsa, seeded()),
    Target("csd", feed_csd, lambda: [csd_file()]),
    Target("csd_structure", feed_csd_structure, seeded(*CSD_SEEDS)),
    Target("npz", feed_npz, npz_files),
    Target("npz_published", feed_published_npz, npz_files),
    Target("npz_submitted", feed_submitted_npz, npz_files),
    Target("npz_headers", feed_npz_headers, seeded()),
    Target("safetensors", feed_safetensors, safetensors_files),
    Target("safetensors_header", feed_safetensors_header, seeded()),
    Target("torch", feed_torch, torch_files),
    Target("torch_pickle", feed_torch_pickle, seeded()),
    Target("archive", feed_archive, archives),
    Target("archive_names", feed_archive_names, seeded()),
    Target("prepared", feed_prepared, seeded()),
)

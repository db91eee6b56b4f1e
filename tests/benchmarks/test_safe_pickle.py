"""Pickles of strangers: what numpy writes comes back the same, everything else is refused and nothing is executed."""

from __future__ import annotations

import mmap
import os
import pickle
import pickletools
import struct
import sys
import time
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import safe_pickle
from benchmarks.errors import InputError


class Runs:
    """Pickled as a call of a function: what an attacker would publish."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        safe_pickle.read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


CONTENT = {
    "f4": np.arange(6, dtype=np.float32).reshape(2, 3),
    "big": np.arange(6, dtype=">f8").reshape(3, 2),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "empty": np.zeros((0, 50, 5)),
    "scalar array": np.array(3.5),
    "objects": np.array(["a text", "ein Gruß", b"bytes", None], dtype=object),
    "unicode": np.array(["a", "ßß"]),
    "bytes": np.array([b"ab", b"c"]),
    "bools": np.array([True, False]),
}


@pytest.mark.parametrize("mapped", [safe_pickle.MAPPED, 1])
@pytest.mark.parametrize("protocol", range(6))
def test_what_numpy_writes_comes_back_the_same(
    protocol: int, mapped: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_pickle, "MAPPED", mapped)
    plain = {"list": [1, 2.5, None, True, "ß", b"\xff"], "tuple": (1, (2,)), "set": {1, 2}, "big": 1 << 80}
    content = {**CONTENT, "float": np.float32(2.5), "int": np.int64(-3), "plain": plain, b"key": 1, 7: bytearray(b"x")}
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = safe_pickle.read(path)
    assert set(found) == set(content)
    for name, array in CONTENT.items():
        assert found[name].shape == array.shape
        assert found[name].dtype.kind == array.dtype.kind
        assert found[name].tolist() == array.tolist()
    assert (found["float"], found["int"], found["plain"], found[7]) == (2.5, -3, plain, b"x")
    assert type(found["float"]) is np.float32


def test_a_pickle_of_python_2_is_read_as_latin_1(tmp_path: Path) -> None:
    """Written opcode by opcode as Python 2.7 with numpy 1.16 does at protocol 2: buffers and texts are byte strings."""
    values = np.array([1.5, -200.25])
    body = (
        b"\x80\x02}q\x00U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x04"
        b"(K\x01K\x02\x85cnumpy\ndtype\nq\x05U\x02f8K\x00K\x01\x87Rq\x06(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x10" + values.astype("<f8").tobytes() + b"tbs."
    )
    pickletools.dis(body, out=open(os.devnull, "w"))  # noqa: SIM115
    (tmp_path / "x.pkl").write_bytes(body)
    assert safe_pickle.read(tmp_path / "x.pkl")["a"].tolist() == values.tolist()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "posix.system"), (eval, "builtins.eval"), (getattr, "builtins.getattr"), (open, "io.open")],
)
def test_a_payload_is_refused_by_name_and_not_executed(function: Any, name: str, protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    args: tuple[Any, ...] = {"posix.system": (f"touch {mark}",), "io.open": (str(mark), "w")}.get(
        name, (f"__import__('pathlib').Path({str(mark)!r}).touch()",) if function is eval else ("", "join")
    )
    content = pickle.dumps({"train": {"text": [Runs(function, *args)]}}, protocol=protocol)
    message = refused(tmp_path / "x.pkl", content)
    assert name.split(".")[1] in message
    assert "nothing was executed" in message
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (pickle.dumps(OrderedDict(a=1)), "collections.OrderedDict"),
        (pickle.dumps(Fraction(1, 2)), "fractions.Fraction"),
        (pickle.dumps(Path("x")), "Path"),
        (pickle.dumps(np.zeros(2, dtype=[("a", "f4")])), "records"),
        (pickle.dumps(np.zeros(2, dtype="M8[s]")), "dtype"),
        (pickle.dumps(np.dtype("f4")), "a dtype or a function"),
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"cnumpy.core.multiarray\n_reconstruct\n.", "a dtype or a function"),
        (b"cnumpy\ndtype\n}S'__call__'\nNsb.", "changes a function"),
        (b"cbuiltins\nset\n(N}S'x'\nNstb.", "changes a function"),
        (b"P7\n.", "outside the file"),
        (b"\x80\x02\x82\x01.", "extension 1"),
        (b"cbuiltins\nbytearray\n(I99999999999\ntR.", "without its bytes"),
        (b"c_codecs\nencode\n(S'x'\nS'zip'\ntR.", "zip"),
        (b"", "truncated"),
        (b"not a pickle", "not a pickle"),
        (pickle.dumps({"a": np.zeros(50)})[:-30], "truncated"),
        (b"\x80\x63.", "protocol"),
        (b"(lp0\n0h\x07.", "not a pickle"),
    ],
)
def test_other_things_are_refused(content: bytes, word: str, tmp_path: Path) -> None:
    assert word in refused(tmp_path / "x.pkl", content)


def forged(
    shape: Any, dtype: bytes, data: bytes, state: bytes = b"K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
) -> bytes:
    """An array whose shape, dtype and bytes need not fit each other."""
    head = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
    body = b"(" + b"".join(b"L%dL\n" % n for n in shape) + b"t"
    kind = b"cnumpy\ndtype\nU" + bytes([len(dtype)]) + dtype + b"K\x00K\x01\x87R(" + state + b"b"
    return head + body + kind + b"\x89U" + bytes([len(data)]) + data + b"tb."


def test_forged_arrays_are_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(forged((2,), b"f4", b"\0" * 8))
    assert safe_pickle.read(path).tolist() == [0, 0]
    assert "comes with 2 values" in refused(path, forged((1 << 40, 1 << 40), b"f4", b"\0" * 8))
    assert "has a shape" in refused(path, forged((-1,), b"f4", b"\0" * 8))
    assert "not whole values" in refused(path, forged((2,), b"f4", b"\0" * 7))
    assert "without its elements" in refused(path, forged((1,), b"O8", b"\x41" * 8))
    assert "does not know" in refused(path, forged((1,), b"zz", b"\0" * 8))
    assert "plain numbers" in refused(path, forged((1,), b"V8", b"\0" * 8))
    fields = b"K\x03U\x01|N(U\x01att}U\x01aU\x02O8sK\x08K\x08K\x3ft"  # a record that holds an object at a forged offset
    assert "records" in refused(
        path, forged((1,), b"V8", b"\x41" * 8, fields[:5] + b"N(U\x01at}U\x01aU\x02O8sK\x08K\x08K\x3ft")
    )


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 50) + b"x.",  # bytes of a petabyte
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 50) + b"x.",  # the same as a bytearray
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 50) + b"N.",  # a frame
        b"\x80\x02X" + struct.pack("<I", 0xFFFFFFF0) + b"x.",
        b"N" + b"r" + struct.pack("<I", 0xFFFFFFFF) + b"j" + struct.pack("<I", 0x7FFFFFFF) + b".",  # a memo of 64 GB
    ],
)
def test_forged_lengths_cost_no_memory(content: bytes, tmp_path: Path) -> None:
    began = time.monotonic()
    refused(tmp_path / "x.pkl", content)
    assert time.monotonic() - began < 1


def test_nested_objects_that_would_explode_do_not(tmp_path: Path) -> None:
    doubled: Any = ["ha"]
    for _ in range(25):  # 2 ** 25 leaves if every reference were followed
        doubled = [doubled, doubled]
    path, began = tmp_path / "x.pkl", time.monotonic()
    path.write_bytes(pickle.dumps(doubled))
    found = safe_pickle.read(path)
    assert found[0] is found[1]
    assert time.monotonic() - began < 1
    deep = b"]" * 100_000 + b"a" * 99_999 + b"."
    assert "nested" in refused(path, deep)
    itself: list[Any] = []
    itself.append(itself)
    assert "nested" in refused(path, pickle.dumps(itself))


def is_mapped(array: Any) -> bool:
    return isinstance(array, mmap.mmap) or (array is not None and is_mapped(getattr(array, "base", None)))


def test_bytes_of_large_arrays_are_mapped_and_those_that_nobody_reads_cost_nothing(tmp_path: Path) -> None:
    large = np.arange(1 << 18, dtype=np.float64)
    path = tmp_path / "x.pkl"
    for protocol in (3, 4, 5):
        path.write_bytes(pickle.dumps({"a": large, "b": large[::-1].copy(), "c": bytes(safe_pickle.MAPPED)}, protocol))
        found = safe_pickle.read(path)
        assert is_mapped(found["a"])
        assert not found["a"].flags.writeable
        assert np.array_equal(found["a"], large)
        assert np.array_equal(found["b"], large[::-1])
        assert found["c"] == bytes(safe_pickle.MAPPED)
        path.write_bytes(path.read_bytes()[: -(1 << 20)])
        with pytest.raises(InputError, match="truncated"):
            safe_pickle.read(path)


MANY = b"B" + struct.pack("<I", safe_pickle.MAPPED) + bytes(safe_pickle.MAPPED)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (MANY + b"N}S'file'\nNs\x86b.", "changes bytes"),
        (b"}" + MANY + b"Ns.", "key of type _Span"),
        (b"\x8f(" + MANY + b"\x90.", "where data should be"),
        (
            b"c" + b"numpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'S1048576'\ntR" + MANY + b"tR.",
            "wrong number of bytes",
        ),
        (b"cbuiltins\ncomplex\n(" + MANY + b"tR.", "not a pickle"),
        (MANY + b"Na.", "not a pickle"),
        (b"T" + struct.pack("<i", -5) + b".", "negative length"),
    ],
)
def test_bytes_that_stay_in_the_file_cannot_be_misused(content: bytes, word: str, tmp_path: Path) -> None:
    assert word in refused(tmp_path / "x.pkl", b"\x80\x04" + content)


def test_a_forged_array_is_not_made_twice_from_one_note(tmp_path: Path) -> None:
    array = np.zeros(3)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([array, array]))
    one, other = safe_pickle.read(tmp_path / "x.pkl")
    assert one is other


def test_reading_imports_nothing(tmp_path: Path) -> None:
    assert "antigravity" not in sys.modules
    assert "antigravity.fly" in refused(tmp_path / "x.pkl", b"cantigravity\nfly\n.")
    assert "antigravity" not in sys.modules
    with pytest.raises(InputError, match="missing"):
        safe_pickle.read(tmp_path / "none.pkl")
    with pytest.raises(InputError, match=r"x\.pkl|directory"):
        safe_pickle.read(tmp_path)

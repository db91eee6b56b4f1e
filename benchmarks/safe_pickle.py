"""Reading pickles that strangers publish: numpy arrays and builtins are built, everything else is refused by name.

Nothing named in the file is ever looked up or called. The few names that numpy itself writes are answered with makers
of our own, which only note what they were given; arrays are then made from dtype, shape and bytes that were checked
against each other. So neither ``os.system`` nor a forged dtype, nor a false length, does more than raise an InputError.
Protocols 0 to 5, and Python 2's strings as latin-1. The bytes of large arrays stay in the file and are mapped: what
nobody looks at is never read.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, Never, cast

import numpy as np

from benchmarks.errors import InputError

DEPTH = 32
_PLAIN_KINDS = "biufcSU"
_ORDERS = "<>=|"
MAPPED = 1 << 20  # bytes from which on they stay in the file


class _Refused(Exception):
    """Why a pickle is not read; read() adds the file's name."""


class _Maker:
    """Stands where a pickle names a callable. It can be called, and that is all: it cannot be given a state."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, _: Any) -> Never:
        raise _Refused("it changes a function")


class _Span:
    """Bytes that were left in the file; ``make`` turns them into what the pickle says they are."""

    __slots__ = ("file", "make", "size", "start")

    def __init__(self, file: io.BufferedReader, size: int, make: Callable[[bytes], Any]) -> None:
        self.file, self.start, self.size, self.make = file, file.tell(), size, make

    def __setstate__(self, _: Any) -> Never:
        raise _Refused("it changes bytes")

    def real(self) -> Any:
        """The bytes themselves."""
        self.file.seek(self.start)
        return self.make(self.file.read(self.size))

    def values(self, dtype: np.dtype[Any]) -> np.ndarray:
        """The bytes as whole values, mapped and read-only."""
        shape = (self.size // dtype.itemsize,)
        mapped = np.memmap(self.file, dtype, "r", self.start, shape)
        return np.asarray(mapped)


class _Dtype:
    """A dtype as noted in a pickle: code such as "f4", and the byte order that its state adds."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any) -> None:
        self.code, self.order = _text(code), "="

    def __setstate__(self, state: Any) -> None:
        """(version, byte order, subarray, names, fields, item size, alignment, flags...), as numpy writes it."""
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise _Refused("it holds an array of records; only plain numbers and strings are read")
        order = _text(state[1])
        if order not in _ORDERS:
            raise _Refused(f"it holds a byte order {order!r}")
        self.order = order

    def real(self) -> np.dtype[Any] | None:
        """The dtype; None for objects, whose elements are in the pickle one by one."""
        if self.code in ("O", "O8", "|O"):
            return None
        try:
            dtype = np.dtype(self.code)
        except (TypeError, ValueError):
            raise _Refused(f"it holds a dtype {self.code!r} that numpy does not know") from None
        if dtype.kind not in _PLAIN_KINDS or dtype.fields is not None or dtype.subdtype is not None:
            raise _Refused(f"it holds a dtype {self.code!r}; only plain numbers and strings are read")
        return dtype.newbyteorder(cast(Literal["<", ">", "=", "|"], self.order))


class _Array:
    """An array as noted in a pickle: its state is (version, shape, dtype, Fortran order, bytes or list of elements)."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise _Refused("an array has no proper state")
        self.state = state[-4:]

    def real(self, resolve: Callable[[Any], Any]) -> np.ndarray:
        """The array; ``resolve`` makes its elements where they are objects."""
        if not self.state or not isinstance(self.state[1], _Dtype):
            raise _Refused("an array has no proper state")
        shape, noted, fortran, data = self.state
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise _Refused(f"an array has a shape {shape!r}")
        order = "F" if fortran else "C"
        dtype = noted.real()
        flat = _objects(data, resolve) if dtype is None else _values(data, dtype)
        if flat.size != np.prod([int(n) for n in shape], dtype=object):
            raise _Refused(f"an array of shape {shape} comes with {flat.size} values")
        return flat.reshape(shape, order=order)  # type: ignore[call-overload,no-any-return]


def _objects(data: Any, resolve: Callable[[Any], Any]) -> np.ndarray:
    if not isinstance(data, list):
        raise _Refused("an array of objects comes without its elements")
    flat = np.empty(len(data), dtype=object)
    for row, element in enumerate(data):
        flat[row] = resolve(element)
    return flat


def _values(data: Any, dtype: np.dtype[Any]) -> np.ndarray:
    body = _bytes(data)
    size = body.size if isinstance(body, _Span) else len(body)
    if dtype.itemsize == 0 or size % dtype.itemsize:
        raise _Refused(f"{size} bytes are not whole values of dtype {dtype}")
    return body.values(dtype) if isinstance(body, _Span) else np.frombuffer(body, dtype)


def _bytes(data: Any) -> bytes | bytearray | _Span:
    if isinstance(data, str):  # Python 2 wrote the buffer as a string
        return data.encode("latin-1")
    if isinstance(data, bytes | bytearray | _Span):
        return data
    raise _Refused("an array comes without its bytes")


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise _Refused(f"a name is a {type(value).__name__}")
    return value


def _scalar(dtype: Any, data: Any = b"") -> Any:
    """A numpy number, made at once: nothing can change it later."""
    real = dtype.real() if isinstance(dtype, _Dtype) else None
    if real is None:
        raise _Refused("a number comes without a plain dtype")
    if isinstance(data, _Span) or (values := _values(data, real)).size != 1:
        raise _Refused("a number comes with the wrong number of bytes")
    return values[0]


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.__setstate__((shape, dtype, order == "F", data))
    return array


def _encoded(text: Any, encoding: Any = "latin-1") -> bytes:
    """Python 3 writes bytes as text to encode in the old protocols."""
    if _text(encoding).replace("-", "").lower() != "latin1" or not isinstance(text, str):
        raise _Refused(f"it encodes a text as {encoding!r}")
    return text.encode("latin-1")


def _bytes_of(data: Any = b"", *_: Any) -> bytes | bytearray | _Span:
    return b"" if data == [] else _bytes(data)  # never bytes(n), which would ask for n bytes of memory


def _makers() -> dict[tuple[str, str], _Maker]:
    made: dict[tuple[str, str], Callable[..., Any]] = {("_codecs", "encode"): _encoded}
    for core in ("numpy.core", "numpy._core"):
        made[f"{core}.multiarray", "_reconstruct"] = lambda *_: _Array()
        made[f"{core}.multiarray", "scalar"] = _scalar
        made[f"{core}.numeric", "_frombuffer"] = _from_buffer
    made["numpy", "dtype"] = lambda code, *_: _Dtype(code)
    made["numpy", "ndarray"] = lambda *_: _Array()
    for builtins in ("builtins", "__builtin__"):
        made[builtins, "bytes"] = made[builtins, "bytearray"] = _bytes_of
        made[builtins, "set"], made[builtins, "frozenset"] = set, frozenset
        made[builtins, "complex"] = complex
    return {name: _Maker(make) for name, make in made.items()}


class _Bounded(io.BufferedReader):
    """A file that refuses to be asked for more than it has: a forged length costs no memory."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.size - self.tell():
            raise EOFError("the file ends early")
        return super().read(size)


class _Reader(pickle._Unpickler):
    """The library's reader in Python: its memo is a dictionary, which no forged index can inflate."""

    read: Callable[[int], bytes]  # set by the library while it loads
    append: Callable[[Any], None]
    _unframer: Any

    def __init__(self, file: _Bounded) -> None:
        super().__init__(file, encoding="latin-1")
        self._known, self._file = _makers(), file

    def _append_bytes(self, size: int, make: Callable[[bytes], Any]) -> None:
        """Many bytes stay in the file, unless they came with a frame."""
        frame = self._unframer.current_frame
        if size < MAPPED or (frame is not None and frame.tell() < len(frame.getbuffer())):
            self.append(make(self.read(size)))
            return
        if size > self._file.size - self._file.tell():
            raise EOFError("the file ends early")
        self.append(_Span(self._file, size, make))
        self._file.seek(size, io.SEEK_CUR)

    def load_binstring(self) -> None:
        """A string of Python 2."""
        (size,) = struct.unpack("<i", self.read(4))
        if size < 0:
            raise _Refused("it holds a string of negative length")
        self._append_bytes(size, lambda body: body.decode("latin-1"))

    def load_binbytes(self) -> None:
        """Bytes, up to 4 GiB."""
        self._append_bytes(struct.unpack("<I", self.read(4))[0], bytes)

    def load_binbytes8(self) -> None:
        """Bytes of any length."""
        self._append_bytes(struct.unpack("<Q", self.read(8))[0], bytes)

    def load_bytearray8(self) -> None:
        """The library's own asks for memory before it looks whether the file has that much."""
        self._append_bytes(struct.unpack("<Q", self.read(8))[0], bytearray)

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BINSTRING[0]: load_binstring,
        pickle.BINBYTES[0]: load_binbytes,
        pickle.BINBYTES8[0]: load_binbytes8,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }

    def find_class(self, module: str, name: str) -> Any:
        maker = self._known.get((module, name))
        if maker is None:
            raise _Refused(f"it names {module}.{name}, which is neither a numpy array nor a builtin")
        return maker

    def persistent_load(self, _: Any) -> Never:
        raise _Refused("it refers to objects outside the file")

    def get_extension(self, code: int) -> Never:
        raise _Refused(f"it names extension {code}")


def read(path: Path) -> Any:
    """The dictionaries, lists, tuples, sets, strings, numbers and arrays of a pickle; arrays are read-only.

    InputError in one line, with the forbidden name where there is one; nothing from the file is executed.
    """
    path = Path(path)
    try:
        with _Bounded(path) as file:
            return _Resolver().resolve(_Reader(file).load(), 0)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; put the published file there") from None
    except _Refused as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: refused, nothing was executed: {reason}; fetch the published file again") from None
    except (
        *(OSError, EOFError, pickle.UnpicklingError, struct.error, ValueError, TypeError, KeyError, IndexError),
        *(AttributeError, MemoryError, OverflowError, AssertionError, RecursionError),
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: truncated or not a pickle ({reason}); fetch the published file again") from None


class _Resolver:
    """Notes become arrays, each object once: what a pickle refers to many times is not multiplied."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}
        self._kept: list[Any] = []  # so that no id is used twice

    def resolve(self, value: Any, depth: int) -> Any:
        if not isinstance(value, dict | list | tuple | set | frozenset | _Array | _Span | _Dtype | _Maker):
            return value
        if depth > DEPTH:
            raise _Refused(f"it is nested more than {DEPTH} deep")
        if id(value) not in self._done:
            made = self._make(value, depth + 1)
            self._kept.append(value)
            self._done[id(value)] = made
        return self._done[id(value)]

    def _make(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return {self._key(key): self.resolve(item, depth) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, depth) for item in value]
        if isinstance(value, tuple):
            return tuple(self.resolve(item, depth) for item in value)
        if isinstance(value, _Array):
            return value.real(lambda element: self.resolve(element, depth))
        if isinstance(value, _Span):
            return value.real()
        if isinstance(value, set | frozenset) and all(isinstance(item, str | bytes | int | float) for item in value):
            return value
        raise _Refused("it holds a dtype or a function where data should be")

    @staticmethod
    def _key(key: Any) -> Any:
        if not isinstance(key, str | bytes | int | float | tuple):
            raise _Refused(f"a dictionary has a key of type {type(key).__name__}")
        return key

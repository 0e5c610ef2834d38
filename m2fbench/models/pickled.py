"""Pickled weights read as data: nothing in the file is ever called.

The standard library's disassembler (``pickletools.genops``) turns the file into opcodes, checking every length against what is
there; the small machine below understands those constructs of which a pickled state dict is made: plain values and containers,
``OrderedDict``, and numpy arrays, dtypes and scalars under the names that numpy 1 and numpy 2 give them. Any other type is refused by
name. Work and memory are bounded by the file's size: no memo index, repeated copy, declared shape, huge number or hash of nested tuples
can multiply it.
"""

import math
import mmap
import pickletools
import re
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_OPCODES = 500_000  # a Swin-L file has about 20,000; this many take a second
MAX_BITS = 1024  # of a number; torch's magic one has 77
MAX_DIMENSIONS = 64  # as many as an array may have
REFUSED = "it was refused and nothing of it was run"
_KEY_TYPES = (str, bytes, int, float, bool, type(None))
_DTYPE = re.compile(r"[<>=|]?(f[248]|[iu][1248]|b1)")


class PickleError(Exception):
    """Why a pickle was not read, as a phrase to follow the file's name."""


class ForbiddenTypeError(PickleError):
    """The pickle names something other than arrays and plain containers."""


@dataclass
class PickledArray:
    """A numpy array of the pickle, in the byte order it was written in; None until its state is read."""

    value: NDArray[Any] | None = None


@dataclass
class _DType:
    value: np.dtype[Any]


class Inert:
    """In place of an object of which nothing is wanted."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


@dataclass(frozen=True)
class Admitted:
    """A name the pickle may use, and what we make of a call of it."""

    name: str
    make: Callable[..., Any]


Names = Mapping[str, Callable[..., Any]]
"""``module.name`` that a pickle may use -> what we make of a call of it."""


def read_pickle(path: Path) -> Any:
    """The object in a pickle file of any protocol, arrays as PickledArray, OrderedDict as dict.

    Raises PickleError (ForbiddenTypeError for types that are not admitted) and OSError.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise PickleError("is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return Machine(len(data)).run(data)


class Machine:
    """A pickle machine without the power to call.

    size: of the file in bytes, the budget of copies. names: what may be called, besides ``NAMES``. storage: what becomes of a
    persistent id, by which torch refers to storages outside the pickle; None refuses them.
    """

    def __init__(self, size: int, names: Names | None = None, storage: Callable[[Any], Any] | None = None) -> None:
        self._budget = 2 * size  # bytes before protocol 3 are text that is encoded, and then passed on
        self._names = {**NAMES, **(names or {})}
        self._storage = storage
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: Any) -> Any:
        """The object pickled at the current position of ``data``, a binary file or mmap. Raises PickleError."""
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
                if count > MAX_OPCODES:
                    raise PickleError(f"has more than {MAX_OPCODES:,} opcodes, which no checkpoint has")
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._step(opcode.name, argument)
        except PickleError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
            raise PickleError(f"is damaged ({_short(error)})") from error
        raise PickleError("is cut off")

    def _step(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        if opcode in _VALUES:
            if isinstance(argument, int) and argument.bit_length() > MAX_BITS:
                raise ValueError("a number that is out of all proportion")
            stack.append(argument)
        elif opcode in _MAKERS:
            stack.append(_MAKERS[opcode]())
        elif opcode in _TUPLES:
            count = _TUPLES[opcode]
            self._need(count)
            stack[len(stack) - count :] = [tuple(stack[len(stack) - count :])]
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif opcode == "GLOBAL":
            stack.append(self._admitted(*argument.split(" ", 1)))
        elif opcode not in ("PROTO", "FRAME"):
            handler = _HANDLERS.get(opcode)
            if handler is None:
                raise ForbiddenTypeError(f"uses the opcode {opcode}, which weights have no need of; {REFUSED}")
            handler(self)

    def _admitted(self, module: str, name: str) -> Admitted:
        full = f"{module}.{name}"
        if full not in self._names:
            raise ForbiddenTypeError(f"contains {full[:100]!r}, expected arrays and plain containers; {REFUSED}")
        return Admitted(full, self._names[full])

    def _need(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError("stack too short")

    def _to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._to_mark()

    def pop_mark(self) -> None:
        self._to_mark()

    def dup(self) -> None:
        self._stack.append(self._stack[-1])

    def make_tuple(self) -> None:
        items = self._to_mark()
        self._stack.append(tuple(items))

    def make_list(self) -> None:
        items = self._to_mark()
        self._stack.append(items)

    def make_dict(self) -> None:
        items = self._to_mark()
        made: dict[Any, Any] = {}
        _fill(made, items)
        self._stack.append(made)

    def append(self) -> None:
        value = self._stack.pop()
        expect(self._stack[-1], list).append(value)

    def appends(self) -> None:
        items = self._to_mark()
        expect(self._stack[-1], list).extend(items)

    def setitem(self) -> None:
        self._need(3)
        value, key = self._stack.pop(), self._stack.pop()
        _fill(expect(self._stack[-1], dict), [key, value])

    def setitems(self) -> None:
        items = self._to_mark()
        _fill(expect(self._stack[-1], dict), items)

    def additems(self) -> None:
        items = self._to_mark()
        expect(self._stack[-1], set).update(map(_plain_key, items))

    def stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(self._admitted(expect(module, str), expect(name, str)))

    def reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Admitted):
            raise ForbiddenTypeError(f"calls something that is no type; {REFUSED}")
        # each call may look at all of them, and copy them
        self._budget -= len(expect(arguments, tuple)) + sum(len(a) for a in arguments if isinstance(a, Sized))
        if self._budget < 0:
            raise PickleError("makes more copies than its size accounts for")
        self._stack.append(function.make(*arguments))

    def persistent(self) -> None:
        if self._storage is None:
            raise ForbiddenTypeError(f"refers to data outside itself; {REFUSED}")
        self._stack.append(self._storage(self._stack.pop()))

    def build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, PickledArray):
            _version, shape, dtype, fortran, data = expect(state, tuple)
            target.value = _array(data, dtype, shape, "F" if fortran else "C")
        elif isinstance(target, _DType):
            target.value = target.value.newbyteorder(expect(state, tuple)[1])
        elif not isinstance(target, dict | Inert):  # an OrderedDict's attributes, as torch's _metadata: of no use here
            raise ForbiddenTypeError(f"sets the state of something that is no array; {REFUSED}")


def expect(value: Any, wanted: type) -> Any:
    if not isinstance(value, wanted):
        raise TypeError(f"expected {wanted.__name__}, got {type(value).__name__}")
    return value


def _plain_key(value: Any) -> Any:
    """A key that hashes in constant time: nested tuples need not."""
    if not isinstance(value, _KEY_TYPES):
        raise TypeError(f"expected a plain key, got {type(value).__name__}")
    return value


def _fill(target: dict[Any, Any], items: list[Any]) -> None:
    if len(items) % 2:
        raise IndexError("a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[_plain_key(key)] = value


def _bytes(data: Any = b"") -> bytes | bytearray:
    if isinstance(data, bytes | bytearray):
        return data
    raise TypeError(f"expected bytes, got {type(data).__name__}")


def _array(data: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
    """The array of ``shape`` over ``data``, not copied; their sizes must agree."""
    content, item = _bytes(data), expect(dtype, _DType).value
    if len(expect(shape, tuple)) > MAX_DIMENSIONS or any(not isinstance(edge, int) or edge < 0 for edge in shape):
        raise ValueError("an array's shape is not one")  # never printed: a nest of shared tuples has no end
    count = math.prod(shape)
    if count * item.itemsize != len(content):
        raise ValueError(f"an array's shape asks for {count * item.itemsize} bytes, the file has {len(content)}")
    flat: NDArray[Any] = np.frombuffer(content, item)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(subtype: Any, shape: Any, _: Any) -> PickledArray:
    if not isinstance(subtype, Admitted) or subtype.name != "numpy.ndarray" or shape != (0,):
        raise ValueError("an array of another kind")
    return PickledArray()


def _dtype(code: Any, *_: Any) -> _DType:
    if not isinstance(code, str) or not _DTYPE.fullmatch(code):
        found = repr(code[:40]) if isinstance(code, str) else type(code).__name__
        raise ForbiddenTypeError(f"holds an array of dtype {found}, expected numbers")
    return _DType(np.dtype(code))


def _scalar(dtype: Any, data: Any) -> Any:
    return _array(data, dtype, (), "C").item()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    return PickledArray(_array(data, dtype, shape, order))


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("an encoding that bytes are not pickled by")
    return str(expect(text, str)).encode("latin1")


def _ordered_dict(items: Any = ()) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for pair in expect(items, list) if items != () else ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise TypeError("expected pairs")
        _fill(made, list(pair))
    return made


def _set(items: Any = ()) -> set[Any]:
    return set(map(_plain_key, expect(items, list))) if items != () else set()


def not_called(*_: Any) -> Any:
    """For names that a pickle passes on and never calls."""
    raise ValueError("a type is called that never is")


NAMES: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "_codecs.encode": _encode,
    "numpy.ndarray": not_called,
    "numpy.dtype": _dtype,
}
for _module in ("numpy.core", "numpy._core"):
    NAMES[f"{_module}.multiarray._reconstruct"] = _reconstruct
    NAMES[f"{_module}.multiarray.scalar"] = _scalar
    NAMES[f"{_module}.numeric._frombuffer"] = _from_buffer
for _module in ("builtins", "__builtin__"):
    NAMES[f"{_module}.set"] = _set
    NAMES[f"{_module}.bytes"] = _bytes
    NAMES[f"{_module}.bytearray"] = _bytes


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:100] or type(error).__name__


_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_MAKERS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict, "EMPTY_SET": set,
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_HANDLERS: dict[str, Callable[[Machine], None]] = {
    "MARK": Machine.mark, "POP": Machine.pop, "POP_MARK": Machine.pop_mark, "DUP": Machine.dup, "TUPLE": Machine.make_tuple,
    "LIST": Machine.make_list, "DICT": Machine.make_dict, "APPEND": Machine.append, "APPENDS": Machine.appends,
    "SETITEM": Machine.setitem, "SETITEMS": Machine.setitems, "ADDITEMS": Machine.additems,
    "STACK_GLOBAL": Machine.stack_global, "REDUCE": Machine.reduce, "NEWOBJ": Machine.reduce, "BUILD": Machine.build, "BINPERSID": Machine.persistent,
}  # fmt: skip

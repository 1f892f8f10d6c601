"""Checks of arguments that many functions take: each returns the argument in its plainest form, or raises an error.

An error message is one sentence with the requirement, the given value and the way out. The error is a TypeError for a
wrong kind of argument, a ValueError for a wrong value, and is raised before any work.
"""

import operator
from collections.abc import Iterable, Sequence
from math import inf, isfinite
from numbers import Complex, Integral, Real
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from .dtypes import DTYPES, NATIVE, DType
from .threads import default_threads

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer  # the standard library itself names buffers only from Python 3.12 on

    from .fill import Array

    Out = np.ndarray[Any, Any] | WriteableBuffer | None
else:
    Out = object

__all__ = [
    "MAX_AXES", "Out", "PLAIN_TYPES", "Shape", "check_count", "check_no_overlap", "check_number", "check_out",
    "check_padded_shape", "check_shape", "check_shard", "check_threads", "did_you_mean", "dtype_of_out", "plain",
    "shard_range", "shown",
]  # fmt: skip

MAX_AXES = 64  # as in NumPy
MAX_SIZE = 1 << 63
PLAIN_TYPES = frozenset({float, int, str, complex, bool, type(None), np.bool_})

Shape = SupportsIndex | Sequence[SupportsIndex]


def did_you_mean(value: object, choices: Iterable[str]) -> str:
    """A question to append to an error, with the choices that are spelt almost like the value; empty if none is."""
    from difflib import get_close_matches  # 2 ms to import, which only an error needs

    if not isinstance(value, str):
        return ""
    choices = list(choices)
    close = get_close_matches(value[:100], choices, 1, 0.8) or get_close_matches(value[:100], choices, 2, 0.6)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def shown(value: object) -> str:
    """The value for an error message: its repr, or only its type if the repr is long, as those of arrays are."""
    try:
        text = repr(value)
    except Exception:  # of a foreign type; also for ints of too many digits and lists that are nested too deep
        text = ""
    return text if text and len(text) <= 100 and "\n" not in text else f"an object of type {type(value).__name__}"


def plain(value: Any) -> Any:
    """A number or a text of any type as a Python int, float, complex or str; everything else as it is.

    Equal values of these types are written alike, so that what a Table reports and saves can be read again. A bool is
    left for the checks, which refuse it.
    """
    if type(value) in PLAIN_TYPES:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Integral):
        return int(value)
    try:
        return float(value) if isinstance(value, Real) else complex(value) if isinstance(value, Complex) else value
    except OverflowError:  # a fraction that is too large for a float
        return value


def _is_torch(value: object) -> bool:
    return any(base.__module__.partition(".")[0] == "torch" for base in type(value).__mro__)


def to_index(value: Any) -> int:
    """The int of an object that has ``__index__``; a TypeError for others, and for True and False, which have it."""
    if isinstance(value, (bool, np.bool_)):  # the latter has it before NumPy 2.3 only
        raise TypeError("a bool is no number")
    return int(operator.index(value))


def check_shape(shape: Any) -> tuple[int, ...]:
    """The shape as a tuple of ints; an int is a shape of one axis."""
    if type(shape) is tuple and len(shape) <= MAX_AXES:
        for size in shape:  # three times as fast as all()
            if type(size) is not int or not 0 <= size < MAX_SIZE:
                break
        else:
            return shape
    try:
        sizes: tuple[Any, ...] = tuple(shape) if hasattr(shape, "__iter__") and not isinstance(shape, str) else (shape,)
        checked = tuple(map(to_index, sizes))
    except TypeError:
        way = ": pass an array to fill as out=" if isinstance(shape, np.ndarray) else ""
        way = ": use the functions of xavierfast.torch" if _is_torch(shape) else way
        raise TypeError(f"shape must be a tuple of ints, got {shown(shape)}{way}") from None
    if len(checked) > MAX_AXES:
        raise ValueError(f"shape must have at most {MAX_AXES} axes, got {len(checked)}")
    if any(size < 0 for size in checked):
        raise ValueError(f"shape must not have negative sizes, got {shown(shape)}")
    if any(size >= MAX_SIZE for size in checked):
        raise ValueError(f"shape must have sizes less than 2**63, got {shown(shape)}")
    return checked


def check_padded_shape(name: str, padded: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an array that holds one of this shape at its beginning, as a tuple of ints."""
    checked = check_shape(padded)
    if len(checked) != len(shape) or any(large < size for large, size in zip(checked, shape, strict=True)):
        raise ValueError(f"{name} must have the axes of {shape} and be no smaller along any of them, got {padded!r}")
    return checked


def check_count(name: str, value: Any) -> int:
    """The count as an int >= 1."""
    try:
        number = to_index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int >= 1, got {shown(value)}") from None
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {shown(value)}")
    if number >= 1 << 63:
        raise ValueError(f"{name} must be less than 2**63, got {shown(value)}")
    return number


def check_shard(k: Any, n: Any) -> tuple[int, int]:
    """The number `k` of a shard and the count `n` of all shards, as ints with 0 <= k < n."""
    n = check_count("the number of shards", n)
    try:
        number = to_index(k)
    except TypeError:
        raise TypeError(f"the number of a shard must be an int, got {shown(k)}") from None
    if not 0 <= number < n:
        counted = f"{n} shards count from 0 to {n - 1}" if n > 1 else "the only shard has the number 0"
        raise ValueError(f"{counted}, got {shown(k)}")
    return number, n


def shard_range(length: int, k: int, n: int) -> tuple[int, int]:
    """The first index of shard `k` of `n` about equal shards of `length` things, and the index after its last."""
    return length * k // n, length * (k + 1) // n


def check_threads(threads: int | None) -> int:
    """The number of threads; None stands for as many as this process may use."""
    return default_threads() if threads is None else check_count("threads", threads)


def check_number(name: str, value: object, *, negative: bool = False) -> float:
    """The value as a finite float, >= 0 unless `negative` values are allowed. A zero loses its sign: caches, in which
    0.0 and -0.0 are one key, must not decide which of them is used."""
    if type(value) is float and 0 <= value < inf:
        return value or 0.0
    if not isinstance(value, Real) or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = inf
    if not isfinite(number) or (number < 0 and not negative):
        raise ValueError(f"{name} must be finite{'' if negative else ' and >= 0'}, got {shown(value)}")
    return number or 0.0


def dtype_of_out(out: Any) -> Any:
    """The dtype to fill if none is given: the dtype of `out` if that is an array of one of DTYPES, else float32."""
    if not isinstance(out, np.ndarray):
        return "float32"
    return out.dtype if out.dtype in NATIVE or out.dtype.name in DTYPES else "float32"


def check_out(out: Any, dtype: DType, shape: Any, *, can_choose: bool = False) -> "Array":
    """Check `out`, and return the array to fill in its memory; a caller who `can_choose` the dtype is told which."""
    array: Array = out
    if not isinstance(out, np.ndarray):
        try:
            array = np.asarray(memoryview(out))
        except (TypeError, ValueError):
            kind = type(out)
            way = ": use the functions of xavierfast.torch" if _is_torch(out) else ""
            raise TypeError(f"out must be a NumPy array or a buffer, got {kind.__name__}{way}") from None
        if array.dtype.itemsize == 1:  # raw memory: a bytearray, an mmap, shared memory
            try:
                array = array.view(dtype.bits)
                array = array if shape is None else array.reshape(check_shape(shape))
            except ValueError:
                asked = "a multiple of" if shape is None else f"{check_shape(shape)} of"
                raise ValueError(f"out must hold {asked} {dtype.name}, got {array.nbytes} contiguous bytes") from None
    # The first comparison is the quick one, and also accepts bfloat16 as uint16.
    if not ((not dtype.is_small and array.dtype == dtype.written) or array.dtype.name == dtype.name):
        known = can_choose and array.dtype.name in DTYPES
        hint = " or uint16" if dtype.name == "bfloat16" else f"; pass dtype={array.dtype.name!r}" if known else ""
        raise TypeError(f"out must hold {dtype.name} (the dtype to fill){hint}, got an array of {array.dtype}")
    if not array.dtype.isnative:
        raise TypeError(f"out must have this machine's byte order, got {array.dtype.str!r}: fill a native array first")
    if not array.flags.writeable:
        raise ValueError("out must be writable, got a read-only array or buffer")
    if shape is not None and array.shape != shape and array.shape != check_shape(shape):
        raise ValueError(f"shape and out must agree, got {check_shape(shape)} and an array of {array.shape}")
    if not array.flags.c_contiguous:
        check_no_overlap(array.shape, array.strides, array.itemsize)
    return array


def check_no_overlap(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int = 1) -> None:
    """Check that elements, `itemsize` long in the unit of the strides, have places of their own."""
    if 0 in shape:
        return
    reach = itemsize
    for stride, size in sorted((abs(stride), size) for stride, size in zip(strides, shape, strict=True)):
        if size > 1 and stride < reach:
            raise ValueError(f"out must not overlap itself, got the shape {tuple(shape)} with strides {tuple(strides)}")
        reach += (size - 1) * stride

"""The dtypes of tables, and how the kernels write each of them.

==================  ======================================================  =========
dtype               written by the kernels as                               from
==================  ======================================================  =========
float32, float64    itself                                                  NumPy
float16             itself: the float32 value, rounded once                 NumPy
bfloat16            its bits in uint16: the float32 value, rounded once     ml_dtypes
complex64, -128     itself                                                  NumPy
float8_*, 6, 4      float32, which ml_dtypes rounds once                    ml_dtypes
==================  ======================================================  =========
"""

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from math import inf, nextafter
from typing import Any, Literal
from warnings import catch_warnings, simplefilter

import numpy as np

from .. import kernels

__all__ = ["DTYPES", "NATIVE", "DType", "DTypeLike", "DTypeName", "resolve_dtype"]

NumPyDType = np.dtype[Any]
DTypeName = Literal[
    "float32", "float64", "float16", "bfloat16", "complex64", "complex128", "float8_e3m4", "float8_e4m3",
    "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float6_e2m3fn",
    "float6_e3m2fn", "float4_e2m1fn",
]  # fmt: skip
DTypeLike = DTypeName | NumPyDType | type[Any]


class DType:
    """A dtype that tables can have.

    The kernels write elements in the format to which they give the number `code`, to memory of the NumPy dtype
    `written`. `smallest` is the least scale of a distribution: below it, values would become subnormal on the way, or
    round to 0.
    """

    __slots__ = ("code", "is_complex", "is_native", "is_small", "itemsize", "name", "written")

    def __init__(
        self, name: DTypeName, code: int, written: NumPyDType, *, is_native: bool = False, is_small: bool = False
    ) -> None:
        self.name: DTypeName = name
        self.code = code
        self.written = written
        self.itemsize = 1 if is_small else written.itemsize
        self.is_native = is_native  # a dtype of NumPy's own
        self.is_complex = written.kind == "c"
        self.is_small = is_small  # at most one byte: written as float32, and cast

    @property
    def storage(self) -> NumPyDType:
        """The NumPy dtype of arrays of this dtype; raises ImportError if it needs ml_dtypes, which is not installed."""
        return self.written if self.is_native else _ml_dtype(self.name)

    @property
    def bits(self) -> NumPyDType:
        """A NumPy dtype that holds the elements; it does not need ml_dtypes if the kernels write the elements' bits."""
        return self.storage if self.is_small else self.written

    @property
    def largest(self) -> float:
        """The largest finite number."""
        if self.is_small:
            return float(_small_numbers(self.name)[-1])
        return (2 - 2.0**-7) * 2.0**127 if self.name == "bfloat16" else float(np.finfo(self.written).max)

    @property
    def smallest(self) -> float:
        if self.is_small:
            numbers = _small_numbers(self.name)
            return float(numbers[numbers > 0][0])
        return 2.0**-24 if self.name == "float16" else 2.0**-900 if self.written in (float, complex) else 2.0**-80

    def at_most(self, end: Decimal | float) -> float:
        """The largest finite number of this real dtype that is <= `end`; a Decimal can give an end more exactly than a
        float."""
        limit = self.largest
        value = float(max(min(end, limit), -limit))
        if value > end:  # a Decimal was rounded up, or no number is so small
            value = max(nextafter(value, -inf), -limit)
        if self.name == "float64":
            return value
        if self.is_small:
            numbers = _small_numbers(self.name)
            return float(numbers[np.searchsorted(numbers, value, side="right") - 1])
        if self.name == "bfloat16":
            single = np.float32(DTYPES["float32"].at_most(value))
            bits = single.view(np.uint32)
            cut = (bits & np.uint32(0xFFFF0000)).view(np.float32)
            return float(cut if cut <= single else (bits + np.uint32(0xFFFF) & np.uint32(0xFFFF0000)).view(np.float32))
        kind = self.written.type
        near = kind(value)
        return float(near if float(near) <= value else np.nextafter(near, kind(-np.inf)))

    def at_least(self, end: Decimal | float) -> float:
        """The smallest finite number of this real dtype that is >= `end`."""
        return -self.at_most(-end)


def _native(code: int, name: DTypeName) -> DType:
    return DType(name, code, np.dtype(name), is_native=True)


# The real formats of ml_dtypes that have a zero and a sign.
_SMALL: tuple[DTypeName, ...] = (
    "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
    "float8_e5m2fnuz", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn",
)  # fmt: skip
DTYPES: Mapping[str, DType] = {
    "float32": _native(kernels.FLOAT32, "float32"),
    "float64": _native(kernels.FLOAT64, "float64"),
    "float16": _native(kernels.FLOAT16, "float16"),
    "bfloat16": DType("bfloat16", kernels.BFLOAT16, np.dtype(np.uint16)),
    "complex64": _native(kernels.COMPLEX64, "complex64"),
    "complex128": _native(kernels.COMPLEX128, "complex128"),
    **{name: DType(name, kernels.FLOAT32, np.dtype(np.float32), is_small=True) for name in _SMALL},
}


# The short way, as NumPy takes microseconds to spell the name of a dtype.
NATIVE: Mapping[NumPyDType, DType] = {dtype.written: dtype for dtype in DTYPES.values() if dtype.is_native}


def resolve_dtype(dtype: Any) -> DType:
    """The DType of a name in DTYPES, a NumPy dtype, or a dtype of ``ml_dtypes``."""
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    if isinstance(dtype, np.dtype) and dtype in NATIVE:
        return NATIVE[dtype]
    try:
        with catch_warnings():
            simplefilter("ignore")
            native = None if dtype is None else np.dtype(dtype)
    except (TypeError, ValueError, OverflowError, SyntaxError):
        native = None
    if native is None or native.name not in DTYPES:
        raise TypeError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r:.80}")
    if not native.isnative:
        raise TypeError(f"dtype must have this machine's byte order, got {dtype!r}: fill a native array and convert it")
    return DTYPES[native.name]


def _ml_dtype(name: str) -> NumPyDType:
    try:
        import ml_dtypes
    except ImportError:
        bits = ", or pass a uint16 array as out= for its bits" if name == "bfloat16" else ""
        raise ImportError(f"an array of {name} needs ml_dtypes (pip install ml_dtypes){bits}") from None
    if not hasattr(ml_dtypes, name):
        raise ImportError(f"an array of {name} needs a newer ml_dtypes than {ml_dtypes.__version__}")
    dtype: NumPyDType = np.dtype(getattr(ml_dtypes, name))
    return dtype


@cache
def _small_numbers(name: str) -> np.ndarray[Any, Any]:
    """All finite numbers of a one-byte dtype, in ascending order."""
    with np.errstate(all="ignore"):
        numbers = np.arange(256, dtype=np.uint8).view(_ml_dtype(name)).astype(np.float64)
    return np.unique(numbers[np.isfinite(numbers)])

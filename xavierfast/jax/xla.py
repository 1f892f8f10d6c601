"""A function of Python as a handler of XLA's foreign function interface on the CPU, which writes to XLA's own buffer.

The structures are those of ``xla/ffi/api/c_api.h``, up to the last field that is read here. They are the same in the
versions 0.1 to 0.3 of the interface (jaxlib 0.5 to 0.10), and XLA promises to support old versions for a year. A
handler says at its registration which version it knows::

    XLA                                      handler
    call frame with a metadata extension  -> writes its version
    call frame with operands, attributes  -> fills the result, and returns NULL or an error

ctypes takes the GIL for the handler, which gives it up while kernels run, on all of our threads.
"""

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from typing import Any

import jax
import numpy as np

from .._core.fill import Array
from .._core.huge_pages import advise_huge_pages

__all__ = ["DTYPES", "register"]

OLDEST, NEWEST = (0, 1), (0, 3)  # the versions of the interface that are known here
METADATA, INVALID_ARGUMENT = 1, 3  # an extension's type, an error's code

# The numbers of XLA's dtypes. Smaller ones than these are left out: XLA may pack two of them into a byte.
DTYPES = {
    4: "int32", 8: "uint32", 10: "float16", 11: "float32", 12: "float64", 15: "complex64", 16: "bfloat16",
    18: "complex128", 19: "float8_e5m2", 20: "float8_e4m3fn", 23: "float8_e4m3b11fnuz", 24: "float8_e5m2fnuz",
    25: "float8_e4m3fnuz", 28: "float8_e4m3", 29: "float8_e3m4",
}  # fmt: skip


class Version(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("extensions", c_void_p), ("major", c_int), ("minor", c_int)]


class Metadata(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("version", Version), ("traits", c_uint32)]


class MetadataExtension(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("type", c_int), ("next", c_void_p), ("metadata", POINTER(Metadata)),
    ]  # fmt: skip


class Buffer(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("extensions", c_void_p), ("dtype", c_int), ("data", c_void_p), ("rank", c_int64),
        ("dims", POINTER(c_int64)),
    ]  # fmt: skip


class Text(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("length", c_size_t)]


class Buffers(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("extensions", c_void_p), ("size", c_int64), ("types", c_void_p),
        ("items", POINTER(POINTER(Buffer))),
    ]  # fmt: skip


class Attributes(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("extensions", c_void_p), ("size", c_int64), ("types", c_void_p),
        ("names", POINTER(POINTER(Text))), ("items", POINTER(POINTER(Text))),
    ]  # fmt: skip


class ErrorArguments(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("extensions", c_void_p), ("message", c_char_p), ("code", c_int)]


class Api(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("extensions", c_void_p), ("version", Version), ("internal", c_void_p),
        ("create_error", ctypes.CFUNCTYPE(c_void_p, POINTER(ErrorArguments))),
    ]  # fmt: skip


class CallFrame(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("extensions", POINTER(MetadataExtension)), ("api", POINTER(Api)),
        ("context", c_void_p), ("stage", c_int), ("arguments", Buffers), ("results", Buffers),
        ("attributes", Attributes),
    ]  # fmt: skip


Fill = Callable[[str, Sequence[Array], Array], None]
_handlers: list[Any] = []  # XLA holds only their addresses


def register(name: str, fill: Fill) -> str:
    """Let XLA call ``fill(call, operands, out)`` under a name, and return it; return "" if this JAX cannot.

    `call` is the attribute of this name, a text; `out` is the only result. An exception becomes XLA's error.
    """

    def handle(pointer: Any) -> int:
        frame = pointer.contents
        try:
            if frame.extensions and frame.extensions.contents.type == METADATA:
                version = frame.api.contents.version if frame.api else None  # NULL here in jaxlib 0.7
                metadata = frame.extensions.contents.metadata.contents
                known = min((version.major, version.minor), NEWEST) if version else OLDEST
                metadata.version.major, metadata.version.minor = known
                metadata.traits = 0
                return 0
            text = frame.attributes.items[0].contents
            operands = [_array(frame.arguments.items[k].contents) for k in range(frame.arguments.size)]
            out = _array(frame.results.items[0].contents)
            if out.size:
                advise_huge_pages(out.ctypes.data, out.nbytes)
                fill(ctypes.string_at(text.data, text.length).decode(), operands, out)
        except BaseException as error:
            message = f"{type(error).__name__}: {error}".encode(errors="replace")
            arguments = ErrorArguments(ctypes.sizeof(ErrorArguments), None, message, INVALID_ARGUMENT)
            return frame.api.contents.create_error(ctypes.byref(arguments)) or 0
        return 0

    handler = ctypes.CFUNCTYPE(c_void_p, POINTER(CallFrame))(handle)
    try:
        capsule = jax.ffi.pycapsule(handler)  # type: ignore[no-untyped-call]
        jax.ffi.register_ffi_target(name, capsule, platform="cpu")
    except Exception:  # a version of XLA that knows no handlers as old as this one
        return ""
    _handlers.append(handler)
    return name


def _array(buffer: Buffer) -> Array:
    """A buffer's memory as an array."""
    shape = tuple(buffer.dims[: buffer.rank])
    dtype = np.dtype(DTYPES[buffer.dtype])
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not nbytes:
        return np.empty(shape, dtype)
    memory: Any = (ctypes.c_ubyte * nbytes).from_address(buffer.data)
    array: Array = np.frombuffer(memory, np.uint8).view(dtype).reshape(shape)
    return array

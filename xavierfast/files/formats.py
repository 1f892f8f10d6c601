"""Headers of .npy, .safetensors and .bin files: the positions of each tensor's bytes, and the recipes stored with them.

    .npy          magic, a dict as text, spaces to a multiple of 64 | the array             numpy.lib.format
    .safetensors  n as uint64, n bytes of JSON                       | tensors, end to end   the safetensors library
    .bin                                                             | the array

A header may come from an untrusted party, so lengths are checked against the file's size before anything is read, and
offsets before anything is trusted; no name is used as a path, and no text is run as code.
"""

import io
import json
import math
import os
import struct
import sys
import warnings
from collections.abc import Mapping
from errno import ENOTSUP
from typing import Any, NamedTuple

import numpy as np

from .._core.dtypes import DTYPES
from .._core.validation import MAX_AXES
from ..table import Table
from .handles import File
from .limits import MAX_HEADER_BYTES, MAX_NPY_HEADER_BYTES
from .untrusted_json import FormatError, from_json

__all__ = [
    "FORMATS", "FormatError", "Image", "Tables", "Tensor", "format_of_path", "named", "npy_header",
    "read_image", "tables_from_recipes", "write_image",
]  # fmt: skip

FORMATS = (".npy", ".safetensors", ".bin")
Tables = Table | Mapping[str, Table]

# The alignment of a .safetensors file's first tensor, which is that of .npy files.
ALIGNMENT_BYTES = 64

_NUMPY_DTYPES = ("float16", "float32", "float64", "complex64", "complex128")
_SAFETENSORS_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ", "int64": "I64", "int32": "I32", "int16": "I16",
    "int8": "I8",  "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_BITS_PER_ELEMENT = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6,
    "F6_E3M2": 6, "F4": 4, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8,
    "BOOL": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
}  # fmt: skip


class Tensor(NamedTuple):
    """One array in C order, whose bytes lie in the file from `begin` to before `end`."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # its name in NumPy or ml_dtypes, or the format's own name where neither has one
    begin: int
    end: int

    @property
    def rows(self) -> int:
        return self.shape[0] if self.shape else 1


class Image(NamedTuple):
    """The contents of a file: a header, followed by tensors in the order of their bytes."""

    header: bytes
    tensors: list[Tensor]
    nbytes: int
    recipes: dict[str, Any]  # by the tensors' names; empty for formats that have no room for them


def format_of_path(path: str) -> str:
    ending = os.path.splitext(path)[1]
    if ending not in FORMATS:
        raise ValueError(f"a table's file name must end in {', '.join(FORMATS)}; got {path!r}")
    if sys.byteorder == "big":
        raise OSError(ENOTSUP, "tables on disk are little-endian, and this machine is big-endian", path)
    return ending


# ---- writing


def write_image(ending: str, tables: Mapping[str, Table]) -> Image:
    """The image of a file that will hold these tables."""
    if ending == ".safetensors":
        return _safetensors_image(tables)
    if len(tables) != 1:
        raise ValueError(f"a {ending} file must hold exactly one table, got {len(tables)}: use a .safetensors file")
    ((name, table),) = tables.items()
    dtype = table.dtype_name
    # NumPy stores the dtypes of ml_dtypes as void.
    descr = np.dtype(dtype).str if dtype in _NUMPY_DTYPES else f"<V{table.itemsize}"
    header = b"" if ending == ".bin" else npy_header(table.shape, descr)
    tensor = Tensor(name, table.shape, dtype, len(header), len(header) + table.nbytes)
    return Image(header, [tensor], tensor.end, {})


def npy_header(shape: tuple[int, ...], descr: str) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def _safetensors_image(tables: Mapping[str, Table]) -> Image:
    recipes = {name: table.recipe for name, table in tables.items()}
    for name, recipe in recipes.items():
        if recipe["dtype"] not in _SAFETENSORS_DTYPES:
            held = ", ".join(dtype for dtype in DTYPES if dtype in _SAFETENSORS_DTYPES)
            raise ValueError(
                f"a safetensors file holds {held}; got {recipe['dtype']} for {name!r}: use one of these, or a .npy file"
            )
        if name in ("", "__metadata__"):
            raise ValueError(f"a tensor in a safetensors file needs a name, got {name!r}: pass name=")
        name.encode()  # raises an error for a lone surrogate, which UTF-8 cannot express
    # The order of the safetensors library, in which each tensor is aligned: wide elements first, then by name.
    order = sorted(tables, key=lambda name: (-tables[name].itemsize, name))
    # transformers refuses files whose metadata do not name a framework.
    fields: dict[str, Any] = {"__metadata__": {"format": "pt", "xavierfast": json.dumps(recipes)}}
    begin = 0
    for name in order:
        end = begin + tables[name].nbytes
        dtype = _SAFETENSORS_DTYPES[recipes[name]["dtype"]]
        fields[name] = {"dtype": dtype, "shape": list(tables[name].shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT_BYTES)
    if len(text) > MAX_HEADER_BYTES:
        raise ValueError(
            f"a safetensors header must have at most {MAX_HEADER_BYTES:,} bytes, got {len(text):,}: "
            "pass max_shard_size= to split the model into several files"
        )
    header = struct.pack("<Q", len(text)) + text
    tensors = []
    for name in order:
        first, last = fields[name]["data_offsets"]
        tensors.append(
            Tensor(name, tables[name].shape, recipes[name]["dtype"], len(header) + first, len(header) + last)
        )
    return Image(header, tensors, len(header) + begin, recipes)


# ---- reading


def read_image(ending: str, file: File, size: int) -> Image:
    """Read the image of an open file of `size` bytes from its header; the file may differ in length from ``nbytes``.

    A .bin file has no header: its one tensor consists of all bytes.
    """
    if ending == ".bin":
        return Image(b"", [Tensor("", (size,), "uint8", 0, size)], size, {})
    return _read_npy(file, size) if ending == ".npy" else _read_safetensors(file, size)


def _read_whole(file: File, count: int, offset: int) -> bytes:
    data = file.read(count, offset)
    if len(data) < count:
        raise FormatError(f"a header of {count:,} bytes ends after {len(data):,}: the file became shorter meanwhile")
    return data


def _read_npy(file: File, size: int) -> Image:
    text = io.BytesIO(_read_whole(file, min(size, MAX_NPY_HEADER_BYTES), 0))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(text)
            if version not in ((1, 0), (2, 0)):
                raise FormatError(f"a .npy header must be of version 1 or 2, got {version}")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read(text)
    except FormatError:
        raise
    except Exception as error:  # the text is untrusted, and NumPy does not list the errors of its parser
        raise FormatError(f"not a .npy header: {error}") from None
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None or dtype.itemsize == 0:
        raise FormatError(f"a table must hold numbers, got a .npy file of {dtype}")
    if fortran_order and len(shape) > 1:
        raise FormatError("a table must be in C order, got a .npy file in Fortran order")
    shape = _check_shape(list(shape), 8 * dtype.itemsize)
    header = text.getvalue()[: text.tell()]
    name = dtype.name if dtype.kind != "V" and dtype.isnative else dtype.str
    end = len(header) + math.prod(shape) * dtype.itemsize
    return Image(header, [Tensor("", shape, name, len(header), end)], end, {})


def _read_safetensors(file: File, size: int) -> Image:
    start = file.read(8, 0)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
    if length > min(MAX_HEADER_BYTES, size - 8):
        raise FormatError(
            f"a safetensors header must fit in the file and in {MAX_HEADER_BYTES:,} bytes, got {length:,} of {size:,}"
        )
    text = _read_whole(file, length, 8)
    fields = from_json(text)
    if not isinstance(fields, dict):
        raise FormatError("a safetensors header must be a JSON object")
    metadata = fields.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError("safetensors' __metadata__ must map strings to strings")
    header = start + text
    tensors = sorted((_read_tensor(name, field, len(header)) for name, field in fields.items()), key=lambda t: t[3:])
    end = len(header)
    for tensor in tensors:
        if tensor.begin != end:
            raise FormatError(f"tensors must not leave gaps, got {tensor.name!r:.80} at {tensor.begin}, not {end}")
        end = tensor.end
    recipes = from_json(metadata["xavierfast"].encode()) if "xavierfast" in metadata else {}
    if not isinstance(recipes, dict):
        raise FormatError("the recipes of a safetensors file must be a JSON object")
    return Image(header, tensors, end, recipes)


def _read_tensor(name: str, field: Any, start: int) -> Tensor:
    if not isinstance(field, dict) or not field.keys() >= {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"a tensor must have dtype, shape and data_offsets, got {name!r:.80}")
    dtype, shape, offsets = field["dtype"], field["shape"], field["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS_PER_ELEMENT:
        known = ", ".join(_BITS_PER_ELEMENT)
        raise FormatError(f"a safetensors dtype must be one of {known}; got {dtype!r:.80} for {name!r:.80}")
    if not (
        isinstance(offsets, list)
        and len(offsets) == 2
        and all(type(offset) is int for offset in offsets)
        and 0 <= offsets[0] <= offsets[1] < 1 << 63
    ):
        raise FormatError(f"data_offsets must be a list of begin and end, got {offsets!r:.80} for {name!r:.80}")
    sizes = _check_shape(shape, _BITS_PER_ELEMENT[dtype])
    begin, end = offsets
    if 8 * (end - begin) != math.prod(sizes) * _BITS_PER_ELEMENT[dtype]:
        raise FormatError(
            f"data_offsets must enclose exactly the tensor, got {end - begin} bytes for {name!r:.80}, {shape!r:.80}"
        )
    numpy_name = next((name for name, theirs in _SAFETENSORS_DTYPES.items() if theirs == dtype), dtype)
    return Tensor(name, sizes, numpy_name, start + begin, start + end)


def _check_shape(shape: Any, bits: int) -> tuple[int, ...]:
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_AXES
        or any(type(n) is not int or not 0 <= n < 1 << 63 for n in shape)
    ):
        raise FormatError(f"a shape must be at most {MAX_AXES} ints from 0 to 2**63 - 1, got {shape!r:.80}")
    if math.prod(shape) * bits >= 1 << 66:
        raise FormatError(f"a tensor must have less than 2**63 bytes, got the shape {shape!r:.80}")
    return tuple(shape)


def named(tables: Tables) -> dict[str, Table]:
    if isinstance(tables, Table):
        return {tables.name: tables}
    if not isinstance(tables, Mapping) or not all(
        isinstance(name, str) and isinstance(table, Table) for name, table in tables.items()
    ):
        raise TypeError(f"tables must be a Table or a mapping of names to Tables, got {tables!r:.80}")
    if not tables:
        raise ValueError("tables must hold at least one Table, got none")
    return dict(tables)


def tables_from_recipes(recipes: Any) -> dict[str, Table]:
    if not isinstance(recipes, dict):
        raise FormatError("recipes must be a JSON object that maps names to recipes")
    tables = {}
    for name, recipe in recipes.items():
        try:
            tables[name] = Table.from_recipe(recipe)
        except (TypeError, ValueError) as error:
            raise FormatError(f"{error} (in the recipe of {name!r:.80})") from None
    return tables

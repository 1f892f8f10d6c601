"""Reading of existing files, from this package or others: tensors, the recipes stored with them, and arrays."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from errno import ENOENT
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .._core.dtypes import DTYPES
from .._core.fill import Array
from ..table import Table
from .blocks import Span
from .formats import FormatError, Tensor, format_of_path, read_image, tables_from_recipes, write_image
from .posix import exists, folder_of, open_file, read_json

__all__ = ["Entry", "TensorFile", "load", "opened", "tables_of", "tensors_of"]


class TensorFile:
    """An open file of tensors, and its parsed header."""

    def __init__(self, folder: int, name: str) -> None:
        self.folder, self.name, self.ending = folder, name, format_of_path(name)
        self.fd = open_file(folder, name, os.O_RDONLY, follow=True)
        try:
            self.size = os.fstat(self.fd).st_size
            self.image = read_image(self.ending, self.fd, self.size)
        except BaseException as error:
            os.close(self.fd)
            error.add_note(f"in {name}")
            raise

    def recorded(self) -> dict[str, Table]:
        """The tables, by name, that the recipes in the file or in its sidecar describe."""
        if self.ending == ".safetensors" and self.image.recipes:
            return tables_from_recipes(self.image.recipes)
        sidecar = f"{self.name}.recipe.json"
        try:
            table = tables_from_recipes({"": read_json(self.folder, sidecar, follow=True)})[""]
        except FileNotFoundError:
            raise FileNotFoundError(ENOENT, f"has no recipe: {sidecar} is missing", self.name) from None
        return {table.name: table}

    def entries(self, tables: Mapping[str, Table]) -> "list[Entry]":
        """The file's tensors, each with the table that it should equal."""
        if self.ending == ".safetensors":
            return [Entry(self.fd, tensor, tables.get(tensor.name)) for tensor in self.image.tensors]
        if len(tables) > 1:
            raise ValueError(f"{self.name} holds one tensor, got the recipes of {len(tables)}")
        (tensor,) = self.image.tensors
        if not tables:
            return [Entry(self.fd, tensor, None)]
        ((name, table),) = tables.items()
        if self.ending == ".bin":  # a format without a header: the recipe gives shape and dtype
            (tensor,) = write_image(self.ending, tables).tensors
        return [Entry(self.fd, tensor._replace(name=name), table)]


class Entry(NamedTuple):
    fd: int
    tensor: Tensor
    table: Table | None

    @property
    def problem(self) -> str:
        """The reason why the tensor cannot be compared with its table; empty if it can."""
        if self.table is None:
            return "it has no recipe"
        dtype = self.table.dtype_name
        if self.tensor.shape != self.table.shape:
            return f"its shape is {self.tensor.shape}, and its recipe says {self.table.shape}"
        if self.tensor.dtype not in (dtype, f"|V{self.table.itemsize}"):  # NumPy's name for dtypes of ml_dtypes
            return f"its dtype is {self.tensor.dtype}, and its recipe says {dtype}"
        return ""

    def span(self) -> Span:
        tensor, table = self.tensor, None if self.problem else self.table
        if table is not None:
            tensor = tensor._replace(dtype=table.dtype_name)
        itemsize = DTYPES[tensor.dtype].itemsize if tensor.dtype in DTYPES else np.dtype(tensor.dtype).itemsize
        # The file may be shorter than its header says: the span ends with the last whole row.
        row = prod(tensor.shape[1:])
        held = max(0, os.fstat(self.fd).st_size - tensor.begin) // (row * itemsize or 1) * row
        return Span(self.fd, tensor, table, 0, min(held, prod(tensor.shape)), itemsize)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[list[TensorFile]]:
    """Open the file of a path, or all files of its index; yield the open files, and close them at the end."""
    with folder_of(path) as (folder, name), ExitStack() as stack:
        index = name if name.endswith(".index.json") else f"{name}.index.json"
        if index == name or (not exists(folder, name) and exists(folder, index)):
            names = _indexed(folder, index)
        elif not exists(folder, name) and exists(folder, f"{name}.partial"):
            raise FileNotFoundError(ENOENT, "is unfinished; call resume() to finish it", name)
        else:
            names = [name]
        files = []
        for name in names:
            files.append(TensorFile(folder, name))
            stack.callback(os.close, files[-1].fd)
        yield files


def _indexed(folder: int, index: str) -> list[str]:
    fields = read_json(folder, index, follow=True)
    weights = fields.get("weight_map") if isinstance(fields, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise FormatError(f"{index} must map names to files in its weight_map")
    names = set(map(str, weights.values()))
    for name in names:
        if not re.fullmatch(r"[^/\\\0]+\.safetensors", name):
            raise FormatError(f"{index} must name .safetensors files in its own folder, got {name!r:.80}")
    return sorted(names)


def tensors_of(path: str | os.PathLike[str]) -> list[Tensor]:
    """The tensors of a file or an index, with names, shapes and dtypes, read from the headers only."""
    with opened(path) as files:
        return [tensor for file in files for tensor in file.image.tensors]


def tables_of(path: str | os.PathLike[str]) -> dict[str, Table]:
    """Return the Tables, by name, that a file was created from. The file's values are not read.

    Parameters
    ----------
    path : str or path
        A .npy, .safetensors or .bin file with a recipe, the index of several files, or a .recipe.json file.

    Returns
    -------
    dict of str to Table

    Raises
    ------
    FileNotFoundError
        If the file does not exist or has no recipe.
    FormatError, OSError, ValueError
        As in :func:`verify`.

    Examples
    --------
    >>> from xavierfast.files import create
    >>> create("rows.npy", Table((1000, 64), seed=7, name="items"))
    256000
    >>> tables_of("rows.npy")
    {'items': Table((1000, 64), 'xavier_uniform', seed=7, name='items')}
    """
    if os.fspath(path).endswith(".recipe.json"):
        with folder_of(path) as (folder, name):
            table = tables_from_recipes({"": read_json(folder, name, follow=True)})[""]
        return {table.name: table}
    with opened(path) as files:
        return {name: table for file in files for name, table in file.recorded().items()}


def load(path: str | os.PathLike[str], mmap_mode: Any = None) -> Array:
    """Load the array of a .npy or .bin file in the dtype of its recipe, including bfloat16 and float8.

    NumPy's format has no names for the dtypes of ml_dtypes, so ``numpy.load`` returns such arrays as void. For
    .safetensors files, use ``safetensors.numpy.load_file``.

    Parameters
    ----------
    path : str or path
        A .npy or .bin file, with its recipe in the sidecar ``PATH.recipe.json``.
    mmap_mode : {"r", "r+", "c"}, optional
        As in ``numpy.load``.

    Returns
    -------
    numpy.ndarray

    Raises
    ------
    FormatError
        If the file is shorter than its recipe says, or has another shape or dtype.
    FileNotFoundError, OSError, ValueError
        As in :func:`verify`.

    Examples
    --------
    >>> from xavierfast.files import create
    >>> create("half.npy", Table((1000, 64), seed=7, dtype="bfloat16"))
    128000
    >>> np.load("half.npy").dtype, load("half.npy", mmap_mode="r").dtype
    (dtype('V2'), dtype(bfloat16))
    """
    path = os.fsdecode(path)
    if format_of_path(path) == ".safetensors":
        raise ValueError(f"load reads .npy and .bin files, got {path!r}: use safetensors.numpy.load_file")
    if mmap_mode not in (None, "r", "r+", "c"):
        raise ValueError(f"mmap_mode must be None, 'r', 'r+' or 'c', got {mmap_mode!r}")
    with opened(path) as (file,):
        (entry,) = file.entries(file.recorded())
        if entry.problem:
            raise FormatError(f"{path} must match its recipe, but {entry.problem}")
        span, size = entry.span(), file.size
    if size < span.tensor.end:
        raise FormatError(f"{path} must have {span.tensor.end:,} bytes, got {size:,}")
    shape, dtype, begin = span.tensor.shape, DTYPES[span.tensor.dtype].storage, span.tensor.begin
    if not span.last:  # an empty array cannot be mapped
        return np.empty(shape, dtype)
    if mmap_mode is None:
        return np.fromfile(path, dtype, span.last, offset=begin).reshape(shape)
    return np.memmap(path, dtype, mmap_mode, begin, shape)

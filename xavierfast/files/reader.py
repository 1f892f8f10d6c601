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
from .handles import File
from .limits import MAX_MODEL_BYTES, MAX_RECIPE_BYTES
from .posix import exists, folder_of, read_json

__all__ = [
    "Entry", "TensorFile", "index_beside", "is_number", "load", "opened", "opened_with_problems", "read_index",
    "recorded_beside", "tables_of", "tensors_of",
]  # fmt: skip


class TensorFile:
    """An open file of tensors, and its parsed header. A symlink is followed unless the file is to be `writable`."""

    def __init__(self, folder: int, name: str, writable: bool = False) -> None:
        self.folder, self.name, self.ending = folder, name, format_of_path(name)
        self.file = File(folder, name, os.O_RDWR if writable else os.O_RDONLY, follow=not writable)
        try:
            self.size = self.file.size()
            self.image = read_image(self.ending, self.file, self.size)
        except BaseException as error:
            self.file.close()
            error.add_note(f"in {name}")
            raise

    def recorded(self) -> dict[str, Table]:
        """The tables, by name, that the recipes in the file or in its sidecar describe."""
        if self.ending == ".safetensors" and self.image.recipes:
            return tables_from_recipes(self.image.recipes)
        return recorded_beside(self.folder, self.name)

    def entries(self, tables: Mapping[str, Table]) -> "list[Entry]":
        """The file's tensors, each with the table that it should equal."""
        if self.ending == ".safetensors":
            return [Entry(self, tensor, tables.get(tensor.name)) for tensor in self.image.tensors]
        if len(tables) > 1:
            raise ValueError(f"{self.name} holds one tensor, got the recipes of {len(tables)}")
        (tensor,) = self.image.tensors
        if not tables:
            return [Entry(self, tensor, None)]
        ((name, table),) = tables.items()
        if self.ending == ".bin":  # a format without a header: the recipe gives shape and dtype
            (tensor,) = write_image(self.ending, tables).tensors
        return [Entry(self, tensor._replace(name=name), table)]


def recorded_beside(folder: int, name: str) -> dict[str, Table]:
    """The table, by its name, that a file's sidecar describes."""
    sidecar = f"{name}.recipe.json"
    try:
        table = tables_from_recipes({"": read_json(folder, sidecar, MAX_RECIPE_BYTES, follow=True)})[""]
    except FileNotFoundError:
        raise FileNotFoundError(ENOENT, f"has no recipe: {sidecar} is missing", name) from None
    return {table.name: table}


class Entry(NamedTuple):
    of: TensorFile
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
        held = max(0, self.of.size - tensor.begin) // (row * itemsize or 1) * row
        return Span(self.of.file, tensor, table, 0, min(held, prod(tensor.shape)), itemsize)


@contextmanager
def opened(path: str | os.PathLike[str], writable: bool = False) -> Iterator[list[TensorFile]]:
    """Open the file of a path, or all files of its index, which must agree with them; close them at the end."""
    with opened_with_problems(path, writable) as (files, problems):
        if problems:
            name, problem = problems[0]
            raise FormatError(f"{os.fsdecode(path)}: {problem}, got it for {name!r:.80}")
        yield files


@contextmanager
def opened_with_problems(
    path: str | os.PathLike[str], writable: bool = False
) -> Iterator[tuple[list[TensorFile], list[tuple[str, str]]]]:
    """``opened``, which also yields where the index disagrees with its files: pairs of a name and a problem."""
    with folder_of(path) as (folder, name), ExitStack() as stack:
        index = index_beside(folder, name)
        if index is None and not exists(folder, name) and exists(folder, f"{name}.partial"):
            raise FileNotFoundError(ENOENT, "is unfinished; call resume() to finish it", name)
        fields = None if index is None else read_index(folder, index)
        names = [name] if fields is None else sorted(set(fields["weight_map"].values()))
        files = []
        for name in names:
            files.append(TensorFile(folder, name, writable))
            stack.callback(files[-1].file.close)
        yield files, [] if index is None or fields is None else _index_problems(index, fields, files)


def index_beside(folder: int, name: str) -> str | None:
    """The name of the index to read for a file's name; None for a single file."""
    if name.endswith(".index.json"):
        return name
    index = f"{name}.index.json"
    return index if not exists(folder, name) and exists(folder, index) else None


def read_index(folder: int, index: str) -> dict[str, Any]:
    """Read an index, whose weight_map names .safetensors files in its own folder."""
    fields: Any = read_json(folder, index, MAX_MODEL_BYTES, follow=True)
    weights = fields.get("weight_map") if isinstance(fields, dict) else None
    if not isinstance(weights, dict) or not weights or not all(isinstance(name, str) for name in weights.values()):
        raise FormatError(f"{index} must map names to files in its weight_map")
    for name in set(weights.values()):
        if not re.fullmatch(r"[^/\\\0]+\.safetensors", name):
            raise FormatError(f"{index} must name .safetensors files in its own folder, got {name!r:.80}")
    names = set(weights.values())
    counts = {match[1] for name in names if (match := re.fullmatch(r".*-[0-9]{5}-of-([0-9]{5})\.safetensors", name))}
    if len(counts) == 1 and len(names) < int(*counts):
        raise FormatError(f"{index} must name all files of the model, got {len(names)} of {int(*counts)}")
    if not isinstance(fields.get("metadata", {}), dict):
        raise FormatError(f"{index} must have an object as its metadata")
    return dict(fields)


def _index_problems(index: str, fields: dict[str, Any], files: list[TensorFile]) -> list[tuple[str, str]]:
    weights, problems = fields["weight_map"], []
    held = {(tensor.name, file.name) for file in files for tensor in file.image.tensors}
    for name, file in sorted(held):
        if name not in weights:
            problems.append((name, f"the index does not list it, and {file} holds it"))
        elif weights[name] != file:
            problems.append((name, f"the index says that it is in {weights[name]}, and it is in {file}"))
    problems += [
        (name, f"the index says that it is in {file}, which lacks it")
        for name, file in weights.items()
        if (name, file) not in held
    ]
    total = sum(tensor.end - tensor.begin for file in files for tensor in file.image.tensors)
    ours = any(file.image.recipes for file in files)  # of which create has written the size
    said = fields.get("metadata", {}).get("total_size", None if ours else total)
    if type(said) is not int or said != total:
        problems.append((index, f"its total_size is {said!r:.40}, and the tensors have {total} bytes"))
    return problems


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
            table = tables_from_recipes({"": read_json(folder, name, MAX_RECIPE_BYTES, follow=True)})[""]
        return {table.name: table}
    with opened(path) as files:
        return {name: table for file in files for name, table in file.recorded().items()}


def load(path: str | os.PathLike[str], mmap_mode: Any = None, *, tensor: str | None = None) -> Array:
    """Load an array from a file, also of bfloat16 and float8, with the dtypes of ml_dtypes.

    NumPy's format has no names for these dtypes, so ``numpy.load`` returns such arrays as void, and safetensors' loader
    for NumPy refuses float8.

    Parameters
    ----------
    path : str or path
        A .npy or .bin file, with its recipe in the sidecar ``PATH.recipe.json``; or a .safetensors file, or the index
        of several.
    mmap_mode : {"r", "r+", "c"}, optional
        As in ``numpy.load``. With "r+", a symlink is refused.
    tensor : str, optional
        The tensor's name, for .safetensors files that hold several.

    Returns
    -------
    numpy.ndarray

    Raises
    ------
    FormatError
        If the file is shorter than its header or recipe says, or a .npy file has another shape or dtype than its
        recipe.
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
    if mmap_mode not in (None, "r", "r+", "c"):
        raise ValueError(f"mmap_mode must be None, 'r', 'r+' or 'c', got {mmap_mode!r}")
    with opened(path, writable=mmap_mode == "r+") as files:
        entries = [entry for file in files for entry in file.entries(_recorded_or_none(file))]
        if tensor is not None:
            entries = [entry for entry in entries if entry.tensor.name == tensor]
            if not entries:
                raise ValueError(f"tensor must be the name of a tensor in the file, got {tensor!r}")
        if len(entries) != 1:
            raise ValueError(f"load reads one tensor, got a file of {len(entries)}: choose one with tensor=")
        (entry,) = entries
        file = entry.of
        if entry.problem and file.ending != ".safetensors":
            raise FormatError(f"{file.name} must match its recipe, but {entry.problem}")
        found = entry.tensor
        dtype_name = entry.table.dtype_name if entry.table is not None and not entry.problem else found.dtype
        if not is_number(dtype_name):
            raise ValueError(f"load reads tensors of whole bytes that NumPy or ml_dtypes know, got {found.dtype}")
        dtype = DTYPES[dtype_name].storage if dtype_name in DTYPES else np.dtype(dtype_name)
        if file.size < found.end:
            raise FormatError(f"{file.name} must have {found.end:,} bytes, got {file.size:,}")
        if mmap_mode is None or found.begin == found.end:  # an empty array cannot be mapped
            array = np.empty(found.shape, dtype)
            if file.file.read_into(array.reshape(-1).view(np.uint8).data, found.begin) < array.nbytes:
                raise FormatError(f"{file.name} became shorter while it was read")
            return array
        mode = "r+b" if mmap_mode == "r+" else "rb"
        with file.file.descriptor() as fd, open(os.dup(fd), mode) as stream:
            mapped = np.memmap(stream, dtype, mmap_mode, found.begin, found.shape)
        mapped.filename = os.path.abspath(os.path.join(os.path.dirname(os.fsdecode(path)), file.name))
        return mapped


def _recorded_or_none(file: TensorFile) -> dict[str, Table]:
    if file.ending == ".safetensors":  # whose header says all that is needed
        return {}
    return file.recorded()


def is_number(dtype: str) -> bool:
    """Whether NumPy or this package can compute with a tensor's dtype."""
    try:
        return dtype in DTYPES or (dtype.islower() and np.dtype(dtype).kind in "biufc")
    except TypeError:
        return False

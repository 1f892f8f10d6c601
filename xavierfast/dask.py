"""Tables for dask and zarr: arrays that many processes compute, and stores that many hosts write.

Each element is computed without its neighbours, so a task needs only the recipe and the position of its block: chunk
sizes do not affect the values, and if a worker is lost, another recomputes its blocks. Stores are zarr v3::

    zarr.json    shape, dtype, chunks; the recipe as the attribute "xavierfast"
    c/0/0        a shard: its chunks end to end (whole rows where these fit), their positions, the positions' CRC-32C
    c/1/0        the next shard: written whole by one task, so that no two tasks write to the same one

A shard is built in place and handed to the store as bytes: zarr's codecs copy the bytes twice, and reach 1.5 GB/s on
one core against 2.8. Nothing is compressed, as random bits do not get smaller. zarr-python has no bfloat16 (its issue
2656) and no float8: their bits are stored as unsigned ints, and the recipe records the dtype. Elements that were never
written read as NaN.
"""
# mypy: allow-untyped-calls, allow-untyped-decorators
# pyright: reportOptionalMemberAccess=false

import os
import threading
from collections.abc import Callable, Sequence
from errno import EEXIST, ENOENT
from functools import partial
from math import nan, prod
from typing import Any, TypeVar

import numpy as np

from ._core.fill import Array
from ._core.threads import default_threads
from ._core.validation import check_count
from .files.blocks import TensorCheck
from .files.row_ranges import RowRanges, ranges_of
from .files.verify import Verification
from .table import Table

try:
    import dask.array as da
    import zarr
    from dask.base import compute, tokenize
    from dask.config import get
    from dask.delayed import delayed
    from dask.utils import parse_bytes
    from google_crc32c import value as crc32c
    from zarr.buffer.cpu import Buffer, buffer_prototype
    from zarr.core.sync import sync as wait_for  # a store's connections live in the loop of zarr's own thread
    from zarr.storage import LocalStore, MemoryStore, StorePath
except ModuleNotFoundError as error:
    raise ImportError(
        f"xavierfast.dask needs {str(error.name).split('.')[0]}: pip install 'xavierfast[dask]'"
    ) from None

__all__ = ["create", "create_file", "from_table", "load", "verify"]

# The default size of a chunk, the smallest unit that a reader fetches.
CHUNK_BYTES = 1 << 20
# The default size of a shard, one object in the store. Below 32 MiB malloc reuses the memory of the last shard; above,
# the system hands out newly zeroed pages.
SHARD_BYTES = 1 << 24
# The largest task, and the part of a file that one task writes: a second of work, as a scheduler spends a millisecond
# or two on each task.
MAX_SHARDS_PER_TASK = 64
PART_BYTES = 1 << 30
# In small tables a task has fewer shards, so that each worker thread gets about this many tasks, and workers of
# different speeds finish together.
TASKS_PER_THREAD = 16
_buffers = threading.local()  # in `shard`, one buffer per thread

BlockShape = int | tuple[int, ...] | str
T = TypeVar("T")
S = TypeVar("S")


class _OneThread:
    """A Table that leaves threading to dask: each read runs on one thread."""

    def __init__(self, table: Table) -> None:
        self.table, self.shape, self.ndim, self.dtype = table, table.shape, table.ndim, table.dtype

    def __getitem__(self, index: Any) -> Array:
        return self.table.read(index, threads=1)


def from_table(table: Table, chunks: Any = "auto") -> Any:
    """Make a dask array of a table; each block is computed where it is needed, on one of dask's threads.

    Parameters
    ----------
    table : Table
    chunks
        As in ``dask.array.from_array``; "auto" makes blocks of about the size that dask's option ``array.chunk-size``
        sets, of whole rows where these fit.

    Returns
    -------
    dask.array.Array

    Examples
    --------
    >>> x = from_table(Table((10_000_000_000, 128), seed=7, name="items"))
    >>> x.chunksize
    (262144, 128)
    >>> x[5_000_000_000, :3].compute()
    array([ 5.9993463e-06, -1.5883310e-05,  5.3818608e-06], dtype=float32)
    """
    _check_table(table)
    if isinstance(chunks, str) and chunks == "auto":
        chunks = _contiguous_block(table, parse_bytes(get("array.chunk-size")))
    meta = np.empty((0,) * table.ndim, table.dtype)
    return da.from_array(_OneThread(table), chunks, name=f"table-{tokenize(table, chunks)}", meta=meta)


def _check_table(table: Table) -> None:
    if not isinstance(table, Table):
        raise TypeError(
            f"table must be a Table, got {type(table).__name__}: make one with xavierfast.Table(shape, ...)"
        )


def _contiguous_block(table: Table, nbytes: int) -> tuple[int, ...]:
    """The shape of a contiguous block of about `nbytes` bytes: whole rows, or part of a row that is larger."""
    left, block = nbytes // table.itemsize, []
    for size in reversed(table.shape):
        block.append(max(1, min(size, left)))
        left //= block[-1]
    return tuple(reversed(block))


def _run(work: Callable[[T], S], items: Sequence[T], client: Any) -> list[S]:
    """Call `work` with each item on the client's cluster, or with dask's default scheduler if `client` is None."""
    if client is not None:
        return list(client.gather(client.map(work, items, pure=False)))
    return list(compute(*map(delayed(work, pure=False), items)))


# ---- stores


class _Store:
    """A zarr array and the table that it should hold, cut into the array's shards, or its chunks if it has none."""

    def __init__(self, array: Any, table: Table) -> None:
        self.array, self.table = array, table
        self.block: tuple[int, ...] = array.shards or array.chunks
        self.grid = tuple(-(-size // block) for size, block in zip(array.shape, self.block, strict=True))
        self.plain = False  # whether the array's shards have the layout that `shard` makes
        if array.shards:
            made = _new_array(MemoryStore(), table, array.chunks, array.shards)
            self.plain = (array.dtype, array.metadata.codecs) == (made.dtype, made.metadata.codecs)

    def tasks(self, client: Any) -> list[range]:
        """The numbers of the blocks that each task handles."""
        count, threads = prod(self.grid), default_threads() if client is None else sum(client.nthreads().values())
        step = max(1, min(MAX_SHARDS_PER_TASK, count // (TASKS_PER_THREAD * max(1, threads))))
        return [range(first, min(first + step, count)) for first in range(0, count, step)]

    def block_at(self, k: int) -> tuple[tuple[slice, ...], StorePath]:
        """The position of block `k` in the array, and the path at which it is stored."""
        at = tuple(map(int, np.unravel_index(k, self.grid)))
        path: StorePath = self.array.store_path / self.array.metadata.encode_chunk_key(at)
        return _block_slices(self.table.shape, at, self.block), path

    def shard(self, k: int) -> Array:
        """The bytes of shard `k` in zarr's codec "sharding_indexed" without compression, in this thread's buffer."""
        shape, chunks, origin = self.table.shape, self.array.chunks, [axis.start for axis in self.block_at(k)[0]]
        counts = [block // chunk for block, chunk in zip(self.block, chunks, strict=True)]
        size, end = prod(chunks) * self.table.itemsize, 0
        index = np.full((prod(counts), 2), -1, "<i8")  # 2**64 - 1 twice marks a chunk beyond the array's end
        length = len(index) * size + index.nbytes + 4
        if (
            not hasattr(_buffers, "data") or len(_buffers.data) < length
        ):  # a new buffer costs more in page faults than the computation
            _buffers.data = np.empty(length, np.uint8)
        data: Array = _buffers.data
        for entry, at in zip(index, np.ndindex(*counts), strict=True):
            part = _block_slices(shape, at, chunks, origin)
            lengths = tuple(axis.stop - axis.start for axis in part)
            if min(lengths) <= 0:
                continue
            chunk = data[end : end + size]
            if lengths != chunks:
                chunk[:] = 0
            out = chunk.view(self.table.dtype).reshape(chunks)[tuple(map(slice, lengths))]
            self.table.read(part, out, threads=1)
            entry[:] = end, size
            end += size
        tail = index.tobytes() + crc32c(index.tobytes()).to_bytes(4, "little")
        data[end : end + len(tail)] = np.frombuffer(tail, np.uint8)
        return data[: end + len(tail)]


def _block_slices(
    shape: Sequence[int], at: Sequence[int], block: Sequence[int], origin: Sequence[int] | None = None
) -> tuple[slice, ...]:
    """The slices of an array that a block covers; `at` is its number on each axis, counted from `origin`."""
    firsts = [a * b + o for a, b, o in zip(at, block, origin or [0] * len(shape), strict=True)]
    return tuple(slice(f, min(f + b, size)) for f, b, size in zip(firsts, block, shape, strict=True))


def _holds(path: StorePath, data: Array) -> bool:
    found = wait_for(path.get(buffer_prototype))
    if found is None or len(found) != len(data):
        return False
    read, words = found.as_numpy_array(), len(data) // 8 * 8
    same = np.array_equal(data[:words].view(np.uint64), read[:words].view(np.uint64))
    return same and np.array_equal(data[words:], read[words:])


def _write(store: _Store, repair: bool, numbers: range) -> int:
    """Write shards, or with `repair` only those that differ; return the bytes of elements in the shards written."""
    written = 0
    for k in numbers:
        (part, path), data = store.block_at(k), store.shard(k)
        if not repair or not _holds(path, data):
            kept: Any = data if isinstance(path.store, LocalStore) else data.copy()  # other stores may keep a reference
            wait_for(path.set(Buffer.from_array_like(kept)))
            written += prod(axis.stop - axis.start for axis in part) * store.table.itemsize
    return written


def _compare(store: _Store, numbers: range) -> Array:
    """Compare blocks; return the ranges of rows that differ, as an array of shape (n, 2)."""
    ranges = [np.empty((0, 2), np.int64)]
    for k in numbers:
        part, path = store.block_at(k)
        if store.plain and _holds(path, store.shard(k)):
            continue
        made = store.table.read(part, threads=1)
        try:
            read = np.ascontiguousarray(store.array[part])
            differ = (made.view(np.uint8) != read.view(np.uint8)).reshape(len(made), -1).any(axis=1)
        except ValueError:  # the stored bytes are not a valid shard
            differ = np.ones(len(made), bool)
        ranges.append(ranges_of(part[0].start + np.flatnonzero(differ)))
    return np.concatenate(ranges)


def _new_array(store: Any, table: Table, chunks: tuple[int, ...], shards: tuple[int, ...], force: bool = False) -> Any:
    dtype = _stored_dtype(table)
    return zarr.create_array(
        store, shape=table.shape, dtype=dtype, chunks=chunks, shards=shards, compressors=None, filters=None,
        fill_value=np.iinfo(dtype).max if dtype.kind == "u" else nan, attributes={"xavierfast": table.recipe},
        overwrite=force,
    )  # fmt: skip


def _stored_dtype(table: Table) -> np.dtype[Any]:
    dtype = table.dtype_name
    return np.dtype(dtype if hasattr(np, dtype) else f"u{table.itemsize}")


def _absolute(store: Any) -> Any:
    """Make a local path absolute, so that it means the same to workers that were started in other folders."""
    is_path = isinstance(store, str | os.PathLike) and "://" not in os.fspath(store)
    return os.path.abspath(store) if is_path else store


def _open(store: Any) -> tuple[Any, Table | None]:
    """Open an existing array; return it, and the table of its recipe or None."""
    array = zarr.open_array(_absolute(store), mode="r")
    recipe = array.attrs.asdict().get("xavierfast")
    return array, None if recipe is None else Table.from_recipe(recipe)  # type: ignore[arg-type]


def create(
    table: Table,
    store: Any,
    *,
    chunks: BlockShape = "auto",
    shards: BlockShape = "auto",
    resume: bool = False,
    force: bool = False,
    client: Any = None,
) -> int:
    """Write a table as a zarr v3 array, with all workers of a cluster.

    Parameters
    ----------
    table : Table
    store : str, path or zarr store
        A store that all workers can reach: a folder on shared storage, or a URL such as "s3://bucket/items.zarr"
        (which needs s3fs).
    chunks, shards : int, tuple of ints or "auto"
        Numbers of rows, or shapes. A chunk is the smallest unit that a reader fetches, by default 1 MiB; a shard is one
        object in the store, by default 16 MiB. Shards are rounded down to whole chunks.
    resume : bool
        Finish an existing array: verify each shard, and write those that are missing or differ. Create a new array if
        none exists.
    force : bool
        Remove an existing array first.
    client : dask.distributed.Client, optional
        The cluster to use. By default, dask's default scheduler runs the tasks.

    Returns
    -------
    int
        The bytes of elements in the shards that were written.

    Raises
    ------
    FileExistsError
        If an array exists, and neither `resume` nor `force` is set.
    FileNotFoundError
        If the shards that the workers wrote are not in the store, because the workers do not share it.
    TypeError, ValueError
        If an argument is not as described above, or the array to resume has another recipe or layout.

    Examples
    --------
    >>> create(Table((1000, 64), seed=7, name="items"), "items.zarr")
    256000
    >>> zarr.open_array("items.zarr", mode="r")[500:].shape, verify("items.zarr").ok
    ((500, 64), True)
    """
    _check_table(table)
    if not table.ndim:
        raise ValueError("table must have at least one axis, got the shape ()")
    if resume and force:
        raise ValueError("resume=True keeps an existing array and force=True removes it, got both")
    shard = _block_shape("shards", table, shards, SHARD_BYTES)
    chunk = tuple(map(min, _block_shape("chunks", table, chunks, CHUNK_BYTES), shard))
    shard = tuple(s // c * c for s, c in zip(shard, chunk, strict=True))
    store = _absolute(store)
    try:
        found: Any = zarr.open_array(store, mode="r+")
    except FileNotFoundError:
        found = None
    if found is not None and not (resume or force):
        message = "an array already exists; pass resume=True to finish it, or force=True to replace it"
        raise FileExistsError(EEXIST, message, str(store))
    repair = found is not None and resume
    if repair and (found.attrs.asdict().get("xavierfast"), found.shape) != (table.recipe, table.shape):
        raise ValueError(f"the array to resume must have the table's recipe, got {found.attrs.asdict()!r}")
    work = _Store(found if repair else _new_array(store, table, chunk, shard, found is not None), table)
    if not work.plain:
        raise ValueError(f"the array to resume must have shards of uncompressed bytes, got {found.metadata!r}")
    tasks = work.tasks(client)
    try:
        written = sum(_run(partial(_write, work, repair), tasks, client))
    except BaseException as error:
        error.add_note(f"{store} is unfinished; call create(..., resume=True) to finish it")
        raise
    for task in tasks[:1] + tasks[-1:]:
        path = work.block_at(task[0])[1]
        if not wait_for(path.exists()):
            raise FileNotFoundError(
                ENOENT, "the workers wrote this shard elsewhere; all of them must share the store", str(path)
            )
    return written


def _block_shape(what: str, table: Table, given: BlockShape, nbytes: int) -> tuple[int, ...]:
    if given == "auto":
        return _contiguous_block(table, nbytes)
    largest = tuple(max(1, size) for size in table.shape)
    shape = (given, *largest[1:]) if isinstance(given, int) else given
    if not isinstance(shape, tuple) or len(shape) != table.ndim:
        raise ValueError(f'{what} must be "auto", a number of rows, or {table.ndim} sizes, got {given!r}')
    return tuple(min(check_count(what, n), size) for n, size in zip(shape, largest, strict=True))


def verify(store: Any, table: Table | None = None, *, client: Any = None) -> Verification:
    """Recompute a zarr array on all workers of a cluster, and report which of its rows differ.

    Parameters
    ----------
    store, client
        As in :func:`create`. The array may have been trained, copied or compressed since it was created.
    table : Table, optional
        The expected table; by default that of the array's recipe.

    Returns
    -------
    xavierfast.files.Verification

    Raises
    ------
    FileNotFoundError
        If the store holds no array.
    TypeError, ValueError
        If the recipe is missing or damaged.

    Examples
    --------
    >>> create(Table((1000, 64), seed=7, name="trained"), "trained.zarr")
    256000
    >>> zarr.open_array("trained.zarr")[10:12] = 0.5
    >>> verify("trained.zarr").tensors[0].ranges
    ((10, 12),)
    """
    array, recorded = _open(store)
    table = recorded if table is None else table
    if table is None:
        raise ValueError(
            f"the array must have a recipe as its attribute 'xavierfast', got {store!r} without it: pass table="
        )
    _check_table(table)
    if array.shape != table.shape:
        rows = array.shape[0] if array.shape else 1
        problem = f"its shape is {array.shape}, and its recipe says {table.shape}"
        return Verification((TensorCheck(table.name, rows, 0, problem=problem),), 0)
    if array.dtype.newbyteorder("=") not in (_stored_dtype(table), table.dtype):
        problem = f"its dtype is {array.dtype}, and its recipe says {table.dtype_name}"
        return Verification((TensorCheck(table.name, len(table), 0, problem=problem),), 0)
    work = _Store(array, table)
    differing = RowRanges(may_repeat=prod(work.grid[1:]) > 1)  # blocks side by side share rows
    for ranges in _run(partial(_compare, work), work.tasks(client), client):
        differing.add(ranges)
    return Verification((TensorCheck(table.name, len(table), differing.count(), differing.first()),), table.nbytes)


def load(store: Any) -> Any:
    """Open a stored array as a dask array in the dtype of its recipe, including bfloat16 and float8.

    Parameters
    ----------
    store
        As in :func:`create`.

    Returns
    -------
    dask.array.Array

    Examples
    --------
    >>> create(Table((1000, 64), seed=7, dtype="bfloat16"), "half.zarr")
    128000
    >>> zarr.open_array("half.zarr", mode="r").dtype.name, load("half.zarr").dtype
    ('uint16', dtype(bfloat16))
    """
    array, table = _open(store)
    x = da.from_array(array, array.shards or array.chunks)
    return x if table is None or x.dtype == table.dtype else x.view(table.dtype)


# ---- one file


def create_file(
    table: Table, path: str | os.PathLike[str], client: Any = None, *, parts: int | None = None, sync: bool = True
) -> int:
    """Write a .npy, .bin or .safetensors file on shared storage, in parts that the workers of a cluster write.

    No data passes between the workers. When all parts are written, this process verifies the file, repairs it if
    necessary, and gives it its name.

    Parameters
    ----------
    table, client
        As in :func:`create`.
    path, sync
        As in ``xavierfast.files.create``.
    parts : int, optional
        The number of parts, which are about equal; by default, parts have about 1 GiB.

    Returns
    -------
    int
        The bytes that were written; repaired bytes count twice.

    Raises
    ------
    OSError, TypeError, ValueError
        As in ``xavierfast.files.create``. What has been written remains for ``xavierfast.files.resume``.

    Examples
    --------
    >>> create_file(Table((1000, 64), seed=7, name="items"), "items.npy", parts=4)
    256000
    """
    from . import files  # needs a POSIX system

    _check_table(table)
    parts = max(1, -(-table.nbytes // PART_BYTES)) if parts is None else check_count("parts", parts)
    path = os.path.abspath(path)
    written = sum(_run(partial(_write_part, path, table, parts, sync), range(1, parts + 1), client))
    return written + files.resume(path, table, sync=sync)


def _write_part(path: str, table: Table, parts: int, sync: bool, k: int) -> int:
    from . import files

    return files.create(path, table, shard=(k, parts), sync=sync, threads=1)

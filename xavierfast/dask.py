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

While an array is being written, an object beside its zarr.json claims it::

    xavierfast.claim    who writes the array, its recipe and layout: made where none exists, removed at the end

Each task reads the claim before it writes a shard, so that of two writers at most one goes on.
"""
# mypy: allow-untyped-calls, allow-untyped-decorators
# pyright: reportOptionalMemberAccess=false

import asyncio
import json
import os
import re
import secrets
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from errno import EEXIST, ENOENT
from functools import partial
from math import nan, prod
from time import gmtime, strftime
from typing import Any, TypeVar

import numpy as np

from ._core.extras import how_to_install
from ._core.fill import Array
from ._core.threads import default_threads
from ._core.validation import check_count
from .files.blocks import Progress, TensorCheck
from .files.row_ranges import RowRanges, ranges_of
from .files.verify import Verification
from .table import Table

try:
    import dask.array as da
    import zarr
    from dask.base import compute, get_scheduler, tokenize
    from dask.callbacks import Callback, unpack_callbacks
    from dask.config import get
    from dask.delayed import delayed
    from dask.utils import parse_bytes
    from distributed import Client, as_completed
    from google_crc32c import value as crc32c
    from zarr.buffer.cpu import Buffer, buffer_prototype
    from zarr.core.sync import sync as wait_for  # a store's connections live in the loop of zarr's own thread
    from zarr.storage import FsspecStore, LocalStore, MemoryStore, StorePath
    from zarr.storage._common import make_store_path
except ModuleNotFoundError as error:
    raise ImportError(f"xavierfast.dask needs {str(error.name).split('.')[0]}: {how_to_install('dask')}") from None

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
# The shards that one task reads or writes at a time in a store that is no folder, where each takes tens of
# milliseconds: 16 MiB in 100 ms are 0.16 GB/s one after the other, and 1.3 GB/s eight at a time.
REQUESTS_PER_TASK = 8
CLAIM = "xavierfast.claim"
_PARTIAL = re.compile(r".*\.[0-9a-f]{32}\.partial")  # the files that zarr's LocalStore renames when they are complete
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


class _Report(Callback):
    """A callback of dask that calls ``progress(done, total)``, in bytes, whenever a task has ended."""

    def __init__(self, progress: Progress, nbytes: int) -> None:
        super().__init__()
        self._progress, self._nbytes = progress, nbytes

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker_id: Any) -> None:
        done = len(state["finished"])
        count = done + sum(len(state[name]) for name in ("ready", "waiting", "running"))
        self._progress(self._nbytes * done // count, self._nbytes)


def _client(client: Any) -> Any:
    """The given client; by default the one whose cluster dask itself would use, or None for a local scheduler."""
    if client is None:
        used = getattr(get_scheduler(), "__self__", None)  # dask calls its ``get``
        return used if isinstance(used, Client) else None
    if not isinstance(client, Client):
        raise TypeError(f"client must be a dask.distributed.Client, got {type(client).__name__}")
    return client


def _run(
    work: Callable[[T], S], items: Sequence[T], client: Any, progress: Progress | None = None, nbytes: int = 0
) -> list[S]:
    """Call `work` with each item on the client's cluster, or with dask's local scheduler if `client` is None."""
    with nullcontext() if progress is None else _Report(progress, nbytes):
        if client is None:
            return list(compute(*map(delayed(work, pure=False), items)))
        futures = client.map(work, items, pure=False)
        with _calling_back(futures) as ended:
            for future in as_completed(futures, loop=client.loop):
                if future.status in ("error", "cancelled"):
                    break  # and gather raises the error
                ended(future.key)
            return list(client.gather(futures))


@contextmanager
def _calling_back(futures: Sequence[Any]) -> Iterator[Callable[[str], None]]:
    """Call dask's callbacks, such as its ProgressBar, for futures as dask's local schedulers call them for tasks; yield
    the function that says that a future has ended."""
    starts, start_states, pretasks, posttasks, finishes = unpack_callbacks(list(Callback.active))
    running = {future.key for future in futures}
    finished: set[str] = set()
    state = {"ready": (), "waiting": (), "running": running, "finished": finished}
    failed = True

    def ended(key: str) -> None:
        running.remove(key)
        finished.add(key)
        for posttask in posttasks:
            posttask(key, None, {}, state, None)

    for start in starts:
        start({})
    try:
        for start_state in start_states:
            start_state({}, state)
        for pretask in pretasks:
            pretask(None, {}, state)
        yield ended
        failed = False
    finally:
        for finish in finishes:
            finish({}, state, failed)


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
        if not isinstance(self.array.store_path.store, LocalStore):  # enough shards for requests at the same time
            step = max(step, min(REQUESTS_PER_TASK, count // max(1, threads)))
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


class _Claim:
    """The object by which one writer holds a store; it is pickled with each task."""

    def __init__(self, path: StorePath, layout: dict[str, Any]) -> None:
        self.path = path / CLAIM
        self.layout = layout
        self.fields = {
            "writer": secrets.token_hex(16), "host": socket.gethostname(), "process": os.getpid(),
            "began": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime()), **layout,
        }  # fmt: skip

    def acquire(self, take_over: bool) -> None:
        """Claim the store; with `take_over`, also replace the claim of another writer of the same bytes."""
        content = json.dumps(self.fields, indent=1).encode()
        wait_for(_set_if_not_exists(self.path, content))
        held = self._read()
        if held == self.fields:
            return
        if not take_over or any(held.get(key) != value for key, value in self.layout.items()):
            who = f"process {held.get('process')} on {held.get('host')} at {held.get('began')}"
            raise FileExistsError(
                EEXIST,
                f"the array was claimed by {who} and is unfinished: finish it by the same create(..., resume=True), "
                "or remove the store when no writer of it is left",
                str(self.path),
            )
        wait_for(self.path.set(Buffer.from_bytes(content)))

    def check(self) -> None:
        """Raise an error unless this writer still holds the store."""
        held = self._read()
        if not held:
            message = "is missing: all workers must share the store, and nobody may remove it while it is written"
            raise FileNotFoundError(ENOENT, message, str(self.path))
        if held != self.fields:
            raise FileExistsError(EEXIST, "another writer has claimed the array in the meantime", str(self.path))

    def release(self) -> None:
        self.check()
        wait_for(self.path.delete())

    def _read(self) -> dict[str, Any]:
        found = wait_for(self.path.get(buffer_prototype))
        if found is None:
            return {}
        try:
            fields = json.loads(found.to_bytes())
        except ValueError:
            fields = None
        return fields if isinstance(fields, dict) else {"writer": "unknown"}


async def _set_if_not_exists(path: StorePath, content: bytes) -> None:
    if isinstance(path.store, FsspecStore):  # zarr's own method for it asks first and then writes
        name = "/".join(part for part in (path.store.path.rstrip("/"), path.path) if part)
        with suppress(FileExistsError):
            await path.store.fs._pipe_file(name, content, mode="create")
    else:
        await path.set_if_not_exists(Buffer.from_bytes(content))


def _holds(path: StorePath, data: Array) -> bool:
    found = wait_for(path.get(buffer_prototype))
    if found is None or len(found) != len(data):
        return False
    read, words = found.as_numpy_array(), len(data) // 8 * 8
    same = np.array_equal(data[:words].view(np.uint64), read[:words].view(np.uint64))
    return same and np.array_equal(data[words:], read[words:])


def _each_shard(store: _Store, numbers: range, work: Callable[[int, Array], S]) -> list[S]:
    """Compute shards one after the other, and call `work` with each: where the store is no folder, on several threads,
    because each of its requests is answered late."""
    if isinstance(store.array.store_path.store, LocalStore):
        return [work(k, store.shard(k)) for k in numbers]
    results: list[S] = []
    pending: deque[Future[S]] = deque()
    with ThreadPoolExecutor(REQUESTS_PER_TASK) as pool:
        for k in numbers:
            if len(pending) == REQUESTS_PER_TASK:
                results.append(pending.popleft().result())
            pending.append(pool.submit(work, k, store.shard(k).copy()))  # the next shard takes the same buffer
        results.extend(future.result() for future in pending)
    return results


def _write(store: _Store, claim: _Claim, repair: bool, numbers: range) -> int:
    """Write shards, or with `repair` only those that differ; return the bytes of elements in the shards written."""

    def write(k: int, data: Array) -> int:
        part, path = store.block_at(k)
        if repair and _holds(path, data):
            return 0
        claim.check()
        value: Any = data  # zarr's protocol for arrays does not fit NumPy's, says pyright
        wait_for(path.set(Buffer.from_array_like(value)))
        nbytes: int = prod(axis.stop - axis.start for axis in part) * store.table.itemsize
        return nbytes

    return sum(_each_shard(store, numbers, write))


def _compare(store: _Store, numbers: range) -> Array:
    """Compare blocks; return the ranges of rows that differ, as an array of shape (n, 2)."""

    def compare(k: int, data: Array | None) -> Array:
        part, path = store.block_at(k)
        if data is not None and _holds(path, data):
            return np.empty((0, 2), np.int64)
        made = store.table.read(part, threads=1)
        try:
            read = np.ascontiguousarray(store.array[part])
            differ = (made.view(np.uint8) != read.view(np.uint8)).reshape(len(made), -1).any(axis=1)
        except ValueError:  # the stored bytes are not a valid shard
            differ = np.ones(len(made), bool)
        return ranges_of(part[0].start + np.flatnonzero(differ))

    found = _each_shard(store, numbers, compare) if store.plain else [compare(k, None) for k in numbers]
    return np.concatenate([np.empty((0, 2), np.int64), *found])


def _finish(store: _Store, claim: _Claim) -> None:
    """Raise an error unless the array is complete and still that of this writer; then give up the claim.

    Partial files that killed workers left are removed. What the shards hold is not read again.
    """
    claim.check()
    path = store.array.store_path
    try:
        found: Any = zarr.open_array(path, mode="r")
    except FileNotFoundError:
        message = "was removed while the array was being written; call create(..., resume=True) to write it again"
        raise FileNotFoundError(ENOENT, message, f"{path}/zarr.json") from None
    if _layout(found) != _layout(store.array):
        raise FileExistsError(EEXIST, "was replaced while the array was being written", f"{path}/zarr.json")
    names = set(wait_for(_names(path)))
    for k in range(prod(store.grid)):
        shard = store.block_at(k)[1]
        if shard.path not in names:
            message = "is missing, though a worker wrote it: all workers must share the store, and nobody may remove it"
            raise FileNotFoundError(ENOENT, message, str(shard))
    for name in filter(_PARTIAL.fullmatch, names):
        wait_for(path.store.delete(name))
    claim.release()


async def _names(path: StorePath) -> list[str]:
    """The names of all objects of the array; in a folder, also those of partial files."""
    return [name async for name in path.store.list_prefix(f"{path.path}/" if path.path else "")]


def _layout(array: Any) -> dict[str, Any]:
    """The recipe and layout of an array, as values for JSON; they are equal for writers of the same bytes."""
    return {
        "recipe": array.attrs.asdict().get("xavierfast"), "shape": list(array.shape), "dtype": str(array.dtype),
        "chunks": list(array.chunks), "shards": list(array.shards or array.chunks),
    }  # fmt: skip


async def _clear(path: StorePath) -> None:
    """Remove everything at a path except the claim, and zarr.json first."""
    names = [name async for name in path.store.list_dir(path.path)]
    for name in sorted(set(names) - {CLAIM}, key=lambda name: name != "zarr.json"):
        child = path / name
        for tries_left in reversed(range(10)):
            try:
                with suppress(ValueError):  # LocalStore's error for a file
                    await child.store.delete_dir(child.path)
                await child.delete()
                break
            except OSError:  # the writer whose place this one takes may have added a shard meanwhile
                if not tries_left:
                    raise
                await asyncio.sleep(0.05)


def _new_array(store: Any, table: Table, chunks: tuple[int, ...], shards: tuple[int, ...]) -> Any:
    dtype = _stored_dtype(table)
    return zarr.create_array(
        store, shape=table.shape, dtype=dtype, chunks=chunks, shards=shards, compressors=None, filters=None,
        fill_value=np.iinfo(dtype).max if dtype.kind == "u" else nan, attributes={"xavierfast": table.recipe},
        dimension_names=[f"dim_{k}" for k in range(table.ndim)],  # as xarray names axes without names
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
    progress: Progress | None = None,
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
        Finish an existing array in its own layout: verify each shard, and write those that are missing or differ.
        Create a new array if none exists.
    force : bool
        Remove an existing array first.
    client : dask.distributed.Client, optional
        The cluster to use. By default, the scheduler that dask would use runs the tasks: that of the current client,
        if there is one.
    progress : callable, optional
        A function that is called as ``progress(done, total)``, both in bytes, in the caller's process whenever a task
        has ended. dask's own ``ProgressBar`` works too, with a client as without.

    Returns
    -------
    int
        The bytes of elements in the shards that were written.

    Raises
    ------
    FileExistsError
        If an array exists, and neither `resume` nor `force` is set; if another call has claimed the store, unless that
        call has the same recipe and layout and `resume` or `force` is set, which takes its place; if another writer
        has replaced the array in the meantime.
    FileNotFoundError
        If a part of the array is missing at the end, because the workers do not share the store or somebody removed
        it.
    TypeError, ValueError
        If an argument is not as described above, or the array to resume has another recipe or layout.

    Notes
    -----
    A call claims the store by an object `xavierfast.claim`, which it removes when the array is complete. If the call
    is interrupted, the claim remains, and the array with it, for ``resume=True``. Two writers of other recipes never
    write to one store: to start over with another recipe after a crash, remove the store.

    Examples
    --------
    >>> create(Table((1000, 64), seed=7, name="items"), "items.zarr")
    256000
    >>> zarr.open_array("items.zarr", mode="r")[500:].shape, verify("items.zarr").ok
    ((500, 64), True)
    """
    _check_table(table)
    client = _client(client)
    if not table.ndim:
        raise ValueError("table must have at least one axis, got the shape ()")
    if resume and force:
        raise ValueError("resume=True keeps an existing array and force=True removes it, got both")
    shard = _block_shape("shards", table, shards, SHARD_BYTES)
    chunk = tuple(map(min, _block_shape("chunks", table, chunks, CHUNK_BYTES), shard))
    shard = tuple(s // c * c for s, c in zip(shard, chunk, strict=True))
    path = wait_for(make_store_path(_absolute(store), mode="a"))
    if not path.store.supports_deletes:
        raise ValueError(
            f"store must let its objects be replaced, got {type(path.store).__name__}: write to a folder, and pack that"
        )
    found = _found(path)
    if found is not None and not (resume or force):
        message = "an array already exists; pass resume=True to finish it, or force=True to replace it"
        raise FileExistsError(EEXIST, message, str(store))
    repair = found is not None and resume
    made = _new_array(MemoryStore(), table, chunk, shard)
    layout = _layout(made)
    if repair:
        kept = {name for name, given in (("chunks", chunks), ("shards", shards)) if given == "auto"}
        expected = layout | {name: _layout(found)[name] for name in kept}
        if _layout(found) != expected:
            other = next(name for name in expected if _layout(found)[name] != expected[name])
            raise ValueError(
                f"the array to resume must have the table's {other}, {expected[other]!r}, got {_layout(found)[other]!r}"
            )
        if not _Store(found, table).plain:
            raise ValueError(f"the array to resume must have shards of uncompressed bytes, got {found.metadata!r}")
        layout = expected
    claim = _Claim(path, layout)
    claim.acquire(take_over=resume or force)
    if repair:
        if _layout(_found(path) or made) != layout:
            claim.release()
            raise FileExistsError(EEXIST, "another writer has replaced the array in the meantime", str(store))
    else:
        if force:
            wait_for(_clear(path))
        try:
            found = _new_array(path, table, chunk, shard)
        except ValueError:  # zarr's ContainsArrayError, if another call has just completed the array
            claim.release()
            raise FileExistsError(EEXIST, "another writer has just created the array", str(store)) from None
    work = _Store(found, table)
    try:
        written = sum(_run(partial(_write, work, claim, repair), work.tasks(client), client, progress, table.nbytes))
        _finish(work, claim)
    except BaseException as error:
        error.add_note(f"{store} is unfinished; call create(..., resume=True) to finish it")
        raise
    return written


def _found(path: StorePath) -> Any:
    """The array at a path, or None."""
    try:
        return zarr.open_array(path, mode="r+")
    except FileNotFoundError:
        return None


def _block_shape(what: str, table: Table, given: BlockShape, nbytes: int) -> tuple[int, ...]:
    if given == "auto":
        return _contiguous_block(table, nbytes)
    largest = tuple(max(1, size) for size in table.shape)
    shape = (given, *largest[1:]) if isinstance(given, int) else given
    if not isinstance(shape, tuple) or len(shape) != table.ndim:
        raise ValueError(f'{what} must be "auto", a number of rows, or {table.ndim} sizes, got {given!r}')
    return tuple(min(check_count(what, n), size) for n, size in zip(shape, largest, strict=True))


def verify(
    store: Any, table: Table | None = None, *, client: Any = None, progress: Progress | None = None
) -> Verification:
    """Recompute a zarr array on all workers of a cluster, and report which of its rows differ.

    Parameters
    ----------
    store, client, progress
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
    client = _client(client)
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
    for ranges in _run(partial(_compare, work), work.tasks(client), client, progress, table.nbytes):
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
    table: Table,
    path: str | os.PathLike[str],
    client: Any = None,
    *,
    parts: int | None = None,
    sync: bool = True,
    progress: Progress | None = None,
) -> int:
    """Write a .npy, .bin or .safetensors file on shared storage, in parts that the workers of a cluster write.

    No data passes between the workers. When all parts are written, this process verifies the file, repairs it if
    necessary, and gives it its name.

    Parameters
    ----------
    table, client, progress
        As in :func:`create`; `progress` is called for the parts, and not for the verification after them.
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
    from .files.posix import check_local

    _check_table(table)
    check_local(path)
    client = _client(client)
    parts = max(1, -(-table.nbytes // PART_BYTES)) if parts is None else check_count("parts", parts)
    path = os.path.abspath(path)
    if os.path.lexists(path):
        raise FileExistsError(EEXIST, "already exists; remove it first", path)
    work, numbers = partial(_write_part, path, table, parts, sync), range(parts)
    written = sum(_run(work, numbers, client, progress, table.nbytes))
    return written + files.resume(path, table, sync=sync)


def _write_part(path: str, table: Table, parts: int, sync: bool, k: int) -> int:
    from . import files

    return files.create(path, table, shard=(k, parts), sync=sync, threads=1)

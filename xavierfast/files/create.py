"""Creation of tables on disk, at the disk's speed: whole, or in parts that several hosts write.

Data is written from buffers that fit in a core's cache. A memory map would cost page faults, and a full disk would
kill the process (SIGBUS).
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from errno import EEXIST
from operator import index
from time import perf_counter
from typing import Any

from .._core.validation import check_shard, check_threads, shard_range
from .blocks import Blocks, Buffers, Progress, Span, all_right, for_each, recompute
from .formats import Tables
from .handles import File
from .plan import Plan
from .posix import check_room, exists, folder_of, sync_folder
from .target import Target

__all__ = ["Timings", "create"]


@dataclass
class Timings:
    """The seconds that a :func:`create` has spent on each kind of work.

    Threads compute and write side by side; the seconds that this takes are divided as the threads' own time is.
    """

    computing: float = 0.0  # values, in buffers that fit in a core's cache
    writing: float = 0.0  # from these buffers to the system, which may keep the data in memory; reserving space
    syncing: float = 0.0  # waiting until all of it is on the disk


def create(
    path: str | os.PathLike[str],
    tables: Tables,
    *,
    rows: tuple[int, int] | None = None,
    shard: tuple[int, int] | None = None,
    max_shard_size: int | None = None,
    force: bool = False,
    sync: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
    timings: Timings | None = None,
) -> int:
    """Write a table, or the tables of a model, to disk.

    Parameters
    ----------
    path : str or path
        The file to write: .npy or .bin for one table, .safetensors for one or many. The folder must exist.
    tables : Table, or mapping of names to Tables
        ``xavierfast.init(..., lazy=True)`` makes such a mapping.
    rows : (int, int), optional
        Write only these rows of the file's one table, from the first to before the last. The file remains a
        ``.partial`` until :func:`resume` completes it. Any number of hosts may write parts of one file on shared
        storage, in any order and repeatedly, provided that their tables have the same seed. If the file is finished
        already, and holds the part, nothing is written.
    shard : (int, int), optional
        Write only shard k of n shards of about equal size, given as (k, n), where k counts from 0 to n - 1, as ranks
        do: of each tensor, if there are several, also in a model of several files. A shard is whole rows, those of
        ``Table.shard(k, of=n)``, unless the tensor has fewer than n rows.
    max_shard_size : int, optional
        The largest number of bytes of tensors in one .safetensors file. Larger models are split into several files,
        with the index that Hugging Face's tools read; a tensor that is larger than this gets its own file.
    force : bool
        Replace an existing file, which stays intact until the new one is complete.
    sync : bool
        Wait until all bytes are on the disk before the file gets its name. Otherwise a power failure may leave a file
        of the right name and size that lacks some of its contents.
    threads : int, optional
        As in :func:`xavier_uniform`.
    progress : callable, optional
        A function that is called as ``progress(done, total)``, both in bytes, from any thread but never from two at
        once.
    timings : Timings, optional
        An object that gets the seconds spent on computing, writing and syncing, which tell whether the disk or the
        generator is the slower part.

    Returns
    -------
    int
        The bytes of tensors that were written.

    Raises
    ------
    FileExistsError
        If a file of this name exists, finished or unfinished, or another process has just begun to write it.
    OSError
        If the system refuses an operation: another process is writing the file (BlockingIOError), the folder is
        read-only, or the disk is too full, which is detected before the first byte is written. What has been written
        remains for :func:`resume`.
    PermissionError
        Also if an unfinished file of this name belongs to another user, or is a hard link to another file.
    TypeError, ValueError
        If an argument is not as described above.

    Examples
    --------
    >>> import numpy as np
    >>> from xavierfast import Table
    >>> from xavierfast.files import create, verify
    >>> create("items.npy", Table((1000, 64), seed=7, name="items"))
    256000
    >>> np.load("items.npy", mmap_mode="r").shape, verify("items.npy").ok
    ((1000, 64), True)
    """
    check_threads(threads)
    timings = Timings() if timings is None else timings
    with folder_of(path) as (folder, name), closing(Plan(name, tables, max_shard_size, force)) as plan:
        if rows is not None or shard is not None:
            return _create_part(folder, plan, rows, shard, sync, threads, progress, timings)
        plan.refuse_finished(folder)
        plan.refuse_unfinished(folder)
        try:
            plan.begin(folder)
            for target in plan.targets:
                target.create(folder, force)
                target.check_places(folder, force)
            check_room(folder, name, plan.nbytes)
            with _added(timings, "writing"):
                for target in plan.targets:
                    target.prepare(folder)
        except BaseException:
            plan.undo(folder)
            raise
        with plan.noted_as_unfinished():
            blocks = Blocks(span for target in plan.targets for span in target.spans())
            _write(blocks, threads, progress, timings)
            with _added(timings, "syncing"):
                plan.publish(folder, sync)
        return blocks.bytes_of()


@contextmanager
def _added(timings: Timings, what: str) -> Iterator[None]:
    begin = perf_counter()
    yield
    setattr(timings, what, getattr(timings, what) + perf_counter() - begin)


def _write(blocks: Blocks, threads: int | None, progress: Progress | None, timings: Timings) -> None:
    """Write all blocks, and measure what the threads' time is spent on."""
    lock, computing, writing = threading.Lock(), 0.0, 0.0

    def write(span: Span, first: int, last: int, buffers: Buffers) -> None:
        nonlocal computing, writing
        begin = perf_counter()
        data = recompute(span, first, last, buffers.made)
        made = perf_counter()
        span.file.write(data.data, span.tensor.begin + first * span.itemsize)
        written = perf_counter()
        with lock:
            computing += made - begin
            writing += written - made

    begin = perf_counter()
    for_each(blocks, write, threads, progress)
    seconds = perf_counter() - begin
    part = seconds * computing / (computing + writing) if computing else 0.0
    timings.computing += part
    timings.writing += seconds - part


# ---- parts


def check_pair(shard: Any) -> tuple[int, int]:
    """The number of a shard and the number of all shards, of an argument (k, n)."""
    if not isinstance(shard, Sequence) or len(shard) != 2:
        raise TypeError(f"shard must be a pair (k, n), got {shard!r:.80}")
    return check_shard(*shard)


def shard_of(spans: list[Span], k: int, n: int) -> list[Span]:
    """Shard `k` of `n` of each span: whole rows, or elements where there are fewer rows than shards."""
    shards = []
    for span in spans:
        length, unit = (span.tensor.rows, span.row) if span.tensor.rows >= n else (span.last, 1)
        first, last = shard_range(length, k, n)
        shards.append(span._replace(first=first * unit, last=last * unit))
    return shards


def _part(spans: list[Span], rows: tuple[int, int] | None, shard: tuple[int, int] | None) -> list[Span]:
    """The spans of the elements that `rows` or `shard` selects."""
    if rows is not None and shard is not None:
        raise ValueError("a part is given by rows= or by shard=, got both")
    if shard is not None:
        return shard_of(spans, *check_pair(shard))
    assert rows is not None
    first, last = map(index, rows)
    if len(spans) != 1:
        raise ValueError(f"rows= is for files of one table, got {len(spans)} tables: pass shard= instead")
    (span,) = spans
    if not 0 <= first <= last <= span.tensor.rows:
        raise ValueError(f"rows must be first:last with 0 <= first <= last <= {span.tensor.rows}, got {first}:{last}")
    return [span._replace(first=first * span.row, last=last * span.row)]


def _create_part(
    folder: int,
    plan: Plan,
    rows: tuple[int, int] | None,
    shard: tuple[int, int] | None,
    sync: bool,
    threads: int | None,
    progress: Progress | None,
    timings: Timings,
) -> int:
    if plan.force:
        raise ValueError("force=True cannot replace a file part by part: remove the file first")
    _part([span for target in plan.targets for span in target.spans()], rows, shard)  # raises errors before any work
    if not exists(folder, plan.plan_file) and all(exists(folder, target.name) for target in plan.targets):
        return _check_part(folder, plan, rows, shard, threads, progress)
    plan.refuse_finished(folder)
    try:
        plan.join(folder)
        open_or_create(folder, plan, plan.targets)
        for target in plan.targets:
            target.check_places(folder, False)
    except BaseException:
        plan.undo(folder)
        raise
    with plan.noted_as_unfinished():
        with _added(timings, "writing"):
            for target in plan.targets:
                target.prepare(folder)
        blocks = Blocks(_part([span for target in plan.targets for span in target.spans()], rows, shard))
        _write(blocks, threads, progress, timings)
        if sync:
            with _added(timings, "syncing"):
                for target in plan.targets:
                    target.sync()
                sync_folder(folder)
        return blocks.bytes_of()


def open_or_create(folder: int, plan: Plan, targets: list[Target]) -> None:
    """Open the partial files of a plan that others may be writing too; create those that nobody has begun."""
    missing = [target for target in targets if not exists(folder, target.partial)]
    if missing:
        plan.forget_verified(folder)  # of files that have been removed
    for target in targets:
        if target in missing:
            with suppress(FileExistsError):  # another process was quicker
                target.create(folder, plan.force)
                continue
        target.open(folder)


def _check_part(
    folder: int,
    plan: Plan,
    rows: tuple[int, int] | None,
    shard: tuple[int, int] | None,
    threads: int | None,
    progress: Progress | None,
) -> int:
    """Return 0 if the finished files hold the part, as when a job writes it again; raise FileExistsError if not."""
    right, spans = True, []
    for target in plan.targets:
        target.file, header = File(folder, target.name, os.O_RDONLY), target.image.header
        right = right and target.file.size() == target.image.nbytes and target.file.read(len(header), 0) == header
        spans += target.spans()
    if not (right and all_right(Blocks(_part(spans, rows, shard)), threads, progress)):
        raise FileExistsError(EEXIST, "is already finished, and differs from the part to be written", plan.name)
    return 0

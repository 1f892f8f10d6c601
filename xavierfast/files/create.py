"""Creation of tables on disk: written at the disk's speed, and finished after any crash.

Every element can be computed again, so a file needs no journal. Verifying means to recompute and compare; resuming
means to verify and rewrite the blocks that differ. Until a table is complete and on the disk, it has another name::

    items.npy.partial               the table, reserved in full, locked by who writes it
    items.npy.partial.recipe.json   what it will be: enough to finish it without the command that began it
    items.npy                       there at once and whole, by a rename after fsync
    items.npy.recipe.json           the recipe, where the format has no room for it (.npy, .bin)

Data is written from buffers that fit in a core's cache. A memory map would cost page faults, and a full disk would
kill the process (SIGBUS). With `max_shard_size`, safetensors are split into several files and an index.
"""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from errno import EAGAIN, EEXIST, ENOENT, ENOLCK, ENOSPC, ENOSYS, ENOTSUP
from operator import index
from time import perf_counter
from typing import NamedTuple

from .._core.validation import check_count, check_threads
from ..table import Table
from .blocks import BLOCK_BYTES, Blocks, Buffers, Progress, Span, compare, for_each, read_block, recompute
from .formats import FormatError, Image, Tables, format_of_path, named, tables_from_recipes, write_image
from .posix import (
    Kind,
    exists,
    fallocate,
    folder_of,
    is_open,
    kind_of,
    move,
    open_file,
    pwrite,
    read_json,
    remove_temporaries,
    write_small,
)

try:
    import fcntl
except ImportError:
    raise ImportError("xavierfast.files needs a POSIX system: it locks files and writes them with pwrite") from None

__all__ = ["Estimate", "create", "estimate", "resume"]

# The bytes that `estimate` writes to measure the speed of a disk.
TRIAL_BYTES = 1 << 28


# ---- one unfinished file


class _Target:
    """One file of a plan: the tables that it is to hold, and the descriptor of its ``.partial`` while that is open."""

    def __init__(self, name: str, tables: dict[str, Table]) -> None:
        self.name = name
        self.partial = f"{name}.partial"
        self.tables = tables
        self.image: Image = write_image(format_of_path(name), tables)
        self.fd = -1
        self.fresh = False

    def spans(self) -> list[Span]:
        tables = [(tensor, self.tables[tensor.name]) for tensor in self.image.tensors]
        return [Span(self.fd, tensor, table, 0, table.size, table.itemsize) for tensor, table in tables]

    def claim(self, folder: int, how: int, lock: int) -> None:
        """Open and lock the partial file, or raise an error if another process is using it."""
        try:
            self.fd = open_file(folder, self.partial, os.O_RDWR | how)
        except FileExistsError:
            raise FileExistsError(EEXIST, "another process is beginning to write it", self.partial) from None
        _lock(self.fd, lock, self.partial)
        if not is_open(folder, self.partial, self.fd):
            raise FileExistsError(EEXIST, "another process has just finished or removed it", self.partial)
        self.fresh = bool(how & os.O_EXCL)

    def refuse_publisher(self, folder: int) -> None:
        """Raise BlockingIOError while the process that renamed this file is still renaming the others of its plan."""
        if kind_of(folder, self.name) is Kind.FILE:
            with suppress(FileNotFoundError, PermissionError):
                fd = open_file(folder, self.name, os.O_RDONLY)
                try:
                    _lock(fd, fcntl.LOCK_SH, self.name)
                finally:
                    os.close(fd)

    def check_places(self, folder: int, force: bool) -> None:
        """Raise an error if another process has removed or replaced the partial file, or created the final one."""
        if not exists(folder, self.partial):
            raise FileNotFoundError(ENOENT, "it was removed meanwhile", self.partial)
        if not is_open(folder, self.partial, self.fd):
            raise FileExistsError(EEXIST, "another process has taken its place", self.partial)
        if not force and exists(folder, self.name) and not is_open(folder, self.name, self.fd):
            raise FileExistsError(EEXIST, "it appeared meanwhile", self.name)

    def reserve(self) -> None:
        """Reserve space for the whole file, so that a full disk is reported before the first byte is written."""
        need, have = self.image.nbytes, os.fstat(self.fd)
        if have.st_size > need:
            os.ftruncate(self.fd, need)
        if not need:
            return
        code = fallocate(self.fd, need)
        free = os.statvfs(self.fd)
        room = free.f_bavail * free.f_frsize + have.st_blocks * 512
        if code in (ENOSYS, ENOTSUP):  # this file system cannot reserve space
            code = ENOSPC if room < need else 0
            if not code:
                os.ftruncate(self.fd, need)
        if code:
            raise OSError(code, f"{os.strerror(code)}: it needs {need:,} bytes and {room:,} are free", self.name)

    def sync(self, folder: int) -> None:
        try:
            os.fsync(self.fd)
        except OSError as error:  # some bytes may be lost, and a second fsync would still report success
            os.unlink(self.partial, dir_fd=folder)
            raise OSError(error.errno, f"{error.strerror}: fsync failed, so the file was removed", self.name) from error

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _lock(fd: int, how: int, name: str) -> None:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(EAGAIN, "another process is writing it", name) from None
    except OSError as error:
        if error.errno not in (ENOSYS, ENOTSUP, ENOLCK):  # these mean a file system without locks
            raise


def _write_block(span: Span, first: int, last: int, buffers: Buffers) -> None:
    data = recompute(span, first, last, buffers.made)
    pwrite(span.fd, data.data, span.tensor.begin + first * span.itemsize)


def _repair_block(span: Span, first: int, last: int, buffers: Buffers) -> int:
    """Write a block if it is missing or wrong; return the number of bytes written."""
    if read_block(span, first, last, buffers.read)[1]:
        return 0
    _write_block(span, first, last, buffers)
    return (last - first) * span.itemsize


# ---- create and resume


class _Plan:
    """The files that one call of ``create`` makes in an open folder, and the arguments that it was given."""

    def __init__(self, name: str, tables: Tables, max_shard_size: int | None, force: bool) -> None:
        self.name = name
        self.ending = format_of_path(name)
        self.file = f"{name}.partial.recipe.json"
        self.tables = named(tables)
        self.force = force
        if max_shard_size is not None:
            max_shard_size = check_count("max_shard_size", max_shard_size)
            if self.ending != ".safetensors":
                raise ValueError(f"max_shard_size is for .safetensors files, got {name!r}")
        self.max_shard_size = max_shard_size
        self.written = False
        groups = _groups(self.tables, max_shard_size)
        stem = name.removesuffix(self.ending)
        names = [f"{stem}-{k:05d}-of-{len(groups):05d}{self.ending}" for k in range(1, len(groups) + 1)]
        self.targets = [_Target(*pair) for pair in zip(names if len(groups) > 1 else [name], groups, strict=True)]
        index = f"{name}.index.json"
        self.index = index if len(groups) > 1 else None
        self.sidecar = f"{name}.recipe.json" if self.ending != ".safetensors" else None
        # If a single file replaces a set of shards, or a set a single file, readers might prefer the old one.
        self.superseded = None if self.sidecar else name if self.index else index

    def to_json(self) -> bytes:
        recipes = {name: table.recipe for name, table in self.tables.items()}
        fields = {"max_shard_size": self.max_shard_size, "force": self.force, "tables": recipes}
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def read(cls, folder: int, name: str) -> "_Plan | None":
        """Read the plan of an unfinished file, which may be untrusted; return None if there is no plan."""
        try:
            fields = read_json(folder, f"{name}.partial.recipe.json")
        except FileNotFoundError:
            return None
        if not isinstance(fields, dict) or set(fields) != {"max_shard_size", "force", "tables"}:
            raise FormatError(f"{name}.partial.recipe.json must have max_shard_size, force and tables")
        return cls(name, tables_from_recipes(fields["tables"]), fields["max_shard_size"], bool(fields["force"]))

    def refuse_finished(self, folder: int) -> None:
        """Raise FileExistsError for a final name that is taken, unless `force` allows its replacement.

        Only files and symlinks can be replaced. A sidecar that already holds the same recipe is no obstacle.
        """
        beside = [name for name in (self.index, self.sidecar, self.superseded) if name]
        for name in [target.name for target in self.targets] + beside:
            kind = kind_of(folder, name)
            if kind is Kind.NOTHING:
                continue
            if kind not in (Kind.FILE, Kind.SYMLINK):
                raise FileExistsError(EEXIST, f"is {kind.value}, and force=True replaces only files and symlinks", name)
            if not self.force and not self._same_sidecar(folder, name):
                state = "already exists" if kind is Kind.FILE else "already exists as a symlink"
                raise FileExistsError(EEXIST, f"{state}; pass force=True to replace it", name)

    def refuse_unfinished(self, folder: int) -> None:
        """Raise FileExistsError for files that an earlier creation has left, unless `force` allows their removal."""
        for name in [target.partial for target in self.targets] + [self.file]:
            kind = kind_of(folder, name)
            if kind not in (Kind.NOTHING, Kind.FILE):
                raise FileExistsError(EEXIST, f"is {kind.value} in the place of an unfinished table; remove it", name)
            if kind is Kind.FILE and not self.force:
                message = "an unfinished table exists: call resume() to finish it, or pass force=True to start over"
                raise FileExistsError(EEXIST, message, name)

    def _same_sidecar(self, folder: int, name: str) -> bool:
        """Whether `name` is the sidecar that a removed table left behind, with the recipe of the new table."""
        try:
            return name == self.sidecar and read_json(folder, name) == next(iter(self.tables.values())).recipe
        except (OSError, ValueError):
            return False

    def write_file(self, folder: int) -> None:
        """Write the plan's file, or accept an equal one: each host that writes a part of one table may call this."""
        try:
            write_small(folder, self.file, self.to_json(), False)
            self.written = True
        except FileExistsError:
            if _Plan.read(folder, self.name) != self:
                message = "what is there was begun with another recipe"
                raise FileExistsError(EEXIST, message, self.file) from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Plan) and self.to_json() == other.to_json()

    def publish(self, folder: int, sync: bool) -> None:
        """Give the finished files their names: sidecar first, then files, then index; superseded files go last."""
        open_targets = [target for target in self.targets if target.fd >= 0]  # the others already have their names
        for target in open_targets:
            target.check_places(folder, self.force)
        remove_temporaries(folder, [name for name in (self.file, self.sidecar, self.index) if name])
        if self.sidecar:
            recipe = next(iter(self.tables.values())).recipe
            write_small(folder, self.sidecar, json.dumps(recipe, indent=1).encode() + b"\n", True)
        for target in open_targets:
            if sync:
                target.sync(folder)
            move(folder, target.partial, target.name, self.force)
        if self.index:
            weights = {name: target.name for target in self.targets for name in target.tables}
            size = sum(table.nbytes for table in self.tables.values())
            fields = {"metadata": {"total_size": size}, "weight_map": weights}
            write_small(folder, self.index, json.dumps(fields, indent=2).encode() + b"\n", True)
        if self.superseded and self.force:
            with suppress(FileNotFoundError):
                os.unlink(self.superseded, dir_fd=folder)
        os.unlink(self.file, dir_fd=folder)
        if sync:
            os.fsync(folder)


def _groups(tables: dict[str, Table], most: int | None) -> list[dict[str, Table]]:
    """Split the tables, in their order, into groups of at most `most` bytes; a larger table gets its own group."""
    groups: list[dict[str, Table]] = [{}]
    filled = 0
    for name, table in tables.items():
        if groups[-1] and most is not None and filled + table.nbytes > most:
            groups.append({})
            filled = 0
        groups[-1][name] = table
        filled += table.nbytes
    return groups


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
) -> int:
    """Write a table, or the tables of a model, to disk.

    Parameters
    ----------
    path : str or path
        The file to write: .npy or .bin for one table, .safetensors for one or many. The folder must exist.
    tables : Table, or mapping of names to Tables
        ``xavierfast.init(..., lazy=True)`` makes such a mapping.
    rows : (int, int), optional
        Write only these rows of the file's one table, from the first to before the last. The file stays a ``.partial``
        until :func:`resume` has filled in the rest. Any number of hosts may write parts of one file on shared storage,
        in any order and repeatedly, provided that their tables have the same seed.
    shard : (int, int), optional
        Like `rows`, but part k of n about equal parts, given as (k, n) with k from 1 to n.
    max_shard_size : int, optional
        The most bytes of tensors in one .safetensors file. Larger models are split into several files, with the index
        that Hugging Face's tools read; a tensor that is larger than this gets a file to itself.
    force : bool
        Replace an existing file, which stays intact until the new one is complete.
    sync : bool
        Wait until all bytes are on the disk before the file gets its name. Otherwise a power failure may leave a file
        of the right name and size without all of its contents.
    threads : int, optional
        As in :func:`xavier_uniform`.
    progress : callable, optional
        Called as ``progress(done, total)``, both in bytes, from any thread but never from two at once.

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
        read-only, or the disk is too full, which is detected before the first byte is written. Everything written so
        far stays for :func:`resume`.
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
    with folder_of(path) as (folder, name), ExitStack() as stack:
        plan = _Plan(name, tables, max_shard_size, force)
        if rows is not None or shard is not None:
            return _create_part(folder, plan, _part(plan, rows, shard), sync, threads, progress)
        plan.refuse_finished(folder)
        plan.refuse_unfinished(folder)
        if force:
            _remove_unfinished(folder, plan)
        with _removing(folder, plan):
            for target in plan.targets:
                stack.callback(target.close)
                target.claim(folder, os.O_CREAT | os.O_EXCL, fcntl.LOCK_EX)
                target.check_places(folder, force)
            plan.write_file(folder)
            for target in plan.targets:
                target.reserve()
        with _unfinished(plan):
            for target in plan.targets:
                pwrite(target.fd, memoryview(target.image.header), 0)
            blocks = Blocks(span for target in plan.targets for span in target.spans())
            for_each(blocks, _write_block, threads, progress)
            plan.publish(folder, sync)
        return blocks.bytes_of()


def resume(
    path: str | os.PathLike[str],
    tables: Tables | None = None,
    *,
    max_shard_size: int | None = None,
    sync: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Finish a file that :func:`create` began: recompute it, write the blocks that differ, give it its name.

    Parameters
    ----------
    path, sync, threads, progress
        As in :func:`create`.
    tables, max_shard_size
        As in :func:`create`; if given, they must match the unfinished file. They are needed only if the creation
        stopped before it wrote its recipe.

    Returns
    -------
    int
        The bytes that were written: whole blocks in which any byte was missing or wrong, and the header if it was.

    Raises
    ------
    FileNotFoundError
        If there is no unfinished file of this name.
    BlockingIOError
        If another process is writing the file.
    FormatError, OSError, TypeError, ValueError
        As in :func:`create`; also if the recipe is damaged or is not that of `tables`.

    Examples
    --------
    >>> create("parts.npy", Table((1000, 64), seed=7), rows=(250, 500))
    64000
    >>> resume("parts.npy")
    256000
    """
    check_threads(threads)
    with folder_of(path) as (folder, name), ExitStack() as stack:
        given = None if tables is None else _Plan(name, tables, max_shard_size, False)
        plan = _Plan.read(folder, name)
        if plan is None:
            plan = given
            if plan is None or not any(exists(folder, target.partial) for target in plan.targets):
                state = "it is finished" if exists(folder, name) else "nothing unfinished is there"
                raise FileNotFoundError(ENOENT, f"{state}, so there is nothing to resume", name)
        elif given is not None and (given.tables, given.max_shard_size) != (plan.tables, plan.max_shard_size):
            raise ValueError(f"{plan.file} must be of the tables that are given, got another recipe: see the file")
        left = []
        for target in plan.targets:
            stack.callback(target.close)
            target.refuse_publisher(folder)
            if exists(folder, target.partial):
                target.claim(folder, 0, fcntl.LOCK_EX)
                target.check_places(folder, plan.force)
            elif _is_finished(folder, target, threads):
                continue
            elif exists(folder, target.name) and not plan.force:
                raise FileExistsError(EEXIST, "it exists, and is another than the one to resume", target.name)
            else:
                target.claim(folder, os.O_CREAT | os.O_EXCL, fcntl.LOCK_EX)
            left.append(target)
        lock, written = threading.Lock(), 0

        def repair(span: Span, first: int, last: int, buffers: Buffers) -> None:
            nonlocal written
            count = _repair_block(span, first, last, buffers)
            with lock:
                written += count

        with _unfinished(plan):
            for target in left:
                target.reserve()
                header = target.image.header
                if os.pread(target.fd, len(header), 0) != header:
                    pwrite(target.fd, memoryview(header), 0)
                    written += len(header)
            for_each(Blocks(span for target in left for span in target.spans()), repair, threads, progress)
            if not exists(folder, plan.file):
                plan.write_file(folder)
            plan.publish(folder, sync)
        return written


class Estimate(NamedTuple):
    """The space and time that :func:`estimate` predicts."""

    nbytes: int  # the size of all files together
    free: int  # the free bytes of the file system
    seconds: float | None  # the expected time; None where the file system has no unnamed files for a trial


def estimate(
    path: str | os.PathLike[str],
    tables: Tables,
    *,
    max_shard_size: int | None = None,
    force: bool = False,
    sync: bool = True,
    threads: int | None = None,
) -> Estimate:
    """Predict the space and time that :func:`create` needs, from a trial that writes the first 256 MiB.

    The trial goes to a file without a name, of which nothing remains.

    Parameters
    ----------
    path, tables, max_shard_size, force, sync, threads
        As in :func:`create`.

    Raises
    ------
    OSError, TypeError, ValueError
        As in :func:`create`, except that only the trial has to fit on the disk.

    Examples
    --------
    >>> estimate("large.npy", Table((10**12, 128), seed=0)).nbytes
    512000000000128
    """
    check_threads(threads)
    with folder_of(path) as (folder, name):
        plan = _Plan(name, tables, max_shard_size, force)
        plan.refuse_finished(folder)
        plan.refuse_unfinished(folder)
        stat = os.statvfs(folder)
        nbytes, free = sum(target.image.nbytes for target in plan.targets), stat.f_bavail * stat.f_frsize
        try:
            fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, dir_fd=folder)
        except (AttributeError, OSError):  # only Linux has it, and not on all of its file systems
            return Estimate(nbytes, free, None)
        try:
            blocks = Blocks(span._replace(fd=fd) for target in plan.targets for span in target.spans())
            chosen = range(min(len(blocks), TRIAL_BYTES // BLOCK_BYTES))
            begin = perf_counter()
            for_each(blocks, _write_block, threads, None, chosen)
            if sync:
                os.fsync(fd)
            speed = max(1, blocks.bytes_of(chosen)) / (perf_counter() - begin)
        finally:
            os.close(fd)
        return Estimate(nbytes, free, nbytes / speed)


def _is_finished(folder: int, target: _Target, threads: int | None) -> bool:
    """Whether the final file is already complete and right, because the creation stopped between two renames."""
    try:
        fd = open_file(folder, target.name, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        header = target.image.header
        if os.fstat(fd).st_size != target.image.nbytes or os.pread(fd, len(header), 0) != header:
            return False
        blocks = Blocks(span._replace(fd=fd) for span in target.spans())
        return not any(check.differ for check in compare(blocks, threads, None))
    finally:
        os.close(fd)


def _part(plan: _Plan, rows: tuple[int, int] | None, shard: tuple[int, int] | None) -> list[Span]:
    """The spans of the elements that `rows` or `shard` selects."""
    if rows is not None and shard is not None:
        raise ValueError("a part is given by rows or by shard, got both")
    if plan.force:
        raise ValueError("a part is added to what others write, got force: remove the file first")
    if plan.index:
        raise ValueError("parts are of one file, got a max_shard_size that makes more")
    spans = plan.targets[0].spans()
    if shard is not None:
        k, n = map(index, shard)
        if not 1 <= k <= n:
            raise ValueError(f"shard must be k of n, with k from 1 to n; got {k}/{n}")
        return [span._replace(first=span.last * (k - 1) // n, last=span.last * k // n) for span in spans]
    assert rows is not None
    first, last = map(index, rows)
    if len(spans) != 1:
        raise ValueError(f"rows are those of one table, got {len(spans)}: cut these by shard")
    (span,) = spans
    if not 0 <= first <= last <= span.tensor.rows:
        raise ValueError(f"rows must lie within the {span.tensor.rows:,} of the table, got {first}:{last}")
    return [span._replace(first=first * span.row, last=last * span.row)]


def _create_part(
    folder: int, plan: _Plan, part: list[Span], sync: bool, threads: int | None, progress: Progress | None
) -> int:
    (target,) = plan.targets
    if exists(folder, target.name):
        raise FileExistsError(EEXIST, "it is finished, so no part is missing", target.name)
    plan.refuse_finished(folder)
    try:
        try:
            target.claim(folder, os.O_CREAT | os.O_EXCL, fcntl.LOCK_SH)
        except FileExistsError:
            target.claim(folder, os.O_CREAT, fcntl.LOCK_SH)
        with _removing(folder, plan):
            target.check_places(folder, False)
            plan.write_file(folder)
        with _unfinished(plan):
            target.reserve()
            pwrite(target.fd, memoryview(target.image.header), 0)
            blocks = Blocks(span._replace(fd=target.fd) for span in part)
            for_each(blocks, _write_block, threads, progress)
            if sync:
                target.sync(folder)
            return blocks.bytes_of()
    finally:
        target.close()


@contextmanager
def _removing(folder: int, plan: _Plan) -> Iterator[None]:
    """Remove the new files of a creation that fails before it has written a byte of its tables."""
    try:
        yield
    except BaseException:
        made = [target.partial for target in plan.targets if target.fresh] + [plan.file] * plan.written
        for name in made:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
        raise


@contextmanager
def _unfinished(plan: _Plan) -> Iterator[None]:
    """Add a note to any error: the table is unfinished, and resume() finishes it."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"{plan.name} is unfinished: resume() finishes it")
        raise


def _remove_unfinished(folder: int, plan: _Plan) -> None:
    """Remove the files that an earlier creation of this name has left; raise an error if a process is writing them."""
    try:
        earlier = _Plan.read(folder, plan.name)
    except (ValueError, TypeError):
        earlier = None
    for target in [*plan.targets, *(earlier.targets if earlier else ())]:
        target.refuse_publisher(folder)
        if not exists(folder, target.partial):
            continue
        try:
            target.claim(folder, 0, fcntl.LOCK_EX)
            os.unlink(target.partial, dir_fd=folder)
        finally:
            target.close()
    with suppress(FileNotFoundError):
        os.unlink(plan.file, dir_fd=folder)

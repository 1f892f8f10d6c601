"""Repair of finished tables on disk, in place: what is wrong is written again, and a lost recipe or index with it.

A crash in the middle leaves each block as it was or as it should be, so the next ``verify`` or ``resume`` sees what is
left. Only a file that is known to hold the table is repaired: by its recipe or, if that is lost, by its contents.
"""

import fcntl
import json
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from errno import EEXIST, ENOENT, EPERM
from typing import TypeVar

import numpy as np

from ..table import Table
from .blocks import Blocks, Buffers, Progress, Span, for_each, read_block, recompute, rewrite
from .create import shard_of
from .formats import FormatError, Image, read_image
from .handles import File
from .plan import Plan
from .posix import exists, lock, sync_folder, write_small
from .reader import TensorFile, index_beside, read_index, recorded_beside
from .target import Target, reserve

__all__ = ["repair"]

Read = TypeVar("Read")


def repair(
    folder: int,
    name: str,
    given: Plan | None,
    part: tuple[int, int] | None,
    sync: bool,
    threads: int | None,
    progress: Progress | None,
) -> tuple[int, bool]:
    """Repair a finished table, or a part of each of its tensors; return the bytes written, and whether files are lost.

    `given` is the plan of the expected tables; without it, the recipes on the disk say what is expected.
    """
    plan = given or _plan_on_disk(folder, name)
    present = [target for target in plan.targets if exists(folder, target.name)]
    plan.refuse_superseded(folder)
    if not present:
        raise FileNotFoundError(ENOENT, "has no unfinished file, so there is nothing to resume", name)
    with ExitStack() as stack:
        finished = {}
        for target in present:
            file = File(folder, target.name, os.O_RDONLY)
            stack.callback(file.close)
            finished[file] = _Finished(folder, target, file)
        spans = [span for file, item in finished.items() for span in item.target.spans(file)]
        wrong = _wrong_blocks(spans if part is None else shard_of(spans, *part), finished, threads, progress)
        for item in finished.values():
            item.refuse_others()
        written = 0
        for item in finished.values():
            if item.is_wrong:
                stack.callback(item.open_to_write().close)
                written += item.write_header(sync)
        pieces = Blocks(span._replace(file=finished[span.file].writer) for span in wrong)
        written += rewrite(pieces, threads, progress if pieces else None)
        for item in finished.values():
            item.finish(sync)
    lost = len(present) < len(plan.targets)
    if not lost:
        plan.remove_temporaries(folder)
        small = 0
        if plan.sidecar and _or_none(lambda: recorded_beside(folder, name)) != plan.tables:
            small += _write(folder, plan.sidecar, plan.sidecar_data())
        if plan.index and not _is_index(folder, plan):
            small += _write(folder, plan.index, plan.index_data())
        if small and sync:
            sync_folder(folder)
        written += small
    return written, lost


class _Finished:
    """A file that has its final name: what it is known to hold, and what of it is wrong."""

    def __init__(self, folder: int, target: Target, file: File) -> None:
        self.folder, self.target, self.file = folder, target, file
        self.writer = file  # another one once it is opened to write
        self.size = file.size()
        header = target.image.header
        self.start = file.read(min(self.size, len(header)), 0)
        self.recorded = _or_none(lambda: _recorded(folder, target.name))
        self.is_wrong = self.size != target.image.nbytes or self.start != header
        self.has_other_values = False  # among the bytes that are not missing

    def refuse_others(self) -> None:
        """Raise FileExistsError if the file may hold something else than a damaged copy of the table."""
        image, name = self.target.image, self.target.name
        if self.recorded == self.target.tables:
            if self.start != image.header and (held := _or_none(self._read_image)) is not None:
                places = [[(t.shape, t.begin, t.end) for t in tensors] for tensors in (held.tensors, image.tensors)]
                if places[0] != places[1]:
                    message = "holds other tensors than its recipe says; move it away, then create it again"
                    raise FileExistsError(EEXIST, message, name)
        elif self.recorded is not None:
            if self.is_wrong or self.has_other_values:
                message = "is finished, and has another recipe; pass force=True to create() to replace it"
                raise FileExistsError(EEXIST, message, name)
        elif (
            self.has_other_values
            or self.size > image.nbytes
            or not (image.header.startswith(self.start) or self.size == image.nbytes)
        ):
            message = "exists, has no recipe that can be read, and differs from the table; move it away, or pass "
            raise FileExistsError(EEXIST, message + "force=True to create() to replace it", name)

    def _read_image(self) -> Image:
        return read_image(os.path.splitext(self.target.name)[1], self.file, self.size)

    def open_to_write(self) -> File:
        self.writer = File(self.folder, self.target.name, os.O_RDWR)
        with self.writer.descriptor() as fd:
            lock(fd, fcntl.LOCK_EX, self.target.name)
            if os.fstat(fd).st_nlink > 1:
                message = "is wrong, and has another name too (a hard link), whose contents would change; copy it first"
                raise PermissionError(EPERM, message, self.target.name)
        return self.writer

    def write_header(self, sync: bool) -> int:
        """Write the header if it is wrong, and reserve the file's space; return the header's bytes if it was wrong.

        The header goes first: it holds the recipes of .safetensors files, by which the next `resume` knows the file.
        """
        header, written = self.target.image.header, 0
        if self.start != header:
            self.writer.write(memoryview(header), 0)
            written = len(header)
            if sync:
                self.writer.sync()
        reserve(self.folder, self.writer, self.target.image.nbytes)
        return written

    def finish(self, sync: bool) -> None:
        if self.writer is self.file:
            return
        if sync:
            self.writer.sync()
        if not self.writer.is_named(self.target.name):
            raise FileExistsError(EEXIST, "was replaced by another file while it was repaired", self.target.name)


def _wrong_blocks(
    spans: list[Span], finished: dict[File, _Finished], threads: int | None, progress: Progress | None
) -> list[Span]:
    """Compare all blocks; return those that differ, as spans, and mark their files as wrong."""
    wrong: list[Span] = []
    lock = threading.Lock()

    def look(span: Span, first: int, last: int, buffers: Buffers) -> None:
        held, equal = read_block(span, first, last, buffers.read)
        if equal:
            return
        differs = not np.array_equal(held, recompute(span, first, last, buffers.made)[: held.size])
        with lock:
            wrong.append(span._replace(first=first, last=last))
            finished[span.file].is_wrong = True
            finished[span.file].has_other_values |= differs

    held = []
    for span in spans:
        size = max(0, finished[span.file].size - span.tensor.begin)
        end = min(max(-(-size // span.itemsize), span.first), span.last)  # what is beyond it need not be read
        held.append(span._replace(last=end))
        if end < span.last:
            wrong.append(span._replace(first=end))
    for_each(Blocks(held), look, threads, progress)
    return wrong


# ---- what the disk says


def _plan_on_disk(folder: int, name: str) -> Plan:
    """The plan of a finished table, as its recipes and its index tell it."""
    index = index_beside(folder, name)
    try:
        if index is None:
            return Plan(name, _recorded(folder, name), None, False)
        files = sorted(set(read_index(folder, index)["weight_map"].values()))
        groups = {file: _recorded(folder, file) for file in files}
    except (FileNotFoundError, FormatError) as error:
        error.add_note("call resume() with the tables to repair it nevertheless")
        raise
    tables = {key: table for group in groups.values() for key, table in group.items()}
    return Plan(index.removesuffix(".index.json"), tables, None, False, groups)


def _recorded(folder: int, name: str) -> dict[str, Table]:
    if name.endswith(".safetensors"):
        file = TensorFile(folder, name)
        file.file.close()
        return file.recorded()
    if not exists(folder, name):
        raise FileNotFoundError(ENOENT, "has no unfinished file, so there is nothing to resume", name)
    return recorded_beside(folder, name)


def _or_none(read: Callable[[], Read]) -> Read | None:
    """What a file says, or None if it is missing or malformed."""
    try:
        return read()
    except (FileNotFoundError, FormatError):
        return None


def _is_index(folder: int, plan: Plan) -> bool:
    assert plan.index is not None
    try:
        return bool(read_index(folder, plan.index) == json.loads(plan.index_data()))
    except (FileNotFoundError, FormatError):
        return False


def _write(folder: int, name: str, data: bytes) -> int:
    write_small(folder, name, data, True)
    return len(data)

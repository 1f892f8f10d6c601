"""Completion of unfinished tables on disk, after a crash or when all parts have been written.

Every element can be computed again, so a file needs no journal. Verifying means to recompute and compare; resuming
means to verify and to rewrite the blocks that differ.
"""

import os
import threading
from contextlib import ExitStack
from errno import EEXIST, ENOENT

from .._core.validation import check_threads
from .blocks import Blocks, Buffers, Progress, Span, compare, for_each, read_block, write_block
from .formats import Tables
from .plan import Plan
from .posix import exists, folder_of, open_file, pwrite
from .target import Target

__all__ = ["resume"]


def resume(
    path: str | os.PathLike[str],
    tables: Tables | None = None,
    *,
    max_shard_size: int | None = None,
    sync: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Finish a file that :func:`create` began: recompute it, write the blocks that differ, give it its final name.

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
    >>> from xavierfast import Table
    >>> from xavierfast.files import create
    >>> create("parts.npy", Table((1000, 64), seed=7), rows=(250, 500))
    64000
    >>> resume("parts.npy")
    256000
    """
    check_threads(threads)
    with folder_of(path) as (folder, name), ExitStack() as stack:
        given = None if tables is None else Plan(name, tables, max_shard_size, False)
        plan = Plan.read(folder, name)
        if plan is None:
            plan = given
            if plan is None or not any(exists(folder, target.partial) for target in plan.targets):
                state = "is already finished" if exists(folder, name) else "has no unfinished file"
                raise FileNotFoundError(ENOENT, f"{state}, so there is nothing to resume", name)
        elif given is not None and (given.tables, given.max_shard_size) != (plan.tables, plan.max_shard_size):
            raise ValueError(
                f"tables and max_shard_size must be those of the unfinished file, got another recipe: {plan.plan_file} "
                "holds the right one"
            )
        left = []
        for target in plan.targets:
            stack.callback(target.close)
            target.refuse_publisher(folder)
            if exists(folder, target.partial):
                target.claim(folder, 0)
                target.check_places(folder, plan.force)
            elif _is_finished(folder, target, threads):
                continue
            elif exists(folder, target.name) and not plan.force:
                raise FileExistsError(
                    EEXIST, "exists and differs from the table to be resumed; move it away first", target.name
                )
            else:
                target.claim(folder, os.O_CREAT | os.O_EXCL)
            left.append(target)
        lock, written = threading.Lock(), 0

        def repair(span: Span, first: int, last: int, buffers: Buffers) -> None:
            nonlocal written
            if read_block(span, first, last, buffers.read)[1]:
                return
            write_block(span, first, last, buffers)
            with lock:
                written += (last - first) * span.itemsize

        with plan.noted_as_unfinished():
            for target in left:
                target.reserve()
                header = target.image.header
                if os.pread(target.fd, len(header), 0) != header:
                    pwrite(target.fd, memoryview(header), 0)
                    written += len(header)
            for_each(Blocks(span for target in left for span in target.spans()), repair, threads, progress)
            if not exists(folder, plan.plan_file):
                plan.write_file(folder)
            plan.publish(folder, sync)
        return written


def _is_finished(folder: int, target: Target, threads: int | None) -> bool:
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

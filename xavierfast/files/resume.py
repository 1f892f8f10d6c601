"""Completion of unfinished tables on disk, after a crash or when all parts have been written.

Every element can be computed again, so a file needs no journal. Verifying means to recompute and compare; resuming
means to verify and to rewrite the blocks that differ.
"""

import os
from contextlib import ExitStack, closing
from errno import EEXIST, ENOENT

from .._core.validation import check_threads
from .blocks import Blocks, Progress, all_right, rewrite
from .create import check_pair, open_or_create, shard_of
from .extend import append_rows
from .formats import Tables
from .handles import File
from .plan import Plan
from .posix import exists, folder_of, sync_folder
from .repair import repair
from .target import Target

__all__ = ["resume"]

DIFFERS = "exists and differs from the table to be resumed; move it away first"


def resume(
    path: str | os.PathLike[str],
    tables: Tables | None = None,
    *,
    shard: tuple[int, int] | None = None,
    max_shard_size: int | None = None,
    sync: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Finish a file that :func:`create` began, or repair a finished one: recompute it and write the blocks that differ.

    An unfinished file then gets its final name, and an unfinished :func:`extend` is completed. A finished file is
    repaired in place: a block is at any moment as it was or as it should be, so that after a crash :func:`verify` and
    another `resume` see what is left. Rows that training has changed count as wrong and are overwritten too, so do not
    resume a trained table.

    Parameters
    ----------
    path, sync, threads, progress
        As in :func:`create`.
    tables, max_shard_size
        As in :func:`create`; if given, they must match the file. They are needed only if there is no recipe: because
        the creation stopped before it wrote one, or because a recipe, a header or a file of a model was lost.
    shard : (int, int), optional
        Verify and finish only shard k of n, given as (k, n) with k from 0 to n - 1, so that n hosts share the work.
        Each records on the disk that its shard is right, and the one that finds all n recorded gives the file its name.
        Until then, the file stays unfinished.

    Returns
    -------
    int
        The bytes that were written: whole blocks in which any byte was missing or wrong, and headers, sidecars and
        indices of finished files that were.

    Raises
    ------
    FileNotFoundError
        If there is no file of this name, or a part of it is lost and `tables` is not given.
    FileExistsError
        If there is a finished file of this name that holds other tables.
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
    >>> resume("parts.npy"), resume("parts.npy")
    (256000, 0)
    """
    check_threads(threads)
    part = None if shard is None else check_pair(shard)
    with folder_of(path) as (folder, name), ExitStack() as stack:
        given = None if tables is None else Plan(name, tables, max_shard_size, False)
        plan = Plan.resumed(folder, name, shared=part is not None)
        repaired = 0
        if plan is None:
            if given is not None and any(exists(folder, target.partial) for target in given.targets):
                given.refuse_superseded(folder)
                if given.index and exists(folder, given.index):
                    raise FileExistsError(EEXIST, DIFFERS, given.index)
            else:
                repaired, lost = repair(folder, name, given, part, sync, threads, progress)
                if not lost:
                    return repaired
            assert given is not None  # without it, nothing is known to be lost
            plan = given
            plan.begin(folder) if part is None else plan.join(folder)
        stack.callback(plan.close)
        if given is not None and (given.tables, given.max_shard_size) != (plan.tables, plan.max_shard_size):
            raise ValueError(
                f"tables and max_shard_size must be those of the unfinished file, got another recipe: {plan.plan_file} "
                "holds the right one"
            )
        with plan.noted_as_unfinished():
            if plan.kept_rows is not None:
                return append_rows(folder, plan, sync, threads, progress)
            if part is not None:
                return repaired + _resume_part(folder, plan, part, sync, threads, progress)
            left = []
            for target in plan.targets:
                if exists(folder, target.partial):
                    target.open(folder)
                    target.check_places(folder, plan.force)
                elif _is_finished(folder, target, threads):
                    continue
                elif exists(folder, target.name) and not plan.force:
                    raise FileExistsError(EEXIST, DIFFERS, target.name)
                else:
                    target.create(folder, plan.force)
                left.append(target)
            written = sum(target.prepare(folder) for target in left)
            written += rewrite(Blocks(span for target in left for span in target.spans()), threads, progress)
            plan.publish(folder, sync)
            return repaired + written


def _resume_part(
    folder: int, plan: Plan, part: tuple[int, int], sync: bool, threads: int | None, progress: Progress | None
) -> int:
    """Finish one part of an unfinished file, and the file itself if all other parts are recorded as finished."""
    k, n = part
    left = []
    for target in plan.targets:
        if exists(folder, target.partial) or not _is_finished(folder, target, threads, part):
            if exists(folder, target.name) and not exists(folder, target.partial) and not plan.force:
                raise FileExistsError(EEXIST, DIFFERS, target.name)
            left.append(target)
    open_or_create(folder, plan, left)
    written = sum(target.prepare(folder) for target in left)
    spans = shard_of([span for target in left for span in target.spans()], k, n)
    written += rewrite(Blocks(spans), threads, progress)
    if sync:
        for target in left:
            target.sync()
        sync_folder(folder)
    for target in left:
        target.check_places(folder, plan.force)
    plan.note_verified(folder, k, n)
    try:
        # Whoever removes a partial file forgets the records after that, so one of the two sees the other.
        for target in left:
            target.check_places(folder, plan.force)
    except OSError:
        plan.forget_verified(folder)
        raise
    if sync:
        sync_folder(folder)
    complete = not left or plan.all_verified(folder, n)  # none is left if a crash came after the renames
    plan.close()
    if complete:
        _publish_verified(folder, plan, n, sync)
    return written


def _publish_verified(folder: int, plan: Plan, n: int, sync: bool) -> None:
    """Give a file its name whose parts are all recorded as finished, unless another process does that."""
    try:
        last = Plan.resumed(folder, plan.name, shared=False, wait=True)  # until the others have noted their parts
    except FileExistsError:
        return
    if last is None:
        return
    with closing(last):
        unnamed = any(exists(folder, target.partial) for target in last.targets)
        if last.identity != plan.identity or (unnamed and not last.all_verified(folder, n)):
            return
        for target in last.targets:
            if exists(folder, target.partial):
                target.open(folder)
                target.check_places(folder, last.force)
            elif not exists(folder, target.name):
                raise FileNotFoundError(ENOENT, "was removed while it was being written", target.partial)
        last.publish(folder, sync)


def _is_finished(folder: int, target: Target, threads: int | None, part: tuple[int, int] | None = None) -> bool:
    """Whether the final file, or a part of it, is right already, because the creation stopped between two renames."""
    try:
        file = File(folder, target.name, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        header = target.image.header
        if file.size() != target.image.nbytes or file.read(len(header), 0) != header:
            return False
        spans = target.spans(file)
        if part is not None:
            spans = shard_of(spans, *part)
        return all_right(Blocks(spans), threads, None)
    finally:
        file.close()

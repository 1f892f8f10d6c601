"""The state of a table on disk that several hosts write: which rows or shards are missing."""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from errno import ENOENT

from .._core.validation import check_count, check_threads
from .blocks import Blocks, Buffers, Progress, Span, TensorCheck, compare, for_each, read_block
from .create import shard_of
from .handles import File
from .plan import Plan
from .posix import exists, folder_of
from .verify import verify

__all__ = ["Status", "status"]


@dataclass(frozen=True)
class Status:
    """The result of :func:`status`."""

    finished: bool  # whether the file has its final name
    tensors: tuple[TensorCheck, ...]  # per tensor, the rows that are missing or wrong
    missing: tuple[int, ...] = ()  # the numbers of the shards that are not complete, if their count was given

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, so that ``resume`` has only to verify the file and to rename it."""
        return not self.missing and not any(check.differ or check.problem for check in self.tensors)


def status(
    path: str | os.PathLike[str],
    *,
    shards: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Status:
    """Recompute an unfinished file, and return what is missing; nothing is written, and writers may go on.

    Parameters
    ----------
    path : str or path
        The file's final name, with or without ``.partial``.
    shards : int, optional
        The number n of shards (k, n) that the hosts write. The result then has the numbers, from 0 to n - 1, of those
        that are not complete, in place of the rows of each tensor.
    threads, progress
        As in :func:`create`.

    Returns
    -------
    Status

    Raises
    ------
    FileNotFoundError
        If there is no such file, finished or unfinished, or it has no recipe.
    FormatError, OSError, TypeError, ValueError
        As in :func:`verify`.

    Examples
    --------
    >>> from xavierfast import Table
    >>> from xavierfast.files import create, status
    >>> for k in (0, 1, 3):
    ...     done = create("shards.npy", Table((1000, 64), seed=7), shard=(k, 4))
    >>> status("shards.npy", shards=4).missing, status("shards.npy.partial").tensors[0].ranges
    ((2,), ((500, 750),))
    """
    check_threads(threads)
    if shards is not None:
        shards = check_count("shards", shards)
    path = os.fsdecode(path).removesuffix(".partial")
    with folder_of(path) as (folder, name), ExitStack() as stack:
        plan = Plan.read(folder, name)
        if plan is None:
            if not exists(folder, name) and not exists(folder, f"{name}.index.json"):
                raise FileNotFoundError(ENOENT, "there is no such file, finished or unfinished", name)
            return Status(True, verify(path, threads=threads, progress=progress).tensors)
        spans: list[Span] = []
        absent: list[Span] = []  # of files that nobody has begun
        for target in plan.targets:
            present = next((file for file in (target.partial, target.name) if exists(folder, file)), None)
            if present is None:
                absent += target.spans()
                continue
            file = File(folder, present, os.O_RDONLY)
            stack.callback(file.close)
            spans += target.spans(file)
        if shards is None:
            checks = compare(Blocks(spans), threads, progress)
            none = [
                TensorCheck(span.tensor.name, span.tensor.rows, span.tensor.rows, ((0, span.tensor.rows),))
                for span in absent
            ]
            return Status(False, (*checks, *none))
        missing = set(range(shards)) if absent else set()
        number_of: dict[tuple[File, str, int], int] = {}
        parts = []
        for k in range(shards):
            for part in shard_of(spans, k, shards):
                if part.first < part.last:
                    number_of[part.file, part.tensor.name, part.first] = k
                    parts.append(part)

        def look(span: Span, first: int, last: int, buffers: Buffers) -> None:
            if not read_block(span, first, last, buffers.read)[1]:
                missing.add(number_of[span.file, span.tensor.name, span.first])

        for_each(Blocks(parts), look, threads, progress)
        return Status(False, (), tuple(sorted(missing)))

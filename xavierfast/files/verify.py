"""Verification of tables on disk: recompute a file, and find the rows that differ from its recipe."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .._core.fill import Array
from .._core.validation import check_count, check_threads
from .blocks import BLOCK_BYTES, Blocks, Progress, Span, TensorCheck, choose_blocks, compare
from .formats import Tables, format_of_path, named, npy_header
from .posix import about, check_room, folder_of, open_file, pwrite
from .reader import opened_with_problems, tables_of

__all__ = ["Verification", "verify"]


@dataclass(frozen=True)
class Verification:
    """The result of :func:`verify`."""

    tensors: tuple[TensorCheck, ...]
    nbytes: int  # the bytes that were recomputed and compared
    extra: int = 0  # the bytes after the last tensor

    @property
    def ok(self) -> bool:
        return not self.extra and not any(check.differ or check.problem for check in self.tensors)


def verify(
    path: str | os.PathLike[str],
    recipe: Tables | str | os.PathLike[str] | None = None,
    *,
    tensor: str | None = None,
    sample: int | None = None,
    report: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Recompute a table on disk and return the rows that differ.

    Parameters
    ----------
    path : str or path
        A file that :func:`create` made; a set of shards, by its index or by the name that it was created with; or any
        other .npy, .safetensors or .bin file, for example to find the rows of a trained table that never changed.
    recipe : Table, mapping of names to Tables, or path, optional
        The expected Table or Tables, or a file with their recipes; by default, the file's own recipes.
    tensor : str, optional
        Compare only the tensor of this name.
    sample : int, optional
        Compare only this many blocks of 1 MiB, chosen at random.
    report : str or path, optional
        Write a .npy file of bools to this path, which must not exist: one per row of the one tensor compared, True if
        the row differs.
    threads, progress
        As in :func:`create`.

    Returns
    -------
    Verification

    Raises
    ------
    FileNotFoundError
        If the file does not exist or has no recipe.
    FormatError
        If the header or the recipe is malformed.
    OSError, TypeError, ValueError
        As in :func:`create`.

    Examples
    --------
    >>> import numpy as np
    >>> from xavierfast import Table
    >>> from xavierfast.files import create, verify
    >>> create("trained.npy", Table((1000, 64), seed=7, name="items"))
    256000
    >>> trained = np.load("trained.npy", mmap_mode="r+")
    >>> trained[[3, 10, 11, 12]] += 0.5
    >>> found = verify("trained.npy")
    >>> found.ok, found.tensors[0].differ, found.tensors[0].ranges
    (False, 4, ((3, 4), (10, 13)))
    """
    check_threads(threads)
    if sample is not None:
        sample = check_count("sample", sample)
    expected = None if recipe is None else tables_of(recipe) if isinstance(recipe, str | os.PathLike) else named(recipe)
    with opened_with_problems(path) as (files, problems):
        spans, checks, extra = [], [], 0
        wanted: set[str] = set()
        for file in files:
            tables = file.recorded() if expected is None else expected
            entries = file.entries(tables)
            wanted |= tables.keys()
            extra += max(0, file.size - max([len(file.image.header), *(entry.tensor.end for entry in entries)]))
            for entry in entries:
                if tensor not in (None, entry.tensor.name):
                    continue
                if entry.problem:
                    checks.append(TensorCheck(entry.tensor.name, entry.tensor.rows, 0, problem=entry.problem))
                else:
                    spans.append(entry.span())
        names = {check.name for check in checks} | {span.tensor.name for span in spans}
        if tensor is not None and not names:
            raise ValueError(f"tensor must be the name of a tensor in the file, got {tensor!r}")
        if tensor is None:
            checks += [TensorCheck(name, 0, 0, problem="it is missing") for name in sorted(wanted - names)]
            checks += [TensorCheck(name, 0, 0, problem=problem) for name, problem in problems]
        blocks = Blocks(spans)
        chosen = choose_blocks(blocks, sample)
        with _row_report(report, spans) as mark:
            found = compare(blocks, threads, progress, chosen, mark)
    return Verification((*found, *checks), blocks.bytes_of(chosen), extra)


@contextmanager
def _row_report(path: str | os.PathLike[str] | None, spans: list[Span]) -> Iterator[Callable[[Array], None] | None]:
    """Yield a function that marks rows as different in a .npy file of bools, or None if there is no path."""
    if path is None:
        yield None
        return
    if len(spans) != 1:
        raise ValueError(f"a report is about the rows of one tensor, got {len(spans)} tensors: choose one with tensor=")
    if format_of_path(os.fspath(path)) != ".npy":
        raise ValueError(f"report must be the path of a .npy file, got {os.fspath(path)!r}")
    rows = spans[0].tensor.rows
    header = npy_header((rows,), "|b1")
    if len(header) + rows >= 1 << 63:
        raise ValueError(f"a report must have less than 2**63 bytes, got {rows:,} rows")
    with folder_of(path) as (folder, name):
        check_room(folder, name, len(header) + rows)  # the rows that a truncated file lacks are all written
        fd = open_file(folder, name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            with about(name):
                os.ftruncate(fd, len(header) + rows)

            def write(ranges: Array) -> None:
                for first, last in ranges.tolist():
                    for at in range(first, last, BLOCK_BYTES):
                        count = min(BLOCK_BYTES, last - at)
                        with about(name):
                            pwrite(fd, memoryview(b"\1" * count), len(header) + at)

            yield write
            with about(name):
                pwrite(fd, memoryview(header), 0)
        except BaseException:
            os.unlink(name, dir_fd=folder)
            raise
        finally:
            os.close(fd)

"""Growth of finished tables on disk: rows are appended in place, and those that exist are never touched.

The order is such that a crash leaves a file that others can read, and a plan with which ``resume`` completes it::

    plan          the new recipe, and the number of rows that are kept
    new rows      beyond the end of the table, which its header does not count yet; then fsync
    header        in place: NumPy leaves room in it for a longer shape (.bin files have none); then fsync
    sidecar       the new recipe, by a rename; then the plan is removed

A copy under another name would need the space of both, and values that a training process writes meanwhile to its map
of the file would be lost.
"""

import os
from contextlib import ExitStack
from errno import EEXIST, EPERM

from .._core.validation import check_shape, check_threads
from ..table import Table
from .blocks import Blocks, Progress, rewrite
from .formats import FormatError, format_of_path
from .handles import File
from .plan import Plan
from .posix import folder_of, sync_folder, write_small
from .reader import TensorFile, recorded_beside
from .target import reserve

__all__ = ["append_rows", "extend"]


def extend(
    path: str | os.PathLike[str],
    shape: int | tuple[int, ...],
    *,
    sync: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Append rows to a finished .npy or .bin file; the rows that it has stay as they are, trained ones too.

    The new rows are those that a table of the new shape has there. This needs a table whose values do not depend on the
    number of its rows: ``uniform``, ``normal`` and others without fans, or fans that are given or come from the other
    axes. The recipe is then that of the longer table. After a crash, :func:`resume` or the same call completes the
    file; until then, its old rows can be read as before.

    Parameters
    ----------
    path : str or path
        A .npy or .bin file with its recipe in the sidecar ``PATH.recipe.json``.
    shape : int or tuple of ints
        The new number of rows, or the new shape, which has the other axes of the old one.
    sync, threads, progress
        As in :func:`create`.

    Returns
    -------
    int
        The bytes of the new rows, as far as they were not there after a crash.

    Raises
    ------
    ValueError
        If the values depend on the number of rows, the shape has fewer rows than the file or other axes, or the file is
        a .safetensors file, whose longer header would move all rows.
    FileNotFoundError, FileExistsError, FormatError, OSError, TypeError
        If there is no file or no recipe; if an unfinished table of this name exists; if the file does not match its
        recipe; and as in :func:`create`.

    Examples
    --------
    >>> import numpy as np
    >>> from xavierfast.files import create, verify
    >>> create("grows.npy", Table((1000, 64), "normal", std=0.02, seed=7, name="items"))
    256000
    >>> np.load("grows.npy", mmap_mode="r+")[3] = 1.0
    >>> extend("grows.npy", 1500)
    128000
    >>> np.load("grows.npy").shape, verify("grows.npy").tensors[0].ranges
    ((1500, 64), ((3, 4),))
    """
    check_threads(threads)
    if format_of_path(os.fsdecode(path)) == ".safetensors":
        raise ValueError(
            "extend appends to .npy and .bin files, got a .safetensors file, whose longer header would move all rows: "
            "create a new file and copy the rows"
        )
    with folder_of(path) as (folder, name), ExitStack() as stack:
        earlier, done = Plan.resumed(folder, name, shared=False), 0
        if earlier is not None:
            stack.callback(earlier.close)
            if earlier.kept_rows is None:
                raise FileExistsError(EEXIST, "is unfinished; call resume() to finish it", name)
            with earlier.noted_as_unfinished():
                done = append_rows(folder, earlier, sync, threads, progress)
        (old,) = recorded_beside(folder, name).values()
        new = _longer(old, shape)
        plan = Plan(name, new, None, False)
        plan.kept_rows = old.shape[0]
        _check_file(folder, name, old, plan)
        if new.shape == old.shape:
            return done
        stack.callback(plan.close)
        plan.begin(folder)
        try:
            if sync:
                sync_folder(folder)  # the plan is on the disk before the file changes
            _reserve(folder, plan)
        except BaseException:
            plan.undo(folder)
            raise
        with plan.noted_as_unfinished():
            append_rows(folder, plan, sync, threads, progress)
        return done + new.nbytes - old.nbytes


def _longer(old: Table, shape: int | tuple[int, ...]) -> Table:
    """The table of the new shape, which has the old one's values."""
    if not old.shape:
        raise ValueError("a table without axes has no rows, so none can be appended")
    if "view" in old.recipe:
        raise ValueError("rows can be appended to a whole table, got a file of a part of a larger one")
    sizes = check_shape(shape)
    sizes = sizes if hasattr(shape, "__iter__") else (*sizes, *old.shape[1:])
    if sizes[1:] != old.shape[1:] or sizes[0] < old.shape[0]:
        raise ValueError(
            f"shape must be that of the file, {old.shape}, with more rows, got {shape!r}: extend only appends rows"
        )
    new = Table.from_recipe(old.recipe | {"shape": list(sizes)})
    if new._sampler != old._sampler:
        raise ValueError(
            f"the values of {old.init} depend on the number of rows here, so rows cannot be appended to {old.shape}: "
            f"create a table of the shape {sizes} with fan_in={old.fan_in} and fan_out={old.fan_out}, which gives the "
            "same values, and copy the rows that were trained"
        )
    return new


def _check_file(folder: int, name: str, old: Table, plan: Plan) -> None:
    """Raise an error unless the file is one of the old table, whose header can be replaced by one of equal length."""
    held = TensorFile(folder, name)
    try:
        (entry,) = held.entries({old.name: old})
        with held.file.descriptor() as fd:
            links = os.fstat(fd).st_nlink
    finally:
        held.file.close()
    if entry.problem:
        raise FormatError(f"{name} must match its recipe, but {entry.problem}")
    if held.size != entry.tensor.end:
        raise FormatError(f"{name} must have {entry.tensor.end:,} bytes, got {held.size:,}: verify it first")
    if len(held.image.header) != len(plan.targets[0].image.header):
        raise FormatError(f"{name} must have a header with room for the new shape: save it again by numpy.save")
    if links > 1:
        raise PermissionError(
            EPERM, "has another name too (a hard link), whose contents would change; copy it first", name
        )


def _reserve(folder: int, plan: Plan) -> None:
    """Make room for the new rows, or leave the file as it is."""
    (target,) = plan.targets
    file = File(folder, target.name, os.O_RDWR)
    try:
        size = file.size()
        try:
            reserve(folder, file, target.image.nbytes)
        except BaseException:
            with file.descriptor() as fd:
                os.ftruncate(fd, size)
            raise
    finally:
        file.close()


def append_rows(folder: int, plan: Plan, sync: bool, threads: int | None, progress: Progress | None) -> int:
    """Write the rows that the plan adds to its file, then the header and the recipe; return the bytes written."""
    (target,) = plan.targets
    header = target.image.header
    file = File(folder, target.name, os.O_RDWR)
    try:
        (span,) = target.spans(file)
        first = (plan.kept_rows or 0) * span.row
        begin = span.tensor.begin + first * span.itemsize
        if file.size() < begin:
            raise FormatError(f"{target.name} must have at least {begin:,} bytes, got {file.size():,}: rows were lost")
        reserve(folder, file, target.image.nbytes)
        written = rewrite(Blocks([span._replace(first=first)]), threads, progress)
        if sync:
            file.sync()
        if file.read(len(header), 0) != header:
            file.write(memoryview(header), 0)
            if sync:
                file.sync()
    finally:
        file.close()
    assert plan.sidecar is not None
    plan.remove_temporaries(folder)
    write_small(folder, plan.sidecar, plan.sidecar_data(), True)
    if sync:
        sync_folder(folder)
    plan.end(folder, sync)
    return written

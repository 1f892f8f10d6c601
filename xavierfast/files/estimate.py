"""Prediction of the space and time that a creation needs."""

import os
from errno import EDQUOT, EFBIG, ENOSPC
from time import perf_counter
from typing import NamedTuple

from .._core.validation import check_threads
from .blocks import BLOCK_BYTES, Blocks, for_each, write_block
from .formats import Tables
from .handles import File
from .plan import Plan
from .posix import folder_of, free_bytes

__all__ = ["Estimate", "estimate"]

# The bytes that `estimate` writes to measure the speed of a disk.
TRIAL_BYTES = 1 << 28


class Estimate(NamedTuple):
    """The result of :func:`estimate`."""

    nbytes: int  # the size of all files together
    free: int | None  # the free bytes of the file system; None if it does not say
    seconds: float | None  # the expected time; None if the files do not fit, or a trial file without a name cannot be


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

    The trial is written to a file without a name, which the system removes when it is closed.

    Parameters
    ----------
    path, tables, max_shard_size, force, sync, threads
        As in :func:`create`.

    Raises
    ------
    OSError, TypeError, ValueError
        As in :func:`create`, except that nothing has to fit on the disk.

    Examples
    --------
    >>> from xavierfast import Table
    >>> estimate("large.npy", Table((10**12, 128), seed=0)).nbytes
    512000000000128
    """
    check_threads(threads)
    with folder_of(path) as (folder, name):
        plan = Plan(name, tables, max_shard_size, force)
        plan.refuse_finished(folder)
        plan.refuse_unfinished(folder)
        nbytes, free = plan.nbytes, free_bytes(folder)
        if free is not None and nbytes > free:
            return Estimate(nbytes, free, None)
        try:
            trial = File.unnamed(folder)
        except (AttributeError, OSError):  # only Linux has it, and not on all of its file systems
            return Estimate(nbytes, free, None)
        try:
            blocks = Blocks(span for target in plan.targets for span in target.spans(trial))
            chosen = range(min(len(blocks), TRIAL_BYTES // BLOCK_BYTES))
            begin = perf_counter()
            for_each(blocks, write_block, threads, None, chosen)
            if sync:
                trial.sync()
            seconds = perf_counter() - begin
        except OSError as error:  # others have filled the disk meanwhile, or there is a quota
            if error.errno not in (ENOSPC, EDQUOT, EFBIG):
                raise
            return Estimate(nbytes, free, None)
        finally:
            trial.close()
        return Estimate(nbytes, free, nbytes * seconds / max(1, blocks.bytes_of(chosen)))

"""The command ``extend``."""

from time import perf_counter
from typing import Annotated

import typer

from .. import files
from ..files import specs
from .options import Json, NoSync, Path, Quiet, Threads
from .shell import progress_bar, reporting
from .writing import Report, final_name

__all__ = ["extend"]


def extend(
    path: Path,
    shape: Annotated[str, typer.Argument(metavar="SHAPE")],
    no_sync: NoSync = False,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Append rows to a finished file.

    PATH is a .npy or .bin file, and SHAPE its new shape or number of rows, such as 3Mx128 or 3M. The rows that it has
    stay as they are, trained ones too. The table's values must not depend on the number of rows, as those of xavier_*
    do. After a crash, the same command or xavierfast resume goes on.
    """
    path = final_name(path)
    with reporting(path):
        sizes = specs.parse_shape(shape)
        begin = perf_counter()
        with progress_bar(path, quiet or as_json) as progress:
            written = files.extend(
                path, sizes[0] if len(sizes) == 1 else sizes, sync=not no_sync, threads=threads, progress=progress
            )
        Report(path, "extended", files.tables_of(path), written, perf_counter() - begin).print(quiet, as_json)

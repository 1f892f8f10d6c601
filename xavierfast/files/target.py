"""One file that is being written: its partial file, and the space reserved for it."""

import os
from errno import EEXIST, ENOENT, ENOSYS, ENOTSUP, EOPNOTSUPP
from typing import cast

from ..table import Table
from .blocks import Span
from .formats import Image, format_of_path, write_image
from .handles import File
from .posix import check_own, check_room, exists, fallocate, free_bytes, keep_mode, no_room

__all__ = ["Target", "reserve"]


class Target:
    """One file of a plan: the tables that it will hold, and its ``.partial`` while that is written."""

    def __init__(self, name: str, tables: dict[str, Table]) -> None:
        self.name = name
        self.partial = f"{name}.partial"
        self.tables = tables
        self.image: Image = write_image(format_of_path(name), tables)
        self.file: File | None = None
        self.is_new = False  # whether `create` made the partial file

    def spans(self, file: File | None = None) -> list[Span]:
        """The tensors, in the partial file or in another `file`."""
        tables = [(tensor, self.tables[tensor.name]) for tensor in self.image.tensors]
        place = cast(File, file or self.file)  # None only if nothing will be read or written
        return [Span(place, tensor, table, 0, table.size, table.itemsize) for tensor, table in tables]

    def create(self, folder: int, force: bool) -> None:
        """Create the partial file; with `force`, give it the permissions of the file that it will replace."""
        self.file = File(folder, self.partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, fleeting=True)
        self.is_new = True
        if force:
            with self.file.descriptor() as fd:
                keep_mode(folder, self.name, fd)

    def open(self, folder: int) -> None:
        """Open the partial file that exists, which must be this user's own."""
        self.file = File(folder, self.partial, os.O_RDWR, fleeting=True)
        with self.file.descriptor() as fd:
            check_own(folder, self.partial, fd, twin=self.name)

    def check_places(self, folder: int, force: bool) -> None:
        """Raise an error if another process has removed or replaced the partial file, or created the final one."""
        file = cast(File, self.file)
        if not exists(folder, self.partial):
            raise FileNotFoundError(ENOENT, "was removed while it was being written", self.partial)
        if not file.is_named(self.partial):
            raise FileExistsError(EEXIST, "was replaced by another file while it was being written", self.partial)
        if not force and exists(folder, self.name) and not file.is_named(self.name):
            message = "has been created in the meantime; move it away, then call resume()"
            raise FileExistsError(EEXIST, message, self.name)

    def held_bytes(self) -> int:
        """The space that the partial file has already, as far as the whole file needs it."""
        with cast(File, self.file).descriptor() as fd:
            return min(self.image.nbytes, os.fstat(fd).st_blocks * 512)

    def prepare(self, folder: int) -> int:
        """Reserve the space of the whole file, and write its header; return the bytes of a header that was wrong."""
        file, header = cast(File, self.file), self.image.header
        reserve(folder, file, self.image.nbytes)
        if file.read(len(header), 0) == header:
            return 0
        file.write(memoryview(header), 0)
        return len(header)

    def sync(self) -> None:
        cast(File, self.file).sync()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


def reserve(folder: int, file: File, need: int) -> None:
    """Give a file its length and its space, so that a full disk is reported before the first byte is written."""
    with file.descriptor() as fd:
        found = os.fstat(fd)
        if found.st_size > need:
            os.ftruncate(fd, need)
        if not need:
            return
        check_room(folder, file.name, need, min(need, found.st_blocks * 512))
        code = fallocate(fd, need)
        if code in (ENOSYS, ENOTSUP, EOPNOTSUPP):  # this file system cannot reserve space
            os.ftruncate(fd, need)
        elif code:
            raise OSError(code, no_room(code, need, free_bytes(folder)), file.name)

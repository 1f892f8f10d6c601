"""One file that is being written: its partial file, the lock on it, and the space reserved for it."""

import os
from contextlib import suppress
from errno import EAGAIN, EEXIST, ENOENT, ENOLCK, ENOSPC, ENOSYS, ENOTSUP

from ..table import Table
from .blocks import Span
from .formats import Image, format_of_path, write_image
from .posix import Kind, exists, fallocate, free_bytes, is_open, kind_of, open_file

try:
    import fcntl
except ImportError:
    raise ImportError("xavierfast.files needs a POSIX system: it locks files and writes them with pwrite") from None

__all__ = ["Target", "refuse_small_disk"]


class Target:
    """One file of a plan: the tables that it will hold, and the descriptor of its ``.partial`` while that is open."""

    def __init__(self, name: str, tables: dict[str, Table]) -> None:
        self.name = name
        self.partial = f"{name}.partial"
        self.tables = tables
        self.image: Image = write_image(format_of_path(name), tables)
        self.fd = -1
        self.is_new = False  # whether `claim` created the partial file

    def spans(self) -> list[Span]:
        tables = [(tensor, self.tables[tensor.name]) for tensor in self.image.tensors]
        return [Span(self.fd, tensor, table, 0, table.size, table.itemsize) for tensor, table in tables]

    def claim(self, folder: int, flags: int, shared: bool = False) -> None:
        """Open and lock the partial file, or raise an error if another process is using it.

        `flags` are O_CREAT and O_EXCL, or 0 for a file that exists. Processes that write parts share the lock.
        """
        try:
            self.fd = open_file(folder, self.partial, os.O_RDWR | flags)
        except FileExistsError:
            if not flags & os.O_EXCL:
                raise
            raise FileExistsError(EEXIST, "another process has just begun to write it", self.partial) from None
        _lock(self.fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, self.partial)
        if not is_open(folder, self.partial, self.fd):
            raise FileExistsError(EEXIST, "another process has just completed or removed it", self.partial)
        self.is_new = bool(flags & os.O_EXCL)

    def refuse_writer(self, folder: int) -> None:
        """Raise BlockingIOError if another process is writing the partial file."""
        with suppress(FileNotFoundError, PermissionError):
            fd = open_file(folder, self.partial, os.O_RDWR)
            try:
                _lock(fd, fcntl.LOCK_EX, self.partial)
            finally:
                os.close(fd)

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
            raise FileNotFoundError(ENOENT, "was removed while it was being written", self.partial)
        if not is_open(folder, self.partial, self.fd):
            raise FileExistsError(EEXIST, "was replaced by another file while it was being written", self.partial)
        if not force and exists(folder, self.name) and not is_open(folder, self.name, self.fd):
            message = "has been created in the meantime; move it away, then call resume()"
            raise FileExistsError(EEXIST, message, self.name)

    def reserve(self) -> None:
        """Reserve space for the whole file, so that a full disk is reported before the first byte is written.

        The free space is asked for first: fallocate takes all of it for a moment before it fails.
        """
        need, have = self.image.nbytes, os.fstat(self.fd)
        if have.st_size > need:
            os.ftruncate(self.fd, need)
        if not need:
            return
        refuse_small_disk(self.fd, need, self.name, have.st_blocks * 512)
        code = fallocate(self.fd, need)
        if code in (ENOSYS, ENOTSUP):  # this file system cannot reserve space
            os.ftruncate(self.fd, need)
        elif code:
            raise OSError(code, f"{os.strerror(code)}: the system refuses the {need:,} bytes of the file", self.name)

    def sync(self, folder: int) -> None:
        try:
            os.fsync(self.fd)
        except OSError as error:  # some bytes may be lost, and a second fsync would still report success
            os.unlink(self.partial, dir_fd=folder)
            message = f"{error.strerror}: fsync failed, so the file was removed; call resume() to write it again"
            raise OSError(error.errno, message, self.name) from error

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def refuse_small_disk(fd: int, need: int, name: str, taken: int = 0) -> None:
    """Raise OSError if `need` bytes, of which a file has `taken` some already, do not fit on the disk of `fd`."""
    free = free_bytes(fd)
    if free is not None and need > free + taken:
        message = f"{os.strerror(ENOSPC)}: {need:,} bytes are needed, and {free + taken:,} are free"
        raise OSError(ENOSPC, message, name)


def _lock(fd: int, how: int, name: str) -> None:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(EAGAIN, "another process is writing this file", name) from None
    except OSError as error:
        if error.errno not in (ENOSYS, ENOTSUP, ENOLCK):  # these mean a file system without locks
            raise

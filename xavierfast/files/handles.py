"""Open files, of which only some have a descriptor: a model may consist of more files than a process may have open."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EEXIST, EMFILE, ENFILE
from resource import RLIMIT_NOFILE, getrlimit

from .posix import about, open_file, pread, pread_into, pwrite

__all__ = ["File"]

# The number of descriptors that stay open for files of tensors, unless a quarter of the process's limit is less.
MAX_OPEN = 100
# A lock that the same thread may take again, as a handler of signals may use files too.
_guard = threading.RLock()
_open: "dict[File, None]" = {}  # the least recently used comes first


class File:
    """A regular file. Its descriptor may be closed when nobody uses it, and is opened again when somebody does.

    A `fleeting` file is an unfinished one, which is removed if fsync fails: it is then unknown which bytes are on the
    disk, and a second fsync would report success.
    """

    def __init__(self, folder: int, name: str, flags: int, follow: bool = False, fleeting: bool = False) -> None:
        self.folder, self.name, self.fleeting = folder, name, fleeting
        self._flags, self._follow = flags & ~(os.O_CREAT | os.O_EXCL), follow
        self._users, self._fd, self._written = 0, -1, False
        with _guard:
            self._fd = self._opened(flags)
            try:
                with about(name):
                    self._stat = os.fstat(self._fd)
            except BaseException:
                os.close(self._fd)
                if flags & os.O_EXCL:
                    os.unlink(name, dir_fd=folder)
                raise
            _open[self] = None

    @classmethod
    def unnamed(cls, folder: int) -> "File":
        """A new file without a name (O_TMPFILE), which the system removes when it is closed."""
        file = object.__new__(cls)
        file.folder, file.name, file.fleeting = folder, "a trial file", False
        file._fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, dir_fd=folder)
        file._users, file._written = 1, False  # so that its descriptor stays open
        return file

    @contextmanager
    def descriptor(self) -> Iterator[int]:
        with _guard:
            if self._fd < 0:
                fd = self._opened(self._flags)
                if not os.path.samestat(os.fstat(fd), self._stat):
                    os.close(fd)
                    raise FileExistsError(EEXIST, "was replaced by another file meanwhile", self.name)
                self._fd = fd
            _open.pop(self, None)
            _open[self] = None
            self._users += 1
        try:
            with about(self.name):
                yield self._fd
        finally:
            with _guard:
                self._users -= 1

    def _opened(self, flags: int) -> int:
        while True:
            while len(_open) >= _most_open() and _close_one():
                pass
            try:
                return open_file(self.folder, self.name, flags, self._follow)
            except OSError as error:
                if error.errno not in (EMFILE, ENFILE) or not _close_one():
                    raise

    def is_named(self, name: str) -> bool:
        """Whether a name in the folder refers to this file."""
        try:
            return os.path.samestat(os.stat(name, dir_fd=self.folder, follow_symlinks=False), self._stat)
        except FileNotFoundError:
            return False

    def size(self) -> int:
        with self.descriptor() as fd:
            return os.fstat(fd).st_size

    def read(self, count: int, offset: int) -> bytes:
        with self.descriptor() as fd:
            return pread(fd, count, offset)

    def read_into(self, data: memoryview, offset: int) -> int:
        with self.descriptor() as fd:
            return pread_into(fd, data, offset)

    def write(self, data: memoryview, offset: int) -> None:
        with self.descriptor() as fd:
            self._written = True
            pwrite(fd, data, offset)

    def sync(self) -> None:
        with self.descriptor() as fd:
            self._sync(fd)

    def _sync(self, fd: int) -> None:
        try:
            os.fsync(fd)
            self._written = False
        except OSError as error:
            way = "write it again"
            if self.fleeting:
                os.unlink(self.name, dir_fd=self.folder)
                way = "so the file was removed; call resume() to write it again"
            raise OSError(error.errno, f"{error.strerror}: fsync failed, {way}", self.name) from error

    def close(self) -> None:
        with _guard:
            _open.pop(self, None)
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)


def _most_open() -> int:
    limit = getrlimit(RLIMIT_NOFILE)[0]
    return MAX_OPEN if limit < 0 else min(MAX_OPEN, limit // 4)  # no limit is a negative number on Linux


def _close_one() -> bool:
    """Close the descriptor that was not used for the longest time; return whether there is one."""
    for file in _open:
        if not file._users:
            if file._written:  # an error of the disk would be lost with the descriptor
                file._sync(file._fd)
            file.close()
            return True
    return False

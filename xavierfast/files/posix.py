"""File operations: symlinks are followed only on request, small files are written atomically, no write is short.

Each OSError names the file that it is about, and whatever is found under a name is judged by its open descriptor.
"""

import fcntl
import os
import re
import secrets
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from errno import (
    EAGAIN,
    EDQUOT,
    EEXIST,
    EINTR,
    EIO,
    ELOOP,
    EMLINK,
    ENOLCK,
    ENOSPC,
    ENOSYS,
    ENOTSUP,
    EOPNOTSUPP,
    EPERM,
)  # fmt: skip
from typing import Any

from .untrusted_json import FormatError, from_json

# ---- names in an open folder, which nobody can redirect by renaming or replacing the folder


@contextmanager
def folder_of(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Open the folder of a path; yield its descriptor, and the file's name in it."""
    check_local(path)
    folder, name = os.path.split(os.fsdecode(path))
    fd = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with about(name):
            yield fd, name
    finally:
        os.close(fd)


def check_local(path: str | os.PathLike[str]) -> None:
    """Raise ValueError for a URL: files are written in place, which object stores cannot do."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", os.fsdecode(path)):
        raise ValueError(
            f"a path must be that of a file on a disk or on shared storage, got {os.fsdecode(path)!r}: "
            "xavierfast.dask.create writes zarr arrays to object stores"
        )


class Kind(Enum):
    """The kind of a folder's entry; the values are nouns for error messages."""

    NOTHING = "nothing"
    FILE = "a regular file"
    SYMLINK = "a symlink"
    FOLDER = "a folder"
    FIFO = "a named pipe"
    OTHER = "a device or a socket"


def kind_of(folder: int, name: str) -> Kind:
    """The kind of the entry that has this name; a symlink is not followed."""
    try:
        return _kind_of_mode(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return Kind.NOTHING


def _kind_of_mode(mode: int) -> Kind:
    kinds = {
        stat.S_IFREG: Kind.FILE, stat.S_IFLNK: Kind.SYMLINK, stat.S_IFDIR: Kind.FOLDER, stat.S_IFIFO: Kind.FIFO,
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), Kind.OTHER)


def exists(folder: int, name: str) -> bool:
    """Whether an entry of any kind has this name."""
    return kind_of(folder, name) is not Kind.NOTHING


@contextmanager
def about(name: str) -> Iterator[None]:
    """Give the file's name to each OSError, which those from calls with a descriptor lack."""
    try:
        yield
    except OSError as error:
        if error.filename is None or isinstance(error.filename, int):
            error.filename = name
        raise


def open_file(folder: int, name: str, flags: int, follow: bool = False) -> int:
    """Open a regular file and return its descriptor; a symlink is an error unless `follow`, which is for reading.

    A file that this call has created is removed again if the call fails.
    """
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(name, flags, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno == ELOOP:
            raise OSError(ELOOP, "is a symlink, which is not followed; remove it first", name) from None
        kind = kind_of(folder, name)
        if kind not in (Kind.NOTHING, Kind.FILE, Kind.SYMLINK):  # a folder cannot be written, a socket not opened
            raise FileExistsError(EEXIST, f"is {kind.value}, not a regular file", name) from None
        raise
    try:
        with about(name):
            kind = _kind_of_mode(os.fstat(fd).st_mode)
        if kind is not Kind.FILE:
            raise FileExistsError(EEXIST, f"is {kind.value}, not a regular file", name)
    except BaseException:
        os.close(fd)
        if flags & os.O_EXCL:
            os.unlink(name, dir_fd=folder)
        raise
    return fd


def check_own(folder: int, name: str, fd: int, twin: str | None = None, links: bool = False) -> None:
    """Raise PermissionError for an unfinished file that another user could have put there, or that has another name.

    Its owner could write to it at any time; and through a hard link, the file of the other name would be written. Only
    the hard link `twin` is accepted, which a crash in ``move`` leaves, or any where nothing is written (`links`).
    """
    with about(name):
        found = os.fstat(fd)
    if found.st_uid not in (os.geteuid(), _owner_of_new_files(folder, name, found.st_uid)):
        message = f"belongs to another user (uid {found.st_uid}), who could change it; remove it, or write as that user"
        raise PermissionError(EPERM, message, name)
    if (
        found.st_nlink > 1
        and not links
        and not (twin is not None and found.st_nlink == 2 and is_open(folder, twin, fd))
    ):
        message = "has another name too (it is a hard link), under which another file would be written; remove it"
        raise PermissionError(EPERM, message, name)


def _owner_of_new_files(folder: int, name: str, owner: int) -> int:
    """The uid that files of this process get in a folder: on a network's disk, root may be mapped to another user."""
    if owner == os.geteuid():
        return owner
    trial = f".{name}.{secrets.token_hex(8)}"
    fd = open_file(folder, trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        return os.fstat(fd).st_uid
    finally:
        os.close(fd)
        os.unlink(trial, dir_fd=folder)


def is_open(folder: int, name: str, fd: int) -> bool:
    """Whether a name refers to the open file `fd`."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def move(folder: int, source: str, target: str, replace: bool) -> None:
    """Rename `source` to `target`; raise FileExistsError if `target` exists, unless `replace`."""
    if not replace:
        try:
            os.link(source, target, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            fd = open_file(folder, source, os.O_RDONLY)
            try:
                if not is_open(folder, target, fd):  # else a crash between link and unlink has left both names
                    raise
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno not in (EPERM, ENOSYS, ENOTSUP, EMLINK):
                raise
            if exists(folder, target):  # a file system without hard links
                raise FileExistsError(EEXIST, "already exists", target) from None
            replace = True
    if replace:
        os.rename(source, target, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        os.unlink(source, dir_fd=folder)


def write_small(folder: int, name: str, data: bytes, replace: bool) -> None:
    """Write a small file atomically: temporary file, fsync, rename. A file that replaces another keeps its mode."""
    os.close(write_locked(folder, name, data, replace, None))


def write_locked(folder: int, name: str, data: bytes, replace: bool, how: int | None) -> int:
    """``write_small``, but locked from the first moment, unless `how` is None; return the descriptor."""
    temporary = f".{name}.{secrets.token_hex(8)}"
    fd = open_file(folder, temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        with about(name):
            pwrite(fd, memoryview(data), 0)
            if replace:
                keep_mode(folder, name, fd)
            os.fsync(fd)
        if how is not None:
            lock(fd, how, name)
        move(folder, temporary, name, replace)
        return fd
    except BaseException:
        os.close(fd)
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise


def keep_mode(folder: int, name: str, fd: int) -> None:
    """Give an open file the permissions of the file that it will replace, if there is one."""
    with suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode):
            os.fchmod(fd, found.st_mode & 0o777)


def remove_matching(folder: int, pattern: str) -> int:
    """Remove the files whose whole name matches a pattern of ``re``; return their number."""
    names = list(filter(re.compile(pattern).fullmatch, os.listdir(folder)))
    for name in names:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
    return len(names)


def read_json(folder: int, name: str, most: int, follow: bool = False) -> Any:
    """Parse a file of at most `most` bytes."""
    fd = open_file(folder, name, os.O_RDONLY, follow)
    try:
        return json_of(fd, name, most)
    finally:
        os.close(fd)


def json_of(fd: int, name: str, most: int) -> Any:
    with about(name):
        size = os.fstat(fd).st_size
        if size > most:
            raise FormatError(f"{name} must have at most {most:,} bytes, got {size:,}")
        return from_json(pread(fd, size, 0))


def sync_folder(folder: int) -> None:
    """Wait until the names in an open folder are on the disk."""
    os.fsync(folder)


_warned_of_locks = False


def lock(fd: int, how: int, name: str, wait: bool = False) -> None:
    """Lock an open file; raise BlockingIOError if another process has a lock, unless this may `wait`."""
    global _warned_of_locks
    try:
        fcntl.flock(fd, how if wait else how | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(EAGAIN, "another process is writing this file", name) from None
    except OSError as error:
        if error.errno not in (ENOSYS, ENOTSUP, EOPNOTSUPP, ENOLCK):
            error.filename = name
            raise
        if not _warned_of_locks:
            _warned_of_locks = True
            message = "this file system has no locks (flock): only one process at a time may write a table here"
            warnings.warn(message, RuntimeWarning, stacklevel=2)


def free_bytes(fd: int) -> int | None:
    """The bytes that this process may still write on the file system of an open file or folder, None if unknown."""
    stat = os.statvfs(fd)
    if not stat.f_blocks:  # some network file systems say nothing
        return None
    return (stat.f_bavail if os.geteuid() else stat.f_bfree) * stat.f_frsize


def pwrite(fd: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        if not written:
            raise OSError(EIO, "the system wrote nothing and gave no reason")
        data, offset = data[written:], offset + written


def pread_into(fd: int, data: memoryview, offset: int) -> int:
    """Read into `data`; return the number of bytes read, which is less than its length only at the end of the file."""
    done = 0
    while done < len(data):
        count = os.preadv(fd, [data[done:]], offset + done)
        if not count:
            break
        done += count
    return done


def pread(fd: int, count: int, offset: int) -> bytes:
    """Read `count` bytes, or fewer at the end of the file."""
    data = bytearray(count)
    return bytes(data[: pread_into(fd, memoryview(data), offset)])


def check_room(folder: int, name: str, need: int, held: int = 0) -> None:
    """Raise OSError if a file of `need` bytes, of which it holds some already, does not fit on its disk.

    This comes before fallocate: one that fails takes the space of everybody else for a moment.
    """
    free = free_bytes(folder)
    if free is not None and need > free + held:
        raise OSError(ENOSPC, no_room(ENOSPC, need - held, free), name)


def no_room(code: int, need: int, free: int | None) -> str:
    has = "an unknown number is free" if free is None else f"{free:,} are free"
    limit = ", and a quota leaves fewer to this user" if code == EDQUOT else ""
    return f"{os.strerror(code)}: {need:,} bytes are needed, and {has}{limit}"


def fallocate(fd: int, nbytes: int) -> int:
    """Reserve space with fallocate(2); return its error number, or 0.

    Where the file system lacks fallocate, os.posix_fallocate is no substitute: glibc would write to each block.
    """
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if call is None:
        return ENOSYS
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while call(fd, 0, 0, nbytes):
        if ctypes.get_errno() != EINTR:
            return ctypes.get_errno()
    return 0
